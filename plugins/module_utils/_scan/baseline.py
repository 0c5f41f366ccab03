# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must be known of a base to judge a disk on top of it: whose its blocks are, and what inodes are called."""

from __future__ import annotations

import json
import struct
import sys
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from .ext4 import Ext4
from .ext4_records import BadFilesystem, Inode
from .places import Ranges

FORMAT = 3
PART = 32 << 10  # bytes of a packed index in one message
_ROWS = ("starts", "counts", "owners", "acls", "acl_owners", "children", "parents", "name_ends")
_ARRAYS = (*_ROWS, "known_starts", "known_ends", "kept_at", "replayed_starts", "replayed_ends")
_BYTES = ("names", "contents", "listing", "kept")


def _numbers() -> array[int]:
    return array("Q")


@dataclass
class VolumeIndex:
    """One volume of a base: of ext and NTFS, arrays by block, by block, and by inode of the child; of others, keys.

    The last part is filled only where the volume itself cannot be read again: see `former`.
    """

    starts: array[int] = field(default_factory=_numbers)
    counts: array[int] = field(default_factory=_numbers)
    owners: array[int] = field(default_factory=_numbers)
    acls: array[int] = field(default_factory=_numbers)
    acl_owners: array[int] = field(default_factory=_numbers)
    children: array[int] = field(default_factory=_numbers)
    parents: array[int] = field(default_factory=_numbers)
    name_ends: array[int] = field(default_factory=_numbers)
    names: bytes = b""
    contents: bytes = b""
    listing: bytes = b""
    kind: str = ""
    known_starts: array[int] = field(default_factory=_numbers)
    known_ends: array[int] = field(default_factory=_numbers)
    kept_at: array[int] = field(default_factory=_numbers)
    kept: bytes = b""
    replayed_starts: array[int] = field(default_factory=_numbers)
    replayed_ends: array[int] = field(default_factory=_numbers)

    def touched(self, changed: Ranges, block_size: int) -> tuple[set[int], set[int]]:
        """The inodes that own a changed block as content or map, and those that own one as attributes."""
        content: set[int] = set()
        attributes: set[int] = set()
        for start, end in changed:
            first, last = start // block_size, (end - 1) // block_size
            index = bisect_right(self.starts, first) - 1
            if index >= 0 and self.starts[index] + self.counts[index] <= first:
                index += 1
            index = max(index, 0)
            while index < len(self.starts) and self.starts[index] <= last:
                content.add(self.owners[index])
                index += 1
            for place in range(bisect_left(self.acls, first), bisect_right(self.acls, last)):
                attributes.add(self.acl_owners[place])
        return content, attributes

    def entries(self, child: int) -> Iterator[tuple[int, bytes]]:
        """Every directory and name under which an inode is listed."""
        for index in range(bisect_left(self.children, child), bisect_right(self.children, child)):
            start = self.name_ends[index - 1] if index else 0
            yield self.parents[index], self.names[start : self.name_ends[index]]

    def children_of(self, directories: set[int]) -> Iterator[int]:
        return compress(self.children, map(directories.__contains__, self.parents))


def build(fs: Ext4, before: VolumeIndex | None = None, again: frozenset[int] = frozenset()) -> VolumeIndex:
    """Of all inodes; or of those of `again`, all others being as `before` has them."""
    blocks: list[tuple[int, int, int]] = []
    acls: list[tuple[int, int]] = []
    entries: list[tuple[int, int, bytes]] = []
    inodes: Iterable[Inode] = fs.used_inodes()
    if before is not None:
        blocks, acls, entries = _rows_without(before, again)
        inodes = (inode for inode in map(fs.used, sorted(again)) if inode is not None)
    for inode in inodes:
        if fs.is_journal(inode.number):
            continue
        if inode.acl:
            acls.append((inode.acl, inode.number))
        if not (inode.is_file or inode.is_dir):
            continue
        if not fs.is_inline(inode):
            nodes: list[int] = []
            blocks += [(span.physical, span.count, inode.number) for span in fs.spans(inode, nodes) if span.physical]
            blocks += [(block, 1, inode.number) for block in nodes]
        if inode.is_dir:
            entries += [(number, inode.number, name) for number, name in fs.entries(inode)]
    return in_order(blocks, acls, entries)


