# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: outcome
short_description: Give each host its own result out of a batch
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - A batch module such as M(vmward.remediation.vm_isolation) handles all VMs of a play in one task with
    C(run_once) and C(report_only), so that 500 VMs do not pay for 500 tasks. This action, run right after it on every
    host, takes the host's own result out of it, prints one line in plain words, and fails the host if its VM failed.
  - A batch that failed as a whole, or that has no result for the VM, fails the host too.
attributes:
  action:
    description: Runs wholly on the controller.
    support: full
  check_mode:
    description: In check mode the line tells what would be done.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
  platform:
    description: The controller.
    platforms: all
    support: full
options:
  of:
    description: The registered result of the batch task.
    type: dict
    required: true
  vm:
    description: The VM, by the name that the batch was given.
    type: str
    required: true
  quiet:
    description: Do not print the line.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Cut every VM off, in one batch
  vmward.remediation.vm_isolation:
    hypervisors: "{{ vmward_hypervisors }}"
    vms: "{{ ansible_play_hosts }}"
    state: sealed
    report_only: true
  run_once: true
  delegate_to: localhost
  register: cut

- name: Tell what became of each
  vmward.remediation.outcome:
    of: "{{ cut }}"
    vm: "{{ inventory_hostname }}"
"""

RETURN = r"""
line:
  description: What was printed.
  returned: always
  type: str
  sample: "desk1: sealed, 1 NIC, 0.6 s"
vm_changed:
  description: Whether the batch changed this VM. This action itself changes nothing.
  returned: always
  type: bool
name:
  description: The VM.
  returned: always
  type: str
msg:
  description: What happened, and what to do.
  returned: always
  type: str
before:
  description: The VM before, as the batch module returns it.
  returned: always
  type: dict
after:
  description: The VM after, as the batch module returns it. The other keys of its result are returned too.
  returned: always
  type: dict
"""
