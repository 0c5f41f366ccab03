# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cut measured on the wire: what passes the tap of a real guest that beacons without pause."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._model import Collector, Isolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.tests.conformance.benches import READY, LibvirtBench
from ansible_collections.vmward.remediation.tests.conformance.world import World

pytestmark = pytest.mark.real
FREE = SetIsolation(Isolation.FREE, keep_sessions=True)
WINDOW = 2.0  # seconds, in which a free guest sends about twenty beacons
GUEST, HOST = "192.0.2.11", "192.0.2.1"


CLIENT = """
import socket, sys, time
source, target, port, seconds = sys.argv[1:]
with socket.create_connection((target, int(port)), 2, (source, 0)) as line:
    line.settimeout(2)
    for tick in range(max(1, int(float(seconds) * 5))):
        line.sendall(b"tick")
        print(line.recv(16).decode(), flush=True)
        time.sleep(0.2)
"""


@pytest.fixture(scope="module")
def real(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibvirtBench]:
    """One guest, booted once, serves all tests of this file."""
    bench = LibvirtBench(world, tmp_path_factory.mktemp("packets"))
    yield bench
    bench.clean()


@pytest.fixture(scope="module")
def booted(real: LibvirtBench) -> str:
    vm_id = real.create("beacon")
    real.booted(vm_id)
    return vm_id


@pytest.fixture
def guest(real: LibvirtBench, booted: str) -> Iterator[str]:
    """The guest, free, seen to beacon and to answer."""
    end = time.monotonic() + 20
    while not answers(real):
        assert time.monotonic() < end, f"the free guest does not answer:\n{real.log(booted)[-500:]}"
    yield booted
    real.one(FREE, booted)


def answers(bench: LibvirtBench, source: str = HOST) -> bool:
    """Does the guest's echo service answer this address?"""
    return "tick" in bench.world.run("python3", "-c", CLIENT, source, GUEST, "7", "0", check=False)


def counters(bench: LibvirtBench, vm_id: str) -> dict[str, int]:
    """Frames that left the guest and that entered it, as the host's tap counts them."""
    device = bench.vm(vm_id).nics[0].device
    names = ("rx_packets", "rx_dropped", "tx_packets")
    told = bench.world.run("cat", *(f"/sys/class/net/{device}/statistics/{name}" for name in names))
    return dict(zip(names, map(int, told.split()), strict=True))


def heard(bench: LibvirtBench) -> str:
    """What reaches the host's side of the bridge within the window."""
    return bench.world.run(
        "timeout", str(WINDOW), "tcpdump", "-l", "-n", "-q", "-i", "lan0", "-Q", "in", check=False
    ).strip()


def test_a_free_guest_is_heard(real: LibvirtBench, guest: str) -> None:
    assert f"{GUEST}." in heard(real), "without this the next tests could not fail"


def test_a_sealed_guest_passes_nothing_in_either_direction(real: LibvirtBench, guest: str) -> None:
    real.one(SetIsolation(Isolation.SEALED), guest)
    before = counters(real, guest)
    assert heard(real) == ""
    real.world.run("sh", "-c", f"arping -c 2 -w 2 -I lan0 {GUEST}; ping -c 2 -W 1 {GUEST}", check=False)
    assert not answers(real)
    after = counters(real, guest)
    assert after["rx_packets"] == before["rx_packets"], "a frame left the guest"
    assert after["tx_packets"] == before["tx_packets"], "a frame entered the guest"


def test_the_seal_holds_while_the_guest_boots(real: LibvirtBench, guest: str) -> None:
    real.one(SetIsolation(Isolation.SEALED), guest)
    boots = real.log(guest).count(READY)
    real.reboot(guest)
    before = counters(real, guest)
    real.booted(guest, boots + 1)
    assert heard(real) == ""
    assert counters(real, guest) == before


def test_a_forensic_guest_reaches_its_collector_at_its_port_and_nothing_else(real: LibvirtBench, guest: str) -> None:
    real.world.run("ip", "address", "add", "192.0.2.99/24", "dev", "lan0")
    try:
        assert answers(real, "192.0.2.99")
        real.one(SetIsolation(Isolation.FORENSIC, collectors=[Collector(HOST, 7)]), guest)
        assert answers(real), "the collector reaches the guest's port"
        assert "9999" not in heard(real), "the beacon, to another port of the same address, does not pass"
        assert not answers(real, "192.0.2.99"), "another address is no collector"
        assert " 0% packet loss" not in real.world.run("ping", "-c", "1", "-W", "1", GUEST, check=False)
    finally:
        real.world.run("ip", "address", "del", "192.0.2.99/24", "dev", "lan0")


def test_an_open_session_does_not_outlive_the_cut(real: LibvirtBench, guest: str) -> None:
    enter = ["nsenter", "--target", real.world.init, "--net"]
    session = subprocess.Popen([*enter, sys.executable, "-c", CLIENT, HOST, GUEST, "7", "60"], stdout=subprocess.PIPE)
    try:
        assert session.stdout is not None
        assert session.stdout.readline() == b"tick\n"
        real.one(SetIsolation(Isolation.FORENSIC, collectors=[Collector(HOST, 22)]), guest)
        session.wait(10)
        assert session.returncode, "the session went on although its port is not the collector's"
    finally:
        session.kill()
