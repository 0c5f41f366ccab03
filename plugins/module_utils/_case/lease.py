# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One leader per case: who may lead, until when, under which epoch. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from .entry import CaseError, timestamp


@dataclass(frozen=True)
class Lease:
    holder: str
    epoch: int
    expires: datetime
    run: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"holder": self.holder, "run": self.run, "epoch": self.epoch, "expires": timestamp(self.expires)}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Lease:
        expires = datetime.strptime(raw["expires"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
        return cls(str(raw["holder"]), int(raw["epoch"]), expires, str(raw.get("run", "")))


@dataclass(frozen=True)
class Claim:
    """What a caller says about leading the case. Without holder and epoch it adds a note and leads nothing."""

    holder: str | None = None
    ttl: int = 900
    epoch: int | None = None
    take_over: bool = False
    run: str = ""


class LeaseError(CaseError):
    """Somebody else leads the case."""

    def __init__(self, message: str, current: Lease | None) -> None:
        super().__init__("lease", message)
        self.current = current


def decide(case: str, current: Lease | None, last_epoch: int, claim: Claim, now: datetime) -> Lease | None:
    """The lease after this call; a higher epoch than before means that the leader changed."""
    if claim.epoch is not None and claim.epoch != (current.epoch if current else 0):
        raise LeaseError(f"Cannot record in case {case}: epoch {claim.epoch} is over; {_who(current, now)}.", current)
    if claim.holder is None:
        return current
    if not claim.holder or len(claim.holder) > 256 or not 0 < claim.ttl <= 86400:
        raise CaseError("input", "Cannot lead a case: a lease needs a holder (1 to 256 characters) and 1 to 86400 s.")
    expires = now + timedelta(seconds=claim.ttl)
    if current and (current.holder, current.run) == (claim.holder, claim.run):
        return Lease(claim.holder, current.epoch, expires, claim.run)
    if current and current.expires > now and not claim.take_over:
        whose = "that other run" if current.holder == claim.holder else "they"
        raise LeaseError(
            f"Cannot lead case {case} as {claim.holder}: {_who(current, now)}. Wait until {whose} ended, or take over "
            "by name (take_over, in the roles -e vmward_take_over=true): what the other run still does then fails.",
            current,
        )
    return Lease(claim.holder, max(last_epoch, current.epoch if current else 0) + 1, expires, claim.run)


def _who(current: Lease | None, now: datetime) -> str:
    if current is None:
        return "nobody leads it"
    state = "leads" if current.expires > now else "last led"
    run = f" (run {current.run})" if current.run else ""
    return f"{current.holder}{run} {state} it under epoch {current.epoch}, until {timestamp(current.expires)}"
