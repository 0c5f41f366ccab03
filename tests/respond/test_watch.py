# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scans on a schedule, of VMs in service: what is infected fails the run, and nothing is touched."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.vmward.remediation.tests.respond.test_choices import Tour


def test_what_is_infected_fails_the_run_and_stays_as_it_is(tmp_path: Path) -> None:
    simulated = Tour(tmp_path / "tour")
    before = [simulated.vm(name) for name in ("desk1", "app1")]
    told = simulated.failed("watch", vmward_vms="desk1,app1", scan_live=False)
    assert "desk1 is infected (" in told
    assert "It was not cut off" in told
    assert "app1 is " not in told
    assert [simulated.vm(name) for name in ("desk1", "app1")] == before
    assert [one["verdict"] for one in simulated.entries("scan", "disk")].count("infected") == 1
    simulated.done("watch", vmward_vms="app1", scan_live=False)
