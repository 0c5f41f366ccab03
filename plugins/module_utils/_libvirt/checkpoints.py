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

import contextlib
import copy
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any, Callable

from .._errors import NotVerified, Refused, TaskFailed, VmwardError
from .._hypervisor import OUR_CHECKPOINTS, Pending, done
from .._model import PowerState, Vm, VmRef
from . import xml
from .connection import Connection, libvirt

_WHAT = "remove the scan's checkpoint of"


class CheckpointVerbs:
    """The part of the Evidence contract that remembers what a guest writes."""

    link: Connection

    def checkpoints(self, vm: Vm) -> tuple[str, ...]:
        return self.link.domain(vm.ref, "list the checkpoints of", names_of_ours)

    def submit_remove_checkpoints(self, vm: Vm, names: Sequence[str]) -> Pending:
        """Those with a bitmap in an image below the top one stay: others may share that image."""
        below = self.link.domain(vm.ref, "list the checkpoints of", lambda domain: lying_below(domain, names))
        self._remove(vm.ref, [name for name in names if name not in below], removed)
        if below:
            raise Refused(
                f"Cannot {_WHAT} {vm.ref.name}: {', '.join(below)} has its bitmap in an image below the top one, which "
                f"others may share, so that it stays. By hand, if nobody shares it: virsh checkpoint-delete VM NAME."
            )
        return done(vm.ref, _WHAT)

    def clear_checkpoints(self, vm: Vm, discard: bool = False) -> None:
        """Remove all of ours, before what they would hinder; with ``discard`` saved memory may be lost for that."""
        begun: list[bool] = []
        try:
            self._remove(vm.ref, self.checkpoints(vm), lambda domain, names: opened(domain, names, discard, begun))
        except VmwardError as exc:
            trouble = self._ended(vm.ref) if begun else self._begun_unseen(vm)
            if trouble:
                raise TaskFailed(f"{exc} {trouble}") from exc
            raise
        except BaseException:
            if begun:
                self._ended(vm.ref)
            raise
        trouble = self._ended(vm.ref) if begun else ""
        if trouble:
            raise TaskFailed(f"Cannot stop {vm.ref.name} again, which was opened for its checkpoints. {trouble}")

    def _ended(self, ref: VmRef) -> str:
        """End the VM that was opened, and say what is left to do if it is still on."""
        try:
            self.link.domain(ref, "end the paused VM", lambda domain: domain.isActive() and domain.destroy())
            if not self.link.domain(ref, "read the power of", lambda domain: domain.isActive()):
                return ""
            cause = ""
        except VmwardError as exc:
            cause = f" ({exc})"
        return f"It is on, paused: its guest does not run{cause}. Stop it with virsh destroy {ref.id}, then run again."

    def _begun_unseen(self, vm: Vm) -> str:
        """What to say of a VM that was stopped, and is on although libvirt did not say that it could be opened."""
        with contextlib.suppress(VmwardError):
            if vm.power is PowerState.STOPPED and self.link.domain(vm.ref, "read the power of", lambda d: d.isActive()):
                return f"It is on now. If it is paused, stop it with virsh destroy {vm.ref.id}, then run again."
        return ""

    def _remove(self, ref: VmRef, names: Sequence[str], act: Callable[[Any, Sequence[str]], None]) -> None:
        if not names:
            return
        by_hand = "By hand: qemu-img bitmap --remove IMAGE NAME, virsh checkpoint-delete --metadata VM NAME."
        try:
            self.link.domain(ref, _WHAT, lambda domain: act(domain, names), repeat=False)
        except Refused:
            raise
        except VmwardError as exc:
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
            disk_by_disk(domain, checkpoint)


def disk_by_disk(domain: Any, checkpoint: Any) -> None:
    """libvirt takes out no bitmap at all if that of one disk is gone: so each disk has a checkpoint in turn."""
    root = xml.parse(checkpoint.getXMLDesc(0))
    left = bitmaps_of(root)
    checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    while left:
        one = domain.checkpointCreateXML(only(root, left[:1]), libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE)
        try:
            one.delete(0)
        except libvirt.libvirtError as exc:
            one.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
            if "not found" not in str(exc):
                domain.checkpointCreateXML(only(root, left), libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE)
                raise
        left = left[1:]


def bitmaps_of(checkpoint: ET.Element) -> list[str]:
    """The disks of a checkpoint."""
    disks = checkpoint.iterfind("./disks/disk")
    return [disk.get("name", "") for disk in disks if disk.get("checkpoint") == "bitmap"]


def only(checkpoint: ET.Element, disk_ids: Sequence[str]) -> str:
    """The same checkpoint, of these disks."""
    root = copy.deepcopy(checkpoint)
    for disk in root.iterfind("./disks/disk"):
        if disk.get("checkpoint") == "bitmap" and disk.get("name") not in disk_ids:
            disk.attrib.pop("bitmap", None)
            disk.attrib.pop("size", None)
            disk.set("checkpoint", "no")
    return xml.text_of(root)


def lying_below(domain: Any, names: Sequence[str]) -> list[str]:
    """Checkpoints of which a disk has another top image now: libvirt would write to the one that holds the bitmap."""
    found, now = [], sources(xml.parse(domain.XMLDesc(0)))
    for name in names:
        root = xml.parse(domain.checkpointLookupByName(name).getXMLDesc(0))
        then = sources(root)
        if any(disk in now and then.get(disk) != now[disk] for disk in bitmaps_of(root)):
            found.append(name)
    return found


def sources(root: ET.Element) -> dict[str, str]:
    """The top image of each disk in a domain, or in the domain that a checkpoint repeats."""
    found = {}
    for disk in root.iterfind(".//devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        if target is not None and source is not None:
            found[target.get("dev", "")] = source.get("file") or source.get("dev") or ""
    return found


def opened(domain: Any, names: Sequence[str], discard: bool, begun: list[bool]) -> None:
    """The same. Only QEMU takes bitmaps out, so a stopped VM is opened for that, paused; then the caller ends it."""
    if domain.isActive():
        removed(domain, names)
        return
    if domain.hasManagedSaveImage(0) and not discard:
        raise Refused(
            f"Cannot {_WHAT} {domain.name()}: it is stopped with its memory saved, which would be lost. Nothing was "
            "touched. Resume it first."
        )
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_FORCE_BOOT)
    begun.append(True)
    removed(domain, names)


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
