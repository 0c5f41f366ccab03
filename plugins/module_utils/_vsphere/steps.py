# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long jobs of one VM: generators that yield as long as they wait, and clean up after themselves however they end."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Callable

from .._errors import TaskFailed, VmwardError
from .._hypervisor import Detail
from .._model import Snapshot, Vm
from .connection import LOST, Connection, vmodl
from .tasks import Tasks

NOTHING_KEPT = "taken by vmward, and removed again"  # the description of a snapshot that is only a means
MEMORY, DISK = "vmward memory ", "vmward disk "  # and a time: their names
GRACE = 30  # seconds that tidying up may take at the end

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


@dataclass(frozen=True)
class Removal:
    """A snapshot on its way out, after its evidence was copied whole."""

    vm: Vm
    title: str
    ended: Waiting


class Work:
    """What the steps are made of."""

    name: str
    removals: list[Removal]
    told: dict[str, list[str]]  # VM id -> what a responder should know of its snapshots
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
        future = self.tasks.crew.submit(work)
        try:
            while not future.done():
                beat()
                yield
        finally:
            halt()
        return future.result()

    def on_snapshot(self, vm: Vm, prefix: str, work: Callable[[Any], Waiting]) -> Waiting:
        """Take a snapshot, do the work on it, have it removed. How that removal ends no longer touches the work."""
        yield from self._settled()
        self._tell_left(vm)
        title = prefix + time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        machine, taking, snapshot = self.machine(vm.ref), None, None
        try:
            taking = self.called(
                vm,
                "take a snapshot of",
                lambda: machine.CreateSnapshot_Task(title, NOTHING_KEPT, prefix == MEMORY, False),
            )
            snapshot = yield from self.ended(vm, "take a snapshot of", taking)
            yield from work(snapshot)
        except VmwardError as exc:
            if snapshot is not None:
                yield from self._removed_after(exc, vm, title, snapshot)
            elif isinstance(exc.__cause__, LOST) or (taking and exc.__cause__):  # not the task failed: it may go on
                raise TaskFailed(f"{exc} {left_behind(title, vm, 'may be')}") from exc
            raise
        except BaseException:  # given up, or something that nobody foresaw
            if taking:
                self._clear(vm, title, taking, snapshot)
            raise
        removal = Removal(vm, title, self._removed(vm, snapshot))
        self.removals.append(removal)
        has_ended(removal, self.told)

    def _removed_after(self, failure: VmwardError, vm: Vm, title: str, snapshot: Any) -> Waiting:
        try:
            yield from self._removed(vm, snapshot)
        except VmwardError as exc:
            raise TaskFailed(f"{failure} {exc} {left_behind(title, vm)}") from exc

    def _settled(self) -> Waiting:
        """Until the removals of earlier snapshots have ended, well or not."""
        while self.removals:
            self.removals[:] = [one for one in self.removals if not has_ended(one, self.told)]
            if self.removals:
                yield

    def leftovers(self, vm_id: str) -> tuple[str, ...]:
        """What lies in this VM's snapshots still. Removals under way get a little time."""
        with suppress(TaskFailed):
            within(self._settled(), time.monotonic() + GRACE)
        late = [
            f"The evidence was copied whole. The removal of its snapshot '{one.title}' has not ended: see with vm_info "
            "that it goes."
            for one in self.removals
            if one.vm.ref.id == vm_id
        ]
        return (*self.told.get(vm_id, ()), *late)

    def _tell_left(self, vm: Vm) -> None:
        """One that a dead run left may hold the only memory of its moment: it stays, and is told."""
        known = self.told.setdefault(vm.ref.id, [])
        for name in (one.name for one in self.left(vm, MEMORY, DISK)):
            if not any(f"'{name}'" in text for text in known):
                known.append(
                    f"An earlier run left the snapshot '{name}' of {vm.ref.name}: it is of an earlier moment, and was "
                    "not touched. Keep it as evidence, or remove it with vm_snapshot (state: absent)."
                )

    def kept_memory(self, vm: Vm) -> tuple[str, ...]:
        return tuple(one.name for one in sorted(self.left(vm, MEMORY), key=lambda one: one.created))

    def left(self, vm: Vm, *prefixes: str) -> list[Snapshot]:
        found = self.read([vm.ref.id], frozenset([Detail.SNAPSHOTS]))[vm.ref.id]
        if isinstance(found, VmwardError):
            raise found
        return [s for s in found.snapshots if s.name.startswith(prefixes) and s.description == NOTHING_KEPT]

    def _removed(self, vm: Vm, snapshot: Any) -> Waiting:
        what = "remove the snapshot of"
        task = self.called(vm, what, lambda: snapshot.RemoveSnapshot_Task(False, True))
        yield from self.ended(vm, what, task)

    def _has_failed(self, task: Any) -> bool:
        try:
            return bool(self.state_of(task)[0] == "error")
        except VmwardError:  # nobody knows
            return False

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
            if snapshot is not None or not self._has_failed(taking):
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


def has_ended(removal: Removal, told: dict[str, list[str]]) -> bool:
    """Whether a removal has ended; one that failed is told."""
    try:
        next(removal.ended)
    except StopIteration:
        return True
    except VmwardError as exc:
        told.setdefault(removal.vm.ref.id, []).append(
            f"The evidence was copied whole. {exc} {left_behind(removal.title, removal.vm)}"
        )
        return True
    return False


def left_behind(title: str, vm: Vm, there: str = "is") -> str:
    return f"The snapshot '{title}' of {vm.ref.name} {there} left behind: remove it with vm_snapshot (state: absent)."
