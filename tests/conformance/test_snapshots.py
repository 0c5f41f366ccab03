# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots, reverts, fresh disks and deletion, on every backend."""

from __future__ import annotations

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Refused
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Capability
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation, PowerState
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.disks import Delete, ResetDisks
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert, SetSnapshot
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench

SEAL = SetIsolation(Isolation.SEALED, "2026-1")
WAIVED = {"classes": {name: {"state": "waived", "by": "test"} for name in ("memory", "connections", "disks", "logs")}}


def take(name: str, memory: bool = False) -> SetSnapshot:
    return SetSnapshot(name, "present", "made by a test", memory)


def test_a_tree_of_snapshots_grows_and_shrinks(bench: Bench) -> None:
    vm_id = bench.create("desk1", running=False)
    for name in ("one", "two"):
        predicted = bench.one(take(name), vm_id, check=True)
        done = bench.one(take(name), vm_id)
        assert (predicted.before, predicted.after) == (done.before, done.after)
        assert not bench.one(take(name), vm_id).changed
    one, two = bench.vm(vm_id).snapshots
    assert (one.parent, two.parent, one.current, two.current) == ("", one.id, False, True)
    assert (one.memory, one.disks, one.description, one.power) == (
        False,
        "internal",
        "made by a test",
        PowerState.STOPPED,
    )
    absent = SetSnapshot("one", "absent", "", False)
    assert bench.one(absent, vm_id).after == {"snapshots": ["two"]}
    assert not bench.one(absent, vm_id).changed
    (two,) = bench.vm(vm_id).snapshots
    assert (two.name, two.parent) == ("two", "")


