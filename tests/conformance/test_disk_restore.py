# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks brought back from the images of a backup, on every backend that can; the others say so and touch nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils import _disk_copy
from ansible_collections.vmward.remediation.plugins.module_utils._disk_copy import (
    Copies,
    left_behind,
    part_of,
    prepare,
    target_of,
    tidy,
)
from ansible_collections.vmward.remediation.plugins.module_utils._errors import NotVerified, TaskFailed, TimedOut
from ansible_collections.vmward.remediation.plugins.module_utils._fake import convert, images
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Capability
from ansible_collections.vmward.remediation.plugins.module_utils._model import DiskCopy, Isolation, Layer, Vm
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.restore import RestoreDisks, Wanted
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import SetSnapshot
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench, FakeBench

CLASSES = ("memory", "connections", "disks", "logs")
WAIVED = {"classes": {name: {"state": "waived", "by": "test"} for name in CLASSES}}
SEAL = SetIsolation(Isolation.SEALED, "2026-1")
CAN = pytest.mark.parametrize("able", ["fake", pytest.param("real", marks=pytest.mark.real)])
MiB = 1 << 20


def silent(_phase: str, _done: int, _total: int) -> None:
    """Progress that nobody looks at."""


def call(*argv: str | Path, ends: int = 0) -> str:
    ended = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert ended.returncode == ends, f"{argv}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def scribble(path: str | Path, pattern: str) -> None:
    """As a guest writes: 64 KiB of one byte, in the second megabyte."""
    call("qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} 1M 64k", path)


def digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def wanted(image: Path, image_format: str = "qcow2", sha256: str | None = None, disk: str = "vda") -> Wanted:
    return Wanted(disk, Layer(str(image), image_format), digest(image) if sha256 is None else sha256)


def restore(*images: Wanted, discard: bool = True, partial: bool = False, factor: float = 0.0) -> RestoreDisks:
    return RestoreDisks(images, partial, discard, {}, silent, factor)


class Stage:
    """A stopped VM with a backup of before it was infected."""

    def __init__(self, bench: Bench, directory: Path) -> None:
        self.bench, self.directory = bench, directory
        self.vm_id = bench.create("desk1", running=False)
        scribble(self.top, "0x41")
        self.backup = directory / "backup" / "desk1-vda.qcow2"
        self.backup.parent.mkdir()
        call("qemu-img", "convert", "-O", "qcow2", self.top, self.backup)
        self.backup.chmod(0o400)
        scribble(self.top, "0x66")

    @property
    def vm(self) -> Vm:
        return self.bench.vm(self.vm_id)

    @property
    def top(self) -> str:
        return self.vm.disks[0].layers[0].path

    def refused(self, verb: RestoreDisks, because: str) -> None:
        """It says why, and touches neither the VM nor any file."""
        before, files = self.vm, self.files()
        (outcome,) = self.bench.do(verb, self.vm_id)
        assert outcome.failed
        assert because in outcome.msg
        assert not outcome.changed
        assert (self.vm, self.files()) == (before, files)

    def files(self) -> dict[str, tuple[int, int, int]]:
        found = [os.stat(path) for path in sorted(self.directory.rglob("*")) if path.is_file()]
        paths = [str(path) for path in sorted(self.directory.rglob("*")) if path.is_file()]
        told = {path: (s.st_ino, s.st_size, s.st_mtime_ns) for path, s in zip(paths, found, strict=True)}
        return {path: stamp for path, stamp in told.items() if path.endswith((".qcow2", ".part", ".raw"))}


@pytest.fixture
def stage(able: str, request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.getfixturevalue(able), tmp_path)


def test_who_cannot_says_so(bench: Bench, tmp_path: Path) -> None:
    vm_id = bench.create("desk1", running=False)
    image = tmp_path / "image.raw"
    image.write_bytes(b"")
    bench.lacks(Capability.DISK_RESTORE, restore(wanted(image, "raw")), vm_id)


