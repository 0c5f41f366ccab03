# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Partition tables, whole and forged."""

from __future__ import annotations

import struct
import zlib
from uuid import UUID

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Blocks
from ansible_collections.vmward.remediation.plugins.module_utils._scan.partitions import (
    BadPartitionTable,
    Extent,
    find_gaps,
    find_partitions,
    read_table,
)

PROTECTIVE = (0xEE, 1, 2047)
LINUX = bytes.fromhex("af3dc60f838472478e793d69d8477de4")
DYNAMIC = bytes.fromhex("a0609baf3114624fbc683311714a69ad")
BIOS_BOOT = UUID("21686148-6449-6e6f-744e-656564454649").bytes_le
PREP = UUID("9e1a2d38-c612-4316-aa26-8b49521e5a8b").bytes_le
LAST = 2047


class Memory(Blocks):
    def __init__(self, sectors: dict[int, bytes], size: int = 1 << 20) -> None:
        self.size = size
        self._data = bytearray(size)
        for number, sector in sectors.items():
            self._data[number * 512 : number * 512 + len(sector)] = sector

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._data[offset : offset + length]).ljust(length, b"\0")


def table(*entries: tuple[int, int, int], boot: int = 0) -> bytes:
    slots = b"".join(struct.pack("<B3xB3xII", boot, kind, start, count) for kind, start, count in entries)
    return bytes(446) + slots.ljust(64, b"\0") + b"\x55\xaa"


def test_an_mbr_is_read_in_its_order() -> None:
    disk = Memory({0: table((0x83, 100, 50), (0x82, 10, 20))})
    assert find_partitions(disk) == [Extent(51200, 25600), Extent(5120, 10240)]


@pytest.mark.parametrize("kind", [0x83, 0x05])
def test_a_file_system_where_an_mbr_of_large_sectors_names_it_is_told(kind: int) -> None:
    """A guest whose disk has sectors of 4096 bytes finds its partitions there, primary and logical ones."""
    superblock = bytes(1080) + b"\x53\xef"
    for at in (120, 121, 15):
        chain = {40: table((0x83, 5, 50)), 320: table((0x83, 80, 10))} if kind == 0x05 else {}
        slots = ((0x05, 40, 60),) if chain else ((0x83, 120, 10),)
        disk = Memory({0: table(*slots), **chain, at * 8: superblock})
        assert find_partitions(disk) == [Extent(45 * 512, 50 * 512) if chain else Extent(120 * 512, 10 * 512)]
        told = "4096 bytes" in " ".join(read_table(disk).doubts)
        assert told == (at == 120)


def test_no_table_is_no_partition() -> None:
    assert find_partitions(Memory({})) == []


def test_a_boot_sector_of_a_file_system_is_no_table() -> None:
    assert find_partitions(Memory({0: table((0x20, 100, 50), boot=0x6E)})) == []


@pytest.mark.parametrize(
    ("sectors", "words"),
    [
        ({0: table((0x83, 10, 50), (0x83, 30, 50))}, "overlap"),
        ({0: table((0x83, 10, 5000))}, "past the end"),
        ({0: table((0xEE, 1, 2047))}, "GPT behind it is gone"),
        ({0: table((0x05, 100, 500))}, "is broken"),
        ({0: table((0x05, 100, 500)), 100: table((0x83, 1, 2), (0x05, 0, 500))}, "has no end"),
        ({0: table((0xEE, 1, 2047)), 1: b"EFI PART" + bytes(84)}, "absurd sizes"),
        ({0: table((0xEE, 2, 2046))}, "GPT behind it is gone"),
        ({0: table((0x05, 100, 500)), 100: table((0x05, 10, 9), (0x05, 20, 9))}, "two successors"),
    ],
)
def test_a_forged_table_is_told(sectors: dict[int, bytes], words: str) -> None:
    with pytest.raises(BadPartitionTable, match=words):
        find_partitions(Memory(sectors))


def test_gaps_are_what_no_partition_covers() -> None:
    assert find_gaps([Extent(10, 10), Extent(30, 70)], 100) == [Extent(0, 10), Extent(20, 10)]
    assert find_gaps([], 100) == [Extent(0, 100)]
    assert find_gaps([Extent(0, 100)], 100) == []


def test_a_slot_of_no_type_is_a_partition() -> None:
    """Linux asks for its size alone."""
    assert find_partitions(Memory({0: table((0, 100, 50), (0x83, 200, 0))})) == [Extent(51200, 25600)]


