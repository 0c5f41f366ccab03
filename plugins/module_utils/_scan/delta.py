# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an ext file system holds on top of a base that was found clean: files, names, attributes, and all other blocks.

A file is left out only if its inode is the base's in type, size, flags, map and attributes, and none of the blocks of
its content or its map differ. Everything else is judged as a whole, and what differs outside of judged files is matched
as raw bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Callable

from .baseline import VolumeIndex
from .blocks import Blocks
from .changes import Pair, tell_changes
from .engines import Content
from .ext4 import ROOT, Ext4
from .ext4_records import BadFilesystem, Inode
from .judge import Judge
from .names import NamesOnTop, below
from .partitions import Extent
from .places import GRAIN, Ranges
from .verdict import Where

NO_FILE = " is not read as a file, but a directory names it, which older kernels follow."
_REASONS = 50

Sought = tuple[str, list[bytes]]  # a path, and its parts below a directory


@dataclass(frozen=True)
class Base:
    """A volume as it was in the base, what is known of it, and where the volume of now differs from it.

    Not `is_comparable`: of the volume as it was only metadata can be read, and `changed` is where it was written to.
    """

    volume: Blocks
    index: VolumeIndex | None
    changed: Ranges
    is_comparable: bool = True


def tell_unread(judge: Judge, where: Where, problems: Sequence[str]) -> None:
    """Directories, so many that other reasons have room."""
    for problem in problems[:_REASONS]:
        judge.reason("A directory of %s was not read: %s." % (where, problem))
    if problems[_REASONS:]:
        judge.reason("%d more directories of %s were not read." % (len(problems[_REASONS:]), where))


