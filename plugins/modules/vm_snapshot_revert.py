#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_snapshot_revert
short_description: Bring VMs back to a snapshot, isolated again before anything else
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Reverts the disks of VMs to a snapshot; the memory only where asked for, since it would bring running malware back.
  - A revert brings the snapshot's wiring back too. The note on the VM and its isolation are put back before anything
    else, and the VM stays off (with O(memory), paused).
  - libvirt reverts external snapshots from version 9.9.0 on; on earlier ones they are refused before anything is
    touched.
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
  snapshot:
    description: The snapshot, by id or by a name that is unique in the VM's tree.
    type: str
    required: true
  memory:
    description: Bring the memory back as well; the VM then ends paused.
    type: bool
    default: false
  discard:
    description: For a VM that no case holds, accept that its present state is lost.
    type: bool
    default: false
  gate:
    description:
      - What the case's ledger says about the evidence of each VM, the RV(vmward.remediation.case_ledger#module:gate)
        that M(vmward.remediation.case_ledger) returns when it reads a case.
      - A VM that is held by a case is refused while a class of evidence that this verb destroys is neither stored nor
        unavailable nor waived.
    type: dict
    default: {}
seealso:
  - name: libvirt snapshots
    description: The calls behind this module on libvirt.
    link: https://libvirt.org/html/libvirt-libvirt-domain-snapshot.html
"""

EXAMPLES = r"""
- name: Go back to the clean point
  vmward.remediation.vm_snapshot_revert:
    hypervisors: "{{ vmward_hypervisors }}"
    vms: [desk1]
    snapshot: clean-baseline
    gate: "{{ ledger.gate }}"
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
      description: The C(power) state, the C(isolation) and the C(current_snapshot).
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
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert


def main() -> None:
    """Run the verb over the VMs asked for."""
    spec = {
        **batch_spec(600),
        "snapshot": {"type": "str", "required": True},
        "memory": {"type": "bool", "default": False},
        "discard": {"type": "bool", "default": False},
        "gate": {"type": "dict", "default": {}},
    }
    run(spec, lambda params: Revert(params["snapshot"], params["memory"], params["discard"], params["gate"]))


if __name__ == "__main__":
    main()
