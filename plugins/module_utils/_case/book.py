# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ledger as read, and what it will be after an append. Pure: no file, no clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any

from .entry import GENESIS, CaseError, Entry, check_shape, digest, link, says, timestamp
from .lease import Claim, Lease, decide
from .verify import ANCHOR

UNKNOWN = {"actor": "unknown", "host": "unknown"}


@dataclass(frozen=True)
class Recorded:
    """Where a requested entry stands in the ledger; `added` is false if it was there already."""

    seq: int
    hash: str
    added: bool


@dataclass(frozen=True)
class Book:
    """A ledger as read: its whole lines, their entries and hashes, and the torn bytes behind the last newline."""

    lines: tuple[bytes, ...] = ()
    entries: tuple[Entry, ...] = ()
    hashes: tuple[str, ...] = ()
    torn: bytes = b""

    @classmethod
    def parse(cls, case: str, data: bytes) -> Book:
        *lines, torn = data.split(b"\n")
        entries: list[Entry] = []
        prev = GENESIS
        hashes = []
        for seq, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                sound = entry["seq"] == seq and entry["prev"] == prev and check_shape(entry)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, CaseError):
                sound = None
            if not sound:
                raise CaseError(
                    "broken",
                    f"Cannot use the ledger of case {case}: line {seq} does not continue the line before it, so "
                    "somebody changed it. Keep a copy, run verify with the last anchor, and go on in a new case.",
                )
            entries.append(entry)
            prev = digest(line)
            hashes.append(prev)
        return cls(tuple(lines), tuple(entries), tuple(hashes), torn)

    @property
    def head(self) -> dict[str, Any]:
        return {"seq": len(self.lines), "hash": self.hashes[-1] if self.hashes else GENESIS}

    @property
    def epoch(self) -> int:
        return max((int(entry.get("epoch", 0)) for entry in self.entries), default=0)

    @property
    def signed_seq(self) -> int:
        """The newest entry that some signature entry covers; whether the signature holds is for verify to say."""
        covers = (entry["result"].get("over_seq") for entry in self.entries if entry["action"] == "signature")
        return max((seq for seq in covers if isinstance(seq, int)), default=0)

    @property
    def sealed(self) -> bool:
        verbs = [entry["action"] for entry in self.entries if entry["action"] in ("seal", "reopen")]
        return bool(verbs) and verbs[-1] == "seal"

    @property
    def metadata(self) -> dict[str, Any]:
        return next((dict(entry["inputs"]) for entry in reversed(self.entries) if entry["action"] == "open"), {})

    @property
    def artefacts(self) -> dict[str, dict[str, Any]]:
        """The evidence register: the newest record of every path that was not disposed of."""
        register: dict[str, dict[str, Any]] = {}
        for entry in self.entries:
            for artefact in entry["artefacts"]:
                if entry["action"] == "dispose":
                    register.pop(artefact["path"], None)
                else:
                    register[artefact["path"]] = {**artefact, "seq": entry["seq"], "target": entry["target"]}
        return register

    def require(self, case: str, head: str) -> None:
        """Refuse a ledger that does not hold the anchor `SEQ:HASH`."""
        if not ANCHOR.fullmatch(head):
            raise CaseError("input", f"Cannot use {head!r}: it is no anchor, which is SEQ:HASH. Copy all of it.")
        seq, _colon, wanted = head.partition(":")
        if not seq.isdigit() or not 0 < int(seq) <= len(self.hashes) or self.hashes[int(seq) - 1] != wanted:
            raise CaseError(
                "broken",
                f"Cannot trust the ledger of case {case}: it does not hold the anchor {head}, so it was rolled back or "
                "replaced. Fetch another copy and run verify on both.",
            )


@dataclass(frozen=True)
class Appended:
    """The book after an append, where each requested entry stands in it, and who leads."""

    book: Book
    recorded: tuple[Recorded, ...]
    lease: Lease | None


class Draft:
    """A book that grows line by line, and finds what it already says without reading it again."""

    def __init__(self, book: Book, epoch: int) -> None:
        self.lines, self.entries, self.hashes = list(book.lines), list(book.entries), list(book.hashes)
        self.epoch = epoch
        self._places = {name: index for index, entry in enumerate(book.entries) for name in _names(entry)}

    def add(self, entry: Entry) -> Recorded:
        prev = self.hashes[-1] if self.hashes else GENESIS
        line = link(entry, len(self.lines) + 1, prev, self.epoch)
        self.lines.append(line)
        self.entries.append(json.loads(line))
        self.hashes.append(digest(line))
        self._places.update({name: len(self.lines) - 1 for name in _names(entry)})
        return Recorded(len(self.lines), self.hashes[-1], True)

    def record(self, entry: Entry) -> Recorded:
        """Add the entry, unless it is here: the same spooled entry, or the newest of its key with equal content."""
        index = next((self._places[name] for name in _names(entry)[:1] if name in self._places), None)
        if index is not None and ("spool_id" in entry or says(self.entries[index], entry)):
            return Recorded(index + 1, self.hashes[index], False)
        return self.add(entry)

    def book(self) -> Book:
        return Book(tuple(self.lines), tuple(self.entries), tuple(self.hashes))


def _names(entry: Entry) -> list[tuple[str, str]]:
    return [(name, entry[name]) for name in ("spool_id", "key") if name in entry]


def plan_append(
    case: str, book: Book, current: Lease | None, entries: Sequence[Entry], claim: Claim, now: datetime
) -> Appended:
    """What the ledger will be: first the repair and the change of leader, if any, then each entry that is new."""
    lease = decide(case, current, book.epoch, claim, now)
    draft = Draft(book, lease.epoch if lease else 0)
    wanted = [{"time": timestamp(now), **UNKNOWN, **entry} for entry in entries]
    author = {name: wanted[0][name] for name in UNKNOWN} if wanted else UNKNOWN
    own = {**author, "time": timestamp(now), "phase": "case", "target": "", "inputs": {}, "artefacts": []}
    if book.torn:
        draft.add({**own, "action": "repair", "artefacts": [torn_artefact(book)], "result": {}})
    opening = list(takewhile(lambda entry: entry["action"] == "open", wanted))
    recorded = [draft.record(entry) for entry in opening]
    if lease and (current is None or current.epoch != lease.epoch):
        draft.add({**own, **_change_of_leader(lease, current, claim)})
    recorded += [draft.record(entry) for entry in wanted[len(opening) :]]
    after = draft.book()
    _refuse_sealed(case, book, after)
    return Appended(after, tuple(recorded), lease)


def torn_artefact(book: Book) -> dict[str, Any]:
    """Where the bytes of a line go that a crash left half written."""
    sha256 = digest(book.torn)
    return {"path": f"undo/torn-{len(book.lines) + 1}-{sha256[:12]}.bin", "size": len(book.torn), "sha256": sha256}


def _change_of_leader(lease: Lease, former: Lease | None, claim: Claim) -> Entry:
    inputs = {"holder": lease.holder, "ttl": claim.ttl, "take_over": claim.take_over}
    result = {"epoch": lease.epoch, "former": former.to_dict() if former else None}
    return {"action": "lease", "inputs": inputs, "result": result}


def _refuse_sealed(case: str, book: Book, after: Book) -> None:
    new = [entry["action"] for entry in after.entries[len(book.entries) :]]
    if book.sealed and "reopen" not in new[:2] and any(action not in ("signature", "repair") for action in new):
        raise CaseError("sealed", f"Cannot record in case {case}: it is sealed. Reopen it first, with a reason.")
