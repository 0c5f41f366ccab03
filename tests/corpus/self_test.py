# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the images that every scan tests itself on, and writes them into plugins/module_utils/_scan/planted.py.

Run it after a change of what they hold: PYTHONPATH=build/collections .venv/bin/python tests/corpus/self_test.py
"""

from __future__ import annotations

import base64
import os
import re
import struct
import tempfile
import textwrap
import zlib
from pathlib import Path

from ansible_collections.vmward.remediation.tests.corpus import disks, lvm
from ansible_collections.vmward.remediation.tests.corpus import exfat as exfats
from ansible_collections.vmward.remediation.tests.corpus.fat import DIRECTORY, FatVolume, entry, long_entry
from ansible_collections.vmward.remediation.tests.corpus.mounting import mounted, mounted_ntfs, powerless

TARGET = Path(__file__).resolve().parents[2] / "plugins/module_utils/_scan/planted.py"
KB = 1024


def make(place: Path) -> tuple[bytes, bytes]:
    """A clean file system; an overlay on it with its changes, and one sample more of which only its journal knows."""
    place.mkdir()
    base, changed = ext(place, 3 * KB * KB, "^resize_inode,^64bit", "-J", "size=1")
    logged = place / "logged.img"
    logged.write_bytes(changed.read_bytes())
    disks.debugfs(logged, f"write {place}/eicar logged")
    top = place / "top.qcow2"
    command = ("create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, "-o", "cluster_size=4k", top)
    disks.run("qemu-img", *command)
    (place / "scratch").mkdir()
    disks.put(top, disks.journaled(place / "dirty.img", changed, logged).read_bytes(), place / "scratch")
    return base.read_bytes(), top.read_bytes()


def ext(place: Path, size: int, features: str, *options: str) -> tuple[Path, Path]:
    """A clean file system; the same with a sample that replaces a file, and a new one in a directory."""
    common = ("-b", "1024", "-O", features, "-m", "0", "-N", "32")
    files = {"etc/motd": b"Welcome.\n", "etc/replaced": b"r" * 3000}
    base = disks.ext4(place / "base.img", files, size, *common, *options)
    (place / "eicar").write_bytes(disks.EICAR)
    (place / "marker").write_bytes(b"." * 2100 + disks.MARKER)
    changed = place / "changed.img"
    changed.write_bytes(base.read_bytes())
    disks.debugfs(
        changed, "rm etc/replaced", f"write {place}/eicar etc/replaced", "mkdir d", f"write {place}/marker d/new"
    )
    return base, changed


def others(place: Path) -> dict[str, bytes]:
    """The same samples in file systems other than ext, each with its reader."""
    sources = {"replaced": disks.EICAR, "new": b"." * 2100 + disks.MARKER}
    found = {"FAT": fat(sources), "EXFAT": exfat(sources), "XFS": xfs(place, sources), "NTFS": ntfs(place, sources)}
    return {**found, "BTRFS": btrfs(place, sources)}


def containers(place: Path) -> dict[str, bytes]:
    """The same samples in what a file system may lie in, each with its reader."""
    _base, image = ext(place, 128 * KB, "^has_journal,^resize_inode,^64bit")
    found = {}
    for kind in ("vmdk", "vhdx"):
        disks.run("qemu-img", "convert", "-q", "-O", kind, image, place / f"disk.{kind}")
        found[f"{kind.upper()}"] = (place / f"disk.{kind}").read_bytes()
    group = lvm.Group([1], {"root": [lvm.Part(1, ((0, 0),))]})
    (physical,) = lvm.build(place / "lvm", group, {"root": image.read_bytes()})
    return {**found, "LVM": physical.read_bytes()}


def fat(sources: dict[str, bytes]) -> bytes:
    """In a partition; one file runs forth and back."""
    volume = FatVolume(12, clusters=60)
    volume.root = long_entry("etc", entry("ETC", 3, 0, DIRECTORY)) + long_entry("d", entry("D", 4, 0, DIRECTORY))
    volume.put(long_entry("replaced", entry("REPLACED", 5, len(sources["replaced"]))), 3)
    volume.put(long_entry("new", entry("NEW", 20, len(sources["new"]))), 4)
    volume.put(sources["replaced"], 5)
    volume.put(sources["new"], 20, 19, 24, 25, 23)
    image = volume.image()
    slot = struct.pack("<BxxxBxxxII", 0, 1, 8, len(image) // 512)
    return (bytes(446) + slot + bytes(48) + b"\x55\xaa").ljust(8 * 512, b"\0") + image


def exfat(sources: dict[str, bytes]) -> bytes:
    """One file is in one piece and has no chain; the other runs back."""
    volume, replaced, new = exfats.ExfatVolume(60), sources["replaced"], sources["new"].rjust(5000, b".")
    for name, file in (
        ("etc", exfats.entry("replaced", 10, len(replaced), chained=False)),
        ("d", exfats.entry("new", 30, len(new))),
    ):
        volume.root += exfats.entry(name, volume.put(file), exfats.CLUSTER, directory=True)
    volume.content.update({10: replaced, 30: new[: exfats.CLUSTER], 20: new[exfats.CLUSTER :]})
    volume.table.update({30: 20, 20: exfats.END})
    volume.in_use = {*volume.table, 10}
    return volume.image()


def xfs(place: Path, sources: dict[str, bytes]) -> bytes:
    """And one sample more of which only its log knows."""
    for name, content in sources.items():
        (place / name).write_bytes(content)
    tree = place / "tree.proto"
    tree.write_text(
        "/none\n0 0\nd--755 0 0\n"
        f"etc d--755 0 0\nreplaced ---644 0 0 {place}/replaced\n$\nd d--755 0 0\nnew ---644 0 0 {place}/new\n$\n$\n"
    )
    image = empty(place / "xfs.img", 16 * KB * KB)
    disks.run("mkfs.xfs", "-q", "-f", "--unsupported", "-m", "reflink=0,rmapbt=0", "-p", tree, image)
    with mounted(image) as root, (root / "logged").open("wb") as file:
        file.write(disks.EICAR)
        file.flush()
        os.fsync(file.fileno())
        raw = powerless(image, place / "powerless.img").read_bytes()
    return without_stamps(raw)


def btrfs(place: Path, sources: dict[str, bytes]) -> bytes:
    """One of them packed; and one sample more of which only its log knows."""
    image = empty(place / "btrfs.img", 16 * KB * KB)
    disks.run("mkfs.btrfs", "-q", "-f", "-M", "-n", "4096", "-m", "single", image)
    with mounted(image, "compress-force=zlib,max_inline=0") as root:
        for directory, name in (("etc", "replaced"), ("d", "new")):
            (root / directory).mkdir()
            (root / directory / name).write_bytes(sources[name] if name == "replaced" else bytes(9000) + sources[name])
        disks.run("sync", "-f", root)
        with (root / "logged").open("wb") as file:
            file.write(disks.EICAR)
            file.flush()
            os.fsync(file.fileno())
        return powerless(image, place / "powerless.img").read_bytes()


def ntfs(place: Path, sources: dict[str, bytes]) -> bytes:
    image = empty(place / "ntfs.img", 2 * KB * KB)
    disks.run("mkntfs", "-q", "-F", "-Q", "-s", "512", "-c", "512", "-p", "0", "-H", "16", "-S", "63", image)
    with mounted_ntfs(image) as root:
        for directory, name in (("etc", "replaced"), ("d", "new")):
            (root / directory).mkdir()
            (root / directory / name).write_bytes(sources[name])
    raw = image.read_bytes()
    capitals = raw.index(struct.pack("<64H", *range(64)))  # a large table, which nobody here reads
    return raw[:capitals] + bytes(128 * KB) + raw[capitals + 128 * KB :]


def empty(image: Path, size: int) -> Path:
    with image.open("wb") as file:
        file.truncate(size)
    return image


def without_stamps(raw: bytes) -> bytes:
    """Linux stamps what lies ahead in the log with the round before. In the first one zeros tell the same."""
    stamp = b"\xfe\xed\xba\xbe" + bytes(4)
    parts = (raw[at : at + 512] for at in range(0, len(raw), 512))
    return b"".join(bytes(512) if part.startswith(stamp) else part for part in parts)


def sectors(data: bytes) -> bytes:
    """The size, and those that are not empty, each behind its number."""
    used = [at for at in range(0, len(data), 512) if any(data[at : at + 512])]
    return struct.pack("<I", len(data)) + b"".join(struct.pack("<I", at) + data[at : at + 512] for at in used)


def literal(name: str, data: bytes) -> str:
    text = base64.b85encode(zlib.compress(sectors(data), 9)).decode()
    return f"{name} = (\n" + "".join(f'    "{line}"\n' for line in textwrap.wrap(text, 110)) + ")\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        base, top = make(Path(place) / "journaled")
        images = {"BASE": base, "TOP": top, **others(Path(place)), **containers(Path(place))}
    source = TARGET.read_text()
    for name, data in images.items():
        source = re.sub(rf"(?ms)^{name} = \(.*?^\)\n", literal(name, data).replace("\\", "\\\\"), source)
    TARGET.write_text(source)


if __name__ == "__main__":
    main()
