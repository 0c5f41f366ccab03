# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a ledger says about each VM of a case: the one reading behind summary, status, notification and report. Pure.

The newest entry about a thing counts. What no entry speaks of was not done, and is told so with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Callable

from .._case.entry import Entry
from . import scope

# In the order of a response; a phase that is not built says so in every summary and report.
PHASES = ("contain", "notify", "preserve", "scope", "scan", "restore", "harden", "release", "report")
NOT_BUILT = ("scope", "harden")
PROOFS = ("none", "readback", "witnessed")
STATES = {
    "done": "done",
    "stored": "done",
    "failed": "failed",
    "not_done": "not_done",
    "unavailable": "not_done",
    "waived": "not_done",
}


@dataclass(frozen=True)
class Fact:
    """The newest entry about one thing."""

    phase: str
    name: str  # the action; for evidence its class, for a scan what was scanned
    state: str  # done, failed or not_done
    msg: str
    seq: int
    time: str
    actor: str
    claimed: bool  # only the guest says so
    result: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """What became of one phase for one VM."""

    name: str
    state: str
    msg: str
    seconds: float | None = None
    facts: tuple[Fact, ...] = ()

    @property
    def ended(self) -> bool:
        return self.seconds is not None

    @property
    def is_open(self) -> bool:
        return not self.ended and not all(is_question(fact.phase, fact.name) for fact in self.facts)


@dataclass(frozen=True)
class Now:
    """What the hypervisor says of a VM while its case is told."""

    hypervisor: str = ""
    power: str = ""
    isolation: str = ""
    problem: str = ""  # why it could not be read


@dataclass(frozen=True)
class Machine:
    """One VM of the case."""

    name: str
    isolation: str  # as last recorded; "" if nothing was
    since: str
    phases: tuple[Phase, ...]
    shortfalls: tuple[str, ...]
    now: Now | None = None  # None: not asked

    def fact(self, phase: str, name: str) -> Fact | None:
        facts = next(one.facts for one in self.phases if one.name == phase)
        return next((fact for fact in facts if fact.name == name), None)

    @property
    def proof(self) -> str:
        return proof_of(self.fact("contain", "prove"))

    @property
    def leak(self) -> str:
        """What was seen to pass a cut that is in place. A cut that was merely not measured is no leak."""
        prove = self.fact("contain", "prove")
        return str(prove.result.get("against") or "") if prove and self.isolation != "free" else ""

    @property
    def uncut(self) -> str:
        """Why the newest cut failed."""
        cut = self.fact("contain", "isolate")
        if not cut or cut.state != "failed" or cut.seq < self.freed:
            return ""
        return cut.msg or "no reason is recorded"

    @property
    def freed(self) -> int:
        """The entry that last gave the VM back; 0 if none did."""
        back = [self.fact("release", name) for name in ("reconnect", "false_alarm")]
        return max((fact.seq for fact in back if fact and fact.state == "done"), default=0)

    @property
    def alarm(self) -> str:
        """Why it is to be taken as connected whatever its isolation says; empty when it is not."""
        return "CUT FAILED" if self.uncut else "LEAKING" if self.leak else ""

    @property
    def verdicts(self) -> tuple[Fact, ...]:
        return tuple(fact for phase in self.phases for fact in phase.facts if fact.result.get("verdict"))


@dataclass(frozen=True)
class Story:
    """A case as its ledger tells it."""

    case: str
    machines: tuple[Machine, ...]
    others: tuple[str, ...] = ()  # VMs of the case that were not asked for
    hosts: tuple[tuple[str, Fact], ...] = ()  # live hosts, each with those of its scans that still count

    @property
    def shortfalls(self) -> tuple[str, ...]:
        machines = [shortfall for machine in self.machines for shortfall in machine.shortfalls]
        return (*machines, *(host_shortfall(name, fact) for name, fact in self.hosts if not is_clean(fact)))


