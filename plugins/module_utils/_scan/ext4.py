# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ext2, ext3 and ext4, read inode by inode: what the inode tables hold is read whether or not a directory names it."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .blocks import Blocks

MAX_INODES = 1 << 28
MAX_DIRECTORY = 1 << 30
ROOT = 2
_INLINE, _NEEDS_RECOVERY, _64BIT = 0x8000, 0x4, 0x80
# filetype, recover, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data, encrypt, casefold
_KNOWN = 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
_F_ENCRYPTED, _F_EXTENTS, _F_INLINE = 0x800, 0x80000, 0x10000000
_ORPHAN_PRESENT = 0x10000
_TYPES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)


class BadFilesystem(Exception):
    """The file system, or one inode of it, can't be read as it should; the sentence says why."""


@dataclass(frozen=True)
class Inode:
    number: int
    mode: int
    size: int
    links: int
    flags: int
    block: bytes
    extra: bytes
    acl: int

    @property
    def is_odd(self) -> bool:
        """In use, but of no type that there is."""
        return self.links > 0 and stat.S_IFMT(self.mode) not in _TYPES

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True)
class Span:
    """Consecutive blocks of a file; a `physical` of 0 reads as zeros."""

    logical: int
    physical: int
    count: int


class Ext4:
    def __init__(self, source: Blocks) -> None:
        self._source = source
        raw = source.read(1024, 1024)
        if raw[56:58] != b"\x53\xef":
            raise BadFilesystem("it has no ext superblock")
        self._raw = raw
        (self.inodes_count, blocks_low, _reserved, free_low, _free_inodes, self._first_block, log_size) = (
            struct.unpack_from("<7I", raw)
        )
        self._blocks_per_group, _clusters, self._inodes_per_group = struct.unpack_from("<3I", raw, 32)
        revision = struct.unpack_from("<I", raw, 76)[0]
        self._compat, self._incompat, self._ro_compat = struct.unpack_from("<3I", raw, 92) if revision else (0, 0, 0)
        self._first_inode, self._inode_size = struct.unpack_from("<IH", raw, 84) if revision else (11, 128)
        wide = bool(self._incompat & _64BIT)
        blocks_high, _r, free_high = struct.unpack_from("<3I", raw, 336) if wide else (0, 0, 0)
        self.blocks_count = blocks_low | blocks_high << 32
        self.free_blocks = free_low | free_high << 32
        self._descriptor_size = struct.unpack_from("<H", raw, 254)[0] if wide else 32
        self._check(log_size)
        self.block_size = 1024 << log_size
        self.end = self.blocks_count * self.block_size
        self._groups = self._read_groups()

    def _check(self, log_size: int) -> None:
        if self._incompat & ~_KNOWN:
            raise BadFilesystem("it uses features that this reader does not know (%#x)" % (self._incompat & ~_KNOWN))
        sane = (
            log_size <= 6
            and 128 <= self._inode_size <= 1024 << log_size
            and self._inode_size & (self._inode_size - 1) == 0
            and 32 <= self._descriptor_size <= 1024
            and 0 < self._inodes_per_group <= 8 * (1024 << log_size)
            and 0 < self._blocks_per_group <= 1 << 26
            and 0 < self.inodes_count <= MAX_INODES
            and self._first_block < self.blocks_count
        )
        if not sane:
            raise BadFilesystem("its superblock holds absurd values")
        if self.blocks_count * (1024 << log_size) > self._source.size:
            raise BadFilesystem("it is larger than its volume")

    def _read_groups(self) -> list[tuple[int, int, int]]:
        """Per group: inode bitmap, inode table, flags."""
        count = -(-(self.blocks_count - self._first_block) // self._blocks_per_group)
        if count * self._inodes_per_group < self.inodes_count:
            raise BadFilesystem("its superblock claims more inodes than its groups hold")
        # The block after the one that holds the superblock, which lies at byte 1024 whatever the block size.
        raw = self._source.read((1024 // self.block_size + 1) * self.block_size, count * self._descriptor_size)
        groups = []
        for at in range(0, len(raw), self._descriptor_size):
            bitmap, table = struct.unpack_from("<II", raw, at + 4)
            flags = struct.unpack_from("<H", raw, at + 18)[0]
            if self._descriptor_size >= 64:
                bitmap_high, table_high = struct.unpack_from("<II", raw, at + 36)
                bitmap, table = bitmap | bitmap_high << 32, table | table_high << 32
            if not (0 < bitmap < self.blocks_count and 0 < table < self.blocks_count):
                raise BadFilesystem("a group descriptor points outside of it")
            groups.append((bitmap, table, flags))
        return groups

    def doubts(self) -> list[str]:
        """Why what lies on the disk may not be what the guest will see."""
        found = []
        state = struct.unpack_from("<H", self._raw, 58)[0]
        if self._incompat & _NEEDS_RECOVERY or self._journal_holds_data():
            found.append(
                "its journal holds changes that are not yet written. "
                "Start and shut the VM down cleanly, or run e2fsck on a copy"
            )
        if not state & 1:
            found.append("it was not unmounted cleanly")
        if state & 2:
            found.append("it is marked as damaged")
        if state & 4 or struct.unpack_from("<I", self._raw, 232)[0] or self._ro_compat & _ORPHAN_PRESENT:
            found.append("it holds unlinked files that wait for their removal")
        return found

    def _journal_holds_data(self) -> bool:
        number = struct.unpack_from("<I", self._raw, 224)[0]
        if not self._compat & 4 or not number:
            return False
        first = self.read(self.inode(number), 0, 64)
        return first[:4] != b"\xc0\x3b\x39\x98" or first[28:32] != bytes(4)

    def used_inodes(self) -> Iterator[Inode]:
        """All that the bitmaps mark as used, and all that have links although their bit is clear."""
        per_read = max(1, (1 << 20) // self._inode_size)
        for group, (bitmap_at, table, flags) in enumerate(self._groups):
            bitmap = self._source.read(bitmap_at * self.block_size, (self._inodes_per_group + 7) // 8)
            if flags & 1:  # the bitmap was never written
                bitmap = bytes(len(bitmap))
            first = group * self._inodes_per_group
            wanted = min(self._inodes_per_group, self.inodes_count - first)
            for start in range(0, wanted, per_read):
                count = min(per_read, wanted - start)
                raw = self._source.read(table * self.block_size + start * self._inode_size, count * self._inode_size)
                yield from self._used_in(raw, bitmap, first, start, count)

    def _used_in(self, raw: bytes, bitmap: bytes, first: int, start: int, count: int) -> Iterator[Inode]:
        size = self._inode_size
        for index in range(count):
            marked = bitmap[(start + index) >> 3] >> ((start + index) & 7) & 1
            at = index * size
            # mode and link count: both are set in every inode that the kernel would open
            if marked or (raw[at : at + 2] != b"\0\0" and raw[at + 26 : at + 28] != b"\0\0"):
                yield self._parse(first + start + index + 1, raw[at : at + size])

    def inode(self, number: int) -> Inode:
        if not 1 <= number <= self.inodes_count:
            raise BadFilesystem("an inode number is out of range (%d)" % number)
        group, index = divmod(number - 1, self._inodes_per_group)
        at = self._groups[group][1] * self.block_size + index * self._inode_size
        return self._parse(number, self._source.read(at, self._inode_size))

    def _parse(self, number: int, raw: bytes) -> Inode:
        mode, _uid, size_low = struct.unpack_from("<HHI", raw)
        links, _blocks, flags = struct.unpack_from("<HII", raw, 26)
        acl_low, size_high = struct.unpack_from("<II", raw, 104)
        acl_high = struct.unpack_from("<H", raw, 118)[0]
        size = size_low
        if stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and self._incompat & 0x4000):
            size |= size_high << 32
        extra = b""
        if len(raw) > 130:
            extra = raw[128 + struct.unpack_from("<H", raw, 128)[0] :]
        return Inode(number, mode, size, links, flags, raw[40:100], extra, acl_low | acl_high << 32)

    def is_reserved(self, number: int) -> bool:
        """The file system's own inodes: journal, resize and the like (the root is none of them)."""
        return number != ROOT and (number < self._first_inode or number in self._internal())

    def _internal(self) -> frozenset[int]:
        # user and group quota, journal, project quota, orphan file
        numbers = [struct.unpack_from("<I", self._raw, at)[0] for at in (576, 580, 224, 620, 644)]
        return frozenset(number for number in numbers if number)

    def read(self, inode: Inode, offset: int, length: int) -> bytes:
        length = max(0, min(length, inode.size - offset))
        if inode.flags & _F_ENCRYPTED:
            raise BadFilesystem("it is encrypted by the guest")
        if inode.flags & _F_INLINE and self._incompat & _INLINE:
            return self._inline(inode)[offset : offset + length]
        parts, at, end = [], offset, offset + length
        for span in self.spans(inode):
            start, stop = span.logical * self.block_size, (span.logical + span.count) * self.block_size
            if stop <= at:
                continue
            if start >= end:
                break
            if start > at:
                parts.append(bytes(start - at))
                at = start
            take = min(stop, end) - at
            parts.append(
                self._source.read(span.physical * self.block_size + at - start, take) if span.physical else bytes(take)
            )
            at += take
        if at < end:
            parts.append(bytes(end - at))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _inline(self, inode: Inode) -> bytes:
        data = inode.block + _xattr(inode.extra, 7, b"data")
        if len(data) < inode.size:
            raise BadFilesystem("its inline data is shorter than its size")
        return data[: inode.size]

    def spans(self, inode: Inode) -> list[Span]:
        """Where the content lies, in the order of the file."""
        found, end = [], 0
        for span in self._extents(inode.block, 5) if inode.flags & _F_EXTENTS else self._block_map(inode):
            # A damaged or forged map may go round in circles: it ends at the first step that is not forward.
            if span.logical < end or span.physical + span.count > self.blocks_count:
                raise BadFilesystem("its block map is damaged")
            end = span.logical + span.count
            found.append(span)
        return found

    def stretches(self, inode: Inode) -> list[tuple[int, int]]:
        """Offset and length of what is not a hole."""
        if inode.flags & (_F_INLINE | _F_ENCRYPTED):
            return [(0, inode.size)]
        spans = (
            (span.logical * self.block_size, span.count * self.block_size)
            for span in self.spans(inode)
            if span.physical
        )
        return [(start, min(length, inode.size - start)) for start, length in spans if start < inode.size]

    def _extents(self, node: bytes, depth_left: int) -> Iterator[Span]:
        magic, entries, _most, depth = struct.unpack_from("<4H", node)
        if magic != 0xF30A or depth > depth_left or 12 + entries * 12 > len(node):
            raise BadFilesystem("its extent tree is damaged")
        for at in range(12, 12 + entries * 12, 12):
            if depth:
                logical, low, high = struct.unpack_from("<IIH", node, at)
                child = low | high << 32
                if not 0 < child < self.blocks_count:
                    raise BadFilesystem("its extent tree points outside of the file system")
                yield from self._extents(self._source.read(child * self.block_size, self.block_size), depth - 1)
                continue
            logical, count, high, low = struct.unpack_from("<IHHI", node, at)
            written = count <= 32768
            yield Span(logical, (low | high << 32) if written else 0, count if written else count - 32768)

    def _block_map(self, inode: Inode) -> Iterator[Span]:
        last = Span(0, 0, 0)
        limit = -(-inode.size // self.block_size)
        for logical, physical in self._mapped(struct.unpack("<15I", inode.block), limit):
            if last.count and logical == last.logical + last.count and physical == last.physical + last.count:
                last = Span(last.logical, last.physical, last.count + 1)
                continue
            if last.count:
                yield last
            last = Span(logical, physical, 1)
        if last.count:
            yield last

    def _mapped(self, slots: tuple[int, ...], limit: int) -> Iterator[tuple[int, int]]:
        per_block = self.block_size // 4
        logical = 0
        for index, pointer in enumerate(slots):
            level = max(0, index - 11)
            if logical >= limit:
                return
            if pointer:
                yield from self._indirect(pointer, level, logical, limit)
            logical += per_block**level

    def _indirect(self, pointer: int, level: int, logical: int, limit: int) -> Iterator[tuple[int, int]]:
        if pointer >= self.blocks_count:
            raise BadFilesystem("its block map points outside of the file system")
        if level == 0:
            yield logical, pointer
            return
        step = (self.block_size // 4) ** (level - 1)
        for child in struct.unpack(
            "<%dI" % (self.block_size // 4), self._source.read(pointer * self.block_size, self.block_size)
        ):
            if logical >= limit:
                return
            if child:
                yield from self._indirect(child, level - 1, logical, limit)
            logical += step

    def entries(self, directory: Inode) -> Iterator[tuple[int, bytes]]:
        """Inode number and name of all in a directory but itself and its parent."""
        if directory.flags & _F_INLINE and self._incompat & _INLINE:
            yield from _entries(directory.block[4:])
            yield from _entries(_xattr(directory.extra, 7, b"data"))
            return
        if directory.size > MAX_DIRECTORY:
            raise BadFilesystem("a directory is absurdly large")
        content = self.read(directory, 0, directory.size)
        for at in range(0, len(content), self.block_size):
            yield from _entries(content[at : at + self.block_size])

    def xattr_block(self, inode: Inode) -> bytes:
        if not inode.acl:
            return b""
        if inode.acl >= self.blocks_count:
            raise BadFilesystem("its attributes lie outside of the file system")
        return self._source.read(inode.acl * self.block_size, self.block_size)


def _entries(block: bytes) -> Iterator[tuple[int, bytes]]:
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


def _xattr(extra: bytes, wanted_index: int, wanted: bytes) -> bytes:
    """The value of one attribute in the inode itself (offsets count from the first entry)."""
    if extra[:4] != b"\x00\x00\x02\xea":
        return b""
    body, at = extra[4:], 0
    while at + 16 <= len(body) and body[at : at + 4] != bytes(4):
        name_length, index, value_at, _inum, size = struct.unpack_from("<BBHII", body, at)
        if index == wanted_index and body[at + 16 : at + 16 + name_length] == wanted:
            return body[value_at : value_at + size]
        at += 16 + -(-name_length // 4) * 4
    return b""
