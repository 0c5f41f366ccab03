# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real module and action through ansible-playbook on this host."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERIFIER = ROOT / "plugins" / "module_utils" / "_case" / "verify.py"

Play = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    signer = f'ir-lead namespaces="vmward-ledger" {(tmp_path / "key.pub").read_text()}'
    (tmp_path / "signers").write_text(signer, encoding="utf-8")
    return path


@pytest.fixture
def play(tmp_path: Path, key: Path) -> Play:
    """Run case_ledger tasks in one play, and return what each registered."""
    defaults = {
        "store": str(tmp_path / "store"),
        "case": "2026-0142",
        "spool_directory": str(tmp_path / "spool"),
        "signing_key": str(key),
        "allowed_signers": str(tmp_path / "signers"),
    }

    def ask(
        *tasks: dict[str, Any], arguments: tuple[str, ...] = (), host: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = []
        for number, task in enumerate(tasks):
            step = {
                "vmward.remediation.case_ledger": {**defaults, **task},
                "register": f"r{number}",
                "failed_when": False,
            }
            steps.append({"name": "Ask", "ignore_unreachable": True, **step})
        names = ", ".join(f"r{number}" for number in range(len(tasks)))
        copy = {"content": f"{{{{ [{names}] | to_json }}}}", "dest": str(tmp_path / "results.json"), "mode": "0600"}
        show = {"ansible.builtin.copy": copy, "delegate_to": "here", "check_mode": False, "diff": False}
        steps.append({"name": "Show", **show})
        (tmp_path / "play.json").write_text(json.dumps([{"hosts": "store", "gather_facts": False, "tasks": steps}]))
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        hosts = {"store": {**local, **(host or {})}, "here": local}
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build" / "collections"),
            "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
        }
        (tmp_path / "ansible.cfg").write_text("[defaults]\n[ssh_connection]\nretries = 0\n")
        program = Path(sys.executable).parent / "ansible-playbook"
        command = [str(program), "-i", str(tmp_path / "hosts.json"), *arguments, str(tmp_path / "play.json")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        ask.output = done.stdout + done.stderr  # type: ignore[attr-defined]
        results: list[dict[str, Any]] = json.loads((tmp_path / "results.json").read_text())
        return results

    return ask


def isolate(target: str = "desk1") -> dict[str, Any]:
    return {"phase": "contain", "action": "isolate", "target": target, "key": f"isolate:{target}"}


OPEN = {"operation": "open", "metadata": {"title": "Alert"}}
APPEND = {"operation": "append", "entries": [isolate()]}


def append_file(store: Path) -> dict[str, Any]:
    (store / "2026-0142" / "evidence" / "data" / "memory.elf").write_bytes(b"hello")
    sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    artefact = {"path": "evidence/data/memory.elf", "size": 5, "sha256": sha256}
    result = {"class": "memory", "state": "stored"}
    entry = {"phase": "preserve", "action": "evidence", "target": "desk1", "key": "m", "result": result}
    return {"operation": "append", "signed": True, "certificate": True, "entries": [{**entry, "artefacts": [artefact]}]}


def test_a_case_from_open_to_seal_verifies_without_us(play: Play, tmp_path: Path) -> None:
    store = tmp_path / "store"
    opened, again = play(OPEN, OPEN)
    assert (opened["changed"], opened["created"], again["changed"]) == (True, True, False)
    assert opened["unsigned_reason"] == "a signature was not asked for"
    task = append_file(store)
    signed, repeated, sealed = play(task, task, {"operation": "seal"})
    assert (signed["signed"], signed["changed"]) == (True, True)
    assert (repeated["signed"], repeated["changed"]) == (True, False)
    assert (sealed["sealed"], sealed["signed"]) == (True, True)
    signers = str(tmp_path / "signers")
    command = [sys.executable, str(VERIFIER), str(store / "2026-0142"), "--allowed-signers", signers]
    done = subprocess.run([*command, "--expect-head", sealed["anchor"]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("ok  ")) == (0, 5), done.stdout
    page = store / "2026-0142" / signed["certificates"][0]
    check = ["ssh-keygen", "-Y", "verify", "-n", "vmward-ledger", "-f", signers, "-I", "ir-lead", "-s", f"{page}.sig"]
    assert subprocess.run(check, input=page.read_bytes(), capture_output=True, check=False).returncode == 0
    assert not list(store.rglob("key*"))
    verified, read = play({"operation": "verify", "expect_head": sealed["anchor"]}, {"operation": "read"})
    assert (verified["verified"], verified["anchored"]) == (True, True)
    assert read["gate"]["desk1"]["missing"] == ["connections", "disks", "logs"]


def test_check_mode_predicts_changed_and_diff(play: Play, tmp_path: Path) -> None:
    def compare(*tasks: dict[str, Any]) -> list[dict[str, Any]]:
        predicted = play(*tasks, arguments=("--check", "--diff"))
        real = play(*tasks, arguments=("--diff",))
        seen = [[(one["changed"], one.get("diff", {}).get("after")) for one in each] for each in (predicted, real)]
        assert seen[0] == seen[1]
        return real

    compare(OPEN)
    compare(append_file(tmp_path / "store"))
    compare(append_file(tmp_path / "store"))
    compare({"operation": "seal"})


def test_check_mode_leaves_no_trace(play: Play, tmp_path: Path) -> None:
    down = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    play(OPEN, {**APPEND, "signed": True}, arguments=("--check",))
    assert play({**APPEND, "spool": True}, arguments=("--check",), host=down)[0]["spooled"]
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("trouble", ["unreachable", "unwritable"])
def test_containment_goes_on_and_the_ledger_takes_the_spool_in_later(play: Play, tmp_path: Path, trouble: str) -> None:
    down: dict[str, Any] = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    if trouble == "unwritable":
        down = {}
        (tmp_path / "store").write_text("in the way of the directory")
    for task in ({**OPEN, "spool": True}, {**APPEND, "spool": True}):
        result = play(task, host=down)[0]
        assert (result["changed"], result["spooled"], result["signed"]) == (True, True, False)
        assert "head" not in result
    assert "they wait in" in play.output  # type: ignore[attr-defined]
    assert result["spool_pending"] == 2
    failed = play(APPEND, host=down)[0]
    assert failed.get("failed") or failed.get("unreachable") or "Cannot" in failed["msg"]
    assert "spooled" not in failed
    if trouble == "unwritable":
        (tmp_path / "store").unlink()
    taken, read, verified = play(
        {"operation": "append", "entries": [isolate("desk2")]}, {"operation": "read"}, {"operation": "verify"}
    )
    assert (taken["spool_pending"], taken["signed"], taken["spooled"]) == (0, True, False)
    entries = [entry for entry in read["entries"] if entry["action"] != "signature"]
    assert [(entry["action"], entry["target"]) for entry in entries] == [
        ("open", ""),
        ("isolate", "desk1"),
        ("isolate", "desk2"),
    ]
    assert entries[1]["time"] == entries[1]["spooled_at"] < entries[2]["time"]
    assert verified["verified"]


def test_bad_input_fails_before_anything_even_with_a_spool(play: Play, tmp_path: Path) -> None:
    entry = {**isolate(), "artefacts": [{"path": "../x", "size": 1, "sha256": "a" * 64}]}
    result = play({"operation": "open", "spool": True, "entries": [entry]})[0]
    assert "its path must be relative to the case" in result["msg"]
    assert not (tmp_path / "spool").exists()
    assert not (tmp_path / "store").exists()


def test_without_a_usable_key_the_entry_goes_in_and_says_so(play: Play, tmp_path: Path) -> None:
    task = {**APPEND, "signed": True}
    _opened, none, lost = play(OPEN, {**task, "signing_key": None}, {**task, "signing_key": str(tmp_path / "lost")})
    assert (none["changed"], none["signed"], none["unsigned_reason"]) == (True, False, "no signing key is configured")
    assert "does not exist on the controller" in lost["unsigned_reason"]
    later = play(task)[0]
    assert (later["changed"], later["signed"]) == (True, True)


def test_a_second_leader_is_refused_but_its_containment_is_not(play: Play) -> None:
    ann, bob = {"lease": {"holder": "ann"}}, {"lease": {"holder": "bob"}}
    task = {"operation": "append", "entries": [isolate("desk2")]}
    _opened, refused, cut = play({**OPEN, **ann}, {**task, **bob, "spool": True}, {**OPEN, **task, "operation": "open"})
    assert "leads it under epoch 1, until" in refused["msg"]
    assert "bob: ann (run " in refused["msg"]
    assert "spooled" not in refused, "what was not done must not be recorded later"
    assert (cut["changed"], cut["spooled"], cut["spool_pending"]) == (True, False, 0)
    taken = play({**task, **bob, "take_over": True})[0]
    assert taken["epoch"] == 2


def test_two_runs_of_one_person_do_not_both_lead_and_an_ended_one_is_taken_up(play: Play) -> None:
    lead = {**OPEN, "lease": {}}
    first, again = play(lead, lead)
    assert (first["epoch"], again["epoch"]) == (1, 1)
    assert play(lead)[0]["epoch"] == 2  # the first run has ended

    alive = f"{platform.node()}/{os.getpid()}/{Path('/proc/self/stat').read_text().rpartition(')')[2].split()[19]}"
    play({**lead, "lease": {"run": alive}})
    refused = play(lead)[0]
    assert f"(run {alive}) leads it under epoch 3" in refused["msg"]
    assert "-e vmward_take_over=true" in refused["msg"]
    elsewhere = {**lead, "lease": {"run": "otherhost/1/1"}, "take_over": True}
    assert play(elsewhere)[0]["epoch"] == 4
    assert "(run otherhost/1/1) leads it" in play(lead)[0]["msg"]


def test_a_rolled_back_store_gets_no_signature(play: Play, tmp_path: Path) -> None:
    play(OPEN)
    ledger = tmp_path / "store" / "2026-0142" / "ledger.jsonl"
    old = ledger.read_bytes()
    play({**APPEND, "signed": True})
    ledger.write_bytes(old)
    result = play({"operation": "append", "signed": True, "entries": [isolate("desk2")]})[0]
    assert (result["changed"], result["signed"]) == (True, False)
    assert "does not continue the head that this controller signed last" in result["unsigned_reason"]
