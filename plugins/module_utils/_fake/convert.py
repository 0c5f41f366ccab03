# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge of the simulated hypervisor: its JSON becomes the model, and nothing else leaves. Pure."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .._errors import Unjudged
from .._hypervisor import Detail
from .._model import Collector, Disk, Isolation, IsolationNote, Layer, Nic, PowerState, Snapshot, Vm, VmRef, Wiring

Data = dict[str, Any]

# What can cut each kind of NIC from outside. A kind not listed here counts as cut by nothing, never by a guess.
CUT_BY: dict[str, tuple[str, ...]] = {"tap": ("filter", "link"), "macvtap": ("link",), "passthrough": ()}
POWER = tuple(state.value for state in PowerState)
ORDER = (Isolation.FREE, Isolation.FORENSIC, Isolation.SEALED)


def machine(name: str, nics: Sequence[Data], disks: Sequence[Data], **more: Any) -> Data:
    """A VM as the state file holds it. Of a NIC, ``live`` is the wiring now, ``config`` that of the next start."""
    made = {
        "name": name,
        "power": "running",
        "memory": 8 * 1024 * 1024,
        "persistent": True,
        "obeys_after": 0,  # seconds until it obeys a request to shut down; null: never
        "session": False,
        "tags": [],
        "note": None,
        "snapshots": [],
        "nics": [dict(nic) for nic in nics],
        "disks": [dict(disk) for disk in disks],
    }
    made.update(more)
    return made


def nic(mac: str, kind: str = "tap", network: str = "lan", link: str = "up", addresses: Sequence[str] = ()) -> Data:
    wiring = {"guard": "", "link": link}
    told = {"id": mac, "kind": kind, "network": network, "addresses": list(addresses)}
    return dict(told, config=dict(wiring), live=dict(wiring))


def disk(name: str, layers: Sequence[Layer], size: int) -> Data:
    return {"id": name, "size": size, "read_only": False, "layers": [asdict(layer) for layer in layers]}


def new_id() -> str:
    return str(uuid.uuid4())


def guard_of(mode: Isolation, collectors: Sequence[Collector]) -> str:
    """What stands before a NIC in this mode; another set of collectors is another guard."""
    if mode is Isolation.SEALED:
        return "sealed"
    return "forensic " + ", ".join(
        sorted("%s:%d/%s by %s via %s" % (c.address, c.port, c.protocol, c.opened_by, c.via) for c in collectors)
    )


def vm_of(ref: VmRef, data: Data, detail: frozenset[Detail]) -> Vm:
    note, doubts = judged(data)
    vm = Vm(
        ref,
        PowerState(data["power"]) if data["power"] in POWER else PowerState.RUNNING,
        tuple(nic_of(number, nic, note, detail) for number, nic in enumerate(data["nics"])),
        data["memory"],
        data["persistent"],
        disks=tuple(disk_of(disk) for disk in data["disks"]) if Detail.DISKS in detail else (),
        snapshots=tuple(snapshot_of(s) for s in data["snapshots"]) if Detail.SNAPSHOTS in detail else (),
        note=note,
        tags=tuple(data["tags"]),
    )
    if doubts:
        raise Unjudged("Cannot judge %s: %s. It can only be cut off." % (ref.name, "; ".join(doubts)), vm)
    return vm


def judged(data: Data) -> tuple[IsolationNote | None, list[str]]:
    """The undo note, and what of the VM is of a kind never seen."""
    doubts = [] if data["power"] in POWER else ["the power state '%s' is unknown" % data["power"]]
    strange = [nic for nic in data["nics"] if nic["kind"] not in CUT_BY]
    doubts += ["the kind '%s' of NIC %s is unknown" % (nic["kind"], nic["id"]) for nic in strange]
    try:
        return note_of(data), doubts
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        return None, [*doubts, "its undo note cannot be read (%s: %s)" % (type(exc).__name__, exc)]


def nic_of(number: int, data: Data, note: IsolationNote | None, detail: frozenset[Detail]) -> Nic:
    both = [side for side in (data["live"], data["config"]) if side]
    return Nic(
        id=data["id"],
        mac=data["id"],
        kind=data["kind"],
        network=data["network"],
        device="tap%d" % number if data["live"] else "",
        link_up=both[0]["link"] == "up",
        isolation=min((isolation_of(data["kind"], side, note) for side in both), key=ORDER.index),
        cut_by=CUT_BY.get(data["kind"], ()),
        wiring=Wiring(wiring_of(data["config"]), wiring_of(data["live"])),
        addresses=tuple(data["addresses"]) if Detail.ADDRESSES in detail else (),
    )


def isolation_of(kind: str, side: Data, note: IsolationNote | None) -> Isolation:
    able = CUT_BY.get(kind, ())
    if "filter" not in able:
        return Isolation.SEALED if able and side["link"] == "down" else Isolation.FREE
    if side["guard"] == "sealed" and side["link"] == "down":
        return Isolation.SEALED
    wanted = guard_of(Isolation.FORENSIC, note.collectors) if note else side["guard"]
    return Isolation.FORENSIC if side["guard"].startswith("forensic") and side["guard"] == wanted else Isolation.FREE


def wiring_of(side: Data | None) -> str:
    return json.dumps(side, sort_keys=True) if side else ""


def layers_of(data: Data) -> tuple[Layer, ...]:
    return tuple(Layer(**layer) for layer in data["layers"])


def disk_of(data: Data) -> Disk:
    layers = layers_of(data)
    allocated = os.stat(layers[0].path).st_blocks * 512 if os.path.exists(layers[0].path) else 0
    return Disk(data["id"], "virtio", data["size"], allocated, data["read_only"], layers)


def snapshot_of(data: Data) -> Snapshot:
    told = {key: value for key, value in data.items() if key not in ("definition", "quiesced")}
    return Snapshot(**dict(told, power=PowerState(data["power"])))


def note_data(note: IsolationNote | None) -> Data | None:
    if note is None:
        return None
    kept = asdict(note)
    kept.pop("sessions")  # known from a mark that a cold start removes
    kept.update(mode=note.mode.value, wiring={nic_id: asdict(wiring) for nic_id, wiring in note.wiring})
    return kept


def note_of(data: Data) -> IsolationNote | None:
    kept = data["note"]
    if kept is None:
        return None
    return IsolationNote(
        kept["case"],
        Isolation(kept["mode"]),
        kept["since"],
        tuple(sorted((nic_id, Wiring(**wiring)) for nic_id, wiring in kept["wiring"].items())),
        tuple(Collector(**collector) for collector in kept["collectors"]),
        sessions=data["session"],
    )
