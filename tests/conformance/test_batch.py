# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three of a hundred fail, on every backend: the hypervisor itself refuses them, in the middle of the batch."""

from __future__ import annotations

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
