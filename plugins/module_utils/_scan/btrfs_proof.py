# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether all was reached that a btrfs says is in use: nodes of trees, and what its files have of each extent."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .blocks import Blocks
from .btrfs import Btrfs
from .btrfs_records import EXTENT, FIRST, GROUP, NODE, Piece
from .layout import NotReadable
from .partitions import Extent
from .places import Ranges

_DATA, _OF_TREE = 1, 2
_STEP = 1 << 20


class Proof:
    """`rest`: what no file has of the extents."""

    def __init__(self, volume: Blocks, fs: Btrfs) -> None:
        self._volume, self._fs = volume, fs
        self.rest: list[Extent] = []
        self._sizes: dict[int, int] = {}  # of each extent that a file has, as the file tells
        self._parts: dict[int, set[tuple[int, int]]] = {}  # of those of which not all is some file's
        self._logged = set[tuple[int, int]]()
        self._used = [0] * len(fs.chunks)
        self._unreached = self._lost = 0

    def refer(self, pieces: Sequence[Piece], size: int) -> None:
        """What a file of a `size` has of extents. Behind its end nobody reads."""
        sector = self._fs.head.sector
        for piece in pieces:
            if piece.data or not piece.start:
                continue
            low, high = (0, piece.stored) if piece.packing else (piece.inner, piece.inner + piece.length)
            if piece.is_written and not piece.packing:
                high = min(high, low + max(0, -(-(size - piece.offset) // sector) * sector))
            is_known = piece.start in self._sizes
            if self._sizes.setdefault(piece.start, piece.stored) != piece.stored:
                self._fs.add("files do not agree on an extent that they share")
            if (low, high) == (0, piece.stored):
                self._parts.pop(piece.start, None)
            elif not is_known or piece.start in self._parts:
                self._parts.setdefault(piece.start, set()).add((low, high))

    def log(self, pieces: Sequence[Piece]) -> None:
        """What the log gives a file, of which the tree of extents may know nothing."""
        for piece in pieces:
            extent = piece.start, piece.stored
            if piece.is_written and not piece.data and extent not in self._logged:
                self._logged.add(extent)
                self._compare(*extent)

    def run(self) -> None:
        end = nodes = total = 0
        told = list[tuple[int, int, int]]()
        for (start, kind, length), raw in self._fs.extents():
            if kind == GROUP:
                told.append((start, length, struct.unpack_from("<Q", raw)[0]))
            if kind not in (EXTENT, NODE):
                continue
            flags = struct.unpack_from("<16xQ", raw)[0] if len(raw) >= 24 else 0
            length = self._fs.head.node if flags & _OF_TREE else length
            if start < end or flags & (_DATA | _OF_TREE) not in (_DATA, _OF_TREE):
                self._fs.add("the tree of its extents is damaged")
                continue
            end, total = start + length, total + length
            self._used[self._fs.chunk_at(start)] += length
            if flags & _OF_TREE:
                nodes += start in self._fs.reached
                self._unreached += start not in self._fs.reached
                self._leave(start, [(0, length)] if start not in self._fs.reached else [])
            else:
                self._data(start, length)
        self._conclude(nodes, total, told)

    def _data(self, start: int, length: int) -> None:
        size, parts = self._sizes.pop(start, 0), self._parts.pop(start, None)
        if size and size != length:
            self._fs.add("an extent is of another size than its files tell")
        self._lost += not size
        if parts is not None or not size:
            self._leave(start, list(Ranges([(0, length)]).minus(Ranges(parts or ()))))
        try:
            self._compare(start, length)
        except NotReadable as exc:
            self._fs.add("an extent was not read: %s" % exc)

    def _leave(self, start: int, parts: Sequence[tuple[int, int]]) -> None:
        for low, high in parts:
            try:
                self.rest.append(Extent(self._fs.place(start + low, high - low), high - low))
            except NotReadable as exc:
                self._fs.add("an extent was not read: %s" % exc)

    def _compare(self, start: int, length: int) -> None:
        """Of data that is there twice Linux may read either."""
        first, *others = self._fs.copies(start, length)
        for at in range(0, length if others else 0, _STEP):
            step = min(_STEP, length - at)
            if any(self._volume.read(other + at, step) != self._volume.read(first + at, step) for other in others):
                self._fs.add("copies of its data differ")

    def _conclude(self, nodes: int, total: int, told: Sequence[tuple[int, int, int]]) -> None:
        fs, is_deleting = self._fs, any(tree.start != FIRST for tree in self._fs.trees.values())
        if self._unreached and not is_deleting:
            fs.add("%d nodes of trees are in use, but not reached" % self._unreached)
        if self._lost and not is_deleting:
            fs.add("%d extents are in use, but no file has them" % self._lost)
        if self._sizes:
            fs.add("files have %d extents that are not in use" % len(self._sizes))
        if nodes != len(fs.reached):
            fs.add("%d nodes of trees are not in use" % (len(fs.reached) - nodes))
        groups = [(chunk.start, chunk.length, used) for chunk, used in zip(fs.chunks, self._used)]
        if sorted(told) != groups or total != fs.head.used:
            fs.add("what is in use is not as much as it says")
