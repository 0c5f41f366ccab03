# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet on vSphere: calls counted, partial failures, what is queued when the session ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils import _plan
from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect
from ansible_collections.vmward.remediation.plugins.module_utils._model import VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Outcome, UseCase, execute
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.disks import Delete
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.info import Info
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert, SetSnapshot
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere import tasks
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.connection import THREADS
from ansible_collections.vmward.remediation.tests.conformance.vsphere import FORENSIC, FREE, OFF, ON, SEAL, WAIVED
from ansible_collections.vmward.remediation.tests.vcsim.server import Vcsim

MANY = 100


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    """A vCenter with a hundred running VMs."""
    with Vcsim(tmp_path_factory.mktemp("fleet"), "-vms", str(MANY)) as server:
        yield server


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
    (SetPower("paused", False, 0, {}), 4, ["SuspendVM_Task"]),
    (SetPower("running", False, 0, {}), 4, ["PowerOnVM_Task"]),
    (SetPower("restarted", True, 0, {}), 4, ["PowerOffVM_Task", "PowerOnVM_Task"]),
    (SetPower("stopped", False, 60, {}), 3, ["ShutdownGuest"]),
    (ON, 4, ["PowerOnVM_Task"]),
]


def test_the_calls_are_a_constant_and_so_many_for_each_vm(calm: Vcsim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "SILENCE", 60)  # a slow machine is no call that hangs
    monkeypatch.setattr(_plan, "TOGETHER", 60)  # nor one in which tasks end apart
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
            told = (usecase, getattr(usecase, "state", ""))
            assert calls == {**wanted, **({"CreateFilter": awaits} if awaits else {})}, told
            assert waits <= 4 + len(part) // 4
            assert bool(waits) is bool(each)


def test_a_deletion_costs_one_call_for_each_vm_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "SILENCE", 60)
    with Vcsim(tmp_path, "-vms", str(MANY + 1)) as server:
        names = names_of(server)
        task(server, OFF, names)
        for part in (names[:1], names[1:]):
            server.forget_calls()
            assert [outcome.msg for outcome in task(server, Delete(True, {}), part) if outcome.failed] == []
            calls = server.calls()
            assert calls.pop("WaitForUpdatesEx") <= 4 + len(part) // 4
            # Listed once more for the images of other VMs, and once more when those that are gone cannot be read.
            assert calls == {
                **dict.fromkeys(ONCE, 1),
                "CreateContainerView": 3,
                "CreateFilter": 1,
                "RetrievePropertiesEx": 7,
                "Destroy_Task": len(part),
            }
        assert names_of(server) == []


def test_reverts_of_held_vms_are_read_in_bulk_too(calm: Vcsim) -> None:
    names = names_of(calm)
    for part in (names[:1], names[1:31]):
        task(calm, SetSnapshot("clean", "present", "", False), part)
        task(calm, SEAL, part)
        hypervisor = connect("vc1", calm.entry)
        gate = {ref.id: WAIVED for ref in hypervisor.refs()}
        hypervisor.close()
        calm.forget_calls()
        outcomes = task(calm, Revert("clean", False, False, gate), part)
        assert {outcome.after["isolation"] for outcome in outcomes} == {"sealed"}
        calls = calm.calls()
        assert (
            calls["RetrievePropertiesEx"] == 6
        )  # list, read, running tasks; before the note, before the cut; read-back
        for method in ("RevertToSnapshot_Task", "SetField", "ReconfigVM_Task"):
            assert calls[method] == len(part)
        tidied: list[UseCase] = [FREE, ON, SetSnapshot("clean", "absent", "", False)]
        assert not [one.msg for usecase in tidied for one in task(calm, usecase, part) if one.failed]


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


def test_what_is_queued_when_the_session_ends_is_never_called(calm: Vcsim) -> None:
    names = names_of(calm)[: THREADS + 4]
    calm.delays(methods={"PowerOffVM_Task": 8000})
    calm.forget_calls()
    outcomes = task(calm, OFF, names, deadline=1)
    assert all("it still runs after" in outcome.msg for outcome in outcomes)
    time.sleep(9)
    calls = calm.calls()
    assert (calls["PowerOffVM_Task"], calls["Login"], calls["Logout"]) == (THREADS, 1, 1)
    calm.delays()
    task(calm, ON, names)