def test_a_logical_partition_of_no_type_is_one() -> None:
    disk = Memory({0: table((0x05, 100, 500)), 100: table((0, 10, 20), (0x05, 50, 60)), 150: table((0x83, 1, 2))})
    assert find_partitions(disk) == [Extent(110 * 512, 20 * 512), Extent(151 * 512, 2 * 512)]


def test_noise_behind_a_logical_partition_is_none() -> None:
    """The third and fourth slots hold noise, as Linux knows, where they reach out of what is theirs."""
    noise = (0x77, 900, 900), (0x12, 1, 5000)
    disk = Memory({0: table((0x05, 100, 500)), 100: table((0x83, 10, 20), (0, 0, 0), *noise)})
    assert find_partitions(disk) == [Extent(110 * 512, 20 * 512)]


@pytest.mark.parametrize(("kind", "words"), [(0x42, "dynamic disk"), (0xA5, "partitions of its own")])
def test_a_partition_that_holds_others_is_told(kind: int, words: str) -> None:
    found = read_table(Memory({0: table((kind, 100, 50))}))
    assert found.parts == [Extent(51200, 25600)]
    assert words in " ".join(found.doubts)


def test_a_table_of_solaris_in_a_partition_of_swap_is_told() -> None:
    slot = table((0x82, 100, 50))
    assert read_table(Memory({0: slot})).doubts == ()
    found = read_table(Memory({0: slot, 101: bytes(12) + b"\xee\xde\x0d\x60"}))
    assert "partitions of its own" in " ".join(found.doubts)


