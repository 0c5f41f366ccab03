# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One task over several hypervisors: whose failure is whose."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils import _module
from ansible_collections.vmward.remediation.plugins.module_utils._errors import Ambiguous, TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._fake.hypervisor import FakeHypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import FIRST
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation, Vm
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Outcome
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve
from ansible_collections.vmward.remediation.tests.conformance.benches import FakeBench, mac


def cut(bench: FakeBench, *vms: str) -> list[Outcome]:
    params = {"hypervisors": {"hv1": bench.entry}, "only": [], "vms": list(vms), "deadline": 30}
    return _module.whole(params, lambda _params: SetIsolation(Isolation.SEALED), False)


def test_a_vm_named_twice_has_one_fate(tmp_path: Path) -> None:
    bench = FakeBench(tmp_path)
    vm_id = bench.create("desk1", ["uncuttable"])
    first, twin = cut(bench, "desk1", vm_id)
    assert first.failed
    assert twin.failed
    assert twin.msg == f"Same VM as desk1. {first.msg}"


def test_a_log_out_that_fails_takes_no_outcome_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def close(_self: FakeHypervisor) -> None:
        raise RuntimeError("502")

    bench = FakeBench(tmp_path)
    bench.create("desk1")
    monkeypatch.setattr(FakeHypervisor, "close", close)
    (outcome,) = cut(bench, "desk1")
    assert not outcome.failed


def test_an_address_is_not_looked_up_past_a_vm_that_cannot_be_read(tmp_path: Path) -> None:
    bench = FakeBench(tmp_path)
    bench.create("infected")
    vm_id = bench.create("clone")

    class Blind(FakeHypervisor):
        def read(self, ids, detail=frozenset()):  # type: ignore[no-untyped-def]
            told = super().read(ids, detail)
            return {i: vm if i == vm_id else TaskFailed("An unknown NIC.") for i, vm in told.items()}

    hypervisor = Blind("hv1", str(tmp_path / "state.json"))
    found = resolve([hypervisor], hypervisor.refs(), [mac(0), "clone"])
    assert isinstance(found[mac(0)], Ambiguous)
    assert "infected: An unknown NIC." in str(found[mac(0)])
    assert found["clone"] == next(ref for ref in hypervisor.refs() if ref.id == vm_id)


class Two(dict[str, FakeBench]):
    """Hypervisors a and b, each of which can be held at a call until a gate opens."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        for name in "ab":
            (path / name).mkdir()
            self[name] = FakeBench(path / name)
        self.gates: dict[tuple[str, str], threading.Event] = {}
        self.begun: dict[tuple[str, str], threading.Event] = {}

    def hold(self, name: str, verb: str) -> threading.Event:
        self.begun[name, verb] = threading.Event()
        return self.gates.setdefault((name, verb), threading.Event())

    def passes(self, name: str, verb: str) -> None:
        if (name, verb) in self.gates:
            self.begun[name, verb].set()
            self.gates[name, verb].wait(60)

    def cut(self, *vms: str, deadline: float = 30) -> list[Outcome]:
        entries = {name: bench.entry for name, bench in self.items()}
        params = {"hypervisors": entries, "only": [], "vms": list(vms), "deadline": deadline}
        return _module.whole(params, lambda _params: SetIsolation(Isolation.SEALED, "2026-1"), False)

    def state(self, name: str, vm_id: str) -> Isolation:
        vm = self[name].vm(vm_id)
        assert isinstance(vm, Vm)
        return vm.isolation


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    made = Two(tmp_path)

    def gated(verb: str) -> Callable[..., Any]:
        real = getattr(FakeHypervisor, verb)

        def call(self: FakeHypervisor, *args: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():  # the bench itself is not held
                made.passes(self.name, "look up" if verb == "read" and args[1:] and args[1] else verb)
            return real(self, *args)

        return call

    for verb in ("refs", "read", "submit_note", "submit_isolate"):
        monkeypatch.setattr(FakeHypervisor, verb, gated(verb))
    yield made
    for gate in made.gates.values():
        gate.set()


def test_a_twin_that_becomes_known_after_the_cut_is_told(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypervisor b lists its VMs while the cut on a is under way."""
    first, second = two["a"].create("desk1"), two["b"].create("desk1")
    monkeypatch.setattr(_module, "PATIENCE", 0.2)
    lists, cut = two.hold("b", "refs"), two.hold("a", "submit_isolate")
    ended, told = _module.Batch.ended, []

    def late(batch: _module.Batch) -> dict[str, Outcome]:
        assert two.begun["a", "submit_isolate"].wait(30)
        lists.set()
        for future in batch.session.asked.values():
            told.append(future.exception(30))
        cut.set()
        return ended(batch)

    monkeypatch.setattr(_module.Batch, "ended", late)
    (outcome,) = two.cut("desk1")
    assert told == [None]
    assert outcome.failed
    assert outcome.msg.startswith(f"'desk1' names 2 VMs: desk1 ({first}) on a; desk1 ({second}) on b. ")
    assert outcome.warnings == []
    assert (two.state("a", first), two.state("b", second)) == (Isolation.SEALED, Isolation.FREE)


