# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proxmox VE's strings and lists become the model, and back. The strings are of a real PVE 9.2.11 where it has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Unsupported
from ansible_collections.vmward.remediation.plugins.module_utils._model import (
    Collector,
    Isolation,
    IsolationNote,
    Layer,
    PowerState,
    VmRef,
    Wiring,
)
from ansible_collections.vmward.remediation.plugins.module_utils._proxmox import convert, disks, note, rights

ROOT = Path(__file__).resolve().parents[5]
RECORDED = {row["call"]: row["body"]["data"] for row in json.loads((ROOT / "tests/pve/recorded.json").read_text())}
REF = VmRef("pve", "100", "vm100")
REAL = "virtio=BC:24:11:00:00:00,bridge=vmbr0,firewall=1"
FULL = "virtio=BC:24:11:00:00:00,bridge=vmbr0,firewall=1,mtu=1400,queues=4,rate=12.5,tag=7,trunks=2;3-9"
FIREWALL = {"enable": 0}


def seen(*rows: dict[str, Any], status: dict[str, Any] | None = None, comment: str | None = None) -> convert.Seen:
    state = status or {"status": "running", "qmpstatus": "running", "pid": 7, "vmid": 100}
    return convert.Seen("pve1", state, rows, FIREWALL, comment)


def row(key: str, value: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "value": value, **more}


def held(mode: Isolation = Isolation.SEALED, sessions: bool = True) -> IsolationNote:
    wiring = (("net0", Wiring(convert.wiring_text(REAL, FIREWALL), convert.wiring_text(REAL, FIREWALL))),)
    return IsolationNote("2026-1", mode, "2026-11-22T04:00:00Z", wiring, (), sessions)


# NIC strings


@pytest.mark.parametrize("value", [REAL, FULL, REAL + ",link_down=1", "e1000=AA:BB:CC:DD:EE:FF"])
def test_a_nic_goes_down_and_up_again_and_is_the_same(value: str) -> None:
    was_down = convert.is_down(value)
    down = convert.rewired(value, down=True)
    assert convert.is_down(down)
    assert convert.rewired(down, was_down) == convert.canonical(value)
    assert {**convert.fields(down), "link_down": ""} == {**convert.fields(value), "link_down": ""}


def test_every_field_stays_but_those_of_the_bridge_that_is_left() -> None:
    moved = convert.fields(convert.rewired(FULL, False, "quarantine"))
    former = convert.fields(FULL)
    assert moved["bridge"] == "quarantine"
    assert not {"tag", "trunks"} & set(moved)
    for kept in ("virtio", "firewall", "mtu", "queues", "rate"):
        assert moved[kept] == former[kept]


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (REAL, REAL),
        ("virtio=BC:24:11:00:00:00,firewall=1,bridge=vmbr0", REAL),
        ("bridge=vmbr0,virtio=BC:24:11:00:00:00,firewall=1", REAL),
        ("model=virtio,macaddr=BC:24:11:00:00:00,bridge=vmbr0,firewall=1", REAL),
        (REAL + ",link_down=0", REAL),
        ("virtio,bridge=vmbr0", "virtio,bridge=vmbr0"),
    ],
)
def test_the_same_nic_is_told_in_the_same_words(value: str, same: str) -> None:
    assert convert.canonical(value) == same


def test_the_wiring_is_restored_exactly_from_its_text() -> None:
    text = convert.wiring_text(FULL, {"enable": 1, "dhcp": 0})
    assert convert.net_of(text) == FULL
    assert convert.wiring_text("", FIREWALL) == ""
    assert convert.firewall_of(held()) == FIREWALL
    assert convert.firewall_of(IsolationNote("c", Isolation.SEALED, "", (("hostpci0", Wiring("01:00", "")),))) is None


# From /pending to NICs


