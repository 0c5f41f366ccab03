# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence on Proxmox VE: what the guest claims, and its memory.

Simulated: the node's storage. ``pvesm`` is a script here that answers with a file made by the test.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import (
    NotVerified,
    TaskFailed,
    TimedOut,
    Unsupported,
)
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.info import Info
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.tests.integration.test_modules_control import play
from ansible_collections.vmward.remediation.tests.pve.bench import HELD, ProxmoxBench

HERE = platform.node().split(".")[0]
STATE = b"QEVM" + bytes(8000) + b"RAM-ONLY-MARKER"


@pytest.fixture
def guest(bench: ProxmoxBench) -> str:
    vm_id = bench.create("desk1", node=HERE)
    bench.pve.vm(int(vm_id)).agent = {
        "exec": {"ps -e": {"out-data": "1 init\n", "err-data": "é"}, "false": {"exitcode": 1}}
    }
    return vm_id


def test_what_the_guest_claims(bench: ProxmoxBench, guest: str) -> None:
    vm = bench.vm(guest)
    told = bench.hypervisor.guest_run(vm, ["ps", "-e"], 5, 1000)
    assert (told.status, told.stdout, told.stderr, told.truncated) == (0, b"1 init\n", "é".encode(), False)
    assert bench.hypervisor.guest_run(vm, ["ps", "-e"], 5, 3).truncated
    assert bench.hypervisor.guest_run(vm, ["false"], 5, 9).status == 1
    assert list(bench.pve.vm(int(guest)).agent_execs.values())[0] == ["ps", "-e"]


def test_a_guest_without_an_agent_and_one_that_stalls(bench: ProxmoxBench, guest: str) -> None:
    vm, machine = bench.vm(guest), bench.pve.vm(int(guest))
    machine.agent["exec"] = {"sleep 9": {"exited": 0}}
    with pytest.raises(TimedOut):
        bench.hypervisor.guest_run(vm, ["sleep", "9"], 0.3, 100)
    machine.agent_hangs = True
    with pytest.raises(TimedOut, match="got timeout"):
        bench.hypervisor.guest_run(vm, ["ps"], 1, 100)
    machine.agent = None
    with pytest.raises(Unsupported, match="guest agent is not running"):
        bench.hypervisor.guest_run(vm, ["ps"], 1, 100)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node whose storage answers for every volume with one file."""
    (tmp_path / "bin").mkdir()
    volume, script = tmp_path / "state.raw", tmp_path / "bin/pvesm"
    volume.write_bytes(STATE)
    script.write_text(f'#!/bin/sh\necho "$2" >> {tmp_path}/asked\necho {volume}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


def dumped(bench: ProxmoxBench, vm_id: str, path: Path) -> None:
    pending = bench.hypervisor.submit_memory_dump(bench.vm(vm_id), str(path))
    error = bench.hypervisor.wait([pending], 20)[vm_id]
    if error is not None:
        raise error


def test_memory_is_the_state_volume_of_a_snapshot_that_is_gone_afterwards(
    bench: ProxmoxBench, guest: str, node: Path
) -> None:
    dumped(bench, guest, node / "memory")
    assert (node / "memory").read_bytes() == STATE
    assert bench.hypervisor.progress(bench.vm(guest)) == (len(STATE), len(STATE))
    assert (node / "asked").read_text().startswith(f"local:{guest}/vm-{guest}-state-vmward-memory-")
    assert bench.pve.vm(int(guest)).snapshots == {}
    assert not [name for name in bench.pve.storages["local"]["volumes"] if "state" in name]


@pytest.mark.parametrize("how", ["refused", "slow", "later than the deadline"])
def test_a_snapshot_that_stays_takes_nothing_from_a_copy_that_is_whole(
    bench: ProxmoxBench, guest: str, node: Path, how: str
) -> None:
    if how == "refused":
        for second in range(10):  # names have the second in them
            bench.pve.fail("DELETE", f"/snapshot/vmward-memory-{int(time.time()) + second}", 500, "storage is gone")
    else:
        bench.pve.time_scale, bench.pve.delays = 1.0, {"qmdelsnapshot": 8.0}
        bench.hypervisor.tidying = 0.5 if how == "slow" else 60.0  # type: ignore[attr-defined]
    pending = bench.hypervisor.submit_memory_dump(bench.vm(guest), str(node / "memory"))
    assert bench.hypervisor.wait([pending], 5 if how == "later than the deadline" else 20)[guest] is None
    assert (node / "memory").read_bytes() == STATE
    (kept,) = bench.pve.vm(int(guest)).snapshots
    (remark,) = bench.hypervisor.remarks(guest)
    assert f"its evidence is whole, but snapshot {kept}" in remark


@pytest.mark.parametrize("path", ["exec", "exec-status"])
def test_an_agent_that_nobody_hears_of_ends_with_the_deadline(bench: ProxmoxBench, guest: str, path: str) -> None:
    """Proxmox VE itself may not answer: not its time-out counts, which is longer, but what the program was given."""
    vm = bench.vm(guest)
    bench.pve.hang[f"/qemu/{guest}/agent/{path}"] = HELD
    with pytest.raises(TimedOut, match=r"Cannot ask the guest agent of desk1 \(100\) on hv1: no answer for . s"):
        bench.hypervisor.guest_run(vm, ["ps"], 1, 100)


def test_what_an_earlier_run_left_is_evidence_and_stays(bench: ProxmoxBench, guest: str, node: Path) -> None:
    vm = bench.vm(guest)
    bench.hypervisor.wait([bench.hypervisor.submit_snapshot(vm, "vmward-memory-1", "", True)], 10)
    dumped(bench, guest, node / "memory")
    assert (node / "memory").read_bytes() == STATE
    assert list(bench.pve.vm(int(guest)).snapshots) == ["vmward-memory-1"]
    (remark,) = bench.hypervisor.remarks(guest)
    assert "an earlier run left its evidence in snapshot vmward-memory-1" in remark


def test_a_snapshot_that_an_earlier_run_still_takes_is_waited_for_and_stays(
    bench: ProxmoxBench, guest: str, node: Path
) -> None:
    bench.pve.time_scale, bench.pve.delays = 1.0, {"qmsnapshot": 1.5}
    first = bench.hypervisor.submit_memory_dump(bench.vm(guest), str(node / "first"))
    error = bench.hypervisor.wait([first], 0.3)[guest]
    assert isinstance(error, TimedOut)
    assert "The memory is kept in snapshot vmward-memory-" in str(error)
    assert "take it up" not in str(error)
    time.sleep(1.0)  # names have the second in them
    bench.hypervisor = bench.connect()
    dumped(bench, guest, node / "memory")
    assert (node / "memory").read_bytes() == STATE
    assert len(bench.pve.vm(int(guest)).snapshots) == 1


@pytest.mark.parametrize("how", ["no room", "no volume"])
def test_a_copy_that_fails_leaves_the_snapshot_that_holds_the_memory(
    bench: ProxmoxBench, guest: str, node: Path, how: str
) -> None:
    if how == "no volume":
        (node / "state.raw").unlink()
    else:
        (node / "memory").write_text("somebody's")  # a file that is there is never written over
    with pytest.raises(TaskFailed, match="The memory is kept in snapshot vmward-memory-"):
        dumped(bench, guest, node / "memory")
    (kept,) = bench.pve.vm(int(guest)).snapshots
    assert kept.startswith("vmward-memory-")


def left_behind(bench: ProxmoxBench, vm_id: str) -> None:
    """What dumps left in snapshots, what only looks like it, and a snapshot of the user's own."""
    vm = bench.vm(vm_id)
    for name, memory in (("vmward-memory-7", True), ("vmward-memory-8", False), ("vmward-memory-of-mine", True)):
        bench.hypervisor.wait([bench.hypervisor.submit_snapshot(vm, name, "", memory)], 10)


