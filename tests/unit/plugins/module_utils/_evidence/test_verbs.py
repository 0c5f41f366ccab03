# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stopped VM still has, and what not."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.remote import Destination
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.verbs import dump_memory, kept_item
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Capability, Hypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._model import PowerState, VmRef


def stopped(tmp_path: Path, *kept: str) -> Any:
    backend: Any = None
    hypervisor = SimpleNamespace(
        name="hv1",
        capabilities=lambda: {Capability.MEMORY_DUMP},
        memory_format=lambda: "elf",
        freeze=lambda: None,
        kept_memory=lambda _vm: kept,
        submit_kept_memory=partial(Hypervisor.submit_kept_memory, backend),
    )
    vm = SimpleNamespace(ref=VmRef("hv1", "vm-1", "desk1"), power=PowerState.STOPPED, memory=1 << 20)
    terms = SimpleNamespace(destination=Destination(str(tmp_path), "vm-1"))
    taking = SimpleNamespace(take=lambda items: [item.submit(item.name) for item in items])
    return SimpleNamespace(hypervisor=hypervisor, vm=vm, terms=terms, params={}, check=False, taking=lambda: taking)


def test_a_stopped_vm_has_no_memory(tmp_path: Path) -> None:
    assert dump_memory(stopped(tmp_path))["evidence"]["memory"]["state"] == "unavailable"


def test_but_one_whose_memory_lies_where_it_cannot_be_copied_from_is_never_called_unavailable(tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match="lies in 'vmward memory 1'. What cannot be copied, keep as evidence by hand"):
        dump_memory(stopped(tmp_path, "vmward memory 1"))


def test_each_memory_that_lies_somewhere_has_a_name_of_its_own() -> None:
    vm: Any = SimpleNamespace(ref=VmRef("hv1", "vm-1", "desk1"), power=PowerState.STOPPED, memory=1 << 20)
    hypervisor: Any = SimpleNamespace(memory_format=lambda: "elf", freeze=lambda: None)
    places = ("vmward memory 2026-11-22T03:58:46Z", "local:100/vm-100-state-../suspend\n.raw")
    items = [kept_item(hypervisor, vm, place) for place in places]
    assert [item.name for item in items] == [
        "memory-vmward-memory-2026-11-22T03-58-46Z.elf",
        "memory-local-100-vm-100-state-suspend-raw.elf",
    ]
    assert "copied from where it lay: vmward memory 2026-11-22T03:58:46Z" in items[0].method
