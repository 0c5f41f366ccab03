# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""LVM2: the logical volumes that lie on the physical ones, linear and striped.

After lvm2's on-disk format (lib/format_text/layout.h, lib/label/label.h): a label in one of the first four sectors,
areas with the metadata as text, each with its checksum. Of several copies the newest counts, as it does for LVM if it
can read it: so all must tell of the same volumes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .blocks import Blocks, Place
from .lvm_text import BadText, parse
from .places import Ranges

SECTOR = 512
_LABEL_SECTORS = 4
_FIRST_CHECKSUM = 0xF597A6CF
_MAGIC = b" LVM2 x[5A%r0N*>"
_MOST_TEXT = 8 << 20
_MOST_SEGMENTS = 1 << 16
_IGNORED = 1
_LAYOUT = ("extent_size", "physical_volumes", "logical_volumes")


class BadLvm(Exception):
    """Something of LVM can't be read; the sentence says what and why."""


@dataclass(frozen=True)
class Label:
    """Of a physical volume: its id, and offset and size of its metadata areas."""

    uuid: str
    areas: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Segment:
    """A stretch of a logical volume: in turns of `chunk` bytes on its places (id of the physical volume, offset)."""

    start: int
    size: int
    chunk: int
    places: tuple[tuple[str, int], ...]

    @property
    def area(self) -> int:
        """How much of it lies on each place."""
        return self.size // len(self.places)


class LogicalVolume(Blocks):
    def __init__(self, name: str, segments: tuple[Segment, ...], physical: Mapping[str, Blocks]) -> None:
        self.name = name
        self.segments = segments
        self.size = segments[-1].start + segments[-1].size
        self._physical = physical

    @property
    def lies_on(self) -> set[str]:
        """The ids of its physical volumes."""
        return {uuid for segment in self.segments for uuid, _start in segment.places}

    def read(self, offset: int, length: int) -> bytes:
        inside = max(0, min(length, self.size - offset))
        parts = [self._physical[uuid].read(at, step) for uuid, at, step in self._pieces(offset, inside)]
        return (parts[0] if len(parts) == 1 else b"".join(parts)).ljust(length, b"\0")

    def places(self, offset: int, length: int, stop: Blocks | None = None) -> Iterator[Place]:
        inside = max(0, min(length, self.size - offset))
        for uuid, at, step in self._pieces(offset, inside):
            yield from self._physical[uuid].places(at, step, stop)
        if length > inside:
            yield length - inside, None, 0

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[str, int, int]]:
        end = offset + length
        for segment in self.segments:
            while segment.start <= offset < min(end, segment.start + segment.size):
                turn, within = divmod(offset - segment.start, segment.chunk)
                row, column = divmod(turn, len(segment.places))
                uuid, start = segment.places[column]
                step = min(segment.chunk - within, end - offset)
                yield uuid, start + row * segment.chunk + within, step
                offset += step

    def changed(self, physical: Mapping[str, Ranges]) -> Ranges:
        """What of it changes when these stretches of its physical volumes do."""
        return Ranges(self._changed(physical))

    def _changed(self, physical: Mapping[str, Ranges]) -> Iterator[tuple[int, int]]:
        for segment in self.segments:
            for column, (uuid, start) in enumerate(segment.places):
                for low, high in physical[uuid].within(start, start + segment.area):
                    at, end = low - start, high - start
                    while at < end:
                        row, within = divmod(at, segment.chunk)
                        step = min(segment.chunk - within, end - at)
                        place = segment.start + (row * len(segment.places) + column) * segment.chunk + within
                        yield place, place + step
                        at += step


@dataclass
class Found:
    """`uuids`: of the physical volumes in their order, empty where there is none. `problems`: what was not read."""

    uuids: list[str] = field(default_factory=list)
    volumes: list[LogicalVolume] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def covered(self, uuid: str) -> Ranges:
        """What of a physical volume belongs to the logical volumes that were read."""
        segments = (segment for volume in self.volumes for segment in volume.segments)
        return Ranges(
            (start, start + segment.area) for segment in segments for one, start in segment.places if one == uuid
        )


