# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan, run and read back, on a hypervisor made of lambdas."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils import _plan
from ansible_collections.vmward.remediation.plugins.module_utils._errors import NotAllowed, TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._fake.hypervisor import FakeHypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import LAST, Pending, done
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation, PowerState, Vm, VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Plan, Step, UseCase, differences, execute
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._wait import poll_all
from ansible_collections.vmward.remediation.tests.conformance.benches import FakeBench

REF = VmRef("hv1", "id-1", "desk1")


class OneVm:
    """A hypervisor with one VM, whose power is what the last step left."""

    name = "hv1"

    def __init__(self) -> None:
        self.power = PowerState.STOPPED
        self.log: list[str] = []

    def until(self, end: float) -> None:
        """No call of its hangs."""

    def rehearse(self, vm: Vm, steps: object, check: bool) -> None:
        """It tells no rights."""

    def read(self, ids, detail=frozenset()):  # type: ignore[no-untyped-def]
        return {REF.id: Vm(REF, self.power, (), 0, True)}

    def wait(self, pending, deadline, together=0.0):  # type: ignore[no-untyped-def]
        return poll_all(pending, 1, now=lambda: 0.0, sleep=lambda _seconds: None)

    def remarks(self, vm_id: str) -> tuple[str, ...]:
        return ("it was simulated",)

    def become(self, power: PowerState) -> Pending:
        self.power = power
        self.log.append(power.value)
        return done(REF, "become")


class Turn(UseCase):
    """To running, by the steps given."""

    def __init__(self, *steps: Step, shortfall: str = "") -> None:
        self.steps, self.shortfall = steps, shortfall

    def view(self, vm):  # type: ignore[no-untyped-def]
        return {"power": vm.power.value if vm else "absent"}

    def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
        return Plan(self.view(vm), {"power": "running"}, self.steps, shortfall=self.shortfall)


def fail(_hypervisor: object) -> Pending:
    raise TaskFailed("No.")


def becoming(power: PowerState) -> Any:
    return lambda hypervisor: hypervisor.become(power)


PAUSE = Step("pause", becoming(PowerState.PAUSED), becoming(PowerState.STOPPED))
RUN = Step("run", becoming(PowerState.RUNNING))


def outcome(usecase: UseCase, check: bool = False):  # type: ignore[no-untyped-def]
    hypervisor = OneVm()
    (told,) = execute(hypervisor, usecase, [("id-1", "desk1")], 5, check)  # type: ignore[arg-type]
    return told, hypervisor


def test_check_mode_touches_nothing_and_predicts() -> None:
    told, hypervisor = outcome(Turn(PAUSE, RUN), check=True)
    assert (told.changed, told.after, told.steps, hypervisor.log) == (True, {"power": "running"}, ["pause", "run"], [])


def test_steps_run_in_order_and_are_read_back() -> None:
    told, hypervisor = outcome(Turn(PAUSE, RUN))
    assert (told.failed, told.after, hypervisor.log) == (False, {"power": "running"}, ["paused", "running"])


def test_an_ok_that_reading_back_does_not_show_is_a_failure() -> None:
    told, _hypervisor = outcome(Turn(PAUSE))
    assert told.failed
    assert told.msg == "Read back on desk1: power is paused, not running."
    assert told.changed


def test_an_ok_after_which_nothing_is_seen_to_be_otherwise_is_a_change() -> None:
    """It may have written what the view does not show, as an undo note's collectors."""
    told, _hypervisor = outcome(Turn(Step("run", lambda _hypervisor: done(REF, "run"))))
    assert told.msg == "Read back on desk1: power is stopped, not running."
    assert (told.failed, told.changed) == (True, True)


@pytest.mark.parametrize(("first", "changed"), [("written", True), ("undone", False), ("failed", False)])
def test_what_was_done_before_a_failure_is_a_change(first: str, changed: bool) -> None:
    steps = {
        "written": Step("write", lambda _hypervisor: done(REF, "write")),
        "undone": PAUSE,
        "failed": Step("write", fail),
    }
    told, _hypervisor = outcome(Turn(steps[first], Step("break", fail)))
    assert told.after == told.before
    assert (told.failed, told.changed) == (True, changed)


