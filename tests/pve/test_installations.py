# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clusters as they really are: other storages, VLANs with rights of their own, ids that are used again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.inventory.vms import listed
from ansible_collections.vmward.remediation.plugins.module_utils._errors import NotFound, NotVerified
from ansible_collections.vmward.remediation.plugins.module_utils._model import Collector, Isolation, VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._plan import UseCase
from ansible_collections.vmward.remediation.plugins.module_utils._proxmox import work
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.disks import Delete
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert, SetSnapshot
from ansible_collections.vmward.remediation.tests.conformance.benches import mac
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench
from ansible_collections.vmward.remediation.tests.pve.verbs import FORENSIC, OFF, SEAL, take

FREE = SetIsolation(Isolation.FREE, keep_sessions=True)

# Network cards


CARDS = [
    "virtio=52:54:00:00:02:00,bridge=vmbr0,firewall=1,tag=20,rate=12.5,queues=4,mtu=1",
    "e1000=52:54:00:00:02:00,bridge=vmbr1,trunks=1;5;10-12,link_down=1",
    "model=virtio,macaddr=52:54:00:00:02:00,bridge=vmbr0,firewall=0,link_down=0",
    "bridge=vmbr0,virtio=52:54:00:00:02:00,firewall=1",  # written by hand
]


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_every_field_of_a_card_comes_back(bench: ProxmoxBench, card: str, running: bool) -> None:
    vm_id = bench.create("desk1", running=running)
    machine = bench.pve.vm(int(vm_id))
    machine.config["net0"] = card
    assert [nic.mac for nic in bench.vm(vm_id).nics] == [mac(0)]
    former = parts(card)
    for usecase in (SEAL, FORENSIC, SEAL):
        bench.one(usecase, vm_id)
        assert not bench.one(usecase, vm_id).changed
    bench.one(FREE, vm_id)
    assert parts(machine.config["net0"]) == former
    assert not bench.one(FREE, vm_id).changed


def parts(card: str) -> set[str]:
    told = set(card.replace("model=virtio,macaddr=", "virtio=").split(","))
    return told - {"link_down=0"}


