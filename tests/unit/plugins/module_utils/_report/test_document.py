# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._model import printable
from ansible_collections.vmward.remediation.plugins.module_utils._report.document import (
    as_html,
    as_json,
    covered,
    document,
    source_hash,
)
from ansible_collections.vmward.remediation.plugins.module_utils._report.story import tell
from ansible_collections.vmward.remediation.tests.unit.plugins.module_utils._report.cases import (
    HOSTILE,
    SHA,
    artefact,
    book,
    contained,
    end,
    entry,
    preserved,
    remediated,
)

CHECKS = [
    {"name": "chain", "state": "ok", "text": "17 entries"},
    {"name": "anchor", "state": "NOT CHECKED", "text": "tail not anchored"},
]


def made(*entries: dict[str, Any], verified: bool = True, title: str = "Alert") -> dict[str, Any]:
    written = book(*entries)
    chosen, covers = covered(written.entries, written.head["hash"])
    checks = CHECKS if verified else [{"name": "artefacts", "state": "FAILED", "text": "1 changed"}]
    verification = {"verified": verified, "anchored": False, "verified_at": "now", "checks": checks}
    keeper = {
        "metadata": {"title": title},
        "artefacts": written.artefacts,
        "verification": verification,
        "directory": "kvm1:/srv/cases/2026-0142",
    }
    return document(tell("2026-0142", chosen), chosen, covers, keeper, "2026-01-31T12:30:00Z")


