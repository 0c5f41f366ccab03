# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""FAT12, FAT16 and FAT32. All that Linux or Windows would show is read, and where the two would differ is told."""

from __future__ import annotations

import stat
import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from os import stat_result
from typing import Any, Callable

from .blocks import Blocks
from .layout import ForeignFile, Layout, NotReadable, layout_of_runs
from .marks import SECTORS
from .partitions import Extent
from .verdict import printable

MAX_DEPTH = 256
_LARGEST = {12: 4084, 16: 0xFFF4, 32: 0x0FFFFFF5}  # clusters
_FEW = 4085, 4086  # FAT16 to Linux and by the specification, FAT12 to Windows
_DIRECTORY, _LABEL, _LONG = 0x10, 0x08, 0x0F
_DOTS = b".          ", b"..         "
_LARGEST_DIRECTORY = 2 << 20
_MOST_SHARED = 4  # times as many as there are clusters
_MOST_ODD = 20
_STEP = 1 << 20
_ENCRYPTED = ".pfile"  # so Windows 10 keeps what it encrypts where the file system has no mark for that
_ROW = struct.Struct("<11sBB7xHHHHI")

Runs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Row:
    """One name in a directory. `within`: the path by its short name. `above`: where that directory begins."""

    path: str
    cluster: int
    size: int
    attributes: int
    modified: int  # date and time as FAT writes them
    within: str
    above: int

    @property
    def is_directory(self) -> bool:
        return bool(self.attributes & _DIRECTORY)

    def status(self) -> stat_result:
        date, time = divmod(self.modified, 1 << 16)
        try:  # in the guest's own time, of which FAT keeps no zone
            day = datetime(1980 + (date >> 9), date >> 5 & 15, date & 31, tzinfo=timezone.utc).timestamp()
        except ValueError:
            day = 0
        at = day + (time >> 11) * 3600 + (time >> 5 & 63) * 60 + (time & 31) * 2
        return stat_result((stat.S_IFREG | 0o777, self.cluster, 0, 1, 0, 0, self.size, at, at, at))


