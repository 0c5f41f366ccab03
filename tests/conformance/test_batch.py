# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of many VMs some fail in the middle of the batch, or hang, at the hypervisor itself: the others are done."""

from __future__ import annotations

import re
import time
from functools import partial

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._crew import apart
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench

SEAL = SetIsolation(Isolation.SEALED, "2026-1")


def test_three_of_a_hundred_fail(bench: Bench) -> None:
    ids = [bench.create(f"desk{number}", running=False) for number in range(100)]
    bad = ids[10:40:10]
    former = {vm_id: bench.wiring(vm_id) for vm_id in bad}
    for vm_id in bad:
        bench.hurt(vm_id)
    outcomes = bench.do(SEAL, *ids)
    assert [outcome.id for outcome in outcomes] == ids
    failed = [outcome for outcome in outcomes if outcome.failed]
    assert [outcome.id for outcome in failed] == bad
    assert all(outcome.msg for outcome in failed)
    found = bench.hypervisor.read(ids)
    cut = [vm_id for vm_id in ids if found[vm_id].isolation is Isolation.SEALED]  # type: ignore[union-attr]
    assert cut == [vm_id for vm_id in ids if vm_id not in bad], "97 are done"
    assert {vm_id: bench.wiring(vm_id) for vm_id in bad} == former
    bench.mend()
    assert [outcome.changed for outcome in bench.do(SEAL, *ids)] == [vm_id in bad for vm_id in ids]


@pytest.fixture(params=["vsphere", "proxmox"])
def holding(request: pytest.FixtureRequest) -> Bench:
    """A bench on which an answer can be held back."""
    made: Bench = request.getfixturevalue(request.param)
    return made


def test_a_note_that_hangs_holds_up_no_other_vms_cut(holding: Bench) -> None:
    """The others are cut while it hangs; let go of in time, its own VM is cut after it."""
    ids = [holding.create(f"desk{number}") for number in range(4)]
    hung, *others = ids
    former = {vm_id: holding.wiring(vm_id) for vm_id in ids}
    holding.hold_note(hung)
    verb = apart(partial(holding.do, SEAL, *ids, deadline=60))
    while not verb.done() and any(holding.wiring(vm_id) == former[vm_id] for vm_id in others):
        time.sleep(0.05)
    assert holding.wiring(hung) == former[hung]
    assert not verb.done()
    holding.mend()
    assert [outcome.msg for outcome in verb.result()] == [""] * 4
    assert {holding.vm(vm_id).isolation for vm_id in ids} == {Isolation.SEALED}


def test_a_note_that_hangs_for_ever_is_told_at_the_deadline(holding: Bench) -> None:
    ids = [holding.create(f"desk{number}") for number in range(4)]
    holding.hold_note(ids[1])
    outcomes = holding.do(SEAL, *ids, deadline=8)
    assert [outcome.failed for outcome in outcomes] == [False, True, False, False]
    sentence = "Cannot say yet whether 'write the undo note on' on desk1 succeeded: it still runs after ([0-9.]+) s"
    told = re.match(sentence, outcomes[1].msg)
    assert told
    assert 4 < float(told[1]) <= 8, "of the whole time, not of the last look"
    assert [outcome.after["isolation"] for outcome in outcomes] == ["sealed", "free", "sealed", "sealed"]
    holding.mend()
