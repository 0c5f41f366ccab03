# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of volatility as a gate: what must be evidence before a VM may be stopped, reverted or deleted. Pure.

An entry with `action: evidence` speaks for one class of one target as a whole: `result.class` is one of CLASSES and
`result.state` is `stored` (with its artefacts), `unavailable` (with `reason`, as read back) or `waived` (with `by` and
`reason`). The newest entry of a class counts. `stored` counts only while every artefact is present.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Callable

from .entry import CaseError, Entry

CLASSES = ("memory", "connections", "disks", "logs")
ENDS = ("reconnect", "false_alarm")  # back in service: what was kept before says nothing of what comes after
AGED = "what was kept is from before its release"
STATES = ("stored", "unavailable", "waived")

Present = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class ClassState:
    """What the ledger knows of one class: its state (or `missing`), why, by whom, and under which entry."""

    state: str = "missing"
    reason: str = "no entry says anything about it"
    by: str = ""
    seq: int = 0


@dataclass(frozen=True)
class Gate:
    target: str
    classes: Mapping[str, ClassState]

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(name for name in CLASSES if self.classes[name].state not in STATES)

    def to_dict(self) -> dict[str, Any]:
        classes = {name: asdict(state) for name, state in self.classes.items()}
        return {"open": not self.missing, "missing": list(self.missing), "classes": classes}


def check_evidence(entry: Entry) -> None:
    """Refuse an evidence entry that claims without saying what, why or by whom."""
    if entry["action"] != "evidence":
        return
    result = entry["result"]
    needs = {"stored": (), "unavailable": ("reason",), "waived": ("reason", "by")}.get(str(result.get("state")))
    lacking = [name for name in needs or () if not str(result.get(name, "")).strip()]
    if needs is None or result.get("class") not in CLASSES or lacking or not entry["target"]:
        raise CaseError(
            "input",
            f"Cannot record the evidence of {entry['target'] or 'no target'}: result.class must be one of "
            f"{', '.join(CLASSES)}, result.state one of {', '.join(STATES)}, with a reason for unavailable, and with "
            "reason and by for waived.",
        )
    if result["state"] == "stored" and not entry["artefacts"]:
        raise CaseError(
            "input", f"Cannot record the {result['class']} of {entry['target']} as stored: no artefact is named."
        )


def judge(entries: Iterable[Entry], target: str, present: Present) -> Gate:
    """The gate of one target; `present` says whether an artefact is where and what its entry says."""
    classes = {name: ClassState() for name in CLASSES}
    for entry in entries:
        name = entry["result"].get("class")
        if entry["target"] != target:
            continue
        if entry.get("phase") == "release" and entry["action"] in ENDS:
            classes = {name: ClassState(reason=AGED) for name in CLASSES}
        elif entry["action"] == "evidence" and name in classes:
            classes[name] = _state(entry, present)
    return Gate(target, classes)


def _state(entry: Entry, present: Present) -> ClassState:
    result = entry["result"]
    state = str(result.get("state"))
    lost = [artefact["path"] for artefact in entry["artefacts"] if not present(artefact)]
    if state == "stored" and (lost or not entry["artefacts"]):
        reason = f"recorded as stored, but not there as recorded: {', '.join(lost[:5]) or 'no artefact'}"
        return ClassState("missing", reason, "", entry["seq"])
    return ClassState(state, str(result.get("reason", "")), str(result.get("by", entry["actor"])), entry["seq"])


def require_gate(entries: Iterable[Entry], target: str, present: Present, verb: str = "change") -> Gate:
    """The gate if it is open; otherwise a CaseError that names each missing class."""
    gate = judge(entries, target, present)
    require_open({target: gate.to_dict()}, target, verb)
    return gate


def require_open(gates: Mapping[str, Mapping[str, Any]], target: str, verb: str) -> None:
    """The same for the `gate` value that case_ledger returned to a play, on whatever host it is needed."""
    gate = gates.get(target)
    if gate is None:
        raise CaseError("input", f"Cannot {verb} {target}: its case says nothing of its evidence. Preserve it first.")
    if gate.get("open") is not True or gate.get("missing") != []:
        missing = gate.get("missing") or CLASSES
        why = "; ".join(f"{name}: {gate.get('classes', {}).get(name, {}).get('reason', 'unknown')}" for name in missing)
        raise CaseError(
            "input",
            f"Cannot {verb} {target}: evidence is missing ({why}). Preserve it, record why it is unavailable, or "
            "waive it by name.",
        )
