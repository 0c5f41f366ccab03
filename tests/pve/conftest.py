# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster of one's own for each test, with and without the backend on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._proxmox import connection
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench
from ansible_collections.vmward.remediation.tests.pve.fixture import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def bench(proxmox: ProxmoxBench) -> ProxmoxBench:
    return proxmox


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is given up after a second."""
    monkeypatch.setattr(connection, "ANSWER", 1.0)
    monkeypatch.setattr(connection, "CONNECT", 1.0)
