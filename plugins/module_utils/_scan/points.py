# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The clean point: the newest state of a VM's disks whose complete scan finds nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Callable

from .baseline import VolumeIndex
from .blocks import Blocks
from .chain import Layer, open_chain
from .job import (
    BadInput,
    DiskRequest,
    Request,
    check_directory,
    confined,
    opened,
    outcome,
    prepare,
    spent,
    unpacked,
    with_bases,
)
from .judge import Emit, Judge
from .listen import Listener, Progress
from .places import apart
from .sandbox import Ended
from .scanner import DiskSpec, Scanner
from .verdict import Tally, Verdict, printable

_SHOWN = ("kind", "id", "name", "created")
_NOT_KNOWN = "How much was written since is not known: "


@dataclass(frozen=True)
class Point:
    """One state: disks as they were, or are. One that is no candidate is looked at, but never chosen."""

    kind: str
    id: str
    name: str
    created: str
    disks: tuple[DiskRequest, ...]
    candidate: bool = True
    images: tuple[Mapping[str, str], ...] = ()  # of a backup: told back for who brings it back


def disks_at(now: Sequence[DiskRequest], kind: str, snapshot: str) -> list[DiskRequest]:
    """The disks of now in another state: an internal snapshot of them, the base alone, or (no snapshot) the present."""
    if kind == "golden":
        return [replace(disk, layers=disk.clone_of or disk.layers[-1:], snapshot="", clone_of=()) for disk in now]
    return [replace(disk, snapshot=snapshot) for disk in now]


def find(request: Request, points: Sequence[Point], every: bool, at: datetime) -> dict[str, Any]:
    """Scan the points, the newest first, until one is clean (or all of them). request.disks are the disks of now.

    `at`: the time of now. What a return loses is all that was done until then, whenever the incident began.
    """
    for point in points:
        if sorted(disk.name for disk in point.disks) != sorted(disk.name for disk in request.disks):
            raise BadInput(
                "Cannot judge %s by a part of its disks, or by others: it has %s, the VM has %s. Name a copy of each."
                % (printable(point.name, 60), _names(point.disks), _names(request.disks))
            )
    check_directory(request)
    flat = [disk for point in points for disk in point.disks]
    with opened([*request.disks, *flat]) as (disks, layers):
        now, states = disks[: len(request.disks)], disks[len(request.disks) :]
        listener, ended = confined(
            request, layers, lambda emit: _prepare(request, points, states, now, every, emit), len(points)
        )
    found = dict(listener.points)
    told = [_told(point, found.get(str(number)), ended) for number, point in enumerate(points)]
    clean = [(one, point) for one, point in zip(told, points) if point.candidate and _is(one, Verdict.CLEAN)]
    answer = _chosen(told, clean[0][0] if clean else None, at)
    if clean and clean[0][1].images:
        answer["chosen"]["images"] = [dict(image) for image in clean[0][1].images]
    return {**answer, "points": told, **_shared(listener, ended)}


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
        newest = _newest(now, told)
        left: list[DiskSpec] = unpacked(on_top)
        for number, point in enumerate(points):
            specs, left = left[: len(point.disks)], left[len(point.disks) :]
            told("point", {"id": str(number)})
            prepared.judge.begin()
            specs = bases.under(specs, told)
            scanner.run(specs)
            is_copy = any(disk.layers[-1] not in one.layers for disk, one in zip(_sorted(now), _sorted(specs)))
            told("since", {"bytes": -1 if is_copy else _since(newest, scanner.disks, told)})
            told("finished", {})
            if watch.tally.verdict() is Verdict.CLEAN and point.candidate and not every:
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
        if own.tally.verdict() is not Verdict.CLEAN:
            return None
        seen = {"count": own.tally.unopened, "names": own.tally.unopened_names}
        emit("unopened", seen)  # no point on top of it sees them
        return scanner.index


def _sorted(disks: Sequence[DiskSpec]) -> list[DiskSpec]:
    return sorted(disks, key=lambda disk: disk.name)


def _names(disks: Sequence[DiskRequest]) -> str:
    return printable(", ".join(disk.name for disk in disks) or "none", 200)


def _newest(now: Sequence[DiskSpec], emit: Emit) -> dict[str, Blocks]:
    """The disks as they are now. One that can't be read keeps no other state from being judged."""
    found = {}
    for disk in now:
        try:
            found[disk.name] = open_chain(disk.layers, disk.snapshot)
        except Exception as exc:  # noqa: BLE001 - the edge to a parser that an attacker feeds
            emit("note", {"text": _NOT_KNOWN + _why(exc)})
    return found


def _since(newest: dict[str, Blocks], then: dict[str, Blocks], emit: Emit) -> int:
    """How much was written since; by where it lies, so nothing is read but tables."""
    if set(newest) != set(then):
        return -1
    try:
        return sum(length for name, disk in newest.items() for _start, length in apart(disk, then[name]))
    except Exception as exc:  # noqa: BLE001 - the same
        emit("note", {"text": _NOT_KNOWN + _why(exc)})
        return -1


