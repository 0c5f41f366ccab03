# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input and faults: each gives its sentence, harms no other VM, and ends in time."""

from __future__ import annotations

import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect
from ansible_collections.vmward.remediation.plugins.module_utils._errors import (
    Ambiguous,
    AuthFailed,
    NotFound,
    TimedOut,
    VmwardError,
)
from ansible_collections.vmward.remediation.plugins.module_utils._model import Collector, Isolation, PowerState
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Outcome
from ansible_collections.vmward.remediation.plugins.module_utils._proxmox import connection
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.info import Info
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert, SetSnapshot
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench
from ansible_collections.vmward.remediation.tests.pve.fixture import SECRET, Cluster, make_certificates

SEAL = SetIsolation(Isolation.SEALED, "2026-1")
WAIVED = {"classes": {name: {"state": "waived", "by": "test"} for name in ("memory", "connections", "disks", "logs")}}
OFF = SetPower("stopped", True, 0, {})


def take(name: str, memory: bool = False) -> SetSnapshot:
    return SetSnapshot(name, "present", "", memory)


def told(outcomes: list[Outcome]) -> str:
    """All that a user could see; no secret may be in it."""
    text = str([asdict(outcome) for outcome in outcomes])
    assert SECRET not in text
    assert "hunter2" not in text
    return text


def refused(entry: dict[str, Any], **change: Any) -> str:
    with pytest.raises(VmwardError) as raised:
        connect("pve", {"proxmox": {**entry, **change}})
    assert SECRET not in str(raised.value)
    assert "hunter2" not in str(raised.value)
    return f"{type(raised.value).__name__}: {raised.value}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is given up after a second."""
    monkeypatch.setattr(connection, "ANSWER", 1.0)
    monkeypatch.setattr(connection, "CONNECT", 1.0)


# Logging in


def test_a_ca_that_did_not_sign_it(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")[0]
    sentence = refused(cluster.entry, ca_path=str(other))
    assert sentence.startswith("AuthFailed: Cannot log in on pve: the certificate of 127.0.0.1 cannot be trusted")
    assert "Set ca_path" in sentence


def test_without_a_ca_the_systems_own_decide(cluster: Cluster) -> None:
    assert "cannot be trusted" in refused({key: v for key, v in cluster.entry.items() if key != "ca_path"})


def test_checking_off_works_and_warns(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    made = connect("hv1", {"proxmox": {**bench.cluster.entry, "validate_certs": False, "ca_path": None}})
    bench.hypervisor = made
    assert "the certificate of hv1 is not checked (validate_certs: false)" in bench.one(Info(), vm_id).warnings


def test_a_token_that_is_refused(cluster: Cluster) -> None:
    sentence = refused(cluster.entry, token_secret="hunter2")
    assert sentence.startswith("AuthFailed: Cannot log in on pve: authentication failure")
    assert "The token ir@pve!contain was refused" in sentence


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"token_id": "ir@pve"}, "user@realm!name"),
        ({"token_secret": None}, "user@realm!name"),
        ({"token_id": None}, "neither token_id and token_secret nor user and password"),
    ],
)
def test_half_a_log_in(cluster: Cluster, change: dict[str, Any], part: str) -> None:
    assert part in refused(cluster.entry, **change)


def test_a_ticket_instead_of_a_token(cluster: Cluster) -> None:
    entry = {**cluster.entry, "token_id": None, "token_secret": None, "user": "root@pam", "password": "secret"}
    cluster.pve.add_vm(100, "desk1")
    hypervisor = connect("pve", {"proxmox": entry})
    cluster.pve.revoke_tickets()  # expired in the middle: renewed once
    assert [ref.name for ref in hypervisor.refs()] == ["desk1"]
    assert "refused root@pam" in refused(entry, password="hunter2")


def test_a_host_that_is_not_there(cluster: Cluster, quick: None) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        sentence = refused(cluster.entry, port=closed.getsockname()[1])
    assert "Cannot log in on pve: the connection to 127.0.0.1 failed" in sentence


