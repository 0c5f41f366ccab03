# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._report.story import Machine, tell
from ansible_collections.vmward.remediation.tests.unit.plugins.module_utils._report.cases import (
    artefact,
    book,
    contained,
    end,
    entry,
    leaking,
    preserved,
    remediated,
    uncuttable,
)


def told(*entries: dict[str, Any], **required: Any) -> Machine:
    (machine,) = tell("2026-0142", book(*entries).entries, ["desk1"], **required).machines
    return machine


def test_a_whole_response_falls_short_of_nothing() -> None:
    machine = told(
        *contained(), *preserved(), *remediated(), phases=("contain", "preserve", "scan", "restore", "release")
    )
    assert machine.shortfalls == ()
    assert (machine.isolation, machine.proof) == ("free", "witnessed")
    states = {phase.name: phase.state for phase in machine.phases}
    assert [name for name, state in states.items() if state == "not_done"] == ["notify", "scope", "harden", "report"]
    assert [(fact.name, fact.result["verdict"]) for fact in machine.verdicts] == [
        ("disk active disk", "infected"),
        ("clean_point", "clean"),
    ]


def test_a_live_host_is_none_of_the_vms_and_its_newest_scan_counts() -> None:
    def scanned(host: str, verdict: str) -> dict[str, Any]:
        state = "failed" if verdict == "incomplete" else "done"
        return entry("scan", "host", host, state, f"{verdict} (9 files)", verdict=verdict)

    entries = book(
        *contained(),
        scanned("kvm1", "infected"),
        scanned("desk1", "infected"),
        scanned("web1", "clean"),
        scanned("web2", "incomplete"),
        entry("scan", "host", "web3", "failed", "Cannot reach it"),
        scanned("kvm1", "clean"),
    ).entries
    story = tell("2026-0142", entries)
    assert [machine.name for machine in story.machines] == ["desk1"]
    assert next(phase for phase in story.machines[0].phases if phase.name == "scan").msg == "not run"
    assert {name: fact.result.get("verdict", "") for name, fact in story.hosts} == {
        "kvm1": "clean",
        "desk1": "infected",
        "web1": "clean",
        "web2": "incomplete",
        "web3": "",
    }
    assert story.shortfalls == (
        "desk1: this live host is infected, and no case cuts it off: infected (9 files)",
        "web2: the scan of this live host is incomplete: incomplete (9 files)",
        "web3: the scan of this live host failed: Cannot reach it",
    )


def scanned(verdict: str, paths: list[str], *exclude: str) -> dict[str, Any]:
    inputs = {"paths": paths, "exclude": list(exclude)}
    return entry("scan", "host", "srv1", msg=f"{verdict} (9 files)", verdict=verdict, inputs=inputs)


@pytest.mark.parametrize(
    ("later", "takes_back"),
    [
        (scanned("clean", ["/srv", "/tmp"], "/srv/iso"), True),
        (scanned("clean", ["/tmp", "/home", "/srv"]), True),
        (scanned("clean", ["/"], "/srv/iso"), True),
        (scanned("infected", ["/"]), True),
        (scanned("clean", ["/srv"]), False),
        (scanned("clean", ["/srv", "/home"]), False),
        (scanned("clean", ["/"], "/srv/iso", "/srv/www"), False),
        (scanned("clean", []), False),
        (scanned("incomplete", ["/"]), False),
        (entry("scan", "host", "srv1", "failed", "Cannot reach it", inputs={"paths": ["/"], "exclude": []}), False),
        (entry("scan", "host", "srv2", verdict="clean", inputs={"paths": ["/"], "exclude": []}), False),
    ],
)
def test_only_a_verdict_on_all_of_it_takes_back_what_was_found_on_a_host(
    later: dict[str, Any], takes_back: bool
) -> None:
    found = scanned("infected", ["/srv", "/tmp"], "/srv/iso")
    shortfalls = tell("2026-0142", book(found, later).entries).shortfalls
    lost = "srv1 (/srv, /tmp but not /srv/iso): this live host is infected, and no case cuts it off: infected (9 files)"
    assert (lost not in shortfalls) is takes_back


