# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the volumes of a disk lie, and what lies between them: as Linux sees it, and what others may see instead.

Linux (block/partitions) takes a GPT only with a protective MBR, and only with a sound first header; others take the
copy at the disk's end, or an MBR beside it. Whatever could make a system see another partition is told as a doubt.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from .blocks import Blocks, BootCode, Slice
from .marks import marks

SECTOR = 512
MAX_PARTITIONS = 1024
_SECTORS = 512, 4096
_PROTECTIVE = 0xEE
_EXTENDED = (0x05, 0x0F, 0x85)
_DYNAMIC = 0x42  # the Logical Disk Manager of Windows
_NESTED = (0x63, 0x81, 0xA5, 0xA6, 0xA9, 0xBF)  # UnixWare, Minix, the BSDs, Solaris: Linux looks inside of them
_SWAP, _SOLARIS = 0x82, b"\xee\xde\x0d\x60"  # of one type; a table of Solaris has this mark in its second sector
_ENTRY = struct.Struct("<B3xB3xII")
_GPT_ENTRY = 128  # Linux takes no other
_DYNAMIC_GUIDS = (
    bytes.fromhex("aac808588f7ee04285d2e1e90434cfb3"),
    bytes.fromhex("a0609baf3114624fbc683311714a69ad"),
)
_BOOT_GUIDS = (
    bytes.fromhex("4861682149646f6e744e656564454649"),  # BIOS boot
    bytes.fromhex("382d1a9e12c61643aa268b49521e5a8b"),  # PReP
)
_MOST_BOOT = 32 << 20  # bytes of a boot loader
_IS_DYNAMIC = "a partition is of a dynamic disk of Windows (LDM), whose volumes are not read"
_OTHER_TABLES = (
    (0, b"\x0b\xe5\xa9\x41", "SGI"),
    (0, b"ER", "Macintosh"),
    (0, b"\xc9\xc2\xd4\xc1", "AIX"),
    (64, b"\x57\x45\x56\x82", "BSD or OSF"),
    (508, b"\xda\xbe", "Sun"),
    *((at, b"RDSK", "Amiga") for at in range(0, 16 * SECTOR, SECTOR)),
)


class BadPartitionTable(Exception):
    """The partition table can't be trusted; the sentence says why."""


@dataclass(frozen=True)
class Extent:
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class Table:
    """`doubts`: why a guest may see other partitions than these, or more. `boot`: those that are for a boot loader."""

    parts: list[Extent]
    doubts: tuple[str, ...] = ()
    boot: frozenset[Extent] = frozenset()

    def volume(self, disk: Blocks, part: Extent) -> Blocks:
        if part == Extent(0, disk.size):
            return disk
        return (BootCode if part in self.boot else Slice)(disk, part.start, part.size)


@dataclass(frozen=True)
class _Slot:
    kind: int
    start: int
    count: int

    def extent(self, sector: int, base: int = 0) -> Extent:
        return Extent((base + self.start) * sector, self.count * sector)


@dataclass(frozen=True)
class _Gpt:
    parts: list[Extent]
    copy: int
    is_dynamic: bool
    boot: frozenset[Extent]


def find_partitions(disk: Blocks) -> list[Extent]:
    """The partitions in the order of their tables; none at all when there is no table."""
    return read_table(disk).parts


def read_table(disk: Blocks) -> Table:
    head = disk.read(0, 16 * SECTOR)
    doubts = [
        "it bears the mark of a partition table (%s) that is not read" % name
        for at, magic, name in _OTHER_TABLES
        if head[at : at + len(magic)] == magic
    ]
    slots = _slots(head[:SECTOR])
    boot: frozenset[Extent] = frozenset()
    if any(slot.kind == _PROTECTIVE for slot in slots):
        gpt = _protected(disk, slots, doubts)
        parts, boot = gpt.parts, gpt.boot
    else:
        parts = _unprotected(disk, slots, doubts)
    return Table(_checked(parts, disk), tuple(dict.fromkeys(doubts)), boot)


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


