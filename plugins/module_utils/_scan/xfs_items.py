# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one change in the log of an XFS holds: pieces of a buffer or an inode (Linux, xfs_log_format.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from .layout import NotReadable
from .xfs_journal import SECTOR, Item

_CHUNK = 128  # bytes of a buffer for each bit that tells what was logged
# Which parts of an inode were logged
_DATA, _DATA_TREE, _ATTRIBUTES, _ATTRIBUTE_TREE = 0x2 | 0x4, 0x8, 0x40 | 0x80, 0x100
_DEVICE = 0x10
_BIG_TIMES = 1 << 3
_LAST_FLUSH = 0xFFFF


class Form(NamedTuple):
    """How inodes are kept, on the disk and in the log."""

    versions: tuple[int, ...]
    logged: int  # bytes of a core in the log
    fork: int  # where what follows its core begins
    tree: int  # bytes before the records of a tree's root in the log


FORM_5, FORM_4 = Form((3,), 176, 176, 72), Form((1, 2), 96, 100, 24)


class Buffer:
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


class InodeChange:
    def __init__(self, item: Item, inode: int, form: Form) -> None:
        """`inode`: bytes of one on the disk."""
        raw = item.regions[0]
        if len(raw) not in (52, 56) or len(item.regions) < 2:
            raise NotReadable("its log is damaged: a change is not whole")
        self._fields = struct.unpack_from("<I", raw, 4)[0]
        sector, length, offset = struct.unpack_from("<qii", raw, len(raw) - 16)
        if sector < 0 or not 0 <= offset <= length * SECTOR - inode or offset % inode:
            raise NotReadable("its log changes an inode outside of its place")
        self.place, self.at = (sector, length), sector * SECTOR + offset
        self._device = raw[24 if len(raw) == 56 else 20 :][:4][::-1]
        self._core, self._forks, self._form = bytes(item.regions[1]), item.regions[2:], form
        if len(self._core) < form.logged or self._core[:2] != b"NI" or self._core[4] not in form.versions:
            raise NotReadable("its log holds an inode that is damaged")

    @property
    def is_in_use(self) -> bool:
        return any(self._core[2:4])

    def is_older(self, inode: bytearray) -> bool:
        """Of version 4: by how often each was written. Linux leaves the newer one as it is."""
        if inode[:2] != b"IN" or inode[4] not in self._form.versions:
            raise NotReadable("its log changes an inode where none is")
        ours, theirs = struct.unpack_from("<H", self._core, 30)[0], struct.unpack_from(">H", inode, 30)[0]
        return bool(ours < theirs and not (theirs == _LAST_FLUSH and ours < _LAST_FLUSH >> 1))

    def apply(self, inode: bytearray) -> None:
        fields, start = self._fields, self._form.fork
        self._apply_core(inode)
        if (
            bin(fields & (_DATA | _DATA_TREE)).count("1") > 1
            or bin(fields & (_ATTRIBUTES | _ATTRIBUTE_TREE)).count("1") > 1
        ):
            raise NotReadable("its log holds an inode that is damaged")
        forks, border = list(self._forks), inode[82] * 8 or len(inode) - start
        if border > len(inode) - start:
            raise NotReadable("its log holds an inode that is damaged")
        if fields & _DEVICE:
            inode[start : start + 4] = self._device
        for logged, tree, low, high in (
            (_DATA, _DATA_TREE, start, start + border),
            (_ATTRIBUTES, _ATTRIBUTE_TREE, start + border, len(inode)),
        ):
            if fields & (logged | tree):
                if not forks:
                    raise NotReadable("its log is damaged: a change is not whole")
                fork = bytes(forks.pop(0))
                fork = self._root(fork, high - low) if fields & tree else fork
                if len(fork) > high - low:
                    raise NotReadable("its log holds an inode that is damaged")
                inode[low : low + len(fork)] = fork

    def _apply_core(self, new: bytearray) -> None:
        """With the highest byte first, as on the disk."""
        logged, is_5 = self._core, self._form is FORM_5

        def swap(at: int, form: str) -> bytes:
            return struct.pack(">" + form, *struct.unpack_from("<" + form, logged, at))

        time = "Q" if is_5 and struct.unpack_from("<Q", logged, 120)[0] & _BIG_TIMES else "ii"
        new[0:8], new[8:24] = swap(0, "HHbbH"), swap(8, "IIIHH")
        new[24:32] = swap(24, "Q") if is_5 else bytes(8)  # Linux begins to count anew how often it was written
        for at in (32, 40, 48, 144) if is_5 else (32, 40, 48):
            new[at : at + 8] = swap(at, time)
        new[56:82] = swap(56, "QQIIH")
        new[82:96] = logged[82:84] + swap(84, "IHHI")
        if is_5:
            new[104:132] = swap(104, "QQQI")
            new[132:144], new[152:176] = logged[132:144], swap(152, "Q") + logged[160:176]

    def _root(self, logged: bytes, room: int) -> bytes:
        """A tree's root, which is kept closer together in an inode than in memory."""
        head = self._form.tree
        if len(logged) < head:
            raise NotReadable("its log is damaged: a change is not whole")
        level, count = struct.unpack_from(">HH", logged, 4)
        there, fits = (len(logged) - head) // 16, (room - 4) // 16
        if count > min(there, fits):
            raise NotReadable("its log holds an inode that is damaged")
        keys, pointers = logged[head : head + 8 * count], logged[head + 8 * there :][: 8 * count]
        return struct.pack(">HH", level, count) + keys.ljust(8 * fits, b"\0") + pointers


def number_of(item: Item) -> int:
    raw = item.regions[0]
    if len(raw) < 16:
        raise NotReadable("its log is damaged: a change is not whole")
    return int(struct.unpack_from("<Q", raw, 8)[0])
