# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the archives of cpio hold, as in the initrd of a Linux guest; and rpm, whose payload is one."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .streams import Member, NotUnpacked, Read, behind_zeros

_MOST_NAME = _MOST_LINK = 4096  # PATH_MAX of Linux
_HEADERS = 4  # for each member: those of directories and links
MOST_ZEROS = 64 << 20
_TRAILER = b"TRAILER!!!"
_REGULAR, _LINK = 0o100000, 0o120000
_OTHERS = (0o010000, 0o020000, 0o040000, 0o060000, 0o140000)  # pipes, devices, directories, sockets: they have no data
_NEW, _ODC = re.compile(rb"07070[12][0-9A-Fa-f]{104}"), re.compile(rb"070707[0-7]{70}")
_BINARY = {b"\xc7\x71": "<13H", b"\x71\xc7": ">13H"}
_DAMAGED = "it is damaged"
_AMBIGUOUS = "it holds headers that tools read in different ways"

_RPM_LEAD, _RPM_HEADER = 96, struct.Struct(">4s4x2I")
_MOST_RPM = 256 << 20


@dataclass(frozen=True)
class _Header:
    """`mark`: of its format. `end`: where the next one lies."""

    mark: bytes
    mode: int
    name: bytes
    start: int
    length: int
    end: int

    @property
    def kind(self) -> int:
        return self.mode & 0o170000

    @property
    def is_last(self) -> bool:
        return self.name == _TRAILER


def is_cpio(read: Read, at: int = 0) -> bool:
    """By all of its first header where the mark is two bytes only."""
    try:
        head = _header(read, at)
    except NotUnpacked:
        return False
    return head.mark not in _BINARY or head.is_last or head.kind in (_REGULAR, _LINK, *_OTHERS)


def cpio_members(read: Read, size: int, most: int) -> Iterator[Member]:
    """As Linux unpacks an initrd: archives one behind the other, zeros between, and something packed at the end."""
    at, mark, first = 0, b"", 0  # of the archive that it is in: its mark, and where it begins
    for _number in range(_HEADERS * most):
        if not mark:
            at = behind_zeros(read, at, size, MOST_ZEROS)
            if at >= size:
                return
            if not is_cpio(read, at):
                yield Member(b"trailing", at, size - at, behind=True)
                return
            first = at
        elif at >= size:
            raise NotUnpacked("it ends too early")
        head = _header(read, at)
        if mark not in (b"", head.mark):
            raise NotUnpacked(_DAMAGED)
        no_data = head.is_last or head.kind in _OTHERS
        if head.length and (no_data or (head.kind == _LINK and head.length > _MOST_LINK)):
            raise NotUnpacked(_AMBIGUOUS)
        if not no_data and head.kind != _LINK:
            yield Member(head.name, head.start, head.length, behind=first > 0)
        at, mark = head.end, b"" if head.is_last else head.mark
    raise NotUnpacked("it holds more headers than archive_members allows")


def _header(read: Read, at: int) -> _Header:
    data = read(at, 110)
    if _NEW.fullmatch(data):
        mark, span, step = data[:6], 110, 4
        mode, length, named = (int(data[place : place + 8], 16) for place in (14, 54, 94))
    elif _ODC.match(data):
        mark, span, step = data[:6], 76, 1
        mode, named, length = int(data[18:24], 8), int(data[59:65], 8), int(data[65:76], 8)
    elif data[:2] in _BINARY and len(data) >= 26:
        mark, span, step = data[:2], 26, 2
        fields = struct.unpack_from(_BINARY[mark], data)
        mode, named, length = fields[3], fields[10], fields[11] << 16 | fields[12]
    else:
        raise NotUnpacked(_DAMAGED)
    name = read(at + span, min(named, _MOST_NAME))
    if not name or len(name) < named or name[-1]:
        raise NotUnpacked(_DAMAGED)
    start = at + span + named
    start += (at - start) % step
    end = start + length
    return _Header(mark, mode, name.split(b"\0")[0], start, length, end + (at - end) % step)


def rpm_members(read: Read, size: int) -> Iterator[Member]:
    """Behind a lead and two headers, the first of which is padded."""
    at = _RPM_LEAD
    for step in (8, 1):
        data = read(at, _RPM_HEADER.size)
        if len(data) < _RPM_HEADER.size:
            raise NotUnpacked("it ends too early")
        mark, count, length = _RPM_HEADER.unpack(data)
        span = _RPM_HEADER.size + 16 * count + length
        if mark != b"\x8e\xad\xe8\x01" or span > _MOST_RPM:
            raise NotUnpacked(_DAMAGED)
        at += span + -span % step
    if at >= size:
        raise NotUnpacked("it ends too early")
    yield Member(b"payload", at, size - at)
