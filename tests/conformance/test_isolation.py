# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""free, forensic, sealed, on every backend."""

from __future__ import annotations

from dataclasses import replace

import libvirt
import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Refused
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Capability
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.xml import NOTE_URI
from ansible_collections.vmward.remediation.plugins.module_utils._model import Collector, Isolation, PowerState
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert, SetSnapshot
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.api import VsphereHypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.note import KEY
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench, FakeBench, LibvirtBench, mac
from ansible_collections.vmward.remediation.tests.conformance.vsphere import VsphereBench

COLLECTORS = [Collector("192.0.2.1", 22), Collector("2001:db8::1", 514, "udp", "vm")]
SEAL = SetIsolation(Isolation.SEALED, "2026-1")
FORENSIC = SetIsolation(Isolation.FORENSIC, "2026-1", COLLECTORS)
FREE = SetIsolation(Isolation.FREE, keep_sessions=True)
MODES = pytest.mark.parametrize("usecase", [SEAL, FORENSIC], ids=["sealed", "forensic"])
ALL_WAIVED = {
    "classes": {name: {"state": "waived", "by": "test"} for name in ("memory", "connections", "disks", "logs")}
}


@MODES
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_isolated_and_freed_leaves_the_very_same_wiring(bench: Bench, usecase: SetIsolation, running: bool) -> None:
    vm_id = bench.create("desk1", ["tap", "tap-down", "tap"], running)
    former = bench.wiring(vm_id)
    predicted = bench.one(usecase, vm_id, check=True)
    assert bench.wiring(vm_id) == former, "check mode changed something"
    done = bench.one(usecase, vm_id)
    assert (done.changed, done.before, done.after) == (predicted.changed, predicted.before, predicted.after)
    assert {nic.isolation for nic in bench.vm(vm_id).nics} == {usecase.mode}
    assert not bench.one(usecase, vm_id).changed
    predicted = bench.one(FREE, vm_id, check=True)
    freed = bench.one(FREE, vm_id)
    assert (freed.before, freed.after) == (predicted.before, predicted.after)
    assert bench.wiring(vm_id) == former
    assert bench.vm(vm_id).note is None
    assert not bench.one(FREE, vm_id).changed


@pytest.mark.parametrize(
    ("collector", "why"),
    [
        (Collector("collector.example", 22), "'collector.example' is no IPv4 or IPv6 address"),
        (Collector("192.0.2.0/24", 22), "'192.0.2.0/24' is no IPv4 or IPv6 address"),
        (Collector("192.0.2.1", 22, via="gateway"), "'gateway' is no IPv4 or IPv6 address"),
        (Collector("192.0.2.1", 0), "port 0 of 192.0.2.1 is none from 1 to 65535"),
        (Collector("192.0.2.1", 99999), "port 99999 of 192.0.2.1 is none from 1 to 65535"),
    ],
)
def test_a_collector_that_no_rule_could_name_is_refused_before_anything_is_touched(
    collector: Collector, why: str
) -> None:
    with pytest.raises(Refused, match="Nothing was touched") as told:
        SetIsolation(Isolation.FORENSIC, "2026-1", [*COLLECTORS, collector])
    assert why in str(told.value)
    SetIsolation(Isolation.SEALED, "2026-1", [collector])  # which reaches none: a cut is not held up by it


def test_a_nic_that_was_down_stays_down(bench: Bench) -> None:
    vm_id = bench.create("desk1", ["tap", "tap-down"])
    bench.one(FORENSIC, vm_id)
    assert [nic.link_up for nic in bench.vm(vm_id).nics] == [True, False]


