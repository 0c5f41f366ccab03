# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long jobs of one VM: generators that yield as long as they wait, and clean up after themselves however they end."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any, Callable

from .._errors import TaskFailed, VmwardError
from .._hypervisor import Detail
from .._model import Vm
from .connection import Connection, vim, vmodl
from .tasks import Tasks

NOTHING_KEPT = "taken by vmward, and removed again"  # the description of a snapshot that is only a means
GRACE = 30  # seconds that a job which is given up may take to clean up

Waiting = Generator[None, None, Any]


class Steps:
    """A generator as a ``Pending`` polls it. ``abort`` lets it clean up; it raises what must be left behind."""

    def __init__(self, run: Waiting) -> None:
        self.run = run

    def __call__(self) -> bool:
        try:
            next(self.run)
        except StopIteration:
            return True
        return False

    def abort(self) -> None:
        self.run.close()


class Work:
    """What the steps are made of."""

    name: str
    link: Connection
    tasks: Tasks
    machine: Callable[[Any], Any]
    read: Callable[..., Any]
    _retrieve: Callable[[Sequence[Any]], list[tuple[Any, dict[str, Any]]]]

    def called(self, vm: Vm, what: str, action: Callable[[], Any]) -> Any:
        return self.link.call(what, vm.ref, action, repeat=False)

    def properties(self, what: str, obj: Any, *paths: str) -> dict[str, Any]:
        """Properties of one object, now."""
        kind = vmodl.query.PropertyCollector
        wanted = kind.PropertySpec(type=type(obj), pathSet=list(paths))
        spec = kind.FilterSpec(objectSet=[kind.ObjectSpec(obj=obj)], propSet=[wanted])
        found = self.link.call(what, None, lambda: self._retrieve([spec]))
        return next((props for one, props in found if one._moId == obj._moId), {})

    def state_of(self, task: Any) -> tuple[str, Any]:
        """A task's state, and its fault or result."""
        props = self.properties("read a task", task, "info.state", "info.error", "info.result")
        return str(props.get("info.state", "")), props.get("info.error") or props.get("info.result")

    def ended(self, vm: Vm, what: str, task: Any) -> Waiting:
        """Until a task has ended; its result."""
        while True:
            state, told = self.state_of(task)
            if state == "success":
                return told
            if state == "error":
                raise self.link.of_fault(told, f"Cannot {what} {vm.ref.name} ({vm.ref.id}) on {self.name}")
            yield

    def threaded(self, work: Callable[[], None], halt: Callable[[], None], beat: Callable[[], None]) -> Waiting:
        """Until ``work`` has ended in a thread of its own; ``halt`` makes it end early."""
        future = self.tasks.pool.submit(work)
        try:
            while not future.done():
                beat()
                yield
        finally:
            halt()
        return future.result()

    def on_snapshot(self, vm: Vm, what: str, memory: bool, work: Callable[[Any], Waiting]) -> Waiting:
        """Take a snapshot, do the work on it, remove it again. One that a dead run left goes first."""
        prefix = f"vmward {what} "
        for left in self._left(vm, prefix):
            yield from self._removed(vm, left)
        title = prefix + time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        machine, snapshot, failure = self.machine(vm.ref), None, None
        taking = self.called(
            vm, "take a snapshot of", lambda: machine.CreateSnapshot_Task(title, NOTHING_KEPT, memory, False)
        )
        try:
            snapshot = yield from self.ended(vm, "take a snapshot of", taking)
            yield from work(snapshot)
        except VmwardError as exc:
            failure = exc
        except BaseException:  # given up, or something that nobody foresaw
            self._clear(vm, title, taking, snapshot)
            raise
        if snapshot is not None:
            try:
                yield from self._removed(vm, snapshot)
            except VmwardError as exc:
                raise TaskFailed(f"{failure or ''} {exc} {left_behind(title, vm)}".strip()) from exc
        if failure:
            raise failure

    def _left(self, vm: Vm, prefix: str) -> list[Any]:
        found = self.read([vm.ref.id], frozenset([Detail.SNAPSHOTS]))[vm.ref.id]
        if isinstance(found, VmwardError):
            raise found
        ours = [s for s in found.snapshots if s.name.startswith(prefix) and s.description == NOTHING_KEPT]
        return [vim.vm.Snapshot(one.id, self.link.stub) for one in ours]

    def _removed(self, vm: Vm, snapshot: Any) -> Waiting:
        what = "remove the snapshot of"
        task = self.called(vm, what, lambda: snapshot.RemoveSnapshot_Task(False, True))
        yield from self.ended(vm, what, task)

    def _clear(self, vm: Vm, title: str, taking: Any, snapshot: Any) -> None:
        """The job is given up: its snapshot goes, or is named."""
        end = time.monotonic() + GRACE
        try:
            if snapshot is None:
                with suppress(VmwardError):
                    self.called(vm, "end the snapshot of", taking.CancelTask)
                snapshot = within(self.ended(vm, "take a snapshot of", taking), end)
            within(self._removed(vm, snapshot), end)
        except VmwardError as exc:
            if snapshot is not None or self.state_of(taking)[0] != "error":
                raise TaskFailed(left_behind(title, vm)) from exc


def within(run: Waiting, end: float) -> Any:
    """The result of a generator, awaited here until ``end``."""
    while time.monotonic() < end:
        try:
            next(run)
        except StopIteration as exc:
            return exc.value
        time.sleep(0.2)
    raise TaskFailed("It has not ended.")


def left_behind(title: str, vm: Vm) -> str:
    return f"The snapshot '{title}' of {vm.ref.name} is left behind: remove it with vm_snapshot (state: absent)."
