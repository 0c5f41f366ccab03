# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power and snapshots on vSphere: tasks, those taken up that an earlier run has left.

Sources: U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.VirtualMachine.html),
U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.Snapshot.html).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Callable

from .._errors import Refused, Unsupported, VmwardError
from .._hypervisor import Detail, Pending
from .._model import PowerState, Vm, VmRef, printable
from . import convert
from .connection import Connection, vim, vmodl
from .tasks import Call, Tasks

TREE = frozenset([Detail.SNAPSHOTS])
Props = dict[str, Any]


class ChangeVerbs:
    """The Power and Snapshots parts of the contract."""

    link: Connection
    tasks: Tasks
    props: dict[str, Props]
    machine: Callable[[VmRef], Any]
    state_of: Callable[[Any], tuple[str, Any]]
    note_asleep: Callable[[Vm], list[Call]]
    cut_again: Callable[[Vm], list[Call]]
    comes_back_cut: Callable[[Vm], bool]
    _moids: dict[str, str]
    _running: dict[tuple[str, str], Any] | None
    _one: Callable[[str, Props, frozenset[Detail]], Vm | VmwardError]
    _properties: Callable[[Sequence[str], frozenset[Detail]], dict[str, Props]]
    _retrieve: Callable[..., list[tuple[Any, Props]]]
    _of_those_left: Callable[[str, Iterable[str], Callable[[list[str]], Any]], Any]

    def _task(
        self,
        vm: Vm,
        what: str,
        kind: str,
        *calls: Call,
        already: str = "",
        before: Sequence[Call] = (),
        always: Sequence[Call] = (),
        reached: Callable[[], bool] | None = None,
    ) -> Pending:
        """Start a task on a VM, or take up the one of that kind that an earlier run has left running.

        Where a task does not say what it works on, ``reached`` tells whether it was this one; if not, ours follows it.
        """
        moid = self.machine(vm.ref)._moId
        tasks = self._running
        if tasks is None:  # also when another thread has read anew meanwhile
            tasks = self._of_those_left("look for running tasks", list(self.props), self._tasks_running)
            self._running = tasks
        running = tasks.pop((moid, kind), None)
        first = [*before, calls[0]]
        if running is not None:
            first = [lambda: running]
        awaiting = running is not None and reached is not None
        if awaiting:
            first.append(lambda: None if self._ended_well(running) and reached() else calls[0]())  # type: ignore[misc]
        return self.tasks.start(vm.ref, what, *first, *calls[1:], already=already, always=always, awaiting=awaiting)

    def _ended_well(self, task: Any) -> bool:
        return bool(self.state_of(task)[0] == "success")

    def _now(self, vm: Vm) -> Vm:
        moid = self.machine(vm.ref)._moId
        found = self._one(vm.ref.id, self._properties([moid], TREE).get(moid, {}), TREE)
        if isinstance(found, VmwardError):
            raise found
        return found

    def _tasks_running(self, moids: list[str]) -> dict[tuple[str, str], Any]:
        """The tasks under way on the VMs that were read last, as far as these are there still."""
        if not moids:
            return {}
        collector = vmodl.query.PropertyCollector
        step = collector.TraversalSpec(type=vim.VirtualMachine, path="recentTask", skip=False)
        sources = [
            collector.ObjectSpec(obj=vim.VirtualMachine(moid, self.link.stub), skip=True, selectSet=[step])
            for moid in moids
        ]
        wanted = collector.PropertySpec(type=vim.Task, pathSet=["info.state", "info.descriptionId", "info.entity"])
        found = self._retrieve([collector.FilterSpec(objectSet=sources, propSet=[wanted])])
        return {
            (props["info.entity"]._moId, kind_of_task(props.get("info.descriptionId", ""))): task
            for task, props in found
            if props.get("info.state") in ("queued", "running") and "info.entity" in props
        }

    # Power

    def submit_start(self, vm: Vm, paused: bool = False) -> Pending:
        if paused:
            raise Unsupported(
                f"Cannot start {vm.ref.name} paused: vSphere cannot. Start it sealed, or revert it to a snapshot with "
                "memory, which ends paused."
            )
        return self._task(vm, "start", "poweron", self.machine(vm.ref).PowerOnVM_Task, already="poweredOn")

    def submit_pause(self, vm: Vm) -> Pending:
        """Suspend: vSphere has no other way to stop the CPUs; the memory goes to files beside the VM's disks."""
        suspend, before = self.machine(vm.ref).SuspendVM_Task, self.note_asleep(vm)
        return self._task(vm, "suspend", "suspend", suspend, already="suspended", before=before)

    def submit_resume(self, vm: Vm) -> Pending:
        self.require_resumable(vm)
        on = self.machine(vm.ref).PowerOnVM_Task
        return self._task(vm, "resume", "poweron", on, already="poweredOn", always=self.cut_again(vm))

    def require_resumable(self, vm: Vm) -> None:
        """An isolated VM only if it was suspended as such: its memory brings its cards' state of then back."""
        if vm.note and not self.comes_back_cut(vm):
            raise Refused(
                f"Cannot let {vm.ref.name} run on: case {printable(vm.note.case)} holds it, and its memory was not "
                "seen to hold the cut: its old wiring may come back with it. Dump its memory, then stop it; or free it "
                "first (vm_isolation, state: free, keep_sessions: true)."
            )

    def submit_shutdown(self, vm: Vm) -> Pending:
        return self.tasks.start(vm.ref, "shut down", self.machine(vm.ref).ShutdownGuest, ends="poweredOff")

    def submit_power_off(self, vm: Vm) -> Pending:
        return self._task(vm, "power off", "poweroff", self.machine(vm.ref).PowerOffVM_Task, already="poweredOff")

    # Snapshots

    def why_not_quiesce(self, vm: Vm) -> str:
        """vSphere takes the snapshot all the same where no Tools run, as if it had not been asked for more."""
        state = self.props[vm.ref.id].get("guest.toolsRunningStatus") or "not told"
        return (
            ""
            if state == "guestToolsRunning"
            else f"VMware Tools do not run in it (their state: {printable(state, 60)})"
        )

    def submit_snapshot(self, vm: Vm, name: str, description: str, memory: bool, quiesce: bool = False) -> Pending:
        machine, title = self.machine(vm.ref), convert.quoted(name)
        known = {one.id for one in vm.snapshots}

        def reached() -> bool:
            return any(one.name == name and one.id not in known for one in self._now(vm).snapshots)

        return self._task(
            vm,
            f"take snapshot {name} of",
            "createsnapshot",
            lambda: machine.CreateSnapshot_Task(title, description, memory, quiesce),
            reached=reached,
        )

    def submit_remove_snapshot(self, vm: Vm, snapshot_id: str) -> Pending:
        snapshot = vim.vm.Snapshot(snapshot_id, self.link.stub)
        what = f"remove snapshot {snapshot_id} of"

        def reached() -> bool:
            return all(one.id != snapshot_id for one in self._now(vm).snapshots)

        return self._task(
            vm, what, "removesnapshot", lambda: snapshot.RemoveSnapshot_Task(False, True), reached=reached
        )

    def submit_revert(self, vm: Vm, snapshot_id: str, memory: bool) -> Pending:
        """Never with its power-on: a snapshot with memory leaves the VM suspended, wired as it was then."""
        snapshot, machine = vim.vm.Snapshot(snapshot_id, self.link.stub), self.machine(vm.ref)
        calls: list[Call] = [lambda: snapshot.RevertToSnapshot_Task(None, True)]
        if not memory and all(one.memory for one in vm.snapshots if one.id == snapshot_id):
            calls.append(machine.PowerOffVM_Task)

        def reached() -> bool:
            now = self._now(vm)
            current = [one.id for one in now.snapshots if one.current]
            return current == [snapshot_id] and now.power is not PowerState.RUNNING  # nobody's power-on came with it

        what = f"revert to {snapshot_id}"
        return self._task(vm, what, "revert", *calls, already="poweredOff", reached=reached)


def kind_of_task(description: str) -> str:
    """The verb of a task's description id: VirtualMachine.powerOff, vm.Snapshot.revert, ..."""
    words = description.lower()
    if "snapshot" in words:
        for verb in ("createsnapshot", "revert", "remove"):
            if verb in words:
                return "removesnapshot" if verb == "remove" else verb
    return words.rpartition(".")[2]
