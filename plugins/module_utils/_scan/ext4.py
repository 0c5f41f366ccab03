# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ext2, ext3 and ext4, read inode by inode: what the inode tables hold is read whether or not a directory names it."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable

from .blocks import Blocks, is_blank
from .ext4_map import Maps, Nodes
from .ext4_records import BadFilesystem, Inode, attribute, entries_in
from .layout import Scattered

MAX_INODES = 1 << 28
MAX_DIRECTORY = 1 << 30
ROOT = 2
PAGE = 4096  # that guests swap by
_KEPT = 32 << 20
_STEP = 1 << 20
_INODE = struct.Struct("<H2xI18xH4xI68xII6xH")
_NEEDS_RECOVERY, _64BIT = 0x4, 0x80
_RESIZE, _JOURNAL, _FIRST = 7, 8, 11  # numbers of inodes: two that the kernel lets no name lead to, and lost+found
# filetype, recover, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data, encrypt, casefold
_KNOWN = 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
_F_ENCRYPTED, _F_INLINE = 0x800, 0x10000000
_ORPHAN_PRESENT = 0x10000
# Where the superblock names an inode: of the journal, of user, group and project quota, of orphans; and what tells so
_NAMED = {224: (0, 0x4), 576: (2, 0x100), 580: (2, 0x100), 620: (2, 0x2000), 644: (0, 0x1000)}


