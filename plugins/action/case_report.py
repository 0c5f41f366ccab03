# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the report of a case beside its evidence: one HTML file and the same as JSON."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail

from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import timestamp
from ansible_collections.vmward.remediation.plugins.module_utils._report.document import (
    as_html,
    as_json,
    covered,
    document,
)
from ansible_collections.vmward.remediation.plugins.module_utils._report.story import PHASES, PROOFS, tell
from ansible_collections.vmward.remediation.plugins.plugin_utils._case_action import CaseAction, Reading

SPEC = {
    "allowed_signers": {"type": "path"},
    "expect_head": {"type": "str"},
    "require_proof": {"type": "str", "choices": list(PROOFS[1:]), "default": "witnessed"},
    "require_phases": {"type": "list", "elements": "str", "choices": list(PHASES), "default": []},
}


class ActionModule(CaseAction):
    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars, self._started = task_vars or {}, time.monotonic()
        options = self.options(SPEC)
        reading = self.reading(options, self._vars)
        if reading.trouble:
            raise AnsibleActionFail(f"Cannot write a report of case {options['case']}: {reading.trouble}")
        entries, covers = covered(reading.told["entries"], reading.told["head"]["hash"])
        verification = self._verification(options)
        inputs = {
            "covers": covers,
            "failed_checks": [one["name"] for one in verification["checks"] if one["state"] == "FAILED"],
            "verified": verification["verified"],
            "anchored": verification["anchored"],
            "require_proof": options["require_proof"],
            "require_phases": options["require_phases"],
            "vms": options["vms"],
        }
        former = self._former(reading, inputs)
        if former and verification["verified"]:
            return self._result(reading, inputs, former, changed=False)
        if reading.told["sealed"]:
            raise AnsibleActionFail(
                f"Cannot write a report of case {options['case']}: it is sealed. Reopen it with a reason first."
            )
        story = tell(options["case"], entries, options["vms"], options["require_proof"], options["require_phases"])
        keeper = {
            "metadata": reading.told["metadata"],
            "artefacts": reading.told["artefacts"],
            "directory": f"{self.evidence_host(self._vars)}:{reading.told['case_directory']}",
            "verification": verification,
        }
        told = document(story, entries, covers, keeper, timestamp(datetime.now(timezone.utc)))
        stem = f"report/report-{covers.partition(':')[0]}"
        texts = {f"{stem}.html": as_html(told), f"{stem}.json": as_json(told)}
        made = [self._write(reading.told["case_directory"], path, text) for path, text in texts.items()]
        return self._result(reading, inputs, made, changed=True)

    def _verification(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The ledger's own checks, every evidence file hashed again. That one fails is for the report to say."""
        signers = options["allowed_signers"]
        trusted = {"expect_head": options["expect_head"]} if options["expect_head"] else {}
        if signers:
            try:
                trusted["allowed_signers_content"] = Path(signers).read_text("utf-8")
            except OSError as exc:
                raise AnsibleActionFail(
                    f"Cannot read the allowed signers {signers} on the controller: {exc.strerror}."
                ) from exc
        result = self.ledger("verify", self._vars, **trusted)
        if "checks" not in result:
            raise AnsibleActionFail(f"Cannot verify case {options['case']}: {result.get('msg')}")
        names = ("checks", "verified", "anchored", "verified_at", "not_checked")
        return {name: result[name] for name in names}

    def _former(self, reading: Reading, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The files of a report that says the same already."""
        written = [entry for entry in reading.entries if (entry["phase"], entry["action"]) == ("report", "write")]
        return list(written[-1]["artefacts"]) if written and written[-1]["inputs"] == inputs else []

    def _write(self, directory: str, path: str, text: str) -> dict[str, Any]:
        """One file, in one step, for its owner only; read back by its hash."""
        data = text.encode("utf-8")
        dest = f"{directory}/{path}"
        made = {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        result = self._copy(data, dest)
        if result.get("failed") or result.get("unreachable"):
            raise AnsibleActionFail(f"Cannot write the report to {dest}: {result.get('msg')}")
        if not self._task.check_mode:
            arguments = {"path": dest, "checksum_algorithm": "sha256", "get_mime": False, "get_attributes": False}
            found = self._execute_module("ansible.legacy.stat", module_args=arguments, task_vars=self._vars)
            if found.get("stat", {}).get("checksum") != made["sha256"]:
                raise AnsibleActionFail(f"The report {dest} does not read back as written. Check the store's disk.")
        return made

    def _copy(self, data: bytes, dest: str) -> dict[str, Any]:
        local = tempfile.mkdtemp(dir=C.DEFAULT_LOCAL_TMP)
        try:
            source = os.path.join(local, "report")
            Path(source).write_bytes(data)
            task = self._task.copy()
            task.args = {"src": source, "dest": dest, "mode": "0600", "follow": False}
            task.diff = False
            copy = self._shared_loader_obj.action_loader.get(
                "ansible.legacy.copy",
                task=task,
                connection=self._connection,
                play_context=self._play_context,
                loader=self._loader,
                templar=self._templar,
                shared_loader_obj=self._shared_loader_obj,
            )
            result: dict[str, Any] = copy.run(task_vars=self._vars)
        finally:
            shutil.rmtree(local)
        return result

    def _result(
        self, reading: Reading, inputs: dict[str, Any], artefacts: list[dict[str, Any]], changed: bool
    ) -> dict[str, Any]:
        directory = reading.told["case_directory"]
        weaker = "verified" if inputs["anchored"] else "verified, but not anchored"
        said = weaker if inputs["verified"] else f"NOT verified ({', '.join(inputs['failed_checks'])})"
        msg = f"{artefacts[0]['path']} covers {inputs['covers'].partition(':')[0]} entries; ledger and evidence {said}"
        return {
            "changed": changed,
            "recorded": not changed,
            "msg": msg,
            "files": [f"{directory}/{one['path']}" for one in artefacts],
            "artefacts": [{name: one[name] for name in ("path", "size", "sha256")} for one in artefacts],
            "inputs": inputs,
            "verified": inputs["verified"],
            "anchored": inputs["anchored"],
            "seconds": round(time.monotonic() - self._started, 3),
        }
