# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames and routes: bytes in, meaning out."""

from __future__ import annotations

import struct

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._proof import frames, routes
from ansible_collections.vmward.remediation.plugins.module_utils._proof.survey import BadTarget, survey

US, VM = "52:54:00:00:00:01", "52:54:00:86:00:11"
ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
br0\t0056A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
br1\t0056A8C0\t00000000\t0001\t0\t0\t9\t00FFFFFF\t0\t0\t0
"""


def run_filter(program: bytes, frame: bytes) -> int:
    """A tiny interpreter of the four instructions that the filter uses."""
    code = [struct.unpack("HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    at = value = 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        if op == 0x06:
            return int(k)
        if op == 0x15:
            at += yes if value == k else no
        else:
            size = {0x28: 2, 0x20: 4}[op]
            value = int.from_bytes(frame[k : k + size], "big")


def test_an_arp_request_asks_for_the_address() -> None:
    frame = frames.arp_request(US, "192.168.86.21", "192.168.86.11")
    assert len(frame) == 60
    assert frame[:6] == b"\xff" * 6
    assert frame[12:14] == b"\x08\x06"
    assert frame[38:42] == bytes([192, 168, 86, 11])


def test_an_arp_reply_is_heard_and_a_request_is_not_an_answer() -> None:
    request = frames.arp_request(VM, "192.168.86.11", "192.168.86.21")
    reply = request[:21] + b"\x02" + request[22:]
    assert frames.heard(reply) == frames.Heard(VM, "arp", "192.168.86.11")
    assert frames.heard(request) == frames.Heard(VM, "")
    assert frames.heard(reply[:30]) == frames.Heard(VM, "")
    assert frames.heard(b"short") is None


def test_checksums_hold() -> None:
    assert frames.checksum(frames.echo(7)) == 0
    packet = frames.ipv4_echo(US, VM, "192.168.86.21", "192.168.86.11", 7)[14:]
    assert frames.checksum(packet[:20]) == 0
    six = frames.ipv6_echo(US, VM, "fe80::1", 7)[14:]
    length = struct.unpack("!H", six[4:6])[0]
    assert frames.checksum(six[8:40] + struct.pack("!II", length, 58) + six[40 : 40 + length]) == 0


def test_only_our_own_echo_counts() -> None:
    packet = frames.ipv4_echo(US, VM, "192.168.86.11", "192.168.86.21", 7)[14:]
    reply = packet[:20] + b"\0" + packet[21:]
    assert frames.echo_reply(reply, 7)
    assert not frames.echo_reply(reply, 8)
    assert not frames.echo_reply(packet, 7)
    assert not frames.echo_reply(b"", 7)


def test_the_filter_keeps_arp_and_the_macs_and_nothing_else() -> None:
    program = frames.listen_for([VM, "52:54:00:86:00:12"])
    arp = frames.arp_request(US, "10.0.0.1", "10.0.0.2")
    assert run_filter(program, arp)
    assert run_filter(program, frames.ipv4_echo(VM, US, "10.0.0.1", "10.0.0.2", 1))
    assert run_filter(program, frames.ipv4_echo("52:54:00:86:00:12", US, "10.0.0.1", "10.0.0.2", 1))
    assert not run_filter(program, frames.ipv4_echo("52:55:00:86:00:11", US, "10.0.0.1", "10.0.0.2", 1))
    assert not run_filter(program, frames.ipv4_echo(US, VM, "10.0.0.1", "10.0.0.2", 1))


def test_the_way_is_the_longest_match_then_the_lowest_metric() -> None:
    table = routes.routes4(ROUTES)
    assert routes.way_to("192.168.86.11", table) == routes.Way("br0")
    assert routes.way_to("8.8.8.8", table) == routes.Way("eth0", "192.0.2.1")
    assert routes.way_to("fd00::1", table) is None


@pytest.mark.parametrize(
    ("target", "controls", "window", "ports", "why"),
    [
        ({"name": "x", "mac": "../../etc", "addresses": []}, [], 3, [22], "no MAC address"),
        ({"name": "x", "mac": VM, "addresses": ["10.0.0.1; reboot"]}, [], 3, [22], "given as an address of 'x'"),
        ({"name": "x", "mac": VM, "addresses": []}, ["gateway"], 3, [22], "'gateway' is no IP address"),
        ({"name": "x", "mac": VM, "addresses": []}, [], 0, [22], "0 seconds is not between 1 and 60"),
        ({"name": "x", "mac": VM, "addresses": []}, [], 3, [70000], "port is not between"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    target: dict, controls: list[str], window: int, ports: list[int], why: str
) -> None:
    with pytest.raises(BadTarget, match=why):
        survey([target], controls, window, ports, [])
