# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge of vSphere: what a PropertyCollector read gives becomes the model. Pure.

Sources: U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.device.VirtualEthernetCard.html),
U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.FileLayoutEx.html).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .._errors import NeverRuns, Unjudged, Unsupported
from .._hypervisor import Detail
from .._model import Disk, Isolation, IsolationNote, Layer, Nic, PowerState, Snapshot, Vm, VmRef, Wiring
from . import note as notes
from .connection import vim

Props = Mapping[str, Any]  # property path -> value; what is unset on the server is missing
Backing = Mapping[str, str]  # a NIC's network, in a form that stays equal over power cycles and moves

# A suspended VM's CPUs stand still and its memory is kept, so it is what the contract calls paused.
POWER = {"poweredOn": PowerState.RUNNING, "poweredOff": PowerState.STOPPED, "suspended": PowerState.PAUSED}
DEEPEST = 64  # folders above a VM
SCSI, OTHER_BUSES = "scsi", {"VirtualIDEController": "ide", "VirtualNVMEController": "nvme"}
# Families of USB devices that may carry a network. What a device does not say may be anything.
USB_MAY_TALK = {"communication", "wireless", "bluetooth", "wusb", "vendor_specific", "other", "unknownFamily"}


@dataclass(frozen=True)
class Networks:
    """What is known of the endpoint's networks."""

    names: Mapping[str, str]  # distributed port group key -> name
    isolation: Backing | None = None  # of the isolation port group
    every: tuple[str, ...] = ()  # names of all networks
    opaque: frozenset[str] = frozenset()  # those of NSX, which are no port groups


def vm_of(ref: VmRef, props: Props, detail: frozenset[Detail], networks: Networks, fields: Mapping[int, str]) -> Vm:
    """One VM; raises ``Unsupported`` when it cannot be judged: ``Unjudged`` where it can still be cut off."""
    require_readable(ref, props)
    doubts: list[str] = []
    vm = known_of(ref, props, detail, networks, fields, doubts)
    if doubts:
        raise Unjudged(" ".join(doubts), vm)
    return vm


def known_of(
    ref: VmRef,
    props: Props,
    detail: frozenset[Detail],
    networks: Networks,
    fields: Mapping[int, str],
    doubts: list[str],
) -> Vm:
    """What is known of a VM. A power state or a note that cannot be judged is added to the doubts."""
    power, note = PowerState.RUNNING, None
    try:
        power = power_of(ref, props.get("runtime.powerState"))
    except Unsupported as exc:
        doubts.append(str(exc))
    try:
        note = note_of(props, fields, power)
    except Unsupported as exc:
        doubts.append(str(exc))
    seen = {card.macAddress.lower(): tuple(card.ipAddress) for card in props.get("guest.net", ()) if card.macAddress}
    devices = sorted(props["config.hardware.device"], key=lambda device: device.key)
    return Vm(
        ref,
        power,
        tuple(
            nic_of(ref, nic_id, device, power, note, networks, seen if Detail.ADDRESSES in detail else {})
            for nic_id, device in cards_of(devices)
        ),
        int(props.get("config.hardware.memoryMB", 0)) * 1024 * 1024,
        True,
        disks=disks_of(devices, props) if Detail.DISKS in detail else (),
        snapshots=snapshots_of(props) if Detail.SNAPSHOTS in detail else (),
        note=note,
    )


def require_readable(ref: VmRef, props: Props) -> None:
    state = props.get("runtime.connectionState", "connected")
    if props.get("config.template"):
        raise NeverRuns(
            f"Cannot use {ref.name} ({ref.id}) on {ref.hypervisor}: it is a template, which never runs. "
            "Name a VM that was made from it."
        )
    if state != "connected" or "config.hardware.device" not in props:
        raise Unsupported(
            f"Cannot judge {ref.name} ({ref.id}) on {ref.hypervisor}: vSphere calls it {state}, and its configuration "
            "cannot be trusted. Bring its host or its datastore back; until then cut it at the switch."
        )


def power_of(ref: VmRef, raw: Any) -> PowerState:
    if raw not in POWER:
        raise Unsupported(f"Cannot judge {ref.name}: vSphere reports the unknown power state {raw!r}.")
    return POWER[raw]


def path_of(props: Props, folders: Mapping[str, Props]) -> str:
    """Where a VM lies in the inventory, as vSphere writes it: /DC0/vm/desktops/desk1. One in a vApp has no folder."""
    names = [str(props.get("name", ""))]
    above = props.get("parent") or props.get("parentVApp")
    while above is not None and above._moId in folders and len(names) < DEEPEST:
        place = folders[above._moId]
        names.append(str(place.get("name", "")))
        above = place.get("parentFolder") or place.get("parent")
    return "/" + "/".join(reversed(names))


# NICs


