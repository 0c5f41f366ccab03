# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's XML in, the model out, and the two edits that isolation makes, against golden files."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import TaskFailed, Unsupported
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt import filters, xml
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.api import judged
from ansible_collections.vmward.remediation.plugins.module_utils._model import (
    Collector,
    Isolation,
    IsolationNote,
    PowerState,
    Wiring,
)

GOLDEN = Path(__file__).with_name("golden")


def golden(name: str) -> ET.Element:
    return xml.parse((GOLDEN / name).read_text())


def canonical(element: ET.Element) -> str:
    return ET.canonicalize(xml.text_of(element), strip_text=True)


def ours(_name: str) -> bool:
    return True


def unknown(_name: str) -> str:
    return ""


def test_sealing_edits_filter_and_link_and_nothing_else() -> None:
    edited = xml.rewire(golden("interface-in.xml"), ET.Element("filterref", {"filter": filters.SEALED}), "down")
    assert canonical(edited) == canonical(golden("interface-sealed.xml"))


def test_the_former_wiring_comes_back_with_its_parameters() -> None:
    wiring = xml.wiring_of(golden("interface-in.xml"))
    restored = xml.restore(golden("interface-sealed.xml"), wiring)
    assert xml.wiring_of(restored) == wiring
    assert 'value="192.0.2.11"' in xml.text_of(restored)
    assert restored.find("link") is None


@pytest.mark.parametrize(("link", "down"), [("down", True), ("up", False), (None, False)])
def test_a_link_that_was_down_is_remembered(link: str | None, down: bool) -> None:
    edited = xml.rewire(golden("interface-in.xml"), None, link)
    assert xml.was_down(xml.wiring_of(edited)) is down
    assert xml.was_down("") is False


def test_every_nic_is_judged_by_what_can_hold_it() -> None:
    tap, direct, passed_through, twin = xml.nics(golden("domain-out.xml"), None, ours, unknown)
    assert (tap.isolation, tap.device, tap.network, tap.link_up) == (Isolation.SEALED, "vnet0", "lan", False)
    assert (direct.isolation, direct.kind, direct.cut_by) == (Isolation.SEALED, "direct", ("link",))
    assert (passed_through.isolation, passed_through.cut_by) == (Isolation.FREE, ())
    assert (twin.id, twin.mac, twin.isolation) == ("52:54:00:00:02:00#2", "52:54:00:00:02:00", Isolation.FREE)


def test_the_weaker_of_running_and_persistent_counts() -> None:
    whole, broken = golden("domain-out.xml"), golden("domain-out.xml")
    interface = broken.find("./devices/interface")
    assert interface is not None
    xml.rewire(interface, None, None)
    assert xml.nics(whole, broken, ours, unknown)[0].isolation is Isolation.FREE
    assert xml.nics(broken, whole, ours, unknown)[0].isolation is Isolation.FREE


def test_a_filter_that_is_not_ours_holds_nothing() -> None:
    assert xml.nics(golden("domain-out.xml"), None, lambda _name: False, unknown)[0].isolation is Isolation.FREE


def test_an_unknown_kind_of_nic_is_named_and_counts_as_cut_by_nothing() -> None:
    root = golden("domain-out.xml")
    root.findall("./devices/interface")[0].set("type", "quantum\n")
    strange, *others = xml.nics(root, None, ours, unknown)
    assert (strange.isolation, strange.cut_by, strange.kind) == (Isolation.FREE, (), "quantum\\x0a")
    assert others == list(xml.nics(golden("domain-out.xml"), None, ours, unknown)[1:])
    assert xml.unknown_kinds(root) == [f"the type 'quantum\\x0a' of NIC {strange.id} is unknown"]
    assert xml.unknown_kinds(golden("domain-out.xml")) == []


def test_the_note_goes_through_xml_and_back() -> None:
    found = xml.note_of(golden("domain-out.xml"))
    assert found is not None
    assert (found.case, found.mode, found.sessions) == ("2026-1", Isolation.SEALED, True)
    note = IsolationNote(
        "<case> \"&'",
        Isolation.FORENSIC,
        "2026-11-22T00:00:00Z",
        (("52:54:00:00:02:00", Wiring('{"filterref": "<filterref/>", "link": null}', "")),),
        (Collector("192.0.2.1", 22),),
    )
    root = ET.Element("domain")
    element = xml.parse(xml.note_xml(note))
    element.tag = "{%s}isolation" % xml.NOTE_URI
    ET.SubElement(root, "metadata").append(element)
    assert xml.note_of(xml.parse(xml.text_of(root))) == note


GOOD_NOTE = {"case": "1", "mode": "sealed", "since": "", "collectors": [], "wiring": {}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text",
        "{}",
        "[]",
        '{"wiring": []}',
        "[" * 100_000,
        json.dumps({**GOOD_NOTE, "wiring": {"m": {"config": 5, "live": ""}}}),
        json.dumps({**GOOD_NOTE, "wiring": {"m": {"config": "{}", "live": ""}}}),
        json.dumps({**GOOD_NOTE, "wiring": {"m": {"config": '{"link": 5, "filterref": null}', "live": ""}}}),
        json.dumps({**GOOD_NOTE, "wiring": {"m": {"config": '{"link": null, "filterref": "<x"}', "live": ""}}}),
        json.dumps({**GOOD_NOTE, "mode": []}),
        json.dumps({**GOOD_NOTE, "collectors": [{"address": "x", "port": 1}]}),
        json.dumps({**GOOD_NOTE, "collectors": [{"address": "192.0.2.1", "port": 1, "protocol": "x"}]}),
    ],
    ids=lambda text: text[:40],
)
def test_a_note_that_cannot_be_read_is_told_and_leaves_the_rest_of_the_vm(text: str) -> None:
    root = golden("domain-out.xml")
    element = root.find(f"./metadata/{{{xml.NOTE_URI}}}isolation")
    assert element is not None
    element.text = text
    note, doubts = judged(99, [SimpleNamespace(root=root)])  # type: ignore[list-item]
    assert note is None
    assert doubts[0] == "libvirt reports the unknown power state 99"
    assert "its undo note cannot be read" in doubts[1]
    assert text[:20] in doubts[1]
    assert len(doubts[1]) < 600
    element.text = json.dumps(GOOD_NOTE)
    assert judged(PowerState.RUNNING, [SimpleNamespace(root=root)])[1] == []  # type: ignore[list-item]


