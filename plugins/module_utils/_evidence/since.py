# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads only what a running VM wrote since its last clean scan: which checkpoint may be relied on, and which one stays.

One checkpoint stays on a VM: that of its last complete scan that found nothing, with a record of what was read then.
Whatever is doubtful about the two leads to a scan of everything.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from typing import Any, Callable

from .._errors import TaskFailed, VmwardError
from .._hypervisor import FROZEN_SINCE, OUR_CHECKPOINTS, Capability, Hypervisor, Pending
from .._model import ON, Disk, Vm
from .._scan.known import Former, Known, Records


class Course:
    """The checkpoints of one scan. `since`: the one whose record is relied on; `why`: why there is none."""

    def __init__(self, hypervisor: Hypervisor, vm: Vm, disks: Sequence[Disk], directory: str) -> None:
        self._hypervisor, self._vm, self._disks = hypervisor, vm, tuple(disks)
        self._known = Known(directory)
        self.records = Records()
        self.why = cannot(hypervisor, vm, disks)
        self.name = "" if self.why else f"{OUR_CHECKPOINTS}{time.time_ns()}"  # the one to be made
        self._head: dict[str, Any] = {}
        self._bodies: dict[str, bytes] = {}
        self._at = 0
        self._states: dict[str, list[Any]] = {}
        self._troubles: list[str] = []
        self._before = hypervisor.checkpoints(vm)
        if not self.why:
            self._head, self._bodies = self._known.record(vm.ref.id) or ({}, {})
            self.why = doubt(self._head, disks, self._before)
        self._stays = self.since

    @property
    def since(self) -> str:
        return "" if self.why else str(self._head["checkpoint"])

    def former(self, disk: Disk) -> Former | None:
        if self.why:
            return None
        head = self._head
        context = FROZEN_SINCE + disk.id
        unopened = int(head.get("unopened", 0)) if disk == self._disks[0] else 0  # of all disks together
        body = self._bodies[disk.id]
        return Former(str(head["checkpoint"]), int(head["at"]), str(head["binding"]), body, context, unopened)

    def begin(self, freeze: Callable[[str, str], None]) -> None:
        """``freeze`` takes the checkpoint to make, and the one to tell from. What can't be had is given up and told."""
        try:
            freeze(self.name, self.since)
        except TaskFailed as exc:
            if not self.name:
                raise
            if not self.since:
                self.name = ""
            self.why, self._stays = str(exc), ""
            self.begin(freeze)
            return
        # The images below, for which only their own state can vouch: as of now, for the wait may have been long
        self._at, self._states = int(time.time()), {disk.id: state_of(disk) for disk in self._disks}
        if self.since:
            self.why = other(self._head, self._disks, self._states)
            self._stays = self.since

    def end(self, result: dict[str, Any]) -> None:
        """Keep the record of a scan that found nothing and is complete. A failure is told; the verdict stands."""
        try:
            self._keep(result)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the scan has its verdict
            self._troubles.append(f"Cannot keep the record of this scan: {exc}")

    def _keep(self, result: dict[str, Any]) -> None:
        if result["verdict"] != "clean" or not self.name:
            return
        bodies = self.records.bodies
        why = self._not_kept()
        if why:
            self._troubles.append(f"this scan leaves no checkpoint, since {why}")
            return
        head = {"checkpoint": self.name, "at": self._at, "binding": self.records.binding, "disks": self._states}
        head["unopened"] = result["archives_unopened"]
        self._known.keep_record(self._vm.ref.id, head, bodies)
        self._stays = self.name

    def _not_kept(self) -> str:
        """Why a clean scan can't vouch for a later one; empty if it can."""
        if not self.records.binding:
            return "the engines' signatures can't be identified (for ClamAV, name its database)"
        for disk in self._disks:
            if disk.id not in self.records.bodies:
                return f"no record of disk {disk.id} could be kept"
            if not self._states[disk.id]:
                return f"an image below disk {disk.id} is no file here, so that nobody can tell whether it changes"
            if self._states[disk.id] != state_of(disk):
                return f"an image of disk {disk.id} was changed or replaced while it was read"
        return ""

    def tidy(self) -> None:
        """However it ended: at most one checkpoint of ours stays, and none without its record.

        Those of a VM that is off by now, and those that can't be removed, are left to the next scan.
        """
        try:
            self._tidy()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the scan has its verdict
            self._troubles.append(str(exc))

    def _tidy(self) -> None:
        if not self._stays:
            self._known.forget_record(self._vm.ref.id)
        now = self._hypervisor.read([self._vm.ref.id])[self._vm.ref.id]
        if isinstance(now, Vm) and now.power in ON:
            left = [name for name in self._hypervisor.checkpoints(self._vm) if name != self._stays]
            if left:
                remove(self._hypervisor, self._vm, left)

    def told(self, bases: Sequence[dict[str, Any]]) -> dict[str, str]:
        """What the result says, with what the scan itself said of the record."""
        refused = [one["why"] for one in bases if one["base"] == self.since and not one["used"]]
        why = [one for one in (self.why, *refused) if one][:1]
        return {"since": "" if why else self.since, "why": "; ".join(why + self._troubles), "kept": self._stays}

    def is_other(self) -> bool:
        """Whether the VM has other checkpoints of ours than before. Where that can't be told, it may."""
        try:
            return self._hypervisor.checkpoints(self._vm) != self._before
        except VmwardError as exc:
            self._troubles.append(str(exc))
            return True


