# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Isolation on Proxmox VE: the link of every NIC first, then the VM's firewall, which a rollback leaves alone.

Sources: U(https://pve.proxmox.com/pve-docs/qm.1.html#qm_network_device), U(https://pve.proxmox.com/pve-docs/pve-firewall.8.html).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Callable

from .._errors import NotVerified, TaskFailed, Unsupported, VmwardError
from .._hypervisor import Pending
from .._model import Collector, Isolation, IsolationNote, PowerState, Vm, VmRef
from . import convert, note, rights
from .connection import NoAnswer, Rejected
from .work import AGAIN, Work


class WiringVerbs(Work):
    """The Network part of the contract."""

    def submit_note(self, vm: Vm, note_: IsolationNote | None) -> Pending:
        what, seen = "write the undo note on", self.seen[vm.ref.id]

        def write() -> None:
            if note_ and note_.mode is Isolation.FORENSIC:
                self.quarantine_of(vm)
            if note_ is None:
                self.repeated(lambda: self._forget_note(vm.ref, what), self.patience)
                return
            mark = self.seen[vm.ref.id].mark or (note.SAVED if vm.power is PowerState.SUSPENDED else "")
            told = {"name": note.NAME, "comment": note.text_of(note_, mark, int(time.time()))}
            self.repeated(lambda: put(told), self.patience)

        def put(told: Mapping[str, str]) -> None:
            there = {"rename": note.NAME}
            try:
                self.at(vm.ref, what, "post", "/firewall/ipset", **told, **(there if seen.comment is not None else {}))
            except Rejected as exc:
                if "already exists" not in exc.text and "does not exist" not in exc.text:
                    raise
                there = {} if seen.comment is not None else there  # somebody was quicker
                self.at(vm.ref, what, "post", "/firewall/ipset", **told, **there)

        return self.fired(vm.ref, what, write)

    def ready_to_cut_again(self, vm: Vm, held: IsolationNote, what: str, snapshot_id: str) -> None:
        """Before a held VM is rolled back: the cut after it is allowed, and the firewall, which stays, holds."""
        config = self.at(vm.ref, "read a snapshot of", "get", f"/snapshot/{snapshot_id}/config")
        nets = [str(value) for key, value in config.items() if convert.NET.match(key)]
        quarantine = self.quarantine_of(vm) if held.mode is Isolation.FORENSIC else ""
        used = {quarantine, *(lan for net in nets for lan in convert.lans_of(net)), *convert.lans_now(vm)} - {""}
        self.require(what, vm.ref, rights.on_vm(vm.ref.id, "VM.Config.Network"), lans=sorted(used))
        told = self._second_layer(vm.ref, held.mode, held.collectors)
        if told:
            self.tell(vm.ref, told)

    def quarantine_of(self, vm: Vm) -> str:
        """The bridge or VNet for forensic isolation, as the VM's node knows it."""
        start, quarantine = f"Cannot bring {vm.ref.name} into forensic isolation", self.link.options.get("quarantine")
        if not quarantine:
            raise Unsupported(
                f"{start}: no quarantine bridge is named for {self.name}. Set quarantine in its entry, or seal it."
            )
        node = self.node(vm.ref.id)
        rows = self._hidden(f"bridges of {node}", f"nodes/{node}/network", type="any_bridge")
        there = sorted(str(row.get("iface")) for row in rows or ())
        if there and quarantine not in there:
            raise Unsupported(
                f"{start}: the quarantine of {self.name}, '{quarantine}', is no bridge or VNet of node {node}. There "
                f"are: {', '.join(there)}. Nothing was touched. Correct quarantine in its entry, or seal the VM."
            )
        return str(quarantine)

    def _forget_note(self, vm: VmRef, what: str) -> None:
        try:
            self.at(vm, what, "delete", f"/firewall/ipset/{note.NAME}")
        except Rejected as exc:
            if "no such IPSet" not in exc.text:
                raise

    def submit_isolate(self, vm: Vm, mode: Isolation, collectors: Sequence[Collector]) -> Pending:
        noted = dict(vm.note.wiring) if vm.note else {}

        def cut(quarantine: str, key: str, value: str) -> str:
            if mode is Isolation.SEALED:
                return convert.rewired(value, down=True)
            former = noted[key].live or noted[key].config if key in noted else ""
            was_down = convert.is_down(convert.net_of(former)) if former else convert.is_down(value)
            if not convert.fields(value).get("bridge"):
                return convert.rewired(value, down=True)  # a NIC of QEMU's own network cannot be moved
            return convert.rewired(value, was_down, quarantine)

        def isolate() -> None:
            to = partial(cut, self.quarantine_of(vm) if mode is Isolation.FORENSIC else "")
            lives: dict[str, str] = {}
            if vm.note and mode is Isolation.FORENSIC:
                lives = {nic.id: self.seen[vm.ref.id].live(nic.id) for nic in vm.nics if convert.NET.match(nic.id)}
            first = {key: to(key, live) for key, live in lives.items() if live}
            self._isolate(vm.ref, mode, collectors, to, first)

        return self.fired(vm.ref, "isolate", isolate)

    def _isolate(
        self, vm: VmRef, mode: Isolation, collectors: Sequence[Collector], cut: Callable[[str, str], str],
        first: Mapping[str, str],
    ) -> None:  # fmt: skip
        def changes() -> dict[str, str]:
            seen = self.seen[vm.id]
            sides = {
                key: [side for side in (seen.live(key), seen.config(key)) if side] for key in seen.keys(convert.NET)
            }
            wanted = {key: cut(key, both[0]) for key, both in sides.items() if both}
            return {key: new for key, new in wanted.items() if any(convert.canonical(s) != new for s in sides[key])}

        def when_locked(_exc: Rejected) -> str:
            told = self._second_layer(vm, mode, collectors, patience=0.0)  # the links wait for it
            return " ".join([told, self._links_by_monitor(vm) if mode is Isolation.SEALED else ""]).strip()

        self._down_before_up(vm, "isolate", first, when_locked)
        self._change_nics(vm, "isolate", changes, when_locked)
        # It holds taps alone, and what it was is noted with them
        told = self._second_layer(vm, mode, collectors) if self.seen[vm.id].keys(convert.NET) else ""
        if told:
            self.tell(vm, told)

    def _second_layer(
        self, vm: VmRef, mode: Isolation, collectors: Sequence[Collector], patience: float | None = None
    ) -> str:
        """The firewall; answers why it could not be set. The cut does not rest on it."""
        patience = self.patience if patience is None else patience
        try:
            lacking = note.lacking(self.seen[vm.id].firewall, mode)
            if lacking:
                put = partial(self.at, vm, "set the firewall of", "put", "/firewall/options", **lacking)
                self.repeated(put, patience)
            rules = note.wanted_rules(mode, collectors)
            self.repeated(lambda: self._set_rules(vm, rules, even_alone=mode is Isolation.FORENSIC), patience)
        except VmwardError as exc:
            return f"its firewall could not be set: {exc}"
        return ""

    def _set_rules(self, vm: VmRef, wanted: Sequence[convert.Data], even_alone: bool) -> None:
        """Our rules before all others, where any are needed.

        New ones are written before old ones go. A rule is removed by its place, so only while the list is as it was
        read; when somebody else changed it, it is read again.
        """
        what, end, tries = "set the firewall rules of", time.monotonic() + self.patience, 3
        while True:
            rules = self.at(vm, "read the firewall rules of", "get", "/firewall/rules")
            goal = note.needed_rules(wanted, rules, even_alone)
            old, there = note.behind(rules, goal), note.are_first(rules, goal)
            if there and not old:
                self.rules[vm.id] = rules
                return
            if not there and not tries:
                raise NotVerified(f"Cannot {what} {vm.name}: they read back otherwise than they were set. Run again.")
            tries -= not there
            try:
                for rule in [] if there else reversed(goal):
                    self.at(vm, what, "post", "/firewall/rules", **rule)
                if there:
                    self.at(vm, what, "delete", f"/firewall/rules/{old[-1]['pos']}", digest=old[-1]["digest"])
            except Rejected as exc:
                if "detected modified configuration" not in exc.text or time.monotonic() >= end:
                    raise

    def _links_by_monitor(self, vm: VmRef) -> str:
        """QEMU's own switch, for the time that the configuration is locked; answers what that achieved."""
        seen = self.seen[vm.id]
        if not seen.running:
            return ""
        if rights.missing(
            self.permissions(), [rights.on_vm(vm.id, "Sys.Modify")], str(self.rows.get(vm.id, {}).get("pool", ""))
        ):
            return "Its links could not be taken down in QEMU meanwhile: Sys.Modify is missing."
        try:
            for key in seen.keys(convert.NET):
                self.at(vm, "take the link down of", "post", "/monitor", command=f"set_link {key} off")
        except VmwardError as exc:
            return f"Its links could not be taken down in QEMU meanwhile: {exc}"
        return "Its links were taken down in QEMU itself, until it is freed or started again."

    def submit_reconnect(self, vm: Vm, note_: IsolationNote) -> Pending:
        nets, firewall = convert.former_nets(vm, note_), convert.firewall_of(note_)

        def changes() -> dict[str, str]:
            seen = self.seen[vm.ref.id]
            now = {key: seen.live(key) or seen.config(key) for key in nets}
            other = [key for key, net in nets.items() if now[key] and convert.mac_of(now[key]) != convert.mac_of(net)]
            if other:
                raise NotVerified(
                    f"Cannot reconnect {vm.ref.name}: {', '.join(other)} is another card than when it was cut. Nothing "
                    "was changed. Restore its wiring and the VM's firewall by hand from the ledger's undo entry, then "
                    f"remove the IP set {note.NAME} from that firewall."
                )
            return {key: net for key, net in nets.items() if now[key] and convert.canonical(now[key]) != net}

        def reconnect() -> None:
            changes()  # what cannot be restored is told before anything is
            if firewall is not None:
                self._restore_firewall(vm.ref, firewall)
            self._down_before_up(vm.ref, "reconnect", nets, lambda _exc: "")
            self._change_nics(vm.ref, "reconnect", changes, lambda _exc: "")

        return self.fired(vm.ref, "reconnect", reconnect)

    def _down_before_up(
        self, vm: VmRef, what: str, wanted: Mapping[str, str], when_locked: Callable[[Rejected], str]
    ) -> None:
        """Where a seal met a lock, QEMU may hold a link down that the configuration calls up.

        Proxmox VE turns to QEMU only when that changes: what shall be up goes down in the configuration first.
        """

        def changes() -> dict[str, str]:
            lives = {key: self.seen[vm.id].live(key) for key, net in wanted.items() if not convert.is_down(net)}
            up = {key: live for key, live in lives.items() if live and not convert.is_down(live)}
            return {key: convert.rewired(live, down=True) for key, live in up.items()}

        if changes():
            self._change_nics(vm, what, changes, when_locked)
            self.see_again(vm, what)

    def _restore_firewall(self, vm: VmRef, former: Mapping[str, Any]) -> None:
        now = note.options_of(self.seen[vm.id].firewall)
        values: dict[str, Any] = {key: value for key, value in former.items() if str(now.get(key)) != str(value)}
        unset = sorted(set(now) - set(former))
        if unset:
            values["delete"] = ",".join(unset)
        if values:
            put = partial(self.at, vm, "restore the firewall of", "put", "/firewall/options", **values)
            self.repeated(put, self.patience)
        self.repeated(lambda: self._set_rules(vm, [], even_alone=True), self.patience)

    def links_down(self, vm: VmRef) -> None:
        """Every link down, as quickly as can be: the VM may be running."""

        def changes() -> dict[str, str]:
            seen = self.seen[vm.id]
            now = {key: seen.live(key) or seen.config(key) for key in seen.keys(convert.NET)}
            return {key: convert.rewired(value, down=True) for key, value in now.items() if not convert.is_down(value)}

        what = "take the links down of"
        self.see_again(vm, what)
        self._change_nics(vm, what, changes, lambda _exc: self._links_by_monitor(vm))

    # Writing NICs

    def _change_nics(
        self, vm: VmRef, what: str, changes: Callable[[], dict[str, str]], when_locked: Callable[[Rejected], str]
    ) -> None:
        """Write all NICs in one change. Locks and lost answers are tried again, but only after reading back."""
        end, meanwhile = time.monotonic() + self.patience, ""
        while True:
            wanted = changes()
            if not wanted:
                return
            try:
                self.at(vm, what, "put", "/config", digest=self.seen[vm.id].digest, **wanted)
                return
            except (Rejected, NoAnswer) as exc:
                if isinstance(exc, Rejected):
                    if "hotplug problem" in exc.text:
                        raise self._back_to_what_was(vm, what, exc, wanted) from exc
                    if (exc.lock or exc.busy) and not meanwhile:
                        meanwhile = when_locked(exc)
                    changed = "checksum mismatch" in exc.text
                    if not (exc.lock or exc.busy or changed):
                        raise
                if time.monotonic() >= end or self.link.closing.is_set():
                    raise self._given_up(exc, meanwhile) from exc
            self.link.closing.wait(min(AGAIN, self.patience / 10))
            self.see_again(vm, what)

    def _given_up(self, exc: VmwardError, meanwhile: str) -> VmwardError:
        told = f"{exc} It was tried for {self.patience:g} s. {meanwhile}".strip()
        if isinstance(exc, Rejected) and exc.lock:
            return TaskFailed(
                f"{told} Look at what holds the lock '{exc.lock}'; when nothing works on it any more, remove it on its "
                "node with qm unlock, then run again at once."
            )
        return TaskFailed(f"{told} Run again.")

    def see_again(self, vm: VmRef, what: str) -> None:
        seen = self.seen[vm.id]
        rows = self.at(vm, "read", "get", "/pending")
        status = self.at(vm, "read", "get", "/status/current")
        firewall = self.at(vm, "read the firewall of", "get", "/firewall/options")
        now = convert.Seen(self.node(vm.id), status, rows, firewall, seen.comment, seen.hardware)
        self.require_same(what, vm, now)
        self.seen[vm.id] = now

    def _back_to_what_was(self, vm: VmRef, what: str, exc: Rejected, wanted: Mapping[str, str]) -> VmwardError:
        """PVE keeps a change that it could not make for the next start: that is taken back."""
        self.at(vm, what, "put", "/config", revert=",".join(sorted(wanted)))
        return TaskFailed(
            f"{exc} Nothing of it was kept. See that the bridge exists on node {self.node(vm.id)}, or seal the VM."
        )
