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
from .xfs_journal import SECTOR, Item, Log, transactions

_PAGE = 4096
_MOST_PAGES = 1 << 16  # 256 MiB
_LARGEST_BUFFER = 128  # sectors
_CHUNK = 128  # bytes of a buffer for each bit that tells what was logged
_INODE_BUFFER, _CANCEL, _QUOTA_BUFFER = 1, 2, 4 | 8 | 16
_BUFFER, _INODE, _CREATED = 0x123C, 0x123B, 0x123F
# What is done in several transactions: what begins it, what ends it. Where nothing ends it the mount goes on with it;
# which is of no matter to files for those that only free blocks or count them.
_FREES = (0x1236, 0x1237), (0x1240, 0x1241), (0x1242, 0x1243)
_MAPS = (0x1244, 0x1245), (0x1246, 0x1247), (0x1248, 0x1249)
_BEGUN = {begin: (begin, end) for begin, end in (*_FREES, *_MAPS)}
_ENDED = {end: (begin, end) for begin, end in (*_FREES, *_MAPS)}
_QUOTA = 0x123D, 0x123E
# Which parts of an inode were logged
_DATA, _DATA_TREE, _ATTRIBUTES, _ATTRIBUTE_TREE = 0x2 | 0x4, 0x8, 0x40 | 0x80, 0x100
_DEVICE = 0x10
_BIG_TIMES = 1 << 3
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
_NEXT_UNLINKED = 96  # where in an inode, 4 bytes
_FORK = 176  # where what follows its core begins


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
    is_5 = struct.unpack_from(">H", head, 100)[0] & 15 == 5
    group, within = start >> shift, start & (1 << shift) - 1
    at, size = (group * group_blocks + within) * block, blocks * block
    log = Log(volume, at, size, head[32:48], is_5)
    records = log.records()
    if not records:
        return None
    if not is_5:
        raise NotReadable("it is of version 4, whose log is not replayed here")
    done = [(sequence, _changes(items)) for sequence, items in transactions(records)]
    patched = Patched(volume, (at, at + size))
    _Replay(patched, head, _cancelled(done)).run(done)
    after = patched.read(0, 512)
    if any(after[low:high] != head[low:high] for low, high in _FOR_GOOD):
        raise NotReadable("its log changes what Linux goes by before it replays it")
    return patched