def test_from_one_mode_to_the_other_the_undo_is_still_the_first_wiring(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    former = bench.wiring(vm_id)
    for usecase in (FORENSIC, SEAL, FORENSIC):
        bench.one(usecase, vm_id)
        assert bench.vm(vm_id).isolation is usecase.mode
    bench.one(FREE, vm_id)
    assert bench.wiring(vm_id) == former


def test_other_collectors_are_a_change_and_take_effect(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    bench.one(FORENSIC, vm_id)
    before = bench.wiring(vm_id)
    assert bench.one(SetIsolation(Isolation.FORENSIC, "2026-1", COLLECTORS[:1]), vm_id).changed
    if Capability.COLLECTORS in bench.hypervisor.capabilities():
        assert bench.wiring(vm_id) != before
    note = bench.vm(vm_id).note
    assert note is not None
    assert note.collectors == tuple(COLLECTORS[:1])


def test_a_hot_plugged_nic_is_seen_and_caught(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    bench.plug(vm_id, mac(7))
    assert bench.vm(vm_id).isolation is Isolation.FREE
    assert bench.one(SEAL, vm_id).changed
    assert bench.vm(vm_id).isolation is Isolation.SEALED
    bench.one(FREE, vm_id)
    assert {nic.isolation for nic in bench.vm(vm_id).nics} == {Isolation.FREE}


@MODES
def test_the_cut_survives_reboot_and_cold_start(bench: Bench, usecase: SetIsolation) -> None:
    vm_id = bench.create("desk1", ["tap", "tap"])
    bench.one(usecase, vm_id)
    bench.reboot(vm_id)
    assert bench.vm(vm_id).isolation is usecase.mode
    bench.one(SetPower("restarted", True, 0, {vm_id: ALL_WAIVED}), vm_id)
    assert bench.vm(vm_id).isolation is usecase.mode


def test_old_sessions_are_refused_until_a_cold_start_or_by_name(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    former = bench.wiring(vm_id)
    bench.one(SEAL, vm_id)
    plain = SetIsolation(Isolation.FREE)
    (refused,) = bench.do(plain, vm_id)
    assert "open sessions would resume" in refused.msg
    assert bench.vm(vm_id).isolation is Isolation.SEALED
    bench.one(SetPower("restarted", True, 0, {vm_id: ALL_WAIVED}), vm_id)
    bench.one(plain, vm_id)
    nics = bench.vm(vm_id).nics
    assert [(nic.isolation, nic.link_up) for nic in nics] == [(Isolation.FREE, True)]
    assert bench.wiring(vm_id).count("down") == former.count("down")


def test_a_cut_taken_away_behind_our_back_is_noticed_and_made_again(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    bench.loosen(vm_id)
    assert bench.vm(vm_id).isolation is Isolation.FREE
    assert bench.one(SEAL, vm_id).changed
    assert bench.vm(vm_id).isolation is Isolation.SEALED


def test_what_no_filter_can_hold_gets_its_link_down(bench: Bench) -> None:
    vm_id = bench.create("desk1", ["tap", "link-only"])
    former = bench.wiring(vm_id)
    bench.one(SEAL, vm_id)
    assert [nic.isolation for nic in bench.vm(vm_id).nics] == [Isolation.SEALED] * 2
    bench.one(FREE, vm_id)
    assert bench.wiring(vm_id) == former


def test_a_nic_that_nothing_can_cut_fails_by_name_and_all_others_are_cut(bench: Bench) -> None:
    vm_id = bench.create("desk1", ["tap", "uncuttable"], running=False)
    for check in (True, False):
        (outcome,) = bench.do(SEAL, vm_id, check=check)
        assert outcome.failed
        assert "NOT wholly isolated: %s" % bench.nic_id(1, "uncuttable") in outcome.msg
    assert [nic.isolation for nic in bench.vm(vm_id).nics] == [Isolation.SEALED, Isolation.FREE]
    (again,) = bench.do(SEAL, vm_id)
    assert (again.msg, again.changed, again.steps, again.after) == (outcome.msg, False, [], outcome.after)
    assert again.after["isolation"] == "free"


def test_where_nothing_can_be_cut_nothing_is_told_as_cut(bench: Bench) -> None:
    vm_id = bench.create("desk1", ["uncuttable"], running=False)
    (outcome,) = bench.do(SEAL, vm_id)
    assert (outcome.steps, outcome.after["isolation"]) == (["write the undo note"], "free")
    assert "NOT wholly isolated" in outcome.msg


def test_what_a_forensic_cut_cannot_move_is_taken_down_once(bench: Bench) -> None:
    if Capability.FORENSIC not in bench.hypervisor.capabilities():
        return
    vm_id = bench.create("desk1", ["tap", "link-only"], running=False)
    bench.do(FORENSIC, vm_id)
    (again,) = bench.do(FORENSIC, vm_id)
    assert (again.changed, again.steps) == (False, [])


def test_the_case_that_came_first_keeps_the_vm(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    second = bench.one(SetIsolation(Isolation.SEALED, "2026-2"), vm_id)
    assert not second.changed
    assert second.warnings == ["it is already isolated under case 2026-1, which stays its case"]
    assert bench.vm(vm_id).note is not None
    assert bench.vm(vm_id).note.case == "2026-1"  # type: ignore[union-attr]


def test_a_transient_vm_is_cut_with_a_warning(bench: Bench) -> None:
    vm_id = bench.create("desk1", persistent=False)
    done = bench.one(SEAL, vm_id)
    assert "transient" in done.warnings[0]
    assert bench.vm(vm_id).isolation is Isolation.SEALED
    bench.one(FREE, vm_id)
    assert bench.vm(vm_id).isolation is Isolation.FREE


def test_a_paused_vm_is_cut_and_stays_paused(bench: Bench) -> None:
    vm_id = bench.create("desk1")
    bench.one(SetPower("paused", False, 0, {}), vm_id)
    bench.one(SEAL, vm_id)
    assert (bench.vm(vm_id).power, bench.vm(vm_id).isolation) == (PowerState.PAUSED, Isolation.SEALED)


def test_a_batch_is_cut_as_one_and_a_failure_stays_alone(fake: FakeBench) -> None:
    ids = [fake.create(name) for name in ("a", "b", "c")]
    with fake.state.change() as state:
        state["faults"] = [{"verb": "submit_isolate", "vm": "b", "error": "TaskFailed", "message": "No."}]
    outcomes = fake.do(SEAL, *ids)
    assert [outcome.failed for outcome in outcomes] == [False, True, False]
    assert [fake.vm(vm_id).isolation.value for vm_id in ids] == ["sealed", "free", "sealed"]
    assert fake.vm(ids[1]).note is not None, "the undo note was written before the cut"


def spoil(fake: FakeBench, vm_id: str, **parts: object) -> None:
    with fake.state.change() as state:
        state["vms"][vm_id].update(parts)


@MODES
def test_a_nic_of_a_kind_never_seen_is_named_and_all_others_are_cut(fake: FakeBench, usecase: SetIsolation) -> None:
    vm_id = fake.create("desk1", ["tap", "tap"])
    with fake.state.change() as state:
        state["vms"][vm_id]["nics"][0]["kind"] = "quantum"
    for check in (True, False, False):
        (outcome,) = fake.do(usecase, vm_id, check=check)
        assert "NOT wholly isolated: %s (quantum) cannot be cut" % mac(0) in outcome.msg
    known = fake.known(vm_id)
    assert [nic.isolation for nic in known.nics] == [Isolation.FREE, usecase.mode]
    assert not known.nics[0].link_up, "its link was tried"
    assert known.note is not None
    assert {mac(0), mac(1)} == set(dict(known.note.wiring))


def test_a_power_state_never_seen_stops_every_verb_but_the_cut(fake: FakeBench) -> None:
    vm_id, other = fake.create("desk1"), fake.create("desk2")
    spoil(fake, vm_id, power="dreaming")
    first, second = fake.do(SEAL, vm_id, other)
    assert (first.failed, second.failed) == (False, False), first.msg
    assert "'dreaming' is unknown" in first.warnings[0]
    assert fake.known(vm_id).isolation is Isolation.SEALED
    for usecase in (FREE, SetPower("running", False, 0, {}), SetPower("stopped", True, 0, {vm_id: ALL_WAIVED})):
        (refused,) = fake.do(usecase, vm_id)
        assert "'dreaming' is unknown" in refused.msg
    assert fake.known(vm_id).isolation is Isolation.SEALED


@pytest.mark.parametrize("note", [{}, [], "text", {"wiring": []}])
def test_an_undo_note_that_cannot_be_read_keeps_no_vm_from_its_cut(fake: FakeBench, note: object) -> None:
    vm_id = fake.create("desk1")
    spoil(fake, vm_id, note=note)
    (refused,) = fake.do(FREE, vm_id)
    assert "its undo note cannot be read" in refused.msg
    done = fake.one(SEAL, vm_id)
    assert "its undo note cannot be read" in done.warnings[0]
    assert len(done.warnings) == 1
    vm = fake.vm(vm_id)
    assert vm.isolation is Isolation.SEALED
    assert vm.note is not None
    assert vm.note.case == "2026-1"
    fake.one(FREE, vm_id)
    assert fake.vm(vm_id).isolation is Isolation.FREE


def test_a_note_lost_while_the_vm_is_cut_is_said_to_lie_in_the_ledger(fake: FakeBench) -> None:
    vm_id = fake.create("desk1")
    fake.one(SEAL, vm_id)
    spoil(fake, vm_id, note={"wiring": []})
    done = fake.one(SEAL, vm_id)
    assert f"NIC {mac(0)} was cut already and its undo note is lost" in done.warnings[1]
    assert fake.vm(vm_id).isolation is Isolation.SEALED


def test_a_revert_to_a_spoiled_note_is_isolated_again_under_the_note_from_before(fake: FakeBench) -> None:
    vm_id = fake.create("desk1")
    fake.one(SetSnapshot("clean", "present", "", False), vm_id)
    fake.one(SEAL, vm_id)
    note = fake.vm(vm_id).note
    with fake.state.change() as state:
        state["vms"][vm_id]["snapshots"][0]["definition"]["note"] = {"wiring": []}
    fake.one(Revert("clean", False, True, {vm_id: ALL_WAIVED}), vm_id)
    vm = fake.vm(vm_id)
    assert vm.isolation is Isolation.SEALED
    assert note is not None
    assert vm.note == replace(note, sessions=False)


def test_on_vsphere_a_spoiled_note_keeps_no_vm_of_the_batch_from_its_cut(vsphere: VsphereBench) -> None:
    ids = [vsphere.create("desk1"), vsphere.create("desk2")]
    vsphere.one(SEAL, ids[0])
    hypervisor = vsphere.hypervisor
    assert isinstance(hypervisor, VsphereHypervisor)
    hypervisor.machine(vsphere.vm(ids[0]).ref).setCustomValue(KEY, '{"wiring": []}')
    outcomes = vsphere.do(SEAL, *ids)
    assert [outcome.failed for outcome in outcomes] == [False, False], outcomes[0].msg
    assert "no undo note that can be read" in outcomes[0].warnings[0]
    assert {vsphere.vm(vm_id).isolation for vm_id in ids} == {Isolation.SEALED}


@pytest.mark.real
@pytest.mark.parametrize("note", ["{}", "text", '{"wiring": []}'])
def test_on_libvirt_a_spoiled_note_keeps_no_vm_of_the_batch_from_its_cut(real: LibvirtBench, note: str) -> None:
    ids = [real.create("desk1"), real.create("desk2")]
    text = f"<isolation>{note}</isolation>"
    for flag in (libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG):
        real.domain(ids[0]).setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, "vmward", NOTE_URI, flag)
    outcomes = real.do(SEAL, *ids)
    assert [outcome.failed for outcome in outcomes] == [False, False], outcomes[0].msg
    assert f"it says '{note}'" in outcomes[0].warnings[0]
    assert {real.vm(vm_id).isolation for vm_id in ids} == {Isolation.SEALED}
    real.one(FREE, ids[0])


@pytest.mark.real
def test_the_cut_survives_a_restart_of_libvirtd(real: LibvirtBench) -> None:
    vm_id = real.create("desk1", ["tap", "tap"])
    real.one(SEAL, vm_id)
    real.world.kill_libvirtd()
    assert real.vm(vm_id).isolation is Isolation.SEALED
    assert not real.one(SEAL, vm_id).changed
    real.one(FREE, vm_id)
    assert real.vm(vm_id).isolation is Isolation.FREE


@pytest.mark.real
def test_a_suspended_vm_comes_back_cut_off(real: LibvirtBench) -> None:
    vm_id = real.create("desk1", ["tap", "tap"])
    real.domain(vm_id).managedSave(0)
    assert real.vm(vm_id).power is PowerState.SUSPENDED
    former = [nic.wiring for nic in real.vm(vm_id).nics]
    done = real.one(SEAL, vm_id)
    assert (done.after["isolation"], real.vm(vm_id).power) == ("sealed", PowerState.SUSPENDED)
    assert not real.one(SEAL, vm_id).changed
    real.one(SetPower("paused", False, 0, {}), vm_id)
    vm = real.vm(vm_id)
    assert (vm.power, vm.isolation) == (PowerState.PAUSED, Isolation.SEALED)
    assert vm.note is not None
    assert vm.note.sessions
    real.one(FREE, vm_id)
    assert [nic.wiring for nic in real.vm(vm_id).nics] == former
    assert real.vm(vm_id).note is None
