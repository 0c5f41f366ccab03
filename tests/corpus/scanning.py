# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's own rules, and its scanning modules as Ansible starts them on a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import read_rules

ROOT = Path(__file__).resolve().parents[2]
RULES_DIRECTORY = str(ROOT / "roles/scan/files/rules")
RULES = tuple(read_rules((RULES_DIRECTORY,)))


def module(name: str, environment: dict[str, str] | None = None, /, **arguments: Any) -> dict[str, Any]:
    """What the module answers."""
    done = subprocess.run(
        [sys.executable, str(ROOT / f"plugins/modules/{name}.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "build/collections"), **(environment or {})},
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result