def forbid(_hypervisor: object) -> Pending:
    raise NotAllowed("Cannot write: a right is missing.", "Give it.")


FORBIDDEN, AGAIN = Step("write", forbid, always=True), Step("cut again", becoming(PowerState.PAUSED), always=True)


def test_who_is_not_allowed_to_begin_has_nothing_to_put_back() -> None:
    told, hypervisor = outcome(Turn(FORBIDDEN, AGAIN))
    assert told.msg.startswith("Cannot write: a right is missing. Nothing was touched. Give it.")
    assert (told.changed, hypervisor.log) == (False, [])


@pytest.mark.parametrize("first", [fail, PAUSE.submit])
def test_a_right_that_is_missing_later_ends_nothing_that_is_always_tried(first: Any) -> None:
    """The step before it may be in effect though it has failed: a deadline that is over stops no revert."""
    told, hypervisor = outcome(Turn(Step("revert", first), FORBIDDEN, AGAIN))
    assert hypervisor.log[-1] == "paused"
    assert told.steps[-1] == "cut again"
    assert "Cannot write: a right is missing. Give it." in told.msg, "something was touched"


def test_a_cut_that_is_made_again_has_its_seconds_however_late_it_begins() -> None:
    """A call that opens a connection of its own first may take longer than a moment."""
    given: list[float] = []

    class Late(OneVm):
        def wait(self, pending, deadline, together=0.0):  # type: ignore[no-untyped-def]
            given.append(deadline)
            return super().wait(pending, deadline, together)

    again = Step("isolate again", becoming(PowerState.RUNNING), always=True)
    execute(Late(), Turn(PAUSE, again), [("id-1", "desk1")], 0, False)  # type: ignore[arg-type]
    assert given == [1.0, LAST]


@pytest.mark.parametrize(("step", "changed"), [(FORBIDDEN, False), (Step("break", fail), True)])
def test_a_vm_that_is_not_read_back_is_changed_unless_nothing_was_begun(step: Step, changed: bool) -> None:
    class Blind(OneVm):
        def read(self, ids, detail=frozenset()):  # type: ignore[no-untyped-def]
            self.read = surprise  # type: ignore[method-assign]
            return super().read(ids, detail)

    (told,) = execute(Blind(), Turn(step), [(REF.id, "desk1")], 5, False)  # type: ignore[arg-type]
    assert (told.failed, told.changed, told.after) == (True, changed, {"power": "unknown"})


def test_a_failed_step_undoes_those_before_it_and_says_so() -> None:
    told, hypervisor = outcome(Turn(PAUSE, Step("break", fail)))
    assert told.failed
    assert told.msg.startswith("No. Undone: pause.")
    assert hypervisor.log == ["paused", "stopped"]


@pytest.mark.parametrize(("undo", "taken"), [(None, ["pause"]), (PAUSE.undo, []), (fail, ["pause"])])
def test_the_steps_that_are_told_are_those_that_were_taken(undo: Any, taken: list[str]) -> None:
    told, _hypervisor = outcome(Turn(Step("pause", PAUSE.submit, undo), Step("break", fail), RUN))
    assert told.steps == taken


def test_an_undo_that_fails_is_told() -> None:
    told, _hypervisor = outcome(Turn(Step("pause", PAUSE.submit, fail), Step("break", fail)))
    assert "NOT undone: pause (No.)" in told.msg


def test_what_the_hypervisor_remarks_is_told() -> None:
    (outcome,) = execute(OneVm(), Turn(), [(REF.id, "desk1")], 5, True)  # type: ignore[arg-type]
    assert outcome.warnings == ["it was simulated"]


def test_no_warning_steers_the_readers_terminal() -> None:
    class Named(OneVm):
        def remarks(self, vm_id: str) -> tuple[str, ...]:
            return ("\x1b[2Jdesk1 is suspended",)

    (outcome,) = execute(Named(), Turn(), [(REF.id, "desk1")], 5, True)  # type: ignore[arg-type]
    assert outcome.warnings == ["\\x1b[2Jdesk1 is suspended"]


def test_nothing_to_do_is_no_change() -> None:
    told, hypervisor = outcome(Turn())
    assert (told.changed, told.failed, hypervisor.log) == (False, False, [])


