# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work under way on a VM: fired from a thread, taken up where it runs already, polled from the task list."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import replace
from typing import Any, Callable

from .._crew import Crew
from .._errors import NotAllowed, NotVerified, TaskFailed, TimedOut, VmwardError
from .._hypervisor import Detail, Pending
from .._model import Vm, VmRef, printable
from .._wait import poll_all, still_running
from . import convert
from .connection import Connection, NoAnswer, Rejected
from .reading import Reading
from .tasks import Tasks

Reached = Callable[[], bool]
PATIENCE = 60.0  # seconds for a lock to go away: after a rollback with memory one is held for about 30
AGAIN = 2.0  # seconds between two tries
UNNAMED = ("qmsnapshot", "qmdelsnapshot")  # tasks that do not say on which snapshot they work
NAP = 0.3  # seconds between looks at all that is pending: a guest may run until its next step is sent
STILL = 5.0  # seconds for which a VM that was seen to be the same is not looked at again
SLOWLY = 1.0  # seconds between looks at a state that no task tells


class Work(Reading):
    """Submitting and waiting, for all verbs."""

    patience = PATIENCE

    def __init__(self, name: str, link: Connection) -> None:
        super().__init__(name, link)
        self.tasks = Tasks(link)
        self.futures: dict[str, Future[Any]] = {}  # the call under way, by VM
        self.upids: dict[str, str] = {}  # the latest task, by VM
        self.planned: dict[str, convert.Seen] = {}  # as each VM was when a verb was planned for it
        self.read_at: dict[str, float] = {}  # when each was read last
        self.same: dict[str, float] = {}  # when each was last seen to be still the VM that was planned for
        self.replaced: set[str] = set()  # ids that other VMs have now

    def refs(self) -> tuple[VmRef, ...]:
        self.replaced.clear()
        return super().refs()

    def read(self, ids: Sequence[str], detail: frozenset[Detail] = frozenset()) -> dict[str, Vm | VmwardError]:
        self.read_at.update(dict.fromkeys(ids, time.monotonic()))
        return self._but_for_others(super().read(ids, detail))

    def powers(self, vms: Sequence[Vm]) -> dict[str, Vm | VmwardError]:
        return self._but_for_others(super().powers(vms))

    def _but_for_others(self, answer: dict[str, Vm | VmwardError]) -> dict[str, Vm | VmwardError]:
        """How another VM is, that has got the id, is nothing to be told of the one that was planned for."""
        return {vm_id: self.gone(vm_id) if vm_id in self.replaced else told for vm_id, told in answer.items()}

    def rehearse(self, vm: Vm, steps: Sequence[Callable[[Any], object]], check: bool) -> None:
        self.planned[vm.ref.id] = self.seen[vm.ref.id]
        self.same[vm.ref.id] = self.read_at[vm.ref.id]
        super().rehearse(vm, steps, check)

    def require_same(self, what: str, vm: VmRef, now: convert.Seen | None = None) -> None:
        """Before any write: an id is free as soon as its VM is deleted, and Proxmox VE gives it to the next VM.

        What was planned counts: whatever was read since may be of the other one.
        """
        was = self.planned.get(vm.id) or self.seen.get(vm.id)
        if was is None or (now is None and time.monotonic() - self.same.get(vm.id, -math.inf) < STILL):
            return
        now = now or replace(was, rows=self.at(vm, "read", "get", "/pending"))
        if convert.is_another(was, now):
            self.replaced.add(vm.id)
            raise NotVerified(
                f"Cannot {what} {vm.name} ({vm.id}) on {self.name}: another VM has its id now, "
                f"{printable(now.config('name'), 60)}, which was left alone. Look for {vm.name} with vm_info: it was "
                "deleted, or has another id."
            )
        self.same[vm.id] = time.monotonic()

    def wait(
        self, pending: Sequence[Pending], deadline: float, together: float = math.inf
    ) -> Mapping[str, VmwardError | None]:
        """Each VM goes on as soon as its own call has returned; when all calls have, nobody sleeps on."""

        def nap(seconds: float) -> None:
            calls = [self.futures[item.vm.id] for item in pending if item.vm.id in self.futures]
            open_ = [call for call in calls if not call.done()] + self.tasks.looks()
            if open_:
                wait_for(open_, timeout=min(seconds, NAP))
            else:
                time.sleep(min(seconds, NAP))

        outcome = poll_all(pending, deadline, sleep=nap, together=together)
        for item in pending:
            error, upid = outcome.get(item.vm.id), self.upids.get(item.vm.id, "")
            if isinstance(error, TimedOut) and error.task == (item.task or item.what):
                sentence = still_running(replace(item, task=upid), deadline)
                outcome[item.vm.id] = TimedOut(sentence, task=upid or item.what)
        return outcome

    def writer(self, vm: VmRef) -> Crew:
        return self.link.writer(str(self.rows.get(vm.id, {}).get("node", "")))

    def fired(self, vm: VmRef, what: str, call: Callable[[], None]) -> Pending:
        """Work without a task: done when its calls have returned."""
        self.upids.pop(vm.id, None)

        def begin() -> None:
            self.repeated(lambda: self.require_same(what, vm), self.patience)
            call()

        future = self.futures[vm.id] = self.writer(vm).submit(begin)

        def poll() -> bool:
            if future.done():
                future.result()
            return future.done()

        return Pending(vm, what, poll)

    def task(
        self, vm: VmRef, what: str, kind: str, method: str, path: str, reached: Reached,
        known: Callable[[], Mapping[str, str]] | None = None, **values: Any,
    ) -> Pending:  # fmt: skip
        """Work that PVE does in a task. One of this kind that runs already is taken up instead of starting another.

        ``known`` tells the tasks of this kind from before, where only a new one tells whether a call was taken.
        """
        job = Job(self, vm, what, kind, reached, lambda: str(self.at(vm, what, method, path, **values)), known)
        return Pending(vm, what, job.poll)

    def after(self, vm: VmRef, what: str, *steps: Callable[[], Pending]) -> Pending:
        """One step after the other."""
        left = list(steps)
        now = [left.pop(0)()]

        def poll() -> bool:
            try:
                if not now[0].poll():
                    return False
                if not left:
                    return True
                now[0] = left.pop(0)()
                return False
            except NotAllowed as exc:
                if len(left) + 1 == len(steps):
                    raise
                raise exc.later() from exc

        def abort() -> None:
            if now[0].abort:
                now[0].abort()

        return Pending(vm, what, poll, abort=abort)

    def repeated(self, call: Callable[[], object], patience: float) -> None:
        """A write that, made twice, is the same: again while another holds the lock, or when its answer was lost."""
        end = time.monotonic() + patience
        while True:
            try:
                call()
                return
            except (Rejected, NoAnswer) as exc:
                if not passes(exc) or time.monotonic() >= end or self.link.closing.is_set():
                    raise
            self.link.closing.wait(min(AGAIN, patience / 10))

    def snapshot_names(self, vm: VmRef) -> set[str]:
        """Those that are whole."""
        rows = self.at(vm, "list the snapshots of", "get", "/snapshot")
        return {row["name"] for row in rows if not row.get("snapstate")}

    def take_snapshot(self, vm: VmRef, what: str, name: str, description: str, memory: bool) -> Pending:
        values: dict[str, Any] = {"snapname": name, "description": description, **({"vmstate": 1} if memory else {})}
        return self.task(vm, what, "qmsnapshot", "post", "/snapshot", lambda: name in self.snapshot_names(vm), **values)

    def remove_snapshot(self, vm: VmRef, what: str, name: str) -> Pending:
        return self.task(
            vm, what, "qmdelsnapshot", "delete", f"/snapshot/{name}", lambda: name not in self.snapshot_names(vm)
        )

    def is_running(self, vm: VmRef) -> bool:
        return bool(self.at(vm, "read", "get", "/status/current").get("status") == "running")


