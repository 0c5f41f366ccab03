# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the suite needs besides the contract: to make VMs, and to do to them what happens behind vmward's back."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import libvirt

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Unjudged
from ansible_collections.vmward.remediation.plugins.module_utils._fake import convert, images
from ansible_collections.vmward.remediation.plugins.module_utils._fake.hypervisor import FakeHypervisor, stop
from ansible_collections.vmward.remediation.plugins.module_utils._fake.state import State
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Capability, Detail, Hypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.api import LibvirtHypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._model import Layer, Vm
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Outcome, UseCase, execute
from ansible_collections.vmward.remediation.tests.conformance.world import World

EVERYTHING = frozenset(Detail)
READY = "VMWARD-TINY-READY"  # what the guest says on its console when its system runs
CMDLINE = (
    "vmward.ip=192.0.2.11 vmward.name=tiny console=ttyS0 quiet net.ifnames=0 no5lvl mitigations=off random.trust_cpu=on"
)
MAC = "52:54:00:00:02:%02x"


class NotTaken(Exception):
    """The hypervisor takes no VM of that name."""


class NotShown(Exception):
    """The bench has no such thing, and says why."""


class Bench(ABC):
    """One backend with the means to set the stage. NICs: ``tap``, ``tap-down``, ``link-only``, ``uncuttable``."""

    hypervisor: Hypervisor
    entry: dict[str, object]  # the same backend as an entry of vmward_hypervisors
    format = "qcow2"  # of the images

    @abstractmethod
    def create(self, name: str, nics: Sequence[str] = ("tap",), running: bool = True, persistent: bool = True) -> str:
        """Make a VM with one disk on a base image that all VMs share; answers its id. NIC n has the MAC ``mac(n)``."""

    @abstractmethod
    def plug(self, vm_id: str, mac: str) -> None:
        """Hot-plug a tap NIC into the running VM only."""

    @abstractmethod
    def reboot(self, vm_id: str) -> None:
        """Let the guest restart, without a cold start."""

    @abstractmethod
    def vanish(self, vm_id: str) -> None:
        """Somebody removes the VM."""

    @abstractmethod
    def wiring(self, vm_id: str) -> str:
        """The raw definition of all NICs, running and persistent, as the vendor tells it."""

    @abstractmethod
    def loosen(self, vm_id: str) -> None:
        """Somebody takes the cut away behind our back; the VM's own definition looks as before where that can be."""

    @abstractmethod
    def content(self, path: str) -> str:
        """Whether an image is there."""

    # What goes wrong at the hypervisor itself, and is mended again. In the middle of a verb, the verb is a pause.

    has_sessions = True  # that can expire
    has_obedient_guests = True

    def log_in(self) -> None:
        """Reach the hypervisor by a session that can expire, where a bench's own cannot."""
        self.hypervisor.refs()

    @abstractmethod
    def expire(self) -> None:
        """End every session."""

    @abstractmethod
    def lose(self) -> None:
        """Break the connection; it can be made again."""

    @abstractmethod
    def slow(self, vm_id: str, seconds: int) -> bool:
        """Let the VM take that long to pause. Whether it alone does."""

    @abstractmethod
    def hurt(self, vm_id: str) -> None:
        """Let every change of the stopped VM's wiring be refused."""

    def hold_note(self, vm_id: str) -> None:
        """Hold back the answer to the writing of the VM's undo note, until it is mended."""
        raise NotShown("its calls are made one after the other")

    @abstractmethod
    def mend(self) -> None:
        """Nothing of that goes wrong any more."""

    @abstractmethod
    def obey(self, vm_id: str) -> None:
        """Let the guest do what it is asked: shut down."""

    def lacks(self, capability: Capability, usecase: UseCase, vm_id: str) -> bool:
        """Whether the backend cannot do it; then the verb must have said so, and touched nothing."""
        if capability in self.hypervisor.capabilities():
            return False
        before = self.vm(vm_id)
        (refused,) = self.do(usecase, vm_id)
        assert "Cannot" in refused.msg
        assert "cannot do it" in refused.msg
        assert self.vm(vm_id) == before
        return True

    def nic_id(self, number: int, kind: str = "tap") -> str:
        """The id of NIC n."""
        return mac(number)

    def vm(self, vm_id: str) -> Vm:
        found = self.hypervisor.read([vm_id], EVERYTHING)[vm_id]
        if isinstance(found, Exception):
            raise found
        return found

    def do(self, usecase: UseCase, *vm_ids: str, check: bool = False, deadline: float = 60) -> list[Outcome]:
        """The verb, as a module runs it."""
        return execute(self.hypervisor, usecase, [(vm_id, vm_id) for vm_id in vm_ids], deadline, check)

    def one(self, usecase: UseCase, vm_id: str, check: bool = False) -> Outcome:
        """The verb on one VM, which must succeed."""
        (outcome,) = self.do(usecase, vm_id, check=check)
        assert not outcome.failed, outcome.msg
        return outcome


