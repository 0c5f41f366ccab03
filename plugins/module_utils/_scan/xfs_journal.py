# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The log of an XFS as it lies on the disk: where it begins and ends, and the transactions in between.

Sources: Linux, fs/xfs/libxfs/xfs_log_format.h, and what fs/xfs/xfs_log_recover.c makes of it at a mount.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from .blocks import Blocks
from .journal import crc32c
from .layout import NotReadable

SECTOR = 512  # the log's own unit
_MAGIC, _TRANSACTION = 0xFEEDBABE, struct.pack("<I", 0x5452414E)
_HEAD = 16  # bytes before the items of a transaction
_START, _COMMIT, _CONTINUES, _CONTINUED, _UNMOUNT = 1, 2, 4, 8, 32
_LARGEST, _LARGEST_RECORD = 2 << 30, 256 << 10
_MOST = (256 << 20) // SECTOR
_IN_FLIGHT = {1: 512, 2: 4096}  # sectors that Linux has under way at once, so that some of them may be missing
_PER_HEADER = 64  # sectors of data whose first words one sector of a record's header keeps
_FOR_EACH = _PER_HEADER * SECTOR
_LITTLE_ENDIAN = 1
_SUMMED = 328  # bytes of a record's header; 324 on 32-bit processors, which other kernels may take for damage
_MOST_PIECES = 1 << 22