def tell(
    case: str,
    entries: Sequence[Entry],
    vms: Sequence[str] = (),
    proof: str = "witnessed",
    phases: Sequence[str] = (),
    now: Callable[[str], Now | None] = lambda _name: None,
) -> Story:
    """The story of `vms`, or of every VM in the ledger; the `proof` and the `phases` named are required of each.

    ``now`` answers, by name, what was just read of a VM.
    """
    hosts = scans_of_hosts([entry for entry in entries if is_host_scan(entry)])
    entries = [entry for entry in entries if not is_host_scan(entry)]
    known = sorted({str(entry["target"]) for entry in entries if entry["phase"] in PHASES and entry["target"]})
    chosen = list(dict.fromkeys(vms)) or known
    machines = [tell_machine(name, entries, proof, phases, now(name)) for name in chosen]
    return Story(case, tuple(machines), tuple(name for name in known if name not in chosen), hosts)


def is_host_scan(entry: Entry) -> bool:
    """A live host is none of the case's VMs, even if one bears its name: its kernel was asked, nothing cut it off."""
    return (entry["phase"], entry["action"]) == ("scan", "host")


def scans_of_hosts(entries: Sequence[Entry]) -> tuple[tuple[str, Fact], ...]:
    """By host, the scans that no later one makes obsolete: a look at less of it takes nothing back."""
    kept: list[tuple[str, Fact]] = []
    for entry in entries:
        name, fact = str(entry["target"]), read_fact(entry)
        kept = [(other, former) for other, former in kept if other != name or not is_obsolete(former, fact)]
        kept.append((name, fact))
    return tuple(kept)


def is_obsolete(former: Fact, later: Fact) -> bool:
    """What was found stays, until all that was read then is read again and judged."""
    judged = later.result.get("verdict") in ("clean", "infected") and later.state == "done"
    return scope.covers(later.inputs, former.inputs) and (judged or former.result.get("verdict") != "infected")


def is_clean(fact: Fact) -> bool:
    return fact.state == "done" and fact.result.get("verdict") == "clean"


def named_with_paths(name: str, fact: Fact) -> str:
    """A live host with what of it was scanned."""
    words = scope.in_words(fact.inputs)
    return f"{name} ({words})" if words else name


def host_shortfall(host: str, fact: Fact) -> str:
    verdict = str(fact.result.get("verdict") or "")
    name = named_with_paths(host, fact)
    if verdict == "infected":
        return f"{name}: this live host is infected, and no case cuts it off: {fact.msg}"
    state = f"is {verdict}" if verdict else "failed"
    return f"{name}: the scan of this live host {state}: {fact.msg or 'no reason is recorded'}"


def tell_machine(
    name: str, entries: Sequence[Entry], proof: str, needed: Sequence[str], now: Now | None = None
) -> Machine:
    mine = [entry for entry in entries if concerns(entry, name)]
    isolation, since = isolation_of(mine)
    phases: list[Phase] = []
    for phase in PHASES:
        stopped = next((one.name for one in reversed(phases) if one.state == "failed" and one.name != "notify"), "")
        if phase == "notify":
            stopped = ""  # whatever became of the cut, it is to be told
        phases.append(tell_phase(phase, [entry for entry in mine if entry["phase"] == phase], stopped))
    machine = Machine(name, isolation, since, tuple(phases), (), now)
    return replace(machine, shortfalls=tuple(shortfalls(machine, proof, needed)))


def concerns(entry: Entry, vm: str) -> bool:
    """An entry without a target is about the VMs it lists, or about all of them."""
    if entry["target"]:
        return bool(entry["target"] == vm)
    listed = entry["inputs"].get("vms")
    return vm in listed if isinstance(listed, (list, dict)) and listed else True