def _slots(sector: bytes) -> list[_Slot]:
    """Of an MBR, if it is one. Linux asks for the size alone, whatever the type."""
    if sector[510:512] != b"\x55\xaa" or any(sector[at] not in (0, 0x80) for at in range(446, 510, 16)):
        return []  # the boot sector of a file system ends with the same mark
    return _used(sector)


def _used(sector: bytes) -> list[_Slot]:
    return [slot for slot in _all(sector) if slot.count]


def _all(sector: bytes) -> list[_Slot]:
    return [_Slot(*_ENTRY.unpack_from(sector, 446 + 16 * index)[1:]) for index in range(4)]


def _protected(disk: Blocks, slots: list[_Slot], doubts: list[str]) -> _Gpt:
    """By the GPT that the MBR stands before."""
    sector, gpt = _choose(disk, doubts)
    ends = [(size, disk.size // size - 1) for size in _SECTORS]
    copies = [_sound(disk, *place) for place in ((sector, gpt.copy), *ends)]
    if any(copy is not None and set(copy.parts) != set(gpt.parts) for copy in copies):
        doubts.append("its GPT and a copy of it differ in their partitions")
    if gpt.is_dynamic:
        doubts.append(_IS_DYNAMIC)
    beside = [slot for slot in slots if slot.kind != _PROTECTIVE]
    if set(_mbr(disk, beside, doubts)) - set(gpt.parts):
        doubts.append("the MBR before its GPT names another partition, which Windows may mount")
    if not any(slot.kind == _PROTECTIVE and slot.start == 1 for slot in slots):
        doubts.append("the MBR before its GPT is not one that Linux accepts")
    return gpt


def _choose(disk: Blocks, doubts: list[str]) -> tuple[int, _Gpt]:
    """Behind the first sector, of either size that sectors have; else from the end, as others than Linux do."""
    found, whys = list[tuple[int, _Gpt]](), list[str]()
    for sector in _SECTORS:
        try:
            gpt = _gpt(disk, sector, 1)
        except BadPartitionTable as exc:
            whys.append(str(exc))
        else:
            found += [(sector, gpt)] if gpt is not None else []
    if len(found) > 1:
        doubts.append("it holds a GPT for sectors of 512 bytes, and one for sectors of 4096 bytes")
    if found:
        doubts += ["beside its GPT lies a broken one: %s" % why for why in whys]
        return found[0]
    why = whys[0] if whys else "the protective MBR stands, but the GPT behind it is gone"
    for sector in _SECTORS:
        gpt = _sound(disk, sector, disk.size // sector - 1)
        if gpt is not None:
            doubts.append("its GPT was read from its copy, as some systems do and Linux does not: %s" % why)
            return sector, gpt
    raise BadPartitionTable(why)


def _unprotected(disk: Blocks, slots: list[_Slot], doubts: list[str]) -> list[Extent]:
    """By the MBR. No common system heeds a GPT then, but what it names must not be passed over in silence."""
    parts = list(_mbr(disk, slots, doubts))
    if any(marks(Slice(disk, part.start, part.size)) for part in _by_large_sectors(disk, slots)):
        doubts.append("its MBR, by sectors of 4096 bytes as some disks have them, names a file system elsewhere")
    for sector in _SECTORS:
        gpt = _sound(disk, sector, 1)
        if gpt is not None and set(gpt.parts) - set(parts):
            doubts.append("it holds a GPT that no protective MBR stands before, so that Linux does not heed it")
            parts = parts or gpt.parts
    return parts


def _by_large_sectors(disk: Blocks, slots: list[_Slot]) -> list[Extent]:
    try:
        parts = list(_mbr(disk, slots, [], max(_SECTORS)))
    except BadPartitionTable:
        return []
    return [part for part in parts if part.end <= disk.size]


def _mbr(disk: Blocks, slots: list[_Slot], doubts: list[str], sector: int = SECTOR) -> Iterator[Extent]:
    for slot in slots:
        if slot.kind in _EXTENDED:
            yield from _logical(disk, slot, doubts, sector)
        else:
            part = slot.extent(sector)
            _look_at(disk, slot.kind, part, doubts)
            yield part


def _look_at(disk: Blocks, kind: int, part: Extent, doubts: list[str]) -> None:
    if kind == _DYNAMIC:
        doubts.append(_IS_DYNAMIC)
    if kind in _NESTED or (kind == _SWAP and disk.read(part.start + SECTOR + 12, 4) == _SOLARIS):
        doubts.append("a partition of type %#04x may hold partitions of its own, which are not read" % kind)


def _logical(disk: Blocks, extended: _Slot, doubts: list[str], size: int) -> Iterator[Extent]:
    whole = extended.extent(size)
    at, within = extended.start, whole
    seen: set[int] = set()
    while at not in seen and len(seen) < MAX_PARTITIONS:
        seen.add(at)
        sector = disk.read(at * size, SECTOR)
        if sector[510:512] != b"\x55\xaa":
            raise BadPartitionTable("the chain of logical partitions is broken")
        for number, slot in enumerate(_all(sector)):
            part = slot.extent(size, at)
            if not slot.count or slot.kind in _EXTENDED:
                continue
            # As Linux does: there is often noise in the third and fourth
            if number < 2 or (slot.start + slot.count <= within.size // size and part.end <= whole.end):
                _look_at(disk, slot.kind, part, doubts)
                yield part
        following = [slot for slot in _used(sector) if slot.kind in _EXTENDED]
        if not following:
            return
        if len(following) > 1:
            raise BadPartitionTable("a link in the chain of logical partitions has two successors")
        at, within = extended.start + following[0].start, following[0].extent(size)
    raise BadPartitionTable("the chain of logical partitions has no end")


def _sound(disk: Blocks, sector: int, lba: int) -> _Gpt | None:
    try:
        return _gpt(disk, sector, lba)
    except BadPartitionTable:
        return None


def _gpt(disk: Blocks, sector: int, lba: int) -> _Gpt | None:
    """None without the mark of one. Asks of a header all that Linux does (is_gpt_valid in block/partitions/efi.c)."""
    last = disk.size // sector - 1
    header = disk.read(lba * sector, sector) if 0 < lba <= last else b""
    if header[:8] != b"EFI PART":
        return None
    length, crc = struct.unpack_from("<II", header, 12)
    mine, copy, first_usable, last_usable = struct.unpack_from("<QQQQ", header, 24)
    table_at, count, width, table_crc = struct.unpack_from("<QIII", header, 72)
    if not 92 <= length <= sector or not 1 <= count <= MAX_PARTITIONS or width != _GPT_ENTRY:
        raise BadPartitionTable("the GPT header holds absurd sizes")
    if zlib.crc32(header[:16] + bytes(4) + header[20:length]) != crc:
        raise BadPartitionTable("the checksum of the GPT header is wrong")
    if mine != lba or not first_usable <= last_usable <= last:
        raise BadPartitionTable("the GPT header is not that of its place on this disk")
    table = disk.read(table_at * sector, count * width)
    if zlib.crc32(table) != table_crc:
        raise BadPartitionTable("the checksum of the GPT is wrong")
    rows = [row for row in (table[at : at + width] for at in range(0, len(table), width)) if any(row[:16])]
    places = [struct.unpack_from("<QQ", row, 32) for row in rows]
    parts = [Extent(first * sector, (end + 1 - first) * sector) for first, end in places]
    boot = {part for row, part in zip(rows, parts) if row[:16] in _BOOT_GUIDS and part.size <= _MOST_BOOT}
    return _Gpt(parts, copy, any(row[:16] in _DYNAMIC_GUIDS for row in rows), frozenset(boot))


def _checked(parts: list[Extent], disk: Blocks) -> list[Extent]:
    at = 0
    for part in sorted(parts, key=lambda part: part.start):
        if part.size <= 0 or part.start < at:
            raise BadPartitionTable("two partitions overlap")
        if part.end > disk.size:
            raise BadPartitionTable("a partition reaches past the end of the disk")
        at = part.end
    return parts
