#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the newest state of a VM's disks in which a complete scan finds nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: clean_point
short_description: Find the newest point to which a VM can be restored without malware
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Scans the states that a VM's disks can go back to, the newest first, until one is clean. Each of them is judged by
    itself and whole
    chain deep. That a newer one is infected says nothing about an older one, nor the other way round.
  - The present state can be among them (V(present)), and copies that a backup or an export made (V(backup)). From when
    on the VM was infected is known of the states that were scanned, so with O(all_points) and the present among them
    it is known best.
  - What several states share is read and judged once, and the base not at all if it is indexed
    (M(vmward.remediation.golden_index)).
  - Runs on the data host, on a stopped VM or on exported disks. Nothing is written but what is known of contents.
requirements:
  - yara-x (Python library, for the engine V(yara))
  - clamd (for the engine V(clamd))
attributes:
  check_mode:
    support: full
    description: The module only reads, in check mode too. What it finds clean is not remembered then.
  diff_mode:
    support: none
    description: There is nothing that changes.
  platform:
    support: full
    platforms: linux
    description: The operating system of the data host.
options:
  disks:
    description:
      - The disks as they are now. They say how much work each point would lose, and are scanned only as a point
        V(present).
    type: list
    elements: dict
    required: true
    suboptions: &disk
      name:
        description: Name of the disk in the results, such as V(vda).
        type: str
        required: true
      layers:
        description: The files of the disk's chain, the top (newest) first and the base last. All of them must be named.
        type: list
        elements: dict
        required: true
        suboptions:
          path:
            description: Path of the file or block device on the data host. It must not be a symbolic link.
            type: path
            required: true
          format:
            description: Format of this layer, from the hypervisor's configuration. It is never probed.
            type: str
            required: true
            choices: [qcow2, raw, vmdk, vhdx]
      snapshot:
        description: Name or ID of an internal snapshot in the top qcow2 layer, to be read instead of its active state.
        type: str
        default: ""
      clone_of:
        description:
          - The files of the golden image that the disk is a full copy of, if it does not stand on it. It must be
            indexed. The
            disk is compared with it block by block.
        type: list
        elements: dict
        default: []
        suboptions:
          path:
            description: Path of the file or block device on the data host.
            type: path
            required: true
          format:
            description: Format of this layer.
            type: str
            required: true
            choices: [qcow2, raw, vmdk, vhdx]
  points:
    description: The points to look at, the newest first.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description:
          - What the point is known by. Without O(points[].disks), the internal snapshot of this ID or name is read. A
            golden image
            needs none.
        type: str
        default: ""
      name:
        description: Name of the point.
        type: str
        default: ""
      created:
        description: When it was made (RFC 3339).
        type: str
        default: ""
      kind:
        description:
          - V(snapshot), V(golden) for the base of each disk alone, V(present) for the disks as they are now, or
            V(backup) for copies, which O(points[].disks) names.
        type: str
        choices: [snapshot, golden, present, backup]
        default: snapshot
      candidate:
        description: Whether it may be chosen. Else it is only scanned, to see from when on the VM was infected.
        type: bool
        default: true
      disks:
        description:
          - The disks of this point, as in O(disks), where they are other files (external snapshots, backups). One for
            each of O(disks), of the same name.
        type: list
        elements: dict
        default: []
        suboptions: *disk
      images:
        description:
          - What is to be brought back when a backup is chosen, as M(vmward.remediation.vm_disk_restore) takes it. It is
            not looked at, and given back in RV(chosen).
        type: list
        elements: dict
        default: []
  all_points:
    description: Scan all points, also those older than the clean one, to see from when on the VM was infected.
    type: bool
    default: false
  index_directory:
    description: As of M(vmward.remediation.disk_scan).
    type: path
extends_documentation_fragment:
  - vmward.remediation.scan
  - vmward.remediation.scan.files
seealso:
  - module: vmward.remediation.disk_scan
  - module: vmward.remediation.golden_index
"""

EXAMPLES = r"""
- name: Find what desk1 can go back to
  vmward.remediation.clean_point:
    disks: "{{ info.vms[0].after.disks | vmward.remediation.disks_to_scan }}"
    points: "{{ info.vms[0].after.snapshots | vmward.remediation.restore_points(before='2026-01-31T12:00:00Z') }}"
    rules:
      - /etc/vmward/rules
    index_directory: /var/lib/vmward/index
  register: desk1_point
"""

RETURN = r"""
msg:
  description: The result in one line.
  type: str
  returned: success
  sample: >-
    baseline of 2026-01-03T00:00:00Z is clean; infected since 2026-01-04T18:00:00Z at the latest; a return loses the
    work of 2 d 0 h 00 min and 1.2 MB written since; scanned: evening: infected, baseline: clean
