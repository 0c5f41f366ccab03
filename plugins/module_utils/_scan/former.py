# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk as an earlier scan found it clean, when it cannot be read any more: what was kept of it, for a later scan.

Of ext, the superblock, group descriptors, inode bitmaps, inode tables and attributes are kept as they were after the
journal's replay; contents are not. What the replay put in place counts as written ever since, for the disk itself
never held it. All other file systems are the same only if nothing was written to them.
"""

from __future__ import annotations

import re
from array import array
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .baseline import VolumeIndex, build, packed
from .blocks import Blocks, is_blank
from .delta import Base
from .ext4 import Ext4
from .ext4_records import BadFilesystem
from .foreign import identify
from .journal import Replayed
from .judge import Emit
from .partitions import Extent, find_gaps, read_table
from .places import GRAIN, Ranges, differing

MOST = 32 << 20  # bytes of all that one child tells for a later scan; of its messages 64 MiB are taken
_STEP = 1 << 20
_KEY = re.compile(r"@(\d+)\+(\d+)")


class Remembered(Blocks):
    """What was kept of a volume. A file system's reader that asks for more is told so, never given zeros."""

    def __init__(self, index: VolumeIndex, size: int) -> None:
        self.kind, self.size = index.kind, size
        self._starts, self._ends = index.known_starts, index.known_ends
        self._place = {at: number for number, at in enumerate(index.kept_at)}
        self._kept = index.kept

    def read(self, offset: int, length: int) -> bytes:
        index = bisect_right(self._starts, offset) - 1
        if length and (index < 0 or offset + length > self._ends[index]):
            raise BadFilesystem("its former bytes were not kept")
        first = offset - offset % GRAIN
        data = b"".join(self._block(at) for at in range(first, offset + length, GRAIN))
        return data[offset - first : offset - first + length]

    def _block(self, at: int) -> bytes:
        number = self._place.get(at)
        return bytes(GRAIN) if number is None else self._kept[number * GRAIN : (number + 1) * GRAIN]


@dataclass(frozen=True)
class Below:
    """What a disk is compared with: the disk that it lies on or, without one, what the index remembers of it."""

    disk: Blocks | None
    changed: Ranges
    index: dict[str, VolumeIndex]

    def parts(self) -> list[Extent]:
        if self.disk is not None:
            return read_table(self.disk).parts or [Extent(0, self.disk.size)]
        found = (_KEY.fullmatch(key) for key in self.index)
        return [Extent(int(one.group(1)), int(one.group(2))) for one in found if one]

    def base(self, part: Extent) -> Base:
        known, changed = self.index.get(volume_key("", part.start, part.size)), self.changed.part(part.start, part.size)
        if self.disk is not None:
            return Base(read_table(self.disk).volume(self.disk, part), known, changed)
        known = known or VolumeIndex()
        replayed = Ranges(zip(known.replayed_starts, known.replayed_ends))
        return Base(Remembered(known, part.size), known, changed.plus(replayed), is_comparable=False)


def unmatched(below: Below, size: int) -> Ranges:
    """What no scan has matched as a gap: what was written, and what a volume covered then, with its free blocks."""
    gaps = Ranges((gap.start, gap.end) for gap in find_gaps(below.parts(), size))
    return below.changed.plus(Ranges([(0, size)]).minus(gaps))


def kind_of(volume: Blocks) -> str:
    if not isinstance(volume, Remembered):
        return identify(volume)
    return "unknown" if volume.kind == "empty" else volume.kind  # nothing but zeros tells no kind


def volume_key(label: str, start: int, size: int) -> str:
    """What an index calls a volume."""
    return "%s@%d+%d" % (label, start, size)


def remember(
    kind: str, volume: Blocks, view: Replayed | None, base: Base | None = None, again: frozenset[int] | None = None
) -> VolumeIndex:
    """What a later scan must know of this volume, which is clean in this `view` of it.

    Only the inodes of `again` may differ from those of the `base`; of one that is remembered, the rest is taken over.
    """
    if kind != "ext":
        return VolumeIndex(kind=kind)
    seen = volume if view is None else view
    fs, before = Ext4(seen), base.index if base is not None and again is not None else None
    replayed = Ranges((start, start + length) for start, length in view.stretches()) if view is not None else Ranges()
    index = replace(build(fs, before, again or frozenset()), kind=kind)
    index.replayed_starts, index.replayed_ends = _columns(replayed)
    known = _in_grains(_metadata(fs, index))
    index.known_starts, index.known_ends = _columns(known)
    if base is not None and before is not None and not base.is_comparable:
        blocks = dict(_kept(before, known, base.changed))
        blocks.update(_read(seen, known, base.changed))
    else:
        blocks = dict(_read(seen, known, Ranges([(0, volume.size)])))
    places = sorted(blocks)
    index.kept_at, index.kept = array("Q", places), b"".join(blocks[at] for at in places)
    return index


def _columns(ranges: Ranges) -> tuple[array[int], array[int]]:
    rows = list(ranges)
    return array("Q", (start for start, _end in rows)), array("Q", (end for _start, end in rows))


def _metadata(fs: Ext4, index: VolumeIndex) -> Iterator[tuple[int, int]]:
    """All that a comparison of inodes reads of the former state."""
    size = fs.block_size
    yield 0, fs.descriptors_end
    for bitmap, table, _flags in fs.groups:
        yield bitmap * size, bitmap * size + (fs.inodes_per_group + 7) // 8
        yield table * size, table * size + fs.inodes_per_group * fs.inode_size
    yield from ((block * size, (block + 1) * size) for block in index.acls)


def _kept(old: VolumeIndex, known: Ranges, changed: Ranges) -> Iterator[tuple[int, bytes]]:
    for number, at in enumerate(old.kept_at):
        if known.touches(at, at + GRAIN) and not changed.touches(at, at + GRAIN):
            yield at, old.kept[number * GRAIN : (number + 1) * GRAIN]


def _read(volume: Blocks, known: Ranges, changed: Ranges) -> Iterator[tuple[int, bytes]]:
    """The blocks of `known` that were written, and are not all zeros."""
    for start, end in _in_grains(part for span in known for part in changed.within(*span)):
        for at in range(start, end, _STEP):
            data = volume.read(at, min(_STEP, end - at))
            for place in range(0, len(data), GRAIN):
                block = data[place : place + GRAIN]
                if not is_blank(block):
                    yield at + place, block


def _in_grains(stretches: Iterable[tuple[int, int]]) -> Ranges:
    return Ranges((start - start % GRAIN, end + -end % GRAIN) for start, end in stretches)


def tell_records(emit: Emit, records: dict[str, dict[str, VolumeIndex]]) -> None:
    """What does not fit beside the other messages is not kept: the next scan reads all, this one has its verdict."""
    room = MOST
    for name, record in records.items():
        try:
            parts = list(packed(record, room))
        except Exception as exc:  # noqa: BLE001 - memory may have run out
            why = str(exc).rstrip(".") or type(exc).__name__
            emit("note", {"text": "No record of disk %s is kept for a later scan: %s." % (name, why)})
            continue
        room -= sum(map(len, parts))
        for part in parts:
            emit("record", {"disk": name, "data": b64encode(part).decode()})


def as_replayed(base: Base, view: Replayed) -> Base:
    """A base, and where the volume differs from it once its journal is replayed."""
    written = Ranges((start, start + length) for start, length in view.stretches())
    fresh = differing(view, base.volume, view.stretches()) if base.is_comparable else written
    return replace(base, changed=base.changed.minus(written).plus(fresh))
