# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Raw bytes, matched window by window, by several processes that share them as by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Callable, Protocol

from .blocks import is_blank
from .engines import WINDOW, Content, Hit, Judgement

_RUN = 512 << 20  # bytes that are matched by one: where another's begin, one window is matched by both

_Window = tuple[int, int]  # where it begins, and how long it is
_Hits = list[tuple[str, Hit]]


class _Engine(Protocol):
    name: str

    def scan(self, content: Content) -> tuple[list[Hit], str]: ...


def matched(
    content: Content, engines: Sequence[_Engine], takes: Callable[[int], bool], tick: Callable[[int], None]
) -> tuple[Judgement, bool]:
    """What is found in the runs of windows that are taken, and whether there is anything but zeros in any.

    `tick` is told how many bytes are read.
    """
    found, something = Judgement(content.size), False
    before: _Window | None = None  # another's, which the next one overlaps: what lies in both is told by that other
    for run in _runs(content.places()):
        if not takes(sum(length for _at, length in run)):
            something = something or any(_read(content, window) != b"" for window in run)
            before = run[-1]
            continue
        told = _hits(engines, before[0], _read(content, before) or b"", []) if before is not None else []
        before = None
        for at, length in run:
            data = _read(content, (at, length), found.gaps)
            tick(length)
            if data:
                found.hits += [hit for hit in _hits(engines, at, data, found.gaps) if hit not in told]
            something = something or data != b""
    found.hits = list(dict.fromkeys(found.hits))  # windows overlap
    return found, something


def _runs(windows: Iterable[_Window]) -> Iterator[list[_Window]]:
    run: list[_Window] = []
    size = 0
    for window in windows:
        run.append(window)
        size += window[1]
        if size >= _RUN:
            yield run
            run, size = [], 0
    if run:
        yield run


def _read(content: Content, window: _Window, gaps: list[str] | None = None) -> bytes | None:
    """Nothing if there are but zeros; None if it can't be read. One bad window must not hide the others."""
    try:
        data = content.read(*window)
    except Exception as exc:  # noqa: BLE001 - the edge to parsers that an attacker feeds
        if gaps is not None:
            gaps.append("they were not read: %s" % (str(exc).rstrip(".") or type(exc).__name__))
        return None
    return b"" if is_blank(data) else data


def _hits(engines: Sequence[_Engine], at: int, data: bytes, gaps: list[str]) -> _Hits:
    hits: _Hits = []
    part = Content(len(data), lambda _at, _length: data, WINDOW)
    for engine in engines:
        found, gap = engine.scan(part)
        gaps += [gap] if gap else []
        hits += [(engine.name, Hit(hit.rule, at + hit.offset)) for hit in found]
    return hits
