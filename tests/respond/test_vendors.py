# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same playbook lines on vSphere and on Proxmox VE: what they did is read from the servers, not from the screen.

Simulated: both servers, and the node's storage. Disks are real images with a file system, one of them infected.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._fake import images, tour
from ansible_collections.vmward.remediation.plugins.module_utils._model import Layer
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import SetSnapshot
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench
from ansible_collections.vmward.remediation.tests.conformance.vsphere import VsphereBench
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench
from ansible_collections.vmward.remediation.tests.pve.fixture import SECRET
from ansible_collections.vmward.remediation.tests.vcsim.server import PASSWORD

ROOT = Path(__file__).resolve().parents[2]
HERE = platform.node().split(".")[0]
CASE, VM = "vendor-1", "desk1"
SECRETS = (SECRET, PASSWORD, json.dumps(PASSWORD)[1:-1])
STATE = b"QEVM" + bytes(8000) + b"memory of the simulated node"
EICAR = tour.EICAR.encode()
INFECTION = {"/home/user/invoice.com": EICAR}
PVESM = """#!/bin/sh
path={node}/${{2##*/}}
case $path in *-state-*) cp {node}/state $path ;; esac
echo $path
"""


def content(directory: Path, infected: bool) -> Path:
    """A raw disk with a file system on it."""
    files = {**tour.GOLDEN, **(INFECTION if infected else {})}
    made, raw = directory / "made.qcow2", directory / ("infected" if infected else "clean")
    made.unlink(missing_ok=True)
    images.create_base(str(made), files)
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(made), str(raw)], check=True)
    return raw


@dataclass
class Stage:
    """One vendor's server with one VM: clean in its older snapshot, infected since; and an inventory of local hosts."""

    directory: Path
    bench: VsphereBench | ProxmoxBench
    vm_id: str
    reachable: Callable[[], bool]  # whether it runs and one of its cards is connected, as the server has it
    disk: Callable[[], bytes]  # what its disk holds now
    memory: bytes  # what a dump of it holds
    path: str = ""  # where programs are looked for first

    def __post_init__(self) -> None:
        self.former = self.bench.wiring(self.vm_id)
        tour.create_keys(str(self.directory))
        self.ledger = self.directory / "cases" / CASE / "ledger.jsonl"

    def play(self, name: str, *flags: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """A playbook, as a user runs it. Nothing that it prints holds a secret."""
        keys, scratch = self.directory / "signing", str(self.directory / "scratch")
        told = {
            "vmward_vms": VM,
            "vmward_case": CASE,
            "vmward_actor": "ada",
            "vmward_hypervisors": {"hv1": self.bench.entry},
            "vmward_proof_required": "readback",
            "vmward_case_store": str(self.directory / "cases"),
            "vmward_signing_key": str(keys / "ledger"),
            "vmward_allowed_signers": str(keys / "allowed_signers"),
            "vmward_incident_time": "2099-01-01T00:00:00Z",
            "vmward_waive": {VM: {"connections": "its guest answers nobody"}},
            "release_check_port": 0,  # nothing listens in a simulated VM
            "ansible_become": False,
            "preserve_scratch": scratch,
            "scan_scratch": scratch,
            "scan_rules_directory": str(self.directory / "rules"),
            "scan_index_directory": str(self.directory / "index"),
            **variables,
        }
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory, options = self.directory / "hosts.json", self.directory / "options.json"
        inventory.write_text(json.dumps({"all": {"hosts": {VM: {}, "localhost": {}}, "vars": local}}))
        options.write_text(json.dumps(told))
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), *flags]
        command += [f"vmward.remediation.{name}", "-e", f"@{options}"]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "HOME": str(self.directory)}
        environment["PATH"] = f"{self.path}:{environment['PATH']}"
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        for secret in SECRETS:
            assert secret not in done.stdout + done.stderr
        return done

    def holds(self, action: str) -> bool:
        return self.ledger.exists() and f'"action": "{action}"' in self.ledger.read_text().replace('":"', '": "')

    def results(self, phase: str, action: str) -> list[dict[str, Any]]:
        read = [json.loads(line) for line in self.ledger.read_text().splitlines()]
        return [one["result"] for one in read if (one["phase"], one["action"]) == (phase, action)]

    def evidence(self, name: str) -> Path:
        (found,) = (self.directory / "cases" / CASE / "evidence/data").rglob(name)
        return found


