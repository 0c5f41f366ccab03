#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_info
short_description: Tell all that a hypervisor knows about VMs
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Reads identity, power, network cards with MAC, IP, network, link and isolation, disks with their backing chains,
    the snapshot tree and vmward's own note on the VM.
  - Nothing is changed, and nothing is asked of the guest. Addresses come from DHCP leases and the host's ARP table.
extends_documentation_fragment:
  - vmward.remediation.hypervisors
  - vmward.remediation.hypervisors.batch
attributes:
  check_mode:
    description: Can run in check mode and return the changed status that a real run would return.
    support: full
  diff_mode:
    description: Returns what changed, or would change, when in diff mode.
    support: none
  platform:
    description: Runs where the hypervisors' APIs can be reached, usually the controller.
    platforms: posix
    support: full
options:
  deadline:
    default: 60
seealso:
  - name: libvirt domain API
    description: The calls behind this module on libvirt.
    link: https://libvirt.org/html/libvirt-libvirt-domain.html
"""

EXAMPLES = r"""
- name: Tell what is known about desk1
  vmward.remediation.vm_info:
    hypervisors: "{{ vmward_hypervisors }}"
    vms: [desk1]
  register: info
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
      description: >-
        All that is known, with C(power), C(isolation), C(nics), C(disks), C(snapshots), C(note), C(memory) (bytes).
        Of a VM that is suspended to disk also C(kept_memory), where that memory lies if
        M(vmward.remediation.vm_memory_dump) can take it from there.
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
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.info import Info


def main() -> None:
    """Run the verb over the VMs asked for."""
    spec = batch_spec(60)
    run(spec, lambda params: Info())


if __name__ == "__main__":
    main()
