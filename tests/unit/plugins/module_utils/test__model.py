# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model's own judgements."""

from __future__ import annotations

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._model import (
    Isolation,
    Nic,
    PowerState,
    Vm,
    VmRef,
    Wiring,
    printable,
)


def vm(*isolations: Isolation) -> Vm:
    nics = tuple(
        Nic(str(n), "", "tap", "", "", True, one, ("link",), Wiring("", "")) for n, one in enumerate(isolations)
    )
    return Vm(VmRef("hv1", "1", "desk1"), PowerState.RUNNING, nics, 0, True)


@pytest.mark.parametrize(
    ("nics", "whole"),
    [
        ((), Isolation.FREE),
        ((Isolation.SEALED,), Isolation.SEALED),
        ((Isolation.SEALED, Isolation.FORENSIC), Isolation.FORENSIC),
        ((Isolation.SEALED, Isolation.FREE, Isolation.FORENSIC), Isolation.FREE),
    ],
)
def test_a_vm_is_as_isolated_as_its_weakest_nic(nics: tuple[Isolation, ...], whole: Isolation) -> None:
    assert vm(*nics).isolation is whole


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("desk1", "desk1"),
        ("a\nb", "a\\x0ab"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("日本", "日本"),
        ("y" * 500, "y" * 117 + "..."),
    ],
)
def test_what_is_shown_is_one_bounded_line(raw: str, shown: str) -> None:
    assert printable(raw) == shown
