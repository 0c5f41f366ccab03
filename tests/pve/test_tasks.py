# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks and tasks: waited for, taken up, told apart by how they end."""

from __future__ import annotations

import json
import time
from functools import partial

from ansible_collections.vmward.remediation.plugins.module_utils._crew import apart
from ansible_collections.vmward.remediation.plugins.module_utils._model import Collector, Isolation, PowerState
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert, SetSnapshot
from ansible_collections.vmward.remediation.tests.pve.bench import HELD, ProxmoxBench
from ansible_collections.vmward.remediation.tests.pve.verbs import FORENSIC, OFF, SEAL, WAIVED, take

FREE = SetIsolation(Isolation.FREE, keep_sessions=True)

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


def test_a_locked_vm_gets_the_forensic_firewall_meanwhile(bench: ProxmoxBench) -> None:
    """Also in a second run, which finds the note of the first, and would take the links down before all else."""
    vm_id = bench.create("desk1")
    bench.pve.snapshot_lock(int(vm_id), "backup")
    bench.pve.fail("PUT", f"/qemu/{vm_id}/firewall/options", 500, "disk full", times=1)
    (outcome,) = bench.do(FORENSIC, vm_id)
    assert "its firewall could not be set" in outcome.msg
    (outcome,) = bench.do(FORENSIC, vm_id)
    assert outcome.failed
    assert "VM is locked (backup)" in outcome.msg
    firewall = bench.pve.firewall_config("vm", vmid=int(vm_id))
    assert [firewall["options"].get(key) for key in ("enable", "policy_in", "policy_out")] == [1, "DROP", "DROP"]
    assert [rule.get("source") for rule in firewall["rules"]] == ["192.0.2.1", None, None]
    bench.pve.unlock(int(vm_id))
    assert bench.one(FORENSIC, vm_id).after["isolation"] == "forensic"


def test_a_held_vm_gets_other_collectors_though_it_is_locked(bench: ProxmoxBench) -> None:
    """The former collector is shut out at once; the lock is only in the way of the links."""
    vm_id = bench.create("desk1")
    bench.one(FORENSIC, vm_id)
    bench.pve.snapshot_lock(int(vm_id), "backup")
    bench.do(SetIsolation(Isolation.FORENSIC, "2026-1", [Collector("192.0.2.9", 443)]), vm_id)
    rules = bench.pve.firewall_config("vm", vmid=int(vm_id))["rules"]
    assert [rule["source"] for rule in rules if rule.get("source")] == ["192.0.2.9"]


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


def test_links_taken_down_in_qemu_come_up_again_when_the_vm_is_freed(bench: ProxmoxBench) -> None:
    """The configuration was never changed, so that nothing in it tells of the links."""
    vm_id = bench.create("desk1", ["tap", "tap-down"])
    bench.pve.snapshot_lock(int(vm_id), "backup")
    bench.do(SEAL, vm_id)
    before = bench.wiring(vm_id)
    bench.pve.unlock(int(vm_id))
    assert set(bench.pve.links.values()) == {"off"}
    bench.one(FREE, vm_id)
    assert bench.pve.links == {(int(vm_id), "net0"): "on", (int(vm_id), "net1"): "off"}
    assert json.loads(bench.wiring(vm_id))[0] == json.loads(before)[0]


