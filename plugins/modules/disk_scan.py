#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scan the disks of a stopped VM, or exported disks, for malware from outside."""

from __future__ import annotations

DOCUMENTATION = r"""
module: disk_scan
short_description: Scan virtual disks for malware without an agent and without mounting them
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Reads the disks of a stopped virtual machine, or exported disks, in user space, and lets YARA-X and ClamAV judge
    every file.
  - Nothing is mounted and nothing is written. The disks are parsed by a child process without any rights, since their
    content is hostile.
  - Runs on the data host, the host that can read the disk images.
  - The verdict is V(clean) only if everything was read and every engine judged everything. Whatever could not be read
    makes it V(incomplete), with the reason. A match makes it V(infected), whatever else happened.
requirements:
  - yara-x (Python library, for the engine V(yara))
  - dissect.target, dissect.volume and dissect.hypervisor (Python libraries, for LVM, VMDK, XFS, FAT, NTFS and btrfs)
  - clamd (for the engine V(clamd))
attributes:
  check_mode:
    support: full
    description: The module only reads. In check mode it does the same as else.
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
      - The disks, each with its layers as the hypervisor knows them.
    type: list
    elements: dict
    required: true
    suboptions:
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
            description:
              - Format of this layer, from the hypervisor's configuration.
              - It is never probed, since a guest can write what a probe would believe.
            type: str
            required: true
            choices: [qcow2, raw, vmdk]
      snapshot:
        description: Name or ID of an internal snapshot in the top qcow2 layer, to be read instead of its active state.
        type: str
        default: ""
  rules:
    description:
      - YARA rule files, or directories whose C(*.yar) and C(*.yara) files are used.
      - The directive C(include) is not allowed in them.
    type: list
    elements: path
    default: []
  clamd_socket:
    description: UNIX socket of a running clamd. If it is set, the engine V(clamd) is used and must work.
    type: path
  engines_required:
    description: Engines without which the verdict is at best V(incomplete).
    type: list
    elements: str
    choices: [yara, clamd]
    default: [yara]
  deadline:
    description: Seconds after which the scan ends as V(incomplete).
    type: int
    default: 7200
  cpu_limit:
    description: Seconds of processor time after which the scan ends as V(incomplete).
    type: int
    default: 7200
  memory_limit:
    description:
      - Memory in MiB that the scan may take on top of its loaded engines.
      - Files larger than a quarter of it are given to YARA in overlapping parts, and make the verdict V(incomplete).
    type: int
    default: 2048
  max_file_size:
    description: Files of more bytes are not scanned, and make the verdict V(incomplete). V(0) stands for no limit.
    type: int
    default: 0
  progress_file:
    description: File to be replaced about once a second with the progress in JSON.
    type: path
seealso:
  - name: Scanning disks
    description: What is read, how, and what a verdict means.
    link: https://github.com/vmward/vmward.remediation/blob/main/docs/scanning.md
"""

EXAMPLES = r"""
- name: Scan the disk of a stopped desktop
  vmward.remediation.disk_scan:
    disks:
      - name: vda
        layers:
          - path: /var/lib/libvirt/images/desk1.qcow2
            format: qcow2
          - path: /var/lib/libvirt/images/golden.qcow2
            format: qcow2
    rules:
      - /etc/vmward/rules
  register: desk1_scan

- name: Scan an earlier state of the same disk, with ClamAV too
  vmward.remediation.disk_scan:
    disks:
      - name: vda
        snapshot: clean-baseline
        layers:
          - path: /var/lib/libvirt/images/desk1.qcow2
            format: qcow2
          - path: /var/lib/libvirt/images/golden.qcow2
            format: qcow2
    rules:
      - /etc/vmward/rules
    clamd_socket: /run/clamav/clamd.ctl
    engines_required: [yara, clamd]
"""