chosen:
  description:
    - The newest clean point with C(kind), C(id), C(name) and C(created), a backup also with its C(images) as in
      O(points[].images). Empty if there is none.
  type: dict
  returned: success
points:
  description: All points in the order given.
  type: list
  elements: dict
  returned: success
  contains:
    kind: {description: "As in O(points[].kind).", type: str}
    id: {description: What the point is known by., type: str}
    name: {description: Its name., type: str}
    created: {description: When it was made., type: str}
    verdict: {description: "V(clean), V(infected), V(incomplete), or V(not scanned).", type: str}
    findings: {description: "As of M(vmward.remediation.disk_scan), at most 20.", type: list}
    indicators: {description: "As of M(vmward.remediation.disk_scan), at most 20.", type: list}
    incomplete_reasons: {description: "Why the scan of it is not complete, at most 20.", type: list}
    changes_count: {description: What differs from the base., type: dict}
    archives_unopened:
      description: As RV(archives_unopened), of what was not judged for a point before.
      type: int
    files: {description: Files judged., type: int}
    bytes_read: {description: Bytes judged that were not judged for a point before., type: int}
    bytes_since: {description: "Bytes of disk written since, V(-1) if unknown.", type: int}
infected:
  description: Names of the points that are infected, the newest first.
  type: list
  elements: str
  returned: success
infected_since:
  description:
    - When the oldest infected one of the scanned points was made, so that it was infected then or earlier. Empty if
      none is infected, or of none that is the time is known.
  type: str
  returned: success
lost:
  description:
    - What a return to the chosen point loses at most. C(seconds) from when it was made until now, and C(bytes) of disk
      written since. V(-1) if unknown, as the bytes are for a copy.
  type: dict
  returned: success
bases:
  description: As of M(vmward.remediation.disk_scan).
  type: list
  elements: dict
  returned: success
engines:
  description: As of M(vmward.remediation.disk_scan).
  type: list
  elements: dict
  returned: success
archives_unopened:
  description:
    - Archives and packed files that were matched as they are, since no engine took part that is known to open them,
      in all points and their bases together. What several of them share counts once.
  type: int
  returned: success
coverage_notes:
  description: What holds for all points, and why it is not known how much was written since one of them.
  type: list
  elements: str
  returned: success
incomplete_reasons:
  description: Why nothing could be scanned at all.
  type: list
  elements: str
  returned: success
bytes_from_disk:
  description: Bytes read from the images.
  type: int
  returned: success
seconds:
  description: Seconds it took.
  type: float
  returned: success
cpu_seconds:
  description: Seconds of processor time it took.
  type: float
  returned: success
"""

from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import BadInput
from ansible_collections.vmward.remediation.plugins.module_utils._scan.options import (
    DISK,
    disks_of,
    file_spec,
    request_of,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.points import Point, disks_at, find, in_words

DISKS = {"type": "list", "elements": "dict", "options": DISK}
POINT = {
    "id": {"type": "str", "default": ""},
    "name": {"type": "str", "default": ""},
    "created": {"type": "str", "default": ""},
    "kind": {"type": "str", "choices": ["snapshot", "golden", "present", "backup"], "default": "snapshot"},
    "candidate": {"type": "bool", "default": True},
    "disks": {**DISKS, "default": []},
    "images": {"type": "list", "elements": "dict", "default": []},
}
ARGUMENTS = {
    "disks": {**DISKS, "required": True},
    "points": {"type": "list", "elements": "dict", "required": True, "options": POINT},
    "all_points": {"type": "bool", "default": False},
    "index_directory": {"type": "path"},
    **file_spec(),
}


def points_of(params: dict[str, Any]) -> list[Point]:
    points, now = params["points"], disks_of(params["disks"])
    unnamed = [one for one in points if one["kind"] == "snapshot" and not (one["id"] or one["disks"])]
    if not points or unnamed or any(one["kind"] == "backup" and not one["disks"] for one in points):
        raise BadInput(
            "Cannot look for a clean point: name at least one, each with its id or its disks, a backup with its disks."
        )
    alone = [disk.name for disk in now if len(disk.layers) < 2 and not disk.clone_of]
    if alone and any(one["kind"] == "golden" for one in points):
        raise BadInput("Cannot judge the golden image of disk %s: it stands on none." % ", ".join(alone))
    return [
        Point(
            point["kind"],
            point["id"],
            point["name"] or point["id"],
            point["created"],
            tuple(
                disks_of(point["disks"])
                or disks_at(now, point["kind"], point["id"] if point["kind"] == "snapshot" else "")
            ),
            point["candidate"],
            tuple(point["images"]),
        )
        for point in points
    ]


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        points = points_of(module.params)
        request = request_of(module.params, disks_of(module.params["disks"]), module.check_mode)
        result = find(request, points, module.params["all_points"], datetime.now(timezone.utc))
    except BadInput as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, msg=in_words(result), **result)


if __name__ == "__main__":
    main()