class Elements(HTMLParser):
    """Every element and attribute of a page, and the text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_tells_proven_claimed_and_not_done_apart() -> None:
    told = made(*contained(), *preserved(), *remediated())
    assert [one["how"] for one in told["proven"]] == [
        "measured by a witness",
        "scanned from outside the guest: infected",
        "verified for this report",
    ]
    assert [one["name"] for one in told["claimed_by_guest"]] == ["connections"]
    assert [one["name"] for one in told["stated_by_persons"]] == ["logs"]
    what = [(one["what"], one["reason"]) for one in told["not_done"]]
    assert ("scope", "not built in this version") in what
    assert ("contain: vpn", "no VPN hook is configured (contain_vpn_hook)") in what
    assert ("verify: anchor", "tail not anchored") in what
    assert [one["path"] for one in told["findings"]] == ["/home/user/invoice.bin"]


def test_live_hosts_have_a_place_of_their_own() -> None:
    finding = {"path": HOSTILE, "rule": "marker", "engine": "yara", "sha256": SHA, "disk": "", "volume": 0}
    told = made(
        *contained(),
        entry(
            "scan",
            "host",
            "web1",
            msg="infected (9 files)",
            verdict="infected",
            findings=[finding],
            inputs={"paths": ["/srv"], "exclude": ["/srv/iso"]},
        ),
        entry("scan", "host", "web2", "failed", "Cannot reach it"),
    )
    assert [(one["vm"], one["verdict"]) for one in told["hosts"]] == [("web1", "infected"), ("web2", "")]
    assert [one["name"] for one in told["vms"]] == ["desk1"]
    assert [one["vm"] for one in told["findings"]] == ["web1"]
    assert [one["paths"] for one in told["hosts"]] == ["/srv but not /srv/iso", ""]
    assert [one["name"] for one in told["verdicts"] if one["vm"] == "web1"] == ["live host /srv but not /srv/iso"]
    assert not any(one["vm"] == "web1" for one in told["proven"])
    assert {"vm": "web2", "what": "scan: live host", "state": "failed", "reason": "Cannot reach it"} in told["not_done"]
    page = Elements(as_html(told))
    assert "Live hosts" in page.text
    assert "/srv but not /srv/iso" in page.text
    assert "Read through their own kernels" in page.text
    assert not any(tag == "script" for tag, _attributes in page.found)


def test_page_shows_every_hash_and_every_person() -> None:
    text = Elements(as_html(made(*contained(), *preserved(), *remediated()))).text
    for expected in (
        SHA,
        "evidence/data/desk1/memory.elf",
        "268435456",
        "ada@ir1",
        "clean-baseline",
        "Claimed by the guest:",
    ):
        assert expected in text


def test_page_loads_nothing_and_runs_nothing() -> None:
    page = as_html(made(*contained(), *preserved(), *remediated()))
    elements = Elements(page)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {tag for tag, _attrs in elements.found}
    attributes = {name for _tag, attrs in elements.found for name in attrs}
    assert not {name for name in attributes if name.startswith("on")} | attributes & {"src", "href", "style"}
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    (policy,) = [attrs["content"] for tag, attrs in elements.found if "http-equiv" in attrs]
    allowed = f"style-src 'sha256-{source_hash(style[1])}'"
    assert policy == f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


@pytest.mark.parametrize(
    "hostile", [HOSTILE, "</style><img src=x onerror=alert(1)>", "{% raw %}{{ 7*7 }}", "\u2066\u202e\x00\x9b31m"]
)
def test_foreign_text_stays_text(hostile: str) -> None:
    finding = {"disk": hostile, "path": hostile, "rule": hostile, "engine": hostile, "sha256": hostile}
    disk = entry("scan", "disk", hostile, msg=hostile, verdict="infected", what=hostile, findings=[finding])
    point = entry(
        "restore",
        "clean_point",
        hostile,
        msg=hostile,
        chosen=hostile,
        kind=hostile,
        verdict=hostile,
        considered=[{"name": hostile, "created": hostile, "verdict": hostile}],
        infected_since=hostile,
        lost={"seconds": hostile, "bytes": -1},
        bases=[{"disk": hostile, "base": hostile, "why": hostile}],
        not_scanned=[{"name": hostile, "path": hostile, "why": hostile}],
    )
    kept = entry(
        "preserve",
        "memory",
        hostile,
        msg=hostile,
        by=hostile,
        artefacts=[artefact("x.bin", method=hostile, location=hostile, classification=hostile)],
    )
    told = made(*contained(hostile), kept, disk, end("scan", hostile, msg=hostile), point, title=hostile)
    page = as_html(told)
    plain = {tag for tag, _attrs in Elements(as_html(made(*contained(), *preserved(), *remediated()))).found}
    assert {tag for tag, _attrs in Elements(page).found} <= plain | {"ul", "li", "br"}
    assert printable(hostile, 4000) in Elements(page).text
    assert not [char for char in page if not char.isprintable() and char != "\n"]
    text = as_json(told)
    assert text.isascii()
    assert json.loads(text)["vms"][0]["name"] == hostile


def test_findings_that_the_ledger_has_no_room_for_are_counted() -> None:
    found = {"path": "/a", "rule": "x"}
    (one,) = made(
        entry("scan", "disk", msg="infected", verdict="infected", findings=[found] * 2, findings_count=7, indicators=[],
              indicators_count=0),
    )["verdicts"]  # fmt: skip
    assert one["remarks"] == ["7 findings, of which the ledger lists 2"]


def test_what_a_verdict_rests_on_and_leaves_out_is_told() -> None:
    base = {"disk": "vda", "base": "/golden", "used": False, "why": "the base was changed since it was indexed"}
    good = {"disk": "vdb", "base": "/golden", "used": True, "why": ""}
    left = {"name": "sda", "path": "/iso", "why": "read-only"}
    point = {"chosen": "s3", "kind": "snapshot", "verdict": "clean", "infected_since": "2026-01-04T00:00:00Z"}
    told = made(
        entry("scan", "disk", msg="clean", verdict="clean", bases=[base, base, good], not_scanned=[left]),
        entry("scan", "clean_point", msg="s3 is clean", **point, lost={"seconds": 60, "bytes": 9}),
    )
    stale = (
        "vda: all of it was scanned, nothing known of /golden was relied on: the base was changed since it was indexed"
    )
    assert told["verdicts"][0]["remarks"] == [stale, "sda was NOT scanned: read-only (/iso)"]
    assert (told["clean_points"][0]["infected_since"], told["clean_points"][0]["lost"]["seconds"]) == (
        "2026-01-04T00:00:00Z",
        60,
    )
    text = Elements(as_html(told)).text
    for expected in (
        stale,
        "sda was NOT scanned: read-only (/iso)",
        "desk1 could be brought back from s3",
        "s3 is clean",
    ):
        assert expected in text


def test_what_does_not_verify_is_said_first() -> None:
    page = Elements(as_html(made(*contained(), verified=False))).text
    assert page.index("could not be verified") < page.index("What happened to each VM")


def test_a_report_does_not_cover_itself() -> None:
    before = book(*contained())
    _entries, anchor = covered(before.entries, before.head["hash"])
    assert anchor == f"5:{before.head['hash']}"
    after = book(*contained(), entry("report", "write", ""), end("report", ""))
    entries, again = covered(after.entries, after.head["hash"])
    assert (again, len(entries)) == (anchor, 5)
