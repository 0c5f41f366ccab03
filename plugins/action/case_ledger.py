# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records on the evidence host, signs here: the key stays here, and containment never waits for the store."""

from __future__ import annotations

import getpass
import json
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.vmward.remediation.plugins.module_utils._case.countersign import Countersigning
from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import CaseError, timestamp
from ansible_collections.vmward.remediation.plugins.module_utils._case.options import (
    ARGUMENT_SPEC,
    REQUIRED_IF,
    requested,
)
from ansible_collections.vmward.remediation.plugins.module_utils._case.signature import SignatureError
from ansible_collections.vmward.remediation.plugins.module_utils._case.spool import Anchor, Spool
from ansible_collections.vmward.remediation.plugins.plugin_utils._controller import has_ended, this_run

MODULE = "vmward.remediation.case_ledger"
SPOOLED = ("open", "append")


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        _result, options = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC, required_if=REQUIRED_IF)
        options = json.loads(json.dumps({**options, **self._author(options)}))
        if options["lease"]:
            lease = options["lease"]
            lease.update(holder=lease["holder"] or options["actor"], run=lease["run"] or this_run())
        try:
            self._spool = Spool(Path(options["spool_directory"]), options["case"])
            record = options["operation"] not in ("read", "verify")
            result = self._record(options) if record else self._on_host(options)
            result["spool_pending"] = len(self._spool.pending()[0])
        except CaseError as exc:
            return {"failed": True, "msg": str(exc), "kind": exc.kind}
        except AnsibleConnectionFailure as exc:
            return {"failed": True, "msg": f"Cannot reach the evidence host: {exc}", "kind": "store"}
        except OSError as exc:
            cause = f"{exc.strerror or exc} ({exc.filename})"
            raise AnsibleActionFail(f"Cannot serve case {options['case']} on the controller: {cause}.") from exc
        return result

    def _author(self, options: Mapping[str, Any]) -> dict[str, str]:
        """The AWX user where there is one, since every AWX job runs as the same system user."""
        user = self._vars.get("awx_user_name") or self._vars.get("tower_user_name") or getpass.getuser()
        actor = self._templar.template(user)
        return {"actor": options["actor"] or f"{actor}@{platform.node()}", "host": options["host"] or platform.node()}

    def _on_host(self, options: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """Run the module; `~` in the store means the evidence host's."""
        arguments = {**options, "store": self._task.args["store"], **changes}
        signers = options["allowed_signers"]
        if signers and options["operation"] == "verify":
            arguments["allowed_signers_content"] = Path(signers).read_text("utf-8")
        arguments = {name: value for name, value in arguments.items() if value is not None}
        result: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=self._vars)
        return result

    def _record(self, options: dict[str, Any]) -> dict[str, Any]:
        now = timestamp(datetime.now(timezone.utc))
        options["entries"] = [{**entry, "time": entry["time"] or now} for entry in options["entries"] or ()]
        mine = requested(options)
        waiting, unreadable = self._spool.pending()
        if unreadable:
            self._display.warning(f"{unreadable} lines of {self._spool.path} cannot be read. Move the file away.")
        anchor = Anchor(
            self._spool.directory, options["case"], f"{self._vars.get('inventory_hostname')}:{options['store']}"
        )
        sent = {**options, "entries": [*waiting, *options["entries"]], "since": (anchor.load() or (0, ""))[0]}
        try:
            result = self._on_host(sent)
        except AnsibleError as exc:
            result = {"failed": True, "msg": f"Cannot reach the evidence host: {exc}"}
        if self._is_left_behind(options, result):
            result = self._on_host({**sent, "take_over": True})
        if result.get("failed"):
            return self._keep(options, mine, now, result)
        if waiting and not self._task.check_mode:
            self._spool.remove([entry["spool_id"] for entry in waiting])
        if result["created"] and not self._task.check_mode:
            self._forget(anchor)
        return self._finish(Countersigning(sent, requested(sent), result, anchor, bool(waiting)))

    def _is_left_behind(self, options: Mapping[str, Any], refusal: Mapping[str, Any]) -> bool:
        """Whether what stands in the way is an earlier run of the same holder on this controller, which has ended."""
        lease = refusal.get("lease") if refusal.get("failed") and refusal.get("kind") == "lease" else None
        mine = (options["lease"] or {}).get("holder")
        if not lease or options["epoch"] is not None or lease["holder"] != mine or not has_ended(lease["run"]):
            return False
        self._display.display(f"Case {options['case']}: run {lease['run']} has ended; this one takes it up.")
        return True

    def _keep(
        self, options: Mapping[str, Any], mine: list[dict[str, Any]], now: str, failure: dict[str, Any]
    ) -> dict[str, Any]:
        """The store would not take the entries: spool them if asked to, unless they are at fault themselves."""
        refused = failure.get("kind") == "input" or (failure.get("kind") == "lease" and options["lease"])
        if refused or not options["spool"] or options["operation"] not in SPOOLED:
            return failure
        if not self._task.check_mode:
            self._spool.add([{"time": now, **entry} for entry in mine], now)
        reason = str(failure.get("msg", "unknown"))
        self._display.warning(f"The ledger did not take {len(mine)} entries, they wait in {self._spool.path}: {reason}")
        reasons = {"spool_reason": reason, "unsigned_reason": "the entries wait in the spool"}
        return {"changed": True, "spooled": True, "signed": False, **reasons}

    def _forget(self, anchor: Anchor) -> None:
        former = anchor.load()
        if former:
            self._display.warning(
                f"Case {anchor.case} is new in its store, but this controller signed an earlier one of that name up to "
                f"{former[0]}:{former[1]}. If nobody removed that case on purpose, evidence is lost."
            )
            anchor.forget()

    def _finish(self, work: Countersigning) -> dict[str, Any]:
        """The result with signature and certificates, which a second module run puts beside what they cover."""
        result, options = work.result, work.options
        lines = result.pop("lines")
        result.update(spooled=False, signed=work.covered)
        if options["certificate"]:
            result["certificates"] = []
        reason = "a signature was not asked for"
        if (work.sign_due or work.uncertified) and self._task.check_mode:
            reason = "check mode signs nothing"
            work.predict()
        elif work.sign_due or work.uncertified:
            try:
                reason = self._store(work, work.make(lines))
            except SignatureError as exc:
                reason = str(exc)
            if reason:
                self._display.warning(f"Case {options['case']} is recorded, but not signed: {reason}.")
        if not result["signed"]:
            result["unsigned_reason"] = reason
        return result

    def _store(self, work: Countersigning, made: dict[str, Any]) -> str:
        """Why signature and certificates could not be stored, or an empty text."""
        plain = {"operation": "append", "certificate": False, "take_over": False, "since": None}
        try:
            second = self._on_host({**work.options, **plain, **made})
        except AnsibleError as exc:
            second = {"failed": True, "msg": str(exc)}
        if second.get("failed"):
            return f"the signature could not be stored: {second.get('msg')}"
        work.merge(second, made)
        return ""
