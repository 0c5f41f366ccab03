# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where VMs are: one list of the cluster, and what its nodes tell of themselves once in a session."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Callable, TypeVar

from .._errors import NotFound, VmwardError
from .._model import VmRef, printable
from .connection import Connection, NoAnswer, NodeAway, Rejected

T = TypeVar("T")
SILENT = 8  # calls in a row; half of those that are under way at once


class Places:
    """Which VMs there are, on which nodes, and calls that follow a VM to its node."""

    def __init__(self, name: str, link: Connection) -> None:
        self.name, self.link = name, link
        self.rows: dict[str, dict[str, Any]] = {}
        self.containers: list[dict[str, Any]] = []
        self.offline: set[str] = set()  # nodes that the cluster has lost
        self.silent: Counter[str] = Counter()  # by node, calls without an answer since its last one
        self.once: dict[str, Future[Any]] = {}
        self.lock = threading.Lock()

    def refs(self) -> tuple[VmRef, ...]:
        self.locate()
        return tuple(self.ref(vm_id) for vm_id in sorted(self.rows, key=int))

    def ref(self, vm_id: str) -> VmRef:
        row = self.rows.get(vm_id, {})
        return VmRef(self.name, vm_id, str(row.get("name") or vm_id), labels_of(row))

    def locate(self) -> None:
        """Where each VM is now. A node whose statistics are missing is asked for its VMs' names itself."""
        rows = self.link.call("list the VMs", None, "get", "cluster/resources", type="vm")
        found = {str(row["vmid"]): row for row in rows if row.get("type") == "qemu"}
        self.offline = self._lost_nodes()
        for node in {row["node"] for row in found.values() if not row.get("name")} - self.offline:
            try:
                listed = self.link.call("list the VMs", None, "get", f"nodes/{node}/qemu")
            except (NoAnswer, Rejected):
                continue  # its VMs are listed under their ids; `unnamed` tells which
            for row in listed:
                if str(row["vmid"]) in found:
                    found[str(row["vmid"])].update(name=row.get("name"), status=row.get("status"))
        self.rows = found
        self.containers = [row for row in rows if row.get("type") != "qemu"]

    def _lost_nodes(self) -> set[str]:
        try:
            rows = self.link.call("list the nodes", None, "get", "nodes")
        except VmwardError:
            return set()  # not told: then each of its VMs tells that its node does not answer
        return {str(row["node"]) for row in rows if row.get("status") == "offline"}

    def unnamed(self) -> str:
        """The cluster forgets the names of VMs on a node that has been away for some minutes."""
        lost = sorted((row["node"], int(vm_id)) for vm_id, row in self.rows.items() if not row.get("name"))
        if not lost:
            return ""
        told = ", ".join(f"{vm_id} on node {node}" for node, vm_id in lost[:10])
        return (
            f"{self.name} does not know the names of all its VMs, since their nodes do not answer: {told}"
            f"{f' and {len(lost) - 10} more' if len(lost) > 10 else ''}. Name such a VM by its id."
        )

    def no_vm(self, selector: str) -> str:
        """Containers share the kernel of their node: nothing of what is done to a VM holds for them."""
        rows = [row for row in self.containers if selector in (str(row["vmid"]), row.get("name"), *labels_of(row))]
        if not rows:
            return ""
        told = [f"{printable(str(row.get('name') or 'one'), 60)} ({row['vmid']}) on {row['node']}" for row in rows[:10]]
        more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
        return (
            f"{self.name} has containers that are so named, which vmward does not handle: {', '.join(told)}{more}. "
            "Cut one off by hand on its node: link_down=1 on each of its NICs, or pct stop."
        )

    def node(self, vm_id: str) -> str:
        if not self.rows:
            self.locate()
        if vm_id not in self.rows:
            raise self.gone(vm_id)
        return str(self.rows[vm_id]["node"])

    def reachable(self, vm: VmRef) -> str:
        """The VM's node; one that is down is not waited for again and again."""
        node = self.node(vm.id)
        if node in self.offline or self.silent[node] >= SILENT:
            why = "is offline" if node in self.offline else "does not answer"
            raise NodeAway(
                f"Cannot read {vm.name} ({vm.id}) on {self.name}: its node {node} {why}, so that nothing of this VM "
                "can be seen or changed. Block its switch port, and run again when the node is back."
            )
        return node

    def gone(self, vm_id: str) -> NotFound:
        return NotFound(f"The VM {vm_id} is not on {self.name}: it may have been removed meanwhile.")

    def at(self, vm: VmRef, what: str, method: str, path: str, **values: Any) -> Any:
        """A call on the VM's node. One that has moved meanwhile is found again, once."""
        node = self.node(vm.id)
        for last in (False, True):
            try:
                answer = self.link.call(what, vm, method, f"nodes/{node}/qemu/{vm.id}{path}", **values)
                self.silent.pop(node, None)
                return answer
            except NodeAway:
                self.silent[node] += 1
                raise
            except Rejected as exc:
                if not exc.gone or last:
                    raise (self.gone(vm.id) if exc.gone else exc) from exc
            with self.lock:
                self.locate()
            node = self.node(vm.id)
        raise self.gone(vm.id)

    def one_time(self, key: str, call: Callable[[], T]) -> T:
        """Read once in a session, by whoever asks first."""
        with self.lock:
            mine = key not in self.once
            if mine:
                self.once[key] = Future()
            future = self.once[key]
        if mine:
            try:
                future.set_result(call())
            except BaseException as exc:  # noqa: BLE001  handed to all who wait for it
                future.set_exception(exc)
        told: T = future.result()
        return told


def labels_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    tags = str(row.get("tags") or "").replace(",", ";").replace(" ", ";").split(";")
    return (*(f"tag:{tag}" for tag in tags if tag), *([f"pool:{row['pool']}"] if row.get("pool") else []))
