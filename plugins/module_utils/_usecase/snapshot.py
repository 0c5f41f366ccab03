# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots: take, remove, revert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._errors import Ambiguous, NotFound, Refused, Unsupported
from .._hypervisor import Capability, Detail, Hypervisor
from .._model import Isolation, PowerState, Snapshot, Vm, printable
from .._plan import Plan, Step, UseCase, View, differences
from . import volatility
from .isolation import again

TREE = frozenset([Detail.SNAPSHOTS])


def find(vm: Vm, wanted: str) -> Snapshot:
    """The one snapshot of that id, or of that name anywhere in the tree."""
    by_id = [snapshot for snapshot in vm.snapshots if snapshot.id == wanted]
    hits = by_id or [snapshot for snapshot in vm.snapshots if snapshot.name == wanted]
    if len(hits) == 1:
        return hits[0]
    if hits:
        listed = ", ".join(f"{snapshot.id} ({snapshot.created})" for snapshot in hits)
        raise Ambiguous(
            "%s has %d snapshots named '%s': %s. Use the id." % (vm.ref.name, len(hits), printable(wanted), listed)
        )
    listed = ", ".join(printable(snapshot.name, 40) for snapshot in vm.snapshots[:20]) or "none"
    raise NotFound(f"{vm.ref.name} has no snapshot '{printable(wanted)}'. It has: {listed}.")


class SetSnapshot(UseCase):
    """A snapshot of that name is present, or absent."""

    detail = TREE

    def __init__(self, name: str, state: str, description: str, memory: bool, quiesce: bool = False) -> None:
        if state == "present" and not (name.strip() and name.isprintable()):
            raise Refused(
                f"Cannot take a snapshot '{printable(name)}': its name must be readable, that is not empty and without "
                "control characters. Nothing was touched. Choose another."
            )
        self.name, self.state, self.description = name, state, description
        self.memory, self.quiesce = memory, quiesce

    def view(self, vm: Vm | None) -> View:
        return {"snapshots": sorted(snapshot.name for snapshot in vm.snapshots) if vm else []}

    def plan(self, hypervisor: Hypervisor, vm: Vm) -> Plan:
        before = self.view(vm)
        there = [snapshot for snapshot in vm.snapshots if self.name in (snapshot.id, snapshot.name)]
        if bool(there) == (self.state == "present"):
            if there and self.memory and not any(snapshot.memory for snapshot in there):
                raise Refused(
                    f"Cannot take a snapshot with memory of {vm.ref.name}: it has a snapshot of this name already, "
                    "which holds none. Nothing was touched. Choose another name."
                )
            return Plan(before, before)
        if self.state == "absent":
            gone = find(vm, self.name)
            if vm.note:
                raise Refused(
                    f"Cannot remove snapshot {printable(gone.name)} of {vm.ref.name}: case "
                    f"{vm.note.case or '(unnamed)'} holds it, and a snapshot may be its evidence or its clean point. "
                    "Release the VM first (vmward.remediation.release)."
                )
            left = {snapshot.id: snapshot.name for snapshot in vm.snapshots if snapshot.id != gone.id}
            step = Step(f"remove snapshot {printable(gone.name)}", lambda hv: hv.submit_remove_snapshot(vm, gone.id))
            after = {"snapshots": sorted(left.values())}
            return Plan(before, after, (step,), proof=lambda now: misses(now, gone, left))
        self._check(hypervisor, vm)
        asked = self.quiesce and vm.power is PowerState.RUNNING  # what is off writes nothing: it is still by itself
        more = " with memory" if self.memory else ", its file systems quiesced" if asked else ""
        step = Step(
            f"take snapshot {printable(self.name)}{more}",
            lambda hv: hv.submit_snapshot(vm, self.name, self.description, self.memory, asked),
        )
        after = {"snapshots": sorted(before["snapshots"] + [self.name])}
        return Plan(before, after, (step,), proof=lambda now: untaken(now, self.name, vm))

    def _check(self, hypervisor: Hypervisor, vm: Vm) -> None:
        if self.memory and self.quiesce:
            raise Refused(
                f"Cannot take snapshot {printable(self.name)} of {vm.ref.name}: with memory its file systems are not "
                "quiesced, since memory holds what is not written yet. Nothing was touched. Ask for one of both."
            )
        needed = Capability.SNAPSHOT_MEMORY if self.memory else Capability.SNAPSHOT
        needed = Capability.SNAPSHOT_QUIESCE if self.quiesce else needed
        if needed not in hypervisor.capabilities():
            raise Unsupported(f"Cannot take a {needed.value} of {vm.ref.name}: {vm.ref.hypervisor} cannot do it.")
        if self.memory and vm.power not in (PowerState.RUNNING, PowerState.PAUSED):
            raise Refused(f"Cannot take a snapshot with memory of {vm.ref.name}: it is {vm.power.value}.")
        if self.quiesce and vm.power in (PowerState.PAUSED, PowerState.SUSPENDED):
            raise Refused(
                f"Cannot take a {needed.value} of {vm.ref.name}: it is {vm.power.value}, so that nobody in it answers. "
                "Nothing was touched. Let it run on, or take it without quiesce."
            )
        why = hypervisor.why_not_quiesce(vm) if self.quiesce and vm.power is PowerState.RUNNING else ""
        if why:
            raise Unsupported(
                f"Cannot take a {needed.value} of {vm.ref.name}: {why}. Nothing was touched. Correct that, or take it "
                "without quiesce."
            )