class Watch:
    """Asks the server all the while whether the VM can reach anybody, from the claim of the cut to its release."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.looks, self.lapses = stage, 0, 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self.ended.wait(0.1):
            if self.stage.holds("isolate"):
                reached = self.stage.reachable()
                if not self.stage.holds("reconnect"):
                    self.looks += 1
                    self.lapses += reached

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.ended.set()
        self.thread.join()


def snapshot(bench: Bench, vm_id: str, name: str) -> None:
    bench.one(SetSnapshot(name, "present", "", False), vm_id)


@pytest.fixture
def vsphere(vsphere: VsphereBench, tmp_path: Path) -> Stage:
    bench = vsphere
    vm_id = bench.create(VM, ["tap", "tap"])
    path = bench.vm(vm_id).disks[0].layers[0].path
    bench.fill(path, content(tmp_path, infected=False).read_bytes())
    snapshot(bench, vm_id, "clean-baseline")
    bench.fill(path, content(tmp_path, infected=True).read_bytes())
    snapshot(bench, vm_id, "nightly")

    def reachable() -> bool:
        cards = json.loads(bench.wiring(vm_id))
        return bench.machine(vm_id).runtime.powerState == "poweredOn" and any(one["now"] == "up" for one in cards)

    def disk() -> bytes:
        return bench.content_of(path.replace(".vmdk", "-flat.vmdk"))

    return Stage(tmp_path, bench, vm_id, reachable, disk, f"memory of {bench.machine(vm_id).name}".encode())


@pytest.fixture
def proxmox(proxmox: ProxmoxBench, tmp_path: Path) -> Stage:
    bench = proxmox
    node = tmp_path / "node"
    (node / "bin").mkdir(parents=True)
    (node / "state").write_bytes(STATE)
    (node / "bin/pvesm").write_text(PVESM.format(node=node))
    (node / "bin/pvesm").chmod(0o755)
    vm_id = bench.create(VM, ["tap", "tap"], node=HERE)
    base, top = node / "base-9000-disk-0.qcow2", node / f"vm-{vm_id}-disk-0.qcow2"
    images.create_base(str(base), tour.GOLDEN)
    chain = images.create_overlay(str(top), Layer(str(base), "qcow2"))
    on_real_images(bench, top)
    snapshot(bench, vm_id, "clean-baseline")
    bench.pve.vm(int(vm_id)).snapshots["clean-baseline"]["snaptime"] -= 60  # it tells whole seconds
    images.plant(chain, INFECTION)
    snapshot(bench, vm_id, "nightly")

    def reachable() -> bool:
        vm = bench.pve.vm(int(vm_id))
        cards = [value for key, value in vm.config.items() if key.startswith("net")]
        return vm.qmpstatus == "running" and any("link_down=1" not in card for card in cards)

    def disk() -> bytes:
        raw = tmp_path / "now"
        subprocess.run(["qemu-img", "convert", "-O", "raw", str(top), str(raw)], check=True)
        return raw.read_bytes()

    return Stage(tmp_path, bench, vm_id, reachable, disk, STATE, path=str(node / "bin"))


def on_real_images(bench: ProxmoxBench, top: Path) -> None:
    """Snapshots and rollbacks of the server are those of an image too."""
    flags = {"take": "-c", "remove": "-d", "back": "-a"}
    rolled_back = bench.pve._after_rollback

    def change(verb: str, _vmid: int, name: str) -> None:
        subprocess.run(["qemu-img", "snapshot", flags[verb], name, str(top)], check=True)

    def back(vm: Any, fine: bool) -> None:
        rolled_back(vm, fine)
        if fine:
            change("back", vm.vmid, vm.config["parent"])

    bench.pve.images = change
    bench.pve._after_rollback = back  # type: ignore[method-assign]


@pytest.fixture(params=["vsphere", "proxmox"])
def stage(request: pytest.FixtureRequest) -> Stage:
    made: Stage = request.getfixturevalue(request.param)
    return made


def test_a_response_takes_a_vm_from_the_alert_to_service(stage: Stage) -> None:
    assert EICAR in stage.disk()
    with Watch(stage) as watch:
        done = stage.play("respond")
    assert done.returncode == 0, done.stdout + done.stderr
    assert watch.looks > 10
    assert watch.lapses == 0, "it could reach somebody while it was said to be cut"
    assert stage.bench.wiring(stage.vm_id) == stage.former
    assert stage.reachable()
    assert EICAR not in stage.disk()
    assert [one.name for one in stage.bench.vm(stage.vm_id).snapshots] == ["clean-baseline", "nightly"]
    assert stage.memory in stage.evidence("memory.*[!n]").read_bytes()
    taken = stage.directory / "taken"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(stage.evidence("disk-*.qcow2")), str(taken)], check=True)
    assert EICAR in taken.read_bytes()
    assert [one["verdict"] for one in stage.results("scan", "disk")] == ["infected"]
    assert [one["verdict"] for one in stage.results("restore", "rescan")] == ["infected", "clean"]
    assert [one["chosen"] for one in stage.results("restore", "clean_point")] == ["clean-baseline"]
    assert list((stage.directory / "scratch").iterdir()) == [], "a copy that was scanned is left"
    told = " ".join(done.stdout.split())
    for part in (
        "proof of the cut: readback",
        "NOT DONE - vpn no VPN hook is configured",
        "NOT DONE notify nobody was told, no contact is configured",
        "NOT DONE scope, harden not built in this version",
        "NOT DONE - connections waived by ada: its guest answers nobody",
    ):
        assert part in told, done.stdout


def test_a_cut_by_false_alarm_is_undone_and_no_secret_is_told_however_loudly_asked(stage: Stage) -> None:
    done = stage.play("contain", "-vvv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not stage.reachable()
    cut = stage.bench.wiring(stage.vm_id)
    refused = stage.play("release", "-vvv")
    assert refused.returncode != 0
    assert stage.bench.wiring(stage.vm_id) == cut
    done = stage.play("release", "-vvv", vmward_false_alarm_by="ada", vmward_false_alarm_reason="a drill")
    assert done.returncode == 0, done.stdout + done.stderr
    assert stage.bench.wiring(stage.vm_id) == stage.former
    assert stage.reachable()
