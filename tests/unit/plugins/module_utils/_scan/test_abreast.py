# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that wait for what all of them found: what each is told, and that none keeps the caller waiting."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.abreast import Abreast, Enough, is_clean
from ansible_collections.vmward.remediation.plugins.module_utils._scan.groups import joined_state
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.seats import Seats
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Verdict

VOLUME = {"disk": "vda", "index": 1, "start": 0, "size": 1, "type": "ext", "read": True, "method": "full"}


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Abreast]:
    with Abreast(Seats(2, str(tmp_path / "seats")), 2, 3) as abreast:
        for reader in abreast.readers:
            os.set_blocking(reader, False)
        yield abreast


def listeners() -> list[Listener]:
    return [Listener(Progress("", 0), 3) for _share in range(2)]


def reads(listener: Listener, kind: str = "point", name: str = "0", met: int = 1) -> None:
    listener.take(kind, {"id": name})
    listener.take("volume", VOLUME)
    listener.take("met", {"count": met, "sha256": ""})
    listener.take("finished", {})


def told(abreast: Abreast) -> list[bytes]:
    """What each could read now."""
    found = []
    for reader in abreast.readers:
        try:
            found.append(os.read(reader, 9))
        except BlockingIOError:
            found.append(b"nothing")
    return found


def test_nobody_is_told_before_all_have_read_it(two: Abreast) -> None:
    shares = listeners()
    reads(shares[0])
    two.heard(shares)
    assert told(two) == [b"nothing", b"nothing"]
    reads(shares[1])
    two.heard(shares)
    assert told(two) == [b"1", b"1"]
    for listener, met in zip(shares, (2, 3), strict=True):
        reads(listener, name="1", met=met)
    two.heard(shares)
    assert told(two) == [b"0", b"0"]


def test_one_that_says_more_than_it_was_asked_for_is_told_no_more(two: Abreast) -> None:
    """It could fill the pipe that the caller writes to, and so keep it waiting for ever."""
    shares = listeners()
    for listener in shares:
        reads(listener)
        for _time in range(3):
            listener.take("finished", {})
            two.heard(shares)
    assert told(two) == [b"1", b"1"]
    for name in ("1", "2"):
        reads(shares[0], name=name)
        two.heard(shares)
    assert told(two) == [b"nothing", b"nothing"]
    with pytest.raises(ValueError, match="more states"):
        shares[0].take("beneath", {"id": "3"})


def test_all_are_let_go_once_one_has_ended(two: Abreast) -> None:
    shares = listeners()
    reads(shares[0])
    shares[1].pace.over = True
    two.heard(shares)
    assert told(two) == [b"", b""]
    two.heard(shares)
    with pytest.raises(Enough):
        is_clean(two.readers[0])


@pytest.mark.parametrize("kinds", [("point", "beneath"), ("point", "point")])
def test_who_reads_another_state_than_the_others_proves_nothing(two: Abreast, kinds: Sequence[str]) -> None:
    shares = listeners()
    for listener, kind, name in zip(shares, kinds, ("0", "1"), strict=True):
        reads(listener, kind, name)
    assert joined_state(shares, 0).tally.verdict() is Verdict.INCOMPLETE
    two.heard(shares)
    assert told(two) == [b"0", b"0"]


def test_of_who_has_not_begun_a_state_it_is_known_that_it_did_not_finish_it() -> None:
    shares = listeners()
    for listener in shares:
        listener.take("reason", {"text": "Of all."})
        reads(listener)
    reads(shares[0], name="1")
    tally = joined_state(shares, 1).tally
    assert (tally.finished, tally.reasons, tally.verdict()) == (False, ["Of all."], Verdict.INCOMPLETE)
    assert not shares[1].tally.volumes[1:]
