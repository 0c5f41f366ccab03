# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the engines get to see."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import (
    OVERLAP,
    WINDOW,
    BadRules,
    Content,
    EngineFailed,
    Hit,
    RuleFile,
    Yara,
    eicar,
    self_test,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.self_test import open_images, passes


def rules(text: str) -> RuleFile:
    return RuleFile("my.yar", text, "00", 0.0)


def content(data: bytes, whole: int = 1 << 30, stretches: Any = None) -> Content:
    return Content(len(data), lambda at, length: data[at : at + length], whole, stretches)


def test_windows_overlap_and_leave_nothing_out() -> None:
    size = 3 * WINDOW
    seen = [(at, at + len(data)) for at, data in content(bytes(size), whole=0).windows()]
    assert seen[0][0] == 0
    assert seen[-1][1] == size
    assert all(before[1] - after[0] == OVERLAP for before, after in zip(seen, seen[1:], strict=False))


def test_holes_are_left_out_and_near_stretches_are_one() -> None:
    holes = content(bytes(WINDOW), whole=0, stretches=lambda: [(0, 10), (20, 10), (1 << 20, 5)])
    assert [(at, len(data)) for at, data in holes.windows()] == [(0, 30), (1 << 20, 5)]


def test_yara_reports_the_first_offset_and_not_its_own_rules() -> None:
    engine = Yara([rules('rule found { strings: $a = "needle" condition: $a }')], 60)
    assert engine.scan(content(b"hay needle needle")) == ([Hit("found", 4)], "")
    assert engine.scan(content(eicar())) == ([], "")
    assert engine.describe()["rules"] == [{"path": "my.yar", "sha256": "00", "rules": 1, "mtime": 0}]


def test_a_large_file_is_judged_in_parts_and_says_so() -> None:
    engine = Yara([rules('rule found { strings: $a = "needle" condition: $a }')], 60)
    hits, gap = engine.scan(content(bytes(WINDOW - 3) + b"needle" + bytes(99), whole=0))
    assert hits == [Hit("found", WINDOW - 3)]
    assert "in parts only" in gap


@pytest.mark.parametrize("text", ["rule x { condition: nowhere }", 'include "/etc/passwd"', "not yara"])
def test_bad_rules_name_their_file(text: str) -> None:
    with pytest.raises(BadRules, match=r"Cannot use the rule file my\.yar"):
        Yara([rules(text)], 60)


def test_no_rule_at_all_is_a_failure() -> None:
    for files in ([], [rules("// nothing")]):
        with pytest.raises(EngineFailed, match="No YARA rule was loaded"):
            Yara(files, 60)


class Blind:
    name = "blind"

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        return [], ""

    def describe(self) -> dict[str, Any]:
        return {}

    def testing(self) -> AbstractContextManager[None]:
        return nullcontext()


def test_an_engine_that_misses_the_planted_sample_is_not_believed() -> None:
    with pytest.raises(EngineFailed, match="blind missed a planted sample"):
        self_test(Blind(), [b"sample"])


def test_an_engine_that_is_blind_on_disks_is_not_believed() -> None:
    told: list[str] = []
    blind = Blind()
    blind.name = "yara"
    assert not passes([blind], open_images(), lambda _kind, body: told.append(body["text"]))
    assert "yara did not find the planted samples in a disk scanned as a whole (found nothing)" in told[0]
    assert passes([Yara([RuleFile("x", "rule x { condition: false }", "", 0)], 60)], open_images(), print)
