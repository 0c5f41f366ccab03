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
  - Nothing is mounted, and nothing is written to the disks. They are parsed by a child process without any rights,
    since their content is hostile.
  - Runs on the data host, the host that can read the disk images.
  - Several disks are read at once, each by a process of its own, and rules are loaded once for all of them. Disks that
    hold LVM are read together by one process. If a process dies, its own disk is V(incomplete), and no other.
  - The verdict is V(clean) only if everything was read and every engine judged everything. Whatever could not be read
    makes it V(incomplete), with the reason. A match makes it V(infected), whatever else happened.
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
  index_directory:
    description:
      - Directory in which M(vmward.remediation.golden_index) keeps what it knows of golden images. Only root may
        write to it.
      - If a disk stands on an image that was indexed, is unchanged since, and was found clean by the same rules,
        engines and
        limits, only what differs from it is scanned. Else the disk is scanned as a whole, and RV(bases) says why.
      - Contents that were found clean are remembered there by their SHA-256 too, and not judged twice.
    type: path
extends_documentation_fragment:
  - vmward.remediation.scan
  - vmward.remediation.scan.files
seealso:
  - name: Scanning
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

- name: Scan only what differs from the golden image, and look for what the notice named
  vmward.remediation.disk_scan:
    disks: "{{ info.vms[0].after.disks | vmward.remediation.disks_to_scan }}"
    rules:
      - /etc/vmward/rules
    indicators:
      - /etc/vmward/notice-2026-0142.yml
    index_directory: /var/lib/vmward/index
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
disks:
  description: What is said of each disk, in the order asked for. Disks that hold LVM share what is said of all of them.
  type: list
  elements: dict
  returned: success
  contains:
    name: {description: Name of the disk., type: str}
    verdict: {description: "As RV(verdict), for this disk.", type: str}
    findings_count: {description: Number of its findings., type: int}
    indicators_count: {description: Number of its indicators., type: int}
    incomplete_reasons: {description: Why its scan is not complete; at most 20., type: list, elements: str}
    incomplete_count: {description: Number of reasons., type: int}
    files: {description: Number of files judged., type: int}
    bytes_read:
      description: Bytes judged. With O(index_directory), contents found clean before are not judged again.
      type: int
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
    sha256: {description: "SHA-256 of the file, empty for one above 4 GiB.", type: str}
findings_count:
  description: Number of findings, also of those past the 1000.
  type: int
  returned: success
indicators:
  description:
    - Matches in raw bytes outside of files (boot sector, gaps, swap, unread volumes, attributes), of addresses and
      domains, and of rules that only hint at malware; each as in RV(findings).
      In raw bytes the offset counts from the start of the disk, or of the volume.
    - They may be leftovers or honest, so they make the verdict V(incomplete) and ask for a person's judgement.
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
    method:
      description: V(full), V(delta) (what differs from a clean base), or V(same) (nothing differs from it).
      type: str
bases:
  description: For each disk, whether it was scanned on top of an indexed base.
  type: list
  elements: dict
  returned: success
  contains:
    disk: {description: Name of the disk., type: str}
    base: {description: Path of the base's top layer., type: str}
    used: {description: Whether only what differs from it was scanned., type: bool}
    why: {description: "Why not, if not.", type: str}
    indexed: {description: "When it was indexed, in seconds since 1970.", type: int}
changes:
  description:
    - What happened to the files of the base, at most 2000. Empty when a disk was scanned as a whole.
    - Evidence of what was touched, whatever the verdict.
  type: list
  elements: dict
  returned: success
  contains:
    disk: {description: Name of the disk., type: str}
    volume: {description: "Number of the volume, V(0) for what lies outside of volumes.", type: int}
    kind:
      description: V(new), V(changed), V(deleted), V(renamed), V(linked), or V(orphan) (in use, but without a name).
      type: str
    path: {description: "Path in the guest, escaped; or in parentheses a part of the disk.", type: str}
    former: {description: "Path in the base, if it was renamed.", type: str}
    what:
      description:
        - What changed, separated by commas. V(content), V(mode), V(setuid), V(owner), V(capability), V(attributes),
          V(disk),
          V(mtime_kept) (new content, old modification time) or V(mtime_forged) (new content, and no time tells of it).
      type: str
    size: {description: Size in bytes., type: int}
    mode: {description: "Permissions in octal; empty on NTFS and FAT, which have none.", type: str}
    uid: {description: Owner., type: int}
    gid: {description: Group., type: int}
changes_count:
  description: How many of each kind, and of each that changed; also of those past the 2000.
  type: dict
  returned: success
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
  description: What was read otherwise than as files, or not at all by design; the first 200, and how many more.
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
bytes_from_disk:
  description: Bytes read from the images, those read for comparison included.
  type: int
  returned: success
seconds:
  description: Seconds the scan took.
  type: float
  returned: success
cpu_seconds:
  description: Seconds of processor time that the scanning processes took.
  type: float
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import BadInput, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.options import (
    DISK,
    disks_of,
    file_spec,
    request_of,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import in_one_line

ARGUMENTS = {
    "disks": {"type": "list", "elements": "dict", "required": True, "options": DISK},
    "index_directory": {"type": "path"},
    **file_spec(),
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = scan(request_of(module.params, disks_of(module.params["disks"]), module.check_mode))
    except BadInput as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, msg=in_one_line(result), **result)


if __name__ == "__main__":
    main()