def read_groups(physical: Sequence[Blocks]) -> Found:
    """All logical volumes that lie on these physical volumes; what can't be read is told in a sentence each."""
    found = Found()
    by_uuid: dict[str, Blocks] = {}
    newest: dict[str, tuple[str, dict[str, Any]]] = {}
    for volume in physical:
        found.uuids.append("")
        try:
            label = read_label(volume)
            if label.uuid in by_uuid:
                raise BadLvm("two physical volumes bear the same id (%s)" % label.uuid)
        except BadLvm as exc:
            found.problems.append("A physical volume of LVM was not read: %s." % exc)
            continue
        found.uuids[-1] = label.uuid
        by_uuid[label.uuid] = volume
        for area in label.areas:
            try:
                _take(newest, _metadata(volume, *area))
            except (BadLvm, BadText, struct.error, KeyError, TypeError, ValueError) as exc:
                text = "Metadata of the physical volume %s was not read: %s." % (label.uuid, _cause(exc))
                found.problems.append(text)
    claimed: set[str] = set()
    for name, group in newest.values():
        try:
            mine = _Group(name, group, by_uuid).read(found)
            if mine & claimed:
                raise BadLvm("another volume group claims one of its physical volumes")
            claimed |= mine
        except (BadLvm, KeyError, TypeError, ValueError, AttributeError) as exc:
            found.problems.append("The volume group %s was not read: %s." % (name, _cause(exc)))
    for uuid in by_uuid:
        if uuid not in claimed:
            found.problems.append("The physical volume %s was not read: it belongs to no volume group." % uuid)
    return found


def _cause(exc: Exception) -> str:
    return str(exc) if isinstance(exc, (BadLvm, BadText)) else "its metadata is damaged (%s)" % type(exc).__name__


