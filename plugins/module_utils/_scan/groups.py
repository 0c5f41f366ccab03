# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which disks are read together, and what they are together once each was read by a process of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from .blocks import Slice
from .chain import open_chain
from .judge import Emit
from .marks import marks
from .partitions import Extent, find_partitions
from .sandbox import Job, Limits, run_all
from .scanner import DiskSpec
from .verdict import MAX_CHANGES, MAX_FINDINGS, MAX_REASONS, Tally, Verdict

_LOOK = 60  # seconds
_COUNTS = ("findings_count", "indicators_count", "incomplete_count", "files", "bytes_read")
_WORST = (Verdict.CLEAN, Verdict.INCOMPLETE, Verdict.INFECTED)

Disks = tuple[DiskSpec, ...]


def together(disks: Sequence[DiskSpec], limits: Limits, at_once: int) -> list[Disks]:
    """Each disk by itself, but for those with a physical volume of LVM: its volumes may lie on several of them.

    A disk that ends its process here is left by itself, where it ends that one too.
    """
    if len(disks) < 2:
        return [tuple(disks)]
    physical: set[int] = set()
    jobs = [
        Job(
            lambda _emit, disk=disk: lambda emit: _look(disk, emit),  # type: ignore[misc]
            [layer.fd for layer in disk.layers],
            lambda _kind, _body, index=index: physical.add(index),  # type: ignore[misc]
        )
        for index, disk in enumerate(disks)
    ]
    run_all(jobs, replace(limits, deadline=min(limits.deadline, _LOOK)), lambda: None, at_once)
    joined = tuple(disks[index] for index in sorted(physical))
    groups = [joined if index in physical else (disk,) for index, disk in enumerate(disks)]
    return [group for index, group in enumerate(groups) if index not in physical or index == min(physical)]


def _look(spec: DiskSpec, emit: Emit) -> None:
    disk = open_chain(spec.layers, spec.snapshot)
    parts = find_partitions(disk) or [Extent(0, disk.size)]
    if any("lvm" in marks(Slice(disk, part.start, part.size)) for part in parts):
        emit("physical", {})


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """What may be said of all of them together; of none nothing."""
    return max(verdicts, key=_WORST.index, default=Verdict.INCOMPLETE)


def merged(tallies: Sequence[Tally]) -> Tally:
    """The findings of all in the given order, and what all of them say once."""
    if len(tallies) == 1:
        return tallies[0]
    whole = Tally(finished=all(one.finished for one in tallies))
    for one in tallies:
        whole.volumes += one.volumes
        whole.bases += one.bases
        whole.engines += [engine for engine in one.engines if engine not in whole.engines]
        whole.notes += [note for note in one.notes if note not in whole.notes]
        whole.notes_more += one.notes_more
        whole.add_unopened(one.unopened, one.unopened_names)
        whole.unopened_below.update(one.unopened_below)
        whole.files += one.files
        whole.bytes_read += one.bytes_read
        whole.bytes_from_disk += one.bytes_from_disk
        _add_lists(whole, one)
    return whole


def _add_lists(whole: Tally, one: Tally) -> None:
    """Lists are capped, counts are not."""
    whole.findings = (whole.findings + one.findings)[:MAX_FINDINGS]
    whole.findings_count += one.findings_count
    whole.indicators = (whole.indicators + one.indicators)[:MAX_FINDINGS]
    whole.indicators_count += one.indicators_count
    fresh = [reason for reason in one.reasons if reason not in whole.reasons]
    whole.reasons_count += one.reasons_count - (len(one.reasons) - len(fresh))
    whole.reasons = (whole.reasons + fresh)[:MAX_REASONS]
    whole.changes = (whole.changes + one.changes)[:MAX_CHANGES]
    for kind, count in one.changes_count.items():
        whole.changes_count[kind] = whole.changes_count.get(kind, 0) + count


def each_disk(groups: Sequence[Disks], tallies: Sequence[Tally]) -> list[dict[str, Any]]:
    """What is said of each disk; disks that were read together share it."""
    told = []
    for disks, tally in zip(groups, tallies):
        result = tally.as_result()
        kept = {"verdict": result["verdict"], "incomplete_reasons": result["incomplete_reasons"][:20]}
        kept.update({key: result[key] for key in _COUNTS})
        told += [{"name": disk.name, **kept} for disk in disks]
    return told
