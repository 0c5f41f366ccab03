# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verbs that give up a VM's disks: a fresh overlay on the golden image, and deletion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._errors import Refused, Unsupported
from .._hypervisor import Capability, Detail, Hypervisor
from .._model import PowerState, Vm, printable
from .._plan import Plan, Step, UseCase, View
from . import volatility

DISKS = frozenset([Detail.DISKS, Detail.SNAPSHOTS])


class ResetDisks(UseCase):
    """Every writable disk of a stopped VM starts again from its base."""

    detail = DISKS

    def __init__(self, discard: bool, gate: Mapping[str, Any]) -> None:
        self.discard, self.gate = discard, gate

    def view(self, vm: Vm | None) -> View:
        disks = vm.disks if vm else ()
        return {
            disk.id: {"base": disk.layers[-1].path, "layers": len(disk.layers)} for disk in disks if not disk.read_only
        }

    def plan(self, hypervisor: Hypervisor, vm: Vm) -> Plan:
        self._check(hypervisor, vm)
        after = {disk: {"base": state["base"], "layers": 2} for disk, state in self.view(vm).items()}
        text = "put a fresh overlay on the base of {}".format(", ".join(sorted(after)))
        return Plan(self.view(vm), after, (Step(text, lambda hv: hv.submit_reset_disks(vm)),))

    def _check(self, hypervisor: Hypervisor, vm: Vm) -> None:
        name = vm.ref.name
        if Capability.DISK_RESET not in hypervisor.capabilities():
            why = hypervisor.why_not(Capability.DISK_RESET)
            raise Unsupported(
                f"Cannot reset the disks of {name}: {vm.ref.hypervisor} cannot do it{': ' + why if why else '.'}"
            )
        if vm.power is not PowerState.STOPPED:
            raise Refused(f"Cannot reset the disks of {name}: it is {vm.power.value}. Stop it first (vm_power).")
        alone = [disk.id for disk in vm.disks if not disk.read_only and len(disk.layers) < 2]
        if alone or not vm.disks:
            raise Unsupported(
                "Cannot reset {}: {} has no base image to start again from. Revert to a snapshot instead.".format(
                    name, "disk " + ", ".join(alone) if alone else "it"
                )
            )
        volatility.require("reset", vm, volatility.ALL, self.gate)
        if vm.note is None and not self.discard:
            raise Refused(f"Cannot reset {name}: what it has written since its base would be lost. Say discard: true.")
        if vm.snapshots and not self.discard:
            kept = ", ".join(printable(snapshot.name, 40) for snapshot in vm.snapshots)
            raise Refused(f"Cannot reset {name}: its snapshots would be lost ({kept}). Say discard: true.")


class Delete(UseCase):
    """A stopped VM and the images that only it uses are gone."""

    detail = DISKS

    def __init__(self, confirm: bool, gate: Mapping[str, Any]) -> None:
        self.confirm, self.gate = confirm, gate

    def view(self, vm: Vm | None) -> View:
        if vm is None:
            return {"state": "absent"}
        return {"state": "present", "disks": [disk.layers[0].path for disk in vm.disks]}

    def plan(self, hypervisor: Hypervisor, vm: Vm) -> Plan:
        if Capability.DELETE not in hypervisor.capabilities():
            raise Unsupported(f"Cannot delete {vm.ref.name}: {vm.ref.hypervisor} cannot do it.")
        if vm.power is not PowerState.STOPPED:
            raise Refused(f"Cannot delete {vm.ref.name}: it is {vm.power.value}. Stop it first (vm_power).")
        volatility.require("delete", vm, volatility.ALL, self.gate)
        if vm.note is None and not self.confirm:
            raise Refused(
                f"Cannot delete {vm.ref.name}: no case holds it. Say confirm: true to delete it with its disks."
            )
        return Plan(
            self.view(vm), {"state": "absent"}, (Step("delete it with its disks", lambda hv: hv.submit_delete(vm)),)
        )
