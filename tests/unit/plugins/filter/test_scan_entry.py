# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a ledger keeps of a scan, whatever the names that an attacker gave to files."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.filter.scan_entry import LIMIT, scan_entry
from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import canonical, check_entry
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import printable

LONGEST = printable("\U0001f600" * 2000)


def entry(**result: Any) -> dict[str, Any]:
    told = {"state": "done", "verdict": "infected", "msg": "infected", "findings_count": 900, **result}
    return {"phase": "scan", "action": "host", "target": "srv1", "inputs": {"paths": ["/"]}, "result": told}


def recorded(one: dict[str, Any]) -> dict[str, Any]:
    """As a ledger takes it, with the longest names of who and where."""
    who = "\U0001f600" * 256
    return check_entry({**one, "actor": who, "host": who, "time": "2026-01-31T12:00:00Z"})


def finding(path: str) -> dict[str, Any]:
    return {"disk": "vda", "volume": 1, "path": path, "rule": "r", "engine": "yara", "size": 1, "sha256": "a" * 64}


def rule(number: int) -> dict[str, Any]:
    return {"path": f"/etc/vmward/rules/apt {number}.yar", "sha256": f"{number:064x}", "rules": 3, "mtime": number}


def test_what_fits_stays_whole() -> None:
    whole = entry(findings=[finding("/a")], incomplete_reasons=[], disks=[{"name": "vda", "incomplete_reasons": []}])
    assert scan_entry(whole) == whole


@pytest.mark.parametrize("name", [LONGEST, "調査報告" * 128, "x" * 512])
def test_names_of_any_length_fit(name: str) -> None:
    long = entry(
        findings=[finding(name)] * 100,
        indicators=[finding("/short")] * 3,
        incomplete_reasons=[name] * 50,
        changes=[{"path": name, "former": name}] * 100,
        disks=[{"name": "vda", "verdict": "infected", "incomplete_reasons": [name] * 20}] * 4,
    )
    kept = recorded(scan_entry(long))["result"]
    assert len(canonical(scan_entry(long))) <= LIMIT
    assert kept["findings"] == long["result"]["findings"][: len(kept["findings"])] != []
    assert [disk["verdict"] for disk in kept["disks"]] == ["infected"] * 4
    assert (len(kept["indicators"]), kept["findings_count"], kept["verdict"]) == (3, 900, "infected")
    assert len(long["result"]["findings"]) == 100


def test_rule_files_are_kept_as_one_hash() -> None:
    rules = [rule(number) for number in range(2000)]
    engine = {"name": "yara", "version": "1.2", "rules": rules, "self_test": "passed"}
    (kept,) = recorded(scan_entry(entry(engines=[engine])))["result"]["engines"]
    lines = sorted(f"{one['sha256']}  {one['path']}\n" for one in rules)
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert kept == {**engine, "rules": {"files": 2000, "rules": 6000, "sha256": digest}}
    (other,) = scan_entry(entry(engines=[{**engine, "rules": rules[1:]}]))["result"]["engines"]
    assert other["rules"]["sha256"] != digest


def test_what_is_no_list_is_left_to_the_ledger() -> None:
    assert len(canonical(scan_entry(entry(msg="x" * 100_000)))) > 100_000
