# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which disks are read together, in how many shares, and what they are together once all processes have read."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import Any, TypeVar

from .blocks import Slice
from .chain import Layer, open_chain
from .engines import RuleFile
from .judge import Emit
from .known import Known
from .listen import Listener, State
from .marks import marks
from .partitions import Extent, find_partitions
from .sandbox import Job, Limits, run_all
from .scanner import DiskSpec
from .verdict import MAX_FINDINGS, MAX_REASONS, MAX_UNOPENED, Tally, Verdict, Volume

PER_SHARE = 1 << 30  # bytes: of fewer, to walk them once more takes as long as to judge them
MANY_RULES = 2500  # with so many half of it pays, since judging takes so much longer than walking
_LOOK = 60  # seconds
_UNLIKE = (
    "The %d processes that shared the scan%s did not all meet the same contents, so that some may have been judged by "
    "none. Scan again, with at_once: 1."
)
_COUNTS = ("findings_count", "indicators_count", "incomplete_count", "files", "bytes_read")
_WORST = (Verdict.CLEAN, Verdict.INCOMPLETE, Verdict.INFECTED)

Disks = tuple[DiskSpec, ...]
_Told = TypeVar("_Told")


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


def dealt(sizes: Sequence[int], children: int, rules: Iterable[object] | None = None) -> list[int]:
    """In how many shares each is read: all in one, then whichever is the largest by what is left of the cores.

    `rules`: the compiled ones that judge.
    """
    counts = [1] * len(sizes)
    least = PER_SHARE // 2 if sum(1 for _rule in rules or ()) >= MANY_RULES else PER_SHARE
    for _spare in range(children - len(sizes)):
        wanting = [at for at, size in enumerate(sizes) if size // least > counts[at]]
        if wanting:
            counts[max(wanting, key=lambda at: sizes[at] / counts[at])] += 1
    return counts


def to_read(disks: Disks, directory: str, rules: Sequence[RuleFile] = ()) -> int:
    """How many bytes of these disks are judged. Of a base that is indexed with these rules none, even should something
    else make its index stale.

    0 where they can't be shared, since a connection can't be.
    """
    if any(layer.format == "nbd" for disk in disks for layer in disk.layers):
        return 0
    hashes = frozenset(file.sha256 for file in rules)
    known = Known(directory) if directory else None
    return sum(_allocated(layer) for layer in {layer for disk in disks for layer in _unknown(disk, known, hashes)})


def _unknown(disk: DiskSpec, known: Known | None, rules: frozenset[str]) -> Sequence[Layer]:
    if known is None:
        return disk.layers
    for base, on_top in parts_of(disk):
        judged_by = known.judged_by(base)
        if judged_by is not None:
            return on_top if judged_by == rules else disk.layers
    return disk.layers


def parts_of(disk: DiskSpec) -> list[tuple[tuple[Layer, ...], tuple[Layer, ...]]]:
    """What may be a base of it, the largest first, each with what then lies on top."""
    first = 1 if disk.snapshot else 0
    parts = [(disk.layers[depth:], disk.layers[:depth]) for depth in range(first, len(disk.layers))]
    return [*parts, (disk.clone_of, disk.layers)] if disk.clone_of else parts


def _allocated(layer: Layer) -> int:
    status = os.fstat(layer.fd)
    return status.st_blocks * 512 if stat.S_ISREG(status.st_mode) else os.lseek(layer.fd, 0, os.SEEK_END)


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
        whole.volumes_more += one.volumes_more
        whole.bases += one.bases
        whole.bases_more += one.bases_more
        whole.add_unopened(0, one.unopened_names)
        whole.notes_more += one.notes_more
        _add(whole, one)
        _add_lists(whole, one)
    return whole


def joined(tallies: Sequence[Tally], which: str = "") -> Tally:
    """What the shares of the same disks say, in the order in which one process would have said it.

    Nothing is clean unless all of them met the same: what one of them did not meet may have been judged by none.
    """
    first = tallies[0]
    if len(tallies) == 1:
        return first
    whole = Tally(bases=first.bases, bases_more=first.bases_more, bytes_since=first.bytes_since)
    whole.changes, whole.changes_count, whole.changes_more = first.changes, first.changes_count, first.changes_more
    whole.volumes_more = max(one.volumes_more for one in tallies)
    whole.finished = all(one.finished for one in tallies)
    whole.notes_more = max(one.notes_more for one in tallies)
    for one in tallies:
        _add(whole, one)
    whole.findings = _ordered(tallies, "finding", [one.findings for one in tallies])[:MAX_FINDINGS]
    whole.indicators = _ordered(tallies, "indicator", [one.indicators for one in tallies])[:MAX_FINDINGS]
    whole.unopened_names = _ordered(tallies, "unopened", [one.unopened_names for one in tallies])[:MAX_UNOPENED]
    told = _ordered(tallies, "reason", [one.reasons for one in tallies])
    whole.reasons = list(dict.fromkeys(told))[:MAX_REASONS]
    whole.reasons_count = sum(one.reasons_count for one in tallies) - (len(told) - len(set(told)))
    whole.volumes = _same_volumes(volume for one in tallies for volume in one.volumes)
    if whole.finished and (first.met is None or len({one.met for one in tallies}) > 1):
        whole.add_reason(_UNLIKE % (len(tallies), which))
    return whole


def joined_state(shares: Sequence[Listener], number: int) -> State:
    """One of the states that all of them read one after the other. Who has not begun it yet says what holds for all."""
    begun = [one.states[number] for one in shares if number < len(one.states)]
    tally = joined([one.states[number].tally if number < len(one.states) else one.anew() for one in shares])
    if len({(one.id, one.is_base) for one in begun}) > 1:
        tally.add_reason(_UNLIKE % (len(shares), ""))
    return replace(begun[0], tally=tally)


def are_clean(shares: Sequence[Listener]) -> bool:
    """All of them ended well, and nothing was found by any, in no state of the disks that was read."""
    tallies = [joined([one.tally for one in shares]), *(tally for one in shares for tally in one.tallies())]
    return all(one.is_well for one in shares) and all(tally.verdict() is Verdict.CLEAN for tally in tallies)


def _ordered(tallies: Sequence[Tally], kind: str, lists: Sequence[Sequence[_Told]]) -> list[_Told]:
    """What we say ourselves comes last."""
    pairs = [
        pair
        for one, told in zip(tallies, lists)
        for pair in zip(chain(one.order.get(kind, ()), repeat(math.inf)), told)
    ]
    return [one for _at, one in sorted(pairs, key=lambda pair: pair[0])]


def _same_volumes(volumes: Iterable[Volume]) -> list[Volume]:
    """One is read as a whole if each share read its own of it."""
    found: dict[tuple[str, int, int], Volume] = {}
    for one in volumes:
        place = one.disk, one.index, one.start
        before = found.setdefault(place, one)
        found[place] = replace(before, read=before.read and one.read)
    return list(found.values())


def _add(whole: Tally, one: Tally) -> None:
    """What is summed up, and what all of them say once."""
    whole.engines += [engine for engine in one.engines if engine not in whole.engines]
    whole.notes += [note for note in one.notes if note not in whole.notes]
    for text, counts in one.sums.items():
        whole.add_sum(text, counts)
    whole.unopened += one.unopened
    whole.unopened_below.update(one.unopened_below)
    whole.files += one.files
    whole.bytes_read += one.bytes_read
    whole.bytes_from_disk += one.bytes_from_disk
    whole.findings_count += one.findings_count
    whole.indicators_count += one.indicators_count


def _add_lists(whole: Tally, one: Tally) -> None:
    """Lists are capped, counts are not."""
    whole.findings = (whole.findings + one.findings)[:MAX_FINDINGS]
    whole.indicators = (whole.indicators + one.indicators)[:MAX_FINDINGS]
    fresh = [reason for reason in one.reasons if reason not in whole.reasons]
    whole.reasons_count += one.reasons_count - (len(one.reasons) - len(fresh))
    whole.reasons = (whole.reasons + fresh)[:MAX_REASONS]
    whole.list_changes(one.changes)
    whole.changes_more += one.changes_more
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
