# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vm_disk_restore as Ansible runs it: predicted, done, done twice; killed in the middle, and run again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.tests.conformance.benches import Bench, FakeBench, LibvirtBench
from ansible_collections.vmward.remediation.tests.conformance.test_disk_restore import Stage, call, digest
from ansible_collections.vmward.remediation.tests.conformance.world import World, required
from ansible_collections.vmward.remediation.tests.integration.test_modules_control import play

COLLECTIONS = Path(__file__).resolve().parents[2] / "build" / "collections"
CODE = """
import json, sys
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.loads(sys.argv[1])):
    from ansible_collections.vmward.remediation.plugins.modules import vm_disk_restore
    vm_disk_restore.main()
"""
STUCK = """#!/bin/sh
[ "$1" = convert ] || exec {real} "$@"
for target in "$@"; do :; done
printf half > "$target"
echo $$ > {pid}
exec sleep 1000
"""


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.real)])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    if request.param == "fake":
        yield Stage(FakeBench(tmp_path), tmp_path)
        return
    required()
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world")
    made = LibvirtBench(world, tmp_path)
    yield Stage(made, tmp_path)
    made.hypervisor.close()
    world.stop()


def on_data_host(bench: Bench) -> dict[str, Any]:
    """The hypervisor's entry, for a task that runs where its disks are."""
    told: dict[str, Any] = json.loads(json.dumps(bench.entry))
    if "libvirt" in told:
        told["libvirt"]["data_uri"] = told["libvirt"]["uri"]
    return told


def options(stage: Stage, **more: Any) -> dict[str, Any]:
    image = {"disk": "vda", "image": str(stage.backup), "format": "qcow2", "sha256": digest(stage.backup)}
    asked = {"hypervisors": {"hv1": on_data_host(stage.bench)}, "vm": "desk1", "disks": [image], "discard": True}
    return {**asked, "scratch": str(stage.directory / "scratch"), **more}


def test_predicted_done_and_done_twice(stage: Stage, tmp_path: Path) -> None:
    former = stage.top
    asked = {"vmward.remediation.vm_disk_restore": options(stage)}
    wrong = options(stage)
    wrong["disks"][0]["sha256"] = "0" * 64
    refused, predicted, done, again = play(
        tmp_path,
        [
            {"vmward.remediation.vm_disk_restore": wrong},
            {**asked, "check_mode": True, "diff": True},
            {**asked, "diff": True},
            asked,
        ],
    )
    assert refused["failed"]
    assert "recorded is 0000" in refused["msg"]
    assert not refused["changed"]
    assert predicted["changed"] is done["changed"] is True
    assert predicted["diff"] == done["diff"]
    assert [one["msg"] for one in (predicted, done, again)] == [
        "vda of desk1 would get the content of the backup; it is off.",
        "vda of desk1 has the content of the backup; it is off.",
        "vda of desk1 has the content of the backup already; it is off.",
    ]
    assert again["changed"] is False
    (image,) = done["images"]
    assert (image["former"][0], image["now"], image["sha256"]) == (former, stage.top, digest(stage.backup))
    call("qemu-img", "compare", stage.backup, stage.top)


def test_a_killed_run_leaves_the_vm_as_it_was_and_the_next_one_clears_up(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    pid, stuck = tmp_path / "pid", tmp_path / "bin" / "qemu-img"
    real = subprocess.run(["sh", "-c", "command -v qemu-img"], capture_output=True, text=True, check=True).stdout
    stuck.write_text(STUCK.format(real=real.strip(), pid=pid))
    stuck.chmod(0o755)
    before, files = stage.vm, stage.files()
    run = subprocess.Popen(
        [sys.executable, "-c", CODE, json.dumps(options(stage))],
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS), "PATH": f"{stuck.parent}{os.pathsep}{os.environ['PATH']}"},
    )
    end = time.monotonic() + 60
    while not (pid.exists() and pid.read_text().strip()):
        assert run.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    run.kill()
    run.wait()
    while Path(f"/proc/{pid.read_text().strip()}/cmdline").exists():
        assert time.monotonic() < end, "the program that copies outlives its run"
        time.sleep(0.05)
    assert stage.vm == before
    (half,) = set(stage.files()) - set(files)
    assert Path(half).read_bytes() == b"half"
    (done,) = play(tmp_path, [{"vmward.remediation.vm_disk_restore": options(stage)}])
    assert done["changed"], json.dumps(done)
    assert set(stage.files()) - set(files) == {stage.top}
    call("qemu-img", "compare", stage.backup, stage.top)
