# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The jbd2 journal of ext3 and ext4, replayed in memory: what the guest will see after its next mount."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from .blocks import Blocks, Place
from .ext4 import Ext4
from .ext4_records import BadFilesystem, Inode
from .places import Ranges

_MAGIC = 0xC03B3998
_DESCRIPTOR, _COMMIT, _REVOKE = 1, 2, 5
_ESCAPED, _SAME_UUID, _LAST = 1, 2, 8
_64BIT, _CSUM_V2, _CSUM_V3, _FAST_COMMIT = 0x2, 0x8, 0x10, 0x20
_KNOWN = 0x1 | _64BIT | 0x4 | _CSUM_V2 | _CSUM_V3 | _FAST_COMMIT
_SHORTEST, _CRC32C = 1024, 4  # blocks of a journal; the kind of checksums that it has
_HAS_JOURNAL, _ENCRYPTED = 0x4, 0x800
# Of the superblock: numbers, sizes, the journal's place; and features (64bit, meta_bg, bigalloc)
_FOR_GOOD = (0, 8), (20, 44), (56, 58), (76, 80), (84, 90), (208, 232), (254, 256), (260, 264), (336, 340)
_FEATURES_FOR_GOOD = {92: _HAS_JOURNAL, 96: 0x80 | 0x10, 100: 0x200}


@dataclass(frozen=True)
class Write:
    target: int
    place: int  # block of the journal
    escaped: bool
    checksum: int


@dataclass(frozen=True)
class Transaction:
    writes: tuple[Write, ...]
    revoked: tuple[int, ...]


class Replayed(Blocks):
    """A volume with some of its blocks replaced."""

    def __init__(self, volume: Blocks, block_size: int, replaced: dict[int, tuple[int, bool]]) -> None:
        self._volume = volume
        self._block_size = block_size
        self._replaced = replaced  # block: where its new content lies on the volume, and whether it was escaped
        self.size = volume.size

    def stretches(self) -> list[tuple[int, int]]:
        return [(block * self._block_size, self._block_size) for block in self._replaced]

    def read(self, offset: int, length: int) -> bytes:
        size = self._block_size
        first, last = offset // size, (offset + length - 1) // size
        if last - first < len(self._replaced):
            hits = [block for block in range(first, last + 1) if block in self._replaced]
        else:
            hits = [block for block in self._replaced if first <= block <= last]
        data = self._volume.read(offset, length)
        if not hits:
            return data
        patched = bytearray(data)
        for block in hits:
            start = max(offset, block * size)
            end = min(offset + length, (block + 1) * size)
            patched[start - offset : end - offset] = self._content(block)[start - block * size : end - block * size]
        return bytes(patched)

    def _content(self, block: int) -> bytes:
        at, escaped = self._replaced[block]
        data = self._volume.read(at, self._block_size)
        return struct.pack(">I", _MAGIC) + data[4:] if escaped else data

    def places(self, offset: int, length: int, stop: Blocks | None = None) -> Iterator[Place]:
        size = self._block_size
        at, end = offset, offset + length
        while at < end:
            block = at // size
            if block in self._replaced:
                step = min((block + 1) * size, end) - at
                yield step, self, at
            else:
                ahead = block + 1
                while ahead * size < end and ahead not in self._replaced:
                    ahead += 1
                step = min(ahead * size, end) - at
                yield from self._volume.places(at, step, stop)
            at += step


def replay(volume: Blocks, fs: Ext4) -> Replayed | None:
    """The volume as its journal makes it; nothing if the journal is empty. A journal that can't be trusted raises."""
    head = fs.raw(1024, 1024)
    if not any(head[76:80]) and any(head[92:104]):
        raise BadFilesystem("its superblock is of a revision without features, and has some that Linux heeds")
    if not _word(head, 92) & _HAS_JOURNAL:
        return None
    if not fs.journal_inode or fs.has_external_journal or any(head[208:224]):
        raise BadFilesystem("its journal lies on another device")
    inode = fs.inode(fs.journal_inode)
    _check_inode(head, inode)
    journal = _Journal(fs, inode)
    if not journal.start:
        return None
    replaced = _written(journal)
    if not replaced:
        return None
    view = Replayed(volume, fs.block_size, replaced)
    _check_kept(head, inode, Ext4(view))
    return view


