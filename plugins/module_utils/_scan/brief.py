# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the confined child says, how much of it, and what only the first of several that read the same disks says."""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable

from .share import Share
from .verdict import MAX_CHANGES, MAX_FINDINGS

_Emit = Callable[[str, dict[str, Any]], None]
LISTED = {"finding": MAX_FINDINGS, "indicator": MAX_FINDINGS, "change": MAX_CHANGES, "reason": 1000}
_ALIKE = ("change", "expect")  # of these all that read the same disks say the same
_ORDERED = ("finding", "indicator", "reason", "unopened")


class Brief:
    """Says as many of a kind as are listed; of all others, at the end, only how many there were."""

    def __init__(self, emit: _Emit, share: Share) -> None:
        self._emit, self._share = emit, share
        self.begin()

    def begin(self) -> None:
        self._told: Counter[str] = Counter()
        self._more: dict[str, Counter[str]] = {}

    def __call__(self, kind: str, body: dict[str, Any]) -> None:
        if kind in _ALIKE and not self._share.meets("%s %s" % (kind, body)):
            return
        if kind in _ORDERED and self._share.count > 1:
            body = {**body, "at": self._share.met}
        if kind not in LISTED or self._told[kind] < LISTED[kind]:
            self._told[kind] += 1
            self._emit(kind, body)
            return
        counts = self._more.setdefault(kind, Counter())
        counts[""] += 1
        if kind == "change":
            counts.update([body["kind"], *filter(None, body["what"].split(","))])

    def flush(self) -> None:
        for kind, counts in self._more.items():
            self._emit("more", {"of": kind, "total": counts.pop(""), "counts": dict(counts)})
        self._more = {}
