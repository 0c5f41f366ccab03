#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scan the memory of a VM, taken as evidence, for malware."""

from __future__ import annotations

DOCUMENTATION = r"""
module: memory_scan
short_description: Scan a memory dump for malware
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Matches a memory dump, as M(vmward.remediation.vm_memory_dump) takes it, with YARA-X, in overlapping parts.
  - Runs where the dump lies, on the evidence host. Nothing is written to it. It is read by a child process without any
    rights, since its content is hostile.
  - A match in memory is an indicator, since memory also holds what was merely received or looked for (the signatures of
    an antivirus program, for one). So the verdict is never V(infected). It is V(clean) only if all of the memory was
    read and nothing matched, and V(incomplete) else.
  - Rules that ask for the size or the start of a file mostly cannot match in memory, so V(clean) says less here than of
    a disk.
requirements:
  - yara-x (Python library)
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
    description: The operating system of the evidence host.
options:
  path:
    description: The memory dump. It must not be a symbolic link.
    type: path
    required: true
  format:
    description:
      - What the file is. It is never probed.
      - V(elf) is the core that libvirt and vSphere give, V(qemu-state) what Proxmox VE gives, V(raw) bare bytes such as
        a C(.vmem) file.
      - A file that is not what its format says is matched all the same, and the verdict is V(incomplete).
    type: str
    choices: [elf, qemu-state, raw]
    default: elf
extends_documentation_fragment:
  - vmward.remediation.scan
seealso:
  - module: vmward.remediation.vm_memory_dump
  - name: Scanning
    description: What is read, how, and what a verdict means.
    link: https://github.com/vmward/vmward.remediation/blob/main/docs/scanning.md
"""

EXAMPLES = r"""
- name: Look for malware in the memory of desk1
  vmward.remediation.memory_scan:
    path: /srv/cases/2026-0142/evidence/data/desk1-20260514T101500Z/memory.elf
    rules:
      - /etc/vmward/rules
    indicators:
      - /etc/vmward/notice-2026-0142.yml
  delegate_to: evidence1
  register: desk1_memory
"""

RETURN = r"""
msg:
  description: The result in one line.
  type: str
  returned: success
  sample: clean (0 files, 4295 MB, 3.1 s)
verdict:
  description: V(clean) or V(incomplete).
  type: str
  returned: success
  sample: incomplete
findings:
  description: Always empty. It stands here so that all scans answer alike.
  type: list
  elements: dict
  returned: success
findings_count:
  description: Always V(0).
  type: int
  returned: success
indicators:
  description: The matches, one entry per rule and part of 16 MiB; at most 1000.
  type: list
  elements: dict
  returned: success
  contains:
    disk: {description: Always V(memory)., type: str}
    volume: {description: "Number of the region in RV(volumes), from 1.", type: int}
    path: {description: Always V((memory))., type: str}
    rule: {description: Rule that matched., type: str}
    engine: {description: Engine that found it., type: str}
    size: {description: Size of the region in bytes., type: int}
    offset:
      description: Byte of the match in the region. The physical address in the guest is C(volumes[].start) plus this.
      type: int
    sha256: {description: Always empty., type: str}
indicators_count:
  description: Number of matches, also of those past the 1000.
  type: int
  returned: success
incomplete_reasons:
  description: Why the verdict is not V(clean), in sentences; at most 200.
  type: list
  elements: str
  returned: success
incomplete_count:
  description: Number of reasons, also of those past the 200.
  type: int
  returned: success
volumes:
  description: The regions of memory that the file holds.
  type: list
  elements: dict
  returned: success
  contains:
    disk: {description: Always V(memory)., type: str}
    index: {description: Number of the region., type: int}
    start: {description: "Its first physical address, V(0) for a file that does not say.", type: int}
    size: {description: Size in bytes., type: int}
    type: {description: The format., type: str}
    read: {description: Whether all of it was there and was matched., type: bool}
    method: {description: Always V(full)., type: str}
engines:
  description: The engines that passed their self-test, with version and rule files.
  type: list
  elements: dict
  returned: success
coverage_notes:
  description: What a scan of memory cannot show.
  type: list
  elements: str
  returned: success
files:
  description: Always V(0).
  type: int
  returned: success
bytes_read:
  description: Bytes matched.
  type: int
  returned: success
bytes_from_disk:
  description: Bytes read from the file.
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

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import BadInput
from ansible_collections.vmward.remediation.plugins.module_utils._scan.memory import FORMATS, scan_memory
from ansible_collections.vmward.remediation.plugins.module_utils._scan.options import request_of, scan_spec
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import in_one_line

ARGUMENTS = {
    "path": {"type": "path", "required": True},
    "format": {"type": "str", "choices": list(FORMATS), "default": "elf"},
    **scan_spec(),
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = scan_memory(request_of(module.params), module.params["path"], module.params["format"])
    except BadInput as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, msg=in_one_line(result), **result)


if __name__ == "__main__":
    main()
