# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vmward knows about a virtual machine: frozen values, no I/O, no Ansible, no vendor."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class PowerState(Enum):
    """Power as the hypervisor reports it. A state outside this list is an error, never a guess."""

    RUNNING = "running"
    PAUSED = "paused"  # the CPUs stand still and may run on; on vSphere: suspended
    STOPPED = "stopped"
    SUSPENDED = "suspended"  # memory saved to disk (libvirt managed save, PVE suspend todisk)


ON = (PowerState.RUNNING, PowerState.PAUSED)  # its memory is in the host's, its disks are open


class Isolation(Enum):
    """The network state of a VM or NIC, enforced outside the guest."""

    FREE = "free"
    FORENSIC = "forensic"
    SEALED = "sealed"


@dataclass(frozen=True)
class Collector:
    """One address and port that a VM in ``forensic`` isolation may exchange packets with."""

    address: str
    port: int
    protocol: str = "tcp"
    opened_by: str = (
        "collector"  # who opens the connection: "collector" (to the VM's port) or "vm" (to the collector's)
    )
    via: str | None = None  # the gateway's address, when the collector is on another segment


@dataclass(frozen=True)
class Wiring:
    """How a NIC is wired, in the backend's own words: opaque to everyone else, but equal when the wiring is equal."""

    config: str  # for the next start; "" for a NIC plugged into the running VM only
    live: str  # now; "" while stopped


@dataclass(frozen=True)
class Nic:
    """A network card of a VM, as it is wired now and as it will be wired at the next start."""

    id: str  # stable within the VM: the MAC on libvirt
    mac: str
    kind: str  # the vendor's word: network, bridge, direct, hostdev, ...
    network: str  # the network, bridge or port group it is plugged into; "" where the kind has none
    device: str  # the host's side, for example the tap vnet3; "" while stopped
    link_up: bool
    isolation: Isolation
    cut_by: tuple[str, ...]  # what can cut it from outside: "filter", "link", "network" (moved away); empty: nothing
    wiring: Wiring  # what `submit_reconnect` needs to restore it exactly
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """One image of a disk's chain. The format is the hypervisor's statement, never probed from the image."""

    path: str
    format: str


@dataclass(frozen=True)
class Disk:
    """A disk and its chain of images, the active layer first and the base last."""

    id: str  # the name on the VM: vda
    bus: str
    size: int  # bytes that the guest sees
    allocated: int  # bytes that the active layer takes on the store
    read_only: bool
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class DiskCopy:
    """What a disk is to hold: the content of an image, in a new file beside the image that it has now."""

    disk: Disk
    image: Layer  # read only, and never part of the VM
    stamp: tuple[int, ...]  # of its file when it was judged; one that has changed since is not copied
    target: str  # the new file, a qcow2 image without one below it


@dataclass(frozen=True)
class Snapshot:
    """A snapshot in the VM's tree. Names may repeat on some hypervisors; the id never does."""

    id: str
    name: str
    parent: str  # id of the parent, "" for a root
    created: str  # UTC, RFC 3339; "" where the hypervisor does not tell
    memory: bool  # holds the memory of a running VM
    disks: str  # "internal", "external" or "none"
    current: bool
    description: str = ""
    power: PowerState = PowerState.STOPPED  # the state that the VM was in
    blocked: str = ""  # why the VM cannot go back to it as things are


@dataclass(frozen=True)
class IsolationNote:
    """The undo record that lies on the VM itself since before the cut."""

    case: str
    mode: Isolation
    since: str  # UTC, RFC 3339
    wiring: tuple[tuple[str, Wiring], ...]  # (NIC id, former wiring)
    collectors: tuple[Collector, ...] = ()
    sessions: bool = False  # True: the VM has run on without a cold start since the cut; its old sessions would resume


@dataclass(frozen=True)
class VmRef:
    """Enough to find a VM: what one cheap list of the hypervisor gives."""

    hypervisor: str
    id: str
    name: str
    aliases: tuple[str, ...] = field(default=(), compare=False)  # what else selects it: a MoID, tag:web, pool:desktops


@dataclass(frozen=True)
class Vm:
    """A virtual machine, read from its hypervisor at one moment."""

    ref: VmRef
    power: PowerState
    nics: tuple[Nic, ...]
    memory: int  # bytes
    persistent: bool  # False: the definition vanishes when the VM stops
    disks: tuple[Disk, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    note: IsolationNote | None = None
    tags: tuple[str, ...] = ()
    firewall: tuple[tuple[str, str, str], ...] = ()  # what a cut sets beside NICs: its name, as it is, as it was set

    @property
    def isolation(self) -> Isolation:
        """The weakest isolation of any NIC; without a NIC, what the note says was asked for."""
        if not self.nics:
            return self.note.mode if self.note else Isolation.FREE
        order = (Isolation.FREE, Isolation.FORENSIC, Isolation.SEALED)
        return min((nic.isolation for nic in self.nics), key=order.index)


def printable(text: str, limit: int = 120) -> str:
    """Make text that may come from an infected machine fit for one line: no control characters, bounded length."""
    clean = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."