@pytest.mark.parametrize(("place", "data"), [(0, b"\x0b\xe5\xa9\x41"), (508, b"\xda\xbe"), (1024, b"RDSK"), (0, b"ER")])
def test_the_table_of_another_kind_is_told(place: int, data: bytes) -> None:
    disk = Memory({place // 512: bytes(place % 512) + data})
    assert "is not read" in " ".join(read_table(disk).doubts)


def entry(first: int, last: int, kind: bytes = LINUX) -> bytes:
    return struct.pack("<16s16sQQQ72s", kind, b"u" * 16, first, last, 0, b"")


def header(lba: int, table_at: int, rows: bytes, sector: int = 512, **changes: int) -> bytes:
    """A GPT header with its checksums."""
    last = (1 << 20) // sector - 1
    told = {"mine": lba, "other": last if lba == 1 else 1, "first": 6, "last": last - 6, "width": 128, **changes}
    places = [told[name] for name in ("mine", "other", "first", "last")]
    table = table_at, len(rows) // 128, told["width"], zlib.crc32(rows)
    raw = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, *places, b"d" * 16, *table)
    return raw[:16] + struct.pack("<I", zlib.crc32(raw)) + raw[20:]


def gpt(
    *rows: bytes, backup: tuple[bytes, ...] | None = None, mbr: bytes = b"", changes: dict[str, int] | None = None
) -> Memory:
    """With its copy at the end of the disk, which may differ."""
    first, second = (b"".join(some).ljust(512, b"\0") for some in (rows, rows if backup is None else backup))
    sectors = {0: mbr or table(PROTECTIVE), 1: header(1, 2, first, **changes or {}), 2: first}
    return Memory({**sectors, LAST: header(LAST, LAST - 1, second), LAST - 1: second})


def test_a_gpt_is_read_in_its_order() -> None:
    found = read_table(gpt(entry(100, 149), entry(50, 59)))
    assert (found.parts, found.doubts) == ([Extent(51200, 25600), Extent(25600, 5120)], ())


def test_a_gpt_that_no_protective_mbr_names_is_not_what_linux_reads() -> None:
    found = read_table(gpt(entry(100, 149), mbr=table((0x83, 300, 50))))
    assert found.parts == [Extent(153600, 25600)]
    assert "no protective MBR" in " ".join(found.doubts)


def test_a_gpt_without_any_mbr_is_read_and_told() -> None:
    found = read_table(gpt(entry(100, 149), mbr=bytes(512)))
    assert found.parts == [Extent(51200, 25600)]
    assert "no protective MBR" in " ".join(found.doubts)


def test_what_is_left_of_a_gpt_is_no_doubt() -> None:
    disk = Memory({0: table((0x83, 300, 50)), 1: b"EFI PART" + bytes(84)})
    assert read_table(disk).doubts == ()


def test_a_hybrid_mbr_may_name_what_the_gpt_names() -> None:
    disk = gpt(entry(100, 149), entry(200, 249), mbr=table(PROTECTIVE, (0x83, 100, 50)))
    assert read_table(disk).doubts == ()


def test_a_hybrid_mbr_that_names_another_partition_is_told() -> None:
    found = read_table(gpt(entry(100, 149), mbr=table(PROTECTIVE, (0x83, 300, 50))))
    assert found.parts == [Extent(51200, 25600)]
    assert "MBR" in " ".join(found.doubts)


@pytest.mark.parametrize(
    "change", [{"mine": 5}, {"width": 256}, {"first": 9000}, {"last": 9000}, {"first": 90, "last": 80}]
)
def test_a_header_that_linux_refuses_gives_way_to_its_copy(change: dict[str, int]) -> None:
    """The first one leaves out a partition; which of them counts depends on the system."""
    found = read_table(gpt(entry(100, 149), backup=(entry(100, 149), entry(200, 249)), changes=change))
    assert found.parts == [Extent(51200, 25600), Extent(102400, 25600)]
    assert "its copy" in " ".join(found.doubts)


def test_a_header_of_a_wrong_checksum_gives_way_to_its_copy() -> None:
    disk = gpt(entry(100, 149))
    disk._data[512 + 57] ^= 1
    found = read_table(disk)
    assert found.parts == [Extent(51200, 25600)]
    assert "checksum" in " ".join(found.doubts)


def test_copies_of_a_gpt_that_differ_are_told() -> None:
    found = read_table(gpt(entry(100, 149), backup=(entry(100, 149), entry(200, 249))))
    assert found.parts == [Extent(51200, 25600)]
    assert "differ" in " ".join(found.doubts)


def test_a_copy_where_the_header_says_counts_too() -> None:
    rows = entry(200, 249).ljust(512, b"\0")
    disk = gpt(entry(100, 149), changes={"other": 1500})
    disk._data[1500 * 512 : 1501 * 512] = header(1500, 1501, rows).ljust(512, b"\0")
    disk._data[1501 * 512 : 1502 * 512] = rows
    assert "differ" in " ".join(read_table(disk).doubts)


def test_a_copy_that_is_gone_or_broken_is_no_doubt() -> None:
    """As after the disk was grown or shrunk."""
    disk = gpt(entry(100, 149))
    disk._data[LAST * 512 : LAST * 512 + 8] = bytes(8)
    assert read_table(disk) == read_table(gpt(entry(100, 149)))
    grown = gpt(entry(100, 149))
    grown._data += bytes(1 << 20)
    grown.size *= 2
    assert read_table(grown) == read_table(disk)


def large_sectors(*rows: bytes, mbr: bytes) -> Memory:
    raw = b"".join(rows).ljust(4096, b"\0")
    return Memory({0: mbr, 8: header(1, 2, raw, 4096, first=3, last=200), 16: raw})


def test_a_disk_of_large_sectors_is_read() -> None:
    found = read_table(large_sectors(entry(10, 19), mbr=table((0xEE, 1, 255))))
    assert (found.parts, found.doubts) == ([Extent(40960, 40960)], ())


def test_a_gpt_for_large_sectors_beside_an_mbr_is_told() -> None:
    found = read_table(large_sectors(entry(10, 19), mbr=table((0x83, 300, 50))))
    assert found.parts == [Extent(153600, 25600)]
    assert "no protective MBR" in " ".join(found.doubts)


def test_two_tables_for_two_sizes_of_sectors_are_told() -> None:
    disk = gpt(entry(100, 149))
    other = large_sectors(entry(50, 59), mbr=bytes(512))
    disk._data[4096 : 4096 + 92] = other._data[4096 : 4096 + 92]
    disk._data[8192 : 8192 + 4096] = other._data[8192 : 8192 + 4096]
    found = read_table(disk)
    assert found.parts == [Extent(51200, 25600)]
    assert "4096" in " ".join(found.doubts)


def test_a_dynamic_disk_under_gpt_is_told() -> None:
    assert "dynamic disk" in " ".join(read_table(gpt(entry(100, 149, DYNAMIC))).doubts)


@pytest.mark.parametrize("kind", [BIOS_BOOT, PREP], ids=["BIOS boot", "PReP"])
def test_a_gpt_says_which_partition_is_for_boot_code(kind: bytes) -> None:
    found = read_table(gpt(entry(100, 149), entry(50, 59, kind)))
    assert found.boot == {Extent(25600, 5120)}
    assert read_table(gpt(entry(100, 149))).boot == set()


def test_no_partition_for_boot_code_is_large() -> None:
    """It holds a boot loader; whatever is larger holds something else, whatever its type says."""
    for size, is_one in ((32 << 20, True), ((32 << 20) + 512, False)):
        first = entry(100, 99 + size // 512, BIOS_BOOT).ljust(512, b"\0")
        disk = Memory({0: table(PROTECTIVE), 1: header(1, 2, first, last=200_000), 2: first}, 128 << 20)
        assert bool(read_table(disk).boot) == is_one
