# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose a content is, in how many shares disks are read, and what is believed of what all of them say."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import engines, windows
from ansible_collections.vmward.remediation.plugins.module_utils._scan.chain import Layer
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import (
    Content,
    Engine,
    EngineFailed,
    Hit,
    RuleFile,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.groups import (
    MANY_RULES,
    PER_SHARE,
    are_clean,
    dealt,
    joined,
    to_read,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import NO_INDICATORS, Indicators
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.known import Known
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.scanner import DiskSpec
from ansible_collections.vmward.remediation.plugins.module_utils._scan.share import Share
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import (
    MAX_NOTES,
    Tally,
    Verdict,
    Volume,
    Where,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.windows import matched
from ansible_collections.vmward.remediation.tests.corpus.judging import BAD, Looking

MB = 1 << 20
WHERE = Where("vda", 1)
WANTED = Indicators(md5=frozenset(["0" * 32]))
VOLUME = Volume("vda", 1, 0, 1, "ext", True)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_content_is_exactly_ones_own(count: int) -> None:
    sizes = [random.Random(count).randrange(1 << random.Random(at).randrange(1, 28)) for at in range(500)]
    shares = [Share(index, count) for index in range(count)]
    owners = [[share.index for share in shares if share.takes(WHERE, size)] for size in sizes]
    assert {len(one) for one in owners} == {1}
    loads = [sum(size for size, (owner,) in zip(sizes, owners, strict=True) if owner == at) for at in range(count)]
    assert max(loads) - min(loads) <= max(sizes) + 500 * (16 << 10)


def test_many_small_ones_are_dealt_out_as_well() -> None:
    share = Share(0, 4)
    assert sum(share.takes(WHERE, 0) for _content in range(400)) == 100


def test_the_proof_tells_order_size_place_and_number() -> None:
    def met(*contents: tuple[object, int]) -> dict[str, Any]:
        share = Share(1, 2)
        for where, size in contents:
            share.takes(where, size)
        return share.proof()

    one = met((WHERE, 1), (WHERE, 2))
    assert one == met((WHERE, 1), (WHERE, 2))
    other = Where("vda", 2)
    for differing in ([(WHERE, 2), (WHERE, 1)], [(WHERE, 1), (other, 2)], [(WHERE, 1)], [(WHERE, 1), (WHERE, 3)]):
        assert met(*differing) != one


def test_what_is_met_again_counts_too() -> None:
    def met(times: int) -> object:
        def act(judge: Judge) -> None:
            for _time in range(times):
                judge.file(WHERE, content(b"x"), lambda: "/x", 1)
                judge.parts(WHERE, Content(9, lambda at, length: bytes(length), 0), "raw", key=2)

        return told_by(1, 2, act).tally.met

    assert len({met(1), met(2), met(3)}) == 3


def test_only_the_first_tells_what_all_see() -> None:
    assert [Share(index, 3).meets("x") for index in range(3)] == [True, False, False]
    assert Share().meets("x")


def told_by(
    index: int, count: int, act: Any, engine: Engine | None = None, wanted: Indicators = NO_INDICATORS
) -> Listener:
    listener = Listener(Progress("", 0))
    judge = Judge([engine or Looking()], listener.take, 64 * MB, indicators=wanted, share=Share(index, count))
    act(judge)
    judge.volume(VOLUME)
    judge.flush()
    judge.tell(force=True)
    listener.take("met", judge.share.proof())
    listener.take("finished", {})
    listener.is_well = True
    return listener


def several(count: int, act: Any) -> list[Listener]:
    return [told_by(index, count, act) for index in range(count)]


def tallies(shares: list[Listener]) -> list[Tally]:
    return [one.tally for one in shares]


def content(data: bytes) -> Content:
    return Content(len(data), lambda at, length: data[at : at + length], 64 * MB)


def crowd(judge: Judge) -> None:
    for number in range(20):
        data = (BAD if number % 3 == 0 else b"good") + bytes(number)
        judge.file(WHERE, content(data), lambda number=number: f"/{number}", number % 11)  # type: ignore[misc]
        judge.attributes(WHERE, number, data)
    judge.named(WHERE, "/evil", "ioc_name")
    judge.reason("Something that all see.")
    with judge.leniently("The past"):
        judge.reason("Something that all see, and the guest does not.")
        for _number in range(5):
            judge.file(WHERE, Content(9, _unreadable, 64 * MB), lambda: "/gone", None)


def _unreadable(_at: int, _length: int) -> bytes:
    raise OSError("gone")


def test_together_they_say_what_one_says() -> None:
    (one,) = several(1, crowd)
    for count in (2, 3, 5):
        whole = joined(tallies(several(count, crowd)))
        assert replace(whole, bytes_from_disk=0) == replace(one.tally, bytes_from_disk=0)
    assert one.tally.summed == ["The past: 6 things in it were not read."]
    assert [found.path for found in one.tally.findings[:2]] == ["/0", "/3"]


def test_what_one_does_not_meet_keeps_all_from_being_clean() -> None:
    def all_of_it(judge: Judge) -> None:
        for number in range(6):
            judge.file(WHERE, content(bytes(number)), lambda: "/x")

    def less(judge: Judge) -> None:
        for number in range(5):
            judge.file(WHERE, content(bytes(number)), lambda: "/x")

    shares = several(3, all_of_it)
    assert joined(tallies(shares)).verdict() is Verdict.CLEAN
    assert are_clean(shares)
    shares[1] = told_by(1, 3, less)
    assert joined(tallies(shares)).verdict() is Verdict.INCOMPLETE
    assert not are_clean(shares)
    shares = several(3, all_of_it)
    for one in shares:
        one.tally.met = None
    assert joined(tallies(shares)).verdict() is Verdict.INCOMPLETE


@pytest.mark.parametrize("change", ["finished", "volume", "infected", "killed"])
def test_what_is_said_of_one_is_said_of_all(change: str) -> None:
    shares = several(3, lambda judge: None)
    if change == "finished":
        shares[2].tally.finished = False
    elif change == "volume":
        shares[2].tally.volumes = [replace(VOLUME, read=False)]
    elif change == "infected":
        shares[2] = told_by(2, 3, crowd)
    else:
        shares[2].is_well = False
    assert not are_clean(shares)
    assert change == "killed" or joined(tallies(shares)).verdict() is not Verdict.CLEAN


def test_the_past_may_have_numbers_in_no_other_form() -> None:
    listener = Listener(Progress("", 0))
    listener.take("sum", {"text": "100%% of %d", "counts": [2]})
    listener.take("sum", {"text": "100%% of %d", "counts": [3]})
    assert listener.tally.summed == ["100% of 5"]
    for text, counts in (("%999999999d", [1]), ("%d", []), ("%s", [1]), ("%d %d", [1]), ("%", [])):
        with pytest.raises(ValueError, match="no note"):
            listener.take("sum", {"text": text, "counts": counts})


def test_more_notes_with_numbers_than_are_listed_end_no_scan() -> None:
    """A guest may have as many volumes as it likes, each with a past."""
    listener = Listener(Progress("", 0))
    for number in range(MAX_NOTES + 5):
        listener.take("sum", {"text": "Volume %d: %%d things." % number, "counts": [1]})
    listener.take("sum", {"text": "Volume 0: %d things.", "counts": [2]})
    assert len(listener.tally.summed) == MAX_NOTES
    assert listener.tally.summed[0] == "Volume 0: 3 things."
    assert listener.tally.notes_more == 5


@pytest.mark.parametrize("count", [1, 2, 3])
def test_memory_that_was_written_out_and_cannot_be_hashed_hides_nothing(count: int) -> None:
    """Only one of the shares hashes it: all others would go on, and the contents be dealt out otherwise."""
    size, raw = 40 * MB, bytearray(40 * MB)
    raw[39 * MB : 39 * MB + len(BAD)] = BAD

    def read(at: int, length: int) -> bytes:
        if at < 20 * MB < at + length:
            raise OSError("a hole in the chain.")
        return bytes(raw[at : at + length])

    def act(judge: Judge) -> None:
        judge.each("Inode 5", judge.paged, WHERE, Content(size, read, 0), "/swapfile")
        for number in range(6):
            judge.file(WHERE, content(BAD + bytes(number)), lambda number=number: f"/{number}")  # type: ignore[misc]

    whole = joined([told_by(at, count, act, Finding(), WANTED).tally for at in range(count)])
    assert [found.path for found in whole.findings] == [f"/{number}" for number in range(6)]
    assert [found.path for found in whole.indicators] == ["(memory that was written out)"]
    assert whole.reasons == [
        f"/swapfile on {WHERE} was not held against hashes: a hole in the chain.",
        f"Raw bytes of {WHERE}: they were not read: a hole in the chain.",
    ]


class Failing(Looking):
    def scan(self, content: Content) -> tuple[list[Hit], str]:
        if content.head(5) == b"fatal":
            raise EngineFailed("The engine ended.")
        return super().scan(content)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_engine_that_fails_keeps_all_from_being_clean_though_the_guest_will_not_see_what_it_judged(
    count: int,
) -> None:
    """It is asked for nothing afterwards that would show it."""

    def past(judge: Judge) -> None:
        with judge.leniently("The past"):
            judge.guard("The past", judge.file, WHERE, content(b"fatal"), lambda: "/x")

    def act(judge: Judge) -> None:
        judge.file(WHERE, content(b"good"), lambda: "/good")
        judge.guard("The volume", past, judge)

    whole = joined([told_by(at, count, act, Failing()).tally for at in range(count)])
    assert whole.reasons == ["The volume was not read: The engine ended."]
    assert whole.verdict() is Verdict.INCOMPLETE


def test_cores_are_dealt_out_by_size_and_only_where_it_pays() -> None:
    giga = PER_SHARE
    assert dealt([10 * giga], 4) == [4]
    assert dealt([2 * giga], 4) == [2]
    assert dealt([2 * giga - 1], 4) == [1]
    assert dealt([10 * giga], 1) == [1]
    assert dealt([30 * giga, giga, 12 * giga], 6) == [3, 1, 2]
    assert dealt([30 * giga] * 8, 4) == [1] * 8
    assert dealt([0, 0], 8) == [1, 1]


def test_with_many_rules_half_as_much_pays() -> None:
    giga, many = PER_SHARE, range(MANY_RULES)
    assert (dealt([giga], 4, many), dealt([giga - 1], 4, many), dealt([3 * giga], 8, many)) == ([2], [1], [6])
    assert (dealt([giga], 4, many[1:]), dealt([3 * giga], 8, many[1:])) == ([1], [3])


def test_what_a_known_base_holds_is_not_judged_again(tmp_path: Path) -> None:
    layers = []
    for name, size in (("top", 3 * MB), ("middle", 5 * MB), ("base", 7 * MB)):
        (tmp_path / name).write_bytes(os.urandom(size))
        with (tmp_path / name).open("ab") as file:
            os.fsync(file.fileno())
        layers.append(Layer(str(tmp_path / name), "raw", os.open(tmp_path / name, os.O_RDONLY)))
    directory, disk = str(tmp_path / "known"), DiskSpec("vda", tuple(layers))

    def rounded(*disks: DiskSpec, where: str = directory, rules: str = "mine") -> int:
        return round(to_read(disks, where, [RuleFile("/rules", "", rules, 0)]) / MB)

    def indexed(which: list[Layer]) -> None:
        engines = [{"name": "clamd", "rules": []}, {"name": "yara", "rules": [{"sha256": "mine"}]}]
        head = {"result": {"engines": engines}}
        Path(Known(directory).path(which)).write_text(json.dumps(head) + "\nbody")

    assert rounded(disk) == rounded(disk, where="") == 15
    assert rounded(disk, replace(disk, name="vdb")) == 15
    os.mkdir(directory)
    indexed(layers[2:])
    assert (rounded(disk), rounded(disk, where=""), rounded(disk, rules="newer")) == (8, 15, 15)
    copy = DiskSpec("vda", (layers[0],), clone_of=tuple(layers[2:]))
    assert (rounded(copy), rounded(copy, rules="newer")) == (3, 3)
    indexed(layers)
    assert (rounded(disk), rounded(replace(disk, snapshot="s"))) == (0, 8)
    assert rounded(replace(disk, layers=(Layer("/socket", "nbd", layers[0].fd),))) == 0
    Path(Known(directory).path(layers)).write_text("torn")
    assert rounded(disk) == 8
    for layer in layers:
        os.close(layer.fd)


class Finding:
    name = "yara"

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        return [Hit("bad", found.start()) for found in re.finditer(BAD, content.whole())], ""

    def describe(self) -> dict[str, Any]:
        return {}

    @contextmanager
    def testing(self) -> Iterator[None]:
        yield


def test_raw_windows_are_shared_and_what_lies_in_two_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "WINDOW", 256)
    monkeypatch.setattr(engines, "OVERLAP", 64)
    monkeypatch.setattr(windows, "WINDOW", 256)
    monkeypatch.setattr(windows, "_RUN", 400)
    chance = random.Random(1)
    data = bytearray(5000)
    for _time in range(80):
        at = chance.randrange(4900)
        data[at : at + len(BAD)] = BAD
    raw = Content(len(data), lambda at, length: bytes(data[at : at + length]), 0)
    wanted = matched(raw, [Finding()], lambda size: True, lambda size: None)[0].hits
    for count in (2, 3, 4):
        shares = [Share(index, count) for index in range(count)]
        told = [matched(raw, [Finding()], partial(share.takes, WHERE), lambda size: None)[0].hits for share in shares]
        assert sorted(hit.offset for one in told for _name, hit in one) == sorted(hit.offset for _name, hit in wanted)


@pytest.mark.parametrize("index", [0, 1])
def test_all_shares_know_whether_there_is_anything_but_zeros(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_RUN", 1)

    def something(data: bytes) -> bool:
        share, raw = Share(index, 2), Content(len(data), lambda at, length: data[at : at + length], 0)
        return matched(raw, [], lambda size: share.takes(WHERE, size), lambda size: None)[1]

    assert not something(bytes(40 * MB))
    for at in (0, 17 * MB, 39 * MB):
        assert something(bytes(at) + b"x" + bytes(40 * MB - at - 1))


def test_a_window_that_cannot_be_read_hides_no_other() -> None:
    def read(at: int, length: int) -> bytes:
        if at == 0:
            raise OSError("a hole in the chain.")
        return BAD.ljust(length, b".")

    found, something = matched(Content(40 * MB, read, 0), [Finding()], lambda size: True, lambda size: None)
    assert found.gaps == ["they were not read: a hole in the chain"]
    assert [hit.offset for _name, hit in found.hits] == [16 * MB - 65536, 32 * MB - 131072]
    assert something


def test_progress_counts_disks_and_not_their_shares() -> None:
    progress = Progress("", 0)
    first, second, other = Listener(progress, of=0), Listener(progress, of=0), Listener(progress, of=1)
    first.take("expect", {"bytes": 100})
    other.take("expect", {"bytes": 50})
    first.take("progress", {"files": 1, "bytes": 30, "read": 1})
    second.take("progress", {"files": 2, "bytes": 20, "read": 1})
    told = progress.state("scan", "", 1.0)
    assert (told["files"], told["bytes"], told["total_bytes"], told["message"]) == (3, 50, 150, "0 of 2 disks done")
    first.pace.over = True
    assert progress.state("scan", "", 1.0)["message"] == "0 of 2 disks done"
    second.pace.over = True
    told = progress.state("scan", "", 1.0)
    assert (told["total_bytes"], told["message"]) == (100, "1 of 2 disks done")
