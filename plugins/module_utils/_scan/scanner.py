# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The scan itself, as it runs in the confined child: every disk, every volume, every file, through every engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Callable

from .baseline import VolumeIndex, build
from .blocks import Blocks
from .chain import Layer, open_chain
from .delta import Base, ExtDelta, match_rest
from .ext4 import Ext4
from .ext4_judge import judge_files
from .ext4_records import BadFilesystem
from .foreign import COMPARABLE, READABLE, identify
from .former import Below, as_replayed, kind_of, remember, unmatched, volume_key
from .journal import Replayed, replay
from .judge import Judge
from .lvm import read_groups
from .marks import SEVERAL, marks
from .ntfs_delta import NtfsDelta
from .ntfs_index import build as build_ntfs
from .ntfs_judge import NtfsScan
from .ntfs_shadows import judge_shadows
from .other import judge_other
from .partitions import Extent, Table, find_gaps, read_table
from .physical import Physical, lying_before, match_beside
from .places import Ranges, apart, differing
from .verdict import Change, Volume, Where, printable

_PARTITIONS_AT = 446
_AS_RAW = {"swap": "swap", "boot": "boot code"}

# Name of the disk, and the layers of its base
BaseKey = tuple[str, tuple[Layer, ...]]


@dataclass(frozen=True)
class DiskSpec:
    """`clone_of`: what the disk is a full copy of. `base` was found clean, and `index` is what is known of it.

    `written`: where the disk was written to since an earlier scan found it clean; the index is then of that scan.
    `doubt`: why that is not known.
    """

    name: str
    layers: tuple[Layer, ...]
    snapshot: str = ""
    clone_of: tuple[Layer, ...] = ()
    base: tuple[Layer, ...] = ()
    index: dict[str, VolumeIndex] | None = None
    written: tuple[tuple[int, int], ...] = ()
    doubt: str = ""


@dataclass
class Read:
    """How an ext volume was read: as its journal makes it, and which inodes may differ from those of its base."""

    view: Replayed | None = None
    base: Base | None = None
    again: frozenset[int] | None = None


@dataclass
class Seen:
    """A state of a disk that was scanned: where it differs from its base."""

    disk: Blocks
    changed: Ranges


