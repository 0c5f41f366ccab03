# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""FAT volumes as no driver writes them: what any system would show is read, and what they disagree about is told."""

from __future__ import annotations

import os
import random
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import Indicators, parse
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct
from ansible_collections.vmward.remediation.tests.corpus.fat import (
    DIRECTORY,
    LABEL,
    FatVolume,
    entry,
    long_entry,
)

EVIL = disks.MARKER
BITS = pytest.mark.parametrize("bits", [12, 16, 32])


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Direct:
    volume = FatVolume()
    volume.root = entry("OLD.TXT", 5, 700)
    volume.put(b"o" * 700, 5, 6)
    return Direct(volume.write(tmp_path_factory.mktemp("fat") / "golden.img"))


def look(direct: Direct, volume: FatVolume, place: Path) -> Tally:
    return direct.look(volume.write(place / "d.img"), False)


def found(tally: Tally) -> list[str]:
    return [finding.path for finding in tally.findings]


@BITS
def test_files_of_directories_are_found_by_their_names(direct: Direct, tmp_path: Path, bits: int) -> None:
    volume = FatVolume(bits)
    volume.root = entry("LABEL", 0, 0, LABEL) + entry("DIR", 10, 0, DIRECTORY) + entry("PLAIN.TXT", 3, 5)
    volume.put(b"plain", 3)
    inside = long_entry("A long name of evil.com", entry("ALONGN~1.COM", 12, 600 + len(EVIL)))
    volume.put(entry(".", 10, 0, DIRECTORY) + entry("..", 0, 0, DIRECTORY) + inside, 10)
    volume.put(b"x" * 600 + EVIL, 12, 20)
    tally = look(direct, volume, tmp_path)
    assert (found(tally), tally.reasons, tally.files) == (["/DIR/A long name of evil.com"], [], 2)
    assert tally.findings[0].offset == 600


@BITS
@pytest.mark.parametrize("copies", [2, 3, 255])
def test_any_number_of_tables_is_read(direct: Direct, tmp_path: Path, bits: int, copies: int) -> None:
    """By the specification any number is valid, and Linux and Windows refuse none but zero."""
    volume = FatVolume(bits, copies=copies)
    volume.root = entry("EVIL.COM", 40, len(EVIL))
    volume.put(EVIL, 40)
    tally = look(direct, volume, tmp_path)
    assert ([one.type for one in tally.volumes], found(tally), tally.reasons) == (["fat"], ["/EVIL.COM"], [])


@BITS
def test_a_chain_that_runs_backwards_is_read_in_its_order(direct: Direct, tmp_path: Path, bits: int) -> None:
    volume = FatVolume(bits)
    volume.root = entry("EVIL.COM", 40, 512 + len(EVIL))
    volume.put(b"x" * 512 + EVIL, 40, 39)
    tally = look(direct, volume, tmp_path)
    assert (found(tally), tally.reasons) == (["/EVIL.COM"], [])


def test_chains_of_any_order_are_read_in_their_order(direct: Direct, tmp_path: Path) -> None:
    chance = random.Random(4)
    for _round in range(10):
        volume = FatVolume(12)
        chain = chance.sample(range(3, 40), 20)
        at = chance.randrange(20) * 512 + 300
        volume.root = entry("EVIL.COM", chain[0], 20 * 512)
        volume.put((bytes(at) + EVIL).ljust(20 * 512, b"x"), *chain)
        tally = look(direct, volume, tmp_path)
        assert (found(tally), tally.reasons) == (["/EVIL.COM"], []), chain


def test_a_chain_that_was_turned_around_is_not_the_base_s(direct: Direct, tmp_path: Path) -> None:
    """Its second cluster lies before the first, and what lies behind the first did not change."""
    golden, volume = FatVolume(), FatVolume()
    golden.root = volume.root = entry("OLD.TXT", 40, 1024)
    golden.put(b"o" * 1024, 40, 41)
    golden.content[39] = EVIL
    volume.put(b"o" * 512, 40, 39)
    volume.content.update({39: EVIL, 41: golden.content[41]})
    image = volume.write(tmp_path / "new.img")
    assert found(Direct(golden.write(tmp_path / "golden.img")).look(image, True)) == ["/OLD.TXT"]


