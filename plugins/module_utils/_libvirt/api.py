# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The libvirt backend: reading, power and snapshots here; wiring, images and evidence in the files beside it.

Sources: U(https://libvirt.org/html/libvirt-libvirt-domain.html), U(https://libvirt.org/html/libvirt-libvirt-domain-snapshot.html).
"""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .._errors import NotFound, Unjudged, VmwardError, attempt
from .._hypervisor import Capability, Detail, Hypervisor, Pending, done
from .._model import ON, IsolationNote, Nic, PowerState, Snapshot, Vm, VmRef
from . import xml
from .beside import beside
from .checkpoints import CheckpointVerbs
from .connection import Connection, libvirt
from .evidence import EvidenceVerbs
from .frozen import FrozenVerbs
from .images import ImageVerbs
from .wiring import Side, WiringVerbs, sides

# libvirt 9.0 trips over the end of the kernel's ARP table when it is empty and, since Linux 6.9, when it is short.
UNREAD_ARP_TABLE = ("wrong nlmsg len", "malformed netlink response")
QUIESCE_SINCE = 1_002_011  # libvirt 1.2.11: it tells whether a guest's agent is connected
REVERT_EXTERNAL_SINCE = 9_009_000  # libvirt 9.9.0: reverting external snapshots; before, they can only be taken


class LibvirtHypervisor(WiringVerbs, ImageVerbs, EvidenceVerbs, FrozenVerbs, CheckpointVerbs, Hypervisor):
    """One libvirt URI, local or remote."""

    def __init__(self, name: str, uri: str, connect_timeout: float = 15) -> None:
        super().__init__()
        self.name = name
        self.link = Connection(name, uri, connect_timeout)
        self.version = self.link.call("ask the version", None, lambda conn: conn.getLibVersion())

    def capabilities(self) -> frozenset[Capability]:
        have = set(Capability) - {Capability.SUSPEND}
        if self.version < REVERT_EXTERNAL_SINCE:
            have.discard(Capability.REVERT_EXTERNAL)
        if self.version < QUIESCE_SINCE:
            have.discard(Capability.SNAPSHOT_QUIESCE)
        if not self.has_filters():
            have.discard(Capability.FORENSIC)
        return frozenset(have)

    def refs(self) -> tuple[VmRef, ...]:
        domains = self.link.call("list the VMs", None, lambda conn: conn.listAllDomains(0))
        return tuple(VmRef(self.name, domain.UUIDString(), domain.name()) for domain in domains)

    def read(self, ids: Sequence[str], detail: frozenset[Detail] = frozenset()) -> dict[str, Vm | VmwardError]:
        answer: dict[str, Vm | VmwardError] = {}
        known: dict[str, bool] = {}
        for vm_id in ids:
            try:
                answer[vm_id] = attempt(f"judge {vm_id}", self._read, VmRef(self.name, vm_id, ""), detail, known)
            except VmwardError as exc:
                answer[vm_id] = exc
        return answer

    def _read(self, ref: VmRef, detail: frozenset[Detail], known: dict[str, bool]) -> Vm:
        power, both = self.link.domain(ref, "read", definitions)
        root = both[0].root
        ref = VmRef(self.name, ref.id, root.findtext("name", ""))
        note, doubts = judged(power, both)
        power = power if isinstance(power, PowerState) else PowerState.RUNNING
        live = next((side.root for side in both if side.live), None)
        config = next((side.root for side in both if not side.live), None)
        memory = int(root.findtext("currentMemory", root.findtext("memory", "0"))) * 1024
        nics = xml.nics(
            live, config, lambda name: xml.is_of(note, name) and self.filter_is_ours(name, known), self._pci_class
        )
        if Detail.ADDRESSES in detail and power in (PowerState.RUNNING, PowerState.PAUSED):
            nics = self._with_addresses(ref, nics)
        vm = Vm(
            ref,
            power,
            nics,
            memory,
            config is not None,
            disks=self.disks(ref, root) if Detail.DISKS in detail else (),
            snapshots=self._snapshots(ref) if Detail.SNAPSHOTS in detail else (),
            note=note,
        )
        if doubts:
            raise Unjudged(f"Cannot judge {ref.name}: {'; '.join(doubts)}. {xml.ONLY_CUT}", vm)
        return vm

    def _pci_class(self, name: str) -> str:
        """What the host's own device is; where it cannot be told, it may well be a network card."""

        def described(conn: Any) -> str:
            return str(conn.nodeDeviceLookupByName(name).XMLDesc(0))

        try:
            told = self.link.call("read a device of", None, described)
        except VmwardError:
            return ""
        return xml.parse(told).findtext("./capability/class", "")

    def _snapshots(self, ref: VmRef) -> tuple[Snapshot, ...]:
        def listed(domain: Any) -> list[Snapshot]:
            return [xml.snapshot_of(s.getXMLDesc(0), bool(s.isCurrent(0))) for s in domain.listAllSnapshots(0)]

        return tuple(sorted(self.link.domain(ref, "list the snapshots of", listed), key=lambda s: (s.created, s.id)))

    def _with_addresses(self, ref: VmRef, nics: tuple[Nic, ...]) -> tuple[Nic, ...]:
        """IP addresses as the host sees them: DHCP leases and the ARP table. The guest's own word is not asked."""

        def seen(domain: Any) -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for source in (
                libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
                libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP,
            ):
                for interface in addresses_from(domain, source).values():
                    mac = (interface["hwaddr"] or "").lower()
                    found.setdefault(mac, []).extend(a["addr"] for a in interface["addrs"] or [])
            return found

        addresses = self.link.domain(ref, "read the addresses of", seen)
        return tuple(nic_with(nic, addresses.get(nic.mac, [])) for nic in nics)

    def close(self) -> None:
        self.end_calls()
        self.link.close()

    # Power

    @beside("start")
    def submit_start(self, vm: Vm, paused: bool = False) -> Pending:
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        self.link.domain(vm.ref, "start", lambda d: None if d.isActive() else d.createWithFlags(flags))
        return done(vm.ref, "start")

    @beside("pause")
    def submit_pause(self, vm: Vm) -> Pending:
        self.link.domain(vm.ref, "pause", lambda d: d.suspend())
        return done(vm.ref, "pause")

    @beside("resume")
    def submit_resume(self, vm: Vm) -> Pending:
        self.link.domain(vm.ref, "resume", lambda d: d.resume())
        return done(vm.ref, "resume")

    @beside("shut down")
    def submit_shutdown(self, vm: Vm) -> Pending:
        self.link.domain(vm.ref, "shut down", lambda d: d.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN))
        return Pending(vm.ref, "shut down", lambda: not self.link.domain(vm.ref, "read", lambda d: d.isActive()))

    @beside("power off")
    def submit_power_off(self, vm: Vm) -> Pending:
        self.link.domain(vm.ref, "power off", lambda d: d.destroy() if d.isActive() else None)
        return done(vm.ref, "power off")

    # Snapshots

    def why_not_quiesce(self, vm: Vm) -> str:
        root = xml.parse(self.link.domain(vm.ref, "read", lambda d: d.XMLDesc(0)))
        return "" if xml.has_agent(root) else "its guest agent is not connected"

    @beside("take a snapshot")
    def submit_snapshot(self, vm: Vm, name: str, description: str, memory: bool, quiesce: bool = False) -> Pending:
        root = ET.Element("domainsnapshot")
        ET.SubElement(root, "name").text = name
        ET.SubElement(root, "description").text = description
        # Of a running VM's disks: an external overlay, at once. Stopped, or with memory: inside the qcow2 file.
        external = vm.power is not PowerState.STOPPED and not memory
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY if external else 0
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE if external and quiesce else 0
        what = f"take snapshot {name} of"
        if external and vm.power in ON:
            with contextlib.suppress(VmwardError):  # a checkpoint does not hinder it; the next scan tells what stays
                self.submit_remove_checkpoints(vm, self.checkpoints(vm))
        else:
            self.clear_checkpoints(vm)
        self.link.domain(vm.ref, what, lambda d: d.snapshotCreateXML(xml.text_of(root), flags), repeat=False)
        return done(vm.ref, what)

    @beside("remove a snapshot")
    def submit_remove_snapshot(self, vm: Vm, snapshot_id: str) -> Pending:
        what = f"remove snapshot {snapshot_id} of"
        self.link.domain(vm.ref, what, lambda d: d.snapshotLookupByName(snapshot_id, 0).delete(0), repeat=False)
        return done(vm.ref, what)

    def submit_revert(self, vm: Vm, snapshot_id: str, memory: bool) -> Pending:
        """A snapshot with memory comes back paused, lest it run at once, wired as it was; without memory, off.

        It is awaited to its end: a cut has to follow it, and would be undone by one that goes on behind it.
        """

        def revert(domain: Any) -> None:
            snapshot = domain.snapshotLookupByName(snapshot_id, 0)
            holds_memory = any(s.id == snapshot_id and s.memory for s in vm.snapshots)
            domain.revertToSnapshot(snapshot, libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_PAUSED if holds_memory else 0)
            if not memory and domain.isActive():
                domain.destroy()

        self.clear_checkpoints(vm, discard=True)
        self.link.domain(vm.ref, f"revert to {snapshot_id}", revert)
        return done(vm.ref, "revert")