RETURN = r"""
msg:
  description: The result in one line.
  type: str
  returned: success
  sample: clean (8469 files, 338 MB, 2.9 s)
verdict:
  description: V(clean), V(infected) or V(incomplete).
  type: str
  returned: success
  sample: infected
findings:
  description: The files that matched, one entry per file, engine and rule; at most 1000.
  type: list
  elements: dict
  returned: success
  contains:
    disk: {description: Name of the disk., type: str}
    volume: {description: "Number of the volume on the disk, from 1.", type: int}
    path: {description: "Path in the guest, with unprintable characters escaped and long names cut.", type: str}
    rule: {description: Rule or signature that matched., type: str}
    engine: {description: Engine that found it., type: str}
    size: {description: Size of the file in bytes., type: int}
    offset: {description: "Byte of the first match in the file, V(-1) if the engine does not say.", type: int}
    sha256: {description: SHA-256 of the file., type: str}
findings_count:
  description: Number of findings, also of those past the 1000.
  type: int
  returned: success
indicators:
  description:
    - Matches in raw bytes outside of files (boot sector, gaps, swap, unread volumes, extended attributes), each as in
      RV(findings).
      The offset counts from the start of the disk, or of the volume.
    - They may be leftovers, so they make the verdict V(incomplete) and ask for a person's judgement.
  type: list
  elements: dict
  returned: success
indicators_count:
  description: Number of indicators.
  type: int
  returned: success
incomplete_reasons:
  description: Why the scan is not complete, in sentences; at most 200.
  type: list
  elements: str
  returned: success
incomplete_count:
  description: Number of reasons, also of those past the 200.
  type: int
  returned: success
volumes:
  description: The volumes found. RV(volumes[].read) is true if all of it was read and judged.
  type: list
  elements: dict
  returned: success
  contains:
    disk: {description: Name of the disk., type: str}
    index: {description: Number of the volume., type: int}
    start: {description: First byte on the disk., type: int}
    size: {description: Size in bytes., type: int}
    type: {description: What it holds., type: str, sample: ext}
    read: {description: Whether all of it was read and judged., type: bool}
engines:
  description: The engines that passed their self-test, with version and, for YARA, the rule files.
  type: list
  elements: dict
  returned: success
coverage_notes:
  description: What was read otherwise than as files, or not at all by design.
  type: list
  elements: str
  returned: success
files:
  description: Number of files judged.
  type: int
  returned: success
bytes_read:
  description: Bytes judged.
  type: int
  returned: success
seconds:
  description: Seconds the scan took.
  type: float
  returned: success
cpu_seconds:
  description: Seconds of processor time the scan took.
  type: float
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import BadInput, LayerSpec, Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits

LAYER = {
    "path": {"type": "path", "required": True},
    "format": {"type": "str", "required": True, "choices": ["qcow2", "raw", "vmdk"]},
}
DISK = {
    "name": {"type": "str", "required": True},
    "layers": {"type": "list", "elements": "dict", "required": True, "options": LAYER},
    "snapshot": {"type": "str", "default": ""},
}
ARGUMENTS = {
    "disks": {"type": "list", "elements": "dict", "required": True, "options": DISK},
    "rules": {"type": "list", "elements": "path", "default": []},
    "clamd_socket": {"type": "path"},
    "engines_required": {"type": "list", "elements": "str", "choices": ["yara", "clamd"], "default": ["yara"]},
    "deadline": {"type": "int", "default": 7200},
    "cpu_limit": {"type": "int", "default": 7200},
    "memory_limit": {"type": "int", "default": 2048},
    "max_file_size": {"type": "int", "default": 0},
    "progress_file": {"type": "path"},
}


def to_request(params: dict[str, Any]) -> Request:
    if not params["disks"] or not all(disk["layers"] for disk in params["disks"]):
        raise BadInput("Cannot scan nothing: name at least one disk, and at least one layer for each.")
    if min(params["deadline"], params["cpu_limit"], params["memory_limit"]) < 1 or params["max_file_size"] < 0:
        raise BadInput("Cannot scan with a limit below 1 (only max_file_size may be 0).")
    disks = tuple(
        (disk["name"], tuple(LayerSpec(layer["path"], layer["format"]) for layer in disk["layers"]), disk["snapshot"])
        for disk in params["disks"]
    )
    return Request(
        disks=disks,
        rules=tuple(params["rules"]),
        clamd_socket=params["clamd_socket"] or "",
        engines_required=tuple(params["engines_required"]),
        max_file_size=params["max_file_size"],
        progress_file=params["progress_file"] or "",
        limits=Limits(params["deadline"], params["memory_limit"] << 20, params["cpu_limit"]),
    )


def told(result: dict[str, Any]) -> str:
    """The result in one line."""
    found = f", {result['findings_count']} findings" if result["findings_count"] else ""
    why = f"; {result['incomplete_reasons'][0]}" if result["incomplete_reasons"] else ""
    megabytes = result["bytes_read"] / 1e6
    return f"{result['verdict']} ({result['files']} files, {megabytes:.0f} MB, {result['seconds']:.1f} s{found}){why}"


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = scan(to_request(module.params))
    except BadInput as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, msg=told(result), **result)


if __name__ == "__main__":
    main()
