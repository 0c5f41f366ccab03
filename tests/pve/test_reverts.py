# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollback brings the old wiring back: what holds the VM is there before it, and the cut right after it."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils import _plan
from ansible_collections.vmward.remediation.plugins.module_utils._crew import apart
from ansible_collections.vmward.remediation.plugins.module_utils._errors import NotAllowed
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Pending, done
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation, PowerState
from ansible_collections.vmward.remediation.plugins.module_utils._proxmox import connection
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert
from ansible_collections.vmward.remediation.plugins.module_utils._wait import poll_all
from ansible_collections.vmward.remediation.tests.pve.bench import HELD, ProxmoxBench
from ansible_collections.vmward.remediation.tests.pve.verbs import FORENSIC, SEAL, WAIVED, take

LEAST = ("VM.Audit", "VM.Snapshot", "VM.Snapshot.Rollback", "VM.PowerMgmt")


def to(snapshot: str, *vm_ids: str, memory: bool = False) -> Revert:
    return Revert(snapshot, memory, True, dict.fromkeys(vm_ids, WAIVED))


def held(bench: ProxmoxBench, cut: Any = SEAL, memory: bool = False) -> str:
    """A VM with a snapshot from before its cut; with memory from after it, since only then it may be gone back to."""
    vm_id = bench.create("desk1")
    if not memory:
        bench.one(take("clean"), vm_id)
    bench.one(cut, vm_id)
    if memory:
        bench.one(take("clean", memory=True), vm_id)
    return vm_id


def poor(bench: ProxmoxBench, *more: str, sdn: str = "") -> None:
    """The same cluster, reached with a token that may revert."""
    bench.pve.grant("ir@pve", "/vms", *LEAST, *more)
    if sdn:
        bench.pve.grant("ir@pve", sdn, "SDN.Use")
    bench.hypervisor = bench.connect()


def written(bench: ProxmoxBench, before: int) -> list[str]:
    """What was changed since, in this order."""
    calls = [call for call in bench.pve.requests[before:] if call[0] != "GET"]
    return [f"{method} {path.partition('/qemu/100')[2]} {body.decode()}" for method, path, body in calls]


@pytest.mark.parametrize(
    ("rights", "sdn", "part"),
    [
        ((), "/sdn/zones/localnetwork/vmbr0", "lacks VM.Config.Network on /vms/100"),
        (("VM.Config.Network",), "", "lacks SDN.Use on /sdn/zones/localnetwork/vmbr0"),
        ((), "", "lacks VM.Config.Network on /vms/100, SDN.Use on /sdn/zones/localnetwork/vmbr0"),
    ],
)
@pytest.mark.parametrize("memory", [False, True])
def test_a_held_vm_is_not_rolled_back_by_who_cannot_cut_it_again(
    bench: ProxmoxBench, rights: tuple[str, ...], sdn: str, part: str, memory: bool
) -> None:
    vm_id = held(bench, memory=memory)
    poor(bench, *rights, sdn=sdn)
    wiring, before = bench.wiring(vm_id), len(bench.pve.requests)
    (outcome,) = bench.do(to("clean", vm_id, memory=memory), vm_id)
    assert outcome.failed
    assert outcome.msg.startswith("Cannot revert to clean desk1 (100) on hv1: ir@pve!contain ")
    assert part in outcome.msg
    assert written(bench, before) == []
    assert bench.wiring(vm_id) == wiring
    assert bench.vm(vm_id).power is PowerState.RUNNING


def test_the_bridge_that_the_snapshot_brings_back_must_be_allowed_too(bench: ProxmoxBench) -> None:
    vm_id = held(bench, FORENSIC)
    poor(bench, "VM.Config.Network", sdn="/sdn/zones/localnetwork/quarantine")
    wiring, before = bench.wiring(vm_id), len(bench.pve.requests)
    (outcome,) = bench.do(to("clean", vm_id), vm_id)
    assert "lacks SDN.Use on /sdn/zones/localnetwork/vmbr0. Nothing was touched." in outcome.msg
    assert written(bench, before) == []
    assert bench.wiring(vm_id) == wiring


