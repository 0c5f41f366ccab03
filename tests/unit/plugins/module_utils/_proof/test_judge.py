# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement: nothing that was not shown counts, and a contradiction outweighs everything."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._proof.judge import Proof, Verdict, judge, unread
from ansible_collections.vmward.remediation.plugins.module_utils._proof.plan import (
    counter_work,
    flat_counters,
    flat_probes,
    probe_work,
)

MAC = "52:54:00:86:00:11"
CUT: dict[str, Any] = {"failed": False, "msg": "", "after": {"isolation": "sealed"}}
SENT = {"sent": 12, "answered": False, "error": ""}


def nic(**changes: Any) -> dict[str, Any]:
    wiring = {"config": "c", "live": "l"}
    one = {"mac": MAC, "kind": "network", "device": "vnet0", "cut_by": ["filter", "link"], "wiring": wiring}
    return {**one, "addresses": ["192.168.86.11"], **changes}


def counted(**changes: Any) -> dict[str, Any]:
    delta = {"from_guest": 0, "to_guest": 0, "from_host": 0, "dropped": 0, "accepted": 0, "passed": 0}
    delta.update(changes.pop("delta", {}))
    one = {"vm": "desk1", "mac": MAC, "device": "vnet0", "shown": True, "reason": "", "broken": "", "accepts": 0}
    return {**one, "delta": delta, **changes}


def probe(problem: str = "", lost: int = 0, **changes: Any) -> dict[str, Any]:
    tries = dict.fromkeys(("arp", "icmp", "tcp", "udp"), SENT)
    target = {"name": "desk1", "mac": MAC, "tries": tries, "answered": [], "heard": 0, "problem": ""}
    target = {**target, "controls": ["192.168.86.1"], **changes}
    return {"witness": "app1", "problem": problem, "lost": lost, "targets": [] if problem else [target]}


def verdict(**changes: Any) -> Verdict:
    given: dict[str, Any] = {"mode": "sealed", "cut": CUT, "nics": [nic()], "counted": [counted()], "probes": [probe()]}
    return judge("desk1", required=changes.pop("required", Proof.WITNESSED), **{**given, **changes})


def test_all_shown_is_witnessed() -> None:
    found = verdict()
    assert (found.proof, found.shortfall, found.controls) == (Proof.WITNESSED, "", ("192.168.86.1",))
    assert found.inbound == "silent to app1 by arp, icmp, tcp, udp, while 192.168.86.1 answered"
    assert found.outbound == "0 frames passed, 0 dropped"
    assert found.line.startswith("proof witnessed; in: silent to app1")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"probes": []}, "no witness is named"),
        ({"probes": [probe(controls=[])]}, "app1 proves nothing: it reached no control target"),
        ({"probes": [probe(problem="Connection timed out")]}, "app1 could not probe: Connection timed out"),
        ({"probes": [probe(lost=3)]}, "lost 3 frames"),
        ({"probes": [probe(tries={})]}, "could send neither ARP nor ICMP"),
        ({"probes": [probe(tries={"arp": SENT, "udp": {**SENT, "sent": 0}})]}, "some protocols could not be sent"),
        ({"probes": [probe(problem="", name="desk2")]}, "it did not probe this VM"),
        ({"counted": []}, "were not counted (the KVM host was not asked)"),
        ({"counted": [counted(shown=False, reason="need root")]}, "were not counted (need root)"),
        ({"counted": [counted(mac="other")]}, "the KVM host was not asked"),
        ({"nics": [nic(device="", kind="hostdev", cut_by=[])]}, "(hostdev) has no tap"),
    ],
)
def test_what_is_missing_makes_it_a_readback(changes: dict[str, Any], why: str) -> None:
    found = verdict(**changes)
    assert found.proof is Proof.READBACK
    assert why in found.shortfall
    assert verdict(**changes, required=Proof.READBACK).shortfall == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"probes": [probe(answered=["tcp"])]}, "app1 still reaches"),
        ({"probes": [probe(heard=2)]}, "heard 2 frames"),
        ({"probes": [probe(answered=["arp"], controls=[])]}, "app1 still reaches"),
        ({"counted": [counted(broken="chain libvirt-I-vnet0 is missing")]}, "changed behind libvirt's back"),
        ({"counted": [counted(accepts=1)]}, "let something pass"),
        ({"counted": [counted(delta={"passed": 1, "from_guest": 1})]}, "1 frames from the VM were not dropped"),
        ({"counted": [counted(delta={"to_guest": 2})]}, "2 frames reached the VM"),
        ({"counted": [counted(delta={"to_guest": 2, "from_host": 1})]}, "1 frames reached the VM"),
        (
            {"counted": [counted(delta={"to_guest": 1, "from_host": 1})], "nics": [nic(cut_by=["filter"])]},
            "1 frames reached the VM",
        ),
    ],
)
def test_a_contradiction_is_no_proof_even_if_readback_is_enough(changes: dict[str, Any], why: str) -> None:
    found = verdict(**changes, required=Proof.READBACK)
    assert found.proof is Proof.NONE
    assert found.shortfall.startswith("THE CUT DOES NOT HOLD")
    assert why in found.shortfall
    assert why in found.against
    assert "Cut it off at the switch, or pause it" in found.shortfall


