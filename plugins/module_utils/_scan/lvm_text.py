# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text in which LVM2 keeps the metadata of a volume group (vgcfgbackup(8)): sections, values, lists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_DEEPEST = 8
_SPACE = re.compile(r"(?:\s|#[^\n\0]*)*", re.ASCII)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z0-9_.+:@/*-]+|[][{}=,]')
_NAME = re.compile(r"[A-Za-z0-9_.+-]+")
_NUMBER = re.compile("0|-?[1-9][0-9]*")
_MARKS = frozenset("[]{}=,")
_END = ""


class BadText(Exception):
    """It is not what LVM writes; the sentence says why."""


def parse(text: str) -> dict[str, Any]:
    """A section is a dict, a list a list, and a number an int. A name that comes twice is refused.

    So is what LVM reads, but does not write, and what means something else to it: a path or a text as a name.
    """
    tokens = _tokens(text.rstrip("\0"))
    found, last = _section(tokens, _DEEPEST)
    if last != _END:
        raise BadText("it ends too early")
    return found


def _tokens(text: str) -> Iterator[str]:
    at = _SPACE.match(text).end()  # type: ignore[union-attr]
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise BadText("it holds something that has no meaning there")
        yield token.group()
        at = _SPACE.match(text, token.end()).end()  # type: ignore[union-attr]
    while True:
        yield _END


def _section(tokens: Iterator[str], depth: int) -> tuple[dict[str, Any], str]:
    found: dict[str, Any] = {}
    for name in tokens:
        if name in ("}", _END):
            return found, name
        mark = next(tokens)
        if name in _MARKS or mark not in ("{", "="):
            raise BadText("a name in it has no value")
        if not _NAME.fullmatch(name):
            raise BadText("a name in it is none that LVM writes")
        if name in found:
            raise BadText("a name comes twice in it")
        if mark == "=":
            found[name] = _value(tokens)
            continue
        if not depth:
            raise BadText("it is nested too deeply")
        found[name], last = _section(tokens, depth - 1)
        if last != "}":
            raise BadText("it ends too early")
    raise BadText("it ends too early")


def _value(tokens: Iterator[str]) -> Any:
    token = next(tokens)
    if token != "[":
        return _single(token)
    values: list[Any] = []
    for token in tokens:
        if token == "]":
            return values
        if token != ",":
            values.append(_single(token))
    raise BadText("it ends too early")


def _single(token: str) -> Any:
    if token in _MARKS or token == _END:
        raise BadText("a value is missing in it")
    if token[0] == '"':
        return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)
    return int(token) if _NUMBER.fullmatch(token) else token
