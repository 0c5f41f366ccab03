# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Isolation on vSphere: the cable out, for good and out of the guest's hands; or over to the isolation port group.

Source: U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.device.VirtualDevice.ConnectInfo.html).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .._errors import Refused, TaskFailed, Unsupported, VmwardError
from .._hypervisor import Pending, done
from .._model import Collector, Isolation, IsolationNote, PowerState, Vm, VmRef, Wiring
from . import convert
from . import note as notes
from .connection import Connection, vim
from .tasks import Call, Tasks

Side = Mapping[str, Any]


class WiringVerbs:
    """The Network part of the contract."""

    name: str
    link: Connection
    tasks: Tasks
    networks: convert.Networks
    fields: dict[int, str]
    props: dict[str, dict[str, Any]]
    held: dict[str, Vm | None]

    def machine(self, ref: VmRef) -> Any:
        raise NotImplementedError

    def submit_note(self, vm: Vm, note: IsolationNote | None) -> Pending:
        boot = "" if vm.power is PowerState.STOPPED else convert.boot_of(self.props[vm.ref.id])
        calls = [self._noting(vm, notes.write(note, boot) if note else "")]
        if note is None and self.link.is_vcenter and convert.noted_at_host(self.props[vm.ref.id]):
            calls.append(self._noting_at_host(vm, ""))  # while the vCenter was away
        return self.tasks.start(vm.ref, "write the undo note on", *calls)

    def _noting_at_host(self, vm: Vm, text: str) -> Call:
        """The note of a stand-alone host: it comes and goes with snapshots, and is written again."""
        machine, option = self.machine(vm.ref), vim.option.OptionValue(key=notes.KEY, value=text)
        return lambda: machine.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[option]))

    def _noting(self, vm: Vm, text: str) -> Call:
        machine, attributes = self.machine(vm.ref), self.link.content.customFieldsManager
        if attributes is None:
            return self._noting_at_host(vm, text)
        key, what = self._field(attributes), "write the undo note on"
        # Twice is the same: one answer that is lost leaves no VM uncut.
        return lambda: self.link.run(what, vm.ref, lambda: attributes.SetField(machine, key, text))

    def _field(self, attributes: Any) -> int:
        """The key of our custom attribute, made when it is missing."""
        for key, name in self.fields.items():
            if name == notes.KEY:
                return key
        what = f"define the custom attribute {notes.KEY}"
        try:
            made = self.link.call(
                what,
                None,
                lambda: attributes.AddFieldDefinition(notes.KEY, vim.VirtualMachine, None, None),
                repeat=False,
            )
        except VmwardError as exc:  # its answer was lost, or another run has made it meanwhile
            there = self.link.call(what, None, lambda: [one for one in attributes.field if one.name == notes.KEY])
            made = next((one for one in there if convert.is_of_vms(one)), None)
            if made is None and there:
                kind = there[0].managedObjectType.__name__.rpartition(".")[2]
                raise TaskFailed(
                    f"{exc} For VMs there is none, but an attribute of that name is there for {kind}. Rename that one "
                    "(vSphere Client, Custom Attributes), then run again."
                ) from exc
            if made is None:
                raise
        self.fields[made.key] = notes.KEY
        return int(made.key)

    def submit_isolate(self, vm: Vm, mode: Isolation, collectors: Sequence[Collector]) -> Pending:
        """``sealed``: disconnected now and at every start, and Tools in the guest may not connect it again.

        ``forensic``: over to the isolation port group; whom that reaches is decided there.
        """
        return self._rewire(vm, "isolate", self._cut(vm, mode))

    def _cut(self, vm: Vm, mode: Isolation) -> dict[str, tuple[Side, Side]]:
        isolation = self.networks.isolation
        if mode is Isolation.FORENSIC and isolation is None:
            raise Unsupported(
                f"Cannot isolate {vm.ref.name} for forensics: {self.name} has not exactly one network of the name "
                f"{self.link.options['forensic_network']!r}. Correct forensic_network, or seal the VM."
            )
        noted = dict(vm.note.wiring) if vm.note else {nic.id: nic.wiring for nic in vm.nics}
        wanted: dict[str, tuple[Side, Side]] = {}
        for nic in vm.nics:
            if not nic.cut_by:
                continue
            config, live = sides(noted.get(nic.id, nic.wiring))
            if mode is Isolation.FORENSIC:
                moved = {"backing": isolation}
                wanted[nic.id] = ({**config, **moved}, {**live, **moved})
            else:
                down = {"backing": json.loads(nic.wiring.config)["backing"], "up": False, "guest": False}
                wanted[nic.id] = (down, down)
        return wanted

    def submit_reconnect(self, vm: Vm, note: IsolationNote) -> Pending:
        self.require_reconnectable(vm)
        return self._rewire(vm, "reconnect", {nic_id: sides(wiring) for nic_id, wiring in note.wiring})

    def require_reconnectable(self, vm: Vm) -> None:
        if self.comes_back_cut(vm):
            raise Refused(
                f"Cannot free {vm.ref.name}: it was suspended while it was cut, and would come back disconnected. Let "
                "it run on first (vm_power, state: running), then free it."
            )
        noted = [
            (nic_id, side["backing"])
            for nic_id, wiring in (vm.note.wiring if vm.note else ())
            for side in sides(wiring)
        ]
        here = {nic.id for nic in vm.nics}
        for nic_id, backing in noted:
            if nic_id in here and backing.get("portgroup") and backing["portgroup"] not in self.networks.names:
                raise Refused(
                    f"Cannot free {vm.ref.name}: the port group that NIC {nic_id} was plugged into is gone or "
                    f"not to be seen ({backing['portgroup']}). Nothing was touched. Wire its cards by hand (their "
                    f"former flags are in the ledger's undo entry), then clear its custom attribute {notes.KEY}."
                )

    def _rewire(self, vm: Vm, what: str, wanted: Mapping[str, tuple[Side, Side]]) -> Pending:
        """One reconfiguration for all cards; if vSphere refuses it, one for each, so that none keeps the others."""
        changes = self._changes(vm, wanted)
        if not changes:
            return done(vm.ref, what)
        whole, *pieces = (self._reconfigure(vm, part) for part in [changes, *([one] for one in changes)])
        return self.tasks.start(vm.ref, what, whole, pieces=pieces if len(changes) > 1 else ())

    def _changes(self, vm: Vm, wanted: Mapping[str, tuple[Side, Side]], again: bool = False) -> list[Any]:
        cards = convert.cards_of(self.props[vm.ref.id]["config.hardware.device"])
        changes = [
            edit(vm.ref, device, *wanted[nic_id], vm.power, again)
            for nic_id, device in cards
            if convert.is_cuttable(device) and nic_id in wanted
        ]
        return [change for change in changes if change is not None]

    def _reconfigure(self, vm: Vm, changes: Sequence[Any]) -> Call:
        machine, spec = self.machine(vm.ref), vim.vm.ConfigSpec(deviceChange=list(changes))
        return lambda: machine.ReconfigVM_Task(spec)

    # A suspended VM: nothing passes, but its cards come back as its memory has them

    def note_asleep(self, vm: Vm) -> list[Call]:
        """What is called before a VM is suspended that is cut as it runs: its note says so."""
        if vm.note is None or any(nic.cut_by and nic.isolation is not vm.note.mode for nic in vm.nics):
            return []
        return [self._noting(vm, notes.write(vm.note, convert.boot_of(self.props[vm.ref.id]), asleep=True))]

    def comes_back_cut(self, vm: Vm) -> bool:
        props = self.props[vm.ref.id]
        if vm.note is None or vm.power is not PowerState.PAUSED:
            return False
        return notes.fell_asleep_cut(convert.note_text(props, self.fields), convert.boot_of(props))

    def cut_again(self, vm: Vm) -> list[Call]:
        """What is called after an isolated VM is resumed, whatever became of that."""
        if vm.note is None:
            return []
        changes = self._changes(vm, self._cut(vm, vm.note.mode), again=True)
        return [*([self._reconfigure(vm, changes)] if changes else []), self._note_awake(vm, vm.note)]

    def _note_awake(self, vm: Vm, note: IsolationNote) -> Call:
        """Its sleep is over, and another one is not of our making; unless the resume failed and it sleeps on."""
        machine = self.machine(vm.ref)
        noting = self._noting(vm, notes.write(note, convert.boot_of(self.props[vm.ref.id])))
        return lambda: None if machine.runtime.powerState == "suspended" else noting()

    def remarks(self, vm_id: str) -> tuple[str, ...]:
        vm = self.held.get(vm_id)
        if vm is None or vm.power is not PowerState.PAUSED or vm.note is None or self.comes_back_cut(vm):
            return ()
        return (
            f"{vm.ref.name} is suspended: nothing passes now, but its memory was not seen to hold the cut. Whoever "
            "resumes it may bring its old wiring back. vmward refuses to; see that nobody else does.",
        )


def sides(wiring: Wiring) -> tuple[Side, Side]:
    """What is noted for the next start, and for now: a VM started since takes what was noted for its start."""
    config = json.loads(wiring.config)
    return config, json.loads(wiring.live) if wiring.live else config


def edit(ref: VmRef, device: Any, config: Side, live: Side, power: PowerState, again: bool = False) -> Any:
    """The change that gives a card this wiring; None where it has it, unless it is to be made again."""
    runs = power is PowerState.RUNNING
    now = [convert.wiring_of(ref, device, live=False)] + [convert.wiring_of(ref, device, live=True)] * runs
    if now == [config] + [live] * runs and not again:
        return None
    change = replugged(device, config["up"], config["guest"], live["up"] and power is not PowerState.STOPPED)
    if now[0]["backing"] != config["backing"]:
        change.device.backing = convert.backing_object(config["backing"])
    return change


def replugged(device: Any, up: bool, guest: bool, now: bool) -> Any:
    edited = copy.copy(device)
    edited.connectable = vim.vm.device.VirtualDevice.ConnectInfo(
        startConnected=up, allowGuestControl=guest, connected=now
    )
    return vim.vm.device.VirtualDeviceSpec(operation="edit", device=edited)
