# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a case: one dictionary, told as JSON and as one HTML file that needs nothing from outside. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .._case.entry import Entry
from .._model import printable
from .scans import items, remarks
from .scope import in_words
from .story import Fact, Story, clock

FORMAT = "vmward-report/1"
TEXT_LIMIT = 4000
# Written by the act of reporting or signing itself: a report that covered them would never be up to date.
UNCOVERED = ("signature", "lease")


def covered(entries: Sequence[Entry], head: str) -> tuple[tuple[Entry, ...], str]:
    """The entries that a report is about, and their anchor; `head` is the hash of the ledger's last line."""
    last = max(
        (entry["seq"] for entry in entries if entry["phase"] != "report" and entry["action"] not in UNCOVERED),
        default=0,
    )
    sha256 = entries[last]["prev"] if last < len(entries) else head
    return tuple(entries[:last]), f"{last}:{sha256}"


def document(
    story: Story, entries: Sequence[Entry], covers: str, keeper: Mapping[str, Any], now: str
) -> dict[str, Any]:
    """All that the report says. `keeper` holds what case_ledger returned: metadata, artefacts, verification."""
    facts = [(machine.name, fact) for machine in story.machines for phase in machine.phases for fact in phase.facts]
    judged = [*facts, *story.hosts]
    verification = keeper["verification"]
    register = keeper["artefacts"]
    return {
        "format": FORMAT,
        "case": story.case,
        "metadata": keeper["metadata"],
        "written_at": now,
        "covers": covers,
        "covered_until": str(entries[-1]["time"]) if entries else "",
        "directory": keeper["directory"],
        "missing": list(story.shortfalls),
        "vms": [{**asdict(machine), "proof": machine.proof, "alarm": machine.alarm} for machine in story.machines],
        "other_vms": list(story.others),
        "hosts": [
            {**statement(host, fact), "paths": in_words(fact.inputs), "verdict": str(fact.result.get("verdict") or "")}
            for host, fact in story.hosts
        ],
        "proven": proven(facts, verification),
        "claimed_by_guest": [statement(vm, fact) for vm, fact in facts if fact.claimed],
        "stated_by_persons": [statement(vm, f) for vm, f in facts if f.result.get("by")],
        "not_done": not_done(story, verification),
        "findings": [{"vm": vm, **one} for vm, fact in judged for one in findings(fact)],
        "verdicts": [
            {**statement(vm, f), "verdict": str(f.result["verdict"]), "remarks": remarks(f.result)}
            for vm, f in judged
            if f.result.get("verdict")
        ],
        "clean_points": [clean_point(vm, fact) for vm, fact in facts if fact.name == "clean_point"],
        "notifications": list(
            {fact.seq: statement("", fact) for _vm, fact in facts if fact.phase == "notify"}.values()
        ),
        "evidence": [{**register[path], "path": path} for path in sorted(register) if not path.startswith("report/")],
        "verification": verification,
        "timeline": [dict(entry) for entry in entries],
    }


def statement(vm: str, fact: Fact) -> dict[str, Any]:
    kept = {name: getattr(fact, name) for name in ("phase", "name", "state", "msg", "seq", "time", "actor")}
    return {"vm": vm, **kept}


def proven(facts: Sequence[tuple[str, Fact]], verification: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was measured or read back from outside the guest, and how strongly."""
    how = {"witnessed": "measured by a witness", "readback": "read back from the hypervisor"}
    cuts = [
        {**statement(vm, fact), "how": how[str(fact.result["proof"])]}
        for vm, fact in facts
        if fact.name == "prove" and str(fact.result.get("proof")) in how
    ]
    scans = [
        {**statement(vm, fact), "how": f"scanned from outside the guest: {fact.result['verdict']}"}
        for vm, fact in facts
        if fact.result.get("verdict") in ("clean", "infected") and fact.name != "clean_point"
    ]
    checks = [
        {
            "vm": "",
            "phase": "ledger",
            "msg": f"{check['name']}: {check['text']}",
            "seq": "",
            "how": "verified for this report",
        }
        for check in verification["checks"]
        if check["state"] == "ok"
    ]
    return [*cuts, *scans, *checks]


def not_done(story: Story, verification: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every phase, step and check that did not happen or did not succeed, with its reason."""
    found: list[dict[str, Any]] = []
    for machine in story.machines:
        for phase in machine.phases:
            if phase.name == "report":
                continue
            if phase.state != "done":
                found.append({"vm": machine.name, "what": phase.name, "state": phase.state, "reason": phase.msg})
            for fact in phase.facts:
                if fact.state != "done":
                    what = f"{phase.name}: {fact.name}"
                    found.append({"vm": machine.name, "what": what, "state": fact.state, "reason": fact.msg})
    for host, fact in story.hosts:
        if fact.state != "done":
            found.append({"vm": host, "what": f"{fact.phase}: {fact.name}", "state": fact.state, "reason": fact.msg})
    for check in verification["checks"]:
        if check["state"] != "ok":
            state = "failed" if check["state"] == "FAILED" else "not_done"
            found.append({"vm": "", "what": f"verify: {check['name']}", "state": state, "reason": check["text"]})
    return found


def findings(fact: Fact) -> list[dict[str, Any]]:
    return [dict(one) for one in items(fact.result, "findings")]


def clean_point(vm: str, fact: Fact) -> dict[str, Any]:
    kept = {name: str(fact.result.get(name, "")) for name in ("chosen", "kind", "verdict", "infected_since")}
    lost = fact.result.get("lost")
    considered = [dict(one) for one in items(fact.result, "considered")]
    return {
        **statement(vm, fact),
        **kept,
        "lost": dict(lost) if isinstance(lost, Mapping) else {},
        "considered": considered,
    }


def as_json(told: Mapping[str, Any]) -> str:
    """ASCII only, so that no text of a guest can reorder or recolour what shows it."""
    return json.dumps(told, indent=2, ensure_ascii=True, sort_keys=True) + "\n"


def as_html(told: Mapping[str, Any]) -> str:
    """The page. Every value is escaped by the template engine and stripped of control and direction marks."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        return "" if value is None else printable(str(value), TEXT_LIMIT)

    here = Path(__file__).parent
    style = (here / "page.css").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=finalize, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["clock"] = clock
    template = environment.from_string((here / "page.html.j2").read_text("utf-8"))
    return template.render(told=told, style=Markup(style), style_hash=Markup(source_hash(style)))


def source_hash(style: str) -> str:
    """What the page's security policy allows: exactly this style, and nothing else from anywhere."""
    return base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
