# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which bytes of one disk differ from those of another: first by where they lie, then by what they are."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator

from .blocks import Blocks

GRAIN = 4096
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_AHEAD = 32 << 20  # how much is fetched before it is compared


class Ranges:
    """Disjoint stretches in order, as (start, end)."""

    def __init__(self, stretches: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(stretches):
            if end <= start:
                continue
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends))

    def __bool__(self) -> bool:
        return bool(self._starts)

    @property
    def size(self) -> int:
        return sum(self._ends) - sum(self._starts)

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts that lie in [start, end)."""
        index = bisect_right(self._ends, start)
        while index < len(self._starts) and self._starts[index] < end:
            yield max(start, self._starts[index]), min(end, self._ends[index])
            index += 1

    def touches(self, start: int, end: int) -> bool:
        return next(self.within(start, end), None) is not None

    def part(self, start: int, size: int) -> Ranges:
        """What lies in a slice of the disk, counted from the slice's start."""
        return Ranges((low - start, high - start) for low, high in self.within(start, start + size))

    def minus(self, others: Ranges) -> Ranges:
        return Ranges(self._left(others))

    def _left(self, others: Ranges) -> Iterator[tuple[int, int]]:
        for start, end in self:
            at = start
            for low, high in others.within(start, end):
                yield at, low
                at = high
            yield at, end

    def plus(self, others: Ranges) -> Ranges:
        return Ranges([*self, *others])


def apart(new: Blocks, old: Blocks) -> Iterator[tuple[int, int]]:
    """Stretches (start, length) of `new` that lie elsewhere than in `old`: only they can differ."""
    at = 0
    for length, file, host in new.places(0, new.size, old):
        if file is not old:
            yield from _elsewhere(old, at, length, (file, host))
        at += length


def _elsewhere(old: Blocks, at: int, length: int, place: tuple[object, int]) -> Iterator[tuple[int, int]]:
    file, host = place
    for part, old_file, old_host in old.places(at, length):
        if file != old_file or (file is not None and host != old_host):
            yield at, part
        at += part
        host += part


def differing(new: Blocks, old: Blocks, stretches: Iterable[tuple[int, int]]) -> Ranges:
    """Those blocks of the stretches (start, length) whose bytes are not the same."""
    return Ranges(_unequal(new, old, Ranges((start, start + length) for start, length in stretches)))


def _unequal(new: Blocks, old: Blocks, stretches: Ranges) -> Iterator[tuple[int, int]]:
    for at, size in _announced(new, old, _steps(stretches)):
        ours, is_hole = new.read(at, size), _is_hole(old, at, size)
        if is_hole and _ZEROS[:GRAIN] not in ours:
            yield at, at + size
            continue
        theirs = _ZEROS[:size] if is_hole else old.read(at, size)
        if ours != theirs:
            yield from _blocks(ours, theirs, at)


def _steps(stretches: Ranges) -> Iterator[tuple[int, int]]:
    for start, end in stretches:
        for at in range(start - start % GRAIN, end, _CHUNK):
            yield at, min(_CHUNK, end - at)


def _announced(new: Blocks, old: Blocks, steps: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same steps, each told to both disks well before it comes: no host guesses what lies scattered."""
    waiting: deque[tuple[int, int]] = deque()
    ahead = 0
    for step in steps:
        new.expect(*step)
        old.expect(*step)
        waiting.append(step)
        ahead += step[1]
        while ahead > _AHEAD:
            ahead -= waiting[0][1]
            yield waiting.popleft()
    yield from waiting


def _is_hole(disk: Blocks, at: int, size: int) -> bool:
    return sum(length for length, file, _host in disk.places(at, size) if file is None) == size


def _blocks(ours: bytes, theirs: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Those that differ, neighbours joined."""
    first = -1
    for step in range(0, len(ours), GRAIN):
        if ours[step : step + GRAIN] != theirs[step : step + GRAIN]:
            if first < 0:
                first = step
        elif first >= 0:
            yield at + first, at + step
            first = -1
    if first >= 0:
        yield at + first, at + len(ours)


class Disjoint:
    """Stretches of which no two overlap, unless they are the same."""

    def __init__(self) -> None:
        self._starts = list[int]()
        self._lengths: dict[int, int] = {}

    def add(self, start: int, length: int) -> bool:
        if start in self._lengths:
            return self._lengths[start] == length
        at = bisect_left(self._starts, start)
        before, after = self._starts[at - 1 : at], self._starts[at : at + 1]
        if before and before[0] + self._lengths[before[0]] > start or after and after[0] < start + length:
            return False
        self._starts.insert(at, start)
        self._lengths[start] = length
        return True

    def discard(self, start: int, length: int) -> None:
        if self._lengths.get(start) == length:
            del self._starts[bisect_left(self._starts, start)], self._lengths[start]
