# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NTFS, read record by record: what the master file table holds is read whether or not a directory names it."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from .blocks import Blocks
from .ext4_records import DEEPER, BadFilesystem
from .ntfs_records import (
    BITMAP,
    DATA,
    ENCRYPTED,
    LIST,
    LZNT1,
    NAME,
    PACKED,
    REPARSE,
    STANDARD,
    Attribute,
    Run,
    attributes,
    check_list,
    fixed,
    listed,
    named,
    record_of,
    unpacked,
)

OEM = b"NTFS    "
ROOT = 5
EXTEND = 11
FIRST_OF_USERS = 24
MAX_RECORDS = 1 << 28
_DEEPEST = 256
_LIST_LIMIT = 1 << 18  # Windows' own: learn.microsoft.com, The Four Stages of NTFS File Growth, Part 2
_MOST_PLACES = 1 << 16
_UNIT_LIMIT = 1 << 20
_CHUNK = 1 << 20
_USED, _DIRECTORY = 1, 2


@dataclass(frozen=True)
class Record:
    """One record of the table. `base`: the reference of the record that it continues, 0 if none."""

    number: int
    sequence: int
    links: int
    flags: int
    base: int
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True)
class Stream:
    """One content: `value` if it lies in the record, else `runs`. Past `initialized` there are zeros."""

    flags: int
    size: int
    initialized: int
    unit: int
    value: bytes | None
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class File:
    """A record and those that continue it (`records`)."""

    number: int
    sequence: int
    links: int
    is_dir: bool
    records: tuple[int, ...]
    attributes: tuple[Attribute, ...]

    @cached_property
    def parts(self) -> dict[tuple[int, bytes], list[Attribute]]:
        """Those of each attribute, by its type and name: there may be thousands, and each is asked for."""
        found: dict[tuple[int, bytes], list[Attribute]] = {}
        for one in self.attributes:
            found.setdefault((one.type, one.name), []).append(one)
        return found

    def of(self, kind: int) -> list[Attribute]:
        return [one for one in self.attributes if one.type == kind]

    @property
    def names(self) -> list[tuple[int, bytes]]:
        """Every directory and name under which it is listed, but for a short name beside a long one."""
        found = [named(one.value or b"") for one in self.of(NAME)]
        told = {parent for parent, _name, is_short in found if not is_short}
        return [(parent, name) for parent, name, is_short in found if not is_short or parent not in told]

    @property
    def all_names(self) -> list[tuple[int, bytes]]:
        """Every directory and name under which it can be opened, short ones too."""
        return [named(one.value or b"")[:2] for one in self.of(NAME)]

    @property
    def streams(self) -> list[bytes]:
        return sorted(name for kind, name in self.parts if kind == DATA)

    @property
    def content(self) -> tuple[bytes, ...]:
        """All in the records that says what the content is, but for the bytes of clusters: not times, not names."""
        return tuple(one.raw for one in self.attributes if one.type not in (STANDARD, NAME))

    @property
    def standard(self) -> bytes:
        """Times (created, modified, changed, accessed; 8 bytes each), attributes, and from byte 52 the security id."""
        return next((one.value or b"" for one in self.of(STANDARD)), b"").ljust(72, b"\0")


