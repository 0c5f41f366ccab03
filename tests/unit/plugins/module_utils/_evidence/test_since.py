# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the record of the last clean scan is relied on."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.since import Course, doubt, state_of
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Capability, Pending, done
from ansible_collections.vmward.remediation.plugins.module_utils._model import Disk, Layer, PowerState, Vm, VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._scan.known import Known


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    paths = [tmp_path / name for name in ("top.qcow2", "base.qcow2")]
    for path in paths:
        path.write_bytes(b"x")
    return Disk("vda", "virtio", 1 << 30, 0, False, tuple(Layer(str(path), "qcow2") for path in paths))


def why(then: Disk, now: Disk, present: tuple[str, ...] = ("vmward-scan-1",)) -> str:
    return doubt({"checkpoint": "vmward-scan-1", "disks": {"vda": state_of(then)}}, [now], present)


def test_what_is_as_it_was_is_relied_on(disk: Disk) -> None:
    assert why(disk, disk) == ""
    Path(disk.layers[0].path).write_bytes(b"the guest wrote")
    assert why(disk, disk) == ""


def test_a_written_replaced_or_missing_image_is_not(disk: Disk) -> None:
    then = {"checkpoint": "vmward-scan-1", "disks": {"vda": state_of(disk)}}
    os.utime(disk.layers[1].path, (1, 1))
    assert "another size, source or image" in doubt(then, [disk], ["vmward-scan-1"])
    then["disks"] = {"vda": state_of(disk)}
    top = Path(disk.layers[0].path)
    top.rename(top.with_suffix(".old"))
    top.write_bytes(b"x")
    assert "another size, source or image" in doubt(then, [disk], ["vmward-scan-1"])
    top.unlink()
    assert state_of(disk) == []


def test_another_size_or_chain_is_not(disk: Disk) -> None:
    assert why(disk, replace(disk, size=2 << 30))
    assert why(disk, replace(disk, layers=disk.layers[:1]))
    assert why(disk, replace(disk, id="vdb")) == "disk vdb was not scanned then"


def test_only_the_newest_of_ours_counts(disk: Disk) -> None:
    assert "is gone" in why(disk, disk, ())
    assert "left a later checkpoint" in why(disk, disk, ("vmward-scan-1", "vmward-scan-2"))
    assert doubt({}, [disk], ()) == "there is no record of a clean scan"


def test_a_record_is_of_one_vm_and_whole(tmp_path: Path) -> None:
    known = Known(str(tmp_path))
    known.keep_record("one", {"checkpoint": "c"}, {"vda": b"abc", "vdb": b""})
    found = known.record("one")
    assert found is not None
    assert (found[0]["checkpoint"], found[1]) == ("c", {"vda": b"abc", "vdb": b""})
    assert known.record("other") is None
    (path,) = tmp_path.glob("*.checkpoint")
    assert path.stat().st_mode & 0o777 == 0o600
    path.rename(path.with_name(Path(known._record_path("other")).name))
    assert known.record("other") is None
    known.keep_record("one", {}, {"vda": b"abc"})
    known.forget_record("one")
    assert known.record("one") is None
    known.forget_record("one")


class Checkpointed:
    """A hypervisor that keeps the names of checkpoints only."""

    name = "paper"

    def __init__(self, vm: Vm, *names: str) -> None:
        self._vm, self.names = vm, list(names)

    def capabilities(self) -> frozenset[Capability]:
        return frozenset([Capability.CHECKPOINT])

    def read(self, ids: list[str]) -> dict[str, Vm]:
        return dict.fromkeys(ids, self._vm)

    def checkpoints(self, vm: Vm) -> tuple[str, ...]:
        return tuple(self.names)

    def submit_remove_checkpoints(self, vm: Vm, names: list[str]) -> Pending:
        self.names = [name for name in self.names if name not in names]
        return done(vm.ref, "remove")

    def wait(self, pending: list[Pending], seconds: float) -> dict[str, None]:
        return {one.vm.id: None for one in pending}


@pytest.fixture
def vm(disk: Disk) -> Vm:
    return Vm(VmRef("paper", "1", "desk1"), PowerState.RUNNING, (), 1 << 30, True, (disk,))


def course(vm: Vm, directory: Path, *names: str) -> tuple[Course, Any]:
    """With the record of a clean scan."""
    known = Known(str(directory))
    known.create()
    states = {disk.id: state_of(disk) for disk in vm.disks}
    head = {"checkpoint": "vmward-scan-1", "at": 1, "binding": "b", "disks": states}
    known.keep_record(vm.ref.id, head, {"vda": b"r"})
    hypervisor: Any = Checkpointed(vm, "vmward-scan-1", *names)
    return Course(hypervisor, vm, vm.disks, str(directory)), hypervisor


