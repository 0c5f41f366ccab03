# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Isolation on libvirt: our filter on every tap, and the link down for ``sealed``; live and persistent.

Sources: U(https://libvirt.org/firewall.html), U(https://libvirt.org/formatnwfilter.html),
U(https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainUpdateDeviceFlags).
"""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from functools import partial
from typing import Any, Callable, Optional

from .._errors import NotVerified, VmwardError
from .._hypervisor import Pending, done
from .._model import Collector, Isolation, IsolationNote, Vm
from . import filters, xml
from .beside import Beside, beside
from .connection import Connection, alive, libvirt

Edit = Callable[
    [str, ET.Element, bool], Optional[ET.Element]
]  # (NIC id, interface, live?) -> edited, or None to leave it


class WiringVerbs(Beside):
    """The Network part of the contract."""

    link: Connection

    def has_filters(self) -> bool:
        """Does this libvirt have the network filter driver?"""
        try:
            self.link.call("count the network filters", None, lambda conn: conn.numOfNWFilters())
        except VmwardError:
            return False
        return True

    def filter_is_ours(self, name: str, known: dict[str, bool]) -> bool:
        """Is the filter defined on the host exactly as we define it? Asked once per name and read."""
        if name not in known:
            try:
                known[name] = filters.is_ours(name, self.link.call("read a filter", None, partial(filter_xml, name)))
            except VmwardError:
                known[name] = False
        return known[name]

    @beside("write the undo note")
    def submit_note(self, vm: Vm, note: IsolationNote | None) -> Pending:
        def write(domain: Any) -> None:
            text = xml.note_xml(note) if note else None
            for side in sides(domain):
                lost = xml.unread(side.root)
                if lost:
                    side.mark("vmward-unread", xml.UNREAD_URI, lost)
                side.mark("vmward", xml.NOTE_URI, text)
                if side.live and (note is None or note.sessions):
                    side.mark("vmward-session", xml.SESSION_URI, "<session/>" if note else None)

        self.link.domain(vm.ref, "write the undo note on", write)
        return done(vm.ref, "write the undo note")

    @beside("isolate")
    def submit_isolate(self, vm: Vm, mode: Isolation, collectors: Sequence[Collector]) -> Pending:
        name, refused = "", None
        try:
            name = self._define(mode, collectors) if self.has_filters() else ""
        except VmwardError as exc:
            if mode is not Isolation.SEALED:
                raise
            refused = exc  # the links can still be cut
        wirings = dict(vm.note.wiring) if vm.note else {nic.id: nic.wiring for nic in vm.nics}

        def cut(nic_id: str, interface: ET.Element, live: bool) -> ET.Element | None:
            able = xml.cut_by(interface)
            if not able and interface.get("type") in xml.CUT_BY:
                return None  # of a type never seen, the link is tried
            reference = ET.Element("filterref", {"filter": name}) if name and "filter" in able else None
            noted = wirings.get(nic_id)
            stays_down = noted is not None and xml.was_down(noted.live if live and noted.live else noted.config)
            down = mode is Isolation.SEALED or reference is None or stays_down
            return xml.rewire(interface, reference, "down" if down else "up")

        self._edit(vm, "isolate", cut)
        if refused:
            raise NotVerified(
                f"The links of {vm.ref.name} are down, but its filter could not be set: {refused}"
            ) from refused
        return done(vm.ref, "isolate")

    @beside("reconnect")
    def submit_reconnect(self, vm: Vm, note: IsolationNote) -> Pending:
        wirings = dict(note.wiring)

        def reconnect(nic_id: str, interface: ET.Element, live: bool) -> ET.Element | None:
            if nic_id not in wirings:
                return None
            noted = wirings[nic_id]
            kept = (noted.live or noted.config) if live else noted.config
            return xml.restore(interface, kept) if kept else None

        self._edit(vm, "reconnect", reconnect)
        return done(vm.ref, "reconnect")

    def _define(self, mode: Isolation, collectors: Sequence[Collector]) -> str:
        """Define our filter where it is missing or was changed; libvirt applies a new definition to running VMs."""
        name, text = filters.sealed() if mode is Isolation.SEALED else filters.forensic(collectors)

        def define(conn: Any) -> None:
            # A filter is replaced under its own id only; a new one's is fixed, so that two responders may define it.
            known = [found.UUIDString() for found in conn.listAllNWFilters(0) if found.name() == name]
            root = xml.parse(text)
            ET.SubElement(root, "uuid").text = known[0] if known else str(uuid.uuid5(uuid.NAMESPACE_URL, name))
            conn.nwfilterDefineXML(xml.text_of(root))

        if not self.filter_is_ours(name, {}):
            self.link.call(f"define the filter {name}", None, define)
        return name

    def _edit(self, vm: Vm, what: str, edit: Edit) -> None:
        """Edit every NIC, running and persistent. One that fails never keeps the others from being done."""
        failed: list[str] = []

        def apply(domain: Any) -> None:
            failed.clear()
            for side in sides(domain):
                for nic_id, interface in xml.interfaces(side.root):
                    before = xml.wiring_of(interface)
                    edited = edit(nic_id, interface, side.live)
                    if edited is None or xml.wiring_of(edited) == before:
                        continue
                    problem = side.update(interface, edited)
                    if problem and what == "isolate":  # the filter was refused: take at least the link away
                        side.update(interface, xml.rewire(edited, None, "down"))
                    if problem:
                        failed.append(f"NIC {nic_id}, {side.name}: {problem}")

        self.link.domain(vm.ref, what, apply)
        if failed:
            raise NotVerified(
                "Cannot {} {} ({}) wholly: {}. Every other NIC was done. Look at its NICs with vm_info, and cut "
                "what is left at the switch.".format(what, vm.ref.name, vm.ref.id, "; ".join(failed))
            )


def filter_xml(name: str, conn: Any) -> str:
    return str(conn.nwfilterLookupByName(name).XMLDesc(0))


class Side:
    """One of the definitions that a domain has: the running or the persistent one."""

    def __init__(self, domain: Any, flag: int, text: str) -> None:
        self.domain, self.flag, self.root = domain, flag, xml.parse(text)
        self.live = flag == libvirt.VIR_DOMAIN_AFFECT_LIVE
        self.name = "running" if self.live else "persistent"

    def mark(self, prefix: str, uri: str, text: str | None) -> None:
        """Set our metadata element, or with None remove it."""
        self.domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, prefix, uri, self.flag)

    def update(self, _interface: ET.Element, edited: ET.Element) -> str:
        """Update one interface; answers why not, or an empty string."""
        try:
            self.domain.updateDeviceFlags(xml.text_of(edited), self.flag)
        except libvirt.libvirtError as exc:
            return self._why_not(exc)
        return ""

    def _why_not(self, exc: Any) -> str:
        """Where the connection is lost nothing was refused: then the whole is made again, by the next one."""
        if not alive(self.domain.connect()):
            raise exc
        return str(exc.get_error_message())


class SavedSide(Side):
    """The definition that is saved with a suspended VM's memory, and runs again with it (managed save)."""

    def __init__(self, domain: Any) -> None:
        text = domain.managedSaveGetXMLDesc(libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
        super().__init__(domain, libvirt.VIR_DOMAIN_AFFECT_LIVE, text)
        self.name = "saved"

    def mark(self, prefix: str, uri: str, text: str | None) -> None:
        xml.set_metadata(self.root, uri, text)
        self._write()

    def update(self, interface: ET.Element, edited: ET.Element) -> str:
        interface[:] = list(edited)
        try:
            self._write()
        except libvirt.libvirtError as exc:
            return self._why_not(exc)
        return ""

    def _write(self) -> None:
        self.domain.managedSaveDefineXML(xml.text_of(self.root), 0)


def sides(domain: Any) -> list[Side]:
    """The definitions that a domain has, the one that runs (or runs again) first."""
    both: list[Side] = []
    if domain.isActive():
        both.append(Side(domain, libvirt.VIR_DOMAIN_AFFECT_LIVE, domain.XMLDesc(0)))
    elif domain.hasManagedSaveImage(0):
        both.append(SavedSide(domain))
    if domain.isPersistent():
        inactive = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        both.append(Side(domain, libvirt.VIR_DOMAIN_AFFECT_CONFIG, inactive))
    return both