def _why(exc: Exception) -> str:
    return (str(exc).rstrip(".") or type(exc).__name__) + "."


def _told(point: Point, tally: Tally | None, ended: Ended) -> dict[str, Any]:
    told: dict[str, Any] = {key: getattr(point, key) for key in _SHOWN}
    told["verdict"] = "not scanned"
    if tally is None:
        return told
    result = tally.as_result() if tally.finished else outcome(tally, ended)
    kept = ("verdict", "findings_count", "indicators_count", "incomplete_count", "changes_count", "archives_unopened")
    return {
        **told,
        **{key: result[key] for key in (*kept, "files", "bytes_read")},
        "findings": result["findings"][:20],
        "indicators": result["indicators"][:20],
        "incomplete_reasons": result["incomplete_reasons"][:20],
        "volumes": result["volumes"],
        "bytes_since": tally.bytes_since,
    }


def _chosen(told: Sequence[dict[str, Any]], chosen: dict[str, Any] | None, at: datetime) -> dict[str, Any]:
    infected = [one for one in told if _is(one, Verdict.INFECTED)]
    return {
        "chosen": {key: chosen[key] for key in _SHOWN} if chosen else {},
        "infected_since": next((one["created"] for one in reversed(infected) if one["created"]), ""),
        "infected": [one["name"] for one in infected],
        "lost": {"seconds": _seconds(chosen["created"], at), "bytes": chosen["bytes_since"]} if chosen else {},
    }


def _is(one: dict[str, Any], verdict: Verdict) -> bool:
    return bool(one["verdict"] == verdict.value)


def _shared(listener: Listener, ended: Ended) -> dict[str, Any]:
    last, tallies = listener.tally, listener.tallies()
    unknown = [note for tally in tallies for note in tally.notes if note.startswith(_NOT_KNOWN)]
    notes = list(dict.fromkeys([*listener.common.notes, *unknown]))
    whole = Tally(notes=notes, notes_more=listener.common.notes_more, bases_more=last.bases_more)
    for tally in [listener.common, *tallies] if listener.points else tallies:
        whole.add_unopened(tally.unopened, tally.unopened_names)
        whole.unopened_below.update(tally.unopened_below)
    beside = whole.as_result()
    return {
        **{key: beside[key] for key in ("coverage_notes", "archives_unopened")},
        "incomplete_reasons": [] if listener.points else outcome(last, ended)["incomplete_reasons"],
        "engines": last.engines,
        "bases": [vars(base) for base in last.bases],
        "bytes_from_disk": last.bytes_from_disk,
        **spent(ended),
    }


def _seconds(created: str, at: datetime) -> int:
    """From a time of RFC 3339 to another; -1 if it is not told, or by a clock that is ahead of ours."""
    try:
        then = datetime.fromisoformat(created.strip().replace("Z", "+00:00"))
    except ValueError:
        return -1
    seconds = round((at - (then if then.tzinfo else then.replace(tzinfo=timezone.utc))).total_seconds())
    return seconds if seconds >= 0 else -1


def in_words(result: dict[str, Any]) -> str:
    """The answer in one line: which point, since when it is infected, what a return loses, and what was looked at."""
    chosen, lost = result["chosen"], result["lost"]
    of = f" of {printable(chosen['created'], 40)}" if chosen and chosen["created"] else ""
    parts = [f"{_name(chosen)}{of} is clean" if chosen else "no clean point"]
    if result["infected"]:
        since = printable(result["infected_since"], 40) or "a time that is not known"
        parts.append(f"infected since {since} at the latest")
    if chosen:
        parts.append(f"a return loses {_time(lost['seconds'])} and {_amount(lost['bytes'])}")
    tried = [f"{_name(one)}: {one['verdict']}" for one in result["points"] if one["verdict"] != "not scanned"]
    more = [f"and {len(tried) - 8} more"] if len(tried) > 8 else []
    parts.append(f"scanned: {', '.join([*tried[:8], *more]) or 'nothing'}")
    parts += [f"{count} archives unopened" for count in [result.get("archives_unopened", 0)] if count]
    unknown = [note for note in result.get("coverage_notes", ()) if note.startswith(_NOT_KNOWN)]
    whys = [f"{_name(one)}: {why}" for one in result["points"] for why in one.get("incomplete_reasons", ())[:1]]
    whys = [*unknown[:1], *result["incomplete_reasons"][:1], *([] if chosen else whys[:1])]
    return "; ".join(parts) + "".join(f". {why}" for why in whys)


def _name(point: dict[str, Any]) -> str:
    return printable(str(point["name"]), 60)


def _time(seconds: int) -> str:
    if seconds < 0:
        return "the work since a time that is not known"
    days, rest = divmod(seconds, 86400)
    return "the work of %s%d h %02d min" % ("%d d " % days if days else "", rest // 3600, rest % 3600 // 60)


def _amount(size: int) -> str:
    return "%.1f MB written since" % (size / 1e6) if size >= 0 else "an amount of data that is not known"
