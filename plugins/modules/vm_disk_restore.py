#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_disk_restore
short_description: Bring the disks of a stopped VM back from the images of a backup
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Gives disks of a stopped VM the content of images. Each image is copied into a new qcow2 file beside the disk's
    present image, the copy is compared with it, and then the VM's definition gets all new files at once.
  - The image itself is only read. It never becomes a disk of the VM, nor the base of one. The disk's former image stays
    where it is, and is named in the result.
  - Everything that can be refused is refused before the first write. So is an image that is not there, is no regular
    file, is not of the size of the disk, does not have the SHA-256 that was recorded, leans on another file (a backing
    file or an external data file), is encrypted or marked as corrupt; a backup that lacks a disk; and too little room.
  - A disk that holds the image's content already is left as it is. To know that, the image and the disk are compared.
    Before that the image is read for its hash, so that also check mode takes its time.
  - The VM stays off, and as isolated as it is. Only its disks are brought back, neither the firmware's variables nor a
    TPM's state.
  - A killed run leaves copies that nobody uses, beside the disk. The next run removes them.
  - The action of this module runs it as an asynchronous job and prints its progress.
extends_documentation_fragment:
  - vmward.remediation.hypervisors
  - vmward.remediation.evidence.vm
requirements:
  - qemu-img and setpriv
attributes:
  check_mode:
    description: Can run in check mode and return the changed status that a real run would return.
    support: full
  diff_mode:
    description: Returns what changed, or would change, when in diff mode.
    support: full
  platform:
    description: Runs on the VM's data host, the host that can read its disks.
    platforms: posix
    support: full
options:
  disks:
    description: The image of each disk.
    type: list
    elements: dict
    required: true
    suboptions:
      disk:
        description: The disk, by its name on the VM, such as V(vda).
        type: str
        required: true
      image:
        description: The file on the data host, whole by itself. It must not be a symbolic link.
        type: path
        required: true
      format:
        description: Its format, which is never probed. V(vmdk) is refused, for the time being.
        type: str
        required: true
        choices: [qcow2, raw, vmdk]
      sha256:
        description:
          - The SHA-256 of the file, as it was recorded when the backup was made. Without it the image is taken as it
            is, with a warning.
        type: str
        default: ""
  partial:
    description: Leave disks that are not named in O(disks) as they are. Else each that the guest can write must be.
    type: bool
    default: false
  discard:
    description:
      - Accept that the hypervisor forgets the VM's snapshots, which lie in the former images, and that a VM that no
        case holds leaves its present state. The content of both stays in the former images.
    type: bool
    default: false
  gate:
    description:
      - What the case's ledger says about the evidence of each VM, the RV(vmward.remediation.case_ledger#module:gate)
        that M(vmward.remediation.case_ledger) returns when it reads a case.
      - A VM that is held by a case is refused while a class of evidence is neither stored nor unavailable nor waived.
    type: dict
    default: {}
  deadline:
    description:
      - Seconds for the whole task, waiting for another run on the same VM included. What was copied by then is removed.
    type: int
    default: 43200
  scratch:
    description: Directory on the data host with the lock that lets one run at a time work on a VM's data.
    type: path
    default: /var/lib/vmward/scratch
  progress_file:
    description:
      - File on the data host to be replaced about once a second with the progress in JSON. Set by the action of this
        module, which prints it.
    type: path
    default: ""
  free_space_factor:
    description: How many times the size of the copies must be free beside the disks. V(0) skips the check.
    type: float
    default: 1.1
seealso:
  - module: vmward.remediation.clean_point
  - module: vmward.remediation.vm_snapshot_revert
  - name: Definition of a VM on libvirt
    description: The call behind this module on libvirt, and the disks in its XML.
    link: https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms
  - name: qemu-img
    description: The program that copies and compares.
    link: https://www.qemu.org/docs/master/tools/qemu-img.html
"""

EXAMPLES = r"""
- name: Bring desk1 back from last night's backup
  vmward.remediation.vm_disk_restore:
    hypervisors: "{{ vmward_hypervisors }}"
    vm: desk1
    disks:
      - disk: vda
        image: /backup/desk1-vda.qcow2
        format: qcow2
        sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    gate: "{{ ledger.gate }}"
  delegate_to: kvm1
"""

RETURN = r"""
name:
  description: The VM.
  type: str
  returned: when it was found
id:
  description: The id on its hypervisor (a UUID on libvirt).
  type: str
  returned: when the VM was found
hypervisor:
  description: The name of its hypervisor.
  type: str
  returned: when the VM was found
msg:
  description: What happened, and what to do.
  type: str
  returned: always
steps:
  description: The steps taken (in check mode, to be taken), in plain words.
  type: list
  elements: str
  returned: when the VM was found
before:
  description: The C(power) state, the C(isolation), the C(snapshots), and under C(disks) the chain of images of each.
  type: dict
  returned: when the VM was found
after:
  description: The same, read back from the hypervisor afterwards (in check mode, predicted).
  type: dict
  returned: when the VM was found
images:
  description: What was found of each image.
  type: list
  elements: dict
  returned: when the VM was found
  contains:
    disk: {description: The disk., type: str, returned: always}
    image: {description: The file that was read., type: str, returned: always}
    format: {description: Its format., type: str, returned: always}
    sha256: {description: "Its SHA-256, as it is now.", type: str, returned: always}
    size: {description: Bytes that the guest sees., type: int, returned: always}
    now: {description: The file that the disk is, type: str, returned: always}
    former:
      description: The disk's chain of images before, which stay where they are. Empty if the disk was left as it was.
      type: list
      elements: str
      returned: always
forgotten:
  description: Names of snapshots that the hypervisor has forgotten.
  type: list
  elements: str
  returned: when the VM was found
warnings:
  description: What else the reader should know.
  type: list
  elements: str
  returned: when there is something
task:
  description: The id of what is still running, where something is.
  type: str
  returned: when the VM was found
seconds:
  description: Time for the whole task, in seconds.
  type: float
  returned: when the VM was found
"""

from ansible_collections.vmward.remediation.plugins.module_utils._evidence.bring_back import run


def main() -> None:
    """Bring them back."""
    run()


if __name__ == "__main__":
    main()
