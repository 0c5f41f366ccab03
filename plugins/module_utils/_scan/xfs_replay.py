# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An XFS as its log makes it, in memory: what the guest will see after its next mount.

Sources: Linux, fs/xfs/libxfs/xfs_log_format.h, and what fs/xfs/xfs_buf_item_recover.c and xfs_inode_item_recover.c do.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Union

from .blocks import Blocks
from .journal import Replayed
from .layout import NotReadable
from .places import Disjoint
from .xfs_items import FORM_4, FORM_5, Buffer, InodeChange, number_of
from .xfs_journal import SECTOR, Item, Log, transactions

_PAGE = 4096
_MOST_PAGES = 1 << 16  # 256 MiB
_LARGEST_BUFFER = 128  # sectors
_INODE_BUFFER, _CANCEL, _QUOTA_BUFFER = 1, 2, 4 | 8 | 16
_BUFFER, _INODE, _CREATED = 0x123C, 0x123B, 0x123F
# What is done in several transactions: what begins it, what ends it. Where nothing ends it the mount goes on with it;
# which is of no matter to files for those that only free blocks or count them.
_FREES = (0x1236, 0x1237), (0x1240, 0x1241), (0x1242, 0x1243)
_MAPS = (0x1244, 0x1245), (0x1246, 0x1247), (0x1248, 0x1249)
_BEGUN = {begin: (begin, end) for begin, end in (*_FREES, *_MAPS)}
_ENDED = {end: (begin, end) for begin, end in (*_FREES, *_MAPS)}
_QUOTA = 0x123D, 0x123E
_NONE, _OTHER_UUID = (1 << 64) - 1, 4
# Where a block tells as of which record it is, and of which file system: by its first four bytes, or those of a tree
_HEAD = 328
_STAMPS = {
    **dict.fromkeys((b"AB3B", b"AB3C", b"ABTB", b"ABTC", b"RMB3", b"R3FC"), (24, 32)),
    **dict.fromkeys((b"IAB3", b"IABT", b"FIB3", b"FIBT"), (24, 32)),
    **dict.fromkeys((b"BMA3", b"BMAP"), (32, 40)),
    **dict.fromkeys((b"XDB3", b"XDD3", b"XDF3"), (16, 24)),
    b"XAGF": (208, 64),
    b"XAFL": (24, 8),
    b"XAGI": (320, 296),
    b"XSLM": (48, 16),
    b"XFSB": (240, 32),
}
_STAMPS_OF_TREES = dict.fromkeys((b"\x3d\xf1", b"\x3d\xff", b"\x3b\xee", b"\x3e\xbe"), (24, 32))
# Of the superblock: sizes, where the log is, features
_FOR_GOOD = (0, 8), (48, 56), (84, 88), (96, 100), (102, 108), (120, 125), (192, 200), (212, 220)
_VERSION, _LOG_2 = 0xF, 0x400
_NEXT_UNLINKED = 96  # where in an inode, 4 bytes


class Patched(Replayed):
    """A volume with some of its pages changed."""

    def __init__(self, volume: Blocks, log: tuple[int, int]) -> None:
        self.pages: dict[int, bytearray] = {}
        self._log = log
        super().__init__(volume, _PAGE, self.pages)  # type: ignore[arg-type]

    def _content(self, block: int) -> bytes:
        return bytes(self.pages[block])

    def check(self, at: int, length: int) -> None:
        if at < 0 or length < 0 or at + length > self.size:
            raise NotReadable("its log changes what lies outside of it")
        if at < self._log[1] and at + length > self._log[0]:
            raise NotReadable("its log writes into itself, which changes what Linux reads of it later on")

    def write(self, at: int, data: bytes) -> None:
        self.check(at, len(data))
        while data:
            number, within = divmod(at, _PAGE)
            page = self.pages.get(number)
            if page is None:
                if len(self.pages) >= _MOST_PAGES:
                    raise NotReadable("its log changes more than %d MiB" % (_MOST_PAGES * _PAGE >> 20))
                page = self.pages[number] = bytearray(self._volume.read(number * _PAGE, _PAGE))
            piece = data[: _PAGE - within]
            page[within : within + len(piece)] = piece
            at, data = at + len(piece), data[len(piece) :]


def replay(volume: Blocks) -> Patched | None:
    """The volume as its log makes it; nothing if it was unmounted. A log that can't be trusted raises."""
    head = volume.read(0, 512)
    block, blocks, shift = struct.unpack_from(">I", head, 4)[0], struct.unpack_from(">I", head, 96)[0], head[124]
    start, group_blocks = struct.unpack_from(">Q", head, 48)[0], struct.unpack_from(">I", head, 84)[0]
    if not start:
        raise NotReadable("its log is on another device, which was not read")
    version = _versions_of(head)
    group, within = start >> shift, start & (1 << shift) - 1
    at, size = (group * group_blocks + within) * block, blocks * block
    log = Log(volume, at, size, head[32:48], 2 if version & _LOG_2 else 1, has_checksums=version & _VERSION == 5)
    records = log.records()
    if not records:
        return None
    if version & _VERSION not in (4, 5):
        raise NotReadable("it is of a version whose log is not replayed here")
    done = [(sequence, _changes(items)) for sequence, items in transactions(records)]
    patched = Patched(volume, (at, at + size))
    _Replay(patched, head, _cancelled(done)).run(done)
    after = patched.read(0, 512)
    if version != _versions_of(after) or any(after[low:high] != head[low:high] for low, high in _FOR_GOOD):
        raise NotReadable("its log changes what Linux goes by before it replays it")
    return patched