class Ntfs:
    def __init__(self, volume: Blocks) -> None:
        self._volume = volume
        self._places: dict[int, tuple[int, bytes] | None] = {}
        self.boot = raw = volume.read(0, 512)
        if raw[3:11] != OEM:
            raise BadFilesystem("it has no NTFS boot sector")
        sector, per_cluster = struct.unpack_from("<HB", raw, 11)
        self._sector = sector
        self.cluster = sector * (1 << (256 - per_cluster) if per_cluster > 128 else per_cluster)
        sectors, table, self._mirror = struct.unpack_from("<QQQ", raw, 40)
        per_record = struct.unpack_from("<b", raw, 64)[0]
        self.record_size = 1 << -per_record if per_record < 0 else per_record * self.cluster
        self.end = sectors * sector
        self._check(sector)
        self.clusters = self.end // self.cluster
        self._serial = raw[72:80]
        self.table = self._open_table(table)
        self.count = min(self.table.size, self.table.initialized) // self.record_size
        if not 0 < self.count <= MAX_RECORDS:
            raise BadFilesystem("its master file table is of an absurd size")
        bits = [one for one in self.file(0).of(BITMAP) if not one.name]
        self.used_bits = self.read(self._joined(bits), 0, (self.count + 7) // 8).ljust((self.count + 7) // 8, b"\0")

    def _check(self, sector: int) -> None:
        sane = (
            sector in (512, 1024, 2048, 4096)
            and 0 < self.cluster <= 2 << 20
            and self.cluster & (self.cluster - 1) == 0
            and 1024 <= self.record_size <= 1 << 16
            and self.record_size & (self.record_size - 1) == 0
        )
        if not sane:
            raise BadFilesystem("its boot sector holds absurd values")
        if not 0 < self.end <= self._volume.size:
            raise BadFilesystem("it is larger than its volume")

    def _open_table(self, cluster: int) -> Stream:
        """The table tells of itself in its first record; if that is too short, in records of its first part."""
        if cluster >= self.clusters:
            raise BadFilesystem("its master file table would lie outside of the file system")
        start = self._volume.read(cluster * self.cluster, self.record_size)
        first = self._parse(0, start)
        parts = [one for one in first.attributes if one.type == DATA and not one.name]
        if not parts:
            raise BadFilesystem("its master file table has no content")
        self.count = MAX_RECORDS
        self.table = self._joined(parts, partial=True)
        table = self.stream(self.file(0), b"")
        counts = [count for _vcn, lcn, count in table.runs if lcn is not None]
        if table.value is not None or len(counts) != len(table.runs) or sum(counts) > self.clusters:
            raise BadFilesystem("its master file table has holes, or is larger than the file system")
        if self.read(table, 0, self.record_size) != start:
            raise BadFilesystem("its boot sector and its master file table tell of different tables")
        return table

    def geometry(self) -> tuple[object, ...]:
        """What must be equal for two states of a file system to be compared record by record."""
        return self.end, self.cluster, self.record_size, self._serial

    def raw_record(self, number: int) -> bytes:
        if not 0 <= number < self.count:
            raise BadFilesystem("a record's number is out of range (%d)" % number)
        raw = self.read(self.table, number * self.record_size, self.record_size)
        if len(raw) != self.record_size:
            raise BadFilesystem("record %d lies outside of the master file table" % number)
        return raw

    def mirrored(self, number: int) -> bytes:
        """The copy of a record, where the boot sector has it."""
        if self._mirror >= self.clusters:
            raise BadFilesystem("the copy of its master file table would lie outside of the file system")
        return self._volume.read(self._mirror * self.cluster + number * self.record_size, self.record_size)

    def boot_copies(self) -> list[bytes]:
        """Behind the file system, or at the end of its volume."""
        places = {self.end, (self._volume.size // self._sector - 1) * self._sector}
        return [raw for raw in (self._volume.read(at, 512) for at in sorted(places)) if raw[3:11] == OEM]

    def record(self, number: int) -> Record:
        return self._parse(number, self.raw_record(number))

    @staticmethod
    def _parse(number: int, raw: bytes) -> Record:
        whole = fixed(raw, b"FILE")
        sequence, links, _at, flags = struct.unpack_from("<4H", whole, 16)
        base = struct.unpack_from("<Q", whole, 32)[0]
        return Record(number, sequence, links, flags, base, tuple(attributes(whole)))

    def used_records(self) -> Iterator[int]:
        """All that are marked as used, by themselves or in the bitmap."""
        per_read = max(1, _CHUNK // self.record_size)
        for start in range(0, self.count, per_read):
            count = min(per_read, self.count - start)
            raw = self.read(self.table, start * self.record_size, count * self.record_size)
            for index in range(count):
                at = index * self.record_size
                if self._is_used(start + index, raw[at : at + 24]):
                    yield start + index

    def is_used(self, number: int) -> bool:
        return 0 <= number < self.count and self._is_used(number, self.raw_record(number)[:24])

    def _is_used(self, number: int, head: bytes) -> bool:
        marked = self.used_bits[number >> 3] >> (number & 7) & 1
        return bool(marked or (head[:4] == b"FILE" and head[22] & _USED))

    def file(self, number: int) -> File:
        head = self.record(number)
        own = head.sequence << 48 | number
        there, records = [(number, one) for one in head.attributes], [number]
        wanted = [entry for one in head.attributes if one.type == LIST for entry in listed(self._value(one))]
        for reference in dict.fromkeys(entry[3] for entry in wanted):
            other = record_of(reference)
            if other == number:
                continue
            more = self.record(other)
            if more.base != own or more.sequence != reference >> 48 or not more.flags & _USED:
                raise BadFilesystem("its list of attributes names record %d, which is not one of its own" % other)
            records.append(other)
            there += [(other, one) for one in more.attributes]
        check_list(number, wanted, there)
        found = tuple(one for _record, one in there)
        return File(number, head.sequence, head.links, bool(head.flags & _DIRECTORY), tuple(records), found)

    def base_of(self, number: int) -> int | None:
        """The record that this one continues, if it does."""
        reference = struct.unpack_from("<Q", self.raw_record(number), 32)[0]
        return record_of(reference) if reference else None

    def _value(self, attribute: Attribute) -> bytes:
        if attribute.size > _LIST_LIMIT:
            raise BadFilesystem("its list of attributes is of an absurd size")
        return self.read(self._joined([attribute]), 0, attribute.size)

    def stream(self, file: File, name: bytes, kind: int = DATA) -> Stream:
        return self._joined(file.parts.get((kind, name), []))

    def _joined(self, parts: list[Attribute], partial: bool = False) -> Stream:
        """The parts of one attribute, which may lie in several records."""
        parts = sorted(parts, key=lambda one: one.first)
        head = parts[0] if parts else None
        if head is None or (head.value is not None and len(parts) > 1):
            raise BadFilesystem("an attribute of it is missing, or there twice")
        runs: list[Run] = []
        at = 0
        for part in parts:
            is_empty = len(parts) > 1 and not part.runs
            if part.first != at or is_empty or (part.value is not None) != (head.value is not None):
                raise BadFilesystem("a part of an attribute of it is missing, or there twice")
            runs += part.runs
            at = runs[-1][0] + runs[-1][2] if runs else 0
        if any(lcn is not None and lcn + count > self.clusters for _vcn, lcn, count in runs):
            raise BadFilesystem("its run list points outside of the file system")
        if head.value is None and not partial and at * self.cluster < head.size:
            raise BadFilesystem("its run list is shorter than its size")
        initialized = min(head.initialized, head.size)
        return Stream(head.flags, head.size, initialized, head.unit, head.value, tuple(runs))

    def reparse_tag(self, file: File) -> int | None:
        """Who is to be asked for the content in place of the streams; None if nobody."""
        if not file.of(REPARSE):
            return None
        return int.from_bytes(self.read(self.stream(file, b"", REPARSE), 0, 4), "little")

    def read(self, stream: Stream, offset: int, length: int) -> bytes:
        length = max(0, min(length, stream.size - offset))
        if stream.flags & ENCRYPTED:
            raise BadFilesystem("it is encrypted by the guest")
        if stream.value is not None:
            return stream.value[offset : offset + length]
        known = max(0, min(length, stream.initialized - offset))
        data = (self._unpacked if stream.flags & PACKED else self._plain)(stream, offset, known)
        return data.ljust(length, b"\0")

    def _plain(self, stream: Stream, offset: int, length: int) -> bytes:
        parts, end = [], offset + length
        index = max(0, bisect_right(stream.runs, (offset // self.cluster + 1,)) - 1)
        while offset < end and index < len(stream.runs):
            vcn, lcn, count = stream.runs[index]
            inside = offset - vcn * self.cluster
            take = min(end - offset, count * self.cluster - inside)
            parts.append(bytes(take) if lcn is None else self._volume.read(lcn * self.cluster + inside, take))
            offset += take
            index += 1
        return b"".join(parts)

    def _unpacked(self, stream: Stream, offset: int, length: int) -> bytes:
        unit = self.cluster << stream.unit if stream.unit < 16 else 0
        if stream.flags & PACKED != LZNT1:
            raise BadFilesystem("it is packed in a way that this reader does not know")
        if not stream.unit or not 0 < unit <= _UNIT_LIMIT:
            raise BadFilesystem("it is packed in units of an absurd size")
        first, last = offset // unit, -(-(offset + length) // unit)
        data = b"".join(self._unit(stream, number, 1 << stream.unit) for number in range(first, last))
        return data[offset - first * unit :][:length]

    def _unit(self, stream: Stream, number: int, clusters: int) -> bytes:
        """As it is if no cluster is left out; else what there is, unpacked."""
        parts, left, size, has_hole = [], clusters, clusters * self.cluster, False
        index = max(0, bisect_right(stream.runs, (number * clusters + 1,)) - 1)
        while left and index < len(stream.runs):
            vcn, lcn, count = stream.runs[index]
            inside = number * clusters + clusters - left - vcn
            take = min(left, count - inside)
            if lcn is None:
                has_hole = True
            elif has_hole:
                raise BadFilesystem("its packed content is damaged")
            else:
                parts.append(self._volume.read((lcn + inside) * self.cluster, take * self.cluster))
            left -= take
            index += 1
        data = b"".join(parts)
        return data if len(data) == size else unpacked(data, size)

    def stretches(self, stream: Stream) -> list[tuple[int, int]]:
        """Offset and length of what is not a hole; of a packed stream, of units that hold a cluster."""
        if stream.value is not None or stream.flags & ENCRYPTED:
            return [(0, stream.size)]
        unit = 1 << stream.unit if stream.flags & PACKED else 1
        end, found = min(stream.initialized, stream.size), []
        for vcn, lcn, count in stream.runs:
            at, behind = vcn // unit * unit * self.cluster, -(-(vcn + count) // unit) * unit * self.cluster
            if lcn is not None and at < end:
                found.append((at, min(behind, end) - at))
        return found

    def on_volume(self, stream: Stream) -> list[tuple[int, int]]:
        """Where the bytes of a stream lie if they are not packed, as (start, end), without what follows its end."""
        if stream.flags & (PACKED | ENCRYPTED):
            return []
        found = []
        for vcn, lcn, count in stream.runs:
            length = min(count * self.cluster, stream.initialized - vcn * self.cluster)
            if lcn is not None and length > 0:
                found.append((lcn * self.cluster, lcn * self.cluster + length))
        return found

    def path(self, number: int, name: tuple[int, bytes] | None = None) -> bytes:
        """Under its first name, or the given one."""
        parts: list[bytes] = []
        while number != ROOT and len(parts) < _DEEPEST:
            name = name or self._place(number)
            if name is None:
                return b"/".join([b"(no name: record %d)" % number, *reversed(parts)])
            number, part = name
            parts.append(part)
            name = None
        return (b"/" if number == ROOT else DEEPER) + b"/".join(reversed(parts))

    def _place(self, number: int) -> tuple[int, bytes] | None:
        """Under which directory and name the record is listed first. Kept, for all files below ask for it."""
        if number not in self._places:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            try:
                self._places[number] = next(iter(self.file(number).names), None)
            except BadFilesystem:
                self._places[number] = None
        return self._places[number]
