# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Partition tables, whole and forged."""

from __future__ import annotations

import struct

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Blocks
from ansible_collections.vmward.remediation.plugins.module_utils._scan.partitions import (
    BadPartitionTable,
    Extent,
    find_gaps,
    find_partitions,
)


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
        ({1: b"EFI PART" + bytes(84)}, "absurd sizes"),
    ],
)
def test_a_forged_table_is_told(sectors: dict[int, bytes], words: str) -> None:
    with pytest.raises(BadPartitionTable, match=words):
        find_partitions(Memory(sectors))


def test_gaps_are_what_no_partition_covers() -> None:
    assert find_gaps([Extent(10, 10), Extent(30, 70)], 100) == [Extent(0, 10), Extent(20, 10)]
    assert find_gaps([], 100) == [Extent(0, 100)]
    assert find_gaps([Extent(0, 100)], 100) == []
