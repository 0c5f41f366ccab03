# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory, disks and guest state on libvirt, from the data host. A job that a dead run left ends first.

Sources: U(https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainCoreDumpWithFormat),
U(https://libvirt.org/formatbackup.html), U(https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainGetJobStats).
"""

from __future__ import annotations

import os
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Callable

from .._crew import apart
from .._disk_copy import Copies
from .._errors import NotFound, TaskFailed, Unsupported
from .._hypervisor import GuestOutput, Pending
from .._model import ON, Disk, PowerState, Vm, printable
from .._qemu_img import Conversion
from . import agent, xml
from .connection import Connection, libvirt
from .freeze import FreezeWatch
from .frozen import is_busy

MADE_WITHIN = 10.0  # seconds in which libvirt makes the file of a dump that it was asked for


class EvidenceVerbs:
    """The Evidence part of the contract."""

    link: Connection
    _watch: FreezeWatch | None = None
    _converting: Conversion | Copies | None = None
    end_dead_job: Callable[[Vm, str], None]  # of FrozenVerbs

    def submit_memory_dump(self, vm: Vm, path: str) -> Pending:
        """QEMU itself stops and resumes the CPUs (VIR_DUMP_LIVE): they run on even if libvirtd dies meanwhile."""
        flags = libvirt.VIR_DUMP_MEMORY_ONLY | libvirt.VIR_DUMP_LIVE
        raw = libvirt.VIR_DOMAIN_CORE_DUMP_FORMAT_RAW
        what = "dump the memory of"
        watch = FreezeWatch(self.link.uri, vm.ref.id) if vm.power is PowerState.RUNNING else None
        self._watch = watch
        job: Future[None] | None = None

        def dump() -> None:
            self.link.domain(vm.ref, what, lambda d: d.coreDumpWithFormat(path, raw, flags), repeat=False)

        def poll() -> bool:
            nonlocal job
            if job is None:
                job = None if self._busy(vm) else apart(dump)
                return False
            if job.done():
                job.result()
                return True
            return False

        def abort() -> None:
            """It goes on, into a file that is removed: not before libvirt has made it, or it would stay."""
            end = time.monotonic() + MADE_WITHIN
            while job and not job.done() and not os.path.exists(path) and time.monotonic() < end:
                time.sleep(0.05)

        return Pending(vm.ref, what, poll, abort=abort)

    def tools(self) -> dict[str, str]:
        def versions(conn: Any) -> dict[str, str]:
            return {"libvirt": dotted(conn.getLibVersion()), str(conn.getType()).lower(): dotted(conn.getVersion())}

        return self.link.call("ask the versions", None, versions)

    def freeze(self) -> float | None:
        return self._watch.seconds() if self._watch else None

    def submit_disk_export(self, vm: Vm, disk_id: str, path: str) -> Pending:
        disk = next((one for one in vm.disks if one.id == disk_id), None)
        if disk is None:
            there = ", ".join(one.id for one in vm.disks) or "none"
            raise NotFound(f"Cannot export disk {disk_id} of {vm.ref.name}: it has no such disk (there are: {there}).")
        if vm.power in ON:
            return self._backup(vm, disk, path)
        return self._convert(vm, disk, path)

    def _backup(self, vm: Vm, disk: Disk, path: str) -> Pending:
        """libvirt's backup job: a copy of the disk as it is at the begin, while the guest may go on writing."""
        what = f"export disk {disk.id} of"
        begun = False

        def begin(domain: Any) -> None:
            domain.backupBegin(backup_xml(xml.parse(domain.XMLDesc(0)), disk.id, path), None, 0)

        def poll() -> bool:
            nonlocal begun
            if self._busy(vm):
                if not begun:
                    self.end_dead_job(vm, os.path.dirname(path))
                return False
            if not begun:
                self.link.domain(vm.ref, what, begin, repeat=False)
                begun = True
                return False
            result = self.link.domain(
                vm.ref, what, lambda d: d.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED), repeat=False
            )
            if result.get("type") != libvirt.VIR_DOMAIN_JOB_COMPLETED or result.get("success") is False:
                cause = printable(str(result.get("errmsg") or "the backup job did not complete"), 300)
                raise TaskFailed(f"Cannot {what} {vm.ref.name} ({vm.ref.id}): {cause}.")
            return True

        def abort() -> None:
            if begun and self._busy(vm):
                self.link.domain(vm.ref, "end the export of", lambda d: d.abortJob())

        return Pending(vm.ref, what, poll, abort=abort)

    def _convert(self, vm: Vm, disk: Disk, path: str) -> Pending:
        """A stopped VM's images."""
        made = Conversion(vm.ref, disk, path)
        self._converting = made
        return Pending(
            vm.ref, f"export disk {disk.id} of", made.poll, task=f"process {made.process.pid}", abort=made.abort
        )

    def _busy(self, vm: Vm) -> bool:
        return self.link.domain(vm.ref, "read the job of", is_busy)

    def _job(self, vm: Vm) -> dict[str, Any]:
        return dict(self.link.domain(vm.ref, "read the job of", lambda d: d.jobStats() if d.isActive() else {}))

    def progress(self, vm: Vm) -> tuple[int, int]:
        if self._converting:
            return self._converting.progress()
        job = self._job(vm)
        kind = "memory" if "memory_total" in job else "disk"
        return job.get(f"{kind}_processed", 0), job.get(f"{kind}_total", 0)

    def guest_run(self, vm: Vm, argv: Sequence[str], deadline: float, limit: int) -> GuestOutput:
        try:
            import libvirt_qemu
        except ImportError as exc:
            raise Unsupported(
                f"Cannot ask the guest agent of {vm.ref.name}: the Python module libvirt_qemu is missing on the data "
                "host. It comes with python3-libvirt."
            ) from exc

        def call(command: str, seconds: int) -> str:
            return str(
                self.link.domain(
                    vm.ref,
                    "ask the guest agent of",
                    lambda d: libvirt_qemu.qemuAgentCommand(d, command, seconds, 0),
                    repeat=False,
                )
            )

        return agent.run_program(call, vm, argv, deadline, limit)


def dotted(version: int) -> str:
    """libvirt's number for a version, as people write it."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"


def backup_xml(domain: ET.Element, disk_id: str, path: str) -> str:
    """A push backup of one disk into a new qcow2 file; every other disk is left out by name."""
    root = ET.Element("domainbackup", {"mode": "push"})
    disks = ET.SubElement(root, "disks")
    for target in domain.iterfind("./devices/disk/target"):
        name = target.get("dev", "")
        if name != disk_id:
            ET.SubElement(disks, "disk", {"name": name, "backup": "no"})
            continue
        chosen = ET.SubElement(disks, "disk", {"name": name, "backup": "yes", "type": "file"})
        ET.SubElement(chosen, "driver", {"type": "qcow2"})
        ET.SubElement(chosen, "target", {"file": path})
    return xml.text_of(root)