def cannot(hypervisor: Hypervisor, vm: Vm, disks: Sequence[Disk]) -> str:
    """Why no checkpoint can be made; empty if one can."""
    if Capability.CHECKPOINT not in hypervisor.capabilities():
        return f"{hypervisor.name} has no checkpoints"
    if not vm.persistent:
        return "the VM is not persistent"
    odd = [disk.id for disk in disks if disk.layers[0].format != "qcow2"]
    return f"disk {odd[0]} is not qcow2, so that nothing remembers what is written to it" if odd else ""


def doubt(head: dict[str, Any], disks: Sequence[Disk], present: Sequence[str]) -> str:
    """Why the record of the last clean scan can't be relied on; empty if it can."""
    if not head:
        return "there is no record of a clean scan"
    if head["checkpoint"] not in present:
        return f"its checkpoint {head['checkpoint']} is gone"
    if head["checkpoint"] != present[-1]:
        return f"a scan that did not end left a later checkpoint, {present[-1]}"
    return other(head, disks, {disk.id: state_of(disk) for disk in disks})


def other(head: dict[str, Any], disks: Sequence[Disk], states: dict[str, list[Any]]) -> str:
    """Which disk is in another state than the record's; empty if none is."""
    for disk in disks:
        then = head["disks"].get(disk.id)
        if then is None:
            return f"disk {disk.id} was not scanned then"
        if then != states[disk.id]:
            return f"disk {disk.id} has another size, source or image below it now"
    return ""


def state_of(disk: Disk) -> list[Any]:
    """Of the top image, which file it is; of those below it, all that changes when they are written to.

    Nothing, where that can't be told: of what is no file here, and below of what is no regular file.
    """
    try:
        status = [os.stat(layer.path) for layer in disk.layers]
    except OSError:
        return []
    if not all(stat.S_ISREG(one.st_mode) for one in status[1:]):
        return []
    below = [[one.st_size, one.st_mtime_ns, one.st_ctime_ns] for one in status[1:]]
    files = [[one.st_dev, one.st_ino, one.st_rdev] for one in status]
    return [disk.size, [[layer.path, layer.format] for layer in disk.layers], files, below]


def remove(hypervisor: Hypervisor, vm: Vm, names: Sequence[str]) -> None:
    settle(hypervisor, hypervisor.submit_remove_checkpoints(vm, names), 60)


def settle(hypervisor: Hypervisor, pending: Pending, seconds: float) -> None:
    """Wait for its end; raises what went wrong."""
    for error in hypervisor.wait([pending], seconds).values():
        if error is not None:
            raise error


def forget(hypervisor: Hypervisor, vm: Vm, directory: str) -> bool:
    """Remove all checkpoints of scans, and the record; whether there was any."""
    names = hypervisor.checkpoints(vm)
    if directory:
        Known(directory).forget_record(vm.ref.id)
    if names:
        remove(hypervisor, vm, names)
    return bool(names)
