# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that are no files on the data host: each VM is judged by a copy of its own, or once it is brought back."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._fake import images
from ansible_collections.vmward.remediation.plugins.module_utils._model import Layer
from ansible_collections.vmward.remediation.tests.respond.test_choices import CASE, Tour

LATER, LAST = "2037-01-01T00:00:00Z", "2038-01-01T00:00:00Z"
ROOT_DIRECTORY = "../" * 40  # what lies under it is opened from everywhere, and looks like no file: as in a datastore


def in_a_datastore(state: dict[str, Any]) -> None:
    """Paths that its hypervisor alone understands."""
    for vm in state["vms"].values():
        for one in [vm, *(taken["definition"] for taken in vm["snapshots"])]:
            for disk in one["disks"]:
                for layer in disk["layers"]:
                    layer["path"] = ROOT_DIRECTORY + layer["path"].lstrip("/")


@pytest.fixture
def simulated(tmp_path: Path) -> Tour:
    made = Tour(tmp_path / "tour")
    path = made.directory / "fake1.json"
    state = json.loads(path.read_text())
    in_a_datastore(state)
    path.write_text(json.dumps(state))
    return made


def on_two_hypervisors_under_one_id(simulated: Tour) -> dict[str, Any]:
    """desk1, which is infected, and desk2, which is not."""
    first, second = simulated.directory / "fake1.json", simulated.directory / "fake2.json"
    state = json.loads(first.read_text())
    ids = {vm["name"]: vm_id for vm_id, vm in state["vms"].items()}
    moved = state["vms"].pop(ids["desk2"])
    first.write_text(json.dumps(state))
    second.write_text(json.dumps({"vms": {ids["desk1"]: moved}, "faults": []}))
    entries = {path.stem: {"fake": {"path": str(path), "data_host": "tour1"}} for path in (first, second)}
    return {"vmward_hypervisors": entries, "vmward_vms": "desk1,desk2"}


def verdicts(simulated: Tour) -> dict[str, str]:
    lines = (simulated.directory / "cases" / CASE / "ledger.jsonl").read_text().splitlines()
    read = [json.loads(line) for line in lines]
    scans = [one for one in read if (one["phase"], one["action"]) == ("scan", "disk")]
    return {one["target"]: one["result"]["verdict"] for one in scans}


def left_copies(simulated: Tour, case: str) -> Path:
    """A copy of desk1 that a run left which was killed."""
    state = json.loads((simulated.directory / "fake1.json").read_text())
    vm_id = next(vm_id for vm_id, vm in state["vms"].items() if vm["name"] == "desk1")
    of_vm, of_case = (sha256(text.encode()).hexdigest()[:16] for text in (json.dumps(["fake1", vm_id]), case))
    left = simulated.directory / "scratch" / f"scan-{of_vm}-{of_case}-123456789012"
    (left / "evidence").mkdir(parents=True)
    return left


def copies(simulated: Tour) -> list[Path]:
    return list((simulated.directory / "scratch").glob("scan-*"))


def test_each_of_two_vms_with_one_id_is_judged_by_its_own_disk(simulated: Tour) -> None:
    both = on_two_hypervisors_under_one_id(simulated)
    killed, others = left_copies(simulated, CASE), left_copies(simulated, "another")
    scratch = {"scan_scratch": str(simulated.directory / "scratch"), "scan_live": True}
    told = simulated.failed("watch", **both, **scratch)
    assert verdicts(simulated) == {"desk1": "infected", "desk2": "clean"}, told
    assert "desk2 is infected" not in told
    assert copies(simulated) == [others]
    assert f"Copies of the disks of desk1 lie on tour1: {others}." in told
    assert not killed.exists()


def test_two_points_are_never_tried_where_the_first_could_not_be_judged(simulated: Tour) -> None:
    path = simulated.directory / "fake1.json"
    state = json.loads(path.read_text())
    app1 = next(vm for vm in state["vms"].values() if vm["name"] == "app1")
    (clean,) = app1["snapshots"]
    top = app1["disks"][0]["layers"][0]["path"]
    images.keep(Layer(top, "qcow2"), "nightly1")
    app1["snapshots"].append({**clean, "id": "nightly1", "name": "nightly", "parent": clean["id"], "created": LATER})
    path.write_text(json.dumps(state))
    simulated.done("contain", vmward_vms="app1")
    simulated.done("preserve", vmward_vms="app1")
    lacking = {"scan_scratch": str(simulated.directory / "scratch"), "scan_engines_required": ["yara", "clamd"]}
    told = simulated.failed("restore", vmward_vms="app1", vmward_incident_time=LAST, **lacking)
    (choice,) = simulated.entries("restore", "clean_point")
    assert [(one["name"], one["verdict"]) for one in choice["considered"]] == [("nightly", "incomplete")]
    assert (choice["chosen"], choice["verdict"]) == ("", "incomplete")
    assert "nightly could not be judged" in told
