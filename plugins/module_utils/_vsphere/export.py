# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk out of vSphere: an export lease on the stopped VM or on a snapshot, its stream made a qcow2 image as it comes.

Sources: U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.HttpNfcLease.html),
U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.Snapshot.html) (exportSnapshot).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Callable
from urllib.parse import urlsplit

from .._errors import NotFound, TaskFailed, Unsupported, VmwardError
from .._hypervisor import Pending
from .._model import ON, Disk, PowerState, Vm, printable
from . import convert, qcow2, vmdk
from .download import Download
from .steps import DISK, Steps, Waiting, Work

BEATS = 3  # signs of life within a lease's time-out


class DiskExport(Work):
    """``submit_disk_export`` of the Evidence part of the contract."""

    props: dict[str, dict[str, Any]]
    _fetched: tuple[int, int]

    def submit_disk_export(self, vm: Vm, disk_id: str, path: str) -> Pending:
        """Of a stopped VM its own lease; of any other that of a snapshot, which is removed again."""
        disk = next((one for one in vm.disks if one.id == disk_id), None)
        if disk is None:
            there = ", ".join(one.id for one in vm.disks) or "none"
            raise NotFound(f"Cannot export disk {disk_id} of {vm.ref.name}: it has no such disk (there are: {there}).")
        devices = {convert.disk_id(one): one for one in self.props[vm.ref.id]["config.hardware.device"]}
        if is_independent(devices.get(disk_id)) and vm.power is not PowerState.STOPPED:
            raise Unsupported(
                f"Cannot export disk {disk_id} of {vm.ref.name} while it is {vm.power.value}: it is an independent "
                "disk, of which vSphere takes no snapshots. Stop the VM first."
            )
        self._fetched = (0, disk.size)
        if vm.power is PowerState.STOPPED:
            run = Steps(self._leased(vm, disk, self.machine(vm.ref).ExportVm, path))
        else:
            run = Steps(self.on_snapshot(vm, DISK, lambda taken: self._leased(vm, disk, taken.ExportSnapshot, path)))
        return Pending(vm.ref, f"export disk {disk_id} of", run, abort=run.abort)

    def export_method(self, vm: Vm) -> str:
        return "export lease of the hypervisor" + (", on a snapshot" if vm.power in ON else "")

    def _leased(self, vm: Vm, disk: Disk, begin: Callable[[], Any], path: str) -> Waiting:
        what = f"export disk {disk.id} of"
        lease = self.called(vm, what, begin)
        try:
            info = yield from self._ready(vm, what, lease)
            source = self._source(vm, disk, info)
            download = Download(self.link, vm.ref, what, source.hostname or "", source.port or 443)
            place, pause, beaten = source.path + (f"?{source.query}" if source.query else ""), info.leaseTimeout, 0.0

            def beat() -> None:
                nonlocal beaten
                if time.monotonic() - beaten > pause / BEATS:
                    beaten = time.monotonic()
                    self.called(vm, what, lambda: lease.HttpNfcLeaseProgress(self._percent()))

            yield from self.threaded(lambda: self._unpack(download, place, disk, path), download.halt, beat)
            self.called(vm, what, lease.HttpNfcLeaseComplete)
        except (VmwardError, OSError, GeneratorExit):
            with suppress(VmwardError):
                self.called(vm, what, lambda: lease.HttpNfcLeaseAbort(None))
            raise

    def _percent(self) -> int:
        done, size = self._fetched
        return min(100 * done // max(size, 1), 99)

    def _ready(self, vm: Vm, what: str, lease: Any) -> Waiting:
        while True:
            props = self.properties("read the lease", lease, "state", "error", "info")
            if props.get("state") == "ready":
                return props["info"]
            if props.get("state") in ("error", "done"):
                raise self.link.of_fault(props.get("error"), f"Cannot {what} {vm.ref.name} on {self.name}")
            yield

    def _source(self, vm: Vm, disk: Disk, info: Any) -> Any:
        """Where the lease has this disk: named by its controller and unit; by being the only one."""
        offered = [one for one in info.deviceUrl if one.disk is not False]
        place = place_of(self.props[vm.ref.id]["config.hardware.device"], disk.id)
        hits = [one for one in offered if one.key.rpartition("/")[2] == place]
        if not hits and len(offered) == len(vm.disks) == 1:
            hits = offered
        host = f"[{self.link.host}]" if ":" in self.link.host else self.link.host
        source = urlsplit(hits[0].url.replace("//*", f"//{host}:{self.link.port}", 1)) if hits else None
        if len(hits) != 1 or source is None or source.scheme != "https":
            told = ", ".join(printable(f"{one.key} at {one.url}", 120) for one in offered) or "nothing"
            raise TaskFailed(
                f"Cannot export disk {disk.id} of {vm.ref.name}: vSphere does not say which of its files is the disk "
                f"at {place} ({told}). Export it with the vSphere Client."
            )
        return source

    def _unpack(self, download: Download, place: str, disk: Disk, path: str) -> None:
        """The stream's grains as clusters of a qcow2 image. The address is the permission: no cookie goes with it."""
        try:
            download.begin(place, {}, "The lease may have ended. Run again.")
            grain = vmdk.begin(download.read, disk.size)
            with new_file(path) as file:
                image = qcow2.Writer(file, disk.size, grain)
                for offset, data in vmdk.grains(download.read, grain, disk.size):
                    image.write(offset, data)
                    self._fetched = (offset + len(data), disk.size)
                image.finish()
            self._fetched = (disk.size, disk.size)
        except ValueError as exc:
            raise TaskFailed(
                f"Cannot {download.what} {download.vm.name}: what came from {printable(download.host)} is not the "
                f"whole disk: {exc}. Run again."
            ) from exc
        finally:
            download.close()


@contextmanager
def new_file(path: str) -> Iterator[IO[bytes]]:
    """A file that stays only if it was written whole."""
    with open(path, "xb") as file:
        try:
            yield file
        except BaseException:
            os.unlink(path)
            raise


def is_independent(device: Any) -> bool:
    return str(getattr(getattr(device, "backing", None), "diskMode", "")).startswith("independent")


def place_of(devices: list[Any], disk_id: str) -> str:
    """Controller and unit of a disk, as a lease names them: ParaVirtualSCSIController0:1."""
    for device in devices:
        if convert.disk_id(device) == disk_id:
            controller = next((one for one in devices if one.key == device.controllerKey), None)
            kind = type(controller).__name__.rpartition(".")[2]
            return f"{kind}{getattr(controller, 'busNumber', '')}:{device.unitNumber}"
    return ""
