# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks as evidence on Proxmox VE: real images, a real qemu-img, and a real QEMU that holds them while it runs.

Simulated: the node. ``pvesm`` is a script that knows where the volumes are; the API's snapshots are taken on them.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import NotFound, TaskFailed, Unsupported
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import SetSnapshot
from ansible_collections.vmward.remediation.tests.integration.test_modules_control import play
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench

HERE = platform.node().split(".")[0]
DISK = "scsi0"


def sh(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


class Guest:
    """A VM whose disk is a linked clone on real images, and a QEMU that has them open, its CPUs standing."""

    def __init__(self, bench: ProxmoxBench, directory: Path) -> None:
        self.bench, self.directory = bench, directory
        self.id = bench.create("desk1", node=HERE, running=False)
        self.base, self.top = directory / "base-9000-disk-0.qcow2", directory / f"vm-{self.id}-disk-0.qcow2"
        sh("qemu-img", "create", "-q", "-f", "qcow2", str(self.base), "16M")
        sh("qemu-io", "-f", "qcow2", "-c", "write -P 0x11 0 2M", str(self.base))
        sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(self.base), "-F", "qcow2", str(self.top))
        sh("qemu-io", "-f", "qcow2", "-c", "write -P 0x22 1M 2M", str(self.top))
        sh("qemu-img", "convert", "-O", "qcow2", str(self.top), str(directory / "as-it-was.qcow2"))
        self.qemu: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        monitor = self.directory / "monitor"
        argv = ["qemu-system-x86_64", "-machine", "none", "-S", "-nodefaults", "-display", "none"]
        argv += [
            "-drive",
            f"file={self.top},format=qcow2,if=none,id=drive0",
            "-monitor",
            f"unix:{monitor},server,nowait",
        ]
        self.qemu = subprocess.Popen(argv)
        end = time.monotonic() + 30
        while not monitor.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        self.bench.pve.boot(self.bench.pve.vm(int(self.id)))
        self.bench.pve.images = self.on_images

    def ask(self, command: str) -> None:
        """One command for QEMU's monitor."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(20)
            line.connect(str(self.directory / "monitor"))
            told = b""
            for text in ("", command):
                if text:
                    line.sendall(text.encode() + b"\n")
                    told = b""
                while not told.endswith(b"(qemu) "):
                    told += line.recv(4096)
        assert b"Error" not in told, told

    def on_images(self, verb: str, _vmid: int, name: str) -> None:
        """What PVE has QEMU do; and right after the frozen point the guest writes on."""
        if verb == "take":
            self.ask(f"snapshot_blkdev_internal drive0 {name}")
            self.ask('qemu-io drive0 "write -P 0xee 0 8M"')
        else:
            self.ask(f"snapshot_delete_blkdev_internal drive0 {name}")

    def stop(self) -> None:
        if self.qemu:
            self.qemu.kill()
            self.qemu.wait()

    def export(self, name: str = "out.qcow2") -> Path:
        path = self.directory / name
        pending = self.bench.hypervisor.submit_disk_export(self.bench.vm(self.id), DISK, str(path))
        error = self.bench.hypervisor.wait([pending], 60)[self.id]
        if error is not None:
            raise error
        return path

    def holds_what_was(self, path: Path) -> bool:
        told = json.loads(sh("qemu-img", "info", "--output=json", str(path)))
        assert (told["format"], told["virtual-size"], told.get("backing-filename")) == ("qcow2", 16 << 20, None)
        assert "snapshots" not in told
        assert path.stat().st_blocks * 512 < 8 << 20, "sparse"
        return "identical" in sh("qemu-img", "compare", str(path), str(self.directory / "as-it-was.qcow2"))


@pytest.fixture
def guest(bench: ProxmoxBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/pvesm"
    script.write_text(f'#!/bin/sh\necho "$2" >> {tmp_path}/asked\necho "{tmp_path}/${{2##*/}}"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    made = Guest(bench, tmp_path)
    yield made
    made.stop()


def test_a_stopped_vms_whole_chain_becomes_one_image(guest: Guest) -> None:
    assert guest.holds_what_was(guest.export())
    asked = (guest.directory / "asked").read_text().split()
    assert asked == [f"local:9000/base-9000-disk-0.qcow2/{guest.id}/vm-{guest.id}-disk-0.qcow2",
                     "local:9000/base-9000-disk-0.qcow2"]  # fmt: skip


@pytest.mark.parametrize("paused", [False, True])
def test_a_running_vms_disk_is_read_from_a_frozen_point_that_is_gone_afterwards(guest: Guest, paused: bool) -> None:
    guest.start()
    if paused:
        guest.bench.pve.vm(int(guest.id)).qmpstatus = "paused"
    path = guest.export()
    assert guest.holds_what_was(path), "not what the guest wrote after the frozen point"
    done, _total = guest.bench.hypervisor.progress(guest.bench.vm(guest.id))
    assert done == path.stat().st_blocks * 512
    assert guest.bench.pve.vm(int(guest.id)).snapshots == {}
    guest.stop()
    assert sh("qemu-img", "snapshot", "-l", str(guest.top)) == ""
    sh("qemu-img", "check", "-q", str(guest.top))


def test_a_copy_that_fails_leaves_the_frozen_point_and_the_next_one_tells_it(guest: Guest) -> None:
    guest.start()
    with pytest.raises(TaskFailed, match=r"The frozen point is kept in snapshot vmward-disk-\d+ of the VM"):
        guest.export("missing/out.qcow2")
    (kept,) = guest.bench.pve.vm(int(guest.id)).snapshots
    time.sleep(1.1)  # names have the second in them
    guest.export()
    assert list(guest.bench.pve.vm(int(guest.id)).snapshots) == [kept]
    assert any(kept in remark for remark in guest.bench.hypervisor.remarks(guest.id))


def test_a_copy_that_cannot_begin_names_the_frozen_point(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    guest.start()
    monkeypatch.setenv("PATH", f"{guest.directory}/bin")  # no qemu-img there
    (guest.directory / "bin/pvesm").write_text(f'#!/bin/sh\necho "{guest.directory}/${{2##*/}}"\n')
    with pytest.raises(TaskFailed, match=r"qemu-utils.*The frozen point is kept in snapshot vmward-disk-\d+ of the VM"):
        guest.export()


@pytest.mark.parametrize(
    ("script", "error", "part"),
    [
        ("echo rbd:pool/vm-100-disk-0:id=admin", Unsupported, "neither as a file nor as a device"),
        ("echo /dev/pve/vm-100-disk-0", NotFound, "lvchange -ay"),
        ("echo 'no such storage' >&2; exit 2", NotFound, "no such storage"),
    ],
)
def test_volumes_that_cannot_be_read_here(guest: Guest, script: str, error: type[Exception], part: str) -> None:
    (guest.directory / "bin/pvesm").write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(error, match=part):
        guest.export()


def test_another_node_and_another_disk_are_refused(guest: Guest) -> None:
    vm = guest.bench.vm(guest.id)
    with pytest.raises(NotFound, match=r"it has no such disk \(there are: scsi0\)"):
        guest.bench.hypervisor.submit_disk_export(vm, "scsi9", "/x")
    guest.bench.pve.vm(int(guest.id)).node = "pve9"
    guest.bench.hypervisor.refs()
    with pytest.raises(Unsupported, match="it is on node pve9"):
        guest.bench.hypervisor.submit_disk_export(vm, DISK, "/x")


def test_the_module_keeps_it_in_the_case(guest: Guest) -> None:
    guest.start()
    store = guest.directory / "case"
    store.mkdir()
    options = {
        "hypervisors": {"hv1": guest.bench.entry}, "vm": "desk1", "case": "2026-1", "dest": {"path": str(store)},
        "scratch": str(guest.directory / "scratch"),
    }  # fmt: skip
    guest.bench.one(SetSnapshot("vmward-memory-1", "present", "", False), guest.id)
    guest.ask('qemu-io drive0 "flush"')
    sh("qemu-img", "convert", "-U", "-O", "qcow2", str(guest.top), str(guest.directory / "as-it-was.qcow2"))
    task = {"vmward.remediation.vm_disk_export": options}
    first, again = play(guest.directory, [task, task])
    assert first["changed"], first
    assert first["evidence"] == {"disks": {"state": "stored"}}
    artefact = first["artefacts"][0]
    assert artefact["path"] == f"evidence/data/{guest.id}/disk-scsi0.qcow2"
    assert artefact["method"] == "snapshot by the hypervisor, converted by qemu-img on the VM's node (qcow2)"
    assert "identical" in sh(
        "qemu-img", "compare", str(store / artefact["path"]), str(guest.directory / "as-it-was.qcow2")
    )
    assert any("vmward-memory-1" in warning for warning in first.get("warnings", [])), first
    assert not again["changed"]