def _checksum(data: bytes) -> int:
    """CRC-32 from a start of LVM's own, not inverted at the end."""
    return zlib.crc32(data, _FIRST_CHECKSUM ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _labels(head: bytes) -> Iterator[tuple[int, bytes]]:
    for number in range(_LABEL_SECTORS):
        sector = head[number * SECTOR : (number + 1) * SECTOR]
        magic, place, crc, offset, kind = struct.unpack_from("<8sQII8s", sector)
        if (magic, place, kind) == (b"LABELONE", number, b"LVM2 001") and _checksum(sector[20:]) == crc:
            yield offset, sector


def read_label(volume: Blocks) -> Label:
    """The first label with a right checksum, which is the one that LVM takes."""
    offset, sector = next(_labels(volume.read(0, _LABEL_SECTORS * SECTOR)), (0, b""))
    if not 32 <= offset <= SECTOR - 40:
        raise BadLvm("its label is damaged")
    uuid = sector[offset : offset + 32].decode("ascii", "replace")
    lists: list[list[tuple[int, int]]] = [[], []]
    at = offset + 40
    for areas in lists:  # of data, and of metadata; each ends with an empty one
        while True:
            if at + 16 > SECTOR:
                raise BadLvm("its label is damaged")
            start, size = struct.unpack_from("<QQ", sector, at)
            at += 16
            if not start:
                break
            areas.append((start, size))
    return Label(uuid, tuple(lists[1]))


def _metadata(volume: Blocks, start: int, size: int) -> dict[str, Any]:
    """The text of one metadata area; nothing if the area is not in use."""
    head = volume.read(start, SECTOR)
    crc, magic, version, told_start, told_size = struct.unpack_from("<I16sIQQ", head)
    if magic != _MAGIC or version != 1 or (told_start, told_size) != (start, size) or _checksum(head[4:]) != crc:
        raise BadLvm("the header of a metadata area is damaged")
    offset, length, text_crc, flags = struct.unpack_from("<QQII", head, 40)
    if not offset or flags & _IGNORED:
        return {}
    if not (SECTOR <= offset < size and 0 < length <= min(size - SECTOR, _MOST_TEXT)):
        raise BadLvm("a metadata area holds absurd sizes")
    first = min(length, size - offset)
    # The area is a ring: what does not fit before its end goes on behind its header
    text = volume.read(start + offset, first) + volume.read(start + SECTOR, length - first)
    if _checksum(text) != text_crc:
        raise BadLvm("the checksum of the metadata is wrong")
    return parse(text.decode("utf-8", "surrogateescape"))


def _take(newest: dict[str, tuple[str, dict[str, Any]]], text: dict[str, Any]) -> None:
    groups = [(name, value) for name, value in text.items() if isinstance(value, dict)]
    if text and (len(groups) != 1 or text["version"] != 1):
        raise BadLvm("it does not describe one volume group")
    for name, group in groups:
        uuid = group["id"]
        before = newest.get(uuid, (name, group))[1]
        if _number(group["seqno"]) >= before["seqno"]:
            newest[uuid] = name, group
        if any(before.get(what) != group.get(what) for what in _LAYOUT) or (
            before["seqno"] == group["seqno"] and before != group
        ):
            raise BadLvm("two copies of it differ, and a guest that can't read the newest takes another one")


class _Group:
    def __init__(self, name: str, group: dict[str, Any], by_uuid: Mapping[str, Blocks]) -> None:
        self._name = name
        self._volumes: dict[str, Any] = group.get("logical_volumes", {})
        self._extent = _number(group["extent_size"], 1) * SECTOR
        self._by_uuid = by_uuid
        self._physical: dict[str, tuple[str, int, int]] = {
            name: (
                str(one["id"]).replace("-", ""),
                _number(one["pe_start"], most=1 << 62) * SECTOR,
                _number(one["pe_count"]),
            )
            for name, one in group["physical_volumes"].items()
        }

    def read(self, found: Found) -> set[str]:
        """Adds its volumes and problems, and gives the ids of its physical volumes."""
        mine = []
        for name, volume in self._volumes.items():
            full = "%s/%s" % (self._name, name)
            try:
                mine.append(LogicalVolume(full, self._segments(volume), self._by_uuid))
            except (BadLvm, KeyError, TypeError, ValueError, AttributeError) as exc:
                found.problems.append("The logical volume %s was not read: %s." % (full, _cause(exc)))
        segments = (segment for volume in mine for segment in volume.segments)
        taken = sorted((*place, segment.area) for segment in segments for place in segment.places)
        for one, other in zip(taken, taken[1:]):
            if one[0] == other[0] and one[1] + one[2] > other[1]:
                raise BadLvm("two of its logical volumes overlap")
        found.volumes += mine
        return {uuid for uuid, _start, _count in self._physical.values()}

    def _segments(self, volume: dict[str, Any]) -> tuple[Segment, ...]:
        parts = [value for value in volume.values() if isinstance(value, dict)]
        if not 0 < len(parts) == volume["segment_count"] <= _MOST_SEGMENTS:
            raise BadLvm("its segments are not as many as it says")
        parts.sort(key=lambda part: _number(part["start_extent"]))
        segments, at = [], 0
        for part in parts:
            if part["type"] not in ("linear", "striped"):
                raise BadLvm("it is of the type %s, which is not supported" % part["type"])
            segments.append(self._segment(part))
            if segments[-1].start != at:
                raise BadLvm("its segments do not follow each other")
            at += segments[-1].size
        return tuple(segments)

    def _segment(self, part: dict[str, Any]) -> Segment:
        extents, count, stripes = _number(part["extent_count"], 1), part["stripe_count"], part["stripes"]
        size = extents * self._extent
        chunk = _number(part["stripe_size"], 1) * SECTOR if count != 1 else size
        if not 0 < count == len(stripes) // 2 or len(stripes) % 2 or extents % count or size // count % chunk:
            raise BadLvm("its stripes do not make up its size")
        places = tuple(self._place(*stripe, extents // count) for stripe in zip(stripes[::2], stripes[1::2]))
        return Segment(_number(part["start_extent"]) * self._extent, size, chunk, places)

    def _place(self, name: str, extent: int, extents: int) -> tuple[str, int]:
        if name not in self._physical:
            raise BadLvm("it lies on %s, which is no physical volume" % name)
        uuid, start, count = self._physical[name]
        if uuid not in self._by_uuid:
            raise BadLvm("the physical volume %s (%s) is on none of the disks" % (name, uuid))
        at = start + _number(extent) * self._extent
        if extent + extents > count or at + extents * self._extent > self._by_uuid[uuid].size:
            raise BadLvm("it reaches past the end of a physical volume")
        return uuid, at


def _number(value: Any, least: int = 0, most: int = (1 << 32) - 1) -> int:
    """LVM keeps most of them in 32 bits, and drops what is above."""
    if not isinstance(value, int) or not least <= value <= most:
        raise BadLvm("a number in the metadata is absurd")
    return value
