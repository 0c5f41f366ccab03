# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hypervisor that is only a file: the whole contract, simulated. docs/adding-a-hypervisor.md reads it.

It behaves as libvirt does where that hurts: a revert brings back the wiring and the note of the snapshot, a cold start
takes the wiring of the next start, a transient VM vanishes when it stops.
"""

from __future__ import annotations

import json
import math
import os
import struct
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Callable

from .._disk_copy import Copies
from .._errors import NotFound, TaskFailed, TimedOut, Unsupported, VmwardError
from .._hypervisor import Capability, Detail, GuestOutput, Hypervisor, Pending
from .._model import Collector, DiskCopy, Isolation, IsolationNote, PowerState, Vm, VmRef
from .._wait import poll_all
from . import images
from .convert import CUT_BY, guard_of, layers_of, note_data, vm_of
from .state import Data, State

Edit = Callable[[Data, Data], None]  # (the VM's data, the whole state)


class FakeHypervisor(Hypervisor):
    """One state file. See ``machine()`` in convert.py for what a VM is made of."""

    _copying: Copies | None = None

    def __init__(self, name: str, path: str) -> None:
        self.name, self.state = name, State(path)
        self.state.read()  # a wrong path fails here, as a wrong log-in would

    # Finding and reading

    def capabilities(self) -> frozenset[Capability]:
        lacks = self.state.read().get("lacks", [])
        lacks = [*lacks, Capability.DISK_FREEZE.name, Capability.CHECKPOINT.name]  # there is no QEMU to serve them
        return frozenset(capability for capability in Capability if capability.name not in lacks)

    def refs(self) -> tuple[VmRef, ...]:
        self.state.strike("refs")
        return tuple(VmRef(self.name, vm_id, data["name"]) for vm_id, data in sorted(self._vms().items()))

    def tags(self) -> Mapping[str, tuple[str, ...]]:
        self.state.strike("tags")
        return {vm_id: tuple(data["tags"]) for vm_id, data in self._vms().items() if data["tags"]}

    def read(self, ids: Sequence[str], detail: frozenset[Detail] = frozenset()) -> dict[str, Vm | VmwardError]:
        answer: dict[str, Vm | VmwardError] = {}
        vms = self._vms()
        for vm_id in ids:
            try:
                answer[vm_id] = self._read(vms, vm_id, detail)
            except VmwardError as exc:
                answer[vm_id] = exc
        return answer

    def _read(self, vms: Data, vm_id: str, detail: frozenset[Detail]) -> Vm:
        if vm_id not in vms:
            raise self._gone(vm_id)
        self.state.strike("read", vms[vm_id]["name"])
        return vm_of(VmRef(self.name, vm_id, vms[vm_id]["name"]), vms[vm_id], detail)

    def _vms(self) -> Data:
        """All VMs as they are now: a guest that was asked to shut down may have obeyed meanwhile."""
        data = self.state.read()
        if any(due(vm) for vm in data["vms"].values()):
            with self.state.change() as data:
                for vm_id, vm in list(data["vms"].items()):
                    if due(vm):
                        stop(data, vm_id)
        vms: Data = data["vms"]
        return vms

    def wait(
        self, pending: Sequence[Pending], deadline: float, together: float = math.inf
    ) -> Mapping[str, VmwardError | None]:
        return poll_all(pending, deadline, together=together)

    def close(self) -> None:
        """Nothing is held open."""

    def _gone(self, vm_id: str) -> NotFound:
        return NotFound("The VM %s is not on %s: it may have been removed meanwhile." % (vm_id, self.name))

    def _change(self, verb: str, vm: Vm, edit: Edit) -> Pending:
        """Every verb's way in: a planned fault first, then the change, then the time that it is said to take."""
        end = time.monotonic() + self.state.strike(verb, vm.ref.name)
        with self.state.change() as state:
            if vm.ref.id not in state["vms"]:
                raise self._gone(vm.ref.id)
            edit(state["vms"][vm.ref.id], state)
        return Pending(vm.ref, verb.replace("submit_", "").replace("_", " "), lambda: time.monotonic() >= end)

    # Isolation

    def submit_note(self, vm: Vm, note: IsolationNote | None) -> Pending:
        def write(machine: Data, _state: Data) -> None:
            machine["note"] = note_data(note)
            if is_on(machine) and (note is None or note.sessions):
                machine["session"] = note is not None

        return self._change("submit_note", vm, write)

    def submit_isolate(self, vm: Vm, mode: Isolation, collectors: Sequence[Collector]) -> Pending:
        former = dict(vm.note.wiring) if vm.note else {}

        def cut(machine: Data, _state: Data) -> None:
            for nic in machine["nics"]:
                able = CUT_BY.get(nic["kind"], ("link",))  # of a kind never seen, the link is tried
                guard = guard_of(mode, collectors) if "filter" in able else ""
                for side in ("config", "live"):
                    if able and nic[side]:
                        noted = getattr(former.get(nic["id"]), side, "") or json.dumps(nic[side])
                        down = mode is Isolation.SEALED or not guard or json.loads(noted)["link"] == "down"
                        nic[side] = {"guard": guard, "link": "down" if down else "up"}

        return self._change("submit_isolate", vm, cut)

    def submit_reconnect(self, vm: Vm, note: IsolationNote) -> Pending:
        def reconnect(machine: Data, _state: Data) -> None:
            wiring = dict(note.wiring)
            for nic in machine["nics"]:
                if nic["id"] in wiring:
                    former = wiring[nic["id"]]
                    if nic["config"] and former.config:
                        nic["config"] = json.loads(former.config)
                    if nic["live"]:
                        nic["live"] = json.loads(former.live or former.config)

        return self._change("submit_reconnect", vm, reconnect)

    # Power

    def submit_start(self, vm: Vm, paused: bool = False) -> Pending:
        def start(machine: Data, _state: Data) -> None:
            if machine["power"] == PowerState.STOPPED.value:
                machine["session"] = False
                for nic in machine["nics"]:
                    nic["live"] = nic["config"]
            machine["power"] = "paused" if paused else "running"

        return self._change("submit_start", vm, start)

    def submit_pause(self, vm: Vm) -> Pending:
        return self._change("submit_pause", vm, lambda machine, _state: switch(machine, "running", "paused"))

    def submit_resume(self, vm: Vm) -> Pending:
        return self._change("submit_resume", vm, lambda machine, _state: switch(machine, "paused", "running"))

    def submit_shutdown(self, vm: Vm) -> Pending:
        def ask(machine: Data, _state: Data) -> None:
            if machine.get("obeys_after") is not None:
                machine["stops_at"] = time.time() + machine["obeys_after"]

        asked = self._change("submit_shutdown", vm, ask)
        return Pending(vm.ref, asked.what, lambda: not is_on(self._vms().get(vm.ref.id, {"power": "stopped"})))

    def submit_power_off(self, vm: Vm) -> Pending:
        return self._change("submit_power_off", vm, lambda _machine, state: stop(state, vm.ref.id))

    # Snapshots

    def why_not_quiesce(self, vm: Vm) -> str:
        return "" if self._vms()[vm.ref.id].get("guest") is not None else "it has no guest agent"

    def submit_snapshot(self, vm: Vm, name: str, description: str, memory: bool, quiesce: bool = False) -> Pending:
        def take(machine: Data, _state: Data) -> None:
            snapshot_id = uuid.uuid4().hex[:8]
            for disk in writable(machine):
                images.keep(layers_of(disk)[0], snapshot_id)
            parent = next((known["id"] for known in machine["snapshots"] if known["current"]), "")
            for known in machine["snapshots"]:
                known["current"] = False
            taken = {"id": snapshot_id, "name": name, "parent": parent, "description": description, "memory": memory}
            taken.update(quiesced=quiesce, created=utc(), disks="internal", current=True, power=machine["power"])
            # Copied through JSON, so that later changes of the VM do not reach into the snapshot.
            taken["definition"] = json.loads(json.dumps({key: machine[key] for key in ("nics", "note", "disks")}))
            machine["snapshots"].append(taken)

        return self._change("submit_snapshot", vm, take)

    def submit_remove_snapshot(self, vm: Vm, snapshot_id: str) -> Pending:
        def forget(machine: Data, _state: Data) -> None:
            gone = find(machine, snapshot_id)
            machine["snapshots"].remove(gone)
            for other in machine["snapshots"]:
                if other["parent"] == snapshot_id:
                    other["parent"] = gone["parent"]
                if gone["current"] and other["id"] == gone["parent"]:
                    other["current"] = True
            for disk in writable(machine):
                images.forget(layers_of(disk)[0], snapshot_id)

        return self._change("submit_remove_snapshot", vm, forget)

    def submit_revert(self, vm: Vm, snapshot_id: str, memory: bool) -> Pending:
        def revert(machine: Data, _state: Data) -> None:
            target = find(machine, snapshot_id)
            machine.update(json.loads(json.dumps(target["definition"])), session=False)
            for disk in writable(machine):
                images.bring_back(layers_of(disk)[0], snapshot_id)
            machine["power"] = "paused" if memory else "stopped"
            for nic in machine["nics"]:
                nic["live"] = nic["live"] if memory else None
            for known in machine["snapshots"]:
                known["current"] = known is target

        return self._change("submit_revert", vm, revert)

    # Disks given up

    def submit_reset_disks(self, vm: Vm) -> Pending:
        def reset(machine: Data, _state: Data) -> None:
            for disk in writable(machine):
                layers = layers_of(disk)
                fresh = "%s.r%d.qcow2" % (os.path.splitext(layers[0].path)[0], time.time_ns() // 1_000_000)
                disk["layers"] = [asdict(layer) for layer in images.create_overlay(fresh, layers[-1])]
                images.remove(layers[0].path)
            machine["snapshots"] = []

        return self._change("submit_reset_disks", vm, reset)

    def submit_restore_disks(self, vm: Vm, copies: Sequence[DiskCopy]) -> Pending:
        work = self._copying = Copies(vm, copies)

        def put(machine: Data, _state: Data) -> None:
            for disk in writable(machine):
                disk["layers"] = next(
                    ([{"path": copy.target, "format": "qcow2"}] for copy in copies if copy.disk.id == disk["id"]),
                    disk["layers"],
                )
            machine["snapshots"] = []

        def poll() -> bool:
            if not work.poll():
                return False
            self._change("submit_restore_disks", vm, put)
            work.settle()
            return True

        return Pending(vm.ref, "restore disks", poll, abort=work.abort)

    def submit_delete(self, vm: Vm) -> Pending:
        def delete(machine: Data, state: Data) -> None:
            del state["vms"][vm.ref.id]
            shared = {layer["path"] for other in state["vms"].values() for d in other["disks"] for layer in d["layers"]}
            for disk in writable(machine):
                own = disk["layers"][:-1] or disk["layers"]
                for path in {layer["path"] for layer in own} - shared:
                    images.remove(path)

        return self._change("submit_delete", vm, delete)

    # Evidence

    def submit_memory_dump(self, vm: Vm, path: str) -> Pending:
        def dump(machine: Data, _state: Data) -> None:
            if not is_on(machine):
                raise TaskFailed("Cannot dump the memory of %s: it is %s." % (machine["name"], machine["power"]))
            with open(path, "xb") as core:
                core.write(elf_core(machine["memory"]))
                core.seek(4096)
                core.write(machine.get("ram", "").encode())
                core.truncate(4096 + machine["memory"])

        return self._change("submit_memory_dump", vm, dump)

    def submit_disk_export(self, vm: Vm, disk_id: str, path: str) -> Pending:
        def export(machine: Data, _state: Data) -> None:
            disk = next((disk for disk in machine["disks"] if disk["id"] == disk_id), None)
            if disk is None:
                raise NotFound("%s has no disk %s." % (machine["name"], disk_id))
            images.export(layers_of(disk), path)

        return self._change("submit_disk_export", vm, export)

    def progress(self, vm: Vm) -> tuple[int, int]:
        return self._copying.progress() if self._copying else (0, 0)  # other simulated jobs end with their call

    def guest_run(self, vm: Vm, argv: Sequence[str], deadline: float, limit: int) -> GuestOutput:
        if self.state.strike("guest_run", vm.ref.name) > deadline:
            raise TimedOut("The guest agent of %s has not answered for %g s." % (vm.ref.name, deadline))
        guest = self._vms().get(vm.ref.id, {}).get("guest")
        if guest is None:
            raise Unsupported("Cannot ask %s: it has no guest agent." % vm.ref.name)
        program = os.path.basename(argv[0])
        if program not in guest:
            return GuestOutput(127, b"", b"not found", False)
        output = guest[program].encode()
        return GuestOutput(0, output[:limit], b"", len(output) > limit)


def elf_core(memory: int) -> bytes:
    """The head of an ELF core (ET_CORE, x86-64) whose one segment, from byte 4096 on, is all of the memory."""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 7, 4096, 0, 0, memory, memory, 4096)


