# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only vSphere has: API calls counted, its faults in sentences, tasks taken up again, a stand-alone host."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect
from ansible_collections.vmward.remediation.plugins.module_utils._errors import Ambiguous, AuthFailed, TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.content import flaw_of_core
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Hypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._model import Collector, Isolation, PowerState, VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Outcome, UseCase, execute
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.disks import Delete
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.info import Info
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert, SetSnapshot
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.connection import THREADS
from ansible_collections.vmward.remediation.plugins.module_utils._wait import poll_all
from ansible_collections.vmward.remediation.tests.conformance.benches import mac
from ansible_collections.vmward.remediation.tests.conformance.vsphere import VsphereBench, finish
from ansible_collections.vmward.remediation.tests.vcsim.server import PASSWORD, Vcsim

SEAL = SetIsolation(Isolation.SEALED, "2026-1")
FREE = SetIsolation(Isolation.FREE, keep_sessions=True)
FORENSIC = SetIsolation(Isolation.FORENSIC, "2026-1", [Collector("192.0.2.1", 22)])
OFF = SetPower("stopped", True, 0, {})
ON = SetPower("running", True, 0, {})
MANY = 100


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    """A vCenter with a hundred running VMs."""
    server = Vcsim(tmp_path_factory.mktemp("fleet"), "-vms", str(MANY))
    yield server
    server.stop()


@pytest.fixture
def calm(fleet: Vcsim) -> Iterator[Vcsim]:
    yield fleet
    fleet.faults()
    fleet.delays()


def task(server: Vcsim, usecase: UseCase, names: list[str], deadline: float = 60) -> list[Outcome]:
    """What one Ansible task does: log in, resolve, run, log out."""
    hypervisor = connect("vc1", server.entry)
    try:
        refs = resolve([hypervisor], hypervisor.refs(), names)
        chosen = [(ref.id, ref.name) for ref in refs.values() if isinstance(ref, VmRef)]
        return execute(hypervisor, usecase, chosen, deadline, False)
    finally:
        hypervisor.close()


def names_of(server: Vcsim) -> list[str]:
    hypervisor = connect("vc1", server.entry)
    try:
        return sorted(ref.name for ref in hypervisor.refs())
    finally:
        hypervisor.close()


ONCE = ["RetrieveServiceContent", "Login", "Logout", "CreateContainerView"]
# Reads: one list, one bulk read; after a change one read-back; before a task that could be taken up one look for it.
COSTS: list[tuple[UseCase, int, list[str]]] = [
    (Info(), 2, []),
    (SEAL, 3, ["SetField", "ReconfigVM_Task"]),
    (FREE, 3, ["SetField", "ReconfigVM_Task"]),
    (FORENSIC, 3, ["SetField", "ReconfigVM_Task"]),
    (FREE, 3, ["SetField", "ReconfigVM_Task"]),
    (SetSnapshot("clean", "present", "", False), 4, ["CreateSnapshot_Task"]),
    (OFF, 4, ["PowerOffVM_Task"]),
    (Revert("clean", False, True, {}), 4, ["RevertToSnapshot_Task"]),
    (ON, 4, ["PowerOnVM_Task"]),
    (SetSnapshot("clean", "absent", "", False), 4, ["RemoveSnapshot_Task"]),
]


def test_the_calls_are_a_constant_and_so_many_for_each_vm(calm: Vcsim) -> None:
    names = names_of(calm)
    for usecase, reads, each in COSTS:
        for part in (names[:1], names[1:]):
            calm.forget_calls()
            assert [outcome.msg for outcome in task(calm, usecase, part) if outcome.failed] == []
            calls = calm.calls()
            waits = calls.pop("WaitForUpdatesEx", 0)
            calls.pop("AddCustomFieldDef", None)  # once in the life of a vCenter
            wanted = {**dict.fromkeys(ONCE, 1), "RetrievePropertiesEx": reads, **dict.fromkeys(each, len(part))}
            awaits = len(each) - ("SetField" in each)
            calls.pop("DestroyPropertyFilter", None)
            assert calls == {**wanted, **({"CreateFilter": awaits} if awaits else {})}
            assert waits <= 4 + len(part) // 4
            assert bool(waits) is bool(each)


def test_reverts_of_held_vms_are_read_in_bulk_too(calm: Vcsim) -> None:
    names = names_of(calm)
    for part in (names[:1], names[1:31]):
        for usecase in (SetSnapshot("clean", "present", "", False), SEAL):
            task(calm, usecase, part)
        hypervisor = connect("vc1", calm.entry)
        gate = {ref.id: WAIVED for ref in hypervisor.refs()}
        hypervisor.close()
        calm.forget_calls()
        outcomes = task(calm, Revert("clean", False, False, gate), part)
        assert {outcome.after["isolation"] for outcome in outcomes} == {"sealed"}
        calls = calm.calls()
        assert calls["RetrievePropertiesEx"] == 6  # list, read, running tasks; before the note, before the cut; read-back
        for method in ("RevertToSnapshot_Task", "SetField", "ReconfigVM_Task"):
            assert calls[method] == len(part)
        for usecase in (FREE, ON, SetSnapshot("clean", "absent", "", False)):
            assert not any(outcome.failed for outcome in task(calm, usecase, part))


