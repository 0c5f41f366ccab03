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


@pytest.fixture
def esxi(tmp_path: Path) -> Iterator[Vcsim]:
    """A simulated stand-alone host with one VM."""
    with Vcsim(tmp_path, "-esx", "-vms", "1") as server:
        yield server


@pytest.fixture(params=["fake", "vsphere", "proxmox", pytest.param("real", marks=pytest.mark.real)])
def bench(request: pytest.FixtureRequest) -> Bench:
    made: Bench = request.getfixturevalue(request.param)
    return made
