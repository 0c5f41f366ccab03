# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The clean point: the newest state of a VM's disks whose complete scan finds nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Callable

from .abreast import Abreast, Enough, is_clean
from .baseline import VolumeIndex
from .blocks import Blocks
from .chain import Layer, open_chain
from .groups import dealt, joined, joined_state, to_read
from .job import (
    BadInput,
    DiskRequest,
    Part,
    Request,
    check_directory,
    clocks,
    confined_all,
    in_all,
    loaded,
    opened,
    outcome,
    prepare,
    seats_of,
    spent,
    unpacked,
    with_bases,
)
from .judge import Emit, Judge
from .listen import Listener, State
from .places import apart
from .sandbox import Ended
from .scanner import DiskSpec, Scanner
from .share import Share
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
    began = clocks()
    for point in points:
        if sorted(disk.name for disk in point.disks) != sorted(disk.name for disk in request.disks):
            raise BadInput(
                "Cannot judge %s by a part of its disks, or by others: it has %s, the VM has %s. Name a copy of each."
                % (printable(point.name, 60), _names(point.disks), _names(request.disks))
            )
    check_directory(request)
    request = replace(request, several=True, at_once=request.children)  # not fewer later: they wait for one another
    flat = [disk for point in points for disk in point.disks]
    with opened([*request.disks, *flat]) as (disks, layers):
        now, states = disks[: len(request.disks)], disks[len(request.disks) :]
        rules = loaded(request)
        size = to_read(tuple(states), request.directory, request.rules)
        wanted = dealt([size], request.at_once, rules)[0]
        with Abreast(seats_of(request), wanted, len(points) + len(flat)) as abreast:
            parts = []
            for share, reader in zip(abreast.shares, abreast.readers):
                asked = _Asked(points, states, now, every, reader)
                parts.append(Part(layers, partial(_prepare, request, asked, rules, share), keep=[reader]))
            told = confined_all(request, parts, abreast)
    return {**_answer(points, told, at), **spent(in_all(told, began))}


@dataclass(frozen=True)
class _Asked:
    """What all processes are asked for. `reader`: where this one is told what all of them found."""

    points: Sequence[Point]
    states: Sequence[DiskSpec]
    now: Sequence[DiskSpec]
    every: bool
    reader: int


def _prepare(request: Request, asked: _Asked, rules: Any, share: Share, emit: Emit) -> Callable[[Emit], None]:
    prepared = prepare(request, emit, rules=rules, share=share)
    if prepared is None:
        return lambda emit: None
    on_top = with_bases(request, prepared, asked.states, emit if share.index == 0 else lambda kind, body: None)

    def work(emit: Emit) -> None:
        if prepared.is_trusted(emit):
            with suppress(Enough):
                _States(prepared.judge, emit, asked.reader).run(asked, unpacked(on_top))

    return work


class _States:
    """What is read by one of the processes, state after state.

    Of disks whose base no index knows the lowest layer is scanned as a whole, once, and each point on top of it. A base
    that is not clean is none: then each point is scanned as a whole, as without it.
    """

    def __init__(self, judge: Judge, emit: Emit, reader: int) -> None:
        self._judge, self._emit, self._reader = judge, emit, reader
        self._indexes: dict[tuple[Layer, ...], dict[str, VolumeIndex] | None] = {}

    def run(self, asked: _Asked, left: Sequence[DiskSpec]) -> None:
        scanner, newest = Scanner(self._judge, remember=True), _newest(asked.now, self._emit)
        for number, point in enumerate(asked.points):
            specs, left = left[: len(point.disks)], left[len(point.disks) :]
            specs = [self._on_base(spec, number) for spec in specs]
            self._begin("point", number)
            scanner.run(specs)
            is_copy = any(disk.layers[-1] not in one.layers for disk, one in zip(_sorted(asked.now), _sorted(specs)))
            self._emit("since", {"bytes": -1 if is_copy else _since(newest, scanner.disks, self._emit)})
            if self._is_clean() and point.candidate and not asked.every:
                return

    def _on_base(self, spec: DiskSpec, number: int) -> DiskSpec:
        base = spec.clone_of or spec.layers[-1:]
        if spec.index is not None or (base == spec.layers and (spec.snapshot or base not in self._indexes)):
            return spec
        if base not in self._indexes:
            scanner = Scanner(self._judge, indexing=True)
            self._begin("beneath", number)
            with self._judge.by_itself():
                scanner.run([DiskSpec(spec.name, base)])
            self._indexes[base] = scanner.index if self._is_clean() else None
        index = self._indexes[base]
        return spec if index is None else replace(spec, base=base, index=index)

    def _begin(self, kind: str, number: int) -> None:
        self._emit(kind, {"id": str(number)})
        self._judge.begin()

    def _is_clean(self) -> bool:
        """By what all of them found. That all met the same so far is proven with it."""
        self._emit("met", self._judge.share.proof())
        self._emit("finished", {})
        return is_clean(self._reader)


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


