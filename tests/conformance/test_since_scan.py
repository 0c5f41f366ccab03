# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of a running VM only what was written since its last clean scan is read, and nothing is missed for that."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Refused
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.live import scan_live
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Detail
from ansible_collections.vmward.remediation.plugins.module_utils._model import PowerState, Vm
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import RuleFile
from ansible_collections.vmward.remediation.tests.conformance.test_live_scan import (
    REQUEST,
    VM_ID,
    Machine,
    machine_in,
    meanwhile,
    wait_for,
)
from ansible_collections.vmward.remediation.tests.conformance.world import World
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

pytestmark = pytest.mark.real
GRAIN = 4096
MB = disks.MB


class Guest:
    """The VM of the tests of live scans, of which vdb, alone and clean, is written to as its guest would."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.now = machine.place / "now.img"  # what vdb holds
        disks.run("cp", "--sparse=always", machine.place / "golden.img", self.now)

    def scan(self, checkpoint: str = "keep", names: tuple[str, ...] = ("vdb",), **changes: Any) -> dict[str, Any]:
        request = replace(REQUEST, directory=str(self.machine.place / "known"), **changes)
        machine = self.machine
        return scan_live(machine.hypervisor, machine.vm, names, request, machine.terms(), checkpoint)

    def plant(self, name: str, content: bytes) -> None:
        (self.machine.place / "planted").write_bytes(content)
        self.changes(f"write {self.machine.place / 'planted'} {name}")

    def changes(self, *commands: str) -> None:
        before = self.now.read_bytes()
        disks.debugfs(self.now, *commands)
        after = self.now.read_bytes()
        for at in range(0, len(after), GRAIN):
            if before[at : at + GRAIN] != after[at : at + GRAIN]:
                self.write(at, after[at : at + GRAIN])

    def write(self, at: int, data: bytes) -> None:
        part = self.machine.place / "part"
        part.write_bytes(data)
        command = f'qemu-io -d /machine/peripheral/virtio-disk1/virtio-backend "write -s {part} {at} {len(data)}"'
        world = self.machine.world
        told = world.run("virsh", "-q", "-c", world.uri, "qemu-monitor-command", "--hmp", VM_ID, command)
        assert not told.strip() or "wrote" in told, told

    @property
    def checkpoints(self) -> list[str]:
        return sorted(one.getName() for one in self.machine.domain.listAllCheckpoints(0))

    @property
    def records(self) -> list[Path]:
        return list((self.machine.place / "known").glob("*.checkpoint"))


@pytest.fixture
def guest(world: World) -> Iterator[Guest]:
    with tempfile.TemporaryDirectory(prefix="since-") as place:
        for machine in machine_in(world, Path(place)):
            yield Guest(machine)


def methods(result: dict[str, Any]) -> list[str]:
    return [volume["method"] for volume in result["volumes"]]


def test_the_second_scan_reads_what_was_written_and_finds_it(guest: Guest) -> None:
    first = guest.scan()
    assert (first["verdict"], first["incomplete_reasons"], methods(first)) == ("clean", [], ["full"])
    assert first["checkpoint"]["why"] == "there is no record of a clean scan"
    assert guest.checkpoints == [first["checkpoint"]["kept"]]
    assert [path.stat().st_mode & 0o777 for path in guest.records] == [0o600]
    quiet = guest.scan()
    assert (quiet["verdict"], methods(quiet), quiet["files"]) == ("clean", ["same"], 0)
    assert quiet["bytes_from_disk"] * 4 < first["bytes_from_disk"]
    guest.plant("good", b"harmless\n" * 1000)
    second = guest.scan()
    assert (second["verdict"], methods(second)) == ("clean", ["delta"])
    assert second["checkpoint"]["since"] == quiet["checkpoint"]["kept"]
    assert [(one["kind"], one["path"]) for one in second["changes"]] == [("new", "/good")]
    guest.plant("bad", disks.MARKER)
    third = guest.scan()
    assert (third["verdict"], [one["path"] for one in third["findings"]]) == ("infected", ["/bad"])
    assert third["bytes_from_disk"] < first["bytes_from_disk"]
    last = second["checkpoint"]["kept"]
    assert third["checkpoint"] == {"since": last, "why": "", "kept": last}
    assert guest.checkpoints == [last]
    again = guest.scan()  # what a scan found is still there for the next one
    assert [one["path"] for one in again["findings"]] == ["/bad"]


def test_it_goes_on_after_the_vm_was_off(guest: Guest) -> None:
    first = guest.scan()
    guest.plant("early", disks.MARKER)
    guest.machine.domain.destroy()
    guest.machine.domain.create()
    result = guest.scan()
    assert result["checkpoint"]["since"] == first["checkpoint"]["kept"]
    assert [one["path"] for one in result["findings"]] == ["/early"]


def test_what_is_infected_at_first_leaves_nothing(guest: Guest) -> None:
    guest.plant("bad", disks.MARKER)
    for _turn in range(2):
        result = guest.scan()
        assert (result["verdict"], methods(result)) == ("infected", ["full"])
        assert result["checkpoint"] == {"since": "", "why": "there is no record of a clean scan", "kept": ""}
        assert (guest.checkpoints, guest.records, result["changed"]) == ([], [], False)


def crash(guest: Guest) -> None:
    """QEMU dies, and with it what the bitmap in the image was to become."""
    world = guest.machine.world
    guest.plant("bad", disks.MARKER)
    world.run("kill", "-9", world.run("cat", "/run/libvirt/qemu/live.pid").strip())
    wait_for(lambda: not guest.machine.domain.isActive())
    guest.machine.domain.create()


def lose_the_bitmap(guest: Guest) -> None:
    guest.machine.domain.destroy()
    disks.run("qemu-img", "bitmap", "--remove", guest.machine.place / "alone.qcow2", guest.checkpoints[0])
    guest.machine.domain.create()


def lose_the_checkpoint(guest: Guest) -> None:
    guest.machine.domain.checkpointLookupByName(guest.checkpoints[0]).delete(0)


def leave_a_later_one(guest: Guest) -> None:
    """As a scan that was killed does."""
    machine = guest.machine
    machine.domain.checkpointCreateXML("<domaincheckpoint><name>vmward-scan-9</name></domaincheckpoint>", 0)


def grow(guest: Guest) -> None:
    guest.machine.domain.blockResize("vdb", 40 * MB, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


def take_a_snapshot(guest: Guest) -> None:
    """Not by us: the guest writes to another image now."""
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    guest.machine.domain.snapshotCreateXML("<domainsnapshot><name>theirs</name></domainsnapshot>", flags)
    guest.machine.domain.snapshotLookupByName("theirs").delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)


def lose_the_record(guest: Guest) -> None:
    guest.records[0].unlink()


def damage_the_record(guest: Guest) -> None:
    guest.records[0].write_bytes(guest.records[0].read_bytes()[:-1])


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        (crash, "missing or broken bitmap"),
        (lose_the_bitmap, "missing or broken bitmap"),
        (lose_the_checkpoint, "is gone"),
        (leave_a_later_one, "left a later checkpoint, vmward-scan-9"),
        (grow, "another size, source or image"),
        (take_a_snapshot, "another size, source or image"),
        (lose_the_record, "no record"),
        (damage_the_record, "no record"),
    ],
)
def test_whatever_is_doubtful_leads_to_a_scan_of_everything(
    guest: Guest, happens: Callable[[Guest], None], why: str
) -> None:
    first = guest.scan()
    assert first["verdict"] == "clean", first["incomplete_reasons"]
    happens(guest)
    result = guest.scan()
    assert why in result["checkpoint"]["why"]
    assert (result["checkpoint"]["since"], methods(result)) == ("", ["full"])
    if happens is crash:
        assert [one["path"] for one in result["findings"]] == ["/bad"]
        assert guest.checkpoints == []
        return
    assert result["verdict"] == "clean", result["incomplete_reasons"]
    if happens is take_a_snapshot:  # taking the old bitmap out would write to the image below
        assert guest.checkpoints == [first["checkpoint"]["kept"], result["checkpoint"]["kept"]]
        assert "in an image below the top one" in result["checkpoint"]["why"]
    else:
        assert guest.checkpoints == [result["checkpoint"]["kept"]]
    assert guest.scan()["checkpoint"]["since"] == result["checkpoint"]["kept"]


def test_other_rules_read_everything(guest: Guest) -> None:
    guest.plant("known-only-later", b"a word that nobody minded")
    assert guest.scan()["verdict"] == "clean"
    text = 'rule later { strings: $a = "nobody minded" condition: $a }'
    result = guest.scan(rules=(*RULES, RuleFile("later.yar", text, "1" * 64, 0.0)))
    assert result["checkpoint"]["why"] == "it was scanned with other rules, engines or limits"
    assert [one["path"] for one in result["findings"]] == ["/known-only-later"]
    assert guest.checkpoints == [result["checkpoint"]["kept"]]  # that of the former rules, which still hold
    assert guest.scan()["checkpoint"]["why"] == ""


def test_a_vm_that_is_not_persistent_gets_none(guest: Guest) -> None:
    domain = guest.machine.domain
    text = domain.XMLDesc(0)
    domain.undefine()
    result = guest.scan()
    assert (result["verdict"], result["checkpoint"]["why"]) == ("clean", "the VM is not persistent")
    assert guest.checkpoints == []
    guest.machine.world.conn.defineXML(text)


def test_they_are_removed_on_demand_and_those_of_others_stay(guest: Guest) -> None:
    guest.machine.domain.checkpointCreateXML("<domaincheckpoint><name>theirs</name></domaincheckpoint>", 0)
    kept = guest.scan()["checkpoint"]["kept"]
    assert guest.checkpoints == ["theirs", kept]
    ignored = guest.scan("none")
    assert (ignored["changed"], ignored["checkpoint"]["kept"], guest.checkpoints) == (False, "", ["theirs", kept])
    removed = guest.scan("remove")
    assert (removed["changed"], removed["verdict"], guest.checkpoints) == (True, "clean", ["theirs"])
    assert guest.records == []
    assert guest.scan("remove")["changed"] is False


def test_nothing_is_kept_without_a_place_for_its_record(guest: Guest) -> None:
    machine = guest.machine
    with pytest.raises(Refused, match="index_directory"):
        scan_live(machine.hypervisor, machine.vm, ("vdb",), REQUEST, machine.terms(), "keep")
    assert guest.checkpoints == []


def test_a_vm_that_is_powered_off_meanwhile_is_not_started(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = guest.scan()
    meanwhile(monkeypatch, guest.machine.domain.destroy)
    with pytest.raises(Refused):
        guest.scan()
    assert guest.machine.vm.power is PowerState.STOPPED
    monkeypatch.undo()
    guest.machine.domain.create()
    result = guest.scan()
    assert result["verdict"] == "clean"
    assert guest.checkpoints == [result["checkpoint"]["kept"]] != [first["checkpoint"]["kept"]]


# --- a checkpoint hinders no response --------------------------------------------------------------------------------


class Response:
    """What a response does to a VM, and whether the VM ever ran meanwhile."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    @property
    def vm(self) -> Vm:
        found = self.guest.machine.hypervisor.read([VM_ID], frozenset(Detail))[VM_ID]
        assert isinstance(found, Vm)
        return found

    def do(self, verb: str, *arguments: Any) -> None:
        hypervisor = self.guest.machine.hypervisor
        pending = getattr(hypervisor, f"submit_{verb}")(self.vm, *arguments)
        (error,) = hypervisor.wait([pending], 60).values()
        if error:
            raise error


