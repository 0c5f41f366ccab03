# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the library does not check of a tree of btrfs: without that, one that an attacker wrote is walked forever."""

from __future__ import annotations

import struct
from importlib import import_module
from typing import Any, Callable

from .layout import NotReadable

_HEAD, _HIGHEST = 101, 7
_ITEM, _POINTER = struct.Struct("<QBQ8x"), struct.Struct("<QBQ16x")

Key = tuple[int, int, int]


def check_trees() -> None:
    cursor = import_module("dissect.btrfs.tree").Cursor
    if not hasattr(cursor, "is_checked"):
        cursor.push, cursor.is_checked = _checked(cursor.push), True


def _checked(push: Callable[..., None]) -> Callable[..., None]:
    def checked(cursor: Any, address: int, initial_index: int = 0) -> None:
        level = above = None
        if cursor._header is not None:
            key = cursor.item().key
            level, above = int(cursor._header.level), (int(key.objectid), int(key.type), int(key.offset))
        push(cursor, address, initial_index)
        sound = vars(cursor.btree).setdefault("_sound", {})
        if address not in sound:
            sound[address] = _first_key(int(cursor._header.level), int(cursor._header.nritems), cursor._node)
        # As the kernel does: each node lies one level below the pointer to it, which bears its first key
        if level is not None and (int(cursor._header.level) != level - 1 or sound[address] != above):
            raise NotReadable("a tree of it runs in a circle, or is damaged")

    return checked


def _first_key(level: int, count: int, node: Any) -> Key:
    shape = _POINTER if level else _ITEM
    raw = bytes(node[_HEAD : _HEAD + count * shape.size])
    if level > _HIGHEST or not count or len(raw) != count * shape.size:
        raise NotReadable("a node of its trees is damaged")
    keys: list[Key] = list(shape.iter_unpack(raw))
    if any(low >= high for low, high in zip(keys, keys[1:])):
        raise NotReadable("a node of its trees is not in order")
    return keys[0]


def identity(entry: Any) -> Key:
    """Of a directory: its subvolume, and its number there."""
    return 0, int(entry.entry.subvolume.objectid), int(entry.entry.inum)


def stretches(stream: Any, size: int) -> list[tuple[int, int]]:
    """What of a file is no hole."""
    found, at = list[tuple[int, int]](), 0
    for extent in getattr(stream, "extents", ()):
        length = min(extent.length, size - at)
        if extent.disk_offset and length > 0:
            found.append((at, length))
        at += extent.length
    return found if hasattr(stream, "extents") else [(0, size)]