def copied(bench: ProxmoxBench, vm_id: str, kept: str, path: Path) -> None:
    pending = bench.hypervisor.submit_kept_memory(bench.vm(vm_id), kept, str(path))
    error = bench.hypervisor.wait([pending], 20)[vm_id]
    if error is not None:
        raise error


def test_the_memory_of_a_stopped_vm_that_a_broken_dump_left_is_told_and_copied(
    bench: ProxmoxBench, guest: str, node: Path
) -> None:
    left_behind(bench, guest)
    bench.do(SetPower("stopped", True, 0, {}), guest)
    assert bench.hypervisor.kept_memory(bench.vm(guest)) == ("vmward-memory-7",)
    before = bench.vm(guest)
    copied(bench, guest, "vmward-memory-7", node / "memory")
    assert (node / "memory").read_bytes() == STATE
    assert (node / "asked").read_text() == f"local:{guest}/vm-{guest}-state-vmward-memory-7.raw\n"
    assert bench.hypervisor.progress(before) == (len(STATE), len(STATE))
    assert bench.vm(guest) == before


def test_the_memory_of_a_vm_that_is_suspended_to_disk_is_told_and_copied(
    bench: ProxmoxBench, guest: str, node: Path
) -> None:
    left_behind(bench, guest)
    bench.hypervisor.link.call("", None, "post", f"nodes/{HERE}/qemu/{guest}/status/suspend", todisk=1)  # type: ignore[attr-defined]
    before, saved = bench.vm(guest), f"local:{guest}/vm-{guest}-state-suspend.raw"
    assert bench.hypervisor.kept_memory(before) == ("vmward-memory-7", saved)
    assert bench.one(Info(), guest).after["kept_memory"] == ["vmward-memory-7", saved]
    copied(bench, guest, saved, node / "memory")
    assert (node / "memory").read_bytes() == STATE
    assert (node / "asked").read_text() == f"{saved}\n"
    assert bench.vm(guest) == before


