# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage on vSphere: VMs are made and broken through a session of the tests' own."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pytest
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect
from ansible_collections.vmward.remediation.plugins.module_utils._errors import AuthFailed, TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._model import Collector, Isolation
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Outcome, UseCase
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.convert import quoted
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.note import KEY as NOTE
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench, NotTaken, mac
from ansible_collections.vmward.remediation.tests.vcsim.server import PASSWORD, USER, Vcsim, shown

LONGEST_NAME = 80  # characters, as vCenter has it
SIZE = 16 * 1024 * 1024
STORE = "LocalDS_0"
HELD = 600_000  # milliseconds for which an answer is held back: until it is let go of
card = vim.vm.device.VirtualEthernetCard

# Verbs as the tests give them.
SEAL = SetIsolation(Isolation.SEALED, "2026-1")
FREE = SetIsolation(Isolation.FREE, keep_sessions=True)
FORENSIC = SetIsolation(Isolation.FORENSIC, "2026-1", [Collector("192.0.2.1", 22)])
OFF = SetPower("stopped", True, 0, {})
ON = SetPower("running", True, 0, {})
WAIVED = {"classes": {name: {"state": "waived", "by": "test"} for name in ("memory", "connections", "disks", "logs")}}


class VsphereBench(Bench):
    """A simulated vCenter. ``DC0_DVPG0`` is the VMs' network, ``DC0_DVPG1`` the isolation port group."""

    KINDS: dict[str, Callable[..., Any]] = {
        "tap": vim.vm.device.VirtualVmxnet3,
        "tap-down": vim.vm.device.VirtualVmxnet3,
        "link-only": vim.vm.device.VirtualE1000,
        "uncuttable": vim.vm.device.VirtualSriovEthernetCard,
    }
    format = "vmdk"

    def __init__(self, server: Vcsim) -> None:
        self.server = server
        self.faults: list[dict[str, Any]] = []
        self.entry = server.entry
        self.hypervisor = connect("hv1", self.entry)
        self.tls = ssl.create_default_context(cafile=server.ca)
        self.token, self.categories, self.labels = "", dict[str, str](), dict[tuple[str, str], str]()
        self.renew()
        self.networks = {network.name: network for network in self.centre.network}
        self.pool = self.centre.hostFolder.childEntity[0].resourcePool
        self._base()

    def do(self, usecase: UseCase, *vm_ids: str, check: bool = False, deadline: float = 60) -> list[Outcome]:
        """The verb; nothing that a user could see of it holds the password."""
        outcomes = super().do(usecase, *vm_ids, check=check, deadline=deadline)
        assert not shown(json.dumps([asdict(outcome) for outcome in outcomes]))
        return outcomes

    def renew(self) -> None:
        """Log the tests' own session in (again)."""
        server = self.server
        self.session = SmartConnect(host=server.host, port=server.port, user=USER, pwd=PASSWORD, sslContext=self.tls)
        self.inventory = self.session.RetrieveContent()
        (self.centre,) = self.inventory.rootFolder.childEntity

    def clean(self) -> None:
        self.server.faults()
        self.server.delays()
        self.server.pages(0)
        self.hypervisor.close()
        for category in self.categories.values():
            self.rest("DELETE", f"category/id:{category}")
        for machine in list(self.centre.vmFolder.childEntity):
            self._destroy(machine)
        Disconnect(self.session)

    def answers(self, vm_id: str) -> None:
        """Let VMware Tools run in a VM; it is started anew."""
        option = vim.option.OptionValue(key="vmward.test.guest", value="linuxGuest ir secret")
        machine = self.machine(vm_id)
        finish(machine.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[option])))
        finish(machine.PowerOffVM_Task())
        finish(machine.PowerOnVM_Task())

    def obeys(self, vm_id: str) -> None:
        """Let the guest do as it is asked to."""
        option = vim.option.OptionValue(key="vmward.test.deaf", value="")
        finish(self.machine(vm_id).ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[option])))

    def rest(self, method: str, path: str, body: Any = None, login: bool = False) -> Any:
        """The tests' own way to the tags: the older paths of the Automation API."""
        place = "session" if login else f"tagging/{path}"
        headers = {"Content-Type": "application/json", "vmware-api-session-id": self.token}
        if login:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        address = f"https://{self.server.host}:{self.server.port}/rest/com/vmware/cis/{place}"
        request = urllib.request.Request(address, json.dumps(body or {}).encode(), headers, method=method)
        with urllib.request.urlopen(request, context=self.tls, timeout=30) as answer:
            return json.loads(answer.read() or b"{}").get("value")

    def tag(self, vm_id: str, name: str, category: str = "role") -> None:
        """Give a VM a tag, which is made where it is not there yet."""
        self.token = self.token or self.rest("POST", "", login=True)
        if category not in self.categories:
            spec = {"name": category, "description": "", "cardinality": "MULTIPLE", "associable_types": []}
            self.categories[category] = self.rest("POST", "category", {"create_spec": spec})
        if (category, name) not in self.labels:
            spec = {"name": name, "description": "", "category_id": self.categories[category]}
            self.labels[category, name] = self.rest("POST", "tag", {"create_spec": spec})
        thing = {"object_id": {"id": self.machine(vm_id)._moId, "type": "VirtualMachine"}}
        self.rest("POST", f"tag-association/id:{self.labels[category, name]}?~action=attach", thing)

    def machine(self, vm_id: str) -> vim.VirtualMachine:
        found = self.inventory.searchIndex.FindByUuid(None, vm_id, True, True)
        assert found is not None, f"there is no VM {vm_id}"
        return found

    def create(self, name: str, nics: Sequence[str] = ("tap",), running: bool = True, persistent: bool = True) -> str:
        if not persistent:
            pytest.skip("vSphere has no transient VMs")
        if len(name) > LONGEST_NAME:
            raise NotTaken(name)
        folder = str(uuid.uuid4())
        spec = vim.vm.ConfigSpec(
            name=folder,
            memoryMB=4,
            numCPUs=1,
            guestId="otherGuest64",
            files=vim.vm.FileInfo(vmPathName=f"[{STORE}] {folder}/vm.vmx"),
            deviceChange=[added(self._card(mac(number), kind)) for number, kind in enumerate(nics)]
            + self._disk(folder),
            extraConfig=[vim.option.OptionValue(key="vmward.test.deaf", value="true")],
        )
        task = self.centre.vmFolder.CreateVM_Task(spec, self.pool)
        finish(task)
        machine = task.info.result
        finish(machine.Rename_Task(quoted(name)))
        if running:
            finish(machine.PowerOnVM_Task())
        return str(machine.config.instanceUuid)

    def _card(self, address: str, kind: str) -> Any:
        up = kind != "tap-down"
        network = self.networks["DC0_DVPG0"]
        port = vim.dvs.PortConnection(portgroupKey=network.key, switchUuid=network.config.distributedVirtualSwitch.uuid)
        return self.KINDS[kind](
            key=-1,
            macAddress=address,
            addressType="manual",
            backing=card.DistributedVirtualPortBackingInfo(port=port),
            connectable=vim.vm.device.VirtualDevice.ConnectInfo(
                startConnected=up, connected=up, allowGuestControl=True
            ),
        )

    def _disk(self, folder: str) -> list[Any]:
        """A disk whose active layer stands on an image that all VMs share."""
        bus = vim.vm.device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing")
        backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo
        disk = vim.vm.device.VirtualDisk(
            key=-2,
            controllerKey=1000,
            unitNumber=0,
            capacityInKB=SIZE // 1024,
            backing=backing(
                fileName=f"[{STORE}] {folder}/vm.vmdk",
                diskMode="persistent",
                thinProvisioned=True,
                parent=backing(fileName=f"[{STORE}] base.vmdk", diskMode="persistent"),
            ),
        )
        create = vim.vm.device.VirtualDeviceSpec(operation="add", fileOperation="create", device=disk)
        return [added(bus), create]

    def plug(self, vm_id: str, mac: str) -> None:
        finish(self.machine(vm_id).ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[added(self._card(mac, "tap"))])))

    def attach(self, vm_id: str, path: str) -> None:
        """Give a VM another's disk too."""
        backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=path, diskMode="persistent")
        disk = vim.vm.device.VirtualDisk(key=-3, controllerKey=1000, unitNumber=1, backing=backing)
        disk.capacityInKB = SIZE // 1024
        finish(self.machine(vm_id).ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[added(disk)])))

    def reboot(self, vm_id: str) -> None:
        finish(self.machine(vm_id).ResetVM_Task())

    def vanish(self, vm_id: str) -> None:
        """The simulator takes the image that all VMs stand on with it, which a vCenter would not."""
        self._destroy(self.machine(vm_id))
        self._base()

    def _destroy(self, machine: vim.VirtualMachine) -> None:
        """Once more, if a call that a test held, and that is let go at its end, came between."""
        end = time.monotonic() + 30
        while True:
            if machine.runtime.powerState != "poweredOff":
                ended(machine.PowerOffVM_Task())
            told = ended(machine.Destroy_Task())
            if told.state == "success":
                return
            assert time.monotonic() < end, told.error

    def wiring(self, vm_id: str) -> str:
        told = []
        for device in self.machine(vm_id).config.hardware.device:
            if isinstance(device, card):
                link, port = device.connectable, device.backing.port
                told.append(
                    {
                        "mac": device.macAddress,
                        "network": [port.portgroupKey, port.switchUuid],
                        "now": "up" if link.connected else "down",
                        "start": "up" if link.startConnected else "down",
                        "guest": link.allowGuestControl,
                    }
                )
        return json.dumps(told)

    def loosen(self, vm_id: str) -> None:
        machine = self.machine(vm_id)
        device = next(one for one in machine.config.hardware.device if isinstance(one, card))
        device.connectable.connected = True
        change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=device)
        finish(machine.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))

    def expire(self) -> None:
        self.server.expire_sessions()
        self.renew()

    def lose(self) -> None:
        self.fail(*({"method": method, "drop": True} for method in ("SuspendVM_Task", "RetrievePropertiesEx")))

    def slow(self, vm_id: str, seconds: int) -> bool:
        self.server.delays(tasks={"Suspend": seconds * 1000})
        return False

    def hurt(self, vm_id: str) -> None:
        struck = {"method": "ReconfigVM_Task", "vm": self.machine(vm_id).name}
        self.fail({**struck, "fault": "The lock is held", "task": True, "times": 9})

    def hold_note(self, vm_id: str) -> None:
        self.fail({"method": "SetField", "vm": self.machine(vm_id).name, "hold": HELD})

    def fail(self, *faults: dict[str, Any]) -> None:
        self.faults += faults
        self.server.faults(*self.faults)

    def mend(self) -> None:
        self.faults = []
        self.server.faults()
        self.server.delays()

    def obey(self, vm_id: str) -> None:
        deaf = vim.option.OptionValue(key="vmward.test.deaf", value="")
        finish(self.machine(vm_id).ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[deaf])))

    def content_of(self, path: str) -> bytes:
        with urllib.request.urlopen(self._address(path), context=self.tls, timeout=30) as answer:
            found: bytes = answer.read()
        return found

    def fill(self, path: str, content: bytes) -> None:
        """Write a disk's content, as a guest would."""
        request = urllib.request.Request(self._address(path.replace(".vmdk", "-flat.vmdk")), content, method="PUT")
        with urllib.request.urlopen(request, context=self.tls, timeout=30) as answer:
            answer.read()

    def _address(self, path: str) -> str:
        store, _bracket, name = path.removeprefix("[").partition("] ")
        query = urllib.parse.urlencode({"dcPath": self.centre.name, "dsName": store})
        return f"https://{self.server.host}:{self.server.port}/folder/{urllib.parse.quote(name)}?{query}"

    def content(self, path: str) -> str:
        try:
            self.content_of(path)
        except urllib.error.HTTPError as exc:
            if exc.code == 404:
                return "gone"
            raise
        return "there"

    def _base(self) -> None:
        """The image that all VMs' disks stand on."""
        path = f"[{STORE}] base.vmdk"
        if self.content(path) == "gone":
            spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
                capacityKb=SIZE // 1024, diskType="thin", adapterType="lsiLogic"
            )
            self.inventory.virtualDiskManager.CreateVirtualDisk_Task(path, self.centre, spec)
            while self.content(path) == "gone":
                time.sleep(0.01)


def finish(task: Any) -> None:
    """Await a task; one that fails, fails the test."""
    told = ended(task)
    assert told.state == "success", told.error


def ended(task: Any) -> Any:
    """What is told of a task once it succeeded or failed."""
    end = time.monotonic() + 30
    while (told := task.info).state not in ("success", "error"):
        assert time.monotonic() < end, told
        time.sleep(0.01)
    return told


def added(device: Any) -> Any:
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=device)


def without_attribute(vsphere: VsphereBench) -> vim.CustomFieldsManager:
    """Take the custom attribute of the undo notes away, and the notes with it."""
    attributes = vsphere.inventory.customFieldsManager
    for one in attributes.field:
        if one.name == NOTE:
            attributes.RemoveCustomFieldDef(one.key)
    return attributes


def refused(entry: dict[str, Any], **changed: Any) -> str:
    """What a log-in is refused with; never with the password in it."""
    with pytest.raises((AuthFailed, TaskFailed)) as told:
        connect("vc1", {"vsphere": {**entry["vsphere"], **changed}})
    assert not shown(str(told.value))
    return str(told.value)