@pytest.mark.parametrize(
    ("bits", "megabytes", "options"),
    [
        (12, 1, ("-s", "1")),
        (16, 100, ("-s", "8", "-f", "1")),
        (16, 30, ("-s", "1", "-f", "3")),
        (32, 300, ("-s", "8", "-f", "2")),
        (32, 300, ("-s", "1", "-S", "4096")),
    ],
)
def test_what_is_made_and_used_by_its_tools_is_clean(
    direct: Direct, tmp_path: Path, bits: int, megabytes: int, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("mkfs.fat", "mcopy"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    monkeypatch.setenv("MTOOLS_SKIP_CHECK", "1")
    image = tmp_path / "d.img"
    image.write_bytes(b"")
    os.truncate(image, megabytes * disks.MB)
    disks.run("mkfs.fat", "-F", str(bits), "-n", "LABEL", *options, image)
    names = {f"dir{number}/sub/a long name {number}": b"z" * number * 300 for number in range(20)}
    tree = disks.tree(tmp_path / "tree", {"EFI/BOOT/BOOTX64.EFI": b"MZ" * 3000, "empty": b"", **names})
    disks.run("mcopy", "-s", "-i", image, *sorted(tree.iterdir()), "::/")
    disks.run("mmove", "-i", image, "::/dir3/sub", "::/dir4/moved")
    disks.run("mmove", "-i", image, "::/dir5", "::/EFI/dir5")
    disks.run("mmove", "-i", image, "::/EFI/BOOT", "::/BOOT")
    disks.run("mren", "-i", image, "::/dir8", "::/a directory of another name")
    disks.run("mdeltree", "-i", image, "::/dir7")
    tally = direct.look(image, False)
    assert (tally.verdict().value, tally.files) == ("clean", 21), (tally.reasons, tally.indicators)


def behind_the_end(volume: FatVolume) -> None:
    volume.root = entry("PLAIN.TXT", 3, 5) + bytes(32) + entry("EVIL.COM", 9, len(EVIL))
    volume.put(b"plain", 3)
    volume.put(EVIL, 9)


@BITS
def test_a_file_behind_the_end_of_a_directory_is_found_and_told(direct: Direct, tmp_path: Path, bits: int) -> None:
    """Linux reads on behind it, Windows does not."""
    volume = FatVolume(bits)
    behind_the_end(volume)
    tally = look(direct, volume, tmp_path)
    assert found(tally) == ["/EVIL.COM"]
    assert "behind its end" in " ".join(tally.reasons)


def test_what_was_deleted_behind_the_end_is_no_doubt(direct: Direct, tmp_path: Path) -> None:
    volume = FatVolume()
    volume.root = entry("PLAIN.TXT", 3, 5) + bytes(32) + b"\xe5" + entry("GONE.COM", 9, 5)[1:]
    volume.put(b"plain", 3)
    assert look(direct, volume, tmp_path).verdict().value == "clean"


def below(volume: FatVolume, first: bytes, second: bytes) -> None:
    """A directory with these entries for itself and for the one above, in another one."""
    volume.root = entry("DIR", 10, 0, DIRECTORY)
    volume.put(entry(".", 10, 0, DIRECTORY) + entry("..", 0, 0, DIRECTORY) + entry("SUB", 11, 0, DIRECTORY), 10)
    volume.put(first + second, 11)


SELF, ABOVE = entry(".", 11, 0, DIRECTORY), entry("..", 10, 0, DIRECTORY)


@BITS
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (entry(".", 9, len(EVIL)), ABOVE),
        (SELF, entry("..", 9, len(EVIL))),
        (entry(".", 12, 0, DIRECTORY), ABOVE),
        (SELF, entry("..", 12, 0, DIRECTORY)),
        (SELF, ABOVE + entry(".", 9, len(EVIL))),
    ],
    ids=["file for itself", "file for above", "itself elsewhere", "above elsewhere", "twice"],
)
def test_what_a_directory_says_of_itself_and_of_the_one_above_is_held_against_them(
    direct: Direct, tmp_path: Path, bits: int, first: bytes, second: bytes
) -> None:
    """Boot loaders follow it to clusters that are marked free."""
    volume = FatVolume(bits)
    below(volume, first, second)
    volume.content[9] = EVIL
    volume.content[12] = entry("EVIL.COM", 9, len(EVIL))
    tally = look(direct, volume, tmp_path)
    assert tally.verdict().value == "incomplete"
    assert "its own" in " ".join(tally.reasons)