def _written(journal: _Journal) -> dict[int, tuple[int, bool]]:
    """By block: where what is written there last lies. A block is revoked for all that was logged up to then."""
    transactions = list(journal.transactions())
    revoked = {block: order for order, one in enumerate(transactions) for block in one.revoked}
    replaced = {}
    for order, transaction in enumerate(transactions):
        for write in transaction.writes:
            if revoked.get(write.target, -1) >= order:
                continue
            if journal.own.touches(write.target, write.target + 1):
                raise BadFilesystem("its journal writes into itself, which changes what Linux reads of it later on")
            replaced[write.target] = (journal.offset(write.place), write.escaped)
    return replaced


def _check_inode(head: bytes, inode: Inode) -> None:
    """Where the journal's inode is damaged, Linux mounts nothing, but e2fsck replays by its copy in the superblock."""
    if not inode.is_file or not inode.links or inode.flags & _ENCRYPTED:
        raise BadFilesystem("its journal is no file")
    has_copy = head[253] == 1
    if has_copy and (head[268:328] != inode.block or _word(head, 332) != inode.size & 0xFFFFFFFF):
        raise BadFilesystem("its superblock tells of another place for its journal")


def _check_kept(head: bytes, inode: Inode, after: Ext4) -> None:
    """Linux takes sizes, numbers and the journal's map from what lies there before it replays."""
    now, journal = after.raw(1024, 1024), after.inode(inode.number)
    is_kept = all(now[low:high] == head[low:high] for low, high in _FOR_GOOD) and not any(
        (_word(now, at) ^ _word(head, at)) & mask for at, mask in _FEATURES_FOR_GOOD.items()
    )
    if not is_kept or (journal.mode, journal.shape) != (inode.mode, inode.shape):
        raise BadFilesystem("its journal changes what Linux goes by before it replays it")


