# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Giving disks up on vSphere. Destroying a VM takes all that its disks stand on along: what others use comes off first.

Sources: U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.ManagedEntity.html) (destroy),
U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.VirtualDiskManager.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from .._errors import Refused, TaskFailed, Unsupported
from .._hypervisor import Pending
from .._model import Disk, Vm, VmRef, printable
from . import convert
from .connection import Connection, vim
from .tasks import Call

Props = dict[str, Any]
NO_RESET = (
    "vSphere keeps no base that a VM could start again from. Revert it to a snapshot, or deploy it again from its "
    "template."
)


class DiskVerbs:
    """The Pool part of the contract."""

    name: str
    link: Connection
    props: dict[str, Props]
    inventory: Callable[[Mapping[Any, list[str]]], list[tuple[Any, Props]]]
    machine: Callable[[VmRef], Any]
    datacenter: Callable[[Vm], tuple[Any, str]]
    _task: Callable[..., Pending]
    _images: dict[str, dict[str, str]] | None = None  # of every VM, by object id: its image files, and its name

    def submit_delete(self, vm: Vm) -> Pending:
        destroy, others = self.machine(vm.ref).Destroy_Task, self._others(vm)
        shared = self.require_deletable(vm)
        if not shared:
            return self._task(vm, "delete", "destroy", destroy)
        own = [layer.path for disk in shared for layer in disk.layers if layer.path not in others]
        return self._task(vm, "delete", "destroy", destroy, before=self._give_up(vm, {d.id for d in shared}, own))

    def require_deletable(self, vm: Vm) -> list[Disk]:
        """Its disks that stand on images of others too. With snapshots they would not come off."""
        others = self._others(vm)
        shared = [disk for disk in vm.disks if any(layer.path in others for layer in disk.layers)]
        if shared and vm.snapshots:
            users = sorted({others[layer.path] for disk in shared for layer in disk.layers if layer.path in others})
            raise Refused(
                "Cannot delete {}: images that its disks stand on are those of {} too, and its snapshots hold on to "
                "them. Remove its snapshots first (vm_snapshot, state: absent).".format(
                    vm.ref.name, ", ".join(printable(user, 40) for user in users)
                )
            )
        return shared

    def _others(self, vm: Vm) -> dict[str, str]:
        """The image files of all other VMs and templates, each with the name of one that has it."""
        known = self._images
        if known is None:
            paths = {vim.VirtualMachine: ["name", "config.hardware.device", "layoutEx.file"]}
            found = self.link.call("list the disks of all VMs", None, lambda: self.inventory(paths))
            machines = [(obj._moId, props) for obj, props in found if isinstance(obj, vim.VirtualMachine)]
            known = self._images = {moid: images_of(self.name, moid, props) for moid, props in machines}
        mine = self.machine(vm.ref)._moId
        return {path: who for moid, images in known.items() if moid != mine for path, who in images.items()}

    def _give_up(self, vm: Vm, disks: set[str], own: list[str]) -> list[Call]:
        """Take disks off the VM, their files kept; then remove those of its own, the topmost first."""
        machine, images = self.machine(vm.ref), self.link.content.virtualDiskManager
        datacenter = self.datacenter(vm)[0] if own else None
        devices = self.props[vm.ref.id]["config.hardware.device"]
        spec = vim.vm.ConfigSpec(
            deviceChange=[
                vim.vm.device.VirtualDeviceSpec(operation="remove", device=device)
                for device in devices
                if isinstance(device, vim.vm.device.VirtualDisk) and convert.disk_id(device) in disks
            ]
        )

        def remove(path: str) -> Call:
            return lambda: images.DeleteVirtualDisk_Task(path, datacenter)

        return [lambda: machine.ReconfigVM_Task(spec), *map(remove, own)]

    def submit_reset_disks(self, vm: Vm) -> Pending:
        raise Unsupported(f"Cannot reset the disks of {vm.ref.name}: {NO_RESET}")


def images_of(hypervisor: str, moid: str, props: Props) -> dict[str, str]:
    """Every image file that a VM, its snapshots or its templates use. One that cannot be told is no reason to guess."""
    name = convert.unquoted(props.get("name", moid))
    if "config.hardware.device" not in props or "layoutEx.file" not in props:
        raise TaskFailed(
            f"Cannot tell which images are in use on {hypervisor}: the disks of {printable(name)} ({moid}) cannot be "
            "read. Nothing was deleted. Bring that VM back, or remove it from the inventory."
        )
    disks = [one for one in props["config.hardware.device"] if isinstance(one, vim.vm.device.VirtualDisk)]
    paths = [layer.path for disk in disks for layer in convert.layers_of(disk.backing)]
    paths += [file.name for file in props["layoutEx.file"] if file.name.endswith(".vmdk")]
    return dict.fromkeys(filter(None, paths), name)
