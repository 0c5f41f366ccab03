# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole response on the simulated hypervisor, as `make tour` runs it: no root, no VM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._fake import tour

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "tour"
    tour.create(str(made))
    tour.create_keys(str(made))
    return made


def respond(directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/tour"]
    command += ["vmward.remediation.respond", "-e", f"tour_directory={directory}", *more]
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1", "HOME": str(directory.parent)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def machine(directory: Path, name: str) -> dict[str, object]:
    state = json.loads((directory / "fake1.json").read_text())
    found: dict[str, object] = next(vm for vm in state["vms"].values() if vm["name"] == name)
    return found


def test_two_vms_are_taken_from_the_alert_to_service(directory: Path) -> None:
    done = respond(directory, "-e", "vmward_vms=desk1,app1", "-e", "vmward_case=tour-1")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("desk1", "app1"):
        vm = machine(directory, name)
        assert (vm["power"], vm["note"]) == ("running", None)
    entries = [json.loads(line) for line in (directory / "cases/tour-1/ledger.jsonl").read_text().splitlines()]
    verdicts = {(e["target"], e["result"]["verdict"]) for e in entries if (e["phase"], e["action"]) == ("scan", "disk")}
    assert ("desk1", "infected") in verdicts
    assert ("app1", "infected") not in verdicts
    assert "NOT DONE  scope, harden" in done.stdout


def test_the_plan_changes_nothing(directory: Path) -> None:
    before = (directory / "fake1.json").read_text()
    done = respond(directory, "-e", "vmward_vms=desk1", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Plan: nothing was changed" in done.stdout
    assert (directory / "fake1.json").read_text() == before
    assert not (directory / "cases").exists()


def test_a_vm_that_nobody_knows_is_refused(directory: Path) -> None:
    done = respond(directory, "-e", "vmward_vms=desk1,nosuch")
    assert done.returncode != 0
    assert "'nosuch' matches no VM of the inventory. Nothing was touched." in done.stdout
    assert machine(directory, "desk1")["note"] is None


def test_no_clean_point_leaves_the_vm_off_and_isolated(directory: Path) -> None:
    early = "2020-01-01T00:00:00Z"
    done = respond(directory, "-e", "vmward_vms=desk1", "-e", f"vmward_incident_time={early}")
    assert done.returncode != 0
    assert f"There is no snapshot older than {early}" in done.stdout
    vm = machine(directory, "desk1")
    assert vm["power"] == "stopped"
    assert vm["note"] is not None
    assert "NOT DONE  release" in done.stdout
