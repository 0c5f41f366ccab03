# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cut rests on: what cannot be cut or confirmed is told, and rules of others stay."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation, PowerState
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.info import Info
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench
from ansible_collections.vmward.remediation.tests.pve.verbs import FORENSIC, SEAL, WAIVED, take

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


@pytest.mark.parametrize("former", [{}, {"macfilter": 0}, {"macfilter": 1}], ids=str)
@pytest.mark.parametrize("cut", [SEAL, FORENSIC], ids=["sealed", "forensic"])
def test_a_held_vm_cannot_send_under_another_mac(bench: ProxmoxBench, former: dict[str, int], cut: Any) -> None:
    vm_id = bench.create("desk1")
    firewall = bench.pve.firewall_config("vm", vmid=int(vm_id))
    firewall["options"] = former
    before = bench.wiring(vm_id)
    bench.one(cut, vm_id)
    assert firewall["options"]["macfilter"] == 1
    firewall["options"]["macfilter"] = 0
    assert "the VM's own options are not as set: macfilter=0" in " ".join(bench.one(Info(), vm_id).warnings)
    bench.one(SetIsolation(Isolation.FREE, keep_sessions=True), vm_id)
    assert bench.wiring(vm_id) == before


LOOSE = {"enable": 0, "policy_out": "ACCEPT", "macfilter": 0}


@pytest.mark.parametrize("cut", [SEAL, FORENSIC], ids=["sealed", "forensic"])
def test_a_firewall_that_somebody_loosened_is_set_again(bench: ProxmoxBench, cut: Any) -> None:
    """And still given back as it was before the first cut."""
    vm_id = bench.create("desk1")
    firewall = bench.pve.firewall_config("vm", vmid=int(vm_id))
    firewall["options"] = {"macfilter": 1, "policy_in": "ACCEPT"}
    former = bench.wiring(vm_id)
    bench.one(cut, vm_id)
    as_set = dict(firewall["options"])
    firewall["options"].update(LOOSE)
    before = len(bench.pve.requests)
    check = bench.one(cut, vm_id, check=True)
    assert {call[0] for call in bench.pve.requests[before:]} == {"GET"}
    done = bench.one(cut, vm_id)
    assert firewall["options"] == as_set
    assert done.steps == check.steps == ["set the firewall again: enable, policy_out, macfilter"]
    assert (done.changed, check.changed) == (True, True)
    assert [sum("is not confirmed" in one for one in told.warnings) for told in (check, done)] == [1, 0]
    for told in (done, check):
        changes = {key: (told.before["firewall"][key], told.after["firewall"][key]) for key in LOOSE}
        assert changes == {"enable": ("0", "1"), "policy_out": ("ACCEPT", "DROP"), "macfilter": ("0", "1")}
    assert not bench.one(cut, vm_id).changed
    bench.one(SetIsolation(Isolation.FREE, keep_sessions=True), vm_id)
    assert bench.wiring(vm_id) == former


@pytest.mark.parametrize("cut", [SEAL, FORENSIC], ids=["sealed", "forensic"])
def test_rules_that_somebody_changed_are_set_again(bench: ProxmoxBench, cut: Any) -> None:
    vm_id = bench.create("desk1")
    rules = bench.pve.firewall_config("vm", vmid=int(vm_id))["rules"]
    bench.one(cut, vm_id)
    ours = [dict(rule) for rule in rules]
    rules.insert(0, {"type": "out", "action": "ACCEPT", "enable": 1})
    done = bench.one(cut, vm_id)
    assert (done.changed, done.before["firewall"]["rules"], done.after["firewall"]["rules"]) == (
        True, "not as set", "as set",
    )  # fmt: skip
    assert [rule["action"] for rule in rules[-3:]] == ["DROP", "DROP", "ACCEPT"]
    assert len(rules) == max(len(ours), 2) + 1
    assert not bench.one(cut, vm_id).changed


def test_a_firewall_that_cannot_be_set_again_is_no_success(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    bench.pve.firewall_config("vm", vmid=int(vm_id))["options"]["macfilter"] = 0
    bench.pve.fail("PUT", f"/qemu/{vm_id}/firewall/options", 500, "disk full")
    (outcome,) = bench.do(SEAL, vm_id)
    assert (outcome.failed, outcome.changed) == (True, True), "a step was taken, though in vain"
    assert outcome.msg == f"Read back on {vm_id}: firewall.macfilter is 0, not 1."
    assert any("its firewall could not be set" in told for told in outcome.warnings)


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


def test_a_quarantine_that_is_misspelt_is_named_before_anything_is_touched(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.pve.bridges.discard("quarantine")
    (planned,) = bench.do(FORENSIC, vm_id, check=True)
    bench.hypervisor = bench.connect()
    (outcome,) = bench.do(FORENSIC, vm_id)
    assert (outcome.msg.startswith(planned.msg), planned.changed) == (True, False)
    assert "the quarantine of hv1, 'quarantine', is no bridge or VNet of node pve1" in outcome.msg
    assert "There are: vmbr0, vmbr1. Nothing was touched." in outcome.msg
    assert [m for m, _path, _body in bench.pve.requests if m != "GET"] == []
    del bench.hypervisor.link.options["quarantine"]
    (outcome,) = bench.do(FORENSIC, vm_id)
    assert "hv1 cannot do it here: no quarantine bridge is named for hv1. Set quarantine" in outcome.msg


def test_who_may_not_take_a_vm_out_of_quarantine_touches_nothing(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(FORENSIC, vm_id)
    bench.pve.grant("ir@pve", "/vms", "VM.Audit", "VM.Config.Network")
    bench.pve.grant("ir@pve", "/sdn/zones/localnetwork/vmbr0", "SDN.Use")
    bench.hypervisor = bench.connect()
    wiring = bench.wiring(vm_id)
    (outcome,) = bench.do(SetIsolation(Isolation.FREE, keep_sessions=True), vm_id)
    assert "lacks SDN.Use on /sdn/zones/localnetwork/quarantine. Nothing was touched." in outcome.msg
    assert bench.wiring(vm_id) == wiring


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


def test_a_note_that_somebody_spoilt_is_never_taken_for_none(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    bench.pve.firewall_config("vm", vmid=int(vm_id))["ipset_comments"]["vmward-undo"] = "{"
    (outcome,) = bench.do(SetIsolation(Isolation.FREE), vm_id)
    assert "its undo note cannot be read" in outcome.msg
    done = bench.one(SEAL, vm_id)
    assert "its undo note cannot be read" in done.warnings[0]
    assert bench.vm(vm_id).isolation is Isolation.SEALED
    assert bench.vm(vm_id).note is not None


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
