# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs in a vSphere guest: bounded in time and size, nothing left in the guest, every refusal told apart.

Simulated: the guest is this machine; its programs run here, in a shell as VMware Tools start them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect, secrets_of
from ansible_collections.vmward.remediation.plugins.module_utils._errors import (
    AuthFailed,
    TaskFailed,
    TimedOut,
    Unsupported,
    VmwardError,
)
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Capability
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation, Vm
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere import guest as guests
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.api import VsphereHypervisor
from ansible_collections.vmward.remediation.tests.conformance.vsphere import SEAL, VsphereBench, finish
from ansible_collections.vmward.remediation.tests.integration.test_modules_control import play

USER, PASSWORD = "ir", 'guest\'s "secret" <pass> word'
PLACES = (Path("/dev/shm"), Path("/tmp"))


def entry(vsphere: VsphereBench, **more: Any) -> dict[str, Any]:
    return {"vsphere": {**vsphere.server.entry["vsphere"], "guest_username": USER, "guest_password": PASSWORD, **more}}


@pytest.fixture
def hypervisor(vsphere: VsphereBench) -> Iterator[VsphereHypervisor]:
    made = connect("hv1", entry(vsphere))
    assert isinstance(made, VsphereHypervisor)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = left()
    yield
    assert left() == before


def left() -> set[Path]:
    """Of what is made in guests; others, who may run beside, have a dash after the name."""
    return {path for place in PLACES for path in place.glob("vmward[!-]*")}


def guest(vsphere: VsphereBench, name: str = "desk1", family: str = "linuxGuest") -> str:
    vm_id = vsphere.create(name, running=False)
    option = vim.option.OptionValue(key="vmward.test.guest", value=f"{family} {USER} {PASSWORD}")
    finish(vsphere.machine(vm_id).ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[option])))
    finish(vsphere.machine(vm_id).PowerOnVM_Task())
    return vm_id


def test_what_a_guest_prints_comes_out_and_nothing_is_left_in_it(
    vsphere: VsphereBench, hypervisor: VsphereHypervisor
) -> None:
    vm = vsphere.vm(guest(vsphere))
    vsphere.server.forget_calls()
    told = hypervisor.guest_run(vm, ["sh", "-c", "echo 'a $b'; echo é >&2; pwd; exit 3"], 10, 1000)
    assert (told.status, told.stdout, told.stderr, told.truncated) == (3, b"a $b\n/\n", "é\n".encode(), False)
    calls = vsphere.server.calls()
    assert calls["GET /guestFile"] == 2
    assert calls["DeleteDirectoryInGuest"] == 1
    assert "Login" not in calls
    assert hypervisor.guest_run(vm, ["no-such-program"], 10, 1000).status == 127
    assert hypervisor.remarks(vm.ref.id) == ()


def test_a_guest_that_is_cut_off_is_asked_all_the_same(vsphere: VsphereBench, hypervisor: VsphereHypervisor) -> None:
    vm_id = guest(vsphere)
    vsphere.one(SEAL, vm_id)
    vm = vsphere.vm(vm_id)
    assert vm.isolation is Isolation.SEALED
    assert hypervisor.guest_run(vm, ["cat", "/proc/self/mounts"], 10, 1 << 20).stdout.startswith(
        Path("/proc/self/mounts").read_bytes()[:9]
    )


@pytest.mark.parametrize(
    "flood",
    ["head -c 9000000 /dev/zero", "ulimit -f unlimited; head -c 9000000 /dev/zero; head -c 9000000 /dev/zero >&2"],
)
def test_a_guest_that_floods_is_cut_to_the_limit(
    vsphere: VsphereBench, hypervisor: VsphereHypervisor, flood: str
) -> None:
    """The shell in the guest keeps its file small; one that does not is not believed."""
    told = hypervisor.guest_run(vsphere.vm(guest(vsphere)), ["sh", "-c", flood], 10, 1000)
    assert told.truncated
    assert told.stdout == bytes(1000)
    assert len(told.stderr) <= 1000


def test_a_program_that_does_not_end_is_ended_at_the_deadline(
    vsphere: VsphereBench, hypervisor: VsphereHypervisor
) -> None:
    vm = vsphere.vm(guest(vsphere))
    vsphere.server.forget_calls()
    with pytest.raises(TimedOut, match="Cannot run sleep in the guest of desk1 .* has not answered within 1 s"):
        hypervisor.guest_run(vm, ["sleep", "999"], 1, 100)
    calls = vsphere.server.calls()
    assert (calls["TerminateProcessInGuest"], calls["DeleteDirectoryInGuest"]) == (1, 1)


@pytest.mark.parametrize("stalls", ["StartProgramInGuest", "GET /guestFile"])
def test_a_guest_that_does_not_answer_is_given_up(
    vsphere: VsphereBench, hypervisor: VsphereHypervisor, stalls: str
) -> None:
    vm = vsphere.vm(guest(vsphere))
    vsphere.server.delays(methods={stalls: 3000})
    with pytest.raises(TimedOut, match="the guest has not answered within 1 s"):
        hypervisor.guest_run(vm, ["true"], 1, 100)


