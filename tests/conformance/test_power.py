# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power, on every backend."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import NotFound
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Capability, Hypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation, PowerState, Vm
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Plan, UseCase
from ansible_collections.vmward.remediation.plugins.module_utils._proxmox import work
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import SetSnapshot
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench, FakeBench
from ansible_collections.vmward.remediation.tests.conformance.vsphere import VsphereBench

STATES = ("running", "paused", "stopped")


def test_every_state_leads_to_every_state_and_twice_is_once(bench: Bench) -> None:
    vm_id = bench.create("desk1", running=False)
    paused = SetPower("paused", True, 0, {})
    for start, end in itertools.permutations(STATES, 2):
        if start == "paused":  # not every hypervisor can start a VM paused
            bench.one(SetPower("running", True, 0, {}), vm_id)
        bench.one(SetPower(start, True, 0, {}), vm_id)
        if (start, end) == ("stopped", "paused") and bench.lacks(Capability.START_PAUSED, paused, vm_id):
            continue
        predicted = bench.one(SetPower(end, True, 0, {}), vm_id, check=True)
        assert bench.vm(vm_id).power is PowerState(start), "check mode changed something"
        done = bench.one(SetPower(end, True, 0, {}), vm_id)
        assert (predicted.changed, predicted.before, predicted.after) == (True, done.before, done.after)
        assert done.after == {"power": end}
        assert not bench.one(SetPower(end, True, 0, {}), vm_id).changed


def test_the_power_alone_reads_as_the_whole_vm_does(bench: Bench) -> None:
    """Of many as of one, and a VM that is gone is gone."""
    ids = [bench.create(f"desk{number}", running=False) for number in range(3)]
    bench.one(SetPower("running", True, 0, {}), ids[1])
    bench.one(SetPower("running", True, 0, {}), ids[2])
    bench.one(SetPower("paused", True, 0, {}), ids[2])
    whole = [bench.vm(vm_id) for vm_id in ids]
    told = [bench.hypervisor.powers([vm])[vm.ref.id] for vm in whole] + list(bench.hypervisor.powers(whole).values())
    expected = [PowerState.STOPPED, PowerState.RUNNING, PowerState.PAUSED] * 2
    assert [vm.power for vm in told if isinstance(vm, Vm)] == expected == [vm.power for vm in whole] * 2
    bench.vanish(ids[1])
    first, gone, last = bench.hypervisor.powers(whole).values()
    assert isinstance(gone, NotFound)
    assert isinstance(first, Vm)
    assert isinstance(last, Vm)


