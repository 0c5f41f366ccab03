# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import (
    ENTRY_LIMIT,
    GENESIS,
    CaseError,
    artefact_name,
    check_case_id,
    check_entry,
    check_path,
    digest,
    link,
)

GOLDEN = (
    b'{"action":"isolate","actor":"ann@ctl","artefacts":[],"epoch":2,"host":"ctl","inputs":{"wanted":"sealed"},'
    b'"phase":"contain","prev":"' + GENESIS.encode() + b'","result":{"proof":"witnessed"},"seq":1,'
    b'"target":"desk\\u202e1","time":"2026-01-31T12:00:00Z"}'
)


def entry(**fields: Any) -> dict[str, Any]:
    return {"phase": "contain", "action": "isolate", **fields}


def test_the_line_of_an_entry_is_golden() -> None:
    made = check_entry(
        entry(
            time="2026-01-31T12:00:00Z",
            actor="ann@ctl",
            host="ctl",
            target="desk\u202e1",
            inputs={"wanted": "sealed"},
            result={"proof": "witnessed"},
        )
    )
    assert link(made, 1, GENESIS, 2) == GOLDEN
    assert digest(GOLDEN) == hashlib.sha256(GOLDEN).hexdigest()


def test_no_foreign_text_leaves_ascii_or_its_line() -> None:
    hostile = "a\nb\x1b[31m\u202e\ud800'\"{{ x }}"
    line = link(check_entry(entry(target=hostile)), 1, GENESIS, 0)
    assert line.isascii()
    assert b"\n" not in line
    assert b"\x1b" not in line
    assert json.loads(line)["target"] == hostile


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"action": "No Word"}, "not a lower-case word"),
        ({"phase": None}, "not a lower-case word"),
        ({"target": "x" * 1025}, "at most 1024"),
        ({"time": "yesterday"}, "must be UTC"),
        ({"result": {"n": float("nan")}}, "not JSON"),
        ({"result": ["x"]}, "must be a dictionary"),
        ({"result": {"out": "x" * ENTRY_LIMIT}}, "Save long output as an artefact"),
        ({"artefacts": [{"path": "evidence/data/x", "size": 1, "sha256": "A" * 64}]}, "SHA-256"),
        ({"artefacts": [{"path": "evidence/data/x", "size": -1, "sha256": "a" * 64}]}, "size in bytes"),
        ({"artefacts": [{"path": "/etc/passwd", "size": 1, "sha256": "a" * 64}]}, "relative to the case"),
    ],
)
def test_a_bad_entry_says_what_is_wrong(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(CaseError, match=says) as caught:
        check_entry(entry(**fields))
    assert caught.value.kind == "input"


@pytest.mark.parametrize(
    "path", ["evidence", "evidence/../x", "data/x", "evidence/.x", "evidence//x", "undo/a b", "undo/x\n"]
)
def test_a_path_cannot_leave_its_place(path: str) -> None:
    with pytest.raises(CaseError):
        check_path(path)


@pytest.mark.parametrize("case", ["", ".x", "a/b", "x" * 65, "a\n", "a b"])
def test_a_case_id_is_a_plain_name(case: str) -> None:
    with pytest.raises(CaseError, match="Choose another"):
        check_case_id(case)


def test_foreign_names_become_distinct_file_names() -> None:
    assert artefact_name("desk1") == "desk1"
    names = {artefact_name(name) for name in ("a/b", "a_b", "a b", "../etc/passwd", "", ".", "\ud800", "x" * 300)}
    assert len(names) == 8
    for name in names:
        assert check_path(f"evidence/data/{name}")
