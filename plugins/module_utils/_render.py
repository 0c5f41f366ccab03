# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one screen for a tired person: plan, progress, summary and status in the same layout. Pure.

Plain ASCII, at most WIDTH columns; a tone says how a line may be coloured by whoever prints it. All text of a case is
foreign: `shown` is the only way it gets into a line.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ._model import printable
from ._report.scans import remarks
from ._report.story import PHASES, Machine, Phase, Story, clock, is_clean, named_with_paths

WIDTH = 100
WORDS = {"done": "DONE", "failed": "FAILED", "not_done": "NOT DONE", "planned": "WOULD DO"}
TONES = {"done": "good", "failed": "bad", "not_done": "weak", "planned": "good"}
IN_FULL = 5  # machines told phase by phase; of more, only those that fell short
TEXT = 37  # column where the text of a row begins


class Line(NamedTuple):
    text: str
    tone: str = ""  # good, bad, weak, head or none


@dataclass(frozen=True)
class Place:
    """What the ledger's keeper says beside the entries: where things lie, and how well the ledger is anchored."""

    host: str = ""
    directory: str = ""
    anchor: str = ""
    signed_seq: int = 0
    evidence: tuple[Mapping[str, Any], ...] = ()
    reports: tuple[str, ...] = ()
    waiting: int = 0  # entries on the controller that the store has not taken
    trouble: str = ""  # why the ledger could not be read


def shown(value: Any, limit: int = 400) -> str:
    """Foreign text as one line of ASCII."""
    return printable(str(value), limit).encode("ascii", "backslashreplace").decode("ascii")


def summary(story: Story, place: Place, more: Sequence[tuple[str, str]] = ()) -> list[Line]:
    """The whole screen for a case; `more` are further commands, as (what for, command)."""
    lines = [ruler(f"Case {shown(story.case)}")]
    full = [m for m in story.machines if m.shortfalls] if len(story.machines) > IN_FULL else list(story.machines)
    for machine in full[:IN_FULL]:
        lines += [*machine_rows(machine), Line("")]
    rest = [machine for machine in story.machines if machine not in full[:IN_FULL]]
    lines += [Line(f"{shown(machine.name, 40):<28} {brief(machine)}", tone(machine)) for machine in rest]
    lines += [Line("")] if rest else []
    if story.others:
        lines += labelled("Also here", ", ".join(shown(name, 80) for name in story.others))
    lines += host_rows(story)
    lines += [*place_rows(story, place), *missing_rows(story, place)]
    for label, command in [*next_steps(story), *more]:
        lines += [Line(shown(label) + ":", "head"), Line("  " + shown(command, 100_000))]
    return [*lines, ruler("")]


def plan(case: str, steps: Sequence[Mapping[str, Any]]) -> list[Line]:
    """What a response would do: one row per step with its phase, how it is undone and what cannot be proven.

    VMs with the same plan are told together.
    """
    lines = [ruler(f"Plan for case {shown(case)}: nothing has been changed" if case else "Plan: nothing was changed")]
    alike: dict[str, list[str]] = {}
    for vm in dict.fromkeys(str(step["vm"]) for step in steps):
        alike.setdefault(repr([{**step, "vm": ""} for step in steps if step["vm"] == vm]), []).append(vm)
    for vms in alike.values():
        lines += [Line(part, "head") for part in folded(", ".join(shown(vm, 80) for vm in vms), WIDTH)]
        mine = [step for step in steps if step["vm"] == vms[0]]
        for step in sorted(mine, key=lambda one: PHASES.index(str(one["phase"]))):
            lines += row("not_done" if step.get("not_done") else "planned", str(step["phase"]), None, step["what"])
            lines += [line for key in ("undo", "unproven") for line in remark(key, step.get(key))]
        absent = [phase for phase in PHASES if phase not in [step["phase"] for step in mine]]
        lines += row("not_done", ", ".join(absent), None, "not part of this plan") if absent else []
    return [*lines, ruler("")]


def host_rows(story: Story) -> list[Line]:
    """The scans of live hosts: of many, those that are not clean."""
    bad = [(name, fact) for name, fact in story.hosts if not is_clean(fact)]
    told = list(story.hosts) if len(story.hosts) <= IN_FULL else bad[:IN_FULL]
    lines = []
    for name, fact in told:
        what = shown(named_with_paths(shown(name, 60), fact), 400)
        lines += labelled("Live host", f"{what}: {fact.msg}", "good" if is_clean(fact) else "bad")
    left = len(story.hosts) - len(told)
    more = f"{left} more, {len(bad) - sum(not is_clean(fact) for _name, fact in told)} of them not clean"
    return lines + (labelled("Live hosts", more) if left else [])


