# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""XFS from its superblock to the blocks of each inode (Linux, fs/xfs/libxfs/xfs_format.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from .blocks import Blocks
from .layout import NotReadable, Scattered
from .xfs_records import (
    BTREE,
    EXTENTS,
    FREE,
    FREE_SPACE,
    INDEX,
    LOCAL,
    Extent,
    Inode,
    Names,
    extent_of,
    short_entries,
)

_NULL, _NO_INODE = (1 << 64) - 1, (1 << 32) - 1
_KNOWN = 0xEF  # incompatible features, without the one that asks for a repair
_VERSIONS = 4, 5
_CHUNK = 64  # inodes
_DEEPEST = 9  # levels of a tree
_MOST_ATTRIBUTES = 16 << 20  # bytes of one inode's
_KIND_5, _KIND_4 = 1, 0x200  # features: directories tell the kinds of files
_HAS_MORE, _LOG_2 = 0x8000, 0x400


class Xfs:
    def __init__(self, volume: Blocks) -> None:
        self._volume = volume
        self._head = head = volume.read(0, 512)
        self.block, self._blocks = struct.unpack_from(">IQ", head, 4)
        self.end = min(self.block * self._blocks, volume.size)
        self.group_blocks, self.groups = struct.unpack_from(">II", head, 84)
        version, self.sector, self.inode, self.per_block = struct.unpack_from(">HHHH", head, 100)
        self.version, self._flags = version & 15, version
        self._group_shift, self.shift = head[124], head[124] + head[123]
        self._directory_block = self.block << min(head[192], 8)
        self._more, incompatible = struct.unpack_from(">I12xI", head, 200)
        has_more = bool(version & _HAS_MORE and self._more & _KIND_4)
        self._has_kind = has_more or self.version == 5 and bool(incompatible & _KIND_5)
        self.root = struct.unpack_from(">Q", head, 56)[0]
        self._owners: dict[int, int] = {}  # whose a block of directories or attributes is
        sane = 512 <= self.block <= 1 << 16 and 256 <= self.inode <= 2048 and self.per_block * self.inode == self.block
        agrees = self.per_block == 1 << head[123] and self.group_blocks <= 1 << head[124] <= 1 << 32
        has_groups = 0 < self.groups <= 1 << 20 and self.group_blocks
        if not (sane and agrees and has_groups and self._directory_block <= 1 << 16):
            raise NotReadable("its superblock holds absurd values")

    def own(self) -> set[int]:
        """Inodes that no directory names: of the real-time device and the quotas."""
        numbers = struct.unpack_from(">QQ", self._head, 64) + struct.unpack_from(">QQ", self._head, 160)
        numbers += struct.unpack_from(">Q", self._head, 232) if self.version == 5 else ()
        return {number for number in numbers if number not in (0, _NULL)}

    def doubts(self) -> list[str]:
        found = list[str]()
        if self.block * self._blocks > self._volume.size:
            found.append("it claims to be larger than its volume")
        if self.version not in _VERSIONS:
            found.append("it is of a version that is not known here")
        if self.version == 4 and self._more != struct.unpack_from(">I", self._head, 204)[0]:
            found.append("its features and their copy differ")
        if any(self._head[16:24]):
            found.append("it keeps files on a real-time device, which is not read")
        if self.version == 5 and struct.unpack_from(">I", self._head, 216)[0] & ~_KNOWN:
            found.append("it has a feature that is not known here, or asks for a repair")
        return found

    def inodes(self) -> tuple[set[int], set[int]]:
        """Those in use by the trees of the groups; and those that are marked as free, but are not."""
        used, doubtful = set[int](), set[int]()
        for group in range(self.groups):
            agi = self._volume.read(self._place(group, 0) + 2 * self.sector, 64)
            if agi[:4] != b"XAGI":
                raise NotReadable("an allocation group is damaged")
            last = -1
            for first, holes, free in self._records(group, *struct.unpack_from(">II", agi, 20)):
                there = [at for at in range(_CHUNK) if not holes >> at // 4 & 1]
                if first <= last or first + max(there, default=0) >= self._length(group) * self.per_block:
                    raise NotReadable("the tree of the inodes of a group is damaged")
                last, base = first + _CHUNK - 1, group << self.shift
                used.update(base + first + at for at in there if not free >> at & 1)
                if free:
                    doubtful.update(base + first + at for at in self._modes(group, first) if at in there)
        return used, doubtful - used

    def _modes(self, group: int, first: int) -> Iterator[int]:
        """Which of a chunk have a mode: XFS takes it from what is deleted."""
        raw = self._volume.read(self._place(group, 0) + first * self.inode, _CHUNK * self.inode)
        for at in range(_CHUNK):
            if raw[at * self.inode : at * self.inode + 2] == b"IN" and any(raw[at * self.inode + 2 :][:2]):
                yield at

    def _records(self, group: int, root: int, levels: int) -> Iterator[tuple[int, int, int]]:
        """Of the tree of a group's inodes: the first, which fours are not there, and which are free."""
        head, magic = (56, b"IAB3") if self.version == 5 else (16, b"IABT")
        pending, seen = [(root, levels - 1)], set[int]()
        while pending:
            number, level = pending.pop()
            raw = self._volume.read(self._place(group, number), self.block)
            count = struct.unpack_from(">H", raw, 6)[0]
            told = raw[:4] == magic and struct.unpack_from(">H", raw, 4)[0] == level
            fits = count <= (self.block - head) // (8 if level else 16)
            if not (told and fits) or number in seen or number >= self._length(group):
                raise NotReadable("the tree of the inodes of a group is damaged")
            seen.add(number)
            if level:
                at = head + (self.block - head) // 8 * 4
                pending += [(child, level - 1) for child in reversed(struct.unpack_from(">%dI" % count, raw, at))]
                continue
            for at in range(head, head + 16 * count, 16):
                first, holes, free = struct.unpack_from(">IH2xQ", raw, at)
                yield first, holes, free

    def _place(self, group: int, block: int) -> int:
        return (group * self.group_blocks + block) * self.block

    def _length(self, group: int) -> int:
        """In blocks; of the last group what there is."""
        blocks = min(self._blocks, self._volume.size // self.block)
        return max(0, min(self.group_blocks, blocks - group * self.group_blocks)) if group < self.groups else 0

    def _linear(self, number: int, count: int = 1) -> int:
        """Which block of the volume one is that is told by its group."""
        group, within = divmod(number, 1 << self._group_shift)
        if within + count > self._length(group):
            raise NotReadable("it has blocks outside of the file system")
        return group * self.group_blocks + within

    def deleted(self) -> set[int]:
        """Those that were open when they were deleted: the next mount frees them. No directory names them."""
        found = set[int]()
        for group in range(self.groups):
            agi = self._volume.read(self._place(group, 0) + 2 * self.sector, 296)
            for number in struct.unpack_from(">64I", agi, 40):
                while number != _NO_INODE and (group << self.shift) + number not in found:
                    found.add((group << self.shift) + number)
                    number = self.read_inode((group << self.shift) + number).next_deleted
        return found

    def read_inode(self, number: int) -> Inode:
        group, within = number >> self.shift, number & (1 << self.shift) - 1
        if within >= self._length(group) * self.per_block:
            raise NotReadable("its inode (%d) lies outside of the file system" % number)
        return Inode(number, self._volume.read(self._place(group, 0) + within * self.inode, self.inode))

    def content(self, inode: Inode) -> Scattered:
        """What was never written reads as zeros."""
        pieces = list[tuple[int, int, int]]()
        for extent in self.extents(inode):
            if not extent.is_unwritten:
                start = extent.block * self.block
                pieces.append((extent.offset * self.block, start, start + extent.length * self.block))
        return Scattered(self._volume, pieces, inode.size)

    def extents(self, inode: Inode, of_attributes: bool = False) -> list[Extent]:
        """In the order of its bytes, with the blocks' numbers on the volume."""
        fork, form, count = inode.fork, inode.format, inode.extents
        if of_attributes:
            fork, form, count = inode.attribute_fork, inode.attribute_format, inode.attribute_extents
        if form not in (EXTENTS, BTREE):
            raise NotReadable("its content is kept in a way that is not known here")
        found, at = list[Extent](), 0
        for part in self._leaves(inode, fork) if form == BTREE else [fork[: 16 * count]]:
            for row in range(0, len(part) - 15, 16):
                extent = extent_of(part[row : row + 16])
                if extent.offset < at or not extent.length:
                    raise NotReadable("its extents overlap")
                at = extent.offset + extent.length
                found.append(extent._replace(block=self._linear(extent.block, extent.length)))
        if len(found) != count:
            raise NotReadable("it has not as many extents as it says")
        return found

    def _leaves(self, inode: Inode, fork: bytes) -> Iterator[bytes]:
        """Of the tree whose root is in the inode. Linux goes from leaf to leaf, so that both ways must be one."""
        levels, count = struct.unpack_from(">HH", fork)
        room = (len(fork) - 4) // 16
        if not 0 < levels <= _DEEPEST or count > room:
            raise NotReadable("the tree of its extents is damaged")
        numbers: Sequence[int] = struct.unpack_from(">%dQ" % count, fork, 4 + 8 * room)
        for level in reversed(range(levels)):
            if len(set(numbers)) != len(numbers):
                raise NotReadable("the tree of its extents is damaged")
            below = list[int]()
            for number, *beside in zip(numbers, (_NULL, *numbers), (*numbers[1:], _NULL)):
                records = self._node(inode, number, level, beside)
                if not level:
                    yield records
                below += struct.unpack(">%dQ" % (len(records) // 8), records) if level else ()
            numbers = below

    def _node(self, inode: Inode, number: int, level: int, beside: Sequence[int]) -> bytes:
        """The extents, or the numbers of the nodes below."""
        head, magic = (72, b"BMA3") if self.version == 5 else (24, b"BMAP")
        raw = self._volume.read(self._linear(number) * self.block, self.block)
        its_level, count, *its_beside = struct.unpack_from(">HHQQ", raw, 4)
        room = (self.block - head) // 16
        told = raw[:4] == magic and its_level == level and its_beside == list(beside)
        is_other = head == 72 and struct.unpack_from(">Q", raw, 56)[0] != inode.number
        if not told or is_other or not 0 < count <= room:
            raise NotReadable("the tree of its extents is damaged")
        return raw[head + 8 * room :][: 8 * count] if level else raw[head:][: 16 * count]

    def entries(self, inode: Inode) -> Iterator[tuple[bytes, int]]:
        """What a directory names. Linux heeds neither its size nor whether its blocks are marked as written."""
        if inode.format == LOCAL:
            yield from short_entries(inode, self._has_kind)
            return
        extents, names = self.extents(inode), Names(self.version == 5, self._has_kind)
        is_alone = bool(extents) and (extents[-1].offset + extents[-1].length) * self.block == self._directory_block
        for at, raw in self._directory_blocks(inode, extents):
            if is_alone:
                yield from names.only(raw)
            elif at < INDEX:
                yield from names.entries(at, raw)
            elif at < FREE:
                names.check_index(raw)
            elif raw[:4] not in FREE_SPACE:  # Linux would follow an index to here
                raise NotReadable("its list of free space is damaged")

    def _directory_blocks(self, inode: Inode, extents: Sequence[Extent]) -> Iterator[tuple[int, bytes]]:
        parts, first = list[bytes](), 0
        for offset, raw in self._owned(inode, extents):
            first = first if parts else offset
            if offset != first + len(parts) * self.block or first % self._directory_block:
                break
            parts.append(raw)
            if len(parts) * self.block == self._directory_block:
                yield first, b"".join(parts)
                parts = []
        if parts:
            raise NotReadable("a part of its blocks is not there")

    def attributes(self, inode: Inode) -> bytes:
        """Those in blocks, without what stands before each part of a long value."""
        extents = self.extents(inode, of_attributes=True)
        if sum(extent.length for extent in extents) * self.block > _MOST_ATTRIBUTES:
            raise NotReadable("they are larger than %d MiB" % (_MOST_ATTRIBUTES >> 20))
        blocks = (raw for _offset, raw in self._owned(inode, extents))
        return b"".join(
            raw[56:][: struct.unpack_from(">I", raw, 8)[0]] if raw[:4] == b"XARM" else raw for raw in blocks
        )

    def _owned(self, inode: Inode, extents: Sequence[Extent]) -> Iterator[tuple[int, bytes]]:
        """Block by block. No two inodes share them, so that all of them together are no more than the volume."""
        seen = set[int]()
        for extent in extents:
            for number in range(extent.length):
                block = extent.block + number
                if block in seen or self._owners.setdefault(block, inode.number) != inode.number:
                    raise NotReadable("its blocks belong to another directory or file, too")
                seen.add(block)
                yield (extent.offset + number) * self.block, self._volume.read(block * self.block, self.block)
