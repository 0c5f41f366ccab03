# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs that the tests use most."""

from __future__ import annotations

from ansible_collections.vmward.remediation.plugins.module_utils._model import Collector, Isolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import SetSnapshot

SEAL = SetIsolation(Isolation.SEALED, "2026-1")
FORENSIC = SetIsolation(Isolation.FORENSIC, "2026-1", [Collector("192.0.2.1", 22)])
WAIVED = {"classes": {name: {"state": "waived", "by": "test"} for name in ("memory", "connections", "disks", "logs")}}
OFF = SetPower("stopped", True, 0, {})


def take(name: str, memory: bool = False) -> SetSnapshot:
    return SetSnapshot(name, "present", "", memory)