@pytest.fixture
def response(guest: Guest) -> Response:
    return Response(guest)


@pytest.mark.parametrize("memory", [False, True])
def test_snapshot_and_revert_of_a_running_vm(response: Response, memory: bool) -> None:
    guest = response.guest
    if memory:
        response.do("snapshot", "good", "", True)
    else:
        guest.machine.domain.destroy()
        response.do("snapshot", "good", "", False)
        guest.machine.domain.create()
    assert guest.scan()["verdict"] == "clean"
    assert guest.checkpoints
    guest.plant("bad", disks.MARKER)
    response.do("power_off")
    response.do("revert", "good", False)
    assert (response.vm.power, guest.checkpoints) == (PowerState.STOPPED, [])
    guest.machine.domain.create()
    after = guest.scan()
    assert (after["verdict"], after["checkpoint"]["since"]) == ("clean", "")


@pytest.mark.parametrize(("running", "memory"), [(True, False), (True, True), (False, False)])
def test_snapshots_are_taken_and_removed(response: Response, running: bool, memory: bool) -> None:
    guest = response.guest
    assert guest.scan()["verdict"] == "clean"
    if not running:
        response.do("power_off")
    response.do("snapshot", "evidence", "", memory)
    assert ([one.name for one in response.vm.snapshots], guest.checkpoints) == (["evidence"], [])
    assert response.vm.power is (PowerState.RUNNING if running else PowerState.STOPPED)
    if memory or not running:
        guest.machine.domain.isActive() or guest.machine.domain.create()
        result = guest.scan()
        assert result["verdict"] == "clean", result["incomplete_reasons"]
        response.do("power_off")
        response.do("remove_snapshot", "evidence")
        assert response.vm.snapshots == ()


