# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of a running VM where no snapshot can be read: by vzdump and vma, into a real image by a real qemu-img.

Simulated: the node, its vzdump and its vma (``backup.py``), with a stream of the tests' own between both.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import (
    NotVerified,
    TaskFailed,
    TimedOut,
    Unsupported,
    VmwardError,
)
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Pending
from ansible_collections.vmward.remediation.plugins.module_utils._proxmox import vzdump
from ansible_collections.vmward.remediation.tests.integration.test_modules_control import play
from ansible_collections.vmward.remediation.tests.pve import backup
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench

HERE = platform.node().split(".")[0]
SIZE = 16 << 20
DISK, OTHER, EFI = "scsi0", "scsi1", "efidisk0"
BEGIN = """
import sys, time
from ansible_collections.vmward.remediation.plugins.module_utils._model import Disk, VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._proxmox.vzdump import Extraction
Extraction(VmRef("hv1", "{vm}", "desk1"), Disk("scsi0", "scsi", {size}, 0, False, ()), "{path}")
time.sleep(600)
"""


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


class Node:
    """A running VM with two disks on LVM-thin and its firmware's variables, and the node that it is on."""

    def __init__(self, bench: ProxmoxBench, directory: Path) -> None:
        self.bench, self.directory = bench, directory
        self.id = bench.create("desk1", node=HERE)
        config = bench.pve.vm(int(self.id)).config
        config["bios"] = "ovmf"
        rows = bench.pve.storages["local-lvm"].setdefault("volumes", {})
        volumes = {}
        for number, (key, size) in enumerate([(DISK, SIZE), (OTHER, SIZE), (EFI, 540672)]):
            name, path = f"vm-{self.id}-disk-{number}", directory / f"{key}.raw"
            path.write_bytes((bytes([number + 1]) * (1 << 20)).ljust(size, b"\0")[:size])
            volumes[f"drive-{key}"] = str(path)
            config[key] = f"local-lvm:{name},size={size >> 10}K"
            held = size if key != EFI else 4 << 20  # QEMU sees less of the firmware's volume than there is
            rows[name] = {"content": "images", "format": "raw", "size": held, "ctime": 1, "vmid": int(self.id)}
        (directory / "volumes.json").write_text(json.dumps(volumes))
        self.scratch = directory / "out"
        self.scratch.mkdir()

    def fares(self, program: str, how: str) -> None:
        (self.directory / f"{program}.how").write_text(how)

    def submit(self, disk: str = DISK) -> tuple[Pending, Path]:
        path = self.scratch / f"{disk}.qcow2"
        return self.bench.hypervisor.submit_disk_export(self.bench.vm(self.id), disk, str(path)), path

    def export(self, disk: str = DISK, deadline: float = 60) -> Path:
        pending, path = self.submit(disk)
        error: VmwardError | None = self.bench.hypervisor.wait([pending], deadline)[self.id]
        if error is not None:
            assert pending.abort
            pending.abort()
            raise error
        return path

    def holds(self, path: Path, disk: str, size: int = SIZE) -> bool:
        told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", str(path)]))
        assert (told["format"], told["virtual-size"], told.get("backing-filename")) == ("qcow2", size, None)
        assert path.stat().st_blocks * 512 < 4 << 20, "sparse"
        raw = self.directory / f"{disk}.raw"
        argv = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(path), str(raw)]
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    def left(self) -> list[str]:
        """What is there that should not be: the lock of the VM, and what lies beside the image."""
        beside = [path.name for path in self.scratch.iterdir() if path.suffix != ".qcow2"]
        return beside + [path.name for path in self.directory.glob("lock")]


