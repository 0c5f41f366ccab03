# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract that every hypervisor backend fulfils. Read this first.

A backend speaks of VMs, not of vendors: it converts its vendor's shapes at its edge and lets no vendor exception out.
Verbs are submit / wait / read. ``submit_*`` starts one change on one VM and returns a ``Pending``; ``wait`` awaits
many of them together; ``read`` tells what is really there, in bulk. Nothing is done until ``read`` shows it: that
comparison is made once for all verbs, in ``_plan.py``. Every method may raise ``AuthFailed`` and ``TaskFailed``;
further errors are named.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Callable

from ._errors import Unsupported, VmwardError
from ._model import ON, Collector, DiskCopy, Isolation, IsolationNote, Vm, VmRef

FROZEN_SOCKET = "nbd"  # the name of the socket on which frozen disks are served
FIRST = 5.0  # seconds that the first reading has at least, however short the deadline is
LAST = 10.0  # seconds that reading back, an undo and the log-out have at least, even when the deadline has passed
OUR_CHECKPOINTS = "vmward-scan-"  # begins the name of every checkpoint that a scan leaves
FROZEN_SINCE = "qemu:dirty-bitmap:backup-"  # and, before a disk's id, of what tells what was written to it


class Capability(Enum):
    """What a backend can really do. A use-case asks before it acts."""

    POWER = "power"
    SUSPEND = "suspend"
    START_PAUSED = "start paused"
    SEAL = "isolation sealed"
    FORENSIC = "isolation forensic"
    ISOLATE_SUSPENDED = "isolation of a suspended VM"
    COLLECTORS = "collectors of each VM enforced"
    SNAPSHOT = "snapshot of disks"
    SNAPSHOT_MEMORY = "snapshot with memory"
    SNAPSHOT_QUIESCE = "snapshot with quiesced file systems"
    REVERT = "revert to a snapshot"
    REVERT_EXTERNAL = "revert to an external snapshot"
    REVERT_RUNNING = "revert of a running VM in one step"
    DISK_RESET = "fresh overlay on the golden image"
    DISK_RESTORE = "disks brought back from the images of a backup"
    DELETE = "delete a VM and its disks"
    MEMORY_DUMP = "memory dump"
    DISK_EXPORT_LIVE = "disk export of a running VM"
    DISK_EXPORT_STOPPED = "disk export of a stopped VM"
    DISK_FREEZE = "frozen view of a running VM's disks"
    CHECKPOINT = "what was written to a VM's disks since a checkpoint"
    GUEST_RUN = "read-only commands through the guest agent"


class Detail(Enum):
    """Parts of a VM that cost extra calls and are read only when a use-case needs them."""

    DISKS = "disks"
    SNAPSHOTS = "snapshots"
    ADDRESSES = "addresses"


FINDING = frozenset([Detail.ADDRESSES])  # what is read to find a VM, also beside a verb that works on it


@dataclass(frozen=True)
class Pending:
    """A change under way. ``poll`` says whether it has ended; it raises ``TaskFailed`` if it ended badly."""

    vm: VmRef
    what: str
    poll: Callable[[], bool]
    task: str = ""  # the vendor's task id, for "still running" messages
    abort: Callable[[], None] | None = None  # ends it before its end, where that can be done without harm
    awaited: float = 0.0  # seconds for which it was waited for before


def done(vm: VmRef, what: str) -> Pending:
    """The pending of a backend whose call returns when the change is made."""
    return Pending(vm, what, lambda: True)