def test_links_taken_down_in_qemu_come_up_again_after_a_forensic_cut_too(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.pve.snapshot_lock(int(vm_id), "backup")
    bench.do(SEAL, vm_id)
    bench.pve.unlock(int(vm_id))
    bench.one(FORENSIC, vm_id)
    assert bench.pve.links == {(int(vm_id), "net0"): "on"}, "the collectors reach it"
    bench.pve.links[int(vm_id), "net0"] = "off"
    bench.one(FREE, vm_id)
    assert bench.pve.links == {(int(vm_id), "net0"): "on"}


def test_a_seal_is_undone_in_one_change(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    with bench.cluster.counted() as calls:
        bench.one(FREE, vm_id)
    assert calls["PUT /nodes/pve1/qemu/N/config"] == 1


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


def test_a_running_snapshot_of_somebody_else_is_waited_for_and_not_taken_for_ours(bench: ProxmoxBench) -> None:
    bench.pve.time_scale, bench.pve.delays = 1.0, {"qmsnapshot": 1.0}
    vm_id = bench.create("desk1")
    bench.do(take("theirs"), vm_id, deadline=0.2)
    bench.hypervisor = bench.connect()
    bench.one(take("ours"), vm_id)
    assert sorted(bench.pve.vm(int(vm_id)).snapshots) == ["ours", "theirs"]


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
    bench.pve.hang[f"/qemu/{ids[1]}/status/stop"] = 60.0  # longer than a request is waited for
    outcomes = bench.do(OFF, *ids, deadline=1)
    assert [outcome.failed for outcome in outcomes] == [False, True, False]
    assert "it still runs after 1 s" in outcomes[1].msg


def test_a_look_that_is_lost_is_taken_again(bench: ProxmoxBench) -> None:
    """Whoever reloads pveproxy meanwhile: the tasks go on, and are followed."""
    bench.pve.time_scale, bench.pve.delays = 1.0, {"qmstop": 1.0}
    ids = [bench.create(f"desk{number}") for number in range(5)]

    def lose() -> None:
        bench.pve.fail("GET", "/nodes/pve1/tasks", 502, "Bad Gateway", times=2)
        bench.pve.truncate["/nodes/pve1/tasks"] = 1

    bench.pve.meanwhile[f"/qemu/{ids[4]}/status/stop"] = lose
    assert [outcome.msg for outcome in bench.do(OFF, *ids)] == [""] * 5
    assert (bench.pve.failures, bench.pve.truncate) == ({}, {"/nodes/pve1/tasks": 0}), "the looks were lost"


def test_tasks_that_may_not_be_looked_at_are_told_at_once(bench: ProxmoxBench) -> None:
    bench.pve.time_scale, bench.pve.delays = 1.0, {"qmstop": 1.0}
    ids = [bench.create(f"desk{number}") for number in range(5)]
    forbid = partial(bench.pve.fail, "GET", "/nodes/pve1/tasks", 403, "Permission check failed", times=99)
    bench.pve.meanwhile[f"/qemu/{ids[4]}/status/stop"] = forbid
    outcomes = bench.do(OFF, *ids, deadline=30)
    assert {"Permission check failed" in outcome.msg for outcome in outcomes if outcome.failed} == {True}
    assert max(outcome.seconds for outcome in outcomes) < 20


def test_a_log_that_hangs_holds_up_nobody(bench: ProxmoxBench) -> None:
    far, near = bench.create("far", running=False, node="pve2"), bench.create("near")
    bench.pve.time_scale, bench.pve.delays = 1.0, {"qmstop": 0.5}
    bench.pve.vm(int(far)).start_error = "volume 'local:1' does not exist"
    bench.pve.hang["/log"] = HELD
    again = SetPower("restarted", True, 0, {near: WAIVED})
    verb = apart(partial(bench.do, again, far, near, deadline=60))
    while not verb.done() and not any(f"/{near}/status/start" in path for _method, path, _body in bench.pve.requests):
        time.sleep(0.05)
    assert not verb.done()
    bench.pve.hang.clear()
    outcomes = verb.result()
    assert [outcome.failed for outcome in outcomes] == [True, False]
    assert "TASK ERROR: volume 'local:1' does not exist" in outcomes[0].msg


def test_a_log_that_does_not_come_is_not_waited_for(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1", running=False)
    bench.pve.vm(int(vm_id)).start_error = "volume 'local:1' does not exist"
    bench.pve.hang["/log"] = HELD
    (outcome,) = bench.do(SetPower("running", False, 0, {}), vm_id)
    bench.pve.hang.clear()
    assert "volume 'local:1' does not exist. The end of the log" in outcome.msg
    assert "(not told within 5 s)" in outcome.msg


def test_a_call_that_hangs_keeps_no_other_vm_from_its_next_step(bench: ProxmoxBench) -> None:
    """After a rollback with memory a guest runs: it is paused at once, whoever else is still waited for."""
    slow, quick = bench.create("slow"), bench.create("quick")
    for vm_id in (slow, quick):
        bench.one(take("live", memory=True), vm_id)
    bench.pve.hang[f"/qemu/{slow}/snapshot/live/rollback"] = 60.0
    bench.pve.meanwhile[f"/qemu/{quick}/status/suspend"] = bench.pve.hang.clear
    outcomes = bench.do(Revert("live", True, True, {slow: WAIVED, quick: WAIVED}), slow, quick, deadline=20)
    assert [outcome.msg for outcome in outcomes if outcome.failed] == []
    assert bench.pve.hang == {}, "the second was paused while the first still hung"


def test_a_monitor_that_refuses_does_not_end_the_waiting_for_the_lock(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.pve.snapshot_lock(int(vm_id), "backup")
    bench.pve.fail("POST", "/monitor", 500, "root-only command")
    (outcome,) = bench.do(SEAL, vm_id)
    assert "could not be taken down in QEMU meanwhile" in outcome.msg
    assert "qm unlock" in outcome.msg


# The guest's own shut-down


def test_a_guest_that_obeys_is_not_forced(bench: ProxmoxBench) -> None:
    bench.pve.time_scale = 1.0
    vm_id = bench.create("desk1")
    bench.pve.vm(int(vm_id)).acpi, bench.pve.vm(int(vm_id)).shutdown_secs = True, 0.3
    with bench.cluster.counted() as calls:
        done = bench.one(SetPower("stopped", True, 30, {}), vm_id)
    assert (done.after, done.warnings) == ({"power": "stopped"}, [])
    assert [task["type"] for task in bench.pve.tasklog if task["exitstatus"] == "OK"] == ["qmshutdown"]
    assert calls["POST /nodes/pve1/qemu/N/status/stop"] == 0


def test_a_guest_that_cannot_be_asked_is_forced_all_the_same_and_that_is_told(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.pve.unaskable.add(int(vm_id))
    (refused,) = bench.do(SetPower("stopped", False, 10, {}), vm_id)
    assert "VM quit/powerdown failed" in refused.msg
    assert bench.vm(vm_id).power is PowerState.RUNNING
    done = bench.one(SetPower("stopped", True, 10, {}), vm_id)
    assert done.after == {"power": "stopped"}
    (warning,) = done.warnings
    assert warning.startswith("the guest could not be asked, so its power was taken away: ")
    assert "VM quit/powerdown failed" in warning
