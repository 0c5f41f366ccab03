# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scan the disks of a running VM as they are at one moment, and leave nothing of that behind."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from .._errors import NotFound, NotVerified, Refused, Unsupported, VmwardError
from .._hypervisor import FROZEN_SOCKET, Capability, Detail, Hypervisor
from .._model import ON, Disk, Vm
from .._scan.job import BadInput, DiskRequest, LayerSpec, Request, scan
from .._scan.known import Former
from .._scan.verdict import Tally
from . import space
from .scratch import Scratch
from .since import Course, forget, settle

NO_CHECKPOINT = {"since": "", "why": "", "kept": ""}
END = 90.0  # seconds that QEMU may take to end the view, past the deadline


@dataclass(frozen=True)
class Terms:
    """Where QEMU keeps what the guest overwrites, how much of the disks must fit there, and until when (monotonic)."""

    scratch: Scratch
    factor: float
    end: float

    def left(self) -> float:
        return max(1.0, self.end - time.monotonic())


def scan_live(
    hypervisor: Hypervisor, vm: Vm, names: Sequence[str], request: Request, terms: Terms, checkpoint: str = "none"
) -> dict[str, Any]:
    """``request`` without its disks. Raises before anything is touched where it cannot be done.

    Checkpoints of scans are left alone (``none``), used and made (``keep``), or removed first (``remove``).
    """
    disks = _checked(hypervisor, vm, names, terms)
    if checkpoint == "keep" and not request.directory:
        raise Refused(
            f"Cannot keep a checkpoint of {vm.ref.name}: nothing tells where its record is to lie. Name an "
            "index_directory."
        )
    terms.scratch.prepare()
    with terms.scratch.alone_on(vm.ref.id, terms.left()):
        gone = checkpoint == "remove" and forget(hypervisor, vm, request.directory)
        if checkpoint == "keep":
            return _since(hypervisor, vm, disks, request, terms)
        result = _read(hypervisor, vm, disks, request, terms, None)
    return {**result, "checkpoint": NO_CHECKPOINT, "changed": gone}


def _since(hypervisor: Hypervisor, vm: Vm, disks: Sequence[Disk], request: Request, terms: Terms) -> dict[str, Any]:
    """What was written since the last clean scan, if that is known for certain; else everything."""
    course = Course(hypervisor, vm, disks, request.directory)
    try:
        result = _read(hypervisor, vm, disks, replace(request, records=course.records), terms, course)
        course.end(result)
    finally:
        course.tidy()
    return {**result, "changed": course.is_other(), "checkpoint": course.told(result["bases"])}


def _read(
    hypervisor: Hypervisor, vm: Vm, disks: Sequence[Disk], request: Request, terms: Terms, course: Course | None
) -> dict[str, Any]:
    with _frozen(hypervisor, vm, disks, terms, course) as directory:
        at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        served = tuple(_served(disk, directory, course.former(disk) if course else None) for disk in disks)
        try:
            result = scan(replace(request, disks=served, limits=replace(request.limits, deadline=terms.left())))
        except BadInput as exc:
            raise Refused(str(exc)) from exc
    _require_as_before(hypervisor, vm)
    return {**result, "frozen_at": at}


def not_scanned(hypervisor: Hypervisor, vm: Vm, names: Sequence[str], terms: Terms) -> dict[str, Any]:
    """What check mode answers: nothing is frozen, nothing is read."""
    disks = _checked(hypervisor, vm, names, terms)
    tally = Tally()
    tally.add_reason("Check mode: nothing was frozen and nothing was read of %s." % ", ".join(one.id for one in disks))
    told = {"disks": [], "seconds": 0.0, "cpu_seconds": 0.0, "frozen_at": "", "checkpoint": NO_CHECKPOINT}
    return {**tally.as_result(), **told, "changed": False}


def _checked(hypervisor: Hypervisor, vm: Vm, names: Sequence[str], terms: Terms) -> list[Disk]:
    what = f"scan the disks of {vm.ref.name} as it runs"
    if Capability.DISK_FREEZE not in hypervisor.capabilities():
        raise Unsupported(
            f"Cannot {what}: {hypervisor.name} has no {Capability.DISK_FREEZE.value}. Export them, or stop it."
        )
    if vm.power not in ON:
        raise Refused(f"Cannot {what}: it is {vm.power.value}. Scan its images as they lie (disk_scan).")
    known = {disk.id: disk for disk in vm.disks if not disk.read_only}
    missing = [name for name in names if name not in known]
    if missing or not known:
        there = ", ".join(known) or "none"
        raise NotFound(
            f"Cannot {what}: of the disks that it can write there is no {', '.join(missing)} (it has {there})."
        )
    disks = [known[name] for name in names or known]
    needed = sum(space.of_disk(disk) for disk in disks)
    space.require(what, [space.Need(terms.scratch.path, needed, terms.scratch.free())], terms.factor)
    return disks


@contextlib.contextmanager
def _frozen(
    hypervisor: Hypervisor, vm: Vm, disks: Sequence[Disk], terms: Terms, course: Course | None
) -> Iterator[str]:
    """Whatever happens within, the view ends. A run that is killed here leaves it to the next one on this VM."""
    directory, ids = terms.scratch.file(vm.ref.id, "frozen"), [disk.id for disk in disks]

    def freeze(checkpoint: str, since: str) -> None:
        settle(hypervisor, hypervisor.submit_freeze_disks(vm, ids, directory, checkpoint, since), terms.left())

    try:
        if course is None:
            freeze("", "")
        else:
            course.begin(freeze)
        yield directory
    finally:
        settle(hypervisor, hypervisor.submit_thaw_disks(vm, directory), END)


def _served(disk: Disk, directory: str, former: Former | None) -> DiskRequest:
    """The disk as QEMU serves it, to be compared with the base of its chain, which nobody writes to."""
    base = tuple(LayerSpec(layer.path, layer.format) for layer in disk.layers[1:][-1:])
    layer = LayerSpec(os.path.join(directory, FROZEN_SOCKET), "nbd", disk.id)
    return DiskRequest(disk.id, (layer,), "", base, former)


def _require_as_before(hypervisor: Hypervisor, vm: Vm) -> None:
    """Read back that the VM has the chains that it had."""
    after = hypervisor.read([vm.ref.id], frozenset([Detail.DISKS]))[vm.ref.id]
    if isinstance(after, VmwardError):
        raise after
    if [(one.id, one.layers) for one in after.disks] != [(one.id, one.layers) for one in vm.disks]:
        raise NotVerified(
            f"{vm.ref.name} has other disks now than before its scan: somebody changed them meanwhile. Look at it with "
            "vm_info, and scan it again."
        )
