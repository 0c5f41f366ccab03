# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading VMs that cannot be judged, on libvirt's own driver for tests, which needs no daemon."""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import (
    NotVerified,
    TaskFailed,
    TimedOut,
    Unjudged,
)
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Detail, Pending, done
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt import connection, wiring, xml
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.api import LibvirtHypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.beside import beside
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation, Vm, VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Plan, UseCase, execute
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import SetSnapshot

GOLDEN = Path(__file__).with_name("golden") / "domain-out.xml"
TWIN = "<domain type='test'><name>twin</name><memory>1024</memory><os><type>hvm</type></os></domain>"


@pytest.fixture
def hypervisor() -> Iterator[LibvirtHypervisor]:
    made = LibvirtHypervisor("kvm1", "test:///default")
    made.link.call("create", None, lambda conn: conn.createXML(TWIN, 0))
    yield made
    made.link.call("look up", None, lambda conn: conn.lookupByName("twin")).destroy()  # else it stays in this process
    made.close()


def test_a_spoiled_note_hides_no_vm_and_a_cut_writes_it_anew(hypervisor: LibvirtHypervisor) -> None:
    ids = {ref.name: ref.id for ref in hypervisor.refs()}
    domain = hypervisor.link.call("look up", None, lambda conn: conn.lookupByName("test"))
    note = '<isolation>{"wiring": []}</isolation>'
    for flag in (libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG):
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, note, "vmward", xml.NOTE_URI, flag)
    told = hypervisor.read(list(ids.values()))
    assert isinstance(told[ids["test"]], Unjudged)
    assert isinstance(told[ids["twin"]], Vm)
    # This driver cannot edit a NIC, so the cut itself fails; the note comes before it.
    (outcome,) = execute(hypervisor, SetIsolation(Isolation.SEALED, "2026-1"), [(ids["test"], "test")], 10, False)
    assert "it says '{\"wiring\": []}'" in outcome.warnings[0]
    again = hypervisor.read([ids["test"]])[ids["test"]]
    assert isinstance(again, Vm), again
    assert again.note is not None
    assert (again.note.case, again.note.sessions, len(again.note.wiring)) == ("2026-1", True, 1)
    for flag in (libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG):
        kept = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, xml.UNREAD_URI, flag)
        assert '{"wiring": []}' in str(xml.parse(kept).text), "what nobody could read is not lost"


def test_a_guest_without_an_agent_is_not_quiesced_and_not_touched(hypervisor: LibvirtHypervisor) -> None:
    (ref,) = [ref for ref in hypervisor.refs() if ref.name == "test"]
    (outcome,) = execute(hypervisor, SetSnapshot("still", "present", "", False, True), [(ref.id, "test")], 10, False)
    assert "its guest agent is not connected. Nothing was touched." in outcome.msg
    told = hypervisor.read([ref.id], frozenset([Detail.SNAPSHOTS]))[ref.id]
    assert isinstance(told, Vm)
    assert told.snapshots == ()