def test_a_checkpoint_below_a_foreign_overlay_leaves_the_image_below_alone(response: Response) -> None:
    guest = response.guest
    kept, image = guest.scan()["checkpoint"]["kept"], guest.machine.place / "alone.qcow2"
    take_a_snapshot(guest)
    before = image.stat().st_mtime_ns
    response.do("snapshot", "evidence", "", False)
    assert (image.stat().st_mtime_ns, guest.checkpoints) == (before, [kept])
    with pytest.raises(Refused, match="below the top one"):
        guest.scan("remove")
    assert image.stat().st_mtime_ns == before


def bitmaps(image: str) -> list[str]:
    told = json.loads(disks.run("qemu-img", "info", "--output=json", image))
    return [one["name"] for one in told["format-specific"]["data"].get("bitmaps", [])]


def test_one_disk_without_its_bitmap_leaves_none_in_the_others(response: Response) -> None:
    guest, both = response.guest, ("vda", "vdb")
    guest.machine.write(guest.machine.marker_at, 4096)
    assert guest.scan(names=both)["checkpoint"]["kept"]
    response.do("power_off")
    first, second = (disk.layers[0].path for disk in response.vm.disks)
    assert bitmaps(first) == bitmaps(second) == guest.checkpoints
    disks.run("qemu-img", "bitmap", "--remove", first, guest.checkpoints[0])
    response.do("snapshot", "evidence", "", False)
    assert (bitmaps(first), bitmaps(second), guest.checkpoints) == ([], [], [])
    response.do("revert", "evidence", False)
    assert response.vm.power is PowerState.STOPPED


