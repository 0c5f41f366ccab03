# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only vSphere has: its faults in sentences, tasks taken up again, VMs of all kinds, a stand-alone host."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect
from ansible_collections.vmward.remediation.plugins.module_utils._errors import Ambiguous, AuthFailed, TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Hypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation, PowerState
from ansible_collections.vmward.remediation.plugins.module_utils._plan import UseCase, execute
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.disks import Delete
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert, SetSnapshot
from ansible_collections.vmward.remediation.tests.conformance.benches import mac
from ansible_collections.vmward.remediation.tests.conformance.vsphere import (
    FORENSIC,
    FREE,
    OFF,
    ON,
    SEAL,
    WAIVED,
    VsphereBench,
    finish,
    refused,
)
from ansible_collections.vmward.remediation.tests.vcsim.server import PASSWORD, Vcsim

# Sessions and connections


def test_a_certificate_that_nobody_trusts_is_refused(vcenter: Vcsim, tmp_path: Path) -> None:
    assert "is not trusted" in refused(vcenter.entry, ca_path=None)
    other = Vcsim(tmp_path)
    other.stop()
    assert "Set ca_path to the certificate of the authority" in refused(vcenter.entry, ca_path=other.ca)
    assert "cannot be read" in refused(vcenter.entry, ca_path=str(tmp_path / "none.pem"))
    connect("vc1", {"vsphere": {**vcenter.entry["vsphere"], "ca_path": None, "validate_certs": False}}).close()


def test_a_wrong_password_and_an_unreachable_host_are_said(vcenter: Vcsim) -> None:
    assert "Check username and password" in refused(vcenter.entry, password="wrong")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    assert "the connection to 127.0.0.1:%d failed" % closed in refused(vcenter.entry, port=closed)


def test_a_page_instead_of_an_answer_is_said(vsphere: VsphereBench) -> None:
    server = vsphere.server
    server.faults({"method": "GET /sdk/vimServiceVersions.xml", "status": 200})
    assert "not as vCenter or ESXi does" in refused(server.entry)
    for status in (200, 500, 503):
        server.faults({"method": "RetrieveServiceContent", "status": status, "times": 9})
        assert "Check that the server runs" in refused(server.entry)
        server.faults({"method": "RetrievePropertiesEx", "status": status, "times": 9})
        with pytest.raises(TaskFailed):  # and never a list without VMs
            vsphere.hypervisor.refs()
        server.faults()


def test_a_page_instead_of_the_answer_to_a_change_is_no_success(vsphere: VsphereBench) -> None:
    """Of a proxy in between, say: nothing is cut without its undo note, and no note goes before its VM is free."""
    vm_id = vsphere.create("desk1")
    former = vsphere.wiring(vm_id)

    def refused(method: str, usecase: UseCase) -> str:
        vsphere.server.faults({"method": method, "status": 200, "times": 9})
        (outcome,) = vsphere.do(usecase, vm_id)
        vsphere.server.faults()
        assert "its answer is not vSphere's" in outcome.msg
        assert "Look for a proxy" in outcome.msg
        return vsphere.wiring(vm_id)

    assert refused("SetField", SEAL) == former
    assert refused("PowerOffVM_Task", OFF) == former
    vsphere.one(SEAL, vm_id)
    cut = vsphere.wiring(vm_id)
    assert refused("ReconfigVM_Task", FREE) == cut
    assert vsphere.vm(vm_id).note is not None
    vsphere.one(FREE, vm_id)
    assert vsphere.wiring(vm_id) == former


@pytest.mark.parametrize("usecase", [SEAL, OFF], ids=["seal", "off"])
def test_a_session_that_expires_between_two_calls_is_opened_anew(vsphere: VsphereBench, usecase: UseCase) -> None:
    ids = [vsphere.create(name) for name in ("a", "b", "c")]
    method = "ReconfigVM_Task" if usecase is SEAL else "PowerOffVM_Task"
    vsphere.server.faults({"method": method, "fault": "NotAuthenticated", "skip": 1})
    assert [outcome.msg for outcome in vsphere.do(usecase, *ids)] == [""] * 3
    vsphere.server.expire_sessions()
    vsphere.server.forget_calls()
    assert not any(outcome.changed for outcome in vsphere.do(usecase, *ids))
    assert vsphere.server.calls()["Login"] == 1
    vsphere.renew()


