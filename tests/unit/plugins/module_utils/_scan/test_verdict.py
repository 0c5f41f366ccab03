# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`clean` is earned; nothing hostile gets out of one line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.groups import merged
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import (
    MAX_FINDINGS,
    MAX_NOTES,
    Finding,
    Tally,
    Verdict,
    Volume,
    printable,
)

READ = Volume("vda", 1, 0, 4096, "ext", read=True)
FOUND = Finding("vda", 1, "/a", "rule", "yara", 3, 0, "00")


def complete() -> Tally:
    return Tally(volumes=[READ], finished=True)


def test_a_scan_that_never_ran_is_not_clean() -> None:
    assert Tally().verdict() is Verdict.INCOMPLETE
    assert Tally(finished=True).verdict() is Verdict.INCOMPLETE
    assert "No volume was found." in Tally(finished=True).as_result()["incomplete_reasons"]


def test_a_whole_scan_without_findings_is_clean() -> None:
    assert complete().verdict() is Verdict.CLEAN


def test_each_single_doubt_spoils_clean() -> None:
    unfinished, unread, reasoned, indicated = complete(), complete(), complete(), complete()
    unfinished.finished = False
    unread.volumes.append(replace(READ, read=False))
    reasoned.add_reason("The log is dirty.")
    indicated.add_indicator(FOUND)
    assert {tally.verdict() for tally in (unfinished, unread, reasoned, indicated)} == {Verdict.INCOMPLETE}


def test_a_finding_outranks_all_doubts_and_these_stay_listed() -> None:
    tally = Tally()
    tally.add_reason("The deadline was reached.")
    tally.add_finding(FOUND)
    assert tally.as_result()["verdict"] == "infected"
    assert "The deadline was reached." in tally.as_result()["incomplete_reasons"]


def test_notes_that_are_not_listed_are_counted() -> None:
    """A guest can make a scan say so much of it that what comes last has no room."""
    tallies = [complete(), complete()]
    for tally in tallies:
        listener = Listener(Progress("", 0))
        listener.tally = tally
        for number in range(MAX_NOTES + 7):
            listener.take("note", {"text": str(number)})
        listener.take("point", {"id": "0"})
        assert listener.tally.as_result()["coverage_notes"][-2:] == ["199", "7 more notes are not listed."]
    assert merged(tallies).as_result()["coverage_notes"][-1] == "14 more notes are not listed."


def test_lists_are_capped_and_counts_are_not() -> None:
    tally = Tally()
    for _number in range(MAX_FINDINGS + 7):
        tally.add_finding(FOUND)
        tally.add_reason("Why.")
    assert len(tally.findings) == MAX_FINDINGS
    assert tally.as_result()["findings_count"] == MAX_FINDINGS + 7
    assert tally.as_result()["incomplete_count"] == MAX_FINDINGS + 7


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"/etc/hostname", "/etc/hostname"),
        (b"a\nb\x1b[2J", "a\\nb\\x1b[2J"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("caf\u00e9", "caf\u00e9"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\udcff"),
    ],
)
def test_text_of_the_guest_stays_on_one_line(raw: bytes | str, shown: str) -> None:
    assert printable(raw) == shown


def test_long_text_is_cut() -> None:
    assert printable("x" * 9999, 10) == "xxxxxxx..."
    assert len(printable("\n" * 9999, 10)) == 10
