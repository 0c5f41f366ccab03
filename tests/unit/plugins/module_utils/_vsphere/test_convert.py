# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vSphere's own data objects in, the model out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Unjudged, Unsupported
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Detail
from ansible_collections.vmward.remediation.plugins.module_utils._model import (
    Isolation,
    IsolationNote,
    Layer,
    PowerState,
    Vm,
    VmRef,
    Wiring,
)
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere import convert, note, wiring

device = vim.vm.device
Card = device.VirtualEthernetCard
REF = VmRef("vc1", "uuid-1", "desk1")
MAC = "00:50:56:00:00:01"
HOME = {"portgroup": "dvportgroup-1", "switch": "switch-1"}
CELL = {"standard": "Isolation"}
NETWORKS = convert.Networks({"dvportgroup-1": "Office"}, CELL)
BOOT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVERYTHING = frozenset(Detail)


def card(
    backing: dict[str, str] | None = None,
    up: bool = True,
    start: bool | None = None,
    guest: bool = True,
    kind: Any = None,
    **more: Any,
) -> Any:
    link = device.VirtualDevice.ConnectInfo(
        connected=up, startConnected=up if start is None else start, allowGuestControl=guest
    )
    plugged = convert.backing_object(backing or HOME)
    return (kind or device.VirtualVmxnet3)(
        **{"key": 4000, "macAddress": MAC, "connectable": link, "backing": plugged, **more}
    )


def held(mode: Isolation) -> IsolationNote:
    return IsolationNote("2026-1", mode, "2026-01-02T03:04:05Z", ())


def vm(*devices: Any, power: str = "poweredOn", mode: Isolation | None = None, **more: Any) -> Vm:
    props = {
        "name": "desk1",
        "config.hardware.device": list(devices),
        "config.hardware.memoryMB": 2048,
        "config.template": False,
        "runtime.connectionState": "connected",
        "runtime.powerState": power,
        "summary.runtime.bootTime": BOOT,
        **more,
    }
    fields = {}
    if mode is not None:
        value = note.write(held(mode), "")
        props["customValue"] = [vim.CustomFieldsManager.StringValue(key=7, value=value)]
        fields = {7: note.KEY}
    return convert.vm_of(REF, props, EVERYTHING, NETWORKS, fields)


# What is judged


def test_a_free_vm() -> None:
    found = vm(card(macAddress=MAC.upper()))
    (nic,) = found.nics
    assert (found.power, found.memory, found.note, found.isolation) == (
        PowerState.RUNNING,
        2048 * 1024 * 1024,
        None,
        Isolation.FREE,
    )
    assert (nic.id, nic.mac, nic.kind, nic.network, nic.link_up) == (MAC, MAC, "vmxnet3", "Office", True)
    assert nic.cut_by == ("filter", "link")
    assert nic.wiring.config == nic.wiring.live == json.dumps({"backing": HOME, "guest": True, "up": True})


SEALED, FREE = Isolation.SEALED, Isolation.FREE


@pytest.mark.parametrize(
    ("up", "start", "guest", "power", "isolation"),
    [
        (False, False, False, "poweredOn", SEALED),
        (True, False, False, "poweredOn", FREE),  # somebody connected it again
        (False, True, False, "poweredOn", FREE),  # the next start would
        (False, False, True, "poweredOn", FREE),  # the guest may
        (False, True, False, "poweredOff", FREE),
        (False, False, False, "poweredOff", SEALED),
        (True, False, False, "suspended", SEALED),  # its cable is no fact while it is suspended
    ],
)
def test_sealed_is_all_three_now_and_at_the_next_start(
    up: bool, start: bool, guest: bool, power: str, isolation: Isolation
) -> None:
    assert vm(card(None, up, start, guest), power=power, mode=SEALED).isolation is isolation


def test_down_without_a_note_is_not_ours() -> None:
    assert vm(card(None, False, False, False)).isolation is FREE


def test_forensic_is_where_the_card_is_plugged_in() -> None:
    assert vm(card(CELL), mode=Isolation.FORENSIC).isolation is Isolation.FORENSIC
    assert vm(card(), mode=Isolation.FORENSIC).isolation is FREE
    assert vm(card(CELL), mode=SEALED).isolation is Isolation.FORENSIC  # not sealed, and not free either
    assert vm(card(up=False, start=False, guest=False), mode=Isolation.FORENSIC).isolation is SEALED