def test_one_without_memory_is_not_taken_for_one_with_memory(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    bench.one(take("t1"), vm_id)
    (other,) = bench.do(take("t1", memory=True), vm_id)
    assert other.failed
    assert "it has a snapshot of this name already, which holds none" in other.msg
    assert len(bench.vm(vm_id).snapshots) == 1


@pytest.mark.parametrize("name", ["", "  ", "a\nb"])
def test_a_name_that_nobody_could_read_is_given_to_no_snapshot(name: str) -> None:
    with pytest.raises(Refused, match="its name must be readable"):
        take(name)
    SetSnapshot(name, "absent", "", False)


def test_a_held_vm_keeps_its_snapshots(bench: Bench) -> None:
    vm_id = bench.create("desk1", running=False)
    bench.one(take("clean"), vm_id)
    bench.one(SEAL, vm_id)
    (kept,) = bench.do(SetSnapshot("clean", "absent", "", False), vm_id)
    assert kept.failed
    assert "case 2026-1 holds it" in kept.msg
    assert [snapshot.name for snapshot in bench.vm(vm_id).snapshots] == ["clean"]


def test_a_revert_names_what_is_missing_and_touches_nothing(bench: Bench) -> None:
    vm_id = bench.create("desk1", running=False)
    bench.one(take("clean"), vm_id)
    (missing,) = bench.do(Revert("cleam", False, True, {}), vm_id)
    assert missing.msg.endswith("has no snapshot 'cleam'. It has: clean.")
    (unsaid,) = bench.do(Revert("clean", False, False, {}), vm_id)
    assert "its present state would be lost" in unsaid.msg
    (no_memory,) = bench.do(Revert("clean", True, True, {}), vm_id)
    assert "snapshot clean holds none" in no_memory.msg


def test_disk_state_only_ends_stopped_even_from_a_snapshot_with_memory(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    bench.one(take("live", memory=True), vm_id)
    assert bench.vm(vm_id).snapshots[0].memory
    predicted = bench.one(Revert("live", False, True, {}), vm_id, check=True)
    done = bench.one(Revert("live", False, True, {}), vm_id)
    assert (predicted.before, predicted.after) == (done.before, done.after)
    assert done.after == {"power": "stopped", "current_snapshot": "live"}


def test_with_memory_it_ends_paused(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    bench.one(take("live", memory=True), vm_id)
    assert bench.one(Revert("live", True, True, {}), vm_id).after["power"] == "paused"
    assert bench.one(SetPower("running", False, 0, {}), vm_id).after == {"power": "running"}


def test_note_and_cut_survive_a_revert_to_a_time_before_them(bench: Bench) -> None:
    for memory in (False, True):
        vm_id = bench.create(f"desk-{memory}", ["tap", "tap"])
        former = bench.vm(vm_id).nics
        bench.one(take("clean", memory=True), vm_id)
        bench.one(SEAL, vm_id)
        evidence = {vm_id: WAIVED}
        if bench.vm(vm_id).snapshots[0].blocked:  # the guest would run on at once, wired as it was
            (refused,) = bench.do(Revert("clean", memory, False, evidence), vm_id)
            assert "lets the guest run at once" in refused.msg
            assert bench.vm(vm_id).isolation is Isolation.SEALED
            bench.one(SetIsolation(Isolation.FREE, keep_sessions=True), vm_id)
            bench.one(SetSnapshot("clean", "absent", "", False), vm_id)
            bench.one(take("clean"), vm_id)
            bench.one(SEAL, vm_id)
            memory = False
        noted = bench.vm(vm_id).note
        done = bench.one(Revert("clean", memory, False, evidence), vm_id)
        assert done.after == {
            "power": "paused" if memory else "stopped",
            "isolation": "sealed",
            "current_snapshot": "clean",
        }
        now = bench.vm(vm_id).note
        assert noted is not None
        assert now is not None
        assert (now.case, now.since, now.wiring) == (noted.case, noted.since, noted.wiring)
        if not memory:
            bench.one(SetPower("running", False, 0, {}), vm_id)
        assert bench.vm(vm_id).isolation is Isolation.SEALED
        if memory:
            (refused,) = bench.do(SetIsolation(Isolation.FREE), vm_id)
            assert refused.failed, "the sessions of the memory that came back were forgotten"
        bench.one(SetIsolation(Isolation.FREE, keep_sessions=True), vm_id)
        assert [nic.wiring.config for nic in bench.vm(vm_id).nics] == [nic.wiring.config for nic in former]


def test_a_held_vm_is_not_reverted_before_its_evidence_is_settled(bench: Bench) -> None:
    vm_id = bench.create("desk1", running=False)
    bench.one(take("clean"), vm_id)
    bench.one(SEAL, vm_id)
    (refused,) = bench.do(Revert("clean", False, True, {vm_id: {"classes": {"memory": {"state": "stored"}}}}), vm_id)
    assert "case 2026-1 holds it" in refused.msg
    assert "connections, disks, logs" in refused.msg


def test_an_external_snapshot_is_reverted_or_refused_by_capability(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    bench.one(take("live"), vm_id)
    (outcome,) = bench.do(Revert("live", False, True, {}), vm_id)
    external = bench.vm(vm_id).snapshots[0].disks == "external"
    can = not external or Capability.REVERT_EXTERNAL in bench.hypervisor.capabilities()
    assert outcome.failed is not can
    if not can:
        assert "Rebuild it from the golden image" in outcome.msg


@pytest.mark.parametrize(
    ("backend", "instead"), [("proxmox", "clone its template anew"), ("vsphere", "deploy it again")]
)
def test_who_cannot_make_a_fresh_overlay_says_what_else_there_is(
    request: pytest.FixtureRequest, backend: str, instead: str
) -> None:
    bench: Bench = request.getfixturevalue(backend)
    (refused,) = bench.do(ResetDisks(True, {}), bench.create("desk1", running=False))
    assert "Revert it to a snapshot, or" in refused.msg
    assert instead in refused.msg


def test_a_fresh_overlay_keeps_the_base_and_drops_the_old_one(bench: Bench) -> None:
    vm_id = bench.create("desk1", running=False)
    if bench.lacks(Capability.DISK_RESET, ResetDisks(True, {}), vm_id):
        return
    bench.one(take("clean"), vm_id)
    (old,) = bench.vm(vm_id).disks
    (refused,) = bench.do(ResetDisks(False, {}), vm_id)
    assert "would be lost" in refused.msg
    predicted = bench.one(ResetDisks(True, {}), vm_id, check=True)
    done = bench.one(ResetDisks(True, {}), vm_id)
    assert (predicted.before, predicted.after) == (done.before, done.after)
    (new,) = bench.vm(vm_id).disks
    assert (new.layers[-1], new.size) == (old.layers[-1], old.size)
    assert new.layers[0] != old.layers[0]
    assert [bench.content(disk.layers[0].path) for disk in (old, new)] == ["gone", "there"]
    assert bench.vm(vm_id).snapshots == ()
    assert bench.one(SetPower("running", False, 0, {}), vm_id).after == {"power": "running"}


def test_a_fresh_overlay_on_a_sealed_vm_leaves_it_sealed(bench: Bench) -> None:
    vm_id = bench.create("desk1", running=False)
    bench.one(SEAL, vm_id)
    if bench.lacks(Capability.DISK_RESET, ResetDisks(True, {vm_id: WAIVED}), vm_id):
        return
    bench.one(ResetDisks(True, {vm_id: WAIVED}), vm_id)
    assert bench.vm(vm_id).isolation is Isolation.SEALED
    assert bench.vm(vm_id).note is not None


def test_deletion_takes_what_is_its_own_and_nothing_shared(bench: Bench) -> None:
    gone, left = bench.create("desk1", running=False), bench.create("desk2", nics=(), running=False)
    (disk,) = bench.vm(gone).disks
    (running,) = bench.do(Delete(False, {}), gone)
    assert "Say confirm: true" in running.msg
    assert bench.one(Delete(True, {}), gone).after == {"state": "absent"}
    assert [bench.content(layer.path) for layer in disk.layers] == ["gone", "there"]
    assert [ref.id for ref in bench.hypervisor.refs()] == [left]
    assert bench.content(bench.vm(left).disks[0].layers[0].path) == "there"


def test_a_running_vm_is_neither_reset_nor_deleted(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    if not bench.lacks(Capability.DISK_RESET, ResetDisks(True, {}), vm_id):
        (refused,) = bench.do(ResetDisks(True, {}), vm_id)
        assert "it is running. Stop it first" in refused.msg
    (refused,) = bench.do(Delete(True, {}), vm_id)
    assert "it is running. Stop it first" in refused.msg


TWINS = pytest.mark.parametrize("twice", ["fake", "vsphere"])  # whose names need not be unique


def twins(bench: Bench) -> tuple[str, str, str]:
    """A VM, and two snapshots of one name side by side, both on the same parent."""
    vm_id = bench.create("desk1", running=False)
    bench.one(take("base"), vm_id)
    for _time in range(2):
        bench.one(Revert("base", False, True, {}), vm_id)
        pending = bench.hypervisor.submit_snapshot(bench.vm(vm_id), "clean", "", False)
        assert bench.hypervisor.wait([pending], 30) == {vm_id: None}
    base, *both = bench.vm(vm_id).snapshots
    assert [(one.name, one.parent) for one in both] == [("clean", base.id)] * 2
    return vm_id, both[0].id, both[1].id


@TWINS
def test_names_that_repeat_are_told_apart_by_id(twice: str, request: pytest.FixtureRequest) -> None:
    bench: Bench = request.getfixturevalue(twice)
    vm_id, first, second = twins(bench)
    for verb in (Revert("clean", False, True, {}), SetSnapshot("clean", "absent", "", False)):
        (refused,) = bench.do(verb, vm_id)
        assert "has 2 snapshots named 'clean'" in refused.msg
        assert first in refused.msg
        assert second in refused.msg
    for wanted in (first, second):
        bench.one(Revert(wanted, False, True, {}), vm_id)
        assert [one.id for one in bench.vm(vm_id).snapshots if one.current] == [wanted]
    bench.one(SetSnapshot(first, "absent", "", False), vm_id)
    assert [one.id for one in bench.vm(vm_id).snapshots if one.name == "clean"] == [second]


@TWINS
def test_the_wrong_one_of_two_twins_does_not_pass_for_the_right_one(
    twice: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench: Bench = request.getfixturevalue(twice)
    vm_id, first, second = twins(bench)
    kind, swapped = type(bench.hypervisor), {first: second, second: first}
    revert, remove = kind.submit_revert, kind.submit_remove_snapshot
    monkeypatch.setattr(kind, "submit_revert", lambda hv, vm, wanted, memory: revert(hv, vm, swapped[wanted], memory))
    monkeypatch.setattr(kind, "submit_remove_snapshot", lambda hv, vm, wanted: remove(hv, vm, swapped[wanted]))
    (reverted,) = bench.do(Revert(first, False, True, {}), vm_id)
    assert reverted.after["current_snapshot"] == "clean"
    assert f"its current snapshot is {second}, not {first}" in reverted.msg
    (removed,) = bench.do(SetSnapshot(first, "absent", "", False), vm_id)
    assert f"it has snapshot {first} still" in removed.msg
    assert f"snapshot {second} is gone" in removed.msg
