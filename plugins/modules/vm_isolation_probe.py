#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_isolation_probe
short_description: Try from a witness host whether isolated VMs can still be reached
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Runs on a witness, a Linux host that is neither one of the VMs nor the API of their hypervisor. Within one window it
    tries to reach each VM by ARP, ICMP, IPv6, TCP and UDP, and listens for any frame from its MAC address. ARP, ICMP
    and IPv6 are also sent in frames straight to the MAC address, so that no address resolution is needed.
  - In the same window it tries the control targets, hosts on the same segment that are known to answer. A silent VM
    means something only if a control target that is reached the same way has answered.
  - It judges nothing and changes nothing. M(vmward.remediation.isolation_proof) judges.
requirements:
  - Linux, and root for raw sockets
attributes:
  check_mode:
    description: In check mode nothing is sent, and the ways to the targets are returned.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
  platform:
    description: The witness.
    platforms: linux
    support: full
options:
  targets:
    description: The VMs to try.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name of the VM, returned as given.
        type: str
        required: true
      mac:
        description: The MAC address of one of its NICs.
        type: str
        required: true
      addresses:
        description: The IP addresses of that NIC, as known from outside the guest.
        type: list
        elements: str
        default: []
  controls:
    description: Addresses that must be reached in the same window, on the VMs' segment.
    type: list
    elements: str
    required: true
  window:
    description: Seconds that the window lasts, from V(1) to V(60). Packets are sent four times a second.
    type: int
    default: 3
  tcp_ports:
    description: TCP ports to try. A refusal is an answer too, so they need not be open.
    type: list
    elements: int
    default: [22, 445]
  udp_ports:
    description: UDP ports to try. A closed one is best, since it answers at once.
    type: list
    elements: int
    default: [9, 33434]
notes:
  - With more than 100 NICs, they are tried in groups, each with a window of its own.
seealso:
  - module: vmward.remediation.vm_isolation_counters
"""

EXAMPLES = r"""
- name: Try desk1 from the witness app1
  vmward.remediation.vm_isolation_probe:
    targets:
      - name: desk1
        mac: 52:54:00:56:00:11
        addresses: [192.168.86.11]
    controls: [192.168.86.1]
  delegate_to: app1
  become: true
"""

RETURN = r"""
targets:
  description: What was tried on each NIC, in the order given.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The VM.
      type: str
    mac:
      description: The MAC address.
      type: str
    addresses:
      description: The addresses tried.
      type: list
      elements: str
    tries:
      description:
        - By protocol (C(arp), C(icmp), C(ipv6), C(tcp), C(udp)), how many packets were C(sent), whether one was
          C(answered), and the last C(error) in sending.
      type: dict
    answered:
      description: The protocols by which the VM has answered. Empty when it was silent.
      type: list
      elements: str
    heard:
      description: Frames from the VM's MAC address that the witness heard, solicited or not.
      type: int
    ways:
      description: The interfaces used, and the gateway where the VM is not on the witness's own segment.
      type: list
      elements: dict
    controls:
      description: The control targets that answered in the same window and are reached the same way as this VM.
      type: list
      elements: str
    problem:
      description: Why this NIC could not be tried, empty when it was.
      type: str
controls:
  description: The control targets that answered at all.
  returned: success
  type: list
  elements: str
lost:
  description: Frames that the witness was too busy to hear.
  returned: success
  type: int
window:
  description: How long the shortest window really was, in seconds.
  returned: success
  type: float
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmward.remediation.plugins.module_utils._proof.survey import BadTarget, survey

SPEC = {
    "targets": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "mac": {"type": "str", "required": True},
            "addresses": {"type": "list", "elements": "str", "default": []},
        },
    },
    "controls": {"type": "list", "elements": "str", "required": True},
    "window": {"type": "int", "default": 3},
    "tcp_ports": {"type": "list", "elements": "int", "default": [22, 445]},
    "udp_ports": {"type": "list", "elements": "int", "default": [9, 33434]},
}


def main() -> None:
    """Try every target in one window, or in groups of 100."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        found = survey(**module.params, send=not module.check_mode)
    except BadTarget as exc:
        module.fail_json(msg=f"Cannot probe: {exc} Nothing was sent.")
    except PermissionError:
        module.fail_json(msg="Cannot probe: raw sockets need root on the witness. Set become: true.")
    except OSError as exc:
        module.fail_json(msg=f"Cannot probe: {exc}. Look at the network of the witness, or name another one.")
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