@CAN
def test_a_backup_comes_back_and_nothing_is_lost(stage: Stage) -> None:
    bench, vm_id, former = stage.bench, stage.vm_id, stage.vm.disks[0]
    bench.one(SEAL, vm_id)
    note, held = stage.vm.note, (stage.backup.stat().st_mtime_ns, digest(stage.backup), digest(former.layers[0].path))
    verb = RestoreDisks((wanted(stage.backup),), False, False, {vm_id: WAIVED}, silent)
    predicted = bench.one(verb, vm_id, check=True)
    assert stage.vm.disks[0] == former
    done = bench.one(verb, vm_id)
    assert (predicted.before, predicted.after, predicted.steps) == (done.before, done.after, done.steps)
    assert (done.after["power"], done.after["isolation"]) == ("stopped", "sealed")
    now = stage.vm.disks[0]
    expected = Path(former.layers[0].path).with_suffix(f".from-{digest(stage.backup)[:12]}.qcow2")
    assert (now.layers, now.size) == ((Layer(str(expected), "qcow2"),), former.size)
    call("qemu-img", "compare", stage.backup, now.layers[0].path)
    assert held == (stage.backup.stat().st_mtime_ns, digest(stage.backup), digest(former.layers[0].path))
    assert stage.vm.note == note
    assert not list(stage.directory.glob(".vmward-restore-*"))
    files = stage.files()
    again = bench.one(verb, vm_id)
    assert (again.changed, again.steps, stage.files()) == (False, [], files)
    assert bench.one(SetPower("running", False, 0, {}), vm_id).after == {"power": "running"}
    assert stage.vm.isolation is Isolation.SEALED


@CAN
def test_what_was_written_since_goes_again(stage: Stage) -> None:
    stage.bench.one(restore(wanted(stage.backup)), stage.vm_id)
    first = stage.top
    scribble(first, "0x67")
    done = stage.bench.one(restore(wanted(stage.backup)), stage.vm_id)
    assert done.changed
    assert stage.top == first.replace(".qcow2", "-2.qcow2")
    call("qemu-img", "compare", stage.backup, stage.top)
    call("qemu-img", "compare", stage.backup, first, ends=1)