@dataclass(frozen=True)
class Record:
    place: int
    cycle: int
    tail: tuple[int, int]  # cycle and place of the oldest record that a mount still needs
    count: int  # operations
    header: int  # bytes
    sectors: int  # with its header
    raw: bytes

    @property
    def sequence(self) -> int:
        return self.cycle << 32 | self.place

    @property
    def length(self) -> int:
        return int(struct.unpack_from(">I", self.raw, 12)[0])

    def data(self) -> bytes:
        """With the first word of each sector put back, for which the number of its cycle stands on the disk."""
        data = bytearray(self.raw[self.header :])
        for number in range(len(data) // SECTOR):
            block, at = divmod(number, _PER_HEADER)
            kept = block * SECTOR + 4 + 4 * at if block else 44 + 4 * at
            data[number * SECTOR : number * SECTOR + 4] = self.raw[kept : kept + 4]
        return bytes(data[: self.length])

    def is_unmount(self) -> bool:
        return self.count == 1 and any(flags & _UNMOUNT for flags in self.data()[9:10])


@dataclass
class Item:
    """One change of a transaction: its regions, the first of which tells what it is."""

    regions: list[bytearray] = field(default_factory=list)

    @property
    def kind(self) -> int:
        return int(struct.unpack_from("<H", self.regions[0].ljust(4, b"\0"))[0])

    @property
    def total(self) -> int:
        return int(struct.unpack_from("<H", self.regions[0].ljust(4, b"\0"), 2)[0])


class Log:
    """`start`: byte of the volume; `size` in bytes. `has_checksums`: as XFS has had them from version 5 on."""

    def __init__(
        self, volume: Blocks, start: int, size: int, uuid: bytes, version: int, *, has_checksums: bool
    ) -> None:
        if not 0 < size <= _LARGEST or start + size > volume.size:
            raise NotReadable("its log lies outside of it, or has an absurd size")
        self._volume, self._start, self._sectors = volume, start, size // SECTOR
        self._uuid, self._version, self._has_checksums = uuid, version, has_checksums

    def records(self) -> list[Record]:
        """From the oldest that a mount needs to the newest; none if the file system was unmounted."""
        head, headers, is_ragged, has_gap = self._find_head()
        before = self._at(headers[-2]) if has_gap else None  # where Linux goes on from
        if has_gap and not (before and before.is_unmount()):
            raise NotReadable("its log is damaged")
        if len(headers) > 1 and not has_gap and self._ends_behind(headers[-1], head):
            head = headers.pop()  # it was not yet written as a whole: Linux leaves it out
        last = self._last(headers, head)
        if last is None or last.is_unmount() and is_ragged:
            raise NotReadable("its log is damaged")
        return [] if last.is_unmount() else self._chain(last)

    def _find_head(self) -> tuple[int, list[int], bool, bool]:
        """Where the next record would go; where records begin, the oldest first; whether some came too early.

        And whether zeros lie before what the round before has left, as a repair leaves them behind its one record.
        """
        cycles, headers = self._words()
        newest = cycles[0]
        head = next((at for at, cycle in enumerate(cycles) if cycle != newest), len(cycles))
        window = head + _IN_FLIGHT[self._version]
        older, has_gap = {newest - 1}, False
        if newest > 1 and len(headers) > 1 and headers[0] == 0 and not any(0 < at < head for at in headers):
            has_gap = 0 in set(cycles)
            older.add(0)
        early = set(cycles[head:window]) - older
        if not newest or not early <= {newest} or not set(cycles[window:]) <= older:
            raise NotReadable("its log is damaged: the cycles of its sectors do not agree")
        before = [at for at in headers if at >= head and cycles[at] != newest]
        return head, before + [at for at in headers if at < head], bool(early), has_gap

    def _words(self) -> tuple[array[int], list[int]]:
        """The cycle of each sector, and those with which a record begins."""
        cycles, headers, step = array("I"), list[int](), 1 << 20
        for base in range(0, self._sectors * SECTOR, step):
            chunk = self._volume.read(self._start + base, min(step, self._sectors * SECTOR - base))
            words = array("I", chunk)
            if sys.byteorder == "little":
                words.byteswap()
            first, second = words[:: SECTOR // 4], words[1 :: SECTOR // 4]
            if _MAGIC in first:
                for at, word in enumerate(first):
                    if word == _MAGIC:
                        first[at] = second[at]
                        headers.append(base // SECTOR + at)
            cycles += first
        return cycles, headers

    def _ends_behind(self, place: int, head: int) -> bool:
        raw = self._read(place, 1)
        sectors = (self._header_of(raw) + _length_of(raw)) // SECTOR
        return sectors > ((head - place) % self._sectors or self._sectors)

    def _last(self, headers: list[int], head: int) -> Record | None:
        """The newest record, if the log ends where it does."""
        last = self._at(headers[-1]) if headers else None
        return last if last and (last.place + last.sectors - head) % self._sectors == 0 else None

    def _chain(self, last: Record) -> list[Record]:
        """From the oldest that `last` needs up to it."""
        found, (cycle, place), left = list[Record](), last.tail, self._sectors
        while left > 0:
            if self._sectors - left > _MOST:
                raise NotReadable("its log holds more than %d MiB that a mount would replay" % (_MOST * SECTOR >> 20))
            record = self._record(place, cycle)
            if record is None or record.header != last.header:  # Linux takes the first one's size for all
                break
            found.append(record)
            if record.sequence == last.sequence:
                return found
            place, left = place + record.sectors, left - record.sectors
            if place >= self._sectors:
                place, cycle = place - self._sectors, cycle + 1
        raise NotReadable("its log is damaged")

    def _at(self, place: int) -> Record | None:
        """By the cycle that it says."""
        return self._record(place, struct.unpack_from(">I", self._read(place, 1), 4)[0])

    def _record(self, place: int, cycle: int) -> Record | None:
        """What begins there, if it is whole and of that cycle."""
        if not 0 <= place < self._sectors:
            return None
        head = self._read(place, 1)
        magic, of_cycle, version, length, lsn, tail = struct.unpack_from(">IIIIQQ", head)
        count, uuid = struct.unpack_from(">I", head, 40)[0], head[304:320]
        told = magic == _MAGIC and of_cycle == cycle and lsn == cycle << 32 | place and version in (1, 2)
        if not told or uuid != self._uuid or not 0 < length <= _LARGEST_RECORD or length % 4:
            return None
        if version != self._version:
            raise NotReadable("its log has records of another version than its superblock says")
        if version == 1 and length > _FOR_EACH:
            return None
        if struct.unpack_from(">I", head, 300)[0] != _LITTLE_ENDIAN:
            raise NotReadable("its log was written by a computer of another kind")
        header = self._header_of(head)
        sectors = (header + _length_of(head)) // SECTOR
        if sectors > self._sectors:
            return None
        oldest = tail >> 32, tail & 0xFFFFFFFF
        record = Record(place, cycle, oldest, count, header, sectors, self._read(place, sectors))
        return record if self._is_whole(record) else None

    def _is_whole(self, record: Record) -> bool:
        raw, header, length = record.raw, record.header, record.length
        for number in range(1, record.sectors):
            wanted = record.cycle + (record.place + number >= self._sectors)
            if struct.unpack_from(">I", raw, number * SECTOR)[0] != wanted:
                return False
        told = struct.unpack_from("<I", raw, 32)[0]
        # mkfs.xfs and xfs_repair write none, nor did Linux before version 5
        if not told and (record.is_unmount() or not self._has_checksums):
            return True
        used = SECTOR * -(-length // _FOR_EACH)  # the others' content is left as it was
        more = b"".join(raw[at : at + 260] for at in range(SECTOR, used, SECTOR))
        return checksum(raw[:32] + bytes(4) + raw[36:_SUMMED] + more + raw[header : header + length]) == told

    def _header_of(self, raw: bytes) -> int:
        """Bytes of a record's header: one sector for each 32 KiB that a record may hold; of version 1 always one."""
        if self._version == 1 or not raw[11] & 2:
            return SECTOR
        size = struct.unpack_from(">I", raw, 320)[0]
        return SECTOR * min(max(1, -(-size // _FOR_EACH)), _LARGEST_RECORD // _FOR_EACH)

    def _read(self, place: int, sectors: int) -> bytes:
        """The log is a ring."""
        before = min(sectors, self._sectors - place)
        data = self._volume.read(self._start + place * SECTOR, before * SECTOR)
        if sectors > before:
            data += self._volume.read(self._start, (sectors - before) * SECTOR)
        return data


def _length_of(raw: bytes) -> int:
    """Of a record's data, in whole sectors."""
    return SECTOR * -(-int(struct.unpack_from(">I", raw, 12)[0]) // SECTOR)


def checksum(data: bytes) -> int:
    return crc32c(0xFFFFFFFF, data) ^ 0xFFFFFFFF


def transactions(records: list[Record]) -> Iterator[tuple[int, list[Item]]]:
    """Those that were committed, in this order, with where they begin. What is not whole, a mount forgets."""
    open_: dict[int, _Open] = {}
    if sum(record.count for record in records) > _MOST_PIECES:
        raise NotReadable("its log holds an absurd number of changes")
    for record in records:
        data, at = record.data(), 0
        for _operation in range(record.count):
            if at + 12 > len(data):
                raise NotReadable("its log is damaged: a record ends early")
            number, length, flags = struct.unpack_from(">II1xB", data, at)
            piece, at = data[at + 12 : at + 12 + length], at + 12 + length
            if at > len(data):
                raise NotReadable("its log is damaged: a record ends early")
            if flags & _START:
                open_[number] = _Open(record.sequence)
            elif flags & _UNMOUNT:
                open_.pop(number, None)
            elif number not in open_:
                continue  # it began before the oldest record: all of it is in place
            elif flags & _COMMIT:
                done = open_.pop(number)
                yield done.sequence, done.items()
            else:
                open_[number].add(piece, bool(flags & _CONTINUED))


class _Open:
    """A transaction as far as it was read."""

    def __init__(self, sequence: int) -> None:
        self.sequence, self._head = sequence, bytearray()
        self._items: list[Item] = []

    def add(self, piece: bytes, continues: bool) -> None:
        if not piece:
            return
        if len(self._head) < _HEAD:
            is_rest = continues and len(self._head) + len(piece) == _HEAD  # for Linux it is, whatever its length
            fits = is_rest or not self._head and len(piece) <= _HEAD
            self._head += piece
            if not fits or not self._head.startswith(_TRANSACTION):
                raise NotReadable("its log is damaged: a transaction has no head")
            return
        if continues:
            if not self._items:
                raise NotReadable("its log is damaged: what continues has no beginning")
            self._items[-1].regions[-1] += piece
            return
        last = self._items[-1] if self._items else None
        if last is None or len(last.regions) >= last.total:
            self._items.append(Item([bytearray(piece)]))
        else:
            last.regions.append(bytearray(piece))

    def items(self) -> list[Item]:
        if any(len(item.regions) != item.total for item in self._items):
            raise NotReadable("its log is damaged: a change is not whole")
        return self._items
