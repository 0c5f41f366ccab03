# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vSphere as Ansible reaches it: no secret anywhere, warnings, the inventory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.tests.vcsim.server import PASSWORD, Vcsim, shown

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build/collections"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    with Vcsim(tmp_path_factory.mktemp("vcsim"), "-vms", "3") as made:
        yield made


def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **SETTINGS, **environment},
    )


def play(tmp_path: Path, module: str, **options: Any) -> str:
    """Everything that a run prints at its most talkative."""
    header = {"hosts": "localhost", "gather_facts": False, "vars": {"ansible_python_interpreter": sys.executable}}
    task = {f"vmward.remediation.{module}": options, "register": "told", "ignore_errors": True}
    show = {"ansible.builtin.debug": {"var": "told"}}
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([dict(header, tasks=[task, show])]))
    done = run("ansible-playbook", "-vvv", "-i", "localhost,", "-c", "local", str(playbook))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def entry(server: Vcsim, **changed: Any) -> dict[str, Any]:
    return {"vc1": {"vsphere": {**server.entry["vsphere"], **changed}}}


def test_no_secret_in_any_output(server: Vcsim, tmp_path: Path) -> None:
    verbs: list[tuple[str, dict[str, Any]]] = [
        ("vm_info", {"vms": ["DC0_C0_RP0_VM0"]}),
        ("vm_info", {"vms": ["none"]}),
        ("vm_info", {}),
        ("vm_isolation", {"vms": ["DC0_C0_RP0_VM0"], "state": "sealed", "hypervisors": entry(server, ca_path=None)}),
    ]
    for module, options in verbs:
        told = play(tmp_path, module, **{"hypervisors": entry(server), **options})
        assert not shown(told), told
        assert "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in told


@pytest.fixture
def broken(server: Vcsim) -> Iterator[Vcsim]:
    yield server
    server.faults()


def test_no_secret_in_what_goes_wrong(broken: Vcsim, tmp_path: Path) -> None:
    wrong = PASSWORD.replace("secret", "wrong")
    runs: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"password": wrong}, {}, "Check username and password"),
        ({}, {"method": "Login", "status": 500, "times": 9}, "Check that the server runs"),
        ({}, {"method": "Login", "half": True, "times": 9}, "Check that the server runs"),
        ({}, {"method": "RetrievePropertiesEx", "half": True, "times": 9}, "Check that the server runs"),
    ]
    for changed, fault, sentence in runs:
        broken.faults(*[fault] * bool(fault))
        told = play(tmp_path, "vm_info", hypervisors=entry(broken, **changed), vms=["DC0_C0_RP0_VM0"])
        assert sentence in " ".join(told.split())
        assert not shown(told), told
        assert wrong not in told, told
        assert json.dumps(wrong)[1:-1] not in told, told


def test_an_unchecked_certificate_is_used_and_warned_of(server: Vcsim, tmp_path: Path) -> None:
    unsafe = entry(server, ca_path=None, validate_certs=False)
    told = play(tmp_path, "vm_info", hypervisors=unsafe, vms=["DC0_C0_RP0_VM0"])
    assert "The certificate of vc1 is not checked" in told
    assert '"hypervisor": "vc1"' in told


def test_every_vm_is_in_the_inventory(server: Vcsim, tmp_path: Path) -> None:
    source = tmp_path / "vmward.yml"
    options = {key: value for key, value in server.entry["vsphere"].items() if key != "password"}
    source.write_text(json.dumps({"plugin": "vmward.remediation.vms", "hypervisors": {"vc1": {"vsphere": options}}}))
    server.forget_calls()
    done = run("ansible-inventory", "-i", str(source), "--list", VMWARD_VSPHERE_PASSWORD=PASSWORD)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert sorted(told["hypervisor_vc1"]["hosts"]) == [f"DC0_C0_RP0_VM{number}" for number in range(3)]
    assert not shown(done.stdout + done.stderr)
    assert server.calls() == {
        "RetrieveServiceContent": 1,
        "Login": 1,
        "CreateContainerView": 1,
        "RetrievePropertiesEx": 2,
        "Logout": 1,
        **{"POST /api/session": 1, "GET /api/cis/tagging/tag": 1, "DELETE /api/session": 1},  # there are no tags
    }


def test_memory_goes_from_the_datastore_into_the_case(server: Vcsim, tmp_path: Path) -> None:
    case = tmp_path / "case"
    case.mkdir()
    told = play(
        tmp_path,
        "vm_memory_dump",
        hypervisors=entry(server),
        vm="DC0_C0_RP0_VM1",
        case="2026-1",
        dest={"path": str(case)},
        scratch=str(tmp_path / "scratch"),
    )
    assert not shown(told), told
    (memory,) = case.rglob("memory.elf")
    assert memory.stat().st_size == 4096 + 32 * 1024 * 1024, told
    assert memory.read_bytes()[4096:].startswith(b"memory of DC0_C0_RP0_VM1")
    sidecar = json.loads(memory.with_name("memory.elf.json").read_text())
    assert sidecar["tools"]["vSphere"].endswith("(API 8.0.3.0)")
    assert "an upper bound" in sidecar["freeze_measured_by"]


def test_a_snapshot_that_stays_is_warned_of_beside_a_success_and_a_failure(server: Vcsim, tmp_path: Path) -> None:
    def dump(name: str) -> str:
        (tmp_path / name).mkdir()
        place = {"dest": {"path": str(tmp_path / name)}, "scratch": str(tmp_path / "scratch")}
        text = play(tmp_path, "vm_memory_dump", hypervisors=entry(server), vm="DC0_C0_RP0_VM0", case="2026-1", **place)
        return " ".join(text.split())

    server.faults({"method": "RemoveSnapshot_Task", "fault": "The disk is locked", "task": True})
    told = dump("one")
    assert [path.name for path in (tmp_path / "one").rglob("memory.elf")] == ["memory.elf"], told
    assert "[WARNING]: The evidence was copied whole." in told
    server.faults({"method": "GET /folder", "status": 403})
    told = dump("two")
    assert "HTTP status 403" in told
    assert "[WARNING]: An earlier run left the snapshot 'vmward memory " in told
