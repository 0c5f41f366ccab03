# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""exFAT, walked as FAT is, and held against its bitmap: what is in use must be what was reached.

After Microsoft's specification of it (https://learn.microsoft.com/windows/win32/fileio/exfat-specification, 2019).
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .blocks import Blocks
from .fat import Fat, Row, Runs
from .layout import ForeignFile, NotReadable
from .partitions import Extent
from .verdict import printable

_BITMAP, _CASES, _LABEL, _FILE, _VOLUME = 0x81, 0x82, 0x83, 0x85, 0xA0
_STREAM, _NAME = 0xC0, 0xC1
_IN_USE, _SECONDARY = 0x80, 0x40
_CONTIGUOUS = 2
_BOOT = 12  # sectors, and so many behind them that repeat them
_UNSUMMED = (106, 107, 112)  # its flags, and how full it is: they change while it is mounted
_LARGEST_DIRECTORY = 256 << 20
_MOST_CLUSTERS = 0xFFFFFFF5
_MASK = 0xFFFFFFFF
_BITS = tuple(bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256))


@dataclass(frozen=True)
class ExfatRow(Row):
    """`valid`: bytes that were written; the rest reads as zeros. `modified` counts two seconds, beside `hundredths`."""

    is_contiguous: bool
    valid: int
    hundredths: int