class _Journal:
    def __init__(self, fs: Ext4, inode: Inode) -> None:
        self._fs, self._inode = fs, inode
        nodes: list[int] = []
        self._spans = fs.spans(inode, nodes)
        own = [(span.physical, span.physical + span.count) for span in self._spans if span.physical]
        self.own = Ranges(own + [(node, node + 1) for node in nodes])  # in blocks
        head = fs.read(self._inode, 0, 1024)
        magic, kind, _sequence, size, length, self._first, self._sequence, self.start = struct.unpack_from(">8I", head)
        compat, self._features = struct.unpack_from(">II", head, 36) if kind == 4 else (0, 0)
        if magic != _MAGIC or kind not in (3, 4) or len(head) < 1024:
            raise BadFilesystem("its journal has no superblock")
        if self._features & ~_KNOWN or compat & 1:
            raise BadFilesystem("its journal uses features that this reader does not know")
        self._has_fast = bool(self._features & _FAST_COMMIT)
        self._end = length - (_be32(head, 84) or 256 if self._has_fast else 0)
        checksums = self._features & (_CSUM_V2 | _CSUM_V3)
        sane = (
            size == fs.block_size
            and 0 < self._first < self._end
            and length * size <= self._inode.size
            and (not self._has_fast or self._end >= _SHORTEST)
            and (not checksums or checksums != _CSUM_V2 | _CSUM_V3 and head[80] == _CRC32C)
            and (kind == 3 or _be32(head, 64) <= 1)  # users: with several, e2fsck clears the features before it replays
        )
        if not sane or self.start >= self._end:
            raise BadFilesystem("its journal holds absurd values")
        self._left = self._end - self._first
        self._checked = bool(checksums)
        self._seed = crc32c(0xFFFFFFFF, head[48:64]) if self._checked else 0
        if self._checked and crc32c(0xFFFFFFFF, head[:252] + bytes(4) + head[256:]) != _be32(head, 252):
            raise BadFilesystem("the checksum of its journal is wrong")
        # Linux begins to look for them at the second block of their area
        if self.start and self._has_fast and any(self._read(at)[:2] != b"\0\0" for at in (self._end, self._end + 1)):
            raise BadFilesystem("its journal holds fast commits, which are not supported")

    def _read(self, block: int) -> bytes:
        data = self._fs.read(self._inode, block * self._fs.block_size, self._fs.block_size)
        if len(data) != self._fs.block_size:
            raise BadFilesystem("its journal is shorter than it says")
        return data

    def offset(self, block: int) -> int:
        """Where a block of the journal lies on the volume."""
        for span in self._spans:
            if span.logical <= block < span.logical + span.count and span.physical:
                return (span.physical + block - span.logical) * self._fs.block_size
        raise BadFilesystem("its journal has holes")

    def transactions(self) -> Iterator[Transaction]:
        """All that were committed, in order."""
        at, sequence = self.start, self._sequence
        writes: list[Write] = []
        revoked: list[int] = []
        while True:
            block = self._read(at)
            magic, kind, number = struct.unpack_from(">3I", block)
            if magic != _MAGIC or number != sequence:
                return
            at = self._after(at)
            if kind == _DESCRIPTOR:
                self._verify(block, len(block) - 4)
                for tag in self._tags(block):
                    writes.append(Write(tag.target, at, tag.escaped, tag.checksum))
                    at = self._after(at)
            elif kind == _REVOKE:
                self._verify(block, len(block) - 4)
                revoked += self._revoked(block)
            elif kind == _COMMIT:
                self._verify(block, 16)
                self._verify_data(sequence, writes)
                yield Transaction(tuple(writes), tuple(revoked))
                writes, revoked, sequence = [], [], (sequence + 1) & 0xFFFFFFFF
            else:
                return

    def _after(self, block: int) -> int:
        self._left -= 1
        if self._left < 0:
            raise BadFilesystem("its journal runs over its own beginning")
        if block + 1 < self._end:
            return block + 1
        if self._has_fast:
            raise BadFilesystem("its journal runs past its end, where kernels do not agree on fast commits")
        return self._first

    def _verify(self, block: bytes, at: int) -> None:
        if self._checked and crc32c(self._seed, block[:at] + bytes(4) + block[at + 4 :]) != _be32(block, at):
            raise BadFilesystem("a checksum in its journal is wrong")

    def _verify_data(self, sequence: int, writes: list[Write]) -> None:
        seed = crc32c(self._seed, struct.pack(">I", sequence)) if self._checked else 0
        mask = 0xFFFFFFFF if self._features & _CSUM_V3 else 0xFFFF
        for write in writes:
            if write.target >= self._fs.blocks_count:
                raise BadFilesystem("its journal points outside of the file system")
            if self._checked and crc32c(seed, self._read(write.place)) & mask != write.checksum:
                raise BadFilesystem("a checksum in its journal is wrong")

    def _tags(self, block: bytes) -> Iterator[Write]:
        wide = bool(self._features & _64BIT)
        size = 16 if self._features & _CSUM_V3 else (12 if wide else 8) + (2 if self._features & _CSUM_V2 else 0)
        at, end = 12, len(block) - (4 if self._checked else 0)
        while at + size <= end:
            target = _be32(block, at)
            if self._features & _CSUM_V3:
                flags, high, checksum = struct.unpack_from(">III", block, at + 4)
            else:
                checksum, flags = struct.unpack_from(">HH", block, at + 4)
                high = _be32(block, at + 8) if wide else 0
            yield Write(target | (high << 32 if wide else 0), 0, bool(flags & _ESCAPED), checksum)
            if flags & _LAST:
                return
            at += size + (0 if flags & _SAME_UUID else 16)

    def _revoked(self, block: bytes) -> Iterator[int]:
        count = _be32(block, 12)
        code = ">Q" if self._features & _64BIT else ">I"
        if not 16 <= count <= len(block):
            raise BadFilesystem("its journal is damaged")
        for at in range(16, count - struct.calcsize(code) + 1, struct.calcsize(code)):
            yield struct.unpack_from(code, block, at)[0]


def _word(data: bytes, at: int) -> int:
    value: int = struct.unpack_from("<I", data, at)[0]
    return value


def _be32(data: bytes, at: int) -> int:
    value: int = struct.unpack_from(">I", data, at)[0]
    return value


_TABLE = array("I")


def crc32c(crc: int, data: bytes) -> int:
    """Castagnoli's, as the kernel runs it on: neither inverted before nor after. `data` is of even length."""
    if not _TABLE:
        _TABLE.extend(_table())
    words = array("H", data)
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        words.byteswap()
    table = _TABLE
    for word in words:
        crc = table[(crc ^ word) & 0xFFFF] ^ (crc >> 16)
    return crc


def _table() -> Iterator[int]:
    small = []
    for value in range(256):
        for _bit in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        small.append(value)
    for value in range(65536):
        value = small[value & 0xFF] ^ value >> 8
        yield small[value & 0xFF] ^ value >> 8
