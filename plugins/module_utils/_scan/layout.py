# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a reader of a file system other than ext gives: its files, and where the content of each lies."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable, Protocol

from .blocks import Blocks

_DIGEST = 16
_BEHIND_ALL = 1 << 64


class NotReadable(Exception):
    """The volume can't be read; the sentence says why."""


@dataclass(frozen=True)
class Layout:
    """Two contents of one `key` are the same if no byte of their `runs` differs. `content`: the runs without slack."""

    key: bytes
    runs: tuple[tuple[int, int], ...]
    content: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ForeignFile:
    path: str
    size: int
    read: Callable[[int, int], bytes]
    status: Callable[[], Any]  # as os.stat tells it
    layout: Callable[[], Layout | None] = lambda: None
    stretches: Callable[[], Sequence[tuple[int, int]]] | None = None  # offset and length of what is no hole
    key: Hashable = None  # the same for several names of one file


class Opened(Protocol):
    def read(self, offset: int, length: int) -> bytes: ...
    def layout(self) -> Layout: ...
    def stretches(self) -> Sequence[tuple[int, int]]: ...


def opened_when_read(
    path: str, size: int, status: Callable[[], Any], open_: Callable[[], Opened], key: Hashable = None
) -> ForeignFile:
    """A file whose map is read once somebody wants its content."""
    opened = lru_cache(maxsize=None)(open_)

    def layout() -> Layout | None:
        """None if it can't be opened: who reads it will say why."""
        try:
            return opened().layout()
        except Exception:  # noqa: BLE001 - the edge to a parser that an attacker feeds
            return None

    def read(offset: int, length: int) -> bytes:
        return opened().read(offset, length)

    return ForeignFile(path, size, read, status, layout, lambda: opened().stretches(), key)


def layout_of_runs(runs: Iterable[tuple[int, int]], size: int) -> Layout:
    """Of a file without holes whose runs, [start, end) on the volume, follow each other."""
    pieces, at = [], 0
    for start, end in runs:
        pieces.append((at, start, end))
        at += end - start
    return _layout(pieces, size)


def _layout(pieces: Sequence[tuple[int, int, int]], size: int) -> Layout:
    """Of runs with their place in the file."""
    runs = tuple((start, end) for _at, start, end in pieces)
    content = tuple((start, min(end, start + size - at)) for at, start, end in pieces if at < size)
    told = repr((list(pieces), size))
    return Layout(hashlib.sha256(told.encode()).digest()[:_DIGEST], runs, content)


class Scattered:
    """A content by its pieces: the place in it, and where on the volume they begin and end. Between them are zeros."""

    def __init__(self, volume: Blocks, pieces: Sequence[tuple[int, int, int]], size: int) -> None:
        self._volume, self.pieces, self._size = volume, pieces, size

    def read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        at, end = offset, min(offset + length, self._size)
        start = max(0, bisect_right(self.pieces, (offset, _BEHIND_ALL, 0)) - 1) if offset else 0
        for number in range(start, len(self.pieces)):
            first, low, high = self.pieces[number]
            if first <= offset < end <= first + high - low:  # most reads lie in one piece
                return self._volume.read(low + offset - first, end - offset)
            begin, stop = max(at, first), min(end, first + high - low)
            if begin >= end:
                break
            if begin < stop:
                if begin > at:
                    parts.append(bytes(begin - at))
                parts.append(self._volume.read(low + begin - first, stop - begin))
                at = stop
        if at < end:
            parts.append(bytes(end - at))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def stretches(self) -> list[tuple[int, int]]:
        """Offset and length of what is no hole."""
        found = ((at, min(high - low, self._size - at)) for at, low, high in self.pieces)
        return [(at, length) for at, length in found if length > 0]

    def layout(self) -> Layout:
        return _layout(self.pieces, self._size)


def keys(packed: bytes) -> frozenset[bytes]:
    return frozenset(packed[at : at + _DIGEST] for at in range(0, len(packed), _DIGEST))
