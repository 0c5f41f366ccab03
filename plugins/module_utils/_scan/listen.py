# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the confined child says, taken with suspicion, and the progress that follows from it."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Callable

from .._evidence.progress import tell
from .brief import LISTED
from .judge import Emit
from .known import Known
from .remembered import KEY, MOST_CONTENTS
from .verdict import BaseUse, Change, Finding, Tally, Volume, printable


@dataclass
class Pace:
    """What one child has read, and will. Until it has told how much that is, nobody knows when all is done.

    `of`: children that share the same disks have the same, and the first of them tells for all how much there is.
    """

    of: int = -1

    files: int = 0
    bytes: int = 0
    total: int = 0
    over: bool = False
    points: int = 0  # so far, where states are read one after the other until one is clean: how many, nobody knows
    step: str = ""  # which of these states is read
    past: tuple[int, int] = (0, 0)  # files and bytes of those before this one

    def count(self, files: int, size: int) -> None:
        self.files, self.bytes = self.past[0] + files, self.past[1] + size

    def begin(self, is_base: bool) -> None:
        self.points, self.past = self.points + (not is_base), (self.files, self.bytes)
        self.step = "base image" if is_base else "point %d" % self.points


@dataclass(frozen=True)
class State:
    """One of several states of the disks that are read: a point, or one base of it alone."""

    id: str
    is_base: bool
    tally: Tally


