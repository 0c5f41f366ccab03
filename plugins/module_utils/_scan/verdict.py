# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a scan found, and what may be said of it. `clean` is earned by having read everything, never a default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

MAX_FINDINGS = 1000
MAX_VOLUMES = 4096
MAX_BASES = 256
MAX_REASONS = 200
MAX_CHANGES = 2000
MAX_UNOPENED = 20
MAX_NOTES = 200
MAX_TEXT = 512
LEFT_OUT = "Indicators of compromise: "  # so begins a note about one that can't be looked for
ELSEWHERE = "Left out, since it lies on another host: "  # so begins a note about a part of a live host
OLD = 7  # days of signatures
_UNOPENED = (
    "%d archives or packed files were matched as they are: they are not unpacked here, and no engine took part "
    "that is known to open them. The first of them: %s."
)
_VOLUMES_MORE = "Only %d volumes can be listed, and %d more were found: nobody can see which of these were read."


class Verdict(Enum):
    CLEAN = "clean"
    INFECTED = "infected"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class Where:
    """What is being read: for findings and for sentences. `copy`: which shadow copy of the volume."""

    disk: str
    volume: int
    copy: str = ""

    def __str__(self) -> str:
        whose = "shadow copy %s of " % self.copy if self.copy else ""
        return "%svolume %d of disk %s" % (whose, self.volume, self.disk)

    @property
    def capital(self) -> str:
        """As a sentence begins with it."""
        return str(self)[0].upper() + str(self)[1:]

    def shown(self, path: str | bytes) -> str:
        return "/%s%s" % (self.copy, printable(path)) if self.copy else printable(path)


@dataclass(frozen=True)
class Finding:
    """One file (as an indicator also one stretch of raw bytes) that one rule of one engine matched."""

    disk: str
    volume: int
    path: str
    rule: str
    engine: str
    size: int
    offset: int
    sha256: str


@dataclass(frozen=True)
class Volume:
    disk: str
    index: int
    start: int
    size: int
    type: str
    read: bool
    method: str = "full"  # full; delta: on top of a clean base; same: no byte differs from the base's


@dataclass(frozen=True)
class Change:
    """What happened to one file, or to a part of the disk, since the base."""

    disk: str
    volume: int
    kind: str
    path: str
    former: str
    what: str
    size: int
    mode: str
    uid: int
    gid: int


@dataclass(frozen=True)
class BaseUse:
    """Whether a disk was scanned on top of a known base; if not, why."""

    disk: str
    base: str
    used: bool
    why: str
    indexed: int


