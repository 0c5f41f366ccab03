# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans who is asked for the proof of a cut, and judges the answers. On the controller, without a connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.vmward.remediation.plugins.module_utils._model import printable
from ansible_collections.vmward.remediation.plugins.module_utils._proof.judge import Proof, Verdict, judge, unread
from ansible_collections.vmward.remediation.plugins.module_utils._proof.plan import (
    counter_work,
    flat_counters,
    flat_probes,
    probe_work,
)

SPEC = {
    "operation": {"type": "str", "choices": ["plan", "judge"], "required": True},
    "info": {"type": "dict", "required": True},
    "hypervisors": {"type": "dict", "default": {}},
    "witnesses": {"type": "list", "elements": "str", "default": []},
    "controls": {"type": "list", "elements": "str", "default": []},
    "vm": {"type": "str"},
    "cut": {"type": "dict"},
    "state": {"type": "str", "choices": ["sealed", "forensic"], "default": "sealed"},
    "counters": {"type": "dict", "default": {}},
    "probes": {"type": "dict", "default": {}},
    "required": {"type": "str", "choices": ["witnessed", "readback"], "default": "witnessed"},
}
display = Display()


class ActionModule(ActionBase):
    """Runs on the controller, without a connection."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(
            argument_spec=SPEC, required_if=[("operation", "judge", ("vm", "cut"))]
        )
        vms = options["info"].get("vms") or []
        if options["operation"] == "plan":
            known = addresses((task_vars or {}).get("hostvars") or {}, [vm["name"] for vm in vms])
            return {
                "changed": False,
                "counters": counter_work(vms, options["hypervisors"]),
                "probes": probe_work(vms, options["witnesses"], options["controls"], known),
            }
        verdict = self.verdict(options, [vm for vm in vms if vm["name"] == options["vm"]])
        line = printable(f"{options['vm']}: {verdict.line}", 700)
        display.display(line, color="red" if verdict.against else "yellow" if verdict.shortfall else "green")
        return {"changed": False, "msg": line, **told(verdict)}

    def verdict(self, options: Mapping[str, Any], mine: list[Mapping[str, Any]]) -> Verdict:
        """Judge one VM from what the hypervisor, the KVM hosts and the witnesses answered."""
        required = Proof[options["required"].upper()]
        if not mine or mine[0]["failed"]:
            why = mine[0]["msg"] if mine else options["info"].get("msg") or "no answer"
            return unread(options["cut"], options["state"], str(why), required)
        return judge(
            options["vm"],
            options["state"],
            options["cut"],
            mine[0]["after"]["nics"],
            flat_counters(options["counters"].get("results") or []),
            flat_probes(options["probes"].get("results") or []),
            required,
        )


def told(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain data."""
    return {
        "proof": verdict.proof.word,
        "required": verdict.required.word,
        "inbound": verdict.inbound,
        "outbound": verdict.outbound,
        "shortfall": verdict.shortfall,
        "against": verdict.against,
        "controls": list(verdict.controls),
    }


def addresses(hostvars: Mapping[str, Any], names: list[str]) -> dict[str, str]:
    """Where the inventory names a VM's IP address as the host to log in to."""
    found = {}
    for name in names:
        address = str(hostvars[name].get("ansible_host", "")) if name in hostvars else ""
        try:
            found[name] = str(ipaddress.ip_address(address))
        except ValueError:
            continue
    return found
