# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The records of XFS: inodes, extents and the entries of directories (Linux, fs/xfs/libxfs/xfs_format.h)."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from .layout import NotReadable

LOCAL, EXTENTS, BTREE = 1, 2, 3  # how a fork is kept
INDEX = 32 << 30  # where in a directory the index of its names begins, and where the list of free space does
FREE = 64 << 30
_BIGTIME, _MANY_EXTENTS = 8, 16
_UNUSED = b"\xff\xff"
_ALONE, _ONE_OF_MANY = (b"XD2B", b"XDB3"), (b"XD2D", b"XDD3")
FREE_SPACE = b"XD2F", b"XDF3"
_LEAVES, _NODES = (0xD2F1, 0xD2FF, 0x3DF1, 0x3DFF), (0xFEBE, 0x3EBE)


class Extent(NamedTuple):
    """In blocks: where in the file, where in the file system, how many."""

    offset: int
    block: int
    length: int
    is_unwritten: bool


class Inode:
    def __init__(self, number: int, raw: bytes) -> None:
        self.number, self.raw = number, raw
        if raw[:2] != b"IN":
            raise NotReadable("its inode (%d) is damaged" % number)
        self.mode, version, self.format = struct.unpack_from(">HBB", raw, 2)
        self.uid, self.gid, self.links = struct.unpack_from(">III", raw, 8)
        if version == 1:
            self.links = struct.unpack_from(">H", raw, 6)[0]
        self.size = struct.unpack_from(">Q", raw, 56)[0]
        self.flags, self.generation, self.next_deleted = struct.unpack_from(">HII", raw, 90)
        self._more = struct.unpack_from(">Q", raw, 120)[0] if version >= 3 else 0
        if self._more & _MANY_EXTENTS:
            self.extents, self.attribute_extents = struct.unpack_from(">Q44xI", raw, 24)
        else:
            self.extents, self.attribute_extents = struct.unpack_from(">IH", raw, 76)
        fork, self.attribute_format = raw[82], raw[83]
        start = 176 if version >= 3 else 100
        end = start + 8 * fork if fork else len(raw)
        self.fork, self.attribute_fork = raw[start:end], raw[end:]

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_real_time(self) -> bool:
        return self.is_file and bool(self.flags & 1)

    @property
    def has_attribute_blocks(self) -> bool:
        return bool(self.attribute_fork) and self.attribute_format in (EXTENTS, BTREE) and bool(self.attribute_extents)

    @property
    def modified(self) -> int:
        return self._time(40)

    @property
    def changed(self) -> int:
        return self._time(48)

    def _time(self, at: int) -> int:
        """In nanoseconds."""
        if self._more & _BIGTIME:
            told: int = struct.unpack_from(">Q", self.raw, at)[0]
            return told - (1 << 31) * 10**9
        seconds, rest = struct.unpack_from(">iI", self.raw, at)
        return int(seconds) * 10**9 + int(rest)

    def status(self) -> os.stat_result:
        accessed, modified, changed = (self._time(at) // 10**9 for at in (32, 40, 48))
        told = self.mode, self.number, 0, self.links, self.uid, self.gid, self.size, accessed, modified, changed
        return os.stat_result(told)


def extent_of(row: bytes) -> Extent:
    bits = int.from_bytes(row, "big")
    return Extent(bits >> 73 & (1 << 54) - 1, bits >> 21 & (1 << 52) - 1, bits & (1 << 21) - 1, bool(bits >> 127))


def short_entries(inode: Inode, has_kind: bool) -> Iterator[tuple[bytes, int]]:
    """Those of a directory in its inode."""
    raw = inode.fork[: inode.size]
    wide = len(raw) > 1 and raw[1]
    number, at = struct.Struct(">Q" if wide else ">I"), 10 if wide else 6
    for _entry in range(raw[0] if raw else 0):
        end = at + 3 + raw[at] if at < len(raw) else at
        name, end = raw[at + 3 : end], end + has_kind
        if not name or end + number.size > len(raw):
            raise NotReadable("its entries do not fit into it")
        yield name, number.unpack_from(raw, end)[0]
        at = end + number.size
    if at != len(raw):
        raise NotReadable("its entries do not fit into it")


class Names:
    """The entries in the blocks of one directory. None may be there that only its index leads to."""

    def __init__(self, has_checksums: bool, has_kind: bool) -> None:
        self._head, self._kind = 64 if has_checksums else 16, has_kind
        self._begin: dict[int, int] = {}  # by the place of a block: in which units of 8 bytes an entry begins

    def only(self, raw: bytes) -> Iterator[tuple[bytes, int]]:
        """Of a directory of one block, which ends with the index."""
        end = len(raw) - 8
        index = end - 8 * struct.unpack_from(">I", raw, end)[0]
        yield from self._entries(0, raw, index, _ALONE)
        self._check(raw[index:end], len(raw))

    def entries(self, at: int, raw: bytes) -> Iterator[tuple[bytes, int]]:
        return self._entries(at, raw, len(raw), _ONE_OF_MANY)

    def check_index(self, raw: bytes) -> None:
        magic = struct.unpack_from(">H", raw, 8)[0]
        if magic in _LEAVES:
            count = struct.unpack_from(">H", raw, self._head - (8 if self._head == 64 else 4))[0]
            self._check(raw[self._head : self._head + 8 * count], len(raw))
        elif magic not in _NODES:
            raise NotReadable("the index of its names is damaged")

    def _entries(self, at: int, raw: bytes, end: int, magics: tuple[bytes, bytes]) -> Iterator[tuple[bytes, int]]:
        place, begin = self._head, 0
        if raw[:4] not in magics or end < place:
            raise NotReadable("its blocks are damaged")
        while place < end:
            is_used, size = raw[place : place + 2] != _UNUSED, struct.unpack_from(">H", raw, place + 2)[0]
            if is_used:
                number, length = struct.unpack_from(">QB", raw, place)
                size = -(-(11 + length + self._kind) // 8) * 8 if length else 0
            if not size or size % 8 or place + size > end:
                raise NotReadable("its entries do not fit into it")
            if is_used:
                begin |= 1 << place // 8
                yield raw[place + 9 : place + 9 + length], number
            place += size
        self._begin[at] = begin

    def _check(self, index: bytes, block: int) -> None:
        for _hash, unit in struct.iter_unpack(">II", index):
            at = unit * 8
            if unit and not self._begin.get(at - at % block, 0) >> at % block // 8 & 1:
                raise NotReadable("its index leads to what is no entry")
