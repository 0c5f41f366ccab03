# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong in the middle of a batch, on every backend: each outcome is true, and a second run completes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Hypervisor, Pending
from ansible_collections.vmward.remediation.plugins.module_utils._model import PowerState, Vm
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Outcome, Plan
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.tests import support_table
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench, NotShown

PAUSE = SetPower("paused", False, 0, {})


class Broken(SetPower):
    """A pause of many VMs; right before that of one of them is ordered, something happens."""

    def __init__(self, at: str, happens: Callable[[], None]) -> None:
        super().__init__("paused", False, 0, {})
        self.at, self.happens = at, happens

    def plan(self, hypervisor: Hypervisor, vm: Vm) -> Plan:
        plan = super().plan(hypervisor, vm)
        if vm.ref.id != self.at:
            return plan
        (step,) = plan.steps

        def submit(hypervisor: Hypervisor) -> Pending:
            if isinstance(hypervisor, Hypervisor):  # not when it is rehearsed
                self.happens()
            return step.submit(hypervisor)

        return replace(plan, steps=(replace(step, submit=submit),))


def broken(bench: Bench, happens: Callable[[], None]) -> tuple[list[str], list[Outcome]]:
    ids = [bench.create(f"desk{number}", ("tap",) if number else ()) for number in range(4)]
    return ids, bench.do(Broken(ids[2], happens), *ids, deadline=20)


def true_and_completed(bench: Bench, ids: list[str], outcomes: list[Outcome]) -> None:
    """What was said of each VM is how it is; and the second run does what is left."""
    bench.mend()
    assert [outcome.id for outcome in outcomes] == ids
    for outcome in outcomes:
        if not outcome.failed:
            assert bench.vm(outcome.id).power is PowerState.PAUSED, outcome
        else:
            assert outcome.msg, outcome
            said = outcome.after["power"]
            assert said in (bench.vm(outcome.id).power.value, "paused"), outcome
    again = bench.do(PAUSE, *ids)
    assert [outcome.msg for outcome in again] == [""] * len(ids)
    assert {bench.vm(vm_id).power for vm_id in ids} == {PowerState.PAUSED}


def test_a_session_that_expires(bench: Bench) -> None:
    if not bench.has_sessions:
        with pytest.raises(NotShown) as why:
            bench.expire()
        assert told(bench, "its session expires") == f"does not apply: {why.value}"
        return
    bench.log_in()
    ids, outcomes = broken(bench, bench.expire)
    assert told(bench, "its session expires") == how(outcomes)
    true_and_completed(bench, ids, outcomes)


def test_a_connection_that_is_lost(bench: Bench) -> None:
    ids, outcomes = broken(bench, bench.lose)
    assert told(bench, "the connection is lost") == "VMs whose call was under way fail by name, the others are done"
    failed = [outcome for outcome in outcomes if outcome.failed]
    assert len(failed) < len(ids), failed
    assert [outcome.name for outcome in failed if "connection" not in outcome.msg] == []
    true_and_completed(bench, ids, outcomes)


def test_a_vm_that_outlives_the_deadline(bench: Bench) -> None:
    ids = [bench.create(f"desk{number}", ("tap",) if number else ()) for number in range(3)]
    alone = bench.slow(ids[1], 8)
    outcomes = bench.do(PAUSE, *ids, deadline=2)
    late = outcomes[1]
    assert [outcome.failed for outcome in outcomes] == [not alone, True, not alone]
    assert late.seconds < 8, "it was waited for until its end"
    assert "it still runs after" in late.msg
    assert told(bench, "a VM outlives the deadline") == "it is named as still running, the others are done"
    true_and_completed(bench, ids, outcomes)


def told(bench: Bench, fault: str) -> str:
    """What the table of support says."""
    (kind,) = bench.entry
    title = {"libvirt": "libvirt", "vsphere": "vSphere", "proxmox": "Proxmox VE", "fake": "fake"}[kind]
    return support_table.FAULTS[fault][title]


def how(outcomes: list[Outcome]) -> str:
    failed = sum(outcome.failed for outcome in outcomes)
    return {0: "every VM is done", 1: "its VM fails, the others are done"}.get(failed, f"{failed} of 4 fail")