def _answer(points: Sequence[Point], told: Sequence[tuple[Listener, Ended]], at: datetime) -> dict[str, Any]:
    shares = [listener for listener, _ended in told]
    states = [joined_state(shares, number) for number in range(max(len(one.states) for one in shares))]
    common = joined([one.common for one in shares])
    tallies = [_of_point(states, str(number), common) for number in range(len(points))]
    begun = [tally for tally in tallies if tally is not None]
    last = begun[-1] if begun else common
    for _listener, ended in told:
        outcome(last, ended)
    each = [_told(point, tally) for point, tally in zip(points, tallies)]
    clean = [(one, point) for one, point in zip(each, points) if point.candidate and _is(one, Verdict.CLEAN)]
    answer = _chosen(each, clean[0][0] if clean else None, at)
    if clean and clean[0][1].images:
        answer["chosen"]["images"] = [dict(image) for image in clean[0][1].images]
    beside = _beside(common, begun)
    read = sum(max(tally.bytes_from_disk for tally in one.tallies()) for one in shares)
    return {**answer, "points": each, **beside, "bytes_from_disk": read}


def _of_point(states: Sequence[State], name: str, common: Tally) -> Tally | None:
    """With what was read of bases for it; nothing if it was not begun."""
    bases = [one.tally for one in states if one.id == name and one.is_base]
    own = [one.tally for one in states if one.id == name and not one.is_base]
    if not (bases or own):
        return None
    tally = own[-1] if own else replace(common, reasons=list(common.reasons))
    for base in bases:
        tally.files += base.files
        tally.bytes_read += base.bytes_read
        if base.verdict() is Verdict.CLEAN:  # else the point itself says what lies there
            names, tally.unopened_names = tally.unopened_names, base.unopened_names
            tally.add_unopened(base.unopened, names)
    return tally


def _told(point: Point, tally: Tally | None) -> dict[str, Any]:
    told: dict[str, Any] = {key: getattr(point, key) for key in _SHOWN}
    told["verdict"] = "not scanned"
    if tally is None:
        return told
    result = tally.as_result()
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


def _beside(common: Tally, tallies: Sequence[Tally]) -> dict[str, Any]:
    """What holds for all points, and what they hold together."""
    unknown = [note for tally in tallies for note in tally.notes if note.startswith(_NOT_KNOWN)]
    notes = list(dict.fromkeys([*common.notes, *unknown]))
    whole = Tally(notes=notes, notes_more=common.notes_more, bases_more=common.bases_more)
    for tally in [common, *tallies]:
        whole.add_unopened(tally.unopened, tally.unopened_names)
        whole.unopened_below.update(tally.unopened_below)
    beside = whole.as_result()
    return {
        **{key: beside[key] for key in ("coverage_notes", "archives_unopened")},
        "incomplete_reasons": [] if tallies else common.as_result()["incomplete_reasons"],
        "engines": common.engines,
        "bases": [vars(base) for base in common.bases],
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