class ExfatBoot:
    """What the boot sector says."""

    bits = 32

    def __init__(self, volume: Blocks) -> None:
        head = volume.read(0, 512)
        sectors, table, length, heap, count, root = struct.unpack_from("<Q5I", head, 72)
        sector, cluster = head[108], head[109]
        sane = 9 <= sector <= 12 and sector + cluster <= 25 and 0 < count <= _MOST_CLUSTERS
        self.unit, self.table, self.root_cluster = 1 << sector + cluster, table << sector, root
        self.data, self.end, self.count = heap << sector, sectors << sector, count
        fits = self.data + self.unit <= volume.size and (count + 2) * 4 <= length << sector
        if not sane or not fits or not 2 * _BOOT << sector <= self.table <= self.data - (length << sector):
            raise NotReadable("its boot sector contradicts itself or the size of its volume")
        self.is_mounted = bool(head[106] & 2)
        self.doubts = self._doubts(head, volume.read(0, 2 * _BOOT << sector), 1 << sector)
        if max(self.end, self.data + count * self.unit) > volume.size:
            self.doubts.append("it claims to be larger than its volume")
        # No more of its table is held in memory than there is of the volume
        self.count = min(count, (volume.size - self.data) // self.unit)
        self.gap = Extent(self.table + (self.count + 2) * 4, self.data - self.table - (self.count + 2) * 4)

    @staticmethod
    def _doubts(head: bytes, boot: bytes, sector: int) -> list[str]:
        found, size = [], len(boot) // 2
        own, copy = bytearray(boot[:size]), bytearray(boot[size:])
        told = set(struct.unpack_from("<%dI" % (sector // 4), own, size - sector))
        if told != {_sum(boot[: size - sector], _UNSUMMED)}:
            found.append("its boot sectors do not have their checksum, so that systems refuse it or take their copy")
        for at in _UNSUMMED:
            own[at] = copy[at] = 0
        if own != copy:
            found.append("the copy of its boot sectors differs, which systems take where they refuse the first")
        if any(head[11:64]) or head[105] != 1:
            found.append("it is of a version that is not known here")
        if head[110] != 1 or head[106] & 1:
            found.append("it has two tables of clusters")
        return found

    def read_table(self, volume: Blocks) -> Any:
        table = array("I", volume.read(self.table, (self.count + 2) * 4))
        if sys.byteorder == "big":
            table.byteswap()
        return table


class Exfat(Fat):
    def __init__(self, volume: Blocks) -> None:
        super().__init__(volume, ExfatBoot(volume), _MASK)
        self._bitmaps: list[tuple[Runs, int]] = []
        self._unwritten: list[Extent] = []

    def doubts(self) -> list[str]:
        return list(self._boot.doubts)

    def edges(self) -> list[Extent]:
        """And what lies between its table and its clusters, and what files have beyond what was written of them."""
        return [*super().edges(), self._boot.gap, *self._unwritten]

    def _is_open(self) -> bool:
        return bool(self._boot.is_mounted)

    def _missed(self) -> int:
        used = self._used()
        return sum(1 for at, reached in enumerate(memoryview(self._reached)[2:]) if used[at] and not reached)

    def _used(self) -> bytes:
        """A byte for each cluster. Linux takes the bitmap as one run, others follow its chain."""
        count = self._boot.count
        if len(self._bitmaps) != 1:
            self._add("it has %d bitmaps of its clusters" % len(self._bitmaps))
            return b"\1" * count
        ((runs, size),) = self._bitmaps
        if len(runs) != 1 or size * 8 < count or size > runs[0][1] - runs[0][0]:
            self._add("its bitmap of clusters is not of its size, or not in one piece")
            return b"\1" * count
        return b"".join(map(_BITS.__getitem__, self._volume.read(runs[0][0], -(-count // 8))))

    def _file(self, row: Row) -> ForeignFile:
        file = super()._file(row)
        valid = row.valid if isinstance(row, ExfatRow) else row.size
        if valid >= row.size:
            return file
        layout, at = file.layout(), 0
        for low, high in layout.content if layout else ():  # other systems may show what lies there
            behind = max(low, low + valid - at)
            if behind < high:
                self._unwritten.append(Extent(behind, high - behind))
            at += high - low

        def read(offset: int, length: int) -> bytes:
            there = max(0, min(length, valid - offset))
            return (file.read(offset, there) if there else b"").ljust(length, b"\0")

        return ForeignFile(row.path, row.size, read, row.status, stretches=lambda: [(0, valid)])

    def _runs(self, row: Row) -> Runs:
        if not isinstance(row, ExfatRow) or not row.is_contiguous or not row.size:
            return self._follow(row.cluster)
        boot, count = self._boot, -(-row.size // self._boot.unit)
        if row.cluster < 2 or row.cluster + count > boot.count + 2:
            raise NotReadable("it reaches beyond the end of its volume")
        for cluster in range(row.cluster, row.cluster + count):
            if self._reached[cluster]:
                self._share(cluster, set())
            self._reached[cluster] = 1
        at = boot.data + (row.cluster - 2) * boot.unit
        return ((at, at + count * boot.unit),)

    def _rows(self, directory: Row) -> Iterator[Row]:
        shown = printable(directory.path, 200) or "/"
        try:
            runs = self._runs(directory)
            if sum(high - low for low, high in runs) > _LARGEST_DIRECTORY:
                raise NotReadable("it is larger than any system would read")
            data = b"".join(self._volume.read(low, high - low) for low, high in runs)
        except NotReadable as exc:
            self._add("directory %s was not read: %s" % (shown, exc))
            return
        has_ended = False
        for at in range(0, len(data), 32):
            kind = data[at]
            has_ended = has_ended or not kind
            if kind & _IN_USE and has_ended:
                self._add("directory %s has entries behind its end" % shown)
            if kind == _FILE:
                entries = data[at : at + 32 * (1 + data[at + 1])]
                row = _row(directory, entries)
                if row is None or not _is_sound(row, entries):
                    self._add("directory %s holds a damaged entry" % shown)
                if row is not None:
                    yield row
            elif kind in (_BITMAP, _CASES) and not directory.path:
                self._own(kind, data[at : at + 32])
            elif kind & _IN_USE and not kind & _SECONDARY and kind not in (_LABEL, _VOLUME):
                self._add("directory %s holds an entry of a kind that is not known here" % shown)

    def _own(self, kind: int, entry: bytes) -> None:
        """The volume's own tables, which have clusters as files do."""
        cluster, size = struct.unpack_from("<IQ", entry, 20)
        try:
            runs = self._follow(cluster)
        except NotReadable as exc:
            self._add("a table of its own was not read: %s" % exc)
            return
        if kind == _BITMAP:
            self._bitmaps.append((runs, size))


def _is_sound(row: ExfatRow, entries: bytes) -> bool:
    """What systems would refuse or repair is told, each in its own way."""
    count, told = entries[1], struct.unpack_from("<H", entries, 2)[0]
    rest = entries[32::32]
    whole = len(rest) == count and all(kind >= _STREAM for kind in rest)
    return whole and row.valid <= row.size and told == _sum(entries, (2, 3), 16)


def _sum(data: bytes, without: tuple[int, ...], bits: int = 32) -> int:
    """The checksum of boot sectors, or of the entries of a file."""
    total, mask = 0, (1 << bits) - 1
    for at, byte in enumerate(data):
        if at not in without:
            total = ((total & 1) << bits - 1) + (total >> 1) + byte & mask
    return total


def _row(directory: Row, entries: bytes) -> ExfatRow | None:
    rows = [entries[at : at + 32] for at in range(32, len(entries), 32)]
    if not rows or rows[0][0] != _STREAM:
        return None
    attributes, modified = struct.unpack_from("<H6xI", entries, 4)
    flags, length, valid, cluster, size = struct.unpack_from("<xBxB4xQ4xIQ", rows[0])
    units = b"".join(row[2:] for row in rows[1:] if row[0] == _NAME)
    name = units[: length * 2].decode("utf-16-le", "backslashreplace")
    if not name or name in (".", ".."):
        return None
    path = "%s/%s" % (directory.path, name.replace("/", "\ufffd"))
    is_contiguous, hundredths = bool(flags & _CONTIGUOUS), entries[21]
    return ExfatRow(
        path, cluster, size, attributes, modified, path, directory.cluster, is_contiguous, valid, hundredths
    )
