# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has the VM been started cold since its cut? Memory that may have come back brings its sessions."""

from __future__ import annotations

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation, PowerState
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Outcome
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench
from ansible_collections.vmward.remediation.tests.pve.verbs import SEAL, WAIVED

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
    for state in ("running", "paused", "stopped"):
        (refused,) = bench.do(SetPower(state, True, 0, {vm_id: WAIVED}), vm_id)
        assert "together with its old wiring, which would come back. Keep that memory as evidence" in refused.msg
    assert bench.vm(vm_id).power is PowerState.SUSPENDED
    bench.pve.unlock(int(vm_id))
    bench.pve.boot(bench.pve.vm(int(vm_id)))
    note = bench.vm(vm_id).note
    assert note is not None
    assert note.sessions


def test_a_vm_that_was_saved_to_disk_when_it_was_cut_keeps_its_sessions(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.hypervisor.link.call("", None, "post", f"nodes/pve1/qemu/{vm_id}/status/suspend", todisk=1)  # type: ignore[attr-defined]
    bench.do(SEAL, vm_id)
    note = bench.vm(vm_id).note
    assert note is not None
    assert note.sessions
    bench.pve.unlock(int(vm_id))
    bench.pve.boot(bench.pve.vm(int(vm_id)))
    bench.one(SEAL, vm_id)
    assert "open sessions would resume" in freed(bench, vm_id).msg


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
