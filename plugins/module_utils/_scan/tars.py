# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the archives of tar and ar hold: members that lie one behind the other, stored as they are."""

from __future__ import annotations

from collections.abc import Iterator

from .packed import is_tar
from .streams import Member, NotUnpacked, Read, behind_zeros

_BLOCK = 512
_MOST_NAME = 1 << 20
_MOST_ZEROS = 64 << 20
_HEADERS = 4  # for each member: those of its names, and of directories
_REGULAR, _LONG_NAMES, _PAX, _EMPTY, _SPARSE = b"0\0", b"LK", b"xXg", b"123456", b"S"  # X: of Solaris
_SPARSE_MAP = 482  # in a header of GNU's: whether more of the map follows
_AR_HEAD = 60
_DAMAGED = "it is damaged"
_AMBIGUOUS = "it holds headers that tools read in different ways"


def tar_members(read: Read, size: int, most: int) -> Iterator[Member]:
    """Zeros between members are passed over: some tools read on behind an archive's end."""
    at = headers = zeros = 0
    name, told = b"", dict[bytes, bytes]()
    while True:
        before, at = at, behind_zeros(read, at, size, _MOST_ZEROS - zeros, _BLOCK)
        if at >= size:
            return
        zeros += at - before
        head, headers = read(at, _BLOCK), headers + 1
        if not is_tar(head):
            raise NotUnpacked(_DAMAGED)
        if headers > _HEADERS * most:
            raise NotUnpacked("it holds more headers than archive_members allows")
        kind, length = head[156:157], _number(head[124:136])
        start, at = at + _BLOCK, at + _BLOCK + _rounded(length)
        if kind in _LONG_NAMES or kind in _PAX:
            if length > _MOST_NAME:
                raise NotUnpacked(_DAMAGED)
            data = read(start, length)
            if kind == b"L":
                name = data.rstrip(b"\0")
            elif kind in b"xX":
                told = _told(told, dict(_records(data)))
            elif kind == b"g" and {b"size", b"path"} & set(dict(_records(data))):
                raise NotUnpacked(_AMBIGUOUS)
            continue
        if b"size" in told:
            length = _decimal(told[b"size"])
            at = start + _rounded(length)
        path = told.get(b"path") or name or _path(head)
        sparse = kind == _SPARSE or any(key.startswith(b"GNU.sparse") for key in told)
        name, told = b"", {}
        if kind == _SPARSE:
            extra = _map_size(read, start, head[_SPARSE_MAP])
            start, at = start + extra, at + extra
        is_directory = path.endswith(b"/") or _path(head).endswith(b"/")
        if length and (kind in _EMPTY or (kind in _REGULAR and is_directory)):
            raise NotUnpacked(_AMBIGUOUS)
        if kind in _EMPTY:
            continue
        gap = "it has holes, and was matched without them" if sparse else ""
        yield Member(path, start, length, gap=gap, behind=zeros > 0)


def _told(before: dict[bytes, bytes], told: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Of several headers before one member, some tools believe the last only, others all."""
    if before and before.get(b"size") != told.get(b"size"):
        raise NotUnpacked(_AMBIGUOUS)
    return {**before, **told}


def _path(head: bytes) -> bytes:
    name, prefix = head[:100].split(b"\0")[0], head[345:500].split(b"\0")[0]
    return b"%s/%s" % (prefix, name) if prefix and head[257:263] == b"ustar\0" else name


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise NotUnpacked(_DAMAGED)
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if text.strip(b"01234567"):
        raise NotUnpacked(_DAMAGED)
    return int(text or b"0", 8)


def _decimal(text: bytes) -> int:
    text = text.strip()
    if not text.isdigit() or len(text) > 20:
        raise NotUnpacked(_DAMAGED)
    return int(text)


def _rounded(length: int) -> int:
    return length + -length % _BLOCK


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Of pax: length, space, key=value, newline."""
    at = 0
    while at < len(data) and data[at]:
        length = _decimal(data[at : at + 20].partition(b" ")[0])
        key, equals, value = data[at : at + length].partition(b" ")[2].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise NotUnpacked(_DAMAGED)
        yield key, value[:-1]
        at += length


def _map_size(read: Read, start: int, goes_on: int) -> int:
    size = 0
    while goes_on:
        block = read(start + size, _BLOCK)
        if len(block) < _BLOCK:
            raise NotUnpacked(_DAMAGED)
        goes_on, size = block[504], size + _BLOCK
    return size


def ar_members(read: Read, size: int) -> Iterator[Member]:
    at, names = len(b"!<arch>\n"), b""
    while at < size:
        head = read(at, _AR_HEAD)
        if len(head) < _AR_HEAD or head[58:] != b"`\n":
            raise NotUnpacked(_DAMAGED)
        name, length = head[:16].rstrip(b" "), _decimal(head[48:58])
        start, at = at + _AR_HEAD, at + _AR_HEAD + length + length % 2
        if name == b"//":
            if length > _MOST_NAME:
                raise NotUnpacked(_DAMAGED)
            names = read(start, length)
        elif name[:1] == b"/" and name[1:].isdigit() and len(name) < 16:
            name = names[int(name[1:]) :].split(b"\n")[0]
        elif name[:3] == b"#1/":
            named = _decimal(name[3:])
            if named > length:
                raise NotUnpacked(_DAMAGED)
            name, start, length = read(start, min(named, _MOST_NAME)).rstrip(b"\0"), start + named, length - named
        yield Member(name.rstrip(b"/") or b"/", start, length)
