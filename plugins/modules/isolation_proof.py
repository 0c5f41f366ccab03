# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: isolation_proof
short_description: Judge whether the cut of a VM is proven
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - With O(operation=plan) it works out which KVM host is to be asked about which taps, and which witness is to probe
    what. With O(operation=judge) it judges what they answered, for one VM.
  - V(witnessed) means that a witness got no answer from the VM while a control target answered it in the same window,
    that the KVM host counted no frame that passed from the VM and none that reached it, and that the kernel's chains
    hold. V(readback) means that the hypervisor shows the cut and nothing contradicts it. V(none) means that the
    isolation failed, or that something contradicts it, such as a filter that somebody flushed.
  - It never fails for a shortfall, since the response must go on. RV(shortfall) says what is missing.
attributes:
  action:
    description: Runs wholly on the controller.
    support: full
  check_mode:
    description: It only judges.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
  platform:
    description: The controller.
    platforms: all
    support: full
options:
  operation:
    description: What to do.
    type: str
    choices: [plan, judge]
    required: true
  info:
    description: The result of M(vmward.remediation.vm_info) for the VMs, read after the cut.
    type: dict
    required: true
  hypervisors:
    description: To plan, the managed endpoints. C(data_host) names the KVM host to ask.
    type: dict
    default: {}
  witnesses:
    description: To plan, the inventory hosts that can probe. One that is itself being isolated is left out.
    type: list
    elements: str
    default: []
  controls:
    description: To plan, addresses on the VMs' segment that answer. Those of VMs being isolated are left out.
    type: list
    elements: str
    default: []
  vm:
    description: To judge, the VM.
    type: str
  cut:
    description: To judge, the result of M(vmward.remediation.outcome) for the isolation of the VM.
    type: dict
  state:
    description: To judge, the isolation that was asked for.
    type: str
    choices: [sealed, forensic]
    default: sealed
  counters:
    description: >-
      To judge, the registered loop of M(vmward.remediation.vm_isolation_counters) over RV(counters), the later of its
      two calls.
    type: dict
    default: {}
  probes:
    description: To judge, the registered loop of M(vmward.remediation.vm_isolation_probe) over RV(probes).
    type: dict
    default: {}
  required:
    description: To judge, the proof that is required.
    type: str
    choices: [witnessed, readback]
    default: witnessed
"""

EXAMPLES = r"""
- name: Plan the proof
  vmward.remediation.isolation_proof:
    operation: plan
    info: "{{ info }}"
    hypervisors: "{{ vmward_hypervisors }}"
    witnesses: [app1]
    controls: [192.168.86.1]
  register: plan

- name: Judge the proof
  vmward.remediation.isolation_proof:
    operation: judge
    vm: "{{ inventory_hostname }}"
    info: "{{ info }}"
    cut: "{{ outcome }}"
    counters: "{{ counted_after }}"
    probes: "{{ probed }}"
"""

RETURN = r"""
counters:
  description: The work of each KVM host, with C(host) and C(nics).
  returned: to plan
  type: list
  elements: dict
probes:
  description: The work of each witness, with C(witness), C(targets) and C(controls).
  returned: to plan
  type: list
  elements: dict
proof:
  description: V(witnessed), V(readback) or V(none).
  returned: to judge
  type: str
required:
  description: The proof that was required.
  returned: to judge
  type: str
inbound:
  description: What was shown of packets to the VM.
  returned: to judge
  type: str
outbound:
  description: What was shown of packets from the VM.
  returned: to judge
  type: str
controls:
  description: The control targets that answered a witness in the same window.
  returned: to judge
  type: list
  elements: str
against:
  description: What contradicts the cut, such as a witness that still reaches the VM. Empty when nothing does.
  returned: to judge
  type: str
shortfall:
  description: What is missing for the required proof, or contradicts the cut, with advice. Empty when it is reached.
  returned: to judge
  type: str
msg:
  description: All of it in one line.
  returned: to judge
  type: str
"""