@pytest.fixture
def node(bench: ProxmoxBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    (tmp_path / "bin").mkdir()
    for name in ("vzdump", "vma"):
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {backup.__file__} {name} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("NODE", str(tmp_path))
    return Node(bench, tmp_path)


@pytest.mark.parametrize("power", ["running", "paused"])
@pytest.mark.parametrize("disk", [DISK, OTHER])
def test_one_disk_of_a_running_vm_is_taken_from_its_backup(node: Node, power: str, disk: str) -> None:
    node.bench.pve.vm(int(node.id)).qmpstatus = power
    path = node.export(disk)
    assert node.holds(path, disk)
    assert node.left() == []
    assert node.bench.hypervisor.progress(node.bench.vm(node.id))[0] == path.stat().st_blocks * 512
    assert node.bench.pve.vm(int(node.id)).snapshots == {}
    assert node.bench.pve.vm(int(node.id)).qmpstatus == power


def test_firmware_variables_of_which_qemu_sees_less_than_their_volume_holds(node: Node) -> None:
    path = node.export(EFI)
    assert node.holds(path, EFI, 4 << 20), "the volume's size; zeros behind what QEMU sees"


def test_the_nodes_own_defaults_change_nothing(node: Node) -> None:
    path = node.export()
    called = json.loads((node.directory / "called").read_text())
    places = {called.pop("dumpdir"), called.pop("tmpdir")}
    assert places == {f"{path}.vzdump"}
    assert called == {"vmid": node.id, "mode": "snapshot", "compress": "0", "script": "", "remove": "0",
                      "prune_backups": "keep-all=1", "stdout": "1"}  # fmt: skip


def test_volumes_in_a_chain_and_a_raw_disk_beside_a_qcow2_image_have_no_snapshot_to_read(node: Node) -> None:
    machine = node.bench.pve.vm(int(node.id))
    machine.config.pop(EFI), machine.config.pop(OTHER)
    machine.config[DISK] = f"local-lvm:vm-{node.id}-disk-0.qcow2,size=16M"
    method = node.bench.hypervisor.export_method
    assert method(node.bench.vm(node.id)).startswith("snapshot by the hypervisor")
    machine.config[OTHER] = f"local-lvm:vm-{node.id}-disk-1,size=16M"
    assert method(node.bench.vm(node.id)).startswith("backup by the hypervisor")
    machine.config.pop(OTHER)
    node.bench.pve.storages["local-lvm"]["snapshot-as-volume-chain"] = 1
    node.bench.hypervisor = node.bench.connect()
    assert node.bench.hypervisor.export_method(node.bench.vm(node.id)).startswith("backup by the hypervisor")
    assert node.holds(node.export(), DISK)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("vzdump", r"vzdump ended with 255: ERROR: Backup of VM \d+ failed - job failed with err -5"),
        ("vma", r"vma ended with 133: .*restore failed - blk_pwrite to failed \(-28\)"),
    ],
)
def test_either_of_both_that_fails_ends_the_other_and_leaves_nothing(node: Node, program: str, words: str) -> None:
    node.fares(program, "fail")
    with pytest.raises(TaskFailed, match=words):
        node.export(OTHER)
    assert node.left() == []


def test_a_backup_that_ends_by_itself_is_not_disturbed(node: Node) -> None:
    node.fares("vma", "fail")
    pending, _path = node.submit()
    run = node.bench.hypervisor._converting  # type: ignore[attr-defined]
    run.vma.wait(60)
    assert pending.abort
    pending.abort()
    assert not run.told_to_end
    assert node.left() == []


def test_vma_that_fails_ends_a_backup_that_writes_nothing_more(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vzdump, "ENDING", 1.0)
    node.fares("vzdump", "hang")
    node.fares("vma", "fail")
    with pytest.raises(TaskFailed, match="vma ended with 133"):
        node.export()
    assert node.left() == []


def test_a_vm_that_another_backup_holds(node: Node) -> None:
    (node.directory / "lock").touch()
    with pytest.raises(TaskFailed, match=r"VM is locked \(backup\)"):
        node.export()
    assert node.left() == ["lock"], "it is the other's"


