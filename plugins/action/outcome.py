# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host's own result out of a batch: one line for the reader, and a failure that is this host's alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.vmward.remediation.plugins.module_utils._model import printable

SPEC = {
    "of": {"type": "dict", "required": True},
    "vm": {"type": "str", "required": True},
    "quiet": {"type": "bool", "default": False},
}
STATES = ("isolation", "power")  # what the outcome's line speaks of, where the verb is about it
display = Display()


class ActionModule(ActionBase):
    """Runs on the controller, without a connection."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=SPEC)
        mine = outcome_of(options["of"], options["vm"])
        told = line(mine, self._task.check_mode)
        if not options["quiet"]:
            display.display(told, color="red" if mine["failed"] else "green")
        return {**mine, "vm_changed": bool(mine.get("changed")), "changed": False, "line": told}


def outcome_of(batch: Mapping[str, Any], vm: str) -> dict[str, Any]:
    """The VM's entry in a batch result. A batch that failed whole is every VM's failure; silence is one too."""
    for one in batch.get("vms") or ():
        if one["name"] == vm:
            return dict(one)
    why = batch.get("msg") or "The batch has no result for it. Run again; nothing is known of its state."
    return {"name": vm, "failed": True, "msg": str(why), "before": {}, "after": {}, "steps": [], "seconds": 0.0}


def line(mine: Mapping[str, Any], check: bool) -> str:
    """The outcome in plain words, for example ``desk1: sealed, 1 NIC, 0.6 s``."""
    name = printable(mine["name"], 80)
    if mine["failed"]:
        return f"{name}: FAILED. {printable(str(mine['msg']), 600)}"
    if check and mine.get("changed"):
        return f"{name}: would " + "; ".join(printable(step, 200) for step in mine["steps"])
    after = mine.get("after") or {}
    parts = [str(after[key]) for key in STATES if after.get(key)][:1] or ["done"]
    if not mine.get("changed"):
        parts[0] += " already"
    if "nics" in after:
        count = len(after["nics"])
        parts.append(f"{count} NIC" + ("" if count == 1 else "s"))
    return printable(f"{name}: {', '.join(parts)}, {mine.get('seconds', 0):.1f} s", 200)