def tell_phase(name: str, entries: Sequence[Entry], stopped: str) -> Phase:
    if not entries:
        reason = "not built in this version" if name in NOT_BUILT else "not run"
        return Phase(
            name, "not_done", f"{reason}, after {stopped} failed" if stopped and reason == "not run" else reason
        )
    latest: dict[tuple[str, str], Fact] = {}
    for entry in entries:
        fact = read_fact(entry)
        key = (fact.name, str(fact.inputs.get("to", "")))
        latest.pop(key, None)
        latest[key] = fact
    end = latest.pop(("end", ""), None)
    facts = tuple(latest.values())
    entries = [entry for entry in entries if not is_question(str(entry["phase"]), str(entry["action"]))]
    if not entries:
        return Phase(name, "not_done", "not run", None, facts)
    if end is None:
        failed = [fact for fact in facts if fact.state == "failed" and not is_question(fact.phase, fact.name)]
        msg = failed[-1].msg if failed else f"begun at {clock(str(entries[0]['time']))}, its end is not recorded"
        return Phase(name, "failed" if failed else "not_done", msg, None, facts)
    # a verdict that came later is about another thing that was scanned, such as a candidate for the clean point
    later = [f for f in facts if f.state == "failed" and f.seq > end.seq and "verdict" not in f.result]
    state, msg = ("failed", later[-1].msg) if later else (end.state, end.msg)
    return Phase(name, state, msg, seconds_of(end.result, entries), facts)


def is_question(phase: str, action: str) -> bool:
    """To ask for the clean point is no part of the scan: it begins nothing, and nothing is missing when it fails."""
    return (phase, action) == ("scan", "clean_point")


def read_fact(entry: Entry) -> Fact:
    result, inputs = entry["result"], entry["inputs"]
    raw = str(result.get("state", ""))
    msg = str(result.get("msg") or result.get("reason") or "")
    if raw not in STATES:
        msg = f"the entry has no state that is known ({raw or 'none'}). {msg}".rstrip()
    if raw == "waived":
        msg = f"waived by {result.get('by', 'nobody named')}: {result.get('reason') or msg}"
    return Fact(
        phase=str(entry["phase"]),
        name=fact_name(entry),
        state=STATES.get(raw, "failed"),
        msg=msg,
        seq=int(entry["seq"]),
        time=str(entry["time"]),
        actor=str(entry["actor"]),
        claimed=claimed_by_guest(entry),
        result=result,
        inputs=inputs,
    )


def fact_name(entry: Entry) -> str:
    result, action = entry["result"], str(entry["action"])
    if is_host_scan(entry):
        return f"live host {scope.in_words(entry['inputs'])}".rstrip()
    if action == "evidence" and result.get("class"):
        return str(result["class"])
    return f"{action} {result['what']}" if result.get("what") else action


def claimed_by_guest(entry: Entry) -> bool:
    """What agent commands print is the word of a machine that may be the attacker's."""
    stated = entry["result"].get("claimed_by_guest", entry["inputs"].get("claimed_by_guest"))
    if stated is not None:
        return bool(stated)
    stored = entry["result"].get("state") in ("stored", "done")
    return stored and "connections" in (entry["action"], entry["result"].get("class"))


def isolation_of(entries: Iterable[Entry]) -> tuple[str, str]:
    """The state the ledger recorded last, and when; a state is only taken from an entry that read it back."""
    isolation = since = ""
    for entry in entries:
        result = entry["result"]
        found = str(result.get("isolation") or "").replace("unknown", "")
        if not found and entry["phase"] == "release" and entry["action"] in ("reconnect", "false_alarm"):
            found = "free" if result.get("state") == "done" else ""
        if found and found != isolation:
            isolation, since = found, str(entry["time"])
    return isolation, since


def proof_of(prove: Fact | None) -> str:
    proof = str(prove.result.get("proof", "none")) if prove else "none"
    return proof if proof in PROOFS else "none"