@CAN
def test_a_raw_backup_becomes_a_qcow2_disk(stage: Stage) -> None:
    raw = stage.backup.with_suffix(".raw")
    call("qemu-img", "convert", "-O", "raw", stage.backup, raw)
    stage.bench.one(restore(wanted(raw, "raw")), stage.vm_id)
    assert [layer.format for layer in stage.vm.disks[0].layers] == ["qcow2"]
    call("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, stage.top)


@CAN
def test_snapshots_are_forgotten_only_if_that_is_said(stage: Stage) -> None:
    bench, vm_id = stage.bench, stage.vm_id
    bench.one(SetSnapshot("evening", "present", "", False), vm_id)
    bench.one(SEAL, vm_id)
    gate = {vm_id: WAIVED}
    stage.refused(RestoreDisks((wanted(stage.backup),), False, False, gate, silent), "its snapshots (evening) lie in")
    former = stage.top
    done = bench.one(RestoreDisks((wanted(stage.backup),), False, True, gate, silent), vm_id)
    assert (done.before["snapshots"], done.after["snapshots"]) == (["evening"], [])
    assert "forget the snapshots evening" in done.steps[0]
    assert "1" in call("qemu-img", "snapshot", "-l", former), "its content stays in the former image"


def lean(stage: Stage) -> Wanted:
    image = stage.directory / "backup" / "lean.qcow2"
    call("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", stage.backup, image)
    return wanted(image)


def scattered(stage: Stage) -> Wanted:
    image = stage.directory / "backup" / "scattered.qcow2"
    file = stage.directory / "backup" / "data"
    call("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={file},data_file_raw=on", image, "16M")
    return wanted(image)


def forged(stage: Stage, offset: int, value: bytes) -> Wanted:
    """The backup with other bytes in its header."""
    image = stage.directory / "backup" / "forged.qcow2"
    shutil.copy(stage.backup, image)
    image.chmod(0o600)
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(value)
    return wanted(image)


def other_size(stage: Stage) -> Wanted:
    image = stage.directory / "backup" / "small.qcow2"
    call("qemu-img", "create", "-q", "-f", "qcow2", image, "8M")
    return wanted(image)


def link(stage: Stage) -> Wanted:
    image = stage.directory / "backup" / "link"
    image.symlink_to(stage.backup)
    return wanted(image)


FLAWS: dict[str, tuple[Callable[[Stage], Wanted], str]] = {
    "base": (lean, "it leans on another image (a backing file)"),
    "data": (scattered, "its content lies in another file"),
    "data, unknown to qemu-img": (lambda s: forged(s, 72, struct.pack(">Q", 4)), "its content lies in another file"),
    "corrupt": (lambda s: forged(s, 72, struct.pack(">Q", 2)), "marked as corrupt"),
    "encrypted": (lambda s: forged(s, 32, struct.pack(">I", 2)), "it is encrypted"),
    "version": (lambda s: forged(s, 4, struct.pack(">I", 9)), "of the unknown version 9"),
    "magic": (lambda s: forged(s, 0, b"none"), "does not begin as a qcow2 image"),
    "size": (other_size, "it is an image of 8388608 bytes, the disk has 16777216"),
    "not as said": (lambda s: wanted(s.backup, "raw"), "bytes, the disk has 16777216"),
    "format": (lambda s: wanted(s.backup, "vmdk"), "only qcow2 and raw are"),
    "link": (link, "cannot be opened"),
    "folder": (lambda s: wanted(s.backup.parent, sha256=""), "is no regular file"),
    "missing": (lambda s: wanted(s.backup.parent / "none", sha256=""), "is not there"),
    "hash": (lambda s: wanted(s.backup, sha256="0" * 64), "recorded is 000000"),
    "disk": (lambda s: wanted(s.backup, disk="vdz"), "images are named for vdz; it has the writable disks vda"),
}


@CAN
@pytest.mark.parametrize("flaw", FLAWS)
def test_an_image_that_is_not_what_it_should_be_is_refused(stage: Stage, flaw: str) -> None:
    make, because = FLAWS[flaw]
    stage.refused(restore(make(stage)), because)


@CAN
def test_what_else_is_refused_before_anything_is_touched(stage: Stage) -> None:
    bench, vm_id, good = stage.bench, stage.vm_id, wanted(stage.backup)
    stage.refused(restore(), "images are named for none")
    stage.refused(restore(good, good), "images are named for vda")
    stage.refused(restore(good, discard=False), "no case holds it")
    stage.refused(restore(good, factor=1e12), "are needed")
    bench.one(SEAL, vm_id)
    stage.refused(restore(good), "evidence that is not kept: memory, connections, disks, logs")
    bench.one(SetIsolation(Isolation.FREE, keep_sessions=True), vm_id)
    bench.one(SetPower("running", False, 0, {}), vm_id)
    (running,) = bench.do(restore(good), vm_id)
    assert "it is running. Nothing was touched. Stop it first" in running.msg


def copy_of(stage: Stage) -> DiskCopy:
    (disk,), one = stage.vm.disks, wanted(stage.backup)
    status = stage.backup.stat()
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return DiskCopy(disk, one.image, stamp, target_of(disk, one.sha256))


def made(work: Copies) -> None:
    while not work.poll():
        assert work.progress()[0] <= work.progress()[1]


def two(fake: FakeBench, directory: Path) -> tuple[Stage, Wanted, Wanted]:
    """A VM with a second disk, and the backups of both."""
    stage, second = Stage(fake, directory), directory / "second.qcow2"
    layers = images.create_overlay(str(second), fake.base)
    with fake.state.change() as state:
        state["vms"][stage.vm_id]["disks"].append(convert.disk("vdb", layers, images.SIZE))
    copy = directory / "backup" / "desk1-vdb.qcow2"
    call("qemu-img", "convert", "-O", "qcow2", second, copy)
    scribble(second, "0x68")
    return stage, wanted(stage.backup), wanted(copy, disk="vdb")


def test_all_disks_come_back_at_once_or_a_part_that_was_asked_for(fake: FakeBench, tmp_path: Path) -> None:
    stage, first, second = two(fake, tmp_path)
    stage.refused(restore(first), "no image is named for vdb, and a backup is of all disks")
    one = fake.one(restore(first, partial=True), stage.vm_id)
    assert one.warnings == ["vdb of desk1 is left as it is: it may be infected"]
    assert [disk.layers[0].path.endswith("second.qcow2") for disk in stage.vm.disks] == [False, True]
    vda = stage.top
    both = fake.one(restore(first, second), stage.vm_id)
    assert (stage.top, len(both.steps)) == (vda, 1), "what holds the content already is left as it is"
    assert "give vda" not in both.steps[0]
    call("qemu-img", "compare", second.image.path, stage.vm.disks[1].layers[0].path)


def test_where_the_second_disk_fails_the_first_is_as_it_was(fake: FakeBench, tmp_path: Path) -> None:
    stage, first, second = two(fake, tmp_path)
    before, vm = stage.files(), stage.vm
    seen: list[int] = []

    def tick(phase: str, done: int, total: int) -> None:
        if phase.startswith("copy") and done > total // 2 and not seen:
            seen.append(done)
            os.utime(second.image.path)

    (outcome,) = fake.do(RestoreDisks((first, second), False, True, {}, tick, 0.0), stage.vm_id)
    assert "somebody changed" in outcome.msg
    assert stage.vm == vm
    assert set(stage.files()) == set(before)


def test_a_disk_that_was_equal_and_is_written_to_meanwhile_is_not_told_as_brought_back(
    fake: FakeBench, tmp_path: Path
) -> None:
    stage, first, second = two(fake, tmp_path)
    fake.one(restore(first, partial=True), stage.vm_id)
    seen: list[str] = []

    def tick(phase: str, _done: int, _total: int) -> None:
        if phase.startswith("copy") and not seen:
            seen.append(phase)
            scribble(stage.top, "0x69")  # somebody starts the VM, and stops it

    (outcome,) = fake.do(RestoreDisks((first, second), False, True, {}, tick, 0.0), stage.vm_id)
    assert (outcome.failed, outcome.changed) == (True, True)
    assert "vda was written to after it was compared with its image" in outcome.msg
    again = fake.one(restore(first, second), stage.vm_id)
    assert "give vda" in again.steps[0]


def test_two_disks_of_one_name_and_one_content_come_back(fake: FakeBench, tmp_path: Path) -> None:
    stage, first, _second = two(fake, tmp_path)
    with fake.state.change() as state:
        os.rename(tmp_path / "second.qcow2", Path(stage.top).with_suffix(".vdb"))
        layers = state["vms"][stage.vm_id]["disks"][1]["layers"]
        layers[0]["path"] = str(Path(layers[0]["path"]).parent / Path(stage.top).with_suffix(".vdb").name)
    fake.one(restore(first, wanted(stage.backup, disk="vdb")), stage.vm_id)
    names = [disk.layers[0].path for disk in stage.vm.disks]
    assert len(set(names)) == 2
    for name in names:
        call("qemu-img", "compare", stage.backup, name)


def test_room_is_asked_for_once_per_file_system_and_for_what_the_copy_takes(
    fake: FakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, first, second = two(fake, tmp_path)
    (tmp_path / "other").mkdir()
    with fake.state.change() as state:
        os.rename(tmp_path / "second.qcow2", tmp_path / "other" / "second.qcow2")
        state["vms"][stage.vm_id]["disks"][1]["layers"][0]["path"] = str(tmp_path / "other" / "second.qcow2")
    whole = tmp_path / "whole.raw"
    whole.write_bytes(b"a" * images.SIZE)
    for one in (first, second):
        Path(one.image.path).unlink()
        call("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", whole, one.image.path)
    packed = [wanted(Path(one.image.path), disk=one.disk) for one in (first, second)]
    free = 1.5 * images.SIZE
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=int(free), f_frsize=1))
    stage.refused(restore(*packed, factor=1.0), f"{tmp_path} has")


