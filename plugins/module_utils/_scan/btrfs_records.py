# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The records of btrfs (https://btrfs.readthedocs.io/en/latest/dev/On-disk-format.html; Linux, btrfs_tree.h)."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from .blocks import Blocks
from .btrfs_sums import checksum
from .layout import NotReadable

Key = tuple[int, int, int]
FIRST: Key = (0, 0, 0)
BEHIND: Key = (1 << 64, 0, 0)

# Kinds of items
INODE, REF, MORE_REFS, XATTR, ORPHAN, LOG_ITEM, LOG_INDEX = 1, 12, 13, 24, 48, 60, 72
DIR_ITEM, DIR_INDEX, EXTENT_DATA, ROOT, BACKREF = 84, 96, 108, 132, 144
EXTENT, NODE, GROUP, CHUNK = 168, 169, 192, 228
# Trees, and what begins behind the numbers that are the file system's own
ROOTS, EXTENTS, CHUNKS, TOP, GROUPS, OWN = 1, 2, 3, 5, 11, 256
ORPHANS, LOG, RELOCATED = ((1 << 64) - number for number in (5, 6, 8))

SUPER, _SUPER_SIZE = 65536, 4096
_MIRRORS = 64 << 20, 256 << 30
HEAD = 101  # bytes of a node before its items
_ITEM, _POINTER = struct.Struct("<QBQII"), struct.Struct("<QBQQQ")
_HEADER = struct.Struct("<QQ16xQQIB")
_CHUNK, _STRIPE = struct.Struct("<QQQQIIIHH"), struct.Struct("<QQ16x")
_ENTRY, _NAME, _MORE_NAMES = struct.Struct("<QBQQHHB"), struct.Struct("<QH"), struct.Struct("<QQH")
_INLINE, _REGULAR = struct.Struct("<QQBBHB"), struct.Struct("<QQQQ")
_ROOT = struct.Struct("<QQQQQQQIQBQBB")
_WHOLE = 0x7 | 0x10 | 0x20 | 0x600  # data, system, metadata; once, or in so many copies on as many devices, or on one
# Of features that change how a file system is read, those that are known here
_KNOWN, _KNOWN_TO_WRITE = 0x1077F, 0xF
_NAMED = {7: "RAID5 or RAID6", 12: "zones", 13: "extent tree v2", 14: "a RAID stripe tree"}
_METADATA_UUID = 0x400
_WRITTEN = 1
_TOP = struct.pack("<52xI104x", stat.S_IFDIR | 0o755)  # an inode of which only a name was read


class Tree(NamedTuple):
    """`start`: where one begins that is being deleted. `is_alive`: the guest sees what is in it."""

    number: int
    address: int
    level: int
    generation: int
    start: Key = FIRST
    is_alive: bool = True


class Chunk(NamedTuple):
    """What of the addresses lies where on the volume, in so many copies."""

    start: int
    length: int
    kind: int
    copies: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.start + self.length


class Super:
    def __init__(self, volume: Blocks) -> None:
        self._volume = volume
        raw = self.raw = volume.read(SUPER, _SUPER_SIZE)
        self.generation, root, chunks, log = struct.unpack_from("<4Q", raw, 72)
        self._size, self.used = struct.unpack_from("<2Q", raw, 112)
        self._devices, self.sector, self.node = struct.unpack_from("<QII", raw, 136)
        length, chunks_generation = struct.unpack_from("<IQ", raw, 160)
        self._to_write, self._features, self.sums, level, chunks_level = struct.unpack_from("<QQHBB", raw, 180)
        self.device = struct.unpack_from("<Q", raw, 201)[0]
        self.identity = raw[571:587] if self._features & _METADATA_UUID else raw[32:48]
        self.roots = Tree(ROOTS, root, level, self.generation)
        self.log = Tree(LOG, log, raw[200], self.generation + 1) if log else None
        self.chunks = Tree(CHUNKS, chunks, chunks_level, chunks_generation)
        sizes = (self.sector, self.node)
        if any(size & (size - 1) or not 512 <= size <= 65536 for size in sizes) or length > 2048:
            raise NotReadable("its superblock holds absurd values")
        self.array = raw[811 : 811 + length]
        self.end = min(self._size, volume.size)

    def doubts(self) -> list[str]:
        features = self._features & ~_KNOWN
        named = [_NAMED.get(bit, "feature %d" % bit) for bit in range(64) if features >> bit & 1]
        found = ["it has what is not known here (%s)" % ", ".join(named)] if features else []
        if self._to_write & ~_KNOWN_TO_WRITE:
            found.append("it has what is not known here, and keeps others from writing to it")
        if struct.unpack_from("<Q", self.raw, 56)[0] != _WRITTEN:
            found.append("it is a seed for others, marked as damaged, or half changed")
        if self._devices != 1:
            found.append("it lies on %d devices, of which this one was read" % self._devices)
        if self._size > self._volume.size:
            found.append("it claims to be larger than its volume")
        told = checksum(self.sums, self.raw[32:])
        if not told:
            found.append("its checksums are of a kind that is not known here (%d)" % self.sums)
        elif self.raw[: len(told)] != told:
            found.append("its superblock has a wrong checksum")
        return found + [text for at in _MIRRORS for text in self._mirror(at)]

    def _mirror(self, at: int) -> Iterator[str]:
        """Older ones are left behind by a write that did not end."""
        if at + _SUPER_SIZE > self.end:
            return
        raw = self._volume.read(at, _SUPER_SIZE)
        told = checksum(self.sums, raw[32:])
        if raw[64:72] == self.raw[64:72] and raw[32:48] == self.raw[32:48] and told and raw.startswith(told):
            generation = struct.unpack_from("<Q", raw, 72)[0]
            if generation > self.generation or (generation == self.generation and raw[72:96] != self.raw[72:96]):
                yield "a copy of its superblock is another one"


