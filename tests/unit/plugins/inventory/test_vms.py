# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of hosts: never hostile, never two VMs under one name, never dependent on an order."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.vmward.remediation.plugins.inventory.vms import host_names


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
    for order in itertools.permutations(machines):
        assert {name: one["vmward_id"] for name, one in host_names(list(order)).items()} == expected