def test_the_firewall_of_a_vm_whose_only_card_is_passed_through_comes_back(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1", nics=("uncuttable",))
    bench.pve.firewall_config("vm", vmid=int(vm_id))["options"] = {"policy_in": "ACCEPT"}
    former = bench.wiring(vm_id)
    (cut,) = bench.do(SEAL, vm_id)
    assert "NOT wholly isolated" in cut.msg
    bench.one(FREE, vm_id)
    assert bench.wiring(vm_id) == former


def test_a_card_that_was_exchanged_and_wired_by_hand_leaves_a_way_out(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    machine = bench.pve.vm(int(vm_id))
    bench.one(SEAL, vm_id)
    machine.config["net0"] = f"virtio={mac(7).upper()},bridge=vmbr0,firewall=1,link_down=1"
    (refused,) = bench.do(FREE, vm_id)
    assert "remove the IP set vmward-undo" in refused.msg
    assert "link_down=1" in machine.config["net0"]


# The undo note


def test_a_note_of_a_later_version_is_not_taken_for_one_of_ours(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    comments = bench.pve.firewall_config("vm", vmid=int(vm_id))["ipset_comments"]
    comments["vmward-undo"] = json.dumps({**json.loads(comments["vmward-undo"]), "v": 2})
    (outcome,) = bench.do(FREE, vm_id)
    assert "version 2" in outcome.msg
    assert "link_down=1" in bench.wiring(vm_id)


# The smaller part of a cluster that fell apart


def test_without_a_quorum_it_is_told_what_can_be_done(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    former = bench.wiring(vm_id)
    bench.pve.lose_quorum()
    (outcome,) = bench.do(SEAL, vm_id)
    assert "Cannot write the undo note on desk1 (100) on hv1: cfs-lock 'firewall-vm' error: no quorum!" in outcome.msg
    assert "pvecm expected 1; then run again" in outcome.msg
    assert "set_link net0 off" in outcome.msg
    assert bench.wiring(vm_id) == former
    bench.pve.regain_quorum()
    bench.one(SEAL, vm_id)
    bench.pve.lose_quorum()
    (outcome,) = bench.do(FREE, vm_id)
    assert "no quorum" in outcome.msg
    assert bench.vm(vm_id).isolation is Isolation.SEALED
    bench.pve.regain_quorum()
    bench.one(FREE, vm_id)
    assert bench.wiring(vm_id) == former


# Templates


def test_a_template_keeps_no_vm_from_being_found_by_its_address(bench: ProxmoxBench) -> None:
    bench.pve.vm(int(bench.create("golden", nics=("tap", "tap"), running=False))).template = True
    vm_id = bench.create("desk1")
    bench.pve.vm(int(vm_id)).config["net0"] = f"virtio={mac(9).upper()},bridge=vmbr0"
    refs = bench.hypervisor.refs()
    assert resolve([bench.hypervisor], refs, [mac(9)])[mac(9)] == VmRef("hv1", vm_id, "desk1")
    assert isinstance(resolve([bench.hypervisor], refs, [mac(1)])[mac(1)], NotFound)


# Two clusters


def test_an_id_that_two_clusters_have_is_told_apart_by_a_name_that_works(bench: ProxmoxBench) -> None:
    """Also where two entries lead to one cluster."""
    vm_id, other = bench.create("desk1"), bench.connect()
    other.name = "hv2"
    refs = [*bench.hypervisor.refs(), *other.refs()]
    for selector in ("desk1", vm_id):
        ambiguous = resolve([bench.hypervisor, other], refs, [selector])[selector]
        assert "Use 100_hv1 or 100_hv2." in str(ambiguous)
    assert resolve([bench.hypervisor, other], refs, ["100_hv2"])["100_hv2"] == VmRef("hv2", vm_id, "desk1")
    other.close()


def test_a_vm_that_is_called_as_anothers_id_is_told_apart_by_a_name_that_works(bench: ProxmoxBench) -> None:
    bench.create("desk1")
    bench.create("100")
    refs = bench.hypervisor.refs()
    assert "Use desk1_100 or 100_101." in str(resolve([bench.hypervisor], refs, ["100"])["100"])
    found = resolve([bench.hypervisor], refs, ["desk1_100", "100_101"])
    assert [ref.id for ref in found.values() if isinstance(ref, VmRef)] == ["100", "101"]


# The inventory


def test_a_vm_that_cannot_be_judged_stays_in_the_groups_of_its_tags(bench: ProxmoxBench) -> None:
    """Who contains a group must not miss one of it."""
    vm_id = bench.create("desk1")
    bench.tag(vm_id, "suspect")
    bench.pve.vm(int(vm_id)).qmpstatus = "dreaming"
    (machine,) = listed("hv1", bench.entry)
    assert (machine["vmward_tags"], machine["vmward_power"]) == (["suspect"], "unknown")
    assert "dreaming" in machine["vmward_problem"]


# Storages


def on(bench: ProxmoxBench, kind: str) -> str:
    """A stopped VM with two snapshots; a storage of another kind is there too."""
    vm_id = bench.create("desk1")
    bench.one(take("first"), vm_id)
    bench.one(take("second"), vm_id)
    bench.one(OFF, vm_id)
    bench.pve.storages["tank"] = {**bench.pve.storages["local"], "type": kind, "volumes": {}}
    bench.hypervisor = bench.connect()
    return vm_id


def test_zfs_over_iscsi_goes_back_to_the_newest_snapshot_only_too(bench: ProxmoxBench) -> None:
    vm_id = on(bench, "zfs")
    bench.pve.vm(int(vm_id)).config["scsi1"] = "tank:vm-100-disk-1,size=16M"
    before = len(bench.pve.requests)
    (refused,) = bench.do(Revert("first", False, True, {}), vm_id)
    assert "its storage only goes back to the newest snapshot, and second came after it" in refused.msg
    assert {call[0] for call in bench.pve.requests[before:]} == {"GET"}


def test_a_cloud_init_drive_has_no_snapshots_and_blocks_none(bench: ProxmoxBench) -> None:
    vm_id = on(bench, "zfspool")
    bench.pve.vm(int(vm_id)).config["ide2"] = "tank:vm-100-cloudinit,media=cdrom,size=4M"
    assert bench.one(Revert("first", False, True, {}), vm_id).after["current_snapshot"] == "first"


# A VM's id, used again


def another(bench: ProxmoxBench, vm_id: str) -> Any:
    """Somebody deletes the VM, and makes another that gets its id: as like it as can be."""
    was = bench.pve.vm(int(vm_id))
    bench.vanish(vm_id)
    marks = {"smbios1": "uuid=2", "meta": "ctime=2"}
    made = bench.pve.add_vm(int(vm_id), "till7", node="pve1", config={**was.config, **marks, "name": "till7"})
    made.snapshots = was.snapshots
    if was.status == "running":
        bench.pve.boot(made)
    return made


def known(bench: ProxmoxBench, running: bool, **marks: str) -> str:
    vm_id = bench.create("desk1", running=running)
    for mark in ("smbios1", "meta"):
        del bench.pve.vm(int(vm_id)).config[mark]
    bench.pve.vm(int(vm_id)).config.update(marks or {"smbios1": "uuid=1", "meta": "ctime=1"})
    return vm_id


def do_late(bench: ProxmoxBench, vm_id: str, usecase: UseCase, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The other VM gets the id between the plan and its first step."""
    plan = usecase.plan

    def planned(hypervisor: Any, vm: Any) -> Any:
        made = plan(hypervisor, vm)
        another(bench, vm_id)
        bench.pve.requests.clear()
        return made

    monkeypatch.setattr(usecase, "plan", planned)
    monkeypatch.setattr(work, "STILL", 0.0)
    (outcome,) = bench.do(usecase, vm_id)
    return outcome


LATE = {
    "power off": (True, lambda: SetPower("stopped", True, 0, {})),
    "shut down": (True, lambda: SetPower("stopped", False, 5, {})),
    "restart": (True, lambda: SetPower("restarted", True, 0, {})),
    "pause": (True, lambda: SetPower("paused", False, 0, {})),
    "start": (False, lambda: SetPower("running", False, 0, {})),
    "start paused": (False, lambda: SetPower("paused", False, 0, {})),
    "seal": (True, lambda: SetIsolation(Isolation.SEALED, "2026-1")),
    "forensic": (True, lambda: SetIsolation(Isolation.FORENSIC, "2026-1", [Collector("192.0.2.1", 22)])),
    "take a snapshot": (True, lambda: take("fresh")),
    "with memory": (True, lambda: take("fresh", True)),
    "quiesced": (True, lambda: SetSnapshot("fresh", "present", "", False, True)),
    "remove a snapshot": (True, lambda: SetSnapshot("clean", "absent", "", False)),
    "revert": (False, lambda: Revert("clean", False, True, {})),
    "delete": (False, lambda: Delete(True, {})),
}


@pytest.mark.parametrize("verb", LATE)
def test_another_vm_that_has_its_id_meanwhile_is_left_alone(
    bench: ProxmoxBench, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, usecase = LATE[verb]
    vm_id = known(bench, running)
    bench.one(take("clean"), vm_id)
    outcome = do_late(bench, vm_id, usecase(), monkeypatch)
    assert outcome.failed
    assert "another VM has its id now, till7, which was left alone" in outcome.msg
    assert "till7" not in str(outcome.after)
    assert [path for method, path, _body in bench.pve.requests if method != "GET"] == []


@pytest.mark.parametrize("verb", ["seal", "power off"])
@pytest.mark.parametrize(
    ("marks", "is_told"), [({"onboot": "1"}, True), ({"meta": "ctime=1"}, True), ({"smbios1": "uuid=1"}, True)]
)
def test_it_is_told_by_whatever_the_vm_had(
    bench: ProxmoxBench, verb: str, marks: dict[str, str], is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VM of an old Proxmox VE has no mark at all; every new one has both."""
    running, usecase = LATE[verb]
    vm_id = known(bench, running, **marks)
    assert ("another VM has its id now" in do_late(bench, vm_id, usecase(), monkeypatch).msg) is is_told


def test_release_of_another_vm_that_has_its_id_meanwhile(bench: ProxmoxBench, monkeypatch: pytest.MonkeyPatch) -> None:
    vm_id = known(bench, True)
    bench.one(SEAL, vm_id)
    outcome = do_late(bench, vm_id, SetIsolation(Isolation.FREE, keep_sessions=True), monkeypatch)
    assert "another VM has its id now" in outcome.msg
    assert bench.pve.vm(int(vm_id)).config["net0"].endswith("link_down=1")


def test_the_guest_of_another_vm_that_has_its_id_meanwhile_is_asked_nothing(bench: ProxmoxBench) -> None:
    vm_id = known(bench, True)
    vm = bench.vm(vm_id)
    another(bench, vm_id).agent = {}
    with pytest.raises(NotVerified, match="another VM has its id now"):
        bench.hypervisor.guest_run(vm, ["id"], 10, 1000)


def test_a_verb_on_the_other_vm_is_one_of_its_own(bench: ProxmoxBench, monkeypatch: pytest.MonkeyPatch) -> None:
    vm_id = known(bench, True)
    do_late(bench, vm_id, SetPower("stopped", True, 0, {}), monkeypatch)
    bench.hypervisor.refs()
    assert bench.one(OFF, vm_id).after == {"power": "stopped"}


def test_a_vm_that_was_changed_meanwhile_is_still_the_same(bench: ProxmoxBench) -> None:
    vm_id = known(bench, True)

    class Late(SetIsolation):
        def plan(self, hypervisor: Any, vm: Any) -> Any:
            planned = super().plan(hypervisor, vm)
            card = f"virtio={mac(5)},bridge=vmbr0"
            bench.pve.vm(int(vm_id)).config.update(name="renamed", smbios1="uuid=2", net1=card)
            return planned

    bench.do(Late(Isolation.SEALED, "2026-1"), vm_id)
    assert all("link_down=1" in bench.pve.vm(int(vm_id)).config[key] for key in ("net0", "net1"))
