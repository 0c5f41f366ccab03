# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The choices that a responder has, and what may be gone meanwhile, on the simulated hypervisor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._fake import tour

ROOT = Path(__file__).resolve().parents[2]
CASE = "choice-1"


class Tour:
    """Four simulated VMs, desk1 infected."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        tour.create(str(directory))
        tour.create_keys(str(directory))

    def play(self, name: str, *flags: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        told = {"tour_directory": str(self.directory), "vmward_vms": "desk1", "vmward_case": CASE, **variables}
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/tour", *flags]
        command += [f"vmward.remediation.{name}", "-e", json.dumps(told)]
        here = str(self.directory.parent)
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "HOME": here, "USER": "ada"}
        environment |= {"ANSIBLE_ASYNC_DIR": f"{here}/jobs", "ANSIBLE_REMOTE_TEMP": f"{here}/temporary"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert not (ROOT / "playbooks" / "~ada").exists(), "a user who has no home is given one in the checkout"
        return done

    def done(self, name: str, *flags: str, **variables: Any) -> str:
        played = self.play(name, *flags, **variables)
        assert played.returncode == 0, played.stdout + played.stderr
        return played.stdout

    def failed(self, name: str, *flags: str, **variables: Any) -> str:
        """Its output without line breaks."""
        played = self.play(name, *flags, **variables)
        assert played.returncode != 0, played.stdout
        return " ".join(played.stdout.split())

    def vm(self, name: str = "desk1") -> dict[str, Any]:
        state = json.loads((self.directory / "fake1.json").read_text())
        found: dict[str, Any] = next(vm for vm in state["vms"].values() if vm["name"] == name)
        return found

    def entries(self, phase: str, action: str) -> list[dict[str, Any]]:
        lines = (self.directory / "cases" / CASE / "ledger.jsonl").read_text().splitlines()
        read = [json.loads(line) for line in lines]
        return [one["result"] for one in read if (one["phase"], one["action"]) == (phase, action)]


@pytest.fixture
def simulated(tmp_path: Path) -> Tour:
    return Tour(tmp_path / "tour")


def is_free(vm: dict[str, Any]) -> bool:
    return vm["note"] is None


def test_a_snapshot_that_is_named_needs_no_time_and_evidence_can_be_given_up_by_name(simulated: Tour) -> None:
    waive = {"desk1": {"memory": "the guest was rebooted by its user"}}
    simulated.done("respond", vmward_snapshot="clean-baseline", vmward_incident_time="", vmward_waive=waive)
    assert is_free(simulated.vm())
    assert [one["chosen"] for one in simulated.entries("restore", "clean_point")] == ["clean-baseline"]
    (waived,) = [one for one in simulated.entries("preserve", "evidence") if one["state"] == "waived"]
    assert (waived["class"], waived["by"]) == ("memory", "ada")


def test_the_golden_image_can_be_taken_instead_of_any_snapshot(simulated: Tour) -> None:
    done = simulated.play("respond", vmward_restore_from="golden")
    if done.returncode:  # every snapshot must be gone before: it says so, and nothing was given back
        assert "snapshot" in done.stdout
        assert not is_free(simulated.vm())
    else:
        assert [one["kind"] for one in simulated.entries("restore", "clean_point")] == ["golden"]


def test_a_false_alarm_is_freed_in_the_name_of_a_person(simulated: Tour) -> None:
    simulated.done("contain")
    told = simulated.failed("release")
    assert "is not released: the ledger holds no clean scan of it after a restore. Nothing was changed." in told
    assert "its isolation is sealed" in told
    assert not is_free(simulated.vm())
    simulated.failed("release", vmward_false_alarm_by="ada")
    simulated.done("release", vmward_false_alarm_by="ada", vmward_false_alarm_reason="a drill")
    assert is_free(simulated.vm())
    assert simulated.vm()["power"] == "running"
    assert [one["by"] for one in simulated.entries("release", "begin")] == ["ada"]


def test_a_release_that_was_killed_goes_on_where_it_ended(simulated: Tour) -> None:
    simulated.done("respond")
    ledger = simulated.directory / "cases" / CASE / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    freed = next(n for n, line in enumerate(lines) if json.loads(line)["action"] == "reconnect")
    ledger.write_text("\n".join(lines[: freed + 1]) + "\n")
    state = simulated.directory / "fake1.json"
    told = json.loads(state.read_text())
    next(vm for vm in told["vms"].values() if vm["name"] == "desk1")["power"] = "stopped"
    state.write_text(json.dumps(told))
    shutil.rmtree(simulated.directory.parent / ".local", ignore_errors=True)
    simulated.done("release")
    assert simulated.vm()["power"] == "running"
    assert simulated.entries("release", "end")[-1]["state"] == "done"


def test_a_vpn_hook_is_done_only_when_it_ran(simulated: Tour) -> None:
    hook = simulated.directory / "vpn.yml"
    hook.write_text("- ansible.builtin.debug: {msg: the VPN is off}\n")
    simulated.done("contain", contain_vpn_hook=str(hook))
    hook.write_text("- ansible.builtin.fail: {msg: the VPN does not answer}\n")
    simulated.play("contain", contain_vpn_hook=str(hook))
    told = [(one["state"], one["msg"]) for one in simulated.entries("contain", "vpn")]
    assert [state for state, _msg in told] == ["done", "failed"]
    assert "the VPN does not answer" in told[1][1]


def test_what_the_restore_will_refuse_is_told_before_anything_slow(simulated: Tour) -> None:
    told = simulated.play("respond", vmward_incident_time="yesterday").stdout
    assert "'yesterday' is not a time" in told[: told.index("Dump the memory")]


@pytest.mark.parametrize("phase", ["preserve", "scan", "restore", "release"])
def test_a_phase_in_check_mode_neither_lies_nor_breaks(simulated: Tour, phase: str) -> None:
    simulated.done("contain")
    before = simulated.vm()
    told = simulated.play(phase, "--check")
    assert "undefined" not in told.stdout + told.stderr
    assert "desk1 was restored" not in told.stdout
    assert simulated.vm() == before


@pytest.mark.parametrize("gone", ["hypervisor", "store"])
def test_what_is_gone_takes_the_closing_sentence_with_it_never(simulated: Tour, gone: str) -> None:
    simulated.done("contain")
    if gone == "store":
        (simulated.directory / "cases").rename(simulated.directory / "moved")
        (simulated.directory / "cases").touch()
    else:
        (simulated.directory / "fake1.json").rename(simulated.directory / "moved.json")
    told = simulated.failed("scan")
    assert "desk1: scan failed:" in told
    assert ("its isolation is sealed" if gone == "store" else "could not be read back") in told


def test_a_data_host_that_is_gone_before_the_scan_fails_the_vm_and_not_the_run(simulated: Tour) -> None:
    simulated.done("contain")
    inventory = simulated.directory / "gone.json"
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    inventory.write_text(json.dumps({"all": {"hosts": {"gone1": gone}}}))
    entry = {"fake": {"path": str(simulated.directory / "fake1.json"), "data_host": "gone1"}}
    told = simulated.failed("scan", "-i", str(inventory), vmward_hypervisors={"fake1": entry})
    assert "Cannot reach gone1, which reads the disks of desk1" in told
    assert "its isolation is sealed" in told
    assert simulated.entries("scan", "end")[-1]["state"] == "failed"


TWO = "desk1,app1"


def test_a_large_set_of_rules_keeps_no_verdict_out_of_the_case_and_what_does_is_told(
    simulated: Tour, tmp_path: Path
) -> None:
    rules = tmp_path / "public"
    rules.mkdir()
    for number in range(400):
        (rules / f"a_rule_with_a_usual_name_{number:060}.yar").write_text(f"rule r{number} {{ condition: false }}\n")
    simulated.done("contain")
    simulated.play("scan", scan_rules=[str(rules)])
    (told,) = simulated.entries("scan", "disk")
    assert (told["verdict"], told["engines"][0]["rules"]["files"]) == ("infected", 403)
    refused = simulated.failed("scan", __case_lead={"epoch": 99})  # as if another run had taken the lead meanwhile
    assert "active disk is infected (" in refused
    assert "That is not in the ledger: " in refused
    assert len(simulated.entries("scan", "disk")) == 1


def test_a_witness_that_is_gone_takes_nothing_from_any_of_two_vms(simulated: Tour) -> None:
    inventory = simulated.directory / "gone.json"
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    inventory.write_text(json.dumps({"all": {"hosts": {"gone1": gone}}}))
    witness = {"vmward_witnesses": ["gone1"], "vmward_control_targets": ["192.0.2.1"]}
    simulated.done("respond", "-i", str(inventory), vmward_vms=TWO, **witness)
    assert is_free(simulated.vm("desk1"))
    assert is_free(simulated.vm("app1"))
    assert [one["proof"] for one in simulated.entries("contain", "prove")] == ["readback", "readback"]


def test_a_hypervisor_that_is_gone_is_told_of_each_of_two_vms(simulated: Tour) -> None:
    simulated.done("contain", vmward_vms=TWO)
    (simulated.directory / "fake1.json").rename(simulated.directory / "moved.json")
    told = simulated.failed("scan", vmward_vms=TWO)
    assert "desk1: scan failed:" in told
    assert "app1: scan failed:" in told
    assert len(simulated.entries("scan", "end")) == 2
    simulated.failed("contain", vmward_vms=TWO)
    assert [one["state"] for one in simulated.entries("contain", "isolate")] == ["done", "done", "failed", "failed"]


def test_the_plan_tells_too_what_the_restore_will_refuse(simulated: Tour) -> None:
    told = simulated.done("respond", "--check", vmward_incident_time="yesterday")
    assert "The restore of desk1 is going to fail: 'yesterday' is not a time." in told
    told = simulated.done("respond", "--check", vmward_restore_from="gold")
    assert "vmward_restore_from is snapshots or golden, not 'gold'" in told


def test_contain_never_frees(simulated: Tour) -> None:
    simulated.done("contain", vmward_vms="desk1")
    state = json.loads((simulated.directory / "fake1.json").read_text())
    told = simulated.failed("contain", contain_state="free", vmward_vms="desk1,desk2")
    assert "which cuts nothing off (contain_state)" in told
    assert json.loads((simulated.directory / "fake1.json").read_text()) == state


def test_a_false_alarm_can_be_foreseen(simulated: Tour) -> None:
    """In check mode the lease that it would take is taken by nobody."""
    simulated.done("contain")
    named = {"vmward_false_alarm_by": "ada", "vmward_false_alarm_reason": "a drill"}
    before = (simulated.directory / "fake1.json").read_text()
    ledger = (simulated.directory / "cases" / CASE / "ledger.jsonl").read_text()
    simulated.done("release", "--check", **named)
    assert (simulated.directory / "fake1.json").read_text() == before
    assert (simulated.directory / "cases" / CASE / "ledger.jsonl").read_text() == ledger
    simulated.done("release", **named)
    assert is_free(simulated.vm())


@pytest.mark.parametrize("named", [101, [101]])
def test_what_is_no_name_is_refused_in_a_sentence(simulated: Tour, named: object) -> None:
    told = simulated.failed("contain", vmward_vms=named)
    assert "matches no VM of the inventory. Nothing was touched." in told
    assert "`loop`" not in told
    assert is_free(simulated.vm())


def test_a_case_that_does_not_hold_the_vm_is_told_nothing_of_it(simulated: Tour) -> None:
    simulated.done("contain")
    told = simulated.failed("preserve", vmward_case="mistyped")
    assert f"Case {CASE} holds desk1, not case mistyped." in told
    assert "Write it into the ledger" not in told
    assert not list(simulated.directory.parent.rglob("mistyped*"))


def test_a_waiver_without_a_reason_is_refused_in_a_sentence(simulated: Tour) -> None:
    simulated.done("contain")
    told = simulated.failed("preserve", vmward_waive={"desk1": ["memory"]})
    assert "vmward_waive names for desk1 each class with a reason, {memory: why}" in told
    assert simulated.vm()["power"] == "running"


def test_rules_may_be_named_as_a_text(simulated: Tour) -> None:
    """As in a group's variables: vmward_rules: /etc/vmward/rules."""
    simulated.done("contain")
    simulated.done("preserve")
    told = simulated.failed("scan", vmward_rules="/nowhere/rules,/nowhere/more")
    assert "Cannot read the rule file /nowhere/rules: No such file or directory." in told


def test_a_vm_that_is_called_otherwise_in_the_inventory_is_told(simulated: Tour, tmp_path: Path) -> None:
    """As the inventory plugin lists one whose name is no host name."""
    known = {"vmward_name": "my server", "vmward_id": "42", "vmward_addresses": ["192.0.2.42"], "vmward_macs": []}
    inventory = tmp_path / "more.json"
    inventory.write_text(json.dumps({"all": {"hosts": {"4c4c4544": known}}}))
    for name in ("my server", "42", "192.0.2.42"):
        told = simulated.failed("contain", "-i", str(inventory), vmward_vms=[name])
        assert f"'{name}' matches no VM of the inventory. Nothing was touched. There it is called 4c4c4544." in told
    assert "called" not in simulated.failed("contain", "-i", str(inventory), vmward_vms=["192.0.2.43"])


def test_an_option_of_the_wrong_type_is_told_as_what_stopped_the_response(simulated: Tour) -> None:
    told = simulated.failed("respond", restore_deadline="soon")
    assert "desk1: restore failed: Validation of arguments failed" in told
