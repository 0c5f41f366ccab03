# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""XFS volumes changed by hand: what Linux would show is read, a scan ends, and what is odd is not clean."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Blocks, Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.layout import ForeignFile, NotReadable
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_replay import replay
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_walk import XfsWalk
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct
from ansible_collections.vmward.remediation.tests.corpus.mounting import mounted

MB = disks.MB
EVIL = disks.MARKER
HOSTILE = b"\x1b[2J\x1b]0;owned\x07evil\nbreak\xff"
BLOCK, INODE = 4096, 512


class Volume:
    """A copy of the image, to be changed."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self.raw = bytearray(image.read_bytes())

    def put(self, place: int, data: bytes) -> None:
        self.raw[place : place + len(data)] = data
        disks.write_at(self.image, place, data)

    def inode(self, name: str) -> int:
        """Where the inode of a file lies, by the number that stands behind its name in a small directory."""
        at = self.raw.index(name.encode() + (b"\x01" if "." in name else b"\x02"))
        number = struct.unpack_from(">I", self.raw, at + len(name) + 1)[0]
        group, within = divmod(number, 1 << self.raw[124] + self.raw[123])
        return int(group * struct.unpack_from(">I", self.raw, 84)[0] * BLOCK + within * INODE)

    def count(self, change: int) -> None:
        """As many inodes are in use as the first group says."""
        place = 2 * 512 + 16
        self.put(place, struct.pack(">I", struct.unpack_from(">I", self.raw, place)[0] + change))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("mkfs.xfs"):
        pytest.skip("mkfs.xfs is not installed")
    image = tmp_path_factory.mktemp("xfs") / "plain.img"
    with image.open("wb") as file:
        file.truncate(32 * MB)
    disks.run("mkfs.xfs", "-q", "-f", "--unsupported", "-d", "agcount=2", "-m", "reflink=0", image)
    with mounted(image) as root:
        (root / "inner").mkdir()
        (root / "inner/deepest").mkdir()
        (root / "inner/evil.com").write_bytes(EVIL)
        (root / "inner/ok.txt").write_bytes(b"fine")
        (root / "clean.txt").write_bytes(b"clean" * 3000)
        (root / "gone.txt").write_bytes(b"g")
        (root / "gone.txt").unlink()
    return image


@pytest.fixture
def volume(plain: Path, tmp_path: Path) -> Volume:
    image = tmp_path / "d.img"
    disks.run("cp", "--sparse=always", plain, image)
    return Volume(image)


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Direct:
    golden = tmp_path_factory.mktemp("golden") / "d.img"
    golden.write_bytes(bytes(MB))
    return Direct(golden)


def look(direct: Direct, volume: Volume) -> Tally:
    return direct.look(volume.image, False)


def found(tally: Tally) -> list[str]:
    return [finding.path for finding in tally.findings]


def test_a_whole_volume_is_proven(direct: Direct, volume: Volume) -> None:
    tally = look(direct, volume)
    assert (found(tally), tally.reasons, tally.files) == (["/inner/evil.com"], [], 3)


@pytest.mark.parametrize("kind", [0, 2, 3, 7], ids=["unknown", "directory", "device", "link"])
def test_a_file_is_what_its_inode_says(direct: Direct, volume: Volume, kind: int) -> None:
    """The directory's word of its type is a hint, which Linux does not open files by."""
    volume.put(volume.raw.index(b"evil.com\x01") + 8, bytes([kind]))
    tally = look(direct, volume)
    assert (found(tally), tally.reasons) == (["/inner/evil.com"], [])


def test_a_directory_is_what_its_inode_says(direct: Direct, volume: Volume) -> None:
    volume.put(volume.raw.index(b"inner\x02") + 5, b"\x01")
    assert found(look(direct, volume)) == ["/inner/evil.com"]


def test_an_inode_that_no_directory_names_is_read_and_told(direct: Direct, volume: Volume) -> None:
    """Though the count of inodes was made to agree."""
    header = volume.inode("inner") + 176
    assert volume.raw[header] == 3
    at = volume.raw.index(b"evil.com\x01")
    number = struct.unpack_from(">I", volume.raw, at + 9)[0]
    end = volume.raw.index(b"ok.txt\x01") + 11
    rest = bytes(volume.raw[at + 13 : end])
    volume.put(at - 3, rest.ljust(end - at + 3, b"\0"))
    volume.put(header, b"\x02")
    volume.count(-1)
    tally = look(direct, volume)
    assert found(tally) == [f"/(inode {number})"]
    assert "no directory names" in " ".join(tally.reasons)