def definitions(domain: Any) -> tuple[Any, list[Side]]:
    """A domain's power (or libvirt's own number, when it is not known) and its definitions."""
    state, all_sides = domain.state()[0], sides(domain)
    if not all_sides:
        raise NotFound(f"The VM {domain.name()} vanished while it was read.")
    power = xml.POWER.get(state, state)
    saved = power is PowerState.STOPPED and any(side.live for side in all_sides)
    return PowerState.SUSPENDED if saved else power, all_sides


def judged(power: Any, both: Sequence[Side]) -> tuple[IsolationNote | None, list[str]]:
    """The undo note, and what of the VM is of a kind never seen."""
    doubts = [] if isinstance(power, PowerState) else [f"libvirt reports the unknown power state {power}"]
    doubts += dict.fromkeys(doubt for side in both for doubt in xml.unknown_kinds(side.root))
    try:
        return xml.note_of(both[0].root), doubts
    except VmwardError as exc:
        return None, [*doubts, str(exc)]


def addresses_from(domain: Any, source: int) -> dict[str, Any]:
    """What one source knows; nothing, where libvirt itself cannot read the kernel's ARP table."""
    try:
        return dict(domain.interfaceAddresses(source, 0))
    except libvirt.libvirtError as exc:
        if any(words in str(exc) for words in UNREAD_ARP_TABLE):
            return {}
        raise


def nic_with(nic: Nic, addresses: Sequence[str]) -> Nic:
    return replace(nic, addresses=tuple(sorted(set(addresses))))