def chunk_of(start: int, raw: bytes, device: int) -> Chunk:
    length, _owner, _stripe, kind, _align, _width, _sector, count, _sub = _CHUNK.unpack_from(raw)
    if len(raw) < _CHUNK.size + count * _STRIPE.size:
        raise NotReadable("one of its chunks is damaged")
    stripes = (_STRIPE.unpack_from(raw, _CHUNK.size + number * _STRIPE.size) for number in range(count))
    copies = tuple(offset for number, offset in stripes if number == device)
    if kind & ~_WHOLE:
        copies = ()  # each is only a part
    return Chunk(start, length, kind, copies)


def chunks_of(array: bytes, device: int) -> Iterator[Chunk]:
    """Those in the superblock, by which the tree of all is found."""
    at = 0
    while at < len(array):
        _number, kind, start = struct.unpack_from("<QBQ", array, at)
        if kind != CHUNK:
            raise NotReadable("its superblock holds absurd values")
        yield chunk_of(start, array[at + 17 :], device)
        at += 17 + _CHUNK.size + _STRIPE.size * int(_CHUNK.unpack_from(array, at + 17)[7])


class Node:
    """`rows` of a leaf: each item's key, where it lies behind the header, its size. Above: key, address, generation."""

    def __init__(self, raw: bytes, address: int, identity: bytes) -> None:
        self.raw = raw
        told, _flags, self.generation, self.owner, count, self.level = _HEADER.unpack_from(raw, 48)
        shape = _POINTER if self.level else _ITEM
        body = raw[HEAD : HEAD + count * shape.size]
        if told != address or raw[32:48] != identity or len(body) != count * shape.size or self.level > 7:
            raise NotReadable("it is damaged")
        self.rows: list[tuple[int, int, int, int, int]] = list(shape.iter_unpack(body))
        if self.rows != sorted(self.rows):
            raise NotReadable("its keys are not in order")
        if not self.level:
            limit, starts = len(raw) - HEAD, [row[3] for row in self.rows]
            if [row[3] + row[4] for row in self.rows] != [limit, *starts][: len(starts)]:
                raise NotReadable("its items overlap")
            if starts and starts[-1] < len(body):
                raise NotReadable("its items overlap")

    def item(self, row: tuple[int, int, int, int, int]) -> bytes:
        return self.raw[HEAD + row[3] : HEAD + row[3] + row[4]]


def tree_of(number: int, raw: bytes) -> Tree:
    generation, _dir, address, *_more, refs, low, kind, high, _drop, level = _ROOT.unpack_from(raw, 160)
    return Tree(number, address, level, generation, FIRST if refs else (low, kind, high), bool(refs))


