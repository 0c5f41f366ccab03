# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a KVM host's kernel counted on a tap: frames from and to the guest, and what our chains did with them. Pure.

libvirt builds, in table nat: ``PREROUTING -i TAP -j libvirt-I-TAP`` for frames from the guest and
``POSTROUTING -o TAP -j libvirt-O-TAP`` for frames to it. Source: U(https://libvirt.org/firewall.html).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEVICE = re.compile(r"[A-Za-z0-9_.-]{1,15}\Z")
CHAIN = re.compile(r"Bridge chain: (\S+), entries: \d+, policy: (\w+)")
RULE = re.compile(r"(?P<match>.*?)-j (?P<verdict>\S+) , pcnt = (?P<packets>\d+) -- bcnt = \d+\Z")


@dataclass(frozen=True)
class Rule:
    """One rule of a chain: what it matches (empty: everything), its verdict, and how many frames it took."""

    match: str
    verdict: str
    packets: int


Chains = Mapping[str, Sequence[Rule]]


@dataclass(frozen=True)
class Sample:
    """A tap at one moment. ``from_guest`` is a pair: counted just before and just after the chains were read."""

    index: int  # the kernel's number of this very device
    from_guest: tuple[int, int]
    to_guest: int
    from_host: int  # of the frames to the guest, those that the host's own IPv6 sent on the tap
    dropped: int
    accepted: int
    accepts: int  # how many rules let something pass
    broken: str  # why the chains do not hold; empty: they do


def parse_chains(listing: str) -> dict[str, list[Rule]]:
    """``ebtables -t nat -L --Lc`` as rules by chain. A line that is not understood raises ``ValueError``."""
    chains: dict[str, list[Rule]] = {}
    rules: list[Rule] | None = None
    for line in (raw.strip() for raw in listing.splitlines()):
        head, rule = CHAIN.match(line), RULE.match(line)
        if head:
            rules = chains.setdefault(head[1], [])
        elif rule and rules is not None:
            rules.append(Rule(rule["match"].strip(), rule["verdict"], int(rule["packets"])))
        elif line and not line.startswith("Bridge table:"):
            raise ValueError(f"ebtables printed a line that is not understood: {line[:120]!r}")
    return chains


def broken(chains: Chains, device: str) -> str:
    """Why our chains do not hold this tap; empty when they do."""
    for hook, flag, letter in (("PREROUTING", "-i", "I"), ("POSTROUTING", "-o", "O")):
        name = f"libvirt-{letter}-{device}"
        rules = chains.get(name)
        if rules is None:
            return f"chain {name} is missing"
        if not rules or rules[-1].match or rules[-1].verdict != "DROP":
            return f"chain {name} does not end by dropping everything"
        jump = Rule(f"{flag} {device}", name, 0)
        before = [rule.verdict for rule in chains.get(hook, []) if concerns(rule, flag, device)]
        if jump.verdict not in before:
            return f"{hook} does not lead to chain {name}"
        if "ACCEPT" in before[: before.index(jump.verdict)]:
            return f"a rule in {hook} accepts frames before chain {name}"
    return ""


def concerns(rule: Rule, flag: str, device: str) -> bool:
    """Can this rule take frames of the device? A rule bound to another device cannot."""
    words = rule.match.split()
    return flag not in words or words.index(flag) + 1 >= len(words) or words[words.index(flag) + 1] == device


def taken(chains: Chains, device: str, letter: str, verdict: str) -> int:
    return sum(rule.packets for rule in chains.get(f"libvirt-{letter}-{device}", []) if rule.verdict == verdict)


def sample(
    chains: Chains, device: str, index: int, from_guest: tuple[int, int], to_guest: int, from_host: int
) -> Sample:
    """Put together what was read of one tap."""
    ours = [rule for letter in "IO" for rule in chains.get(f"libvirt-{letter}-{device}", [])]
    return Sample(
        index,
        from_guest,
        to_guest,
        from_host,
        taken(chains, device, "I", "DROP"),
        taken(chains, device, "I", "ACCEPT"),
        sum(rule.verdict != "DROP" for rule in ours),
        broken(chains, device),
    )


def difference(before: Mapping[str, Any], after: Sample) -> tuple[dict[str, int], str]:
    """What was counted between two samples, or why that cannot be said. ``passed`` is the most that may have passed."""
    if before["index"] != after.index:
        return {}, "the tap was made anew in between"
    delta = {
        "from_guest": after.from_guest[0] - before["from_guest"][0],
        "to_guest": after.to_guest - before["to_guest"],
        "from_host": after.from_host - before["from_host"],
        "dropped": after.dropped - before["dropped"],
        "accepted": after.accepted - before["accepted"],
    }
    if min(delta.values()) < 0:
        return {}, "the counters were set back in between"
    most = after.from_guest[1] - before["from_guest"][0]
    delta["passed"] = max(most - delta["dropped"], 0)
    return delta, ""
