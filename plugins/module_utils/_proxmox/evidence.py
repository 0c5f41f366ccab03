# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence on Proxmox VE, taken on the VM's node: memory and disks from snapshots; the guest's claims by its agent.

Sources: U(https://pve.proxmox.com/pve-docs/api-viewer/), U(https://pve.proxmox.com/pve-docs/pvesm.1.html),
U(https://www.qemu.org/docs/master/devel/migration/main.html).
"""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Callable

from .._crew import within
from .._errors import NotFound, NotVerified, TaskFailed, TimedOut, Unsupported, VmwardError
from .._hypervisor import GuestOutput, Pending
from .._model import ON, Disk, Layer, PowerState, Vm, VmRef, printable
from .._qemu_img import Conversion
from .._wait import poll_all
from . import convert, rights
from .connection import Rejected
from .vzdump import Extraction
from .work import Work

Copied = dict[str, tuple[int, int]]  # bytes done and in all, by VM
KEPT = "vmward-memory-"  # and a time: our snapshots with RAM
LEFT = re.compile(KEPT + r"\d{1,12}")
FROZEN = "vmward-disk-"  # likewise, without RAM
CHUNK = 1 << 20
TIDYING = 60.0  # seconds that a copy which is whole waits for its snapshot to go
PATHS = 60  # seconds that pvesm may take


class EvidenceVerbs(Work):
    """The Evidence part of the contract."""

    _copied: Mapping[str, tuple[int, int]] = MappingProxyType({})
    _converting: Conversion | Extraction | None = None
    _kept: Mapping[str, str] = MappingProxyType({})  # where what was frozen is kept, by VM, until its copy is done
    _whole: Mapping[str, str] = MappingProxyType({})  # the snapshot that is being removed, by VM: its copy is whole
    tidying = TIDYING

    def memory_format(self) -> str:
        return "qemu-state"

    def submit_memory_dump(self, vm: Vm, path: str) -> Pending:
        """A snapshot with RAM, its state volume copied to the file, and only then the snapshot removed again.

        One that an earlier run left holds an earlier memory: it is evidence, so it stays and is told.
        """
        what, name = "take the memory of", f"{KEPT}{int(time.time())}"
        self.require(what, vm.ref, rights.on_vm(vm.ref.id, "VM.Snapshot"))
        self._on_its_node(vm.ref, what)
        self._kept = {vm.ref.id: f" The memory is kept in snapshot {name} of the VM."}
        self._copied, self._converting = {}, None
        self._tell_left(vm.ref)

        def take() -> Pending:
            return self.take_snapshot(vm.ref, what, name, "Memory as evidence", True)

        def copy() -> Pending:
            where = f"snapshot {name} of the VM"
            return self._copying(vm.ref, what, where, lambda: self._state_of(vm.ref, what, name), path)

        return self.after(vm.ref, what, take, copy, lambda: self._let_go(vm.ref, what, name))

    def kept_memory(self, vm: Vm) -> tuple[str, ...]:
        """Snapshots that dumps left, by name; and the volume of a VM that is suspended to disk, by its id."""
        rows = self.at(vm.ref, "list the snapshots of", "get", "/snapshot")
        left = [row for row in rows if row.get("vmstate") and not row.get("snapstate") and LEFT.fullmatch(row["name"])]
        told = [row["name"] for row in sorted(left, key=lambda row: (row.get("snaptime") or 0, row["name"]))]
        if vm.power is PowerState.SUSPENDED:
            told.append(str(self.at(vm.ref, "read", "get", "/config", current=1).get("vmstate", "")))
        return tuple(filter(None, told))

    def submit_kept_memory(self, vm: Vm, kept: str, path: str) -> Pending:
        """A state volume is read as that of a fresh snapshot is; nothing of the VM is written."""
        what = "copy the kept memory of"
        self._on_its_node(vm.ref, what)
        saved = ":" in kept  # a volume; no snapshot's name has one
        where = f"volume {kept}" if saved else f"snapshot {kept} of the VM"
        self._kept, self._copied, self._converting = {vm.ref.id: f" The memory is kept in {where}."}, {}, None
        return self._copying(vm.ref, what, where, lambda: kept if saved else self._state_of(vm.ref, what, kept), path)

    def _copying(self, vm: VmRef, what: str, where: str, volume: Callable[[], str], path: str) -> Pending:
        given_up = threading.Event()
        copied: Copied = {}
        self._copied = copied
        copying = self.fired(vm, what, lambda: self._copy_state(vm, where, volume(), path, copied, given_up))
        return replace(copying, abort=given_up.set)

    def _state_of(self, vm: VmRef, what: str, name: str) -> str:
        volume = str(self.at(vm, what, "get", f"/snapshot/{name}/config").get("vmstate", ""))
        if not volume:
            raise TaskFailed(f"Cannot {what} {vm.name} ({vm.id}): snapshot {name} has no state volume. Run again.")
        return volume

    def _let_go(self, vm: VmRef, what: str, name: str) -> Pending:
        """Remove the snapshot of a copy that is whole. One that stays is told: the copy does not rest on it."""
        end, removing = time.monotonic() + self.tidying, self.remove_snapshot(vm, what, name)
        self._whole = {vm.id: name}

        def poll() -> bool:
            try:
                gone = removing.poll()
            except VmwardError as exc:
                return self._stays(vm, f"could not be removed ({exc})")
            if not gone and time.monotonic() >= end:
                return self._stays(vm, f"was not removed within {self.tidying:g} s")
            self._whole = {} if gone else self._whole
            return gone

        return Pending(vm, what, poll)

    def _stays(self, vm: VmRef, why: str) -> bool:
        name, self._whole = self._whole[vm.id], {}
        self.tell(vm, f"its evidence is whole, but snapshot {name} {why}. Remove it (vm_snapshot) if it is still there")
        return True

    def wait(
        self, pending: Sequence[Pending], deadline: float, together: float = math.inf
    ) -> Mapping[str, VmwardError | None]:
        """A copy that outlasts the deadline is not taken up again; a removal that does takes nothing from the copy."""
        outcome = dict(super().wait(pending, deadline, together))
        for item in pending:
            error, kept = outcome.get(item.vm.id), self._kept.get(item.vm.id)
            if kept is None or not isinstance(error, TimedOut):
                continue
            if item.vm.id in self._whole:
                self._stays(item.vm, f"was not removed within {deadline:g} s")
                outcome[item.vm.id] = None
            else:
                sentence = f"Cannot {item.what} {item.vm.name} ({item.vm.id}): it was not whole after {deadline:g} s."
                outcome[item.vm.id] = TimedOut(sentence + kept, task=error.task)
        self._kept = {}
        return outcome

    def _tell_left(self, vm: VmRef) -> None:
        left = sorted(name for name in self.snapshot_names(vm) if name.startswith((KEPT, FROZEN)))
        if left:
            self.tell(
                vm,
                f"an earlier run left its evidence in snapshot {', '.join(left)}: it is of an earlier moment, and was "
                "not touched. Keep it as evidence, or remove it (vm_snapshot), since it may block older snapshots",
            )

    def _on_its_node(self, vm: VmRef, what: str) -> None:
        here, node = platform.node().split(".")[0], self.node(vm.id)
        if here != node:
            raise Unsupported(
                f"Cannot {what} {vm.name} ({vm.id}): it is on node {node}, and this task runs on {here}. Nothing was "
                f"touched. Delegate the task to {node} (data_host), or move the VM."
            )
        self.require_same(what, vm)

    def _copy_state(
        self, vm: VmRef, where: str, volume: str, path: str, copied: Copied, given_up: threading.Event
    ) -> None:
        try:
            with open(source_of(volume), "rb", buffering=0) as source, open(path, "xb") as target:
                total, done = source.seek(0, 2), 0
                source.seek(0)
                while not given_up.is_set() and (data := source.read(CHUNK)):
                    target.write(data)
                    done += len(data)
                    copied[vm.id] = (done, total)
                target.flush()
                os.fsync(target.fileno())
                held = os.fstat(target.fileno()).st_size
        except (OSError, VmwardError) as exc:
            raise TaskFailed(f"{exc}. The memory is kept in {where}") from exc
        if held != total:
            raise NotVerified(f"{held} of {total} bytes were copied. The memory is kept in {where}")

    def tools(self) -> dict[str, str]:
        return {"proxmox-ve": str(self.link.call("ask the version", None, "get", "version").get("version", "unknown"))}

    def submit_disk_export(self, vm: Vm, disk_id: str, path: str) -> Pending:
        """Of a running VM from a snapshot of its own or out of a backup's stream; of another as it lies there."""
        disk = next((one for one in vm.disks if one.id == disk_id), None)
        if disk is None:
            there = ", ".join(one.id for one in vm.disks) or "none"
            raise NotFound(f"Cannot export disk {disk_id} of {vm.ref.name}: it has no such disk (there are: {there}).")
        what = f"export disk {disk_id} of"
        self._kept = {vm.ref.id: ""}
        self._on_its_node(vm.ref, what)
        if vm.power in ON and not self._has_frozen_points(vm):
            return self._backed_up(vm, what, disk, path)
        found = replace(
            disk, allocated=0, layers=tuple(Layer(source_of(layer.path), layer.format) for layer in disk.layers)
        )
        return (self._export_live if vm.power in ON else self._converted)(vm.ref, what, found, path)

    def _converted(self, vm: VmRef, what: str, disk: Disk, path: str, snapshot: str = "") -> Pending:
        kept = f" The frozen point is kept in snapshot {snapshot} of the VM" if snapshot else ""
        try:
            made = self._converting = Conversion(vm, disk, path, snapshot)
        except VmwardError as exc:
            if not snapshot:
                raise
            raise TaskFailed(f"{exc}{kept}") from exc

        def poll() -> bool:
            try:
                return made.poll()
            except TaskFailed as exc:
                raise TaskFailed(f"{exc}{kept}") from exc

        return Pending(vm, what, poll, task=f"process {made.process.pid}", abort=made.abort)

    def _export_live(self, vm: VmRef, what: str, disk: Disk, path: str) -> Pending:
        self.require(what, vm, rights.on_vm(vm.id, "VM.Snapshot"))
        self._tell_left(vm)
        name = f"{FROZEN}{int(time.time())}"
        self._kept = {vm.id: f" The frozen point is kept in snapshot {name} of the VM."}
        return self.after(
            vm,
            what,
            lambda: self.take_snapshot(vm, what, name, f"Disk {disk.id} as evidence", False),
            lambda: self._converted(vm, what, disk, path, name),
            lambda: self._let_go(vm, what, name),
        )

    def _has_frozen_points(self, vm: Vm) -> bool:
        """Only snapshots within qcow2 images can be read while the VM runs; one covers all disks of the VM or fails."""
        written = [disk.layers[0] for disk in vm.disks if not disk.read_only]
        chained = {place: self.storage(place) for place in {layer.path.partition(":")[0] for layer in written}}
        return all(layer.format == "qcow2" for layer in written) and not any(
            str(row.get("snapshot-as-volume-chain", 0)) == "1" for row in chained.values()
        )

    def _backed_up(self, vm: Vm, what: str, disk: Disk, path: str) -> Pending:
        """A backup leaves CD drives out, and the disks that its configuration says."""
        told = convert.fields(str(self.at(vm.ref, what, "get", "/config", current=1).get(disk.id, "")))
        if told.get("media") == "cdrom" or told.get("backup", "1").lower() in ("0", "no", "off", "false"):
            raise Unsupported(
                f"Cannot {what} {vm.ref.name} ({vm.ref.id}) while it is {vm.power.value}: where no snapshot can be "
                "read vzdump does it, and this disk is left out of backups (backup=0, or a CD drive). Nothing was "
                "touched. Include it in backups, or stop the VM (vm_power), then run again."
            )
        made = self._converting = Extraction(vm.ref, disk, path)
        return Pending(vm.ref, what, made.poll, task=f"process {made.vzdump.pid}", abort=made.abort)

    def export_method(self, vm: Vm) -> str:
        if vm.power not in ON:
            return "conversion of the stopped VM's volumes by qemu-img on its node"
        if self._has_frozen_points(vm):
            return "snapshot by the hypervisor, converted by qemu-img on the VM's node"
        return "backup by the hypervisor (vzdump), from which vma took the disk on the VM's node"

    def progress(self, vm: Vm) -> tuple[int, int]:
        if self._converting:
            return self._converting.progress()
        return self._copied.get(vm.ref.id, (0, 0))

    def guest_run(self, vm: Vm, argv: Sequence[str], deadline: float, limit: int) -> GuestOutput:
        """PVE decodes the agent's streams to text; they are cut to the limit here."""
        what, end = "ask the guest agent of", time.monotonic() + deadline
        self.require(what, vm.ref, rights.on_vm(vm.ref.id, "VM.GuestAgent.Unrestricted", "VM.Monitor"))
        start = f"{what} {vm.ref.name} ({vm.ref.id}) on {self.name}"
        last: dict[str, Any] = {}

        def asked(method: str, path: str, **values: Any) -> dict[str, Any]:
            told: dict[str, Any] = within(
                end - time.monotonic(), start, lambda: self.at(vm.ref, what, method, path, **values)
            )
            return told

        within(end - time.monotonic(), start, lambda: self.require_same(what, vm.ref))
        try:
            pid = asked("post", "/agent/exec", command=list(argv)).get("pid")

            def ended() -> bool:
                last.update(asked("get", "/agent/exec-status", pid=pid))
                return bool(last.get("exited"))

            pending = Pending(vm.ref, f"{argv[0]} in the guest", ended)
            error = poll_all([pending], max(end - time.monotonic(), 0.0))[vm.ref.id]
            if error is not None:
                raise error
        except Rejected as exc:
            if "agent is not running" in exc.text or "No QEMU guest agent" in exc.text:
                raise Unsupported(str(exc)) from exc
            if "got timeout" in exc.text:
                raise TimedOut(str(exc)) from exc
            raise
        out, err = (str(last.get(key) or "").encode("utf-8", "replace") for key in ("out-data", "err-data"))
        cut = len(out) > limit or len(err) > limit or bool(last.get("out-truncated")) or bool(last.get("err-truncated"))
        return GuestOutput(int(last.get("exitcode", last.get("signal", -1))), out[:limit], err[:limit], cut)


def source_of(volume: str) -> str:
    """Where the node keeps a volume, as its own storage library says."""
    try:
        told = subprocess.run(
            ["pvesm", "path", volume],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATHS,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as exc:
        raise Unsupported(
            f"Cannot find volume {volume}: pvesm is missing here. Delegate to a Proxmox VE node."
        ) from exc
    found = told.stdout.strip()
    if told.returncode or not found:
        raise NotFound(f"Cannot find volume {printable(volume)} on this node: {printable(told.stderr.strip(), 300)}.")
    if not found.startswith("/"):
        raise Unsupported(
            f"Cannot read volume {printable(volume)}: its storage gives it neither as a file nor as a device "
            f"({printable(found, 60)}). Map it on this node (RBD: krbd), or bring the VM to paused (vm_power), "
            "isolated, then run again."
        )
    if not os.path.exists(found):
        raise NotFound(
            f"Cannot read volume {printable(volume)}: {found} is not there. On LVM activate it (lvchange -ay), then "
            "run again."
        )
    return found
