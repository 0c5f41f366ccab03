# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of the responder: all of what they hold is used, or nothing is scanned."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import job, options
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import (
    BadInput,
    DiskRequest,
    LayerSpec,
    read_rules,
)

RULE = "rule one { condition: false }\n"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    directory = tmp_path / "rules"
    directory.mkdir()
    (directory / "own.yar").write_text(RULE)
    return directory


def test_rules_behind_a_link_are_read(rules: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "community"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "many.yara").write_text(RULE)
    (rules / "community").symlink_to(elsewhere)
    read = [file.path for file in read_rules([str(rules)])]
    assert read == [str(rules / "community" / "deep" / "many.yara"), str(rules / "own.yar")]


def test_links_in_a_circle_give_each_rule_once(rules: Path) -> None:
    (rules / "circle").symlink_to(rules)
    assert [file.path for file in read_rules([str(rules)])] == [str(rules / "own.yar")]


def test_rules_that_cannot_be_listed_are_refused(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (rules / "private").mkdir()
    listed = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("private"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BadInput, match="Cannot use the rules in .*Permission denied"):
        list(read_rules([str(rules)]))


def test_rules_past_the_largest_size_are_refused_not_cut(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (rules / "own.yar").write_text(RULE + RULE.replace("one", "two"))
    monkeypatch.setattr(job, "MAX_RULE_FILE", len(RULE))
    with pytest.raises(BadInput, match="Cannot read the rule file .*more than"):
        list(read_rules([str(rules)]))


def test_indicators_past_the_largest_size_are_refused_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "names:\n- a.exe\n"
    (tmp_path / "indicators.yml").write_text(text + "- b.exe\n")
    monkeypatch.setattr(options, "_MOST", len(text))
    params = {"indicators": [os.fspath(tmp_path / "indicators.yml")], "rules": [], "at_once": 0}
    with pytest.raises(BadInput, match="Cannot read the indicators in .*more than"):
        options.request_of(params)


NOTHING: dict[str, object] = {"indicators": [], "rules": [], "at_once": 0, "memory_limit": 64}


@pytest.mark.parametrize("names", [["vda", "vdb", "vda"], [""], ["a" * 70 + "b", "a" * 70 + "c"]])
def test_disks_that_nobody_could_tell_apart_are_refused(names: list[str]) -> None:
    """By its name one is told in the result, by up to 64 characters of it."""
    disks = [DiskRequest(name, (LayerSpec("/x", "raw"),)) for name in names]
    with pytest.raises(BadInput, match="Cannot tell the disks apart"):
        options.request_of(NOTHING, disks)


def test_memory_that_does_not_do_for_the_self_test_is_refused() -> None:
    """Which would fail, and speak of an XFS that nobody has."""
    with pytest.raises(BadInput, match=r"memory_limit below 64 \(MiB\)"):
        options.request_of({**NOTHING, "memory_limit": 63})


@pytest.mark.parametrize(("name", "value"), [("deadline", 0), ("archive_depth", -1), ("memory_limit", -5)])
def test_a_limit_that_is_none_is_named(name: str, value: int) -> None:
    with pytest.raises(BadInput, match=rf"max_file_size, archive_depth and at_once may be 0\): {name}: {value}\."):
        options.request_of({**NOTHING, name: value})
