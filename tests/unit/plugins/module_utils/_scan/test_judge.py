# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Contents that were found clean before are not judged again; and whatever is not exactly one of them is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Content, Hit
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge, Where
from ansible_collections.vmward.remediation.plugins.module_utils._scan.known import Known
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress

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
        Listener(Progress("", 0)).take("judged", {"keys": ["ab" * 32]})


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
