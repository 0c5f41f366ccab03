# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""XFS volumes changed by hand: what Linux would show is read, a scan ends, and what is odd is not clean."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally
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
        assert number < 1 << self.raw[124] + self.raw[123]  # of the first group
        return number * INODE

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


def test_a_superblock_of_another_group_that_differs_is_told(direct: Direct, volume: Volume) -> None:
    """The library reads what lies in that group by it, and Linux does not."""
    second = struct.unpack_from(">I", volume.raw, 84)[0] * BLOCK
    assert volume.raw[second : second + 4] == b"XFSB"
    volume.put(second + 104, struct.pack(">H", 256))
    assert "superblock" in " ".join(look(direct, volume).reasons)


def test_directories_in_a_circle_end_and_hide_nothing(direct: Direct, volume: Volume) -> None:
    upper = volume.inode("inner") // INODE
    volume.put(volume.raw.index(b"deepest\x02") + 8, struct.pack(">I", upper))
    tally = look(direct, volume)
    assert found(tally) == ["/inner/evil.com"]
    assert "named twice" in " ".join(tally.reasons)


@pytest.mark.parametrize("size", [1 << 62, 1 << 34, 0])
def test_a_directory_of_an_absurd_size_ends(direct: Direct, tmp_path: Path, volume: Volume, size: int) -> None:
    with mounted(volume.image) as root:
        for number in range(300):
            (root / f"inner/many{number:05}").touch()
    changed = Volume(volume.image)
    changed.put(changed.inode("inner") + 56, struct.pack(">Q", size))
    tally = look(direct, changed)
    assert tally.verdict().value != "clean"
    if size != 1 << 34:
        assert found(tally)


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