def _rows_without(
    index: VolumeIndex, gone: frozenset[int]
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]], list[tuple[int, int, bytes]]]:
    """The rows of an index, but for those that these inodes made."""
    blocks = [row for row in zip(index.starts, index.counts, index.owners) if row[2] not in gone]
    acls = [row for row in zip(index.acls, index.acl_owners) if row[1] not in gone]
    entries, start = [], 0
    for child, parent, end in zip(index.children, index.parents, index.name_ends):
        if parent not in gone:
            entries.append((child, parent, index.names[start:end]))
        start = end
    return blocks, acls, entries


def in_order(
    blocks: list[tuple[int, int, int]], acls: list[tuple[int, int]], entries: list[tuple[int, int, bytes]]
) -> VolumeIndex:
    """An index of (start, count, owner), of (block, owner), and of (child, parent, name)."""
    blocks.sort()
    for one, other in zip(blocks, blocks[1:]):
        if one[0] + one[1] > other[0]:
            raise BadFilesystem("two of its files claim the same block")
    entries.sort(key=lambda entry: entry[:2])
    acls.sort()
    ends, at = [], 0
    for _child, _parent, name in entries:
        at += len(name)
        ends.append(at)
    return VolumeIndex(
        starts=array("Q", (row[0] for row in blocks)),
        counts=array("Q", (row[1] for row in blocks)),
        owners=array("Q", (row[2] for row in blocks)),
        acls=array("Q", (row[0] for row in acls)),
        acl_owners=array("Q", (row[1] for row in acls)),
        children=array("Q", (row[0] for row in entries)),
        parents=array("Q", (row[1] for row in entries)),
        name_ends=array("Q", ends),
        names=b"".join(row[2] for row in entries),
    )


def pack(volumes: dict[str, VolumeIndex]) -> Iterator[bytes]:
    """As compressed bytes, in parts."""
    head = {
        "format": FORMAT,
        "volumes": [
            {
                "key": key,
                "kind": one.kind,
                **{name: len(getattr(one, name)) for name in (*_ARRAYS, *_BYTES)},
            }
            for key, one in volumes.items()
        ],
    }
    raw = json.dumps(head).encode()
    packer = zlib.compressobj(1)
    yield packer.compress(struct.pack("<I", len(raw)) + raw)
    for one in volumes.values():
        for name in _ARRAYS:
            yield packer.compress(_little(getattr(one, name)).tobytes())
        for name in _BYTES:
            yield packer.compress(getattr(one, name))
    yield packer.flush()


def packed(volumes: dict[str, VolumeIndex], most: int) -> Iterator[bytes]:
    """The same in messages, of at most so many bytes together."""
    size = 0
    for part in chunks(pack(volumes), PART):
        size += len(part)
        if size > most:
            raise ValueError("it would be larger than %d MiB" % (most >> 20))
        yield part


def unpack(data: bytes) -> dict[str, VolumeIndex]:
    raw = zlib.decompress(data)
    length = struct.unpack_from("<I", raw)[0]
    head, at = json.loads(raw[4 : 4 + length]), 4 + length
    if head["format"] != FORMAT:
        raise ValueError("the index is of another version")
    volumes = {}
    for entry in head["volumes"]:
        fields: dict[str, Any] = {"kind": str(entry["kind"])}
        for name in _ARRAYS:
            values = array("Q", raw[at : at + 8 * entry[name]])
            fields[name] = _little(values)
            at += 8 * entry[name]
        for name in _BYTES:
            fields[name] = raw[at : at + entry[name]]
            at += entry[name]
        volumes[entry["key"]] = VolumeIndex(**fields)
    return volumes


def _little(values: array[int]) -> array[int]:
    if sys.byteorder == "big":
        values = array("Q", values)
        values.byteswap()
    return values


def chunks(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in parts of one size."""
    rest = b""
    for part in parts:
        rest += part
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if rest:
        yield rest
