# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller signs only what continues the head it signed last and says what it sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._case.countersign import Countersigning
from ansible_collections.vmward.remediation.plugins.module_utils._case.options import ARGUMENT_SPEC, requested
from ansible_collections.vmward.remediation.plugins.module_utils._case.signature import SignatureError
from ansible_collections.vmward.remediation.plugins.module_utils._case.spool import Anchor

from .conftest import Run, note


@pytest.fixture
def anchor(tmp_path: Path) -> Anchor:
    return Anchor(tmp_path / "spool", "c1", "here")


def append(case: Run, anchor: Anchor, key: Path | None, *entries: dict[str, Any]) -> tuple[Countersigning, list[str]]:
    base = {**dict.fromkeys(ARGUMENT_SPEC), "case": "c1", "operation": "append", "actor": "ann", "host": "ctl"}
    options = {**base, "signed": True, "entries": list(entries), "signing_key": str(key) if key else None}
    result = case("append", entries=options["entries"], since=(anchor.load() or (0, ""))[0])
    lines = result.pop("lines")
    return Countersigning(options, requested(options), result, anchor, False), lines


def store(case: Run, work: Countersigning, lines: list[str]) -> None:
    made = work.make(lines)
    work.merge(case("append", entries=made["entries"]), made)


def test_signature_after_signature_continues(case: Run, anchor: Anchor, signer: tuple[Path, Path]) -> None:
    case("open")
    for action in ("one", "two"):
        work, lines = append(case, anchor, signer[0], note(action))
        store(case, work, lines)
        assert anchor.load() is not None
    assert case("read")["signed_seq"] == 4
    assert len(lines) == 2


def test_a_covered_entry_is_not_signed_again(case: Run, anchor: Anchor, signer: tuple[Path, Path]) -> None:
    case("open")
    store(case, *append(case, anchor, signer[0], note(key="k")))
    assert append(case, anchor, signer[0], note(key="k"))[0].covered


def test_an_entry_that_crashed_before_its_signature_is_signed_by_the_next_run(
    case: Run, anchor: Anchor, signer: tuple[Path, Path]
) -> None:
    case("open")
    append(case, anchor, signer[0], note(key="k"))
    work, lines = append(case, anchor, signer[0], note(key="k"))
    assert not work.result["changed"]
    assert work.sign_due
    store(case, work, lines)
    assert work.result["changed"]


def test_no_key_is_a_reason(case: Run, anchor: Anchor) -> None:
    case("open")
    work, lines = append(case, anchor, None, note())
    with pytest.raises(SignatureError, match="no signing key is configured"):
        work.make(lines)


def test_a_rewritten_history_gets_no_signature(
    case: Run, anchor: Anchor, signer: tuple[Path, Path], directory: Path
) -> None:
    case("open")
    short = (directory / "ledger.jsonl").read_bytes()
    store(case, *append(case, anchor, signer[0], note("seen")))
    (directory / "ledger.jsonl").write_bytes(short)
    case("append", entries=[note("forged"), note("forged")])
    work, lines = append(case, anchor, signer[0], note("more"))
    with pytest.raises(SignatureError, match="does not continue the head that this controller signed last"):
        work.make(lines)


def test_an_entry_changed_on_its_way_gets_no_signature(case: Run, anchor: Anchor, signer: tuple[Path, Path]) -> None:
    case("open")
    work, lines = append(case, anchor, signer[0], note(result={"verdict": "clean"}))
    lying = Countersigning(
        work.options, [{**work.sent[0], "result": {"verdict": "infected"}}], work.result, anchor, False
    )
    with pytest.raises(SignatureError, match="not what was sent"):
        lying.make(lines)
    with pytest.raises(SignatureError, match="does not continue"):
        work.make(lines[:-1])
