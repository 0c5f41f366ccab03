# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster's tasks: fired together, polled together from each node's one list, told apart by how they end.

Source: U(https://pve.proxmox.com/pve-docs/api-viewer/#/nodes/{node}/tasks).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .._errors import TaskFailed, VmwardError
from .._model import VmRef, printable
from .connection import Connection, NoAnswer, Rejected

FRESH = 0.2  # seconds for which a list that was read serves all who ask
FEW = 2  # so many are asked one by one: the list of a busy node is long
LIMIT = 5000
LAST_LINES = 5
LOG_WITHIN = 5.0  # seconds for the log of a task that did not end well
PATIENCE = 60.0  # seconds without an answer, after which nothing is known of a node's tasks


@dataclass
class Node:
    """What is known of one node. A node that does not answer holds up no look at another."""

    lock: threading.Lock = field(default_factory=threading.Lock)  # one list of what runs there, for all who ask
    active: tuple[float, list[dict[str, Any]]] = (0.0, [])  # that list, and when it was read
    look: Future[None] | None = None  # at our tasks there, the latest
    looked: float = 0.0  # when that had ended
    mute: float = 0.0  # since when no look has been answered


class Tasks:
    """What is known of tasks. A list may lag behind, so that the oldest running one is asked itself."""

    def __init__(self, link: Connection) -> None:
        self.link = link
        self.ends: dict[str, str | None] = {}  # how each task of ours ended; None while it runs
        self.logs: dict[str, tuple[float, Future[str]]] = {}  # of those that did not end well: asked for when, its end
        self.lost: dict[str, Exception] = {}  # why nothing is known of a task
        self.nodes: dict[str, Node] = {}
        self.lock = threading.Lock()

    def watch(self, upid: str) -> str:
        with self.lock:
            self.ends.setdefault(upid, None)
        return upid

    def looks(self) -> list[Future[Any]]:
        """Those that go on."""
        begun: list[Future[Any] | None] = [node.look for node in list(self.nodes.values())]
        begun += [log for _asked, log in list(self.logs.values())]
        return [look for look in begun if look and not look.done()]

    def ended(self, upid: str, vm: VmRef, what: str) -> str:
        """Empty while it runs, "OK", or the words of a warning. Raises ``TaskFailed`` with the log's end.

        It does not wait: where nothing fresh is known, a look begins, whose answer is told the next time.
        """
        if self.ends[upid] is None:
            if error := self.lost.pop(upid, None):
                raise error
            self._begin_look(node_of(upid))
        end = self.ends[upid]
        if end is None or end == "OK":
            return end or ""
        asked, log = self.logs[upid]
        if not log.done() and time.monotonic() - asked < LOG_WITHIN:
            return ""
        lines = log.result() if log.done() else f"(not told within {LOG_WITHIN:g} s)"
        if end.startswith("WARNINGS"):
            return f"{what} ended with warnings: {lines}"
        raise TaskFailed(
            f"Cannot {what} {printable(vm.name)} ({vm.id}) on {self.link.name}: {printable(end, 300).rstrip('.')}. "
            f"The end of the log of task {upid}: {lines}"
        )

    def _begin_look(self, name: str) -> None:
        node = self._node(name)
        if (node.look is None or node.look.done()) and time.monotonic() - node.looked >= FRESH:
            node.look = self.link.reader(name).submit(partial(self._look, name, node))

    def _look(self, name: str, node: Node) -> None:
        """It only reads: where no answer comes, it is taken again, for a while."""
        began = time.monotonic()
        with self.lock:
            asked = self._open(name)
        try:
            self._refresh(name, asked)
        except Exception as exc:  # noqa: BLE001  carried to all who wait for these tasks
            node.mute = node.mute or began
            passes = isinstance(exc, NoAnswer) or (isinstance(exc, Rejected) and exc.status >= 500)
            if not passes or time.monotonic() - node.mute >= PATIENCE:
                with self.lock:
                    self.lost.update(dict.fromkeys(asked, exc))
        else:
            node.mute = 0.0
        node.looked = time.monotonic()

    def _node(self, name: str) -> Node:
        with self.lock:
            return self.nodes.setdefault(name, Node())

    def _open(self, name: str) -> list[str]:
        return [upid for upid, end in self.ends.items() if end is None and node_of(upid) == name]

    def _refresh(self, node: str, open_: Sequence[str]) -> None:
        if len(open_) > FEW:
            since = min(int(upid.split(":")[4], 16) for upid in open_)
            rows = self._list(node, source="all", since=since)
            found = {row["upid"]: str(row.get("status", "")) for row in rows if row.get("endtime")}
            self._note({upid: found[upid] for upid in open_ if found.get(upid)})
            open_ = [upid for upid in open_ if upid not in found]
            if open_ and not self._ask(open_[0]):
                return
            open_ = open_[1:]
        for upid in open_:
            self._ask(upid)

    def _ask(self, upid: str) -> bool:
        told = self.link.call("read a task", None, "get", f"nodes/{node_of(upid)}/tasks/{upid}/status")
        if told.get("status") != "stopped":
            return False
        self._note({upid: str(told.get("exitstatus") or "ended without a status")})
        return True

    def _note(self, ends: dict[str, str]) -> None:
        for upid in [upid for upid, end in ends.items() if end != "OK"]:
            self.logs[upid] = time.monotonic(), self.link.reader(node_of(upid)).submit(partial(self._last_lines, upid))
        with self.lock:
            self.ends.update(ends)

    def _list(self, node: str, **chosen: Any) -> Sequence[dict[str, Any]]:
        rows: Sequence[dict[str, Any]] = self.link.call(
            "list the tasks", None, "get", f"nodes/{node}/tasks", limit=LIMIT, **chosen
        )
        return rows

    def running(self, node: str, vm: VmRef, kind: str, fresh: bool = False) -> str:
        """The task of this kind that works on the VM now, whoever started it; empty if none does."""
        place = self._node(node)
        with place.lock:
            read_at, rows = place.active
            if fresh or time.monotonic() - read_at >= 1.0:
                rows = [row for row in self._list(node, source="active") if not row.get("endtime")]
                place.active = (time.monotonic(), rows)
        known = (row["upid"] for row in rows if row["id"] == vm.id and row["type"] == kind)
        return next((upid for upid in known if self.ends.get(upid) is None), "")  # the list may be older than the end

    def of_kind(self, node: str, kind: str) -> dict[str, str]:
        """The VM of each task of this kind that the node still knows, the latest first, running or ended."""
        rows = self._list(node, source="all", typefilter=kind)
        return {row["upid"]: row["id"] for row in rows if row["type"] == kind}

    def _last_lines(self, upid: str) -> str:
        """Of its log; a log that cannot be read says so."""
        try:
            lines = self.lines(upid, None)
        except VmwardError as exc:
            return f"(not readable: {exc})"
        return " | ".join(printable(line, 200) for line in lines[-LAST_LINES:]) or "(empty)"

    def lines(self, upid: str, vm: VmRef | None) -> list[str]:
        rows = self.link.call("read a task's log", vm, "get", f"nodes/{node_of(upid)}/tasks/{upid}/log", limit=500)
        return [str(row["t"]) for row in rows if row.get("t")]


def node_of(upid: str) -> str:
    return upid.split(":")[1]
