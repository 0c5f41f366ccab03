# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quiesced snapshots: asked of those that can, else refused untouched; none passes for what it is not."""

from __future__ import annotations

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import SetSnapshot
from ansible_collections.vmward.remediation.tests.conformance.benches import FakeBench
from ansible_collections.vmward.remediation.tests.conformance.vsphere import VsphereBench
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench

QUIESCED = SetSnapshot("still", "present", "", False, True)
Guests = FakeBench | VsphereBench | ProxmoxBench


@pytest.fixture(params=["fake", "vsphere", "proxmox"])
def guests(request: pytest.FixtureRequest) -> Guests:
    made: Guests = request.getfixturevalue(request.param)
    return made


def names(guests: Guests, vm_id: str) -> list[str]:
    return [snapshot.name for snapshot in guests.vm(vm_id).snapshots]


def test_a_guest_that_answers_is_asked(guests: Guests) -> None:
    vm_id = guests.create("desk1")
    guests.answers(vm_id)
    predicted = guests.one(QUIESCED, vm_id, check=True)
    done = guests.one(QUIESCED, vm_id)
    assert (predicted.before, predicted.after) == (done.before, done.after)
    assert done.steps == ["take snapshot still, its file systems quiesced"]
    assert names(guests, vm_id) == ["still"]
    assert not guests.one(QUIESCED, vm_id).changed


def test_one_that_cannot_be_asked_is_refused_and_untouched(guests: Guests) -> None:
    vm_id = guests.create("desk1")
    (refused,) = guests.do(QUIESCED, vm_id)
    assert refused.failed
    assert "quiesce" in refused.msg
    assert names(guests, vm_id) == []


def test_the_fake_is_told_to(fake: FakeBench) -> None:
    vm_id = fake.create("desk1")
    fake.answers(vm_id)
    fake.one(QUIESCED, vm_id)
    fake.one(SetSnapshot("plain", "present", "", False), vm_id)
    assert [snapshot["quiesced"] for snapshot in fake.state.read()["vms"][vm_id]["snapshots"]] == [True, False]


def test_a_stopped_vm_is_still_by_itself(guests: Guests) -> None:
    vm_id = guests.create("desk1", running=False)
    assert guests.one(QUIESCED, vm_id).steps == ["take snapshot still"]


def test_what_makes_no_sense_is_refused(guests: Guests) -> None:
    vm_id = guests.create("desk1")
    guests.answers(vm_id)
    (both,) = guests.do(SetSnapshot("still", "present", "", True, True), vm_id)
    assert "Ask for one of both" in both.msg
    guests.one(SetPower("paused", False, 0, {}), vm_id)
    (paused,) = guests.do(QUIESCED, vm_id)
    assert "it is paused, so that nobody in it answers" in paused.msg
    assert names(guests, vm_id) == []


def test_a_hypervisor_that_cannot_says_so(fake: FakeBench) -> None:
    vm_id = fake.create("desk1")
    fake.answers(vm_id)
    with fake.state.change() as state:
        state["lacks"] = ["SNAPSHOT_QUIESCE"]
    (refused,) = fake.do(QUIESCED, vm_id)
    assert "Cannot take a snapshot with quiesced file systems of desk1: hv1 cannot do it." in refused.msg
    assert names(fake, vm_id) == []


def test_vsphere_is_told_to_and_asks_only_where_tools_run(vsphere: VsphereBench) -> None:
    vm_id, silent = vsphere.create("desk1"), vsphere.create("silent")
    vsphere.answers(vm_id)
    vsphere.one(QUIESCED, vm_id)
    (node,) = vsphere.machine(vm_id).snapshot.rootSnapshotList
    assert node.quiesced
    (refused,) = vsphere.do(QUIESCED, silent)
    assert "VMware Tools do not run in it (their state: " in refused.msg
    vsphere.server.faults({"method": "CreateSnapshot_Task", "fault": "The guest did not quiesce", "task": True})
    (failed,) = vsphere.do(SetSnapshot("next", "present", "", False, True), vm_id)
    assert "The guest did not quiesce" in failed.msg
    vsphere.one(SetSnapshot("plain", "present", "", False), vm_id)
    assert [below.quiesced for below in vsphere.machine(vm_id).snapshot.rootSnapshotList[0].childSnapshotList] == [
        False
    ]


@pytest.mark.parametrize("agent", ["0", "enabled=0", "1,freeze-fs=0", "enabled=1,freeze-fs-on-backup=0"])
def test_proxmox_whose_agent_is_off_is_not_asked(proxmox: ProxmoxBench, agent: str) -> None:
    vm_id = proxmox.create("desk1")
    proxmox.answers(vm_id)
    proxmox.pve.vm(int(vm_id)).config["agent"] = agent
    with proxmox.cluster.counted() as calls:
        (refused,) = proxmox.do(QUIESCED, vm_id)
    assert "its option agent is off, or keeps file systems from freezing" in refused.msg
    assert not [call for call in calls if not call.startswith("GET")]


def test_proxmox_goes_on_where_nobody_answers_so_it_is_asked_before(proxmox: ProxmoxBench) -> None:
    vm_id = proxmox.create("desk1")
    with proxmox.cluster.counted() as calls:
        (refused,) = proxmox.do(QUIESCED, vm_id)
    assert "QEMU guest agent is not running" in refused.msg
    assert "No snapshot was taken" in refused.msg
    assert [call for call in calls if not call.startswith("GET")] == ["POST /nodes/pve1/qemu/N/agent/ping"]


def test_proxmox_that_could_not_freeze_has_failed_though_its_task_is_ok(proxmox: ProxmoxBench) -> None:
    vm_id = proxmox.create("desk1")
    proxmox.answers(vm_id)
    proxmox.pve.freeze_problem = "got timeout"
    (failed,) = proxmox.do(QUIESCED, vm_id)
    assert failed.failed
    assert "Snapshot still of desk1 is there, but its file systems were not seen to be quiesced" in failed.msg
    assert "got timeout" in failed.msg
    assert names(proxmox, vm_id) == ["still"]


def test_proxmox_without_the_right_to_ask_says_so(proxmox: ProxmoxBench) -> None:
    vm_id = proxmox.create("desk1")
    proxmox.answers(vm_id)
    proxmox.pve.grant("ir@pve", "/vms", "VM.Audit", "VM.Snapshot")
    proxmox.hypervisor = proxmox.connect()
    (refused,) = proxmox.do(QUIESCED, vm_id)
    assert "VM.GuestAgent.Audit or VM.GuestAgent.Unrestricted on /vms/" in refused.msg
    assert names(proxmox, vm_id) == []