def untaken(now: Vm, name: str, before: Vm) -> list[str]:
    """Whether a snapshot is missing that should be new. Another that somebody took meanwhile is no fault."""
    known = {snapshot.id for snapshot in before.snapshots}
    new = [snapshot for snapshot in now.snapshots if snapshot.name == name and snapshot.id not in known]
    return [] if new else [f"it has no new snapshot {printable(name)}"]


def misses(now: Vm, gone: Snapshot, left: Mapping[str, str]) -> list[str]:
    """What a removal left or took that it should not have: names need not be unique."""
    there = {snapshot.id for snapshot in now.snapshots}
    wrong = [f"it has snapshot {gone.id} still"] if gone.id in there else []
    return wrong + [f"snapshot {other} is gone" for other in left if other not in there]


def elsewhere(now: Vm, target: Snapshot) -> list[str]:
    """Where a VM stands that should stand on this snapshot: another of the same name is another."""
    current = [snapshot.id for snapshot in now.snapshots if snapshot.current]
    if current == [target.id]:
        return []
    return ["its current snapshot is {}, not {}".format(", ".join(current) or "none", target.id)]


class Revert(UseCase):
    """Go back to a snapshot: disk state only unless memory is asked for; isolated again before anything else."""

    detail = TREE

    def __init__(self, snapshot: str, memory: bool, discard: bool, gate: Mapping[str, Any]) -> None:
        self.snapshot, self.memory, self.discard, self.gate = snapshot, memory, discard, gate

    def view(self, vm: Vm | None) -> View:
        if vm is None:
            return {"power": "absent"}
        current = [snapshot.name for snapshot in vm.snapshots if snapshot.current]
        told = {"power": vm.power.value, "current_snapshot": current[0] if current else ""}
        return dict(told, isolation=vm.isolation.value) if vm.note else told

    def plan(self, hypervisor: Hypervisor, vm: Vm) -> Plan:
        target = find(vm, self.snapshot)
        self._check(hypervisor, vm, target)
        steps: tuple[Step, ...] = ()
        if vm.power is not PowerState.STOPPED and Capability.REVERT_RUNNING not in hypervisor.capabilities():
            steps += (Step("take its power away", lambda hv: hv.submit_power_off(vm)),)
        what = "revert to {}, {}".format(
            printable(target.name),
            "with memory, paused" if self.memory else "disk state only, stopped",
        )
        steps += (Step(what, lambda hv: hv.submit_revert(vm, target.id, self.memory)),)
        mode = vm.note.mode if vm.note else Isolation.FREE
        if vm.note:
            steps += again(mode, vm.note)
        after = {"power": "paused" if self.memory else "stopped", "current_snapshot": target.name}
        if vm.note:
            after["isolation"] = mode.value

        def proof(now: Vm) -> list[str]:
            return differences(after, self.view(now)) + elsewhere(now, target)

        return Plan(self.view(vm), after, steps, proof=proof)

    def _check(self, hypervisor: Hypervisor, vm: Vm, target: Snapshot) -> None:
        can = hypervisor.capabilities()
        needed = Capability.REVERT_EXTERNAL if target.disks == "external" else Capability.REVERT
        if needed not in can:
            raise Unsupported(
                f"Cannot revert {vm.ref.name} to {printable(target.name)}: {vm.ref.hypervisor} "
                f"cannot {needed.value} in its version. Rebuild it from the golden image (vm_disk_reset), "
                "or revert by hand."
            )
        if target.blocked:
            raise Refused(f"Cannot revert {vm.ref.name} to {printable(target.name)}: {target.blocked}.")
        if self.memory and not target.memory:
            raise Refused(f"Cannot revert {vm.ref.name} with memory: snapshot {printable(target.name)} holds none.")
        volatility.require("revert", vm, volatility.ALL, self.gate)
        if vm.note is None and not self.discard:
            raise Refused(
                f"Cannot revert {vm.ref.name}: its present state would be lost. "
                "Take a snapshot or preserve it first, or say discard: true."
            )
