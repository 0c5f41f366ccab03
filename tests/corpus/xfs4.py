# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""XFS of version 4 as a guest leaves it that loses its power, and what Linux makes of it at the next mount.

Few kernels mount it: it was recorded in VMs with Debian's. To record it anew (needs QEMU, busybox, cpio, kmod):
  apt-get download linux-image-6.1.0-57-cloud-amd64
  PYTHONPATH=build/collections .venv/bin/python tests/corpus/xfs4.py linux-image-*.deb
"""

from __future__ import annotations

import base64
import json
import lzma
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_walk import XfsWalk
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.self_test import without_stamps

PYTHON = "/usr/bin/python3"
GUEST, RECORDS = Path(__file__).with_name("xfs4_guest.py"), Path(__file__).with_name("xfs4_records")
SECTOR, BLOCK, SIZE = 512, 4096, 40 * disks.MB
MADE = {  # with which options
    "as RHEL 6 makes it": ("-i", "attr=2,projid32bit=0", "-n", "ftype=0"),
    "log of version 1": ("-l", "version=1,lazy-count=0", "-i", "attr=1,projid32bit=0", "-n", "ftype=0"),
    "smallest blocks": ("-b", "size=512", "-n", "ftype=1"),
    "large directory blocks": ("-b", "size=1024", "-n", "size=8192,ftype=1"),
    "large inodes": ("-i", "size=512", "-n", "ftype=1"),
    "records of full size": ("-l", "su=256k"),
}
DRIVERS = "virtio_pci", "virtio_blk", "xfs"
INIT = """#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r driver; do insmod "/drivers/$driver"; done < /drivers/order
sleep 0.2
python3 -S -E /guest.py $(sed 's/.*guest=//; s/,/ /' /proc/cmdline) < /dev/null
echo GUEST-ENDED
poweroff -f
"""

Row = tuple[int, int, int, int, int, str]  # mode, owner, links, time of change, of writing; of a file the hash
Tree = dict[str, Row]


class Record(NamedTuple):
    image: bytes
    seen: Tree  # by Linux, once it was mounted
    forged: dict[str, Tree]  # the same of what `FORGED` makes of the image

    def put(self, place: Path) -> Path:
        """With holes, so that it takes no room."""
        with place.open("wb") as file:
            file.truncate(len(self.image))
            for at in range(0, len(self.image), BLOCK):
                block = self.image[at : at + BLOCK]
                if block.count(0) != len(block):
                    file.seek(at)
                    file.write(block)
        return place


def load(name: str) -> Record:
    told = json.loads(_file(name).read_text())
    seen = _tree(told["seen"])
    return Record(_unpacked(told["image"]), seen, {how: seen | _tree(rows) for how, rows in told["forged"].items()})


def save(name: str, record: Record) -> None:
    """Of what was forged only what is seen otherwise."""
    forged = {how: dict(tree.items() - record.seen.items()) for how, tree in record.forged.items()}
    assert all(tree.keys() == record.seen.keys() for tree in record.forged.values())
    told = {"image": _packed(record.image), "seen": record.seen, "forged": forged}
    _file(name).write_text(json.dumps(told) + "\n")


def _file(name: str) -> Path:
    return RECORDS / (name.replace(" ", "_") + ".json")


def _tree(rows: dict[str, list[Any]]) -> Tree:
    return {path: (row[0], row[1], row[2], row[3], row[4], row[5]) for path, row in rows.items()}


def _packed(image: bytes) -> str:
    """Those sectors that are not empty; before them the size of all, how many there are, and their numbers."""
    used = [at for at in range(0, len(image), SECTOR) if any(image[at : at + SECTOR])]
    head = struct.pack(f"<{2 + len(used)}I", len(image), len(used), *used)
    return base64.b85encode(lzma.compress(head + b"".join(image[at : at + SECTOR] for at in used), preset=9)).decode()


def _unpacked(text: str) -> bytes:
    data = lzma.decompress(base64.b85decode(text))
    size, count = struct.unpack_from("<2I", data)
    image, place = bytearray(size), 8 + 4 * count
    for at in struct.unpack_from(f"<{count}I", data, 8):
        image[at : at + SECTOR] = data[place : place + SECTOR]
        place += SECTOR
    return bytes(image)


def inode_of(image: Path, path: str) -> int:
    """Where it lies, as the directories lie."""
    volume, found = Raw(os.open(image, os.O_RDONLY)), dict[str, int]()
    list(XfsWalk(volume).files(see=lambda _directory, entry: found.update({entry.path: entry.inode.number})))
    head = volume.read(0, SECTOR)
    block, group_blocks = struct.unpack_from(">I", head, 4)[0], struct.unpack_from(">I", head, 84)[0]
    size = struct.unpack_from(">H", head, 104)[0]
    group, within = divmod(found[path], 1 << head[123] + head[124])
    return int(group * group_blocks * block + within * size)


def records_in(image: Path) -> list[int]:
    """Where those of a log begin that has not gone round."""
    raw = image.read_bytes()
    start, group_blocks = struct.unpack_from(">Q", raw, 48)[0], struct.unpack_from(">I", raw, 84)[0]
    block, blocks = struct.unpack_from(">I", raw, 4)[0], struct.unpack_from(">I", raw, 96)[0]
    first = ((start >> raw[124]) * group_blocks + (start & (1 << raw[124]) - 1)) * block
    places = range(first, first + blocks * block, SECTOR)
    return [at for at in places if raw[at : at + 8] == b"\xfe\xed\xba\xbe\0\0\0\1"]


def without_sums(image: Path) -> None:
    """As kernels before 3.8 write them."""
    for at in records_in(image):
        disks.write_at(image, at + 32, bytes(4))


def written_often(image: Path) -> None:
    """It says that it was written more often than when its log was."""
    disks.write_at(image, inode_of(image, "/victim") + 30, struct.pack(">H", 900))


def written_as_often_as_can_be(image: Path) -> None:
    """From there Linux counts anew."""
    disks.write_at(image, inode_of(image, "/victim") + 30, struct.pack(">H", 0xFFFF))


def of_version_1(image: Path) -> None:
    """An inode that counts its links in 16 bits."""
    at = inode_of(image, "/first")
    disks.write_at(image, at + 4, b"\1")
    disks.write_at(image, at + 6, struct.pack(">H", 1))
    disks.write_at(image, at + 16, bytes(4))


FORGED: tuple[Callable[[Path], None], ...] = (without_sums, written_often, written_as_often_as_can_be, of_version_1)


class Boot:
    """A kernel, and an initial file system with this Python and the guest's program in it."""

    def __init__(self, package: Path, place: Path) -> None:
        """`package`: of Debian, `linux-image-...-cloud-amd64`."""
        self._root, self._initrd, tree = place / "kernel", place / "initrd.img", place / "initrd"
        disks.run("dpkg-deb", "-x", package, self._root)
        (self._kernel,) = self._root.glob("boot/vmlinuz-*")
        for folder in ("bin", "dev", "proc", "sys", "mnt", "drivers"):
            (tree / folder).mkdir(parents=True)
        shutil.copy("/usr/bin/busybox", tree / "bin")
        for applet in ("sh", "mount", "insmod", "sleep", "sed", "poweroff"):
            (tree / "bin" / applet).symlink_to("busybox")
        (tree / "bin/python3").symlink_to(PYTHON)
        (tree / "init").write_text(INIT)
        (tree / "init").chmod(0o755)
        shutil.copy(GUEST, tree / "guest.py")
        self._drivers(tree / "drivers")
        for file in _python():
            (tree / file.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tree / file.relative_to("/"))
        pack = f"find . | cpio -o -H newc --quiet > {self._initrd}"
        subprocess.run(pack, shell=True, cwd=tree, check=True)  # noqa: S602

    def _drivers(self, target: Path) -> None:
        version, order = self._kernel.name.removeprefix("vmlinuz-"), dict[str, str]()
        disks.run("depmod", "-b", self._root, version)
        for driver in DRIVERS:
            for line in disks.run("modprobe", "-d", self._root, "-S", version, "--show-depends", driver).splitlines():
                action, file = line.split()[:2]
                if action == "insmod":
                    order[Path(file).name] = file
        for file in order.values():
            shutil.copy(file, target)
        (target / "order").write_text("".join(name + "\n" for name in order))

    def start(self, verb: str, seed: int, images: Sequence[Path]) -> subprocess.Popen[str]:
        command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "384", "-nodefaults", "-display", "none"]
        command += ["-serial", "stdio", "-no-reboot", "-kernel", str(self._kernel), "-initrd", str(self._initrd)]
        command += ["-append", f"console=ttyS0 quiet panic=-1 guest={verb},{seed}"]
        for image in images:
            command += ["-drive", f"if=virtio,format=raw,file={image},cache=writeback"]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        return subprocess.Popen(command, stdin=nothing, stdout=pipe, text=True, errors="replace")

    def use(self, verb: str, seed: int, images: Sequence[Path]) -> subprocess.Popen[str]:
        """Once it is ready."""
        run, lines = self.start(verb, seed, images), list[str]()
        for line in run.stdout or ():
            lines.append(line)
            if line.startswith("READY"):
                return run
        raise RuntimeError("".join(lines[-30:]))

    def tell(self, images: Sequence[Path]) -> list[Tree | str]:
        """What each holds once it was mounted; or why it can't be."""
        output, _errors = self.start("tell", 0, images).communicate()
        told = [line.split(" ", 2)[1:] for line in output.splitlines() if line.startswith("SEEN ")]
        seen = {int(number): json.loads(rows) for number, rows in told}
        if len(seen) != len(images):
            raise RuntimeError(output[-3000:])
        return [seen[at] if isinstance(seen[at], str) else _tree(seen[at]) for at in range(len(images))]


