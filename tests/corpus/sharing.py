# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same scan by one process, and in shares, however little there is to read."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import job, points
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.seats import Seats

_OWN = ("seconds", "cpu_seconds", "bytes_from_disk")  # of which each run may say something else


def shared(request: Request, count: int = 3) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "to_read", lambda *arguments: 1 << 50)
        return scan(replace(request, at_once=count))


def alone(request: Request) -> dict[str, Any]:
    return scan(replace(request, at_once=1))


def search_in_shares(patch: pytest.MonkeyPatch, place: Path) -> None:
    """For clean points, however little there is to read, on a host with seats of its own."""
    patch.setattr(points, "to_read", lambda *arguments: 1 << 50)
    patch.setattr(job, "Seats", partial(Seats, place=str(place / "seats")))


def said(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in _OWN}


def but_for_twins(result: dict[str, Any]) -> dict[str, Any]:
    """A content that is there several times, in a point or in several, may be judged once by each process."""
    return said({**result, "points": [{**one, "bytes_read": -1} for one in result["points"]]})
