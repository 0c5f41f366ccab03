# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stopped VM still has, and what not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.remote import Destination
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.verbs import dump_memory
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Capability
from ansible_collections.vmward.remediation.plugins.module_utils._model import PowerState, VmRef


def stopped(tmp_path: Path, *kept: str) -> Any:
    hypervisor = SimpleNamespace(
        name="hv1",
        capabilities=lambda: {Capability.MEMORY_DUMP},
        memory_format=lambda: "elf",
        freeze=lambda: None,
        kept_memory=lambda _vm: kept,
    )
    vm = SimpleNamespace(ref=VmRef("hv1", "vm-1", "desk1"), power=PowerState.STOPPED, memory=1 << 20)
    terms = SimpleNamespace(destination=Destination(str(tmp_path), "vm-1"))
    return SimpleNamespace(hypervisor=hypervisor, vm=vm, terms=terms, params={}, check=False)


def test_a_stopped_vm_has_no_memory(tmp_path: Path) -> None:
    assert dump_memory(stopped(tmp_path))["evidence"]["memory"]["state"] == "unavailable"


def test_but_one_in_a_snapshot_of_a_broken_dump_is_never_called_unavailable(tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match="left its memory in the snapshot 'vmward memory 1'"):
        dump_memory(stopped(tmp_path, "vmward memory 1"))