def test_the_recorded_vm_is_read() -> None:
    now = convert.Seen("pve1", RECORDED[14], RECORDED[17], RECORDED[73], None)
    (nic,) = convert.nics_of(now, None, "quarantine", addresses=True)
    assert (nic.id, nic.mac, nic.kind, nic.network) == ("net0", "bc:24:11:00:00:00", "bridge", "vmbr0")
    assert (nic.device, nic.link_up, nic.isolation) == ("tap100i0", True, Isolation.FREE)
    assert nic.cut_by == ("link", "network")
    assert json.loads(nic.wiring.config)["firewall"] == {
        "enable": 1,
        "policy_in": "DROP",
        "policy_out": "DROP",
        "dhcp": 0,
    }
    assert convert.power_of(REF, RECORDED[14], "") is PowerState.RUNNING
    assert convert.power_of(REF, RECORDED[118], "") is PowerState.PAUSED
    assert convert.power_of(REF, RECORDED[53], "") is PowerState.STOPPED
    assert convert.power_of(REF, RECORDED[53], "suspended") is PowerState.SUSPENDED
    assert convert.memory_of(now.config("memory")) == 160 << 20
    assert now.mark == "pve1:199"


def test_now_and_the_next_start_are_both_judged_and_the_weaker_counts() -> None:
    down = REAL + ",link_down=1"
    (nic,) = convert.nics_of(seen(row("net0", down, pending=REAL)), held(), "", False)
    assert nic.isolation is Isolation.FREE
    (nic,) = convert.nics_of(seen(row("net0", down)), held(), "", False)
    assert nic.isolation is Isolation.SEALED
    (nic,) = convert.nics_of(seen(row("net0", REAL, delete=1)), held(), "", False)
    assert nic.wiring.config == ""


def test_a_stopped_vm_has_no_live_wiring() -> None:
    (nic,) = convert.nics_of(seen(row("net0", REAL), status={"status": "stopped"}), None, "", False)
    assert (nic.wiring.live, nic.device) == ("", "")
    assert seen(row("net0", REAL), status={"status": "stopped"}).mark == ""


@pytest.mark.parametrize(
    ("value", "mode", "isolation"),
    [
        (REAL, Isolation.SEALED, Isolation.FREE),
        (REAL + ",link_down=1", Isolation.SEALED, Isolation.SEALED),
        ("virtio=BC:24:11:00:00:00,bridge=quarantine", Isolation.FORENSIC, Isolation.FORENSIC),
        ("virtio=BC:24:11:00:00:00,bridge=quarantine,link_down=1", Isolation.FORENSIC, Isolation.FORENSIC),
        ("virtio=BC:24:11:00:00:00,bridge=quarantine,link_down=1", Isolation.SEALED, Isolation.SEALED),
        ("virtio=BC:24:11:00:00:00,bridge=quarantine", Isolation.SEALED, Isolation.FORENSIC),
    ],
)
def test_isolation(value: str, mode: Isolation, isolation: Isolation) -> None:
    assert convert.isolation_of(value, held(mode), "quarantine") is isolation


def test_without_our_note_a_link_that_is_down_is_only_that() -> None:
    assert convert.isolation_of(REAL + ",link_down=1", None, "quarantine") is Isolation.FREE


def test_addresses_are_those_that_were_configured_outside_the_guest() -> None:
    assert convert.static_addresses("ip=192.0.2.7/24,gw=192.0.2.1,ip6=auto") == ("192.0.2.7",)
    assert convert.static_addresses("ip=dhcp,ip6=2001:db8::7/64") == ("2001:db8::7",)
    assert convert.static_addresses("") == ()


# What no link state can cut