class ExtDelta:
    def __init__(self, judge: Judge, where: Where, volume: Blocks, old: Ext4, base: Base) -> None:
        if base.index is None:
            raise BadFilesystem("its base has no index")
        self._judge, self._where, self._volume = judge, where, volume
        self._new, self._old = Ext4(volume), old
        self._changed, self._is_comparable = base.changed, base.is_comparable
        self._names = NamesOnTop(self._new, base.index)
        self._touched, self._attributes = base.index.touched(base.changed, old.block_size)
        self.again: frozenset[int] = frozenset()  # the inodes that are not known to be the base's
        self._unlike: set[int] = set()  # of those, all that are not the base's in what they hold
        self._judged: set[int] = set()
        self._covered: list[tuple[int, int]] = []
        self._wanted = judge.indicators.names_as_bytes
        if self._new.geometry() != self._old.geometry():
            raise BadFilesystem("its geometry is not the base's")

    def run(self, report: bool) -> Ranges:
        """Judge all that could differ, and give what the judged files cover."""
        for doubt in self._new.doubts():
            self._judge.reason("%s may look different to the guest: %s." % (self._where.capital, doubt))
        self.again = frozenset(self._candidates())
        pairs = [Pair(number, self._old.used(number), self._new.used(number)) for number in sorted(self.again)]
        unlike = [pair for pair in pairs if not self._is_same(pair)]
        self._unlike = {pair.number for pair in unlike}
        self._read_directories(unlike)
        files = sum(
            pair.new.size for pair in unlike if pair.new and pair.new.is_file and not self._new.is_own(pair.number)
        )
        self._judge.emit("expect", {"bytes": max(files, self._changed.size)})
        for pair in pairs:
            self._judge.each("Inode %d on %s" % (pair.number, self._where), self._inode, pair)
        gone = {pair.number for pair in pairs if not (pair.new and pair.new.mode)}
        for number in sorted({*self._names.touched(), *gone}):
            fresh = set(self._names.entries(number)) - set(self._names.before(number))
            if fresh or number in gone:
                self._judge.each("Inode %d on %s" % (number, self._where), self._entries, number, fresh)
        tell_unread(self._judge, self._where, self._names.problems)
        look_for_paths(self._judge, self._where, self._new)
        if report:
            touched = self._touched if self._is_comparable else None
            tell_changes(self._judge, self._where, pairs, self._old, self._new, self._names, touched)
        return Ranges(self._covered)

    def _candidates(self) -> set[int]:
        """Inodes whose own bytes differ, whose use differs, or one of whose blocks differs."""
        found = self._touched | self._attributes
        size, per_group = self._new.inode_size, self._new.inodes_per_group
        block = self._new.block_size
        for group, ((bitmap, table, flags), before) in enumerate(zip(self._new.groups, self._old.groups)):
            first = group * per_group + 1
            last = min(first + per_group - 1, self._new.inodes_count)
            if (flags ^ before[2]) & 1 or self._changed.touches(bitmap * block, bitmap * block + (per_group + 7) // 8):
                found |= self._toggled(first, last, bool((flags ^ before[2]) & 1), bitmap)
            start = table * block
            for low, high in self._changed.within(start, start + (last - first + 1) * size):
                found |= self._differ(first, start, (low - start) // size, -(-(high - start) // size))
        return found

    def _toggled(self, first: int, last: int, every: bool, bitmap: int) -> set[int]:
        if every:
            return set(range(first, last + 1))
        length = (last - first) // 8 + 1
        at = bitmap * self._new.block_size
        ours, theirs = self._volume.read(at, length), self._old.raw(at, length)
        return {
            first + 8 * index + bit
            for index in range(length)
            if ours[index] != theirs[index]
            for bit in range(8)
            if (ours[index] ^ theirs[index]) >> bit & 1 and first + 8 * index + bit <= last
        }

    def _differ(self, first: int, table: int, low: int, high: int) -> set[int]:
        size = self._new.inode_size
        ours = self._volume.read(table + low * size, (high - low) * size)
        theirs = self._old.raw(table + low * size, (high - low) * size)
        found = set()
        for number, at in zip(range(first + low, self._new.inodes_count + 1), range(0, len(ours), size)):
            if ours[at : at + size] != theirs[at : at + size]:
                found.add(number)
                self._new.keep(number, ours[at : at + size])
                self._old.keep(number, theirs[at : at + size])
        return found

    def _is_same(self, pair: Pair) -> bool:
        return (
            pair.old is not None
            and pair.new is not None
            and pair.old.content == pair.new.content
            and pair.old.may_run == pair.new.may_run  # what may run is judged as a whole, though it looks like swap
            and pair.number not in self._touched
        )

    def _read_directories(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            if pair.new and pair.new.is_dir:
                self._names.read(pair.new)
            elif pair.old and pair.old.is_dir:
                self._names.forget(pair.number)

    def _inode(self, pair: Pair) -> None:
        new = pair.new
        if new is None:
            return
        if new.is_odd:
            self._judge.reason("Inode %d on %s was not read: it is damaged." % (new.number, self._where))
        if new.is_file and pair.number in self._unlike:
            self._file(new)
        if new.acl and (pair.number in self._attributes or pair.old is None or pair.old.acl != new.acl):
            self._judge.attributes(self._where, new.number, self._new.xattr_block(new))

    def _file(self, inode: Inode) -> None:
        if inode.number in self._judged or self._new.is_journal(inode.number):
            return  # what differs in the journal is matched as raw bytes
        self._judged.add(inode.number)
        judge_ext_file(self._judge, self._where, self._new, self._volume, inode, self._names.path, True)
        try:
            self._covered += content_on_volume(self._new, inode)
        except BadFilesystem:
            return  # was told as unread; its blocks are matched as raw bytes

    def _entries(self, number: int, fresh: set[tuple[int, bytes]]) -> None:
        """New names; and names of inodes that look free: the kernel refuses those, e2fsck may revive them."""
        for directory, name in fresh:
            if name in self._wanted:
                self._judge.named(self._where, below(self._names.path(directory), name), "ioc_name")
        if fresh and self._new.is_no_file(number):
            self._judge.reason("Inode %d on %s" % (number, self._where) + NO_FILE)
        inode = self._new.used(number) if number <= self._new.inodes_count else None
        if inode is not None and inode.mode:
            if inode.is_file and fresh:
                self._file(inode)
        elif self._names.entries(number):
            free = self._new.inode(number)
            if free.is_file:
                self._file(free)
            else:
                self._judge.reason(
                    "Inode %d on %s was not read: a directory names it, but it is free." % (number, self._where)
                )


def judge_ext_file(
    judge: Judge,
    where: Where,
    fs: Ext4,
    volume: Blocks,
    inode: Inode,
    path: Callable[[int], bytes],
    remember: bool,
) -> None:
    """Judge one file; remember the judgement by where its content lies, if asked for.

    Not the journal, whose content is judged where it belongs. The resize inode's blocks are matched as raw bytes.
    """
    if fs.is_journal(inode.number):
        return
    if fs.is_resize(inode.number):
        judge.each("The resize inode on %s" % where, _match_blocks, judge, where, fs, volume, inode)
        return

    def read(offset: int, length: int) -> bytes:
        return fs.read(inode, offset, length)

    content = judge.content(inode.size, read, lambda: fs.stretches(inode))
    if not content.is_whole and _is_swap(fs, inode):
        judge.each(
            "Inode %d on %s" % (inode.number, where), _swap, judge, where, fs, inode, content, path(inode.number)
        )
        return
    judge.file(where, content, lambda: path(inode.number), _key(fs, volume, inode) if remember else None)


def _is_swap(fs: Ext4, inode: Inode) -> bool:
    try:
        return fs.is_swap(inode)
    except (BadFilesystem, struct.error):
        return False  # who judges it as a file says why it can't be read


def _swap(judge: Judge, where: Where, fs: Ext4, inode: Inode, content: Content, path: bytes) -> None:
    read, stretches = fs.swapped(inode)
    judge.paged(where, content, path, Content(inode.size, read, 0, lambda: stretches))


def _match_blocks(judge: Judge, where: Where, fs: Ext4, volume: Blocks, inode: Inode) -> None:
    for start, end in Ranges(content_on_volume(fs, inode)):
        judge.raw(where, volume, Extent(start, end - start), "resize inode", tuple(volume.places(start, end - start)))


def _key(fs: Ext4, volume: Blocks, inode: Inode) -> Hashable | None:
    """Equal for two states of a file only if their content is the same."""
    if fs.is_inline(inode):
        return None
    try:
        pieces = fs.scattered(inode).pieces
    except (BadFilesystem, struct.error):
        return None
    places = [(at, *place) for at, low, high in pieces for place in volume.places(low, high - low)]
    return inode.flags, inode.size, fs.block_size, tuple(places)


def content_on_volume(fs: Ext4, inode: Inode) -> list[tuple[int, int]]:
    """Where the bytes of a file lie; what follows its end in its last block is none of them."""
    if fs.is_inline(inode):
        return []
    pieces = fs.scattered(inode).pieces
    return [(low, min(high, low + inode.size - at)) for at, low, high in pieces if at < inode.size]


def look_for_paths(judge: Judge, where: Where, fs: Ext4) -> None:
    """Is there anything at them? Each directory on the way is read once; symbolic links are not followed."""
    paths = sorted(judge.indicators.paths)
    pending: dict[int, list[Sought]] = {
        ROOT: [(path, path.encode("utf-8", "surrogateescape").strip(b"/").split(b"/")) for path in paths]
    }
    while pending and paths:
        number, sought = pending.popitem()
        what = "Directory %d on %s, which is on the way to a path that is looked for," % (number, where)
        judge.each(what, _look_below, judge, where, fs, number, sought, pending)


def _look_below(
    judge: Judge, where: Where, fs: Ext4, number: int, sought: list[Sought], pending: dict[int, list[Sought]]
) -> None:
    directory = fs.inode(number)
    if not directory.is_dir:
        return
    named: dict[bytes, list[Sought]] = {}
    for path, parts in sought:
        named.setdefault(parts[0], []).append((path, parts[1:]))
    for child, name in fs.entries(directory):
        for path, parts in named.pop(name, ()):
            if not parts:
                judge.named(where, path, "ioc_path")
            elif 1 <= child <= fs.inodes_count:
                pending.setdefault(child, []).append((path, parts))


def match_rest(judge: Judge, where: Where, source: Blocks, changed: Ranges, covered: Ranges, label: str) -> None:
    """Match what differs outside of judged files, with a little of what lies around it."""
    for start, end in changed.minus(covered):
        low = max(0, start - GRAIN) if not covered.touches(start - GRAIN, start) else start
        high = min(end + GRAIN, source.size) if not covered.touches(end, end + GRAIN) else end
        judge.raw(where, source, Extent(low, high - low), label, tuple(source.places(low, high - low)))
