# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What begins at the hypervisor is given up there, whatever ends the wait for it."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._evidence import take
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.progress import Progress
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.remote import Destination
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.scratch import Scratch
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.store import StoreError
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Pending
from ansible_collections.vmward.remediation.plugins.module_utils._model import PowerState, VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._wait import poll_all

REF = VmRef("hv1", "vm-1", "desk1")


class Gone:
    """An evidence host that hung up."""

    def beat(self) -> None:
        raise StoreError("The evidence host has hung up.")


def produce(tmp_path: Path, pending: Pending, store: Any) -> None:
    hypervisor: Any = SimpleNamespace(wait=poll_all, progress=lambda _vm: (0, 0))
    vm: Any = SimpleNamespace(ref=REF, power=PowerState.RUNNING)
    destination = Destination(str(tmp_path), "vm-1", "", 22, "", "")
    end = time.monotonic() + 5
    terms = take.Terms(destination, Scratch(str(tmp_path)), Progress(""), end, 1.0, False, {})
    taking = take.Taking(hypervisor, vm, terms)
    taking.stores, taking.beaten = {"memory.elf": store}, 0.0
    item = take.Item("memory.elf", "memory", "memory", 1, "", lambda _path: pending, lambda _head, _size: "")
    taking._produce(item, str(tmp_path / "memory.elf"))


def test_an_evidence_host_that_is_gone_ends_the_dump_too(tmp_path: Path) -> None:
    ended: list[str] = []
    pending = Pending(REF, "dump", lambda: False, abort=lambda: ended.append("aborted"))
    with pytest.raises(StoreError, match="has hung up"):
        produce(tmp_path, pending, Gone())
    assert ended == ["aborted"]


def test_what_is_left_behind_then_is_told(tmp_path: Path) -> None:
    def abort() -> None:
        raise TaskFailed("The snapshot is left behind.")

    with pytest.raises(TaskFailed, match=r"has hung up\. The snapshot is left behind"):
        produce(tmp_path, Pending(REF, "dump", lambda: False, abort=abort), Gone())
