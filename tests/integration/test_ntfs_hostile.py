# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NTFS whose records were written to mislead: whoever hides a sample in it never gets `clean`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.archive import Archive
from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.collect import Collector
from ansible_collections.vmward.remediation.plugins.module_utils._scan.foreign import identify
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import Indicators, parse
from ansible_collections.vmward.remediation.plugins.module_utils._scan.marks import marks
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ntfs import File, Ntfs, Record, Stream
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ntfs_records import Attribute
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus import ntfs_records as made
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct
from ansible_collections.vmward.remediation.tests.corpus.ntfs_volume import FREE, RECORD, Volume, told

MARKER = disks.MARKER
DATA = 0x80


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return Volume(tmp_path_factory.mktemp("ntfs"))


def test_a_file_written_by_hand_is_found(volume: Volume) -> None:
    """What the other tests stand on."""
    image = volume.holding(made.name("evil.exe"), made.outside(DATA, [(FREE, 1)], 4096, 2))
    for tally in volume.both(image):
        assert [finding.path for finding in tally.findings] == ["/evil.exe"]


# --- another file system in the same place ---------------------------------------------------------------------------


def with_decoy(image: Path, place: Path) -> None:
    """An empty ext whose superblock and descriptors lie in the boot file, all else in free clusters."""
    decoy, size = place / "decoy.img", 4096
    decoy.write_bytes(b"")
    with decoy.open("r+b") as file:
        file.truncate(image.stat().st_size)
    features = "none,sparse_super,filetype"
    disks.run("mke2fs", "-q", "-F", "-b", "4096", "-I", "128", "-N", "16", "-m", "0", "-r", "1", "-O", features, decoy)
    raw = decoy.read_bytes()
    block, inodes, table = struct.unpack_from("<III", raw, size)
    length = struct.unpack_from("<I", raw, 1024 + 40)[0] * 128
    inode_table = bytearray(raw[table * size :][:length])
    fresh = 3704
    for at in range(0, length, 128):
        is_directory = struct.unpack_from("<H", inode_table, at)[0] >> 12 == 4
        for field in range(at + 40, at + 88, 4) if is_directory else ():
            place_of = struct.unpack_from("<I", inode_table, field)[0]
            if place_of:
                disks.write_at(image, fresh * size, raw[place_of * size :][:size])
                struct.pack_into("<I", inode_table, field, fresh)
                fresh += 1
    descriptors = struct.pack("<III", 3700, 3701, 3702) + raw[size + 12 : 2 * size]
    for at, data in ((3700, raw[block * size :][:size]), (3701, raw[inodes * size :][:size]), (3702, inode_table)):
        disks.write_at(image, at * size, bytes(data))
    disks.write_at(image, 1024, raw[1024:2048])
    disks.write_at(image, size, descriptors)


def test_a_decoy_of_another_file_system_is_told(volume: Volume) -> None:
    image = volume.holding(made.name("evil.exe"), made.outside(DATA, [(FREE, 1)], 4096, 2))
    with_decoy(image, volume.place)
    with image.open("rb") as file:
        assert identify(Raw(file.fileno())) == "ext"
        assert marks(Raw(file.fileno())) == ["ext", "ntfs"]
    told(volume.both(image), "several file systems (ext, ntfs)")


def test_a_decoy_is_named_by_who_takes_files_out(volume: Volume) -> None:
    image, missing = volume.copy(), list[str]()
    with_decoy(image, volume.place)

    def take(kind: str, body: dict[str, Any]) -> None:
        missing.extend([body["text"]] if kind == "missing" else [])

    with image.open("rb") as file, (volume.place / "archive").open("wb") as out:
        Collector(["/var/log/**"], Archive(out.fileno(), disks.MB), take).run(Raw(file.fileno()))
    assert missing[0] == "Volume 1 bears the marks of several file systems (ext, ntfs)."


@pytest.mark.parametrize(
    ("at", "mark", "kind"),
    [
        (65600, b"_BHRfS_M", "btrfs"),
        (1024, b"\x10\x20\xf5\xf2", "f2fs"),
        (32768, b"JFS1", "jfs"),
        (65588, b"ReIsEr2Fs", "reiserfs"),
        (11, struct.pack("<HBHBHHB", 512, 8, 1, 2, 512, 0, 0xF8), "fat"),
        (512, b"LABELONE", "lvm"),
    ],
)
def test_every_mark_counts(volume: Volume, at: int, mark: bytes, kind: str) -> None:
    image = volume.copy()
    disks.write_at(image, at, mark)
    with image.open("rb") as file:
        assert kind in marks(Raw(file.fileno()))
    told(volume.both(image), "several file systems (")


