# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a running VM are judged as they were at one moment, and nothing of that is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Refused, TimedOut
from ansible_collections.vmward.remediation.plugins.module_utils._evidence import live
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.live import Terms, not_scanned, scan_live
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.scratch import Scratch
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.since import settle
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Detail
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.api import LibvirtHypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.frozen import backup_job
from ansible_collections.vmward.remediation.plugins.module_utils._model import PowerState, Vm
from ansible_collections.vmward.remediation.plugins.module_utils._scan import job
from ansible_collections.vmward.remediation.plugins.module_utils._scan.groups import Disks, together
from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import (
    DiskRequest,
    LayerSpec,
    Request,
    scan,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.plugins.module_utils._scan.scanner import DiskSpec
from ansible_collections.vmward.remediation.tests.conformance.world import World
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
REQUEST = Request((), RULES, "", ("yara",), 0, "", Limits(120, 1 << 30, 60))
VM_ID = "6f1d8a52-0d6c-4b0f-9d57-5c1f0a6be0a1"
MB = disks.MB
DEFINITION = """<domain type='qemu'><name>live</name><uuid>{id}</uuid><memory unit='MiB'>64</memory>
<os><type arch='x86_64'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{top}'/>
<target dev='vda' bus='virtio'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{alone}'/>
<target dev='vdb' bus='virtio'/></disk>
<interface type='network'><mac address='52:54:00:00:07:01'/><source network='lan'/><link state='down'/>
<model type='virtio'/></interface></devices></domain>"""


@dataclass
class Machine:
    """A VM without a system: vda on a clean golden image holds a marker of its own, vdb stands alone and is clean."""

    world: World
    place: Path
    hypervisor: LibvirtHypervisor
    marker_at: int

    @property
    def domain(self) -> libvirt.virDomain:
        return self.world.conn.lookupByUUIDString(VM_ID)

    @property
    def vm(self) -> Vm:
        vm = self.hypervisor.read([VM_ID], frozenset([Detail.DISKS]))[VM_ID]
        assert isinstance(vm, Vm)
        return vm

    @property
    def scratch(self) -> Scratch:
        return Scratch(str(self.place / "scratch"))

    def scan(self, names: tuple[str, ...] = (), seconds: float = 120, **changes: Any) -> dict[str, Any]:
        return scan_live(self.hypervisor, self.vm, names, replace(REQUEST, **changes), self.terms(seconds))

    def terms(self, seconds: float = 120, factor: float = 1.0) -> Terms:
        return Terms(self.scratch, factor, time.monotonic() + seconds)

    def write(self, at: int, length: int) -> None:
        """As the guest would: through its disk, while it is on."""
        command = f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -P 0 {at} {length}"'
        told = self.world.run("virsh", "-q", "-c", self.world.uri, "qemu-monitor-command", "--hmp", VM_ID, command)
        assert not told.strip() or "wrote" in told, told

    def state(self) -> tuple[str, str, int, list[str]]:
        """All that a scan must leave as it was: both definitions, the power, what lies in the scratch directory."""
        texts = [ET.canonicalize(self.domain.XMLDesc(flags)) for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE)]
        left = sorted(os.listdir(self.scratch.path)) if Path(self.scratch.path).exists() else []
        return texts[0], texts[1], self.domain.state()[0], left

    def has_job(self) -> bool:
        return bool(backup_job(self.domain))


@pytest.fixture
def machine(world: World) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="live-") as place:  # the path of a socket must be short
        yield from machine_in(world, Path(place))


