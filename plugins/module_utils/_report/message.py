# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the other administrators are told, in plain words: one text for mail, one value for webhooks. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._render import IN_FULL, shown
from .story import Machine, Story, clock

FORMAT = "vmward-notification/1"


@dataclass(frozen=True)
class Message:
    """A notification before it is sent: the same facts for every channel."""

    subject: str
    body: str
    payload: dict[str, Any]


def compose(story: Story, occasion: str, anchor: str, trouble: str = "") -> Message:
    """`anchor` is the ledger's head; `trouble` says why there is none."""
    names = ", ".join(shown(machine.name, 60) for machine in story.machines[:IN_FULL])
    more = f" and {len(story.machines) - IN_FULL} more" if len(story.machines) > IN_FULL else ""
    exposed = [shown(machine.name, 60) for machine in story.machines if machine.alarm or not machine.isolation]
    headline = f"NOT CUT OFF: {', '.join(exposed)}" if exposed else f"{occasion}: {names}{more}"
    subject = shown(f"[vmward] case {story.case}: {headline}", 200)
    anchored = f"Ledger anchor, keep this mail for it: {anchor}" if anchor else f"No ledger anchor: {shown(trouble)}"
    paragraphs = [
        f"An infection is suspected on {names}{more}.",
        "\n".join(sentence(machine) for machine in story.machines),
        "Do not use, restart, reconnect or delete these machines, and do not log in to others from them. If you were "
        "logged in to one of them lately, treat the passwords and keys you used there as stolen.",
        f"Case: {story.case}\n{anchored}",
        f"See the case: ansible-playbook vmward.remediation.status -e vmward_case={story.case}",
    ]
    body = "\n\n".join(paragraphs) + "\n"
    payload = {
        "format": FORMAT,
        "case": story.case,
        "occasion": occasion,
        "anchor": anchor,
        "vms": [
            {"name": one.name, "isolation": one.isolation, "proof": one.proof, "alarm": one.alarm}
            for one in story.machines
        ],
        "text": f"{subject}\n\n{body}",
    }
    return Message(subject, body, payload)


def sentence(machine: Machine) -> str:
    """The state of one VM for somebody who has never heard of the case."""
    name = shown(machine.name, 60)
    if machine.uncut:
        return f"- {name} is NOT CUT OFF, the cut failed. Treat it as connected. {shown(machine.uncut)}"
    if machine.leak:
        return f"- {name} is NOT CUT OFF, its cut leaks. Treat it as connected. Seen: {shown(machine.leak)}"
    cut = {
        "sealed": "is cut off from every network",
        "forensic": "is cut off, except for the investigators",
        "free": "is connected",
    }.get(machine.isolation)
    if cut is None:
        return f"- {name}: NOT KNOWN to be cut off. Treat it as connected."
    proof = {
        "witnessed": "That was measured from another host.",
        "readback": "That was read back from its hypervisor, not measured from outside.",
    }.get(machine.proof, "That is NOT PROVEN.")
    since = f"since {shown(clock(machine.since), 40)}"
    return f"- {name} {cut} {since}." + ("" if machine.isolation == "free" else f" {proof}")


def news(story: Story) -> dict[str, str]:
    """What makes a message new: told again only when a VM's state or proof has changed."""
    return {
        machine.name: ", ".join(filter(None, [machine.isolation or "unknown", machine.proof, machine.alarm]))
        for machine in story.machines
    }
