# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several children at once: how many, what becomes of one that dies, what is told meanwhile and in the end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.groups import merged, worst
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Emit
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Ended, Job, Limits, run_all
from ansible_collections.vmward.remediation.plugins.module_utils._scan.seats import Seats, fitting
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import (
    MAX_REASONS,
    Finding,
    Tally,
    Verdict,
    Volume,
)

LIMITS = Limits(30, 64 << 20, 20)


def together(*work: Any, at_once: int = 2, limits: Limits = LIMITS, keep: Any = ()) -> tuple[list[Ended], list[str]]:
    """Run them; what they say and how they end, in the order in which it comes."""
    heard: list[str] = []
    jobs = [
        Job(lambda _emit, one=one: one, keep, lambda kind, _body, n=n: heard.append(f"{n} {kind}"))  # type: ignore[misc]
        for n, one in enumerate(work)
    ]
    ended = run_all(
        jobs, limits, lambda: None, at_once, over=lambda index, ended: heard.append(f"{index} {ended.trouble or 'ok'}")
    )
    return ended, heard


def test_two_run_at_the_same_time() -> None:
    one, other = os.pipe(), os.pipe()

    def first(_emit: Emit) -> None:
        os.write(one[1], b"x")
        os.read(other[0], 1)

    def second(_emit: Emit) -> None:
        os.read(one[0], 1)
        os.write(other[1], b"x")

    ended, _heard = together(first, second, keep=(*one, *other))  # each waits for the other
    assert [one.trouble for one in ended] == ["", ""]


def test_no_more_run_than_may() -> None:
    _ended, heard = together(*[lambda emit: emit("said", {})] * 3, at_once=1)
    assert heard == ["0 said", "0 ok", "1 said", "1 ok", "2 said", "2 ok"]


def test_one_that_dies_leaves_the_others_alone() -> None:
    def dies(_emit: Emit) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def lies(_emit: Emit) -> None:
        _emit("x", {"a": "y" * 200000})

    ended, heard = together(lambda emit: emit("said", {}), dies, lies, lambda emit: emit("said", {}))
    assert [one.trouble for one in ended] == [
        "",
        "the scanning process was killed by SIGSEGV",
        "the scanning process reported more than it may",
        "",
    ]
    assert {"0 said", "3 said"} < set(heard)


