# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input and broken servers on vSphere: each its sentence, no password in it, and logged out in the end."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

from ansible_collections.vmward.remediation.plugins.module_utils import _module
from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect
from ansible_collections.vmward.remediation.plugins.module_utils._crew import apart
from ansible_collections.vmward.remediation.plugins.module_utils._errors import (
    NotFound,
    TaskFailed,
    VmwardError,
)
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import FINDING, Hypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation, PowerState, Vm
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Plan, Step, UseCase, execute
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import SetSnapshot
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere import convert
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.note import KEY as NOTE
from ansible_collections.vmward.remediation.tests.conformance.vsphere import (
    FORENSIC,
    FREE,
    OFF,
    ON,
    SEAL,
    VsphereBench,
    card,
    finish,
    refused,
    without_attribute,
)
from ansible_collections.vmward.remediation.tests.vcsim.server import PASSWORD, USER, Vcsim, shown

ROOT = Path(__file__).resolve().parents[2]

# Hosts and certificates


@pytest.mark.parametrize(
    ("kind", "cause", "advice"),
    [
        ("elsewhere", "IP address mismatch", "Set hostname to a name that the certificate bears"),
        ("expired", "certificate has expired", "Have it renewed, or correct the clock of this host"),
    ],
)
def test_a_certificate_of_another_host_or_time_is_told_as_that(
    tmp_path: Path, kind: str, cause: str, advice: str
) -> None:
    with Vcsim(tmp_path, "-certificate", kind) as server:
        told = refused(server.entry)
    assert cause in told
    assert advice in told
    assert "Set ca_path" not in told


def test_a_name_that_nobody_knows_is_told(vcenter: Vcsim) -> None:
    told = refused(vcenter.entry, hostname="vc1.vmward.invalid")
    assert "the connection to vc1.vmward.invalid:" in told


@pytest.mark.parametrize("option", ["username", "password", "guest_username", "guest_password"])
@pytest.mark.parametrize("spoilt", ["{}\n", "{}\x1b", "{}\x00", "{}\ud800"], ids=ascii)
def test_a_log_in_that_cannot_be_sent_is_refused_without_showing_it(vcenter: Vcsim, option: str, spoilt: str) -> None:
    """As it is read from a file with its line end; it would count as a wrong one, or break the request."""
    vcenter.forget_calls()
    told = refused(vcenter.entry, **{option: spoilt.format(PASSWORD)})
    assert f"Cannot log in to vc1: {option} holds a control character" in told
    assert not shown(told)
    assert vcenter.calls() == {}


# In the middle of a batch


def test_a_note_whose_answer_is_lost_is_written_once_more(vsphere: VsphereBench) -> None:
    """Without its note a VM is not cut."""
    vm_id = vsphere.create("desk1")
    vsphere.server.faults({"method": "SetField", "status": 503})
    assert vsphere.one(SEAL, vm_id).after["isolation"] == "sealed"


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("usecase", [SEAL, OFF], ids=["seal", "off"])
def test_an_error_status_is_one_vms_failure_and_repeats_nothing(
    vsphere: VsphereBench, status: int, usecase: UseCase
) -> None:
    ids = [vsphere.create(name) for name in ("a", "b", "c")]
    method = "ReconfigVM_Task" if usecase is SEAL else "PowerOffVM_Task"
    vsphere.server.faults({"method": method, "status": status})
    vsphere.server.forget_calls()
    outcomes = vsphere.do(usecase, *ids)
    (failed,) = (outcome for outcome in outcomes if outcome.failed)
    assert "look at the VM with vm_info, and run again" in failed.msg
    assert vsphere.server.calls()[method] == 2, "the call that failed never reached the server, and was not repeated"
    assert not any(outcome.failed for outcome in vsphere.do(usecase, *ids))