def is_card(device: Any) -> bool:
    """Whether packets may pass this device: Ethernet cards, and passed-through devices that may be one."""
    if isinstance(device, vim.vm.device.VirtualPCIPassthrough):
        return not isinstance(device.backing, vim.vm.device.VirtualPCIPassthrough.VmiopBackingInfo)  # a graphics card
    if isinstance(device, vim.vm.device.VirtualUSB):
        return not device.family or bool(USB_MAY_TALK & set(device.family))
    return isinstance(device, vim.vm.device.VirtualEthernetCard)


def is_cuttable(device: Any) -> bool:
    """Whether vSphere can take the cable out of a running VM's card: not where the guest drives the hardware."""
    return isinstance(device, vim.vm.device.VirtualEthernetCard) and not isinstance(
        device, vim.vm.device.VirtualSriovEthernetCard
    )


def cards_of(devices: Sequence[Any]) -> list[tuple[str, Any]]:
    """Each card with its id: its MAC; where an earlier card has that too, or it has none, its key besides."""
    found: dict[str, Any] = {}
    for device in sorted(filter(is_card, devices), key=lambda device: int(device.key)):
        mac = mac_of(device)
        found[mac if mac and mac not in found else f"{mac or 'device'}-{device.key}"] = device
    return list(found.items())


def mac_of(device: Any) -> str:
    return str(getattr(device, "macAddress", None) or "").lower()


def kind_of(device: Any) -> str:
    """The vendor's word, without its prefixes: vmxnet3, e1000, sriovethernetcard, pcipassthrough, usb."""
    return type(device).__name__.rpartition(".")[2].replace("Virtual", "", 1).lower()


def nic_of(
    ref: VmRef,
    nic_id: str,
    device: Any,
    power: PowerState,
    note: IsolationNote | None,
    networks: Networks,
    seen: Mapping[str, tuple[str, ...]],
) -> Nic:
    able = is_cuttable(device)
    config = wiring_of(ref, device, live=False)
    # What vSphere says of a suspended VM's cable is valid only while the VM runs.
    live = wiring_of(ref, device, live=True) if power is PowerState.RUNNING else None
    sides = [side for side in (config, live) if side]
    mode = min((isolation_of(side, note, networks) for side in sides), key=ORDER.index) if able else Isolation.FREE
    cut_by = ("filter", "link") if networks.isolation else ("link",)
    return Nic(
        id=nic_id,
        mac=mac_of(device),
        kind=kind_of(device),
        network=network_name(config["backing"], networks),
        device="",
        link_up=bool((live or config)["up"]),
        isolation=mode,
        cut_by=cut_by if able else (),
        wiring=Wiring(as_text(config), as_text(live) if live else ""),
        addresses=seen.get(mac_of(device), ()),
    )


ORDER = (Isolation.FREE, Isolation.FORENSIC, Isolation.SEALED)


def wiring_of(ref: VmRef, device: Any, live: bool) -> dict[str, Any]:
    """A card's wiring now or at the next start, in one form, so that one can become the other."""
    link = device.connectable
    return {
        "backing": dict(backing_of(ref, device)),
        "up": bool(link is None or (link.connected if live else link.startConnected)),
        "guest": bool(link is None or link.allowGuestControl),
    }


def as_text(side: Mapping[str, Any]) -> str:
    return json.dumps(side, sort_keys=True)


def isolation_of(side: Mapping[str, Any], note: IsolationNote | None, networks: Networks) -> Isolation:
    """A card that is down without a note was down before us."""
    if note is None:
        return Isolation.FREE
    found = [Isolation.SEALED] if not side["up"] and not side["guest"] else []
    found += [Isolation.FORENSIC] if side["backing"] == networks.isolation else []
    return note.mode if note.mode in found else (*found, Isolation.FREE)[0]


def backing_of(ref: VmRef, device: Any) -> Backing:
    """Where a card is plugged in. The port's number is left out: vCenter gives a new one with each move."""
    card, backing = vim.vm.device.VirtualEthernetCard, device.backing
    if not isinstance(device, card):
        return {"passthrough": kind_of(device)}
    if isinstance(backing, card.DistributedVirtualPortBackingInfo):
        return {"portgroup": backing.port.portgroupKey or "", "switch": backing.port.switchUuid}
    if isinstance(backing, card.OpaqueNetworkBackingInfo):
        return {"opaque": backing.opaqueNetworkId, "type": backing.opaqueNetworkType}
    if isinstance(backing, card.NetworkBackingInfo):
        return {"standard": backing.deviceName}
    raise Unsupported(
        f"Cannot judge {ref.name}: its network card {mac_of(device)} is plugged into a network of the unknown kind "
        f"{type(backing).__name__}. Isolate it by hand."
    )


def network_name(backing: Backing, networks: Networks) -> str:
    if "portgroup" in backing:
        return networks.names.get(backing["portgroup"], backing["portgroup"])
    return backing.get("standard") or backing.get("opaque") or ""


