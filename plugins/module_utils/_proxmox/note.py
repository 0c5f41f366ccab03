# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The undo note and the firewall's part of the cut: as they lie in PVE's VM firewall, outside every snapshot. Pure.

The note is the comment of an empty IP set: a rollback leaves it alone, a locked VM still takes it, the guest cannot
reach it, and writing it needs no more privilege than the cut itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Callable

from .._model import Collector, Isolation, IsolationNote, Wiring, printable

Data = dict[str, Any]

NAME = "vmward-undo"
VERSION = 1  # of what the note holds
SAVED = "saved:"  # the mark of memory that lay on disk at the cut: no node, so that whatever runs later may have it
OURS = "vmward"  # the comment of our rules
# The options that a cut sets, with what PVE does when they are not set.
DEFAULTS: Data = {
    "enable": 0, "policy_in": "DROP", "policy_out": "ACCEPT", "dhcp": 1, "ndp": 1, "radv": 0, "macfilter": 1,
}  # fmt: skip
RULE = ("type", "action", "source", "dest", "proto", "dport", "enable", "comment")


def options_of(firewall: Mapping[str, Any]) -> Data:
    """The options that a cut touches, as they are set."""
    return {key: firewall[key] for key in DEFAULTS if key in firewall}


def wanted_options(mode: Isolation) -> Data:
    """DROP both ways, no other MAC than its own; DHCP would pass unless it is set to 0 by name.

    Forensic needs neighbour discovery for IPv6.
    """
    ndp = 1 if mode is Isolation.FORENSIC else 0
    return {
        "enable": 1, "policy_in": "DROP", "policy_out": "DROP", "dhcp": 0, "ndp": ndp, "radv": 0, "macfilter": 1,
    }  # fmt: skip


def lacking(firewall: Mapping[str, Any], mode: Isolation) -> Data:
    """The options that are not as the mode wants them."""
    return {key: value for key, value in wanted_options(mode).items() if str(firewall.get(key)) != str(value)}


def wanted_rules(mode: Isolation, collectors: Sequence[Collector]) -> list[Data]:
    """Our rules in the order in which they stand before all others."""
    rules = [passing(one) for one in collectors] if mode is Isolation.FORENSIC else []
    rules += [{"type": way, "action": "DROP"} for way in ("in", "out")]
    return [{**rule, "enable": 1, "comment": OURS} for rule in rules]


def needed_rules(wanted: Sequence[Data], rules: Sequence[Mapping[str, Any]], even_alone: bool) -> list[Data]:
    """Where nobody else's rule could let anything pass, none of ours are needed."""
    others = any(not mine(rule) and int(rule.get("enable", 0)) for rule in rules)
    return list(wanted) if others or even_alone else []


def behind(rules: Sequence[Mapping[str, Any]], goal: Sequence[Data]) -> list[Mapping[str, Any]]:
    """The rules of ours that stand behind those that should be first, and are too many."""
    return [rule for rule in rules[len(goal) :] if mine(rule)]


def are_first(rules: Sequence[Mapping[str, Any]], goal: Sequence[Data]) -> bool:
    return [plain(rule) for rule in rules[: len(goal)]] == list(goal)


def layer(
    found: IsolationNote, firewall: Mapping[str, Any], rules: Sequence[Mapping[str, Any]] | None
) -> tuple[tuple[str, str, str], ...]:
    """The firewall's part of the cut: each by name, as it is, and as it was set; without rules that are not told."""
    options = wanted_options(found.mode)
    told = [(key, str(firewall.get(key, "not set")), str(value)) for key, value in options.items()]
    if rules is None:
        return tuple(told)
    goal = needed_rules(wanted_rules(found.mode, found.collectors), rules, found.mode is Isolation.FORENSIC)
    as_set = are_first(rules, goal) and not behind(rules, goal)
    return (*told, ("rules", "as set" if as_set else "not as set", "as set"))


def passing(collector: Collector) -> Data:
    """Connections are opened one way; their answers pass by PVE's own rule for established ones."""
    way, end = ("in", "source") if collector.opened_by == "collector" else ("out", "dest")
    told = {"type": way, "action": "ACCEPT", end: collector.address, "proto": collector.protocol}
    return {**told, "dport": str(collector.port)}


