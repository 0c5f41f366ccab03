# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""XFS, btrfs, FAT and exFAT on top of a golden image: what differs is found as by a whole scan, nothing else read."""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import other
from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import DiskRequest, LayerSpec, Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.other_changes import ENTRY_OF, Entry
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct, Golden
from ansible_collections.vmward.remediation.tests.corpus.mounting import mounted
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

MB = disks.MB
MARKER = disks.MARKER


LARGE_ATTRIBUTES = "usr/share/doc5/file5", "usr/share/doc6/file6"  # too large for their inodes


def fill(root: Path) -> None:
    for name, content in disks.harmless(30).items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    (root / "large").write_bytes(random.Random(1).randbytes(3 * MB))
    for entry in root.rglob("*"):
        os.utime(entry, (1_700_000_000, 1_700_000_000))  # some have coarse times


MAKERS = {
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=0"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "exfat": ("mkfs.exfat",),
}
DRIVERS = {"exfat": "exfat-fuse"}  # others the kernel has
UNIX = ("xfs", "btrfs")


def make_mounted(image: Path, kind: str) -> Path:
    with image.open("wb") as file:
        file.truncate(320 * MB)
    disks.run(*MAKERS[kind], image)
    with mounted(image, kind=DRIVERS.get(kind, "auto")) as root:
        fill(root)
        for name in LARGE_ATTRIBUTES if kind in UNIX else ():
            os.setxattr(root / name, "user.large", b"a" * 3000)
    return image


class GoldenOther(Golden):
    def __init__(self, place: Path, kind: str) -> None:
        self.kind = kind
        for tool in MAKERS[kind][:1] if kind in MAKERS else ("mkfs.vfat", "mcopy"):
            if not shutil.which(tool):
                pytest.skip(f"{tool} is not installed")
        image = place / "golden.img"
        super().__init__(make_mounted(image, kind) if kind in MAKERS else self._fat(image))

    @staticmethod
    def _fat(image: Path) -> Path:
        with image.open("wb") as file:
            file.truncate(40 * MB)
        disks.run("mkfs.vfat", "-F", "32", "-s", "1", image)
        tree = image.with_suffix(".tree")
        fill(tree)
        for entry in sorted(tree.iterdir()):
            disks.run("mcopy", "-s", "-m", "-i", image, entry, "::")
        return image

    def mounted(self, image: Path) -> AbstractContextManager[Path]:
        return mounted(image, kind=DRIVERS.get(self.kind, "auto"))

    def place_of(self, content: bytes) -> int:
        return self.image.read_bytes().index(content)


