# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an NTFS volume holds on top of a base that was found clean.

A file is left out only if its records hold the very same attributes as the base's, but for times and names, and none of
the clusters of any of its attributes differ. Every other file is judged with all its streams, and what differs outside
of judged files is matched as raw bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from .blocks import Blocks
from .delta import Base, match_rest
from .ext4_records import BadFilesystem
from .ioc import folded
from .judge import Judge
from .ntfs import File, Ntfs
from .ntfs_changes import NtfsPair, tell_changes
from .ntfs_judge import NtfsJudge, is_journal, is_own, is_paged, is_store, tell_lost
from .ntfs_records import Run
from .places import Ranges
from .verdict import Where

_STEP = 1024


class NtfsDelta:
    def __init__(self, judge: Judge, where: Where, volume: Blocks, base: Base, remember: bool) -> None:
        if base.index is None:
            raise BadFilesystem("its base has no index")
        self._judge, self._where, self._volume, self._base, self._index = judge, where, volume, base, base.index
        self._new, self._old = Ntfs(volume), Ntfs(base.volume)
        if self._new.geometry() != self._old.geometry():
            raise BadFilesystem("its geometry is not the base's")
        self._files = NtfsJudge(judge, where, self._new, volume, remember)
        self._touched, _attributes = base.index.touched(base.changed, self._new.cluster)
        self._covered: list[tuple[int, int]] = []
        self._pairs: list[NtfsPair] = []

    def run(self, report: bool = True, rest: Ranges | None = None) -> None:
        """`report`: what happened to the files. `rest`: where raw bytes are matched, if not wherever it differs."""
        judge, where = self._judge, self._where
        self._files.doubts()
        judge.emit("expect", {"bytes": self._base.changed.size})
        candidates = self._candidates()
        for number in sorted(candidates):
            judge.each("Record %d on %s" % (number, where), self._record, number)
        self._look_for_paths(candidates)
        rest, label = self._base.changed if rest is None else rest, "differing blocks outside of files"
        match_rest(judge, where, self._volume, rest, Ranges(self._covered), label)
        if report:
            tell_changes(judge, where, self._pairs, self._old, self._new)

    def _candidates(self) -> set[int]:
        """Records whose own bytes or use differ, one of whose clusters differs; and those that such ones continue."""
        new, old = self._new, self._old
        found = self._touched | set(range(min(new.count, old.count), max(new.count, old.count)))
        for low, high in self._stretches():
            found |= self._differ(low // new.record_size, min(-(-high // new.record_size), new.count, old.count))
        for index, (ours, theirs) in enumerate(zip(new.used_bits, old.used_bits)):
            if ours != theirs:
                found |= {8 * index + bit for bit in range(8) if (ours ^ theirs) >> bit & 1}
        for number in list(found):
            found |= {base for fs in (new, old) for base in [_continued(fs, number)] if base is not None}
        return found

    def _stretches(self) -> Ranges:
        """Those of the table, in bytes, that differ or lie elsewhere."""
        size, found = self._new.cluster, list(_moved(self._new.table.runs, self._old.table.runs))
        found = [(first * size, last * size) for first, last in found]
        for vcn, lcn, count in self._new.table.runs:
            start = (lcn or 0) * size
            parts = self._base.changed.within(start, start + count * size)
            found += [(low - start + vcn * size, high - start + vcn * size) for low, high in parts]
        return Ranges(found)

    def _differ(self, low: int, high: int) -> set[int]:
        size, found = self._new.record_size, set()
        for start in range(low, high, _STEP):
            count = min(_STEP, high - start)
            ours, theirs = (fs.read(fs.table, start * size, count * size) for fs in (self._new, self._old))
            steps = range(0, count * size, size) if ours != theirs else ()
            found |= {start + at // size for at in steps if ours[at : at + size] != theirs[at : at + size]}
        return found

    def _record(self, number: int) -> None:
        was, now = _file(self._old, number), None
        base = _continued(self._new, number)
        if base is not None:
            if number not in self._new.file(base).records:
                tell_lost(self._judge, self._where, number)
        elif self._new.is_used(number):
            now = self._new.file(number)
        self._lose(number, was, now)
        if was or now:
            self._pairs.append(NtfsPair(number, was, now, number in self._touched))
        if now and (was is None or self._is_other(was, now) or number in self._touched):
            self._covered += self._files.file(now)
        elif now:
            self._files.indicators(now)

    def _is_other(self, was: File, now: File) -> bool:
        """Whether it differs in content, or in how it is judged."""
        return was.content != now.content or _as_raw_bytes(self._old, was) != _as_raw_bytes(self._new, now)

    def _lose(self, number: int, was: File | None, now: File | None) -> None:
        """Records that continued the file and were not freed, but are not in its list any more."""
        for one in set(was.records if was else ()) - set(now.records if now else ()) - {number}:
            if _continued(self._new, one) == number:
                tell_lost(self._judge, self._where, one)

    def _look_for_paths(self, judged: set[int]) -> None:
        """Files that are what they were may be elsewhere now, since a directory was renamed."""
        names = {folded(path.rsplit("/", 1)[-1]) for path in self._judge.indicators.paths}
        wanted = names | {name.partition(":")[0] for name in names}  # the index knows files, not their streams
        if not wanted:
            return
        start = 0
        for child, end in zip(self._index.children, self._index.name_ends):
            name = self._index.names[start:end].decode("utf-8", "surrogateescape")
            if folded(name) in wanted and child not in judged:
                what = "Record %d on %s" % (child, self._where)
                self._judge.each(what, lambda child=child: self._files.indicators(self._new.file(child)))
            start = end


def _as_raw_bytes(fs: Ntfs, file: File) -> list[bool]:
    """What of it is not judged as a file."""
    streams = (is_own(file, name) or is_journal(file, name) for name in file.streams)
    return [is_paged(file), is_store(fs, file), *streams]


def _file(fs: Ntfs, number: int) -> File | None:
    return fs.file(number) if fs.is_used(number) and fs.base_of(number) is None else None


def _continued(fs: Ntfs, number: int) -> int | None:
    return fs.base_of(number) if fs.is_used(number) else None


def _moved(new: tuple[Run, ...], old: tuple[Run, ...]) -> Iterator[tuple[int, int]]:
    """The clusters of `new`, as (first, last + 1), that do not lie where those of `old` do."""
    for vcn, lcn, count in new:
        at, end = vcn, vcn + count
        while at < end:
            index = bisect_right(old, (at + 1,)) - 1
            start, place, length = old[index] if index >= 0 else (0, None, 0)
            stop = min(end, start + length) if at < start + length else end
            if at >= start + length or place is None or lcn is None or place - start != lcn - vcn:
                yield at, stop
            at = stop
