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
from .._hypervisor import FROZEN_SOCKET, Capability, Detail, Hypervisor, Pending
from .._model import ON, Disk, Vm
from .._scan.job import BadInput, DiskRequest, LayerSpec, Request, scan
from .._scan.verdict import Tally
from . import space
from .scratch import Scratch

END = 90.0  # seconds that QEMU may take to end the view, past the deadline


@dataclass(frozen=True)
class Terms:
    """Where QEMU keeps what the guest overwrites, how much of the disks must fit there, and until when (monotonic)."""

    scratch: Scratch
    factor: float
    end: float

    def left(self) -> float:
        return max(1.0, self.end - time.monotonic())


def scan_live(hypervisor: Hypervisor, vm: Vm, names: Sequence[str], request: Request, terms: Terms) -> dict[str, Any]:
    """``request`` without its disks. Raises before anything is touched where it cannot be done."""
    disks = _checked(hypervisor, vm, names, terms)
    terms.scratch.prepare()
    with terms.scratch.alone_on(vm.ref.id, terms.left()), _frozen(hypervisor, vm, disks, terms) as directory:
        at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        limits = replace(request.limits, deadline=terms.left())
        try:
            result = scan(replace(request, disks=tuple(_served(disk, directory) for disk in disks), limits=limits))
        except BadInput as exc:
            raise Refused(str(exc)) from exc
    _require_as_before(hypervisor, vm)
    return {**result, "frozen_at": at}


def not_scanned(hypervisor: Hypervisor, vm: Vm, names: Sequence[str], terms: Terms) -> dict[str, Any]:
    """What check mode answers: nothing is frozen, nothing is read."""
    disks = _checked(hypervisor, vm, names, terms)
    tally = Tally()
    tally.add_reason("Check mode: nothing was frozen and nothing was read of %s." % ", ".join(one.id for one in disks))
    return {**tally.as_result(), "disks": [], "seconds": 0.0, "cpu_seconds": 0.0, "frozen_at": ""}


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
def _frozen(hypervisor: Hypervisor, vm: Vm, disks: Sequence[Disk], terms: Terms) -> Iterator[str]:
    """Whatever happens within, the view ends. A run that is killed here leaves it to the next one on this VM."""
    directory = terms.scratch.file(vm.ref.id, "frozen")
    try:
        _await(hypervisor, hypervisor.submit_freeze_disks(vm, [disk.id for disk in disks], directory), terms.left())
        yield directory
    finally:
        _await(hypervisor, hypervisor.submit_thaw_disks(vm, directory), END)


def _await(hypervisor: Hypervisor, pending: Pending, seconds: float) -> None:
    for error in hypervisor.wait([pending], seconds).values():
        if error is not None:
            raise error


def _served(disk: Disk, directory: str) -> DiskRequest:
    """The disk as QEMU serves it, to be compared with the base of its chain, which nobody writes to."""
    base = tuple(LayerSpec(layer.path, layer.format) for layer in disk.layers[1:][-1:])
    return DiskRequest(disk.id, (LayerSpec(os.path.join(directory, FROZEN_SOCKET), "nbd", disk.id),), "", base)


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
