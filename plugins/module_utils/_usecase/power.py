# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""running, paused, stopped, restarted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Callable

from .._errors import Refused, TimedOut, Unsupported, VmwardError
from .._hypervisor import Capability, Hypervisor, Pending, done
from .._model import PowerState, Vm, printable
from .._plan import Plan, Step, UseCase, View
from . import volatility


class SetPower(UseCase):
    """Bring VMs into one power state."""

    only_power = True

    def __init__(self, state: str, force: bool, grace: int, gate: Mapping[str, Any]) -> None:
        self.state, self.force, self.grace, self.gate = state, force, grace, gate
        self.told: dict[tuple[str, str], str] = {}  # why a guest could not be asked, by hypervisor and VM

    def view(self, vm: Vm | None) -> View:
        return {"power": vm.power.value if vm else "absent"}

    def plan(self, hypervisor: Hypervisor, vm: Vm) -> Plan:
        if Capability.POWER not in hypervisor.capabilities():
            raise Unsupported(f"Cannot change the power of {vm.ref.name}: {vm.ref.hypervisor} cannot do it.")
        if vm.power is PowerState.SUSPENDED:
            self._check_saved(hypervisor, vm)
        planners: dict[str, Callable[[Vm], tuple[Step, ...]]] = {
            "running": self._run,
            "paused": self._pause,
            "stopped": self._stop,
            "restarted": self._restart,
        }
        if self.state == "paused" and vm.power is PowerState.STOPPED:
            require_start_paused(hypervisor, vm)
        steps = planners[self.state](vm)
        return Plan(self.view(vm), {"power": "running" if self.state == "restarted" else self.state}, steps)

    def _check_saved(self, hypervisor: Hypervisor, vm: Vm) -> None:
        """Memory that is saved on disk may bring the VM's old wiring back, where it cannot be cut there."""
        if vm.note and Capability.ISOLATE_SUSPENDED not in hypervisor.capabilities():
            raise Refused(
                f"Cannot bring {vm.ref.name} to {self.state}: case {printable(vm.note.case) or '(unnamed)'} holds it, "
                "and its memory is saved on disk together with its old wiring, which would come back. Keep that memory "
                "as evidence (vm_memory_dump), then discard it on its host."
            )
        if self.state not in ("running", "paused"):
            raise Refused(f"Cannot bring {vm.ref.name} to {self.state}: its memory is saved on disk. Start it first.")

    def _run(self, vm: Vm) -> tuple[Step, ...]:
        if vm.power is PowerState.RUNNING:
            return ()
        if vm.power is PowerState.PAUSED:
            return (Step("let it run on", lambda hv: hv.submit_resume(vm), lambda hv: hv.submit_pause(vm)),)
        return (Step("start it", lambda hv: hv.submit_start(vm)),)

    def _pause(self, vm: Vm) -> tuple[Step, ...]:
        if vm.power is PowerState.PAUSED:
            return ()
        if vm.power is PowerState.RUNNING:
            return (Step("pause it", lambda hv: hv.submit_pause(vm), lambda hv: hv.submit_resume(vm)),)
        return (Step("start it paused", lambda hv: hv.submit_start(vm, paused=True)),)

    def _stop(self, vm: Vm) -> tuple[Step, ...]:
        if vm.power is PowerState.STOPPED:
            return ()
        volatility.require("stop", vm, volatility.MEMORY, self.gate)
        off = Step("take its power away", lambda hv: hv.submit_power_off(vm))
        if vm.power is PowerState.PAUSED:  # a paused guest cannot shut itself down
            if not self.force:
                raise Refused(f"Cannot shut {vm.ref.name} down: it is paused. Let it run on, or use force: true.")
            return (off,)
        if self.grace == 0:
            if not self.force:
                raise Refused(f"Cannot stop {vm.ref.name}: grace is 0 and force is not set.")
            return (off,)
        asked = Asked(vm, self.grace, self.force, lambda told: self._tell(vm, told))
        ask = Step("ask the guest to shut down (%d s)" % self.grace, asked.submit)
        return (ask, Step("take its power away", asked.submit_power_off)) if self.force else (ask,)

    def _restart(self, vm: Vm) -> tuple[Step, ...]:
        return self._stop(vm) + (Step("start it", lambda hv: hv.submit_start(vm)),)

    def _tell(self, vm: Vm, refusal: VmwardError) -> None:
        told = f"the guest could not be asked, so its power was taken away: {refusal}"
        self.told[vm.ref.hypervisor, vm.ref.id] = printable(told, 1000)

    def remarks(self, hypervisor: str, vm_id: str) -> tuple[str, ...]:
        told = self.told.get((hypervisor, vm_id))
        return (told,) if told else ()


class Asked:
    """The guest's own shutdown, bounded. Past the grace, or when nobody in the guest can be asked, force follows."""

    def __init__(self, vm: Vm, grace: int, force: bool, tell: Callable[[VmwardError], None]) -> None:
        self.vm, self.grace, self.force, self.tell = vm, grace, force, tell
        self.obeyed = False

    def submit(self, hypervisor: Hypervisor, now: Callable[[], float] = time.monotonic) -> Pending:
        try:
            asked = hypervisor.submit_shutdown(self.vm)
        except VmwardError as exc:
            return self._refused(exc)
        end = now() + self.grace

        def poll() -> bool:
            try:
                self.obeyed = asked.poll()
            except VmwardError as exc:
                return self._refused(exc).poll()
            if self.obeyed or now() < end:
                return self.obeyed
            if self.force:
                return True
            raise TimedOut(
                "Cannot shut %s down: the guest has not obeyed for %d s and still runs. Use force: true to take its "
                "power away." % (self.vm.ref.name, self.grace)
            )

        return Pending(self.vm.ref, asked.what, poll, asked.task)

    def _refused(self, exc: VmwardError) -> Pending:
        if not self.force:
            raise exc
        self.tell(exc)
        return done(self.vm.ref, "shut down")

    def submit_power_off(self, hypervisor: Hypervisor) -> Pending:
        return done(self.vm.ref, "power off") if self.obeyed else hypervisor.submit_power_off(self.vm)


def require_start_paused(hypervisor: Hypervisor, vm: Vm) -> None:
    if Capability.START_PAUSED not in hypervisor.capabilities():
        raise Unsupported(
            f"Cannot start {vm.ref.name} paused: {vm.ref.hypervisor} cannot do it. Seal it (vm_isolation), then start "
            "it (state: running)."
        )
