# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How every change happens: plan, submit, wait, read back, compare. Written once, for all verbs and all hypervisors."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Callable

from ._crew import apart, within
from ._errors import NotAllowed, NotFound, NotVerified, Unjudged, VmwardError, attempt
from ._hypervisor import FIRST, LAST, Detail, Hypervisor, Pending
from ._model import Vm, printable

View = dict[str, Any]
Vms = Mapping[str, "Vm | VmwardError"]
Submit = Callable[[Hypervisor], Pending]
TOGETHER = 1.0  # seconds after the first VM's step has ended, in which others may still take the next one with it


@dataclass(frozen=True)
class Step:
    """One change of one VM: what it says to the reader, how it is submitted, how it is undone where that is safe."""

    text: str
    submit: Callable[..., Pending]
    undo: Submit | None = None
    always: bool = False  # tried even after an earlier step has failed
    fresh: bool = False  # submitted with the VM as it is then, which is read in bulk

    def submitted(self, hypervisor: Hypervisor, vm: Vm | None) -> Pending:
        return self.submit(hypervisor, vm) if self.fresh else self.submit(hypervisor)


@dataclass(frozen=True)
class Plan:
    """What a verb would do to one VM. ``changed`` is "there are steps"."""

    before: View
    after: View
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    shortfall: str = ""  # why the goal cannot be reached whole, although the steps are right to take
    proof: Callable[[Vm], list[str]] | None = None  # what of the VM read back is wrong, where views do not tell

    @property
    def changed(self) -> bool:
        return bool(self.steps)


class UseCase(ABC):
    """A verb: how it sees a VM, and what it plans. Planning reads and never writes."""

    detail: frozenset[Detail] = frozenset()
    cuts = False  # whether it only cuts off, and so goes on where something of the VM cannot be judged
    only_power = False  # whether its view holds nothing but the power, so that nothing else is read back
    needs_all = True  # whether it refuses to act while one of the hypervisors cannot be asked for a VM of the same name

    @abstractmethod
    def view(self, vm: Vm | None) -> View:
        """The part of the VM that this verb is about, as plain data; of None when the VM is gone."""

    @abstractmethod
    def plan(self, hypervisor: Hypervisor, vm: Vm) -> Plan:
        """The steps from what is to what is wanted. Raises before anything is touched."""

    def unread(self, plan: Plan) -> View:
        """What is known of a VM that was changed and cannot be read back: nothing."""
        return unknown(plan.after)

    def remarks(self, hypervisor: str, vm_id: str) -> tuple[str, ...]:
        """What came up while a VM's steps were taken, and is no failure."""
        return ()


@dataclass
class Outcome:
    """What became of one VM."""

    name: str
    id: str = ""
    hypervisor: str = ""
    changed: bool = False
    failed: bool = False
    msg: str = ""
    before: View = field(default_factory=dict)
    after: View = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    task: str = ""

    def fail(self, error: VmwardError) -> None:
        self.failed = True
        told = printable(str(error), 4000)  # it may hold the name that a VM was given
        self.msg = f"{self.msg} {told}" if self.msg else told
        self.task = getattr(error, "task", None) or self.task


