# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Contents that were found clean before are not judged again; and whatever is not exactly one of them is."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import remembered
from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Meter
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Content, Hit
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.known import Known
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.remembered import MOST_CONTENTS
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import MAX_TOTAL
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import (
    MAX_CHANGES,
    MAX_FINDINGS,
    Change,
    Where,
)

MB = 1 << 20
WHERE = Where("vda", 1)


class Looking:
    """An engine that notes what it is shown, and finds what begins with `bad`."""

    name = "looking"

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        self.seen.append(content.whole())
        return [Hit("bad", 0)] if content.whole().startswith(b"bad") else [], ""

    def describe(self) -> dict[str, Any]:
        return {}

    @contextmanager
    def testing(self) -> Iterator[None]:
        yield


def judged(files: list[bytes], known: set[bytes] | None) -> tuple[list[bytes], Listener]:
    engine, listener = Looking(), Listener(Progress("", 0))
    judge = Judge([engine], listener.take, 16 * MB, known=known)
    for number, data in enumerate(files):
        content = judge.content(len(data), lambda at, length, data=data: data[at : at + length])  # type: ignore[misc]
        judge.file(WHERE, content, lambda number=number: f"/{number}")  # type: ignore[misc]
    judge.flush()
    return engine.seen, listener


@pytest.mark.parametrize("size", [10, MB])
def test_a_content_is_judged_once_and_known_to_a_later_scan(size: int, tmp_path: Any) -> None:
    one, same_size, longer, bad = bytes(size), b"a" * size, bytes(size + 1), b"bad" + bytes(size)
    files = [one, same_size, longer, bad, one, bad]
    seen, first = judged(files, set())
    assert seen == [one, same_size, longer, bad, bad], "what is not clean is never known"
    assert [finding.sha256 for finding in first.tally.findings] == [hashlib.sha256(bad).hexdigest()] * 2

    (tmp_path / "known").mkdir()
    known = Known(str(tmp_path / "known"))
    known.add_contents("b" * 64, first.fresh)
    again, second = judged([*files, b"c" * size], known.contents("b" * 64))
    assert again == [bad, bad, b"c" * size]
    assert second.tally.findings == first.tally.findings
    assert not known.contents("c" * 64), "other rules know nothing"


def test_nothing_is_remembered_unless_asked_for() -> None:
    seen, listener = judged([b"a", b"a"], None)
    assert seen == [b"a", b"a"]
    assert not listener.fresh


def test_a_key_of_another_length_is_nonsense() -> None:
    with pytest.raises(ValueError, match="key"):
        Listener(Progress("", 0)).take("judged", {"keys": b64encode(bytes(32)).decode()})


class GivingUp(Looking):
    """An engine that matches raw bytes, and does not get to their end."""

    name = "yara"

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        return super().scan(content)[0], "it gave up"


def test_attributes_that_an_engine_gave_up_on_are_told() -> None:
    listener = Listener(Progress("", 0))
    judge = Judge([GivingUp()], listener.take, 16 * MB)
    judge.attributes(WHERE, 12, b"bad attribute")
    assert listener.tally.reasons == ["Attributes of inode 12 on volume 1 of disk vda: it gave up."]
    assert [found.path for found in listener.tally.indicators] == ["(attributes of inode 12)"]


def test_raw_bytes_that_no_engine_matches_are_told_once() -> None:
    """Such as swap, where ClamAV alone takes part: it judges files."""
    listener = Listener(Progress("", 0))
    judge = Judge([Looking()], listener.take, 16 * MB)
    for content in (b"bad", b"worse", bytes(9)):
        judge.parts(WHERE, judge.content(len(content), lambda at, size, data=content: data), "swap")  # type: ignore[misc]
    judge.attributes(WHERE, 12, b"bad attribute")
    assert [reason.rsplit(": ", 1) for reason in listener.tally.reasons] == [
        ["Raw bytes of volume 1 of disk vda", "no engine takes part that matches them. Name rules, for YARA."],
        [
            "Attributes of inode 12 on volume 1 of disk vda",
            "no engine takes part that matches them. Name rules, for YARA.",
        ],
    ]


