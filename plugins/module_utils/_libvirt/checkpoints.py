# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of ours: QEMU keeps a dirty bitmap in each qcow2 image, of what the guest wrote since one moment.

A bitmap hinders others. QEMU reverts no image that holds one ("Device has active dirty bitmaps"; the VM is then off),
and libvirt 9.0 takes no snapshot of a stopped VM with a checkpoint, and removes none from it. So a checkpoint of ours
goes before a snapshot or a revert. Those of others are never touched.

Sources: U(https://libvirt.org/formatcheckpoint.html), U(https://libvirt.org/kbase/incrementalbackupinternals.html).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any, Callable

from .._errors import NotVerified, Refused, TaskFailed
from .._hypervisor import OUR_CHECKPOINTS, Pending, done
from .._model import Vm, VmRef
from . import xml
from .connection import Connection, libvirt

_WHAT = "remove the scan's checkpoint of"


class CheckpointVerbs:
    """The part of the Evidence contract that remembers what a guest writes."""

    link: Connection

    def checkpoints(self, vm: Vm) -> tuple[str, ...]:
        return self.link.domain(vm.ref, "list the checkpoints of", names_of_ours)

    def submit_remove_checkpoints(self, vm: Vm, names: Sequence[str]) -> Pending:
        self._remove(vm.ref, names, removed)
        return done(vm.ref, _WHAT)

    def clear_checkpoints(self, vm: Vm, discard: bool = False) -> None:
        """Remove all of ours, before what they would hinder; with ``discard`` saved memory may be lost for that."""
        self._remove(vm.ref, self.checkpoints(vm), lambda domain, names: opened(domain, names, discard))

    def _remove(self, ref: VmRef, names: Sequence[str], act: Callable[[Any, Sequence[str]], None]) -> None:
        if not names:
            return
        by_hand = "By hand: qemu-img bitmap --remove IMAGE NAME, virsh checkpoint-delete --metadata VM NAME."
        try:
            self.link.domain(ref, _WHAT, lambda domain: act(domain, names), repeat=False)
        except TaskFailed as exc:
            raise TaskFailed(f"{exc} {by_hand}") from exc
        left = sorted(set(self.link.domain(ref, "list the checkpoints of", names_of_ours)) & set(names))
        if left:
            raise NotVerified(f"Cannot {_WHAT} {ref.name}: {', '.join(left)} is still there. {by_hand}")


def names_of_ours(domain: Any) -> tuple[str, ...]:
    """Checkpoints that scans made; none where libvirt, or its Python library, knows no checkpoints (before 5.6)."""
    if not hasattr(domain, "listAllCheckpoints"):
        return ()
    try:
        names = [one.getName() for one in domain.listAllCheckpoints(0)]
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return ()
        raise
    return tuple(sorted(name for name in names if name.startswith(OUR_CHECKPOINTS)))


def removed(domain: Any, names: Sequence[str]) -> None:
    """With their bitmaps."""
    for name in names:
        checkpoint = domain.checkpointLookupByName(name)
        try:
            checkpoint.delete(0)
        except libvirt.libvirtError as exc:
            if "not found" not in str(exc):
                raise
            checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)  # its bitmap is gone


def opened(domain: Any, names: Sequence[str], discard: bool) -> None:
    """The same. Only QEMU takes bitmaps out, so a stopped VM is opened for that, and never runs."""
    if domain.isActive():
        removed(domain, names)
        return
    if domain.hasManagedSaveImage(0) and not discard:
        raise Refused(
            f"Cannot {_WHAT} {domain.name()}: it is stopped with its memory saved, which would be lost. Nothing was "
            "touched. Resume it first."
        )
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_FORCE_BOOT)
    try:
        removed(domain, names)
    finally:
        domain.destroy()


def forget(domain: Any) -> None:
    """Ours, where the images that hold their bitmaps are about to go."""
    for name in names_of_ours(domain):
        domain.checkpointLookupByName(name).delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)


def checkpoint_xml(domain: ET.Element, disk_ids: Sequence[str], name: str) -> str:
    """A checkpoint of these disks; every other disk is left out by name."""
    root = ET.Element("domaincheckpoint")
    ET.SubElement(root, "name").text = name
    disks = ET.SubElement(root, "disks")
    for target in domain.iterfind("./devices/disk/target"):
        disk = target.get("dev", "")
        ET.SubElement(disks, "disk", {"name": disk, "checkpoint": "bitmap" if disk in disk_ids else "no"})
    return xml.text_of(root)