def test_three_of_a_hundred_fail_and_ninety_seven_are_done(calm: Vcsim) -> None:
    names = names_of(calm)
    unlucky = [names[7], names[50], names[99]]
    calm.faults(
        {"method": "ReconfigVM_Task", "vm": unlucky[0], "fault": "NoPermission", "times": 9},
        {"method": "ReconfigVM_Task", "vm": unlucky[1], "fault": "The disk is on fire", "task": True, "times": 9},
        {"method": "SetField", "vm": "", "fault": "The table is full", "skip": 30},
    )
    outcomes = task(calm, SEAL, names)
    failed = {outcome.name: outcome.msg for outcome in outcomes if outcome.failed}
    assert len(failed) == 3
    assert "VirtualMachine.Config.EditDevice is missing" in failed[unlucky[0]]
    assert "The disk is on fire" in failed[unlucky[1]]
    assert sum("The table is full" in sentence for sentence in failed.values()) == 1
    assert sum(outcome.after["isolation"] == "sealed" for outcome in outcomes) == 97
    calm.faults()
    assert not any(outcome.failed for outcome in task(calm, SEAL, names))
    assert not any(outcome.failed for outcome in task(calm, FREE, names))


# Sessions and connections


def refused(entry: dict[str, Any], **changed: Any) -> str:
    with pytest.raises((AuthFailed, TaskFailed)) as told:
        connect("vc1", {"vsphere": {**entry["vsphere"], **changed}})
    assert PASSWORD not in str(told.value)
    return str(told.value)


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


def test_nothing_hangs_past_its_deadline_when_the_server_is_slow(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.server.delays(methods={"PowerOffVM_Task": 3000})
    (late,) = vsphere.do(OFF, vm_id, deadline=1)
    assert "it still runs after" in late.msg
    assert late.seconds < 2.5


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
    assert "hv1 cannot do it here" in outcome.msg
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
    vsphere.vanish(moved)
    finish(folder.Destroy_Task())


def test_a_card_found_by_its_mac(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    assert resolve([vsphere.hypervisor], vsphere.hypervisor.refs(), [mac(0)])[mac(0)].id == vm_id  # type: ignore[union-attr]


# A stand-alone host


@pytest.fixture(scope="module")
def esxi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    server = Vcsim(tmp_path_factory.mktemp("esxi"), "-esx", "-vms", "2")
    yield server
    server.stop()


def test_a_stand_alone_host_is_held_and_freed_too(esxi: Vcsim) -> None:
    hypervisor = connect("esx1", {"vsphere": {**esxi.entry["vsphere"], "forensic_network": "VM Network"}})
    try:
        (first, _second) = hypervisor.refs()
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


WAIVED = {"classes": {name: {"state": "waived", "by": "test"} for name in ("memory", "connections", "disks", "logs")}}


# Memory


@pytest.mark.parametrize("power", ["running", "paused"])
def test_the_memory_is_fetched_whole_and_no_snapshot_is_left(vsphere: VsphereBench, tmp_path: Path, power: str) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.one(SetPower(power, False, 0, {}), vm_id)
    path = tmp_path / "memory.elf"
    vm = vsphere.vm(vm_id)
    assert poll_all([vsphere.hypervisor.submit_memory_dump(vm, str(path))], 30) == {vm_id: None}
    content = path.read_bytes()
    assert flaw_of_core(content[:4096], len(content)) == ""
    assert len(content) == 4096 + vm.memory
    assert content[4096:].startswith(b"memory of ")
    assert vsphere.vm(vm_id).snapshots == ()
    assert vsphere.vm(vm_id).power.value == power
    assert vsphere.hypervisor.progress(vm) == (vm.memory, vm.memory)


def test_a_memory_file_that_cannot_be_had_is_said_and_no_snapshot_is_left(
    vsphere: VsphereBench, tmp_path: Path
) -> None:
    vm_id = vsphere.create("desk1")
    vm = vsphere.vm(vm_id)
    vsphere.server.faults({"method": "GET /folder", "status": 403})
    told = poll_all([vsphere.hypervisor.submit_memory_dump(vm, str(tmp_path / "one"))], 30)[vm_id]
    assert "HTTP status 403" in str(told)
    vsphere.server.faults({"method": "CreateSnapshot_Task", "fault": "The datastore is full", "task": True})
    told = poll_all([vsphere.hypervisor.submit_memory_dump(vm, str(tmp_path / "two"))], 30)[vm_id]
    assert "The datastore is full" in str(told)
    assert vsphere.vm(vm_id).snapshots == ()


# Suspended VMs


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


# Cards with one MAC, and what is queued at the end


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


def test_what_is_queued_when_the_session_ends_is_never_called(calm: Vcsim) -> None:
    names = names_of(calm)[:20]
    calm.delays(methods={"PowerOffVM_Task": 3000})
    calm.forget_calls()
    outcomes = task(calm, OFF, names, deadline=1)
    assert all("it still runs after" in outcome.msg for outcome in outcomes)
    time.sleep(4)
    calls = calm.calls()
    assert (calls["PowerOffVM_Task"], calls["Login"], calls["Logout"]) == (THREADS, 1, 1)
    calm.delays()
    task(calm, ON, names)
