# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only loop that sleeps. Always a deadline; its failure names the last state."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Callable

from ._errors import TimedOut, VmwardError
from ._hypervisor import Pending


def poll_all(
    pending: Sequence[Pending],
    deadline: float,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, VmwardError | None]:
    """Poll every pending until it ends or ``deadline`` seconds have passed. Answers by VM id: None, or the error."""
    outcome: dict[str, VmwardError | None] = {}
    open_: list[Pending] = list(pending)
    end, pause = now() + deadline, 0.05
    while open_:
        still: list[Pending] = []
        for item in open_:
            try:
                if item.poll():
                    outcome[item.vm.id] = None
                else:
                    still.append(item)
            except VmwardError as exc:
                outcome[item.vm.id] = exc
        open_ = still
        if open_ and now() >= end:
            for item in open_:
                outcome[item.vm.id] = TimedOut(still_running(item, deadline), task=item.task or item.what)
            break
        if open_:
            sleep(min(pause, max(end - now(), 0.01)))
            pause = min(pause * 1.2, 1.0)  # late by a fifth of the time it took, at most a second
    return outcome


def still_running(item: Pending, deadline: float) -> str:
    """The sentence for work that has outlived its deadline."""
    task = f" (task {item.task})" if item.task else ""
    return (
        f"Cannot say yet whether '{item.what}' on {item.vm.name} succeeded: it still runs after {deadline:g} s{task}. "
        "Run again to take it up."
    )