def passes(exc: Rejected | NoAnswer) -> bool:
    """Whether it may be otherwise at the next try: another worked there, or no answer came."""
    return isinstance(exc, NoAnswer) or exc.busy


class Job:
    """One task, from its start to its end. Repeated when it ran into another's lock, after reading back."""

    def __init__(
        self, work: Work, vm: VmRef, what: str, kind: str, reached: Reached, start: Callable[[], str],
        known: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:  # fmt: skip
        self.work, self.vm, self.what, self.kind = work, vm, what, kind
        self.reached, self.start, self.known = reached, start, known
        self.before: Mapping[str, str] | None = None  # the tasks that were known before the first try
        self.end = time.monotonic() + work.patience
        self.looked, self.taken_up = 0.0, False
        self.seeing: Future[bool] | None = None  # a look at the state itself
        work.upids.pop(vm.id, None)
        self._fire()

    def _fire(self, pause: float = 0.0) -> None:
        self.future = self.work.futures[self.vm.id] = self.work.writer(self.vm).submit(lambda: self._start(pause))

    def _start(self, pause: float) -> str:
        """The task's id; empty when what it is for is reached already."""
        work = self.work
        if pause:
            work.link.closing.wait(pause)
            if self.reached():
                return ""
        upid = work.tasks.running(work.node(self.vm.id), self.vm, self.kind)
        self.taken_up = bool(upid)
        if self.known and self.before is None:
            self.before = self.known()
        while not upid:
            try:
                work.require_same(self.what, self.vm)
                upid = self.start()
            except (Rejected, NoAnswer) as exc:
                if not passes(exc):
                    raise
                upid = work.tasks.running(work.node(self.vm.id), self.vm, self.kind, fresh=True) or self._begun()
                if not upid and self.reached():
                    return ""
                if not upid and (time.monotonic() >= self.end or work.link.closing.is_set()):
                    raise
                work.link.closing.wait(min(AGAIN, work.patience / 10))
        work.upids[self.vm.id] = upid
        return work.tasks.watch(upid)

    def _begun(self) -> str:
        """The task that a call began whose answer was lost, also when it has ended."""
        if self.before is None:
            return ""
        found = self.work.tasks.of_kind(self.work.node(self.vm.id), self.kind)
        return next((upid for upid, vm_id in found.items() if vm_id == self.vm.id and upid not in self.before), "")

    def poll(self) -> bool:
        if not self.future.done():
            return False
        upid = self.future.result()
        if not upid:
            return True
        try:
            told = self.work.tasks.ended(upid, self.vm, self.what)
        except TaskFailed:
            if "can't lock file" not in str(self.work.tasks.ends[upid]) or time.monotonic() >= self.end:
                raise
            self._fire(min(AGAIN, self.work.patience / 10))
            return False
        if told and self.taken_up and self.kind in UNNAMED:
            is_ours = self._seen()
            if is_ours is False:
                self._fire()  # it was another's, on another snapshot
            if not is_ours:
                return False
        if told not in ("", "OK"):
            self.work.tell(self.vm, told)
        if told and upid.split(":")[5].startswith("ha"):  # the task only asks the HA manager
            return self.seen_slowly()
        return bool(told)

    def seen_slowly(self) -> bool:
        """Look at the state itself, not more often than once a second."""
        if self.seeing is None and time.monotonic() - self.looked < SLOWLY:
            return False
        return bool(self._seen())

    def _seen(self) -> bool | None:
        """Whether it is reached; None while nobody has answered, for which nobody waits."""
        if self.seeing is None:
            self.seeing = self.work.writer(self.vm).submit(self.reached)
        if not self.seeing.done():
            return None
        seeing, self.seeing, self.looked = self.seeing, None, time.monotonic()
        return seeing.result()
