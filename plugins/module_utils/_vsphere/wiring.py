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

from .._errors import Unsupported
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

    def machine(self, ref: VmRef) -> Any:
        raise NotImplementedError

    def submit_note(self, vm: Vm, note: IsolationNote | None) -> Pending:
        boot = "" if vm.power is PowerState.STOPPED else convert.boot_of(self.props[vm.ref.id])
        text = notes.write(note, boot) if note else ""
        machine, what = self.machine(vm.ref), "write the undo note on"
        attributes = self.link.content.customFieldsManager
        if attributes is None:  # a stand-alone host: the note comes and goes with snapshots, and is written again
            option = vim.option.OptionValue(key=notes.KEY, value=text)
            spec = vim.vm.ConfigSpec(extraConfig=[option])
            return self.tasks.start(vm.ref, what, lambda: machine.ReconfigVM_Task(spec))
        key = self._field(attributes)
        return self.tasks.start(vm.ref, what, lambda: attributes.SetField(machine, key, text))

    def _field(self, attributes: Any) -> int:
        """The key of our custom attribute, made when it is missing."""
        for key, name in self.fields.items():
            if name == notes.KEY:
                return key
        made = self.link.call(
            f"define the custom attribute {notes.KEY}",
            None,
            lambda: attributes.AddFieldDefinition(notes.KEY, vim.VirtualMachine, None, None),
            repeat=False,
        )
        self.fields[made.key] = notes.KEY
        return int(made.key)

    def submit_isolate(self, vm: Vm, mode: Isolation, collectors: Sequence[Collector]) -> Pending:
        """``sealed``: disconnected now and at every start, and Tools in the guest may not connect it again.

        ``forensic``: over to the isolation port group; whom that reaches is decided there.
        """
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
        return self._rewire(vm, "isolate", wanted)

    def submit_reconnect(self, vm: Vm, note: IsolationNote) -> Pending:
        return self._rewire(vm, "reconnect", {nic_id: sides(wiring) for nic_id, wiring in note.wiring})

    def _rewire(self, vm: Vm, what: str, wanted: Mapping[str, tuple[Side, Side]]) -> Pending:
        """One reconfiguration for all cards; if vSphere refuses it, one for each, so that none keeps the others."""
        changes = self._changes(vm, wanted)
        if not changes:
            return done(vm.ref, what)
        whole, *pieces = (self._reconfigure(vm, part) for part in [changes, *([one] for one in changes)])
        return self.tasks.start(vm.ref, what, whole, pieces=pieces if len(changes) > 1 else ())

    def _changes(self, vm: Vm, wanted: Mapping[str, tuple[Side, Side]]) -> list[Any]:
        changes = []
        for device in self.props[vm.ref.id]["config.hardware.device"]:
            if convert.is_cuttable(device) and convert.card_id(device) in wanted:
                changes.append(edit(vm.ref, device, *wanted[convert.card_id(device)], vm.power))
        return [change for change in changes if change is not None]

    def _reconfigure(self, vm: Vm, changes: Sequence[Any]) -> Call:
        machine, spec = self.machine(vm.ref), vim.vm.ConfigSpec(deviceChange=list(changes))
        return lambda: machine.ReconfigVM_Task(spec)

    def cut_again(self, vm: Vm) -> list[Call]:
        """What is called after a sealed VM is resumed: its memory may bring its cards' former state back."""
        if vm.note is None or vm.note.mode is not Isolation.SEALED:
            return []
        cards = [device for device in self.props[vm.ref.id]["config.hardware.device"] if convert.is_cuttable(device)]
        return [self._reconfigure(vm, [replugged(card, up=False, guest=False, now=False) for card in cards])] * bool(
            cards
        )


def sides(wiring: Wiring) -> tuple[Side, Side]:
    """What is noted for the next start, and for now: a VM started since takes what was noted for its start."""
    config = json.loads(wiring.config)
    return config, json.loads(wiring.live) if wiring.live else config


def edit(ref: VmRef, device: Any, config: Side, live: Side, power: PowerState) -> Any:
    """The change that gives a card this wiring; None where it has it."""
    runs = power is PowerState.RUNNING
    now = [convert.wiring_of(ref, device, live=False)] + [convert.wiring_of(ref, device, live=True)] * runs
    if now == [config] + [live] * runs:
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