class _Buffer:
    def __init__(self, item: Item) -> None:
        raw = item.regions[0]
        if len(raw) < 24:
            raise NotReadable("its log is damaged: a change is not whole")
        self.flags, self.length, self.sector, words = struct.unpack_from("<HHqI", raw, 4)
        if len(raw) < 20 + 4 * words or words > 64 or self.sector < 0:
            raise NotReadable("its log is damaged: a change is not whole")
        self.map = int.from_bytes(raw[20 : 20 + 4 * words], "little")
        self.place = self.sector, self.length
        self.regions = item.regions[1:]

    def pieces(self) -> Iterable[tuple[int, bytes]]:
        """Where in the buffer each region belongs."""
        left, at = self.map, 0
        for region in self.regions:
            if not left >> at:
                raise NotReadable("its log is damaged: it holds more of a buffer than it says")
            at += (left >> at & -(left >> at)).bit_length() - 1
            run = (~(left >> at) & (left >> at) + 1).bit_length() - 1
            run = min(run, len(region) // _CHUNK)
            if not run or (at + run) * _CHUNK > self.length * SECTOR:
                raise NotReadable("its log is damaged: it holds more of a buffer than it says")
            yield at * _CHUNK, bytes(region[: run * _CHUNK])
            at += run
        if left >> at:
            raise NotReadable("its log is damaged: it holds less of a buffer than it says")


_Changes = list[Union[_Buffer, Item]]


def _changes(items: Iterable[Item]) -> _Changes:
    """Of one transaction: inodes after the buffers that they lie in, what was given up at last."""
    return sorted((_Buffer(item) if item.kind == _BUFFER else item for item in items), key=_rank)


def _rank(change: _Buffer | Item) -> int:
    if isinstance(change, Item):
        return 0 if change.kind == _CREATED else 1
    return 3 if change.flags & _CANCEL else 2 if change.flags & _INODE_BUFFER else 0


def _cancelled(done: Iterable[tuple[int, _Changes]]) -> Counter[tuple[int, int]]:
    """Buffers that were given up: what was logged of them before may lie where something else is now."""
    buffers = (change for _sequence, changes in done for change in changes if isinstance(change, _Buffer))
    return Counter(buffer.place for buffer in buffers if buffer.flags & _CANCEL)


class _Replay:
    def __init__(self, patched: Patched, head: bytes, cancelled: Counter[tuple[int, int]]) -> None:
        self._patched, self._cancelled = patched, cancelled
        self._block, self._inode = struct.unpack_from(">I", head, 4)[0], struct.unpack_from(">H", head, 104)[0]
        self._group_blocks = struct.unpack_from(">I", head, 84)[0]
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
            for change in changes:
                if isinstance(change, _Buffer):
                    self._buffer(change)
                else:
                    self._item(change)
        for at in list(self._equal):
            self._check_equal(at)
        if any(kinds in _MAPS for kinds, _number in self._open):
            raise NotReadable("its log holds an operation that only a mount can bring to its end")

    def _item(self, item: Item) -> None:
        kind = item.kind
        if kind == _INODE:
            self._core(item)
        elif kind == _CREATED:
            self._create(item)
        elif kind in _BEGUN:
            begun = _BEGUN[kind], _number_of(item)
            if begun in self._open:
                raise NotReadable("its log is damaged: an operation begins twice")
            self._open.add(begun)
        elif kind in _ENDED:
            self._open.discard((_ENDED[kind], _number_of(item)))
        elif kind not in _QUOTA:
            raise NotReadable("its log holds changes of an unknown kind (0x%x)" % kind)

    def _buffer(self, buffer: _Buffer) -> None:
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

    def _core(self, item: Item) -> None:
        raw = item.regions[0]
        if len(raw) not in (52, 56) or len(item.regions) < 2:
            raise NotReadable("its log is damaged: a change is not whole")
        fields = struct.unpack_from("<I", raw, 4)[0]
        sector, length, offset = struct.unpack_from("<qii", raw, len(raw) - 16)
        at, start = sector * SECTOR + offset, _FORK
        if sector < 0 or not 0 <= offset <= length * SECTOR - self._inode or offset % self._inode:
            raise NotReadable("its log changes an inode outside of its place")
        self._patched.check(at, self._inode)
        if self._cancelled[(sector, length)] > 0:
            return
        self._touch(sector * SECTOR, length * SECTOR)
        inode = bytearray(self._patched.read(at, self._inode))
        told = struct.unpack_from(">Q", inode, 112)[0]
        if self._sequence < told < _NONE:
            return  # Linux leaves it as it is
        if at in self._equal and told != self._sequence:
            self._check_equal(at)
        if told == self._sequence and at not in self._seen:
            self._equal[at] = bytes(inode)
        self._seen.add(at)
        inode[:start] = _core_of(bytes(item.regions[1]), bytes(inode[:start]))
        if (
            bin(fields & (_DATA | _DATA_TREE)).count("1") > 1
            or bin(fields & (_ATTRIBUTES | _ATTRIBUTE_TREE)).count("1") > 1
        ):
            raise NotReadable("its log holds an inode that is damaged")
        forks, border = item.regions[2:], inode[82] * 8 or self._inode - start
        if border > self._inode - start:
            raise NotReadable("its log holds an inode that is damaged")
        if fields & _DEVICE:
            inode[start : start + 4] = raw[24 if len(raw) == 56 else 20 :][:4][::-1]
        for logged, tree, low, high in (
            (_DATA, _DATA_TREE, start, start + border),
            (_ATTRIBUTES, _ATTRIBUTE_TREE, start + border, self._inode),
        ):
            if fields & (logged | tree):
                if not forks:
                    raise NotReadable("its log is damaged: a change is not whole")
                fork = bytes(forks.pop(0))
                fork = self._root(fork, high - low) if fields & tree else fork
                if len(fork) > high - low:
                    raise NotReadable("its log holds an inode that is damaged")
                inode[low : low + len(fork)] = fork
        inode[112:120] = struct.pack(">Q", self._sequence)
        self._patched.write(at, bytes(inode))

    def _root(self, logged: bytes, room: int) -> bytes:
        """A tree's root, which is kept closer together in an inode than in memory."""
        head = 72
        if len(logged) < head:
            raise NotReadable("its log is damaged: a change is not whole")
        level, count = struct.unpack_from(">HH", logged, 4)
        there, fits = (len(logged) - head) // 16, (room - 4) // 16
        if count > min(there, fits):
            raise NotReadable("its log holds an inode that is damaged")
        keys, pointers = logged[head : head + 8 * count], logged[head + 8 * there :][: 8 * count]
        return struct.pack(">HH", level, count) + keys.ljust(8 * fits, b"\0") + pointers


def _number_of(item: Item) -> int:
    raw = item.regions[0]
    if len(raw) < 16:
        raise NotReadable("its log is damaged: a change is not whole")
    return int(struct.unpack_from("<Q", raw, 8)[0])


def _core_of(logged: bytes, old: bytes) -> bytes:
    """What was logged of an inode, with the highest byte first, as on the disk; `old` is what stands there."""
    if len(logged) < _FORK or logged[:2] != b"NI" or logged[4] != 3:
        raise NotReadable("its log holds an inode that is damaged")

    def swap(at: int, form: str) -> bytes:
        return struct.pack(">" + form, *struct.unpack_from("<" + form, logged, at))

    time = "Q" if struct.unpack_from("<Q", logged, 120)[0] & _BIG_TIMES else "ii"
    new = bytearray(old)
    new[0:8], new[8:24] = swap(0, "HHbbH"), swap(8, "IIIHH")
    new[24:32] = swap(24, "Q")
    for at in (32, 40, 48, 144):
        new[at : at + 8] = swap(at, time)
    new[56:82] = swap(56, "QQIIH")
    new[82:96] = logged[82:84] + swap(84, "IHHI")
    new[104:132] = swap(104, "QQQI")
    new[132:144], new[152:176] = logged[132:144], swap(152, "Q") + logged[160:176]
    return bytes(new)