def test_a_vm_whose_memory_is_saved_keeps_it(response: Response) -> None:
    guest = response.guest
    result = guest.scan()
    assert result["verdict"] == "clean", result["incomplete_reasons"]
    guest.machine.domain.managedSave(0)
    with pytest.raises(Refused, match="its memory saved"):
        response.do("snapshot", "evidence", "", False)
    assert guest.machine.domain.hasManagedSaveImage(0)
    assert guest.checkpoints
    guest.machine.domain.managedSaveRemove(0)


def test_all_disks_of_a_vm_and_their_reset(response: Response) -> None:
    guest, both = response.guest, ("vda", "vdb")
    guest.machine.write(guest.machine.marker_at, 4096)
    first = guest.scan(names=both)
    assert (first["verdict"], methods(first)) == ("clean", ["full", "full"])
    guest.plant("bad", disks.MARKER)
    second = guest.scan(names=both)
    assert (methods(second), [one["disk"] for one in second["findings"]]) == (["same", "delta"], ["vdb"])
    os.utime(guest.machine.place / "golden.qcow2")  # as if somebody wrote to what vda stands on
    assert "disk vda has another size, source or image" in guest.scan(names=both)["checkpoint"]["why"]
    assert guest.scan(names=("vda",))["checkpoint"]["kept"]
    response.do("power_off")
    response.do("reset_disks")
    assert guest.checkpoints == []
    guest.machine.domain.create()
    fresh = guest.scan(names=("vda",))  # libvirt makes overlays of a version that holds no bitmaps
    assert (fresh["verdict"], fresh["checkpoint"]["kept"], guest.checkpoints) == ("clean", "", [])
    assert "Cannot store dirty bitmaps" in fresh["checkpoint"]["why"]


def test_the_vm_is_deleted_with_its_checkpoint(response: Response) -> None:
    guest = response.guest
    assert guest.scan()["checkpoint"]["kept"]
    text = guest.machine.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    response.do("power_off")
    response.do("delete")
    assert [one.UUIDString() for one in guest.machine.world.conn.listAllDomains(0)] == []
    guest.machine.world.conn.defineXML(text)


def test_a_disk_is_exported_beside_a_checkpoint(response: Response) -> None:
    guest = response.guest
    kept = guest.scan()["checkpoint"]["kept"]
    out = guest.machine.place / "out.qcow2"
    hypervisor = guest.machine.hypervisor
    assert list(hypervisor.wait([hypervisor.submit_disk_export(response.vm, "vdb", str(out))], 60).values()) == [None]
    assert out.exists()
    assert guest.checkpoints == [kept]
    assert guest.scan()["checkpoint"]["since"] == kept
