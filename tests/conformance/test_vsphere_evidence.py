# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory and disks out of vSphere: leases kept alive, whole or not at all, no snapshot left."""

from __future__ import annotations

import random
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import NotFound, TaskFailed, VmwardError
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.content import flaw_of_core, flaw_of_qcow2
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere import steps
from ansible_collections.vmward.remediation.plugins.module_utils._wait import poll_all
from ansible_collections.vmward.remediation.tests.conformance.vsphere import SIZE, VsphereBench, finish

GRAIN = 64 * 1024


def noise() -> bytes:
    """A disk with data at its begin, across a grain's edge and at its very end."""
    drawn = random.Random(1)
    content = bytearray(SIZE)
    for place in (0, GRAIN - 700, SIZE // 2 + 5, SIZE - 4096):
        content[place : place + 4096] = drawn.randbytes(min(4096, SIZE - place))
    return bytes(content)


def filled(vsphere: VsphereBench, power: str = "running") -> tuple[str, bytes]:
    vm_id = vsphere.create("desk1", running=power != "stopped")
    if power == "paused":
        vsphere.one(SetPower(power, False, 0, {}), vm_id)
    content = noise()
    vsphere.fill(vsphere.vm(vm_id).disks[0].layers[0].path, content)
    return vm_id, content


def export(vsphere: VsphereBench, vm_id: str, path: Path, deadline: float = 30) -> VmwardError | None:
    """As the module does it: what does not end in time is aborted."""
    vm = vsphere.vm(vm_id)
    pending = vsphere.hypervisor.submit_disk_export(vm, vm.disks[0].id, str(path))
    error = poll_all([pending], deadline)[vm_id]
    if error is not None and pending.abort:
        pending.abort()
    return error


def raw(image: Path, kind: str = "qcow2") -> bytes:
    plain = image.with_suffix(".plain")
    subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", str(image), str(plain)], check=True)
    return plain.read_bytes()


@pytest.mark.parametrize("power", ["running", "paused", "stopped"])
def test_a_disk_comes_out_whole_and_sparse_and_nothing_is_left(
    vsphere: VsphereBench, tmp_path: Path, power: str
) -> None:
    vm_id, content = filled(vsphere, power)
    vsphere.server.forget_calls()
    assert export(vsphere, vm_id, tmp_path / "disk.qcow2") is None
    head = (tmp_path / "disk.qcow2").read_bytes()
    assert flaw_of_qcow2(head[:4096], SIZE) == ""
    assert len(head) < SIZE // 8
    assert raw(tmp_path / "disk.qcow2") == content
    assert vsphere.hypervisor.remarks(vm_id) == ()
    vm = vsphere.vm(vm_id)
    assert (vm.power.value, vm.snapshots) == (power, ())
    assert vsphere.hypervisor.progress(vm) == (SIZE, SIZE)
    calls = vsphere.server.calls()
    assert (calls["HttpNfcLeaseComplete"], calls.get("HttpNfcLeaseAbort", 0)) == (1, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.plain", "disk.qcow2"]


def test_the_stream_is_what_others_read_too(vsphere: VsphereBench, tmp_path: Path) -> None:
    """The test server's own export, read by QEMU: both it and vmward's reader follow the same format."""
    vm_id, content = filled(vsphere, "stopped")
    lease = vsphere.machine(vm_id).ExportVm()
    (offered,) = lease.info.deviceUrl
    tls = ssl.create_default_context(cafile=vsphere.server.ca)
    with urllib.request.urlopen(offered.url, context=tls, timeout=30) as answer:
        (tmp_path / "disk.vmdk").write_bytes(answer.read())
    lease.Complete()
    assert raw(tmp_path / "disk.vmdk", "vmdk") == content


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"method": "GET /nfc", "half": True}, "not the whole disk"),
        ({"method": "GET /nfc", "drop": True}, "the connection to 127.0.0.1:"),
        ({"method": "GET /nfc", "status": 503}, "HTTP status 503"),
        ({"method": "ExportSnapshot", "fault": "NoPermission"}, "is missing"),
        ({"method": "CreateSnapshot_Task", "fault": "Disk full", "task": True}, "Disk full"),
    ],
)
def test_half_a_disk_is_none(vsphere: VsphereBench, tmp_path: Path, fault: dict[str, object], sentence: str) -> None:
    vm_id, _content = filled(vsphere)
    vsphere.server.forget_calls()
    vsphere.server.faults(fault)
    assert sentence in str(export(vsphere, vm_id, tmp_path / "disk.qcow2"))
    assert vsphere.vm(vm_id).snapshots == ()
    assert list(tmp_path.iterdir()) == []
    calls = vsphere.server.calls()
    assert calls.get("HttpNfcLeaseAbort", 0) == ("nfc" in str(fault["method"]))
    assert export(vsphere, vm_id, tmp_path / "disk.qcow2") is None