@pytest.mark.parametrize(
    ("kind", "is_ours"), [(None, True), (vim.VirtualMachine, True), (vim.ManagedEntity, True), (vim.HostSystem, False)]
)
def test_a_custom_attribute_may_be_of_another_kind_of_object(kind: Any, is_ours: bool) -> None:
    assert convert.is_of_vms(SimpleNamespace(managedObjectType=kind)) is is_ours


def test_of_two_cards_the_weaker_counts() -> None:
    down = card(None, False, False, False)
    assert vm(down, card(key=4001, macAddress="00:50:56:00:00:02"), mode=SEALED).isolation is FREE


def test_the_wiring_of_a_stopped_or_suspended_vm_has_no_now() -> None:
    for power in ("poweredOff", "suspended"):
        (nic,) = vm(card(), power=power).nics
        assert (nic.wiring.live, nic.link_up) == ("", True)


def passthrough(**more: Any) -> Any:
    backing = device.VirtualPCIPassthrough.DeviceBackingInfo(
        id="00:1f.0", deviceId="10fb", systemId="s", vendorId=32902
    )
    return device.VirtualPCIPassthrough(**{"key": 13000, "backing": backing, **more})


def test_what_the_guest_drives_itself_cannot_be_cut_and_is_named() -> None:
    found = vm(
        card(),
        card(key=4001, macAddress="00:50:56:00:00:02", kind=device.VirtualSriovEthernetCard),
        passthrough(),
        device.VirtualUSB(key=14000, connected=True, family=["communication"]),
        device.VirtualUSB(key=14001, connected=True, family=[]),
    )
    assert [(nic.kind, nic.cut_by) for nic in found.nics] == [
        ("vmxnet3", ("filter", "link")),
        ("sriovethernetcard", ()),
        ("pcipassthrough", ()),
        ("usb", ()),
        ("usb", ()),
    ]
    assert [nic.id for nic in found.nics[2:]] == ["device-13000", "device-14000", "device-14001"]


def test_a_graphics_card_and_a_usb_stick_are_no_network() -> None:
    graphics = device.VirtualPCIPassthrough.VmiopBackingInfo(vgpu="grid")
    assert vm(passthrough(backing=graphics), device.VirtualUSB(key=1, connected=True, family=["storage"])).nics == ()


def test_without_an_isolation_port_group_only_the_link_can_be_cut() -> None:
    props = {"config.hardware.device": [card()], "runtime.powerState": "poweredOn"}
    (nic,) = convert.vm_of(REF, props, frozenset(), convert.Networks({}), {}).nics
    assert (nic.cut_by, nic.network) == (("link",), "dvportgroup-1")


# What is refused


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"config.template": True}, "it is a template"),
        ({"runtime.connectionState": "inaccessible"}, "vSphere calls it inaccessible"),
        ({"runtime.powerState": "dreaming"}, "unknown power state 'dreaming'"),
        ({"runtime.powerState": None}, "unknown power state None"),
        ({"customValue": [vim.CustomFieldsManager.StringValue(key=7, value="{}")]}, "no undo note that can be read"),
    ],
)
def test_a_vm_that_cannot_be_judged_says_why(changed: dict[str, Any], sentence: str) -> None:
    props = {"config.hardware.device": [card()], "runtime.powerState": "poweredOn", **changed}
    with pytest.raises(Unsupported, match=sentence):
        convert.vm_of(REF, props, frozenset(), NETWORKS, {7: note.KEY})


SIDE = '{"backing": {"standard": "lan"}, "up": true, "guest": true}'
NOTE = '{"case": "1", "mode": "sealed", "since": "", "boot": "", "collectors": [], "wiring": {"m": [%s, %s]}}'


