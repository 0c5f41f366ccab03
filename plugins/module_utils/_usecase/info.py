# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known about VMs, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .._hypervisor import Detail, Hypervisor
from .._model import PowerState, Vm
from .._plan import Plan, UseCase, View

ALL = frozenset(Detail)


class Info(UseCase):
    """Read and tell; never changes anything."""

    detail = ALL
    needs_all = False

    def view(self, vm: Vm | None) -> View:
        return plain(vm) if vm else {}

    def plan(self, hypervisor: Hypervisor, vm: Vm) -> Plan:
        told = plain(vm)
        if vm.power is PowerState.SUSPENDED:
            told["kept_memory"] = list(hypervisor.kept_memory(vm))
        return Plan(told, told)


def plain(vm: Vm) -> dict[str, Any]:
    """A VM as JSON-able data, with the words of the model."""
    told = asdict(vm)
    ref, _firewall = told.pop("ref"), told.pop("firewall")
    told.update(name=ref["name"], id=ref["id"], hypervisor=ref["hypervisor"])
    told.update(power=vm.power.value, isolation=vm.isolation.value)
    for nic, model in zip(told["nics"], vm.nics):
        nic["isolation"] = model.isolation.value
    for snapshot, taken in zip(told["snapshots"], vm.snapshots):
        snapshot["power"] = taken.power.value
    if vm.note:
        told["note"]["mode"] = vm.note.mode.value
        told["note"]["wiring"] = {nic: asdict(wiring) for nic, wiring in vm.note.wiring}
    return told
