#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_isolation
short_description: Cut VMs off from outside the guest, or free them
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Brings the network of VMs into one state, enforced by the hypervisor and out of the guest's reach, for the running
    VM and for its next start.
  - The former wiring is written onto the VM before the cut, and V(free) restores exactly that.
  - On libvirt V(sealed) means a network filter that drops every frame on each tap, and the link down. NICs that no
    filter can hold get the link down; when even that is impossible, every other NIC is cut and the module fails,
    naming the NIC.
  - On Proxmox VE V(sealed) means the link down on every NIC first, then the VM's firewall as second layer; V(forensic)
    moves the NICs to the quarantine bridge of the hypervisor's entry, with firewall rules for the collectors, which are
    stateful there. A second layer that cannot be confirmed is told as a warning. Passed-through network cards fail the
    module by name, as do NICs in QEMU's own arguments.
  - A VM that cannot be judged (on libvirt and vSphere a power state never seen or an undo note that cannot be read, on
    libvirt a NIC type never seen) is still cut as far as can be, and told. Every other verb refuses it.
  - A failure never opens a cut. A VM once isolated stays isolated.
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
    default: 120
  state:
    description:
      - V(sealed), nothing passes, no protocol, no direction.
      - V(forensic), only the O(collectors) are reached, at their ports.
      - V(free), the former wiring is restored from the note on the VM.
    type: str
    choices: [free, forensic, sealed]
    required: true
  case:
    description:
      - The case that holds the VM, written into the note on it. A VM that another case holds stays with that case.
      - Without it, a VM that no case holds gets a new one, named by the time in UTC.
    type: str
    default: ""
  collectors:
    description:
      - For V(forensic), the addresses and ports that pass. On libvirt the rules are stateless.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: IPv4 or IPv6 address of the collector.
        type: str
        required: true
      port:
        description: TCP or UDP port, the VM's when the collector opens the connection, else the collector's.
        type: int
        required: true
      protocol:
        description: Transport protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      opened_by:
        description: Who opens the connection.
        type: str
        choices: [collector, vm]
        default: collector
      via:
        description: Address of the gateway when the collector is on another segment.
        type: str
  keep_sessions:
    description:
      - For V(free), accept that the sessions that were open at the cut may resume (a false alarm). Without it, a VM
        that was not cold-started since its cut is refused.
    type: bool
    default: false
seealso:
  - name: libvirt network filters
    description: The mechanism behind the cut on libvirt.
    link: https://libvirt.org/formatnwfilter.html
"""

EXAMPLES = r"""
- name: Cut desk1 off
  vmward.remediation.vm_isolation:
    hypervisors: "{{ vmward_hypervisors }}"
    vms: [desk1]
    state: sealed
    case: 2026-0142

- name: Let only the collector at 192.0.2.10 reach SSH on it
  vmward.remediation.vm_isolation:
    hypervisors: "{{ vmward_hypervisors }}"
    vms: [desk1]
    state: forensic
    collectors:
      - address: 192.0.2.10
        port: 22

- name: Give desk1 its former wiring back
  vmward.remediation.vm_isolation:
    hypervisors: "{{ vmward_hypervisors }}"
    vms: [desk1]
    state: free
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
      description:
        - The C(isolation) of the VM, the C(case) that holds it, and each of its C(nics) with isolation and wiring.
        - On Proxmox VE also its C(firewall), where somebody has changed that of a VM that is cut and it is set again.
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

from ansible_collections.vmward.remediation.plugins.module_utils._argspec import batch_spec, collector_spec
from ansible_collections.vmward.remediation.plugins.module_utils._model import Collector, Isolation
from ansible_collections.vmward.remediation.plugins.module_utils._module import run
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation


def main() -> None:
    """Run the verb over the VMs asked for."""
    spec = {
        **batch_spec(120),
        "state": {"type": "str", "choices": ["free", "forensic", "sealed"], "required": True},
        "case": {"type": "str", "default": ""},
        "collectors": {"type": "list", "elements": "dict", "default": [], "options": collector_spec()},
        "keep_sessions": {"type": "bool", "default": False},
    }
    run(
        spec,
        lambda params: SetIsolation(
            Isolation(params["state"]),
            params["case"],
            [Collector(**collector) for collector in params["collectors"]],
            params["keep_sessions"],
        ),
    )


if __name__ == "__main__":
    main()
