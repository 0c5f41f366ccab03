# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof's two instruments on a real segment: a bridge, three namespaces, and chains as libvirt builds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._proof.taps import Taps, read_all

pytestmark = [pytest.mark.real, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

BRIDGE, TAP, MAC = "vmwtest0", "vmwtest-v", "52:54:00:fe:00:11"
HOSTS = {"v": "10.98.76.11", "w": "10.98.76.21", "c": "10.98.76.31"}  # the VM, the witness, the control target
PROBE = """
import json, sys
from ansible_collections.vmward.remediation.plugins.module_utils._proof.survey import survey
print(json.dumps(survey(**json.loads(sys.argv[1]))))
"""


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def clean() -> None:
    for name in HOSTS:
        subprocess.run(["ip", "link", "del", f"vmwtest-{name}"], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", f"vmwtest-{name}"], check=False, capture_output=True)
    subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)
    for hook, flag, letter in (("PREROUTING", "-i", "I"), ("POSTROUTING", "-o", "O")):
        chain = f"libvirt-{letter}-{TAP}"
        jump = ["ebtables", "-t", "nat", "-D", hook, flag, TAP, "-j", chain]
        subprocess.run(jump, check=False, capture_output=True)
        subprocess.run(["ebtables", "-t", "nat", "-F", chain], check=False, capture_output=True)
        subprocess.run(["ebtables", "-t", "nat", "-X", chain], check=False, capture_output=True)


@pytest.fixture
def segment() -> Iterator[None]:
    clean()
    try:
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "link", "set", BRIDGE, "up")
        for name, address in HOSTS.items():
            space, port = f"vmwtest-{name}", f"vmwtest-{name}"
            run("ip", "netns", "add", space)
            run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            run("ip", "link", "set", port, "addrgenmode", "none")  # else the host's end speaks for itself
            run("ip", "link", "set", port, "master", BRIDGE, "up")
            if name == "v":
                run("ip", "-n", space, "link", "set", "eth0", "address", MAC)
            run("ip", "-n", space, "link", "set", "eth0", "up")
            run("ip", "-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        yield
    finally:
        clean()


def cut() -> None:
    """What libvirt makes of a filter that drops everything."""
    for hook, flag, letter in (("PREROUTING", "-i", "I"), ("POSTROUTING", "-o", "O")):
        chain = f"libvirt-{letter}-{TAP}"
        run("ebtables", "-t", "nat", "-N", chain, "-P", "RETURN")
        run("ebtables", "-t", "nat", "-A", chain, "-j", "DROP")
        run("ebtables", "-t", "nat", "-A", hook, flag, TAP, "-j", chain)


def probe(control: str = HOSTS["c"]) -> dict[str, Any]:
    targets = [{"name": "vm", "mac": MAC, "addresses": [HOSTS["v"]]}]
    asked = {"targets": targets, "controls": [control], "window": 1, "tcp_ports": [22], "udp_ports": [9]}
    collections = str(Path(__file__).resolve().parents[2] / "build/collections")
    command = ["ip", "netns", "exec", "vmwtest-w", sys.executable, "-c", PROBE, json.dumps(asked)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": collections}
    )
    return dict(json.loads(done.stdout))


def count(since: dict[str, Any] | None = None) -> dict[str, Any]:
    taps = Taps(lambda: run("ebtables", "--concurrent", "-t", "nat", "-L", "--Lc"))
    nic = {"vm": "vm", "mac": MAC, "device": TAP}
    return dict(read_all(taps, [nic], [since] if since else [])["nics"][0])


@pytest.mark.usefixtures("segment")
def test_a_free_vm_answers_by_every_protocol() -> None:
    found = probe()
    (target,) = found["targets"]
    assert set(target["answered"]) >= {"arp", "icmp", "tcp", "udp"}
    assert target["heard"] > 0
    assert target["controls"] == [HOSTS["c"]]
    assert "missing" in count()["broken"]


@pytest.mark.usefixtures("segment")
def test_a_cut_vm_is_silent_while_the_control_target_answers() -> None:
    cut()
    before = count()
    subprocess.run(
        ["ip", "netns", "exec", "vmwtest-v", "ping", "-c", "2", "-W", "1", HOSTS["c"]], check=False, capture_output=True
    )
    (target,) = probe()["targets"]
    after = count(before)
    assert (target["answered"], target["heard"], target["controls"]) == ([], 0, [HOSTS["c"]])
    assert (after["shown"], after["broken"], after["accepts"]) == (True, "", 0)
    assert after["delta"]["from_guest"] > 0
    assert (after["delta"]["passed"], after["delta"]["to_guest"]) == (0, 0)


@pytest.mark.usefixtures("segment")
def test_a_flushed_chain_is_seen_by_both() -> None:
    cut()
    before = count()
    run("ebtables", "-t", "nat", "-F", f"libvirt-I-{TAP}")
    run("ebtables", "-t", "nat", "-F", f"libvirt-O-{TAP}")
    (target,) = probe()["targets"]
    after = count(before)
    assert "arp" in target["answered"]
    assert "does not end by dropping everything" in after["broken"]


@pytest.mark.usefixtures("segment")
def test_without_a_control_target_silence_is_nothing() -> None:
    cut()
    (target,) = probe(control="10.98.76.99")["targets"]
    assert (target["answered"], target["controls"]) == ([], [])
    (target,) = probe(control=HOSTS["w"])["targets"]
    assert target["controls"] == []


@pytest.mark.usefixtures("segment")
def test_what_the_hosts_own_ipv6_sends_on_the_tap_is_counted_apart() -> None:
    cut()
    before = count()
    run("ip", "link", "set", TAP, "addrgenmode", "eui64")
    for off in "10":
        Path(f"/proc/sys/net/ipv6/conf/{TAP}/disable_ipv6").write_text(off)
    time.sleep(3)
    delta = count(before)["delta"]
    assert delta["to_guest"] == delta["from_host"] > 0