def _versions_of(head: bytes) -> int:
    """Of the file system, and of its log."""
    return int(struct.unpack_from(">H", head, 100)[0]) & (_VERSION | _LOG_2)


_Changes = list[Union[Buffer, Item]]


def _changes(items: Iterable[Item]) -> _Changes:
    """Of one transaction: inodes after the buffers that they lie in, what was given up at last."""
    return sorted((Buffer(item) if item.kind == _BUFFER else item for item in items), key=_rank)


def _rank(change: Buffer | Item) -> int:
    if isinstance(change, Item):
        return 0 if change.kind == _CREATED else 1
    return 3 if change.flags & _CANCEL else 2 if change.flags & _INODE_BUFFER else 0


def _cancelled(done: Iterable[tuple[int, _Changes]]) -> Counter[tuple[int, int]]:
    """Buffers that were given up: what was logged of them before may lie where something else is now."""
    buffers = (change for _sequence, changes in done for change in changes if isinstance(change, Buffer))
    return Counter(buffer.place for buffer in buffers if buffer.flags & _CANCEL)


class _Replay:
    def __init__(self, patched: Patched, head: bytes, cancelled: Counter[tuple[int, int]]) -> None:
        self._patched, self._cancelled = patched, cancelled
        self._block, self._inode = struct.unpack_from(">I", head, 4)[0], struct.unpack_from(">H", head, 104)[0]
        self._group_blocks = struct.unpack_from(">I", head, 84)[0]
        self._is_5 = _versions_of(head) & _VERSION == 5
        self._form = FORM_5 if self._is_5 else FORM_4
        self._own_uuid = 248 if struct.unpack_from(">I", head, 216)[0] & _OTHER_UUID else 32
        self._uuid = head[self._own_uuid : self._own_uuid + 16]
        if not 256 <= self._inode <= 2048:
            raise NotReadable("its superblock holds absurd values")
        self._given_up = sorted({sector for sector, _length in cancelled})
        self._lengths_at: dict[int, list[int]] = {}
        for sector, length in cancelled:
            self._lengths_at.setdefault(sector, []).append(length)
        self._clusters = {max(self._block, size) // SECTOR for size in (8192, 8192 * self._inode // 256)}
        self._open = set[tuple[tuple[int, int], int]]()
        self._sequence, self._latest = 0, 0
        self._written, self._seen, self._touched = set[int](), set[int](), Disjoint()  # buffers, inodes, both
        self._equal: dict[int, bytes] = {}  # inodes that were on the disk as of the very record that changes them

    def run(self, done: Iterable[tuple[int, _Changes]]) -> None:
        for self._sequence, changes in done:
            self._latest = max(self._latest, self._sequence)
            if not self._is_5:
                self._check_order(changes)
            for change in changes:
                if isinstance(change, Buffer):
                    self._buffer(change)
                else:
                    self._item(change)
        for at in list(self._equal):
            self._check_equal(at)
        if any(kinds in _MAPS for kinds, _number in self._open):
            raise NotReadable("its log holds an operation that only a mount can bring to its end")

    def _check_order(self, changes: _Changes) -> None:
        """Old kernels, which write version 4, take what is in one transaction in another order than new ones."""
        places = [change.place for change in changes if isinstance(change, Buffer)]
        if len(set(places)) != len(places):
            raise NotReadable("its log changes one place twice at once")
        gone = {change.place for change in changes if isinstance(change, Buffer) and change.flags & _CANCEL}
        inodes = (item for item in changes if gone and isinstance(item, Item) and item.kind == _INODE)
        for inode in (InodeChange(item, self._inode, self._form) for item in inodes):
            if inode.place in gone and inode.is_in_use:
                raise NotReadable("its log changes an inode that it gives up")

    def _item(self, item: Item) -> None:
        kind = item.kind
        if kind == _INODE:
            self._change(item)
        elif kind == _CREATED and self._is_5:
            self._create(item)
        elif kind in _BEGUN:
            begun = _BEGUN[kind], number_of(item)
            if begun in self._open:
                raise NotReadable("its log is damaged: an operation begins twice")
            self._open.add(begun)
        elif kind in _ENDED:
            self._open.discard((_ENDED[kind], number_of(item)))
        elif kind not in _QUOTA:
            raise NotReadable("its log holds changes of an unknown kind (0x%x)" % kind)

    def _buffer(self, buffer: Buffer) -> None:
        if buffer.flags & _CANCEL:
            self._cancelled[buffer.place] -= 1
            self._touched.discard(buffer.sector * SECTOR, buffer.length * SECTOR)
            return
        start = buffer.sector * SECTOR
        self._patched.check(start, buffer.length * SECTOR)
        if self._cancelled[buffer.place] > 0:
            return
        if buffer.flags & _QUOTA_BUFFER:
            if not all(region.startswith(b"DQ") for region in buffer.regions):
                raise NotReadable("its log is damaged: it holds quotas that are none")
            return  # nothing that a file holds
        self._touch(start, buffer.length * SECTOR)
        if self._is_newer(start):
            return
        for at, data in buffer.pieces():
            if not buffer.flags & _INODE_BUFFER:
                self._patched.write(start + at, data)
                continue
            # Of a buffer of inodes only their places in the list of deleted ones were logged for good
            for inode in range(at - at % self._inode, at + len(data), self._inode):
                low = inode + _NEXT_UNLINKED - at
                if low >= 0 and low + 4 <= len(data):
                    self._patched.write(start + at + low, data[low : low + 4])

    def _is_newer(self, start: int) -> bool:
        """Whether what lies there is as of a later record. Linux leaves it as it is."""
        if not self._is_5:
            return False  # nothing tells: all is done once more, up to the last
        if start in self._written:
            if self._sequence < self._latest:
                raise NotReadable("its log changes one place out of order")
            return False
        head = self._patched.read(start, _HEAD)
        sequence, uuid = _STAMPS.get(head[:4]) or _STAMPS_OF_TREES.get(head[8:10]) or (0, 0)
        uuid = self._own_uuid if head[:4] == b"XFSB" else uuid
        told = struct.unpack_from(">Q", head, sequence)[0]
        if sequence and head[uuid : uuid + 16] == self._uuid and self._sequence <= told < _NONE:
            return True
        self._written.add(start)
        return False

    def _touch(self, start: int, length: int) -> None:
        """Linux keeps each buffer apart: of two that overlap nobody knows which is written last."""
        if not self._touched.add(start, length):
            raise NotReadable("its log changes places that overlap")

    def _create(self, item: Item) -> None:
        """A chunk of new inodes."""
        if len(item.regions[0]) < 28:
            raise NotReadable("its log is damaged: a change is not whole")
        group, block, count, size, length, generation = struct.unpack_from(">6I", item.regions[0], 4)
        start = (group * self._group_blocks + block) * self._block
        if size != self._inode or count * size != length * self._block or count > max(64, self._block // size):
            raise NotReadable("its log is damaged: it makes inodes of another size")
        if self._is_given_up(start, count * size):
            return
        self._patched.check(start, count * size)
        first = (group << (self._group_blocks - 1).bit_length()) + block
        for number in range(count):
            raw = bytearray(size)
            raw[0:2], raw[4], raw[92:96], raw[96:100] = b"IN", 3, struct.pack(">I", generation), b"\xff" * 4
            raw[152:160] = struct.pack(">Q", first * (self._block // size) + number)
            raw[160:176] = self._uuid
            self._patched.write(start + number * size, bytes(raw))

    def _is_given_up(self, start: int, size: int) -> bool:
        """Linux looks for its clusters among what was given up; anything else that lies there is of no kind we know."""
        low, high, found = start // SECTOR, (start + size) // SECTOR, False
        for sector in self._given_up[bisect_left(self._given_up, low - _LARGEST_BUFFER) :]:
            if sector >= high:
                break
            for length in self._lengths_at[sector]:
                if self._cancelled[sector, length] <= 0 or sector + length <= low:
                    continue
                if length not in self._clusters or sector < low or sector + length > high or (sector - low) % length:
                    raise NotReadable("its log gives up a part of new inodes")
                found = True
        return found

    def _check_equal(self, at: int) -> None:
        """Kernels do not agree on whether they apply it. Where it was written by one that did, that is all the same."""
        before, now = self._equal.pop(at), self._patched.read(at, self._inode)
        if any(before[low:high] != now[low:high] for low, high in ((0, 96), (104, 112), (120, self._inode))):
            raise NotReadable("its log changes an inode that says to be changed already")

    def _change(self, item: Item) -> None:
        change = InodeChange(item, self._inode, self._form)
        (sector, length), at = change.place, change.at
        self._patched.check(at, self._inode)
        if self._cancelled[change.place] > 0:
            return
        self._touch(sector * SECTOR, length * SECTOR)
        inode = bytearray(self._patched.read(at, self._inode))
        if self._is_newer_inode(at, inode) if self._is_5 else change.is_older(inode):
            return
        change.apply(inode)
        if self._is_5:
            inode[112:120] = struct.pack(">Q", self._sequence)
        self._patched.write(at, bytes(inode))

    def _is_newer_inode(self, at: int, inode: bytearray) -> bool:
        told = struct.unpack_from(">Q", inode, 112)[0]
        if self._sequence < told < _NONE:
            return True  # Linux leaves it as it is
        if at in self._equal and told != self._sequence:
            self._check_equal(at)
        if told == self._sequence and at not in self._seen:
            self._equal[at] = bytes(inode)
        self._seen.add(at)
        return False