def test_a_guest_that_never_obeys_is_forced_only_when_asked(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    (refused,) = bench.do(SetPower("stopped", False, 1, {}), vm_id)
    assert refused.failed
    assert "has not obeyed for 1 s and still runs" in refused.msg
    assert bench.vm(vm_id).power is PowerState.RUNNING
    assert bench.one(SetPower("stopped", True, 1, {}), vm_id).after == {"power": "stopped"}


def test_a_restart_is_a_cold_start(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    done = bench.one(SetPower("restarted", True, 0, {}), vm_id)
    assert (done.changed, done.after) == (True, {"power": "running"})


def test_a_vm_that_vanishes_between_plan_and_act_is_said_to_be_gone(bench: Bench) -> None:
    gone, left = bench.create("desk1"), bench.create("desk2", nics=())

    class Unlucky(SetPower):
        def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
            plan = super().plan(hypervisor, vm)
            if vm.ref.id == gone:
                bench.vanish(gone)
            return plan

    lost, fine = bench.do(Unlucky("stopped", True, 0, {}), gone, left)
    assert lost.failed
    assert "may have been removed meanwhile" in lost.msg
    assert not fine.failed
    assert fine.after == {"power": "stopped"}


@pytest.mark.parametrize(
    "usecase",
    [
        SetPower("stopped", True, 0, {}),
        SetSnapshot("clean", "present", "", False),
        SetIsolation(Isolation.SEALED, "2026-1"),
    ],
    ids=["power", "snapshot", "isolation"],
)
def test_another_vm_that_takes_its_name_between_plan_and_act_is_left_alone(
    bench: Bench, usecase: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ids are used again, it has the same id too."""
    gone, other, plan = bench.create("desk1"), list[str](), usecase.plan

    def late(hypervisor: Hypervisor, vm: Vm) -> Plan:
        made = plan(hypervisor, vm)
        bench.vanish(gone)
        other.append(bench.create("desk1"))
        return made

    monkeypatch.setattr(usecase, "plan", late)
    monkeypatch.setattr(work, "STILL", 0.0)
    (lost,) = bench.do(usecase, gone)
    assert lost.failed
    assert "another VM has its id now" in lost.msg if other == [gone] else "may have been removed meanwhile" in lost.msg
    bench.hypervisor.refs()
    left = bench.vm(other[0])
    assert (left.power, left.isolation, left.note) == (PowerState.RUNNING, Isolation.FREE, None)
    assert all(snapshot.name != "clean" for snapshot in left.snapshots)


def test_a_guest_that_obeys_is_not_forced(fake: FakeBench) -> None:
    vm_id = fake.create("desk1")
    with fake.state.change() as state:
        state["vms"][vm_id]["obeys_after"] = 0.2
    assert fake.one(SetPower("stopped", False, 10, {}), vm_id).after == {"power": "stopped"}


def test_one_failure_in_a_batch_stays_with_its_vm(fake: FakeBench) -> None:
    ids = [fake.create(name) for name in ("a", "b", "c")]
    with fake.state.change() as state:
        state["faults"] = [{"verb": "submit_pause", "vm": "b", "error": "TaskFailed", "message": "The lock is held."}]
    outcomes = fake.do(SetPower("paused", False, 0, {}), *ids)
    assert [outcome.failed for outcome in outcomes] == [False, True, False]
    assert outcomes[1].msg.startswith("The lock is held. Read back on ")
    assert not outcomes[1].changed


def test_what_outlives_the_deadline_is_called_still_running(fake: FakeBench) -> None:
    vm_id = fake.create("desk1")
    with fake.state.change() as state:
        state["faults"] = [{"verb": "submit_pause", "seconds": 60}]
    (outcome,) = fake.do(SetPower("paused", False, 0, {}), vm_id, deadline=0.1)
    assert outcome.failed
    assert "it still runs after" in outcome.msg
    assert outcome.task == "pause"


@pytest.mark.parametrize("state", ["stopped", "restarted"])
def test_memory_saved_on_disk_is_never_thrown_away(fake: FakeBench, state: str) -> None:
    vm_id = fake.create("desk1")
    with fake.state.change() as data:
        data["vms"][vm_id]["power"] = "suspended"
    (outcome,) = fake.do(SetPower(state, True, 0, {}), vm_id)
    assert "its memory is saved on disk" in outcome.msg


def test_a_guest_that_cannot_be_asked_is_forced_all_the_same_and_that_is_told(fake: FakeBench) -> None:
    ids = [fake.create(name) for name in ("a", "b")]
    mute = {"verb": "submit_shutdown", "vm": "a", "error": "Unsupported", "message": "It has no agent."}
    with fake.state.change() as state:
        state["vms"][ids[1]]["obeys_after"] = 0.0
        state["faults"] = [dict(mute)]
    (refused,) = fake.do(SetPower("stopped", False, 10, {}), ids[0])
    assert refused.msg.startswith("It has no agent.")
    for again in ("stopped", "restarted"):
        with fake.state.change() as state:
            state["faults"] = [dict(mute)]
            state["vms"][ids[0]]["power"] = "running"
        outcomes = fake.do(SetPower(again, True, 10, {}), *ids)
        assert [outcome.after for outcome in outcomes] == [{"power": again.replace("restarted", "running")}] * 2
        assert not any(outcome.failed for outcome in outcomes)
        assert outcomes[0].warnings == ["the guest could not be asked, so its power was taken away: It has no agent."]
        assert outcomes[1].warnings == []


def test_a_guest_without_tools_is_forced_all_the_same(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.server.faults({"method": "ShutdownGuest", "fault": "VMware Tools is not running"})
    done = vsphere.one(SetPower("stopped", True, 10, {}), vm_id)
    assert done.after == {"power": "stopped"}
    (warning,) = done.warnings
    assert warning.startswith("the guest could not be asked, so its power was taken away: ")
    assert "VMware Tools is not running" in warning
