#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: case_summary
short_description: Print what became of a case, and fail if it falls short
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Reads the ledger of a case on the evidence host, to which the task is delegated, and prints one screen. For each VM
    it shows every phase with its time, the proof of the cut, verdicts, the clean point and what was not done and why.
    Then it shows where evidence and report lie, the head of the ledger, what is missing, and the next commands.
  - Fails when the proof of a cut is weaker than O(require_proof), a phase failed or has no recorded end, a phase of
    O(require_phases) was not done, a VM has no clean point, or the ledger cannot be read.
  - With O(plan) it prints a plan in the same layout, and reads nothing.
  - The state of a VM is the one that the ledger recorded last. What O(now) says of it is shown beside it, and a
    difference is a shortfall.
attributes:
  action:
    description: Runs on the controller; the ledger is read on the host to which the task is delegated.
    support: full
  check_mode:
    description: Nothing is changed in either mode.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
  platform:
    description: The evidence host.
    platforms: posix
    support: full
options:
  store:
    description: The directory on the evidence host that holds all cases. Required unless O(plan) is given.
    type: path
  case:
    description: The id of the case. Required with O(store).
    type: str
    default: ""
  vms:
    description: The VMs to speak of. By default every VM that the ledger of the case names.
    type: list
    elements: str
    default: []
  spool_directory:
    description: On the controller, where M(vmward.remediation.case_ledger) keeps entries that the store has not taken.
    type: path
    default: ~/.local/state/vmward/spool
  now:
    description: What M(vmward.remediation.vm_info) has just returned. Empty when it was not asked.
    type: dict
    default: {}
  require_proof:
    description: The weakest proof of a cut that is enough.
    type: str
    choices: [readback, witnessed]
    default: witnessed
  require_phases:
    description: The phases that must have been done for every VM.
    type: list
    elements: str
    choices: [contain, notify, preserve, scope, scan, restore, harden, release, report]
    default: []
  fail_on_shortfall:
    description: Whether to fail when something is missing. It is printed and returned in any case.
    type: bool
    default: true
  commands:
    description: Further commands to print at the end.
    type: list
    elements: dict
    default: []
    suboptions:
      label:
        description: What it is for.
        type: str
        required: true
      command:
        description: The command.
        type: str
        required: true
  plan:
    description: What would be done, to be printed instead of a summary.
    type: list
    elements: dict
    suboptions:
      vm:
        description: The VM.
        type: str
        required: true
      phase:
        description: The phase.
        type: str
        choices: [contain, notify, preserve, scope, scan, restore, harden, release, report]
        required: true
      what:
        description: What would be done, or why nothing would be.
        type: str
        required: true
      undo:
        description: How it is undone.
        type: str
        default: ""
      unproven:
        description: What about it could not be proven.
        type: str
        default: ""
      not_done:
        description: The step would not be done, and O(plan[].what) says why.
        type: bool
        default: false
"""

EXAMPLES = r"""
- name: Say what became of the case, and end non-zero if it falls short
  vmward.remediation.case_summary:
    store: /srv/cases
    case: 2026-0142
    require_phases: [contain, preserve, scan]
  delegate_to: evidence1

- name: Show a plan
  vmward.remediation.case_summary:
    plan:
      - vm: desk1
        phase: contain
        what: seal 1 NIC
        undo: vmward.remediation.release restores the former wiring from the note on the VM
        unproven: outbound traffic, without root on the hypervisor
"""

RETURN = r"""
lines:
  description: What was printed, at most 100 columns wide except for commands.
  type: list
  elements: str
  returned: success
missing:
  description: What falls short, each as a sentence.
  type: list
  elements: str
  returned: for a summary
anchor:
  description: The head of the ledger as C(SEQ:HASH).
  type: str
  returned: for a summary
vms:
  description:
    - Per VM its C(name), its C(isolation) as last recorded, C(since) when in UTC, the C(proof) of its cut, C(alarm)
      (V(LEAKING), V(CUT FAILED) or empty), its
      C(shortfalls) and its C(phases). C(now) has C(hypervisor), C(power), C(isolation) and C(problem) as given in
      O(now).
    - A phase has C(name), C(state) (C(done), C(failed) or C(not_done)), C(msg), C(seconds) and C(facts), the newest
      entry about each thing.
  type: list
  elements: dict
  returned: success, for a summary
"""