class Run:
    """One verb over the chosen VMs of one hypervisor."""

    def __init__(self, hypervisor: Hypervisor, usecase: UseCase, deadline: float, check: bool) -> None:
        self.hypervisor, self.usecase, self.check = hypervisor, usecase, check
        self.end = time.monotonic() + deadline
        self.outcomes: dict[str, Outcome] = {}
        self.plans: dict[str, Plan] = {}
        self.vms: dict[str, Vm] = {}  # as they were when it was planned
        self.left_steps: dict[str, Iterator[Step]] = {}  # of each VM
        self.latest: dict[str, Step] = {}
        self.done: dict[str, list[Step]] = {}
        self.reading: dict[str, Future[Vms]] = {}  # VMs whose next step awaits how they are
        self.untouched: set[str] = set()  # VMs whose first step already was not allowed

    def left(self, least: float) -> float:
        """The seconds that what comes now has. Past the deadline the hypervisor's own calls may last as long."""
        left = self.end - time.monotonic()
        if left < least:
            self.hypervisor.until(time.monotonic() + least + LAST)
        return max(left, least)

    def read(self, vm_ids: Sequence[str], detail: frozenset[Detail], least: float) -> Vms:
        """The VMs as they are; a read that is not answered in time is given up."""
        return self._read(partial(self.hypervisor.read, vm_ids, detail), least)

    def _read(self, call: Callable[[], Vms], least: float) -> Vms:
        found: Vms = within(self.left(least), f"read the VMs on {self.hypervisor.name}", call)
        return found

    def plan(self, names: dict[str, str]) -> None:
        for vm_id, vm in self.read(list(names), self.usecase.detail, FIRST).items():
            if vm_id not in names:
                continue
            outcome = self.outcomes[vm_id] = Outcome(names[vm_id], vm_id, self.hypervisor.name)
            outcome.warnings = [printable(str(vm), 1000)] if self.usecase.cuts and isinstance(vm, Unjudged) else []
            vm = self._enough(vm)
            if isinstance(vm, VmwardError):
                outcome.fail(vm)
                continue
            try:
                plan = attempt(f"plan for {outcome.name}", self._planned, vm)
            except VmwardError as exc:
                outcome.fail(exc)
                continue
            self.plans[vm_id], self.left_steps[vm_id], self.done[vm_id] = plan, iter(plan.steps), []
            self.vms[vm_id] = vm
            outcome.changed, outcome.steps = plan.changed, [step.text for step in plan.steps]
            outcome.before, outcome.after = plan.before, plan.after
            outcome.warnings += plan.warnings

    def _planned(self, vm: Vm) -> Plan:
        plan = self.usecase.plan(self.hypervisor, vm)
        if plan.steps:
            self.hypervisor.rehearse(vm, [partial(step.submitted, vm=vm) for step in plan.steps], self.check)
        return plan

    def _enough(self, vm: Vm | VmwardError) -> Vm | VmwardError:
        """What was read, if the verb can go on with it."""
        known: Vm | VmwardError = vm.vm if self.usecase.cuts and isinstance(vm, Unjudged) else vm
        return known

    def apply(self) -> None:
        """Each VM goes from step to step by itself: one that hangs holds up no other.

        Those that are ready at about the same time take their next steps together.
        """
        under_way: dict[str, Pending] = {}
        while True:
            while ready := self._ready(under_way):
                under_way.update(self._submit(ready))
            if not under_way and not self.reading:
                return
            if not under_way:
                wait(self.reading.values(), return_when=FIRST_COMPLETED)
                wait(self.reading.values(), TOGETHER)
                continue
            began = time.monotonic()
            ended = self._wait(under_way)
            awaited = time.monotonic() - began
            for vm_id, error in ended.items():
                self._end(vm_id, error)
            under_way = {
                vm_id: replace(pending, awaited=pending.awaited + awaited)
                for vm_id, pending in under_way.items()
                if vm_id not in ended
            }

    def _wait(self, under_way: Mapping[str, Pending]) -> Mapping[str, VmwardError | None]:
        least = LAST if any(self.latest[vm_id].always for vm_id in under_way) else 1.0  # a cut comes late, not never
        try:
            ended: Mapping[str, VmwardError | None] = attempt(
                "wait", self.hypervisor.wait, list(under_way.values()), self.left(least), TOGETHER
            )
        except VmwardError as exc:
            return dict.fromkeys(under_way, exc)
        return ended

    def _ready(self, under_way: Collection[str]) -> dict[str, Step]:
        """The next step of each VM that awaits nothing; of one that has failed, what is tried all the same."""
        ready = {}
        for vm_id, steps in self.left_steps.items():
            if vm_id in under_way:
                continue
            if vm_id in self.reading:
                step = self.latest[vm_id] if self.reading[vm_id].done() else None
            else:
                failed = self.outcomes[vm_id].failed
                step = next((one for one in steps if one.always or not failed), None)
            if step:
                ready[vm_id] = self.latest[vm_id] = step
        return ready

    def _submit(self, steps: Mapping[str, Step]) -> dict[str, Pending]:
        pending = {}
        now = self._fresh([vm_id for vm_id, step in steps.items() if step.fresh])
        for vm_id, step in steps.items():
            if vm_id in self.reading:
                continue
            try:
                pending[vm_id] = attempt(step.text, self._submitted, step, now.get(vm_id))
            except VmwardError as exc:
                self._end(vm_id, exc)
        return pending

    def _end(self, vm_id: str, error: VmwardError | None) -> None:
        if error is None:
            self.done[vm_id].append(self.latest[vm_id])
            return
        if isinstance(error, NotAllowed):
            if self.latest[vm_id] is self.plans[vm_id].steps[0]:
                self.untouched.add(vm_id)
                self.left_steps[vm_id] = iter(())  # it is as it was: there is nothing to put back
            else:
                error = error.later()
        self._give_up(self.outcomes[vm_id], self.done[vm_id], error)

    def _fresh(self, vm_ids: Sequence[str]) -> dict[str, Vm | VmwardError]:
        """The VMs as they are now. Where they are not told in time, each is read apart, and goes on when it is told."""
        if not vm_ids:
            return {}
        told = {vm_id: self.reading.pop(vm_id) for vm_id in vm_ids if vm_id in self.reading}
        others = [vm_id for vm_id in vm_ids if vm_id not in told]
        together = apart(partial(self._as_they_are, others))
        wait([together], LAST / 2)  # sooner than it is given up
        if together.done():
            told.update(dict.fromkeys(others, together))
        else:
            self.reading.update((vm_id, apart(partial(self._as_they_are, [vm_id]))) for vm_id in others)
            wait(self.reading.values(), TOGETHER)
        return {vm_id: answer.result().get(vm_id, NotFound("The VM is gone.")) for vm_id, answer in told.items()}

    def _as_they_are(self, vm_ids: Sequence[str], detail: frozenset[Detail] = frozenset()) -> Vms:
        """What has been changed may be wired as it must not be: it is read though the deadline has passed."""
        return self._late(vm_ids, partial(self.hypervisor.read, vm_ids, detail))

    def _late(self, vm_ids: Sequence[str], call: Callable[[], Vms]) -> Vms:
        try:
            found: Vms = attempt("read", self._read, call, LAST) if vm_ids else {}
        except VmwardError as exc:
            return dict.fromkeys(vm_ids, exc)
        return found

    def _submitted(self, step: Step, now: Vm | VmwardError | None) -> Pending:
        if step.always and isinstance(now, Unjudged):
            now = now.vm  # a cut that is made again is made with what is known
        if isinstance(now, VmwardError):
            raise now
        return step.submitted(self.hypervisor, now)

    def _give_up(self, outcome: Outcome, done: list[Step], error: VmwardError) -> None:
        again = outcome.failed
        outcome.fail(error)
        if again:
            return
        for step in [step for step in reversed(done) if step.undo]:
            try:
                attempt("undo: " + step.text, self._undo, outcome.id, step.undo)
            except VmwardError as exc:
                outcome.msg += f" NOT undone: {step.text} ({printable(str(exc), 1000)})."
            else:
                outcome.msg += f" Undone: {step.text}."
                done.remove(step)

    def _undo(self, vm_id: str, undo: Submit) -> None:
        seconds = self.left(LAST)
        failure = self.hypervisor.wait([undo(self.hypervisor)], seconds)[vm_id]
        if failure is not None:
            raise failure

    def read_back(self) -> None:
        """Compare what is with what was promised; a difference is a failure, whatever the hypervisor had answered."""
        touched = [vm_id for vm_id, plan in self.plans.items() if plan.changed]
        if self.usecase.only_power:
            found = self._late(touched, partial(self.hypervisor.powers, [self.vms[vm_id] for vm_id in touched]))
        else:
            found = self._as_they_are(touched, self.usecase.detail)
        for vm_id, plan in self.plans.items():
            outcome = self.outcomes[vm_id]
            outcome.steps = [step.text for step in self.done[vm_id]]
            wrong: list[str] = []
            if plan.changed:
                try:
                    actual = self._enough(found.get(vm_id, NotFound("The VM is gone.")))
                    wrong = attempt(f"judge {outcome.name}", self._compare, outcome, plan, actual)
                except VmwardError as exc:
                    outcome.fail(NotVerified(f"Cannot read {outcome.name} back: {exc}"))
                    outcome.changed = vm_id not in self.untouched
                    meant = plan if outcome.changed else replace(plan, after=plan.before)
                    outcome.after = self.usecase.unread(meant)
                    continue
            if plan.shortfall:
                outcome.fail(NotVerified(plan.shortfall))
            if wrong:
                outcome.fail(NotVerified("Read back on {}: {}.".format(outcome.name, "; ".join(wrong))))

    def _compare(self, outcome: Outcome, plan: Plan, actual: Vm | VmwardError) -> list[str]:
        """What of the VM is otherwise than promised. One that is gone is a state too."""
        if isinstance(actual, VmwardError) and not isinstance(actual, NotFound):
            raise actual
        outcome.after = self.usecase.view(None if isinstance(actual, VmwardError) else actual)
        outcome.changed = outcome.after != plan.before or bool(self.done[outcome.id])
        if plan.proof and isinstance(actual, Vm):
            return plan.proof(actual)
        return differences(plan.after, outcome.after)