@CAN
def test_a_dead_runs_copy_takes_no_room_from_the_next(stage: Stage) -> None:
    part = part_of(stage.vm, stage.vm.disks[0])
    Path(part).write_bytes(bytes(range(256)) * 4096)
    assert left_behind(stage.vm, str(Path(part).parent)) >= MiB


@CAN
def test_what_a_killed_run_left_is_found_at_every_point(stage: Stage) -> None:
    vm = stage.vm
    before, part = stage.files(), part_of(vm, vm.disks[0])
    Path(part).write_bytes(b"half")  # killed while it copied
    tidy(vm)
    assert stage.files() == before
    made(Copies(vm, [copy_of(stage)]))  # killed before the VM had it
    assert len(stage.files()) == len(before) + 2
    tidy(vm)
    assert stage.files() == before
    stage.bench.one(restore(wanted(stage.backup)), stage.vm_id)  # killed when the VM had it
    whole = stage.files()
    os.link(stage.top, part)
    tidy(stage.vm)
    assert stage.files() == whole


@CAN
def test_a_failure_leaves_no_copy(stage: Stage) -> None:
    before, copy = stage.files(), copy_of(stage)
    stage.backup.chmod(0o600)
    os.utime(stage.backup)
    work = Copies(stage.vm, [copy])
    with pytest.raises(NotVerified, match="somebody changed"):
        made(work)
    Path(copy.target).write_bytes(b"somebody's")
    with pytest.raises(TaskFailed, match="File exists"):
        made(Copies(stage.vm, [replace(copy, stamp=copy_of(stage).stamp)]))
    assert Path(copy.target).read_bytes() == b"somebody's"
    os.unlink(copy.target)
    after = stage.files()
    assert set(after) == set(before)