def test_a_backup_that_outlasts_the_deadline_is_ended_and_gives_the_lock_back(node: Node) -> None:
    node.fares("vzdump", "hang")
    with pytest.raises(TimedOut, match=r"Cannot export disk scsi0 of desk1 \(\d+\): it was not whole after 2 s"):
        node.export(deadline=2)
    assert node.left() == []


def test_a_backup_that_does_not_end_is_told_with_what_it_holds(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    (node.directory / "bin/vzdump").write_text(f"#!/bin/sh\ntrap '' TERM\ntouch {node.directory}/deaf\nexec sleep 30\n")
    monkeypatch.setattr(vzdump, "ENDING", 0.3)
    pending, _path = node.submit()
    assert pending.abort
    until((node.directory / "deaf").exists)
    with pytest.raises(TaskFailed, match=rf"did not within 0.3 s.*only then take it off \(qm unlock {node.id}\)"):
        pending.abort()
    os.kill(int(pending.task.split()[1]), signal.SIGKILL)


def test_a_run_that_is_killed_takes_both_with_it_and_the_lock_goes(node: Node) -> None:
    node.fares("vzdump", "hang")
    begin = BEGIN.format(vm=node.id, size=SIZE, path=node.scratch / "killed.qcow2")
    run = subprocess.Popen([sys.executable, "-c", begin], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    until((node.directory / "halfway").exists)
    run.kill()
    run.wait()
    until(lambda: not (node.directory / "lock").exists())


@pytest.mark.parametrize("field", ["backup=0", "media=cdrom"])
def test_a_disk_that_backups_leave_out_is_refused_before_anything_begins(node: Node, field: str) -> None:
    node.bench.pve.vm(int(node.id)).config[OTHER] += f",{field}"
    with pytest.raises(Unsupported, match=r"left out of backups .* Nothing was touched. Include it in backups"):
        node.export(OTHER)
    assert not (node.directory / "called").exists()
    assert list(node.scratch.iterdir()) == []


def test_a_disk_that_is_not_in_the_archive_is_no_empty_image(node: Node) -> None:
    volumes = json.loads((node.directory / "volumes.json").read_text())
    del volumes["drive-scsi0"]
    (node.directory / "volumes.json").write_text(json.dumps(volumes))
    with pytest.raises(NotVerified, match="vzdump left it out of its archive"):
        node.export()


def test_a_disk_that_is_larger_than_the_cluster_says(node: Node) -> None:
    with (node.directory / "scsi0.raw").open("ab") as file:
        file.write(bytes(1 << 20))
    with pytest.raises(TaskFailed, match="unexpected size"):
        node.export()


@pytest.mark.parametrize("absent", ["vzdump", "vma"])
def test_a_host_that_is_no_node_is_refused(node: Node, absent: str) -> None:
    (node.directory / "bin" / absent).unlink()
    with pytest.raises(Unsupported, match=f"{absent} is missing here. Delegate to the VM's Proxmox VE node, as root"):
        node.export()
    assert list(node.scratch.iterdir()) == []


def test_the_module_keeps_every_disk_in_the_case(node: Node) -> None:
    store = node.directory / "case"
    store.mkdir()
    options = {
        "hypervisors": {"hv1": node.bench.entry}, "vm": "desk1", "case": "2026-1", "dest": {"path": str(store)},
        "scratch": str(node.directory / "scratch"),
    }  # fmt: skip
    task = {"vmward.remediation.vm_disk_export": options}
    first, again = play(node.directory, [task, task])
    assert first["changed"], first
    assert first["evidence"] == {"disks": {"state": "stored"}}
    kept = {one["path"]: one for one in first["artefacts"]}
    for disk, size in ((DISK, SIZE), (OTHER, SIZE), (EFI, 4 << 20)):
        artefact = kept[f"evidence/data/{node.id}/disk-{disk}.qcow2"]
        assert artefact["method"].startswith("backup by the hypervisor (vzdump), from which vma took the disk")
        assert node.holds(store / artefact["path"], disk, size)
    assert list((node.directory / "scratch").iterdir()) == []
    assert not again["changed"]