@BITS
def test_directories_that_name_themselves_and_the_one_above_are_no_doubt(
    direct: Direct, tmp_path: Path, bits: int
) -> None:
    volume = FatVolume(bits)
    below(volume, SELF, ABOVE)
    assert look(direct, volume, tmp_path).verdict().value == "clean"


def test_a_dot_in_the_root_directory_is_told_where_it_holds_content(direct: Direct, tmp_path: Path) -> None:
    volume = FatVolume()
    volume.root = entry(".", 9, len(EVIL))
    volume.content[9] = EVIL
    assert look(direct, volume, tmp_path).verdict().value == "incomplete"


@pytest.mark.parametrize(
    "wanted", [Indicators(names=frozenset(["Evil.exe"])), parse("{paths: [/DIR/EVIL.EXE]}", "ioc.yml")]
)
def test_a_short_name_counts_beside_a_long_one(tmp_path: Path, wanted: Indicators) -> None:
    volume = FatVolume()
    direct = Direct(volume.write(tmp_path / "golden.img"), wanted)
    volume.root = entry("DIR", 10, 0, DIRECTORY)
    volume.put(entry(".", 10, 0, DIRECTORY) + long_entry("harmless.txt", entry("EVIL.EXE", 3, 5)), 10)
    volume.put(b"plain", 3)
    image = volume.write(tmp_path / "d.img")
    assert [found(direct.look(image, on_top)) for on_top in (False, True)] == [["/DIR/harmless.txt"]] * 2


def test_clusters_of_two_files_do_not_make_up_for_those_of_none(direct: Direct, tmp_path: Path) -> None:
    volume = FatVolume()
    volume.root = entry("ONE.TXT", 3, 5) + entry("TWO.TXT", 3, 5)
    volume.put(b"plain", 3)
    volume.put(EVIL, 9)  # in use, and named by nobody
    reasons = " ".join(look(direct, volume, tmp_path).reasons)
    assert "belong to several files" in reasons
    assert "in use, but not reached" in reasons


def test_a_file_in_clusters_that_are_marked_free_is_told(direct: Direct, tmp_path: Path) -> None:
    volume = FatVolume()
    volume.root = entry("EVIL.COM", 9, len(EVIL))
    volume.content[9] = EVIL
    tally = look(direct, volume, tmp_path)
    assert tally.verdict().value == "incomplete"
    assert "EVIL.COM" in tally.reasons[0]


@pytest.mark.parametrize("chain", [(7, 7), (7, 8, 9, 7), (7, 8, 9, 8)], ids=["itself", "first", "middle"])
@pytest.mark.parametrize("kind", [0x20, DIRECTORY], ids=["file", "directory"])
@BITS
def test_a_chain_in_a_circle_ends_and_is_told(
    direct: Direct, tmp_path: Path, chain: tuple[int, ...], kind: int, bits: int
) -> None:
    volume = FatVolume(bits)
    volume.root = entry("ROUND", chain[0], 5000 if kind == 0x20 else 0, kind) + entry("EVIL.COM", 3, len(EVIL))
    volume.put(EVIL, 3)
    for cluster, following in pairwise(chain):
        volume.table[cluster] = following
    tally = look(direct, volume, tmp_path)
    assert found(tally) == ["/EVIL.COM"]
    assert "circle" in " ".join(tally.reasons)


def test_a_root_directory_in_a_circle_ends_and_is_told(direct: Direct, tmp_path: Path) -> None:
    volume = FatVolume(32)
    volume.table[2] = 2
    assert "circle" in " ".join(look(direct, volume, tmp_path).reasons)


def test_directories_in_a_circle_end_and_hide_nothing(direct: Direct, tmp_path: Path) -> None:
    volume = FatVolume()
    volume.root = entry("DIR", 10, 0, DIRECTORY)
    volume.put(entry("AGAIN", 10, 0, DIRECTORY) + entry("EVIL.COM", 3, len(EVIL)), 10)
    volume.put(EVIL, 3)
    tally = look(direct, volume, tmp_path)
    assert found(tally) == ["/DIR/EVIL.COM"]
    assert "belong to several files" in " ".join(tally.reasons)