def unknown(view: View) -> View:
    """The same keys, and no claim."""
    return {key: unknown(value) if isinstance(value, dict) else "unknown" for key, value in view.items()}


def differences(wanted: View, actual: View, path: str = "") -> list[str]:
    """Name every value that is not as wanted; keys that the plan did not speak of are free."""
    found: list[str] = []
    for key, value in wanted.items():
        name, is_ = path + key, actual.get(key)
        if isinstance(value, dict) and isinstance(is_, dict):
            found += differences(value, is_, name + ".")
        elif value != is_ and (key in actual or not found):  # what is not told beside a difference is no other one
            found.append(f"{name} is {printable(str(is_))}, not {printable(str(value))}")
    return found


def remarks(run: Run, vm_id: str) -> tuple[str, ...]:
    """They may hold the name that a VM was given; that they cannot be told takes no outcome away."""
    try:
        told = attempt("tell more of it", run.hypervisor.remarks, vm_id)
    except VmwardError as exc:
        told = (str(exc),)
    return (*run.usecase.remarks(run.hypervisor.name, vm_id), *told)


def execute(
    hypervisor: Hypervisor, usecase: UseCase, chosen: Sequence[tuple[str, str]], deadline: float, check: bool
) -> list[Outcome]:
    """Run a verb on VMs of one hypervisor; ``chosen`` holds (id, name as the user said it). Outcomes in that order."""
    started = time.monotonic()
    names = dict(chosen)
    run = Run(hypervisor, usecase, deadline, check)
    run.plan(names)
    if not check:
        run.apply()
        run.read_back()
    else:
        for vm_id, plan in run.plans.items():
            if plan.shortfall:
                run.outcomes[vm_id].fail(NotVerified(plan.shortfall))
    for outcome in run.outcomes.values():
        outcome.warnings = [printable(told, 4000) for told in (*outcome.warnings, *remarks(run, outcome.id))]
        outcome.seconds = round(time.monotonic() - started, 3)
    return [run.outcomes[vm_id] for vm_id, _name in chosen]
