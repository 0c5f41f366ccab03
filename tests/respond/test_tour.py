# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole response on the simulated hypervisor, as `make tour` runs it: no root, no VM."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._fake import tour
from ansible_collections.vmward.remediation.tests.unit.plugins.module_utils._report.servers import Web, served

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


def put_into_memory(directory: Path, name: str, text: str) -> None:
    path = directory / "fake1.json"
    state = json.loads(path.read_text())
    next(vm for vm in state["vms"].values() if vm["name"] == name)["ram"] = text
    path.write_text(json.dumps(state))


def test_two_vms_are_taken_from_the_alert_to_service(directory: Path) -> None:
    put_into_memory(directory, "desk1", "VMWARD-INERT-" + "SAMPLE")
    done = respond(directory, "-e", "vmward_vms=desk1,app1", "-e", "vmward_case=tour-1", "-e", "scan_memory=true")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("desk1", "app1"):
        vm = machine(directory, name)
        assert (vm["power"], vm["note"]) == ("running", None)
    entries = [json.loads(line) for line in (directory / "cases/tour-1/ledger.jsonl").read_text().splitlines()]
    verdicts = {(e["target"], e["result"]["verdict"]) for e in entries if (e["phase"], e["action"]) == ("scan", "disk")}
    assert ("desk1", "infected") in verdicts
    memory = {e["target"]: e["result"] for e in entries if (e["phase"], e["action"]) == ("scan", "memory")}
    assert [hit["rule"] for hit in memory["desk1"]["indicators"]] == ["vmward_inert_sample"]
    assert memory["app1"]["verdict"] == "clean"
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


def with_hypervisors(directory: Path, extra: Mapping[str, object], data_host: str = "tour1") -> list[str]:
    entry = {"fake": {"path": str(directory / "fake1.json"), "data_host": data_host}}
    return ["-e", json.dumps({"vmward_hypervisors": {"fake1": entry, **extra}})]


def test_a_hypervisor_that_does_not_answer_stops_no_response_elsewhere(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        uri = f"qemu+tcp://127.0.0.1:{mute.getsockname()[1]}/system"
        extra = {"kvm9": {"libvirt": {"uri": uri, "connect_timeout": 1}}}
        done = respond(directory, "-e", "vmward_vms=desk1", *with_hypervisors(directory, extra))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a second VM of this name would not have been seen: Cannot open a session on kvm9" in done.stderr
    assert machine(directory, "desk1")["note"] is None


def test_a_data_host_that_is_gone_leaves_the_vm_isolated_and_a_report(directory: Path) -> None:
    inventory = directory / "gone.json"
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    inventory.write_text(json.dumps({"all": {"hosts": {"gone1": gone}}}))
    done = respond(
        directory,
        "-i",
        str(inventory),
        *("-e", "vmward_vms=desk1"),
        *with_hypervisors(directory, {}, data_host="gone1"),
        *("-e", json.dumps({"vmward_evidence_transfer": {"host": "evidence@127.0.0.1"}})),
    )
    assert done.returncode != 0
    assert "Cannot reach gone1 for vm_memory_dump of desk1" in done.stdout
    assert "FAILED    preserve" in done.stdout
    assert "NOT DONE  scan, restore, release" in done.stdout
    assert "report-" in done.stdout
    vm = machine(directory, "desk1")
    assert vm["power"] == "running"
    assert vm["note"] is not None


def ledger(directory: Path, case: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / f"cases/{case}/ledger.jsonl").read_text().splitlines()]


def passed_through(directory: Path, *names: str) -> None:
    """Give the VMs a network card that nobody can cut from outside."""
    path = directory / "fake1.json"
    state = json.loads(path.read_text())
    for vm in state["vms"].values():
        if vm["name"] in names:
            vm["nics"][0]["kind"] = "passthrough"
    path.write_text(json.dumps(state))


@pytest.mark.parametrize("failing", [["app1", "desk1"], ["desk1"]])
def test_a_cut_that_failed_is_told_to_everybody_and_holds_up_no_other_vm(directory: Path, failing: list[str]) -> None:
    passed_through(directory, *failing)
    with served(Web) as server:
        contacts = [{"role": "administrator", "webhook": f"http://127.0.0.1:{server.port}/"}]
        told = {"vmward_notify": {"contacts": contacts}, "vmward_incident_time": "2020-01-01T00:00:00Z"}
        done = respond(directory, "-e", "vmward_vms=desk1,app1", "-e", "vmward_case=t1", "-e", json.dumps(told))
    assert done.returncode != 0
    ((_path, _headers, body),) = server.posts
    assert {vm["name"]: vm["alarm"] for vm in json.loads(body)["vms"]} == {
        vm: "CUT FAILED" if vm in failing else "" for vm in ("desk1", "app1")
    }
    phases = [(entry["target"], entry["phase"]) for entry in ledger(directory, "t1")]
    assert [vm for vm in ("app1", "desk1") if (vm, "preserve") not in phases] == failing
    assert not [phase for _vm, phase in phases[: phases.index(("", "notify"))] if phase == "preserve"]
    screen = re.sub(r"\s+", " ", done.stdout)
    assert "desk1 CUT FAILED: free since" in screen
    assert "MISSING desk1: the cut FAILED: desk1 is NOT wholly isolated" in screen
    assert f"Cut off now: ansible-playbook vmward.remediation.contain -e vmward_vms={','.join(failing)} " in screen


def test_a_message_that_cannot_be_made_holds_up_no_vm_and_is_missing(directory: Path) -> None:
    wrong = {"vmward_notify": {"contacts": [{}]}, "notify_deadline": "{{ nosuch }}"}
    given = ("-e", "vmward_vms=desk1", "-e", "vmward_incident_time=2020-01-01T00:00:00Z")
    done = respond(directory, *given, "-e", json.dumps(wrong), "-e", "vmward_case=t1")
    assert done.returncode != 0
    phases = {(entry["target"], entry["phase"]) for entry in ledger(directory, "t1")}
    assert ("desk1", "preserve") in phases
    assert "desk1: notify was not done: not run" in re.sub(r"\s+", " ", done.stdout)
