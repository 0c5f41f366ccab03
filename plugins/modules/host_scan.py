#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scan the files of a live host for malware."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_scan
short_description: Scan the files of a live host for malware
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Lets YARA-X and ClamAV judge every regular file of the host that the task runs on, below some paths. It is for the
    hypervisor's host, for the servers that an infected VM talked to, and for a whole group of hosts.
  - The files are read by a child process that may read every file and do nothing else. It cannot write, has no network,
    and yields to others in processor time and disk access.
  - The verdict is V(clean) only if everything was read and every engine judged everything. Whatever could not be read
    makes it V(incomplete), with the reason. A match makes it V(infected), whatever else happened.
  - A live host is read through its own kernel. A rootkit can hide files there, so V(clean) says less here than of a
    disk that is read from outside with M(vmward.remediation.disk_scan).
  - Symbolic links are not followed. File systems of the kernel, and those whose files lie on another host, are left
    out. The access times of files change, unless their file system is mounted with C(noatime).
requirements:
  - yara-x (Python library, for the engine V(yara))
  - clamd (for the engine V(clamd))
  - ionice (util-linux), for O(idle_io)
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
    description: The operating system of the host.
options:
  paths:
    description: Files and directories to be read, with all that is below them.
    type: list
    elements: path
    default: [/]
  exclude:
    description:
      - Files and directories that are not read. RV(coverage_notes) names them.
      - Leave out the disk images of VMs; M(vmward.remediation.disk_scan) looks into them.
    type: list
    elements: path
    default: []
  index_directory:
    description:
      - Directory in which contents that were found clean are remembered by their SHA-256, so that they are not judged
        twice by the same rules and engines. Only root may write to it.
      - Who was root on the host can have written there too, so do without it where that may be.
    type: path
  nice:
    description: By how much it yields processor time to others, as C(nice) does.
    type: int
    default: 10
  idle_io:
    description: Whether it reads from disk only when nobody else does, as far as the host's I/O scheduler supports it.
    type: bool
    default: true
extends_documentation_fragment:
  - vmward.remediation.scan
  - vmward.remediation.scan.files
seealso:
  - module: vmward.remediation.disk_scan
  - name: Scanning
    description: What is read, how, and what a verdict means.
    link: https://github.com/vmward/vmward.remediation/blob/main/docs/scanning.md
"""

EXAMPLES = r"""
- name: Scan a KVM host, but not the disks of its VMs
  vmward.remediation.host_scan:
    exclude:
      - /var/lib/libvirt/images
    rules:
      - /etc/vmward/rules
  become: true
  register: kvm1_scan

- name: Scan where web shells land, on a server that was talked to
  vmward.remediation.host_scan:
    paths:
      - /srv/www
      - /tmp
      - /var/tmp
      - /dev/shm
    rules:
      - /etc/vmward/rules
    clamd_socket: /run/clamav/clamd.ctl
    engines_required: [yara, clamd]
  become: true
"""

RETURN = r"""
msg:
  description: The result in one line.
  type: str
  returned: success
  sample: clean (120312 files, 5310 MB, 41.2 s)
verdict:
  description: V(clean), V(infected) or V(incomplete).
  type: str
  returned: success
  sample: clean
findings:
  description: The files that matched, one entry per file, engine and rule; at most 1000.
  type: list
  elements: dict
  returned: success
  contains:
    disk: {description: Always V(host)., type: str}
    volume: {description: "Number of the file system in RV(volumes), from 1.", type: int}
    path: {description: "Path, with unprintable characters escaped and long names cut.", type: str}
    rule: {description: Rule or signature that matched., type: str}
    engine: {description: Engine that found it., type: str}
    size: {description: Size of the file in bytes., type: int}
    offset: {description: "Byte of the first match in the file, V(-1) if the engine does not say.", type: int}
    sha256: {description: "SHA-256 of the file, empty for one above 4 GiB.", type: str}
findings_count:
  description: Number of findings, also of those past the 1000.
  type: int
  returned: success
indicators:
  description: Files that match addresses, domains, or rules that only hint at malware; each as in RV(findings).
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
  description: The file systems that were read, and each path that was asked for.
  type: list
  elements: dict
  returned: success
  contains:
    disk: {description: Always V(host)., type: str}
    index: {description: Its number., type: int}
    start: {description: Always V(0)., type: int}
    size: {description: Always V(0)., type: int}
    type: {description: The kind of file system., type: str, sample: ext4}
    read: {description: Whether all of it was read and judged., type: bool}
    method: {description: Always V(full)., type: str}
engines:
  description:
    - The engines that passed their self-test, with version and, for YARA, the rule files.
    - Of clamd also C(database) (what its signatures are known as, or V(unknown), when nothing that it judged is relied
      on later), C(database_age_days) of its official signatures, V(null) without such, C(limits) (V(told) or V(silent))
      and C(archives) (V(opened) or V(closed)).
  type: list
  elements: dict
  returned: success
archives_unopened:
  description:
    - Archives and packed files that were neither unpacked here nor given to an engine that is known to open them.
      They were matched as they are. ClamAV opens 7z and cab. Others (rar; zstd and lz4 without their libraries) count
      beside it too.
  type: int
  returned: success
coverage_notes:
  description: What was left out, and what a scan of a live host cannot show.
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

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmward.remediation.plugins.module_utils._scan.host import scan_host
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import BadInput
from ansible_collections.vmward.remediation.plugins.module_utils._scan.options import file_spec, request_of
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import in_one_line

ARGUMENTS = {
    "paths": {"type": "list", "elements": "path", "default": ["/"]},
    "exclude": {"type": "list", "elements": "path", "default": []},
    "index_directory": {"type": "path"},
    "nice": {"type": "int", "default": 10},
    "idle_io": {"type": "bool", "default": True},
    **file_spec(),
}


def yield_to_others(module: AnsibleModule) -> None:
    os.nice(min(19, max(0, module.params["nice"])))
    program = module.get_bin_path("ionice")
    if module.params["idle_io"] and program:
        module.run_command([program, "-c", "3", "-p", str(os.getpid())])
    elif module.params["idle_io"]:
        module.warn("The program ionice is missing: disk access does not yield to others.")


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        request = request_of(module.params, dry=module.check_mode)
        yield_to_others(module)
        result = scan_host(request, module.params["paths"], module.params["exclude"])
    except BadInput as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, msg=in_one_line(result), **result)


if __name__ == "__main__":
    main()
