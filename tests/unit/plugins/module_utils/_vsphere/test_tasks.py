# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for tasks while another thread has the server's one wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pyVmomi import vim

from ansible_collections.vmward.remediation.plugins.module_utils._model import VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.tasks import Tasks


class Held:
    """The turn, which another thread has; it keeps for how many seconds it was waited for."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def acquire(self, timeout: float) -> bool:
        self.asked.append(timeout)
        return False


def test_who_has_ended_goes_on_though_another_thread_has_the_servers_one_wait() -> None:
    link: Any = SimpleNamespace(name="vc1", options={"timeout": 60}, run=lambda _what, _vm, call, _again: call())
    tasks: Any = Tasks(link, lambda _vm: None)
    tasks.turn = Held()
    quick = tasks.start(VmRef("vc1", "vm-1", "desk1"), "write", lambda: None)
    long = tasks.start(VmRef("vc1", "vm-2", "desk2"), "copy", lambda: vim.Task("task-1"))
    assert tasks.wait([quick, long], 600, together=0.2) == {"vm-1": None}
    assert 0 <= min(tasks.turn.asked) <= max(tasks.turn.asked) <= 0.2