def test_what_cannot_be_read_back_is_claimed_by_nobody(tmp_path: Path) -> None:
    """Also where every step was answered with OK: the case stays, under which the note was written."""

    class Blind(FakeHypervisor):
        reads = 0

        def read(self, ids, detail=frozenset()):  # type: ignore[no-untyped-def]
            self.reads += 1
            if self.reads > 1:
                raise TaskFailed("The line is dead.")
            return super().read(ids, detail)

    bench = FakeBench(tmp_path)
    vm_id = bench.create("desk1")
    hypervisor = Blind("hv1", str(tmp_path / "state.json"))
    (told,) = execute(hypervisor, SetIsolation(Isolation.SEALED, "2026-0142"), [(vm_id, "desk1")], 5, False)
    assert bench.vm(vm_id).isolation is Isolation.SEALED
    assert (told.failed, told.changed) == (True, True)
    assert told.msg == "Cannot read desk1 back: The line is dead."
    assert (told.after["isolation"], told.after["case"]) == ("unknown", "2026-0142")
    assert [nic["isolation"] for nic in told.after["nics"].values()] == ["unknown"]
    assert "sealed" not in str(told.after)


def test_reading_back_has_its_seconds_however_late_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    now, ends = [100.0], []

    class Slow(OneVm):
        def until(self, end: float) -> None:
            ends.append(end)

        def become(self, power: PowerState) -> Pending:
            now[0] += 60
            return super().become(power)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    (told,) = execute(Slow(), Turn(RUN), [("id-1", "desk1")], 30, False)  # type: ignore[arg-type]
    assert not told.failed
    assert ends[-1] > 160 + LAST


def test_a_shortfall_fails_after_all_was_done_and_in_check_mode_too() -> None:
    for check in (True, False):
        told, _hypervisor = outcome(Turn(RUN, shortfall="One NIC is open."), check)
        assert told.failed
        assert told.msg == "One NIC is open."


def test_a_bug_in_a_backend_is_that_vms_own_failure() -> None:
    told, _hypervisor = outcome(Turn(Step("divide", lambda _hv: 1 / 0)))  # type: ignore[arg-type,return-value]
    assert "ZeroDivisionError" in told.msg


class Several(OneVm):
    """Some VMs; the first step of one ends only when all others have taken all of theirs."""

    ids = ("hung", "a", "b")

    def read(self, ids, detail=frozenset()):  # type: ignore[no-untyped-def]
        return {vm_id: Vm(VmRef("hv1", vm_id, vm_id), PowerState.RUNNING, (), 0, True) for vm_id in ids}

    def wait(self, pending, deadline, together=0.0):  # type: ignore[no-untyped-def]
        ended: dict[str, Exception | None] = {one.vm.id: None for one in pending if one.poll()}
        return ended or {one.vm.id: TaskFailed("It hung.") for one in pending}


class Numbered(Turn):
    """Two steps for each VM, and one that is always tried."""

    def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
        def submit(hypervisor, name):  # type: ignore[no-untyped-def]
            hypervisor.log.append(f"{vm.ref.id} {name}")
            return Pending(vm.ref, name, lambda: vm.ref.id != "hung" or name == "third")

        def step(name: str, always: bool = False) -> Step:
            return Step(name, lambda hypervisor: submit(hypervisor, name), always=always)

        return Plan({}, {}, (step("first"), step("second"), step("third", always=True)))


def test_a_step_that_hangs_holds_up_no_other_vm() -> None:
    hypervisor = Several()
    chosen = [(vm_id, vm_id) for vm_id in Several.ids]
    outcomes = execute(hypervisor, Numbered(), chosen, 5, False)  # type: ignore[arg-type]
    first, second, third = ([f"{vm_id} {name}" for vm_id in ("a", "b")] for name in ("first", "second", "third"))
    assert hypervisor.log == ["hung first", *first, *second, *third, "hung third"]
    assert [(outcome.name, outcome.msg) for outcome in outcomes] == [("hung", "It hung."), ("a", ""), ("b", "")]


