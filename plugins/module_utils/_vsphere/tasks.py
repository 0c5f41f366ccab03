# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many tasks at once: their calls go out together, one property wait awaits them all.

Source: U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vmodl.query.PropertyCollector.html).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as await_calls
from dataclasses import replace
from typing import Any, Callable

from .._crew import Crew, within
from .._errors import TimedOut, VmwardError, attempt
from .._hypervisor import Pending
from .._model import VmRef, printable
from .._wait import poll_all, still_running
from .connection import THREADS, Connection, vim, vmodl

Call = Callable[[], Any]
LONGEST = 10  # seconds that one wait call may last, or half the connection's time-out
SHORTEST = 1  # where something else than the server decides when a wait is over
SILENCE = 2.0  # seconds without an answer to any call, after which those under way are not waited for together


class Job:
    """One change of one VM, as a ``Pending`` polls it: a call, and the task or the power state that it leads to."""

    def __init__(self, tasks: Tasks, vm: VmRef, what: str, calls: Sequence[Call], ends: str, already: str) -> None:
        self.tasks, self.vm, self.what = tasks, vm, what
        self.calls = list(calls)  # one after the other; a task must have ended before the next call goes out
        self.always: list[Call] = []  # after them, whatever became of them
        self.ends = ends  # the power state that ends it, where the server gives no task
        self.already = already  # the power state in which the request is no error, for it is fulfilled
        self.pieces: list[Call] = []  # done instead, each for itself, when the whole has failed
        self.piecewise = False
        self.awaiting = False  # the first call is for a task of somebody else's, whose failure is not ours
        self.failure: VmwardError | None = None
        self.target: Any = None  # the object to watch
        self.future: Future[Any] | None = None
        self._next()

    @property
    def task(self) -> str:
        return str(self.target._moId) if isinstance(self.target, vim.Task) else ""

    def __call__(self) -> bool:
        """Has it ended? Raises what went wrong."""
        while self.future is not None:
            try:
                if not self._step_ended(self.future):
                    return False
            except VmwardError as exc:
                if not self.awaiting:
                    self._after(exc)
            self.awaiting = False
            self._next()
        if self.failure:
            raise self.failure
        return True

    def _next(self) -> None:
        self.target, self.future = None, None
        if not self.calls:
            self.calls, self.always = self.always, []
        if self.calls:
            self.future = self.tasks.submit(self.what, self.vm, self.calls.pop(0))

    def _after(self, error: VmwardError) -> None:
        if self.pieces:
            self.calls, self.pieces, self.piecewise = self.pieces, [], True
            return
        self.failure = self.failure or error
        if not self.piecewise:
            self.calls = []

    def _step_ended(self, future: Future[Any]) -> bool:
        if not future.done():
            return False
        if self.target is None:
            answer = self._answer(future)
            if isinstance(answer, vim.Task):
                self.target = answer
            elif self.ends:
                self.target = self.tasks.machine(self.vm)
            else:
                return True
        seen = self.tasks.seen.get(self.target._moId, {})
        if self.tasks.is_gone(self.target._moId):
            self._fail(vmodl.fault.ManagedObjectNotFound(msg="it is gone"))
        if self.ends:
            return bool(seen.get("runtime.powerState") == self.ends)
        if seen.get("info.state") == "error":
            self._fail(seen.get("info.error"))
        return seen.get("info.state") in ("success", "error")

    def _answer(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except VmwardError as exc:
            if self._is_fulfilled(exc.__cause__):
                return None
            raise

    def _is_fulfilled(self, fault: Any) -> bool:
        return isinstance(fault, vim.fault.InvalidPowerState) and fault.existingState == self.already

    def _fail(self, fault: Any) -> None:
        if not self._is_fulfilled(fault):
            start = f"Cannot {self.what} {printable(self.vm.name)} ({self.vm.id}) on {self.tasks.link.name}"
            raise self.tasks.link.of_fault(fault, start)


class Tasks:
    """The jobs under way on one endpoint."""

    def __init__(self, link: Connection, machine: Callable[[VmRef], Any]) -> None:
        self.link, self.machine = link, machine
        self.crew = Crew(THREADS)
        self.lock = threading.Lock()  # for the list of jobs
        self.turn = threading.Lock()  # the server takes one wait at a time
        self.jobs: list[Job] = []  # not yet waited for to the end
        self.calling = False  # a call has gone out since they were last polled
        self.hanging: set[Future[Any]] = set()  # calls whose answer did not come with the others'
        self.seen: dict[str, dict[str, Any]] = {}  # object id -> what the wait has told of it
        self._filters: list[Any] = []
        self._watched: set[str] = set()
        self._version, self._generation = "", 0

    def submit(self, what: str, vm: VmRef, call: Call) -> Future[Any]:
        self.calling = True
        return self.crew.submit(lambda: self.link.run(what, vm, call, False))

    def start(
        self,
        vm: VmRef,
        what: str,
        *calls: Call,
        ends: str = "",
        already: str = "",
        pieces: Sequence[Call] = (),
        always: Sequence[Call] = (),
        awaiting: bool = False,
    ) -> Pending:
        """Send the calls off. What they do is told by ``wait``."""
        job = Job(self, vm, what, calls, ends, already)
        job.awaiting = awaiting
        job.pieces, job.always = list(pieces), list(always)
        with self.lock:
            self.jobs.append(job)
        return Pending(vm, what, job)

    def wait(
        self, pending: Sequence[Pending], deadline: float, together: float = math.inf
    ) -> Mapping[str, VmwardError | None]:
        """Every pending ends, or is named as still running, or is left out for now."""
        ids = {item.vm.id for item in pending}
        if not self._of(ids):  # nothing that the server could tell of: a job of another kind
            return poll_all(pending, deadline, together=together)
        outcome: dict[str, VmwardError | None] = {}
        open_, end, leave = list(pending), time.monotonic() + deadline, math.inf
        try:
            while open_ and time.monotonic() < leave:
                self._take_answers(ids, min(end, leave))
                self.calling = False
                open_ = [item for item in open_ if not has_ended(item, outcome)]
                leave = min(leave, time.monotonic() + together) if outcome else leave
                left = end - time.monotonic()
                if left <= 0:
                    outcome.update((item.vm.id, late(item, deadline)) for item in open_)
                    break
                if open_ and not self.calling:
                    self._await(ids, left, leave, SHORTEST if leave < end else LONGEST)
        except VmwardError as exc:
            outcome.update((item.vm.id, exc) for item in open_)
        finally:
            self._forget(outcome)
        return outcome

    def _of(self, ids: Collection[str]) -> list[Job]:
        """Those of these VMs: another thread may wait for others."""
        return [job for job in self.jobs if job.vm.id in ids]

    def _take_answers(self, ids: Collection[str], end: float) -> None:
        """Wait for the calls as long as they are answered; one that hangs holds up no other VM."""
        open_ = {job.future for job in self._of(ids) if job.future and not job.future.done()} - self.hanging
        while open_ and (left := end - time.monotonic()) > 0:
            silent = await_calls(open_, timeout=min(SILENCE, left)).not_done
            if len(silent) == len(open_):
                self.hanging |= silent
            open_ = silent - self.hanging

    def _await(self, ids: Collection[str], left: float, leave: float, longest: int) -> None:
        """One wait for news of what is under way; a short one where something else decides too."""
        hanging = [job.future for job in self._of(ids) if job.future in self.hanging and not job.target]
        known = [(job.target, job.ends) for job in self.jobs]  # now: another thread's goes on meanwhile
        targets = {target._moId: target for target, _ends in known if target and not self.is_gone(target._moId)}
        if hanging and not targets:
            await_calls(hanging, timeout=min(SHORTEST, left), return_when=FIRST_COMPLETED)
            return
        longest = min(longest, self.link.options["timeout"] // 2)
        if hanging or not targets or any(ends for target, ends in known if target):
            longest = SHORTEST
        seconds = max(int(min(left, longest)), 1)
        if not self.turn.acquire(timeout=max(min(left, leave - time.monotonic()), 0.0)):
            return
        try:
            self._take_news(targets, left, seconds)
        except TimedOut:  # the deadline is over
            return
        finally:
            self.turn.release()

    def _take_news(self, targets: Mapping[str, Any], left: float, seconds: int) -> None:
        what = "await the tasks"
        update = within(left, what, lambda: self.link.run(what, None, lambda: self._updates(targets, seconds)))
        if update is None:
            return
        self._version = update.version
        for changed in (one for found in update.filterSet for one in found.objectSet):
            kept = self.seen.setdefault(changed.obj._moId, {"gone": False})
            kept["gone"] = changed.kind == "leave"
            kept.update((change.name, change.val) for change in changed.changeSet if change.val is not None)

    def _updates(self, targets: Mapping[str, Any], seconds: int) -> Any:
        if self._generation != self.link.generation:  # filters die with their session
            self._filters, self._watched, self._version = [], set(), ""
            self._generation = self.link.generation
        collector = self.link.content.propertyCollector
        options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=seconds)
        try:
            if not self._watched >= set(targets):  # a next task of somebody's chain: begin anew, with all of them
                self._unwatch()
                self._filters = [collector.CreateFilter(filter_of(list(targets.values())), False)]
                self._watched = set(targets)
            return collector.WaitForUpdatesEx(self._version, options)
        except vmodl.fault.ManagedObjectNotFound as exc:
            if exc.obj is None or exc.obj._moId not in targets:
                raise
            self.seen.setdefault(exc.obj._moId, {})["gone"] = True  # it alone; the others are awaited on
            self._unwatch()
            return None

    def is_gone(self, moid: str) -> bool:
        return bool(self.seen.get(moid, {}).get("gone"))

    def _unwatch(self) -> None:
        for known in self._filters:
            known.DestroyPropertyFilter()
        self._filters, self._watched, self._version = [], set(), ""

    def _forget(self, ids: Collection[str]) -> None:
        """The filter stays until the next wait needs another, or dies with the session."""
        with self.lock:
            self.jobs = [job for job in self.jobs if job.vm.id not in ids]
            if not self.jobs:
                self._version, self.seen, self.hanging = "", {}, set()

    def close(self) -> None:
        """What has not begun by now never does: its VM was told to have failed."""
        self.crew.dismiss()


def has_ended(item: Pending, outcome: dict[str, VmwardError | None]) -> bool:
    try:
        if not attempt(item.what, item.poll):
            return False
        outcome[item.vm.id] = None
    except VmwardError as exc:
        outcome[item.vm.id] = exc
    return True


def late(item: Pending, deadline: float) -> TimedOut:
    task = getattr(item.poll, "task", "")
    return TimedOut(still_running(replace(item, task=task), deadline), task=task or item.what)


def filter_of(targets: Sequence[Any]) -> Any:
    collector = vmodl.query.PropertyCollector
    paths = {vim.Task: ["info.state", "info.error"], vim.VirtualMachine: ["runtime.powerState"]}
    kinds = {kind for kind in paths for target in targets if isinstance(target, kind)}
    return collector.FilterSpec(
        objectSet=[collector.ObjectSpec(obj=target) for target in targets],
        propSet=[collector.PropertySpec(type=kind, pathSet=paths[kind]) for kind in kinds],
    )