def remark(kind: str, text: Any) -> list[Line]:
    label = {"undo": "undo: ", "unproven": "cannot be proven: "}[kind]
    return beneath(label + shown(text)) if text else []


def beneath(text: str) -> list[Line]:
    """More about the row above; the text is one to show."""
    return [Line(" " * TEXT + part) for part in folded(text, WIDTH - TEXT)]


def machine_rows(machine: Machine) -> list[Line]:
    how = "bad" if machine.alarm or not machine.isolation else "head"
    lines = [Line(part, how) for part in folded(f"{shown(machine.name, 60)}   {state_words(machine)}", WIDTH)]
    empty: dict[str, list[str]] = {}
    for phase in machine.phases:
        if phase.state == "not_done" and not phase.facts:
            empty.setdefault(phase.msg, []).append(phase.name)
        else:
            lines += phase_rows(phase)
    for reason, names in empty.items():
        lines += row("not_done", ", ".join(names), None, reason)
    return lines


def phase_rows(phase: Phase) -> list[Line]:
    lines = row(phase.state, phase.name, phase.seconds, phase.msg)
    for fact in phase.facts:
        if fact.msg and not (fact.state == phase.state and phase.msg.endswith(fact.msg)):
            claim = "claimed by the guest: " if fact.claimed else ""
            lines += row("" if fact.state == "done" else fact.state, f"- {fact.name}", None, claim + fact.msg)
        said = remarks(fact.result)
        lines += [line for text in said[:IN_FULL] for line in beneath(shown(text))]
        lines += beneath(f"and {len(said) - IN_FULL} more, in the report") if len(said) > IN_FULL else []
    return lines


def row(state: str, name: str, seconds: float | None, text: Any) -> list[Line]:
    took = "" if seconds is None else duration(seconds)
    head = f"  {WORDS.get(state, ''):<9} {shown(name, 80):<16} {took:>7} "
    if len(shown(name, 80)) > 16 and seconds is None:  # a long name reaches into its own text
        head = f"{head.rstrip()}: "
    first, *more = folded(shown(text), WIDTH - max(len(head), TEXT)) or [""]
    texts = [head.ljust(TEXT) + first, *(" " * max(len(head), TEXT) + part for part in more)]
    return [Line(text.rstrip(), TONES.get(state, "")) for text in texts]


def state_words(machine: Machine) -> str:
    if not machine.isolation:
        if machine.alarm:
            return f"{machine.alarm}: its isolation is not known{now_words(machine)}"
        return f"ISOLATION UNKNOWN: no entry says that it was cut off{now_words(machine)}"
    since = shown(clock(machine.since), 40)
    isolation = shown(machine.isolation, 20)
    state = f"{machine.alarm}: {isolation}" if machine.alarm else isolation.upper()
    return f"{state} since {since}, proof of the cut: {machine.proof}{now_words(machine)}"


def now_words(machine: Machine) -> str:
    now = machine.now
    if now is None:
        return ""
    if now.problem:
        return f"; not read now: {shown(now.problem)}"
    return f"; now {shown(now.power, 20)} and {shown(now.isolation, 20)}"


def brief(machine: Machine) -> str:
    done = [phase.name for phase in machine.phases if phase.state == "done"]
    alarm = f"{machine.alarm}: " if machine.alarm else ""
    isolation = machine.isolation or "isolation unknown"
    return shown(f"{alarm}{isolation}, {machine.proof}; done: {', '.join(done) or 'nothing'}", 70)


def tone(machine: Machine) -> str:
    return "bad" if machine.shortfalls else "good"