# --- what a file is made of ------------------------------------------------------------------------------------------

LISTED = made.entry(0x10, RECORD, 0) + made.entry(0x30, RECORD, 1)
PART = made.outside(DATA, [(FREE, 1)], 4096, 2)
LISTS_IT = made.resident(0x20, LISTED + made.entry(DATA, RECORD + 1, 2), 5)


def test_a_listed_part_is_read(volume: Volume) -> None:
    for tally in volume.both(volume.holding(LISTS_IT, made.name("evil.exe"), more=PART)):
        assert [finding.path for finding in tally.findings] == ["/evil.exe"]


@pytest.mark.parametrize("runs", [[], [(FREE + 50, 1)]], ids=["no runs", "another content"])
def test_an_attribute_that_the_list_leaves_out_is_told(volume: Volume, runs: made.Runs) -> None:
    """Windows reads the listed one."""
    hiding = made.outside(DATA, runs, 4096 * len(runs), 7)
    told(volume.both(volume.holding(LISTS_IT, made.name("evil.exe"), hiding, more=PART)), "or leaves one out")


def test_an_empty_part_beside_another_is_told(volume: Volume) -> None:
    both = made.resident(0x20, LISTED + made.entry(DATA, RECORD, 7) + made.entry(DATA, RECORD + 1, 2), 5)
    image = volume.holding(both, made.name("evil.exe"), made.outside(DATA, [], 0, 7), more=PART)
    told(volume.both(image), "missing, or there twice")


def test_two_lists_are_told(volume: Volume) -> None:
    image = volume.holding(LISTS_IT, made.resident(0x20, b"", 6), made.name("evil.exe"), more=PART)
    told(volume.both(image), "or leaves one out")


def test_a_part_without_a_list_is_told(volume: Volume) -> None:
    second = made.outside(DATA, [(FREE + 1, 1)], 0, 3, first=1)
    told(volume.both(volume.holding(made.name("evil.exe"), PART, second)), "or leaves one out")


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("long", ["", "an evil program.exe"], ids=["alone", "beside a long one"])
def test_a_short_name_counts(volume: Volume, long: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "direct", Direct(volume.golden, Indicators(names=frozenset(["EVIL.EXE"]))))
    listed = [made.name(long, number=7)] if long else []
    listed.append(made.name("EVIL.EXE", space=2, number=8))
    for tally in volume.both(volume.holding(*listed, PART, content=bytes(4096))):
        assert [(finding.path, finding.rule) for finding in tally.findings] == [("/EVIL.EXE", "ioc_name")]
    assert made.opened(volume.place / "changed.img").path(RECORD) == b"/" + (long or "EVIL.EXE").encode()


def test_a_stream_below_a_renamed_directory_is_told_by_its_path(tmp_path: Path) -> None:
    base = Volume(tmp_path)
    base.golden = base.holding(made.name("old")).rename(tmp_path / "base.img")
    disks.write_at(base.golden, FREE * made.CLUSTER, bytes(4096))
    stream = made.resident(DATA, b"harmless", 2, "hidden")
    made.put(base.golden, 17, made.record(17, made.standard(), made.name("file", parent=RECORD), stream))
    for path, wanted in (("/new/file:hidden", "/NEW/File:Hidden"), ("/new/file", "/New/FILE")):
        base.direct = Direct(base.golden, Indicators(paths=frozenset([wanted])))
        for tally in base.both(base.holding(made.name("new"), content=bytes(4096))):
            assert [finding.path for finding in tally.findings] == [path]


@pytest.mark.parametrize(
    "wanted", [r"{names: [evil.EXE]}", r"{paths: ['C:\EVIL.exe']}", r"{paths: ['D:\dir\x', '/evil.exe']}"]
)
def test_case_does_not_count_in_indicators(volume: Volume, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "direct", Direct(volume.golden, parse(wanted, "ioc.yml")))
    for tally in volume.both(volume.holding(made.name("Evil.EXE"), PART, content=bytes(4096))):
        assert [finding.path for finding in tally.findings] == ["/Evil.EXE"]


