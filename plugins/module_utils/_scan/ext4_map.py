# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the content of an inode of ext lies: trees of extents, and the older maps of blocks."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from .blocks import Blocks
from .ext4_records import BadFilesystem, Inode

_HEAD = struct.Struct("<4H4x")
_EXTENT = struct.Struct("<IHHI")
_INDEX = struct.Struct("<IIH2x")
_MAGIC = 0xF30A
_DEEPEST = 5
_LONGEST = 32768  # blocks of an extent; what is reserved and never written has that added to its length
_F_EXTENTS = 0x80000

Run = tuple[int, int, int]  # its first block in the file and on the volume (0: it reads as zeros), and how many
Nodes = dict[int, None]  # the blocks that a map itself consists of, in their order


class Maps:
    """A forged map may go round in circles, or lead to a block again and again. No file's does, so none is followed."""

    def __init__(self, source: Blocks, block_size: int, blocks_count: int) -> None:
        self._source, self._block_size, self._blocks_count = source, block_size, blocks_count

    def pieces(self, inode: Inode, nodes: Nodes, reserved: bool) -> list[tuple[int, int, int]]:
        """All but holes, in the order of the file: the place in it, and where on the volume it begins and ends.

        What was `reserved` and never written reads as zeros; but swapping writes to it all the same.
        """
        is_tree, size = inode.flags & _F_EXTENTS, self._block_size
        walk = self._extents(inode.block, _DEEPEST, nodes, reserved) if is_tree else self._blocks(inode, nodes)
        found, end, most = [], 0, self._blocks_count
        room = most
        for logical, physical, count in walk:
            if logical < end or not count or physical + count > most:
                raise BadFilesystem("its block map is damaged")
            end = logical + count
            if physical:
                found.append((logical * size, physical * size, (physical + count) * size))
                room -= count
                if room < 0:
                    raise BadFilesystem("its block map names more blocks than the file system has")
        return found

    def _node(self, number: int, nodes: Nodes) -> bytes:
        if not 0 < number < self._blocks_count:
            raise BadFilesystem("its block map points outside of the file system")
        if number in nodes:
            raise BadFilesystem("its block map leads to the same block twice")
        nodes[number] = None
        return self._source.read(number * self._block_size, self._block_size)

    def _extents(self, node: bytes, deepest: int, nodes: Nodes, reserved: bool) -> Iterable[Run]:
        magic, entries, _most, depth = _HEAD.unpack_from(node)
        end = 12 + entries * 12
        if magic != _MAGIC or depth > deepest or end > len(node):
            raise BadFilesystem("its extent tree is damaged")
        if depth:
            return self._below(node[12:end], depth - 1, nodes, reserved)
        return [
            (logical, low | high << 32, count)
            if count <= _LONGEST
            else (logical, low | high << 32 if reserved else 0, count - _LONGEST)
            for logical, count, high, low in _EXTENT.iter_unpack(node[12:end])
        ]

    def _below(self, entries: bytes, deepest: int, nodes: Nodes, reserved: bool) -> Iterator[Run]:
        last = -1
        for logical, low, high in _INDEX.iter_unpack(entries):
            below = self._node(low | high << 32, nodes)
            # It leads back, to nothing, or to what begins elsewhere: Linux looks for a part of it in another node
            if logical <= last or below[2:4] == b"\0\0" or below[12:16] != logical.to_bytes(4, "little"):
                raise BadFilesystem("its extent tree is damaged")
            last = logical
            yield from self._extents(below, deepest, nodes, reserved)

    def _blocks(self, inode: Inode, nodes: Nodes) -> Iterator[Run]:
        """Neighbours as one."""
        limit = -(-inode.size // self._block_size)
        first, place, count = 0, 0, 0
        for logical, physical in self._mapped(struct.unpack("<15I", inode.block), limit, nodes):
            if count and logical == first + count and physical == place + count:
                count += 1
                continue
            if count:
                yield first, place, count
            first, place, count = logical, physical, 1
        if count:
            yield first, place, count

    def _mapped(self, slots: tuple[int, ...], limit: int, nodes: Nodes) -> Iterator[tuple[int, int]]:
        logical = 0
        for index, pointer in enumerate(slots):
            level = max(0, index - 11)
            if logical >= limit:
                return
            if pointer:
                yield from self._indirect(pointer, level, logical, limit, nodes)
            logical += (self._block_size // 4) ** level

    def _indirect(self, pointer: int, level: int, logical: int, limit: int, nodes: Nodes) -> Iterator[tuple[int, int]]:
        if level == 0:
            yield logical, pointer
            return
        step = (self._block_size // 4) ** (level - 1)
        for (child,) in struct.iter_unpack("<I", self._node(pointer, nodes)):
            if logical >= limit:
                return
            if child:
                yield from self._indirect(child, level - 1, logical, limit, nodes)
            logical += step
