# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup brought back on libvirt's own test driver: what becomes of the copies when the VM is not as it was."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._backup_image import stamp_of
from ansible_collections.vmward.remediation.plugins.module_utils._disk_copy import tidy
from ansible_collections.vmward.remediation.plugins.module_utils._errors import Refused, TaskFailed, Unsupported
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Pending
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt import xml
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.api import LibvirtHypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._model import (
    Disk,
    DiskCopy,
    Layer,
    PowerState,
    Snapshot,
    Vm,
    VmRef,
)

ID = "6695eb01-f6a4-8304-79aa-97f2502e1930"
DISK = """<disk type="file" device="disk"><driver name="qemu" type="qcow2"/><source file="{path}"/>{more}
<target dev="{name}" bus="virtio"/></disk>"""
DESK = f"""<domain type="test"><name>desk1</name><uuid>{ID}</uuid><memory>1024</memory><os><type>hvm</type></os>
<devices>{{disks}}</devices></domain>"""
MiB = 1 << 20


class Stage:
    """A stopped VM of one disk, and the image of a backup."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.link = LibvirtHypervisor("kvm1", "test:///default")
        self.top, self.backup = directory / "desk1.qcow2", directory / "backup.qcow2"
        for image in (self.top, self.backup):
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "4M"], check=True)
        disk = Disk("vda", "virtio", 4 * MiB, 0, False, (Layer(str(self.top), "qcow2"),))
        self.vm = Vm(VmRef("kvm1", ID, "desk1"), PowerState.STOPPED, (), MiB, True, (disk,))
        self.copy = DiskCopy(
            disk,
            Layer(str(self.backup), "qcow2"),
            stamp_of(os.stat(self.backup)),
            str(directory / "desk1.from-1.qcow2"),
        )
        self.define()

    def define(self, more: str = "", beside: str = "") -> None:
        told = DESK.format(disks=DISK.format(path=self.top, more=more, name="vda") + beside)
        self.link.link.call("define", None, lambda conn: conn.defineXML(told).name())

    def told(self) -> str:
        return str(self.link.link.domain(self.vm.ref, "read", lambda domain: domain.XMLDesc(0)))

    def submit(self) -> Pending:
        return self.link.submit_restore_disks(self.vm, [self.copy])

    def act(self, what: str) -> None:
        self.link.link.domain(self.vm.ref, what, lambda domain: getattr(domain, what)())

    def files(self) -> list[str]:
        return sorted(os.listdir(self.directory))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.link.link.domain(stage.vm.ref, "tidy", lambda domain: [one.delete(0) for one in domain.listAllSnapshots(0)])
    stage.act("undefine")
    stage.link.close()


def made(pending: Pending, meanwhile: Callable[[], None] = lambda: None) -> None:
    while not pending.poll():
        meanwhile()


def test_the_vm_gets_the_copy(stage: Stage) -> None:
    made(stage.submit())
    assert stage.copy.target in stage.told()
    assert stage.files() == ["backup.qcow2", "desk1.from-1.qcow2", "desk1.qcow2"]


def test_a_vm_that_was_started_meanwhile_leaves_no_copy(stage: Stage) -> None:
    pending = stage.submit()
    stage.act("create")
    with pytest.raises(Refused, match="no longer stopped"):
        made(pending)
    assert stage.files() == ["backup.qcow2", "desk1.qcow2"]
    stage.act("destroy")


def test_a_copy_that_another_run_removed_is_not_given_to_the_vm(stage: Stage) -> None:
    first = stage.copy
    second = replace(first, disk=replace(first.disk, id="vdb"), target=first.target.replace("-1.", "-2."))
    stage.define(beside=DISK.format(path=stage.top, more="", name="vdb"))
    pending = stage.link.submit_restore_disks(replace(stage.vm, disks=(first.disk, second.disk)), [first, second])

    def tidied() -> None:  # as by a run that has another lock
        if os.path.exists(first.target):
            tidy(stage.vm)

    with pytest.raises(TaskFailed, match=r"somebody removed its copy .*from-1\.qcow2"):
        made(pending, tidied)
    assert "from-" not in stage.told()
    assert stage.files() == ["backup.qcow2", "desk1.qcow2"]


def test_where_the_definition_cannot_be_written_no_snapshot_is_forgotten(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(domain: Any) -> list[str]:
        return [one.getName() for one in domain.listAllSnapshots(0)]

    def full(_root: object) -> str:
        raise libvirt.libvirtError("No space left on device")

    early = "<domainsnapshot><name>early</name></domainsnapshot>"
    stage.link.link.domain(stage.vm.ref, "take", lambda domain: domain.snapshotCreateXML(early, 0).getName())
    taken = Snapshot("early", "early", "", "", False, "internal", True)
    pending = stage.link.submit_restore_disks(replace(stage.vm, snapshots=(taken,)), [stage.copy])
    monkeypatch.setattr(xml, "text_of", full)
    monkeypatch.setattr(libvirt, "VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY", 0)  # which this driver does not know
    with pytest.raises(TaskFailed, match="No space left"):
        made(pending)
    assert stage.link.link.domain(stage.vm.ref, "list", names) == ["early"]
    assert "from-" not in stage.told()
    monkeypatch.undo()
    monkeypatch.setattr(libvirt, "VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY", 0)
    tidy(stage.vm)
    made(stage.link.submit_restore_disks(replace(stage.vm, snapshots=(taken,)), [stage.copy]))
    assert stage.link.link.domain(stage.vm.ref, "list", names) == []


@pytest.mark.parametrize("more", ["<shareable/>", "<transient/>"])
def test_a_disk_that_no_qcow2_file_can_be_is_refused(stage: Stage, more: str) -> None:
    stage.define(more)
    with pytest.raises(Unsupported, match=more.strip("</>")):
        stage.submit()
    assert stage.files() == ["backup.qcow2", "desk1.qcow2"]
