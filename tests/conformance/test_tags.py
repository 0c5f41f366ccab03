# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs by their tags: exactly one, or the candidates; on vSphere over a session of their own, which always ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.inventory.vms import listed
from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect
from ansible_collections.vmward.remediation.plugins.module_utils._errors import (
    Ambiguous,
    AuthFailed,
    NotFound,
    TaskFailed,
    Unsupported,
    VmwardError,
)
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Hypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._model import VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve
from ansible_collections.vmward.remediation.tests.conformance.benches import FakeBench
from ansible_collections.vmward.remediation.tests.conformance.vsphere import VsphereBench
from ansible_collections.vmward.remediation.tests.integration.test_modules_control import play
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench
from ansible_collections.vmward.remediation.tests.vcsim.server import PASSWORD, Vcsim

Taggable = FakeBench | VsphereBench | ProxmoxBench
SESSION = ("POST /api/session", "DELETE /api/session")


@pytest.fixture(params=["fake", "vsphere", "proxmox"])
def tagged(request: pytest.FixtureRequest) -> Taggable:
    made: Taggable = request.getfixturevalue(request.param)
    return made


def found(hypervisor: Hypervisor, *selectors: str) -> list[VmRef | VmwardError]:
    told = resolve([hypervisor], hypervisor.refs(), list(selectors))
    return [told[selector] for selector in selectors]


def calls(vsphere: VsphereBench) -> dict[str, int]:
    return {name: count for name, count in vsphere.server.calls().items() if "/api/" in name}


def test_a_tag_names_the_one_vm_that_has_it(tagged: Taggable) -> None:
    one, two = tagged.create("desk1", running=False), tagged.create("desk2", running=False)
    for vm_id, name in ((one, "suspect"), (one, "pci"), (two, "pci")):
        tagged.tag(vm_id, name)
    tagged.hypervisor.refs()
    suspect, both, none = found(tagged.hypervisor, "tag:suspect", "tag:pci", "tag:nobody")
    assert isinstance(suspect, VmRef)
    assert suspect.id == one
    assert isinstance(both, Ambiguous)
    assert one in str(both)
    assert two in str(both)
    assert isinstance(none, NotFound)
    assert "No VM has the tag 'tag:nobody'. Nothing was touched." in str(none)
    assert "tag:suspect" in str(none)


def test_a_name_that_two_categories_have_on_vms_needs_its_category(vsphere: VsphereBench) -> None:
    one, two = vsphere.create("desk1", running=False), vsphere.create("desk2", running=False)
    vsphere.tag(one, "web", "env")
    vsphere.tag(two, "web", "role")
    short, long = found(vsphere.hypervisor, "tag:web", "tag:role/web")
    assert isinstance(short, Ambiguous)
    assert str(short) == "'tag:web' names 2 tags: tag:env/web, tag:role/web. Nothing was touched. Name one."
    assert isinstance(long, VmRef)
    assert long.id == two
    assert vsphere.hypervisor.tags() == {one: ("env/web",), two: ("role/web",)}


def test_tags_cost_one_session_and_few_calls_and_nothing_where_nobody_asks(vsphere: VsphereBench) -> None:
    ids = [vsphere.create(f"desk{number}", running=False) for number in range(5)]
    for vm_id in ids:
        vsphere.tag(vm_id, "pool1")
    vsphere.tag(ids[0], "suspect")
    vsphere.server.forget_calls()
    found(vsphere.hypervisor, "desk1")
    assert calls(vsphere) == {}
    (ref,) = found(vsphere.hypervisor, "tag:suspect")
    assert isinstance(ref, VmRef)
    assert calls(vsphere) == {
        "POST /api/session": 1,
        "GET /api/cis/tagging/tag": 1 + 2,
        "POST /api/cis/tagging/tag-association": 1,
        "GET /api/cis/tagging/category": 1,
        "DELETE /api/session": 1,
    }


def test_where_there_are_no_tags_nothing_more_is_asked(vsphere: VsphereBench) -> None:
    vsphere.create("desk1", running=False)
    vsphere.server.forget_calls()
    assert vsphere.hypervisor.tags() == {}
    assert calls(vsphere) == {"POST /api/session": 1, "GET /api/cis/tagging/tag": 1, "DELETE /api/session": 1}


