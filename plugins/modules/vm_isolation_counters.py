#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_isolation_counters
short_description: Read on a KVM host what passed the taps of VMs, and whether the filter still holds them
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Runs on the KVM host. Reads the kernel's counters of each VM's tap and of the chains that libvirt made from the
    network filter. The hypervisor's own word is not asked, so that a filter that somebody flushed is seen.
  - Called twice, the second time with O(since), it tells what came from the guest, what of it was dropped, and what
    reached the guest in between.
  - It judges nothing and changes nothing. M(vmward.remediation.isolation_proof) judges.
requirements:
  - Linux, root, and C(ebtables)
attributes:
  check_mode:
    description: It only reads.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
  platform:
    description: The KVM host that runs the VMs.
    platforms: linux
    support: full
options:
  nics:
    description: The NICs to read.
    type: list
    elements: dict
    required: true
    suboptions:
      vm:
        description: The name of the VM, returned as given.
        type: str
        required: true
      mac:
        description: The MAC address of the NIC, returned as given.
        type: str
        required: true
      device:
        description: The tap on this host, for example V(vnet3).
        type: str
        required: true
  since:
    description: The RV(nics) of an earlier call.
    type: list
    elements: dict
    default: []
seealso:
  - module: vmward.remediation.vm_isolation_probe
"""

EXAMPLES = r"""
- name: Read the tap of desk1
  vmward.remediation.vm_isolation_counters:
    nics:
      - vm: desk1
        mac: 52:54:00:56:00:11
        device: vnet3
  delegate_to: kvm1
  become: true
  register: before

- name: Read it again, and see what passed in between
  vmward.remediation.vm_isolation_counters:
    nics:
      - vm: desk1
        mac: 52:54:00:56:00:11
        device: vnet3
    since: "{{ before.nics }}"
  delegate_to: kvm1
  become: true
"""

RETURN = r"""
nics:
  description: One result for each NIC, in the order given.
  returned: success
  type: list
  elements: dict
  contains:
    vm:
      description: The VM, as given.
      type: str
    mac:
      description: The MAC address, as given.
      type: str
    device:
      description: The tap, as given.
      type: str
    shown:
      description: Whether the counters could be read, and compared where O(since) was given.
      type: bool
    reason:
      description: Why not.
      type: str
    broken:
      description: >-
        Why the kernel's chains do not hold the tap. Empty when both directions lead to a chain of libvirt's that ends
        by dropping everything.
      type: str
    accepts:
      description: How many rules in these chains let something pass, V(0) for a sealed NIC.
      type: int
    sample:
      description: The raw counters, for O(since).
      type: dict
    delta:
      description: >-
        Frames since the earlier call. C(from_guest) and C(to_guest) are the tap's, C(dropped) and C(accepted) those of
        the chain for frames from the guest, C(passed) the most that may have got past the drop, C(from_host) those of
        C(to_guest) that the host's own IPv6 sent on the tap.
      type: dict
  sample:
    - vm: desk1
      mac: 52:54:00:56:00:11
      device: vnet3
      shown: true
      reason: ""
      broken: ""
      accepts: 0
      delta: {from_guest: 0, to_guest: 0, from_host: 0, dropped: 0, accepted: 0, passed: 0}
uptime:
  description: Seconds since the host was started, to measure the time between two calls.
  returned: success
  type: float
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmward.remediation.plugins.module_utils._proof.taps import Taps, read_all

SPEC = {
    "nics": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "vm": {"type": "str", "required": True},
            "mac": {"type": "str", "required": True},
            "device": {"type": "str", "required": True},
        },
    },
    "since": {"type": "list", "elements": "dict", "default": []},
}


def main() -> None:
    """Read every NIC; one that cannot be read says so and never hides another."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    ebtables = module.get_bin_path("ebtables", opt_dirs=["/usr/sbin", "/sbin"])

    def listing() -> str:
        status, out, err = module.run_command([ebtables, "--concurrent", "-t", "nat", "-L", "--Lc"])
        if status:
            raise ValueError(f"ebtables failed: {err.strip()[:300]}")
        return str(out)

    taps = Taps(listing if ebtables else None)
    module.exit_json(changed=False, **read_all(taps, module.params["nics"], module.params["since"]))


if __name__ == "__main__":
    main()
