# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which rules and indicators memory is matched with: those that lie on the host that reads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles/scan"


@pytest.mark.parametrize(("data_host", "shared"), [("node1", False), ("vault", True)])
def test_paths_on_the_data_host_are_not_looked_for_on_the_evidence_host(data_host: str, shared: bool) -> None:
    own = {
        "scan_evidence_host": "vault",
        "__scan_data_host": data_host,
        "scan_builtin_rules": ["inert.yar"],
        "scan_rules": ["/data/a.yar"],
        "scan_indicators": ["/data/a.yml"],
        "scan_memory_rules": ["/vault/b.yar"],
        "scan_memory_indicators": ["/vault/b.yml"],
        "told": "{{ [__scan_memory_rules, __scan_memory_indicators] }}",
    }
    command = [str(Path(sys.executable).parent / "ansible"), "localhost", "-m", "ansible.builtin.debug"]
    command += ["-a", "var=told"]
    files = ["-e", f"@{ROLE / 'defaults/main.yml'}", "-e", f"@{ROLE / 'vars/main.yml'}"]
    done = subprocess.run(
        [*command, *files, "-e", json.dumps(own)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rules, indicators = json.loads(done.stdout.partition("=>")[2])["told"]
    assert rules == ["/var/lib/vmward/rules/inert.yar", *(["/data/a.yar"] if shared else []), "/vault/b.yar"]
    assert indicators == [*(["/data/a.yml"] if shared else []), "/vault/b.yml"]