def names_in(kind: int, parent: int, raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Of an inode, each with its directory."""
    at = 0
    while at < len(raw):
        if kind == REF:
            _index, length = _NAME.unpack_from(raw, at)
            at += _NAME.size
        else:
            parent, _index, length = _MORE_NAMES.unpack_from(raw, at)
            at += _MORE_NAMES.size
        name = raw[at : at + length]
        if not length or len(name) != length:
            raise NotReadable("its names do not fit into it")
        yield parent, name
        at += length


def entries_in(raw: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Of a directory, or attributes of an inode: what it leads to, by which kind of key, name and value."""
    at = 0
    while at < len(raw):
        number, kind, _offset, _transaction, more, length, _type = _ENTRY.unpack_from(raw, at)
        at += _ENTRY.size
        if not length or at + length + more > len(raw):
            raise NotReadable("its entries do not fit into it")
        yield number, kind, raw[at : at + length], raw[at + length : at + length + more]
        at += length + more


class Piece(NamedTuple):
    """A part of a file. `start` and `stored`: where what it is a part of lies, and its bytes there. `size`: its bytes
    once they are unpacked, of which it has `length` from `inner` on. `data`: it lies in the tree itself.
    """

    offset: int
    start: int
    stored: int
    inner: int
    length: int
    size: int
    packing: int
    is_written: bool = True
    data: bytes = b""


def piece_of(offset: int, raw: bytes) -> Piece | None:
    """None of a hole."""
    _generation, size, packing, hidden, other, kind = _INLINE.unpack_from(raw)
    if hidden or other or packing > 3 or kind > 2:
        raise NotReadable("its content is kept in a way that is not known here")
    if not kind:
        data = raw[_INLINE.size :]
        if offset or (not packing and len(data) != size):
            raise NotReadable("its content is kept in a way that is not known here")
        return Piece(0, 0, len(data), 0, size, size, packing, True, data)
    start, stored, inner, length = _REGULAR.unpack_from(raw, _INLINE.size)
    if not length or (start and inner + length > (size if packing else stored)):
        raise NotReadable("an extent of it is damaged")
    is_written = kind == 1 or packing > 0  # to Linux what is packed is never only reserved
    return Piece(offset, start, stored, inner, length, size, packing, is_written) if start else None


class Inode:
    """All items of one number in a tree. `listed` and `looked_up`: sums over what a directory names.

    `children`: that itself, of one in the log.
    """

    def __init__(self, tree: int, number: int) -> None:
        self.tree, self.number, self.raw = tree, number, b""
        self.names: list[tuple[int, bytes]] = []
        self.extended: list[bytes] = []
        self.extents: list[tuple[int, bytes]] = []
        self.subvolumes: list[tuple[bytes, Inode]] = []
        self.listed = self.looked_up = 0
        self.children: list[tuple[int, bytes]] = []
        self.is_logged = False
        self.damage = ""

    def add(self, kind: int, offset: int, raw: bytes) -> None:
        if kind in (REF, MORE_REFS):
            self.names += names_in(kind, offset, raw)
        elif kind == EXTENT_DATA:
            self.extents.append((offset, raw))
        elif kind == INODE:
            if len(raw) != 160 or offset:
                raise NotReadable("it is damaged")
            self.raw = raw
        elif kind in (DIR_INDEX, DIR_ITEM):
            self._name(kind == DIR_INDEX, raw)
        elif kind == XATTR:
            self.extended += [b"%b\0%b" % (name, value) for _number, _kind, name, value in entries_in(raw)]
        elif kind not in (ORPHAN, LOG_ITEM, LOG_INDEX):
            self.extended.append(raw)

    def _name(self, is_listed: bool, raw: bytes) -> None:
        for number, kind, name, _value in entries_in(raw):
            if kind == ROOT and is_listed:
                root = Inode(number, OWN)
                root.raw = _TOP
                self.subvolumes.append((name, root))
            elif kind == ROOT:
                continue
            elif self.is_logged:
                self.children.append((number, name))
            elif is_listed:
                self.listed += hash((self.number, number, name))
            else:
                self.looked_up += hash((self.number, number, name))

    @property
    def identity(self) -> int:
        """Of all subvolumes."""
        return self.tree << 64 | self.number

    @property
    def size(self) -> int:
        return self._number(16, "<Q")

    @property
    def generation(self) -> int:
        return self._number(0, "<Q")

    @property
    def links(self) -> int:
        return self._number(40, "<I")

    @property
    def uid(self) -> int:
        return self._number(44, "<I")

    @property
    def gid(self) -> int:
        return self._number(48, "<I")

    @property
    def mode(self) -> int:
        return self._number(52, "<I")

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def changed(self) -> int:
        return self._time(124)

    @property
    def modified(self) -> int:
        return self._time(136)

    def _number(self, at: int, form: str) -> int:
        return int(struct.unpack_from(form, self.raw, at)[0])

    def _time(self, at: int) -> int:
        """In nanoseconds."""
        seconds, rest = struct.unpack_from("<qI", self.raw, at)
        return int(seconds) * 10**9 + int(rest)

    def pieces(self) -> list[Piece]:
        """Of its content, in order."""
        found, at = list[Piece](), 0
        for offset, raw in self.extents:
            piece = piece_of(offset, raw)
            if offset < at:
                raise NotReadable("its extents overlap")
            at = offset + (piece.length if piece else int.from_bytes(raw[45:53], "little"))
            found += [piece] if piece else []
        return found

    def status(self) -> os.stat_result:
        accessed, modified, changed = (self._time(at) // 10**9 for at in (112, 136, 124))
        told = self.mode, self.number, 0, self.links, self.uid, self.gid, self.size, accessed, modified, changed
        return os.stat_result(told)
