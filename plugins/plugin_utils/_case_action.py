# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every action on a case does first: read the ledger where it lies, or say why that is not possible."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import CaseError
from ansible_collections.vmward.remediation.plugins.module_utils._case.spool import Spool
from ansible_collections.vmward.remediation.plugins.module_utils._render import Place

LEDGER = "vmward.remediation.case_ledger"
CASE_SPEC: dict[str, Any] = {
    "store": {"type": "path", "required": True},
    "case": {"type": "str", "required": True},
    "vms": {"type": "list", "elements": "str", "default": []},
    "spool_directory": {"type": "path", "default": "~/.local/state/vmward/spool"},
}


@dataclass(frozen=True)
class Reading:
    """A case as read: what case_ledger returned, the entries that wait on the controller, and any trouble."""

    told: Mapping[str, Any] = field(default_factory=dict)
    entries: tuple[Mapping[str, Any], ...] = ()
    waiting: int = 0
    trouble: str = ""

    def place(self, host: str) -> Place:
        """Where things lie, for the summary."""
        if self.trouble:
            return Place(trouble=self.trouble, waiting=self.waiting)
        register = self.told["artefacts"]
        reports = sorted(
            (path for path in register if path.startswith("report/") and path.endswith(".html")),
            key=lambda path: register[path]["seq"],
        )
        return Place(
            host=host,
            directory=self.told["case_directory"],
            anchor=self.told["anchor"],
            signed_seq=self.told["signed_seq"],
            evidence=tuple(artefact for path, artefact in register.items() if path.startswith("evidence/")),
            reports=tuple(reports),
            waiting=self.waiting,
        )


class CaseAction(ActionBase):
    """Runs for one case; the task is delegated to the evidence host."""

    def options(self, spec: Mapping[str, Any], **rules: Any) -> dict[str, Any]:
        _result, options = self.validate_argument_spec(argument_spec={**CASE_SPEC, **spec}, **rules)
        plain: dict[str, Any] = json.loads(json.dumps(options))
        return plain

    def ledger(self, operation: str, task_vars: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Run case_ledger on the evidence host; `~` in the store means that host's."""
        arguments = {name: self._task.args[name] for name in ("store", "case")}
        try:
            result: dict[str, Any] = self._execute_module(
                module_name=LEDGER, module_args={**arguments, "operation": operation, **more}, task_vars=task_vars
            )
        except AnsibleError as exc:
            return {"failed": True, "msg": f"Cannot reach the evidence host: {exc}"}
        return result

    def reading(self, options: Mapping[str, Any], task_vars: dict[str, Any]) -> Reading:
        """The case as it is; entries that wait on this controller are read too, behind those of the ledger."""
        if not options["store"]:
            return Reading(trouble="No case store is configured (vmward_case_store).")
        try:
            spooled, _unreadable = Spool(Path(options["spool_directory"]), options["case"]).pending()
        except CaseError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        told = self.ledger("read", task_vars)
        trouble = ""
        if told.get("failed") or told.get("unreachable"):
            trouble = str(told.get("msg", "the evidence host did not answer"))
        elif not told["exists"]:
            trouble = f"Case {options['case']} does not exist yet."
        entries = [] if trouble else list(told["entries"])
        unspooled = {"actor": "unknown", "host": "unknown", "target": "", "inputs": {}, "result": {}, "artefacts": []}
        held = {entry.get("spool_id") for entry in entries}
        waiting = [entry for entry in spooled if entry["spool_id"] not in held]
        numbered = [{**unspooled, **entry, "seq": len(entries) + n} for n, entry in enumerate(waiting, 1)]
        return Reading(told, (*entries, *numbered), len(waiting), trouble)

    def evidence_host(self, task_vars: Mapping[str, Any]) -> str:
        return str(self._task.delegate_to or task_vars.get("inventory_hostname", ""))
