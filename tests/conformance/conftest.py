# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backends that every test of the suite runs against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.tests.conformance import world as worlds
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench, FakeBench, LibvirtBench
from ansible_collections.vmward.remediation.tests.conformance.vsphere import VsphereBench
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench
from ansible_collections.vmward.remediation.tests.vcsim.server import Vcsim


@pytest.fixture(scope="session")
def world(lab: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[worlds.World]:
    worlds.required()
    made = worlds.World(tmp_path_factory.mktemp("world"))
    yield made
    made.stop()


@pytest.fixture
def real(world: worlds.World, tmp_path: Path) -> Iterator[LibvirtBench]:
    bench = LibvirtBench(world, tmp_path)
    yield bench
    bench.clean()


@pytest.fixture
def fake(tmp_path: Path) -> FakeBench:
    return FakeBench(tmp_path)


@pytest.fixture(scope="session")
def vcenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    """A simulated vCenter without VMs."""
    made = Vcsim(tmp_path_factory.mktemp("vcsim"))
    yield made
    made.stop()


@pytest.fixture
def vsphere(vcenter: Vcsim) -> Iterator[VsphereBench]:
    bench = VsphereBench(vcenter)
    yield bench
    bench.clean()


@pytest.fixture
def proxmox(tmp_path: Path) -> Iterator[ProxmoxBench]:
    bench = ProxmoxBench(tmp_path)
    yield bench
    bench.stop()


@pytest.fixture(params=["fake", "vsphere", "proxmox", pytest.param("real", marks=pytest.mark.real)])
def bench(request: pytest.FixtureRequest) -> Bench:
    made: Bench = request.getfixturevalue(request.param)
    return made
