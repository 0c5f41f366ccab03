# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: exported_disks
short_description: The exported disks that a case keeps, as backups
version_added: "0.1.0"
author: vmward contributors (@vmward)
description:
  - Takes the entries that M(vmward.remediation.case_ledger) reads of one VM, and gives each export of its disks as a
    backup, as the filter P(vmward.remediation.restore_points#filter) takes them.
  - An export that does not hold all disks of the VM, or holds others, is no state of it. Such ones are left out, and
    given with O(unusable).
positional: _input, directory, disks
options:
  _input:
    description: Entries of the phase C(preserve) of one VM.
    type: list
    elements: dict
    required: true
  directory:
    description: The directory of the case.
    type: str
    required: true
  disks:
    description: The VM's disks, as the filter P(vmward.remediation.disks_to_scan#filter) gives them.
    type: list
    elements: dict
    required: true
  unusable:
    description: Give the exports that are no state of the VM instead, with the reason.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show the exported disks
  ansible.builtin.debug:
    msg: "{{ kept.entries | vmward.remediation.exported_disks('/srv/cases/2026-0142', disks) }}"
  vars:
    disks: "{{ info.vms[0].after.disks | vmward.remediation.disks_to_scan }}"
"""

RETURN = r"""
_value:
  description: The exports, each with C(name), C(time) and C(disks); with O(unusable) C(name), C(path) and C(why).
  type: list
  elements: dict
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

from ansible_collections.vmward.remediation.plugins.module_utils._model import printable

IMAGE = re.compile(r"evidence/data/([^/]+)/disk-([^/]+)\.qcow2\Z")


def exported_disks(
    entries: Iterable[Mapping[str, Any]], directory: str, disks: Sequence[Mapping[str, Any]], unusable: bool = False
) -> list[dict[str, Any]]:
    """By folder, for each folder is one cut of the VM; what was recorded last counts."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in entries:
        for artefact in entry.get("artefacts") or []:
            named = IMAGE.match(str(artefact["path"]))
            if named:
                found.setdefault(named[1], {})[named[2]] = artefact
    wanted = sorted(str(disk["name"]) for disk in disks)
    if unusable:
        return [
            {
                "name": f"export {folder}",
                "path": f"{directory}/evidence/data/{folder}",
                "why": f"it has the disks {listed(sorted(images))}, the VM has {listed(wanted)}",
            }
            for folder, images in found.items()
            if sorted(images) != wanted
        ]
    return [
        {
            "name": f"export {folder}",
            "time": max(str(artefact.get("taken_at") or "") for artefact in images.values()),
            "disks": [
                {
                    "disk": disk,
                    "path": f"{directory}/{artefact['path']}",
                    "format": "qcow2",
                    "sha256": str(artefact.get("sha256") or ""),
                }
                for disk, artefact in images.items()
            ],
        }
        for folder, images in found.items()
        if sorted(images) == wanted
    ]


def listed(names: Sequence[str]) -> str:
    return printable(", ".join(names), 200)


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"exported_disks": exported_disks}
