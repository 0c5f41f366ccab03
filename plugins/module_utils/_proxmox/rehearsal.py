# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rights that each verb needs. They are asked for when a change is planned, before its first write.

Source: the permissions of each call in U(https://pve.proxmox.com/pve-docs/api-viewer/).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .._errors import Refused
from .._hypervisor import Pending, done
from .._model import Collector, Isolation, IsolationNote, Vm, printable
from . import convert, rights

SNAPSHOT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{1,39}")
RESERVED = ("current", "pending")


class Rehearsal:
    """Stands in for the hypervisor while the steps of one VM are gone through: notes what each needs, does nothing."""

    def __init__(self, vm: Vm, quarantine: str) -> None:
        self.vm, self._quarantine = vm, quarantine
        self.quarantines = False  # whether it moves to the quarantine bridge
        self.noted: list[tuple[str, list[rights.Need], list[str]]] = []  # what for, which rights, which networks

    def _needs(self, what: str, *privileges: str | tuple[str, ...], lans: Iterable[str] = ()) -> Pending:
        """Each a privilege on the VM, or several of which one is enough."""
        each = [one if isinstance(one, tuple) else (one,) for one in privileges]
        needs = [rights.on_vm(self.vm.ref.id, *some) for some in each]
        self.noted.append((what, needs, sorted({*lans} - {""})))
        return done(self.vm.ref, what)

    # Isolation

    def _wires(self, what: str, mode: Isolation, former: Iterable[str] = ()) -> Pending:
        self.quarantines |= mode is Isolation.FORENSIC
        quarantine = self._quarantine if mode is Isolation.FORENSIC else ""
        again = (lan for net in former for lan in convert.lans_of(net))
        return self._needs(what, "VM.Config.Network", lans=(*again, quarantine, *convert.lans_now(self.vm)))

    def submit_note(self, vm: Vm, note: IsolationNote | None) -> Pending:
        return self._wires("write the undo note on", note.mode if note else Isolation.FREE)

    def submit_isolate(self, vm: Vm, mode: Isolation, collectors: Sequence[Collector]) -> Pending:
        return self._wires("isolate", mode)

    def submit_reconnect(self, vm: Vm, note: IsolationNote) -> Pending:
        return self._wires("reconnect", Isolation.FREE, convert.former_nets(vm, note).values())

    # Power

    def submit_start(self, vm: Vm, paused: bool = False) -> Pending:
        if paused:
            # The option freeze is one of power; but the call that sets it is for who may set some other one
            return self._needs("start paused", ("VM.Config.Network", "VM.Config.Options"), "VM.PowerMgmt")
        return self._needs("start", "VM.PowerMgmt")

    def submit_pause(self, vm: Vm) -> Pending:
        return self._needs("pause", "VM.PowerMgmt")

    def submit_resume(self, vm: Vm) -> Pending:
        return self._needs("resume", "VM.PowerMgmt")

    def submit_shutdown(self, vm: Vm) -> Pending:
        return self._needs("shut down", "VM.PowerMgmt")

    def submit_power_off(self, vm: Vm) -> Pending:
        return self._needs("power off", "VM.PowerMgmt")

    # Snapshots, and disks given up

    def submit_snapshot(self, vm: Vm, name: str, description: str, memory: bool, quiesce: bool = False) -> Pending:
        require_snapshot_name(vm, name)
        asks = [("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted")] if quiesce else []
        return self._needs(f"take snapshot {name} of", "VM.Snapshot", *asks)

    def submit_remove_snapshot(self, vm: Vm, snapshot_id: str) -> Pending:
        return self._needs(f"remove snapshot {snapshot_id} of", "VM.Snapshot")

    def submit_revert(self, vm: Vm, snapshot_id: str, memory: bool) -> Pending:
        holds = ["VM.PowerMgmt"] if convert.holds_memory(vm, snapshot_id) else []
        return self._needs(f"revert to {snapshot_id}", ("VM.Snapshot.Rollback", "VM.Snapshot"), *holds)

    def submit_delete(self, vm: Vm) -> Pending:
        return self._needs("delete", "VM.Allocate")


def require_snapshot_name(vm: Vm, name: str) -> None:
    if not SNAPSHOT_NAME.fullmatch(name) or name.lower() in RESERVED:
        raise Refused(
            f"Cannot take snapshot '{printable(name)}' of {vm.ref.name}: on Proxmox VE its name is 2 to 40 "
            "letters, digits, dashes or underscores and begins with a letter. Nothing was touched. Choose another."
        )
