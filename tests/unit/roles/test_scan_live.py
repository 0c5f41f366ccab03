# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which VMs role scan reads as they run, and that both ways of reading are told the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles/scan"


@pytest.mark.parametrize(
    ("power", "asked", "live"),
    [
        ("running", {}, False),
        ("running", {"scan_live": True}, True),
        ("paused", {"scan_live": "true"}, True),
        ("stopped", {"scan_live": True}, False),
        ("running", {"scan_live": True, "scan_snapshot": "clean"}, False),
        ("running", {"scan_live": True, "scan_base_only": True}, False),
    ],
)
def test_only_what_is_on_and_asked_for_is_read_as_it_runs(power: str, asked: dict[str, Any], live: bool) -> None:
    given = {"__case_vm": {"after": {"power": power}}, "told": "{{ __scan_is_live | bool }}", **asked}
    command = [str(Path(sys.executable).parent / "ansible"), "localhost", "-m", "ansible.builtin.debug"]
    command += ["-a", "var=told", "-e", f"@{ROLE / 'defaults/main.yml'}", "-e", f"@{ROLE / 'vars/main.yml'}"]
    done = subprocess.run(
        [*command, "-e", json.dumps(given)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.partition("=>")[2])["told"] is live


def test_both_ways_are_told_the_same() -> None:
    images, live = (yaml.safe_load((ROLE / f"tasks/{name}.yml").read_text())[0] for name in ("images", "live"))
    own = {"hypervisors", "only", "vm", "scratch", "free_space_factor", "checkpoint"}
    of_images, of_live = images["vmward.remediation.disk_scan"], live["vmward.remediation.vm_disk_scan"]
    assert {key: of_images[key] for key in of_images if key != "disks"} == {
        key: of_live[key] for key in of_live if key not in own
    }
    assert {key: images[key] for key in ("register", "delegate_to", "become", "throttle")} == {
        key: live[key] for key in ("register", "delegate_to", "become", "throttle")
    }
