# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The records inside of ext blocks and inodes: directory entries and extended attributes."""

from __future__ import annotations

import struct
from collections.abc import Iterator


class BadFilesystem(Exception):
    """The file system, or one inode of it, can't be read as it should; the sentence says why."""


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


def attribute(extra: bytes, wanted_index: int, wanted: bytes) -> bytes:
    """The value of one attribute in the inode itself (offsets count from the first entry)."""
    return _value(extra[4:], 0, wanted_index, wanted) if extra[:4] == b"\x00\x00\x02\xea" else b""


def attribute_in_block(block: bytes, wanted_index: int, wanted: bytes) -> bytes:
    """The value of one attribute in a block of its own (offsets count from the block's start)."""
    return _value(block, 32, wanted_index, wanted) if block[:4] == b"\x00\x00\x02\xea" else b""


def _value(body: bytes, at: int, wanted_index: int, wanted: bytes) -> bytes:
    while at + 16 <= len(body) and body[at : at + 4] != bytes(4):
        name_length, index, value_at, _inum, size = struct.unpack_from("<BBHII", body, at)
        if index == wanted_index and body[at + 16 : at + 16 + name_length] == wanted:
            return body[value_at : value_at + size]
        at += 16 + -(-name_length // 4) * 4
    return b""