def test_the_deadline_holds_for_all() -> None:
    limits = Limits(0.5, 64 << 20, 20)
    ended, _heard = together(*[lambda emit: signal.pause()] * 2, at_once=1, limits=limits)
    assert [one.trouble for one in ended] == [
        "the deadline of 0 s was reached",
        "the deadline of 0 s was reached before its turn",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has seats")
def test_a_seat_is_free_again_when_its_process_is_gone(tmp_path: Path) -> None:
    place = str(tmp_path / "seats")
    holder, ready = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(holder[1])
        os.write(ready[1], b"y" if Seats(1, place).take() else b"n")
        os.read(holder[0], 1)
        os._exit(0)
    seats = Seats(1, place)
    assert os.read(ready[0], 1) == b"y"
    assert not seats.take()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert seats.take()
    assert not seats.take()
    seats.leave()
    assert seats.take()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has seats")
def test_seats_that_are_reserved_are_taken_first_and_count_for_all(tmp_path: Path) -> None:
    first, second = Seats(4, str(tmp_path / "seats")), Seats(4, str(tmp_path / "seats"))
    assert (first.reserve(3), first.reserve(3), second.reserve(3)) == (3, 3, 1)
    assert [first.take() for _time in range(4)] == [True, True, True, False]
    assert [second.take() for _time in range(2)] == [True, False]
    first.leave()
    assert (second.reserve(2), second.take(), first.take()) == (1, True, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has seats")
def test_seats_that_others_could_take_are_refused(tmp_path: Path) -> None:
    (tmp_path / "seats").mkdir()
    (tmp_path / "seats").chmod(0o777)
    with pytest.raises(PermissionError, match="not root's own"):
        Seats(1, str(tmp_path / "seats"))


def test_as_many_as_fit() -> None:
    assert fitting(1) == len(os.sched_getaffinity(0))
    assert fitting(1 << 60) == 1


def progress_of(*shares: tuple[int, int, bool]) -> dict[str, Any]:
    progress = Progress("", 0)
    for read, total, over in shares:
        pace = progress.pace()
        pace.files, pace.bytes, pace.total, pace.over = 1, read, total, over
    return progress.state("scan", "", 2.0)


def test_progress_is_of_all_and_guesses_nothing() -> None:
    told = progress_of((100, 100, True), (50, 200, False), (0, 0, False))
    assert (told["files"], told["bytes"], told["rate"]) == (3, 150, 75)
    assert (told["total_bytes"], told["eta"]) == (0, None)  # nobody knows how much the third one holds
    assert told["message"] == "1 of 3 disks done"
    told = progress_of((90, 100, True), (50, 200, False))
    assert (told["total_bytes"], told["eta"]) == (290, round(150 / 70))


def test_each_listener_has_its_share() -> None:
    progress = Progress("", 0)
    first, second = Listener(progress), Listener(progress)
    first.take("expect", {"bytes": 10})
    first.take("progress", {"files": 1, "bytes": 4, "read": 4})
    second.take("expect", {"bytes": 20})
    second.take("progress", {"files": 2, "bytes": 8, "read": 8})
    told = progress.state("scan", "", 1.0)
    assert (told["files"], told["bytes"], told["total_bytes"]) == (3, 12, 30)


def tally(name: str, **more: Any) -> Tally:
    return Tally(volumes=[Volume(name, 1, 0, 1, "ext", True)], finished=True, files=1, notes=["of all"], **more)


def test_together_they_are_as_good_as_the_worst() -> None:
    found = tally("b")
    found.add_finding(Finding("b", 1, "/x", "r", "yara", 1, 0, ""))
    dead = Tally()
    dead.add_reason("The scan of disk c did not end: x.")
    assert merged([tally("a"), tally("b")]).verdict() is Verdict.CLEAN
    assert merged([tally("a"), dead]).verdict() is Verdict.INCOMPLETE
    assert merged([tally("a"), found, dead]).verdict() is Verdict.INFECTED
    assert worst([]) is Verdict.INCOMPLETE
    whole = merged([tally("a"), found, dead])
    assert (whole.files, whole.notes, [one.disk for one in whole.volumes]) == (2, ["of all"], ["a", "b"])


def test_what_all_say_counts_once_and_what_was_cut_counts() -> None:
    first, second = Tally(), Tally()
    for number in range(MAX_REASONS + 5):
        first.add_reason(f"reason {number}")
    second.add_reason("reason 0")
    second.add_reason("another")
    whole = merged([first, second])
    assert whole.reasons_count == MAX_REASONS + 6
    assert len(whole.reasons) == MAX_REASONS


def test_of_points_nobody_knows_how_many_will_be_read() -> None:
    """One after the other, until one is clean; what was read of each is counted."""
    progress = Progress("", 0)
    listener = Listener(progress)
    for number in range(2):
        listener.take("point", {"id": str(number)})
        listener.take("expect", {"bytes": 2_000_000})
        listener.take("progress", {"files": 3, "bytes": 1_000_000, "read": 8})
    told = progress.state("scan", "", 1.0)
    assert (told["files"], told["bytes"], told["total_bytes"], told["eta"]) == (6, 2_000_000, 0, None)
    assert told["message"] == "point 2, 6 files, 2 MB read"
    assert [tally.files for tally in listener.tallies()] == [3, 3]


def test_a_base_is_no_point_and_of_shares_each_point_counts_once() -> None:
    progress = Progress("", 0)
    shares = [Listener(progress, of=0) for _share in range(2)]

    def told() -> str:
        return str(progress.state("scan", "", 1.0)["message"])

    for listener in shares:
        listener.take("beneath", {"id": "0"})
        listener.take("expect", {"bytes": 2_000_000})
        listener.take("progress", {"files": 3, "bytes": 1_000_000, "read": 8})
    assert (told(), progress.state("scan", "", 1.0)["eta"]) == ("base image, 6 files, 2 MB read", None)
    for listener in shares:
        listener.take("point", {"id": "0"})
        listener.take("progress", {"files": 1, "bytes": 1_000_000, "read": 8})
    assert told() == "point 1, 8 files, 4 MB read"