PCI = [
    {"id": "0000:01:00.0", "class": "0x020000"},
    {"id": "0000:02:00.0", "class": "0x030000"},
    {"id": "0000:02:00.1", "class": "0x040300"},
    {"id": "0000:04:00.0", "class": "0x030000"},
    {"id": "0000:04:00.2", "class": "0x0c0330"},
    {"id": "0000:05:00.0", "class": "0x0d8000"},
]
USB = [{"vendid": "046d", "prodid": "c31c", "class": 3}, {"vendid": "0bda", "prodid": "8153", "class": 0}]


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("hostpci0", "0000:01:00.0,pcie=1", "passed-through network card 0000:01:00.0"),
        ("hostpci0", "01:00", "passed-through network card 0000:01:00.0"),
        ("hostpci0", "host=0000:02:00.0", ""),
        ("hostpci0", "02:00", ""),
        ("hostpci0", "02:00;01:00", "passed-through network card 0000:01:00.0"),
        ("hostpci0", "02:00;09:00", "passed-through device 02:00;09:00, which may be a network card"),
        ("hostpci0", "04:00", "passed-through USB controller 0000:04:00.2, on which a network card may sit"),
        ("hostpci0", "05:00.0", "passed-through wireless controller 0000:05:00.0"),
        ("hostpci0", "mapping=nic", "passed-through device mapping=nic, which may be a network card"),
        ("hostpci0", "0000:03:00.0", "passed-through device 0000:03:00.0, which may be a network card"),
        ("usb0", "host=046d:c31c", ""),
        ("usb0", "host=0x046d:0xc31c", ""),
        ("usb0", "host=0bda:8153", "passed-through device host=0bda:8153, which may be a network card"),
        ("usb0", "host=1-1.2", "passed-through device host=1-1.2, which may be a network card"),
        ("usb0", "spice", ""),
    ],
)
def test_passed_through_devices_are_told_apart(key: str, value: str, kind: str) -> None:
    assert convert.passed_kind(key, value, PCI, USB) == kind


def test_what_the_host_does_not_tell_may_be_a_network_card() -> None:
    assert "may be a network card" in convert.passed_kind("hostpci0", "0000:02:00.0", None, None)
    assert "may be a network card" in convert.passed_kind("usb0", "host=046d:c31c", None, None)


@pytest.mark.parametrize(
    "args",
    [
        "-netdev user,id=n1 -device virtio-net,netdev=n1",
        "--netdev user,id=n1",
        "'-netdev' \"user,id=n1\"",
        "-device 'e1000,mac=52:54:00:00:00:01'",
        '-device "vfio-pci,host=1',
    ],
)
def test_a_nic_in_qemus_own_arguments_is_seen(args: str) -> None:
    (nic,) = convert.nics_of(seen(row("args", args)), None, "", False)
    assert (nic.id, nic.cut_by) == ("args", ())


def test_other_arguments_are_no_nic() -> None:
    recorded = next(one["value"] for one in RECORDED[17] if one["key"] == "args")
    assert convert.nics_of(seen(row("args", recorded)), None, "", False) == ()


# Power


def test_an_unknown_power_state_is_an_error_with_its_raw_value() -> None:
    with pytest.raises(Unsupported, match="'dreaming'"):
        convert.power_of(REF, {"qmpstatus": "dreaming"}, "")


# Snapshots


def test_the_recorded_tree() -> None:
    pre1, ram1 = convert.snapshots_of(RECORDED[45], blocked=False)
    assert (pre1.name, pre1.parent, pre1.memory, pre1.current, pre1.blocked) == ("pre1", "", False, False, "")
    assert (ram1.name, ram1.parent, ram1.memory, ram1.current) == ("ram1", "pre1", True, True)
    assert (ram1.created, ram1.description, ram1.power) == ("2026-11-21T23:04:44Z", "evidence", PowerState.RUNNING)


def test_a_storage_that_goes_back_to_the_newest_only_says_what_stands_in_the_way() -> None:
    pre1, ram1 = convert.snapshots_of(RECORDED[45], blocked=True)
    assert "ram1 came after it" in pre1.blocked
    assert ram1.blocked == ""


def test_an_unfinished_snapshot_is_none() -> None:
    rows: list[dict[str, Any]] = [{"name": "half", "snaptime": 1, "snapstate": "prepare"}, {"name": "current"}]
    assert convert.snapshots_of(rows, False) == ()