def _python() -> list[Path]:
    """What the guest's program loads, and the libraries of that."""
    program = "import runpy, sys; runpy.run_path(sys.argv[1]); import encodings.idna, encodings.latin_1"
    program += "; print(*(module.__file__ for module in sys.modules.values() if getattr(module, '__file__', '')))"
    files = [Path(PYTHON), *map(Path, disks.run(PYTHON, "-S", "-E", "-c", program, GUEST).split())]
    for file in list(files):
        if file.suffix != ".py":
            files += [Path(word) for word in disks.run("ldd", file).split() if word.startswith("/")]
    return files


def made(image: Path, *options: str, size: int = SIZE) -> Path:
    with image.open("wb") as file:
        file.truncate(size)
    disks.run("mkfs.xfs", "-q", "-f", "--unsupported", "-m", "crc=0", *options, image)
    return image


def powerless(run: subprocess.Popen[str], images: Sequence[Path], copies: Sequence[Path]) -> None:
    """Copies of all disks, of the moment at which the machine stands still."""
    os.kill(run.pid, signal.SIGSTOP)
    for image, copy in zip(images, copies, strict=True):
        disks.run("cp", "--sparse=always", image, copy)
    os.kill(run.pid, signal.SIGCONT)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        boot = Boot(Path(sys.argv[1]), place)
        images = [made(place / f"{number}.img", *options) for number, options in enumerate(MADE.values())]
        run = boot.use("record", 11, images)
        copies = [image.with_suffix(".copy") for image in images]
        powerless(run, images, copies)
        run.kill()
        run.wait()
        RECORDS.mkdir(exist_ok=True)
        for name, copy in zip(MADE, copies, strict=True):
            save(name, _record(boot, copy))


def _record(boot: Boot, copy: Path) -> Record:
    image = without_stamps(copy.read_bytes())
    mounted = [copy.with_name("whole")]
    mounted[0].write_bytes(image)
    for forge in FORGED:
        mounted.append(copy.with_name(forge.__name__))
        mounted[-1].write_bytes(image)
        forge(mounted[-1])
    seen, *forged = map(_mounted, boot.tell(mounted))
    return Record(image, seen, {how.__name__: tree for how, tree in zip(FORGED, forged, strict=True)})


def _mounted(seen: Tree | str) -> Tree:
    if isinstance(seen, str):
        raise RuntimeError(f"It can't be mounted: {seen}")
    return seen


if __name__ == "__main__":
    main()
