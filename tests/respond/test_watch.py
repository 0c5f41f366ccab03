# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scans on a schedule, of VMs in service: what is infected fails the run, and nothing is touched."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.vmward.remediation.tests.respond.test_choices import Tour


def with_read_only_disk(simulated: Tour) -> None:
    path = simulated.directory / "fake1.json"
    state = json.loads(path.read_text())
    vm = next(vm for vm in state["vms"].values() if vm["name"] == "desk1")
    vm["disks"].append({**vm["disks"][0], "id": "sda", "read_only": True})
    path.write_text(json.dumps(state))


def test_what_is_infected_fails_the_run_and_stays_as_it_is(tmp_path: Path) -> None:
    simulated = Tour(tmp_path / "tour")
    with_read_only_disk(simulated)
    before = [simulated.vm(name) for name in ("desk1", "app1")]
    told = simulated.failed("watch", vmward_vms="desk1,app1", scan_live=False)
    assert "desk1 is infected (" in told
    assert "It was not cut off" in told
    assert "app1 is " not in told
    assert [simulated.vm(name) for name in ("desk1", "app1")] == before
    (infected,) = [one for one in simulated.entries("scan", "disk") if one["verdict"] == "infected"]
    assert [(one["name"], one["why"][:9]) for one in infected["not_scanned"]] == [("sda", "read-only")]
    simulated.done("watch", vmward_vms="app1", scan_live=False)
