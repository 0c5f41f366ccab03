# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the content of a file lies on its volume, asked of the very stream that the dissect libraries read it by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

_DIGEST = 16


@dataclass(frozen=True)
class Layout:
    """Two contents of one `key` are the same if no byte of their `runs` differs. `content`: the runs without slack."""

    key: bytes
    runs: tuple[tuple[int, int], ...]
    content: tuple[tuple[int, int], ...]


def layout_of(stream: Any, size: int, origin: int, limit: int) -> Layout | None:
    """Of a stream whose blocks count from byte `origin`, up to `limit`; None if it is no plain list of runs."""
    from dissect.util.stream import RunlistStream

    if stream.__class__ is not RunlistStream or any(count <= 0 for _block, count in stream.runlist):
        return None
    unit, at = stream.block_size, 0
    runs, content = [], []
    for block, count in stream.runlist:
        if block is not None:
            start = origin + block * unit
            runs.append((start, start + count * unit))
            if at < size:
                content.append((start, start + min(count * unit, size - at)))
        at += count * unit
    told = (origin, limit, unit, size, stream.size, tuple(stream.runlist))
    return Layout(hashlib.sha256(repr(told).encode()).digest()[:_DIGEST], tuple(runs), tuple(content))


def keys(packed: bytes) -> frozenset[bytes]:
    return frozenset(packed[at : at + _DIGEST] for at in range(0, len(packed), _DIGEST))