def test_a_tree_that_bites_its_tail_ends() -> None:
    rows = [{"name": "aa", "snaptime": 1, "parent": "bb"}, {"name": "bb", "snaptime": 1, "parent": "aa"}]
    assert len(convert.snapshots_of(rows, True)) == 2


# Disks


def test_the_chain_of_a_linked_clone_stands_in_its_name() -> None:
    volume = "local:101/base-101-disk-0.qcow2/104/vm-104-disk-0.qcow2"
    told = {volume: {"size": 5, "used": 3, "format": "qcow2"}}
    disk = disks.disk_of("scsi0", {"volume": volume, "size": "1G"}, told)
    assert disk.layers == (Layer(volume, "qcow2"), Layer("local:101/base-101-disk-0.qcow2", "qcow2"))
    assert (disk.size, disk.allocated, disk.bus, disk.read_only) == (5, 3, "scsi", False)


@pytest.mark.parametrize(
    ("volume", "format_"), [("lvm:vm-1-disk-0", "raw"), ("nfs:1/vm-1-disk-0.vmdk", "vmdk"), ("zfs:vm-1-disk-0", "raw")]
)
def test_the_format_is_what_pve_takes_from_the_name(volume: str, format_: str) -> None:
    assert disks.disk_of("virtio0", {"volume": volume, "size": "32G"}, {}).layers == (Layer(volume, format_),)


def test_only_drives_with_a_volume_are_disks() -> None:
    rows = [
        row("scsi0", "local:1/vm-1-disk-0.qcow2,size=1G"),
        row("ide2", "none,media=cdrom"),
        row("ide3", "local:iso/debian.iso,media=cdrom"),
        row("scsihw", "virtio-scsi-pci"),
    ]
    drives = disks.drives_of(seen(*rows))
    assert sorted(drives) == ["ide3", "scsi0"]
    assert disks.disk_of("ide3", drives["ide3"], {}).read_only


@pytest.mark.parametrize(("text", "size"), [("1G", 1 << 30), ("528K", 528 << 10), ("1.5M", 3 << 19), ("x", 0)])
def test_sizes(text: str, size: int) -> None:
    assert disks.size_of(text) == size


# The undo note


def test_the_note_comes_back_whole() -> None:
    collectors = (Collector("192.0.2.1", 22), Collector("2001:db8::1", 514, "udp", "vm"))
    kept = IsolationNote("2026-1", Isolation.FORENSIC, "2026-11-22T04:00:00Z", held().wiring, collectors, True)
    text = note.text_of(kept, "pve1:7", 1795302283)
    assert text.isascii()
    assert "\n" not in text
    asked: list[tuple[str, int]] = []
    assert note.note_of(text, lambda *told: not asked.append(told)) == kept  # type: ignore[func-returns-value]
    assert asked == [("pve1:7", 1795302283)]


def test_a_note_without_sessions_asks_for_none() -> None:
    back = note.note_of(note.text_of(held(sessions=False), "pve1:7", 1), lambda *_told: True)
    assert back is not None
    assert not back.sessions


WHOLE = json.loads(note.text_of(held(), "pve1:7", 1))
UNREADABLE = [
    "", "{", "[]", '{"v": 1}', '{"case": 1, "mode": "odd"}', "null", "[" * 100_000,
    *(json.dumps({**WHOLE, **change}) for change in (
        {"wiring": {"net0": [1, 2]}}, {"wiring": {"net0": ["{}", ""]}}, {"wiring": {"net0": ["virtio=x", ""]}},
        {"wiring": {"net0": ["[" * 100_000, ""]}}, {"wiring": [1]}, {"marked": "soon"}, {"collectors": [{"x": 1}]},
    )),
]  # fmt: skip


@pytest.mark.parametrize("text", UNREADABLE, ids=range(len(UNREADABLE)))
def test_a_note_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="Error"):
        note.note_of(text, lambda *_told: False)
    assert note.note_of(None, lambda *_told: False) is None


# The firewall

