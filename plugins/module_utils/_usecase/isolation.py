# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""free, forensic, sealed: planning over the contract."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone

from .._errors import Refused, Unsupported
from .._hypervisor import Capability, Detail, Hypervisor, Pending
from .._model import Collector, Isolation, IsolationNote, Nic, PowerState, Vm, Wiring, printable
from .._plan import Plan, Step, UseCase, View

CASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # as the ledger takes it
MEANS = {Isolation.SEALED: {"filter", "link"}, Isolation.FORENSIC: {"filter", "network"}}
NEEDS = {Isolation.SEALED: Capability.SEAL, Isolation.FORENSIC: Capability.FORENSIC}


class SetIsolation(UseCase):
    """Bring VMs into one isolation state."""

    detail: frozenset[Detail] = frozenset()

    def __init__(
        self, mode: Isolation, case: str = "", collectors: Sequence[Collector] = (), keep_sessions: bool = False
    ) -> None:
        if case and not CASE.fullmatch(case):
            raise Refused(
                f"Cannot use '{printable(case)}' as a case: an id is 1 to 64 letters, digits, dots, dashes or "
                "underscores and begins with a letter or digit. Nothing was touched. "
                "Choose another, for instance 2026-0142."
            )
        for collector in collectors if mode is Isolation.FORENSIC else ():
            check_collector(collector)
        self.cuts = mode is not Isolation.FREE
        self.needs_all = not self.cuts  # a cut never waits for a hypervisor that does not answer
        self.mode, self.case, self.collectors, self.keep_sessions = mode, case, tuple(collectors), keep_sessions
        self.loosened: set[tuple[str, str]] = set()  # VMs whose firewall is not as a cut has set it
        self.new_case = case or datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")

    def view(self, vm: Vm | None) -> View:
        told = view(vm)
        if vm and (vm.ref.hypervisor, vm.ref.id) in self.loosened:
            told["firewall"] = {name: now for name, now, _as_set in vm.firewall}
        return told

    def unread(self, plan: Plan) -> View:
        """The case is no state: by it the ledger and the note, which may well be there, find each other."""
        return {**super().unread(plan), "case": plan.after["case"] or plan.before["case"]}

    def plan(self, hypervisor: Hypervisor, vm: Vm) -> Plan:
        return self._free(vm) if self.mode is Isolation.FREE else self._isolate(hypervisor, vm)

    def _isolate(self, hypervisor: Hypervisor, vm: Vm) -> Plan:
        if NEEDS[self.mode] not in hypervisor.capabilities():
            why = hypervisor.why_not(NEEDS[self.mode])
            raise Unsupported(
                f"Cannot bring {vm.ref.name} into {self.mode.value} isolation: {vm.ref.hypervisor} cannot do it here"
                f"{': ' + why if why else '.'}"
            )
        if self.mode is Isolation.FORENSIC and not self.collectors:
            raise Refused(
                f"Cannot bring {vm.ref.name} into forensic isolation: no collector is named. "
                "Set vmward_collectors, or seal it."
            )
        note, warnings = renewed_note(vm, self.mode, self.new_case, self.collectors), []
        if vm.note and self.case and vm.note.case != self.case:
            warnings.append(f"it is already isolated under case {vm.note.case}, which stays its case")
        if self.mode is Isolation.FORENSIC and Capability.COLLECTORS not in hypervisor.capabilities():
            warnings.append("whom it can reach is decided by the isolation network, not by the collectors named here")
        warnings += unknown_former(vm)
        if not vm.persistent:
            warnings.append("its definition is transient: the cut lasts only while it runs")
        steps = []
        if note != vm.note:
            steps.append(Step("write the undo note", lambda hv: hv.submit_note(vm, note)))
        loose = [name for name, now, as_set in vm.firewall if now != as_set and vm.note and vm.note.mode is self.mode]
        others = vm.note is not None and vm.note.collectors != note.collectors
        open_ = [nic for nic in vm.nics if (others and nic.cut_by) or nic.isolation is not reachable(nic, self.mode)]
        if open_ or loose:
            text = cut_text(self.mode, open_) if open_ else f"set the firewall again: {', '.join(loose)}"
            steps.append(Step(text, lambda hv: hv.submit_isolate(vm, self.mode, self.collectors)))
        if loose:
            self.loosened.add((vm.ref.hypervisor, vm.ref.id))
        before, after = self.view(vm), view(vm)
        if loose:
            after["firewall"] = {name: as_set for name, _now, as_set in vm.firewall}
        reached = {nic.id: reachable(nic, self.mode) for nic in vm.nics}
        after["isolation"] = min(reached.values(), key=list(Isolation).index, default=self.mode).value
        after["case"] = note.case
        for nic_id, isolation in reached.items():
            after["nics"][nic_id]["isolation"] = isolation.value
            if isolation is not Isolation.FREE:
                after["nics"][nic_id].pop("wiring", None)
        return Plan(before, after, tuple(steps), tuple(warnings), uncut(hypervisor, vm, self.mode))

    def _free(self, vm: Vm) -> Plan:
        before = view(vm)
        if vm.note is None:
            held = [nic.id for nic in vm.nics if nic.isolation is not Isolation.FREE]
            if held:
                raise Refused(
                    "Cannot free {}: NIC {} is isolated, but the VM carries no undo note. Restore its wiring from the "
                    "ledger's undo entry, or by hand.".format(vm.ref.name, ", ".join(held))
                )
            return Plan(before, before)
        note = vm.note
        if note.sessions and vm.power is not PowerState.STOPPED and not self.keep_sessions:
            raise Refused(
                f"Cannot free {vm.ref.name}: it has run on since it was cut at {note.since}, so the attacker's "
                "open sessions would resume. Stop and start it (or restore a clean point) first; "
                "after a false alarm use keep_sessions: true."
            )
        wiring = dict(note.wiring)
        strange = [nic.id for nic in vm.nics if nic.isolation is not Isolation.FREE and nic.id not in wiring]
        if strange:
            raise Refused(
                "Cannot free {}: the undo note does not know NIC {}. Isolate it again first, so that the note "
                "takes it in.".format(vm.ref.name, ", ".join(strange))
            )
        after = view(vm)
        after["isolation"], after["case"] = Isolation.FREE.value, ""
        for nic in vm.nics:
            if nic.id in wiring:
                restored = asdict(former(wiring[nic.id], nic))
                after["nics"][nic.id] = {"isolation": Isolation.FREE.value, "wiring": restored}
        warnings = ["its old sessions may resume (keep_sessions)"] if note.sessions and self.keep_sessions else []
        here = [nic.id for nic in vm.nics if nic.id in wiring]
        gone = ", ".join(sorted(set(wiring) - set(here)))
        warnings += [f"NIC {gone} is gone since it was cut, and does not come back"] if gone else []
        steps = (
            Step("restore the former wiring of %d NIC(s)" % len(here), lambda hv: hv.submit_reconnect(vm, note)),
            Step("remove the undo note", lambda hv: hv.submit_note(vm, None)),
        )
        return Plan(before, after, steps, tuple(warnings))


