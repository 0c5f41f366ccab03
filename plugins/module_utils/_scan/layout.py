# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a reader of a file system other than ext gives: its files, and where the content of each lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Callable

_DIGEST = 16


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


def layout_of(stream: Any, size: int) -> Layout | None:
    """Of the very stream that the dissect libraries read a file by; None if it is no plain list of runs."""
    from dissect.util.stream import RunlistStream

    if stream.__class__ is not RunlistStream or any(count <= 0 for _block, count in stream.runlist):
        return None
    unit, at = stream.block_size, 0
    pieces = []
    for block, count in stream.runlist:
        if block is not None:
            pieces.append((at, block * unit, (block + count) * unit))
        at += count * unit
    return _layout(pieces, size, (unit, stream.size, tuple(stream.runlist)))


def stretches_of(stream: Any, size: int) -> list[tuple[int, int]]:
    """What of a stream of the dissect libraries is no hole."""
    found, at = [], 0
    for block, count in getattr(stream, "runlist", [(0, size)]):
        length = min(count * getattr(stream, "block_size", 1), size - at)
        if block is not None and length > 0:
            found.append((at, length))
        at += length
    return found


def layout_of_runs(runs: Iterable[tuple[int, int]], size: int) -> Layout:
    """Of a file without holes whose runs, [start, end) on the volume, follow each other."""
    pieces, at = [], 0
    for start, end in runs:
        pieces.append((at, start, end))
        at += end - start
    return _layout(pieces, size, ())


def _layout(pieces: list[tuple[int, int, int]], size: int, more: tuple[Any, ...]) -> Layout:
    """Of runs with their place in the file."""
    runs = tuple((start, end) for _at, start, end in pieces)
    content = tuple((start, min(end, start + size - at)) for at, start, end in pieces if at < size)
    told = repr((pieces, size, more))
    return Layout(hashlib.sha256(told.encode()).digest()[:_DIGEST], runs, content)


def keys(packed: bytes) -> frozenset[bytes]:
    return frozenset(packed[at : at + _DIGEST] for at in range(0, len(packed), _DIGEST))