@pytest.mark.parametrize(
    ("text", "power"),
    [("{}", "poweredOn"), ('{"wiring": []}', "poweredOff"), ("[" * 100_000, "poweredOn"), ("", "dreaming")]
    + [(NOTE % sides, "poweredOn") for sides in (("null", "null"), ("{}", "null"), (SIDE, "5"))],
    ids=lambda text: text[:30],
)
def test_what_is_known_of_it_is_enough_to_cut_it_off(text: str, power: str) -> None:
    value = vim.CustomFieldsManager.StringValue(key=7, value=text)
    props = {"config.hardware.device": [card()], "runtime.powerState": power, "customValue": [value]}
    with pytest.raises(Unjudged) as told:
        convert.vm_of(REF, props, frozenset(), NETWORKS, {7: note.KEY})
    known = told.value.vm
    assert known.note is None
    assert [nic.isolation for nic in known.nics] == [Isolation.FREE]
    assert known.power is (PowerState.STOPPED if power == "poweredOff" else PowerState.RUNNING)
    value.value = NOTE % (SIDE, "null")
    assert convert.vm_of(REF, {**props, "runtime.powerState": "poweredOn"}, frozenset(), NETWORKS, {7: note.KEY}).note


def test_a_network_of_an_unknown_kind_is_an_error() -> None:
    strange = card()
    strange.backing = device.VirtualDevice.RemoteDeviceBackingInfo(deviceName="legacy")
    with pytest.raises(Unsupported, match="RemoteDeviceBackingInfo"):
        vm(strange)


# Wiring there and back


@pytest.mark.parametrize(
    "backing", [HOME, CELL, {"opaque": "net-1", "type": "nsx.LogicalSwitch"}], ids=["distributed", "standard", "opaque"]
)
def test_a_backing_survives_the_way_there_and_back(backing: dict[str, str]) -> None:
    assert convert.backing_of(REF, card(backing)) == backing


def test_an_edit_changes_what_differs_and_nothing_else() -> None:
    plugged = card(wakeOnLanEnabled=True)
    up, down = {"backing": HOME, "guest": True, "up": True}, {"backing": HOME, "guest": False, "up": False}
    assert wiring.edit(REF, plugged, up, up, PowerState.RUNNING) is None
    change = wiring.edit(REF, plugged, down, down, PowerState.RUNNING)
    link = change.device.connectable
    assert (change.operation, link.connected, link.startConnected, link.allowGuestControl) == ("edit", *[False] * 3)
    assert change.device.backing is plugged.backing
    assert change.device.wakeOnLanEnabled
    assert plugged.connectable.connected, "the card as it was read stays as it was"
    moved = wiring.edit(REF, plugged, {**up, "backing": CELL}, {**up, "backing": CELL}, PowerState.RUNNING)
    assert moved.device.backing.deviceName == "Isolation"
    assert moved.device.connectable.connected


def test_a_stopped_vm_is_never_connected_by_an_edit() -> None:
    up = {"backing": HOME, "guest": True, "up": True}
    change = wiring.edit(REF, card(None, False, False, False), up, up, PowerState.STOPPED)
    assert (change.device.connectable.startConnected, change.device.connectable.connected) == (True, False)


# The note

LONG = tuple(
    (f"00:50:56:00:00:{n:02x}", Wiring(*[json.dumps({"backing": HOME, "guest": True, "up": True})] * 2))
    for n in range(10)
)


@pytest.mark.parametrize("cards", [0, 1, 10])
def test_a_note_is_read_as_it_was_written(cards: int) -> None:
    kept = IsolationNote("2026-1", SEALED, "2026-01-02T03:04:05Z", LONG[:cards], sessions=True)
    text = note.write(kept, "boot-1")
    assert note.parse(text, "boot-1") == kept
    assert text.startswith(note.PACKED) is (cards == 10)
    assert len(text) < 1000


def test_sessions_live_until_the_next_cold_start() -> None:
    text = note.write(IsolationNote("c", SEALED, "t", (), sessions=True), "boot-1")
    assert note.parse(text, "boot-1").sessions
    assert not note.parse(text, "boot-2").sessions
    assert not note.parse(text, "").sessions
    never = note.write(IsolationNote("c", SEALED, "t", (), sessions=False), "boot-1")
    assert not note.parse(never, "boot-1").sessions


