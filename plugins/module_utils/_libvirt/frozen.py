# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a running VM as they are at one moment, served by QEMU: libvirt's backup job in pull mode.

The VM's chain is not touched. What the guest overwrites meanwhile is kept in scratch files, which go with the job; the
job ends with the VM at the latest.

Source: U(https://libvirt.org/formatbackup.html).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

from .._errors import NotFound, NotVerified, Refused, VmwardError
from .._hypervisor import FROZEN_SOCKET, Pending
from .._model import Vm
from . import xml
from .checkpoints import checkpoint_xml
from .connection import Connection, libvirt

_MOST = 107  # bytes of the path of a UNIX socket


class FrozenVerbs:
    """The part of the Evidence contract that reads a running VM's disks in place."""

    link: Connection

    def submit_freeze_disks(
        self, vm: Vm, disk_ids: Sequence[str], directory: str, checkpoint: str = "", since: str = ""
    ) -> Pending:
        what, begun = "freeze the disks of", False
        socket = os.path.join(directory, FROZEN_SOCKET)
        if len(os.fsencode(socket)) > _MOST:
            raise Refused(f"Cannot {what} {vm.ref.name}: {socket} is too long for a socket. Name a shorter directory.")

        def begin(domain: Any) -> None:
            root = xml.parse(domain.XMLDesc(0))
            made_for(qemu_user(root), directory)
            kept = checkpoint_xml(root, disk_ids, checkpoint) if checkpoint else None
            domain.backupBegin(pull_xml(root, disk_ids, directory, since), kept, 0)

        def poll() -> bool:
            nonlocal begun
            if begun:
                return True
            if self.link.domain(vm.ref, "read the job of", is_busy):
                self.end_dead_job(vm, os.path.dirname(directory))
                return False
            self.link.domain(vm.ref, what, begin, repeat=False)
            begun = True
            return True

        return Pending(vm.ref, what, poll)

    def submit_thaw_disks(self, vm: Vm, directory: str) -> Pending:
        what = "end the frozen view of the disks of"

        def poll() -> bool:
            self.end_dead_job(vm, directory)
            if self._our_job(vm, directory):
                return False
            left = [path for path in of_view(directory) if not removed(path)]
            if left:
                raise NotVerified(f"Cannot {what} {vm.ref.name}: {', '.join(left)} is still there. Remove it.")
            return True

        return Pending(vm.ref, what, poll)

    def end_dead_job(self, vm: Vm, directory: str) -> None:
        """End a backup job that works in this directory, whose run is over. Others' jobs are left alone."""
        if self._our_job(vm, directory):
            try:
                self.link.domain(vm.ref, "end the backup job of", lambda d: d.abortJob())
            except VmwardError:
                if self._our_job(vm, directory):
                    raise

    def _our_job(self, vm: Vm, directory: str) -> bool:
        try:
            job = self.link.domain(vm.ref, "read the backup job of", backup_job)
        except NotFound:
            return False  # the VM is gone, and its jobs with it
        return bool(job) and works_in(xml.parse(job), directory)


def is_busy(domain: Any) -> bool:
    try:
        return bool(domain.isActive() and domain.jobStats().get("type"))
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_INTERNAL_ERROR:
            return True  # a backup job that begins or ends just now has no numbers
        raise


def backup_job(domain: Any) -> str:
    """The description of the backup job that runs; empty when there is none, or the VM is off."""
    try:
        return str(domain.backupGetXMLDesc(0))
    except libvirt.libvirtError as exc:
        if exc.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN_BACKUP, libvirt.VIR_ERR_OPERATION_INVALID):
            return ""
        raise


def works_in(job: ET.Element, directory: str) -> bool:
    """Whether a backup job writes into, or is served from, this directory or one below it."""
    paths = [file.get("file", "") for what in ("target", "scratch") for file in job.iter(what)]
    paths += [server.get("socket", "") for server in job.iter("server")]
    return any(path.startswith(directory + "/") for path in paths)


def qemu_user(domain: ET.Element) -> tuple[int, int]:
    """Whom QEMU runs as, from the label that libvirt gives it; without one, whoever runs libvirt: us."""
    for label in domain.iterfind("./seclabel"):
        parts = (label.findtext("label") or "").split(":")
        if label.get("model") == "dac" and len(parts) == 2 and all(part.lstrip("+").isdigit() for part in parts):
            return int(parts[0]), int(parts[1])
    return os.geteuid(), os.getegid()


def of_view(directory: str) -> list[str]:
    """The directory of the socket, and the scratch files beside it: root makes none where QEMU could make links."""
    above, name = os.path.split(directory)
    return [os.path.join(above, one) for one in os.listdir(above) if one == name or one.startswith(name + "-")]


def removed(path: str) -> bool:
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    return not os.path.lexists(path)


def made_for(user: tuple[int, int], directory: str) -> None:
    """A directory in which only QEMU can make its socket."""
    for path in of_view(directory):
        removed(path)
    os.mkdir(directory, 0o700)
    os.chown(directory, *user)


def pull_xml(domain: ET.Element, disk_ids: Sequence[str], directory: str, since: str = "") -> str:
    """A pull backup of these disks, served on a socket in the directory; every other disk is left out by name.

    All of a disk is served. With a checkpoint, what was written since is told too.
    """
    root = ET.Element("domainbackup", {"mode": "pull"})
    if since:
        ET.SubElement(root, "incremental").text = since
    ET.SubElement(root, "server", {"transport": "unix", "socket": os.path.join(directory, FROZEN_SOCKET)})
    disks = ET.SubElement(root, "disks")
    for target in domain.iterfind("./devices/disk/target"):
        name = target.get("dev", "")
        if name not in disk_ids:
            ET.SubElement(disks, "disk", {"name": name, "backup": "no"})
            continue
        chosen = ET.SubElement(disks, "disk", {"name": name, "backup": "yes", "type": "file"})
        ET.SubElement(chosen, "driver", {"type": "qcow2"})
        ET.SubElement(chosen, "scratch", {"file": f"{directory}-{name}"})
    return xml.text_of(root)
