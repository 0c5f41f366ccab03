# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""btrfs from its superblock to the items of its trees."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from copy import copy
from typing import NamedTuple

from .blocks import Blocks
from .btrfs_records import (
    BACKREF,
    BEHIND,
    CHUNK,
    CHUNKS,
    EXTENTS,
    FIRST,
    GROUPS,
    LOG,
    ORPHAN,
    ORPHANS,
    OWN,
    RELOCATED,
    ROOT,
    ROOTS,
    TOP,
    Chunk,
    Inode,
    Key,
    Node,
    Super,
    Tree,
    chunk_of,
    chunks_of,
    names_in,
    tree_of,
)
from .btrfs_sums import checksum
from .layout import NotReadable

_MOST_ODD = 20
_MOST_VISITS, _FEW_VISITS = 4, 10000  # times as many as there are places for nodes: snapshots share them


class _Below(NamedTuple):
    """A node, as the one above tells of it. Its keys lie in [first, end)."""

    address: int
    generation: int
    first: Key | None
    end: Key


class Btrfs:
    """What can't be read is told by `odd`, and the rest is read."""

    def __init__(self, volume: Blocks) -> None:
        self._volume, self.head = volume, Super(volume)
        self.odd: list[str] = []
        self.reached: dict[int, int] = {}  # the addresses of all nodes that were read, and which copy of each
        self._visits, self._newest = 0, self.head.generation
        self.chunks: list[Chunk] = []
        self._starts: list[int] = []
        first = list(chunks_of(self.head.array, self.head.device))
        self._map(first)
        self._map([
            chunk_of(key[2], raw, self.head.device)
            for key, raw in self.items(self.head.chunks) if key[1] == CHUNK
        ])  # fmt: skip
        if not set(first) <= set(self.chunks):
            self.add("its superblock places chunks elsewhere than the tree of them, and Linux goes by it")
        self._check_copies()
        self.trees: dict[int, Tree] = {ROOTS: self.head.roots, CHUNKS: self.head.chunks}
        self.parents: dict[int, tuple[int, int, bytes]] = {}  # of subvolumes: tree, directory and name
        self._read_roots()

    def _map(self, chunks: list[Chunk]) -> None:
        self.chunks = sorted(chunks)
        self._starts = [chunk.start for chunk in self.chunks]
        if not chunks or any(one.end > other.start for one, other in zip(self.chunks, self.chunks[1:])):
            raise NotReadable("its chunks overlap, or there are none")

    def _check_copies(self) -> None:
        places = sorted((copy, copy + chunk.length) for chunk in self.chunks for copy in chunk.copies)
        if any(one[1] > other[0] for one, other in zip(places, places[1:])):
            self.add("its chunks overlap on the volume")
        if places and places[-1][1] > self.head.end:
            self.add("a part of it lies behind its end")
        if any(not chunk.copies for chunk in self.chunks):
            self.add("a part of it lies on another device, or is spread over several")

    def add(self, text: str) -> None:
        if text not in self.odd and len(self.odd) <= _MOST_ODD:
            self.odd.append(text if len(self.odd) < _MOST_ODD else "and more")

    def chunk_at(self, address: int) -> int:
        """The number of the one that may hold it."""
        return max(0, bisect_right(self._starts, address) - 1)

    def copies(self, address: int, length: int) -> list[int]:
        """Where on the volume these bytes lie, which are of one chunk."""
        chunk = self.chunks[self.chunk_at(address)]
        if not length or not chunk.start <= address <= chunk.end - length or not chunk.copies:
            raise NotReadable("it leads to where nothing lies")
        return [copy + address - chunk.start for copy in chunk.copies]

    def place(self, address: int, length: int) -> int:
        return self.copies(address, length)[0]

    def _node(self, tree: Tree, level: int, below: _Below) -> Node:
        places = self.copies(below.address, self.head.node)
        if below.address in self.reached:
            raw = self._volume.read(places[self.reached[below.address]], self.head.node)
            return self._sound(raw, tree, level, below)
        raws, found, why = [self._volume.read(place, self.head.node) for place in places], dict[int, Node](), ""
        for number, raw in enumerate(raws):
            if raw not in raws[:number]:
                try:
                    found[number] = self._sound(raw, tree, level, below)
                except NotReadable as exc:
                    why = str(exc)
        if why and found:
            self.add("a copy of a node is damaged, which `btrfs scrub` repairs")
        if len(found) > 1:
            self.add("the copies of a node differ, and each may be the one that Linux reads")
        if not found:
            raise NotReadable(why)
        number = self.reached[below.address] = next(iter(found))
        return found[number]

    def _sound(self, raw: bytes, tree: Tree, level: int, below: _Below) -> Node:
        """As Linux asks of it."""
        if below.address not in self.reached:
            told = checksum(self.head.sums, raw[32:])
            if told and not raw.startswith(told):
                raise NotReadable("its checksum is wrong")
        node = Node(raw, below.address, self.head.identity)
        if node.level != level or node.generation != below.generation or node.generation > self._newest:
            raise NotReadable("it is not the one that is meant")
        if tree.number < OWN and tree.number != TOP and node.owner != tree.number:
            raise NotReadable("it belongs to another tree")
        is_root = below.first is None
        if not node.rows and not (is_root and not level):
            raise NotReadable("it is empty")
        if not is_root and node.rows[0][:3] != below.first or node.rows and node.rows[-1][:3] >= below.end:
            raise NotReadable("its keys are not those that are meant")
        return node

    def leaves(self, tree: Tree, start: Key = FIRST) -> Iterator[Node]:
        """In order, from the one on that may hold `start`. A node that can't be read must not hide the others."""
        most = _MOST_VISITS * (self._volume.size // self.head.node) + _FEW_VISITS
        ways = [iter([_Below(tree.address, tree.generation, None, BEHIND)])]
        while ways:
            below = next(ways[-1], None)
            if below is None:
                ways.pop()
                continue
            level = tree.level - len(ways) + 1
            self._visits += start == FIRST
            if self._visits > most:
                raise NotReadable("its trees share more of their nodes than any snapshots would")
            try:
                node = self._node(tree, level, below)
            except NotReadable as exc:
                if tree.start == FIRST:
                    self.add("a node of tree %d was not read: %s" % (tree.number, exc))
                continue
            if level:
                ways.append(_beneath(node, start, below.end))
            else:
                yield node

    def items(self, tree: Tree, start: Key = FIRST) -> Iterator[tuple[Key, bytes]]:
        for node in self.leaves(tree, start):
            for row in node.rows[bisect_left(node.rows, start) :]:
                yield row[:3], node.item(row)

    def inodes(self, tree: Tree, start: int = 0) -> Iterator[Inode]:
        """All numbers of a tree that have items, from `start` on."""
        inode = None
        begin = max((start, 0, 0), tree.start)
        for node in self.leaves(tree, begin):
            for row in node.rows[bisect_left(node.rows, begin) :] if begin > FIRST else node.rows:
                number, kind, offset, at, size = row
                if inode is None or inode.number != number:
                    if inode is not None:
                        yield inode
                    inode = Inode(tree.number, number)
                    inode.is_logged = self._newest > self.head.generation
                try:
                    inode.add(kind, offset, node.raw[101 + at : 101 + at + size])
                except Exception as exc:  # noqa: BLE001 - the edge to a parser that an attacker feeds
                    inode.damage = str(exc) or type(exc).__name__
        if inode is not None:
            yield inode

    def _read_roots(self) -> None:
        deleted = set[int]()
        for key, raw in self.items(self.head.roots):
            number, kind, offset = key
            if kind == ROOT and number in self.trees and number != RELOCATED:
                self.add("tree %d is there twice" % number)
            elif kind == ROOT:
                if number == RELOCATED:  # parts of it take the place of those of another tree
                    self.add("it was being balanced, which the next mount goes on with")
                    number = number << 64 | offset
                self.trees[number] = tree_of(number, raw)
            elif kind == BACKREF and len(raw) > 18:
                self.parents[number] = offset, int.from_bytes(raw[:8], "little"), raw[18:]
            elif kind == ORPHAN and number == ORPHANS:
                deleted.add(offset)
        for number in deleted & self.trees.keys():
            self.trees[number] = self.trees[number]._replace(is_alive=False)
        for number in (EXTENTS, TOP):
            if number not in self.trees:
                self.add("tree %d is missing" % number)

    def inode(self, tree: Tree, number: int) -> Inode | None:
        found = next(self.inodes(tree, number), None)
        return found if found is not None and found.number == number and found.raw else None

    def log(self) -> Btrfs | None:
        """What was written since: trees, by the subvolumes that they change, which the tree of extents knows not of."""
        if self.head.log is None:
            return None
        log = copy(self)
        log.odd, log.reached, log.trees, log._newest = [], {}, {}, self.head.generation + 1
        for key, raw in log.items(self.head.log):
            if key[:2] == (LOG, ROOT):
                log.trees[key[2]] = tree_of(key[2], raw)._replace(start=FIRST, is_alive=True)
            else:
                log.add("it holds what is no tree")
        if not log.trees:
            log.add("it holds no tree")
        return log

    def directory(self, tree: Tree, number: int) -> tuple[int, bytes] | None:
        """Where one lies, and how it is called there."""
        for key, raw in self.items(tree, (number, 0, 0)):
            if key[0] != number or key[1] > 13:
                return None
            if key[1] in (12, 13):
                return next(names_in(key[1], key[2], raw), None)
        return None

    def orphans(self, tree: Tree) -> set[int]:
        """Those that were open when they were deleted: the next mount frees them. No directory names them."""
        begin = ORPHANS, ORPHAN, 0
        return {key[2] for key, _raw in self.items(tree, begin) if key[:2] == begin[:2]}

    def extents(self) -> Iterator[tuple[Key, bytes]]:
        """Of what is in use, and of groups of it."""
        for number in (EXTENTS, GROUPS):
            if number in self.trees:
                yield from self.items(self.trees[number])


def _beneath(node: Node, start: Key, end: Key) -> Iterator[_Below]:
    at = max(0, bisect_right(node.rows, (*start, BEHIND[0], 0)) - 1)
    keys = [row[:3] for row in node.rows[at + 1 :]]
    return iter([_Below(row[3], row[4], row[:3], stop) for row, stop in zip(node.rows[at:], [*keys, end])])
