# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only loop that sleeps, on a clock that a test moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import TaskFailed, TimedOut
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Pending
from ansible_collections.vmward.remediation.plugins.module_utils._model import VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._wait import poll_all


class Clock:
    def __init__(self) -> None:
        self.time = 0.0
        self.naps: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.time += seconds


def job(name: str, clock: Clock, ends: float, task: str = "") -> Pending:
    return Pending(VmRef("hv1", name, name), "copy", lambda: clock.time >= ends, task)


def test_all_are_awaited_together() -> None:
    clock = Clock()
    ended = poll_all([job("a", clock, 3), job("b", clock, 5)], 10, clock.now, clock.sleep)
    assert ended == {"a": None, "b": None}
    assert 5 <= clock.time < 6.5
    assert max(clock.naps) <= 1


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0, 3.0, 60.0])
def test_an_end_is_seen_soon_but_not_asked_for_all_the_time(seconds: float) -> None:
    clock = Clock()
    poll_all([job("a", clock, seconds)], 100, clock.now, clock.sleep)
    assert clock.time <= seconds + min(0.2 * seconds + 0.1, 1.0)
    assert len(clock.naps) < 20 + seconds


def test_the_deadline_names_what_still_runs() -> None:
    clock = Clock()
    ended = poll_all([job("a", clock, 3), job("b", clock, 99, "UPID:7")], 10, clock.now, clock.sleep)
    assert ended["a"] is None
    late = ended["b"]
    assert isinstance(late, TimedOut)
    assert late.task == "UPID:7"
    assert "'copy' on b" in str(late)
    assert "after 10 s (task UPID:7)" in str(late)
    assert clock.time < 10.1


def test_a_failure_ends_its_own_wait_only() -> None:
    clock = Clock()

    def broken() -> bool:
        raise TaskFailed("No.")

    failing = Pending(VmRef("hv1", "a", "a"), "copy", broken)
    ended = poll_all([failing, job("b", clock, 2)], 10, clock.now, clock.sleep)
    assert (str(ended["a"]), ended["b"]) == ("No.", None)


def test_a_surprise_ends_its_own_wait_only() -> None:
    clock = Clock()

    def surprise() -> bool:
        raise KeyError("state")

    odd = Pending(VmRef("hv1", "b", "b"), "copy", surprise)
    ended = poll_all([job("a", clock, 0), odd, job("c", clock, 2)], 10, clock.now, clock.sleep)
    assert (ended["a"], ended["c"]) == (None, None)
    assert str(ended["b"]).startswith("Cannot copy: unexpected KeyError")


def test_nothing_to_wait_for_takes_no_time() -> None:
    clock = Clock()
    assert poll_all([], 10, clock.now, clock.sleep) == {}
    assert clock.naps == []


def test_who_ends_long_after_the_first_is_left_out_for_now() -> None:
    clock = Clock()
    jobs = [job("a", clock, 3), job("b", clock, 3.5), job("c", clock, 99)]
    assert poll_all(jobs, 100, clock.now, clock.sleep, together=2) == {"a": None, "b": None}
    assert clock.time < 7


def test_the_first_is_waited_for_however_long_it_takes() -> None:
    clock = Clock()
    assert poll_all([job("a", clock, 50), job("b", clock, 99)], 100, clock.now, clock.sleep, together=0) == {"a": None}


def test_what_was_awaited_before_counts() -> None:
    clock = Clock()
    late = poll_all([replace(job("a", clock, 99), awaited=48.0)], 12, clock.now, clock.sleep)["a"]
    assert "it still runs after 60 s" in str(late)