def test_an_inode_that_is_in_use_but_marked_free_is_told(direct: Direct, volume: Volume) -> None:
    """Linux opens it all the same."""
    number = volume.inode("evil.com") // INODE
    tree = volume.raw.index(b"IAB3")
    first, _sparse, free = struct.unpack_from(">IIQ", volume.raw, tree + 56)
    volume.put(tree + 64, struct.pack(">Q", free | 1 << number - first))
    reasons = " ".join(look(direct, volume).reasons)
    assert "marked as free" in reasons


def test_the_superblock_of_another_group_changes_nothing(direct: Direct, volume: Volume) -> None:
    """Linux does not read it either."""
    second = struct.unpack_from(">I", volume.raw, 84)[0] * BLOCK
    assert volume.raw[second : second + 4] == b"XFSB"
    with mounted(volume.image) as root:
        for number in range(4):
            (root / f"deep{number}").mkdir()
            (root / f"deep{number}/evil.com").write_bytes(EVIL)
        assert any((root / f"deep{number}").stat().st_ino >> 15 for number in range(4))
    volume.put(second + 104, struct.pack(">H", 256))
    tally = look(direct, volume)
    assert (len(found(tally)), tally.reasons) == (5, [])


def test_directories_in_a_circle_end_and_hide_nothing(direct: Direct, volume: Volume) -> None:
    upper = volume.inode("inner") // INODE
    volume.put(volume.raw.index(b"deepest\x02") + 8, struct.pack(">I", upper))
    tally = look(direct, volume)
    assert found(tally) == ["/inner/evil.com"]
    assert "named twice" in " ".join(tally.reasons)


@pytest.mark.parametrize("size", [1 << 62, 1 << 34, 0])
def test_a_directory_of_an_absurd_size_ends(direct: Direct, volume: Volume, size: int) -> None:
    """All that it holds is read, wherever it claims to end: so does Linux."""
    with mounted(volume.image) as root:
        for number in range(300):
            (root / f"inner/many{number:05}").touch()
    changed = Volume(volume.image)
    changed.put(changed.inode("inner") + 56, struct.pack(">Q", size))
    assert found(look(direct, changed)) == ["/inner/evil.com"]


@pytest.mark.parametrize("size", [1 << 62, 1 << 40])
def test_a_file_of_an_absurd_size_ends(direct: Direct, volume: Volume, size: int) -> None:
    """It is read for what it holds, without its holes."""
    volume.put(volume.inode("evil.com") + 56, struct.pack(">Q", size))
    assert found(look(direct, volume)) == ["/inner/evil.com"]


def test_an_extent_twice_is_told(direct: Direct, volume: Volume) -> None:
    inode = volume.inode("ok.txt")
    extent = bytes(volume.raw[inode + 176 : inode + 192])
    volume.put(inode + 76, struct.pack(">I", 2))
    volume.put(inode + 192, extent)
    assert "ok.txt" in " ".join(look(direct, volume).reasons)


def test_what_was_never_written_reads_as_zeros(direct: Direct, volume: Volume) -> None:
    """As Linux shows it, whatever lies there."""
    inode = volume.inode("evil.com")
    volume.put(inode + 176, bytes([volume.raw[inode + 176] | 0x80]))
    assert look(direct, volume).verdict().value == "clean"


def test_a_name_cannot_leave_its_line(direct: Direct, volume: Volume) -> None:
    with mounted(volume.image) as root:
        (root / "inner/evil.com").rename(os.fsdecode(os.fsencode(root) + b"/" + HOSTILE))
    (path,) = found(look(direct, volume))
    assert path.isprintable()


def test_unknown_features_are_told(direct: Direct, volume: Volume) -> None:
    volume.put(216, struct.pack(">I", struct.unpack_from(">I", volume.raw, 216)[0] | 1 << 20))
    assert "feature" in " ".join(look(direct, volume).reasons)


def test_what_lies_behind_it_is_matched(direct: Direct, plain: Path, tmp_path: Path) -> None:
    image = tmp_path / "behind.img"
    image.write_bytes(plain.read_bytes() + bytes(4096) + EVIL.ljust(4096, b"\0"))
    tally = direct.look(image, False)
    assert [(hit.path, hit.offset) for hit in tally.indicators] == [("(beside the file system)", 32 * MB + 4096)]


# The log