def test_a_scan_that_failed_takes_back_that_a_host_is_clean() -> None:
    failed = entry("scan", "host", "srv1", "failed", "Cannot reach it", inputs={"paths": ["/srv"], "exclude": []})
    story = tell("2026-0142", book(scanned("clean", ["/srv"]), scanned("clean", ["/tmp"]), failed).entries)
    assert [(name, fact.name, fact.state) for name, fact in story.hosts] == [
        ("srv1", "live host /tmp", "done"),
        ("srv1", "live host /srv", "failed"),
    ]


def test_silence_is_no_success() -> None:
    (shortfall,) = told(*contained("desk2")).shortfalls
    assert shortfall.startswith("desk1: nothing is recorded about it. It may not be cut off.")


def test_weak_proof_is_a_shortfall_unless_it_is_enough() -> None:
    (shortfall,) = told(*contained(proof="readback")).shortfalls
    assert "the proof of the cut is readback, required is witnessed: no witness reached its control target" in shortfall
    assert told(*contained(proof="readback"), proof="readback").shortfalls == ()


@pytest.mark.parametrize("proof", ["none", "perfect", None, ["witnessed"]])
def test_a_proof_that_is_none_is_none(proof: Any) -> None:
    machine = told(entry("contain", "prove", proof=proof), end("contain"))
    assert machine.proof == "none"
    assert "required is witnessed" in machine.shortfalls[0]


def test_a_leak_is_an_alarm_until_it_is_measured_away_or_the_vm_is_back() -> None:
    machine = told(*leaking())
    assert machine.alarm == "LEAKING"
    (shortfall,) = machine.shortfalls
    assert shortfall.startswith("desk1: THE CUT DOES NOT HOLD: witness app1 still reaches")
    assert told(*contained(proof="none")).alarm == ""  # not measured
    assert told(*leaking(), *contained()).alarm == ""
    back = told(*leaking(), entry("release", "reconnect", isolation="free"), end("release"))
    assert back.alarm == ""
    assert "Cut it off" not in back.shortfalls[0]


def test_a_failed_cut_is_missing_with_its_own_reason_until_it_is_cut_or_back() -> None:
    for before in ([], contained()):
        machine = told(*before, uncuttable())
        assert machine.alarm == "CUT FAILED"
        assert next(phase.msg for phase in machine.phases if phase.name == "notify") == "not run"
        (shortfall,) = machine.shortfalls
        assert shortfall.startswith("desk1: the cut FAILED: desk1 is NOT wholly isolated: 0000:3b:00.1 (hostdev)")
    assert told(uncuttable(), *contained()).alarm == ""
    assert told(uncuttable(), entry("release", "false_alarm"), end("release")).alarm == ""
    assert told(entry("release", "false_alarm"), end("release"), uncuttable()).alarm == "CUT FAILED"


def test_a_later_cut_needs_a_later_proof() -> None:
    again = entry("contain", "isolate", msg="sealed", isolation="sealed", changed=True)
    (shortfall,) = told(*contained(), again).shortfalls
    assert "cut off again at 12:00:05 UTC and the cut is not proven since" in shortfall


def test_a_failed_phase_stops_the_story_and_is_missing() -> None:
    machine = told(*contained(), entry("preserve", "memory", state="failed", msg="no space left"))
    assert [phase.msg for phase in machine.phases if phase.name == "scan"] == ["not run, after preserve failed"]
    assert machine.shortfalls == ("desk1: preserve failed: no space left",)


def test_a_phase_without_an_end_is_not_done() -> None:
    machine = told(*contained(), entry("preserve", "memory", msg="stored"))
    (shortfall,) = machine.shortfalls
    assert shortfall == "desk1: preserve was not done: begun at 12:00:05 UTC, its end is not recorded"