def shortfalls(machine: Machine, proof: str, needed: Sequence[str]) -> list[str]:
    """What is missing, each as a sentence that names the VM."""
    own = [phase for phase in machine.phases if phase.name not in ("notify", "report")]
    if not any(phase.facts or phase.ended for phase in own):
        return [f"{machine.name}: nothing is recorded about it. It may not be cut off. Contain it."]
    unproven = cut_shortfalls(machine, proof)
    found = [*now_shortfalls(machine), *unproven]
    for phase in machine.phases:
        if phase.state == "failed" and not (phase.name == "contain" and unproven):  # the proof says it better
            found.append(f"{machine.name}: {phase.name} failed: {phase.msg or 'no reason is recorded'}")
        elif phase.state == "not_done" and (phase.name in needed or phase.is_open):
            found.append(f"{machine.name}: {phase.name} was not done: {phase.msg}")
    point = machine.fact("restore", "clean_point")
    if point and point.result.get("verdict") != "clean" and machine.isolation != "free":
        found.append(
            f"{machine.name}: stays {machine.isolation or 'as it is'}: "
            f"{point.result.get('chosen') or 'what it was to be brought back from'} is not clean: {point.msg}"
        )
    return found


def now_shortfalls(machine: Machine) -> list[str]:
    """A ledger that says otherwise than the hypervisor is believed by nobody."""
    now = machine.now
    if now is None or now.problem or not machine.isolation or now.isolation == machine.isolation:
        return []
    return [
        f"{machine.name}: {now.hypervisor} says that it is {now.isolation} now, the ledger that it is "
        f"{machine.isolation} since {clock(machine.since)}. Look at its NICs (vm_info), and contain it again."
    ]


def cut_shortfalls(machine: Machine, required: str) -> list[str]:
    if machine.uncut:
        return [f"{machine.name}: the cut FAILED: {machine.uncut}"]
    isolate, prove = machine.fact("contain", "isolate"), machine.fact("contain", "prove")
    if not prove:
        return [f"{machine.name}: the cut is not proven, {required} proof is required. Contain it again."]
    if isolate and isolate.seq > prove.seq and isolate.result.get("changed"):
        return [f"{machine.name}: it was cut off again at {clock(isolate.time)} and the cut is not proven since."]
    if PROOFS.index(machine.proof) < PROOFS.index(required):
        why = str(prove.result.get("shortfall") or prove.msg)
        if machine.leak:
            return [f"{machine.name}: {why}"]
        why = str(prove.result.get("against") or why)  # what to do against a leak is no news once the VM is back
        return [f"{machine.name}: the proof of the cut is {machine.proof}, required is {required}: {why}"]
    return []


def seconds_of(end: Mapping[str, Any], entries: Sequence[Entry]) -> float:
    """What the end says the phase took; else from its first step since the end before, with that step's own time."""
    stated = number(end.get("seconds"))
    if stated is not None:
        return stated
    ends = [place for place, entry in enumerate(entries) if entry["action"] == "end"]
    first = entries[ends[-2] + 1] if len(ends) > 1 else entries[0]
    took = moment(str(entries[ends[-1]]["time"])) - moment(str(first["time"]))
    return max(took + (number(first["result"].get("seconds")) or 0.0), 0.0)


def number(value: Any) -> float | None:
    """Templates of ansible-core before 2.19 hand a number over as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value) if math.isfinite(float(value)) else None
    except (ValueError, OverflowError):
        return None


def moment(time: str) -> float:
    return parsed(time).timestamp()


def clock(time: str) -> str:
    """The time of day of an entry."""
    return parsed(time).strftime("%H:%M:%S UTC")


def parsed(time: str) -> datetime:
    """A time as the ledger takes it, with or without fractions of a second."""
    form = "%Y-%m-%dT%H:%M:%S.%fZ" if "." in time else "%Y-%m-%dT%H:%M:%SZ"
    return datetime.strptime(time, form).replace(tzinfo=timezone.utc)