def backing_object(backing: Backing) -> Any:
    """The vendor's form of a backing, to plug a card into it."""
    card = vim.vm.device.VirtualEthernetCard
    if "portgroup" in backing:
        port = vim.dvs.PortConnection(portgroupKey=backing["portgroup"] or None, switchUuid=backing["switch"])
        return card.DistributedVirtualPortBackingInfo(port=port)
    if "opaque" in backing:
        return card.OpaqueNetworkBackingInfo(opaqueNetworkId=backing["opaque"], opaqueNetworkType=backing["type"])
    return card.NetworkBackingInfo(deviceName=backing["standard"])


# Disks


def disks_of(devices: Sequence[Any], props: Props) -> tuple[Disk, ...]:
    sizes = {file.name: file.size for file in props.get("layoutEx.file", ())}
    extents = extents_of(props)
    controllers = {device.key: device for device in devices}
    found = []
    for device in devices:
        if not isinstance(device, vim.vm.device.VirtualDisk):
            continue
        layers = layers_of(device.backing)
        size = int(device.capacityInBytes or device.capacityInKB * 1024)
        allocated = sum(sizes.get(name, 0) for name in extents.get(device.key, ())) or size
        bus = bus_of(controllers.get(device.controllerKey))
        found.append(Disk(disk_id(device), bus, size, allocated, False, layers))
    return tuple(found)


def disk_id(device: Any) -> str:
    return f"disk-{device.key}"


def layers_of(backing: Any) -> tuple[Layer, ...]:
    """The chain as vSphere states it: the active layer first, its parents after it."""
    layers = []
    while backing is not None:
        layers.append(Layer(getattr(backing, "fileName", ""), "vmdk"))
        backing = getattr(backing, "parent", None)
    return tuple(layers)


def extents_of(props: Props) -> dict[int, tuple[str, ...]]:
    """The files of each disk's active layer, by the disk's key."""
    names = {file.key: file.name for file in props.get("layoutEx.file", ())}
    return {
        disk.key: tuple(names[key] for key in disk.chain[-1].fileKey if key in names)
        for disk in props.get("layoutEx.disk", ())
        if disk.chain
    }


def bus_of(controller: Any) -> str:
    kind = type(controller).__name__.rpartition(".")[2]
    if isinstance(controller, vim.vm.device.VirtualSATAController):
        return "sata"
    return OTHER_BUSES.get(kind, SCSI)


# Snapshots


def snapshots_of(props: Props) -> tuple[Snapshot, ...]:
    """The tree, flat, parents before children. A snapshot's managed object id names it for ever."""
    info, layout = props.get("snapshot"), props.get("layoutEx.snapshot", ())
    if info is None:
        return ()
    memory = {one.key._moId for one in layout if one.memoryKey not in (None, -1)}
    current = info.currentSnapshot._moId if info.currentSnapshot else ""
    flat: list[Snapshot] = []

    def walk(nodes: Sequence[Any], parent: str) -> None:
        for node in nodes:
            moid = node.snapshot._moId
            power = POWER[node.state] if moid in memory else PowerState.STOPPED
            created = utc(node.createTime)
            flat.append(
                Snapshot(
                    moid,
                    unquoted(node.name),
                    parent,
                    created,
                    moid in memory,
                    "internal",  # one call brings them all back: the VM's disks and its snapshots are one thing
                    moid == current,
                    node.description or "",
                    power,
                )
            )
            walk(node.childSnapshotList or (), moid)

    walk(info.rootSnapshotList or (), "")
    return tuple(flat)


def unquoted(name: str) -> str:
    """vSphere keeps these three characters of a name escaped, and no other."""
    return re.sub("%(25|2f|5c)", lambda hit: chr(int(hit.group(1), 16)), name, flags=re.IGNORECASE)


def quoted(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


def utc(when: Any) -> str:
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(when, datetime) else ""


# The undo note


def note_of(props: Props, fields: Mapping[int, str], power: PowerState) -> IsolationNote | None:
    text = note_text(props, fields)
    return notes.parse(text, boot_of(props) if power is not PowerState.STOPPED else "") if text else None


def is_of_vms(attribute: Any) -> bool:
    """Another kind of object may have a custom attribute of the same name."""
    kind = attribute.managedObjectType
    return kind is None or issubclass(vim.VirtualMachine, kind)


def note_text(props: Props, fields: Mapping[int, str]) -> str:
    """The note on the VM: in a custom attribute, or on a stand-alone host in its extra configuration."""
    found = [str(v.value) for v in props.get("customValue", ()) if fields.get(v.key) == notes.KEY and v.value]
    found += [str(o.value) for o in props.get("config.extraConfig", ()) if o.key == notes.KEY and o.value]
    return found[0] if found else ""


def noted_at_host(props: Props) -> bool:
    """Whether a note lies in the extra configuration, as it does when the VM was cut at its host itself."""
    return any(option.key == notes.KEY and option.value for option in props.get("config.extraConfig", ()))


def boot_of(props: Props) -> str:
    """When the VM was last started cold: a suspend and a guest's own restart leave it as it is."""
    when = props.get("summary.runtime.bootTime") or props.get("runtime.bootTime")
    return when.astimezone(timezone.utc).isoformat() if isinstance(when, datetime) else notes.UNKNOWN