def check_collector(collector: Collector) -> None:
    """A rule that lets it pass needs addresses, and a port."""
    wrong = f"port {collector.port} of {collector.address} is none from 1 to 65535"
    if 1 <= collector.port <= 65535:
        wrong = ""
    for address in filter(None, (collector.address, collector.via)):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            wrong = f"'{printable(address)}' is no IPv4 or IPv6 address"
    if wrong:
        raise Refused(
            f"Cannot isolate for forensics: of the collectors (vmward_collectors), {wrong}. Nothing was touched. "
            "Correct it, or seal."
        )


def view(vm: Vm | None) -> View:
    """What isolation is about: each NIC's state, the wiring of those that are free, and the case that holds the VM."""
    if vm is None:
        return {"isolation": "absent"}
    nics: dict[str, View] = {nic.id: {"isolation": nic.isolation.value} for nic in vm.nics}
    for nic in vm.nics:
        if nic.isolation is Isolation.FREE:
            nics[nic.id]["wiring"] = asdict(nic.wiring)
    return {"isolation": vm.isolation.value, "case": vm.note.case if vm.note else "", "nics": nics}


def former(noted: Wiring, nic: Nic) -> Wiring:
    """What reconnecting gives a NIC: a VM started since the cut gets live what the note holds for its next start."""
    live = noted.live or noted.config
    return Wiring(noted.config if nic.wiring.config else "", live if nic.wiring.live else "")


