# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An entry of vmward_hypervisors is judged before anything is connected to."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._connect import BadEntry, chosen_names, connect
from ansible_collections.vmward.remediation.plugins.module_utils._errors import NotFound, TaskFailed


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({}, "must have exactly one key, its kind (fake, libvirt, "),
        ("qemu:///system", "must have exactly one key"),
        ({"libvirt": {"uri": "x"}, "fake": {"path": "y"}}, "must have exactly one key"),
        ({"xen": {}}, "of the unknown kind"),
        ({"libvirt": {}}, "missing required arguments: uri"),
        ({"libvirt": {"uri": "x", "colour": "red"}}, "colour"),
    ],
)
def test_a_bad_entry_is_named_with_what_is_wrong(entry: Any, sentence: str) -> None:
    with pytest.raises(BadEntry, match="Hypervisor kvm1") as told:
        connect("kvm1", entry)
    assert sentence in str(told.value)


def test_the_choice_is_checked() -> None:
    assert chosen_names({"a": {}, "b": {}}, []) == ["a", "b"]
    assert chosen_names({"a": {}, "b": {}}, ["b"]) == ["b"]
    with pytest.raises(NotFound, match="Unknown hypervisor c; configured: a, b"):
        chosen_names({"b": {}, "a": {}}, ["c"])
    with pytest.raises(BadEntry, match="No hypervisor is configured"):
        chosen_names({}, [])


def test_a_missing_state_file_is_told_as_a_sentence() -> None:
    with pytest.raises(TaskFailed, match="Cannot read the simulated hypervisor's state"):
        connect("fake1", {"fake": {"path": "/nonexistent/state.json"}})
