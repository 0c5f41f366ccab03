#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scan the disks of a running VM from outside, as they are at one moment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_disk_scan
short_description: Scan the disks of a running VM for malware without an agent and without stopping it
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Scans as M(vmward.remediation.disk_scan) does, with the same verdicts, the disks of a VM that runs or is paused.
    The guest runs on and can write.
  - All disks are read as they were at one moment, RV(frozen_at), as after a power cut. QEMU serves them read only on
    a UNIX socket, by libvirt's backup job in pull mode; nothing is copied, the VM's images, chain, wiring and
    definition are not changed (but for a O(checkpoint), if asked for), and its chain is read back afterwards.
  - What the guest overwrites meanwhile is kept in O(scratch), which goes with the job. If that directory fills up,
    writes of the guest fail. So room for all that the disks hold must be free, see O(free_space_factor).
  - While it runs the VM can be isolated, paused and powered off, but neither be exported nor get a snapshot. A VM
    that is powered off meanwhile makes the verdict V(incomplete).
  - When the task ends, or is ended by a signal that can be heeded, the job ends. If it is killed, the next
    M(vmward.remediation.vm_disk_scan) or M(vmward.remediation.vm_disk_export) on this VM ends the job first. It ends
    with the VM at the latest.
  - A disk on a golden image that is known in O(index_directory) is compared with it, and what differs is judged. All
    that is allocated is read for that, since the hypervisor does not tell in which layer it lies.
  - Only libvirt can do it so far.
requirements:
  - libvirt-python, libvirt 7.2 or later, QEMU 5.2 or later
  - yara-x (Python library, for the engine V(yara))
  - clamd (for the engine V(clamd))
attributes:
  check_mode:
    support: full
    description:
      - Nothing is frozen and nothing is read, so the verdict is V(incomplete). Whether it could be done is checked.
  diff_mode:
    support: none
    description: Nothing changes but the checkpoint, which RV(checkpoint) tells.
  platform:
    support: full
    platforms: linux
    description: Runs on the VM's data host, the host on which its QEMU runs.
options:
  vm:
    description: The VM, by name, id (UUID), MAC address or IP address. It must match exactly one.
    type: str
    required: true
  only:
    description: The one hypervisor that holds the VM. May be left out when only one is configured.
    type: list
    elements: str
    default: []
  disks:
    description: The disks, by their name on the VM. Empty means every disk that the guest can write.
    type: list
    elements: str
    default: []
  scratch:
    description:
      - Directory on the data host in which QEMU keeps what the guest overwrites meanwhile. It is made if missing,
        must belong to the user of the task, and must be reachable for the user that QEMU runs as.
    type: path
    default: /var/lib/vmward/scratch
  free_space_factor:
    description:
      - How many times all that the disks hold must be free in O(scratch), since the guest may overwrite all of it.
        V(0) skips the check.
    type: float
    default: 1.0
  index_directory:
    description:
      - Directory in which M(vmward.remediation.golden_index) keeps what it knows of golden images. Only root may
        write to it.
    type: path
  checkpoint:
    description:
      - With V(keep), a complete scan that finds nothing leaves a checkpoint on the VM, named C(vmward-scan-) and the
        time in nanoseconds. QEMU then remembers, in a dirty bitmap in each image, what the guest writes, also over
        stops and starts. The next scan with V(keep) reads only that. It needs O(index_directory), where what was found
        is kept.
      - At most one of these stays, that of the last such scan. A scan that is V(infected) or V(incomplete) leaves it,
        and adds none, so that what it found is found by the next one too.
      - Whatever is doubtful leads to a scan of everything, and RV(checkpoint.why) says what it is. No record or no
        checkpoint, one that a crash of QEMU or of the host left unfinished, a later one by a scan that did not end,
        other rules, engines or limits, another disk, size or chain, or an image below that was touched.
      - It asks for a persistent VM whose images are qcow2 of version 3.
      - QEMU does not revert images with dirty bitmaps. So before vmward takes a snapshot of the VM or reverts it, it
        removes this checkpoint. Of a VM that is off, QEMU is started for that without running the guest. By hand,
        use V(remove), or C(virsh checkpoint-delete) while the VM is on.
      - V(remove) removes it first and scans as V(none), which neither uses nor removes one. Checkpoints of others are
        never touched.
    type: str
    choices: [none, keep, remove]
    default: none
extends_documentation_fragment:
  - vmward.remediation.hypervisors
  - vmward.remediation.scan
  - vmward.remediation.scan.files
seealso:
  - module: vmward.remediation.disk_scan
  - name: Checkpoints of libvirt
    description: What remembers writes.
    link: https://libvirt.org/formatcheckpoint.html
  - name: Backup jobs of libvirt
    description: The mechanism.
    link: https://libvirt.org/formatbackup.html
  - name: Scanning
    description: What is read, how, and what a verdict means.
    link: https://github.com/vmward/vmward.remediation/blob/main/docs/scanning.md