def place_rows(story: Story, place: Place) -> list[Line]:
    if place.trouble:
        lines = labelled("Ledger", f"CANNOT BE READ: {place.trouble}", "bad")
        return lines + waiting_rows(place)
    where = f"{place.host}:{place.directory}" if place.host else place.directory
    size = sum(int(artefact["size"]) for artefact in place.evidence)
    report = f"{where}/{place.reports[-1]}" if place.reports else "NOT DONE: none is written yet"
    lines = [  # paths are to be copied, so they are never broken
        Line(shown(f"Evidence   {where}/evidence ({len(place.evidence)} files, {amount(size)})", 10_000)),
        Line(shown(f"Report     {report}", 10_000)),
    ]
    lines += labelled("Ledger", place.anchor)
    seq = int(place.anchor.partition(":")[0] or 0)
    signed = f"signed up to entry {place.signed_seq} of {seq}" if place.signed_seq else "NOT SIGNED"
    lines += labelled("", f"{signed}; {anchored(story)}", "" if place.signed_seq else "weak")
    return lines + waiting_rows(place)


def waiting_rows(place: Place) -> list[Line]:
    told = f"{place.waiting} entries wait on this controller: the store has not taken them yet"
    return labelled("", told, "bad") if place.waiting else []


def anchored(story: Story) -> str:
    sent = [
        f for m in story.machines for p in m.phases for f in p.facts if f.state == "done" and f.inputs.get("anchor")
    ]
    if not sent:
        return "not anchored outside the store: keep the line above"
    newest = max(sent, key=lambda fact: fact.seq)
    return f"anchor {str(newest.inputs['anchor']).partition(':')[0]} was sent out at {clock(newest.time)}"


def missing_rows(story: Story, place: Place) -> list[Line]:
    missing = list(story.shortfalls)
    if place.trouble:
        missing.insert(0, "the ledger, so that nothing here can be relied on to be whole")
    if not missing:
        return labelled("Missing", "nothing that was required", "good")
    return [line for text in missing for line in labelled("MISSING", text, "bad")]


def labelled(label: str, text: str, tone: str = "") -> list[Line]:
    parts = folded(shown(text, 1000), WIDTH - 11) or [""]
    return [Line(f"{label if number == 0 else '':<10} {part}", tone) for number, part in enumerate(parts)]


def next_steps(story: Story) -> list[tuple[str, str]]:
    """What can be done now, as commands to copy."""
    machines = story.machines
    leaking = [m.name for m in machines if m.leak and not (m.now and m.now.power in ("paused", "stopped"))]
    exposed = [m.name for m in machines if m.alarm or not m.isolation]
    cut = [m.name for m in machines if m.isolation in ("sealed", "forensic")]
    sound = [name for name in cut if name not in exposed]
    steps = []
    if leaking:
        steps.append(("It leaks: cut it off at the switch, or pause it (its memory stays)", pause(leaking)))
    if exposed:
        steps.append(("Cut off now", command("contain", exposed, story.case)))
    if sound:
        steps.append(("Go on (what is done already is not done again)", command("respond", sound, story.case)))
    if cut:
        why = ("-e vmward_false_alarm_by=NAME", "-e vmward_false_alarm_reason=WHY")
        steps.append(("Undo the cut, if it was a false alarm", command("release", cut, story.case, *why)))
    return steps or [("See this again", command("status", (), story.case))]


def pause(vms: Sequence[str]) -> str:
    options = f"hypervisors={{{{ vmward_hypervisors }}}} vms={','.join(filter(is_plain, vms))} state=paused"
    return pasteable(vms, f"ansible localhost -m vmward.remediation.vm_power -a '{options}'")


def command(playbook: str, vms: Sequence[str], case: str, *more: str) -> str:
    """The command, without VMs whose name the shell or a template could take for something else."""
    chosen = ["-e", f"vmward_vms={','.join(filter(is_plain, vms))}"] if vms else []
    words = ["ansible-playbook", f"vmward.remediation.{playbook}", *chosen, "-e", f"vmward_case={case}", *more]
    return pasteable(vms, " ".join(words))


def pasteable(vms: Sequence[str], text: str) -> str:
    """A command for those of the VMs whose names are plain, with a word on the others."""
    odd = len(vms) - len(list(filter(is_plain, vms)))
    if odd and odd == len(vms):
        return f"(no command to copy: the names of {odd} VMs are not safe to paste)"
    return text + (f"   # and {odd} more, whose names are not safe to paste" if odd else "")


def is_plain(name: str) -> bool:
    return bool(re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z", name))


def ruler(title: str) -> Line:
    return Line((f"==== {title} " if title else "").ljust(WIDTH, "="), "head")


def folded(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 600 else f"{minutes // 60} h"


def amount(size: int) -> str:
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
