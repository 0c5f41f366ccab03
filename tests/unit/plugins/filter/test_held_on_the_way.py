# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No run starts on an infected VM, nor leads through one, whatever that calls itself."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.filter.held_on_the_way import held_on_the_way

MAC = "52:54:00:aa:bb:01"
ADMIN = {"vmward_name": "Admin 1", "vmward_macs": [MAC], "vmward_addresses": ["10.0.0.5", "fd00::5"]}


def told(
    origin: list[str], admin: dict[str, Any] | None = None, way: str = "", named: tuple[str, ...] = ()
) -> list[str]:
    every = {"lan1": {"ansible_ssh_common_args": way}, "lan2": {}, "admin1": {**ADMIN, **(admin or {})}}
    return held_on_the_way(["lan1", "lan2"], origin, every, named)


HELD = {"vmward_isolation": "sealed"}


@pytest.mark.parametrize("state", ["sealed", "forensic", "unknown"])
@pytest.mark.parametrize("origin", [["ir1", MAC], ["ir1", MAC.upper()], ["admin1.example.net"], ["ADMIN1"]])
def test_the_controller_may_not_be_a_held_vm(origin: list[str], state: str) -> None:
    assert told(origin, {"vmward_isolation": state}) == [f"This controller is the VM admin1, which is {state}."]


def test_a_named_vm_counts_as_infected_though_it_is_free() -> None:
    free = {"vmward_isolation": "free"}
    assert told([MAC], free, named=("admin1",)) == ["This controller is the VM admin1, which is named as infected."]
    assert told([MAC], free) == []


@pytest.mark.parametrize(
    "way",
    [
        "-J admin1",
        "-o ProxyJump=ir@admin1:2222",
        '-o ProxyCommand="ssh -W %h:%p root@10.0.0.5"',
        "-J gate,admin1",
        "-J ir@[fd00::5]:22",
        "-J 10.0.9.9",
    ],
)
def test_no_way_leads_through_a_held_vm(way: str) -> None:
    assert told(["ir1"], {**HELD, "ansible_host": "10.0.9.9"}, way) == [
        "The way to lan1 leads through the VM admin1, which is sealed."
    ]


def test_what_is_not_held_is_no_hindrance() -> None:
    assert told([MAC], way="-J admin1") == []
    assert told(["ir1", "52:54:00:aa:bb:02"], HELD, "-J admin10 -o User=admin") == []


def test_an_address_that_a_guest_claims_does_not_make_it_the_controller() -> None:
    assert told(["ir1", "10.0.0.5"], HELD) == []