"""

EXAMPLES = r"""
- name: Scan the disks of desk1 while it runs
  vmward.remediation.vm_disk_scan:
    hypervisors: "{{ vmward_hypervisors }}"
    vm: desk1
    rules:
      - /etc/vmward/rules
    index_directory: /var/lib/vmward/index
  delegate_to: kvm1
  become: true

- name: Scan what desk1 wrote since its last clean scan
  vmward.remediation.vm_disk_scan:
    hypervisors: "{{ vmward_hypervisors }}"
    vm: desk1
    rules:
      - /etc/vmward/rules
    index_directory: /var/lib/vmward/index
    checkpoint: keep
  delegate_to: kvm1
  become: true
"""

RETURN = r"""
frozen_at:
  description: The moment of which the disks were read (UTC, RFC 3339). Empty in check mode.
  type: str
  returned: success
checkpoint:
  description: With O(checkpoint=keep), what was relied on and what is left; otherwise all are empty.
  type: dict
  returned: success
  contains:
    since: {description: "Only what was written since this one was read; empty if everything was.", type: str}
    why:
      description:
        - Why everything was read, why a clean scan left no checkpoint, and what could not be removed; empty if all is
          in order.
        - A failure to keep or to remove changes nothing in the verdict. The next scan tries again.
      type: str
    kept: {description: "The checkpoint that the VM has now, from which the next scan goes on.", type: str}
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
  description:
    - What is said of each disk, in the order asked for. Disks that hold LVM share what is said of all of them.
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
      description:
        - V(full), V(delta) (what differs from a clean base, or was written since the last clean scan), or V(same)
          (nothing does, or was).
      type: str
bases:
  description: For each disk, whether it was scanned on top of an indexed base, or since a checkpoint.
  type: list
  elements: dict
  returned: success
  contains:
    disk: {description: Name of the disk., type: str}
    base: {description: "Path of the base's top layer, or name of the checkpoint.", type: str}
    used: {description: Whether only what differs from it was scanned., type: bool}
    why: {description: "Why not, if not.", type: str}
    indexed: {description: "When it was indexed or scanned, in seconds since 1970.", type: int}
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
          V(mtime_kept) (new content, old modification time) or V(mtime_forged) (new content, and no time tells of
          it). Since a checkpoint contents cannot be compared, so that V(content) is told from size, map and
          modification time, and the last two are not told.
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

import time
from typing import Any

from ansible_collections.vmward.remediation.plugins.module_utils._argspec import hypervisors_spec
from ansible_collections.vmward.remediation.plugins.module_utils._connect import chosen_names, connect
from ansible_collections.vmward.remediation.plugins.module_utils._errors import Refused, VmwardError, attempt
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.live import Terms, not_scanned, scan_live
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.scratch import Scratch
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.task import the_vm
from ansible_collections.vmward.remediation.plugins.module_utils._module import Module
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import BadInput
from ansible_collections.vmward.remediation.plugins.module_utils._scan.options import file_spec, request_of
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import in_one_line

ARGUMENTS = {
    **hypervisors_spec(),
    "vm": {"type": "str", "required": True},
    "only": {"type": "list", "elements": "str", "default": []},
    "disks": {"type": "list", "elements": "str", "default": []},
    "scratch": {"type": "path", "default": "/var/lib/vmward/scratch"},
    "free_space_factor": {"type": "float", "default": 1.0},
    "index_directory": {"type": "path"},
    "checkpoint": {"type": "str", "choices": ["none", "keep", "remove"], "default": "none"},
    **file_spec(),
}


def whole(params: dict[str, Any], check: bool) -> dict[str, Any]:
    names = chosen_names(params["hypervisors"], params["only"])
    if len(names) != 1:
        raise Refused("Cannot tell which hypervisor holds %s: name its own with only: [...]." % params["vm"])
    try:
        request = request_of(params)
    except BadInput as exc:
        raise Refused(str(exc)) from exc
    terms = Terms(Scratch(params["scratch"]), params["free_space_factor"], time.monotonic() + params["deadline"])
    hypervisor = connect(names[0], params["hypervisors"][names[0]], on_data_host=True)
    try:
        vm = the_vm(hypervisor, params["vm"])
        if check:
            return not_scanned(hypervisor, vm, params["disks"], terms)
        return scan_live(hypervisor, vm, params["disks"], request, terms, params["checkpoint"])
    finally:
        hypervisor.close()


def main() -> None:
    module = Module(ARGUMENTS)
    try:
        result = attempt("scan %s" % module.params["vm"], whole, module.params, module.check_mode)
    except VmwardError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(msg=in_one_line(result), **result)


if __name__ == "__main__":
    main()