@CAN
def test_what_is_copied_is_what_was_judged_also_where_its_folder_is_exchanged_meanwhile(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, folder = copy_of(stage), stage.backup.parent
    other, away = stage.directory / "other", stage.directory / "away"
    other.mkdir()
    call("qemu-img", "convert", "-O", "qcow2", stage.top, other / stage.backup.name)

    def exchange(part: str, present: str) -> None:
        folder.rename(away)
        other.rename(folder)
        prepare(part, present)

    monkeypatch.setattr(_disk_copy, "prepare", exchange)
    work = Copies(stage.vm, [copy])
    for _program in ("convert", "compare"):
        assert not work.poll()
        assert work._program
        work._program.process.wait()
    folder.rename(other)
    away.rename(folder)  # the file that was judged has kept its times
    assert work.poll()
    call("qemu-img", "compare", stage.backup, copy.target)
    os.unlink(copy.target)
    work.abort()
    folder.rename(away)
    other.rename(folder)
    with pytest.raises(NotVerified, match="somebody changed"):
        made(Copies(stage.vm, [copy]))


@CAN
def test_a_deadline_removes_the_copy(stage: Stage) -> None:
    before, begun = stage.files(), []

    def tick(phase: str, _done: int, _total: int) -> None:
        if phase == "copy and comparison":
            begun.append(phase)
            if len(begun) > 1:
                raise TimedOut("the deadline has passed")

    verb = RestoreDisks((wanted(stage.backup),), False, True, {}, tick, 0.0)
    (outcome,) = stage.bench.do(verb, stage.vm_id)
    assert outcome.failed
    assert "the deadline has passed" in outcome.msg
    assert not outcome.changed
    assert list(stage.directory.glob(".vmward-restore-*"))
    verb.give_up()
    assert stage.files() == before
