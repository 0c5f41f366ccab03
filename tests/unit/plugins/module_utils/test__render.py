# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._render import (
    WIDTH,
    Line,
    Place,
    amount,
    command,
    duration,
    plan,
    summary,
)
from ansible_collections.vmward.remediation.plugins.module_utils._report.story import Now, tell
from ansible_collections.vmward.remediation.tests.unit.plugins.module_utils._report.cases import (
    HOSTILE,
    book,
    contained,
    end,
    entry,
    leaking,
    preserved,
    remediated,
    uncuttable,
)

GOLDEN = Path(__file__).parent / "_report" / "golden"
MAIL = entry(
    "notify", "mail", "", msg="mail accepted by mx:587 for ada@example.net", inputs={"anchor": "5:aa", "to": "ada"}
)


def place(written: Any, **more: Any) -> Place:
    return Place(
        "kvm1",
        "/srv/cases/2026-0142",
        f"{written.head['seq']}:{written.head['hash']}",
        12,
        tuple(written.artefacts.values()),
        ("report/report-21.html",),
        **more,
    )


@pytest.mark.parametrize(
    ("now", "told", "missing"),
    [
        (Now("kvm1", "stopped", "sealed"), "; now stopped and sealed", False),
        (Now("kvm1", "running", "free"), "; now running and free", True),
        (Now(problem=f"no answer {HOSTILE}"), "; not read now: no answer", False),
        (None, "proof of the cut: witnessed", False),
    ],
)
def test_what_the_ledger_says_is_held_against_what_is(now: Now | None, told: str, missing: bool) -> None:
    written = book(*contained())
    story = tell("2026-0142", written.entries, ["desk1"], now=lambda _name: now)
    heading = summary(story, place(written))[1].text
    assert told in heading
    assert heading.isascii()
    sentence = "desk1: kvm1 says that it is free now, the ledger that it is sealed since"
    assert any(sentence in shortfall for shortfall in story.shortfalls) is missing


def whole() -> list[Line]:
    written = book(
        *contained(), MAIL, end("notify", "", msg="1 of 1 messages were delivered"), *preserved(), *remediated()
    )
    return summary(tell("2026-0142", written.entries), place(written), [("Remove the lab", "make lab-down")])


def short() -> list[Line]:
    failed = entry("preserve", "memory", "desk2", "failed", "Cannot dump desk2: no space left. Free 300 MiB in /srv.")
    written = book(*contained(proof="readback"), *contained("desk2"), failed, *contained(HOSTILE))
    return summary(tell("2026-0142", written.entries, ["desk1", "desk2", "ghost", HOSTILE]), place(written, waiting=3))


def exposed() -> list[Line]:
    written = book(*leaking(), uncuttable("desk2"), uncuttable("desk3", "unknown"), *contained("desk4"))
    return summary(tell("2026-0142", written.entries), place(written))


def many() -> list[Line]:
    entries = [one for number in range(8) for one in contained(f"desk{number}", "witnessed" if number else "readback")]
    written = book(*entries)
    return summary(tell("2026-0142", written.entries), place(written))


def unreadable() -> list[Line]:
    trouble = "Cannot reach the evidence host: Failed to connect to the host via ssh: Connection timed out"
    return summary(tell("2026-0142", book(*contained()).entries), Place(trouble=trouble, waiting=4))


def planned() -> list[Line]:
    undo = "vmward.remediation.release restores the former wiring from the note on the VM"
    return plan(
        "2026-0142",
        [
            {"vm": "desk1", "phase": "contain", "what": "seal 1 NIC: filter and link", "undo": undo},
            {"vm": "desk1", "phase": "contain", "what": "prove the cut", "unproven": "outbound, without root on kvm1"},
            {"vm": "desk1", "phase": "scope", "what": "not built in this version", "not_done": True},
            {"vm": HOSTILE, "phase": "contain", "what": HOSTILE},
        ],
    )


