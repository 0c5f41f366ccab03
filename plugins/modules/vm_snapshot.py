#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_snapshot
short_description: Take or remove snapshots of VMs
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Takes a snapshot of the disks, with memory only where asked for, or removes one.
  - Removes none of a VM that a case holds, since it may be evidence or the way back.
  - On libvirt a snapshot of a stopped VM, and one with memory, lies inside the qcow2 file; one of a running VM's
    disks is an external overlay.
  - On libvirt the checkpoint that a scan of the running VM left (see M(vmward.remediation.vm_disk_scan)) is removed
    first, since libvirt and QEMU refuse otherwise. Of a stopped VM, QEMU is started for that without running the guest.
extends_documentation_fragment:
  - vmward.remediation.hypervisors
  - vmward.remediation.hypervisors.batch
attributes:
  check_mode:
    description: Can run in check mode and return the changed status that a real run would return.
    support: full
  diff_mode:
    description: Returns what changed, or would change, when in diff mode.
    support: full
  platform:
    description: Runs where the hypervisors' APIs can be reached, usually the controller.
    platforms: posix
    support: full
options:
  deadline:
    default: 600
  name:
    description: Name of the snapshot; for V(absent) also its id. Unique anywhere in the VM's tree.
    type: str
    required: true
  state:
    description: Whether the snapshot should be there.
    type: str
    choices: [present, absent]
    default: present
  description:
    description: Text kept with the snapshot.
    type: str
    default: ""
  memory:
    description: Keep the memory of the running VM too.
    type: bool
    default: false
  quiesce:
    description:
      - Have the guest hold its file systems still while a snapshot without memory is taken, so that they are consistent
        in it. A running VM needs the QEMU guest agent (on vSphere VMware Tools); a stopped one is still by itself.
      - It asks the guest, which may be in an attacker's hands and may hold up the snapshot. Do not ask it of a VM that
        is to be contained.
      - Where the guest cannot be asked nothing is touched and the VM fails. When the guest does not obey the VM fails
        too; on Proxmox VE the snapshot is there then, and is told.
    type: bool
    default: false
seealso:
  - name: libvirt snapshots
    description: The XML behind this module on libvirt.
    link: https://libvirt.org/formatsnapshot.html
"""

EXAMPLES = r"""
- name: Take a snapshot before the patch
  vmward.remediation.vm_snapshot:
    hypervisors: "{{ vmward_hypervisors }}"
    vms: [app1]
    name: before-patch

- name: Take one that a database can be started from
  vmward.remediation.vm_snapshot:
    hypervisors: "{{ vmward_hypervisors }}"
    vms: [db1]
    name: nightly
    quiesce: true
"""

RETURN = r"""
vms:
  description: One outcome for each VM asked for, in the order given.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The VM as it was asked for.
      type: str
      returned: always
    id:
      description: The id on its hypervisor (a UUID on libvirt).
      type: str
      returned: always
    hypervisor:
      description: The name of its hypervisor.
      type: str
      returned: always
    changed:
      description: Whether this VM was changed (in check mode, would be).
      type: bool
      returned: always
    failed:
      description: Whether this VM failed.
      type: bool
      returned: always
    msg:
      description: What happened, and what to do.
      type: str
      returned: always
    steps:
      description: The steps taken (in check mode, to be taken), in plain words.
      type: list
      elements: str
      returned: always
    before:
      description: The names of the VM's C(snapshots).
      type: dict
      returned: always
    after:
      description: The same, read back from the hypervisor afterwards (in check mode, predicted).
      type: dict
      returned: always
    warnings:
      description: What else the reader should know.
      type: list
      elements: str
      returned: always
    seconds:
      description: Time until this hypervisor's VMs were done, in seconds.
      type: float
      returned: always
    task:
      description: The id of what is still running, where something is.
      type: str
      returned: always
seconds:
  description: Time for the whole task, log-in included, in seconds.
  returned: success
  type: float
"""

from ansible_collections.vmward.remediation.plugins.module_utils._argspec import batch_spec
from ansible_collections.vmward.remediation.plugins.module_utils._module import run
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import SetSnapshot


def main() -> None:
    """Run the verb over the VMs asked for."""
    spec = {
        **batch_spec(600),
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "description": {"type": "str", "default": ""},
        "memory": {"type": "bool", "default": False},
        "quiesce": {"type": "bool", "default": False},
    }
    keys = ("name", "state", "description", "memory", "quiesce")
    run(spec, lambda params: SetSnapshot(*(params[key] for key in keys)))


if __name__ == "__main__":
    main()
