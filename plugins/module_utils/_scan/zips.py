# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a zip holds, by its directory; and whether other tools might find something else in it.

Some go by the directory at its end, others by the header before each entry. Where the two do not agree, or entries
share bytes, nobody can tell what the guest's tool unpacks.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .packed import ZIP_END_SIZE, ZIP_LOCATOR, zip_comment, zip_end
from .streams import LZMA, LZMA_ENDED, METHODS, Member, NotUnpacked, Read

_END64 = 56
_ENTRY, _LOCAL = struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s5H3I2H")
_MOST_DIRECTORY = 64 << 20
_WIDE = 0xFFFFFFFF
_ENCRYPTED, _MARKED, _LATER = 1, 2, 8  # flags; the last: sizes follow the data
_STEP = 1 << 20
_MOST_BETWEEN = 256 << 20
_HEADER = re.compile(rb"PK\x03\x04")
_DAMAGED = "its directory is missing or damaged"
_OVERLAP = "its entries overlap, as in a bomb"
_HIDDEN = "it holds entries that its directory does not list"
_DISAGREE = "its directory and the headers of its entries disagree, so that tools find different things in it"


@dataclass(frozen=True)
class _Entry:
    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    at: int


@dataclass(frozen=True)
class _Directory:
    """`shift`: how far all offsets are off, as something may lie before. `behind`: where what follows it begins."""

    start: int
    end: int
    shift: int
    count: int
    behind: int


def zip_members(read: Read, size: int, most: int) -> Iterator[Member]:
    directory = _directory(read, size)
    start, rows = directory.start, read(directory.start, directory.end - directory.start)
    entries = sorted(_entries(rows, directory.shift, most), key=lambda entry: entry.at)
    if len(entries) & 0xFFFF != directory.count & 0xFFFF:
        raise NotUnpacked(_DAMAGED)
    at, between, found = 0, 0, []
    for entry in entries:
        if entry.at < at:
            raise NotUnpacked(_OVERLAP)
        if entry.at > start:
            raise NotUnpacked(_DISAGREE)
        between += entry.at - at
        _check_gap(read, at, entry.at, between)
        data = _data_at(read, entry)
        at = data + entry.packed
        found.append(_member(entry, data))
    if at > start:
        raise NotUnpacked(_OVERLAP)
    _check_gap(read, at, start, between + start - at)
    lies_behind = bool(entries) and entries[0].at > 0
    yield from (
        replace(member, behind=lies_behind) for member in found if member.length or not member.name.endswith(b"/")
    )
    behind = directory.behind
    if any(read(behind, size - behind)):
        yield Member(b"trailing", behind, size - behind, behind=True)


def _directory(read: Read, size: int) -> _Directory:
    at = end = zip_end(read, size)
    if at < 0:
        raise NotUnpacked(_DAMAGED)
    tail = read(at, size - at)
    if b"PK\x05\x06" in tail[4:]:
        raise NotUnpacked("it has several ends, so that tools find different things in it")
    told = struct.unpack_from("<4H2I", tail, 4)
    located = -1
    if at >= ZIP_LOCATOR + _END64 and read(at - ZIP_LOCATOR, 4) == b"PK\x06\x07":
        end = at - ZIP_LOCATOR - _END64
        located = int.from_bytes(read(at - ZIP_LOCATOR + 8, 8), "little")
        told = _wide_end(read(end, _END64), told)
    disk, first, here, count, span, offset = told
    start = end - span
    if disk or first or here != count or span > _MOST_DIRECTORY or not 0 <= offset <= start:
        raise NotUnpacked(_DAMAGED)
    if offset != start and read(offset, 4) == b"PK\x01\x02":
        raise NotUnpacked(_DISAGREE)
    if located >= 0 and located + start - offset != end:  # some tools go by it, others by where the record should lie
        raise NotUnpacked(_DISAGREE)
    behind = min(size, at + ZIP_END_SIZE + zip_comment(tail))
    return _Directory(start, end, start - offset, count, behind)