def test_the_doubt_goes_when_who_was_late_has_no_such_vm(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    two["a"].create("desk1")
    two["b"].create("desk2")
    monkeypatch.setattr(_module, "PATIENCE", 0.2)
    lists, cut = two.hold("b", "refs"), two.hold("a", "submit_isolate")
    begin = _module.Batch.begin

    def late(batch: _module.Batch, found: Any) -> list[str]:
        unfound = begin(batch, found)
        if not lists.is_set():
            assert two.begun["a", "submit_isolate"].wait(30)
            lists.set()
            cut.set()
        return unfound

    monkeypatch.setattr(_module.Batch, "begin", late)
    outcomes = two.cut("desk1", "desk2")
    assert [(outcome.msg, outcome.warnings) for outcome in outcomes] == [("", []), ("", [])]


def test_a_vm_named_by_its_name_waits_for_no_address(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    two["a"].create("desk1")
    vm_id = two["b"].create("desk2", ["tap", "tap"])
    gate = two.hold("b", "look up")
    cut, passes = [], two.passes

    def order(name: str, verb: str) -> None:
        if (name, verb) == ("a", "submit_isolate"):
            cut.append(gate.is_set())
            gate.set()
        passes(name, verb)

    monkeypatch.setattr(two, "passes", order)
    outcomes = two.cut(mac(1), "desk1")
    assert [outcome.msg for outcome in outcomes] == ["", ""]
    assert cut == [False], "the address was still being looked for"
    assert two.state("b", vm_id) is Isolation.SEALED


def test_addresses_are_read_side_by_side_and_once(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    two["a"].create("desk1")
    vm_id = two["b"].create("desk2", ["tap", "tap"])
    both, reads = threading.Barrier(2), []

    def order(name: str, verb: str) -> None:
        if verb == "look up":
            reads.append(name)
            both.wait(30)

    monkeypatch.setattr(two, "passes", order)
    (outcome,) = two.cut(mac(1))
    assert (outcome.id, outcome.msg) == (vm_id, "")
    assert sorted(reads) == ["a", "b"]


def test_a_hypervisor_that_freezes_in_the_middle_hides_nobodys_outcome(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm_id = two["a"].create("desk1")
    two["b"].create("desk2")
    two.hold("b", "submit_isolate")
    ended = _module.Batch.ended

    def past_the_end(batch: _module.Batch) -> dict[str, Outcome]:
        assert two.begun["b", "submit_isolate"].wait(30)
        assert not wait(batch.session.busy["a"], 30).not_done
        for name in ("FIRST", "LAST"):
            monkeypatch.setattr(_module, name, 0.0)
        batch.end = 0.0
        return ended(batch)

    monkeypatch.setattr(_module.Batch, "ended", past_the_end)
    cut, frozen = two.cut("desk1", "desk2")
    assert (cut.msg, two.state("a", vm_id)) == ("", Isolation.SEALED)
    assert (frozen.failed, frozen.changed, frozen.hypervisor, frozen.after) == (True, True, "b", {})
    assert frozen.msg.startswith("Cannot say yet what became of desk2 on b: no answer for ")


def test_a_deadline_of_nothing_still_lists_and_reads(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    vm_id = two["a"].create("desk1")
    take_in, spans = _module.Session.take_in, []

    def timed(session: _module.Session, until: float, *how: str) -> bool:
        spans.append(until - session.started)
        return take_in(session, until, *how)

    monkeypatch.setattr(_module.Session, "take_in", timed)
    (outcome,) = two.cut("desk1", deadline=0)
    assert outcome.msg == ""
    assert two.state("a", vm_id) is Isolation.SEALED
    assert spans[0] >= FIRST
