# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes into the trees of a btrfs as somebody does who knows the format, checksums and all."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Blocks
from ansible_collections.vmward.remediation.plugins.module_utils._scan.btrfs import Btrfs
from ansible_collections.vmward.remediation.plugins.module_utils._scan.btrfs_records import LOG, ROOT
from ansible_collections.vmward.remediation.plugins.module_utils._scan.btrfs_sums import checksum
from ansible_collections.vmward.remediation.tests.corpus import disks

SUPER, MIRROR, HEAD, ITEM, POINTER = 0x10000, 64 * disks.MB, 101, 25, 33
METADATA = 4


class Item(NamedTuple):
    """Where its row and what it holds lie in the image."""

    number: int
    kind: int
    offset: int
    row: int
    at: int
    size: int


class _Memory(Blocks):
    def __init__(self, raw: bytes) -> None:
        self._raw, self.size = raw, len(raw)

    def read(self, offset: int, length: int) -> bytes:
        return self._raw[offset : offset + length]


class Forger:
    """Of an image with checksums by crc32c."""

    def __init__(self, raw: bytes, size: int = 16384) -> None:
        """`size` of a node."""
        self.raw, self._size = bytearray(raw), size
        identity = raw[SUPER + 32 : SUPER + 48]
        starts = (at for at in range(0, len(raw), size) if at not in (SUPER, MIRROR))
        self.nodes = [at for at in starts if raw[at + 32 : at + 48] == identity]

    def inner(self) -> list[int]:
        """Nodes above leaves."""
        return [at for at in self.nodes if self.raw[at + 100]]

    def count(self, node: int) -> int:
        return int(struct.unpack_from("<I", self.raw, node + 96)[0])

    def items(self, kind: int, tree: int = 0) -> Iterator[Item]:
        """In each copy of their leaves."""
        for node in self.nodes:
            if not self.raw[node + 100] and tree in (0, struct.unpack_from("<Q", self.raw, node + 88)[0]):
                for row in range(node + HEAD, node + HEAD + self.count(node) * ITEM, ITEM):
                    number, one, offset, start, size = struct.unpack_from("<QBQII", self.raw, row)
                    if one == kind:
                        yield Item(number, kind, offset, row, node + HEAD + start, size)

    def put(self, at: int, data: bytes) -> None:
        self.raw[at : at + len(data)] = data

    def number(self, at: int, value: int) -> None:
        self.put(at, struct.pack("<Q", value))

    def opened(self) -> Btrfs:
        return Btrfs(_Memory(bytes(self.raw)))

    def add_log(self, tree: int, items: Sequence[tuple[int, int, int, bytes]]) -> None:
        """One of a subvolume, whose items are told by their keys and what they hold."""
        fs = self.opened()
        chunk = next(one for one in fs.chunks if one.kind & METADATA)
        leaf, top = chunk.end - 2 * self._size, chunk.end - self._size
        root = bytearray(next(bytes(self.raw[one.at : one.at + one.size]) for one in self.items(ROOT, 1)))
        struct.pack_into("<QQQ", root, 160, fs.head.generation + 1, 256, leaf)
        root[238] = 0
        self._put_leaf(fs, leaf, items)
        self._put_leaf(fs, top, [(LOG, ROOT, tree, bytes(root))])
        self.number(SUPER + 96, top)
        self.number(SUPER + 104, 0)
        self.put(SUPER + 200, b"\0")

    def _put_leaf(self, fs: Btrfs, address: int, items: Sequence[tuple[int, int, int, bytes]]) -> None:
        raw, end = bytearray(self._size), self._size - HEAD
        raw[:HEAD] = self.raw[self.nodes[0] : self.nodes[0] + HEAD]
        struct.pack_into("<Q", raw, 48, address)
        struct.pack_into("<QQIB", raw, 80, fs.head.generation + 1, LOG, len(items), 0)
        for row, (number, kind, offset, held) in enumerate(sorted(items)):
            end -= len(held)
            struct.pack_into("<QBQII", raw, HEAD + row * ITEM, number, kind, offset, end, len(held))
            raw[HEAD + end : HEAD + end + len(held)] = held
        for place in fs.copies(address, self._size):
            self.put(place, bytes(raw))
            self.nodes.append(place)

    def save(self, place: Path) -> Path:
        """With checksums that fit."""
        for at, size in ((SUPER, 4096), (MIRROR, 4096), *((node, self._size) for node in self.nodes)):
            self.put(at, checksum(0, bytes(self.raw[at + 32 : at + size])))
        with place.open("wb") as file:
            file.truncate(len(self.raw))
            for at in range(0, len(self.raw), self._size):
                if self.raw.count(0, at, at + self._size) != self._size:
                    file.seek(at)
                    file.write(self.raw[at : at + self._size])
        return place
