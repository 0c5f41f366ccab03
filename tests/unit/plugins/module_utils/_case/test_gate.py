# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import CaseError
from ansible_collections.vmward.remediation.plugins.module_utils._case.gate import (
    CLASSES,
    judge,
    require_gate,
    require_open,
)

from .conftest import Run

ARTEFACT = {"path": "evidence/data/x", "size": 1, "sha256": "a" * 64}


def evidence(name: str, state: str = "stored", target: str = "desk1", **result: Any) -> dict[str, Any]:
    said = {"class": name, "state": state, **result}
    artefacts = [ARTEFACT] if state == "stored" else []
    return {"action": "evidence", "target": target, "result": said, "artefacts": artefacts, "actor": "ann", "seq": 1}


def test_nothing_said_is_everything_missing() -> None:
    assert judge([], "desk1", lambda _one: True).missing == CLASSES


def test_stored_unavailable_and_waived_open_the_gate() -> None:
    entries = [
        evidence("memory", "waived", reason="wiper at work", by="ann"),
        evidence("connections", "unavailable", reason="no agent"),
        evidence("disks"),
        evidence("logs"),
    ]
    gate = require_gate(entries, "desk1", lambda _one: True, "delete")
    assert gate.missing == ()
    assert gate.classes["memory"].by == "ann"
    require_open({"desk1": gate.to_dict()}, "desk1", "delete")


def test_an_artefact_that_is_gone_closes_the_gate_again() -> None:
    entries = [evidence(name) for name in CLASSES]
    with pytest.raises(CaseError, match="Cannot delete desk1.*memory: recorded as stored, but not there as recorded"):
        require_gate(entries, "desk1", lambda _one: False, "delete")


def test_the_newest_word_counts_and_only_for_its_target() -> None:
    entries = [evidence("memory"), evidence("memory", "failed"), evidence("disks", target="desk2")]
    assert judge(entries, "desk1", lambda _one: True).missing == CLASSES


@pytest.mark.parametrize(
    "gates", [{}, {"desk2": {"open": True, "missing": []}}, {"desk1": {}}, {"desk1": {"open": True}}]
)
def test_an_unknown_or_odd_gate_is_closed(gates: dict[str, Any]) -> None:
    with pytest.raises(CaseError, match="Cannot revert desk1"):
        require_open(gates, "desk1", "revert")


@pytest.mark.parametrize(
    "result",
    [
        {"class": "memory", "state": "waived", "by": "ann"},
        {"class": "memory", "state": "waived", "reason": "x"},
        {"class": "memory", "state": "unavailable", "reason": " "},
        {"class": "memory", "state": "fine"},
        {"class": "screen", "state": "unavailable", "reason": "x"},
        {"class": "memory", "state": "stored"},
    ],
)
def test_evidence_without_what_why_or_whom_is_refused(case: Run, result: dict[str, Any]) -> None:
    case("open")
    with pytest.raises(CaseError) as caught:
        case("append", entries=[{"phase": "preserve", "action": "evidence", "target": "desk1", "result": result}])
    assert caught.value.kind == "input"


def test_read_judges_by_the_files_themselves(
    case: Run, directory: Path, store_file: Callable[..., dict[str, Any]]
) -> None:
    case("open")
    entry = {**evidence("memory"), "phase": "preserve", "artefacts": [store_file("m", b"memory")]}
    case("append", entries=[{name: value for name, value in entry.items() if name not in ("seq", "actor")}])

    def memory(**options: Any) -> str:
        return str(case("read", targets=["desk1"], **options)["gate"]["desk1"]["classes"]["memory"]["state"])

    assert memory() == "stored"
    (directory / "evidence/data/m").write_bytes(b"MEMORY")
    assert (memory(), memory(rehash=True)) == ("stored", "missing")
    (directory / "evidence/data/m").write_bytes(b"mem")
    assert memory() == "missing"
