# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a user calls a VM to exactly one VM, on every backend."""

from __future__ import annotations

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Ambiguous, NotFound, TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._model import VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.info import Info
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench, FakeBench, NotTaken, mac

HOSTILE = [
    'it\'s "quoted"',
    "two\nlines",
    "{{ lookup('pipe', 'id') }}",
    "<script>alert(1)</script>&amp;",
    "$(reboot); rm -rf `pwd`",
    "日本語 \u202e",
    "-x" + "y" * 200,
    "100%/50%\\5 %2f",
]


def found(bench: Bench, selector: str) -> object:
    return resolve([bench.hypervisor], bench.hypervisor.refs(), [selector])[selector]


def test_a_vm_is_found_by_name_id_mac_and_no_other_way(bench: Bench) -> None:
    vm_id = bench.create("desk1", running=False)
    bench.create("desk2", nics=(), running=False)
    wanted = VmRef("hv1", vm_id, "desk1")
    assert [found(bench, selector) for selector in ("desk1", vm_id, mac(0), mac(0).upper())] == [wanted] * 4
    missing = found(bench, "desk")
    assert isinstance(missing, NotFound)
    assert "desk1, desk2" in str(missing)


def test_two_hits_are_listed_and_none_is_taken(bench: Bench) -> None:
    ids = [bench.create("desk1", running=False), bench.create("desk2", running=False)]
    ambiguous = found(bench, mac(0))
    assert isinstance(ambiguous, Ambiguous)
    assert all(vm_id in str(ambiguous) for vm_id in ids)


def created(bench: Bench, name: str) -> str:
    try:
        return bench.create(name, running=False)
    except NotTaken:
        return ""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_names(bench: Bench, name: str) -> None:
    vm_id = created(bench, name)
    if not vm_id:
        return  # it takes no VM of that name, so none can be there
    assert found(bench, name) == VmRef("hv1", vm_id, name)
    assert bench.one(Info(), vm_id).after["name"] == name
    assert "\n" not in str(found(bench, name + "?"))


def test_a_gone_vm_answers_not_found_and_hides_no_other(bench: Bench) -> None:
    left, gone = bench.create("desk1", running=False), bench.create("desk2", nics=(), running=False)
    bench.vanish(gone)
    answer = bench.hypervisor.read([gone, left])
    assert isinstance(answer[gone], NotFound)
    assert bench.vm(left).ref.name == "desk1"


def test_the_chain_of_a_disk_is_read_to_its_base(bench: Bench) -> None:
    (disk,) = bench.vm(bench.create("desk1", running=False)).disks
    assert [layer.format for layer in disk.layers] == [bench.format] * 2
    assert "base" in disk.layers[-1].path.rpartition("/")[2]
    assert disk.size == 16 * 1024 * 1024


def test_an_address_finds_its_vm(fake: FakeBench) -> None:
    vm_id = fake.create("desk1")
    assert found(fake, "192.0.2.10") == VmRef("hv1", vm_id, "desk1")


def test_a_list_that_cannot_be_read_is_never_shortened(fake: FakeBench) -> None:
    fake.create("desk1")
    with fake.state.change() as state:
        state["faults"] = [{"verb": "refs", "error": "TaskFailed"}]
    with pytest.raises(TaskFailed):
        found(fake, "desk1")


def test_an_unknown_nic_kind_or_power_state_is_an_error_of_that_vm_alone(fake: FakeBench) -> None:
    kind, power, sound = fake.create("kind"), fake.create("power"), fake.create("sound")
    with fake.state.change() as state:
        state["vms"][kind]["nics"][0]["kind"] = "quantum"
        state["vms"][power]["power"] = "dreaming"
    answers = fake.do(Info(), kind, power, sound)
    assert [outcome.failed for outcome in answers] == [True, True, False]
    assert "'quantum'" in answers[0].msg
    assert "'dreaming'" in answers[1].msg
