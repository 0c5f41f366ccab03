# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge of Proxmox VE: its configuration strings and lists become the model, and back. Pure.

Sources: U(https://pve.proxmox.com/pve-docs/qm.conf.5.html), U(https://pve.proxmox.com/pve-docs/api-viewer/).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from .._errors import Unsupported
from .._model import Isolation, IsolationNote, Nic, PowerState, Snapshot, Vm, VmRef, Wiring, printable
from .._passthrough import UNKNOWN, has_own_nic, pci_kind
from . import note as notes

Data = dict[str, Any]

NET = re.compile(r"net\d+$")
PASSED = re.compile(r"(hostpci|usb)\d+$")
ORDER = (Isolation.FREE, Isolation.FORENSIC, Isolation.SEALED)
FREEZE = ("freeze-fs", "guest-fsfreeze", "freeze-fs-on-backup")  # one option, and its names of other versions
MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
IDENTITY = ("smbios1", "meta")  # of a VM's configuration: what another VM of the same id has otherwise
# USB device classes that are no network card (U(https://www.usb.org/defined-class-codes)); any other may be one.
NO_NIC_CLASSES = (1, 3, 6, 7, 8, 9, 11, 13, 14, 16)

# QEMU's run states. In all but `running` the CPUs stand still and the memory stays.
POWER = {
    "running": PowerState.RUNNING,
    "stopped": PowerState.STOPPED,
    **dict.fromkeys(
        ("paused", "prelaunch", "save-vm", "io-error", "watchdog", "guest-panicked", "internal-error", "finish-migrate",
         "postmigrate", "inmigrate", "restore-vm", "suspended", "shutdown", "debug"),
        PowerState.PAUSED,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """One VM as the API told it at one moment, before it becomes a ``Vm``."""

    node: str
    status: Data
    rows: Sequence[Data]  # of /pending
    firewall: Data  # the VM's firewall options
    comment: str | None  # of the IP set that carries the undo note
    hardware: Mapping[str, str] = field(default_factory=dict)  # passed-through device: what it is, "" if no NIC

    @property
    def digest(self) -> str:
        return str(next((row["value"] for row in self.rows if row["key"] == "digest"), ""))

    @property
    def running(self) -> bool:
        return self.status.get("status") == "running"

    @property
    def mark(self) -> str:
        """What a cold start changes: the QEMU process and its node."""
        return f"{self.node}:{self.status.get('pid', '')}" if self.running else ""

    def live(self, key: str) -> str:
        """The running value; empty while stopped."""
        return str(next((row.get("value", "") for row in self.rows if row["key"] == key), "")) if self.running else ""

    def config(self, key: str) -> str:
        """The value of the next start; empty when it will be gone."""
        for row in self.rows:
            if row["key"] == key:
                return "" if row.get("delete") else str(row.get("pending", row.get("value", "")))
        return ""

    def keys(self, pattern: re.Pattern[str]) -> list[str]:
        return sorted((row["key"] for row in self.rows if pattern.match(row["key"])), key=natural)


def is_another(was: Seen, now: Seen) -> bool:
    """Whether it is another VM that has the id now. A part of its identity may be changed, but not all at once.

    `meta` is written once, when a VM is made: one that was made before there was any does not get it later.
    """
    both = [(was.config(key), now.config(key)) for key in IDENTITY if was.config(key) and now.config(key)]
    unmarked = not any(was.config(key) for key in IDENTITY)
    return all(then != since for then, since in both) if both else unmarked and bool(now.config("meta"))


def natural(key: str) -> tuple[str, int]:
    digits = re.search(r"\d+$", key)
    return key.rstrip("0123456789"), int(digits[0]) if digits else -1


# NICs


def fields(value: str) -> dict[str, str]:
    """The parts of a property string; one without ``=`` is kept under its own name."""
    found: dict[str, str] = {}
    for part in value.split(","):
        key, equals, content = part.partition("=")
        found[key] = content if equals else ""
    return found


def joined(parts: Mapping[str, str]) -> str:
    """A property string as PVE writes it: the first part (model and MAC) first, the rest sorted."""
    (first, *rest) = parts.items()
    return ",".join(key if not content else f"{key}={content}" for key, content in [first, *sorted(rest)])


def canonical(value: str) -> str:
    """The same NIC, always in the same words."""
    parts = fields(value)
    if "model" in parts:
        parts = {parts.pop("model"): parts.pop("macaddr", ""), **parts}
    model = next((key for key, content in parts.items() if MAC.fullmatch(content)), "")  # anywhere, if by hand
    parts = {model: parts[model], **parts} if model else parts
    if parts.get("link_down") == "0":
        del parts["link_down"]
    return joined(parts)


def mac_of(value: str) -> str:
    return next(iter(fields(canonical(value)).values())).lower()


def is_down(value: str) -> bool:
    return fields(value).get("link_down") in ("1", "on", "yes", "true")


def rewired(value: str, down: bool, bridge: str = "") -> str:
    """The NIC with its link down or up and, if named, on another bridge; every other field as it was."""
    parts = fields(canonical(value))
    parts.pop("link_down", None)
    if bridge:
        parts["bridge"] = bridge
        for of_the_old in ("tag", "trunks"):
            parts.pop(of_the_old, None)
    if down:
        parts["link_down"] = "1"
    return joined(parts)


def wiring_text(value: str, firewall: Mapping[str, Any]) -> str:
    """A NIC's wiring: its string and the VM's firewall, which holds it too. Empty for no NIC."""
    told = {"net": canonical(value), "firewall": dict(firewall)}
    return json.dumps(told, sort_keys=True, separators=(",", ":")) if value else ""


def net_of(wiring: str) -> str:
    return str(json.loads(wiring)["net"]) if wiring else ""


def holds_memory(vm: Vm, snapshot_id: str) -> bool:
    return any(snapshot.id == snapshot_id and snapshot.memory for snapshot in vm.snapshots)


def lans_of(net: str) -> list[str]:
    """What the right to plug a NIC in is asked for: its bridge or, where it has VLANs, each of them on the bridge."""
    told = fields(net)
    bridge, vlans = told.get("bridge", ""), [told.get("tag", ""), *re.split("[;-]", told.get("trunks", ""))]
    on_it = [f"{bridge}/{vlan}" for vlan in vlans if vlan]
    return (on_it or [bridge]) if bridge else []


def lans_now(vm: Vm) -> list[str]:
    """Of all NICs of a VM, as they are and as they will be."""
    cards = [nic.wiring for nic in vm.nics if NET.match(nic.id)]
    return [lan for card in cards for side in (card.config, card.live) for lan in lans_of(net_of(side))]


def former_nets(vm: Vm, note: IsolationNote) -> dict[str, str]:
    """What the note restores: the NICs that are cut, as they were."""
    wiring = dict(note.wiring)
    cut = [nic.id for nic in vm.nics if nic.id in wiring and nic.cut_by]
    return {nic: net_of(wiring[nic].config or wiring[nic].live) for nic in cut}


def firewall_of(note: IsolationNote) -> Data | None:
    """The firewall options that the note tells to restore; None when it tells none."""
    for nic, wiring in note.wiring:
        if NET.match(nic) and (wiring.config or wiring.live):
            return dict(json.loads(wiring.config or wiring.live)["firewall"])
    return None


def isolation_of(value: str, note: IsolationNote | None, quarantine: str) -> Isolation:
    """One side of a NIC. Without a note nothing is ours: a link that is down is then only a link that is down."""
    if note is None:
        return Isolation.FREE
    apart = bool(quarantine) and fields(value).get("bridge") == quarantine
    if is_down(value):
        return Isolation.FORENSIC if apart and note.mode is Isolation.FORENSIC else Isolation.SEALED
    return Isolation.FORENSIC if apart else Isolation.FREE


def nics_of(seen: Seen, note: IsolationNote | None, quarantine: str, addresses: bool) -> tuple[Nic, ...]:
    former = firewall_of(note) if note else None
    firewall = notes.options_of(seen.firewall) if former is None else former
    found = []
    for key in seen.keys(NET):
        live, config = seen.live(key), seen.config(key)
        if live or config:
            found.append(nic_of(seen, key, live, config, note, firewall, quarantine, addresses))
    for key in seen.keys(PASSED):
        value = seen.live(key) or seen.config(key)
        kind = seen.hardware.get(key, named(UNKNOWN, value))
        if value and kind:
            found.append(uncuttable(key, kind, value))
    args = seen.live("args") or seen.config("args")
    if has_own_nic(words_of(args)):
        found.append(uncuttable("args", "network card in QEMU's own arguments", args))
    return tuple(found)


def nic_of(
    seen: Seen, key: str, live: str, config: str, note: IsolationNote | None, firewall: Data, quarantine: str,
    addresses: bool,
) -> Nic:  # fmt: skip
    now = live or config
    bridge = fields(now).get("bridge", "")
    sides = [side for side in (live, config) if side]
    known = static_addresses(seen.config("ipconfig" + key[3:])) if addresses else ()
    return Nic(
        id=key,
        mac=mac_of(now),
        kind="bridge" if bridge else "user",
        network=bridge,
        device=f"tap{seen.status.get('vmid')}i{key[3:]}" if live else "",
        link_up=not is_down(now),
        isolation=min((isolation_of(side, note, quarantine) for side in sides), key=ORDER.index),
        cut_by=("link", "network") if bridge and quarantine else ("link",),
        wiring=Wiring(wiring_text(config, firewall), wiring_text(live, firewall)),
        addresses=known,
    )


def uncuttable(key: str, kind: str, value: str) -> Nic:
    wiring = Wiring(printable(value, 500), "")
    return Nic(key, "", kind, "", "", True, Isolation.FREE, (), wiring)


def static_addresses(ipconfig: str) -> tuple[str, ...]:
    """What cloud-init was told to set. The guest's own word is not asked."""
    told = fields(ipconfig) if ipconfig else {}
    return tuple(told[key].split("/")[0] for key in ("ip", "ip6") if told.get(key, "dhcp") not in ("dhcp", "auto", ""))


def pci_ids(value: str) -> list[str] | None:
    """The host addresses in a hostpci value; None for a mapping, which is not told by address."""
    parts = fields(value)
    first = next(iter(parts))
    told = parts.get("host") or ("" if parts[first] or "mapping" in parts else first)
    return [one if one.count(":") == 2 else f"0000:{one}" for one in told.split(";")] if told else None


def passed_kind(key: str, value: str, pci: Sequence[Data] | None, usb: Sequence[Data] | None) -> str:
    """What a passed-through device is, if it may carry frames; empty when it carries none."""
    if not key.startswith("hostpci"):
        return usb_kind(value, usb)
    ids = pci_ids(value)
    told = [[row for row in pci or () if str(row.get("id", "")).startswith(one)] for one in ids or ()]
    if not told or not all(told):
        return named(UNKNOWN, value)
    mine = [(pci_kind(str(row.get("class", ""))), str(row["id"])) for rows in told for row in rows]
    return "; ".join(named(kind, device) for kind, device in mine if kind)


def usb_kind(value: str, usb: Sequence[Data] | None) -> str:
    device = fields(value).get("host", value)
    if device.startswith("spice"):
        return ""
    wanted = device.lower().replace("0x", "")
    mine = [row for row in usb or () if f"{row.get('vendid')}:{row.get('prodid')}".lower() == wanted]
    none = bool(mine) and all(int(row.get("class", 0)) in NO_NIC_CLASSES for row in mine)
    return "" if none else named(UNKNOWN, value)


def named(kind: str, device: str) -> str:
    """The kind with the device in it, after its noun."""
    what, comma, more = kind.partition(",")
    return f"{what} {printable(device, 60)}{comma}{more}"


def words_of(args: str) -> list[str]:
    """QEMU's arguments as PVE splits them: quotes count. Those that cannot be split are judged by every piece."""
    try:
        return shlex.split(args)
    except ValueError:
        return re.split(r"[\s\"']+", args)


# Power, memory, snapshots


def power_of(ref: VmRef, status: Data, lock: str) -> PowerState:
    raw = str(status.get("qmpstatus") or status.get("status"))
    if raw not in POWER:
        raise Unsupported(
            f"Cannot judge {ref.name}: {ref.hypervisor} reports the unknown power state '{printable(raw)}'."
        )
    power = POWER[raw]
    return PowerState.SUSPENDED if power is PowerState.STOPPED and lock == "suspended" else power


def freezes(agent: str) -> bool:
    """Whether an ``agent`` option has the guest's file systems frozen for a snapshot."""
    told = fields(agent)
    enabled = told.get("enabled") or next(iter(told))  # the first part may stand without its name
    frozen = next((told[key] for key in FREEZE if key in told), "1")
    return all(value in ("1", "on", "yes", "true") for value in (enabled, frozen))


def memory_of(value: str) -> int:
    """Bytes; 512 MiB is PVE's default."""
    return int((fields(value).get("current") or value) if value else 512) << 20


def snapshots_of(rows: Sequence[Data], blocked: bool) -> tuple[Snapshot, ...]:
    """Those that are whole. ``blocked``: the storage goes back to the newest only."""
    whole = {row["name"]: row for row in rows if row["name"] != "current" and not row.get("snapstate")}
    current = next((row.get("parent", "") for row in rows if row["name"] == "current"), "")
    found = [snapshot_of(row, current, whole if blocked else {}) for row in whole.values()]
    return tuple(sorted(found, key=lambda one: (one.created, depth(whole, one.name), one.name)))


def snapshot_of(row: Data, current: str, all_: Mapping[str, Data]) -> Snapshot:
    name, memory = str(row["name"]), bool(row.get("vmstate"))
    newer = sorted(other for other in all_ if row["snaptime"] < all_[other]["snaptime"] or descends(all_, other, name))
    why = (
        f"its storage only goes back to the newest snapshot, and {', '.join(newer)} came after it. Keep what they hold "
        "as evidence elsewhere and remove them, or restore a backup into a new VM" if newer else ""
    )  # fmt: skip
    return Snapshot(
        name, name, str(row.get("parent", "")), utc(row["snaptime"]) if row.get("snaptime") else "", memory,
        "internal", name == current,
        printable(str(row.get("description", "")).rstrip("\n"), 1000),
        PowerState.RUNNING if memory else PowerState.STOPPED, why,
    )  # fmt: skip


def descends(all_: Mapping[str, Data], name: str, ancestor: str) -> bool:
    parent, seen = all_[name].get("parent"), set()
    while parent and parent in all_ and parent not in seen:
        if parent == ancestor:
            return True
        seen.add(parent)
        parent = all_[parent].get("parent")
    return parent == ancestor


def depth(all_: Mapping[str, Data], name: str) -> int:
    count, seen = 0, set()
    while name in all_ and name not in seen:
        seen.add(name)
        name, count = str(all_[name].get("parent", "")), count + 1
    return count


def utc(seconds: Any) -> str:
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
