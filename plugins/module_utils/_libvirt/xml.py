# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's XML, read and edited as trees. Pure: no connection, no I/O.

Sources: U(https://libvirt.org/formatdomain.html#network-interfaces), U(https://libvirt.org/formatsnapshot.html).
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Callable

from .._errors import Refused, TaskFailed, Unsupported
from .._model import Collector, Isolation, IsolationNote, Nic, PowerState, Snapshot, Wiring, printable
from .._passthrough import UNKNOWN, has_own_nic, pci_kind
from .filters import SEALED, forensic, is_forensic

NOTE_URI = "https://vmward.github.io/xmlns/isolation/1"
QEMU_URI = "http://libvirt.org/schemas/domain/qemu/1.0"
UNREAD_URI = "https://vmward.github.io/xmlns/unread/1"  # a note that could not be read, kept
SESSION_URI = "https://vmward.github.io/xmlns/session/1"  # live only, so that it vanishes at a cold start

# What can cut each kind of interface from outside. A kind not listed here counts as cut by nothing, never by a guess.
CUT_BY: dict[str, tuple[str, ...]] = {
    "network": ("filter", "link"),
    "bridge": ("filter", "link"),
    "ethernet": ("filter", "link"),
    "direct": ("link",),
    "user": ("link",),
    "vhostuser": ("link",),
    "udp": ("link",),
    "server": ("link",),
    "client": ("link",),
    "mcast": ("link",),
    "internal": ("link",),
    "null": ("link",),
    "hostdev": (),
    "vdpa": (),
}
ONLY_CUT = "Nothing but a cut (vm_isolation) is done to it. Please report an unknown type or state."
POWER: dict[int, PowerState] = {  # virDomainState
    1: PowerState.RUNNING,
    2: PowerState.RUNNING,  # blocked on a resource
    3: PowerState.PAUSED,
    4: PowerState.RUNNING,  # being shut down: still on
    5: PowerState.STOPPED,
    6: PowerState.STOPPED,  # crashed
    7: PowerState.PAUSED,  # the guest sleeps (ACPI S3): its memory is there, its CPUs stand
}
SNAPSHOT_POWER = {
    "running": PowerState.RUNNING,
    "blocked": PowerState.RUNNING,
    "paused": PowerState.PAUSED,
    "shutdown": PowerState.STOPPED,
    "shutoff": PowerState.STOPPED,
    "crashed": PowerState.STOPPED,
    "pmsuspended": PowerState.PAUSED,
    "disk-snapshot": PowerState.RUNNING,
}

PciClass = Callable[[str], str]  # class code of the host's PCI device of this name, such as 0x020000; empty: unknown

FilterIsOurs = Callable[[str], bool]  # is the filter of this name defined on the host exactly as we define it?


def parse(text: str) -> ET.Element:
    """Parse XML from libvirt. Names inside may come from a hostile guest: a document type is refused."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise TaskFailed("libvirt sent XML with a document type. It was not read; check the hypervisor.")
    try:
        return ET.fromstring(text)
    except ET.ParseError as exc:
        raise TaskFailed(f"libvirt sent XML that cannot be read ({exc}).") from exc


def text_of(element: ET.Element) -> str:
    return ET.tostring(element, encoding="unicode")


def interfaces(domain: ET.Element) -> Iterator[tuple[str, ET.Element]]:
    """Each interface with its id: the MAC, numbered when a VM has the same MAC twice."""
    seen: dict[str, int] = {}
    for interface in domain.findall("./devices/interface"):
        mac_element = interface.find("mac")
        mac = (mac_element.get("address", "") if mac_element is not None else "").lower()
        seen[mac] = seen.get(mac, 0) + 1
        yield (mac if seen[mac] == 1 else "%s#%d" % (mac, seen[mac])), interface


def cut_by(interface: ET.Element) -> tuple[str, ...]:
    return CUT_BY.get(interface.get("type", ""), ())


def unknown_kinds(domain: ET.Element) -> list[str]:
    """Why an interface cannot be judged, for each of a type never seen."""
    return [
        f"the type '{printable(interface.get('type', ''), 40)}' of NIC {printable(nic_id, 40)} is unknown"
        for nic_id, interface in interfaces(domain)
        if interface.get("type", "") not in CUT_BY
    ]


def link_up(interface: ET.Element) -> bool:
    link = interface.find("link")
    return link is None or link.get("state", "up") == "up"


def filter_name(interface: ET.Element) -> str:
    reference = interface.find("filterref")
    return reference.get("filter", "") if reference is not None else ""


def isolation_of(interface: ET.Element, ours: FilterIsOurs) -> Isolation:
    """What this one definition of an interface amounts to."""
    name = filter_name(interface)
    able = cut_by(interface)
    if "filter" not in able:
        return Isolation.FREE if link_up(interface) or not able else Isolation.SEALED
    if name == SEALED and ours(name) and not link_up(interface):
        return Isolation.SEALED
    return Isolation.FORENSIC if is_forensic(name) and ours(name) else Isolation.FREE


def wiring_of(interface: ET.Element | None) -> str:
    """The two things that isolation edits, as canonical text: the filter reference and the link state."""
    if interface is None:
        return ""
    reference, link = interface.find("filterref"), interface.find("link")
    kept = {
        "filterref": ET.canonicalize(text_of(reference), strip_text=True) if reference is not None else None,
        "link": link.get("state") if link is not None else None,
    }
    return json.dumps(kept, sort_keys=True)


def nics(
    live: ET.Element | None, config: ET.Element | None, ours: FilterIsOurs, pci_class: PciClass
) -> tuple[Nic, ...]:
    """The VM's NICs. Running and persistent definition are judged both, and the weaker counts."""
    now = dict(interfaces(live)) if live is not None else {}
    later = dict(interfaces(config)) if config is not None else {}
    order = (Isolation.FREE, Isolation.FORENSIC, Isolation.SEALED)
    found: list[Nic] = []
    for nic_id in list(now) + [nic_id for nic_id in later if nic_id not in now]:
        both = [element for element in (now.get(nic_id), later.get(nic_id)) if element is not None]
        first, source, target = both[0], both[0].find("source"), both[0].find("target")
        source_name = (
            [source.get(key) for key in ("network", "bridge", "dev") if source.get(key)] if source is not None else []
        )
        found.append(
            Nic(
                id=nic_id,
                mac=nic_id.partition("#")[0],
                kind=printable(first.get("type", ""), 40),
                network=str(source_name[0]) if source_name else "",
                device=target.get("dev", "") if nic_id in now and target is not None else "",
                link_up=link_up(first),
                isolation=min((isolation_of(element, ours) for element in both), key=order.index),
                cut_by=cut_by(first),
                wiring=Wiring(wiring_of(later.get(nic_id)), wiring_of(now.get(nic_id))),
            )
        )
    return tuple(found) + strangers(live if live is not None else config, pci_class)


def strangers(domain: ET.Element | None, pci_class: PciClass) -> tuple[Nic, ...]:
    """Devices that may carry frames but are no interfaces: passed-through PCI and USB devices, raw QEMU arguments."""
    if domain is None:
        return ()
    named = []
    for number, device in enumerate(domain.findall("./devices/hostdev")):
        code = pci_class(pci_name(device))
        kind = pci_kind(code) if code else UNKNOWN.replace("device", f"{device.get('type', '') or 'subsystem'} device")
        if kind:
            named.append((f"hostdev{number}", kind))
    arguments = [
        argument.get("value", "") for argument in domain.findall(f"./{{{QEMU_URI}}}commandline/{{{QEMU_URI}}}arg")
    ]
    if has_own_nic(arguments):
        named.append(("qemu-commandline", "network card in QEMU's own arguments"))
    free, none = Isolation.FREE, Wiring("", "")
    return tuple(Nic(name, "", kind, "", "", True, free, (), none) for name, kind in named)


def pci_name(hostdev: ET.Element) -> str:
    """What libvirt calls this device of the host; empty for one that is not on the PCI bus by address."""
    address = hostdev.find("./source/address") if hostdev.get("type") == "pci" else None
    if address is None:
        return ""
    numbers = [int(address.get(part, "0"), 16) for part in ("domain", "bus", "slot", "function")]
    return "pci_{:04x}_{:02x}_{:02x}_{:x}".format(*numbers)


def rewire(interface: ET.Element, filterref: ET.Element | None, link: str | None) -> ET.Element:
    """Edit one interface: its filter reference and its link state, nothing else."""
    for tag in ("filterref", "link"):
        for old in interface.findall(tag):
            interface.remove(old)
    if filterref is not None:
        interface.append(filterref)
    if link is not None:
        ET.SubElement(interface, "link", {"state": link})
    return interface


def restore(interface: ET.Element, wiring: str) -> ET.Element:
    """Give an interface back what ``wiring_of`` had kept."""
    kept = json.loads(wiring)
    return rewire(interface, parse(kept["filterref"]) if kept["filterref"] else None, kept["link"])


def was_down(wiring: str) -> bool:
    return bool(wiring) and json.loads(wiring)["link"] == "down"


def note_xml(note: IsolationNote) -> str:
    """The undo note as a metadata element; its content is JSON."""
    kept = asdict(note)
    kept.pop("sessions")
    kept.update(mode=note.mode.value, wiring={nic: asdict(wiring) for nic, wiring in note.wiring})
    element = ET.Element("isolation")
    element.text = json.dumps(kept, sort_keys=True)
    return text_of(element)


def note_of(domain: ET.Element) -> IsolationNote | None:
    """The undo note that lies on a VM, or None. ``sessions`` is known from a mark that a cold start removes."""
    element = domain.find(f"./metadata/{{{NOTE_URI}}}isolation")
    if element is None:
        return None
    try:
        kept = json.loads(element.text or "")
        wiring = tuple(sorted((nic, restorable(**parts)) for nic, parts in kept["wiring"].items()))
        collectors = tuple(Collector(**collector) for collector in kept["collectors"])
        forensic(collectors)
        return IsolationNote(
            str(kept["case"]),
            Isolation(kept["mode"]),
            str(kept["since"]),
            wiring,
            collectors,
            sessions=domain.find(f"./metadata/{{{SESSION_URI}}}session") is not None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, TaskFailed, Refused) as exc:
        told = printable(f"{type(exc).__name__}: {exc}", 120)
        raise TaskFailed(
            f"its undo note cannot be read ({told}; it says '{printable(element.text or '', 300)}'); the ledger's undo "
            f"entry of its case holds a copy, and a cut keeps it on the VM (virsh metadata VM --uri {UNREAD_URI})"
        ) from exc


def unread(domain: ET.Element) -> str | None:
    """The undo note that lies on a VM but cannot be read, as an element that holds all of it as text; else None."""
    try:
        note_of(domain)
    except TaskFailed:
        kept = ET.Element("unread")
        kept.text = "".join(text_of(note) for note in domain.iterfind(f"./metadata/{{{NOTE_URI}}}isolation"))
        return text_of(kept)
    return None


def restorable(config: str, live: str) -> Wiring:
    """The wiring of a note; raises where nothing could be restored from it."""
    for side in filter(None, (config, live)):
        text_of(restore(ET.Element("interface"), side))
    return Wiring(config, live)


def set_metadata(domain: ET.Element, uri: str, text: str | None) -> None:
    """Set the one metadata element of a namespace in a definition, or with None remove it."""
    metadata = domain.find("metadata")
    metadata = ET.SubElement(domain, "metadata") if metadata is None else metadata
    for old in [child for child in metadata if child.tag.startswith(f"{{{uri}}}")]:
        metadata.remove(old)
    if text is not None:
        new = parse(text)
        new.tag = f"{{{uri}}}{new.tag}"
        metadata.append(new)


def is_of(note: IsolationNote | None, name: str) -> bool:
    """Does this filter of ours pass the collectors that the note names, and no others?"""
    return note is None or not is_forensic(name) or (bool(note.collectors) and name == forensic(note.collectors)[0])


def snapshot_of(text: str, current: bool) -> Snapshot:
    """One snapshot from its XML. On libvirt names are unique within a VM, so the name is the id."""
    root = parse(text)
    state = root.findtext("state", "")
    if state not in SNAPSHOT_POWER:
        raise Unsupported(f"Cannot judge a snapshot in the unknown state '{printable(state)}'.")
    kinds = {disk.get("snapshot", "") for disk in root.findall("./disks/disk")} - {"no"}
    memory = root.find("memory")
    name, made = root.findtext("name", ""), root.findtext("creationTime", "")
    return Snapshot(
        id=name,
        name=name,
        parent=root.findtext("./parent/name", ""),
        created=datetime.fromtimestamp(int(made), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") if made else "",
        memory=memory is not None and memory.get("snapshot") not in (None, "no"),
        disks="external"
        if "external" in kinds or state == "disk-snapshot"
        else "internal"
        if "internal" in kinds
        else "none",
        current=current,
        description=root.findtext("description", ""),
        power=SNAPSHOT_POWER[state],
    )


def has_agent(root: ET.Element) -> bool:
    """Whether a running VM's guest agent is connected, as libvirt sees it."""
    targets = root.findall("./devices/channel/target[@name='org.qemu.guest_agent.0']")
    return any(target.get("state") == "connected" for target in targets)