def test_one_good_witness_is_enough_but_one_that_gets_through_spoils_it() -> None:
    silent, dead = probe(), {**probe(problem="down"), "witness": "app2"}
    assert verdict(probes=[dead, silent]).proof is Proof.WITNESSED
    assert verdict(probes=[silent, probe(answered=["icmp"])]).proof is Proof.NONE


def test_what_the_hosts_own_ipv6_sends_ends_at_the_link_and_is_told() -> None:
    found = verdict(counted=[counted(delta={"to_guest": 2, "from_host": 2})])
    assert found.proof is Proof.WITNESSED
    assert "2 of the host's own IPv6 ended at the link that is down" in found.outbound


def test_a_failed_cut_is_never_proven() -> None:
    for cut in ({"failed": True, "msg": "no\x1b[31m"}, {"failed": False, "after": {"isolation": "free"}}, {}):
        found = verdict(cut=cut)
        assert (found.proof, found.against) == (Proof.NONE, "")
        assert "\x1b" not in found.shortfall
    assert unread(CUT, "sealed", "gone", Proof.WITNESSED).proof is Proof.READBACK
    assert unread({"failed": True}, "sealed", "gone", Proof.READBACK).proof is Proof.NONE


def test_a_stopped_vm_has_no_tap_and_one_without_nic_nothing_to_cut() -> None:
    assert verdict(nics=[nic(device="", wiring={"config": "c", "live": ""})], probes=[]).proof is Proof.WITNESSED
    assert verdict(nics=[], probes=[], counted=[]).proof is Proof.WITNESSED
    assert verdict(nics=[nic(device="")], counted=[]).proof is Proof.READBACK


def test_forensic_lets_frames_to_collectors_pass_and_no_other() -> None:
    cut = {"failed": False, "after": {"isolation": "forensic"}}
    talk = counted(accepts=4, delta={"from_guest": 9, "passed": 5, "accepted": 5, "dropped": 4, "to_guest": 6})
    found = verdict(mode="forensic", cut=cut, counted=[talk], probes=[probe(heard=3)])
    assert (found.proof, found.outbound) == (Proof.WITNESSED, "5 frames to collectors, else 0 frames passed, 4 dropped")
    talk["delta"]["passed"] = 6
    assert verdict(mode="forensic", cut=cut, counted=[talk]).proof is Proof.NONE


def vm(name: str, *nics: dict[str, Any], hypervisor: str = "kvm1") -> dict[str, Any]:
    return {"name": name, "hypervisor": hypervisor, "failed": False, "after": {"nics": list(nics)}}


def test_the_work_is_split_by_host_and_leaves_out_who_is_cut() -> None:
    entries = {"kvm1": {"libvirt": {"data_host": "kvm1"}}, "f": {"fake": {"data_host": "x"}}, "k2": {"libvirt": {}}}
    vms = [vm("desk1", nic()), vm("app1", nic(addresses=[], device="vnet1"), hypervisor="k2"), vm("gone")]
    vms.append({"name": "lost", "hypervisor": "", "failed": True, "after": {}})
    assert counter_work(vms, entries) == [{"host": "kvm1", "nics": [{"vm": "desk1", "mac": MAC, "device": "vnet0"}]}]
    assert counter_work([vm("v", nic(), hypervisor="f")], entries) == []
    work = probe_work(vms, ["app1", "w", "w"], ["192.168.86.11", "192.168.86.1", "10.0.0.9"], {"app1": "10.0.0.9"})
    assert [one["witness"] for one in work] == ["w"]
    assert work[0]["controls"] == ["192.168.86.1"]
    assert work[0]["targets"][1]["addresses"] == ["10.0.0.9"]
    assert probe_work([vm("gone")], ["w"], [], {}) == []


def test_a_silent_host_gives_each_of_its_nics_its_reason() -> None:
    work = {"host": "kvm1", "nics": [{"vm": "desk1", "mac": MAC, "device": "vnet0"}]}
    (one,) = flat_counters([{"item": work, "unreachable": True, "msg": "no route"}])
    assert (one["shown"], one["reason"]) == (False, "kvm1: no route")
    (one,) = flat_probes([{"item": {"witness": "app1"}, "failed": True, "msg": "raw sockets need root"}])
    assert one["problem"] == "raw sockets need root"
