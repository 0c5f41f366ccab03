# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How VMs are: a few calls for each, all at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from functools import partial
from typing import Any, Callable, NoReturn

from .._crew import Crew
from .._errors import (
    AuthFailed,
    NeverRuns,
    NotAllowed,
    TimedOut,
    Unjudged,
    Unsupported,
    VmwardError,
    attempt,
)
from .._hypervisor import FINDING, FIRST, LAST, Detail
from .._model import Disk, Isolation, IsolationNote, Nic, PowerState, Snapshot, Vm, VmRef
from . import convert, disks, note, rights
from .connection import Connection, Rejected
from .places import Places
from .rehearsal import Rehearsal
from .tasks import LIMIT

PARTS = {
    "/pending": "read",
    "/firewall/options": "read the firewall of",
    "/firewall/ipset": "read the undo note of",
}
STATUS = "/status/current"
READ_AT_MOST = 120.0  # seconds for one bulk read
SOONER = 0.8  # the part of the time that others wait for a read in which it answers with what it has
SKEW = 300  # seconds by which the clocks of controller and node may differ
CARRYING = ("qmsuspend", "qmigrate", "qmremotemigrate", "hamigrate", "qmrollback")  # tasks that may bring memory back


class Reading(Places):
    """The Vms part of the contract, and what the verbs need to know of a VM."""

    def __init__(self, name: str, link: Connection) -> None:
        super().__init__(name, link)
        self.seen: dict[str, convert.Seen] = {}
        self.told: dict[str, list[str]] = {}  # warnings of tasks, by VM
        self.layers: dict[str, tuple[str, ...]] = {}  # what is not confirmed of the present cut, by VM
        self.rules: dict[str, Sequence[convert.Data]] = {}  # of the firewall, as they were read after they were set
        self.doubts: dict[str, str] = {}  # why the old sessions of a VM count as alive without proof

    # How

    def read(self, ids: Sequence[str], detail: frozenset[Detail] = frozenset()) -> dict[str, Vm | VmwardError]:
        at_most = self.patience_to_read()
        end = time.monotonic() + at_most
        if any(vm_id not in self.rows for vm_id in ids):
            self.locate()
        statuses = self._statuses(ids)
        parts = {vm_id: self._parts(vm_id, statuses) for vm_id in ids}
        jobs = {vm_id: self._reader(vm_id).submit(partial(self._read, vm_id, detail, parts[vm_id])) for vm_id in ids}
        return self._answers(jobs, end, at_most)

    def powers(self, vms: Sequence[Vm]) -> dict[str, Vm | VmwardError]:
        """One list of each node; of a VM that is alone there or has left it, its own state."""
        at_most = self.patience_to_read()
        end = time.monotonic() + at_most
        statuses = self._statuses([vm.ref.id for vm in vms])
        jobs = {vm.ref.id: self._reader(vm.ref.id).submit(partial(self._with_power, vm, statuses)) for vm in vms}
        return self._answers(jobs, end, at_most)

    def _with_power(self, vm: Vm, statuses: Mapping[str, Future[Any]]) -> Vm:
        listed = statuses.get(self.reachable(vm.ref))
        status = listed.result().get(vm.ref.id) if listed else None
        status = status or self.at(vm.ref, "read", "get", STATUS)
        return replace(vm, power=convert.power_of(vm.ref, status, str(status.get("lock", ""))))

    def _answers(self, jobs: Mapping[str, Future[Vm]], end: float, at_most: float) -> dict[str, Vm | VmwardError]:
        answer: dict[str, Vm | VmwardError] = {}
        for vm_id, job in jobs.items():
            try:
                answer[vm_id] = attempt(f"judge {vm_id}", self._result_of, job, vm_id, end, at_most)
            except VmwardError as exc:
                answer[vm_id] = exc
        return answer

    def patience_to_read(self) -> float:
        """Half the time that the task has left: what has been read by then can still be cut."""
        left = self.link.end - LAST - time.monotonic()
        return min(READ_AT_MOST, max(left / 2, SOONER * FIRST)) if left > 0 else SOONER * LAST

    def _reader(self, vm_id: str) -> Crew:
        return self.link.reader(str(self.rows.get(vm_id, {}).get("node", "")))

    def _result_of(self, job: Future[Vm], vm_id: str, end: float, at_most: float) -> Vm:
        try:
            return job.result(max(end - time.monotonic(), 0.0))
        except FutureTimeout as exc:
            raise TimedOut(
                f"Cannot read {vm_id} on {self.name}: no whole answer in {at_most:.0f} s. Look at its node "
                f"{self.rows.get(vm_id, {}).get('node', '')}, block its switch port if it must be cut, and run again."
            ) from exc

    def _statuses(self, ids: Sequence[str]) -> dict[str, Future[Any]]:
        """Of all VMs, by node; whatever holds for one reading only is forgotten."""
        with self.lock:
            self.silent.clear()
            for key in [key for key in self.once if key.startswith("now ")]:
                del self.once[key]
        return {node: self.link.reader(node).submit(listed) for node, listed in self._listings(ids).items()}

    def _listings(self, ids: Sequence[str]) -> dict[str, Callable[[], dict[str, Any]]]:
        """One list for each node that holds several of the VMs: it tells every VM's state at once."""
        nodes = [str(self.rows[vm_id]["node"]) for vm_id in ids if vm_id in self.rows]
        nodes = [node for node in nodes if node not in self.offline]

        def listing(node: str) -> Callable[[], dict[str, Any]]:
            def call() -> dict[str, Any]:
                rows = self.link.call("read the VMs' states", None, "get", f"nodes/{node}/qemu", full=1)
                return {str(row["vmid"]): row for row in rows if row.get("qmpstatus")}

            return call

        return {node: listing(node) for node in set(nodes) if nodes.count(node) > 1}

    def _parts(self, vm_id: str, statuses: Mapping[str, Future[Any]]) -> dict[str, Future[Any]]:
        """What every reading needs, asked side by side. The crew takes these before the jobs that wait for them."""
        row = self.rows.get(vm_id, {"template": 1})
        if row.get("template"):
            return {}
        listed = statuses.get(str(row["node"]))
        wanted = PARTS if listed else {**PARTS, STATUS: "read"}
        reader = self._reader(vm_id)
        parts = {path: reader.submit(partial(self._part, vm_id, what, path)) for path, what in wanted.items()}
        return {**parts, **({"listed": listed} if listed else {})}

    def _part(self, vm_id: str, what: str, path: str) -> Any:
        ref = self.ref(vm_id)
        self.reachable(ref)
        return self.at(ref, what, "get", path)

    def _read(self, vm_id: str, detail: frozenset[Detail], parts: Mapping[str, Future[Any]]) -> Vm:
        ref = self.ref(vm_id)
        self.reachable(ref)
        if self.rows[vm_id].get("template"):
            raise NeverRuns(
                f"Cannot use {ref.name} ({vm_id}) on {self.name}: it is a template, not a VM. Name a VM made from it."
            )
        rows, firewall, sets = (parts[path].result() for path in PARTS)
        node = self.node(vm_id)
        status = parts[STATUS].result() if STATUS in parts else parts["listed"].result().get(vm_id)
        status = status or self.at(ref, "read", "get", STATUS)  # it has left the node that was listed
        comment = next((one.get("comment", "") for one in sets if one["name"] == note.NAME), None)
        hardware = self._hardware(node, rows)
        seen = convert.Seen(node, status, rows, firewall, comment, hardware)
        if detail != FINDING:
            self.seen[vm_id] = seen
        return self._vm(ref, seen, detail)

    def _vm(self, ref: VmRef, seen: convert.Seen, detail: frozenset[Detail]) -> Vm:
        ref = VmRef(self.name, ref.id, seen.config("name") or ref.name, ref.aliases)
        doubts, found, power = [], None, PowerState.RUNNING
        unproven: list[str] = []
        try:
            power = convert.power_of(ref, seen.status, str(seen.status.get("lock") or seen.config("lock")))
        except Unsupported as exc:
            doubts.append(str(exc))
        try:
            found = note.note_of(seen.comment, self._lives(ref, seen, power is PowerState.SUSPENDED, unproven))
        except ValueError as exc:
            doubts.append(
                f"Cannot judge {ref.name} ({ref.id}) on {self.name}: its undo note cannot be read ({exc}). It is the "
                f"comment of the IP set {note.NAME} in the VM's firewall: restore it from the ledger's undo entry."
            )
        if detail != FINDING:
            self.doubts[ref.id] = "".join(unproven[:1])
        quarantine = str(self.link.options.get("quarantine") or "")
        nics = convert.nics_of(seen, found, quarantine, Detail.ADDRESSES in detail)
        vm = Vm(
            ref,
            power,
            nics,
            convert.memory_of(seen.config("memory")),
            True,
            disks=self._disks(ref, seen) if Detail.DISKS in detail else (),
            snapshots=self._snapshots(ref, seen, found) if Detail.SNAPSHOTS in detail else (),
            note=found,
            firewall=self._layer(ref, nics, found, seen) if detail != FINDING else (),
            tags=tuple(alias.replace("tag:", "", 1) for alias in ref.aliases),
        )
        if doubts:
            raise Unjudged(" ".join(doubts), vm)
        return vm

    def _lives(self, ref: VmRef, seen: convert.Seen, saved: bool, unproven: list[str]) -> Callable[[str, int], bool]:
        """Does the memory of the QEMU process that the note names still live? What is not proven of it is added."""

        def lives(then: str, since: int) -> bool:
            if saved or not seen.mark:
                return saved
            moved = then.split(":", maxsplit=1)[0] != seen.node
            return moved or then == seen.mark or self._carried(ref, seen.node, since - SKEW, unproven)

        return lives

    def _carried(self, ref: VmRef, node: str, since: int, unproven: list[str]) -> bool:
        """Another process on the same node was started cold, unless a task brought memory from disk or elsewhere."""
        lacking = rights.missing(self.permissions(), [rights.on_node(node, "Sys.Audit")])
        why = f"{lacking[0]} is missing, which shows the tasks of others" if lacking else ""
        try:
            rows = self.link.call(
                "list the tasks of",
                ref,
                "get",
                f"nodes/{node}/tasks",
                source="all",
                vmid=ref.id,
                since=since,
                limit=LIMIT,
            )
        except VmwardError as exc:
            rows, why = [], str(exc)
        why = why or ("the list of its tasks is too long" if len(rows) >= LIMIT else "")
        tasks = [row for row in rows if str(row.get("id")) == ref.id and row.get("type") in CARRYING]
        if tasks or why:
            told = f"a task {tasks[0]['type']} since its cut may have brought its memory back" if tasks else why
            unproven.append(f"that it was started cold since its cut is not proven ({told})")
        return bool(tasks or why)

    def _snapshots(self, ref: VmRef, seen: convert.Seen, found: IsolationNote | None) -> tuple[Snapshot, ...]:
        rows = self.at(ref, "list the snapshots of", "get", "/snapshot")
        all_ = convert.snapshots_of(rows, len(rows) > 2 and self._newest_only(seen))
        return tuple(self._held(ref, snapshot) if found and snapshot.memory else snapshot for snapshot in all_)

    def _held(self, ref: VmRef, snapshot: Snapshot) -> Snapshot:
        """With memory, the guest of a contained VM runs on at once, wired as it was then: only links down hold it.

        The firewall would not: it lets established connections pass.
        """
        config = self.at(ref, "read a snapshot of", "get", f"/snapshot/{snapshot.id}/config")
        up = [
            key for key, value in config.items()
            if convert.NET.match(key) and convert.fields(str(value)).get("link_down") != "1"
        ]  # fmt: skip
        up += [key for key in config if convert.PASSED.match(key)]
        if not up or snapshot.blocked:
            return snapshot
        return replace(
            snapshot,
            blocked="it holds memory, so Proxmox VE lets the guest run at once, wired as it was then, with "
            f"{', '.join(sorted(up))} connected. Use a snapshot without memory",
        )

    def storage(self, name: str) -> Mapping[str, Any]:
        """What the cluster tells of a storage; nothing where it hides it."""
        rows = self._hidden("storages", "storage") or ()
        return next((row for row in rows if row["storage"] == name), {})

    def _newest_only(self, seen: convert.Seen) -> bool:
        """Do the disks lie where only the newest snapshot can be gone back to? Storages that hide are not judged."""
        drives = [drive for drive in disks.drives_of(seen).values() if drive.get("media") != "cdrom"]
        used = [self.storage(drive["volume"].split(":")[0]) for drive in drives]  # of others PVE takes no snapshots
        return any(
            row.get("type") in disks.NEWEST_ONLY or str(row.get("snapshot-as-volume-chain", 0)) == "1" for row in used
        )

    def _disks(self, ref: VmRef, seen: convert.Seen) -> tuple[Disk, ...]:
        drives = disks.drives_of(seen)
        volumes: dict[str, Any] = {}
        for storage in sorted({drive["volume"].split(":")[0] for drive in drives.values() if ":" in drive["volume"]}):
            path = f"nodes/{seen.node}/storage/{storage}/content"
            try:
                rows = self.link.call("read the disks of", ref, "get", path, vmid=ref.id, content="images")
            except (AuthFailed, Rejected):
                continue  # sizes and formats as the configuration tells them
            volumes.update((row["volid"], row) for row in rows)
        return tuple(disks.disk_of(key, drive, volumes) for key, drive in drives.items())

    def _hardware(self, node: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """What passed-through devices are. A host that does not tell leaves each a possible network card."""
        passed = {
            row["key"]: str(row.get("value", row.get("pending", "")))
            for row in rows
            if convert.PASSED.match(row["key"])
        }
        kinds = {}
        for key, value in passed.items():
            kind = "pci" if key.startswith("hostpci") else "usb"
            told = self._hidden(f"{kind} on {node}", f"nodes/{node}/hardware/{kind}")
            pci, usb = (told, None) if kind == "pci" else (None, told)
            kinds[key] = convert.passed_kind(key, value, pci, usb)
        return kinds

    def _hidden(self, key: str, path: str, **chosen: Any) -> Any:
        """What the log-in may not be allowed to read; None then."""
        try:
            return self.one_time(key, lambda: self.link.call("read " + key, None, "get", path, **chosen))
        except VmwardError:
            return None

    # The second layer

    def _layer(
        self, ref: VmRef, nics: Sequence[Nic], found: IsolationNote | None, seen: convert.Seen
    ) -> tuple[tuple[str, str, str], ...]:
        """The firewall of a VM that is cut; what of it is not confirmed is kept for the remarks."""
        if found is None or not nics or any(nic.isolation is Isolation.FREE for nic in nics):
            self.layers[ref.id] = ()
            return ()
        try:
            rules = self.rules.pop(ref.id, None)
            if rules is None:
                rules = self.at(ref, "read the firewall rules of", "get", "/firewall/rules")
        except VmwardError as exc:
            self.layers[ref.id] = (f"its firewall rules cannot be read ({exc})",)
            return note.layer(found, seen.firewall, None)
        self.layers[ref.id] = self._unconfirmed(found, seen, rules)
        return note.layer(found, seen.firewall, rules)

    def _unconfirmed(self, found: IsolationNote, seen: convert.Seen, rules: Sequence[convert.Data]) -> tuple[str, ...]:
        cluster = self._hidden("now the cluster's firewall", "cluster/firewall/options")
        service = self._hidden(f"now firewall of {seen.node}", f"nodes/{seen.node}/services/pve-firewall/state")
        nets = {key: convert.fields(seen.live(key) or seen.config(key)) for key in seen.keys(convert.NET)}
        state = str((service or {}).get("state", ""))
        return note.unconfirmed(found.mode, seen.firewall, rules, nets, cluster, state)

    def tell(self, vm: VmRef, remark: str) -> None:
        with self.lock:
            self.told.setdefault(vm.id, []).append(remark)

    def remarks(self, vm_id: str) -> tuple[str, ...]:
        """Warnings of tasks, layers that are not confirmed, certificates that are not checked."""
        found = [*self.told.get(vm_id, ()), *([self.doubts[vm_id]] if self.doubts.get(vm_id) else [])]
        if self.layers.get(vm_id):
            found.append(
                "its cut rests on its links alone; the firewall as second layer is not confirmed: "
                + "; ".join(self.layers[vm_id])
            )
        if not self.link.options.get("validate_certs", True):
            found.append(f"the certificate of {self.name} is not checked (validate_certs: false)")
        return tuple(found)

    # Rights

    def permissions(self) -> rights.Rights:
        return self.one_time(
            "rights", lambda: self.link.call("read the permissions", None, "get", "access/permissions")
        )

    def quarantine_of(self, vm: Vm) -> str:
        raise NotImplementedError

    def rehearse(self, vm: Vm, steps: Sequence[Callable[[Any], object]], check: bool) -> None:
        rehearsal = Rehearsal(vm, str(self.link.options.get("quarantine") or ""))
        for step in steps:
            step(rehearsal)
        lacking = [need for _what, needs, lans in rehearsal.noted for need in self._lacking(vm.ref, needs, lans)]
        if lacking:
            self._refuse(rehearsal.noted[0][0], vm.ref, list(dict.fromkeys(lacking)))
        if check and rehearsal.quarantines:
            self.quarantine_of(vm)

    def require(self, what: str, vm: VmRef, *needs: rights.Need, lans: Sequence[str] = ()) -> None:
        """Before the first write: raise ``NotAllowed`` with exactly what is missing."""
        lacking = self._lacking(vm, needs, lans)
        if lacking:
            self._refuse(what, vm, lacking)

    def _lacking(self, vm: VmRef, needs: Sequence[rights.Need], lans: Sequence[str]) -> list[str]:
        held = self.permissions()
        wanted = [*needs, *rights.on_bridges(held, lans)]
        return rights.missing(held, wanted, str(self.rows.get(vm.id, {}).get("pool", "")))

    def _refuse(self, what: str, vm: VmRef, lacking: Sequence[str]) -> NoReturn:
        who = self.link.options.get("token_id") or self.link.login["user"]
        raise NotAllowed(
            f"Cannot {what} {vm.name} ({vm.id}) on {self.name}: {who} lacks {', '.join(lacking)}.",
            "Give it what it lacks, then run again.",
        )