@pytest.mark.parametrize("screen", [whole, short, exposed, many, unreadable, planned])
def test_screen_is_as_it_was_approved(screen: Any) -> None:
    path = GOLDEN / f"{screen.__name__}.txt"
    text = "".join(line.text + "\n" for line in screen())
    if os.environ.get("VMWARD_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("screen", [whole, short, exposed, many, unreadable, planned])
def test_screen_is_plain_ascii_and_fits(screen: Any) -> None:
    for line in screen():
        assert line.text.isascii()
        assert line.text.isprintable()
        assert len(line.text) <= WIDTH or line.text.startswith("  ansible")


def test_a_name_that_could_be_code_is_in_no_command() -> None:
    text = command("respond", ["desk1", HOSTILE, "a b", "-e", "$(id)"], "2026-0142")
    assert text == (
        "ansible-playbook vmward.remediation.respond -e vmward_vms=desk1 -e vmward_case=2026-0142"
        "   # and 4 more, whose names are not safe to paste"
    )


def test_what_is_missing_is_never_told_as_nothing() -> None:
    for screen in (short, exposed, many, unreadable):
        texts = [line.text for line in screen()]
        assert not [text for text in texts if "nothing that was required" in text]
        assert [line for line in screen() if line.text.startswith("MISSING") and line.tone == "bad"]


def test_a_cut_that_is_none_is_red_and_is_not_gone_on_with() -> None:
    lines = exposed()
    for text in ("desk1   LEAKING: sealed", "desk2   CUT FAILED: free", "desk3   CUT FAILED: its isolation is not"):
        assert [line for line in lines if line.text.startswith(text) and line.tone == "bad"], text
    commands = [line.text for line in lines]
    assert commands[commands.index("Cut off now:") + 1].split()[3] == "vmward_vms=desk1,desk2,desk3"
    assert any("respond" in text and "vmward_vms=desk4 " in text for text in commands)


def test_a_leaking_vm_that_stands_still_is_not_to_be_paused() -> None:
    written = book(*leaking())
    for power, offered in (("running", True), ("stopped", False)):
        now = Now("kvm1", power, "sealed")
        story = tell("2026-0142", written.entries, now={"desk1": now}.get)
        assert any("vms=desk1 state=paused" in line.text for line in summary(story, place(written))) is offered


@pytest.mark.parametrize("count", [2, 40])
def test_live_hosts_are_told_apart_from_the_vms(count: int) -> None:
    hosts = [
        entry("scan", "host", f"web{number}", msg=f"{verdict} (9 files)", verdict=verdict, inputs={"paths": ["/srv"]})
        for number, verdict in enumerate(["infected", *["clean"] * (count - 1)])
    ]
    written = book(*contained(), *hosts)
    lines = summary(tell("2026-0142", written.entries), place(written))
    told = [(line.text, line.tone) for line in lines if line.text.startswith("Live host")]
    assert told[0] == ("Live host  web0 (/srv): infected (9 files)", "bad")
    if count > 5:
        assert told[1] == ("Live hosts 39 more, 0 of them not clean", "")
    else:
        assert told[1] == ("Live host  web1 (/srv): clean (9 files)", "good")
    assert any(line.text.startswith("MISSING    web0 (/srv): this live host is infected") for line in lines)
    assert not any(line.text.startswith("web0") for line in lines)


def test_numbers_for_people() -> None:
    assert [duration(number) for number in (0.94, 99.9, 128, 7200)] == ["0.9 s", "99.9 s", "2m08s", "120m00s"]
    assert [amount(number) for number in (0, 1023, 1 << 28, 3 << 40)] == ["0 B", "1023 B", "256.0 MiB", "3.0 TiB"]


def test_vms_with_the_same_plan_are_told_together() -> None:
    steps = [{"vm": name, "phase": "contain", "what": "seal 1 NIC"} for name in ("desk1", "desk2")]
    steps.append({"vm": "app1", "phase": "contain", "what": "seal 2 NICs"})
    told = [line.text for line in plan("", steps)]
    assert told[1] == "desk1, desk2"
    assert sum("seal 1 NIC" in line for line in told) == 1
    assert "app1" in told


def test_what_a_verdict_rests_on_and_leaves_out_is_beneath_it() -> None:
    bases = [{"disk": f"vd{letter}", "base": HOSTILE, "used": False, "why": "it is stale"} for letter in "abcdef"]
    left = [{"name": "sda", "path": HOSTILE, "why": "read-only"}]
    few = entry("scan", "disk", msg="clean", verdict="clean", what="active disk", bases=bases[:1], not_scanned=left)
    many = entry("restore", "clean_point", msg="s3 is clean", verdict="clean", bases=bases)
    written = book(*contained(), few, many)
    lines = [line.text for line in summary(tell("2026-0142", written.entries), place(written))]
    assert not [line for line in lines if not line.isascii() or not line.isprintable()]
    assert all(len(line) <= WIDTH for line in lines if line.startswith(" " * 30))
    screen = " ".join(" ".join(lines).split())
    assert "- disk active disk: clean vda: all of it was scanned, nothing known of x" in screen
    assert "was relied on: it is stale sda was NOT scanned: read-only" in screen
    assert "clean_point s3 is clean vda: all of it" in screen
    assert "and 1 more, in the report" in screen