# --- memory that was written out -------------------------------------------------------------------------------------

LARGE = 70_000  # clusters, more than is ever judged as a whole
STORED = struct.pack("<H", 0x3000 | 4095) + MARKER.ljust(4094, b"\0")  # LZNT1, as it is


@pytest.mark.parametrize("flags", [1, 0x4000], ids=["packed", "encrypted"])
@pytest.mark.parametrize("name", ["pagefile.sys", "other.sys"])
def test_a_swap_file_that_is_packed_or_encrypted_is_judged_as_any_file(volume: Volume, name: str, flags: int) -> None:
    size = LARGE * made.CLUSTER
    content = made.outside(DATA, [(FREE, 2), (None, 14), (None, LARGE)], size, 2, flags=flags, unit=4)
    whole, delta = volume.both(volume.holding(made.name(name), content, content=STORED))
    if flags == 1:
        assert [finding.path for finding in whole.findings] == ["/" + name]
    else:
        told((whole, delta), "encrypted by the guest")


def test_a_match_across_two_fragments_of_a_swap_file_is_seen(volume: Volume) -> None:
    size, half = LARGE * made.CLUSTER, len(MARKER) // 2
    runs: made.Runs = [(FREE, 1), (FREE + 10, 1), (None, LARGE - 2)]
    image = volume.holding(made.name("pagefile.sys"), made.outside(DATA, runs, size, 2), content=bytes(4096))
    disks.write_at(image, FREE * 4096 + 4096 - half, MARKER[:half])
    disks.write_at(image, (FREE + 10) * 4096, MARKER[half:])
    for tally in volume.both(image):
        assert [(one.path, one.offset) for one in tally.indicators] == [("(memory that was written out)", 4096 - half)]
        assert "matched as raw bytes" in " ".join(tally.notes)


def test_a_swap_file_under_another_name_is_judged_as_any_file(tmp_path: Path) -> None:
    """As the base's, it was matched as raw bytes only."""
    base = Volume(tmp_path)
    content = made.outside(DATA, [(None, LARGE)], LARGE * made.CLUSTER, 2)
    base.golden = base.holding(made.name("swapfile.sys"), content).rename(tmp_path / "base.img")
    disks.write_at(base.golden, FREE * made.CLUSTER, bytes(4096))
    base.direct = Direct(base.golden)
    image = base.holding(made.name("evil.exe"), content, content=bytes(4096))
    told(base.both(image), "in parts only")


def test_a_swap_file_that_has_another_name_too_is_judged_as_any_file(volume: Volume) -> None:
    content = made.outside(DATA, [(None, LARGE)], LARGE * made.CLUSTER, 2)
    names = made.name("pagefile.sys", number=7), made.name("evil.exe", number=8)
    told(volume.both(volume.holding(*names, content)), "in parts only")


@pytest.mark.parametrize("head", [b"MZ\x90\0", b"\x7fELF", b"#!/bin/sh\n"], ids=["MZ", "ELF", "script"])
@pytest.mark.parametrize("name", ["pagefile.sys", "swapfile.sys", "hiberfil.sys"])
def test_a_program_under_the_name_of_a_swap_file_is_judged_as_any_file(volume: Volume, name: str, head: bytes) -> None:
    content = made.outside(DATA, [(FREE, 1), (None, LARGE - 1)], LARGE * made.CLUSTER, 2)
    told(volume.both(volume.holding(made.name(name), content, content=head.ljust(4096, b"\0"))), "in parts only")


def test_a_swap_file_in_a_directory_is_judged_as_any_file(volume: Volume) -> None:
    content = made.outside(DATA, [(None, LARGE)], LARGE * made.CLUSTER, 2)
    told(volume.both(volume.holding(made.name("pagefile.sys", parent=11), content)), "in parts only")


STORE = "{10000000-2000-3000-4000-500000000000}{3808876B-C176-4e48-B7AE-04046E6CC752}"


@pytest.mark.parametrize(
    ("directory", "name", "fine"),
    [
        ("System Volume Information", STORE, True),
        ("system volume information", STORE, True),
        ("elsewhere", STORE, False),
        ("System Volume Information", "evil.iso" + STORE, False),
    ],
)
def test_what_shadow_copies_keep_is_known_by_its_place_and_its_name(
    volume: Volume, directory: str, name: str, fine: bool
) -> None:
    content = made.outside(DATA, [(FREE, 1), (None, LARGE)], LARGE * made.CLUSTER, 2)
    image = volume.holding(made.name(name, parent=17), content, content=b"x" * 4096)
    made.put(image, 17, made.record(17, made.standard(), made.name(directory)))
    tallies = volume.both(image)
    if fine:
        assert [tally.verdict().value for tally in tallies] == ["clean", "clean"], tallies[0].reasons
    else:
        told(tallies, "in parts only")