def told_by(judge_it: Callable[[Judge], None], known: set[bytes] | None = None) -> list[tuple[str, dict[str, Any]]]:
    said: list[tuple[str, dict[str, Any]]] = []
    judge = Judge([Looking()], lambda kind, body: said.append((kind, body)), 16 * MB, known=known)
    judge_it(judge)
    judge.flush()
    return said


def many(count: int) -> Callable[[Judge], None]:
    def judge_it(judge: Judge) -> None:
        for number in range(count):
            data = b"%d" % number
            judge.file(WHERE, judge.content(len(data), lambda at, size, data=data: data), lambda: "/a")  # type: ignore[misc]

    return judge_it


def test_all_that_is_remembered_can_be_told_beside_the_rest() -> None:
    said = [(kind, body) for kind, body in told_by(many(5000), set()) if kind == "judged"]
    size = sum(len(json.dumps({"kind": kind, "body": body})) + 1 for kind, body in said)
    assert size / 5000 * MOST_CONTENTS + 64 * MB <= MAX_TOTAL


def test_what_exceeds_what_is_remembered_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST_CONTENTS", 3)
    listener = Listener(Progress("", 0))
    for kind, body in told_by(many(5), set()):
        listener.take(kind, body)
    assert (len(listener.fresh), listener.tally.reasons) == (3, [])
    told = "More contents were found clean than are remembered (3): later scans judge the rest anew."
    assert listener.tally.notes == [told]


def change(number: int) -> dict[str, Any]:
    return vars(Change("vda", 1, "new", f"/{number}", "", "content,mode", 0, "0644", 0, 0))


def test_changes_beyond_those_listed_are_counted_in_one_message() -> None:
    def tell(judge: Judge) -> None:
        for number in range(230_000):
            judge.emit("change", change(number))

    said = told_by(tell)
    assert len(said) <= MAX_CHANGES + 2
    listener = Listener(Progress("", 0))
    for kind, body in said:
        listener.take(kind, body)
    assert listener.tally.changes_count == dict.fromkeys(("new", "content", "mode"), 230_000)
    assert (len(listener.tally.changes), listener.tally.reasons) == (MAX_CHANGES, [])
    assert listener.tally.as_result()["coverage_notes"] == ["228000 more changes are counted, but not listed."]


def test_findings_beyond_those_listed_are_counted_for_each_state_of_the_disks() -> None:
    def tell(judge: Judge) -> None:
        data = b"bad"
        for number in range(MAX_FINDINGS + 5):
            judge.file(WHERE, judge.content(3, lambda at, size: data), lambda number=number: f"/{number}", "bad")  # type: ignore[misc]

    listener = Listener(Progress("", 0))
    judge = Judge([Looking()], listener.take, 16 * MB)
    for point in "01":
        listener.take("point", {"id": point})
        judge.begin()
        tell(judge)
        judge.flush()
    assert [tally.findings_count for tally in listener.tallies()] == [MAX_FINDINGS + 5] * 2
    assert [len(tally.findings) for tally in listener.tallies()] == [MAX_FINDINGS] * 2


@pytest.mark.parametrize(
    "body",
    [
        {"of": "change", "total": 1, "counts": {"new": -1}},
        {"of": "note", "total": 1, "counts": {}},
        {"of": "finding", "total": True, "counts": {}},
        {"of": "finding", "total": 1, "counts": {"new": True}},
    ],
)
def test_a_count_that_makes_no_sense_is_nonsense(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no count"):
        Listener(Progress("", 0)).take("more", body)


def test_what_the_process_read_before_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Meter, "bytes", 5 * MB)
    listener = Listener(Progress("", 0))
    judge = Judge([Looking()], listener.take, 16 * MB)
    Meter.bytes += 100
    judge.tell(force=True)
    assert listener.tally.bytes_from_disk == 100
