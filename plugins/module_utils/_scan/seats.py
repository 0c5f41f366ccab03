# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many scanning processes this host bears at once, whoever starts them: each sits on a locked file."""

from __future__ import annotations

import fcntl
import os

PLACE = "/run/vmward-seats"
_MEMORY = "/proc/meminfo"


def fitting(memory: int) -> int:
    """As many as there are cores to use, but no more than would fit into the free memory with `memory` bytes each."""
    return max(1, min(len(os.sched_getaffinity(0)), _free_memory() // memory))


def _free_memory() -> int:
    with open(_MEMORY, encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


class Seats:
    """The kernel frees a seat when its process ends, however it ends. Only root has seats; others are not counted."""

    def __init__(self, count: int, place: str = PLACE) -> None:
        self._count, self._place = count, place
        self._held: list[int] = []
        self._reserved = 0
        if os.geteuid() == 0:
            os.makedirs(place, mode=0o700, exist_ok=True)
            status = os.lstat(place)
            if status.st_uid or status.st_mode & 0o022 or not os.path.isdir(place):
                raise PermissionError("%s is not root's own directory. Remove it." % place)

    def reserve(self, wanted: int) -> int:
        """How many of so many are free now. They are kept for who takes one next.

        For processes that wait for one another: two scans, each with some of its seats, would wait for ever.
        """
        while self._reserved < wanted and self._sit():
            self._reserved += 1
        return self._reserved

    def take(self) -> bool:
        """Whether there was a free one, which is now taken."""
        if self._reserved:
            self._reserved -= 1
            return True
        return self._sit()

    def _sit(self) -> bool:
        if os.geteuid() != 0:
            return True
        for number in range(self._count):
            path = os.path.join(self._place, str(number))
            seat = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(seat)
                continue
            self._held.append(seat)
            return True
        return False

    def leave(self) -> None:
        """One of those taken: they are alike."""
        if self._held:
            os.close(self._held.pop())