def test_a_required_phase_that_never_ran_is_missing() -> None:
    assert told(*contained(), phases=("preserve",)).shortfalls == ("desk1: preserve was not done: not run",)


def test_the_newest_entry_counts() -> None:
    failed = [
        entry("preserve", "memory", state="failed", msg="no space left"),
        end("preserve", state="failed", msg="no"),
    ]
    machine = told(*contained(), *failed, *preserved())
    assert machine.shortfalls == ()
    assert [fact.name for phase in machine.phases for fact in phase.facts].count("memory") == 1


def test_an_infected_choice_keeps_the_vm_sealed() -> None:
    point = entry("restore", "clean_point", state="failed", msg="infected too", chosen="s1", verdict="infected")
    found = told(*contained(), point).shortfalls
    assert "desk1: stays sealed: s1 is not clean: infected too" in found


def test_an_unknown_state_is_a_failure() -> None:
    machine = told(*contained(), entry("preserve", "memory", state="maybe"), end("preserve"))
    (fact,) = next(phase.facts for phase in machine.phases if phase.name == "preserve")
    assert (fact.state, fact.msg) == ("failed", "the entry has no state that is known (maybe).")


def test_gate_entries_are_named_by_their_class_and_the_guests_word_is_marked() -> None:
    stored = entry("preserve", "evidence", state="stored", artefacts=[artefact("desk1/guest.json")])
    stored["result"]["class"] = "connections"
    waived = entry("preserve", "evidence", state="waived", by="ada", reason="no time")
    waived["result"]["class"] = "memory"
    facts = {f.name: f for phase in told(*contained(), stored, waived, end("preserve")).phases for f in phase.facts}
    assert (facts["connections"].state, facts["connections"].claimed) == ("done", True)
    assert (facts["memory"].state, facts["memory"].msg) == ("not_done", "waived by ada: no time")


@pytest.mark.parametrize("seven", [7, "7.0"], ids=["a number", "a template's number as text"])
def test_time_of_a_phase_is_measured_where_it_is_not_stated(seven: float | str) -> None:
    closing = end("scan")
    del closing["result"]["seconds"]
    machine = told(*contained(), entry("scan", "disk", seconds=seven, what="active disk", verdict="clean"), closing)
    assert next(phase.seconds for phase in machine.phases if phase.name == "scan") == 8.0


def test_an_entry_about_the_case_is_about_the_vms_it_lists() -> None:
    mail = entry("notify", "mail", "", msg="accepted", inputs={"vms": {"desk2": "sealed"}, "to": "ada@example.net"})
    story = tell("2026-0142", book(*contained("desk1"), *contained("desk2"), mail, end("notify", "desk2")).entries)
    found = {m.name: [p.state for p in m.phases if p.name == "notify"] for m in story.machines}
    assert found == {"desk1": ["not_done"], "desk2": ["done"]}


@pytest.mark.parametrize("state", ["done", "failed"])
def test_a_question_for_the_clean_point_is_no_scan(state: str) -> None:
    asked = entry("scan", "clean_point", state=state, msg="s3 is clean", verdict="clean")
    machine = told(*contained(), asked)
    (scan,) = [phase for phase in machine.phases if phase.name == "scan"]
    assert (scan.state, scan.msg, [fact.msg for fact in scan.facts]) == ("not_done", "not run", ["s3 is clean"])
    assert machine.shortfalls == ()
    assert "desk1: scan was not done: not run" in told(*contained(), asked, phases=("scan",)).shortfalls
    later = told(*contained(), *remediated()[:2], asked)
    assert next(phase for phase in later.phases if phase.name == "scan").state == "done"
    begun = told(*contained(), asked, entry("scan", "disk", verdict="clean", what="active disk"))
    assert begun.shortfalls[0].startswith("desk1: scan was not done: begun at ")