def mac(number: int) -> str:
    return MAC % number


class FakeBench(Bench):
    """The simulated hypervisor."""

    KINDS = {"tap": "tap", "tap-down": "tap", "link-only": "macvtap", "uncuttable": "passthrough"}

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        path = str(directory / "state.json")
        self.state = State(path)
        self.state.write({"vms": {}, "faults": []})
        self.base = images.create_base(str(directory / "base.qcow2"), {"/etc/motd": b"golden"})
        self.hypervisor = FakeHypervisor("hv1", path)
        self.entry = {"fake": {"path": path}}

    def create(self, name: str, nics: Sequence[str] = ("tap",), running: bool = True, persistent: bool = True) -> str:
        vm_id = convert.new_id()
        disk = convert.disk(
            "vda", images.create_overlay(str(self.directory / f"{vm_id}.qcow2"), self.base), images.SIZE
        )
        cards = [
            convert.nic(
                mac(n), self.KINDS[kind], link="down" if kind == "tap-down" else "up", addresses=[f"192.0.2.{10 + n}"]
            )
            for n, kind in enumerate(nics)
        ]
        machine = convert.machine(name, cards, [disk], persistent=persistent, obeys_after=None)
        with self.state.change() as data:
            data["vms"][vm_id] = machine
            if not running:
                stop(data, vm_id)
        return vm_id

    def tag(self, vm_id: str, name: str) -> None:
        with self.state.change() as data:
            data["vms"][vm_id]["tags"].append(name)

    def answers(self, vm_id: str) -> None:
        with self.state.change() as data:
            data["vms"][vm_id]["guest"] = {}

    def known(self, vm_id: str) -> Vm:
        """What could be read of a VM that cannot be judged."""
        found = self.hypervisor.read([vm_id], EVERYTHING)[vm_id]
        assert isinstance(found, Unjudged), found
        known: Vm = found.vm
        return known

    def plug(self, vm_id: str, mac: str) -> None:
        with self.state.change() as data:
            data["vms"][vm_id]["nics"].append(dict(convert.nic(mac), config=None))

    def reboot(self, vm_id: str) -> None:
        """A guest's own restart changes nothing that the state file holds."""

    def vanish(self, vm_id: str) -> None:
        with self.state.change() as data:
            del data["vms"][vm_id]

    def wiring(self, vm_id: str) -> str:
        return json.dumps(self.state.read()["vms"][vm_id]["nics"], sort_keys=True)

    def loosen(self, vm_id: str) -> None:
        with self.state.change() as data:
            for nic in data["vms"][vm_id]["nics"]:
                nic["live"]["guard"] = ""

    def content(self, path: str) -> str:
        return "there" if Path(path).exists() else "gone"

    def fail(self, **fault: object) -> None:
        with self.state.change() as data:
            data["faults"].append(fault)

    def name(self, vm_id: str) -> str:
        name: str = self.state.read()["vms"][vm_id]["name"]
        return name

    def expire(self) -> None:
        self.fail(verb="submit_pause", error="AuthFailed", message="The session has expired.")

    def lose(self) -> None:
        self.fail(verb="submit_pause", error="TaskFailed", message="The connection was lost.")

    def slow(self, vm_id: str, seconds: int) -> bool:
        self.fail(verb="submit_pause", vm=self.name(vm_id), seconds=seconds)
        return True

    def hurt(self, vm_id: str) -> None:
        self.fail(verb="submit_isolate", vm=self.name(vm_id), error="TaskFailed", message="The lock is held.", times=9)

    def mend(self) -> None:
        with self.state.change() as data:
            data["faults"] = []

    def obey(self, vm_id: str) -> None:
        with self.state.change() as data:
            data["vms"][vm_id]["obeys_after"] = 0.2