def test_a_sleep_is_known_by_its_start_and_an_unknown_start_is_none() -> None:
    kept = IsolationNote("c", SEALED, "t", (), sessions=True)
    assert note.fell_asleep_cut(note.write(kept, "boot-1", asleep=True), "boot-1")
    assert not note.fell_asleep_cut(note.write(kept, "boot-1", asleep=True), "boot-2")
    assert not note.fell_asleep_cut(note.write(kept, "boot-1"), "boot-1")
    assert not note.fell_asleep_cut(note.write(kept, note.UNKNOWN, asleep=True), note.UNKNOWN)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"case": 1}', "packed:!!", "packed:eJw=", "packed:" + "A" * 50]
)
def test_what_is_no_note_is_an_error(text: str) -> None:
    with pytest.raises(Unsupported, match=r"vmward\.isolation"):
        note.parse(text, "")


# Names, disks, snapshots


@pytest.mark.parametrize("name", ["plain", "100%", "a/b\\c", "%2f", "%25", "日本語"])
def test_names_are_kept_escaped_by_vsphere_and_told_as_they_are(name: str) -> None:
    assert convert.unquoted(convert.quoted(name)) == name


def test_only_the_three_escapes_are_escapes() -> None:
    assert convert.unquoted("%41 %2F %zz") == "%41 / %zz"


def parts_of(layout: Any) -> dict[str, Any]:
    return {f"layoutEx.{part}": getattr(layout, part) for part in ("disk", "file", "snapshot")}


def test_a_disk_with_its_chain() -> None:
    flat = device.VirtualDisk.FlatVer2BackingInfo
    base = flat(fileName="[ds] base.vmdk", diskMode="persistent")
    disk = device.VirtualDisk(
        key=2000,
        controllerKey=1000,
        capacityInKB=1024,
        capacityInBytes=1024 * 1024,
        backing=flat(fileName="[ds] vm/vm.vmdk", diskMode="persistent", parent=base),
    )
    info = vim.vm.FileLayoutEx
    layout = info(
        timestamp=BOOT,
        file=[info.FileInfo(key=1, name="[ds] vm/vm.vmdk", type="diskDescriptor", size=500)]
        + [info.FileInfo(key=2, name="[ds] vm/vm-flat.vmdk", type="diskExtent", size=4096)],
        disk=[info.DiskLayout(key=2000, chain=[info.DiskUnit(fileKey=[1, 2])])],
    )
    found = vm(device.VirtualLsiLogicController(key=1000, busNumber=0, sharedBus="noSharing"), disk, **parts_of(layout))
    (told,) = found.disks
    assert (told.id, told.bus, told.size, told.allocated) == ("disk-2000", "scsi", 1024 * 1024, 4596)
    assert told.layers == (Layer("[ds] vm/vm.vmdk", "vmdk"), Layer("[ds] base.vmdk", "vmdk"))


def leaf(number: int, name: str, state: str = "poweredOff", below: tuple[Any, ...] = ()) -> Any:
    return vim.vm.SnapshotTree(
        snapshot=vim.vm.Snapshot(f"snapshot-{number}", None),
        vm=vim.VirtualMachine("vm-1", None),
        name=name,
        description="",
        id=number,
        createTime=BOOT,
        state=state,
        quiesced=False,
        childSnapshotList=list(below),
    )


def test_a_tree_with_twins_is_told_flat_and_by_id() -> None:
    tree = leaf(1, "a%2fb", below=(leaf(2, "twin", "poweredOn"), leaf(3, "twin", "poweredOn")))
    info = vim.vm.SnapshotInfo(currentSnapshot=vim.vm.Snapshot("snapshot-3", None), rootSnapshotList=[tree])
    parts = vim.vm.FileLayoutEx
    layout = parts(
        timestamp=BOOT,
        snapshot=[
            parts.SnapshotLayout(key=vim.vm.Snapshot("snapshot-2", None), dataKey=1, memoryKey=-1),
            parts.SnapshotLayout(key=vim.vm.Snapshot("snapshot-3", None), dataKey=2, memoryKey=3),
        ],
    )
    found = vm(snapshot=info, **parts_of(layout)).snapshots
    assert [(s.id, s.name, s.parent, s.memory, s.current, s.power.value) for s in found] == [
        ("snapshot-1", "a/b", "", False, False, "stopped"),
        ("snapshot-2", "twin", "snapshot-1", False, False, "stopped"),
        ("snapshot-3", "twin", "snapshot-1", True, True, "running"),
    ]
    assert {s.created for s in found} == {"2026-01-02T03:04:05Z"}
    assert vm().snapshots == ()
