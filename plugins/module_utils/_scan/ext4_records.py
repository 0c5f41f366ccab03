# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The records of ext: inodes, directory entries and extended attributes."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

DEEPER = b"(deeper)/"  # so begins a path that has more directories above, or that ends in no root
_TYPES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)


class BadFilesystem(Exception):
    """The file system, or one inode of it, can't be read as it should; the sentence says why."""


class Inode(NamedTuple):
    number: int
    mode: int
    size: int
    links: int
    flags: int
    acl: int
    raw: bytes

    @property
    def block(self) -> bytes:
        """The root of its map, or the beginning of its content."""
        return self.raw[40:100]

    @property
    def extra(self) -> bytes:
        """What follows its fields: attributes."""
        return self.raw[128 + int.from_bytes(self.raw[128:130], "little") :] if len(self.raw) > 130 else b""

    @property
    def shape(self) -> tuple[int, int, int, bytes]:
        """What it is, of which size, and where its bytes lie."""
        return stat.S_IFMT(self.mode), self.size, self.flags, self.block

    @property
    def content(self) -> tuple[object, ...]:
        """All in the inode that says what the content is, but for the bytes of its blocks."""
        return self.shape, self.acl, self.extra

    @property
    def owner(self) -> tuple[int, int]:
        uid, gid = struct.unpack_from("<H", self.raw, 2)[0], struct.unpack_from("<H", self.raw, 24)[0]
        uid_high, gid_high = struct.unpack_from("<HH", self.raw, 120)
        return uid | uid_high << 16, gid | gid_high << 16

    @property
    def times(self) -> tuple[bytes, ...]:
        """Of the change of the inode and of the content, with their fractions if the inode has room for them."""
        return self.raw[12:20], self.raw[132:140] if self.raw[128:130] >= b"\x0c" else b""

    @property
    def modified(self) -> int:
        """When the content changed last, in seconds since 1970; years past 2038 need the field beside."""
        more = struct.unpack_from("<I", self.raw, 136)[0] & 3 if self.raw[128:130] >= b"\x0c" else 0
        seconds: int = struct.unpack_from("<i", self.raw, 16)[0]
        return seconds + (more << 32)

    @property
    def generation(self) -> bytes:
        return self.raw[100:104]

    @property
    def is_odd(self) -> bool:
        """In use, but of no type that there is."""
        return self.links > 0 and stat.S_IFMT(self.mode) not in _TYPES

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def may_run(self) -> bool:
        """By its permissions."""
        return bool(self.mode & 0o111)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)


def entries_in(block: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 8 <= len(block):
        number, length, name_length = struct.unpack_from("<IHB", block, at)
        if length in (0, 65535) and len(block) == 65536:
            length = 65536
        if length < 8 or length % 4 or at + length > len(block) or 8 + name_length > length:
            raise BadFilesystem("a directory is damaged")
        name = block[at + 8 : at + 8 + name_length]
        if number and name not in (b".", b".."):
            yield number, name
        at += length


def attribute(extra: bytes, wanted_index: int, wanted: bytes) -> bytes | None:
    """The value of one attribute in the inode itself (offsets count from the first entry)."""
    return _value(extra[4:], 0, wanted_index, wanted) if extra[:4] == b"\x00\x00\x02\xea" else None


def attribute_in_block(block: bytes, wanted_index: int, wanted: bytes) -> bytes | None:
    """The value of one attribute in a block of its own (offsets count from the block's start)."""
    return _value(block, 32, wanted_index, wanted) if block[:4] == b"\x00\x00\x02\xea" else None


def _value(body: bytes, at: int, wanted_index: int, wanted: bytes) -> bytes | None:
    while at + 16 <= len(body) and body[at : at + 4] != bytes(4):
        name_length, index, value_at, _inum, size = struct.unpack_from("<BBHII", body, at)
        if index == wanted_index and body[at + 16 : at + 16 + name_length] == wanted:
            return body[value_at : value_at + size]
        at += 16 + -(-name_length // 4) * 4
    return None
