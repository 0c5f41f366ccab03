# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One file before the judge, with what it is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Content, Hit
from ansible_collections.vmward.remediation.plugins.module_utils._scan.inside import Archives
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import NO_INDICATORS, Indicators
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally, Where

MB = 1 << 20
BAD = b"something bad"
DEFAULT = Archives()


class Looking:
    """An engine that finds what holds `bad`, and notes how often it was asked."""

    name = "looking"

    def __init__(self, unpacks: bool = False) -> None:
        self.unpacks = unpacks
        self.seen: list[bytes] = []

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        self.seen.append(content.head(64))
        found = [Hit("bad", at + data.index(BAD)) for at, data in content.windows() if BAD in data]
        return found, "" if content.is_whole else "in parts only"

    def describe(self) -> dict[str, Any]:
        return {}

    @contextmanager
    def testing(self) -> Iterator[None]:
        yield


def judged(
    data: bytes,
    limits: Archives = DEFAULT,
    *,
    engines: tuple[Looking, ...] = (),
    whole: int = 64 * MB,
    indicators: Indicators = NO_INDICATORS,
    held: bool = True,
    known: set[bytes] | None = None,
) -> Tally:
    listener = Listener(Progress("", 0))
    judge = Judge(engines or (Looking(),), listener.take, whole, indicators=indicators, known=known, archives=limits)
    content = Content(len(data), lambda at, length: data[at : at + length], whole if held else 0)
    judge.file(Where("vda", 1), content, lambda: "/x")
    judge.flush()
    return listener.tally


def found(tally: Tally) -> list[str]:
    return [one.path for one in tally.findings]


def assert_told(tally: Tally, path: str, words: str) -> None:
    where = f"{path} on volume 1 of disk vda: "
    assert any(reason.startswith(where) and words in reason for reason in tally.reasons), tally.reasons
