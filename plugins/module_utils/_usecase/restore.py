# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the disks of a stopped VM back from the images of a backup. Runs on the data host, where both lie."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable

from .. import _backup_image
from .._disk_copy import equals, left_behind, room_for, target_of
from .._errors import NotVerified, Refused, Unsupported, VmwardError
from .._evidence import space
from .._hypervisor import Capability, Detail, Hypervisor, Pending
from .._model import Disk, DiskCopy, Layer, PowerState, Vm, printable
from .._plan import Plan, Step, UseCase, View, differences
from . import volatility

Tick = Callable[[str, int, int], None]  # told the phase, the bytes done and all bytes; raises when time is up


@dataclass(frozen=True)
class Wanted:
    """The image that a disk is to be brought back from."""

    disk: str
    image: Layer
    sha256: str  # as it was recorded; empty where nobody has


class RestoreDisks(UseCase):
    """The disks hold what the images hold. Each that does already is left as it is."""

    detail = frozenset([Detail.DISKS, Detail.SNAPSHOTS])

    def __init__(
        self,
        wanted: Sequence[Wanted],
        partial_: bool,
        discard: bool,
        gate: Mapping[str, Any],
        tick: Tick,
        factor: float = 1.1,
    ) -> None:
        self.wanted, self.partial, self.discard, self.gate = tuple(wanted), partial_, discard, gate
        self.tick, self.factor = tick, factor
        self.images: list[dict[str, Any]] = []  # what was found of each image, for the result
        self._left: dict[str, tuple[int, ...]] = {}  # of each disk, as it was written to when it was compared
        self._room: dict[str, int] = {}  # bytes that each disk's copy takes
        self._abort: Callable[[], None] | None = None  # ends what is under way

    def view(self, vm: Vm | None) -> View:
        if vm is None:
            return {"power": "absent"}
        told: View = {"power": vm.power.value, "snapshots": sorted(snapshot.name for snapshot in vm.snapshots)}
        told["disks"] = {disk.id: [layer.path for layer in disk.layers] for disk in vm.disks if not disk.read_only}
        return dict(told, isolation=vm.isolation.value) if vm.note else told

    def plan(self, hypervisor: Hypervisor, vm: Vm) -> Plan:
        self._check(hypervisor, vm)
        pairs, warnings = self._pairs(vm)
        copies: list[DiskCopy] = []
        for disk, one in pairs:
            copy, doubts = self._judged(vm, disk, one, [copy.target for copy in copies])
            copies += [copy] if copy else []
            warnings += doubts
        before = self.view(vm)
        if not copies:
            return Plan(before, before, warnings=tuple(warnings))
        self._forgettable(vm)
        self._fits(vm, copies)
        after = dict(before, snapshots=[], disks=dict(before["disks"]))
        after["disks"].update({copy.disk.id: [copy.target] for copy in copies})
        step = Step(self._told(vm, copies), partial(self._submit, vm, copies))
        return Plan(before, after, (step,), tuple(warnings), proof=partial(self._wrong, after, copies))

    def _check(self, hypervisor: Hypervisor, vm: Vm) -> None:
        start = f"Cannot bring the disks of {vm.ref.name} back"
        if Capability.DISK_RESTORE not in hypervisor.capabilities():
            raise Unsupported(
                f"{start}: {vm.ref.hypervisor} cannot do it. NOT DONE, and nothing was touched. Bring them back with "
                "what made the backup while the VM is off and isolated, then scan it before its first boot; or name a "
                "snapshot (vmward_snapshot)."
            )
        if vm.power is not PowerState.STOPPED:
            raise Refused(f"{start}: it is {vm.power.value}. Nothing was touched. Stop it first (vm_power).")
        volatility.require("bring back the disks of", vm, volatility.ALL, self.gate)
        if vm.note is None and not self.discard:
            raise Refused(
                f"{start}: no case holds it, and it would leave its present state. Isolate it first (vm_isolation), or "
                "say discard: true."
            )

    def _pairs(self, vm: Vm) -> tuple[list[tuple[Disk, Wanted]], list[str]]:
        """Each disk with its image: all that the guest can write, unless a part was asked for."""
        start = f"Cannot bring the disks of {vm.ref.name} back"
        disks = {disk.id: disk for disk in vm.disks if not disk.read_only}
        named = [one.disk for one in self.wanted]
        strange = sorted({name for name in named if name not in disks or named.count(name) > 1})
        if strange or not named:
            told = ", ".join(printable(name, 40) for name in strange) or "none"
            raise Refused(
                f"{start}: images are named for {told}; it has the writable disks {', '.join(disks) or 'none'}. "
                "Nothing was touched. Name one image of each."
            )
        left = [name for name in disks if name not in named]
        if left and not self.partial:
            raise Refused(
                f"{start}: no image is named for {', '.join(left)}, and a backup is of all disks. Nothing was touched. "
                "Name one of each, or say partial: true to leave what is not named as it is."
            )
        warnings = [f"{name} of {vm.ref.name} is left as it is: it may be infected" for name in left]
        return [(disks[one.disk], one) for one in self.wanted], warnings

    def _judged(self, vm: Vm, disk: Disk, one: Wanted, taken: Sequence[str]) -> tuple[DiskCopy | None, list[str]]:
        """The copy that a disk needs, or none; and what the reader should know."""
        start = f"Cannot bring disk {disk.id} of {vm.ref.name} back"
        if not os.path.isfile(disk.layers[0].path):
            raise Unsupported(
                f"{start}: {disk.layers[0].path} is no file on this host. Nothing was touched. Run this on the VM's "
                "data host; a disk on a block device must be brought back by hand."
            )
        try:
            stamp, sha256 = _backup_image.judged(one.image, disk.size, partial(self.tick, f"hash of {disk.id}"))
        except VmwardError as exc:
            raise type(exc)(f"{start}: {exc}") from exc
        if one.sha256 and sha256 != one.sha256.lower():
            raise Refused(
                f"{start}: the SHA-256 of {printable(one.image.path, 200)} is {sha256}, recorded is "
                f"{printable(one.sha256, 80)}. Nothing was touched. It is not what was backed up: look who changed it."
            )
        warnings = []
        if not one.sha256:
            warnings.append(f"no SHA-256 was recorded of {printable(one.image.path, 200)}: it is taken as it is now")
        self._left[disk.id] = written(disk)
        try:
            with _backup_image.held(one.image, stamp) as image:
                same, trouble = equals(disk, image, partial(self.tick, f"comparison of {disk.id}"))
                self._room[disk.id] = 0 if same else room_for(disk, image, partial(self.tick, f"size of {disk.id}"))
        except NotVerified as exc:
            raise NotVerified(f"{start}: {exc}. Nothing was touched. Run again.") from exc
        if trouble:
            warnings.append(f"{disk.id} cannot be read as it is now ({trouble}): it is replaced unseen")
        target = "" if same else target_of(disk, sha256, taken)
        self.images.append({
            "disk": disk.id, "image": one.image.path, "format": one.image.format, "sha256": sha256, "size": disk.size,
            "former": [layer.path for layer in disk.layers] if target else [], "now": target or disk.layers[0].path,
        })  # fmt: skip
        return DiskCopy(disk, one.image, stamp, target) if target else None, warnings

    def _forgettable(self, vm: Vm) -> None:
        """Snapshots lie within the former images: kept in the VM's tree, they would lead to what is not there."""
        if vm.snapshots and not self.discard:
            kept = ", ".join(printable(snapshot.name, 40) for snapshot in vm.snapshots)
            raise Refused(
                f"Cannot bring the disks of {vm.ref.name} back: its snapshots ({kept}) lie in the images that it has "
                "now, and cannot be reverted to from others. Nothing was touched. To have the hypervisor forget them "
                "(their content stays in the former images), say discard: true (vmward_forget_snapshots=true)."
            )

    def _fits(self, vm: Vm, copies: Sequence[DiskCopy]) -> None:
        """Directories of one file system share its room."""
        needs: dict[int, space.Need] = {}
        for directory in sorted({os.path.dirname(copy.target) for copy in copies}):
            room, device = os.statvfs(directory), os.stat(directory).st_dev
            need = needs.get(device, space.Need(directory, 0, room.f_bavail * room.f_frsize))
            needs[device] = replace(need, free=need.free + left_behind(vm, directory))
        for copy in copies:
            device = os.stat(os.path.dirname(copy.target)).st_dev
            needs[device] = replace(needs[device], needed=needs[device].needed + self._room[copy.disk.id])
        space.require(f"bring the disks of {vm.ref.name} back", list(needs.values()), self.factor)

    def _told(self, vm: Vm, copies: Sequence[DiskCopy]) -> str:
        shown = "; ".join(
            f"give {copy.disk.id} the content of {printable(copy.image.path, 200)} in {copy.target}, and leave "
            f"{copy.disk.layers[0].path} as it is"
            for copy in copies
        )
        gone = ", ".join(printable(snapshot.name, 40) for snapshot in vm.snapshots)
        return shown + (f"; forget the snapshots {gone}, whose content stays in the former images" if gone else "")

    def _submit(self, vm: Vm, copies: Sequence[DiskCopy], hypervisor: Hypervisor) -> Pending:
        pending = hypervisor.submit_restore_disks(vm, copies)
        self._abort = pending.abort

        def poll() -> bool:
            self.tick("copy and comparison", *hypervisor.progress(vm))
            ended = True
            try:
                ended = pending.poll()
            finally:
                self._abort = None if ended else pending.abort  # the VM may have the copies: they stay
            return ended

        return replace(pending, poll=poll)

    def give_up(self) -> None:
        """End what is still under way, and remove its copies."""
        if self._abort:
            self._abort()
            self._abort = None

    def _wrong(self, after: View, copies: Sequence[DiskCopy], now: Vm) -> list[str]:
        """What of the VM is not as promised; also that a new disk has another size or format than it must."""
        disks = {disk.id: disk for disk in now.disks}
        found = differences(after, self.view(now))
        for disk_id in sorted(self._left.keys() & disks.keys() - {copy.disk.id for copy in copies}):
            if written(disks[disk_id]) != self._left[disk_id]:
                found.append(f"{disk_id} was written to after it was compared with its image: run again")
        for copy in copies:
            disk = disks.get(copy.disk.id)
            if disk and (disk.layers, disk.size) != ((Layer(copy.target, "qcow2"),), copy.disk.size):
                found.append(f"{disk.id} is {disk.layers} of {disk.size} bytes")
        return found


def written(disk: Disk) -> tuple[int, ...]:
    """Changes with every write to a disk; not with an owner or a label that a hypervisor gives it."""
    return _backup_image.stamp_of(os.stat(disk.layers[0].path))[:4]