def renewed_note(
    vm: Vm, mode: Isolation, case: str, collectors: tuple[Collector, ...], former: IsolationNote | None = None
) -> IsolationNote:
    """The note for a cut: what an earlier note knows is kept for ever, NICs plugged in since are added."""
    former = former or vm.note
    wiring = dict(former.wiring) if former else {}
    for nic in vm.nics:
        wiring.setdefault(nic.id, nic.wiring)
    if former:
        return replace(former, mode=mode, collectors=collectors, wiring=tuple(sorted(wiring.items())))
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    running = vm.power is not PowerState.STOPPED
    return IsolationNote(case, mode, now, tuple(sorted(wiring.items())), collectors, sessions=running)


def unknown_former(vm: Vm) -> list[str]:
    """What is cut already, but not by the note that is there, has a former wiring that nobody on the VM remembers."""
    held = [nic.id for nic in vm.nics if nic.isolation is not Isolation.FREE]
    if vm.note:
        new = ", ".join(sorted(set(held) - set(dict(vm.note.wiring))))
        return [
            f"NIC {new} was cut already, and the undo note did not know it: it takes it in as it is now, so that it "
            "stays cut when the VM is freed. If its address was changed since, its former wiring is told under the "
            "old one, by the note and by the ledger's undo entry"
        ] if new else []  # fmt: skip
    held = [nic.id for nic in vm.nics if nic.id in held and "filter" in nic.cut_by]
    if not held:
        return []
    return [
        f"NIC {', '.join(held)} was cut already and its undo note is lost: the former wiring is not known to the new "
        "note. It lies in the ledger, in the undo entry of the case that cut it first"
    ]


def cut_text(mode: Isolation, nics: Sequence[Nic]) -> str:
    names = ", ".join(nic.id for nic in nics)
    return "{} NIC {}, live and persistent".format(
        "seal" if mode is Isolation.SEALED else "isolate for forensics", names
    )


def reachable(nic: Nic, mode: Isolation) -> Isolation:
    """What a cut can make of it: one that the mode has no means for gets its link down, if it has that."""
    if MEANS[mode].intersection(nic.cut_by):
        return mode
    return Isolation.SEALED if nic.cut_by else nic.isolation


def uncut(hypervisor: Hypervisor, vm: Vm, mode: Isolation) -> str:
    """Why the VM cannot be held whole; empty when it can."""
    if vm.power is PowerState.SUSPENDED and Capability.ISOLATE_SUSPENDED not in hypervisor.capabilities():
        return (
            f"{vm.ref.name} is NOT wholly isolated: its memory is saved on disk together with its old wiring, "
            "which comes back when it is started. Do not start it. Start it paused from the host's console and contain "
            "it again, or keep the saved memory as evidence and remove it there."
        )
    held_open = [nic for nic in vm.nics if not MEANS[mode].intersection(nic.cut_by)]
    if not held_open:
        return ""
    named = ", ".join(f"{nic.id} ({nic.kind})" for nic in held_open)
    return (
        f"{vm.ref.name} is NOT wholly isolated: {named} cannot be cut from outside by {vm.ref.hypervisor}. "
        "Detach it, or unplug or block its port on the switch, at once."
    )


def again(mode: Isolation, note: IsolationNote) -> tuple[Step, ...]:
    """The steps that put note and cut back right after a revert, from what the VM is then."""

    def write_note(hypervisor: Hypervisor, fresh: Vm) -> Pending:
        renewed = renewed_note(fresh, mode, note.case, note.collectors, former=note)
        resumed = fresh.power is not PowerState.STOPPED  # with memory its old sessions came back
        return hypervisor.submit_note(fresh, replace(renewed, sessions=note.sessions or resumed))

    def cut(hypervisor: Hypervisor, fresh: Vm) -> Pending:
        return hypervisor.submit_isolate(fresh, mode, note.collectors)

    return (
        Step("put the undo note back", write_note, always=True, fresh=True),
        Step(f"isolate again ({mode.value})", cut, always=True, fresh=True),
    )