@dataclass
class Tally:
    """Everything that came out of a scan. Lists are capped, counts are not."""

    findings: list[Finding] = field(default_factory=list)
    findings_count: int = 0
    indicators: list[Finding] = field(default_factory=list)
    indicators_count: int = 0
    reasons: list[str] = field(default_factory=list)
    reasons_count: int = 0
    volumes: list[Volume] = field(default_factory=list)
    volumes_more: int = 0
    changes: list[Change] = field(default_factory=list)
    changes_count: dict[str, int] = field(default_factory=dict)
    changes_more: int = 0
    engines: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    notes_more: int = 0
    sums: dict[str, list[int]] = field(default_factory=dict)  # notes with numbers in them, by what they say
    unopened: int = 0
    unopened_names: list[str] = field(default_factory=list)
    unopened_below: dict[str, int] = field(default_factory=dict)  # in a base or a scan before, which is named
    files: int = 0
    bytes_read: int = 0
    bytes_from_disk: int = 0
    bytes_since: int = -1
    bases: list[BaseUse] = field(default_factory=list)
    bases_more: int = 0
    finished: bool = False
    # Of one of several shares: how much of what all of them meet it had met in the end, and the digest over that; and
    # after how much of it each thing in a list was told
    met: tuple[int, str] | None = field(default=None, compare=False)
    order: dict[str, list[int]] = field(default_factory=dict, compare=False)

    def add_finding(self, finding: Finding) -> None:
        self.findings_count += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)

    def add_indicator(self, finding: Finding) -> None:
        self.indicators_count += 1
        if len(self.indicators) < MAX_FINDINGS:
            self.indicators.append(finding)

    def add_change(self, change: Change) -> None:
        for one in (change.kind, *filter(None, change.what.split(","))):
            self.changes_count[one] = self.changes_count.get(one, 0) + 1
        self.list_changes([change])

    def list_changes(self, changes: Sequence[Change]) -> None:
        """They are counted already."""
        room = MAX_CHANGES - len(self.changes)
        self.changes += changes[:room]
        self.changes_more += len(changes[room:])

    def add_more(self, kind: str, counts: Mapping[str, int], total: int) -> None:
        """Findings, indicators, reasons or changes (these by name, too) that are counted, but not listed."""
        if kind == "finding":
            self.findings_count += total
        elif kind == "indicator":
            self.indicators_count += total
        elif kind == "reason":
            self.reasons_count += total
        else:
            self.changes_more += total
            for name, count in counts.items():
                self.changes_count[name] = self.changes_count.get(name, 0) + count

    def add_volume(self, volume: Volume) -> None:
        if len(self.volumes) < MAX_VOLUMES:
            self.volumes.append(volume)
        else:
            self.volumes_more += 1

    def add_base(self, base: BaseUse) -> None:
        if len(self.bases) < MAX_BASES:
            self.bases.append(base)
        else:
            self.bases_more += 1

    def add_unopened(self, count: int, names: Iterable[str]) -> None:
        self.unopened += count
        self.unopened_names = [*self.unopened_names, *names][:MAX_UNOPENED]

    def add_note(self, note: str) -> None:
        if len(self.notes) < MAX_NOTES:
            self.notes.append(printable(note))
        else:
            self.notes_more += 1

    def add_sum(self, text: str, counts: Sequence[int]) -> None:
        if text not in self.sums and len(self.sums) >= MAX_NOTES:
            self.notes_more += 1
            return
        before = self.sums.get(text, [0] * len(counts))
        self.sums[text] = [one + other for one, other in zip(before, counts)]

    @property
    def summed(self) -> list[str]:
        return [text % tuple(counts) for text, counts in self.sums.items()]

    def add_reason(self, reason: str) -> None:
        self.reasons_count += 1
        told = printable(reason)
        if len(self.reasons) < MAX_REASONS and told not in self.reasons:
            self.reasons.append(told)

    def verdict(self) -> Verdict:
        if self.findings_count:
            return Verdict.INFECTED
        everything = self.finished and bool(self.volumes) and all(volume.read for volume in self.volumes)
        if not everything or self.volumes_more or self.reasons_count or self.indicators_count:
            return Verdict.INCOMPLETE
        return Verdict.CLEAN

    def as_result(self) -> dict[str, Any]:
        reasons = list(self.reasons)
        if self.indicators_count:
            what = "%d indicators (matches in raw bytes, or of rules that hint only) need a person's judgement."
            reasons.append(what % self.indicators_count)
        if not self.volumes:
            reasons.append("No volume was found.")
        if self.volumes_more:
            reasons.append(_VOLUMES_MORE % (len(self.volumes), self.volumes_more))
        unlisted = (
            ("changes are counted, but", self.changes_more),
            ("bases are", self.bases_more),
            ("notes are", self.notes_more),
        )
        more = ["%d more %s not listed." % (count, what) for what, count in unlisted if count]
        unopened = self.unopened + sum(self.unopened_below.values())
        below = ["%d of %s" % (count, of) for of, count in self.unopened_below.items()]
        first = "; ".join([*below, *self.unopened_names][:MAX_UNOPENED])
        return {
            "verdict": self.verdict().value,
            "findings": [asdict(finding) for finding in self.findings],
            "findings_count": self.findings_count,
            "indicators": [asdict(finding) for finding in self.indicators],
            "indicators_count": self.indicators_count,
            "incomplete_reasons": reasons,
            "incomplete_count": max(self.reasons_count, len(reasons)),
            "volumes": [asdict(volume) for volume in self.volumes],
            "changes": [asdict(change) for change in self.changes],
            "changes_count": self.changes_count,
            "bases": [asdict(base) for base in self.bases],
            "engines": self.engines,
            "coverage_notes": self.notes + self.summed + more + [_UNOPENED % (unopened, first)] * bool(unopened),
            "archives_unopened": unopened,
            "files": self.files,
            "bytes_read": self.bytes_read,
            "bytes_from_disk": self.bytes_from_disk,
        }


def ageing(engines: Iterable[dict[str, Any]]) -> list[str]:
    """What is to be said of old signatures."""
    ages = [one["database_age_days"] for one in engines if one.get("database_age_days") is not None]
    told = "ClamAV's official signatures are %d days old. Renew them (freshclam), and scan again."
    return [told % days for days in ages if days > OLD]


def in_one_line(result: dict[str, Any]) -> str:
    """A scan's result for a person in a hurry."""
    amount = "%d files, %.0f MB" % (result["files"], result["bytes_read"] / 1e6)
    counts = [(result["findings_count"], "findings"), (result["indicators_count"], "indicators")]
    counts.append((result.get("archives_unopened", 0), "archives unopened"))
    found = "".join(", %d %s" % (count, what) for count, what in counts if count)
    more = result["incomplete_count"] - 1
    why = "; %s" % result["incomplete_reasons"][0] if result["incomplete_reasons"] else ""
    why += " (and %d more reasons)" % more if more > 0 else ""
    if any(note.startswith(LEFT_OUT) for note in result.get("coverage_notes", ())):
        why += "; some indicators of compromise were not looked for"
    if any(note.startswith(ELSEWHERE) for note in result.get("coverage_notes", ())):
        why += "; file systems of other hosts were left out"
    old = "".join("; %s" % text for text in ageing(result.get("engines", ())))
    return "%s (%s, %.1f s%s)%s%s" % (result["verdict"], amount, result["seconds"], found, why, old)


def printable(text: str | bytes, limit: int = MAX_TEXT) -> str:
    """One line that is safe on a terminal and in a report, whatever the guest put into a name."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    line = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text[: limit + 1]
    )
    return line if len(line) <= limit else line[: limit - 3] + "..."