def plain(rule: Mapping[str, Any]) -> Data:
    return {key: rule[key] for key in RULE if key in rule}


def mine(rule: Mapping[str, Any]) -> bool:
    return rule.get("comment") == OURS


def text_of(note: IsolationNote, mark: str, now: int) -> str:
    """One line of ASCII. ``mark`` names the QEMU process whose guest has run on since the cut; ``now`` is Unix time."""
    told = {
        "v": VERSION,
        "case": note.case,
        "mode": note.mode.value,
        "since": note.since,
        "session": mark if note.sessions else "",
        "marked": now,
        "collectors": [asdict(one) for one in note.collectors],
        "wiring": {nic: [wiring.config, wiring.live] for nic, wiring in note.wiring},
    }
    return json.dumps(told, sort_keys=True, separators=(",", ":"))


def note_of(comment: str | None, lives: Callable[[str, int], bool]) -> IsolationNote | None:
    """The note. ``lives`` says whether the memory of the process that it marks still lives, and since when to look.

    Raises ``ValueError`` when it cannot be read: what to undo is then unknown.
    """
    if comment is None:
        return None
    try:
        told = json.loads(comment)
        if told.get("v", VERSION) != VERSION:
            raise ValueError(f"it is of version {told['v']}, and this vmward knows {VERSION}")
        session, marked = str(told["session"]), int(told["marked"])
        found = IsolationNote(
            str(told["case"]),
            Isolation(told["mode"]),
            str(told["since"]),
            tuple(sorted((nic, restorable(nic, *sides)) for nic, sides in told["wiring"].items())),
            tuple(Collector(**one) for one in told["collectors"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ValueError(f"{type(exc).__name__}: {printable(str(exc), 200)}") from exc
    return replace(found, sessions=bool(session) and lives(session, marked))


def restorable(nic: str, *sides: Any) -> Wiring:
    """A NIC's former wiring; raises where nothing could be restored from it."""
    for side in sides:
        if not isinstance(side, str):
            raise TypeError(f"the wiring of {nic} is no text")
        told = json.loads(side) if side and nic.startswith("net") else {"net": "", "firewall": {}}
        if not (isinstance(told["net"], str) and isinstance(told["firewall"], dict)):
            raise TypeError(f"the wiring of {nic} is not whole")
    return Wiring(*sides)


def unconfirmed(
    mode: Isolation,
    firewall: Mapping[str, Any],
    rules: Sequence[Mapping[str, Any]],
    nets: Mapping[str, Mapping[str, str]],
    cluster: Mapping[str, Any] | None,
    service: str,
) -> tuple[str, ...]:
    """Why the firewall cannot be counted as holding this VM; empty when it can. A list of short reasons."""
    why = []
    if cluster is None:
        why.append("the cluster's firewall switch cannot be read (Sys.Audit on /)")
    elif not int(cluster.get("enable") or 0):
        why.append("the cluster's firewall is off, and vmward does not switch it on")
    if service != "running":
        why.append(f"its node's pve-firewall is {service or 'unknown'}")
    off = lacking(firewall, mode)
    if off:
        why.append("the VM's own options are not as set: " + ", ".join(f"{key}={firewall.get(key)}" for key in off))
    without = [key for key, parts in nets.items() if parts.get("firewall") != "1"]
    if without:
        why.append(f"{', '.join(without)} has no firewall=1")
    if lets_through(mode, rules):
        why.append("rules of others stand before ours")
    return tuple(why)


def lets_through(mode: Isolation, rules: Sequence[Mapping[str, Any]]) -> bool:
    """Does a rule that is not ours decide before ours do?"""
    ours = [rule for rule in rules if mine(rule)]
    foreign = [rule for rule in rules if not mine(rule) and int(rule.get("enable", 0))]
    if mode is Isolation.FORENSIC and not ours:
        return True
    return bool(foreign) and list(rules[: len(ours)]) != ours or bool(foreign) and not ours