class Vms(ABC):
    """Finding and reading VMs."""

    name: str  # the key under vmward_hypervisors

    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """What this endpoint, in its version, can do."""

    def until(self, end: float) -> None:  # noqa: B027  most have time limits of their own
        """No call of this task is awaited past ``end``, ``LAST`` behind its deadline, of ``time.monotonic()``."""

    def why_not(self, capability: Capability) -> str:
        """Why it lacks what it could have, and what to correct; empty when there is nothing to say."""
        return ""

    @abstractmethod
    def refs(self) -> tuple[VmRef, ...]:
        """Every VM, from one cheap list. A list that cannot be read whole raises; it is never shortened."""

    def unnamed(self) -> str:
        """Which VMs ``refs`` lists by their id alone, and why; empty when every name is known."""
        return ""

    def no_vm(self, selector: str) -> str:
        """What bears this name, id or tag here and is no VM, and what to do with it; empty when nothing does."""
        return ""

    def tags(self) -> Mapping[str, tuple[str, ...]]:
        """The tags of VMs, by VM id, where they cost calls of their own; ``refs`` tells all others as ``tag:`` aliases.

        Raises ``Unsupported`` where there can be none.
        """
        return {}

    @abstractmethod
    def read(self, ids: Sequence[str], detail: frozenset[Detail] = frozenset()) -> dict[str, Vm | VmwardError]:
        """Read VMs in bulk, by id. A VM that is gone answers ``NotFound``; a state or NIC kind never seen, or an undo
        note that cannot be read, ``Unjudged`` with what could be read, so that it can still be cut off.

        One VM that cannot be judged never hides another.
        """

    def powers(self, vms: Sequence[Vm]) -> dict[str, Vm | VmwardError]:
        """These VMs, by id, with the power that they have now; all else may be as it was. As ``read``, but cheaper."""
        return self.read([vm.ref.id for vm in vms])

    @abstractmethod
    def wait(
        self, pending: Sequence[Pending], deadline: float, together: float = math.inf
    ) -> Mapping[str, VmwardError | None]:
        """Await all, ``deadline`` seconds from now at most. Answers, by VM id, None or what went wrong.

        What ends later than ``together`` seconds after the first is left out, and waited for again.
        """

    def rehearse(self, vm: Vm, steps: Sequence[Callable[[Any], object]], check: bool) -> None:  # noqa: B027
        """Raise what these steps would be refused with, before the first is taken. They are called with what only
        listens. ``NotAllowed`` tells all rights that they lack; where rights are told by refusals alone, nothing.

        In ``check`` mode also what else is looked up when they are submitted, since nobody's cut waits for it.
        """

    def remarks(self, vm_id: str) -> tuple[str, ...]:
        """What a responder should know of this VM beside its state: warnings of tasks, layers not confirmed."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Log out. Called once, also after failures."""


class Network(ABC):
    """Isolation, live and persistent in one step."""

    @abstractmethod
    def submit_note(self, vm: Vm, note: IsolationNote | None) -> Pending:
        """Write (or with None remove) the undo note on the VM, before its first cut and after every revert."""

    @abstractmethod
    def submit_isolate(self, vm: Vm, mode: Isolation, collectors: Sequence[Collector]) -> Pending:
        """Put every NIC that can be cut into ``mode`` (not ``free``); each such NIC then reads back as ``mode``."""

    @abstractmethod
    def submit_reconnect(self, vm: Vm, note: IsolationNote) -> Pending:
        """Give every NIC named in the note its former wiring back, exactly."""


class Power(ABC):
    """Power verbs. A graceful verb's pending ends when the state is reached."""

    @abstractmethod
    def submit_start(self, vm: Vm, paused: bool = False) -> Pending:
        """Cold-start a stopped VM."""

    @abstractmethod
    def submit_pause(self, vm: Vm) -> Pending:
        """Freeze the CPUs of a running VM; memory stays."""

    @abstractmethod
    def submit_resume(self, vm: Vm) -> Pending:
        """Let a paused VM run on."""

    @abstractmethod
    def submit_shutdown(self, vm: Vm) -> Pending:
        """Ask the guest to shut down; ends when it is off. A hostile guest may never obey."""

    @abstractmethod
    def submit_power_off(self, vm: Vm) -> Pending:
        """Take the power away. Memory is lost."""


class Snapshots(ABC):
    """Snapshots of disks, with memory only where asked for."""

    @abstractmethod
    def submit_snapshot(self, vm: Vm, name: str, description: str, memory: bool, quiesce: bool = False) -> Pending:
        """Take a snapshot. ``memory`` needs a running VM.

        ``quiesce`` (with ``SNAPSHOT_QUIESCE``, of a running VM, without memory) has the guest hold its file systems
        still meanwhile; a guest that does not is a failure, never a snapshot that passes for quiesced.
        """

    def why_not_quiesce(self, vm: Vm) -> str:
        """Why the guest of a running VM, as it was read last, cannot be asked to; empty when it can."""
        return ""

    @abstractmethod
    def submit_remove_snapshot(self, vm: Vm, snapshot_id: str) -> Pending:
        """Remove one snapshot, keeping its children and the VM's present state."""

    @abstractmethod
    def submit_revert(self, vm: Vm, snapshot_id: str, memory: bool) -> Pending:
        """Bring a stopped VM's disks back (with ``REVERT_RUNNING`` any VM's, which loses its present memory).

        Ends stopped, or paused with the snapshot's memory if asked for.

        The definition of the snapshot comes back with it, its wiring too: isolate again before any start.
        """


class Pool(ABC):
    """Verbs that destroy a disk's present content. Only behind the order-of-volatility gate."""

    @abstractmethod
    def submit_reset_disks(self, vm: Vm) -> Pending:
        """Give a stopped VM a fresh overlay on each disk's base. Every snapshot must be gone before."""

    def submit_restore_disks(self, vm: Vm, copies: Sequence[DiskCopy]) -> Pending:
        """Give these disks of a stopped VM, on the data host, what images hold: copied, compared, then put in place.

        The VM has them all, or none. Its former images stay where they are. Its snapshots, whose content they hold, are
        forgotten: who asks has made sure that they may be.
        """
        raise Unsupported(f"Cannot bring the disks of {vm.ref.name} back: {vm.ref.hypervisor} cannot do it.")

    @abstractmethod
    def submit_delete(self, vm: Vm) -> Pending:
        """Remove a stopped VM's definition and the images that only it uses; a base that others use stays."""