def _wide_end(record: bytes, told: tuple[int, ...]) -> tuple[int, ...]:
    """Each number of the short record gives way to that of the long one, or is the same."""
    if len(record) < _END64 or record[:4] != b"PK\x06\x06":
        raise NotUnpacked(_DAMAGED)
    wide = struct.unpack_from("<2I4Q", record, 16)
    if any(short not in (mask, long) for short, long, mask in zip(told, wide, [0xFFFF] * 4 + [_WIDE] * 2)):
        raise NotUnpacked(_DISAGREE)
    return wide


def zip_place(read: Read, size: int) -> tuple[int, int]:
    """Where a zip begins that lies in something else, and its size."""
    directory = _directory(read, size)
    return directory.shift, directory.behind - directory.shift


def _entries(directory: bytes, shift: int, most: int) -> Iterator[_Entry]:
    at = number = 0
    while at < len(directory):
        if number >= most:
            raise NotUnpacked("it holds more than archive_members")
        if len(directory) - at < _ENTRY.size or directory[at : at + 4] != b"PK\x01\x02":
            raise NotUnpacked(_DAMAGED)
        fields = _ENTRY.unpack_from(directory, at)
        flags, method, crc, packed, size = fields[3], fields[4], fields[7], fields[8], fields[9]
        named, extra, comment, offset = fields[10], fields[11], fields[12], fields[16]
        at += _ENTRY.size
        packed, size, offset = _wide(directory[at + named : at + named + extra], packed, size, offset)
        yield _Entry(directory[at : at + named], flags, method, crc, packed, size, offset + shift)
        at += named + extra + comment
        number += 1


def _wide(extra: bytes, packed: int, size: int, offset: int) -> tuple[int, int, int]:
    """Numbers of 64 bits stand in a field of their own, those only that are marked."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            numbers = iter(struct.unpack_from("<%dQ" % (len(field) // 8), field))
            size, packed, offset = (next(numbers, _WIDE) if one == _WIDE else one for one in (size, packed, offset))
            break
        at += 4 + length
    return packed, size, offset


def _data_at(read: Read, entry: _Entry) -> int:
    head = read(entry.at, _LOCAL.size)
    if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
        raise NotUnpacked(_DISAGREE)
    _mark, _version, flags, method, _time, _date, _crc, packed, size, named, extra = _LOCAL.unpack(head)
    data = int(entry.at + _LOCAL.size + named + extra)
    packed, size, _offset = _wide(read(data - extra, extra), packed, size, 0)
    later = (0,) if flags & _LATER else ()
    same = (flags & _ENCRYPTED, method) == (entry.flags & _ENCRYPTED, entry.method)
    if not same or packed not in (entry.packed, *later) or size not in (entry.size, *later):
        raise NotUnpacked(_DISAGREE)
    return data


def _member(entry: _Entry, data: int) -> Member:
    gap = ""
    if entry.flags & _ENCRYPTED:
        gap = "it is encrypted"
    elif entry.method not in METHODS:
        gap = "it is packed by a method (%d) that is not unpacked here" % entry.method
    elif not entry.method and entry.size != entry.packed:
        gap = "it is damaged"
    method = METHODS.get(entry.method, "")
    if method == LZMA and entry.flags & _MARKED:
        method = LZMA_ENDED
    return Member(entry.name, data, entry.packed, method, gap, entry.size, entry.crc)


def _check_gap(read: Read, start: int, end: int, so_far: int) -> None:
    """There may be no header of an entry."""
    if so_far > _MOST_BETWEEN:
        raise NotUnpacked("more than %d bytes lie between its entries" % _MOST_BETWEEN)
    for at in range(start, end, _STEP):
        data = read(at, min(_STEP + _LOCAL.size, end - at))
        for match in _HEADER.finditer(data):
            head = data[match.start() : match.start() + _LOCAL.size]
            if len(head) == _LOCAL.size and 0 < _LOCAL.unpack(head)[9] <= 4096:
                raise NotUnpacked(_HIDDEN)
