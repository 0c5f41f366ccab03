# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control modules as Ansible runs them: check-mode parity, idempotence, report_only, sentences."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Capability
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench, FakeBench, LibvirtBench
from ansible_collections.vmward.remediation.tests.conformance.world import World, required
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench
from ansible_collections.vmward.remediation.tests.pve.fixture import SECRET

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build/collections"),
}


@pytest.fixture(params=["fake", "vsphere", "proxmox", pytest.param("libvirt", marks=pytest.mark.real)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "fake":
        yield FakeBench(tmp_path)
        return
    if request.param in ("vsphere", "proxmox"):
        yield request.getfixturevalue(request.param)
        return
    required()
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world")
    made = LibvirtBench(world, tmp_path)
    yield made
    made.hypervisor.close()
    world.stop()


def play(tmp_path: Path, tasks: list[dict[str, Any]], *more: str) -> list[dict[str, Any]]:
    """Run the tasks in one play on localhost; answers what each would register."""
    playbook, told = tmp_path / "play.yml", tmp_path / "told.json"
    names = [f"r{number}" for number in range(len(tasks))]
    steps = [dict(one, register=name, ignore_errors=True) for one, name in zip(tasks, names, strict=True)]
    content = "{{ [%s] | to_json }}" % ", ".join(names)
    steps.append({"ansible.builtin.copy": {"dest": str(told), "content": content, "mode": "0600"}})
    header = {"hosts": "localhost", "gather_facts": False, "vars": {"ansible_python_interpreter": sys.executable}}
    playbook.write_text(json.dumps([dict(header, tasks=steps)]))
    ended = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            "localhost,",
            "-c",
            "local",
            *more,
            str(playbook),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **SETTINGS},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    assert SECRET not in told.read_text()
    answers: list[dict[str, Any]] = json.loads(told.read_text())
    return answers


def task(verb: str, bench: Bench, *vms: str, **more: Any) -> dict[str, Any]:
    keywords: dict[str, Any] = {key: more.pop(key) for key in ("check_mode", "diff") if key in more}
    options = {"hypervisors": {"hv1": bench.entry}, "vms": list(vms), **more}
    return {f"vmward.remediation.{verb}": options, **keywords}


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("vm_isolation", {"state": "sealed", "case": "2026-1"}),
    ("vm_isolation", {"state": "forensic", "collectors": [{"address": "192.0.2.1", "port": 22}]}),
    ("vm_isolation", {"state": "free", "keep_sessions": True}),
    ("vm_power", {"state": "paused"}),
    ("vm_power", {"state": "running"}),
    ("vm_power", {"state": "restarted", "grace": 0, "force": True}),
    ("vm_power", {"state": "stopped", "grace": 1, "force": True}),  # these guests never obey
    ("vm_power", {"state": "running"}),
    ("vm_power", {"state": "stopped", "grace": 0, "force": True}),
    ("vm_snapshot", {"name": "clean"}),
    ("vm_snapshot_revert", {"snapshot": "clean", "discard": True}),
    ("vm_snapshot", {"name": "clean", "state": "absent"}),
    ("vm_disk_reset", {"discard": True}),
    ("vm_delete", {"confirm": True}),
]
ONCE = ("vm_snapshot_revert", "vm_disk_reset", "vm_delete")  # a second run is a change again, or finds nothing


def repeats(verb: str, options: dict[str, Any]) -> bool:
    """Whether a second run must be no change."""
    return verb not in ONCE and options.get("state") != "restarted"


def test_a_life_of_a_vm_predicted_done_and_done_twice(bench: Bench, tmp_path: Path) -> None:
    bench.create("desk1", ["tap", "tap-down"])
    can = Capability.DISK_RESET in bench.hypervisor.capabilities()
    changes = [change for change in CHANGES if can or change[0] != "vm_disk_reset"]
    tasks = []
    for verb, options in changes:
        tasks.append(task(verb, bench, "desk1", check_mode=True, diff=True, **options))
        tasks.append(task(verb, bench, "desk1", diff=True, **options))
        if repeats(verb, options):
            tasks.append(task(verb, bench, "desk1", **options))
    told = iter(play(tmp_path, tasks))
    for verb, options in changes:
        predicted, done = next(told), next(told)
        assert not any(vm["failed"] for vm in done["vms"]), (verb, options, done)
        assert predicted["changed"] is done["changed"] is True, (verb, options)
        assert predicted["diff"] == done["diff"], (verb, options)
        assert [vm["steps"] for vm in predicted["vms"]] == [vm["steps"] for vm in done["vms"]]
        if repeats(verb, options):
            assert next(told)["changed"] is False, (verb, options)
    assert bench.hypervisor.refs() == ()


def test_a_graceful_stop_is_predicted_done_and_done_twice(tmp_path: Path) -> None:
    bench = FakeBench(tmp_path)
    vm_id = bench.create("desk1")
    with bench.state.change() as state:
        state["vms"][vm_id]["obeys_after"] = 0.2
    stop = {"state": "stopped", "grace": 10}
    checked = task("vm_power", bench, "desk1", check_mode=True, diff=True, **stop)
    predicted, done, again = play(tmp_path, [checked, *[task("vm_power", bench, "desk1", diff=True, **stop)] * 2])
    assert predicted["changed"] is done["changed"] is True
    assert predicted["diff"] == done["diff"]
    assert predicted["vms"][0]["steps"] == done["vms"][0]["steps"] == ["ask the guest to shut down (10 s)"]
    assert again["changed"] is False


