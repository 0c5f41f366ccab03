# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of hosts: never hostile, never two VMs under one name, never dependent on an order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import Any

import pytest
from ansible.errors import AnsibleParserError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.vmward.remediation.plugins.inventory import vms
from ansible_collections.vmward.remediation.plugins.inventory.vms import host_names
from ansible_collections.vmward.remediation.plugins.module_utils._errors import Ambiguous, TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._model import VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve


def machine(name: str, hypervisor: str = "kvm1", vm_id: str = "id-1") -> dict[str, str]:
    return {"vmward_name": name, "vmward_hypervisor": hypervisor, "vmward_id": vm_id}


@pytest.mark.parametrize(
    "name", ["", "a b", "a\nb", "{{ x }}", "../etc", "-rf", "a;b", "<b>", "all", "localhost", "é", "x" * 64]
)
def test_a_name_that_is_no_plain_host_name_gives_way_to_the_id(name: str) -> None:
    assert list(host_names([machine(name)])) == ["id-1"]


def test_a_plain_name_is_kept() -> None:
    assert list(host_names([machine("desk-1.lan")])) == ["desk-1.lan"]


def test_twins_are_told_apart_whatever_the_order() -> None:
    machines = [
        machine("desk1", "kvm1", "a"),
        machine("desk1", "kvm2", "b"),
        machine("desk1_kvm1", "kvm3", "c"),
        machine("app1", "kvm1", "d"),
        machine("app1", "kvm1", "e"),
    ]
    expected = {"a_kvm1": "a", "desk1_kvm2": "b", "c_kvm3": "c", "app1_d": "d", "app1_e": "e"}
    refs = [VmRef(one["vmward_hypervisor"], one["vmward_id"], one["vmward_name"]) for one in machines]
    for name, ref in resolve([], refs, list(expected)).items():
        assert isinstance(ref, VmRef), ref
        assert ref.id == expected[name], "every role names its VM by its host name"
    for order in itertools.permutations(machines):
        assert {name: one["vmward_id"] for name, one in host_names(list(order)).items()} == expected


def test_a_long_name_is_taken_only_where_it_is_nobodys_own_and_means_one_vm() -> None:
    twins = [VmRef("kvm1", "a", "desk1"), VmRef("kvm2", "b", "desk1"), VmRef("kvm3", "c", "desk1_kvm1")]
    told = resolve([], twins, ["desk1_kvm1", "desk1_kvm2", "desk1_b", "desk1"])
    assert [told[name] for name in ("desk1_kvm1", "desk1_kvm2", "desk1_b")] == [twins[2], twins[1], twins[1]]
    assert isinstance(told["desk1"], Ambiguous)
    same = [VmRef("c", "1", "a_b"), VmRef("b_c", "2", "a")]
    assert isinstance(resolve([], same, ["a_b_c"])["a_b_c"], Ambiguous)


def test_hypervisors_are_asked_side_by_side_and_listed_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answers only when both have been asked."""
    both = threading.Barrier(2, timeout=20)

    def listed(name: str, _entry: object, _tags: bool) -> list[dict[str, str]]:
        both.wait()
        return [{"vmward_name": f"desk on {name}"}]

    plugin = prepared(monkeypatch, listed, "vc1", "kvm1")
    assert [one["vmward_name"] for one in plugin._machines()] == ["desk on vc1", "desk on kvm1"]


def prepared(
    monkeypatch: pytest.MonkeyPatch, listed: Callable[..., Any], *names: str, strict: bool = True
) -> vms.InventoryModule:
    options = {"hypervisors": {name: {} for name in names}, "tags": True, "strict_hypervisors": strict}
    monkeypatch.setattr(vms, "listed", listed)
    monkeypatch.setattr(vms, "warnings_of", lambda _entries: [])
    plugin = vms.InventoryModule()
    plugin._vars, plugin.templar = {}, Templar(loader=DataLoader())
    monkeypatch.setattr(plugin, "get_option", options.__getitem__)
    return plugin


def test_a_surprise_on_one_hypervisor_leaves_that_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(name: str, _entry: object, _tags: bool) -> list[dict[str, str]]:
        if name == "pve":
            raise TypeError("'NoneType' object is not iterable")  # what strange JSON leads to
        return [{"vmward_name": f"desk on {name}"}]

    told = prepared(monkeypatch, listed, "pve", "kvm1", strict=False)._machines()
    assert [one["vmward_name"] for one in told] == ["desk on kvm1"]
    with pytest.raises(AnsibleParserError, match="Cannot list the VMs on pve: unexpected TypeError"):
        prepared(monkeypatch, listed, "pve", "kvm1")._machines()


def test_whoever_is_still_asked_when_one_fails_is_logged_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may end right after the failure, and its threads with it."""
    awaited, logged_out = threading.Event(), threading.Event()

    def listed(name: str, _entry: object, _tags: bool) -> list[dict[str, str]]:
        if name == "kvm1":
            raise TaskFailed("It is away.")
        if awaited.wait(20):
            logged_out.set()
        return []

    def waiting(futures: Iterable[Future[Any]], timeout: float) -> None:
        awaited.set()
        wait(futures, timeout)

    monkeypatch.setattr(vms, "wait", waiting)
    with pytest.raises(AnsibleParserError, match="It is away"):
        prepared(monkeypatch, listed, "kvm1", "vc1")._machines()
    assert logged_out.is_set()


def test_one_that_never_answers_hides_no_failure_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    told, ended = threading.Event(), threading.Event()

    def listed(name: str, _entry: object, _tags: bool) -> list[dict[str, str]]:
        if name == "kvm1":
            raise TaskFailed("It is away.")
        told.wait(20)
        ended.set()
        return []

    monkeypatch.setattr(vms, "LOG_OUT", 0.0, raising=False)
    with pytest.raises(AnsibleParserError, match="It is away"):
        prepared(monkeypatch, listed, "kvm1", "vc1")._machines()
    assert not ended.is_set()
    told.set()