def test_what_shadow_copies_keep_is_judged_as_any_file_below_another_directory(tmp_path: Path) -> None:
    """As the base's, it was matched as raw bytes only."""
    base = Volume(tmp_path)
    content = made.outside(DATA, [(None, LARGE)], LARGE * made.CLUSTER, 2)
    base.golden = base.holding(made.name(STORE, parent=17), content, content=bytes(4096)).rename(tmp_path / "base.img")
    made.put(base.golden, 17, made.record(17, made.standard(), made.name("System Volume Information")))
    made.put(base.golden, 18, made.record(18, made.standard(), made.name("other")))
    base.direct = Direct(base.golden)
    told(base.both(base.holding(made.name(STORE, parent=18), content, content=bytes(4096))), "in parts only")


# --- the journal of changes ------------------------------------------------------------------------------------------

JOURNAL = made.name("$UsnJrnl", parent=11, number=7)
JOURNALED = made.outside(DATA, [(None, 1 << 32), (FREE, 1)], ((1 << 32) + 1) * made.CLUSTER, 2, name="$J")


def test_the_journal_of_changes_is_matched_as_raw_bytes(volume: Volume) -> None:
    """16 TiB, of which one cluster is there."""
    for tally in volume.both(volume.holding(JOURNAL, JOURNALED)):
        assert [(one.path, one.offset) for one in tally.indicators] == [("(journal of changes)", 1 << 44)]
    whole, delta = volume.both(volume.holding(JOURNAL, JOURNALED, content=bytes(range(256)) * 16))
    assert whole.verdict().value == delta.verdict().value == "clean", (whole.reasons, delta.reasons)


def test_a_file_that_calls_itself_the_journal_of_changes_too_is_judged_as_any_file(volume: Volume) -> None:
    content = made.outside(DATA, [(FREE, 1)], 4096, 2, name="$J")
    for tally in volume.both(volume.holding(made.name("normal.txt", number=6), JOURNAL, content)):
        assert [finding.path for finding in tally.findings] == ["/normal.txt:$J"]


def test_a_journal_of_changes_that_got_another_name_is_judged_as_any_file(tmp_path: Path) -> None:
    """As the base's, it was matched as raw bytes only."""
    base = Volume(tmp_path)
    content = made.outside(DATA, [(None, LARGE)], LARGE * made.CLUSTER, 2, name="$J")
    base.golden = base.holding(JOURNAL, content, content=bytes(4096)).rename(tmp_path / "base.img")
    base.direct = Direct(base.golden)
    told(base.both(base.holding(made.name("evil.exe"), content, content=bytes(4096))), "in parts only")


def test_a_small_journal_of_changes_is_judged_as_any_file(volume: Volume) -> None:
    content = made.outside(DATA, [(FREE, 1)], 4096, 2, name="$J")
    for tally in volume.both(volume.holding(JOURNAL, content)):
        assert [finding.path for finding in tally.findings] == ["/$Extend/$UsnJrnl:$J"]


def test_a_program_under_the_name_of_the_journal_of_changes_is_judged_as_any_file(volume: Volume) -> None:
    content = made.outside(DATA, [(FREE, 1), (None, LARGE)], LARGE * made.CLUSTER, 2, name="$J")
    told(volume.both(volume.holding(JOURNAL, content, content=b"MZ\x90\0")), "in parts only")


def test_clusters_marked_as_bad_are_matched(volume: Volume) -> None:
    image = volume.copy()
    fs = made.opened(image)
    bad = next(one for one in fs.file(8).attributes if one.name == b"$Bad")
    size, clusters = bad.size, bad.runs[0][2]
    runs: made.Runs = [(None, FREE), (FREE, 1), (None, clusters - FREE - 1)]
    others = [one.raw for one in fs.file(8).attributes if one.name != b"$Bad"]
    new = made.outside(DATA, runs, size, bad.number, initialized=0, name="$Bad")
    made.put(image, 8, made.record(8, *others, new, sequence=8))
    disks.write_at(image, FREE * made.CLUSTER, MARKER)
    whole = volume.direct.look(image, False)
    assert [(one.path, one.offset) for one in whole.indicators] == [("(clusters marked as bad)", FREE * made.CLUSTER)]


