# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[4]


def ledger(store: Path, **options: Any) -> dict[str, Any]:
    entry = {"phase": "contain", "action": "isolate", "target": "desk1", "result": {"msg": "sealed"}}
    told = {"operation": "append", "store": str(store), "case": "2026-1", "entries": [entry]}
    return {"name": "Note the cut", "vmward.remediation.case_ledger": {**told, **options}}


def played(place: Path, *tasks: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """What a responder sees of these tasks."""
    play = place / "play.yml"
    play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-e", json.dumps(local)]
    return subprocess.run([*command, str(play)], cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_the_ledger_takes_in_is_told_by_the_step_itself(tmp_path: Path) -> None:
    done = played(tmp_path, ledger(tmp_path, operation="open"), {"ansible.builtin.command": "true", "name": "A step"})
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "2026-1/ledger.jsonl").exists()
    assert "A step" in done.stdout
    assert "Note the cut" not in done.stdout


@pytest.mark.parametrize("looped", [False, True])
def test_what_the_ledger_could_not_take_is_told(tmp_path: Path, looped: bool) -> None:
    (tmp_path / "file").touch()
    task = ledger(tmp_path / "file", operation="open", spool=True, spool_directory=str(tmp_path / "spool"))
    done = played(tmp_path, {**task, "loop": ["once"]} if looped else task)
    assert done.returncode == 0, done.stdout
    assert "Note the cut" in done.stdout
    assert "The ledger did not take 2 entries" in done.stdout + done.stderr
