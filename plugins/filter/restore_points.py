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
  - Takes the snapshots that M(vmward.remediation.vm_info) tells, and the backups that are named, and gives those from
    before an incident, the newest first; or the one that is named; or the golden image alone.
  - With O(every) all of them and the present state are given, to see from when on the VM was infected. Those that are
    no candidates for a restore are marked as such.
  - A snapshot or backup of which no time is told is no candidate, with a warning, unless it is the one that is named
    or no time is asked for.
  - Fails, saying what to do, when that leaves no candidate or more than one of the name, and when a backup is not one
    of all disks of the VM.
positional: _input
options:
  _input:
    description: The snapshots of one VM.
    type: list
    elements: dict
    required: true
  before:
    description: The time of the incident (RFC 3339). Only older ones are candidates. It may be empty with O(every).
    type: str
    default: ""
  named:
    description: The id or the name of the snapshot, or the name of the backup, to give, whatever its age.
    type: str
    default: ""
  golden:
    description: Give the golden image instead of any snapshot.
    type: bool
    default: false
  every:
    description: Give all points and the present state too.
    type: bool
    default: false
  backups:
    description:
      - Copies of the VM's disks at some time, each with C(name), C(time) (RFC 3339) and C(disks), a list of C(disk)
        (its name on the VM), C(path), C(format) and, if it was recorded, the C(sha256) of the file.
    type: list
    elements: dict
    default: []
  disks:
    description:
      - The VM's disks, as the filter P(vmward.remediation.disks_to_scan#filter) gives them. Needed for
        backups.
    type: list
    elements: dict
    default: []
  now:
    description: The time of the present state (RFC 3339).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show what desk1 could go back to
  ansible.builtin.debug:
    msg: "{{ info.vms[0].after.snapshots | vmward.remediation.restore_points(before='2026-01-31T12:00:00Z') }}"
"""

RETURN = r"""
_value:
  description:
    - The points as M(vmward.remediation.clean_point) takes them, each with C(kind), C(id), C(name), C(created),
      C(candidate) and, of a backup, C(disks) and C(images).
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
    except ValueError:
        raise AnsibleFilterError(
            f"'{text}' is not a time. Write vmward_incident_time in UTC, as in 2026-01-31T12:00:00Z."
        ) from None  # Ansible would tell that cause, too


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
    snapshots: Iterable[Mapping[str, Any]],
    before: str = "",
    named: str = "",
    golden: bool = False,
    every: bool = False,
    backups: Sequence[Mapping[str, Any]] = (),
    disks: Sequence[Mapping[str, Any]] = (),
    now: str = "",
) -> list[dict[str, Any]]:
    """The candidates for a restore, the newest first; among all that there is, if that is asked for."""
    dated = [{"kind": "snapshot", "id": one["id"], "name": one["name"], "created": one["created"]} for one in snapshots]
    dated += [backup_point(backup, disks) for backup in backups]
    found = sorted(dated, key=made)[::-1]  # and of two of one second, the later one in the list
    chosen = candidates(found, before, named, golden, every)
    if not every:
        return [{**point, "candidate": True} for point in chosen]
    present = {"kind": "present", "id": "", "name": "present state", "created": now}
    points = [present, *found, *([dict(GOLDEN)] if golden else [])]
    return [{**point, "candidate": point in chosen} for point in points]


def candidates(
    found: Sequence[dict[str, Any]], before: str, named: str, golden: bool, every: bool
) -> list[dict[str, Any]]:
    """Those that a restore may take."""
    if golden:
        return [dict(GOLDEN)]
    if named:
        same = [point for point in found if point["name"] == named]
        points = [point for point in found if point["id"] == named]
        points = [*points, *(point for point in same if point["kind"] == "backup")] if points else same
        if len(points) > 1:
            ids = ", ".join(point["id"] or f"the backup of {point['created']}" for point in points)
            raise AnsibleFilterError(
                f"{len(points)} points are named '{named}': {ids}. Use the id, or give a backup another name."
            )
    elif before:
        began = incident(before)
        points = [point for point in found if UNDATED < made(point) < began]
        tell_undated([point["name"] for point in found if made(point) == UNDATED])
    elif every:
        return list(found)
    else:
        raise AnsibleFilterError(
            "When did the incident begin? Say -e vmward_incident_time=2026-01-31T12:00:00Z (UTC), so that only older "
            "points are considered; or name one with vmward_snapshot; or say vmward_restore_from=golden."
        )
    if not points and (named or not every):
        had = (
            ", ".join(f"{printable(point['name'], 60)} ({point['created'] or 'no time'})" for point in found) or "none"
        )
        wanted = f"named '{named}'" if named else f"older than {before}"
        raise AnsibleFilterError(
            f"There is no snapshot {wanted}. There are: {had}. Say vmward_restore_from=golden to rebuild from the "
            "golden image."
        )
    return points


def backup_point(backup: Mapping[str, Any], disks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A backup as a point. What a disk stands on now, a full copy of it may be compared with."""
    try:
        name, created, copies = str(backup["name"]), str(backup["time"]), {one["disk"]: one for one in backup["disks"]}
        images = {disk: {"path": one["path"], "format": one["format"]} for disk, one in copies.items()}
    except (KeyError, TypeError) as exc:
        raise AnsibleFilterError(
            f"A backup is not told as a name, a time and disks, each with disk, path and format: {exc}."
        ) from exc
    bases = {disk["name"]: disk["layers"][1:][-1:] for disk in disks}
    if sorted(one["disk"] for one in backup["disks"]) != sorted(bases):
        has, wanted = (printable(", ".join(map(str, names)), 200) or "none" for names in (copies, bases))
        raise AnsibleFilterError(
            f"The backup '{printable(name, 60)}' has the disks {has}, the VM has {wanted}. Name one copy of each."
        )
    if created and made({"created": created}) == UNDATED:
        raise AnsibleFilterError(
            f"'{created}' is not the time of a backup. Write it in UTC, as in 2026-01-31T12:00:00Z."
        )
    told = [{"name": disk, "layers": [image], "clone_of": bases[disk]} for disk, image in images.items()]
    recorded = {disk: str(one.get("sha256") or "") for disk, one in copies.items()}
    restored = [
        {"disk": disk, "image": image["path"], "format": image["format"], "sha256": recorded[disk]}
        for disk, image in images.items()
    ]
    return {"kind": "backup", "id": "", "name": name, "created": created, "disks": told, "images": restored}


def tell_undated(names: Sequence[str]) -> None:
    """A point of unknown age may be from after the incident."""
    if names:
        Display().warning(
            f"No candidates, since no time of them is told: {printable(', '.join(names), 400)}. To try one, "
            "name it with vmward_snapshot."
        )


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"restore_points": restore_points}