@pytest.mark.parametrize(("number", "own"), [(1, "$MFTMirr"), (2, "$LogFile"), (6, "$Bitmap"), (8, "$BadClus")])
def test_what_is_the_volume_s_own_is_judged_as_any_file_once_it_has_another_name(
    volume: Volume, number: int, own: str
) -> None:
    """Linux opens it by that."""
    image = volume.copy()
    fs = made.opened(image)
    others = [one.raw for one in fs.file(number).attributes if one.type != DATA]
    stream = "$Bad" if number == 8 else ""
    content = made.outside(DATA, [(FREE, 3)], 3 * 4096, 30, name=stream)
    disks.write_at(image, FREE * made.CLUSTER, b"\xff" * 8192 + MARKER)
    assert fs.path(number).decode() == "/" + own
    for name in ("evil.exe", "$evil"):
        new = made.record(number, *others, made.name(name, number=31), content, sequence=number)
        made.put(image, number, new)
        for tally in volume.both(image):
            assert [finding.path for finding in tally.findings] == [fs.path(number).decode() + ":$Bad" * (number == 8)]


def test_an_attribute_of_a_kind_that_is_not_known_is_told(volume: Volume) -> None:
    """A volume may name kinds of its own, and Windows opens them by that name."""
    told(
        volume.both(volume.holding(made.name("file"), made.resident(0x1000, MARKER, 3))), "of a kind that is not known"
    )


@pytest.mark.parametrize("flags", [2, 3, 0xFF])
def test_content_that_is_packed_in_another_way_is_told(volume: Volume, flags: int) -> None:
    content = made.outside(DATA, [(FREE, 2), (None, 14)], 16 * made.CLUSTER, 2, flags=flags, unit=4)
    told(volume.both(volume.holding(made.name("file"), content, content=bytes(4096))), "packed in a way")


def test_a_packed_unit_with_a_hole_before_its_end_is_told(volume: Volume) -> None:
    content = made.outside(DATA, [(None, 1), (FREE, 2), (None, 13)], 16 * made.CLUSTER, 2, flags=1, unit=4)
    told(volume.both(volume.holding(made.name("file"), content, content=STORED)), "packed content is damaged")


def test_a_packed_chunk_that_ends_within_a_token_is_told(volume: Volume) -> None:
    chunk = bytes([2]) + b"x" + b"\0"
    stored = struct.pack("<H", 0xB000 | len(chunk) - 1) + chunk
    content = made.outside(DATA, [(FREE, 1), (None, 15)], 16 * made.CLUSTER, 2, flags=1, unit=4)
    told(volume.both(volume.holding(made.name("file"), content, content=stored)), "packed content is damaged")


# --- what Windows reads elsewhere ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_resident", [True, False])
def test_a_reparse_point_is_seen_wherever_it_lies(volume: Volume, is_resident: bool) -> None:
    tag = struct.pack("<IHH", 0x80000017, 16, 0) + bytes(16)
    point = made.resident(0xC0, tag, 4) if is_resident else made.outside(0xC0, [(FREE, 1)], 24, 4)
    image = volume.holding(made.name("compact.exe"), made.outside(DATA, [(None, 1)], 4096, 2), point, content=tag)
    told(volume.both(image), "keeps its content packed")


@pytest.mark.parametrize(("tag", "fine"), [(0xA0000003, True), (0x9000601A, True), (0x8000001B, True), (0x77, False)])
def test_a_reparse_point_that_nobody_knows_is_told(volume: Volume, tag: int, fine: bool) -> None:
    point = made.resident(0xC0, struct.pack("<IHH", tag, 16, 0) + bytes(16), 4)
    tallies = volume.both(volume.holding(made.name("point"), point, content=bytes(4096)))
    if fine:
        assert [tally.verdict().value for tally in tallies] == ["clean", "clean"], tallies[0].reasons
    else:
        told(tallies, "(reparse tag 0x77)")


def test_a_reparse_point_of_which_nothing_is_initialized_is_told(volume: Volume) -> None:
    point = made.outside(0xC0, [(FREE, 1)], 24, 4, initialized=0)
    told(volume.both(volume.holding(made.name("point"), point, content=bytes(4096))), "(reparse tag 0x0)")


