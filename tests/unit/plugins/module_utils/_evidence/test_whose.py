# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in the store already is another VM's, unless its sidecar says that it is this one's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Refused
from ansible_collections.vmward.remediation.plugins.module_utils._evidence import take
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.progress import Progress
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.remote import Destination
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.scratch import Scratch
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.store import Store
from ansible_collections.vmward.remediation.plugins.module_utils._model import PowerState, VmRef

NAME = "disk-vda.qcow2"


def kept(case: Path, details: dict[str, Any]) -> None:
    store = Store(str(case), "100", NAME)
    store.open(0)
    store.begin()
    store.write(b"a disk")
    store.finish(details)
    store.close()


def taking(tmp_path: Path) -> tuple[take.Taking, list[take.Item]]:
    vm: Any = SimpleNamespace(ref=VmRef("pve1", "100", "desk1"), power=PowerState.STOPPED)
    scratch = Scratch(str(tmp_path / "scratch"))
    destination = Destination(str(tmp_path), "100", "", 22, "", "")
    terms = take.Terms(destination, scratch, Progress(""), float("inf"), 1.0, False, {})
    item = take.Item(NAME, "disk vda", "disk", 1, "", lambda _path: pytest.fail("taken"), lambda _head, _size: "")
    hypervisor: Any = None
    return take.Taking(hypervisor, vm, terms), [item]


@pytest.mark.parametrize(
    "whose",
    [{"vm": {"id": "100", "hypervisor": "pve2"}}, {"vm": {"id": "101", "hypervisor": "pve1"}}, {"vm": "100"}, {}],
)
def test_a_file_of_another_vm_is_neither_taken_for_its_own_nor_overwritten(
    tmp_path: Path, whose: dict[str, Any]
) -> None:
    kept(tmp_path, {"artefact": NAME, **whose})
    for verb in ("predict", "take"):
        one, items = taking(tmp_path)
        with pytest.raises(Refused, match=r"disk-vda\.qcow2 .* is not of desk1 \(100 on pve1\)"):
            getattr(one, verb)(items)
    assert (tmp_path / "evidence/data/100" / NAME).read_bytes() == b"a disk"


def test_a_file_of_its_own_is_taken_once(tmp_path: Path) -> None:
    kept(tmp_path, {"vm": {"id": "100", "hypervisor": "pve1", "name": "renamed since"}})
    one, items = taking(tmp_path)
    assert one.take(items)["taken"] == []
