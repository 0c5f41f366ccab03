# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate before what destroys evidence."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Refused
from ansible_collections.vmward.remediation.plugins.module_utils._model import (
    Isolation,
    IsolationNote,
    PowerState,
    Vm,
    VmRef,
)
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.volatility import ALL, require, settled

NOTE = IsolationNote("2026-1", Isolation.SEALED, "2026-11-22T00:00:00Z", ())


def vm(note: IsolationNote | None) -> Vm:
    return Vm(VmRef("hv1", "id-1", "desk1"), PowerState.RUNNING, (), 0, True, note=note)


@pytest.mark.parametrize(
    ("entry", "enough"),
    [
        ({"state": "stored"}, True),
        ({"state": "unavailable", "reason": "it was off"}, True),
        ({"state": "unavailable"}, False),
        ({"state": "waived", "by": "A. Person"}, True),
        ({"state": "waived", "by": ""}, False),
        ({"state": "open"}, False),
        ({}, False),
        (None, False),
        ("stored", False),
    ],
)
def test_a_class_is_settled_only_by_a_whole_statement(entry: Any, enough: bool) -> None:
    assert settled(entry) is enough


def test_a_vm_that_no_case_holds_passes() -> None:
    require("stop", vm(None), ALL, {})


@pytest.mark.parametrize("key", ["desk1", "id-1"])
def test_the_missing_classes_are_named(key: str) -> None:
    gate: dict[str, Any] = {key: {"classes": {"memory": {"state": "stored"}, "disks": {"state": "waived", "by": "me"}}}}
    with pytest.raises(Refused, match="case 2026-1 holds it.*: connections, logs") as told:
        require("stop", vm(NOTE), ALL, gate)
    assert str(told.value).startswith("Cannot stop desk1: ")
    gate[key]["classes"].update(connections={"state": "unavailable", "reason": "no agent"}, logs={"state": "stored"})
    require("stop", vm(NOTE), ALL, gate)
