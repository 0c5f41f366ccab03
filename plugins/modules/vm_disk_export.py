#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_disk_export
short_description: Take the disks of a VM as evidence
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Writes each disk, its whole chain of images in one, as a sparse qcow2 image and keeps it in the case's store.
  - A running or paused VM is read through the hypervisor's backup job, at the moment at which the job begins. A
    stopped VM's images are converted with the formats that the hypervisor states, none is probed, and QEMU's locks
    keep the VM from starting meanwhile.
  - On Proxmox VE a running or paused VM whose disks are all qcow2 images is read from a snapshot within them, which is
    removed once the copy is whole. On other storages the disk is taken from the stream of a backup (C(vzdump)) on the
    VM's node, for which the task needs root there; a disk that backups leave out (C(backup=0)) is refused.
  - The disks of a running VM are each of their own moment. Pause it first to have one moment for all.
  - Size, time and free space are looked at first. The image is then read exactly once, for its hash and the copy
    together, and goes straight to the evidence host.
  - An artefact that is whole is not taken again. One whose sidecar does not name the VM's id
    and hypervisor is refused. What a killed run left is ended and removed by the next one, which
    takes it anew.
  - The action of this module runs it as an asynchronous job and prints its progress.

extends_documentation_fragment:
  - vmward.remediation.hypervisors
  - vmward.remediation.evidence
  - vmward.remediation.evidence.vm
  - vmward.remediation.evidence.long
attributes:
  check_mode:
    description: Can run in check mode and return the changed status that a real run would return.
    support: full
  diff_mode:
    description: Returns what changed, or would change, when in diff mode.
    support: none
  platform:
    description: Runs on the VM's data host, the host that can read its disks.
    platforms: posix
    support: full
options:
  deadline:
    default: 43200
  disks:
    description:
      - The disks, by their name on the VM. Empty means every disk that the guest can write.
    type: list
    elements: str
    default: []
seealso:
  - module: vmward.remediation.case_ledger
  - name: Backup jobs of libvirt
    description: The mechanism for a running VM on libvirt.
    link: https://libvirt.org/formatbackup.html
  - name: Backup and restore of Proxmox VE
    description: The mechanism on Proxmox VE where no snapshot can be read.
    link: https://pve.proxmox.com/pve-docs/vzdump.1.html
  - name: Export leases of vSphere
    description: The mechanism on vSphere, on a snapshot of a VM that is not stopped.
    link: https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.HttpNfcLease.html
"""

EXAMPLES = r"""
- name: Take the disks of desk1
  vmward.remediation.vm_disk_export:
    hypervisors: "{{ vmward_hypervisors }}"
    vm: desk1
    case: 2026-0142
    dest:
      path: /srv/cases/2026-0142
  delegate_to: kvm1
"""

RETURN = r"""
available:
  description: Whether there was anything to take. If not, RV(evidence) says why.
  type: bool
  returned: success
artefacts:
  description:
    - What is stored now, each file and its sidecar, in the form that M(vmward.remediation.case_ledger) takes.
  type: list
  elements: dict
  returned: success
  contains:
    path:
      description: The file, relative to the case's directory.
      type: str
      returned: always
      sample: evidence/data/5f0c1f0e-6b5a-4b0e-9d3b-3f6a7c1f2a11/disk-vda.qcow2
    size:
      description: Its size in bytes.
      type: int
      returned: always
    sha256:
      description: Its SHA-256, from the one reading that made the copy.
      type: str
      returned: always
    method:
      description: How it was taken.
      type: str
      returned: always
    taken_at:
      description: When taking it began (UTC, RFC 3339).
      type: str
      returned: not for sidecars
    seconds:
      description: Time from the order to the whole artefact, in seconds.
      type: float
      returned: not for sidecars
    freeze_seconds:
      description: Seconds that the guest stood still for it.
      type: float
      returned: not for sidecars
    freeze_measured_by:
      description: Who measured that, and whether it is an upper bound.
      type: str
      returned: not for sidecars
    location:
      description: The host and path where it lies.
      type: str
      returned: not for sidecars
    tools:
      description: The programs that took it, with their versions.
      type: dict
      returned: not for sidecars
taken:
  description: The names of the artefacts that this run took (in check mode, would take).
  type: list
  elements: str
  returned: success
evidence:
  description:
    - The state of the class C(disks) for the order-of-volatility gate, C(stored) or C(unavailable) with its reason.
      Empty while nothing can be said, as in check mode.
  type: dict
  returned: success
  sample: {disks: {state: stored}}
estimate:
  description: The C(bytes) and C(seconds) that were expected of what was still to be taken.
  type: dict
  returned: when there was something to take
vm:
  description: The VM's C(id), C(name) and C(hypervisor), and its C(power) read after the work.
  type: dict
  returned: success
msg:
  description: What happened, in a sentence.
  type: str
  returned: always
seconds:
  description: Time for the whole task, in seconds.
  type: float
  returned: always
"""

from ansible_collections.vmward.remediation.plugins.module_utils._evidence.task import long_spec, run
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.verbs import export_disks


def main() -> None:
    """Run the verb on the VM."""
    disks = {"disks": {"type": "list", "elements": "str", "default": []}}
    run({**long_spec(43200), **disks}, export_disks)


if __name__ == "__main__":
    main()