def machine_in(world: World, tmp_path: Path) -> Iterator[Machine]:
    golden = disks.ext4(tmp_path / "golden.img", disks.harmless(), 32 * MB)
    raw = tmp_path / "raw.img"
    disks.run("cp", "--sparse=always", golden, raw)
    (tmp_path / "m").write_bytes(disks.MARKER.ljust(4096, b"\n"))
    disks.debugfs(raw, f"write {tmp_path / 'm'} m")
    marker_at = raw.read_bytes().index(disks.MARKER)
    base, top, alone = (tmp_path / f"{name}.qcow2" for name in ("golden", "top", "alone"))
    disks.overlay(top, disks.qcow2(base, golden))
    disks.put(top, raw.read_bytes(), tmp_path)
    disks.run("cp", base, alone)
    domain = world.conn.defineXML(DEFINITION.format(id=VM_ID, top=top, alone=alone))
    domain.create()
    made = Machine(world, tmp_path, LibvirtHypervisor("hv1", world.uri), marker_at)
    yield made
    made.hypervisor.close()
    domain = world.conn.lookupByUUIDString(VM_ID)
    if domain.isActive():
        domain.destroy()
    domain.undefineFlags(
        libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    )


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let this happen once the disks are frozen, before they are read."""

    def acting(request: Request) -> dict[str, Any]:
        act()
        return scan(request)

    monkeypatch.setattr(live, "scan", acting)


def test_a_running_vm_is_judged_as_it_was_when_it_was_frozen(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine.state()
    meanwhile(monkeypatch, lambda: machine.write(machine.marker_at, 4096))
    result = machine.scan()
    assert result["verdict"] == "infected"
    assert [(one["disk"], one["path"]) for one in result["findings"]] == [("vda", "/m")]
    assert {one["name"]: one["verdict"] for one in result["disks"]} == {"vda": "infected", "vdb": "clean"}
    assert result["frozen_at"].endswith("Z")
    assert machine.state() == before
    assert not machine.has_job()
    monkeypatch.undo()
    again = machine.scan()  # what the guest overwrote is gone from its disk
    assert (again["verdict"], again["findings"], again["incomplete_reasons"]) == ("clean", [], [])


def test_only_what_differs_from_the_golden_image_is_judged(machine: Machine) -> None:
    known = machine.place / "known"
    known.mkdir(mode=0o700)
    base = DiskRequest("base", (LayerSpec(str(machine.place / "golden.qcow2"), "qcow2"),))
    assert index(replace(REQUEST, disks=(base,), directory=str(known)))["verdict"] == "clean"
    result = machine.scan(("vda",), directory=str(known))
    assert [volume["method"] for volume in result["volumes"]] == ["delta"]
    assert [(one["kind"], one["path"]) for one in result["changes"]] == [("new", "/m")]
    assert [one["path"] for one in result["findings"]] == ["/m"]


def test_a_paused_vm_stays_paused(machine: Machine) -> None:
    machine.domain.suspend()
    before = machine.state()
    assert machine.scan(("vdb",))["verdict"] == "clean"
    assert machine.state() == before


def test_it_can_be_cut_and_powered_off_meanwhile(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_and_stop() -> None:
        interface = ET.fromstring(machine.domain.XMLDesc(0)).find("./devices/interface")
        assert interface is not None
        link = interface.find("link")
        assert link is not None
        link.set("state", "up")
        machine.domain.updateDeviceFlags(ET.tostring(interface, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        machine.domain.destroy()

    meanwhile(monkeypatch, cut_and_stop)
    with pytest.raises(Refused, match="Cannot read disk vda from its hypervisor"):
        machine.scan()
    assert machine.vm.power is PowerState.STOPPED
    assert os.listdir(machine.scratch.path) == []


def test_a_vm_that_stops_while_it_is_read_is_incomplete(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_then(disks_: Sequence[DiskSpec], limits: Limits, at_once: int) -> list[Disks]:
        machine.domain.destroy()
        return together(disks_, limits, at_once)

    monkeypatch.setattr(job, "together", stop_then)
    result = machine.scan()
    assert result["verdict"] == "incomplete"
    assert {one["verdict"] for one in result["disks"]} == {"incomplete"}
    assert os.listdir(machine.scratch.path) == []


def test_what_a_killed_run_left_is_ended_by_the_next(machine: Machine) -> None:
    before = machine.state()
    machine.scratch.prepare()
    vm, directory = machine.vm, machine.scratch.file(VM_ID, "frozen")
    child = os.fork()
    if not child:
        try:
            hypervisor = LibvirtHypervisor("hv1", machine.world.uri)
            settle(hypervisor, hypervisor.submit_freeze_disks(vm, ["vda"], directory), 30)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert machine.has_job()
    assert machine.scan(("vdb",))["verdict"] == "clean"
    assert not machine.has_job()
    assert machine.state()[:3] == before[:3]
    assert os.listdir(machine.scratch.path) == []


def test_the_backup_of_others_is_waited_for_and_left_alone(machine: Machine) -> None:
    theirs = f"<domainbackup mode='pull'><server transport='unix' socket='{machine.place}/theirs'/></domainbackup>"
    machine.domain.backupBegin(theirs, None, 0)
    with pytest.raises(TimedOut, match="freeze the disks of"):
        machine.scan(("vdb",), seconds=2)
    assert machine.has_job()
    machine.domain.abortJob()


def test_what_cannot_be_done_is_refused_before_anything_is_touched(machine: Machine) -> None:
    before = machine.state()
    with pytest.raises(Refused, match="free, .* needed"):
        scan_live(machine.hypervisor, machine.vm, (), REQUEST, machine.terms(factor=1e9))
    told = not_scanned(machine.hypervisor, machine.vm, (), machine.terms())
    assert (told["verdict"], told["disks"]) == ("incomplete", [])
    assert machine.state() == before
    machine.domain.destroy()
    with pytest.raises(Refused, match="it is stopped"):
        machine.scan()


def test_a_run_that_is_told_to_end_ends_the_view(machine: Machine, tmp_path: Path) -> None:
    """The module itself, ended by a signal while it reads."""
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "slow.yar").write_text(
        "rule slow { condition: filesize > 10000 and for all i in (0..9223372036854775806) : (i >= 0) }"
    )
    options = {
        "hypervisors": {"hv1": {"libvirt": {"uri": machine.world.uri}}},
        "vm": VM_ID,
        "rules": [str(rules)],
        "scratch": machine.scratch.path,
        "deadline": 120,
    }
    code = (
        "import sys, json\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "from ansible_collections.vmward.remediation.plugins.modules import vm_disk_scan\n"
        "from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.api import LibvirtHypervisor\n"
        # on its data host it would ask the machine's own libvirt
        "vm_disk_scan.connect = lambda name, entry, on_data_host: LibvirtHypervisor(name, entry['libvirt']['uri'])\n"
        "with patch_module_args(json.loads(sys.argv[1])): vm_disk_scan.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "build/collections")}
    child = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(options)], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: machine.has_job() or child.poll() is not None)
        assert machine.has_job(), child.communicate()
        child.terminate()
        child.wait(60)
    finally:
        child.kill()
        child.wait()
    assert not machine.has_job()
    assert os.listdir(machine.scratch.path) == []