@pytest.mark.parametrize(("kind", "head"), [(0xE0, b""), (0xC0, struct.pack("<IHH", 0xA000000C, 100, 0))])
def test_attributes_that_programs_read_are_matched(volume: Volume, kind: int, head: bytes) -> None:
    image = volume.holding(made.name("file"), made.resident(kind, head + MARKER, 4), content=bytes(4096))
    for tally in volume.both(image):
        assert "(attributes of inode 16)" in [one.path for one in tally.indicators]


@pytest.mark.parametrize("kind", [0xE0, 0xC0])
def test_attributes_without_bounds_are_told(volume: Volume, kind: int) -> None:
    huge = made.outside(kind, [(FREE, 1), (None, 1 << 28)], 1 << 40, 4)
    told(volume.both(volume.holding(made.name("file"), huge, content=bytes(4096))), "larger than Windows makes them")


def test_a_reparse_point_that_cannot_be_read_is_told(volume: Volume) -> None:
    point = made.resident(0xC0, bytes(24), 4)
    image = volume.holding(made.name("two"), made.outside(DATA, [(None, 1)], 4096, 2), point, point)
    told(volume.both(image), "there twice")


# --- what would take forever -----------------------------------------------------------------------------------------


def stream_of(volume: Volume, *attributes: bytes, content: bytes = b"") -> tuple[Ntfs, Stream]:
    fs = made.opened(volume.holding(made.name("large"), *attributes, content=content))
    return fs, fs.stream(fs.file(RECORD), b"")


@pytest.mark.parametrize("flags", [0, 1], ids=["plain", "packed"])
def test_holes_are_not_read(volume: Volume, flags: int) -> None:
    """16 TiB, of which a few clusters are there and fewer are initialized."""
    runs: made.Runs = [(None, 64), (FREE, 2), (None, 1 << 32), (FREE + 2, 1)]
    size = (sum(count for _lcn, count in runs)) * made.CLUSTER
    for initialized, known in ((size, 2), (70 * made.CLUSTER, 1), (0, 0)):
        fs, stream = stream_of(volume, made.outside(DATA, runs, size, 2, flags=flags, unit=4, initialized=initialized))
        assert len(fs.stretches(stream)) == known
        assert sum(length for _at, length in fs.stretches(stream)) <= known * 16 * made.CLUSTER


def test_what_is_packed_behind_a_great_hole_is_found(volume: Volume) -> None:
    runs: made.Runs = [(None, 1 << 32), (FREE, 2), (None, 14)]
    content = made.outside(DATA, runs, ((1 << 32) + 16) * made.CLUSTER, 2, flags=1, unit=4)
    whole, _delta = volume.both(volume.holding(made.name("evil.exe"), content, content=STORED))
    assert [finding.path for finding in whole.findings] == ["/evil.exe"]


def test_a_list_that_windows_would_refuse_is_told(volume: Volume) -> None:
    size = (1 << 18) + 32
    image = volume.holding(made.outside(0x20, [(FREE, 65)], size, 5), made.name("evil.exe"), content=bytes(size))
    told(volume.both(image), "list of attributes is of an absurd size")


def test_the_parts_of_thousands_of_streams_are_looked_for_once(volume: Volume) -> None:
    class Counted(tuple[Attribute, ...]):
        walks = 0

        def __iter__(self) -> Iterator[Attribute]:
            Counted.walks += 1
            return super().__iter__()

    fs = made.opened(volume.golden)
    streams = Counted(Attribute(DATA, b"s%d" % number, 0, number, b"", b"x", 0, 1, 1) for number in range(2000))
    file = File(RECORD, 1, 1, False, (RECORD,), streams)
    assert [fs.stream(file, name).value for name in file.streams] == [b"x"] * 2000
    assert Counted.walks == 1


def test_a_directory_is_read_once_for_the_paths_below(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    image = volume.holding(made.name("directory"))
    fs, read = made.opened(image), list[int]()
    record = fs.record

    def noted(number: int) -> Record:
        read.append(number)
        return record(number)

    monkeypatch.setattr(fs, "record", noted)
    for number in range(100):
        assert fs.path(17, (RECORD, b"%d" % number)) == b"/directory/%d" % number
    assert read == [RECORD]
