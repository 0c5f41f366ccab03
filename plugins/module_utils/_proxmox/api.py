# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Proxmox VE backend: power, snapshots and deletion here; finding, wiring and evidence in the files beside it.

Source: U(https://pve.proxmox.com/pve-docs/api-viewer/).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from .._errors import NotFound, NotVerified, Unsupported
from .._hypervisor import Capability, Hypervisor, Pending
from .._model import IsolationNote, Vm, printable
from . import convert
from .connection import Connection, NoAnswer, Rejected
from .evidence import EvidenceVerbs
from .rehearsal import require_snapshot_name
from .wiring import WiringVerbs
from .work import Job

LACKS = {
    Capability.SUSPEND,
    Capability.DISK_FREEZE,
    Capability.CHECKPOINT,
    Capability.COLLECTORS,
    Capability.ISOLATE_SUSPENDED,
    Capability.DISK_RESET,
    Capability.DISK_RESTORE,
    Capability.REVERT_EXTERNAL,
}
NO_RESET = "Proxmox VE cannot give a VM a fresh overlay in place. Revert it to a snapshot, or clone its template anew."
# In the log of a snapshot that went on all the same. Its words differ by version: what sounds like it counts.
UNFROZEN = re.compile(r"freez.*(problem|fail|error|skip|timeout)|skip.*freez", re.IGNORECASE)


class ProxmoxHypervisor(WiringVerbs, EvidenceVerbs, Hypervisor):
    """One cluster, or one node that stands alone."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(name, Connection(name, options))
        self.one_time("rights", lambda: self.link.call("log in", None, "get", "access/permissions"))

    def until(self, end: float) -> None:
        self.link.end = end

    def capabilities(self) -> frozenset[Capability]:
        have = set(Capability) - LACKS
        if not self.link.options.get("quarantine"):
            have.discard(Capability.FORENSIC)
        return frozenset(have)

    def why_not(self, capability: Capability) -> str:
        if capability is Capability.FORENSIC and not self.link.options.get("quarantine"):
            return f"no quarantine bridge is named for {self.name}. Set quarantine in its entry, or seal the VM."
        return NO_RESET if capability is Capability.DISK_RESET else ""

    def close(self) -> None:
        self.link.close()

    # Power

    def _power(self, vm: Vm, what: str, kind: str, verb: str, on: bool, **values: Any) -> Pending:
        return self.task(vm.ref, what, kind, "post", f"/status/{verb}", lambda: self.is_running(vm.ref) is on, **values)

    def submit_start(self, vm: Vm, paused: bool = False) -> Pending:
        if not paused:
            return self._power(vm, "start", "qmstart", "start", True)
        what = "start paused"

        def set_freeze() -> Pending:
            return self.fired(vm.ref, what, lambda: self.at(vm.ref, what, "put", "/config", freeze=1))

        def forget_freeze() -> Pending:  # it stays pending: the next cold start runs
            drop = {"delete": "freeze"}
            return self.fired(vm.ref, what, lambda: self.at(vm.ref, what, "put", "/config", **drop))

        return self.after(
            vm.ref, what, set_freeze, lambda: self._power(vm, "start", "qmstart", "start", True), forget_freeze
        )

    def submit_pause(self, vm: Vm) -> Pending:
        return self._task_to(vm, "pause", "qmpause", "suspend", "paused")

    def submit_resume(self, vm: Vm) -> Pending:
        return self._task_to(vm, "resume", "qmresume", "resume", "running")

    def _task_to(self, vm: Vm, what: str, kind: str, verb: str, state: str) -> Pending:

        def reached() -> bool:
            return bool(self.at(vm.ref, "read", "get", "/status/current").get("qmpstatus") == state)

        return self.task(vm.ref, what, kind, "post", f"/status/{verb}", reached)

    def submit_shutdown(self, vm: Vm) -> Pending:
        """PVE's task gives up after a minute; the guest may still obey, so that its state counts then."""
        job = Job(
            self, vm.ref, "shut down", "qmshutdown", lambda: not self.is_running(vm.ref),
            lambda: str(self.at(vm.ref, "shut down", "post", "/status/shutdown")),
        )  # fmt: skip

        def poll() -> bool:
            if "got timeout" in str(self.tasks.ends.get(self.upids.get(vm.ref.id, ""))):
                return job.seen_slowly()
            return job.poll()

        return Pending(vm.ref, "shut down", poll)

    def submit_power_off(self, vm: Vm) -> Pending:
        """A shut-down that still waits for the guest holds the VM's lock: PVE is told to end it."""
        ours = vm.ref.id in self.upids

        def stop() -> str:
            asked = self.tasks.running(self.node(vm.ref.id), vm.ref, "qmshutdown", fresh=ours)
            overrule = {"overrule-shutdown": 1} if asked else {}
            return str(self.at(vm.ref, "power off", "post", "/status/stop", **overrule))

        job = Job(self, vm.ref, "power off", "qmstop", lambda: not self.is_running(vm.ref), stop)
        return Pending(vm.ref, "power off", job.poll)

    # Snapshots

    def why_not_quiesce(self, vm: Vm) -> str:
        seen = self.seen[vm.ref.id]
        agent = seen.live("agent")
        return (
            "" if agent and convert.freezes(agent) else "its option agent is off, or keeps file systems from freezing"
        )

    def submit_snapshot(self, vm: Vm, name: str, description: str, memory: bool, quiesce: bool = False) -> Pending:
        """PVE freezes where an agent answers, and goes on where it does not: so it is asked before, the log after."""
        require_snapshot_name(vm, name)
        what = f"take snapshot {name} of"
        if not quiesce:
            return self.take_snapshot(vm.ref, what, name, description, memory)
        return self.after(
            vm.ref,
            what,
            lambda: self.fired(vm.ref, what, lambda: self._ping(vm)),
            lambda: self.take_snapshot(vm.ref, what, name, description, False),
            lambda: self._confirmed(vm, what, name, self.upids.get(vm.ref.id, "")),
        )

    def _confirmed(self, vm: Vm, what: str, name: str, upid: str) -> Pending:
        return self.fired(vm.ref, what, lambda: self._require_frozen(vm, name, upid))

    def _ping(self, vm: Vm) -> None:
        try:
            self.at(vm.ref, "ask the guest agent of", "post", "/agent/ping")
        except (Rejected, NoAnswer) as exc:
            raise Unsupported(f"{exc} No snapshot was taken. Start the agent, or take it without quiesce.") from exc

    def _require_frozen(self, vm: Vm, name: str, upid: str) -> None:
        lines = self.tasks.lines(upid, vm.ref) if upid else []
        problem = next((line for line in lines if UNFROZEN.search(line)), "" if upid else "its task is not known")
        if problem:
            raise NotVerified(
                f"Snapshot {name} of {vm.ref.name} is there, but its file systems were not seen to be quiesced "
                f"({printable(problem, 200)}). "
                "Remove it (vm_snapshot, state: absent), or keep it as one that is not."
            )

    def submit_remove_snapshot(self, vm: Vm, snapshot_id: str) -> Pending:
        what = f"remove snapshot {snapshot_id} of"
        return self.remove_snapshot(vm.ref, what, snapshot_id)

    def submit_revert(self, vm: Vm, snapshot_id: str, memory: bool) -> Pending:
        """PVE lets a VM run at once when the snapshot holds memory, wired as it was then: it is held right after."""
        holds_memory = convert.holds_memory(vm, snapshot_id)
        what = f"revert to {snapshot_id}"

        def make_ready(held: IsolationNote) -> Pending:
            return self.fired(vm.ref, what, lambda: self.ready_to_cut_again(vm, held, what, snapshot_id))

        def roll_back() -> Pending:
            """A second rollback to the same snapshot reads back as the first: whether it began its task tells."""
            path, node = f"/snapshot/{snapshot_id}/rollback", self.node(vm.ref.id)

            def known() -> Mapping[str, str]:
                return self.one_time(f"now rollbacks of {node}", lambda: self.tasks.of_kind(node, "qmrollback"))

            return self.task(vm.ref, what, "qmrollback", "post", path, lambda: False, known, start=0)

        def cut_links() -> Pending:
            return self.fired(vm.ref, what, lambda: self.links_down(vm.ref))

        first = [partial(make_ready, vm.note)] if vm.note else []
        if not holds_memory:
            return self.after(vm.ref, what, *first, roll_back)
        hold = self.submit_pause if memory else self.submit_power_off
        return self.after(vm.ref, what, *first, roll_back, *([cut_links] if vm.note else []), lambda: hold(vm))

    # Disks given up

    def submit_reset_disks(self, vm: Vm) -> Pending:
        raise Unsupported(f"Cannot reset the disks of {vm.ref.name}: {NO_RESET}")

    def submit_delete(self, vm: Vm) -> Pending:
        what = "delete"

        def gone() -> bool:
            try:
                self.at(vm.ref, "read", "get", "/status/current")
            except NotFound:
                return True
            return False

        return self.task(vm.ref, what, "qmdestroy", "delete", "", gone, purge=1)