class Log:
    """Its blocks of 512 bytes, and its records."""

    def __init__(self, volume: Volume) -> None:
        self.volume, raw = volume, volume.raw
        (start,), (blocks,) = struct.unpack_from(">Q", raw, 48), struct.unpack_from(">I", raw, 96)
        group, within = divmod(start, 1 << raw[124])
        self.start = (group * struct.unpack_from(">I", raw, 84)[0] + within) * BLOCK
        self.blocks = blocks * BLOCK // 512

    def place(self, number: int) -> int:
        return self.start + number * 512

    def records(self) -> list[int]:
        raw = self.volume.raw
        return [at for at in range(self.blocks) if raw[self.place(at) : self.place(at) + 4] == b"\xfe\xed\xba\xbe"]

    def sequence(self, number: int) -> int:
        return int(struct.unpack_from(">Q", self.volume.raw, self.place(number) + 16)[0])

    def newest(self) -> int:
        return max(self.records(), key=self.sequence)

    def copy(self, number: int, to: int, sequence: int) -> None:
        """A record of one block of operations."""
        place = self.place(number)
        record = bytearray(self.volume.raw[place : place + 1024])
        record[16:24] = struct.pack(">Q", sequence)
        self.volume.put(self.place(to), bytes(record))


def cut_off(image: Path) -> None:
    """Written to the log, and to nowhere else."""
    with mounted(image) as root:
        (root / "late.com").write_bytes(EVIL)
        disks.run("xfs_io", "-c", "fsync", root / "late.com")
        disks.run("xfs_io", "-x", "-c", "shutdown -f", root)


@pytest.fixture
def log(volume: Volume) -> Log:
    return Log(volume)


@pytest.fixture
def dirty(volume: Volume) -> Log:
    cut_off(volume.image)
    return Log(Volume(volume.image))


def test_what_only_the_log_knows_is_found(direct: Direct, dirty: Log) -> None:
    tally = look(direct, dirty.volume)
    assert (sorted(found(tally)), tally.reasons) == (["/inner/evil.com", "/late.com"], [])


def test_an_unmount_ahead_of_the_head_is_none(direct: Direct, log: Log, dirty: Log) -> None:
    """It claims to be the newest record, and the guest would not look for it there."""
    place = log.place(log.newest())
    dirty.volume.put(dirty.place(dirty.blocks - 8), bytes(log.volume.raw[place : place + 1024]))
    dirty.volume.put(dirty.place(dirty.blocks - 8) + 16, struct.pack(">Q", 7 << 32))
    assert "its log" in " ".join(look(direct, dirty.volume).reasons)


def test_newer_records_that_claim_to_be_old_are_told(direct: Direct, dirty: Log) -> None:
    """The last unmount is the newest one by its number then, but the guest goes by where records lie."""
    unmounts = [at for at in dirty.records() if dirty.volume.raw[dirty.place(at + 1) + 9] & 0x20]
    late = [at for at in dirty.records() if at > max(unmounts)]
    assert late
    for at in late:
        dirty.volume.put(dirty.place(at) + 16, bytes(8))
    assert "its log" in " ".join(look(direct, dirty.volume).reasons)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(4, 9), (16, 9), (24, 9), (40, 2)],
    ids=["cycle", "number", "tail", "operations"],
)
def test_an_unmount_that_contradicts_itself_is_told(direct: Direct, log: Log, offset: int, value: int) -> None:
    log.volume.put(log.place(log.newest()) + offset, struct.pack(">I", value))
    assert "its log" in " ".join(look(direct, log.volume).reasons)


@pytest.mark.parametrize(("offset", "value"), [(12, 4096), (320, 1 << 31)], ids=["length", "size"])
def test_an_unmount_that_reaches_behind_the_log_is_left_out_as_linux_does(
    direct: Direct, log: Log, offset: int, value: int
) -> None:
    """It might not have been written as a whole. What was before it is replayed, and makes the same of the files."""
    log.volume.put(log.place(log.newest()) + offset, struct.pack(">I", value))
    tally = look(direct, log.volume)
    assert (found(tally), tally.reasons) == (["/inner/evil.com"], [])
    with mounted(log.volume.image) as root:
        assert (root / "inner/evil.com").read_bytes() == EVIL


