# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""report, status and notify as a user runs them, on cases of this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._case.operations import run
from ansible_collections.vmward.remediation.plugins.module_utils._case.signature import sign
from ansible_collections.vmward.remediation.plugins.module_utils._case.verify import head_message
from ansible_collections.vmward.remediation.tests.unit.plugins.module_utils._report.cases import (
    HOSTILE,
    contained,
    preserved,
    remediated,
)
from ansible_collections.vmward.remediation.tests.unit.plugins.module_utils._report.servers import Mail, Web, served

ROOT = Path(__file__).resolve().parents[2]
VERIFIER = ROOT / "plugins/module_utils/_case/verify.py"
SECRET = "s3cret-token"


class Lab:
    """A store with one case, a signing key, and a controller that runs playbooks on it."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.case = directory, directory / "cases" / "2026-0142"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / "key")], check=True)
        self.signers = directory / "signers"
        self.signers.write_text(f"ada {(directory / 'key.pub').read_text()}")
        self.variables: dict[str, Any] = {
            "vmward_case": "2026-0142",
            "vmward_case_store": str(directory / "cases"),
            "vmward_evidence_host": "localhost",
            "vmward_signing_key": str(directory / "key"),
            "vmward_allowed_signers": str(self.signers),
        }

    def play(self, name: str, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        extra = self.directory / "extra.json"
        extra.write_text(json.dumps({**self.variables, **variables}))
        command = [f"{sys.prefix}/bin/ansible-playbook", "-i", str(self.inventory()), name, "-e", f"@{extra}", *options]
        environment = {
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "HOME": str(self.directory),
        }
        return subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=300
        )

    def inventory(self) -> Path:
        hosts = {"localhost": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
        path = self.directory / "inventory.json"
        path.write_text(json.dumps({"all": {"hosts": {**hosts, "desk1": {}}}}))
        return path

    def record(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            for artefact in entry["artefacts"]:
                path = self.case / artefact["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"evidence")
                artefact.update(size=8, sha256=hashlib.sha256(b"evidence").hexdigest())
        case = {"operation": "append", "store": str(self.case.parent), "case": "2026-0142", "actor": "ada@ir1"}
        head = run({**case, "operation": "open", "entries": entries}, check=False)["head"]
        signature = sign(str(self.directory / "key"), head_message("2026-0142", head["seq"], head["hash"]))
        over = {"over_seq": head["seq"], "over": head["hash"], "signature": signature, "principal": "ada"}
        run({**case, "entries": [{"phase": "case", "action": "signature", "result": over}]}, check=False)

    def ledger(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.case / "ledger.jsonl").read_text().splitlines()]

    def verify(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(VERIFIER), str(self.case), "--allowed-signers", str(self.signers)]
        return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def changed(done: subprocess.CompletedProcess[str]) -> bool:
    return "changed=0" not in done.stdout


def test_report_is_written_once_recorded_and_verifies(lab: Lab) -> None:
    lab.record([*contained(), *preserved(), *remediated()])
    predicted = lab.play("vmward.remediation.report", "--check")
    assert predicted.returncode == 0, predicted.stdout + predicted.stderr
    assert changed(predicted)
    assert not list((lab.case / "report").iterdir())
    first = lab.play("vmward.remediation.report")
    assert first.returncode == 0, first.stdout + first.stderr
    assert changed(first)
    again = lab.play("vmward.remediation.report")
    assert (again.returncode, changed(again)) == (0, False), again.stdout
    files = sorted((lab.case / "report").iterdir())
    assert [path.suffix for path in files] == [".html", ".json"]
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600, 0o600]
    recorded = {
        a["path"]: a["sha256"] for entry in lab.ledger() for a in entry["artefacts"] if entry["phase"] == "report"
    }
    (write,) = (entry for entry in lab.ledger() if (entry["phase"], entry["action"]) == ("report", "write"))
    assert float(write["result"]["seconds"]) > 0
    assert recorded == {f"report/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    verified = lab.verify()
    assert verified.returncode == 0, verified.stdout


def test_tampered_evidence_ends_the_run_and_is_in_the_report(lab: Lab) -> None:
    lab.record([*contained(), *preserved(), *remediated()])
    (lab.case / "evidence/data/desk1/memory.elf").write_bytes(b"evidencE")
    done = lab.play("vmward.remediation.report")
    assert done.returncode != 0
    assert "NOT verified (artefacts)" in done.stdout
    (page,) = (lab.case / "report").glob("*.html")
    assert "could not be verified" in page.read_text()


def test_shortfall_ends_the_run_but_the_report_is_there(lab: Lab) -> None:
    lab.record(contained(proof="readback"))
    done = lab.play("vmward.remediation.report", vmward_vms="desk1")
    assert done.returncode != 0
    assert "MISSING    desk1: the proof of the cut is readback, required is witnessed" in done.stdout
    assert list((lab.case / "report").glob("*.html"))
    enough = lab.play("vmward.remediation.report", vmward_vms="desk1", vmward_proof_required="readback")
    assert enough.returncode == 0, enough.stdout


def test_hostile_names_pass_through_everything(lab: Lab) -> None:
    lab.record(contained(HOSTILE))
    done = lab.play("vmward.remediation.report")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    assert "{{ lookup('env','HOME') }" in done.stdout
    (page,) = (lab.case / "report").glob("*.html")
    assert "<script>" not in page.read_text()


def test_status_changes_nothing_and_says_when_there_is_no_case(lab: Lab) -> None:
    lab.record(contained(proof="readback"))
    before = lab.ledger()
    done = lab.play("vmward.remediation.status")
    assert (done.returncode, changed(done)) == (0, False), done.stdout
    assert "desk1   SEALED since" in done.stdout
    assert lab.ledger() == before
    missing = lab.play("vmward.remediation.status", vmward_case="2026-9999")
    assert "CANNOT BE READ" in missing.stdout
    unknown = lab.play("vmward.remediation.status", vmward_case="", vmward_vms="")
    assert unknown.returncode != 0
    assert "No case is known" in unknown.stdout


def settings(mail: Any, web: Any) -> dict[str, Any]:
    return {
        "contacts": [
            {"role": "administrator", "email": "ada@example.net"},
            {
                "role": "security",
                "webhook": f"http://127.0.0.1:{web.port}/{SECRET}",
                "webhook_headers": {"X-Key": SECRET},
            },
        ],
        "smtp": {
            "host": "127.0.0.1",
            "port": mail.port,
            "security": "none",
            "sender": "vmward@example.net",
            "username": "ir",
            "password": SECRET,
        },
    }


def told(lab: Lab) -> list[tuple[str, str]]:
    return [(one["action"], one["result"]["state"]) for one in lab.ledger() if one["phase"] == "notify"]


def test_administrators_are_told_once_and_no_secret_leaks(lab: Lab) -> None:
    lab.record(contained())
    anchor = f"{len(lab.ledger())}:"
    with served(Mail) as mail, served(Web) as web:
        first = lab.play("vmward.remediation.notify", "-vvvv", vmward_notify=settings(mail, web))
        assert first.returncode == 0, first.stdout + first.stderr
        again = lab.play("vmward.remediation.notify", vmward_notify=settings(mail, web))
        assert (again.returncode, changed(again)) == (0, False), again.stdout
        assert (len(mail.letters), len(web.posts)) == (1, 1)
        assert f"Ledger anchor, keep this mail for it: {anchor}" in mail.letters[0]
    assert told(lab) == [("mail", "done"), ("webhook", "done"), ("end", "done")]
    assert SECRET not in (lab.case / "ledger.jsonl").read_text()
    assert SECRET not in first.stdout + first.stderr


def test_dead_servers_stop_nothing_and_are_recorded(lab: Lab) -> None:
    lab.record(contained())
    with served(Mail, "hangs") as mail, served(Web, "fails") as web:
        playbook = lab.directory / "go_on.yml"
        role = {"ansible.builtin.include_role": {"name": "vmward.remediation.notify"}, "name": "Notify"}
        after = {"ansible.builtin.debug": {"msg": "the response went on"}, "name": "Go on"}
        playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [role, after]}]))
        done = lab.play(str(playbook), vmward_notify=settings(mail, web), notify_deadline=1)
    assert done.returncode == 0, done.stdout
    assert "the response went on" in done.stdout
    assert told(lab) == [("mail", "failed"), ("webhook", "failed"), ("end", "failed")]
    summary = lab.play("vmward.remediation.report")
    assert summary.returncode != 0
    assert "notify failed: 0 of 2 messages were delivered" in summary.stdout


def test_wrong_settings_and_none_at_all_are_recorded(lab: Lab) -> None:
    lab.record(contained())
    wrong = lab.play("vmward.remediation.notify", vmward_notify={"contacts": [{"role": "administrator"}]})
    assert wrong.returncode != 0
    assert told(lab) == [("end", "failed")]
    nobody = lab.play("vmward.remediation.notify", notify_required=False)
    assert nobody.returncode == 0, nobody.stdout
    assert told(lab)[1:] == [("end", "not_done")]
    again = lab.play("vmward.remediation.notify", notify_required=False)
    assert (again.returncode, changed(again)) == (0, False)


def test_without_a_reachable_store_the_mail_still_goes_out(lab: Lab) -> None:
    with served(Mail) as mail, served(Web) as web:
        done = lab.play(
            "vmward.remediation.notify",
            vmward_notify=settings(mail, web),
            vmward_vms="desk1",
            vmward_case_store=str(lab.directory / "no" / "such"),
        )
        assert "No ledger anchor" in mail.letters[0]
        assert "desk1: NOT KNOWN to be cut off" in mail.letters[0]
    assert done.returncode == 0, done.stdout
    assert "they wait in" in done.stdout + done.stderr
