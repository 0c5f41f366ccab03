# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: restore_points
short_description: The points that a VM may be restored to, the newest first
version_added: "0.1.0"
author: vmward contributors (@vmward)
description:
  - Takes the snapshots that M(vmward.remediation.vm_info) tells and gives those from before an incident, the newest
    first; or the one that is named; or the golden image alone.
  - A snapshot of which the hypervisor tells no time is left out with a warning, unless it is the one that is named.
  - Fails, saying what to do, when that leaves no point or more than one of the name.
positional: _input
options:
  _input:
    description: The snapshots of one VM.
    type: list
    elements: dict
    required: true
  before:
    description: The time of the incident (RFC 3339). Only older snapshots are given.
    type: str
    default: ""
  named:
    description: The id or the name of the snapshot to give, whatever its age.
    type: str
    default: ""
  golden:
    description: Give the golden image instead of any snapshot.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show what desk1 could go back to
  ansible.builtin.debug:
    msg: "{{ info.vms[0].after.snapshots | vmward.remediation.restore_points(before='2026-01-31T12:00:00Z') }}"
"""

RETURN = r"""
_value:
  description: The points, each with C(kind) (V(snapshot) or V(golden)), C(id), C(name) and C(created).
  type: list
  elements: dict
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display

from ansible_collections.vmward.remediation.plugins.module_utils._model import printable

GOLDEN = {"kind": "golden", "id": "", "name": "golden image", "created": ""}


UNDATED = datetime.min.replace(tzinfo=timezone.utc)


def incident(text: str) -> datetime:
    """When it began, as the user has said."""
    try:
        return moment(text)
    except ValueError as exc:
        raise AnsibleFilterError(
            f"'{text}' is not a time. Write vmward_incident_time in UTC, as in 2026-01-31T12:00:00Z."
        ) from exc


def made(taken: Mapping[str, Any]) -> datetime:
    """When a snapshot was made, as the hypervisor tells."""
    try:
        return moment(taken["created"])
    except ValueError:
        return UNDATED


def moment(text: str) -> datetime:
    """Read a time; one without a zone is UTC."""
    read = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    return read if read.tzinfo else read.replace(tzinfo=timezone.utc)


def restore_points(
    snapshots: Iterable[Mapping[str, Any]], before: str = "", named: str = "", golden: bool = False
) -> list[dict[str, Any]]:
    """The candidates for a restore, the newest first."""
    if golden:
        return [dict(GOLDEN)]
    found = [
        {"kind": "snapshot", "id": taken["id"], "name": taken["name"], "created": taken["created"]}
        for taken in sorted(snapshots, key=made, reverse=True)
    ]
    had = ", ".join(f"{printable(point['name'], 60)} ({point['created'] or 'no time'})" for point in found) or "none"
    if named:
        points = [point for point in found if point["id"] == named] or [
            point for point in found if point["name"] == named
        ]
        if len(points) > 1:
            ids = ", ".join(point["id"] for point in points)
            raise AnsibleFilterError(f"{len(points)} snapshots are named '{named}': {ids}. Use the id.")
    elif before:
        began = incident(before)
        points = [point for point in found if UNDATED < made(point) < began]
        tell_undated([point["name"] for point in found if made(point) == UNDATED])
    else:
        raise AnsibleFilterError(
            "When did the incident begin? Say -e vmward_incident_time=2026-01-31T12:00:00Z (UTC), so that only older "
            "points are considered; or name one with vmward_snapshot; or say vmward_restore_from=golden."
        )
    if not points:
        wanted = f"named '{named}'" if named else f"older than {before}"
        raise AnsibleFilterError(
            f"There is no snapshot {wanted}. There are: {had}. Say vmward_restore_from=golden to rebuild from the "
            "golden image."
        )
    return points


def tell_undated(names: Sequence[str]) -> None:
    """A point of unknown age may be from after the incident."""
    if names:
        Display().warning(
            f"Left out, since the hypervisor tells no time of them: {printable(', '.join(names), 400)}. To try one, "
            "name it with vmward_snapshot."
        )


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"restore_points": restore_points}
