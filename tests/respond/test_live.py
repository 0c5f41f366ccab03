# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of an isolated VM are scanned while it runs on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CASES = Path("/var/lib/vmward-lab-cases")
VM = "desk2"


def virsh(*argv: str) -> str:
    return subprocess.run(["virsh", "-c", "qemu:///system", *argv], capture_output=True, text=True, check=True).stdout


@pytest.mark.real
def test_a_sealed_vm_is_scanned_as_it_runs_and_goes_on(lab: Callable[..., object]) -> None:
    at_hand = ("-e", f"vmward_vms={VM}", "-e", "vmward_case=live-test")
    lab("contain", *at_hand)
    before = virsh("dumpxml", "--inactive", VM), virsh("domblklist", VM, "--details")
    lab("scan", *at_hand, "-e", "scan_live=true")
    assert virsh("domstate", VM).strip() == "running"
    assert (virsh("dumpxml", "--inactive", VM), virsh("domblklist", VM, "--details")) == before
    assert virsh("domjobinfo", VM).split() == ["Job", "type:", "None"]
    entries = [json.loads(line) for line in (CASES / "live-test" / "ledger.jsonl").read_text().splitlines()]
    told = [entry["result"] for entry in entries if (entry["phase"], entry["action"]) == ("scan", "disk")][-1]
    assert (told["verdict"], told["incomplete_reasons"]) == ("clean", [])
    assert told["files"] > 0
    assert told["frozen_at"]
    lab("release", *at_hand, "-e", "vmward_false_alarm_by=ada", "-e", "vmward_false_alarm_reason=a drill")
    assert "link state='down'" not in virsh("dumpxml", VM)