def test_who_cannot_be_asked_is_told_apart(vsphere: VsphereBench, hypervisor: VsphereHypervisor) -> None:
    silent = vsphere.vm(vsphere.create("silent"))
    with pytest.raises(Unsupported, match=r"VMware Tools in it take no orders \(their state: guestToolsNotRunning\)"):
        hypervisor.guest_run(silent, ["ps"], 5, 100)
    windows = vsphere.vm(guest(vsphere, "windows", "windowsGuest"))
    with pytest.raises(Unsupported, match=r"it is no Linux guest \(windowsGuest\)"):
        hypervisor.guest_run(windows, ["ps"], 5, 100)
    vm = vsphere.vm(guest(vsphere))
    stranger = connect("hv1", entry(vsphere, guest_password="not it"))
    with pytest.raises(
        AuthFailed, match="the guest refuses ir .*Check guest_username and guest_password of hv1"
    ) as told:
        stranger.guest_run(vm, ["ps"], 5, 100)
    stranger.close()
    assert "not it" not in str(told.value)
    vsphere.server.faults({"method": "StartProgramInGuest", "fault": "NoPermission"})
    with pytest.raises(AuthFailed, match="the privilege .* is missing"):
        hypervisor.guest_run(vm, ["ps"], 5, 100)
    vsphere.server.faults({"method": "GET /guestFile", "status": 500})
    with pytest.raises(TaskFailed, match="HTTP status 500"):
        hypervisor.guest_run(vm, ["ps"], 5, 100)
    assert hypervisor.remarks(vm.ref.id) == ()


def test_what_stays_in_the_guest_is_told(vsphere: VsphereBench, hypervisor: VsphereHypervisor) -> None:
    vm = vsphere.vm(guest(vsphere))
    before = left()
    vsphere.server.faults({"method": "DeleteDirectoryInGuest", "fault": "The agent is busy"})
    assert hypervisor.guest_run(vm, ["true"], 10, 100).status == 0
    (stays,) = left() - before
    (remark,) = hypervisor.remarks(vm.ref.id)
    assert f"What was written into its {stays} may still be there" in remark
    for path in stays.iterdir():
        path.unlink()
    stays.rmdir()


def test_a_guest_without_shared_memory_has_another_place(
    vsphere: VsphereBench, hypervisor: VsphereHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests, "NO_DISK", "/no/such/place")
    assert hypervisor.guest_run(vsphere.vm(guest(vsphere)), ["echo", "x"], 10, 100).stdout == b"x\n"


@pytest.mark.parametrize(
    "place", ["/tmp/$(reboot)", "relative", "/tmp/../etc", "/tmp/a b", "/" + "a" * 200, "/tmp/x\n"]
)
def test_a_strange_directory_is_not_believed(place: str) -> None:
    assert not guests.DIRECTORY.fullmatch(place)


def test_without_a_login_for_guests_it_says_so(vsphere: VsphereBench) -> None:
    assert Capability.GUEST_RUN not in vsphere.hypervisor.capabilities()
    assert "Set guest_username and guest_password" in vsphere.hypervisor.why_not(Capability.GUEST_RUN)
    assert PASSWORD in secrets_of({"hv1": entry(vsphere)})


def test_the_module_keeps_what_the_guest_claims(vsphere: VsphereBench, tmp_path: Path) -> None:
    guest(vsphere)
    store = tmp_path / "case"
    store.mkdir()
    options = {"vm": "desk1", "case": "2026-1", "dest": {"path": str(store)}, "collect": ["mounts"]}
    unnamed, claims = play(
        tmp_path,
        [
            {"vmward.remediation.vm_guest_run": {**options, "hypervisors": {"hv1": vsphere.entry}}},
            {"vmward.remediation.vm_guest_run": {**options, "hypervisors": {"hv1": entry(vsphere)}}},
        ],
    )
    assert unnamed["failed"]
    assert "Set guest_username and guest_password in its entry" in unnamed["msg"]
    assert claims["claims"]["mounts"]["status"] == 0
    assert claims["evidence"] == {"connections": {"state": "stored"}}
    assert PASSWORD not in str(claims)


def test_a_lie_of_the_guest_is_an_error_of_ours(vsphere: VsphereBench, hypervisor: VsphereHypervisor) -> None:
    """A process that the guest forgets."""
    vm = vsphere.vm(guest(vsphere))
    errand = guests.Errand(hypervisor, vm, "ps", 5)
    errand.require_tools()
    errand.pid = 2**40
    with pytest.raises(VmwardError, match="does not know its process"):
        errand.awaited()


def test_the_calls_of_a_program_are_few(vsphere: VsphereBench, hypervisor: VsphereHypervisor) -> None:
    vm_id = guest(vsphere)
    found = hypervisor.read([vm_id])[vm_id]
    assert isinstance(found, Vm)
    vsphere.server.forget_calls()
    assert hypervisor.guest_run(found, ["true"], 30, 1000).status == 0
    calls = vsphere.server.calls()
    assert 0 < calls.pop("ListProcessesInGuest") < 40  # until it has ended
    assert calls == {
        "RetrievePropertiesEx": 2,
        "CreateTemporaryDirectoryInGuest": 1,
        "StartProgramInGuest": 1,
        "InitiateFileTransferFromGuest": 2,
        "GET /guestFile": 2,
        "DeleteDirectoryInGuest": 1,
    }
