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


def require(verb: str, vm: Vm, classes: Sequence[str], gate: Mapping[str, Any]) -> None:
    """Raise ``Refused`` while a class of evidence is neither kept nor given up by name.

    ``gate`` is what the case's ledger says, by VM name or id: under ``classes`` each class has its ``state`` (stored;
    unavailable with its ``reason``; waived with ``by``). A VM that no case holds is free.
    """
    if vm.note is None:
        return
    of_vm = gate.get(vm.ref.name, gate.get(vm.ref.id)) or {}
    missing = [name for name in classes if not settled(of_vm.get("classes", {}).get(name))]
    if missing:
        raise Refused(
            f"Cannot {verb} {vm.ref.name}: case {vm.note.case or '(unnamed)'} holds it, and this would destroy "
            f"evidence that is not kept: {', '.join(missing)}. "
            "Run vmward.remediation.preserve first, or waive it by name (vmward_waive)."
        )


def settled(entry: Any) -> bool:
    """True for a complete statement about one class: unavailable needs its reason, waived its person."""
    if not isinstance(entry, Mapping) or entry.get("state") not in SETTLED:
        return False
    if entry["state"] == "waived":
        return bool(entry.get("by"))
    return entry["state"] == "stored" or bool(entry.get("reason"))
