# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the volumes of a disk lie, and what lies between them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from .blocks import Blocks

SECTOR = 512
MAX_PARTITIONS = 1024
_EXTENDED = (0x05, 0x0F, 0x85)
_ENTRY = struct.Struct("<B3xB3xII")


class BadPartitionTable(Exception):
    """The partition table can't be trusted; the sentence says why."""


@dataclass(frozen=True)
class Extent:
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


def find_partitions(disk: Blocks) -> list[Extent]:
    """The partitions by GPT or MBR in the order of their tables; none at all when there is no table."""
    boot = disk.read(0, SECTOR)
    for sector in (512, 4096):
        if disk.read(sector, 8) == b"EFI PART":
            return _checked(list(_gpt(disk, sector)), disk)
    if boot[510:512] != b"\x55\xaa":
        return []
    if any(boot[at] not in (0, 0x80) for at in range(446, 510, 16)):
        return []  # the boot sector of a file system ends with the same mark
    if any(kind == 0xEE for kind, _start, _count in _entries(boot)):
        raise BadPartitionTable("the protective MBR stands, but the GPT behind it is gone")
    return _checked(list(_mbr(disk, boot)), disk)


def find_gaps(parts: list[Extent], size: int) -> list[Extent]:
    """The stretches of a disk that no partition covers."""
    gaps, at = [], 0
    for part in sorted(parts, key=lambda part: part.start):
        if part.start > at:
            gaps.append(Extent(at, part.start - at))
        at = max(at, part.end)
    if at < size:
        gaps.append(Extent(at, size - at))
    return gaps


def _entries(sector: bytes) -> Iterator[tuple[int, int, int]]:
    for index in range(4):
        _boot, kind, start, count = _ENTRY.unpack_from(sector, 446 + 16 * index)
        if kind and count:
            yield kind, start, count


def _mbr(disk: Blocks, boot: bytes) -> Iterator[Extent]:
    for kind, start, count in _entries(boot):
        if kind in _EXTENDED:
            yield from _logical(disk, start)
        else:
            yield Extent(start * SECTOR, count * SECTOR)


def _logical(disk: Blocks, base: int) -> Iterator[Extent]:
    at = base
    seen: set[int] = set()
    while at not in seen and len(seen) < MAX_PARTITIONS:
        seen.add(at)
        sector = disk.read(at * SECTOR, SECTOR)
        if sector[510:512] != b"\x55\xaa":
            raise BadPartitionTable("the chain of logical partitions is broken")
        following = None
        for kind, start, count in _entries(sector):
            if kind in _EXTENDED:
                following = base + start
            else:
                yield Extent((at + start) * SECTOR, count * SECTOR)
        if following is None:
            return
        at = following
    raise BadPartitionTable("the chain of logical partitions has no end")


def _gpt(disk: Blocks, sector: int) -> Iterator[Extent]:
    header = disk.read(sector, sector)
    length, crc = struct.unpack_from("<II", header, 12)
    table_at, count, width, table_crc = struct.unpack_from("<QIII", header, 72)
    if not 92 <= length <= sector or not 1 <= count <= MAX_PARTITIONS or width not in (128, 256, 512):
        raise BadPartitionTable("the GPT header holds absurd sizes")
    if zlib.crc32(header[:16] + bytes(4) + header[20:length]) != crc:
        raise BadPartitionTable("the checksum of the GPT header is wrong")
    table = disk.read(table_at * sector, count * width)
    if zlib.crc32(table) != table_crc:
        raise BadPartitionTable("the checksum of the GPT is wrong")
    for at in range(0, count * width, width):
        first, last = struct.unpack_from("<QQ", table, at + 32)
        if table[at : at + 16].strip(b"\0"):
            yield Extent(first * sector, (last + 1 - first) * sector)


def _checked(parts: list[Extent], disk: Blocks) -> list[Extent]:
    at = 0
    for part in sorted(parts, key=lambda part: part.start):
        if part.size <= 0 or part.start < at:
            raise BadPartitionTable("two partitions overlap")
        if part.end > disk.size:
            raise BadPartitionTable("a partition reaches past the end of the disk")
        at = part.end
    return parts