def test_failures_are_sentences_and_hide_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.create("desk1")
    unknown, reported, bad_entry, bad_only, info, twice, empty = play(
        tmp_path,
        [
            task("vm_isolation", bench, "desk1", "desk9", state="sealed"),
            task("vm_isolation", bench, "desk9", "desk1", state="sealed", report_only=True),
            {"vmward.remediation.vm_info": {"hypervisors": {"hv1": {"xen": {}}}, "vms": ["desk1"]}},
            task("vm_info", bench, "desk1", only=["hv2"]),
            task("vm_info", bench, "desk1"),
            task("vm_power", bench, "desk1", "52:54:00:00:02:00", state="paused"),
            task("vm_info", bench, ""),
        ],
    )
    assert unknown["failed"]
    assert unknown["msg"].startswith("1 of 2 VMs failed. desk9: No VM 'desk9' on any hypervisor. Nothing was touched.")
    assert [(vm["name"], vm["failed"], vm["changed"]) for vm in unknown["vms"]] == [
        ("desk1", False, True),
        ("desk9", True, False),
    ]
    assert not reported.get("msg")
    assert [(vm["name"], vm["failed"], vm["changed"]) for vm in reported["vms"]] == [
        ("desk9", True, False),
        ("desk1", False, False),
    ]
    assert (
        bad_entry["msg"] == "Hypervisor hv1 is of the unknown kind 'xen'; known kinds: fake, libvirt, proxmox, vsphere."
    )
    assert bad_only["msg"] == "Unknown hypervisor hv2; configured: hv1."
    assert info["vms"][0]["before"]["isolation"] == "sealed"
    assert twice["vms"][1]["msg"] == "Same VM as desk1."
    assert empty["msg"].startswith("1 of 1 VMs failed. : An empty VM name was given.")


@pytest.mark.real
def test_a_wrong_uri_says_what_to_do(tmp_path: Path) -> None:
    required()
    entry = {"kvm1": {"libvirt": {"uri": "qemu+unix:///system?socket=/nonexistent"}}}
    (told,) = play(tmp_path, [{"vmward.remediation.vm_info": {"hypervisors": entry, "vms": ["desk1"]}}])
    assert told["msg"].startswith("Cannot open a session on kvm1: ")
    assert "Check that libvirtd runs there" in told["msg"]


def test_a_hypervisor_that_never_answers_stops_no_cut_and_hides_nothing(tmp_path: Path) -> None:
    bench = FakeBench(tmp_path)
    bench.create("desk1")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = {"libvirt": {"uri": f"qemu+tcp://127.0.0.1:{mute.getsockname()[1]}/system", "connect_timeout": 1}}
        both = {"hypervisors": {"hv1": bench.entry, "kvm2": silent}}
        cut, read, absent, free, named = play(
            tmp_path,
            [
                {"vmward.remediation.vm_isolation": {**both, "vms": ["desk1"], "state": "sealed"}},
                {"vmward.remediation.vm_info": {**both, "vms": ["desk1"]}},
                {"vmward.remediation.vm_info": {**both, "vms": ["desk2"]}},
                {"vmward.remediation.vm_isolation": {**both, "vms": ["desk1"], "state": "free"}},
                {"vmward.remediation.vm_power": {**both, "vms": ["desk1"], "state": "paused", "only": ["hv1"]}},
            ],
        )
    silence = "Cannot open a session on kvm2: no answer from qemu+tcp://127.0.0.1:"
    for told in (cut, read):
        assert told["vms"][0]["after"]["isolation"] == "sealed"
        assert any("a second VM of this name would not have been seen" in line for line in told["vms"][0]["warnings"])
    assert "It may be where nobody could be asked: " + silence in absent["msg"]
    assert free["failed"]
    assert free["msg"].startswith(silence)
    assert "Nothing was touched, since a VM of the same name may be there. To go on without kvm2, name" in free["msg"]
    assert not named["failed"]
    assert bench.vm(read["vms"][0]["id"]).isolation is Isolation.SEALED


def test_no_secret_is_shown_however_loudly_it_is_asked(tmp_path: Path, proxmox: ProxmoxBench) -> None:
    proxmox.create("desk1")
    lost = {"proxmox": {**proxmox.cluster.entry, "port": 1}}
    wrong = {"proxmox": {**proxmox.cluster.entry, "token_id": "ir@pve!other"}}
    bare = proxmox.cluster.entry  # its kind is forgotten
    tasks = [task("vm_info", proxmox, "desk1")]
    entries = [{"hv1": one} for one in (lost, wrong, bare)]
    ill = [{"vmward.remediation.vm_info": {"hypervisors": one, "vms": ["desk1"]}} for one in entries]
    told = play(tmp_path, tasks + ill, "-vvv")  # it looks for the secret in all that was printed
    fine, unreachable, refused, malformed = told
    assert "Hypervisor hv1 must have exactly one key" in malformed["msg"]
    assert fine["vms"][0]["before"]["nics"][0]["network"] == "vmbr0"
    assert "the connection to 127.0.0.1 failed" in unreachable["msg"]
    assert "The token ir@pve!other was refused" in refused["msg"]


def test_three_of_a_hundred_fail_and_the_task_names_them(bench: Bench, tmp_path: Path) -> None:
    ids = [bench.create(f"desk{number}", running=False) for number in range(100)]
    bad = ids[10:40:10]
    for vm_id in bad:
        bench.hurt(vm_id)
    (told,) = play(tmp_path, [task("vm_isolation", bench, *ids, state="sealed", case="2026-1")])
    assert told["failed"]
    count, _dot, named = told["msg"].partition(". ")
    assert count == "3 of 100 VMs failed"
    assert [one.partition(": ")[0] for one in named.split(" | ")] == bad
    assert [vm["name"] for vm in told["vms"] if vm["failed"]] == bad
    assert sum(vm["after"]["isolation"] == "sealed" for vm in told["vms"]) == 97
    bench.mend()