def test_a_log_in_that_is_refused_in_the_middle_is_tried_once(vsphere: VsphereBench) -> None:
    ids = [vsphere.create(name) for name in ("a", "b", "c")]
    left = [*ids]

    class Expiring(SetIsolation):
        def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
            left.remove(vm.ref.id)
            if not left:
                vsphere.server.expire_sessions()
                vsphere.server.faults({"method": "Login", "fault": "InvalidLogin", "times": 99})
                vsphere.server.forget_calls()
            return super().plan(hypervisor, vm)

    outcomes = vsphere.do(Expiring(Isolation.SEALED, "2026-1"), *ids)
    assert all("Check username and password of hv1" in outcome.msg for outcome in outcomes)
    assert vsphere.server.calls()["Login"] == 1, "a wrong password that is tried for each VM locks the account"
    vsphere.server.faults()
    vsphere.renew()
    vsphere.hypervisor.close()
    vsphere.hypervisor = connect("hv1", vsphere.entry)
    assert not any(outcome.failed for outcome in vsphere.do(SEAL, *ids))


def test_a_vm_that_is_deleted_while_its_task_is_awaited_is_its_own_failure_alone(
    vsphere: VsphereBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After somebody's task on it: whether that was ours is read of a VM that vSphere leaves out of its answer."""
    gone, left = vsphere.create("a"), vsphere.create("b")
    hypervisor: Any = vsphere.hypervisor
    ref, other = (hypervisor.read([vm_id])[vm_id].ref for vm_id in (gone, left))
    vm = hypervisor.read([gone])[gone]
    monkeypatch.setattr(hypervisor, "_properties", lambda _moids, _detail: {})
    pending = [
        hypervisor.tasks.start(ref, "revert", lambda: hypervisor._now(vm)),
        hypervisor.tasks.start(other, "suspend", hypervisor.machine(other).SuspendVM_Task),
    ]
    ended = hypervisor.wait(pending, 30)
    assert isinstance(ended[gone], NotFound)
    assert ended[left] is None


def test_waiting_for_one_vms_task_forgets_no_others(vsphere: VsphereBench) -> None:
    """As when VMs of one vCenter are found late: two threads then work on it."""
    ids = vsphere.create("a"), vsphere.create("b")
    hypervisor: Any = vsphere.hypervisor
    vms = [hypervisor.read([vm_id])[vm_id] for vm_id in ids]
    one, other = [[hypervisor.submit_pause(vm)] for vm in vms]
    assert hypervisor.wait(one, 30) == {ids[0]: None}
    assert hypervisor.wait(other, 30) == {ids[1]: None}


def test_two_threads_wait_for_tasks_of_one_vcenter(vsphere: VsphereBench) -> None:
    ids = vsphere.create("a"), vsphere.create("b")
    vsphere.slow(ids[0], 3)
    hypervisor: Any = vsphere.hypervisor
    vms = [hypervisor.read([vm_id])[vm_id] for vm_id in ids]
    waits = [apart(partial(hypervisor.wait, [hypervisor.submit_pause(vm)], 30)) for vm in vms]
    assert [one.result(40) for one in waits] == [{vm_id: None} for vm_id in ids]


def test_who_looks_a_vm_up_takes_nothing_from_a_verb_that_works_on_it(
    vsphere: VsphereBench,
) -> None:
    """A slow vCenter may answer a look-up with what a VM was like before it was planned for."""
    hypervisor: Any = vsphere.hypervisor
    vm_id = vsphere.create("desk1")
    vsphere.one(SEAL, vm_id)
    vsphere.one(SetPower("paused", False, 0, {}), vm_id)
    known, running = hypervisor.props[vm_id], hypervisor._running
    hypervisor.read([vm_id], FINDING)
    assert hypervisor.props[vm_id] is known
    assert hypervisor._running is running


def test_a_vm_that_is_deleted_before_anothers_next_task_is_awaited_is_its_own_failure_alone(
    vsphere: VsphereBench,
) -> None:
    """What is awaited is told to the server anew then."""
    deaf, obeys = vsphere.create("desk1"), vsphere.create("desk2")
    vsphere.obeys(obeys)

    class Late(SetPower):
        def _restart(self, vm: Vm) -> tuple[Step, ...]:
            ask, start = super()._restart(vm)

            def gone_meanwhile(hypervisor: Any) -> Any:
                if isinstance(hypervisor, Hypervisor):  # not when it is rehearsed
                    vsphere.vanish(deaf)
                return hypervisor.submit_start(vm)

            return (ask, Step(start.text, gone_meanwhile)) if vm.ref.id == obeys else (ask, start)

    gone, outcome = vsphere.do(Late("restarted", False, 5, {}), deaf, obeys, deadline=20)
    assert (outcome.msg, outcome.after) == ("", {"power": "running"})
    assert gone.failed


@pytest.mark.parametrize(
    "usecase", [ON, SEAL, SetSnapshot("clean", "present", "", False)], ids=["on", "seal", "snapshot"]
)
def test_a_vm_that_is_registered_anew_between_plan_and_act_is_said_to_be_gone_or_that(
    vsphere: VsphereBench, usecase: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has another managed object then, and none is ever used again: nothing is done to it, nor to any other."""
    vm_id, plan, again = vsphere.create("desk1", running=False), usecase.plan, list[vim.VirtualMachine]()

    def late(hypervisor: Hypervisor, vm: Vm) -> Plan:
        made, machine = plan(hypervisor, vm), vsphere.machine(vm_id)
        path, former = machine.config.files.vmPathName, machine._moId
        machine.UnregisterVM()
        task = vsphere.centre.vmFolder.RegisterVM_Task(path, None, False, vsphere.pool)
        finish(task)
        again.append(task.info.result)
        assert again[0]._moId != former
        return made

    monkeypatch.setattr(usecase, "plan", late)
    (outcome,) = vsphere.do(usecase, vm_id)
    assert outcome.failed
    said = "It may have been removed meanwhile: list what there is with vm_info. If it was registered anew, run again."
    assert said in outcome.msg
    assert (again[0].runtime.powerState, again[0].snapshot) == ("poweredOff", None)
    cards = [device for device in again[0].config.hardware.device if isinstance(device, card)]
    assert all(device.connectable.startConnected for device in cards)


def test_a_vm_that_is_held_is_known_as_that_while_it_is_read_again(
    vsphere: VsphereBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypervisor: Any = vsphere.hypervisor
    vm_id = vsphere.create("desk1")
    vsphere.one(SetPower("paused", False, 0, {}), vm_id)
    vsphere.one(SEAL, vm_id)
    seen: list[tuple[str, ...]] = []
    judge = convert.vm_of

    def judging(*told: Any) -> Vm:
        seen.append(hypervisor.remarks(vm_id))
        return judge(*told)

    monkeypatch.setattr(convert, "vm_of", judging)
    hypervisor.read([vm_id])
    assert seen == [hypervisor.remarks(vm_id)]
    assert "its memory was not seen to hold the cut" in seen[0][0]


def test_a_surprise_in_one_vms_call_is_its_own_failure_alone(vsphere: VsphereBench) -> None:
    ids = vsphere.create("a"), vsphere.create("b")
    hypervisor: Any = vsphere.hypervisor
    one, other = (hypervisor.read([vm_id])[vm_id].ref for vm_id in ids)
    pending = [
        hypervisor.tasks.start(one, "suspend", {}.popitem),
        hypervisor.tasks.start(other, "suspend", hypervisor.machine(other).SuspendVM_Task),
    ]
    ended = hypervisor.wait(pending, 30)
    assert "Cannot suspend" in str(ended[one.id])
    assert ended[other.id] is None


@pytest.mark.parametrize("kind", [ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLError])
def test_a_handshake_that_breaks_off_is_no_refusal(
    vsphere: VsphereBench, monkeypatch: pytest.MonkeyPatch, kind: type[ssl.SSLError]
) -> None:
    """Neither of the certificate nor of the log-in: the next call logs in again."""
    vm_id = vsphere.create("a")
    stub = vsphere.hypervisor.link.stub  # type: ignore[attr-defined]
    invoke, broken = stub.InvokeMethod, [kind(8, "EOF occurred in violation of protocol")]

    def breaking(mo: Any, info: Any, args: Any, outer: Any = None) -> Any:
        if info.wsdlName == "Login" and broken:
            raise broken.pop()
        return invoke(mo, info, args, outer)

    monkeypatch.setattr(stub, "InvokeMethod", breaking)
    vsphere.hypervisor.refs()
    vsphere.expire()
    with pytest.raises(TaskFailed, match="Cannot log in on hv1: the connection to .* failed"):
        vsphere.hypervisor.read([vm_id])
    assert not broken
    assert not any(outcome.failed for outcome in vsphere.do(SEAL, vm_id))


@pytest.mark.parametrize("skip", [0, 1], ids=["list", "read"])
def test_it_is_logged_out_after_a_list_or_a_read_that_fails(vsphere: VsphereBench, skip: int) -> None:
    vsphere.create("desk1")
    vsphere.server.faults({"method": "RetrievePropertiesEx", "status": 500, "times": 9, "skip": skip})
    vsphere.server.forget_calls()
    params = {"hypervisors": {"vc1": vsphere.entry}, "only": [], "vms": ["desk1"], "deadline": 30}
    try:
        (outcome,) = _module.whole(params, lambda _params: OFF, False)
        told = outcome.msg
    except VmwardError as exc:
        told = str(exc)
    assert "the connection to 127.0.0.1:" in told
    assert not shown(told)
    calls = vsphere.server.calls()
    assert calls["Logout"] == calls["Login"] == 1


HANGING = """
import threading
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.api import VsphereHypervisor
from ansible_collections.vmward.remediation.plugins.modules import vm_isolation

def hang(*_given):
    print("here", flush=True)
    threading.Event().wait()

VsphereHypervisor.{} = hang
vm_isolation.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
@pytest.mark.parametrize("verb", ["refs", "submit_note"], ids=["listing", "working"])
def test_it_is_logged_out_when_a_signal_ends_the_module(
    vsphere: VsphereBench, number: signal.Signals, verb: str
) -> None:
    vsphere.create("desk1")
    vsphere.server.forget_calls()
    arguments = {"hypervisors": {"vc1": vsphere.entry}, "vms": ["desk1"], "state": "sealed"}
    module = subprocess.Popen(
        [sys.executable, "-c", HANGING.format(verb)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "build/collections")},
    )  # fmt: skip
    assert module.stdin is not None
    assert module.stdout is not None
    module.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
    module.stdin.close()
    assert module.stdout.readline() == "here\n"
    module.send_signal(number)
    told = module.stdout.read()
    assert module.wait() != 0, told
    assert vsphere.server.calls().get("Logout") == 1, told
    assert not shown(told)


# What there is


def test_answers_that_come_in_pages_are_read_to_the_last(vsphere: VsphereBench) -> None:
    ids = [vsphere.create(f"desk{number}") for number in range(7)]
    vsphere.server.pages(3)
    vsphere.server.forget_calls()
    assert {ref.id for ref in vsphere.hypervisor.refs()} == set(ids)
    assert vsphere.server.calls()["ContinueRetrievePropertiesEx"] > 2
    assert [outcome.after["isolation"] for outcome in vsphere.do(SEAL, *ids)] == ["sealed"] * 7
    vsphere.server.faults({"method": "ContinueRetrievePropertiesEx", "status": 503, "times": 9})
    with pytest.raises(TaskFailed):  # and never a list that ends early
        vsphere.hypervisor.refs()


def test_two_vms_with_one_instance_uuid_are_told_apart(vsphere: VsphereBench) -> None:
    first, second = vsphere.create("desk1"), vsphere.create("desk2")
    finish(vsphere.machine(second).ReconfigVM_Task(vim.vm.ConfigSpec(instanceUuid=first)))
    moids = {machine.name: machine._moId for machine in vsphere.centre.vmFolder.childEntity}
    refs = vsphere.hypervisor.refs()
    assert {ref.name: ref.id for ref in refs} == moids
    found = resolve([vsphere.hypervisor], refs, ["desk1", first])
    assert found["desk1"].id == moids["desk1"]  # type: ignore[union-attr]
    assert isinstance(found[first], VmwardError)
    vsphere.one(SEAL, moids["desk1"])
    assert vsphere.vm(moids["desk2"]).isolation is Isolation.FREE


def test_two_networks_of_one_name_are_no_isolation_network(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    folder = vsphere.centre.networkFolder.CreateFolder("other")
    switch = vim.DistributedVirtualSwitch.ConfigSpec(name="other")
    task = folder.CreateDVS_Task(vim.DistributedVirtualSwitch.CreateSpec(configSpec=switch))
    finish(task)
    twin = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(name="DC0_DVPG1", type="earlyBinding", numPorts=1)
    finish(task.info.result.AddDVPortgroup_Task([twin]))
    try:
        vsphere.hypervisor.refs()
        (outcome,) = vsphere.do(FORENSIC, vm_id)
    finally:
        finish(folder.Destroy_Task())
    assert "it has not exactly one network named 'DC0_DVPG1'" in outcome.msg
    assert vsphere.vm(vm_id).note is None


def test_forensic_moves_the_cards_to_a_standard_port_group_and_back(esxi: Vcsim) -> None:
    session = SmartConnect(host=esxi.host, port=esxi.port, user=USER, pwd=PASSWORD, disableSslCertValidation=True)
    (centre,) = session.RetrieveContent().rootFolder.childEntity
    (system,) = centre.hostFolder.childEntity[0].host
    spec = vim.host.PortGroup.Specification(name="Quarantine", vlanId=0, vswitchName="vSwitch0")
    spec.policy = vim.host.NetworkPolicy()
    system.configManager.networkSystem.AddPortGroup(spec)
    hypervisor = connect("esx1", {"vsphere": {**esxi.entry["vsphere"], "forensic_network": "Quarantine"}})
    try:
        (ref,) = hypervisor.refs()
        for usecase, network in ((FORENSIC, "Quarantine"), (FREE, "VM Network")):
            (outcome,) = execute(hypervisor, usecase, [(ref.id, "vm")], 30, False)
            assert not outcome.failed, outcome.msg
            vm = hypervisor.read([ref.id])[ref.id]
            assert isinstance(vm, Vm)
            assert [nic.network for nic in vm.nics] == [network]
            (card,) = (
                one
                for one in centre.vmFolder.childEntity[0].config.hardware.device
                if isinstance(one, vim.vm.device.VirtualEthernetCard)
            )
            assert card.backing.deviceName == network
    finally:
        hypervisor.close()
        Disconnect(session)


# Guests that are asked to shut down


def test_a_guest_that_obeys_is_not_forced(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.obeys(vm_id)
    vsphere.server.forget_calls()
    assert vsphere.one(SetPower("stopped", False, 20, {}), vm_id).after == {"power": "stopped"}
    calls = vsphere.server.calls()
    assert calls["ShutdownGuest"] == 1
    assert "PowerOffVM_Task" not in calls


def test_a_guest_without_tools_is_told_and_forced_only_if_asked_for(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.server.faults({"method": "ShutdownGuest", "fault": "ToolsUnavailable", "times": 9})
    (outcome,) = vsphere.do(SetPower("stopped", False, 5, {}), vm_id)
    assert "VMware Tools do not run in it. Use force: true to take its power away" in outcome.msg
    assert vsphere.vm(vm_id).power is PowerState.RUNNING
    assert vsphere.one(SetPower("stopped", True, 5, {}), vm_id).after == {"power": "stopped"}


# The custom attribute of the undo notes


def test_the_first_cut_of_all_survives_that_the_attribute_s_answer_is_lost(vsphere: VsphereBench) -> None:
    attributes = without_attribute(vsphere)
    ids = [vsphere.create(f"desk{number}") for number in range(3)]
    vsphere.server.faults({"method": "AddCustomFieldDef", "half": True})
    assert [outcome.msg for outcome in vsphere.do(SEAL, *ids)] == [""] * 3
    assert [one.name for one in attributes.field].count(NOTE) == 1


def test_another_run_that_defines_the_attribute_first_is_no_failure(vsphere: VsphereBench) -> None:
    attributes = without_attribute(vsphere)
    ids = [vsphere.create(f"desk{number}") for number in range(2)]

    class Late(SetIsolation):
        def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
            if vm.ref.id == ids[0]:
                attributes.AddFieldDefinition(NOTE, vim.VirtualMachine, None, None)
            return super().plan(hypervisor, vm)

    outcomes = vsphere.do(Late(Isolation.SEALED, "2026-1"), *ids)
    assert [(outcome.msg, outcome.after["isolation"]) for outcome in outcomes] == [("", "sealed")] * 2
