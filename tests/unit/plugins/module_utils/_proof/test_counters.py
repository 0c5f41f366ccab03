# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taps and chains: what the kernel's listing means, golden text from a real KVM host."""

from __future__ import annotations

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._proof.counters import (
    Rule,
    broken,
    difference,
    parse_chains,
    sample,
)

SEALED = """Bridge table: nat

Bridge chain: PREROUTING, entries: 2, policy: ACCEPT
-i vnet7 -j libvirt-I-vnet7 , pcnt = 0 -- bcnt = 0
-i vnet0 -j libvirt-I-vnet0 , pcnt = 8 -- bcnt = 1564

Bridge chain: OUTPUT, entries: 0, policy: ACCEPT

Bridge chain: POSTROUTING, entries: 1, policy: ACCEPT
-o vnet0 -j libvirt-O-vnet0 , pcnt = 2 -- bcnt = 56

Bridge chain: libvirt-I-vnet0, entries: 1, policy: RETURN
-j DROP , pcnt = 8 -- bcnt = 1564

Bridge chain: libvirt-O-vnet0, entries: 1, policy: RETURN
-j DROP , pcnt = 2 -- bcnt = 56
"""
FORENSIC = SEALED.replace(
    "-j DROP , pcnt = 8 -- bcnt = 1564",
    "-p ARP --arp-ip-dst 192.168.88.1 -j ACCEPT , pcnt = 3 -- bcnt = 84\n-j DROP , pcnt = 5 -- bcnt = 700",
)


def test_a_listing_is_read_by_chain() -> None:
    chains = parse_chains(FORENSIC)
    assert chains["OUTPUT"] == []
    assert chains["PREROUTING"][1] == Rule("-i vnet0", "libvirt-I-vnet0", 8)
    assert chains["libvirt-I-vnet0"] == [Rule("-p ARP --arp-ip-dst 192.168.88.1", "ACCEPT", 3), Rule("", "DROP", 5)]


def test_a_line_that_is_not_understood_is_an_error() -> None:
    with pytest.raises(ValueError, match="not understood: 'Segmentation fault'"):
        parse_chains(SEALED + "Segmentation fault\n")


@pytest.mark.parametrize("listing", [SEALED, FORENSIC])
def test_whole_chains_hold(listing: str) -> None:
    assert broken(parse_chains(listing), "vnet0") == ""


@pytest.mark.parametrize(
    ("gone", "instead", "why"),
    [
        ("-j DROP , pcnt = 8 -- bcnt = 1564\n", "", "libvirt-I-vnet0 does not end by dropping everything"),
        ("-j DROP , pcnt = 2 -- bcnt = 56\n", "", "libvirt-O-vnet0 does not end by dropping everything"),
        ("-j DROP , pcnt = 8", "-p IPv4 -j DROP , pcnt = 8", "libvirt-I-vnet0 does not end by dropping everything"),
        ("-j DROP , pcnt = 8", "-j ACCEPT , pcnt = 8", "libvirt-I-vnet0 does not end by dropping everything"),
        ("-i vnet0 -j libvirt-I-vnet0 , pcnt = 8 -- bcnt = 1564\n", "", "PREROUTING does not lead to"),
        ("-o vnet0 -j libvirt-O-vnet0 , pcnt = 2 -- bcnt = 56\n", "", "POSTROUTING does not lead to"),
        ("Bridge chain: libvirt-I-vnet0, ", "Bridge chain: other, ", "chain libvirt-I-vnet0 is missing"),
        ("-i vnet7 -j libvirt-I-vnet7 ,", "-p IPv4 -j ACCEPT ,", "a rule in PREROUTING accepts frames before"),
    ],
)
def test_a_hole_is_found(gone: str, instead: str, why: str) -> None:
    assert gone in SEALED
    assert why in broken(parse_chains(SEALED.replace(gone, instead, 1)), "vnet0")


def test_a_rule_for_another_tap_does_not_matter() -> None:
    other = SEALED.replace("-i vnet7 -j libvirt-I-vnet7 ,", "-i vnet7 -j ACCEPT ,")
    assert broken(parse_chains(other), "vnet0") == ""


def at(listing: str, from_guest: tuple[int, int], to_guest: int = 10, index: int = 8) -> dict:
    one = sample(parse_chains(listing), "vnet0", index, from_guest, to_guest, 0)
    return {**vars(one), "from_guest": list(one.from_guest)}


def later(packets: int) -> str:
    return SEALED.replace("-j DROP , pcnt = 8", f"-j DROP , pcnt = {packets}")


def test_what_was_sent_and_dropped_did_not_pass() -> None:
    now = sample(parse_chains(later(18)), "vnet0", 8, (30, 30), 10, 0)
    delta, why = difference(at(SEALED, (20, 20)), now)
    assert (delta["from_guest"], delta["dropped"], delta["passed"], delta["to_guest"], why) == (10, 10, 0, 0, "")


def test_one_frame_that_was_not_dropped_passed() -> None:
    delta, _why = difference(at(SEALED, (20, 20)), sample(parse_chains(later(17)), "vnet0", 8, (30, 30), 11, 0))
    assert (delta["passed"], delta["to_guest"]) == (1, 1)


def test_a_frame_that_came_while_reading_counts_as_passed() -> None:
    delta, _why = difference(at(SEALED, (20, 20)), sample(parse_chains(later(18)), "vnet0", 8, (30, 31), 10, 0))
    assert delta["passed"] == 1


def test_another_tap_or_a_reset_cannot_be_compared() -> None:
    now = sample(parse_chains(SEALED), "vnet0", 9, (20, 20), 10, 0)
    assert difference(at(SEALED, (20, 20)), now) == ({}, "the tap was made anew in between")
    now = sample(parse_chains(later(0)), "vnet0", 8, (20, 20), 10, 0)
    assert difference(at(SEALED, (20, 20)), now) == ({}, "the counters were set back in between")
