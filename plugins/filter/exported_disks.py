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
positional: _input, directory
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
"""

EXAMPLES = r"""
- name: Show the exported disks
  ansible.builtin.debug:
    msg: "{{ kept.entries | vmward.remediation.exported_disks('/srv/cases/2026-0142') }}"
"""

RETURN = r"""
_value:
  description: The exports, each with C(name), C(time) and C(disks).
  type: list
  elements: dict
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Callable

IMAGE = re.compile(r"evidence/data/([^/]+)/disk-([^/]+)\.qcow2\Z")


def exported_disks(entries: Iterable[Mapping[str, Any]], directory: str) -> list[dict[str, Any]]:
    """By folder, for each folder is one cut of the VM; what was recorded last counts."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in entries:
        for artefact in entry.get("artefacts") or []:
            named = IMAGE.match(str(artefact["path"]))
            if named:
                found.setdefault(named[1], {})[named[2]] = artefact
    return [
        {
            "name": f"export {folder}",
            "time": max(str(artefact.get("taken_at") or "") for artefact in images.values()),
            "disks": [
                {"disk": disk, "path": f"{directory}/{artefact['path']}", "format": "qcow2"}
                for disk, artefact in images.items()
            ],
        }
        for folder, images in found.items()
    ]


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"exported_disks": exported_disks}
