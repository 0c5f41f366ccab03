# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: disks_to_scan
short_description: Turn a VM's disks into the disks option of disk_scan
version_added: "0.1.0"
author: vmward contributors (@vmward)
description:
  - Takes the C(disks) that M(vmward.remediation.vm_info) tells and gives what M(vmward.remediation.disk_scan) reads.
  - Read-only disks and media (CD-ROM images) are left out, and given by O(left_out).
positional: _input
options:
  _input:
    description: The disks of one VM.
    type: list
    elements: dict
    required: true
  snapshot:
    description: An internal snapshot to be read instead of the active state.
    type: str
    default: ""
  base_only:
    description: Only the base of each chain, the golden image.
    type: bool
    default: false
  left_out:
    description: Give, instead, what is left out, each with its C(name), C(path) and the reason C(why).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Scan the disks of desk1
  vmward.remediation.disk_scan:
    disks: "{{ info.vms[0].after.disks | vmward.remediation.disks_to_scan }}"
"""

RETURN = r"""
_value:
  description: The disks with their layers.
  type: list
  elements: dict
"""

from collections.abc import Iterable, Mapping
from typing import Any, Callable

READ_ONLY = "read-only for the VM, which could not write to it; what it held before was not looked for"


def disks_to_scan(
    disks: Iterable[Mapping[str, Any]], snapshot: str = "", base_only: bool = False, left_out: bool = False
) -> list[dict[str, Any]]:
    """The writable disks with their layers, or with their base alone; or those that are not scanned."""
    if left_out:
        return [
            {"name": disk["id"], "path": disk["layers"][0]["path"] if disk["layers"] else "", "why": READ_ONLY}
            for disk in disks
            if disk["read_only"]
        ]
    return [
        {
            "name": disk["id"],
            "layers": list(disk["layers"])[-1:] if base_only else list(disk["layers"]),
            "snapshot": "" if base_only else snapshot,
        }
        for disk in disks
        if not disk["read_only"]
    ]


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"disks_to_scan": disks_to_scan}