def test_a_session_that_expires_while_tasks_are_awaited_loses_none(vsphere: VsphereBench) -> None:
    ids = [vsphere.create(name) for name in ("a", "b", "c")]
    vsphere.server.delays(tasks={"PowerOff": 1500})
    alarm = threading.Timer(0.7, vsphere.server.expire_sessions)
    alarm.start()
    assert [outcome.msg for outcome in vsphere.do(OFF, *ids)] == [""] * 3
    alarm.join()
    assert vsphere.server.calls()["PowerOffVM_Task"] >= 3
    vsphere.renew()


def test_a_connection_lost_while_reading_is_made_again(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.server.faults({"method": "RetrievePropertiesEx", "drop": True})
    assert vsphere.vm(vm_id).power is PowerState.RUNNING


def test_a_connection_lost_while_changing_repeats_nothing_and_the_read_back_tells(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.server.faults({"method": "PowerOffVM_Task", "drop": True})
    (outcome,) = vsphere.do(OFF, vm_id)
    assert "look at the VM with vm_info, and run again" in outcome.msg
    assert outcome.after == {"power": "running"}
    assert vsphere.one(OFF, vm_id).changed


# Tasks


def test_a_task_that_outlives_the_deadline_is_named_and_taken_up_by_the_next_run(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.server.delays(tasks={"PowerOff": 4000})
    vsphere.server.forget_calls()
    (late,) = vsphere.do(OFF, vm_id, deadline=1)
    assert "it still runs after" in late.msg
    assert late.task.startswith("task-")
    assert late.task in late.msg
    assert vsphere.one(OFF, vm_id).after == {"power": "stopped"}
    assert vsphere.server.calls()["PowerOffVM_Task"] == 1, "the second run took the first one's task up"


SNAP, GONE = SetSnapshot("clean", "present", "", False), SetSnapshot("clean", "absent", "", False)
BACK = Revert("clean", False, True, {})


@pytest.mark.parametrize(
    ("usecase", "task", "method"),
    [
        (SNAP, "CreateSnapshot", "CreateSnapshot_Task"),
        (BACK, "RevertToSnapshot", "RevertToSnapshot_Task"),
        (GONE, "RemoveSnapshot", "RemoveSnapshot_Task"),
        (Delete(True, {}), "Destroy", "Destroy_Task"),
    ],
    ids=["snapshot", "revert", "remove", "delete"],
)
def test_a_second_run_takes_up_the_task(vsphere: VsphereBench, usecase: UseCase, task: str, method: str) -> None:
    vm_id = vsphere.create("desk1", running=False)
    if usecase is not SNAP:
        vsphere.one(SNAP, vm_id)
    if usecase is BACK:
        vsphere.one(SetSnapshot("later", "present", "", False), vm_id)
    if task == "Destroy":
        vsphere.one(GONE, vm_id)
    vsphere.server.delays(tasks={task: 4000})
    vsphere.server.forget_calls()
    (late,) = vsphere.do(usecase, vm_id, deadline=1)
    assert late.task.startswith("task-")
    vsphere.one(usecase, vm_id)
    assert vsphere.server.calls()[method] == 1


@pytest.fixture
def busy(vsphere: VsphereBench) -> Callable[[str, str], Any]:
    """Somebody else's task, of two seconds, on a VM with the snapshots ``clean`` and ``other``."""

    def begin(kind: str, vm_id: str) -> Any:
        machine = vsphere.machine(vm_id)
        for name in ("clean", "other"):
            vsphere.one(SetSnapshot(name, "present", "", False), vm_id)
        other = next(one.id for one in vsphere.vm(vm_id).snapshots if one.name == "other")
        snapshot = vim.vm.Snapshot(other, vsphere.session._stub)
        vsphere.server.delays(tasks=dict.fromkeys(("CreateSnapshot", "RevertToSnapshot", "RemoveSnapshot"), 2000))
        if kind == "create":
            return machine.CreateSnapshot_Task("backup", "of another product", False, False)
        return snapshot.RevertToSnapshot_Task() if kind == "revert" else snapshot.RemoveSnapshot_Task(False)

    return begin


OURS: dict[str, UseCase] = {"create": SetSnapshot("ours", "present", "", False), "revert": BACK, "remove": GONE}


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
@pytest.mark.parametrize("kind", list(OURS))
def test_anothers_task_of_the_same_kind_is_awaited_and_not_taken_for_ours(
    vsphere: VsphereBench, busy: Callable[[str, str], Any], kind: str, fails: bool
) -> None:
    vm_id = vsphere.create("desk1", running=False)
    method = {"create": "CreateSnapshot_Task", "revert": "RevertToSnapshot_Task", "remove": "RemoveSnapshot_Task"}[kind]
    if fails:
        skip = 2 if kind == "create" else 0
        vsphere.server.faults({"method": method, "fault": "Somebody's own", "task": True, "skip": skip})
    task = busy(kind, vm_id)
    vsphere.server.forget_calls()
    (done,) = vsphere.do(OURS[kind], vm_id)
    gone = kind == "remove" and not fails
    assert (" is gone" in done.msg) if gone else (done.msg == ""), "somebody else's removal does not go unnoticed"
    assert task.info.state == ("error" if fails else "success")
    assert vsphere.server.calls()[method] == 1
    names = [one.name for one in vsphere.vm(vm_id).snapshots]
    assert ("clean" in names, "ours" in names) == (kind != "remove", kind == "create")
    if kind == "revert":
        assert done.after["current_snapshot"] == "clean"


def test_a_cut_whose_task_still_runs_is_made_anew_and_ends_sealed(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.server.delays(tasks={"ReconfigVm": 3000})
    vsphere.server.forget_calls()
    (late,) = vsphere.do(SEAL, vm_id, deadline=1)
    assert late.task.startswith("task-")
    vsphere.one(SEAL, vm_id)
    assert vsphere.vm(vm_id).isolation is Isolation.SEALED


def test_nothing_hangs_past_its_deadline_when_the_server_is_slow(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.server.delays(methods={"PowerOffVM_Task": 3000})
    (late,) = vsphere.do(OFF, vm_id, deadline=1)
    assert "it still runs after" in late.msg
    assert late.seconds < 2.5


def answers_of(vsphere: VsphereBench, usecase: UseCase, *vms: str, deadline: float) -> subprocess.CompletedProcess[str]:
    """The verb in a process of its own, as Ansible runs a module."""
    chosen = [(vm_id, vm_id) for vm_id in vms]
    name = next(name for name, known in (("OFF", OFF), ("SEAL", SEAL)) if known is usecase)
    script = (
        "import sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        f"from {VsphereBench.__module__} import {name}, connect\n"
        "from ansible_collections.vmward.remediation.plugins.module_utils._plan import execute\n"
        f"hypervisor = connect('hv1', {vsphere.server.entry!r})\n"
        f"print([one.msg for one in execute(hypervisor, {name}, {chosen!r}, {deadline}, False)], flush=True)\n"
        "hypervisor.close()\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=40)


def test_a_process_ends_though_a_call_hangs(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.server.faults({"method": "PowerOffVM_Task", "vm": "desk1", "hold": 60_000})
    done = answers_of(vsphere, OFF, vm_id, deadline=1)  # the process has 40 seconds, the call 60
    assert "it still runs after" in done.stdout, done.stderr
    assert done.returncode == 0


def test_a_call_that_hangs_holds_up_no_other_vm(vsphere: VsphereBench) -> None:
    held, free = vsphere.create("held"), vsphere.create("free")
    vsphere.server.faults({"method": "PowerOffVM_Task", "vm": "held", "hold": 20_000})
    late, done = vsphere.do(OFF, held, free, deadline=6)
    assert "it still runs after" in late.msg
    assert (done.msg, done.after) == ("", {"power": "stopped"})


def test_a_vm_that_is_resumed_is_cut_again_though_anothers_call_hangs(vsphere: VsphereBench) -> None:
    held, free = vsphere.create("held"), vsphere.create("free")
    vsphere.do(SEAL, held, free)
    vsphere.do(SetPower("paused", False, 0, {}), held, free)
    vsphere.server.forget_calls()
    vsphere.server.faults({"method": "PowerOnVM_Task", "vm": "held", "hold": 20_000})
    late, done = vsphere.do(SetPower("running", False, 0, {}), held, free, deadline=6)
    assert "it still runs after" in late.msg
    assert done.msg == ""
    assert vsphere.server.calls()["ReconfigVM_Task"] == 1, "the cut is made once more, at once"
    assert vsphere.vm(free).isolation is Isolation.SEALED


def test_a_call_that_answers_late_is_taken_as_it_comes(vsphere: VsphereBench) -> None:
    ids = [vsphere.create(name) for name in ("slow", "quick")]
    vsphere.server.faults({"method": "PowerOffVM_Task", "vm": "slow", "hold": 4000})
    assert [outcome.msg for outcome in vsphere.do(OFF, *ids)] == ["", ""]


def test_a_short_time_out_and_a_long_task_get_along(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.server.delays(tasks={"PowerOff": 4000})
    entry = {"vsphere": {**vsphere.server.entry["vsphere"], "timeout": 2}}
    hypervisor = connect("hv1", entry)
    try:
        (outcome,) = execute(hypervisor, OFF, [(vm_id, "desk1")], 30, False)
    finally:
        hypervisor.close()
    assert outcome.msg == ""


def test_a_wait_that_is_dropped_is_made_again(vsphere: VsphereBench) -> None:
    ids = [vsphere.create(name) for name in ("a", "b")]
    vsphere.server.delays(tasks={"PowerOff": 1500})
    vsphere.server.faults({"method": "WaitForUpdatesEx", "drop": True, "skip": 1})
    vsphere.server.forget_calls()
    assert [outcome.msg for outcome in vsphere.do(OFF, *ids)] == ["", ""]
    assert vsphere.server.calls()["PowerOffVM_Task"] == 2


def test_a_wait_that_is_never_answered_ends_with_the_deadline(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.server.delays(tasks={"PowerOff": 3000})
    vsphere.server.faults({"method": "WaitForUpdatesEx", "hold": 30_000, "times": 9})
    (late,) = vsphere.do(OFF, vm_id, deadline=2)
    assert "it still runs after" in late.msg, "the task had ended long before the wait did"


def test_a_card_that_vsphere_refuses_keeps_no_other_from_being_cut(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1", ["tap", "tap", "tap"])
    vsphere.server.faults(
        {"method": "ReconfigVM_Task", "fault": "The whole", "task": True},
        {"method": "ReconfigVM_Task", "fault": "The second", "task": True, "skip": 1},
    )
    (outcome,) = vsphere.do(SEAL, vm_id)
    assert "The second" in outcome.msg
    assert [nic.isolation for nic in vsphere.vm(vm_id).nics] == [Isolation.SEALED, Isolation.FREE, Isolation.SEALED]


# VMs of all kinds


@pytest.mark.parametrize("count", [0, 10])
def test_no_card_and_ten_cards(vsphere: VsphereBench, count: int) -> None:
    vm_id = vsphere.create("desk1", ["tap"] * count)
    former = vsphere.wiring(vm_id)
    vsphere.one(SEAL, vm_id)
    assert (vsphere.vm(vm_id).isolation, len(vsphere.vm(vm_id).nics)) == (Isolation.SEALED, count)
    vsphere.one(FREE, vm_id)
    assert vsphere.wiring(vm_id) == former


def test_the_seal_is_all_three_flags_and_no_word_to_the_guest(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.one(SEAL, vm_id)
    machine = vsphere.machine(vm_id)
    (device,) = (one for one in machine.config.hardware.device if isinstance(one, vim.vm.device.VirtualEthernetCard))
    link = device.connectable
    assert (link.connected, link.startConnected, link.allowGuestControl) == (False, False, False)
    assert not [option.key for option in machine.config.extraConfig if option.key.startswith("guestinfo")]
    (note,) = machine.customValue
    assert "2026-1" in note.value


def test_forensic_moves_the_cards_to_the_isolation_port_group(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1", ["tap", "tap"])
    done = vsphere.one(FORENSIC, vm_id)
    assert "decided by the isolation network" in done.warnings[0]
    assert {nic.network for nic in vsphere.vm(vm_id).nics} == {"DC0_DVPG1"}


def test_without_its_port_group_forensic_is_refused_before_anything_is_touched(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    former = vsphere.wiring(vm_id)
    entry = {"vsphere": {**vsphere.server.entry["vsphere"], "forensic_network": "no such network"}}
    hypervisor = connect("hv1", entry)
    (outcome,) = execute(hypervisor, FORENSIC, [(vm_id, "desk1")], 30, False)
    hypervisor.close()
    assert "hv1 cannot do it here: it has not exactly one network named 'no such network'. There are: " in outcome.msg
    assert "DC0_DVPG1" in outcome.msg
    assert vsphere.wiring(vm_id) == former
    assert vsphere.vm(vm_id).note is None


def test_a_template_is_no_vm(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("golden", running=False)
    vsphere.machine(vm_id).MarkAsTemplate()
    (outcome,) = vsphere.do(SEAL, vm_id)
    vsphere.machine(vm_id).MarkAsVirtualMachine(vsphere.pool)
    assert "it is a template" in outcome.msg


def test_the_same_name_in_two_folders_is_ambiguous_and_a_moid_is_not(vsphere: VsphereBench) -> None:
    ids = [vsphere.create("desk1", running=False)]
    folder = vsphere.centre.vmFolder.CreateFolder("other")
    moved = vsphere.create("desk2", running=False)
    finish(folder.MoveIntoFolder_Task([vsphere.machine(moved)]))
    finish(vsphere.machine(moved).Rename_Task("desk1"))
    ids.append(moved)
    found = resolve([vsphere.hypervisor], vsphere.hypervisor.refs(), ["desk1", vsphere.machine(moved)._moId])
    assert isinstance(found["desk1"], Ambiguous)
    assert all(vm_id in str(found["desk1"]) for vm_id in ids)
    assert found[vsphere.machine(moved)._moId].id == moved  # type: ignore[union-attr]
    paths = ["/DC0/vm/desk1", "/DC0/vm/other/desk1", "/DC0/vm/other"]
    by_path = resolve([vsphere.hypervisor], vsphere.hypervisor.refs(), paths)
    assert [getattr(by_path[path], "id", None) for path in paths] == [*ids, None]
    vsphere.vanish(moved)
    finish(folder.Destroy_Task())


def test_a_card_found_by_its_mac(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    assert resolve([vsphere.hypervisor], vsphere.hypervisor.refs(), [mac(0)])[mac(0)].id == vm_id  # type: ignore[union-attr]


# A stand-alone host


def test_a_stand_alone_host_is_held_and_freed_too(esxi: Vcsim) -> None:
    hypervisor = connect("esx1", {"vsphere": {**esxi.entry["vsphere"], "forensic_network": "VM Network"}})
    try:
        (first,) = hypervisor.refs()
        assert not hypervisor.link.is_vcenter  # type: ignore[attr-defined]
        a_life(hypervisor, first.id)
    finally:
        hypervisor.close()


def a_life(hypervisor: Hypervisor, vm_id: str) -> None:
    verbs: list[tuple[UseCase, Callable[[dict[str, Any]], bool]]] = [
        (SetSnapshot("clean", "present", "", False), lambda after: after["snapshots"] == ["clean"]),
        (SEAL, lambda after: after["isolation"] == "sealed"),
        (FREE, lambda after: after["isolation"] == "free"),
        (OFF, lambda after: after == {"power": "stopped"}),
        (SEAL, lambda after: after["isolation"] == "sealed"),
        (Revert("clean", False, True, {vm_id: WAIVED}), lambda after: after["isolation"] == "sealed"),
        (ON, lambda after: after == {"power": "running"}),
        (SetPower("stopped", True, 0, {vm_id: WAIVED}), lambda after: after == {"power": "stopped"}),
        (Delete(True, {vm_id: WAIVED}), lambda after: after == {"state": "absent"}),
    ]
    for verb, holds in verbs:
        (outcome,) = execute(hypervisor, verb, [(vm_id, "vm")], 30, False)
        assert not outcome.failed, outcome.msg
        assert holds(outcome.after), (verb, outcome)


# What vSphere withholds


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [("NoPermission", "the privilege VirtualMachine.Config.EditDevice is missing"), ("Disk full", "Disk full")],
)
def test_a_property_that_is_withheld_is_that_vms_error_and_never_a_gap(
    vsphere: VsphereBench, fault: str, sentence: str
) -> None:
    ids = [vsphere.create("a"), vsphere.create("b")]
    struck = {"method": "RetrievePropertiesEx", "vm": "b", "fault": fault, "times": 9}
    vsphere.server.faults({**struck, "withhold": "runtime.connectionState"})
    sound, withheld = vsphere.do(SEAL, *ids)
    assert not sound.failed
    assert sentence in withheld.msg
    assert "Cannot read" in withheld.msg
    vsphere.server.faults({**struck, "withhold": "config.instanceUuid"})
    with pytest.raises((AuthFailed, TaskFailed), match=sentence):
        vsphere.hypervisor.refs()
    vsphere.server.faults({**struck, "withhold": "config.instanceUuid", "fault": "ManagedObjectNotFound"})
    assert [ref.id for ref in vsphere.hypervisor.refs()] == ids[:1]


def test_two_cards_with_one_mac_are_two_cards(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1", ["tap", "tap-down"])
    vsphere.plug(vm_id, mac(0))
    first, other, twin = vsphere.vm(vm_id).nics
    assert (first.id, other.id, twin.mac) == (mac(0), mac(1), mac(0))
    assert twin.id.startswith(mac(0) + "-")
    former = vsphere.wiring(vm_id)
    vsphere.one(SEAL, vm_id)
    assert [nic.isolation for nic in vsphere.vm(vm_id).nics] == [Isolation.SEALED] * 3
    vsphere.one(FREE, vm_id)
    assert vsphere.wiring(vm_id) == former


# The network and the world, in the middle


@pytest.mark.parametrize("method", ["RetrievePropertiesEx", "WaitForUpdatesEx", "PowerOffVM_Task", "Login"])
def test_half_an_answer_is_no_answer(vsphere: VsphereBench, method: str) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.server.faults({"method": method, "half": True, "times": 9})
    if method == "Login":
        assert "Check that the server runs" in refused(vsphere.server.entry)
        return
    try:
        (outcome,) = vsphere.do(OFF, vm_id)
        told = outcome.msg
        assert outcome.failed
    except TaskFailed as exc:
        told = str(exc)
    assert "the connection to 127.0.0.1:" in told
    assert PASSWORD not in told
    vsphere.server.faults()
    vsphere.one(OFF, vm_id)
    assert vsphere.vm(vm_id).power is PowerState.STOPPED


def test_a_vm_that_moves_to_another_host_in_the_middle_is_cut_there(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")

    class Moving(SetIsolation):
        def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
            plan = super().plan(hypervisor, vm)
            machine = vsphere.machine(vm_id)
            hosts = {host for host in vsphere.centre.hostFolder.childEntity[0].host if host != machine.runtime.host}
            finish(machine.RelocateVM_Task(vim.vm.RelocateSpec(host=hosts.pop())))
            return plan

    vsphere.one(Moving(Isolation.SEALED, "2026-1"), vm_id)
    assert vsphere.vm(vm_id).isolation is Isolation.SEALED