@pytest.mark.parametrize(
    "usecase",
    [
        SetPower("stopped", True, 0, {}),
        SetPower("paused", True, 0, {}),
        SetIsolation(Isolation.SEALED, "2026-1"),
        SetSnapshot("clean", "present", "", False),
    ],
    ids=["power off", "pause", "seal", "snapshot"],
)
def test_another_vm_that_has_its_name_meanwhile_is_left_alone(
    hypervisor: LibvirtHypervisor, usecase: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VM is its UUID."""
    ids, plan = {ref.name: ref.id for ref in hypervisor.refs()}, usecase.plan

    def again(conn: Any) -> Any:
        conn.lookupByName("twin").destroy()  # which ends it: it is transient
        return conn.createXML(TWIN, 0)

    def late(hypervisor_: Any, vm: Vm) -> Plan:
        made = plan(hypervisor_, vm)
        others.append(hypervisor.link.call("create", None, again))
        return made

    others: list[Any] = []
    monkeypatch.setattr(usecase, "plan", late)
    (outcome,) = execute(hypervisor, usecase, [(ids["twin"], "twin")], 10, False)
    (other,) = others
    assert outcome.failed
    assert "It may have been removed meanwhile: list what there is with vm_info." in outcome.msg
    assert (other.UUIDString() != ids["twin"], other.name()) == (True, "twin")
    assert other.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    assert other.listAllSnapshots(0) == []
    assert "vmward" not in other.XMLDesc(0)


class Surprised(LibvirtHypervisor):
    """Something unforeseen in one VM."""

    def _read(self, ref: VmRef, *more: Any) -> Vm:
        if ref.id == "odd":
            raise AttributeError("no such thing")
        return super()._read(ref, *more)


def test_a_surprise_in_one_vm_hides_no_other() -> None:
    hypervisor = Surprised("kvm1", "test:///default")
    ref = hypervisor.refs()[0]
    told = hypervisor.read(["odd", ref.id])
    assert isinstance(told["odd"], TaskFailed)
    assert "unexpected AttributeError" in str(told["odd"])
    assert isinstance(told[ref.id], Vm)
    hypervisor.close()


class Recorded(LibvirtHypervisor):
    """Its edits are made to a definition at hand."""

    root: ET.Element

    def _edit(self, vm: Vm, what: str, edit: Any) -> None:
        self.edited = {nic_id: edit(nic_id, interface, True) for nic_id, interface in xml.interfaces(self.root)}


def test_the_link_of_a_nic_of_an_unknown_type_is_tried_and_a_passed_through_one_left() -> None:
    hypervisor = Recorded("kvm1", "test:///default")
    hypervisor.root = xml.parse(GOLDEN.read_text())
    strange, direct, passed_through, _twin = hypervisor.root.findall("./devices/interface")
    xml.rewire(strange, None, None).set("type", "quantum")
    vm = hypervisor.read([hypervisor.refs()[0].id]).popitem()[1]
    assert isinstance(vm, Vm)
    pending = hypervisor.submit_isolate(vm, Isolation.SEALED, ())
    assert hypervisor.wait([pending], 10) == {vm.ref.id: None}
    told = [edited is not None and not xml.link_up(edited) for edited in hypervisor.edited.values()]
    assert (strange.get("type"), direct.get("type"), passed_through.get("type")) == ("quantum", "direct", "hostdev")
    assert told == [True, True, False, True]
    hypervisor.close()


def test_what_was_begun_ends_before_the_log_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb is more than one call: with this process, it would end between two of them."""
    logging_out, ended = threading.Event(), []

    class Late(LibvirtHypervisor):
        @beside("act on")
        def act(self, vm: Vm) -> Pending:
            logging_out.wait(20)
            for _turn in range(50):
                self.link.call("ask the name", None, lambda conn: conn.getHostname())
            ended.append(vm.ref)
            return done(vm.ref, "act on")

    late = Late("kvm1", "test:///default")
    (ref,) = [ref for ref in late.refs() if ref.name == "test"]
    vm = late.read([ref.id])[ref.id]
    assert isinstance(vm, Vm)
    pending = late.act(vm)
    assert isinstance(late.wait([pending], 0)[ref.id], TimedOut)
    monkeypatch.setattr(late.crew, "dismiss", logging_out.set)
    late.close()
    assert [one.id for one in ended] == [ref.id]


def test_a_cut_in_which_the_connection_is_lost_is_made_again(
    hypervisor: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that is not asked has refused nothing."""
    (ref,) = [ref for ref in hypervisor.refs() if ref.name == "test"]
    vm = hypervisor.read([ref.id])[ref.id]
    assert isinstance(vm, Vm)
    lost: list[Any] = []
    opened: list[Any] = []
    usual_open, usual_update = hypervisor.link._open, wiring.Side.update

    def update(side: wiring.Side, interface: ET.Element, edited: ET.Element) -> str:
        lost.extend([] if lost else [side.domain.connect()])
        return usual_update(side, interface, edited)

    def open_one() -> Any:
        opened.append(usual_open())
        return opened[-1]

    for module in (connection, wiring):
        monkeypatch.setattr(module, "alive", lambda conn: conn not in lost, raising=False)
    monkeypatch.setattr(wiring.Side, "update", update)
    monkeypatch.setattr(hypervisor.link, "_open", open_one)
    error = hypervisor.wait([hypervisor.submit_isolate(vm, Isolation.SEALED, ())], 20)[ref.id]
    assert isinstance(error, NotVerified), "this driver cannot edit a NIC"
    assert str(error).count(", running: ") == 1
    assert len(opened) == 1