class Evidence(ABC):
    """Memory, disks and guest state. These run on the data host, one VM at a time."""

    @abstractmethod
    def submit_memory_dump(self, vm: Vm, path: str) -> Pending:
        """Write the guest's memory to a new file, in ``memory_format()``. The CPUs may stand still meanwhile."""

    def memory_format(self) -> str:
        """``elf``, an ELF core; or ``qemu-state``, the state that QEMU saves of a running guest."""
        return "elf"

    def kept_memory(self, vm: Vm) -> tuple[str, ...]:
        """Where memory of the VM lies, the oldest first: snapshots that broken dumps left, what a suspend saved.

        Raises ``NotFound`` when the VM is gone.
        """
        return ()

    def submit_kept_memory(self, vm: Vm, kept: str, path: str) -> Pending:
        """Copy one memory that ``kept_memory`` told to a new file, in ``memory_format()``. It stays where it lies."""
        raise Unsupported(f"Cannot copy the memory of {vm.ref.name} that lies in {kept}: {vm.ref.hypervisor} cannot.")

    @abstractmethod
    def submit_disk_export(self, vm: Vm, disk_id: str, path: str) -> Pending:
        """Write a point-in-time copy of one disk, whole chain deep, as sparse qcow2 to a new file.

        Works on a running or paused VM (from a frozen point) and on a stopped one.
        """

    def export_method(self, vm: Vm) -> str:
        """How ``submit_disk_export`` does it, for the image's certificate."""
        return "backup job of the hypervisor" if vm.power in ON else "conversion of the stopped VM's images"

    def submit_freeze_disks(
        self, vm: Vm, disk_ids: Sequence[str], directory: str, checkpoint: str = "", since: str = ""
    ) -> Pending:
        """Serve these disks of a VM that is on as they are now, all of one moment, while the guest goes on writing.

        Read only, by NBD on the socket ``FROZEN_SOCKET`` in the directory, each disk under its id. The directory is
        made; what serves from it or from one beside it already is of a dead run, and ends first.

        With ``CHECKPOINT``: leave a ``checkpoint`` of that very moment; and tell, in the context
        ``FROZEN_SINCE`` + the disk's id, what was written ``since`` an earlier one, which fails if that is not known
        for certain.
        """
        raise Unsupported(f"Cannot freeze the disks of {vm.ref.name}: {vm.ref.hypervisor} cannot do it.")

    def submit_thaw_disks(self, vm: Vm, directory: str) -> Pending:
        """End what is served from this directory, and remove it; nothing to do is done."""
        raise Unsupported(f"Cannot freeze the disks of {vm.ref.name}: {vm.ref.hypervisor} cannot do it.")

    def checkpoints(self, vm: Vm) -> tuple[str, ...]:
        """The checkpoints that scans left on a VM, in the order of their names. Those of others are not told."""
        return ()

    def submit_remove_checkpoints(self, vm: Vm, names: Sequence[str]) -> Pending:
        """Remove these, which are told by ``checkpoints``, from a VM that is on, with all that was remembered since.

        One that can't be removed without writing to an image below the top one stays, and is told by ``Refused``.
        """
        raise Unsupported(f"Cannot remove checkpoints of {vm.ref.name}: {vm.ref.hypervisor} has none.")

    def tools(self) -> dict[str, str]:
        """The programs that make the evidence, with their versions, for its certificate."""
        return {}

    def freeze(self) -> float | None:
        """Seconds that the CPUs stood still for the last memory dump, as the hypervisor timed it; None: not told."""
        return None

    @abstractmethod
    def progress(self, vm: Vm) -> tuple[int, int]:
        """Bytes done and bytes in all of the long job that runs on this VM; (0, 0) when there is none."""

    @abstractmethod
    def guest_run(self, vm: Vm, argv: Sequence[str], deadline: float, limit: int) -> GuestOutput:
        """Run one program through the guest agent, sync first. At most ``limit`` bytes of each stream are kept.

        Raises ``Unsupported`` when the VM has no agent, ``TimedOut`` when it does not answer.
        """


@dataclass(frozen=True)
class GuestOutput:
    """What the guest claims that a program printed."""

    status: int
    stdout: bytes
    stderr: bytes
    truncated: bool


class Hypervisor(Vms, Network, Power, Snapshots, Pool, Evidence):
    """One managed endpoint. ``capabilities()`` says which verbs it really has; the rest raise ``Unsupported``."""
