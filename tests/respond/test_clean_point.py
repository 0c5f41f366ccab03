# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which point is clean, since when it is infected, what is lost: asked without restoring, on the simulation."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._fake import images
from ansible_collections.vmward.remediation.plugins.module_utils._model import Layer
from ansible_collections.vmward.remediation.tests.respond.test_choices import CASE, Tour, is_free


@pytest.fixture
def simulated(tmp_path: Path) -> Tour:
    return Tour(tmp_path / "tour")


def answer(simulated: Tour, phase: str = "scan") -> dict[str, Any]:
    return simulated.entries(phase, "clean_point")[-1]


def backup(simulated: Tour, time: str) -> dict[str, Any]:
    """A whole copy of the golden image."""
    copy = simulated.directory / "backup.raw"
    golden = simulated.directory / "golden.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "raw", golden, copy], check=True)
    return {"name": "nightly", "time": time, "disks": [{"disk": "vda", "path": str(copy), "format": "raw"}]}


def test_the_question_is_answered_and_changes_nothing(simulated: Tour) -> None:
    simulated.done("contain")
    before = simulated.vm()
    told = " ".join(simulated.done("clean_point", clean_point_all=True, vmward_incident_time="").split())
    assert simulated.vm() == before
    assert " is clean; infected since " in told
    assert " written since; scanned: present state: infected, clean-baseline: clean. Nothing was changed." in told
    found = answer(simulated)
    assert (found["chosen"], found["infected"], found["verdict"]) == ("clean-baseline", ["present state"], "clean")
    assert found["infected_since"] == found["considered"][0]["created"]
    assert found["lost"]["seconds"] >= 0
    screen = " ".join(simulated.play("status").stdout.split())
    assert "infected since" in screen
    assert "NOT DONE scan not run - clean_point clean-baseline of" in screen
    simulated.done("preserve", vmward_actor="bob")  # nobody has to wait for a question to be over
    kept = simulated.done("clean_point", clean_point_all=True, clean_point_exports=True)
    exports = [one for one in answer(simulated)["considered"] if one["kind"] == "backup"]
    assert [(one["name"][:13], one["verdict"]) for one in exports] == [("export desk1-", "infected")], kept
    assert answer(simulated)["infected_since"] == exports[0]["created"]


def test_an_export_that_lacks_a_disk_is_told_and_hides_no_point(simulated: Tour) -> None:
    simulated.done("contain")
    simulated.done("preserve")
    path = simulated.directory / "fake1.json"
    state = json.loads(path.read_text())
    desk1 = next(vm for vm in state["vms"].values() if vm["name"] == "desk1")
    vda = desk1["disks"][0]
    top = simulated.directory / "second.qcow2"
    layers = images.create_overlay(str(top), Layer(vda["layers"][-1]["path"], "qcow2"))
    for one in desk1["snapshots"]:
        images.keep(layers[0], one["id"])
    desk1["disks"].append({**vda, "id": "vdb", "layers": [{**vda["layers"][0], "path": str(top)}, vda["layers"][-1]]})
    path.write_text(json.dumps(state))
    told = " ".join(simulated.done("clean_point", clean_point_exports=True).split())
    assert "clean-baseline of" in told
    assert "is no point: it has the disks vda, the VM has vda, vdb" in told
    (left,) = answer(simulated)["not_scanned"]
    assert (left["name"][:13], left["why"]) == ("export desk1-", "it has the disks vda, the VM has vda, vdb")


def test_nothing_is_asked_for_without_a_time(simulated: Tour) -> None:
    simulated.done("contain")
    assert "When did the incident begin?" in simulated.failed("clean_point", vmward_incident_time="")
    elsewhere = simulated.failed("clean_point", clean_point_exports=True, vmward_evidence_host="localhost")
    assert "The exported disks of desk1 lie on localhost, and its points are read on tour1." in elsewhere


def recorded(backup: dict[str, Any]) -> dict[str, Any]:
    """The backup, with the hash that was recorded when it was made."""
    disks = [{**one, "sha256": hashlib.sha256(Path(one["path"]).read_bytes()).hexdigest()} for one in backup["disks"]]
    return {**backup, "disks": disks}


def same(first: Path | str, second: Path | str, *formats: str) -> bool:
    compared = subprocess.run(["qemu-img", "compare", *formats, first, second], capture_output=True, check=False)
    return compared.returncode == 0


