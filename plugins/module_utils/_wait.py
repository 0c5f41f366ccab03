# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only loop that sleeps. Always a deadline; its failure names the last state."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Callable

from ._errors import TimedOut, VmwardError, attempt
from ._hypervisor import Pending


def poll_all(
    pending: Sequence[Pending],
    deadline: float,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    together: float = math.inf,
) -> dict[str, VmwardError | None]:
    """Poll every pending until it ends or ``deadline`` seconds have passed. Answers by VM id: None, or the error.

    Those that end later than ``together`` seconds after the first are left out.
    """
    outcome: dict[str, VmwardError | None] = {}
    open_: list[Pending] = list(pending)
    end, leave, pause = now() + deadline, math.inf, 0.05
    while open_:
        still: list[Pending] = []
        for item in open_:
            try:
                if attempt(item.what, item.poll):
                    outcome[item.vm.id] = None
                else:
                    still.append(item)
            except VmwardError as exc:
                outcome[item.vm.id] = exc
        open_ = still
        leave = min(leave, now() + together) if outcome else leave
        if open_ and now() >= end:
            for item in open_:
                outcome[item.vm.id] = TimedOut(still_running(item, deadline), task=item.task or item.what)
            break
        if open_ and now() >= leave:
            break
        if open_:
            sleep(min(pause, max(min(end, leave) - now(), 0.01)))
            pause = min(pause * 1.2, 1.0)  # late by a fifth of the time it took, at most a second
    return outcome


def still_running(item: Pending, deadline: float) -> str:
    """The sentence for work that has outlived its deadline."""
    task, seconds = f" (task {item.task})" if item.task else "", round(item.awaited + deadline, 1)
    return (
        f"Cannot say yet whether '{item.what}' on {item.vm.name} succeeded: it still runs after {seconds:g} s{task}. "
        "Run again to take it up."
    )