class Unread(Several):
    """Once changed, one of its VMs is read only when all others have taken all of their steps."""

    def __init__(self) -> None:
        super().__init__()
        self.others_done = threading.Event()

    def read(self, ids, detail=frozenset()):  # type: ignore[no-untyped-def]
        if self.log and "hung" in ids:
            self.others_done.wait()
        return super().read(ids, detail)

    def wait(self, pending, deadline, together=0.0):  # type: ignore[no-untyped-def]
        if {"a third", "b third"} <= set(self.log):
            self.others_done.set()
        return poll_all(pending, deadline, together=together)


class Fresh(UseCase):
    """Three steps for each VM, of which two need it as it is then."""

    def view(self, vm):  # type: ignore[no-untyped-def]
        return {}

    def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
        def submit(name, now=None):  # type: ignore[no-untyped-def]
            assert now is None or now.ref == vm.ref
            hypervisor.log.append(f"{vm.ref.id} {name}")
            return done(vm.ref, name)

        first = Step("first", lambda _hypervisor: submit("first"))
        again = [
            Step(name, lambda _hypervisor, now, name=name: submit(name, now), always=True, fresh=True)
            for name in ("second", "third")
        ]
        return Plan({}, {}, (first, *again))


def test_a_reading_that_hangs_holds_up_no_other_vms_next_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plan, "LAST", 0.2)
    hypervisor = Unread()
    chosen = [(vm_id, vm_id) for vm_id in Unread.ids]
    outcomes = execute(hypervisor, Fresh(), chosen, 20, False)  # type: ignore[arg-type]
    assert [outcome.msg for outcome in outcomes] == ["", "", ""]
    assert [outcome.steps for outcome in outcomes] == [["first", "second", "third"]] * 3
    assert hypervisor.log[-2:] == ["hung second", "hung third"]


def test_a_reading_that_never_ends_is_that_vms_own_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    class Never(Unread):
        def wait(self, pending, deadline, together=0.0):  # type: ignore[no-untyped-def]
            return poll_all(pending, deadline, together=together)

        def read(self, ids, detail=frozenset()):  # type: ignore[no-untyped-def]
            return super().read([vm_id for vm_id in ids if len(self.log) < 7 or vm_id != "hung"], detail)

    monkeypatch.setattr(_plan, "LAST", 0.2)
    hypervisor = Never()
    chosen = [(vm_id, vm_id) for vm_id in Never.ids]
    outcomes = execute(hypervisor, Fresh(), chosen, 1, False)  # type: ignore[arg-type]
    assert "Cannot read the VMs on hv1: no answer" in outcomes[0].msg
    assert [outcome.msg for outcome in outcomes[1:]] == ["", ""]
    hypervisor.others_done.set()


def surprise(*_args: object, **_named: object) -> Any:
    raise KeyError("size")


@pytest.mark.parametrize("method", ["wait", "read", "remarks"])
def test_a_surprise_in_a_backend_hides_nothing_of_what_was_done(method: str) -> None:
    class Odd(OneVm):
        def become(self, power: PowerState) -> Pending:
            setattr(self, method, surprise)
            return super().become(power)

    (told,) = execute(Odd(), Turn(RUN), [(REF.id, "desk1")], 5, False)  # type: ignore[arg-type]
    assert told.changed
    assert told.before == {"power": "stopped"}
    assert told.after == {"power": "unknown" if method == "read" else "running"}
    assert told.failed is (method != "remarks")
    assert "unexpected KeyError" in (told.msg or told.warnings[-1])


def test_a_surprise_in_the_view_of_one_vm_is_its_own_failure() -> None:
    class Odd(Turn):
        def view(self, vm):  # type: ignore[no-untyped-def]
            return surprise() if vm.power is PowerState.RUNNING else super().view(vm)

    (told,) = execute(OneVm(), Odd(RUN), [(REF.id, "desk1")], 5, False)  # type: ignore[arg-type]
    assert (told.changed, told.failed, told.after) == (True, True, {"power": "unknown"})
    assert "unexpected KeyError" in told.msg


def test_differences_are_named_by_path_and_hostile_values_are_printable() -> None:
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 2, "d": 3}) == []
    assert differences({"a": {"b": 1}}, {"a": {"b": "\x1b[2J"}}) == ["a.b is \\x1b[2J, not 1"]