def test_a_kept_memory_that_cannot_be_read_is_said_to_be_where_it_is(
    bench: ProxmoxBench, guest: str, node: Path
) -> None:
    left_behind(bench, guest)
    bench.do(SetPower("stopped", True, 0, {}), guest)
    (node / "state.raw").unlink()
    with pytest.raises(TaskFailed, match="is not there.*The memory is kept in snapshot vmward-memory-7 of the VM"):
        copied(bench, guest, "vmward-memory-7", node / "memory")
    elsewhere = bench.create("far", node="pve9")
    with pytest.raises(Unsupported, match="it is on node pve9, and this task runs on"):
        bench.hypervisor.submit_kept_memory(bench.vm(elsewhere), "vmward-memory-7", str(node / "memory"))


def test_the_module_keeps_the_memory_of_a_stopped_vm_and_leaves_it_where_it_lay(
    bench: ProxmoxBench, guest: str, node: Path
) -> None:
    left_behind(bench, guest)
    bench.do(SetPower("stopped", True, 0, {}), guest)
    store = node / "case"
    store.mkdir()
    options = {
        "hypervisors": {"hv1": bench.entry}, "vm": "desk1", "case": "2026-1", "dest": {"path": str(store)},
        "scratch": str(node / "scratch"),
    }  # fmt: skip
    first, again, gone = play(
        node,
        [
            {"vmward.remediation.vm_memory_dump": options},
            {"vmward.remediation.vm_memory_dump": options},
            {"vmward.remediation.vm_memory_dump": {**options, "dest": {"path": str(store), "folder": "moved"}},
             "environment": {"PATH": "/usr/bin:/bin"}},
        ],
    )  # fmt: skip
    assert first["changed"], first
    assert first["evidence"] == {"memory": {"state": "stored"}}
    artefact = first["artefacts"][0]
    assert artefact["path"] == f"evidence/data/{guest}/memory-vmward-memory-7.qemu-state"
    assert (store / artefact["path"]).read_bytes() == STATE
    assert artefact["method"].endswith("copied from where it lay: vmward-memory-7")
    assert artefact["freeze_measured_by"] == "the guest was stopped already"
    assert "its memory lies in vmward-memory-7 too, where it stays" in first["warnings"]
    assert not again["changed"]
    assert again["evidence"] == {"memory": {"state": "stored"}}
    assert gone["failed"]
    assert "lies in 'vmward-memory-7'. What cannot be copied, keep as evidence by hand" in gone["msg"]
    assert "vmward-memory-7" in bench.pve.vm(int(guest)).snapshots


def test_another_node_than_the_vms_is_refused_before_anything_is_touched(bench: ProxmoxBench, node: Path) -> None:
    vm_id = bench.create("far", node="pve9")
    with pytest.raises(Unsupported, match="it is on node pve9, and this task runs on"):
        bench.hypervisor.submit_memory_dump(bench.vm(vm_id), str(node / "memory"))
    assert bench.pve.vm(int(vm_id)).snapshots == {}


def test_the_module_keeps_it_with_its_kind(bench: ProxmoxBench, guest: str, node: Path) -> None:
    store = node / "case"
    store.mkdir()
    options = {
        "hypervisors": {"hv1": bench.entry}, "vm": "desk1", "case": "2026-1", "dest": {"path": str(store)},
    }  # fmt: skip
    long = {**options, "scratch": str(node / "scratch")}
    memory, again, claims = play(
        node,
        [
            {"vmward.remediation.vm_memory_dump": long},
            {"vmward.remediation.vm_memory_dump": long},
            {"vmward.remediation.vm_guest_run": {**options, "collect": ["users"]}},
        ],
    )
    assert memory["changed"], memory
    assert memory["evidence"] == {"memory": {"state": "stored"}}
    artefact = memory["artefacts"][0]
    assert artefact["path"] == f"evidence/data/{guest}/memory.qemu-state"
    assert (store / artefact["path"]).read_bytes() == STATE
    assert "proxmox-ve" in artefact["tools"]
    assert not again["changed"]
    assert claims["claims"]["users"]["status"] == 0
    bench.do(SetPower("stopped", True, 0, {}), guest)


@pytest.mark.parametrize("what", ["memory", "disk"])
def test_nothing_is_taken_of_another_vm_that_has_got_the_id(
    bench: ProxmoxBench, guest: str, node: Path, what: str
) -> None:
    vm = bench.vm(guest)
    bench.vanish(guest)
    bench.create("till7", node=HERE)
    submit = {"memory": lambda: bench.hypervisor.submit_memory_dump(vm, str(node / "out"))}
    submit["disk"] = lambda: bench.hypervisor.submit_disk_export(vm, "scsi0", str(node / "out"))
    with pytest.raises(NotVerified, match="another VM has its id now, till7"):
        submit[what]()
    assert not (node / "out").exists()
    assert bench.pve.vm(int(guest)).snapshots == {}