@dataclass(frozen=True)
class Span:
    """Consecutive blocks of a file that are no hole."""

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
        self._blocks_per_group, _clusters, self.inodes_per_group = struct.unpack_from("<3I", raw, 32)
        revision = struct.unpack_from("<I", raw, 76)[0]
        self._compat, self._incompat, self._ro_compat = struct.unpack_from("<3I", raw, 92) if revision else (0, 0, 0)
        self._first_inode, self.inode_size = struct.unpack_from("<IH", raw, 84) if revision else (11, 128)
        wide = bool(self._incompat & _64BIT)
        blocks_high, _r, free_high = struct.unpack_from("<3I", raw, 336) if wide else (0, 0, 0)
        self.blocks_count = blocks_low | blocks_high << 32
        self.free_blocks = free_low | free_high << 32
        self._descriptor_size = struct.unpack_from("<H", raw, 254)[0] if wide else 32
        self._check(log_size)
        self.block_size = 1024 << log_size
        self.end = self.blocks_count * self.block_size
        self._record = struct.Struct("%s%dx" % (_INODE.format, self.inode_size - _INODE.size))
        self.groups = self._read_groups()
        numbers = [struct.unpack_from("<I", raw, at)[0] for at in _NAMED]
        self._internal = frozenset(number for number in numbers if number)
        self._bitmaps: dict[int, bytes] = {}
        self._kept: dict[int, bytes] = {}
        self._room = _KEPT
        self._maps = Maps(source, self.block_size, self.blocks_count)
        self._last: tuple[Inode, Scattered] | None = None

    def _check(self, log_size: int) -> None:
        if self._incompat & ~_KNOWN:
            raise BadFilesystem("it uses features that this reader does not know (%#x)" % (self._incompat & ~_KNOWN))
        sane = (
            log_size <= 6
            and 128 <= self.inode_size <= 1024 << log_size
            and self.inode_size & (self.inode_size - 1) == 0
            and 32 <= self._descriptor_size <= 1024
            and 0 < self.inodes_per_group <= 8 * (1024 << log_size)
            and 0 < self._blocks_per_group <= 1 << 26
            and 0 < self.inodes_count <= MAX_INODES
            and self.inodes_count * self.inode_size < self.blocks_count * (1024 << log_size)
            and self._first_block < self.blocks_count
        )
        if not sane:
            raise BadFilesystem("its superblock holds absurd values")
        if self.blocks_count * (1024 << log_size) > self._source.size:
            raise BadFilesystem("it is larger than its volume")

    def _read_groups(self) -> list[tuple[int, int, int]]:
        """Per group: inode bitmap, inode table, flags."""
        count = -(-(self.blocks_count - self._first_block) // self._blocks_per_group)
        if count * self.inodes_per_group < self.inodes_count:
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
        if not state & 1:
            found.append("it was not unmounted cleanly")
        if state & 2:
            found.append("it is marked as damaged")
        if self._first_inode != _FIRST:
            found.append("its superblock reserves inodes up to %d, as no file system does" % (self._first_inode - 1))
        features = self._compat, self._incompat, self._ro_compat
        for at, (field, bit) in _NAMED.items():
            number = struct.unpack_from("<I", self._raw, at)[0]
            if number and not features[field] & bit:
                found.append("its superblock calls inode %d its own without the feature that would" % number)
        return found

    @property
    def descriptors_end(self) -> int:
        """The first byte behind the superblock and the descriptors of all groups."""
        return (1024 // self.block_size + 1) * self.block_size + len(self.groups) * self._descriptor_size

    @property
    def journal_inode(self) -> int:
        number: int = struct.unpack_from("<I", self._raw, 224)[0]
        return number if self._compat & 4 else 0

    @property
    def has_external_journal(self) -> bool:
        return bool(self._compat & 4 and struct.unpack_from("<I", self._raw, 228)[0])

    @property
    def needs_recovery(self) -> bool:
        """Whether the kernel replays the journal at the next mount; else it throws the journal away."""
        return bool(self._incompat & _NEEDS_RECOVERY)

    def geometry(self) -> tuple[object, ...]:
        """What must be equal for two states of a file system to be compared inode by inode."""
        passing = _NEEDS_RECOVERY
        return (
            (self.inodes_count, self.blocks_count, self.block_size, self._first_block, self._blocks_per_group),
            (self.inodes_per_group, self.inode_size, self._first_inode, self._descriptor_size),
            (self._compat, self._incompat & ~passing, self._ro_compat & ~_ORPHAN_PRESENT),
            self._raw[104:120],  # UUID
            self._internal,
            [group[:2] for group in self.groups],
        )

    def used_inodes(self, kind: int = 0) -> Iterator[Inode]:
        """All that the bitmaps mark as used, and all that have links in spite of them. Or those of a kind."""
        per_read = max(1, (1 << 20) // self.inode_size)
        for group, (bitmap_at, table, flags) in enumerate(self.groups):
            bitmap = self._source.read(bitmap_at * self.block_size, (self.inodes_per_group + 7) // 8)
            if flags & 1:  # the bitmap was never written
                bitmap = bytes(len(bitmap))
            first = group * self.inodes_per_group
            wanted = min(self.inodes_per_group, self.inodes_count - first)
            for start in range(0, wanted, per_read):
                count = min(per_read, wanted - start)
                raw = self._source.read(table * self.block_size + start * self.inode_size, count * self.inode_size)
                if not is_blank(raw) or any(bitmap[start // 8 : (start + count + 7) // 8]):
                    yield from self._used_in(raw, bitmap, first, start, kind)

    def used(self, number: int) -> Inode | None:
        """One inode, if it is among the used ones."""
        group, index = divmod(number - 1, self.inodes_per_group)
        at, flags = self.groups[group][0], self.groups[group][2]
        if group not in self._bitmaps:
            self._bitmaps[group] = self._source.read(at * self.block_size, (self.inodes_per_group + 7) // 8)
        marked = not flags & 1 and self._bitmaps[group][index // 8] >> (index & 7) & 1
        inode = self.inode(number)
        return inode if marked or (inode.mode and inode.links) else None

    def keep(self, number: int, raw: bytes) -> None:
        """The bytes of an inode, read already: it is not read again."""
        if self._room >= len(raw):
            self._room -= len(raw)
            self._kept[number] = raw

    def _used_in(self, raw: bytes, bitmap: bytes, first: int, start: int, kind: int) -> Iterator[Inode]:
        size = self.inode_size
        for index, fields in enumerate(self._record.iter_unpack(raw), start):
            mode, links = fields[0], fields[2]  # both are set in every inode that the kernel would open
            if kind and stat.S_IFMT(mode) != kind:
                continue
            if (mode and links) or bitmap[index >> 3] >> (index & 7) & 1:
                at = (index - start) * size
                yield self._made(first + index + 1, fields, raw[at : at + size])

    def inode(self, number: int) -> Inode:
        if not 1 <= number <= self.inodes_count:
            raise BadFilesystem("an inode number is out of range (%d)" % number)
        if number in self._kept:
            return self._parse(number, self._kept[number])
        group, index = divmod(number - 1, self.inodes_per_group)
        at = self.groups[group][1] * self.block_size + index * self.inode_size
        return self._parse(number, self._source.read(at, self.inode_size))

    def _parse(self, number: int, raw: bytes) -> Inode:
        return self._made(number, _INODE.unpack_from(raw), raw)

    def _made(self, number: int, fields: tuple[int, ...], raw: bytes) -> Inode:
        mode, size, links, flags, acl_low, size_high, acl_high = fields
        if size_high and (stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and self._incompat & 0x4000)):
            size |= size_high << 32
        return Inode(number, mode, size, links, flags, acl_low | acl_high << 32, raw)

    def is_own(self, number: int) -> bool:
        """Said to be the file system's own (the root is not), so that no name is missed. It is judged all the same."""
        return number != ROOT and (number < _FIRST or number in self._internal)

    def is_journal(self, number: int) -> bool:
        return number == _JOURNAL == self.journal_inode

    def is_resize(self, number: int) -> bool:
        """What is kept for more group descriptors: gigabytes long, and nearly empty."""
        return number == _RESIZE and bool(self._compat & 0x10)

    def is_no_file(self, number: int) -> bool:
        return self.is_journal(number) or self.is_resize(number)

    @staticmethod
    def is_inline(inode: Inode) -> bool:
        """Linux does not ask for the feature."""
        return bool(inode.flags & _F_INLINE)

    def read(self, inode: Inode, offset: int, length: int) -> bytes:
        if inode.flags & _F_ENCRYPTED:
            raise BadFilesystem("it is encrypted by the guest")
        if self.is_inline(inode):
            return self._inline(inode)[offset : offset + length]
        return self.scattered(inode).read(offset, length)

    def scattered(self, inode: Inode) -> Scattered:
        """The content by its pieces. That of the last inode is kept, for a file is read part by part."""
        if self._last is None or self._last[0] is not inode:
            self._last = inode, Scattered(self._source, self._maps.pieces(inode, {}, False), inode.size)
        return self._last[1]

    def _inline(self, inode: Inode) -> bytes:
        data = inode.block + _rest_of(inode)
        if len(data) < inode.size:
            raise BadFilesystem("its inline data is shorter than its size")
        return data[: inode.size]

    def spans(self, inode: Inode, nodes: list[int] | None = None) -> list[Span]:
        """Where the content lies, in the order of the file. The blocks of the map itself are added to `nodes`."""
        of_map: Nodes = {}
        size = self.block_size
        pieces = self._maps.pieces(inode, of_map, False)
        if nodes is not None:
            nodes += of_map
        return [Span(at // size, low // size, (high - low) // size) for at, low, high in pieces]

    def stretches(self, inode: Inode) -> list[tuple[int, int]]:
        """Offset and length of what is not a hole."""
        if inode.flags & (_F_INLINE | _F_ENCRYPTED):
            return [(0, inode.size)]
        return self.scattered(inode).stretches()

    def is_swap(self, inode: Inode) -> bool:
        """As `mkswap` writes it where pages have 4096 bytes: of all of the file, and nothing that can be run."""
        head = self.read(inode, 0, PAGE)
        if inode.may_run or len(head) < PAGE or head[-10:] != b"SWAPSPACE2" or any(head[:1024]):
            return False
        version, last_page = struct.unpack_from("<II", head, 1024)
        return bool(version == 1 and last_page + 1 == inode.size // PAGE)

    def swapped(self, inode: Inode) -> tuple[Callable[[int, int], bytes], list[tuple[int, int]]]:
        """What swapping reads: how, and offset and length of all that is there."""
        content = Scattered(self._source, self._maps.pieces(inode, {}, True), inode.size)
        return content.read, content.stretches()

    def entries(self, directory: Inode) -> Iterator[tuple[int, bytes]]:
        """Inode number and name of all in a directory but itself and its parent. Damage is raised after all others."""
        if self.is_inline(directory):
            rest = _rest_of(directory)
            yield from entries_in(directory.block[4:])
            yield from entries_in(rest)
            return
        stretches = self.stretches(directory)
        size = sum(length for _at, length in stretches)
        if size > MAX_DIRECTORY:
            raise BadFilesystem("a directory is absurdly large")
        damage = BadFilesystem("a directory has holes") if size < directory.size else None
        for start, length in stretches:
            for at in range(start, start + length, _STEP):
                part = self.read(directory, at, min(_STEP, start + length - at))
                for low in range(0, len(part), self.block_size):
                    try:
                        yield from entries_in(part[low : low + self.block_size])
                    except BadFilesystem as exc:
                        damage = exc
        if damage is not None:
            raise damage

    def raw(self, offset: int, length: int) -> bytes:
        """Bytes of the volume."""
        return self._source.read(offset, length)

    def xattr_block(self, inode: Inode) -> bytes:
        if not inode.acl:
            return b""
        if inode.acl >= self.blocks_count:
            raise BadFilesystem("its attributes lie outside of the file system")
        return self._source.read(inode.acl * self.block_size, self.block_size)


def _rest_of(inode: Inode) -> bytes:
    """What of inline data does not lie in the place of a map. Without it, empty or not, Linux takes that for a map."""
    found = attribute(inode.extra, 7, b"data")
    if found is None:
        raise BadFilesystem("its inline data is not where it should be")
    return found
