# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells the administrators about a case by mail and webhook, and returns what to record about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible_collections.vmward.remediation.plugins.module_utils._report.delivery import Delivery, Job, deliver, jobs
from ansible_collections.vmward.remediation.plugins.module_utils._report.message import compose, news
from ansible_collections.vmward.remediation.plugins.module_utils._report.story import tell
from ansible_collections.vmward.remediation.plugins.plugin_utils._case_action import CaseAction

CONTACT = {
    "role": {"type": "str", "required": True},
    "email": {"type": "str"},
    "webhook": {"type": "str", "no_log": True},
    "webhook_headers": {"type": "dict", "no_log": True},
    "ca_path": {"type": "path"},
}
SMTP = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int"},
    "security": {"type": "str", "choices": ["starttls", "tls", "none"], "default": "starttls"},
    "sender": {"type": "str", "required": True},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "ca_path": {"type": "path"},
}
SPEC = {
    "store": {"type": "path"},
    "contacts": {
        "type": "list",
        "elements": "dict",
        "options": CONTACT,
        "required_one_of": [("email", "webhook")],
        "required": True,
    },
    "smtp": {"type": "dict", "options": SMTP},
    "occasion": {"type": "str", "default": "machines were cut off"},
    "deadline": {"type": "int", "default": 15},
}


class ActionModule(CaseAction):
    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        options = self.options(SPEC)
        reading = self.reading(options, task_vars or {})
        story = tell(options["case"], reading.entries, options["vms"])
        anchor = str(reading.told.get("anchor", "")) if not reading.trouble else ""
        message = compose(story, options["occasion"], anchor, reading.trouble)
        about = {"occasion": options["occasion"], "vms": news(story)}
        wanted = [job for job in jobs(options["contacts"], options["smtp"]) if not told(reading.entries, job, about)]
        self._warn(options)
        made = [] if self._task.check_mode else deliver(wanted, message, float(options["deadline"]))
        for one in made:
            if one.state != "done":
                self._display.warning(one.msg)
        failed = sum(one.state != "done" for one in made)
        return {
            "changed": bool(wanted),
            "subject": message.subject,
            "body": message.body,
            "anchor": anchor,
            "deliveries": [asdict(one) for one in made],
            "entries": [entry(one, about, anchor) for one in made],
            "undelivered": failed,
            "msg": summary(len(options["contacts"]), wanted, made, failed),
        }

    def _warn(self, options: Mapping[str, Any]) -> None:
        if options["smtp"] and options["smtp"]["security"] == "none":
            self._display.warning("Mail about the case goes unencrypted: smtp.security is none.")
        if any(str(contact.get("webhook") or "").startswith("http:") for contact in options["contacts"]):
            self._display.warning("A webhook about the case goes unencrypted: its address begins with http.")


def told(entries: Sequence[Mapping[str, Any]], job: Job, about: Mapping[str, Any]) -> bool:
    """Was the same news delivered to the same address already?"""
    return any(
        one["phase"] == "notify"
        and one["action"] == job.channel
        and one["result"].get("state") == "done"
        and one["inputs"].get("to") == job.to
        and one["inputs"].get("role") == job.role
        and {name: one["inputs"].get(name) for name in about} == about
        for one in entries
    )


def entry(one: Delivery, about: Mapping[str, Any], anchor: str) -> dict[str, Any]:
    """The ledger entry of a delivery."""
    inputs = {**about, "to": one.to, "role": one.role, "anchor": anchor}
    result = {"state": one.state, "msg": one.msg, "to": one.to, "role": one.role, "seconds": one.seconds}
    return {"phase": "notify", "action": one.channel, "inputs": inputs, "result": result}


def summary(contacts: int, wanted: Sequence[Job], made: Sequence[Delivery], failed: int) -> str:
    if not contacts:
        return "nobody was told, no contact is named"
    if not wanted:
        return "everybody was told already"
    if not made:
        return f"would send {len(wanted)} messages"
    return f"{len(made) - failed} of {len(made)} messages were delivered"