class Boot:
    """What the boot sector says."""

    def __init__(self, volume: Blocks) -> None:
        head = volume.read(0, 512)
        sector, per_cluster, reserved, copies, entries, few, _media, short = struct.unpack_from("<HBHBHHBH", head, 11)
        many, long = struct.unpack_from("<II", head, 32)
        table, sectors = short or long, few or many
        self.unit, self.table, self.root = sector * per_cluster, reserved * sector, (reserved + copies * table) * sector
        self.data, self.end = self.root + entries * 32, sectors * sector
        sane = sector in SECTORS and per_cluster and not per_cluster & (per_cluster - 1) and reserved and copies
        agrees = not (few and many and few != many) and (short or not entries) and not entries * 32 % (sector or 1)
        if not (sane and agrees and table and self.data + self.unit <= min(self.end, volume.size)):
            raise NotReadable("its boot sector contradicts itself or the size of its volume")
        # Not by the count of clusters alone: so do Linux and Windows
        count = (self.end - self.data) // self.unit
        self.bits = 32 if not short else 12 if count < _FEW[0] else 16
        if count > _LARGEST[self.bits]:
            raise NotReadable("its boot sector tells of more clusters than there can be")
        self.root_cluster = struct.unpack_from("<I", head, 44)[0] if self.bits == 32 else 0
        self.count = min(count, table * sector * 8 // self.bits - 2)
        self.copies = [self.table + number * table * sector for number in range(1, copies)]
        self.has_one_table = self.bits == 32 and bool(head[40] & 0x80)
        self.is_mounted = bool(head[65 if self.bits == 32 else 37] & 1)

    @property
    def _used(self) -> int:
        return -(-(self.count + 2) * self.bits // 8)

    def copies_agree(self, volume: Blocks) -> bool:
        for at in range(0, self._used, _STEP):
            length = min(_STEP, self._used - at)
            first = volume.read(self.table + at, length)
            for copy in self.copies:
                other = volume.read(copy + at, length)
                if other != first and self._following(at, other) != self._following(at, first):
                    return False
        return True

    def _following(self, at: int, raw: bytes) -> bytes:
        """Without what the table keeps for itself: the first two entries and, of FAT32, four bits of each."""
        data = bytearray(raw)
        if self.bits == 32:
            data[3::4] = bytes(byte & 0x0F for byte in data[3::4])
        return bytes(data[0 if at else self.bits // 4 :])

    def read_table(self, volume: Blocks) -> Any:
        """What follows each cluster. FAT32 leaves the upper four bits to others."""
        raw = volume.read(self.table, self._used)
        if self.bits == 12:
            pairs = (int.from_bytes(raw[at : at + 3], "little") for at in range(0, len(raw), 3))
            return array("H", [half for pair in pairs for half in (pair & 0xFFF, pair >> 12)])
        table = array("I" if self.bits == 32 else "H", raw)
        if sys.byteorder == "big":
            table.byteswap()
        return table


class Fat:
    """Walked by its directories. After the walk `unproven` tells why some of it may be missing."""

    def __init__(self, volume: Blocks, boot: Any = None, mask: int = 0) -> None:
        """`boot` and `mask` of the table's numbers: of exFAT."""
        self._volume = volume
        self._boot: Any = boot or Boot(volume)
        self._table = self._boot.read_table(volume)
        self._mask = mask or (1 << min(28, self._boot.bits)) - 1
        self._reached = bytearray(self._boot.count + 2)
        self._shared = 0
        self._odd: dict[str, int] = {}  # what keeps it from being proven, and how often that was met

    def files(
        self,
        enter: Callable[[str], bool] = lambda path: True,
        see: Callable[[Any, Any], None] = lambda directory, entry: None,
    ) -> Iterator[ForeignFile]:
        """All files of directories that are to be entered. `see` is shown each directory with each of its entries."""
        root = Row("", self._boot.root_cluster, 0, _DIRECTORY, 0, "", self._boot.root_cluster)
        pending, entered = [(root, 0)], {root.cluster}
        while pending:
            directory, depth = pending.pop()
            if depth > MAX_DEPTH:
                raise NotReadable("its directories are nested too deeply")
            for row in self._rows(directory):
                see(directory, row)
                if not row.is_directory:
                    yield self._file(row)
                elif row.cluster and row.cluster in entered:
                    self._shared += 1
                elif enter(row.path):
                    entered.add(row.cluster)
                    pending.append((row, depth + 1))

    def unnamed(self) -> Iterator[ForeignFile]:
        """FAT knows of no file that no directory names."""
        return iter(())

    def attributes(self) -> Iterator[tuple[int, Callable[[], bytes]]]:
        """Nor of attributes outside of its directories."""
        return iter(())

    def doubts(self) -> list[str]:
        boot, found = self._boot, []
        if boot.has_one_table:
            found.append("its boot sector says which copy of its table counts, which Linux does not heed")
        elif not boot.copies_agree(self._volume):
            found.append("the copies of its table differ, and systems may read another one. Let them repair it (fsck)")
        if boot.bits != 32 and boot.count in _FEW:
            found.append("Linux reads it as FAT16, and Windows as FAT12")
        if boot.end > self._volume.size:
            found.append("it claims to be larger than its volume")
        return found

    def unproven(self) -> str:
        """FAT has no journal: it is read as it lies, mounted or not, as long as it accounts for itself."""
        missed = self._missed()
        told = ["%d clusters are in use, but not reached" % missed] if missed else []
        if self._shared:
            told.append("%d clusters belong to several files" % self._shared)
        told += self.odd()
        return "; ".join(told + ["it was not unmounted cleanly"] * (bool(told) and self._is_open()))

    def _missed(self) -> int:
        """How many clusters are in use that were not reached."""
        bad = self._mask - 8
        states = zip(self._table[2 : self._boot.count + 2], memoryview(self._reached)[2:])
        return sum(1 for value, reached in states if not reached and value & self._mask not in (0, bad))

    def _is_open(self) -> bool:
        """Windows marks a mounted volume in the table, Linux in the boot sector. FAT12's table has no such mark."""
        flag = {12: 0, 16: 0x8000, 32: 0x08000000}[self._boot.bits]
        return self._table[1] & flag != flag or bool(flag and self._boot.is_mounted)

    def edges(self) -> list[Extent]:
        """What lies before its tables and behind its last cluster."""
        boot = self._boot
        end = min(boot.data + boot.count * boot.unit, self._volume.size)
        return [Extent(0, boot.table), Extent(end, self._volume.size - end)]

    def odd(self) -> list[str]:
        """What was met that could not be read, or that systems read differently."""
        return [text + (" (%d times)" % count if count > 1 else "") for text, count in self._odd.items()]

    def _add(self, text: str) -> None:
        if len(self._odd) >= _MOST_ODD and text not in self._odd:
            text = "and more"
        self._odd[text] = self._odd.get(text, 0) + 1

    def _file(self, row: Row) -> ForeignFile:
        if row.size and row.path.lower().endswith(_ENCRYPTED):
            self._add("%s is encrypted by the guest" % printable(row.path, 200))
        try:
            content = _Content(self._volume, self._runs(row), row.size)
        except NotReadable as exc:
            why = exc
            if not row.size:  # nobody would ask for its content
                self._add("a file of no size: %s" % why)

            def fail(_offset: int, _length: int) -> bytes:
                raise why

            return ForeignFile(row.path, row.size, fail, row.status)
        return ForeignFile(row.path, row.size, content.read, row.status, content.layout)

    def _runs(self, row: Row) -> Runs:
        return self._follow(row.cluster)

    def _follow(self, cluster: int) -> Runs:
        """Where the bytes of a chain lie. Nothing at all begins at cluster 0."""
        runs, boot, table, reached = list[tuple[int, int]](), self._boot, self._table, self._reached
        last, end, twice = self._mask - 7, boot.count + 2, set[int]()
        while cluster and (not runs or cluster < last):
            if not 2 <= cluster < end:
                raise NotReadable("its chain of clusters leads to %d, where none is" % cluster)
            if reached[cluster]:  # only there it can run in a circle
                self._share(cluster, twice)
            reached[cluster] = 1
            at = boot.data + (cluster - 2) * boot.unit
            if runs and runs[-1][1] == at:
                runs[-1] = runs[-1][0], at + boot.unit
            else:
                runs.append((at, at + boot.unit))
            cluster = table[cluster] & self._mask
            if not cluster:
                raise NotReadable("its chain of clusters leads into free ones")
        return tuple(runs)

    def _share(self, cluster: int, twice: set[int]) -> None:
        if cluster in twice:
            raise NotReadable("its chain of clusters runs in a circle")
        twice.add(cluster)
        self._shared += 1
        if self._shared > _MOST_SHARED * (self._boot.count + 2):
            raise NotReadable("too many files share their clusters")

    def _rows(self, directory: Row) -> Iterator[Row]:
        try:
            data = self._directory(directory)
        except NotReadable as exc:
            self._add("directory %s was not read: %s" % (printable(directory.path, 200) or "/", exc))
            return
        parts, has_ended = list[bytes](), False
        for at in range(0, len(data), 32):
            raw = data[at : at + 32]
            if raw[0] in (0, 0xE5):
                has_ended = has_ended or not raw[0]
                parts = []
                continue
            if has_ended:
                where = printable(directory.path, 200) or "/"
                self._add("directory %s has entries behind its end, which Linux shows and Windows does not" % where)
            if raw[11] == _LONG:
                parts = [raw] if raw[0] & 0x40 else [*parts, raw][:64]
                continue
            long, parts = _long_name(parts, raw[:11]), []
            if raw[11] & _LABEL:
                if any(raw[20:22]) or any(raw[26:32]):
                    self._add("a label holds content, which no system shows")
                continue
            row = self._row(directory, long, raw)
            if long or raw[:11] not in _DOTS:
                yield row
            elif not self._is_own(directory, row):
                where = printable(directory.path, 200) or "/"
                self._add("directory %s has an entry for itself, or the one above, that is not its own" % where)

    def _row(self, directory: Row, long: str, raw: bytes) -> Row:
        _name, attributes, _case, high, time, date, low, size = _ROW.unpack(raw)
        cluster = low | high << 16 if self._boot.bits == 32 else low
        path, within = (
            "%s/%s" % (directory.path, name.replace("/", "\ufffd"))
            for name in (long or _short_name(raw), _short_name(raw))
        )
        return Row(path, cluster, size, attributes, date << 16 | time, within, directory.cluster)

    def _is_own(self, directory: Row, dots: Row) -> bool:
        """Does it lead to the directory itself, or to the one above? Boot loaders follow it, wherever that may be."""
        root = self._boot.root_cluster
        meant = directory.above if dots.path.endswith("/..") else directory.cluster
        return dots.is_directory and (dots.cluster or root) == (meant or root)

    def _directory(self, directory: Row) -> bytes:
        boot = self._boot
        if not directory.path and boot.bits != 32:
            return self._volume.read(boot.root, boot.data - boot.root)
        runs = self._runs(directory)
        size = sum(high - low for low, high in runs)
        if size > _LARGEST_DIRECTORY:
            raise NotReadable("it is larger than any system would read")
        return b"".join(self._volume.read(low, high - low) for low, high in runs)


class _Content:
    def __init__(self, volume: Blocks, runs: Runs, size: int) -> None:
        self._volume, self._runs, self._size = volume, runs, size
        self._starts, at = list[int](), 0
        for low, high in runs:
            self._starts.append(at)
            at += high - low
        self._length = at

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self._length:
            raise NotReadable("it is shorter than its size")
        parts = []
        while length > 0:
            number = bisect_right(self._starts, offset) - 1
            low, high = self._runs[number]
            at = low + offset - self._starts[number]
            parts.append(self._volume.read(at, min(length, high - at)))
            offset, length = offset + len(parts[-1]), length - len(parts[-1])
        return b"".join(parts)

    def layout(self) -> Layout | None:
        return layout_of_runs(self._runs, self._size) if self._size <= self._length else None


def _long_name(parts: list[bytes], short: bytes) -> str:
    """Empty unless all parts are there, in their order, and belong to this short name."""
    total = 0
    for byte in short:
        total = ((total & 1) << 7) + (total >> 1) + byte & 0xFF
    numbers = [part[0] & 0x3F for part in parts]
    if not parts or numbers != list(range(len(parts), 0, -1)) or any(part[13] != total for part in parts):
        return ""
    units = b"".join(part[1:11] + part[14:26] + part[28:32] for part in reversed(parts))
    ends = [at for at in range(0, len(units), 2) if units[at : at + 2] == b"\0\0"]
    return units[: ends[0] if ends else len(units)].decode("utf-16-le", "backslashreplace")


def _short_name(raw: bytes) -> str:
    """Windows keeps in two bits that the whole of a part is in small letters."""
    name = (b"\xe5" + raw[1:11] if raw[0] == 0x05 else raw[:11]).decode("cp437")
    base, extension = name[:8].rstrip(" \0"), name[8:].rstrip(" \0")
    base = base.lower() if raw[12] & 0x08 else base
    extension = extension.lower() if raw[12] & 0x10 else extension
    return "%s.%s" % (base, extension) if extension else base