@pytest.mark.parametrize(
    ("fault", "kind", "sentence"),
    [
        ({"method": "GET /api/cis/tagging/tag", "status": 500}, TaskFailed, "HTTP status 500"),
        ({"method": "GET /api/cis/tagging/tag", "status": 403}, AuthFailed, "may not use its Automation API"),
        ({"method": "GET /api/cis/tagging/tag", "status": 200}, TaskFailed, "its answer is not the Automation API's"),
        ({"method": "GET /api/cis/tagging/category", "drop": True}, TaskFailed, "the connection to 127.0.0.1:"),
        ({"method": "GET /api/cis/tagging/category", "half": True}, TaskFailed, "is not the Automation API's"),
        ({"method": "POST /api/session", "status": 401}, AuthFailed, "may not use its Automation API"),
        ({"method": "POST /api/session", "status": 404}, Unsupported, "which vCenter has since 7.0 U2"),
    ],
)
def test_tags_that_cannot_be_read_name_no_vm_and_the_session_ends(
    vsphere: VsphereBench, fault: dict[str, object], kind: type[VmwardError], sentence: str
) -> None:
    vsphere.tag(vsphere.create("desk1", running=False), "suspect")
    vsphere.server.forget_calls()
    vsphere.server.faults(fault)
    with pytest.raises(kind, match=sentence) as told:
        vsphere.hypervisor.tags()
    assert PASSWORD not in str(told.value)
    begun = calls(vsphere).get("POST /api/session", 0)
    assert calls(vsphere).get("DELETE /api/session", 0) == begun
    vsphere.server.faults(fault)
    (unsure,) = found(vsphere.hypervisor, "tag:suspect")
    assert isinstance(unsure, NotFound if kind is Unsupported else Ambiguous)
    assert sentence in str(unsure)


def test_a_stand_alone_host_says_that_it_knows_no_tags(esxi: Vcsim) -> None:
    hypervisor = connect("esx1", esxi.entry)
    try:
        (none,) = found(hypervisor, "tag:suspect")
        assert isinstance(none, NotFound)
        assert "esx1 is a stand-alone ESXi host, which knows no tags." in str(none)
        assert [machine["vmward_tags"] for machine in listed("esx1", esxi.entry)] == [[]]
    finally:
        hypervisor.close()


def test_what_cannot_be_asked_is_not_taken_for_no_tag(fake: FakeBench) -> None:
    fake.tag(fake.create("desk1"), "suspect")
    with fake.state.change() as state:
        state["faults"] = [{"verb": "tags", "error": "AuthFailed", "message": "No right to read tags."}]
    (unsure,) = found(fake.hypervisor, "tag:suspect")
    assert isinstance(unsure, Ambiguous)
    assert "No right to read tags." in str(unsure)


def test_hostile_tags_are_only_words(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1", running=False)
    vsphere.tag(vm_id, "{{ evil }}\n/../x", "a/b")
    (ref, missing) = found(vsphere.hypervisor, "tag:{{ evil }}\n/../x", "tag:?")
    assert isinstance(ref, VmRef)
    assert "\n" not in str(missing)


def test_the_inventory_has_them_as_groups_or_leaves_them_out(vsphere: VsphereBench) -> None:
    one, two = vsphere.create("desk1", running=False), vsphere.create("desk2", running=False)
    vsphere.tag(one, "web", "env")
    vsphere.server.forget_calls()
    told = {machine["vmward_id"]: machine["vmward_tags"] for machine in listed("hv1", vsphere.entry)}
    assert told == {one: ["env/web", "web"], two: []}
    assert [calls(vsphere)[name] for name in SESSION] == [1, 1]
    vsphere.server.forget_calls()
    assert {str(machine["vmward_tags"]) for machine in listed("hv1", vsphere.entry, tags=False)} == {"[]"}
    assert calls(vsphere) == {}


def test_a_module_takes_a_tag(vsphere: VsphereBench, tmp_path: Path) -> None:
    vm_id = vsphere.create("desk1", running=False)
    vsphere.tag(vm_id, "suspect")
    told, missing = play(
        tmp_path,
        [
            {"vmward.remediation.vm_info": {"hypervisors": {"hv1": vsphere.entry}, "vms": [name]}}
            for name in ("tag:suspect", "tag:nobody")
        ],
    )
    assert [vm["id"] for vm in told["vms"]] == [vm_id]
    assert missing["failed"]
    assert "There are: tag:role/suspect, tag:suspect." in missing["msg"]
    assert PASSWORD not in json.dumps([told, missing])