def test_many_files_in_one_long_chain_end_soon(direct: Direct, tmp_path: Path) -> None:
    """To follow it for each of them would take hours."""
    volume = FatVolume(32)
    volume.put(b"", *range(300, 66000))
    rows = b"".join(entry(f"F{number}", 300 + number, 10) for number in range(4000))
    volume.put(rows, *range(3, 3 + len(rows) // 512))
    volume.root = entry("DIR", 3, 0, DIRECTORY)
    assert look(direct, volume, tmp_path).verdict().value == "incomplete"


@pytest.mark.parametrize("following", [1, 0xFFF0, 0xFFF7, 4300], ids=["reserved", "unknown", "bad", "outside"])
def test_a_chain_that_leads_nowhere_is_told(direct: Direct, tmp_path: Path, following: int) -> None:
    volume = FatVolume()
    volume.root = entry("BROKEN", 7, 5)
    volume.table[7] = following
    tally = look(direct, volume, tmp_path)
    assert tally.verdict().value == "incomplete"
    assert "BROKEN" in tally.reasons[0]


@pytest.mark.parametrize("size", [513, 0xFFFFFFFF])
def test_a_size_beyond_the_chain_is_told(direct: Direct, tmp_path: Path, size: int) -> None:
    volume = FatVolume()
    volume.root = entry("EVIL.COM", 7, size)
    volume.put(EVIL, 7)
    assert "shorter than its size" in " ".join(look(direct, volume, tmp_path).reasons)


@pytest.mark.parametrize(
    "name",
    ["\x1b[2J\x1b]0;owned\x07evil", "line\nbreak", "right\u202eto-left", "\ud800", "e" * 255, ".."],
    ids=["terminal", "newline", "direction", "surrogate", "longest", "dots"],
)
def test_a_name_cannot_leave_its_line(direct: Direct, tmp_path: Path, name: str) -> None:
    volume = FatVolume()
    volume.root = long_entry(name, entry("EVIL~1.COM", 7, len(EVIL)))
    volume.put(EVIL, 7)
    (path,) = found(look(direct, volume, tmp_path))
    assert path.isprintable()
    assert path.startswith("/")
    assert len(path) <= 512


def test_a_label_that_holds_clusters_is_told(direct: Direct, tmp_path: Path) -> None:
    volume = FatVolume()
    volume.root = entry("LABEL", 10, 0, LABEL | DIRECTORY)
    volume.put(entry("EVIL.COM", 3, len(EVIL)), 10)
    volume.put(EVIL, 3)
    assert look(direct, volume, tmp_path).verdict().value == "incomplete"


def test_a_fat32_of_few_clusters_is_a_fat32(direct: Direct, tmp_path: Path) -> None:
    """By its boot sector, as Linux and Windows see it, not by their count."""
    volume = FatVolume(32, clusters=100)
    volume.root = entry("EVIL.COM", 7, len(EVIL))
    volume.put(EVIL, 7)
    tally = look(direct, volume, tmp_path)
    assert (found(tally), tally.reasons) == (["/EVIL.COM"], [])


@pytest.mark.parametrize(
    ("place", "data"),
    [
        (11, b"\0\x08"),  # the size of a sector
        (13, b"\x80"),  # of a cluster
        (14, b"\xff\xff"),  # reserved sectors
        (17, b"\xff\xff"),  # entries of the root
        (19, b"\xff\xff\0"),  # sectors, of both kinds
        (22, b"\xff\xff"),  # sectors of a table
        (32, b"\xff\xff\xff\xff"),  # sectors
    ],
)
def test_absurd_sizes_are_not_clean(direct: Direct, tmp_path: Path, place: int, data: bytes) -> None:
    volume = FatVolume()
    volume.root = entry("PLAIN.TXT", 3, 1000)
    volume.put(b"p" * 1000, 3, 4)
    image = volume.write(tmp_path / "d.img")
    assert direct.look(image, False).verdict().value == "clean"
    disks.write_at(image, place, data)
    assert direct.look(image, False).verdict().value != "clean"


def test_a_table_of_which_not_the_first_copy_counts_is_told(direct: Direct, tmp_path: Path) -> None:
    """Linux reads the first one all the same."""
    volume = FatVolume(32)
    volume.root = entry("PLAIN.TXT", 3, 5)
    volume.put(b"plain", 3)
    image = volume.write(tmp_path / "d.img")
    disks.write_at(image, 40, b"\x81")
    assert "copy" in " ".join(direct.look(image, False).reasons)


@BITS
@pytest.mark.parametrize("copies", [2, 3])
def test_copies_of_the_table_that_differ_are_told(direct: Direct, tmp_path: Path, bits: int, copies: int) -> None:
    """By the last one the file goes on elsewhere."""
    volume = FatVolume(bits, copies=copies)
    volume.root = entry("PLAIN.TXT", 3, 1000)
    volume.put(b"p" * 1000, 3, 4)
    volume.content[9] = EVIL
    image = volume.write(tmp_path / "d.img")
    assert direct.look(image, False).verdict().value == "clean"
    length = int.from_bytes(image.read_bytes()[22:24] if bits != 32 else image.read_bytes()[36:40], "little") * 512
    table = FatVolume(bits)
    table.table[3], table.table[9] = 9, 0x0FFFFFFF
    start = 3 * bits // 8 if bits != 12 else 4
    disks.write_at(image, 32 * 512 + (copies - 1) * length + start, table.image()[32 * 512 + start :][:16])
    assert "copies of its table" in " ".join(direct.look(image, False).reasons)


def test_what_the_table_keeps_for_itself_may_differ_between_its_copies(direct: Direct, tmp_path: Path) -> None:
    """Marks of a mounted volume, and the upper bits of FAT32."""
    volume = FatVolume(32, copies=2)
    volume.root = entry("PLAIN.TXT", 3, 5)
    volume.put(b"plain", 3)
    image = volume.write(tmp_path / "d.img")
    disks.write_at(image, 32 * 512 + 7, b"\x07")
    disks.write_at(image, 32 * 512 + 4 * 100 + 3, b"\xf0")
    assert direct.look(image, False).verdict().value == "clean"


def test_a_count_of_clusters_that_systems_read_differently_is_told(direct: Direct, tmp_path: Path) -> None:
    volume = FatVolume(16, clusters=4086)
    volume.root = entry("PLAIN.TXT", 3, 5)
    volume.put(b"plain", 3)
    assert "FAT12" in " ".join(look(direct, volume, tmp_path).reasons)


@BITS
@pytest.mark.parametrize("place", ["before its tables", "behind its last cluster"])
def test_what_lies_beside_the_file_system_is_matched(direct: Direct, tmp_path: Path, bits: int, place: str) -> None:
    image = FatVolume(bits).write(tmp_path / "d.img")
    at = 512 - 80 if place == "before its tables" else image.stat().st_size
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size + 8192)
        file.seek(at)
        file.write(EVIL)
    tally = direct.look(image, False)
    assert [(hit.path, hit.offset) for hit in tally.indicators] == [("(beside the file system)", at)]


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("system", ["Linux", "Windows"])
def test_one_that_is_mounted_is_read_as_it_lies(direct: Direct, tmp_path: Path, bits: int, system: str) -> None:
    """As every boot partition of a VM that runs is. What does not account for itself says that it was, too."""
    for is_whole in (True, False):
        volume = FatVolume(bits)
        volume.root = entry("PLAIN.TXT", 3, 5)
        volume.put(b"plain", 3)
        volume.table[9] |= 0 if is_whole else 10
        if system == "Windows":
            volume.table[1] &= ~{16: 0x8000, 32: 0x08000000}[bits]
        image = volume.write(tmp_path / "d.img")
        if system == "Linux":
            disks.write_at(image, {16: 37, 32: 65}[bits], b"\1")
        tally = direct.look(image, False)
        assert tally.verdict().value == ("clean" if is_whole else "incomplete"), tally.reasons
        assert is_whole or "not unmounted cleanly" in tally.reasons[0]


def test_what_bitlocker_shows_of_a_stick_is_not_taken_for_all(direct: Direct, tmp_path: Path) -> None:
    image = FatVolume(32).write(tmp_path / "d.img")
    disks.write_at(image, 424, bytes.fromhex("3bd66749292ed84a8399f6a339e3d001"))
    assert "several file systems (bitlocker, fat)" in " ".join(direct.look(image, False).reasons)
