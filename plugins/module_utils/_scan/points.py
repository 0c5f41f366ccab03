# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The clean point: the newest state of a VM's disks whose complete scan finds nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Callable

from .baseline import VolumeIndex
from .blocks import Blocks
from .chain import Layer, open_chain
from .job import DiskRequest, Request, check_directory, confined, opened, outcome, prepare, spent, unpacked, with_bases
from .judge import Emit, Judge
from .listen import Listener, Progress
from .places import apart
from .sandbox import Ended
from .scanner import DiskSpec, Scanner
from .verdict import Tally, Verdict

_SHOWN = ("kind", "id", "name", "created")


@dataclass(frozen=True)
class Point:
    """One state: disks as they were, or are."""

    kind: str
    id: str
    name: str
    created: str
    disks: tuple[DiskRequest, ...]


def disks_at(now: Sequence[DiskRequest], kind: str, snapshot: str) -> list[DiskRequest]:
    """The disks of now in another state: an internal snapshot of them, or the base alone."""
    if kind == "golden":
        return [replace(disk, layers=disk.clone_of or disk.layers[-1:], snapshot="", clone_of=()) for disk in now]
    return [replace(disk, snapshot=snapshot) for disk in now]


def find(request: Request, points: Sequence[Point], every: bool, until: str) -> dict[str, Any]:
    """Scan the points, the newest first, until one is clean (or all of them). request.disks are the disks of now."""
    check_directory(request)
    flat = [disk for point in points for disk in point.disks]
    with opened([*request.disks, *flat]) as (disks, layers):
        now, states = disks[: len(request.disks)], disks[len(request.disks) :]
        listener, ended = confined(
            request, layers, lambda emit: _prepare(request, points, states, now, every, emit), len(points)
        )
    found = dict(listener.points)
    told = [_told(point, found.get(str(number)), ended) for number, point in enumerate(points)]
    return {**_chosen(told, until), "points": told, **_shared(listener, ended)}


def _prepare(
    request: Request,
    points: Sequence[Point],
    states: Sequence[DiskSpec],
    now: Sequence[DiskSpec],
    every: bool,
    emit: Emit,
) -> Callable[[Emit], None]:
    watch = Listener(Progress("", 0))

    def told(kind: str, body: dict[str, Any]) -> None:
        """What is reported is what is decided on."""
        emit(kind, body)
        watch.take(kind, body)

    prepared = prepare(replace(request, several=True), told)
    if prepared is None:
        return lambda emit: None
    on_top = with_bases(request, prepared, states, told)

    def work(_emit: Emit) -> None:
        if not prepared.is_trusted(told):
            return
        scanner, bases = Scanner(prepared.judge, remember=True), _Bases(prepared.judge)
        newest = {disk.name: open_chain(disk.layers, disk.snapshot) for disk in now}
        left: list[DiskSpec] = unpacked(on_top)
        for number, point in enumerate(points):
            specs, left = left[: len(point.disks)], left[len(point.disks) :]
            told("point", {"id": str(number)})
            prepared.judge.begin()
            specs = bases.under(specs, told)
            scanner.run(specs)
            told("since", {"bytes": _since(newest, scanner.disks)})
            told("finished", {})
            if watch.tally.verdict() is Verdict.CLEAN and not every:
                return

    return work


class _Bases:
    """Of disks whose base no index knows: the lowest layer is scanned as a whole, once, and each point on top of it.

    A base that is not clean is none: then each point is scanned as a whole, as without it.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._indexes: dict[tuple[Layer, ...], dict[str, VolumeIndex] | None] = {}

    def under(self, specs: Sequence[DiskSpec], emit: Emit) -> list[DiskSpec]:
        return [self._spec(spec, emit) for spec in specs]

    def _spec(self, spec: DiskSpec, emit: Emit) -> DiskSpec:
        base = spec.clone_of or spec.layers[-1:]
        if spec.index is not None or base == spec.layers:
            return spec
        if base not in self._indexes:
            self._indexes[base] = self._scan(DiskSpec(spec.name, base), emit)
        index = self._indexes[base]
        return spec if index is None else replace(spec, base=base, index=index)

    def _scan(self, spec: DiskSpec, emit: Emit) -> dict[str, VolumeIndex] | None:
        """What is said of it is for this decision alone: a point on top of a base that is not clean says it again."""
        own, scanner = Listener(Progress("", 0)), Scanner(self._judge, indexing=True)

        def take(kind: str, body: dict[str, Any]) -> None:
            own.take(kind, body)
            if kind in ("expect", "progress"):
                emit(kind, body)

        with self._judge.afresh(take):
            scanner.run([spec])
        own.take("finished", {})
        return scanner.index if own.tally.verdict() is Verdict.CLEAN else None


def _since(newest: dict[str, Blocks], then: dict[str, Blocks]) -> int:
    """How much was written since; by where it lies, so nothing is read."""
    if set(newest) != set(then):
        return -1
    return sum(length for name, disk in newest.items() for _start, length in apart(disk, then[name]))


def _told(point: Point, tally: Tally | None, ended: Ended) -> dict[str, Any]:
    told: dict[str, Any] = {key: getattr(point, key) for key in _SHOWN}
    told["verdict"] = "not scanned"
    if tally is None:
        return told
    result = tally.as_result() if tally.finished else outcome(tally, ended)
    kept = ("verdict", "findings_count", "indicators_count", "incomplete_count", "changes_count", "files", "bytes_read")
    return {
        **told,
        **{key: result[key] for key in kept},
        "findings": result["findings"][:20],
        "indicators": result["indicators"][:20],
        "incomplete_reasons": result["incomplete_reasons"][:20],
        "volumes": result["volumes"],
        "bytes_since": tally.bytes_since,
    }


def _chosen(told: Sequence[dict[str, Any]], until: str) -> dict[str, Any]:
    chosen = next((one for one in told if one["verdict"] == Verdict.CLEAN.value), None)
    infected = [one for one in told if one["verdict"] == Verdict.INFECTED.value]
    return {
        "chosen": {key: chosen[key] for key in _SHOWN} if chosen else {},
        "infected_since": infected[-1]["created"] if infected else "",
        "infected": [one["name"] for one in infected],
        "lost": {"seconds": _seconds(chosen["created"], until), "bytes": chosen["bytes_since"]} if chosen else {},
    }


def _shared(listener: Listener, ended: Ended) -> dict[str, Any]:
    last = listener.tally
    return {
        "incomplete_reasons": [] if listener.points else outcome(last, ended)["incomplete_reasons"],
        "engines": last.engines,
        "bases": [vars(base) for base in last.bases],
        "bytes_from_disk": last.bytes_from_disk,
        **spent(ended),
    }


def _seconds(created: str, until: str) -> int:
    """Between two times of RFC 3339; -1 if one of them is not told."""
    try:
        then, now = (datetime.fromisoformat(text.strip().replace("Z", "+00:00")) for text in (created, until))
    except ValueError:
        return -1
    zone = timezone.utc
    then, now = (one if one.tzinfo else one.replace(tzinfo=zone) for one in (then, now))
    return max(0, round((now - then).total_seconds()))
