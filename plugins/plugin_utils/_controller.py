# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which run of Ansible this is, and whether another one on this controller has ended."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def this_run() -> str:
    """C(host/pid/start): actions run in children of the process that C(ansible-playbook) is."""
    return "/".join((platform.node(), str(os.getppid()), _start(os.getppid())))


def has_ended(run: str) -> bool:
    """Only what is certain counts: a run on another host, or where nobody can tell, may well go on."""
    host, _slash, process = run.partition("/")
    pid, _slash, start = process.partition("/")
    if host != platform.node() or not pid.isdigit() or not start:
        return False
    return _start(int(pid)) != start


def _start(pid: int) -> str:
    """When the process started, in clock ticks since boot (proc(5), stat field 22); empty without such a process.

    A pid is used again by and by; pid and start together are not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