class Progress:
    """The progress file, written at most once a second."""

    def __init__(self, path: str, started: float) -> None:
        self._path = path
        self._started = started
        self._written = 0.0
        self._paces: list[Pace] = []

    def pace(self, of: int | None = None) -> Pace:
        """One for each child, from before the first one starts: the sum is told."""
        self._paces.append(Pace(len(self._paces) if of is None else of))
        return self._paces[-1]

    def write(self, phase: str = "scan", message: str = "") -> None:
        now = time.monotonic()
        if not self._path or (phase == "scan" and now - self._written < 1):
            return
        self._written = now
        tell(self._path, self.state(phase, message, now - self._started))

    def state(self, phase: str, message: str, seconds: float) -> dict[str, Any]:
        """The sum of all. How much is left is told once all that go on have told it."""
        disks = self._disks()
        files, read = sum(one.files for one in disks), sum(one.bytes for one in disks)
        rate = read / max(seconds, 0.001)
        is_known = all(one.over or (one.total and not one.step) for one in disks)
        total = sum(one.bytes if one.over else max(one.bytes, one.total) for one in disks) if is_known else 0
        amount = "%d files, %d MB read" % (files, read // 1000000)
        if len(disks) > 1:
            amount = "%d of %d disks done" % (sum(one.over for one in disks), len(disks))
        elif disks and disks[0].step:
            amount = "%s, %s" % (disks[0].step, amount)
        return {
            "phase": phase,
            "files": files,
            "bytes": read,
            "total_bytes": total,
            "rate": round(rate),
            "eta": 0 if phase == "done" else round((total - read) / rate) if rate and is_known else None,
            "message": message or amount,
        }

    def _disks(self) -> list[Pace]:
        """Those that share the same disks as one."""
        whole: dict[int, Pace] = {}
        for one in self._paces:
            all_ = whole.setdefault(one.of, Pace(one.of, over=True))
            all_.files, all_.bytes, all_.total = all_.files + one.files, all_.bytes + one.bytes, all_.total + one.total
            all_.step, all_.over = one.step or all_.step, all_.over and one.over
        return list(whole.values())


def announcing(prepare: Callable[[Emit], Callable[[Emit], None]]) -> Callable[[Emit], Callable[[Emit], None]]:
    """Says when all is prepared: what comes after that, a disk may have made the child say."""

    def announced(emit: Emit) -> Callable[[Emit], None]:
        work = prepare(emit)
        emit("reads", {})
        return work

    return announced


class Listener:
    """Takes what the child says, and believes none of its shapes: it parsed what an attacker wrote."""

    def __init__(
        self, progress: Progress, most_states: int = 1024, disks: Sequence[str] = (), of: int | None = None
    ) -> None:
        """`disks`: those that the child reads, of no other may it tell a record. `of`: see Pace."""
        self._most_states, self._disks = most_states, frozenset(disks)
        self._before: Tally | None = None
        self.progress = progress
        self.pace = progress.pace(of)
        self.tally = Tally()
        self.refused = ""
        self.binding = ""
        self.states: list[State] = []
        self.fresh: list[bytes] = []
        self.index = bytearray()
        self.records: dict[str, bytearray] = {}
        self.is_current = self.is_well = False
        self._is_reading = False

    def tallies(self) -> list[Tally]:
        return [state.tally for state in self.states] or [self.tally]

    @property
    def common(self) -> Tally:
        """What was said before the first state."""
        return self._before or self.tally

    def anew(self) -> Tally:
        """Of a state of which nothing was said yet, but what holds for all."""
        common = self.common
        return Tally(
            reasons=list(common.reasons),
            reasons_count=common.reasons_count,
            engines=common.engines,
            notes=list(common.notes),
            notes_more=common.notes_more,
            bases=common.bases,
            bases_more=common.bases_more,
        )

    def keep(self, known: Known) -> None:
        """What was found clean. That there is no room for it leaves the verdict as it is."""
        try:
            known.add_contents(self.binding, self.fresh)
        except OSError as exc:
            self.tally.notes.append("What was found clean is not remembered: %s." % exc)

    def take(self, kind: str, body: dict[str, Any]) -> None:
        if self._is_reading and kind in _BEFORE:
            raise ValueError("who reads what an attacker wrote cannot say this")
        getattr(self, "_" + kind if kind in _KINDS else "_unknown")(body)

    def _reads(self, body: dict[str, Any]) -> None:
        self._is_reading = True

    def _unknown(self, body: dict[str, Any]) -> None:
        raise ValueError(body)

    def _finding(self, body: dict[str, Any]) -> None:
        self.tally.add_finding(Finding(**_typed(Finding, body)))
        self._in_order("finding", self.tally.findings, body)

    def _indicator(self, body: dict[str, Any]) -> None:
        self.tally.add_indicator(Finding(**_typed(Finding, body)))
        self._in_order("indicator", self.tally.indicators, body)

    def _volume(self, body: dict[str, Any]) -> None:
        self.tally.add_volume(Volume(**_typed(Volume, body)))

    def _engine(self, body: dict[str, Any]) -> None:
        self.tally.engines.append(body)

    def _reason(self, body: dict[str, Any]) -> None:
        self.tally.add_reason(str(body["text"]))
        self._in_order("reason", self.tally.reasons, body)

    def _note(self, body: dict[str, Any]) -> None:
        self.tally.add_note(str(body["text"]))

    def _sum(self, body: dict[str, Any]) -> None:
        text, counts = printable(str(body["text"])), [_amount(count) for count in body["counts"]]
        bare = text.replace("%%", "")
        if not bare.count("%") == bare.count("%d") == len(counts):
            raise ValueError("no note with so many numbers in it")
        self.tally.add_sum(text, counts)

    def _met(self, body: dict[str, Any]) -> None:
        self.tally.met = _amount(body["count"]), str(body["sha256"])[:64]

    def _refused(self, body: dict[str, Any]) -> None:
        self.refused = str(body["text"])[:4096]

    def _expect(self, body: dict[str, Any]) -> None:
        self.pace.total += _amount(body["bytes"])

    def _progress(self, body: dict[str, Any]) -> None:
        self.tally.files, self.tally.bytes_read = _amount(body["files"]), _amount(body["bytes"])
        self.pace.count(self.tally.files, self.tally.bytes_read)
        self.tally.bytes_from_disk = _amount(body["read"])

    def _change(self, body: dict[str, Any]) -> None:
        self.tally.add_change(Change(**_typed(Change, body)))

    def _more(self, body: dict[str, Any]) -> None:
        """Of what is listed no more: how many."""
        counts = {printable(name, 64): count for name, count in dict(body["counts"]).items()}
        whole = (body["total"], *counts.values())
        if body["of"] not in LISTED or any(count.__class__ is not int or count < 1 for count in whole):
            raise ValueError("no count")
        if len(counts) > _MOST_KINDS:
            raise ValueError("more kinds than there are")
        self.tally.add_more(body["of"], counts, body["total"])

    def _base(self, body: dict[str, Any]) -> None:
        self.tally.add_base(BaseUse(**_typed(BaseUse, body)))

    def _binding(self, body: dict[str, Any]) -> None:
        if self.binding:
            raise ValueError("told twice")
        self.binding = str(body["sha256"])

    def _judged(self, body: dict[str, Any]) -> None:
        keys = b64decode(str(body["keys"]), validate=True)
        if len(keys) % KEY or len(self.fresh) + len(keys) // KEY > MOST_CONTENTS:
            raise ValueError("no key of a content, or more than are remembered")
        self.fresh += [keys[at : at + KEY] for at in range(0, len(keys), KEY)]

    def _index(self, body: dict[str, Any]) -> None:
        self.index += b64decode(str(body["data"]), validate=True)

    def _record(self, body: dict[str, Any]) -> None:
        name = str(body["disk"])
        if name not in self._disks:
            raise ValueError("a disk that it does not read")
        self.records.setdefault(name, bytearray()).extend(b64decode(str(body["data"]), validate=True))

    def _current(self, body: dict[str, Any]) -> None:
        self.is_current = True

    def _point(self, body: dict[str, Any]) -> None:
        """What follows is of another state of the disks. What was said before the first one holds for all."""
        self._begin(str(body["id"]), False, self.anew())

    def _beneath(self, body: dict[str, Any]) -> None:
        """What follows is of a base alone, on which this point stands."""
        self._begin(str(body["id"]), True, Tally())

    def _begin(self, name: str, is_base: bool, tally: Tally) -> None:
        if len(self.states) >= self._most_states:
            raise ValueError("more states than asked for")
        self._before, self.tally = self.common, tally
        self.states.append(State(name, is_base, tally))
        self.pace.begin(is_base)

    def _unopened(self, body: dict[str, Any]) -> None:
        self.tally.add_unopened(_amount(body["count"]), [printable(str(name), 300) for name in body["names"]])
        self._in_order("unopened", self.tally.unopened_names, body)

    def _in_order(self, kind: str, listed: Sequence[Any], body: dict[str, Any]) -> None:
        """Where what was just added to a list, if there was room for it, belongs among what others say."""
        order = self.tally.order.setdefault(kind, [])
        order += [_amount(body.get("at", 0))] * (len(listed) - len(order))

    def _below(self, body: dict[str, Any]) -> None:
        if body["count"]:
            self.tally.unopened_below[printable(str(body["of"]), 300)] = _amount(body["count"])

    def _since(self, body: dict[str, Any]) -> None:
        self.tally.bytes_since = int(body["bytes"])

    def _finished(self, body: dict[str, Any]) -> None:
        self.tally.finished = True


_KINDS = frozenset(name[1:] for name in vars(Listener) if name.startswith("_") and name[1:].isalpha()) - {"unknown"}
_BEFORE = frozenset(("engine", "base", "below", "binding", "refused", "current"))
_MOST_KINDS = 100  # of changes
_TYPES = {"str": str, "int": int, "bool": bool}


def _amount(value: Any) -> int:
    """Of files or bytes; more than there can be would be too large to be reckoned with."""
    return max(0, min(int(value), 1 << 62))


def _typed(shape: type, body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass out of a message, each of its type and of a sane length."""
    values = {}
    for field in fields(shape):
        value = body[field.name]
        if value.__class__ is not _TYPES[str(field.type)]:
            raise TypeError(field.name)
        values[field.name] = printable(value, 1024) if isinstance(value, str) else value
    return values