def test_a_forensic_filter_counts_only_with_the_collectors_of_the_note() -> None:
    note = IsolationNote("1", Isolation.FORENSIC, "", (), (Collector("192.0.2.1", 22),))
    name = filters.forensic(note.collectors)[0]
    assert xml.is_of(note, name)
    assert xml.is_of(None, name)
    assert xml.is_of(note, filters.SEALED)
    assert not xml.is_of(replace(note, collectors=(Collector("192.0.2.1", 23),)), name)
    assert not xml.is_of(replace(note, collectors=()), name)


@pytest.mark.parametrize("text", ["<!DOCTYPE x [<!ENTITY y 'z'>]><x>&y;</x>", "<x", ""])
def test_xml_that_is_not_plain_is_refused(text: str) -> None:
    with pytest.raises(TaskFailed):
        xml.parse(text)


SNAPSHOT = """<domainsnapshot><name>one</name><description>d</description><state>{state}</state>
<parent><name>zero</name></parent><creationTime>1795305600</creationTime><memory snapshot='{memory}'/>
<disks><disk name='vda' snapshot='{disk}'/><disk name='vdb' snapshot='no'/></disks></domainsnapshot>"""


@pytest.mark.parametrize(
    ("state", "memory", "disk", "expected"),
    [
        ("shutoff", "no", "internal", (False, "internal", PowerState.STOPPED)),
        ("running", "internal", "internal", (True, "internal", PowerState.RUNNING)),
        ("disk-snapshot", "no", "external", (False, "external", PowerState.RUNNING)),
        ("paused", "external", "external", (True, "external", PowerState.PAUSED)),
        ("shutoff", "no", "no", (False, "none", PowerState.STOPPED)),
    ],
)
def test_a_snapshot_is_read(state: str, memory: str, disk: str, expected: tuple[bool, str, PowerState]) -> None:
    found = xml.snapshot_of(SNAPSHOT.format(state=state, memory=memory, disk=disk), True)
    assert (found.memory, found.disks, found.power) == expected
    assert (found.id, found.parent, found.created, found.current) == ("one", "zero", "2026-11-22T00:00:00Z", True)


def test_a_snapshot_without_a_time_is_not_the_oldest_of_all() -> None:
    text = SNAPSHOT.format(state="shutoff", memory="no", disk="no")
    assert xml.snapshot_of(text.replace("<creationTime>1795305600</creationTime>", ""), True).created == ""


def test_a_snapshot_in_an_unknown_state_is_an_error() -> None:
    with pytest.raises(Unsupported, match="unknown state 'dreaming'"):
        xml.snapshot_of(SNAPSHOT.format(state="dreaming", memory="no", disk="no"), True)


def test_a_passed_through_device_is_a_nic_unless_the_host_knows_better() -> None:
    domain = ET.fromstring(
        "<domain><devices><hostdev type='pci'><source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x1'/>"
        "</source></hostdev><hostdev type='usb'/></devices></domain>"
    )
    classes = {"pci_0000_3b_00_1": "0x030000"}
    assert [nic.id for nic in xml.nics(domain, None, ours, unknown)] == ["hostdev0", "hostdev1"]
    assert [nic.id for nic in xml.nics(domain, None, ours, lambda name: classes.get(name, ""))] == ["hostdev1"]
    assert [nic.id for nic in xml.nics(domain, None, ours, lambda _name: "0x020000")] == ["hostdev0", "hostdev1"]


def test_a_usb_controller_and_arguments_of_qemu_are_judged_as_on_every_hypervisor() -> None:
    domain = ET.fromstring(
        "<domain><devices><hostdev type='pci'><source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x1'/>"
        f"</source></hostdev></devices><commandline xmlns='{xml.QEMU_URI}'><arg value='-device'/>"
        "<arg value='e1000,mac=52:54:00:00:00:01'/></commandline></domain>"
    )
    controller, raw = xml.nics(domain, None, ours, lambda _name: "0x0c0330")
    assert controller.kind == "passed-through USB controller, on which a network card may sit"
    assert raw.id == "qemu-commandline"


@pytest.mark.parametrize(
    ("state", "name", "there"),
    [
        ("connected", "org.qemu.guest_agent.0", True),
        ("disconnected", "org.qemu.guest_agent.0", False),
        ("connected", "com.redhat.spice.0", False),
    ],
)
def test_an_agent_counts_only_while_it_is_connected(state: str, name: str, there: bool) -> None:
    channel = f"<channel><target type='virtio' name='{name}' state='{state}'/></channel>"
    assert xml.has_agent(xml.parse(f"<domain><devices>{channel}</devices></domain>")) is there
    assert not xml.has_agent(xml.parse("<domain><devices/></domain>"))
