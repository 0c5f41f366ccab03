# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judges file systems other than ext: all their files or, on top of a clean base, those that are not the base's.

Every directory is walked either way. A file is left out only if the base held one with the very same runs, size and
block size, and none of the blocks of these runs differ: then it is that file's content, which was found clean.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any, Callable

from .baseline import VolumeIndex
from .blocks import Blocks
from .delta import Base, match_rest
from .foreign import open_volume
from .judge import Judge
from .layout import ForeignFile, Layout, keys
from .other_changes import ENTRY_OF, Entry, pack, tell_changes, unpack
from .places import Ranges, differing
from .verdict import Where, printable
from .xfs_replay import Patched, replay

_STEP = 1 << 20


def judge_other(
    judge: Judge, where: Where, kind: str, volume: Blocks, base: Base | None = None, indexing: bool = False
) -> VolumeIndex:
    """An XFS as its log makes it, and what differs as it lies: a guest that mounts it without recovery sees that."""
    if kind != "xfs":
        return Other(judge, where, kind, volume, base, indexing).run()
    view, old = _replayed(judge, where, volume), replay(base.volume) if base is not None else None
    if base is not None and (view or old):
        written = [part for patched in (view, old) if patched for part in patched.stretches()]
        fresh = differing(view or volume, old or base.volume, written)
        spread = Ranges((start, start + length) for start, length in written)
        base = replace(base, volume=old or base.volume, changed=base.changed.minus(spread).plus(fresh))
    index = Other(judge, where, kind, view or volume, base, indexing or view is not None).run()
    if view is not None:
        before = Base(view, index, differing(volume, view, view.stretches()))
        what = "%s before its log is replayed" % where.capital
        with judge.leniently(what):
            judge.guard(what, Other(judge, where, kind, volume, before).run, False)
        judge.note("%s was read as its log makes it, and as it lies." % where.capital)
    return index


def _replayed(judge: Judge, where: Where, volume: Blocks) -> Patched | None:
    try:
        return replay(volume)
    except Exception as exc:  # noqa: BLE001 - the edge to a parser that an attacker feeds
        judge.reason(
            "%s may look different to the guest: its log may hold changes that are not yet written (%s). "
            "Start and shut the VM down cleanly, or mount a copy." % (where.capital, str(exc) or type(exc).__name__)
        )
        return None


class Other:
    """Without a `base`, `indexing`: keep the keys of all contents and the names in all directories for the index."""

    def __init__(
        self, judge: Judge, where: Where, kind: str, volume: Blocks, base: Base | None = None, indexing: bool = False
    ) -> None:
        self._judge, self._where, self._volume = judge, where, volume
        self._fs = open_volume(kind, volume)
        self._base = base
        self._index = base.index if base is not None else None
        self._known = keys(self._index.contents) if self._index is not None else frozenset()
        self._covered: list[tuple[int, int]] = []
        self._found: set[bytes] = set()
        self._kind, self._entries = kind, list[Entry]()
        self._indexing = indexing
        self._entry_of = ENTRY_OF.get(kind) if indexing or self._index is not None else None
        self._differing: set[str] = set()
        self._this = object()  # a file of another volume, or of another state of this one, is another file

    def run(self, report: bool = True) -> VolumeIndex:
        """`report`: what happened to the files."""
        judge, told = self._judge, self._where.capital
        for doubt in self._fs.doubts():
            judge.reason("%s may look different to the guest: %s." % (told, doubt))
        judge.emit("expect", {"bytes": self._base.changed.size if self._base is not None else self._volume.size})
        for file in chain(self._fs.files(see=self._see), self._fs.unnamed()):
            self._file(file)
        for number, read in self._fs.attributes():
            judge.each("Attributes of inode %d on %s" % (number, self._where), self._attributes, number, read)
        unproven = self._fs.unproven()
        if unproven:
            judge.reason("%s was read, but not provably as a whole: %s." % (told, unproven))
        for part in self._fs.edges() if self._base is None else ():
            judge.raw(self._where, self._volume, part, "beside the file system")
        if self._base is not None:
            label, covered = "differing blocks outside of files", Ranges(self._covered)
            match_rest(judge, self._where, self._volume, self._base.changed, covered, label)
        if self._index is not None and report:
            what, before = "What happened to the files of %s" % self._where, unpack(self._index.listing)
            judge.each(what, tell_changes, judge, self._where, self._kind, before, self._entries, self._differing)
        if not self._indexing:
            return VolumeIndex()
        return VolumeIndex(contents=b"".join(sorted(self._found)), listing=pack(self._entries))

    def _see(self, directory: Any, entry: Any) -> None:
        make, judge = self._entry_of, self._judge
        of_path, within = judge.indicators.of_path, getattr(entry, "within", entry.path)
        for rule in sorted({*of_path(entry.path, self._kind), *of_path(within, self._kind)}):
            judge.named(self._where, entry.path, rule)

        def add() -> None:
            if make is not None:
                self._entries.append(make(directory, entry))

        if make is not None:
            self._judge.each("%s on %s" % (printable(entry.path, 300), self._where), add)

    def _file(self, file: ForeignFile) -> None:
        judge, path = self._judge, file.path
        layout = file.layout() if self._indexing or self._base is not None else None
        if self._indexing and layout:
            self._found.add(layout.key)
        if self._base is not None:
            if self._is_same(layout):
                return
            self._differing.add(path)
            self._covered += layout.content if layout else ()
        key = (self._this, file.key) if file.key is not None else None
        judge.file(self._where, judge.content(file.size, file.read, file.stretches), lambda: path, key)

    def _attributes(self, number: int, read: Callable[[], bytes]) -> None:
        self._judge.attributes(self._where, number, read())

    def _is_same(self, layout: Layout | None) -> bool:
        if self._base is None or layout is None or layout.key not in self._known:
            return False
        # Blocks are compared in a coarse grain, so a neighbour may have been meant
        touched = [part for run in layout.runs for part in self._base.changed.within(*run)]
        if not all(self._is_equal(self._base.volume, low, high) for low, high in touched):
            return False
        self._covered += touched
        return True

    def _is_equal(self, old: Blocks, low: int, high: int) -> bool:
        steps = ((at, min(_STEP, high - at)) for at in range(low, high, _STEP))
        return all(self._volume.read(at, length) == old.read(at, length) for at, length in steps)