def test_a_lease_is_kept_alive_as_long_as_it_takes(vsphere: VsphereBench, tmp_path: Path) -> None:
    vm_id, content = filled(vsphere, "stopped")
    vsphere.server.delays(methods={"GET /nfc": 5000})  # the lease ends after 3 s of silence
    vsphere.server.forget_calls()
    assert export(vsphere, vm_id, tmp_path / "disk.qcow2") is None
    assert vsphere.server.calls()["HttpNfcLeaseProgress"] >= 4
    assert raw(tmp_path / "disk.qcow2") == content


def test_an_export_that_is_given_up_leaves_no_lease_no_snapshot_and_no_file(
    vsphere: VsphereBench, tmp_path: Path
) -> None:
    vm_id, _content = filled(vsphere)
    vsphere.server.delays(methods={"GET /nfc": 4000})
    vsphere.server.forget_calls()
    assert "it still runs after" in str(export(vsphere, vm_id, tmp_path / "disk.qcow2", deadline=2))
    assert vsphere.server.calls()["HttpNfcLeaseAbort"] == 1
    assert vsphere.vm(vm_id).snapshots == ()
    time.sleep(3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["disk", "memory"])
def test_a_snapshot_that_comes_after_the_job_was_given_up_goes_too_or_is_named(
    vsphere: VsphereBench, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm_id, _content = filled(vsphere)
    vm = vsphere.vm(vm_id)

    def given_up() -> None:
        hypervisor = vsphere.hypervisor
        path = str(tmp_path / "out")
        pending = (
            hypervisor.submit_disk_export(vm, vm.disks[0].id, path)
            if what == "disk"
            else hypervisor.submit_memory_dump(vm, path)
        )
        assert "it still runs" in str(poll_all([pending], 0.5)[vm_id])
        assert pending.abort is not None
        pending.abort()

    vsphere.server.delays(tasks={"CreateSnapshot": 2000})
    given_up()  # vSphere ends the task
    time.sleep(2.5)
    assert vsphere.vm(vm_id).snapshots == ()
    vsphere.server.faults({"method": "CancelTask", "fault": "It cannot be cancelled", "times": 9})
    given_up()
    assert vsphere.vm(vm_id).snapshots == ()
    monkeypatch.setattr(steps, "GRACE", 0)
    with pytest.raises(TaskFailed, match=f"The snapshot 'vmward {what} .*' of desk1 is left behind"):
        given_up()
    vsphere.server.delays()
    time.sleep(2.5)
    assert [one.name.startswith(f"vmward {what} ") for one in vsphere.vm(vm_id).snapshots] == [True]
    finish(vsphere.machine(vm_id).CreateSnapshot_Task(f"vmward {what} of mine", "keep it", False, False))
    path = tmp_path / "again"
    pending = (
        vsphere.hypervisor.submit_disk_export(vm, vm.disks[0].id, str(path))
        if what == "disk"
        else vsphere.hypervisor.submit_memory_dump(vm, str(path))
    )
    assert poll_all([pending], 30) == {vm_id: None}
    monkeypatch.setattr(steps, "GRACE", 30)
    (remark,) = vsphere.hypervisor.remarks(vm_id)
    (left, mine) = vsphere.vm(vm_id).snapshots
    assert f"An earlier run left the snapshot '{left.name}' of desk1" in remark, "it may hold evidence: it stays"
    assert mine.description == "keep it"
    assert vsphere.hypervisor.kept_memory(vm) == ((left.name,) if what == "memory" else ())


def test_the_memory_of_a_stopped_vm_that_a_broken_dump_left_is_fetched_and_stays(
    vsphere: VsphereBench, tmp_path: Path
) -> None:
    vm_id = vsphere.create("desk1")
    machine = vsphere.machine(vm_id)
    finish(machine.CreateSnapshot_Task("vmward memory 2026-11-22T03:58:46Z", steps.NOTHING_KEPT, True, False))
    vsphere.one(SetPower("stopped", True, 0, {}), vm_id)
    vm = vsphere.vm(vm_id)
    (kept,) = vsphere.hypervisor.kept_memory(vm)
    pending = vsphere.hypervisor.submit_kept_memory(vm, kept, str(tmp_path / "memory"))
    assert poll_all([pending], 30) == {vm_id: None}
    content = (tmp_path / "memory").read_bytes()
    assert flaw_of_core(content[:4096], len(content)) == ""
    assert content[4096:].startswith(b"memory of ")
    assert vsphere.vm(vm_id) == vm
    gone = vsphere.hypervisor.submit_kept_memory(vm, "vmward memory 1", str(tmp_path / "none"))
    assert "its snapshot 'vmward memory 1' is gone" in str(poll_all([gone], 30)[vm_id])


@pytest.mark.parametrize("lost", ["as it is asked for", "as it is awaited", "as it is given up"])
def test_a_snapshot_of_which_nobody_knows_for_the_connection_is_lost_is_named(
    vsphere: VsphereBench, tmp_path: Path, lost: str
) -> None:
    vm_id = vsphere.create("desk1")
    pending = vsphere.hypervisor.submit_memory_dump(vsphere.vm(vm_id), str(tmp_path / "memory"))
    if lost == "as it is asked for":
        vsphere.server.faults({"method": "CreateSnapshot_Task", "drop": True})
        told = poll_all([pending], 10)[vm_id]
    else:
        vsphere.server.delays(tasks={"CreateSnapshot": 2000})
        assert pending.poll() is False
        vsphere.server.faults(
            *({"method": name, "drop": True, "times": 99} for name in ("RetrievePropertiesEx", "CancelTask"))
        )
        if lost == "as it is awaited":
            told = poll_all([pending], 10)[vm_id]
        else:
            assert pending.abort is not None
            with pytest.raises(TaskFailed) as raised:
                pending.abort()
            told = raised.value
    vsphere.server.faults()
    assert "The snapshot 'vmward memory " in str(told)
    assert "left behind: remove it with vm_snapshot" in str(told)


@pytest.mark.parametrize("slow", [False, True], ids=["fails", "is slow"])
def test_a_copy_that_is_whole_stays_however_its_snapshot_goes(
    vsphere: VsphereBench, tmp_path: Path, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm_id = vsphere.create("desk1")
    if slow:
        monkeypatch.setattr(steps, "GRACE", 0)
        vsphere.server.delays(tasks={"RemoveSnapshot": 6000})
    else:
        vsphere.server.faults({"method": "RemoveSnapshot_Task", "fault": "The disk is locked", "task": True})
    vm = vsphere.vm(vm_id)
    began = time.monotonic()
    assert poll_all([vsphere.hypervisor.submit_memory_dump(vm, str(tmp_path / "memory"))], 30) == {vm_id: None}
    assert (tmp_path / "memory").stat().st_size == 4096 + vm.memory
    (remark,) = vsphere.hypervisor.remarks(vm_id)
    (left,) = vsphere.vm(vm_id).snapshots
    assert "copied whole" in remark
    assert f"'{left.name}'" in remark
    assert ("has not ended" if slow else "The disk is locked") in remark
    if slow:
        assert time.monotonic() - began < 5.5
        assert poll_all([vsphere.hypervisor.submit_memory_dump(vm, str(tmp_path / "next"))], 30) == {vm_id: None}
        monkeypatch.setattr(steps, "GRACE", 30)
        assert vsphere.hypervisor.remarks(vm_id) == (), "the next one waited for it; both are gone"
        assert vsphere.vm(vm_id).snapshots == ()


def test_a_disk_that_is_not_there_is_refused(vsphere: VsphereBench, tmp_path: Path) -> None:
    vm_id = vsphere.create("desk1")
    with pytest.raises(NotFound, match="there are: disk-"):
        vsphere.hypervisor.submit_disk_export(vsphere.vm(vm_id), "disk-1", str(tmp_path / "x"))


def test_of_two_disks_each_is_its_own(vsphere: VsphereBench, tmp_path: Path) -> None:
    one, other = vsphere.create("desk1", running=False), vsphere.create("desk2", running=False)
    paths = [vsphere.vm(vm_id).disks[0].layers[0].path for vm_id in (one, other)]
    for number, place in enumerate(paths, 1):
        vsphere.fill(place, bytes([number]) * 1000)
    vsphere.attach(one, paths[1])
    vm = vsphere.vm(one)
    for number, disk in enumerate(vm.disks, 1):
        path = tmp_path / f"{number}.qcow2"
        assert poll_all([vsphere.hypervisor.submit_disk_export(vm, disk.id, str(path))], 30) == {one: None}
        assert raw(path)[:1000] == bytes([number]) * 1000


# Memory


@pytest.mark.parametrize("power", ["running", "paused"])
def test_the_memory_is_fetched_whole_and_no_snapshot_is_left(vsphere: VsphereBench, tmp_path: Path, power: str) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.one(SetPower(power, False, 0, {}), vm_id)
    path = tmp_path / "memory.elf"
    vm = vsphere.vm(vm_id)
    assert poll_all([vsphere.hypervisor.submit_memory_dump(vm, str(path))], 30) == {vm_id: None}
    content = path.read_bytes()
    assert flaw_of_core(content[:4096], len(content)) == ""
    assert len(content) == 4096 + vm.memory
    assert content[4096:].startswith(b"memory of ")
    assert vsphere.hypervisor.remarks(vm_id) == ()
    assert vsphere.vm(vm_id).snapshots == ()
    assert vsphere.vm(vm_id).power.value == power
    assert vsphere.hypervisor.progress(vm) == (vm.memory, vm.memory)


def test_a_memory_file_that_cannot_be_had_is_said_and_no_snapshot_is_left(
    vsphere: VsphereBench, tmp_path: Path
) -> None:
    vm_id = vsphere.create("desk1")
    vm = vsphere.vm(vm_id)
    vsphere.server.faults({"method": "GET /folder", "status": 403})
    told = poll_all([vsphere.hypervisor.submit_memory_dump(vm, str(tmp_path / "one"))], 30)[vm_id]
    assert "HTTP status 403" in str(told)
    vsphere.server.faults({"method": "CreateSnapshot_Task", "fault": "The datastore is full", "task": True})
    told = poll_all([vsphere.hypervisor.submit_memory_dump(vm, str(tmp_path / "two"))], 30)[vm_id]
    assert "The datastore is full" in str(told)
    assert vsphere.vm(vm_id).snapshots == ()


def test_the_calls_of_a_dump_and_of_an_export_are_few(vsphere: VsphereBench, tmp_path: Path) -> None:
    """Besides asking again how far a task is, which takes as long as the task."""
    vm_id, _content = filled(vsphere)
    vm = vsphere.vm(vm_id)
    snapshot = {"CreateSnapshot_Task": 1, "RemoveSnapshot_Task": 1}
    dump = vsphere.hypervisor.submit_memory_dump(vm, str(tmp_path / "memory.elf"))
    vsphere.server.forget_calls()
    assert poll_all([dump], 30) == {vm_id: None}
    calls = vsphere.server.calls()
    assert 0 < calls.pop("RetrievePropertiesEx") < 40
    calls.pop("RetrieveServiceContent")  # of the test server to itself, for the file
    assert calls == snapshot
    vsphere.server.forget_calls()
    assert export(vsphere, vm_id, tmp_path / "disk.qcow2") is None
    calls = vsphere.server.calls()
    assert 0 < calls.pop("RetrievePropertiesEx") < 40
    calls.pop("HttpNfcLeaseProgress")  # so many as the lease is old
    assert calls == {**snapshot, "ExportSnapshot": 1, "HttpNfcLeaseComplete": 1, "GET /nfc": 1}
