# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked of an XFS besides the library that walks its directories (Linux, fs/xfs/libxfs/xfs_format.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from .blocks import Blocks
from .layout import NotReadable

_NULL = (1 << 64) - 1
_KNOWN = 0xEF  # incompatible features, without the one that asks for a repair
_IN_BLOCKS = 2, 3  # XFS_DINODE_FMT_EXTENTS, _BTREE
_CHUNK = 64  # inodes
_MOST_HOLES = 1 << 20  # blocks in one directory
_LARGEST_DIRECTORY = 32 << 30
# Where a superblock holds the sizes by which the library finds inodes and blocks in the superblock's group
_SIZES = (0, 8), (84, 88), (102, 108), (120, 125)


class Xfs:
    def __init__(self, volume: Blocks) -> None:
        self._volume = volume
        self._head = head = volume.read(0, 512)
        self.block, blocks = struct.unpack_from(">IQ", head, 4)
        self.end = min(self.block * blocks, volume.size)
        self.group_blocks, self.groups = struct.unpack_from(">II", head, 84)
        version, self.sector, self.inode, self.per_block = struct.unpack_from(">HHHH", head, 100)
        self.version = version & 15
        self.shift, self.block_shift = head[124] + head[123], head[123]
        sane = 512 <= self.block <= 1 << 16 and 256 <= self.inode <= 2048 and self.per_block * self.inode == self.block
        agrees = self.per_block == 1 << self.block_shift and self.group_blocks <= 1 << head[124] <= 1 << 32
        if not (sane and agrees and 0 < self.groups <= 1 << 20 and self.group_blocks):
            raise NotReadable("its superblock holds absurd values")

    def own(self) -> set[int]:
        """Inodes that no directory names: of the real-time device and the quotas."""
        numbers = struct.unpack_from(">QQ", self._head, 64) + struct.unpack_from(">QQ", self._head, 160)
        numbers += struct.unpack_from(">Q", self._head, 232) if self.version == 5 else ()
        return {number for number in numbers if number not in (0, _NULL)}

    def doubts(self) -> list[str]:
        found = []
        if not self._log_is_clean():
            found.append(
                "its log holds changes that are not yet written. "
                "Start and shut the VM down cleanly, or replay the log on a copy"
            )
        if any(self._head[16:24]):
            found.append("it keeps files on a real-time device, which is not read")
        if self.version == 5 and struct.unpack_from(">I", self._head, 216)[0] & ~_KNOWN:
            found.append("it has a feature that is not known here, or asks for a repair")
        if any(self._differs(group) for group in range(1, self.groups)):
            found.append("the superblock of a group does not agree with the first one")
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
                end = first + _CHUNK
                outside = self._place(group, 0) + end * self.inode > self._volume.size
                if first <= last or outside or end > self.group_blocks * self.per_block:
                    raise NotReadable("the tree of the inodes of a group is damaged")
                last, base = end - 1, group << self.shift
                there = [at for at in range(_CHUNK) if not holes >> at // 4 & 1]
                used.update(base + first + at for at in there if not free >> at & 1)
                if free:
                    doubtful.update(base + first + at for at in self._modes(group, first) if at in there)
        return used, doubtful - used

    def _modes(self, group: int, first: int) -> Iterator[int]:
        """Which of a chunk have a mode: XFS takes it from what is deleted."""
        raw = self._volume.read(self._place(group, first >> self.block_shift), _CHUNK * self.inode)
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
            if not (told and fits) or number in seen:
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

    def _differs(self, group: int) -> bool:
        other = self._volume.read(self._place(group, 0), 128)
        return any(other[low:high] != self._head[low:high] for low, high in _SIZES)

    def _log_is_clean(self) -> bool:
        """The newest record of the log says that the file system was unmounted, and nothing else."""
        start = struct.unpack_from(">Q", self._head, 48)[0]
        blocks = struct.unpack_from(">I", self._head, 96)[0]
        if not start or not blocks:
            return False  # an external log, which we do not have
        shift = self._head[124]
        at = self._place(start >> shift, start & ((1 << shift) - 1))
        newest, place = -1, 0
        for base in range(0, blocks * self.block, 1 << 20):
            chunk = self._volume.read(at + base, min(1 << 20, blocks * self.block - base))
            for offset in range(0, len(chunk), 512):
                if chunk[offset : offset + 4] == b"\xfe\xed\xba\xbe":
                    number = struct.unpack_from(">Q", chunk, offset + 16)[0]
                    if number > newest:
                        newest, place = number, at + base + offset
        header = self._volume.read(place, 512)
        single = struct.unpack_from(">I", header, 40)[0] == 1
        header_blocks = max(1, -(-struct.unpack_from(">I", header, 320)[0] // 32768))
        return newest >= 0 and single and bool(self._volume.read(place + 512 * header_blocks, 512)[9] & 0x20)


def set_runs(node: Any) -> None:
    """Before the library reads an inode: its runs in the order of its bytes, and what was never written as zeros."""
    if int(node.inode.di_format) not in _IN_BLOCKS:
        return
    runs, at = list[tuple[Any, int]](), 0
    for offset, block, count, is_unwritten in node._iter_blocks():  # nothing public tells of the flag
        if offset < at or not count:
            raise NotReadable("its extents overlap")
        if offset > at:
            runs.append((None, offset - at))
        group, within = block >> node.xfs.sb.sb_agblklog, block & (1 << node.xfs.sb.sb_agblklog) - 1
        runs.append((None if is_unwritten else group * node.xfs.sb.sb_agblocks + within, count))
        at = offset + count
    wanted = -(-node.size // node.xfs.block_size)
    if wanted > at:
        runs.append((None, wanted - at))
    node.__dict__[_kept(node)] = runs  # which the library would make anew, once


def check_directory(node: Any) -> None:
    """The library looks at every block up to its size, be there one or not."""
    blocks = node.size // node.xfs.block_size
    mapped = sum(count for block, count in node.__dict__.get(_kept(node)) or () if block is not None)
    if node.size > _LARGEST_DIRECTORY or blocks - mapped > _MOST_HOLES:
        raise NotReadable("it claims an absurd size")


def _kept(node: Any) -> str:
    """Where the library keeps an inode's runs: the releases for Python 3.9 do so beside a method of that name."""
    return "_runlist" if callable(getattr(type(node), "dataruns", None)) else "dataruns"
