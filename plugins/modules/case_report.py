#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: case_report
short_description: Write the report of a case as HTML and JSON
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Verifies the ledger of a case, reads every evidence file again, and writes one self-contained HTML file and the same
    as JSON to C(report/) of the case on the evidence host, to which the task is delegated.
  - The report holds timeline, actions, proof, verdicts, findings, the evidence with its hashes, what is proven, what
    only the guest claims, what rests on a person's word, what was not done, and the result of the verification.
  - The HTML loads nothing from anywhere, runs no script, and its security policy forbids both. All text is escaped.
  - A report that says the same already is left as it is. Record RV(artefacts) with M(vmward.remediation.case_ledger).
  - A ledger or evidence that does not verify is no failure of this module. The report says so in its first lines.
attributes:
  action:
    description: Runs on the controller; ledger and report are on the host to which the task is delegated.
    support: full
  check_mode:
    description: Verifies and renders, and writes nothing.
    support: full
  diff_mode:
    description: The files are new, a difference would be all of them.
    support: none
  platform:
    description: The evidence host.
    platforms: posix
    support: full
options:
  store:
    description: The directory on the evidence host that holds all cases.
    type: path
    required: true
  case:
    description: The id of the case.
    type: str
    required: true
  vms:
    description: The VMs to speak of. By default every VM that the ledger of the case names.
    type: list
    elements: str
    default: []
  spool_directory:
    description: On the controller, where M(vmward.remediation.case_ledger) keeps entries that the store has not taken.
    type: path
    default: ~/.local/state/vmward/spool
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
  allowed_signers:
    description: On the controller, the file of allowed signers. Without it the key is not anchored, as the report says.
    type: path
  expect_head:
    description: An anchor C(SEQ:HASH) from a notification, that the ledger must hold.
    type: str
"""

EXAMPLES = r"""
- name: Write the report
  vmward.remediation.case_report:
    store: /srv/cases
    case: 2026-0142
    allowed_signers: /etc/vmward/allowed_signers
  delegate_to: evidence1
  register: __report
"""

RETURN = r"""
files:
  description: The report on the evidence host, HTML first.
  type: list
  elements: str
  returned: success
  sample: [/srv/cases/2026-0142/report/report-41.html, /srv/cases/2026-0142/report/report-41.json]
artefacts:
  description: The same as M(vmward.remediation.case_ledger) takes them, with C(path), C(size) in bytes and C(sha256).
  type: list
  elements: dict
  returned: success
recorded:
  description: Whether the ledger holds this report already, so that there is nothing to append.
  type: bool
  returned: success
inputs:
  description: What the report is about, for the ledger entry. C(covers) is the anchor of the last entry it covers.
  type: dict
  returned: success
verified:
  description: Whether nothing that was checked failed.
  type: bool
  returned: success
anchored:
  description: Whether signing keys and an anchor were checked too.
  type: bool
  returned: success
seconds:
  description: How many seconds it took, most of them to verify.
  type: float
  returned: success
msg:
  description: The report in one line.
  type: str
  returned: success
"""