class Scanner:
    """`indexing`: keep what a later scan on top must know. `remember`: judge what several states share once.

    `records`: by disk, what a later scan of the very same disk must know, once this one is found clean.
    """

    def __init__(self, judge: Judge, indexing: bool = False, remember: bool = False, recording: bool = False) -> None:
        self._judge = judge
        self._remember = remember
        self.index: dict[str, VolumeIndex] | None = {} if indexing else None
        self.records: dict[str, dict[str, VolumeIndex]] | None = {} if recording else None
        self._read = Read()
        self._physical: list[Physical] = []
        self._bases: dict[BaseKey, Blocks] = {}
        self._before: dict[BaseKey, Seen] = {}
        self.disks: dict[str, Blocks] = {}
        self._method = "full"

    def run(self, disks: Sequence[DiskSpec]) -> None:
        self._physical, self.disks = [], {}
        for disk in disks:
            self._judge.guard("Disk %s" % disk.name, self._disk, disk)
        self._judge.guard("LVM", self._logical_volumes)
        self._judge.flush()
        self._judge.tell(force=True)

    def _disk(self, spec: DiskSpec) -> None:
        if spec.index is None:
            disk = self.disks[spec.name] = open_chain(spec.layers, spec.snapshot)
            self._parts_of(spec.name, disk, None)
            return
        if not spec.base:
            disk = self.disks[spec.name] = open_chain(spec.layers)
            self._parts_of(spec.name, disk, Below(None, Ranges(spec.written), spec.index))
            return
        key = spec.name, spec.base
        if key not in self._bases:
            self._bases[key] = open_chain(spec.base)
        old = self._bases[key]
        depth = len(spec.layers) - len(spec.base)
        if spec.layers[depth:] == spec.base:
            disk = open_chain(spec.layers[:depth], spec.snapshot, old)
        else:
            disk = open_chain(spec.layers, spec.snapshot)
        self.disks[spec.name] = disk
        changed = self._changed(key, disk, old)
        self._parts_of(spec.name, disk, Below(old, changed, spec.index))

    def _changed(self, key: BaseKey, disk: Blocks, old: Blocks) -> Ranges:
        """Compare with the base only what lies elsewhere than in the state that was scanned before."""
        before = self._before.get(key)
        if before is None:
            changed = differing(disk, old, apart(disk, old))
        else:
            moved = list(apart(disk, before.disk))
            fresh = differing(disk, old, moved)
            grown = Ranges((start, start + length) for start, length in moved)
            changed = Ranges((low, min(high, disk.size)) for low, high in before.changed).minus(grown).plus(fresh)
        if self._remember:
            self._before[key] = Seen(disk, changed)
        return changed

    def _parts_of(self, name: str, disk: Blocks, below: Below | None) -> None:
        if self.records is not None:
            self.records[name] = {}
        table = self._table(name, disk)
        parts = table.parts or [Extent(0, disk.size)]
        former = self._compare_tables(name, disk, below, parts)
        index = below.index if below is not None else {}
        for number, part in enumerate(parts):
            base = below.base(part) if below is not None and part in former else None
            self._volume(Where(name, number + 1), table.volume(disk, part), part.start, base, index)
        self._gaps(name, disk, find_gaps(parts, disk.size), below)

    def _table(self, name: str, disk: Blocks) -> Table:
        kind, table = identify(disk), read_table(disk)
        for doubt in table.doubts:
            self._judge.reason("Disk %s may look different to the guest: %s." % (name, doubt))
        # mkfs.fat pretends that what it makes of a whole disk is a partition, of whole tracks
        is_same = table.parts == [Extent(0, disk.size)] or (kind == "fat" and [p.start for p in table.parts] == [0])
        if table.parts and kind != "unknown" and not is_same:
            self._judge.reason("Disk %s holds a partition table and a file system (%s) in one place." % (name, kind))
        return table

    def _compare_tables(self, name: str, disk: Blocks, below: Below | None, parts: list[Extent]) -> list[Extent]:
        if below is None:
            return []
        former, old = below.parts(), below.disk
        for part in sorted(set(parts) ^ set(former), key=lambda part: part.start):
            what = "new" if part in parts else "deleted"
            self._change(name, 0, what, "partition at byte %d" % part.start, part.size)
        has_table = parts != [Extent(0, disk.size)]
        if old is not None and has_table and disk.read(0, _PARTITIONS_AT) != old.read(0, _PARTITIONS_AT):
            self._change(name, 0, "changed", "boot sector", _PARTITIONS_AT)
        return former

    def _change(self, disk: str, volume: int, kind: str, path: str, size: int) -> None:
        change = Change(disk, volume, kind, "(%s)" % path, "", "disk", size, "", 0, 0)
        self._judge.emit("change", vars(change))

    def _gaps(self, name: str, disk: Blocks, gaps: list[Extent], below: Below | None) -> None:
        where, label = Where(name, 0), "outside of volumes"
        if below is not None:
            fresh = unmatched(below, disk.size)
            for gap in gaps:
                changed = Ranges(below.changed.within(gap.start, gap.end))
                if changed:
                    self._change(name, 0, "changed", label, changed.size)
                part = Ranges(fresh.within(gap.start, gap.end))
                self._judge.guard(
                    "A gap of disk %s" % name, match_rest, self._judge, where, disk, part, Ranges(), label
                )
            return
        if gaps:
            size = sum(gap.size for gap in gaps)
            self._judge.note("Disk %s: %d bytes outside of its volumes were matched as raw bytes." % (name, size))
        for gap in gaps:
            self._judge.guard("A gap of disk %s" % name, self._judge.raw, where, disk, gap, label)

    def _volume(
        self,
        where: Where,
        volume: Blocks,
        start: int,
        base: Base | None,
        index: dict[str, VolumeIndex],
        label: str = "",
    ) -> None:
        kind = "unknown"
        before = self._judge.reasons
        self._method, self._read = "full", Read()

        def scan() -> None:
            nonlocal kind
            kind = self._identify(where, volume)
            if kind == "lvm" and not label:
                old = base if base is not None and base.is_comparable else None
                self._method = "full" if old is None else "delta" if old.changed else "same"
                self._physical.append(Physical(where, volume, old, index))
            elif base is not None and kind_of(base.volume) == kind:
                kind = self._on_top(where, volume, kind, base)
            else:
                kind = self._by_kind(where, volume, kind, volume_key(label, start, volume.size))
            if kind == "ntfs" and self._method != "same":
                judge_shadows(self._judge, where, volume, self._remember)

        read = self._judge.guard(where.capital, scan) and self._judge.reasons == before
        if self.records is not None and read and not label:
            self._record(where.disk, volume_key("", start, volume.size), kind, volume)
        told = Volume(where.disk, where.volume, start, volume.size, kind, read, self._method)
        self._judge.volume(told)

    def _identify(self, where: Where, volume: Blocks) -> str:
        """Of two file systems in one place the first is read, but the guest may mount the other."""
        kinds = marks(volume)
        if len(kinds) > 1:
            self._judge.reason(SEVERAL % (where.capital, ", ".join(kinds)))
        return kinds[0] if kinds else identify(volume)

    def _record(self, disk: str, key: str, kind: str, volume: Blocks) -> None:
        read = self._read
        try:
            index = remember(kind, volume, read.view, read.base, read.again)
        except Exception as exc:  # noqa: BLE001 - what is hard to remember was judged all the same
            why = str(exc) if isinstance(exc, BadFilesystem) else "its record failed (%s)" % type(exc).__name__
            self._judge.note("A later scan will read a volume of disk %s as a whole, since %s." % (disk, why))
            index = VolumeIndex(kind=kind)
        if self.records is not None:
            self.records[disk][key] = index

    def _on_top(self, where: Where, volume: Blocks, kind: str, base: Base) -> str:
        """Only what differs from a base that is clean under the same rules."""
        if not base.changed and volume.size == base.volume.size:
            self._method, self._read = "same", Read(None, base, frozenset())
            return "empty" if kind == "unknown" else kind
        if kind in _AS_RAW:
            self._method = "delta"
            if kind == "boot":
                self._change(where.disk, where.volume, "changed", _AS_RAW[kind], base.changed.size)
            match_rest(self._judge, where, volume, base.changed, Ranges(), _AS_RAW[kind])
        elif kind == "ext":
            self._ext_on_top(where, volume, base)
        elif kind == "ntfs" and base.is_comparable:
            self._ntfs_on_top(where, volume, base)
        elif kind in COMPARABLE and base.is_comparable and base.index is not None and volume.size == base.volume.size:
            self._method = "delta"
            judge_other(self._judge, where, kind, volume, base)
        else:
            self._change(where.disk, where.volume, "changed", "volume %s" % kind, base.changed.size)
            return self._by_kind(where, volume, kind, "")
        return kind

    def _by_kind(self, where: Where, volume: Blocks, kind: str, key: str) -> str:
        judge = self._judge
        if kind == "ext":
            self._ext(where, volume, key)
        elif kind == "ntfs":
            self._ntfs(where, volume, key)
        elif kind in READABLE:
            index = judge_other(judge, where, kind, volume, indexing=self.index is not None)
            if self.index is not None and kind in COMPARABLE:
                self.index[key] = index
        elif kind in _AS_RAW:
            judge.raw(where, volume, Extent(0, volume.size), _AS_RAW[kind])
            judge.note("%s is %s and was matched as raw bytes." % (where.capital, _AS_RAW[kind]))
        elif judge.raw(where, volume, Extent(0, volume.size), "unread volume"):
            judge.reason("%s holds nothing that can be read (%s)." % (where.capital, kind))
        else:
            return "empty"
        return kind

    def _logical_volumes(self) -> None:
        if not self._physical:
            return
        found = read_groups([one.volume for one in self._physical])
        for problem in found.problems:
            self._judge.reason(problem)
        former = lying_before(self._physical, found.uuids)
        for number, volume in enumerate(found.volumes):
            at = {uuid: one for uuid, one in zip(found.uuids, self._physical) if uuid in volume.lies_on}
            first = at[volume.segments[0].places[0][0]]
            where = Where("%s/%s" % (first.where.disk, printable(volume.name, 64)), number + 1)
            old, base = former.pop(volume.segments, None), None
            if old is not None:
                changed = volume.changed({uuid: one.base.changed for uuid, one in at.items() if one.base})
                base = Base(old, first.index.get(volume_key(old.name, 0, old.size)), changed)
            elif first.base is not None:
                self._change(where.disk, where.volume, "new", "logical volume", volume.size)
            self._volume(where, volume, 0, base, first.index, volume.name)
        for old in former.values():
            self._change(self._physical[0].where.disk, 0, "deleted", "logical volume %s" % old.name, old.size)
        match_beside(self._judge, self._physical, found)

    def _ext_on_top(self, where: Where, volume: Blocks, base: Base) -> None:
        try:
            old = Ext4(base.volume)
            delta = ExtDelta(self._judge, where, volume, old, base)
            view = self._replayed(where, volume, Ext4(volume))
            whole = base if view is None else as_replayed(base, view)
            seen = delta if view is None else ExtDelta(self._judge, where, view, old, whole)
        except BadFilesystem as exc:
            self._judge.note("%s was scanned as a whole: %s." % (where.capital, exc))
            self._ext(where, volume, "")
            return
        self._method, label = "delta", "differing blocks outside of files"
        covered = seen.run(report=True)
        match_rest(self._judge, where, view or volume, whole.changed, covered, label)
        self._read = Read(view, whole, seen.again)
        if view is None:
            return

        def before() -> None:
            match_rest(self._judge, where, volume, base.changed, delta.run(report=False), label)

        self._as_it_lies(where, volume, before)

    def _ntfs(self, where: Where, volume: Blocks, key: str) -> None:
        scan = NtfsScan(self._judge, where, volume, self._remember)
        scan.run()
        self._keep_index(where, lambda: build_ntfs(scan.fs), key)

    def _ntfs_on_top(self, where: Where, volume: Blocks, base: Base) -> None:
        try:
            delta = NtfsDelta(self._judge, where, volume, base, self._remember)
        except BadFilesystem as exc:
            self._judge.note("%s was scanned as a whole: %s." % (where.capital, exc))
            self._ntfs(where, volume, "")
            return
        self._method = "delta"
        delta.run()

    def _as_it_lies(self, where: Where, volume: Blocks, judge_it: Callable[[], None]) -> None:
        """The state before the replay. With the flag set the guest will not see it, and half of it may be unwritten."""
        what = "%s before its journal is replayed" % where.capital

        def step() -> None:
            with self._judge.leniently(what) if Ext4(volume).needs_recovery else nullcontext():
                judge_it()

        if self._judge.guard(what, step):
            self._judge.note("%s was read as its journal makes it, and as it lies." % where.capital)

    def _replayed(self, where: Where, volume: Blocks, fs: Ext4) -> Replayed | None:
        """What the guest will see after its next mount. A journal that can't be replayed makes the scan incomplete."""
        try:
            self._read.view = replay(volume, fs)
            return self._read.view
        except Exception as exc:  # noqa: BLE001 - the edge to a parser that an attacker feeds
            self._judge.reason(
                "%s may look different to the guest: its journal holds changes that can't be read (%s). "
                "Start and shut the VM down cleanly, or run e2fsck on a copy." % (where.capital, exc)
            )
            return None

    def _ext(self, where: Where, volume: Blocks, key: str) -> None:
        view = self._replayed(where, volume, Ext4(volume))
        seen = volume if view is None else view
        fs = Ext4(seen)
        for doubt in fs.doubts():
            self._judge.reason("%s may look different to the guest: %s." % (where.capital, doubt))
        judge_files(self._judge, where, seen, fs, self._remember)
        self._judge.raw(where, volume, Extent(0, 1024), "before the file system")
        self._judge.raw(where, volume, Extent(fs.end, volume.size - fs.end), "behind the file system")
        if view is None:
            self._keep_index(where, lambda: build(fs), key)
            return

        def before() -> None:
            try:
                base = Base(seen, build(fs), differing(volume, seen, view.stretches()))
                delta = ExtDelta(self._judge, where, volume, fs, base)
            except BadFilesystem:  # the two can't be compared inode by inode
                judge_files(self._judge, where, volume, Ext4(volume), self._remember)
                return
            match_rest(self._judge, where, volume, base.changed, delta.run(False), "blocks that the journal replaces")

        self._as_it_lies(where, volume, before)

    def _keep_index(self, where: Where, build_it: Callable[[], VolumeIndex], key: str) -> None:
        if self.index is None:
            return
        try:
            self.index[key] = build_it()
        except BadFilesystem as exc:
            self._judge.note("%s has no index, since %s: it is scanned as a whole." % (where.capital, exc))