def test_a_backup_is_brought_back_scanned_and_recorded(simulated: Tour) -> None:
    simulated.done("contain")
    simulated.done("preserve")
    (former,) = simulated.vm()["disks"]
    (snapshot,) = simulated.vm()["snapshots"]
    held = Path(former["layers"][0]["path"]).read_bytes()
    copy = recorded(backup(simulated, "2037-01-01T00:00:00Z"))
    newest = {"clean_point_backups": [copy], "vmward_incident_time": "2038-01-01T00:00:00Z"}
    refused = simulated.failed("restore", **newest)
    assert "its snapshots (clean-baseline) lie in the images that it has now" in refused
    assert "Nothing was touched." in refused
    assert simulated.entries("restore", "begin") == []
    assert simulated.vm()["snapshots"] == [snapshot]
    simulated.done("restore", vmward_forget_snapshots=True, **newest)
    (now,) = simulated.vm()["disks"]
    (layer,) = now["layers"]
    image = copy["disks"][0]
    assert same(layer["path"], image["path"], "-f", "qcow2", "-F", "raw")
    assert not same(layer["path"], former["layers"][0]["path"], "-f", "qcow2", "-F", "qcow2")
    assert Path(former["layers"][0]["path"]).read_bytes() == held
    assert recorded(copy) == copy
    assert (simulated.vm()["power"], is_free(simulated.vm())) == ("stopped", False)
    (begun,), (done,) = simulated.entries("restore", "begin"), simulated.entries("restore", "revert")
    assert begun["msg"] == "goes back to the backup nightly of 2037-01-01T00:00:00Z"
    assert done["msg"] == "brought back the backup nightly of 2037-01-01T00:00:00Z; off and isolated"
    (kept,) = done["images"]
    assert (kept["sha256"], kept["image"], kept["now"]) == (image["sha256"], image["path"], layer["path"])
    assert (kept["former"][0], done["forgotten"]) == (former["layers"][0]["path"], ["clean-baseline"])
    ledger = simulated.directory / "cases" / CASE / "ledger.jsonl"
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    (told_before,) = [e["inputs"] for e in entries if (e["phase"], e["action"]) == ("restore", "begin")]
    assert (told_before["former"][0]["layers"], told_before["snapshots"]) == (former["layers"], ["clean-baseline"])
    assert told_before["point"]["images"][0]["sha256"] == image["sha256"]
    found = answer(simulated, "restore")
    assert (found["kind"], found["chosen"], found["state"]) == ("backup", "nightly", "done")
    assert found["lost"]["seconds"] == -1, "its clock is ahead of ours"
    (ended,) = simulated.entries("restore", "end")[-1:]
    assert (ended["state"], ended["msg"][:42]) == ("done", "the backup nightly of 2037-01-01T00:00:00Z")
    simulated.done("release", **newest)
    assert (simulated.vm()["power"], is_free(simulated.vm())) == ("running", True)


def test_a_backup_that_was_altered_or_cannot_be_brought_back_is_refused(simulated: Tour) -> None:
    simulated.done("contain")
    simulated.done("preserve")
    copy = recorded(backup(simulated, "2037-01-01T00:00:00Z"))
    copy["disks"][0]["sha256"] = "0" * 64
    newest = {"clean_point_backups": [copy], "vmward_forget_snapshots": True, "vmward_snapshot": "nightly"}
    before = simulated.vm()
    told = simulated.failed("restore", **newest)
    assert "recorded is 0000000" in told
    path = simulated.directory / "fake1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lacks": ["DISK_RESTORE"]}))
    told = simulated.failed("restore", **newest)
    assert "Cannot bring the disks of desk1 back: fake1 cannot do it. NOT DONE, and nothing was touched." in told
    assert simulated.entries("restore", "begin") == []
    assert [one["state"] for one in simulated.entries("restore", "end")] == ["failed", "failed"]
    assert simulated.vm() == before


def test_no_time_and_no_name_is_no_leave_to_take_any_snapshot(simulated: Tour) -> None:
    simulated.done("contain")
    simulated.done("preserve")
    told = simulated.failed("restore", vmward_incident_time="", clean_point_all=True)
    assert "When did the incident begin? Nothing was reverted." in told
    assert simulated.entries("restore", "begin") == []


def test_what_is_no_candidate_makes_no_verdict(simulated: Tour) -> None:
    path = simulated.directory / "fake1.json"
    state = json.loads(path.read_text())
    desk1 = next(vm for vm in state["vms"].values() if vm["name"] == "desk1")
    (clean,) = desk1["snapshots"]
    images.keep(Layer(desk1["disks"][0]["layers"][0]["path"], "qcow2"), "evening1")
    desk1["snapshots"].append({**clean, "id": "evening1", "name": "evening", "created": "2037-01-01T00:00:00Z"})
    path.write_text(json.dumps(state))
    simulated.done("contain")
    simulated.failed("clean_point", vmward_snapshot="evening", clean_point_all=True)
    told = answer(simulated)
    assert ("clean-baseline", "clean") in [(one["name"], one["verdict"]) for one in told["considered"]]
    assert (told["state"], told["chosen"], told["verdict"]) == ("failed", "", "infected")
