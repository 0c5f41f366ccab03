# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints what the ledger says of a case, and ends non-zero when something that was required is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Callable

from ansible import constants as C

from ansible_collections.vmward.remediation.plugins.module_utils._render import Line, plan, summary
from ansible_collections.vmward.remediation.plugins.module_utils._report.story import PHASES, PROOFS, Now, tell
from ansible_collections.vmward.remediation.plugins.plugin_utils._case_action import CaseAction

STEP = {
    "vm": {"type": "str", "required": True},
    "phase": {"type": "str", "required": True, "choices": list(PHASES)},
    "what": {"type": "str", "required": True},
    "undo": {"type": "str", "default": ""},
    "unproven": {"type": "str", "default": ""},
    "not_done": {"type": "bool", "default": False},
}
COMMAND = {"label": {"type": "str", "required": True}, "command": {"type": "str", "required": True}}
SPEC = {
    "store": {"type": "path"},
    "case": {"type": "str", "default": ""},
    "require_proof": {"type": "str", "choices": list(PROOFS[1:]), "default": "witnessed"},
    "require_phases": {"type": "list", "elements": "str", "choices": list(PHASES), "default": []},
    "fail_on_shortfall": {"type": "bool", "default": True},
    "commands": {"type": "list", "elements": "dict", "options": COMMAND, "default": []},
    "now": {"type": "dict", "default": {}},
    "plan": {"type": "list", "elements": "dict", "options": STEP},
}


class ActionModule(CaseAction):
    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        options = self.options(SPEC, required_one_of=[("plan", "store")], required_by={"store": ["case"]})
        if options["plan"] is not None:
            return {"changed": False, "lines": self._print(plan(options["case"], options["plan"]))}
        reading = self.reading(options, task_vars or {})
        required = (options["require_proof"], options["require_phases"])
        story = tell(options["case"], reading.entries, options["vms"], *required, now=as_read(options["now"]))
        place = reading.place(self.evidence_host(task_vars or {}))
        commands = [(one["label"], one["command"]) for one in options["commands"]]
        missing = [*([place.trouble] if place.trouble else []), *story.shortfalls]
        lines = self._print(summary(story, place, commands))
        result: dict[str, Any] = {"changed": False, "anchor": place.anchor, "missing": missing}
        if missing and options["fail_on_shortfall"]:
            more = f" (and {len(missing) - 5} more)" if len(missing) > 5 else ""
            msg = f"Case {options['case']} falls short: {' | '.join(missing[:5])}{more}"
            return {**result, "failed": True, "msg": msg}
        vms = [{**asdict(machine), "proof": machine.proof, "alarm": machine.alarm} for machine in story.machines]
        return {**result, "lines": lines, "vms": vms}

    def _print(self, lines: Sequence[Line]) -> list[str]:
        colours = {"good": C.COLOR_OK, "bad": C.COLOR_ERROR, "weak": C.COLOR_SKIP, "head": C.COLOR_HIGHLIGHT}
        for line in lines:
            self._display.display(line.text, color=colours.get(line.tone))
        return [line.text for line in lines]


def as_read(info: Mapping[str, Any]) -> Callable[[str], Now | None]:
    """By name, what vm_info has just read; where it read nothing, why."""
    read = {str(one["name"]): now_of(one) for one in info.get("vms", ())}
    asked = info and not info.get("skipped")
    other = Now(problem=str(info.get("msg") or "it was not asked for")) if asked else None
    return lambda name: read.get(name, other)


def now_of(outcome: Mapping[str, Any]) -> Now:
    after = outcome.get("after") or {}
    if outcome.get("failed") or not after:
        return Now(problem=str(outcome.get("msg") or "nothing was read"))
    return Now(str(outcome["hypervisor"]), str(after["power"]), str(after["isolation"]))
