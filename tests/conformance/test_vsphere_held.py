# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Suspended VMs that are held, and deleted VMs, on vSphere: nothing comes back, nothing of others goes."""

from __future__ import annotations

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation, PowerState
from ansible_collections.vmward.remediation.plugins.module_utils._plan import UseCase
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.disks import Delete
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert, SetSnapshot
from ansible_collections.vmward.remediation.tests.conformance.vsphere import (
    FORENSIC,
    FREE,
    SEAL,
    WAIVED,
    VsphereBench,
    finish,
)

PAUSE, RESUME = SetPower("paused", False, 0, {}), SetPower("running", False, 0, {})


def test_a_vm_that_was_suspended_cut_comes_back_cut_and_is_freed_as_it_runs(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1", ["tap", "tap"])
    former = vsphere.wiring(vm_id)
    vsphere.one(SEAL, vm_id)
    assert vsphere.one(PAUSE, vm_id).warnings == []
    (refused,) = vsphere.do(FREE, vm_id)
    assert "Let it run on first" in refused.msg
    vsphere.one(RESUME, vm_id)
    assert vsphere.vm(vm_id).isolation is Isolation.SEALED
    vsphere.one(FREE, vm_id)
    assert vsphere.wiring(vm_id) == former


@pytest.mark.parametrize("usecase", [SEAL, FORENSIC], ids=["sealed", "forensic"])
def test_a_vm_that_was_cut_as_it_slept_is_not_resumed_with_its_old_wiring(
    vsphere: VsphereBench, usecase: SetIsolation
) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.one(PAUSE, vm_id)
    (warning,) = [told for told in vsphere.one(usecase, vm_id).warnings if "suspended" in told]
    assert "its memory was not seen to hold the cut" in warning
    (refused,) = vsphere.do(RESUME, vm_id)
    assert "case 2026-1 holds it" in refused.msg
    assert vsphere.vm(vm_id).power is PowerState.PAUSED
    vsphere.one(FREE, vm_id)
    assert vsphere.one(RESUME, vm_id).warnings == []
    assert [nic.link_up for nic in vsphere.vm(vm_id).nics] == [True]


def test_a_sleep_that_is_over_vouches_for_no_other(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    for usecase in (SEAL, PAUSE, RESUME):
        vsphere.one(usecase, vm_id)
    finish(vsphere.machine(vm_id).SuspendVM_Task())  # by somebody else, who may have wired it before
    (refused,) = vsphere.do(RESUME, vm_id)
    assert "its memory was not seen to hold the cut" in refused.msg


def test_a_resume_that_vsphere_refuses_can_be_tried_again(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.one(SEAL, vm_id)
    vsphere.one(PAUSE, vm_id)
    vsphere.server.faults({"method": "PowerOnVM_Task", "fault": "No host has room", "task": True})
    (failed,) = vsphere.do(RESUME, vm_id)
    assert "No host has room" in failed.msg
    vsphere.one(RESUME, vm_id)
    assert vsphere.vm(vm_id).isolation is Isolation.SEALED


def test_memory_of_a_time_before_the_cut_is_not_resumed(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.one(SetSnapshot("clean", "present", "", True), vm_id)
    vsphere.one(SEAL, vm_id)
    vsphere.one(PAUSE, vm_id)  # cut; but then another memory comes
    back = vsphere.one(Revert("clean", True, True, {vm_id: WAIVED}), vm_id)
    assert "see that nobody else does" in back.warnings[0]
    (refused,) = vsphere.do(RESUME, vm_id)
    assert "Dump its memory, then stop it" in refused.msg
    vsphere.one(SetPower("restarted", True, 0, {vm_id: WAIVED}), vm_id)
    assert vsphere.vm(vm_id).isolation is Isolation.SEALED


def test_a_resume_that_fails_half_way_is_followed_by_a_cut(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.one(SEAL, vm_id)
    vsphere.one(PAUSE, vm_id)
    vsphere.server.forget_calls()
    vsphere.server.faults({"method": "PowerOnVM_Task", "drop": True})
    (lost,) = vsphere.do(RESUME, vm_id)
    assert "the connection to" in lost.msg
    assert vsphere.server.calls()["ReconfigVM_Task"] == 1
    vsphere.one(RESUME, vm_id)
    assert vsphere.vm(vm_id).isolation is Isolation.SEALED


def test_what_is_refused_is_refused_in_check_mode_too(vsphere: VsphereBench) -> None:
    slept, cut = vsphere.create("desk1"), vsphere.create("desk2")
    for usecase in (PAUSE, SEAL):
        vsphere.one(usecase, slept)
    for usecase in (SEAL, PAUSE):
        vsphere.one(usecase, cut)
    stands, other = vsphere.create("desk3", running=False), vsphere.create("desk4", running=False)
    vsphere.attach(stands, vsphere.vm(other).disks[0].layers[0].path)
    vsphere.one(SetSnapshot("clean", "present", "", False), stands)
    refused: list[tuple[UseCase, str, str]] = [
        (RESUME, slept, "its memory was not seen to hold the cut"),
        (FREE, cut, "Let it run on first"),
        (Delete(True, {}), stands, "Remove its snapshots first"),
    ]
    for verb, vm_id, why in refused:
        before = vsphere.vm(vm_id)
        (planned,), (done,) = vsphere.do(verb, vm_id, check=True), vsphere.do(verb, vm_id)
        assert why in done.msg
        assert (planned.msg, planned.changed, planned.steps) == (done.msg, done.changed, done.steps)
        assert (done.changed, vsphere.vm(vm_id)) == (False, before)


# Deletion


def test_a_disk_that_two_vms_write_stays_when_one_of_them_is_deleted(vsphere: VsphereBench) -> None:
    gone, left = vsphere.create("desk1", running=False), vsphere.create("desk2", running=False)
    (shared,) = vsphere.vm(left).disks
    vsphere.attach(gone, shared.layers[0].path)
    own = vsphere.vm(gone).disks[0].layers[0].path
    assert vsphere.one(Delete(True, {}), gone).after == {"state": "absent"}
    assert [vsphere.content(path) for path in (own, shared.layers[0].path)] == ["gone", "there"]


def test_snapshots_on_shared_images_are_named_before_anything_is_touched(vsphere: VsphereBench) -> None:
    gone, _left = vsphere.create("desk1", running=False), vsphere.create("desk2", running=False)
    vsphere.one(SetSnapshot("clean", "present", "", False), gone)
    (refused,) = vsphere.do(Delete(True, {}), gone)
    assert "those of desk2 too" in refused.msg
    assert len(vsphere.vm(gone).disks) == 1
    vsphere.one(SetSnapshot("clean", "absent", "", False), gone)
    assert vsphere.one(Delete(True, {}), gone).after == {"state": "absent"}


def test_nothing_is_deleted_while_somebody_elses_disks_cannot_be_read(vsphere: VsphereBench) -> None:
    gone, _left = vsphere.create("desk1", running=False), vsphere.create("desk2", running=False)
    struck = {"method": "RetrievePropertiesEx", "vm": "desk2", "fault": "Disk full", "withhold": "layoutEx.file"}
    vsphere.server.faults({**struck, "times": 9})
    (refused,) = vsphere.do(Delete(True, {}), gone)
    assert "Nothing was deleted" in refused.msg
    assert len(vsphere.vm(gone).disks) == 1
