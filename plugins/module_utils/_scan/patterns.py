# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which files of a guest are wanted, by patterns of their paths."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

REST = "**"


class BadPattern(Exception):
    """A pattern that can't be meant; the sentence says why."""


class Patterns:
    """`/a/*/b`: `*`, `?` and `[...]` within one part of the path. `/a/**`: every file below `/a`, however deep."""

    def __init__(self, texts: Iterable[str], fold: bool = False) -> None:
        self._fold = fold
        self._patterns = [self._compiled(text) for text in texts]

    def _compiled(self, text: str) -> tuple[tuple[re.Pattern[str], ...], bool, tuple[str, ...]]:
        """The parts before `**`; whether it ends with it; and how its directories begin without any wildcard."""
        parts = text.strip("/").split("/")
        deep = parts[-1] == REST
        names = parts[:-1] if deep else parts
        if not text.startswith("/") or not names or any(part in ("", ".", "..") or REST in part for part in names):
            raise BadPattern(
                "Cannot use the pattern %r: it must begin with a slash, name at least one part, and hold ** only at "
                "its end." % text[:200]
            )
        directories = names if deep else names[:-1]
        plain = next((at for at, part in enumerate(directories) if re.search(r"[*?\[]", part)), len(directories))
        flags = re.IGNORECASE if self._fold else 0
        return tuple(re.compile(fnmatch.translate(part), flags) for part in names), deep, tuple(names[:plain])

    def wants(self, path: Sequence[str]) -> bool:
        """Is this file wanted?"""
        return any(
            (len(path) > len(parts) if deep else len(path) == len(parts)) and _begins(parts, path)
            for parts, deep, _plain in self._patterns
        )

    def enters(self, path: Sequence[str]) -> bool:
        """May there be wanted files below this directory?"""
        return any((deep or len(path) < len(parts)) and _begins(parts, path) for parts, deep, _plain in self._patterns)

    def leads(self, path: Sequence[str]) -> bool:
        """Does a pattern name this very directory, so that a symbolic link in its place hides what is wanted?"""
        return any(tuple(path) == plain[: len(path)] for _parts, _deep, plain in self._patterns)


def _begins(parts: Sequence[re.Pattern[str]], path: Sequence[str]) -> bool:
    return all(part.match(name) for part, name in zip(parts, path))
