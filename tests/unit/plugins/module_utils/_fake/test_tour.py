# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tour's VMs: four, running, desk1 infected, its baseline clean."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._fake import images, tour
from ansible_collections.vmward.remediation.plugins.module_utils._fake.hypervisor import FakeHypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Detail
from ansible_collections.vmward.remediation.plugins.module_utils._model import PowerState, Vm
from ansible_collections.vmward.remediation.plugins.module_utils._plan import execute
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert


def named(hypervisor: FakeHypervisor, name: str) -> Vm:
    (ref,) = [ref for ref in hypervisor.refs() if ref.name == name]
    vm = hypervisor.read([ref.id], frozenset(Detail))[ref.id]
    assert isinstance(vm, Vm)
    return vm


def holds_sample(hypervisor: FakeHypervisor, name: str, target: Path) -> bool:
    hypervisor.submit_disk_export(named(hypervisor, name), "vda", str(target))
    images.call("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(target), str(target) + ".raw")
    return tour.EICAR.encode() in Path(str(target) + ".raw").read_bytes()


@pytest.mark.skipif(not images.complete(), reason="needs mkfs.ext4, debugfs and qemu-img")
def test_only_desk1_is_infected_and_its_baseline_is_clean(tmp_path: Path) -> None:
    hypervisor = FakeHypervisor("fake1", tour.create(str(tmp_path / "tour")))
    assert {ref.name for ref in hypervisor.refs()} == set(tour.MACHINES)
    vm = named(hypervisor, "desk1")
    assert (vm.power, [snapshot.name for snapshot in vm.snapshots]) == (PowerState.RUNNING, ["clean-baseline"])
    assert vm.snapshots[0].power is PowerState.STOPPED
    assert holds_sample(hypervisor, "desk1", tmp_path / "infected")
    assert not holds_sample(hypervisor, "desk2", tmp_path / "other")
    for usecase in (SetPower("stopped", True, 0, {}), Revert("clean-baseline", False, True, {})):
        (outcome,) = execute(hypervisor, usecase, [(vm.ref.id, "desk1")], 5, False)
        assert not outcome.failed, outcome.msg
    assert not holds_sample(hypervisor, "desk1", tmp_path / "reverted")


def test_a_memory_dump_holds_what_only_memory_held(tmp_path: Path) -> None:
    hypervisor = FakeHypervisor("fake1", tour.create(str(tmp_path / "tour")))
    vm = named(hypervisor, "desk1")
    hypervisor.submit_memory_dump(vm, str(tmp_path / "core"))
    core = (tmp_path / "core").read_bytes()
    assert core.startswith(b"\x7fELF")
    assert b"VMWARD-RAM-ONLY-desk1" in core
    assert len(core) == 4096 + vm.memory