def test_a_block_of_the_log_that_is_out_of_order_is_told(direct: Direct, log: Log) -> None:
    log.volume.put(log.place(log.blocks // 2), struct.pack(">I", 1))
    assert "its log" in " ".join(look(direct, log.volume).reasons)


def test_a_log_that_went_round_is_read(direct: Direct, volume: Volume) -> None:
    with mounted(volume.image) as root:
        for _round in range(30):
            for number in range(400):
                (root / f"inner/{number}").write_bytes(b"x")
            os.sync()
            for number in range(400):
                (root / f"inner/{number}").unlink()
            os.sync()
    changed = Volume(volume.image)
    log = Log(changed)
    assert max(log.sequence(at) >> 32 for at in log.records()) > 1
    assert look(direct, changed).reasons == []


def test_a_log_that_was_wiped_is_read(direct: Direct, volume: Volume) -> None:
    disks.run("xfs_admin", "-U", "generate", volume.image)
    assert look(direct, volume).reasons == []
    with mounted(volume.image) as root:
        (root / "new").touch()
    assert look(direct, volume).reasons == []


def test_a_log_that_the_guest_replayed_is_read(direct: Direct, dirty: Log) -> None:
    with mounted(dirty.volume.image):
        pass
    tally = look(direct, dirty.volume)
    assert (sorted(found(tally)), tally.reasons) == (["/inner/evil.com", "/late.com"], [])


def test_changes_in_the_gap_of_a_wiped_log_are_told(direct: Direct, volume: Volume) -> None:
    """The first record claims to reach to the round before: Linux would take it for the newest, and replay it."""
    disks.run("xfs_admin", "-U", "generate", volume.image)
    log = Log(Volume(volume.image))
    second = log.records()[1]
    assert second > 2
    log.volume.put(log.place(0) + 12, struct.pack(">I", (second - 1) * 512))
    assert "its log" in " ".join(look(direct, log.volume).reasons)


@pytest.mark.parametrize("unit", ["4096", "32768", "262144"])
def test_a_log_of_larger_units_is_read(direct: Direct, tmp_path: Path, unit: str) -> None:
    image = fresh(tmp_path / "d.img", "-l", f"su={unit}", size=128 * MB)
    assert direct.look(image, False).reasons == []
    for name in ("first", "second"):
        with mounted(image) as root:
            (root / name).write_bytes(b"x")
            os.sync()
            (root / f"{name} more").write_bytes(b"x")
        assert direct.look(image, False).reasons == []


@pytest.mark.parametrize(("offset", "kind", "value"), [(96, ">I", 0xFFFFFFFF), (48, ">Q", 1 << 50)])
def test_a_log_outside_of_the_file_system_is_told(volume: Volume, offset: int, kind: str, value: int) -> None:
    volume.put(offset, struct.pack(kind, value))
    with pytest.raises(NotReadable, match="its log lies outside"):
        replay(Within(volume.image.read_bytes()))


def test_a_log_on_another_device_is_told(direct: Direct, tmp_path: Path) -> None:
    image, log = tmp_path / "d.img", tmp_path / "log.img"
    for file, size in ((image, 32 * MB), (log, 16 * MB)):
        with file.open("wb") as opened:
            opened.truncate(size)
    disks.run("mkfs.xfs", "-q", "-f", "--unsupported", "-l", f"logdev={log},size=8m", image)
    assert "its log is on another device, which was not read" in " ".join(direct.look(image, False).reasons)


class Within(Blocks):
    """Nothing outside of it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= self.size
        return self._data[offset : offset + length]


# Trees of extents


@pytest.fixture(scope="module")
def scattered(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in 400 extents, whose last one holds the sample, and one whose content nobody claims."""
    image = tmp_path_factory.mktemp("scattered") / "d.img"
    disks.run("cp", "--sparse=always", plain, image)
    with mounted(image) as root:
        with (root / "many.ok").open("wb") as file:
            for number in range(400):
                file.seek(2 * number * BLOCK)
                file.write(b"%08d" % number)
        (root / "other.ok").write_bytes(b"other")
    return image


class Tree:
    """The extents of a file: the root in its inode and its leaves."""

    def __init__(self, scattered: Path, tmp_path: Path) -> None:
        image = tmp_path / "tree.img"
        disks.run("cp", "--sparse=always", scattered, image)
        self.volume = Volume(image)
        self.inode = self.volume.inode("many.ok")
        self.level, count = struct.unpack_from(">HH", self.volume.raw, self.inode + 176)
        fork = 8 * self.volume.raw[self.inode + 82] or INODE - 176
        self.pointers = self.inode + 180 + (fork - 4) // 16 * 8
        self.leaves = list(struct.unpack_from(f">{count}Q", self.volume.raw, self.pointers))
        assert self.level == 1
        assert count > 1

    def place(self, number: int) -> int:
        raw = self.volume.raw
        group, within = divmod(number, 1 << raw[124])
        return int(group * struct.unpack_from(">I", raw, 84)[0] + within) * BLOCK

    def reasons(self, direct: Direct) -> str:
        return " ".join(look(direct, self.volume).reasons)


@pytest.fixture
def tree(scattered: Path, tmp_path: Path) -> Tree:
    return Tree(scattered, tmp_path)


def test_a_tree_of_extents_is_read(direct: Direct, tree: Tree) -> None:
    number = tree.volume.raw.index(b"%08d" % 398)
    tree.volume.put(number, EVIL)
    tally = look(direct, tree.volume)
    assert (sorted(found(tally)), tally.reasons) == (["/inner/evil.com", "/many.ok"], [])


def test_a_tree_of_extents_that_fans_out_without_an_end_ends(direct: Direct, tree: Tree) -> None:
    """250 times 250 times 250 ... ways to a leaf that holds nothing."""
    volume, chain = tree.volume, [tree.leaves[0], *range(6000, 6006)]
    header = bytes(volume.raw[tree.place(tree.leaves[0]) :][:72])
    for level, (number, child) in enumerate(zip(reversed(chain), [0, *reversed(chain)], strict=False)):
        block = bytearray(header.ljust(BLOCK, b"\0"))
        block[4:8] = struct.pack(">HH", level, 250 if level else 0)
        struct.pack_into(">250Q", block, 72 + (BLOCK - 72) // 16 * 8, *[child] * 250)
        volume.put(tree.place(number), bytes(block))
    volume.put(tree.inode + 176, struct.pack(">H", len(chain)))
    assert "/many.ok" in tree.reasons(direct)


def test_leaves_that_linux_would_read_instead_are_told(direct: Direct, tree: Tree) -> None:
    """It goes from the first leaf to its neighbour, and does not ask the root for that."""
    volume, place = tree.volume, tree.place(tree.leaves[0])
    volume.put(tree.place(6000), bytes(volume.raw[tree.place(tree.leaves[1]) :][:BLOCK]))
    volume.put(place + 16, struct.pack(">Q", 6000))
    assert "/many.ok" in tree.reasons(direct)


def test_a_tree_of_another_inode_is_told(direct: Direct, tree: Tree) -> None:
    """So that thousands of files can't have one large tree read over and over."""
    tree.volume.put(tree.place(tree.leaves[0]) + 56, struct.pack(">Q", 1234))
    assert "/many.ok" in tree.reasons(direct)


@pytest.mark.parametrize("count", [399, 401, 0xFFFFFFFF])
def test_a_tree_that_does_not_hold_as_many_extents_as_the_inode_says_is_told(
    direct: Direct, tree: Tree, count: int
) -> None:
    tree.volume.put(tree.inode + 76, struct.pack(">I", count))
    assert "/many.ok" in tree.reasons(direct)


def test_an_extent_outside_of_the_file_system_is_told(direct: Direct, volume: Volume) -> None:
    inode = volume.inode("ok.txt")
    volume.put(inode + 176, struct.pack(">QQ", 0, 1 << 45 | 1))
    assert "ok.txt" in " ".join(look(direct, volume).reasons)


def test_what_may_lie_on_a_real_time_device_is_told(direct: Direct, volume: Volume) -> None:
    """The mark of the file decides, not what the superblock says of the device."""
    volume.put(volume.inode("ok.txt") + 90, b"\0\1")
    assert "real-time" in " ".join(look(direct, volume).reasons)


# Attributes


def hints(tally: Tally) -> list[str]:
    return sorted(hit.path for hit in tally.indicators)


VALUES = {
    "in a leaf": b"a" * 2900 + EVIL,
    "remote": b"b" * 60_000 + EVIL,
    # across the headers that each block of a value begins with
    "across blocks": b"c" * (BLOCK - 56 - 5) + EVIL + b"c" * 9000,
}


@pytest.mark.parametrize("name", VALUES)
def test_attributes_in_blocks_are_matched(direct: Direct, volume: Volume, name: str) -> None:
    with mounted(volume.image) as root:
        places = [root / "clean.txt", root / "inner", root / "link"]
        places[-1].symlink_to("nowhere")
        numbers = [os.lstat(place).st_ino for place in places]
        for place in places:
            os.setxattr(place, "trusted.note", VALUES[name], follow_symlinks=False)
    tally = direct.look(volume.image, False)
    assert hints(tally) == sorted(f"(attributes of inode {number})" for number in numbers)
    assert tally.reasons == []


def test_attributes_behind_a_tree_are_matched(direct: Direct, volume: Volume) -> None:
    with mounted(volume.image) as root:
        for number in range(40):
            (root / f"between{number}").write_bytes(b"x" * BLOCK)
            os.sync()
            os.setxattr(root / "clean.txt", f"user.{number}", b"v" * 3500)
        os.setxattr(root / "clean.txt", "user.last", b"w" * 3400 + EVIL)
        number = (root / "clean.txt").stat().st_ino
    changed = Volume(volume.image)
    assert changed.raw[number * INODE + 83] == 3  # which is a tree
    tally = look(direct, changed)
    assert (hints(tally), tally.reasons) == ([f"(attributes of inode {number})"], [])


def test_attributes_that_can_t_be_read_are_told(direct: Direct, volume: Volume) -> None:
    with mounted(volume.image) as root:
        os.setxattr(root / "clean.txt", "user.note", b"a" * 3000)
        number = (root / "clean.txt").stat().st_ino
    changed = Volume(volume.image)
    place = number * INODE
    fork = place + 176 + 8 * changed.raw[place + 82]
    changed.put(fork, struct.pack(">QQ", 0, 1 << 45 | 1))
    assert f"Attributes of inode {number}" in " ".join(look(direct, changed).reasons)


# Directories and inodes


def fresh(image: Path, *options: str, size: int = 64 * MB) -> Path:
    with image.open("wb") as file:
        file.truncate(size)
    disks.run("mkfs.xfs", "-q", "-f", "--unsupported", *options, image)
    return image


def many(root: Path, count: int) -> None:
    (root / "many").mkdir()
    for number in range(count):
        (root / f"many/a name that takes some room {number:05}").write_bytes(b"n")
    (root / "many/evil.com").write_bytes(EVIL)


@pytest.mark.parametrize("count", [20, 400, 3000], ids=["block", "leaf", "node"])
@pytest.mark.parametrize("options", [["-n", "size=16384"], ["-b", "size=1024"], ["-n", "size=4096"]], ids=" ".join)
def test_directories_are_read_whatever_the_size_of_their_blocks(
    direct: Direct, tmp_path: Path, options: list[str], count: int
) -> None:
    image = fresh(tmp_path / "d.img", *options)
    with mounted(image) as root:
        many(root, count)
        for number in range(0, count, 3):
            (root / f"many/a name that takes some room {number:05}").unlink()
    tally = direct.look(image, False)
    assert (found(tally), tally.reasons) == (["/many/evil.com"], [])


def test_inodes_in_the_middle_of_a_block_are_told_apart(direct: Direct, tmp_path: Path) -> None:
    """Two chunks of them lie in one block of 64 KiB."""
    image = fresh(tmp_path / "d.img", "-b", "size=65536", size=512 * MB)
    with mounted(image) as root:
        many(root, 90)
    tally = direct.look(image, False)
    assert (found(tally), tally.reasons) == (["/many/evil.com"], [])


def test_a_chunk_whose_end_is_not_there_may_lie_at_the_end_of_the_last_group(direct: Direct, volume: Volume) -> None:
    group = struct.unpack_from(">I", volume.raw, 84)[0]
    root = struct.unpack_from(">I", volume.raw, group * BLOCK + 1024 + 20)[0]
    node = (group + root) * BLOCK
    assert volume.raw[node : node + 8] == b"IAB3\0\0\0\1"
    volume.put(node + 6, b"\0\2")
    volume.put(node + 56 + 16, struct.pack(">IHBBQ", group * BLOCK // INODE - 32, 0xFF00, 32, 32, (1 << 64) - 1))
    assert look(direct, volume).reasons == []


def test_a_directory_is_read_though_its_blocks_are_marked_as_never_written(direct: Direct, volume: Volume) -> None:
    """Linux shows them all the same, as it does what lies behind the size."""
    with mounted(volume.image) as root:
        for number in range(300):
            (root / f"inner/many{number:05}").touch()
    changed = Volume(volume.image)
    inode = changed.inode("inner")
    count = struct.unpack_from(">I", changed.raw, inode + 76)[0]
    for at in range(inode + 176, inode + 176 + 16 * count, 16):
        changed.put(at, bytes([changed.raw[at] | 0x80]))
    changed.put(inode + 56, struct.pack(">Q", BLOCK))
    assert found(look(direct, changed)) == ["/inner/evil.com"]


def test_blocks_of_two_directories_are_told(direct: Direct, volume: Volume) -> None:
    with mounted(volume.image) as root:
        for directory in ("first", "second"):
            (root / directory).mkdir()
            for number in range(60):
                (root / directory / f"{directory}{number}").touch()
    changed = Volume(volume.image)
    first, second = changed.inode("first"), changed.inode("second")
    changed.put(second + 176, bytes(changed.raw[first + 176 : first + 192]))
    assert "another directory" in " ".join(look(direct, changed).reasons)


@pytest.mark.parametrize("count", [60, 300], ids=["block", "leaf"])
def test_a_name_that_only_the_index_of_a_directory_leads_to_is_told(direct: Direct, volume: Volume, count: int) -> None:
    """It lies in another name: no list of the directory shows it, but Linux opens it, in a directory of many blocks."""
    with mounted(volume.image) as root:
        for number in range(count):
            (root / f"inner/{'n' * 40}{number}").touch()
    changed = Volume(volume.image)
    at = changed.raw.index(b"n" * 40 + b"29") - 9
    unit, end = struct.pack(">I", at % BLOCK // 8), at - at % BLOCK + BLOCK
    leaves = [place for place in range(0, 32 * MB, BLOCK) if changed.raw[place + 8 : place + 10] == b"\x3d\xf1"]
    assert len(leaves) == (count == 300)
    index = leaves[0] + 64 if leaves else end - BLOCK // 2
    (entry,) = (place for place in range(index, index + BLOCK // 2, 8) if changed.raw[place + 4 : place + 8] == unit)
    changed.put(entry + 4, struct.pack(">I", at % BLOCK // 8 + 2))
    assert "/inner was not read" in " ".join(look(direct, changed).reasons)


def test_an_index_that_is_kept_where_none_belongs_is_told(direct: Direct, tmp_path: Path) -> None:
    image = fresh(tmp_path / "d.img")
    with mounted(image) as root:
        many(root, 3000)
    raw = image.read_bytes()
    (place,) = (at for at in range(0, len(raw), BLOCK) if raw[at : at + 4] == b"XDF3")
    disks.write_at(image, place, bytes(8) + b"\x3d\xff")
    assert "/many was not read" in " ".join(direct.look(image, False).reasons)


def test_a_tree_of_inodes_in_another_group_is_told(direct: Direct, volume: Volume) -> None:
    """Else thousands of groups could have one large tree read over and over."""
    group = struct.unpack_from(">I", volume.raw, 84)[0]
    root = struct.unpack_from(">I", volume.raw, group * BLOCK + 1024 + 20)[0]
    volume.put(1024 + 20, struct.pack(">I", group + root))
    assert "tree of the inodes" in " ".join(look(direct, volume).reasons)


@pytest.mark.parametrize("size", [0, 255], ids=["no name", "too long"])
def test_entries_that_do_not_fit_are_told(direct: Direct, volume: Volume, size: int) -> None:
    with mounted(volume.image) as root:
        for number in range(60):
            (root / f"inner/{'n' * 40}{number}").touch()
    changed = Volume(volume.image)
    name = changed.raw.index(b"n" * 40 + b"59")
    changed.put(name - 1, bytes([size]))
    assert "/inner was not read" in " ".join(look(direct, changed).reasons)


def test_a_file_of_many_names_is_read_once(direct: Direct, volume: Volume) -> None:
    with mounted(volume.image) as root:
        (root / "large.bin").write_bytes(b"l" * MB)
        for number in range(50):
            os.link(root / "large.bin", root / f"large{number}")
    tally = look(direct, Volume(volume.image))
    assert (tally.files, tally.reasons) == (54, [])
    assert tally.bytes_read < 2 * MB


def test_shared_blocks_are_read_for_each_file(direct: Direct, tmp_path: Path) -> None:
    image = fresh(tmp_path / "d.img", "-m", "reflink=1")
    with mounted(image) as root:
        (root / "one.com").write_bytes(EVIL)
        disks.run("cp", "--reflink=always", root / "one.com", root / "two.com")
    tally = direct.look(image, False)
    assert (sorted(found(tally)), tally.reasons) == (["/one.com", "/two.com"], [])


def test_numbers_of_more_than_32_bits_are_read(direct: Direct, tmp_path: Path) -> None:
    image = fresh(tmp_path / "d.img", "-l", "size=16m", "-i", "nrext64=1", size=4 << 40)
    with mounted(image) as root:
        for number in range(4):
            (root / f"{number}").mkdir()
            (root / f"{number}/evil.com").write_bytes(EVIL)
        assert (root / "3").stat().st_ino >> 32
    tally = direct.look(image, False)
    assert (sorted(found(tally)), tally.reasons) == ([f"/{number}/evil.com" for number in range(4)], [])


@pytest.mark.parametrize(
    "options", [["-m", "reflink=1"], ["-b", "size=1024", "-n", "size=8192", "-m", "bigtime=1"]], ids=" ".join
)
def test_a_tree_is_read_as_linux_reads_it(tmp_path: Path, options: list[str]) -> None:
    image, chance = fresh(tmp_path / "d.img", *options, size=128 * MB), random.Random(7)
    with mounted(image) as root:
        directories = [root]
        for number in range(1500):
            place = chance.choice(directories) / (chance.choice("abc\u00e9") * chance.randrange(1, 60) + str(number))
            kind = chance.randrange(12)
            if kind == 0:
                place.mkdir()
                directories.append(place)
            elif kind == 1:
                place.symlink_to("x" * chance.randrange(1, 900))
            else:
                with place.open("wb") as file:
                    for _part in range(chance.randrange(4)):
                        file.seek(chance.randrange(1 << chance.randrange(1, 22)))
                        file.write(chance.randbytes(chance.randrange(9000)))
                    if kind == 2:
                        os.posix_fallocate(file.fileno(), 0, 1 << 19)
                os.utime(place, (number, chance.randrange(-(1 << 31), 1 << 33)))
                if kind == 3:
                    os.link(place, chance.choice(directories) / f"link{number}")
            if kind == 4:
                place.unlink()
        expected = {
            "/" + os.path.relpath(os.path.join(directory, name), root): known(Path(directory, name))
            for directory, _names, names in os.walk(root)
            for name in names
            if not os.path.islink(os.path.join(directory, name))
        }
    fd = os.open(image, os.O_RDONLY)
    walk = XfsWalk(Raw(fd))
    told = {file.path: (digest(b"".join(pieces(file, chance))), *status(file.status())) for file in walk.files()}
    assert told == expected
    assert (list(walk.unnamed()), walk.unproven(), walk.doubts()) == ([], "", [])
    os.close(fd)


def pieces(file: ForeignFile, chance: random.Random) -> Iterator[bytes]:
    at = 0
    while at < file.size:
        length = min(chance.randrange(1, 1 << 20), file.size - at)
        yield file.read(at, length)
        at += length


def known(file: Path) -> tuple[object, ...]:
    return digest(file.read_bytes()), *status(file.stat())


def status(told: os.stat_result) -> tuple[int, ...]:
    return told.st_mode, told.st_ino, told.st_nlink, told.st_uid, told.st_size, int(told.st_mtime)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


PROTO = """/
1 1
d--755 0 0
evil.com ---644 0 0 {evil}
inner d--755 0 0
{names}
$
$
"""


def former(tmp_path: Path, *options: str) -> Path:
    """Of version 4, which a kernel may no longer mount."""
    evil, empty = tmp_path / "evil", tmp_path / "empty"
    evil.write_bytes(EVIL)
    empty.write_bytes(b"x")
    names = "\n".join(f"name{number:03} ---644 0 0 {empty}" for number in range(500))
    (tmp_path / "proto").write_text(PROTO.format(evil=evil, names=names))
    return fresh(tmp_path / "d.img", "-m", "crc=0", *options, "-p", str(tmp_path / "proto"))


@pytest.mark.parametrize("kind", [0, 1])
def test_version_4_is_read(direct: Direct, tmp_path: Path, kind: int) -> None:
    tally = direct.look(former(tmp_path, "-n", f"ftype={kind}"), False)
    assert (found(tally), tally.files, tally.reasons) == (["/evil.com"], 501, [])


def test_features_that_stand_in_one_of_two_places_are_told(direct: Direct, tmp_path: Path) -> None:
    """Some releases of Linux read the entries of directories by both, and some by the first."""
    image = former(tmp_path, "-n", "ftype=1")
    features = struct.unpack_from(">I", image.read_bytes(), 200)[0]
    disks.write_at(image, 200, struct.pack(">II", features & ~0x200, features))
    assert "features" in " ".join(direct.look(image, False).reasons)


def test_features_count_only_where_the_version_says_so(direct: Direct, tmp_path: Path) -> None:
    image = former(tmp_path, "-n", "ftype=0")
    raw = image.read_bytes()
    version, features = struct.unpack_from(">H", raw, 100)[0], struct.unpack_from(">I", raw, 200)[0]
    disks.write_at(image, 100, struct.pack(">H", version & ~0x8000))
    disks.write_at(image, 200, struct.pack(">II", features | 0x200, features | 0x200))
    tally = direct.look(image, False)
    assert (found(tally), tally.files, tally.reasons) == (["/evil.com"], 501, [])


def test_a_log_of_version_1_is_read(direct: Direct, tmp_path: Path) -> None:
    tally = direct.look(former(tmp_path, "-l", "version=1"), False)
    assert (found(tally), tally.files, tally.reasons) == (["/evil.com"], 501, [])


def test_another_version_is_told(direct: Direct, volume: Volume) -> None:
    volume.put(100, struct.pack(">H", struct.unpack_from(">H", volume.raw, 100)[0] & ~15 | 6))
    assert "version" in " ".join(look(direct, volume).reasons)