WANTED = note.wanted_options(Isolation.SEALED)
NETS = {"net0": convert.fields(REAL)}
ON = {"enable": 1}


def test_the_firewall_counts_only_when_every_switch_is_on() -> None:
    assert note.unconfirmed(Isolation.SEALED, WANTED, [], NETS, ON, "running") == ()
    assert "cannot be read" in note.unconfirmed(Isolation.SEALED, WANTED, [], NETS, None, "running")[0]
    assert "is off" in note.unconfirmed(Isolation.SEALED, WANTED, [], NETS, {"enable": 0}, "running")[0]
    assert "is unknown" in note.unconfirmed(Isolation.SEALED, WANTED, [], NETS, ON, "")[0]
    assert "dhcp=None" in note.unconfirmed(Isolation.SEALED, {**WANTED, "dhcp": None}, [], NETS, ON, "running")[0]
    bare = {"net0": convert.fields("virtio=BC:24:11:00:00:00,bridge=vmbr0")}
    assert "net0 has no firewall=1" in note.unconfirmed(Isolation.SEALED, WANTED, [], bare, ON, "running")


def test_a_foreign_rule_before_ours_is_told() -> None:
    foreign = {"type": "in", "action": "ACCEPT", "enable": 1}
    ours = note.wanted_rules(Isolation.SEALED, ())
    assert note.lets_through(Isolation.SEALED, [foreign])
    assert note.lets_through(Isolation.SEALED, [foreign, *ours])
    assert not note.lets_through(Isolation.SEALED, [*ours, foreign])
    assert not note.lets_through(Isolation.SEALED, [{**foreign, "enable": 0}])
    assert note.lets_through(Isolation.FORENSIC, [])


def test_collectors_become_rules_before_the_drop() -> None:
    rules = note.wanted_rules(
        Isolation.FORENSIC, [Collector("192.0.2.1", 22), Collector("192.0.2.2", 514, "udp", "vm")]
    )
    assert [(r["type"], r["action"], r.get("source"), r.get("dest"), r.get("dport")) for r in rules] == [
        ("in", "ACCEPT", "192.0.2.1", None, "22"),
        ("out", "ACCEPT", None, "192.0.2.2", "514"),
        ("in", "DROP", None, None, None),
        ("out", "DROP", None, None, None),
    ]


# Rights


def test_a_privilege_is_held_by_the_path_one_above_it_or_the_pool() -> None:
    held_ = {"/": {"Sys.Audit": 1}, "/vms": {"VM.Audit": 1, "VM.Snapshot": 0}, "/pool/vdi": {"VM.PowerMgmt": 1}}
    assert rights.holds(held_, "/vms/100", "VM.Audit")
    assert not rights.holds(held_, "/vms/100", "VM.Snapshot"), "not propagated"
    assert rights.holds(held_, "/vms", "VM.Snapshot")
    assert rights.holds(held_, "/vms/100", "VM.PowerMgmt", "vdi")
    assert not rights.holds(held_, "/vms/100", "VM.PowerMgmt")
    assert not rights.holds({**held_, "/vms/100": {}}, "/vms/100", "VM.Audit"), "the nearest path decides"


def test_what_is_missing_is_told_one_by_one() -> None:
    held_ = {"/vms/100": {"VM.Audit": 1}, "/sdn/zones/lab/vnet1": {"SDN.Use": 1}}
    needs = [rights.on_vm("100", "VM.Config.Network"), rights.on_vm("100", "VM.Snapshot.Rollback", "VM.Snapshot")]
    needs += rights.on_bridges(held_, ["vmbr0", "vnet1"])
    assert rights.missing(held_, needs) == [
        "VM.Config.Network on /vms/100",
        "VM.Snapshot.Rollback or VM.Snapshot on /vms/100",
        "SDN.Use on /sdn/zones/localnetwork/vmbr0",
    ]
    assert rights.missing({"/": {"VM.Audit": 1}}, [rights.on_vm("1", "VM.Audit")]) == []
