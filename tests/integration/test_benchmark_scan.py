# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of the scan's benchmark that nothing else runs: they would fail after hours of measuring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.tests.benchmarks import scan as bench
from ansible_collections.vmward.remediation.tests.corpus import disks

MB = disks.MB


def test_both_walks_read_every_file(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", disks.harmless(), 8 * MB)
    told = bench.walks(image)
    assert told["files"] == len(disks.harmless())
    assert min(told["dissect"], told["ours"]) >= 0


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark of seconds, and where its figures go."""
    sizes = {"": bench.Size(files=200, bytes=2 * MB, disk=512 * MB, deltas=(1, 10), rules=20, points=2, clones=2)}
    monkeypatch.setattr(bench, "SIZES", sizes)
    monkeypatch.setattr(bench, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(bench, "TARGET", tmp_path / "scan.json")
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.delenv("SIZE", raising=False)
    return tmp_path / "scan.json"


def test_it_runs_to_its_end(small: Path) -> None:
    assert bench.main() == 0
    told = json.loads(small.read_text())
    assert {name.split(",")[0] for name in told["ratios"]} >= {"dissect", "floor"}
    spent = told["figures"]["few_rules"]["spent"]
    assert all(spent["10 MB"][kind] > 0 for kind in ("comparing", "reading", "hashing", "engines", "other"))
    assert {told["figures"][rules]["full"]["verdict"] for rules in ("few_rules", "many_rules")} == {"clean"}


def test_what_was_measured_before_a_failure_is_kept(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(bench, "cold", broken)
    with pytest.raises(OSError, match="full"):
        bench.main()
    told = json.loads(small.read_text())
    assert told["ratios"] == {}
    assert told["figures"]["few_rules"]["10 MB"]["verdict"] == "clean"
