# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of volatility as a gate (RFC 3227): what a verb destroys must be stored, unavailable or waived first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._errors import Refused
from .._model import Vm

MEMORY = ("memory", "connections")
ALL = ("memory", "connections", "disks", "logs")
SETTLED = ("stored", "unavailable", "waived")


def require(verb: str, vm: Vm, classes: Sequence[str], evidence: Mapping[str, Any]) -> None:
    """Raise ``Refused`` while a class of evidence is neither kept nor given up by name.

    ``evidence`` maps each class to the state that the case's ledger records: ``{"state": "stored"}``,
    ``{"state": "unavailable", "reason": ...}`` or ``{"state": "waived", "by": ...}``. A VM that no case holds is free.
    """
    if vm.note is None:
        return
    missing = [name for name in classes if not settled(evidence.get(name))]
    if missing:
        raise Refused(
            "Cannot {} {}: it is held by case {}, and this would destroy evidence that is not kept: {}. Run "
            "vmward.remediation.preserve first, or waive it by name (vmward_waive).".format(
                verb, vm.ref.name, vm.note.case or "(unnamed)", ", ".join(missing)
            )
        )


def settled(entry: Any) -> bool:
    """True for a complete statement about one class: unavailable needs its reason, waived its person."""
    if not isinstance(entry, Mapping) or entry.get("state") not in SETTLED:
        return False
    if entry["state"] == "waived":
        return bool(entry.get("by"))
    return entry["state"] == "stored" or bool(entry.get("reason"))