def is_on(machine: Data) -> bool:
    return machine["power"] in ("running", "paused")


def due(machine: Data) -> bool:
    return bool(machine.get("stops_at")) and time.time() >= machine["stops_at"]


def switch(machine: Data, wanted: str, to: str) -> None:
    if machine["power"] != wanted:
        raise TaskFailed("Cannot bring %s to %s: it is %s." % (machine["name"], to, machine["power"]))
    machine["power"] = to


def stop(state: Data, vm_id: str) -> None:
    """Memory, live wiring and what was plugged in only while it ran are lost; so is a transient VM."""
    machine = state["vms"][vm_id]
    if not machine["persistent"]:
        del state["vms"][vm_id]
        return
    machine.update(power="stopped", session=False, stops_at=None)
    machine["nics"] = [dict(nic, live=None) for nic in machine["nics"] if nic["config"]]


def writable(machine: Data) -> tuple[Data, ...]:
    return tuple(disk for disk in machine["disks"] if not disk["read_only"])


def find(machine: Data, snapshot_id: str) -> Data:
    for snapshot in machine["snapshots"]:
        if snapshot["id"] == snapshot_id:
            found: Data = snapshot
            return found
    raise NotFound("%s has no snapshot %s." % (machine["name"], snapshot_id))


def utc() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