def test_a_node_that_hangs_after_a_revert_keeps_no_other_nodes_vm_uncut(
    bench: ProxmoxBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER", HELD)
    monkeypatch.setattr(_plan, "LAST", 1.0)
    bench.hypervisor = bench.connect()
    far, near = bench.create("far", node="pve2"), bench.create("near")
    for usecase in (take("clean"), SEAL):
        assert not any(outcome.failed for outcome in bench.do(usecase, far, near))
    path = f"/nodes/pve2/qemu/{far}/"
    bench.pve.meanwhile[path + "snapshot/clean/rollback"] = lambda: bench.pve.hang.update({path + "pending": HELD})
    before, verb = len(bench.pve.requests), apart(partial(bench.do, to("clean", far, near), far, near, deadline=30))

    def cut_again() -> bool:
        asked = [f"{method} {path}" for method, path, _body in bench.pve.requests[before:]]
        down = "link_down=1" in bench.pve.vm(int(near)).config["net0"]
        return down and f"PUT /api2/json/nodes/pve1/qemu/{near}/config" in asked

    while not verb.done() and not cut_again():
        time.sleep(0.05)
    assert not verb.done()
    bench.pve.hang.clear()
    assert [outcome.msg for outcome in verb.result()] == ["", ""]
    assert bench.vm(far).isolation is Isolation.SEALED


@pytest.mark.parametrize("memory", [False, True])
def test_who_may_cut_but_not_roll_back_touches_nothing(bench: ProxmoxBench, memory: bool) -> None:
    """Nor is the undo note written anew: the error says that nothing was touched."""
    vm_id = held(bench, memory=memory)
    bench.pve.grant("ir@pve", "/vms", "VM.Audit", "VM.PowerMgmt", "VM.Config.Network")
    bench.pve.grant("ir@pve", "/sdn/zones/localnetwork", "SDN.Use")
    bench.hypervisor = bench.connect()
    wiring, before = bench.wiring(vm_id), len(bench.pve.requests)
    (outcome,) = bench.do(to("clean", vm_id, memory=memory), vm_id)
    assert re.fullmatch("Cannot revert .* lacks VM.Snapshot.* on /vms/100. Nothing was touched. .*", outcome.msg)
    assert (outcome.changed, written(bench, before)) == (False, [])
    assert bench.wiring(vm_id) == wiring


@pytest.mark.parametrize("check", [False, True])
def test_all_that_the_steps_lack_is_told_at_once(bench: ProxmoxBench, check: bool) -> None:
    """In check mode too; what one of the last steps needs is not found out after the first was taken."""
    vm_id = held(bench, memory=True)
    bench.pve.grant("ir@pve", "/vms", "VM.Audit")
    bench.hypervisor = bench.connect()
    before = len(bench.pve.requests)
    (outcome,) = _plan.execute(bench.hypervisor, to("clean", vm_id, memory=True), [(vm_id, vm_id)], 60, check)
    assert (
        "lacks VM.Snapshot.Rollback or VM.Snapshot on /vms/100, VM.PowerMgmt on /vms/100, "
        "VM.Config.Network on /vms/100, SDN.Use on /sdn/zones/localnetwork/vmbr0. Nothing was touched."
    ) in outcome.msg
    assert (outcome.changed, written(bench, before)) == (False, [])


@pytest.mark.parametrize(("begun", "told"), [(False, "Nothing was touched. "), (True, "")])
def test_a_right_that_is_missing_for_a_later_part_is_not_told_as_seen_before_all(
    bench: ProxmoxBench, begun: bool, told: str
) -> None:
    vm = bench.vm(bench.create("desk1")).ref

    def forbid() -> Pending:
        def poll() -> bool:
            raise NotAllowed("No.", "Ask.")

        return Pending(vm, "hold", poll)

    first = [lambda: done(vm, "roll back")] * begun
    pending = bench.hypervisor.after(vm, "revert", *first, forbid)  # type: ignore[attr-defined]
    error = poll_all([pending], 5)[vm.id]
    assert (str(error), isinstance(error, NotAllowed)) == (f"No. {told}Ask.", not begun)


def test_a_vm_that_nobody_holds_needs_no_right_to_cut(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(take("clean"), vm_id)
    poor(bench)
    bench.one(to("clean", vm_id), vm_id)


def test_the_firewall_holds_before_the_rollback_and_the_links_are_cut_right_after(bench: ProxmoxBench) -> None:
    vm_id = held(bench)
    bench.pve.firewall_config("vm", vmid=int(vm_id))["options"].update(enable=0, policy_out="ACCEPT")
    before = len(bench.pve.requests)
    bench.one(to("clean", vm_id), vm_id)
    firewall, rollback, note, links = written(bench, before)
    assert firewall.startswith("PUT /firewall/options ")
    assert "enable=1" in firewall
    assert rollback == "POST /snapshot/clean/rollback start=0"
    assert note.startswith("POST /firewall/ipset ")
    assert links.startswith("PUT /config ")
    assert "link_down" in links
    assert bench.vm(vm_id).isolation is Isolation.SEALED
    assert bench.vm(vm_id).power is PowerState.STOPPED


def test_with_memory_the_guest_is_held_before_anything_else_follows(bench: ProxmoxBench) -> None:
    vm_id = held(bench, memory=True)
    before = len(bench.pve.requests)
    bench.one(to("clean", vm_id, memory=True), vm_id)
    assert [call.rpartition(" ")[0] for call in written(bench, before)] == [
        "POST /snapshot/clean/rollback", "POST /status/suspend", "POST /firewall/ipset",
    ]  # fmt: skip
    assert bench.vm(vm_id).isolation is Isolation.SEALED


def test_a_firewall_that_cannot_be_set_before_a_rollback_is_told(bench: ProxmoxBench) -> None:
    vm_id = held(bench)
    bench.pve.firewall_config("vm", vmid=int(vm_id))["options"].update(enable=0)
    bench.pve.fail("PUT", f"/qemu/{vm_id}/firewall/options", 500, "disk full")
    done = bench.one(to("clean", vm_id), vm_id)
    assert "its firewall could not be set" in done.warnings[0]
    assert bench.vm(vm_id).isolation is Isolation.SEALED


@pytest.mark.parametrize("again", [False, True], ids=["once", "to where it was rolled back before"])
@pytest.mark.parametrize("lasts", [0.0, 1.0], ids=["ended", "still running"])
def test_an_answer_that_is_lost_after_a_rollback_began_does_not_start_another(
    bench: ProxmoxBench, again: bool, lasts: float
) -> None:
    vm_id = bench.create("desk1")
    bench.one(take("clean"), vm_id)
    for _each in range(again):
        bench.one(to("clean", vm_id), vm_id)
    bench.pve.time_scale, bench.pve.delays = 1.0, {"qmrollback": lasts}
    bench.pve.truncate["/snapshot/clean/rollback"] = 1
    bench.one(to("clean", vm_id), vm_id)
    assert sum(task["type"] == "qmrollback" for task in bench.pve.tasklog) == 1 + again


def test_a_rollback_that_failed_unheard_is_told_as_failed(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(take("clean"), vm_id)
    bench.pve.truncate["/snapshot/clean/rollback"] = 1
    bench.pve.meanwhile["/snapshot/clean/rollback"] = lambda: bench.pve.snapshot_lock(int(vm_id), "backup")
    (outcome,) = bench.do(to("clean", vm_id), vm_id)
    assert "VM is locked (backup). The end of the log of task UPID:pve1:" in outcome.msg
    assert sum(task["type"] == "qmrollback" for task in bench.pve.tasklog) == 1


def test_a_rollback_that_was_never_taken_is_asked_for_again(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(take("clean"), vm_id)
    bench.pve.fail("POST", "/snapshot/clean/rollback", 595, "No route to host", times=1)
    bench.one(to("clean", vm_id), vm_id)
    assert sum(task["type"] == "qmrollback" for task in bench.pve.tasklog) == 1