class LibvirtBench(Bench):
    """Real VMs, on a libvirt that is the suite's own."""

    has_sessions = False
    has_obedient_guests = False

    KINDS = {"tap": "network", "tap-down": "network", "link-only": "user", "uncuttable": "hostdev"}

    def __init__(self, world: World, directory: Path) -> None:
        self.world, self.directory = world, directory
        self.base = Layer(str(directory / "base.qcow2"), "qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.base.path, "16M"], check=True)
        self.hypervisor = LibvirtHypervisor("hv1", world.uri)
        self.entry = {"libvirt": {"uri": world.uri}}
        self.stuck: list[str] = []  # VMs whose definition cannot be written

    def clean(self) -> None:
        self.mend()
        self.hypervisor.close()
        for domain in self.conn.listAllDomains(0):
            if domain.isActive():
                domain.destroy()
        for domain in self.conn.listAllDomains(0):
            domain.undefineFlags(
                libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            )
        for definition in self.conn.listAllNWFilters(0):
            definition.undefine()

    @property
    def conn(self) -> libvirt.virConnect:
        return self.world.conn

    def domain(self, vm_id: str) -> libvirt.virDomain:
        return self.conn.lookupByUUIDString(vm_id)

    def create(self, name: str, nics: Sequence[str] = ("tap",), running: bool = True, persistent: bool = True) -> str:
        vm_id = convert.new_id()
        image = str(self.directory / f"{vm_id}.qcow2")
        images.create_overlay(image, self.base)
        definition = ET.tostring(domain_xml(name, vm_id, image, self.world.boot, self.directory), encoding="unicode")
        root = ET.fromstring(definition)
        devices = root.find("devices")
        assert devices is not None
        for number, kind in enumerate(nics):
            devices.append(self._interface(mac(number), kind))
        text = ET.tostring(root, encoding="unicode")
        if not persistent:
            self.conn.createXML(text, 0)
            return vm_id
        try:
            domain = self.conn.defineXML(text)
        except libvirt.libvirtError as exc:
            if "name" in str(exc):
                raise NotTaken(name) from exc
            raise
        if running:
            domain.create()
        return vm_id

    def _interface(self, address: str, kind: str) -> ET.Element:
        interface = ET.Element("interface", {"type": self.KINDS[kind]})
        ET.SubElement(interface, "mac", {"address": address})
        if kind.startswith("tap"):
            ET.SubElement(interface, "source", {"network": "lan"})
        if kind == "uncuttable":
            source = ET.SubElement(interface, "source")
            ET.SubElement(
                source, "address", {"type": "pci", "domain": "0", "bus": "0xfe", "slot": "2", "function": "0"}
            )
            return interface
        if kind == "tap-down":
            ET.SubElement(interface, "link", {"state": "down"})
        ET.SubElement(interface, "model", {"type": "virtio"})
        return interface

    def plug(self, vm_id: str, mac: str) -> None:
        text = ET.tostring(self._interface(mac, "tap"), encoding="unicode")
        self.domain(vm_id).attachDeviceFlags(text, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def reboot(self, vm_id: str) -> None:
        self.domain(vm_id).reset(0)

    def vanish(self, vm_id: str) -> None:
        domain = self.domain(vm_id)
        if domain.isActive():
            domain.destroy()
        if vm_id in {left.UUIDString() for left in self.conn.listAllDomains(0)}:
            domain.undefine()

    def wiring(self, vm_id: str) -> str:
        domain = self.domain(vm_id)
        told = []
        for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
            root = ET.fromstring(domain.XMLDesc(flags))
            for source in root.iter("source"):
                source.attrib.pop("portid", None)  # libvirt numbers the network's port anew with each update
            told += [
                ET.canonicalize(ET.tostring(i, encoding="unicode"), strip_text=True) for i in root.iter("interface")
            ]
        return "\n".join(told)

    def loosen(self, vm_id: str) -> None:
        reference = ET.fromstring(self.domain(vm_id).XMLDesc(0)).find(".//interface/filterref")
        assert reference is not None
        root = ET.fromstring(self.conn.nwfilterLookupByName(reference.get("filter")).XMLDesc(0))
        for rule in root.iter("rule"):
            rule.set("action", "accept")
        self.conn.nwfilterDefineXML(ET.tostring(root, encoding="unicode"))

    def content(self, path: str) -> str:
        return "there" if Path(path).exists() else "gone"

    def expire(self) -> None:
        raise NotShown("a connection to libvirt has no session that could expire")

    def lose(self) -> None:
        self.world.kill_libvirtd()

    def slow(self, vm_id: str, seconds: int) -> bool:
        """QEMU stands still, and answers nobody."""
        self._signal("STOP", self.domain(vm_id).name())
        threading.Timer(seconds, self._signal, ["CONT", self.domain(vm_id).name()]).start()
        return True

    def _signal(self, name: str, vm: str) -> None:
        self.world.run("sh", "-c", 'kill -"$1" "$(cat "/run/libvirt/qemu/$2.pid")"', "sh", name, vm)

    def hurt(self, vm_id: str) -> None:
        """Where libvirt writes its definition to there is a directory, in the world's own /etc."""
        self.stuck.append(self.domain(vm_id).name())
        self.world.run("sh", "-c", 'rm "$1" && mkdir "$1"', "sh", f"/etc/libvirt/qemu/{self.stuck[-1]}.xml")

    def mend(self) -> None:
        while self.stuck:
            self.world.run("rmdir", f"/etc/libvirt/qemu/{self.stuck.pop()}.xml")

    def obey(self, vm_id: str) -> None:
        raise NotShown("the tiny guests hear no power button; the lab's do")

    def log(self, vm_id: str) -> str:
        path = self.directory / f"{vm_id}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def booted(self, vm_id: str, times: int = 1) -> None:
        """Wait until the guest's own system runs (for the n-th time)."""
        end = time.monotonic() + 90
        while self.log(vm_id).count(READY) < times:
            assert time.monotonic() < end, f"the guest does not boot:\n{self.log(vm_id)[-1000:]}"
            time.sleep(0.2)


def domain_xml(name: str, vm_id: str, image: str, boot: Path, directory: Path) -> ET.Element:
    """A guest that boots in seconds: kernel and initrd only; its disk is not its root."""
    root = ET.Element("domain", {"type": "qemu"})
    for tag, text in {"name": name, "uuid": vm_id, "vcpu": "1"}.items():
        ET.SubElement(root, tag).text = text
    ET.SubElement(root, "memory", {"unit": "MiB"}).text = "128"
    system = ET.SubElement(root, "os")
    ET.SubElement(system, "type", {"arch": "x86_64", "machine": "pc"}).text = "hvm"
    ET.SubElement(system, "kernel").text = str(boot / "vmlinuz")
    ET.SubElement(system, "initrd").text = str(boot / "initrd.img")
    ET.SubElement(system, "cmdline").text = CMDLINE
    ET.SubElement(ET.SubElement(root, "features"), "acpi")
    ET.SubElement(root, "cpu", {"mode": "maximum"})
    devices = ET.SubElement(root, "devices")
    disk = ET.SubElement(devices, "disk", {"type": "file", "device": "disk"})
    ET.SubElement(disk, "driver", {"name": "qemu", "type": "qcow2"})
    ET.SubElement(disk, "source", {"file": image})
    ET.SubElement(disk, "target", {"dev": "vda", "bus": "virtio"})
    ET.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    serial = ET.SubElement(devices, "serial", {"type": "file"})
    ET.SubElement(serial, "source", {"path": str(directory / f"{vm_id}.log"), "append": "on"})
    ET.SubElement(devices, "memballoon", {"model": "none"})
    return root
