# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that read state after state of the same disks: how each goes on follows from what all of them found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType

from .groups import joined_state
from .listen import Listener
from .seats import Seats
from .share import Share
from .verdict import Verdict

_CLEAN, _UNCLEAN = b"1", b"0"


class Enough(Exception):
    """Another one ended: nobody can say of what follows that it was read as a whole."""


class Abreast:
    """The caller's side: once all have finished a state, each is told in one byte whether it is clean.

    All have a seat from the start, since they wait for one another. There are as many as there are free seats, of so
    many that are `wanted`, but at least one. `most`: states that they may read.
    """

    def __init__(self, seats: Seats, wanted: int, most: int) -> None:
        self.seats, self.most = seats, most
        count = max(1, seats.reserve(wanted))
        self.shares = [Share(index, count) for index in range(count)]
        self._judged = 0
        pipes = [os.pipe() for _share in self.shares]
        self.readers, self._writers = ([pipe[end] for pipe in pipes] for end in (0, 1))

    def heard(self, shares: Sequence[Listener]) -> None:
        if any(one.pace.over for one in shares):
            self._end()
        elif all(len(one.states) > self._judged and one.states[self._judged].tally.finished for one in shares):
            is_clean = joined_state(shares, self._judged).tally.verdict() is Verdict.CLEAN
            self._judged += 1
            for writer in self._writers:
                os.write(writer, _CLEAN if is_clean else _UNCLEAN)

    def _end(self) -> None:
        while self._writers:
            os.close(self._writers.pop())

    def __enter__(self) -> Abreast:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        for reader in self.readers:
            os.close(reader)


def is_clean(reader: int) -> bool:
    """In the child, once it has finished a state: wait for the others, and for what they found."""
    told = os.read(reader, 1)
    if not told:
        raise Enough
    return told == _CLEAN