@pytest.fixture(scope="module", params=[*MAKERS, "fat"])
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GoldenOther:
    return GoldenOther(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> GoldenOther:
    return GoldenOther(tmp_path_factory.mktemp("xfs"), "xfs")


@pytest.fixture(scope="module", params=UNIX)
def unix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GoldenOther:
    return GoldenOther(tmp_path_factory.mktemp(request.param), request.param)


def method(tally: Tally) -> str:
    return str(tally.volumes[0].method)


def findings(tally: Tally) -> list[str]:
    """Their paths; FAT keeps short names in capitals."""
    return [finding.path.lower() for finding in tally.findings]


def changes(tally: Tally) -> list[tuple[str, str, str]]:
    return [(change.kind, change.path.lower(), change.what) for change in tally.changes]


def write(golden: GoldenOther, image: Path, name: str, content: bytes) -> None:
    """One file, as a guest writes it."""
    source = golden.place / "content"
    source.write_bytes(content)
    if golden.kind == "fat":
        disks.run("mcopy", "-o", "-i", image, source, f"::{name}")
        return
    with golden.mounted(image) as root:
        (root / name).write_bytes(content)


def test_an_untouched_copy_is_the_same(golden: GoldenOther) -> None:
    _whole, delta = golden.both(golden.copy())
    assert (method(delta), delta.verdict().value, delta.files) == ("same", "clean", 0)


def test_only_what_was_written_is_read(golden: GoldenOther) -> None:
    image = golden.copy()
    write(golden, image, "evil", b"x" * 9000 + MARKER)
    whole, delta = golden.both(image)
    assert findings(delta) == ["/evil"]
    assert (method(whole), method(delta), delta.reasons) == ("full", "delta", whole.reasons)
    assert whole.files > 30
    assert delta.files == 1
    assert changes(delta) == [("new", "/evil", "")]


def test_a_harmless_change_is_clean_and_told(golden: GoldenOther) -> None:
    image = golden.copy()
    write(golden, image, "etc/hostname", b"desk2, whose name is longer\n" * 400)
    _whole, delta = golden.both(image)
    assert (delta.verdict().value, delta.files) == ("clean", 1)
    assert changes(delta) == [("changed", "/etc/hostname", "content")]


def test_a_block_written_behind_the_file_system_s_back_is_found(golden: GoldenOther) -> None:
    image = golden.copy()
    middle = random.Random(1).randbytes(3 * MB)[MB : MB + 64]
    disks.write_at(image, golden.place_of(middle), MARKER)
    _whole, delta = golden.both(image)
    assert findings(delta) == ["/large"]
    assert delta.files == 1


def test_a_sample_in_free_blocks_is_an_indicator(golden: GoldenOther) -> None:
    image = golden.copy()
    free = 39 * MB if golden.kind == "fat" else 70 * MB
    assert golden.image.read_bytes()[free : free + 4096] == bytes(4096)
    disks.write_at(image, free + 77, MARKER)
    _whole, delta = golden.both(image)
    assert (delta.verdict().value, delta.findings) == ("incomplete", [])
    assert [found.path for found in delta.indicators] == ["(differing blocks outside of files)"]


def test_names_are_kept_only_for_an_index_or_a_comparison(golden: GoldenOther, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take memory for every file."""
    made = list[Entry]()

    def noted(directory: Any, entry: Any) -> Entry:
        made.append(ENTRY_OF[golden.kind](directory, entry))
        return made[-1]

    monkeypatch.setattr(other, "ENTRY_OF", {golden.kind: noted})
    image = golden.copy()
    write(golden, image, "new", b"n" * 900)
    golden.direct.look(image, False)
    assert not made
    golden.direct.look(image, True)
    assert len(made) > 30


def test_what_was_renamed_is_told_and_not_read(golden: GoldenOther) -> None:
    image = golden.copy()
    if golden.kind == "fat":
        disks.run("mren", "-i", image, "::large", "::other")
    else:
        with golden.mounted(image) as root:
            (root / "large").rename(root / "other")
    _whole, delta = golden.both(image)
    assert (delta.files, changes(delta)) == (0, [("renamed", "/other", "")])
    assert delta.changes[0].former.lower() == "/large"


def test_a_directory_that_was_renamed_is_told_once(golden: GoldenOther) -> None:
    image = golden.copy()
    if golden.kind == "fat":
        disks.run("mren", "-i", image, "::usr", "::lib")
    else:
        with golden.mounted(image) as root:
            (root / "usr").rename(root / "lib")
    _whole, delta = golden.both(image)
    assert (delta.files, changes(delta)) == (0, [("renamed", "/lib", "")])


def test_what_was_deleted_is_told(golden: GoldenOther) -> None:
    image, victim = golden.copy(), "usr/share/doc2/file2"
    if golden.kind == "fat":
        disks.run("mdel", "-i", image, f"::{victim}")
    else:
        with golden.mounted(image) as root:
            (root / victim).unlink()
    _whole, delta = golden.both(image)
    assert delta.verdict().value == "clean"
    assert (delta.files, changes(delta)) == (0, [("deleted", f"/{victim}", "")])


def test_what_fat_keeps_of_a_file_is_told(tmp_path: Path) -> None:
    golden = GoldenOther(tmp_path, "fat")
    image = golden.copy()
    disks.run("mattrib", "-i", image, "+h", "::etc/hostname")
    middle = random.Random(1).randbytes(3 * MB)[MB : MB + 64]
    disks.write_at(image, golden.place_of(middle), b"y" * 64)
    _whole, delta = golden.both(image)
    assert set(changes(delta)) == {
        ("changed", "/etc/hostname", "attributes"),
        ("changed", "/large", "content,mtime_kept"),
    }
    assert {change.mode for change in delta.changes} == {""}


def test_modes_owners_links_and_capabilities_are_told(unix: GoldenOther) -> None:
    image = unix.copy()
    with mounted(image) as root:
        (root / "large").chmod(0o4755)
        os.chown(root / "etc/hostname", 7, 8)
        os.link(root / "empty", root / "again")
        file = root / "usr/share/doc3/file3"
        os.setxattr(file, "security.capability", struct.pack("<5I", 0x02000001, 1 << 12, 0, 0, 0))
        os.setxattr(root / "usr/share/doc4/file4", "user.note", b"x")
        (root / "etc").chmod(0o777)
        (root / "new").write_bytes(b"n")
        (root / "new").chmod(0o2755)
        (root / "link").symlink_to("large")
    _whole, delta = unix.both(image)
    assert delta.verdict().value == "clean", delta.reasons
    assert set(changes(delta)) == {
        ("changed", "/large", "mode,setuid"),
        ("changed", "/etc/hostname", "owner"),
        ("linked", "/again", ""),
        ("changed", "/usr/share/doc3/file3", "capability"),
        ("changed", "/usr/share/doc4/file4", "attributes"),
        ("changed", "/etc", "mode"),
        ("new", "/new", "setuid"),
        ("new", "/link", ""),
    }
    told = {change.path: change for change in delta.changes}
    assert (told["/large"].mode, told["/etc/hostname"].uid, told["/etc/hostname"].gid) == ("4755", 7, 8)


def test_attributes_outside_of_the_inode_are_told(unix: GoldenOther) -> None:
    image = unix.copy()
    with mounted(image) as root:
        capable, other = (root / name for name in LARGE_ATTRIBUTES)
        os.setxattr(capable, "security.capability", struct.pack("<5I", 0x02000001, 1 << 12, 0, 0, 0))
        os.setxattr(other, "user.large", b"b" * 3000)
    _whole, delta = unix.both(image)
    assert set(changes(delta)) == {
        ("changed", "/usr/share/doc5/file5", "capability"),
        ("changed", "/usr/share/doc6/file6", "attributes"),
    }


def test_times_that_do_not_tell_of_new_content_are_told_where_there_are_several(unix: GoldenOther) -> None:
    image = unix.copy()
    middle = random.Random(1).randbytes(3 * MB)[MB : MB + 64]
    disks.write_at(image, unix.place_of(middle), b"y" * 64)
    _whole, delta = unix.both(image)
    assert changes(delta) == [("changed", "/large", "content,mtime_forged")]
    with mounted(image) as root:
        file = root / "etc/hostname"
        before = file.stat()
        file.write_bytes(b"desk3\n")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    _whole, delta = unix.both(image)
    assert ("changed", "/etc/hostname", "content,mtime_kept") in changes(delta)


def test_a_file_that_points_into_the_base_s_free_blocks_is_found(tmp_path: Path) -> None:
    """No block of its content differs: only its place in the allocation table tells."""
    golden = GoldenOther(tmp_path, "fat")
    bare = tmp_path / "bare.img"
    shutil.move(golden.image, bare)
    raw = bare.read_bytes()
    reserved, copies, size = struct.unpack_from("<H", raw, 14)[0], raw[16], struct.unpack_from("<I", raw, 36)[0]
    data = (reserved + copies * size) * 512
    cluster = 60_000
    disks.write_at(bare, data + (cluster - 2) * 512, MARKER)
    golden = GoldenOther.__new__(GoldenOther)
    golden.place, golden.kind, golden.image = tmp_path, "fat", bare
    golden.direct = Direct(bare)
    image = golden.copy()
    write(golden, image, "evil", b"y" * len(MARKER))
    changed = image.read_bytes()
    entry = changed.index(b"EVIL       ")
    before = struct.unpack_from("<H", changed, entry + 20)[0] << 16 | struct.unpack_from("<H", changed, entry + 26)[0]
    for copy in range(copies):
        table = (reserved + copy * size) * 512
        disks.write_at(image, table + before * 4, bytes(4))
        disks.write_at(image, table + cluster * 4, struct.pack("<I", 0x0FFFFFFF))
    disks.write_at(image, entry + 20, struct.pack("<H", cluster >> 16))
    disks.write_at(image, entry + 26, struct.pack("<H", cluster & 0xFFFF))
    _whole, delta = golden.both(image)
    assert findings(delta) == ["/evil"]


def on_mounted(chance: random.Random, root: Path, number: int, has_links: bool) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    victim, new = chance.choice(files), root / f"n{number}"
    body = chance.randbytes(chance.choice((10, 5000, 200_000))) + chance.choice((b"", MARKER))

    def append() -> None:
        with victim.open("ab") as file:
            file.write(body)

    def poke() -> None:
        with victim.open("r+b") as file:
            file.seek(chance.randrange(victim.stat().st_size + 1))
            file.write(body[-40:])

    def sparse() -> None:
        with new.open("wb") as file:
            for step in range(40):  # more extents than an inode holds
                file.seek(step * 16384)
                file.write(body[-4096:])

    actions: list[Callable[[], object]] = [
        lambda: new.write_bytes(body),
        lambda: victim.write_bytes(body),
        victim.unlink,
        lambda: victim.rename(new),
        lambda: os.link(victim, new) if has_links else new.write_bytes(body),
        lambda: os.truncate(victim, victim.stat().st_size // 2),
        lambda: os.truncate(victim, victim.stat().st_size * 2 + 5000),
        append,
        poke,
        sparse,
    ]
    chance.choice(actions)()


def on_fat(chance: random.Random, golden: GoldenOther, image: Path, number: int) -> None:
    victim = f"usr/share/doc{number % 7}/file{number}"
    body = chance.randbytes(chance.choice((10, 600, 70_000))) + chance.choice((b"", MARKER))
    match chance.randrange(4):
        case 0:
            write(golden, image, f"new{number}", body)
        case 1:
            write(golden, image, victim, body)
        case 2:
            disks.run("mdel", "-i", image, f"::{victim}")
        case 3:
            disks.run("mren", "-i", image, f"::{victim}", f"::r{number}")


def test_random_guest_writes_are_found_as_by_a_whole_scan(golden: GoldenOther) -> None:
    chance, infected = random.Random(golden.kind), 0
    for round_ in range(15):
        image = golden.copy()
        count = chance.randint(1, 6)
        if golden.kind == "fat":
            for number in chance.sample(range(30), count):
                on_fat(chance, golden, image, number)
        else:
            with golden.mounted(image) as root:
                for number in range(count):
                    on_mounted(chance, root, number, golden.kind in UNIX)
        if round_ % 3 == 0:
            for _poke in range(3):
                place = chance.randrange(MB, (40 if golden.kind == "fat" else 20) * MB - 64)
                disks.write_at(image, place, chance.choice((MARKER, b"\xff" * 9)))
        whole, delta = golden.both(image)
        assert method(delta) == "delta"
        assert delta.files < whole.files
        infected += bool(whole.findings)
    assert infected > 4


def test_random_damage_is_never_clean_where_a_whole_scan_is_not(golden: GoldenOther) -> None:
    """Confined, for damage may lead the libraries astray."""
    base, known = (LayerSpec(str(golden.image), "raw"),), str(golden.place / "known")
    asked = Request((DiskRequest("vda", base),), RULES, "", ("yara",), 0, "", Limits(20, 512 * MB, 10), directory=known)
    assert index(asked)["verdict"] == "clean"
    chance = random.Random(9)
    for _round in range(5):
        image = golden.copy()
        for _hit in range(8):
            disks.write_at(image, chance.randrange(0, 300_000), chance.randbytes(chance.choice((1, 4, 64))))
        layers = (LayerSpec(str(image), "raw"),)
        delta = scan(replace(asked, disks=(DiskRequest("vda", layers, clone_of=base),)))
        whole = scan(replace(asked, disks=(DiskRequest("vda", layers),), directory=""))
        assert delta["bases"][0]["used"]
        assert delta["verdict"] != "clean" or whole["verdict"] == "clean", whole["incomplete_reasons"]


def test_a_real_time_device_is_told(xfs: GoldenOther) -> None:
    image = xfs.copy()
    disks.write_at(image, 16, struct.pack(">Q", 1000))
    whole, delta = xfs.both(image)
    for tally in (whole, delta):
        assert "real-time device" in " ".join(tally.reasons)
