# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""exFAT, walked as FAT is. Its bitmap of clusters is not held against what was reached, so that nothing is proven."""

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

_FILE, _STREAM, _NAME = 0x85, 0xC0, 0xC1
_CONTIGUOUS = 2
_LARGEST_DIRECTORY = 256 << 20
_MOST_CLUSTERS = 0xFFFFFFF5
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class ExfatRow(Row):
    """`valid`: bytes that were written; the rest reads as zeros."""

    is_contiguous: bool
    valid: int


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
        if not sane or not fits or self.table + (length << sector) > self.data:
            raise NotReadable("its boot sector contradicts itself or the size of its volume")
        # No more of its table is held in memory than there is of the volume
        self.count = min(count, (volume.size - self.data) // self.unit)

    def read_table(self, volume: Blocks) -> Any:
        table = array("I", volume.read(self.table, (self.count + 2) * 4))
        if sys.byteorder == "big":
            table.byteswap()
        return table


class Exfat(Fat):
    def __init__(self, volume: Blocks) -> None:
        super().__init__(volume, ExfatBoot(volume), _MASK)

    def doubts(self) -> list[str]:
        return ["it claims to be larger than its volume"] if self._boot.end > self._volume.size else []

    def unproven(self) -> str:
        return "; ".join(("its reader can't prove that it saw every file of a exfat volume", *self.odd()))

    def edges(self) -> list[Extent]:
        return []

    def _file(self, row: Row) -> ForeignFile:
        file = super()._file(row)
        valid = row.valid if isinstance(row, ExfatRow) else row.size
        if valid >= row.size:
            return file

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
        for at in range(0, len(data), 32):
            if data[at] == _FILE:
                row = _row(directory, data[at : at + 32 * (2 + data[at + 1])])
                if row is None:
                    self._add("directory %s holds a damaged entry" % shown)
                else:
                    yield row


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
    is_contiguous = bool(flags & _CONTIGUOUS)
    return ExfatRow(path, cluster, size, attributes, modified, path, directory.cluster, is_contiguous, valid)