def test_a_host_that_takes_connections_and_says_nothing(cluster: Cluster, quick: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        sentence = refused(cluster.entry, port=silent.getsockname()[1])
    assert time.monotonic() - began < 10
    assert sentence.startswith(("NoAnswer", "AuthFailed"))


def test_the_missing_library_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IMPORT_ERROR", ImportError("No module named 'proxmoxer'"))
    assert "Install proxmoxer and requests" in refused(cluster.entry)


# Privileges


@pytest.fixture
def poor(bench: ProxmoxBench) -> ProxmoxBench:
    """A token that may look at everything and cut nothing."""
    bench.pve.grant("ir@pve", "/vms", "VM.Audit")
    bench.pve.grant("ir@pve", "/sdn", "SDN.Use")
    bench.hypervisor = bench.connect()
    return bench


def test_a_missing_privilege_is_named_before_anything_is_touched(poor: ProxmoxBench) -> None:
    vm_id = poor.create("desk1")
    before = poor.wiring(vm_id)
    (outcome,) = poor.do(SEAL, vm_id)
    assert "ir@pve!contain lacks VM.Config.Network on /vms/100. Nothing was touched." in outcome.msg
    (outcome,) = poor.do(take("clean"), vm_id)
    assert "lacks VM.Snapshot on /vms/100" in outcome.msg
    (outcome,) = poor.do(OFF, vm_id)
    assert "lacks VM.PowerMgmt on /vms/100" in outcome.msg
    assert poor.wiring(vm_id) == before
    assert [m for m, _path, _body in poor.pve.requests if m != "GET"] == []


def test_a_bridge_that_may_not_be_used_is_named_before_anything_is_touched(bench: ProxmoxBench) -> None:
    bench.pve.grant("ir@pve", "/vms", "VM.Audit", "VM.Config.Network")
    bench.hypervisor = bench.connect()
    (outcome,) = bench.do(SEAL, bench.create("desk1"))
    assert "lacks SDN.Use on /sdn/zones/localnetwork/vmbr0" in outcome.msg


def test_the_least_privileges_are_enough(bench: ProxmoxBench) -> None:
    bench.pve.grant("ir@pve", "/vms", "VM.Audit", "VM.Config.Network", "VM.Snapshot", "VM.Snapshot.Rollback")
    bench.pve.grant("ir@pve", "/vms", "VM.PowerMgmt")
    bench.pve.grant("ir@pve", "/sdn", "SDN.Use")
    bench.hypervisor = bench.connect()
    vm_id = bench.create("desk1")
    bench.one(take("clean"), vm_id)
    sealed = bench.one(SEAL, vm_id)
    (warning,) = sealed.warnings
    assert "its cut rests on its links alone" in warning
    assert "the cluster's firewall switch cannot be read (Sys.Audit on /)" in warning
    assert "pve-firewall is unknown" in warning
    bench.one(Revert("clean", False, True, {vm_id: WAIVED}), vm_id)
    assert bench.vm(vm_id).isolation is Isolation.SEALED


# In the middle of a batch


@pytest.mark.parametrize(
    ("status", "message", "part"),
    [
        (401, "permission denied - invalid PVE ticket", "was refused: it has expired or was removed"),
        (500, "unexpected property", "unexpected property"),
        (503, "Service Unavailable", "HTTP 503"),
        (595, "No route to host", "HTTP 595"),
    ],
)
def test_one_refusal_in_a_batch_stays_with_its_vm(bench: ProxmoxBench, status: int, message: str, part: str) -> None:
    ids = [bench.create(f"desk{number}") for number in range(5)]
    bench.pve.fail("PUT", f"/qemu/{ids[2]}/config", status, message)
    outcomes = bench.do(SEAL, *ids)
    assert [outcome.failed for outcome in outcomes] == [False, False, True, False, False]
    assert part in outcomes[2].msg
    told(outcomes)
    assert bench.vm(ids[2]).isolation is Isolation.FREE
    assert bench.vm(ids[2]).note is not None, "the undo note was written before the cut"


def test_a_refusal_that_passes_is_tried_again_after_reading_back(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.pve.fail("PUT", f"/qemu/{vm_id}/config", 595, "No route to host", times=1)
    assert bench.one(SEAL, vm_id).after["isolation"] == "sealed"


def test_an_answer_that_is_lost_after_the_change_is_read_back_and_not_repeated(
    bench: ProxmoxBench,
) -> None:
    vm_id = bench.create("desk1")
    bench.pve.truncate[f"/qemu/{vm_id}/config"] = 1
    with bench.cluster.counted() as calls:
        bench.one(SEAL, vm_id)
    assert calls["PUT /nodes/pve1/qemu/N/config"] == 1


def test_an_answer_that_is_cut_short(bench: ProxmoxBench) -> None:
    vm_id, other = bench.create("desk1"), bench.create("desk2")
    bench.pve.truncate[f"/qemu/{vm_id}/pending"] = 9
    outcomes = bench.do(Info(), vm_id, other)
    assert [outcome.failed for outcome in outcomes] == [True, False]
    assert "the connection to 127.0.0.1 failed" in outcomes[0].msg


@pytest.mark.parametrize("status", [200, 502])
def test_a_page_of_a_proxy_instead_of_json(bench: ProxmoxBench, status: int) -> None:
    vm_id = bench.create("desk1")
    bench.pve.fail("GET", f"/qemu/{vm_id}/pending", status, "<html>Please log in</html>", html=True)
    (outcome,) = bench.do(Info(), vm_id)
    assert ("begins with '<html>Please log in</html>'" if status == 200 else "Bad Gateway") in outcome.msg


def test_a_list_that_cannot_be_read_is_never_shortened(bench: ProxmoxBench) -> None:
    bench.pve.fail("GET", "/cluster/resources", 500, "no quorum")
    with pytest.raises(VmwardError, match="Cannot list the VMs on hv1: no quorum"):
        bench.hypervisor.refs()


def test_three_of_a_hundred_fail(bench: ProxmoxBench) -> None:
    ids = [bench.create(f"desk{number}", nics=()) for number in range(100)]
    for vm_id in ids[10:40:10]:
        bench.pve.snapshot_lock(int(vm_id), "backup")
    outcomes = bench.do(OFF, *ids)
    failed = [outcome for outcome in outcomes if outcome.failed]
    assert [outcome.id for outcome in failed] == ids[10:40:10]
    assert all("VM is locked (backup)" in outcome.msg and "TASK ERROR" in outcome.msg for outcome in failed)
    assert sum(bench.pve.vm(int(vm_id)).status == "stopped" for vm_id in ids) == 97


def test_a_vm_that_moves_between_plan_and_act_is_followed(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")

    class Moving(SetIsolation):
        def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
            bench.pve.add_node("pve2")
            bench.pve.vm(int(vm_id)).node = "pve2"
            return super().plan(hypervisor, vm)

    bench.one(Moving(Isolation.SEALED, "2026-1"), vm_id)
    assert bench.pve.vm(int(vm_id)).config["net0"].endswith("link_down=1")


def test_a_vm_that_is_deleted_between_plan_and_act_is_said_to_be_gone(bench: ProxmoxBench) -> None:
    gone, left = bench.create("desk1"), bench.create("desk2")

    class Unlucky(SetIsolation):
        def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
            plan = super().plan(hypervisor, vm)
            if vm.ref.id == gone:
                bench.vanish(gone)
            return plan

    lost, fine = bench.do(Unlucky(Isolation.SEALED, "2026-1"), gone, left)
    assert "may have been removed meanwhile" in lost.msg
    assert not fine.failed


# Names and kinds


def test_the_same_name_on_two_nodes(bench: ProxmoxBench) -> None:
    bench.create("desk1")
    bench.create("desk1", node="pve2")
    found = resolve([bench.hypervisor], bench.hypervisor.refs(), ["desk1"])["desk1"]
    assert isinstance(found, Ambiguous)
    assert "desk1 (100) on hv1; desk1 (101) on hv1" in str(found)


def test_a_tag_or_pool_selects_the_one_vm_that_has_it(bench: ProxmoxBench) -> None:
    one, two = bench.create("desk1"), bench.create("desk2")
    bench.pve.vm(int(one)).config["tags"] = "pci;suspect"
    bench.pve.vm(int(two)).config["tags"] = "pci"
    bench.pve.vm(int(two)).pool = "vdi"
    found = resolve([bench.hypervisor], bench.hypervisor.refs(), ["tag:suspect", "pool:vdi", "tag:pci", "tag:none"])
    assert [found[key].id for key in ("tag:suspect", "pool:vdi")] == [one, two]  # type: ignore[union-attr]
    assert isinstance(found["tag:pci"], Ambiguous)
    assert isinstance(found["tag:none"], NotFound)
    assert bench.vm(one).tags == ("pci", "suspect")


@pytest.mark.parametrize("name", ["a/b", "100%", 'it\'s "q"', "two\nlines", "../../etc", "{{ 7*7 }}"])
def test_a_hostile_name_is_only_a_name(bench: ProxmoxBench, name: str) -> None:
    vm_id = bench.create(name)
    assert resolve([bench.hypervisor], bench.hypervisor.refs(), [name])[name].name == name  # type: ignore[union-attr]
    bench.one(SEAL, vm_id)
    bench.pve.snapshot_lock(int(vm_id), "backup")
    (outcome,) = bench.do(OFF, vm_id)
    assert "\n" not in outcome.msg


@pytest.mark.parametrize("name", ["x", "1bad", "a b", "../x", "a" * 41, "current", "a%2e"])
def test_a_snapshot_name_that_cannot_be_is_refused_before_anything_is_touched(bench: ProxmoxBench, name: str) -> None:
    vm_id = bench.create("desk1")
    (outcome,) = bench.do(take(name), vm_id)
    assert "Nothing was touched. Choose another." in outcome.msg
    assert [m for m, _path, _body in bench.pve.requests if m != "GET"] == []


def test_no_nic_and_ten(bench: ProxmoxBench) -> None:
    none, ten = bench.create("none", nics=()), bench.create("ten", nics=("tap",) * 10)
    assert bench.one(SEAL, none).after["isolation"] == "sealed"
    bench.one(SEAL, ten)
    nics = bench.vm(ten).nics
    assert [nic.id for nic in nics] == [f"net{number}" for number in range(10)]
    assert {nic.isolation for nic in nics} == {Isolation.SEALED}


def test_a_template_is_no_vm(bench: ProxmoxBench) -> None:
    vm_id = bench.create("golden", running=False)
    bench.pve.vm(int(vm_id)).template = True
    (outcome,) = bench.do(SEAL, vm_id)
    assert "it is a template, not a VM" in outcome.msg


def test_a_node_that_is_down_hides_no_vm(bench: ProxmoxBench) -> None:
    near, far = bench.create("near"), bench.create("far", node="pve2")
    bench.pve.set_node_offline("pve2")
    refs = bench.hypervisor.refs()
    assert {ref.id for ref in refs} == {near, far}
    began = time.monotonic()
    outcomes = bench.do(SEAL, near, far)
    assert [outcome.failed for outcome in outcomes] == [False, True]
    assert "Cannot read 101 (101) on hv1: its node pve2 is offline" in outcomes[1].msg
    assert "Block its switch port" in outcomes[1].msg
    assert time.monotonic() - began < 5
    lost = resolve([bench.hypervisor], refs, ["far", "near", far])
    assert "hv1 does not know the names of all its VMs" in str(lost["far"])
    assert "101 on node pve2. Name such a VM by its id." in str(lost["far"])
    assert [lost[key].id for key in ("near", far)] == [near, far]  # type: ignore[union-attr]


def test_a_node_that_stops_answering_is_not_waited_for_by_every_vm(bench: ProxmoxBench) -> None:
    near = bench.create("near")
    far = [bench.create(f"far{number}", node="pve2") for number in range(40)]
    bench.hypervisor.refs()
    for vm_id in far:
        bench.pve.fail("GET", f"/qemu/{vm_id}/pending", 595, "No route to host")
        bench.pve.hang[f"/qemu/{vm_id}/pending"] = 1.0
    began = time.monotonic()
    answer = bench.hypervisor.read([*far, near])
    assert time.monotonic() - began < 2.5, "40 VMs on 16 threads would take 3 s"
    assert not isinstance(answer[near], Exception)
    assert all(isinstance(answer[vm_id], TimedOut) for vm_id in far)
    assert any("its node pve2 does not answer" in str(answer[vm_id]) for vm_id in far)


# Locks


def test_a_locked_vm_gets_firewall_and_link_meanwhile_and_is_cut_when_the_lock_ends(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1", ["tap", "tap"])
    bench.pve.snapshot_lock(int(vm_id), "backup")
    (outcome,) = bench.do(SEAL, vm_id)
    assert outcome.failed
    assert "VM is locked (backup)" in outcome.msg
    assert "Its links were taken down in QEMU itself" in outcome.msg
    assert bench.pve.links == {(int(vm_id), "net0"): "off", (int(vm_id), "net1"): "off"}
    options = bench.pve.firewall_config("vm", vmid=int(vm_id))["options"]
    assert (options["enable"], options["policy_in"], options["policy_out"], options["dhcp"]) == (1, "DROP", "DROP", 0)
    assert bench.vm(vm_id).note is not None
    bench.pve.unlock(int(vm_id))
    assert bench.one(SEAL, vm_id).after["isolation"] == "sealed"


def test_without_the_right_to_the_monitor_the_firewall_holds_alone(bench: ProxmoxBench) -> None:
    bench.pve.grant("ir@pve", "/vms", "VM.Audit", "VM.Config.Network")
    bench.pve.grant("ir@pve", "/sdn", "SDN.Use")
    bench.hypervisor = bench.connect()
    vm_id = bench.create("desk1")
    bench.pve.snapshot_lock(int(vm_id), "snapshot")
    (outcome,) = bench.do(SEAL, vm_id)
    assert "Sys.Modify is missing" in outcome.msg
    assert "qm unlock" in outcome.msg
    assert bench.pve.links == {}


def test_a_lock_that_ends_in_time_is_waited_for(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.hypervisor.patience = 20.0  # type: ignore[attr-defined]
    bench.pve.fail("PUT", f"/qemu/{vm_id}/config", 500, "can't lock file '/var/lock/x' - got timeout", times=1)
    assert bench.one(SEAL, vm_id).after["isolation"] == "sealed"


def test_a_task_that_ran_into_a_lock_is_repeated_after_reading_back(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.cluster.run(bench.pve.hold_config_lock(int(vm_id), None))
    bench.hypervisor.patience = 3.0  # type: ignore[attr-defined]
    (outcome,) = bench.do(OFF, vm_id)
    assert "can't lock file" in outcome.msg
    assert sum(task["type"] == "qmstop" for task in bench.pve.tasklog) > 1
    bench.pve.release_config_lock(int(vm_id))
    bench.one(OFF, vm_id)


# Tasks


def test_what_outlives_the_deadline_is_taken_up_by_the_next_run(bench: ProxmoxBench) -> None:
    bench.pve.time_scale, bench.pve.delays = 1.0, {"qmsnapshot": 2.0}
    vm_id = bench.create("desk1")
    (outcome,) = bench.do(take("clean"), vm_id, deadline=0.3)
    (upid,) = [task["upid"] for task in bench.pve.tasklog]
    assert outcome.failed
    assert outcome.task == upid
    assert f"it still runs after 1 s (task {upid}). Run again to take it up." in outcome.msg
    bench.hypervisor = bench.connect()
    bench.one(take("clean"), vm_id)
    assert [task["upid"] for task in bench.pve.tasklog] == [upid], "no second task was started"


def test_warnings_of_a_task_are_told(bench: ProxmoxBench) -> None:
    bench.pve.warnings["qmsnapshot"] = "guest-fsfreeze failed"
    done = bench.one(take("clean"), bench.create("desk1"))
    assert "guest-fsfreeze failed" in done.warnings[0]


def test_a_failed_task_tells_its_log(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1", running=False)
    bench.pve.vm(int(vm_id)).start_error = "volume 'local:1' does not exist"
    (outcome,) = bench.do(SetPower("running", False, 0, {}), vm_id)
    assert "The end of the log of task UPID:pve1:" in outcome.msg
    assert "TASK ERROR: volume 'local:1' does not exist" in outcome.msg


def test_an_answer_that_is_lost_after_a_task_began_does_not_start_another(bench: ProxmoxBench) -> None:
    bench.pve.time_scale, bench.pve.delays = 1.0, {"qmsnapshot": 0.5}
    vm_id = bench.create("desk1")
    bench.hypervisor.refs()

    class Cut(SetSnapshot):
        def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
            bench.pve.truncate[f"/qemu/{vm_id}/snapshot"] = 1
            return super().plan(hypervisor, vm)

    bench.one(Cut("clean", "present", "", False), vm_id)
    assert sum(task["type"] == "qmsnapshot" for task in bench.pve.tasklog) == 1


def test_nothing_hangs_past_its_deadline(bench: ProxmoxBench) -> None:
    ids = [bench.create(f"desk{number}") for number in range(3)]
    bench.pve.hang[f"/qemu/{ids[1]}/status/stop"] = 20.0
    began = time.monotonic()
    outcomes = bench.do(OFF, *ids, deadline=1)
    assert time.monotonic() - began < 8
    assert [outcome.failed for outcome in outcomes] == [False, True, False]
    assert "it still runs after 1 s" in outcomes[1].msg


# What is not confirmed, and what cannot be done


def test_a_firewall_that_is_off_is_told_and_never_switched_on(bench: ProxmoxBench) -> None:
    bench.pve.firewall_config("cluster")["options"]["enable"] = 0
    done = bench.one(SEAL, bench.create("desk1"))
    assert "the cluster's firewall is off, and vmward does not switch it on" in done.warnings[0]
    assert bench.pve.firewall_config("cluster")["options"]["enable"] == 0


def test_a_firewall_that_refuses_leaves_the_links_cut_and_is_told(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.pve.fail("PUT", f"/qemu/{vm_id}/firewall/options", 500, "disk full")
    done = bench.one(SEAL, vm_id)
    assert "its firewall could not be set" in done.warnings[0]
    assert bench.vm(vm_id).isolation is Isolation.SEALED


def test_rules_of_others_stand_behind_ours_and_stay(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    rules = bench.pve.firewall_config("vm", vmid=int(vm_id))["rules"]
    rules.append({"type": "in", "action": "ACCEPT", "enable": 1})
    assert bench.one(SEAL, vm_id).warnings == []
    assert [(rule["action"], rule.get("comment")) for rule in rules] == [
        ("DROP", "vmward"), ("DROP", "vmward"), ("ACCEPT", None),
    ]  # fmt: skip
    bench.one(SetIsolation(Isolation.FREE, keep_sessions=True), vm_id)
    assert [rule["action"] for rule in rules] == ["ACCEPT"]


FORENSIC = SetIsolation(Isolation.FORENSIC, "2026-1", [Collector("192.0.2.1", 22)])


def test_a_quarantine_that_is_misspelt_is_named_before_anything_is_touched(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.pve.bridges.discard("quarantine")
    (outcome,) = bench.do(FORENSIC, vm_id)
    assert "the quarantine of hv1, 'quarantine', is no bridge or VNet of node pve1" in outcome.msg
    assert "There are: vmbr0, vmbr1. Nothing was touched." in outcome.msg
    assert [m for m, _path, _body in bench.pve.requests if m != "GET"] == []
    del bench.hypervisor.link.options["quarantine"]  # type: ignore[attr-defined]
    (outcome,) = bench.do(FORENSIC, vm_id)
    assert "hv1 cannot do it here: no quarantine bridge is named for hv1. Set quarantine" in outcome.msg


def test_a_quarantine_bridge_that_is_missing_leaves_nothing_pending(bench: ProxmoxBench) -> None:
    """Where the log-in may not read the node's bridges."""
    vm_id = bench.create("desk1")
    before = bench.wiring(vm_id)
    bench.pve.bridges.discard("quarantine")
    bench.pve.fail("GET", "/nodes/pve1/network", 403, "Permission check failed")
    (outcome,) = bench.do(FORENSIC, vm_id)
    assert "interface quarantine does not exist" in outcome.msg
    assert "See that the bridge exists on node pve1" in outcome.msg
    assert bench.wiring(vm_id) == before


def test_a_passed_through_card_fails_the_seal_with_its_reason(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1", ["tap", "uncuttable"])
    (outcome,) = bench.do(SEAL, vm_id)
    assert (
        "NOT wholly isolated: hostpci1 (passed-through device 0000:01:00.0, which may be a network card)" in outcome.msg
    )
    assert bench.pve.vm(int(vm_id)).config["net0"].endswith("link_down=1")


def test_memory_is_not_brought_back_with_its_links_up(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(take("live", memory=True), vm_id)
    bench.one(SEAL, vm_id)
    (outcome,) = bench.do(Revert("live", True, False, {vm_id: WAIVED}), vm_id)
    assert "lets the guest run at once, wired as it was then" in outcome.msg
    assert "with net0 connected" in outcome.msg
    assert bench.vm(vm_id).power is PowerState.RUNNING, "nothing was touched"


def test_a_storage_that_only_goes_back_to_the_newest_refuses_before_the_power_is_taken(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(take("clean"), vm_id)
    bench.one(take("evidence"), vm_id)
    bench.pve.storages["local"]["type"] = "zfspool"
    bench.hypervisor = bench.connect()
    (outcome,) = bench.do(Revert("clean", False, True, {}), vm_id)
    assert "its storage only goes back to the newest snapshot, and evidence came after it" in outcome.msg
    assert bench.vm(vm_id).power is PowerState.RUNNING


def test_a_card_that_was_exchanged_since_the_cut_is_not_given_the_old_ones_wiring(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    bench.pve.vm(int(vm_id)).config["net0"] = "virtio=AA:BB:CC:00:00:01,bridge=vmbr0,firewall=1,link_down=1"
    before = bench.wiring(vm_id)
    (outcome,) = bench.do(SetIsolation(Isolation.FREE, keep_sessions=True), vm_id)
    assert "net0 is another card than when it was cut. Nothing was changed." in outcome.msg
    assert bench.wiring(vm_id) == before


def test_a_monitor_that_refuses_does_not_end_the_waiting_for_the_lock(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.pve.snapshot_lock(int(vm_id), "backup")
    bench.pve.fail("POST", "/monitor", 500, "root-only command")
    (outcome,) = bench.do(SEAL, vm_id)
    assert "could not be taken down in QEMU meanwhile" in outcome.msg
    assert "qm unlock" in outcome.msg


def test_a_note_that_somebody_spoilt_is_never_taken_for_none(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    bench.pve.firewall_config("vm", vmid=int(vm_id))["ipset_comments"]["vmward-undo"] = "{"
    (outcome,) = bench.do(SetIsolation(Isolation.FREE), vm_id)
    assert "its undo note cannot be read" in outcome.msg


def test_a_note_too_deep_to_be_read_is_its_vms_error_alone(bench: ProxmoxBench) -> None:
    vm_id, other = bench.create("desk1"), bench.create("desk2")
    bench.one(SEAL, vm_id)
    bench.pve.firewall_config("vm", vmid=int(vm_id))["ipset_comments"]["vmward-undo"] = "[" * 100_000
    outcomes = bench.do(Info(), vm_id, other)
    assert [outcome.failed for outcome in outcomes] == [True, False]
    assert "its undo note cannot be read (RecursionError" in outcomes[0].msg


def test_rules_are_removed_by_place_only_while_the_list_is_as_it_was_read(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    rules = bench.pve.firewall_config("vm", vmid=int(vm_id))["rules"]
    rules.append({"type": "in", "action": "ACCEPT", "enable": 1, "comment": "theirs"})
    bench.one(SEAL, vm_id)

    def somebody_inserts() -> None:
        rules.insert(0, {"type": "in", "action": "ACCEPT", "enable": 1, "comment": "new"})

    bench.pve.meanwhile["/firewall/rules/1"] = somebody_inserts
    bench.one(SetIsolation(Isolation.FREE, keep_sessions=True), vm_id)
    assert [rule["comment"] for rule in rules] == ["new", "theirs"]


def test_new_rules_stand_before_old_ones_go(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    rules = bench.pve.firewall_config("vm", vmid=int(vm_id))["rules"]
    rules.append({"type": "in", "action": "ACCEPT", "enable": 1})
    bench.one(FORENSIC, vm_id)
    counts: list[int] = []
    bench.pve.meanwhile["/firewall/rules/4"] = lambda: counts.append(
        sum(rule.get("comment") == "vmward" for rule in rules)
    )
    bench.one(SEAL, vm_id)
    assert counts == [5], "two new ones before the three old ones"
    assert [(rule["action"], rule.get("comment")) for rule in rules] == [
        ("DROP", "vmward"), ("DROP", "vmward"), ("ACCEPT", None),
    ]  # fmt: skip


# Is it a cold start?


def freed(bench: ProxmoxBench, vm_id: str) -> Outcome:
    (outcome,) = bench.do(SetIsolation(Isolation.FREE), vm_id)
    return outcome


def cold(bench: ProxmoxBench, vm_id: str) -> None:
    """Somebody stops it and starts it again."""
    bench.pve.vm(int(vm_id)).status = "stopped"
    bench.pve.boot(bench.pve.vm(int(vm_id)))


def test_a_cold_start_behind_our_back_ends_the_sessions(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    assert "open sessions would resume" in freed(bench, vm_id).msg
    cold(bench, vm_id)
    assert not freed(bench, vm_id).failed


@pytest.mark.parametrize("kind", ["qmsuspend", "qmigrate", "qmrollback"])
def test_memory_that_may_have_come_back_is_no_cold_start(bench: ProxmoxBench, kind: str) -> None:
    """Saved to disk and resumed; moved away and back; rolled back with memory: another process, the old sessions."""
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)

    async def nothing() -> None:
        return None

    bench.cluster.run(bench.pve.task("pve1", kind, int(vm_id), "root@pam", nothing))
    cold(bench, vm_id)
    outcome = freed(bench, vm_id)
    assert "open sessions would resume" in outcome.msg
    assert any(f"a task {kind} since its cut may have brought its memory back" in one for one in outcome.warnings)


def test_a_vm_saved_to_disk_and_resumed_keeps_its_sessions(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    bench.hypervisor.link.call("", None, "post", f"nodes/pve1/qemu/{vm_id}/status/suspend", todisk=1)  # type: ignore[attr-defined]
    assert bench.vm(vm_id).power is PowerState.SUSPENDED
    bench.pve.unlock(int(vm_id))
    bench.pve.boot(bench.pve.vm(int(vm_id)))
    note = bench.vm(vm_id).note
    assert note is not None
    assert note.sessions


def test_without_the_tasks_of_others_no_cold_start_is_proven(bench: ProxmoxBench) -> None:
    bench.pve.grant("ir@pve", "/vms", "VM.Audit", "VM.Config.Network")
    bench.pve.grant("ir@pve", "/sdn", "SDN.Use")
    bench.hypervisor = bench.connect()
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    cold(bench, vm_id)
    outcome = freed(bench, vm_id)
    assert outcome.failed
    assert any("Sys.Audit on /nodes/pve1 is missing" in one for one in outcome.warnings)


# Surprises


def test_a_surprise_in_what_is_read_once_hangs_nobody(bench: ProxmoxBench) -> None:
    def surprise() -> None:
        raise KeyError("volid")

    for _again in range(2):
        with pytest.raises(KeyError):
            bench.hypervisor.one_time("x", surprise)  # type: ignore[attr-defined]


def test_an_unanswered_read_is_no_state(bench: ProxmoxBench, quick: None) -> None:
    vm_id, other = bench.create("desk1"), bench.create("desk2")
    bench.hypervisor = bench.connect()
    bench.pve.hang[f"/qemu/{vm_id}/pending"] = 5.0
    answer = bench.hypervisor.read([vm_id, other])
    assert isinstance(answer[vm_id], TimedOut)
    assert not isinstance(answer[other], Exception)
    assert not isinstance(answer[vm_id], AuthFailed)
