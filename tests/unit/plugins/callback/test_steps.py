# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import re
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


def command(place: Path, *tasks: dict[str, Any], hosts: str = "localhost") -> list[str]:
    """How a responder runs these tasks. The host gone1 cannot be reached."""
    play, inventory = place / "play.yml", place / "hosts.json"
    play.write_text(json.dumps([{"hosts": hosts, "gather_facts": False, "tasks": tasks}]))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    known = dict.fromkeys(["localhost", *hosts.split(",")], local)
    inventory.write_text(json.dumps({"all": {"hosts": {**known, "gone1": gone}}}))
    return [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), str(play)]


def played(place: Path, *tasks: dict[str, Any], hosts: str = "localhost") -> subprocess.CompletedProcess[str]:
    """What a responder sees of them."""
    return subprocess.run(command(place, *tasks, hosts=hosts), cwd=ROOT, capture_output=True, text=True, check=False)


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


def test_a_host_that_fails_for_another_is_named(tmp_path: Path) -> None:
    asked = {"delegate_to": "{{ item }}", "loop": ["gone1", "localhost"], "ansible.builtin.command": "true"}
    wrong = {"ansible.builtin.command": "false", "loop": ["one", "two"], "name": "Try", "ignore_errors": True}
    done = played(tmp_path, wrong, {"name": "Ask", "run_once": True, **asked}, hosts="desk1,desk2")
    lines = [re.sub(r" \.\.+ ", " ", line[10:]) for line in done.stdout.splitlines()]
    assert any(line.startswith("2 hosts -> gone1 Ask UNREACHABLE") for line in lines), done.stdout
    assert any(line.startswith("desk1     Try (one) FAILED") for line in lines), done.stdout
    assert not any(line.startswith("desk1     Ask UNREACHABLE") for line in lines)


def test_the_last_line_blames_nobody_for_what_was_for_all(tmp_path: Path) -> None:
    report = {"name": "Report", "ansible.builtin.fail": {"msg": "desk2 falls short"}, "run_once": True}
    done = played(tmp_path, report, hosts="desk1,desk2")
    assert done.stdout.rstrip().endswith("Not everything was done: see what FAILED or is MISSING above")
    own = {"name": "Own", "ansible.builtin.fail": {"msg": "no"}, "when": "inventory_hostname == 'desk2'"}
    assert played(tmp_path, own, hosts="desk1,desk2").stdout.rstrip().endswith("Not everything was done for: desk2")


def test_a_long_step_says_that_it_still_runs(tmp_path: Path) -> None:
    slow = {"name": "Wait", "ansible.builtin.command": "sleep {{ 7 if inventory_hostname == 'desk2' else 0 }}"}
    silent = {"name": "Think", "ansible.builtin.assert": {"that": "lookup('ansible.builtin.pipe', 'sleep 6') == ''"}}
    batch = {"name": "All", "ansible.builtin.command": "sleep 7", "run_once": True}
    done = played(tmp_path, slow, {**silent, "when": "inventory_hostname == 'desk1'"}, batch, hosts="desk1,desk2")
    assert done.returncode == 0, done.stdout
    still = [re.sub(r"\d+ s$", "", line).strip() for line in done.stdout.splitlines() if "still at it" in line]
    assert list(dict.fromkeys(still)) == ["desk2     Wait: still at it,", "2 hosts   All: still at it,"]


def test_a_long_step_is_told_while_it_runs_wherever_the_lines_go(tmp_path: Path) -> None:
    until = f"for i in $(seq 600); do [ -e {tmp_path}/seen ] && exit; sleep 0.1; done; exit 1"
    watched = {"name": "Wait", "ansible.builtin.command": {"argv": ["sh", "-c", until]}}
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    argv = command(tmp_path, watched)
    with subprocess.Popen(argv, cwd=ROOT, env=buffered, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if "still at it" in line:
                (tmp_path / "seen").touch()
    assert running.returncode == 0, "the line came only when the step was over"


def test_a_command_that_failed_says_it_in_its_own_words(tmp_path: Path) -> None:
    done = played(tmp_path, {"ansible.builtin.command": "ls /nowhere", "name": "Look"})
    assert "non-zero return code: ls: cannot access '/nowhere'" in done.stdout
    done = played(tmp_path, {"ansible.builtin.command": {"argv": ["no-such-program", "-v"]}, "name": "Look"})
    assert "Error executing command: no-such-program -v" in done.stdout


def test_steps_that_tell_their_progress_themselves_are_known_by_their_class() -> None:
    script = (
        f"from ansible.plugins.loader import init_plugin_loader; init_plugin_loader([r'{ROOT}/build/collections']); "
        "from ansible_collections.vmward.remediation.plugins.callback.steps import tells_progress as told; "
        "print(told('vmward.remediation.disk_scan'), told('vmward.remediation.outcome'), told('ansible.builtin.ping'))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "False", "False"], done.stderr


def test_a_run_in_which_no_step_ran_does_not_look_like_success(tmp_path: Path) -> None:
    a_step = {"ansible.builtin.command": "true", "name": "A step"}
    (tmp_path / "one").mkdir()
    limited = [*command(tmp_path / "one", a_step), "--tags", "mistyped"]
    nothing = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert "Nothing was done: no step ran." in nothing
    assert "--limit, --tags and --start-at-task" in nothing
    assert "Nothing was done" not in played(tmp_path, a_step).stdout


def test_a_batch_is_not_ok_while_one_of_its_vms_failed(tmp_path: Path) -> None:
    (tmp_path / "hv.json").write_text('{"vms": {}, "faults": []}')
    task = {"hypervisors": {"hv1": {"fake": {"path": str(tmp_path / "hv.json")}}}, "vms": ["a", "b"]}
    cut = {"name": "Cut", "vmward.remediation.vm_isolation": {**task, "state": "sealed", "report_only": True}}
    assert re.search(r"Cut \.+ 2 of 2 FAILED", played(tmp_path, cut).stdout)
    mistyped = {**cut, "vmward.remediation.vm_isolation": {**task, "state": "seal", "report_only": True}}
    assert re.search(r"Cut \.+ FAILED", played(tmp_path, {**mistyped, "failed_when": False}).stdout)


def test_a_filter_that_refuses_says_it_in_its_own_words(tmp_path: Path) -> None:
    chosen = "{{ [] | vmward.remediation.restore_points(before='yesterday') }}"
    done = played(tmp_path, {"ansible.builtin.set_fact": {"chosen": chosen}, "name": "Choose"})
    assert "'yesterday' is not a time. Write vmward_incident_time in UTC, as in" in done.stdout
    for wrapping in ("Task failed", "Finalization", "filter plugin", "isoformat"):
        assert wrapping not in done.stdout