def test_an_image_below_that_changes_while_another_job_is_waited_for_is_noticed(vm: Vm, tmp_path: Path) -> None:
    one, hypervisor = course(vm, tmp_path / "known")
    assert one.since == "vmward-scan-1"

    def freeze(name: str, since: str) -> None:
        Path(vm.disks[0].layers[1].path).write_bytes(b"somebody wrote to the base")
        hypervisor.names.append(name)

    one.begin(freeze)
    assert one.former(vm.disks[0]) is None
    assert "image below it" in one.told([])["why"]


def test_what_cannot_be_tidied_is_told_and_takes_no_verdict_away(
    vm: Vm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, hypervisor = course(vm, tmp_path / "known")

    def failing(*_arguments: Any) -> Any:
        raise TaskFailed("Cannot remove it: the daemon hangs.")

    one.begin(lambda name, since: hypervisor.names.append(name))
    monkeypatch.setattr(hypervisor, "submit_remove_checkpoints", failing)
    one.tidy()
    told = one.told([])
    assert (told["since"], told["kept"]) == ("vmward-scan-1", "vmward-scan-1")
    assert "the daemon hangs" in told["why"]
    assert one.is_other()


def test_a_record_that_cannot_be_written_leaves_the_former_one(
    vm: Vm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, hypervisor = course(vm, tmp_path / "known")
    one.begin(lambda name, since: hypervisor.names.append(name))
    one.records.binding, one.records.bodies = "b", {"vda": b"new"}

    def full(*_arguments: Any) -> Any:
        raise OSError("No space left on device")

    monkeypatch.setattr(Known, "keep_record", full)
    one.end({"verdict": "clean", "archives_unopened": 0})
    one.tidy()
    told = one.told([])
    assert (told["since"], told["kept"], hypervisor.names) == ("vmward-scan-1", "vmward-scan-1", ["vmward-scan-1"])
    assert "No space left" in told["why"]
    assert not one.is_other()


@pytest.mark.parametrize(
    ("bound", "bodies", "touch", "words"),
    [
        ("", {"vda": b""}, False, "signatures can't be identified"),
        ("b", {}, False, "no record of disk vda"),
        ("b", {"vda": b""}, True, "while it was read"),
    ],
)
def test_a_clean_scan_that_keeps_nothing_says_why(
    vm: Vm, tmp_path: Path, bound: str, bodies: dict[str, bytes], touch: bool, words: str
) -> None:
    one, hypervisor = course(vm, tmp_path / "known")
    one.begin(lambda name, since: hypervisor.names.append(name))
    one.records.binding, one.records.bodies = bound, bodies
    if touch:
        os.utime(vm.disks[0].layers[1].path, (1, 1))
    one.end({"verdict": "clean"})
    one.tidy()
    told = one.told([])
    assert (told["since"], told["kept"], hypervisor.names) == ("vmward-scan-1", "vmward-scan-1", ["vmward-scan-1"])
    assert words in told["why"]


def test_archives_that_were_not_opened_are_not_forgotten(vm: Vm, tmp_path: Path) -> None:
    """The next scan looks at none of them again."""
    vm = replace(vm, disks=(vm.disks[0], replace(vm.disks[0], id="vdb")))
    one, hypervisor = course(vm, tmp_path / "known")
    one.begin(lambda name, since: hypervisor.names.append(name))
    one.records.binding, one.records.bodies = "b", {"vda": b"new", "vdb": b"other"}
    one.end({"verdict": "clean", "archives_unopened": 3})
    one.tidy()
    following = Course(hypervisor, vm, vm.disks, str(tmp_path / "known"))
    formers = [following.former(disk) for disk in vm.disks]
    assert [former.unopened for former in formers if former is not None] == [3, 0]


def test_a_clean_scan_above_what_is_no_file_says_so(vm: Vm, tmp_path: Path) -> None:
    above = replace(vm.disks[0], layers=(vm.disks[0].layers[0], replace(vm.disks[0].layers[1], path="/dev/null")))
    one, hypervisor = course(replace(vm, disks=(above,)), tmp_path / "known")
    one.begin(lambda name, since: hypervisor.names.append(name))
    one.records.binding, one.records.bodies = "b", {"vda": b""}
    one.end({"verdict": "clean"})
    assert "no file here" in one.told([])["why"]
