#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: case_ledger
short_description: Keep the signed chain of custody of an incident
version_added: "0.1.0"
description:
  - Keeps the ledger of a case on the evidence host. The ledger is a file of hash-linked entries that say who did what,
    when, to which VM, with which result and which evidence files. It is only ever appended to, under a lock, and synced
    to disk before the task returns.
  - Runs on the evidence host. An action plugin on the controller signs the ledger's head with C(ssh-keygen), so that
    the private key is never on the store, and keeps entries in a spool while the store cannot be reached.
  - A signed append runs at most two modules. Give all entries of a step in one call.
  - Entries are for ever and readable by every auditor. Never put a secret into one.
author:
  - vmward contributors (@vmward)
options:
  operation:
    description:
      - V(open) creates the case, or changes its metadata.
      - V(append) records O(entries).
      - V(read) returns the state of the case.
      - V(verify) checks chain, anchor, signatures, evidence files and bag. It fails when any of them does not hold.
      - V(seal) records O(entries), completes the BagIt bag (RFC 8493) below C(evidence), validates it and closes the
        case. Nothing can be recorded afterwards.
      - V(reopen) opens a sealed case again. It needs O(reason).
    type: str
    required: true
    choices: [open, append, read, verify, seal, reopen]
  store:
    description: The directory on the evidence host that holds all cases. Its parent must exist.
    type: path
    required: true
  case:
    description: The id of the case, 1 to 64 letters, digits, dots, dashes and underscores, not beginning with a dot.
    type: str
    required: true
  metadata:
    description:
      - What is known of the case when it is opened, such as title, custodian or legal basis.
      - Opening an existing case without it leaves its metadata as they are.
    type: dict
  actor:
    description: Who acts. By default the AWX user, or the user that runs Ansible at the controller's name.
    type: str
  host:
    description: The host from which the actor acts. By default the controller's name.
    type: str
  entries:
    description:
      - What to record, in this order.
      - An entry with the action C(evidence) says for one class of evidence of one target that all of it is
        stored, unavailable or waived. O(operation=read) turns these into a gate for destructive operations.
    type: list
    elements: dict
    suboptions:
      phase:
        description: The phase, for instance C(contain) or C(preserve).
        type: str
        required: true
      action:
        description: What was done, a lower-case word.
        type: str
        required: true
      target:
        description: The VM or other thing it was done to. Any text up to 1024 characters.
        type: str
      inputs:
        description: With which settings.
        type: dict
      result:
        description: With which result.
        type: dict
      artefacts:
        description: The files it made in the case.
        type: list
        elements: dict
        suboptions:
          path:
            description: The path relative to the case, below C(evidence/), C(undo/) or C(report/).
            type: str
            required: true
          size:
            description: The size in bytes.
            type: int
            required: true
          sha256:
            description: The SHA-256, from the pass that wrote the file.
            type: str
            required: true
          classification:
            description: The classification of the content, for the evidence register.
            type: str
          location:
            description: Where the medium with the file is kept.
            type: str
          method:
            description: How the file was made.
            type: str
          seal_number:
            description: The number of the seal on the medium.
            type: str
          taken_at:
            description: When it was taken, in UTC.
            type: str
          seconds:
            description: How long the taking lasted, in seconds.
            type: float
          freeze_seconds:
            description: How long the guest stood still for it, in seconds.
            type: float
          freeze_measured_by:
            description: How that time was measured.
            type: str
          claimed_by_guest:
            description: Whether its content is only what the guest said of itself.
            type: bool
          tools:
            description: Names and versions of the tools that made the file.
            type: dict
      key:
        description: >-
          Makes the entry idempotent. If the newest entry of this key has the same phase, action, target, inputs, result
          and artefacts, it is not added again.
        type: str
      time:
        description: When it happened, in UTC, as in C(2026-01-31T12:00:00Z). By default now.
        type: str
      actor:
        description: Who did it, if not O(actor).
        type: str
      host:
        description: On which host it was done, if not O(host).
        type: str
      spooled_at:
        description: Set by the action plugin on entries that waited in the spool.
        type: str
      spool_id:
        description: Set by the action plugin on entries that waited in the spool.
        type: str
  signed:
    description:
      - Sign the head of the ledger after O(operation=open) and O(operation=append). A seal, a reopening and entries
        from the spool are always signed.
      - Without a key, or if signing fails, the entries are recorded all the same, RV(signed) is false and
        RV(unsigned_reason) says why.
    type: bool
    default: false
  signing_key:
    description: On the controller, a private OpenSSH key, or a public one whose private half is in the ssh-agent.
    type: path
  signing_principal:
    description: The signer's name. By default the one that O(allowed_signers) gives to the key, else O(actor).
    type: str
  allowed_signers:
    description:
      - On the controller, the file of allowed signers, as C(ssh-keygen) reads it.
      - O(operation=verify) checks signatures against it. Signing refuses a key that is not in it.
    type: path
  allowed_signers_content:
    description: The content of that file. The action plugin fills it in from O(allowed_signers).
    type: str
  certificate:
    description: Write a signed one-page preservation certificate for each artefact below C(evidence/data).
    type: bool
    default: false
  certificates:
    description: Certificates to store. Set by the action plugin.
    type: list
    elements: dict
    suboptions:
      artefact:
        description: The artefact's path.
        type: str
        required: true
      text:
        description: The page.
        type: str
        required: true
      signature:
        description: Its signature.
        type: str
  spool:
    description:
      - If O(operation=open) or O(operation=append) cannot reach the store, or is refused by it, keep the entries on the
        controller, warn, and return RV(spooled) true instead of failing. Bad input still fails.
      - The next call that records in this case from the same controller takes the spool in first.
    type: bool
    default: false
  spool_directory:
    description: On the controller, where spools and the last signed head of each case are kept.
    type: path
    default: ~/.local/state/vmward/spool
  lease:
    description: Lead the case. While the lease runs, a claim of any other holder is refused. Each call renews it.
    type: dict
    suboptions:
      holder:
        description: Who leads, by default the actor. The same holder in the same run gets its lease again.
        type: str
      run:
        description:
          - Which run of Ansible leads. The action fills it in, so that two runs of one person do not both lead.
          - The lease of a run on the same controller that has ended, killed or not, passes to the same holder's next
            run at once.
        type: str
      ttl:
        description: For how many seconds, up to 86400.
        type: int
        default: 900
  epoch:
    description: Refuse to record unless the case is still led under this epoch.
    type: int
  take_over:
    description: Take the lease from another holder. The ledger records who did.
    type: bool
    default: false
  expect_head:
    description: An anchor C(SEQ:HASH) from an earlier call or a notification. A ledger without it is refused.
    type: str
  reason:
    description: Why a sealed case is opened again.
    type: str
  targets:
    description: Read only entries of these targets, and judge the gate for them.
    type: list
    elements: str
  phases:
    description: Read only entries of these phases.
    type: list
    elements: str
  limit:
    description: Read only so many entries, the newest. V(0) means all.
    type: int
    default: 0
  rehash:
    description: Read every evidence file again and compare its hash. By default true to verify and seal, false to read.
    type: bool
  since:
    description: Return the raw lines after this entry. Used by the action plugin, which checks what it signs.
    type: int
attributes:
  check_mode:
    description: Predicts the entries; nothing is written, signed or spooled.
    support: full
  diff_mode:
    description: Shows one line per entry added.
    support: full
  platform:
    description: The evidence host.
    platforms: posix
    support: full
requirements:
  - Python 3.9 on the evidence host, and there, to seal a case, the library C(bagit)
  - C(ssh-keygen) of OpenSSH 8.9 or later on the controller to sign, on the evidence host to verify
"""

EXAMPLES = r"""
- name: Open the case and lead it
  vmward.remediation.case_ledger:
    operation: open
    store: /srv/cases
    case: 2026-0142
    metadata: {title: Alert on desk1}
    lease: {holder: ir-team, ttl: 900}
    spool: true
  delegate_to: evidence1

- name: Record the memory image, sign the head and certify the file
  vmward.remediation.case_ledger:
    operation: append
    store: /srv/cases
    case: 2026-0142
    signed: true
    certificate: true
    signing_key: ~/.ssh/ir_ed25519.pub
    allowed_signers: /etc/vmward/allowed_signers
    entries:
      - phase: preserve
        action: evidence
        target: desk1
        key: preserve:memory:desk1
        inputs: {method: memory dump by the hypervisor, tools: {qemu: "7.2"}}
        result: {class: memory, state: stored}
        artefacts:
          - path: evidence/data/desk1/memory.elf
            size: 268435456
            sha256: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
  delegate_to: evidence1

- name: See what may be destroyed
  vmward.remediation.case_ledger:
    operation: read
    store: /srv/cases
    case: 2026-0142
    targets: [desk1]
  delegate_to: evidence1
  register: __case

- name: Verify everything against the anchor of the last notification
  vmward.remediation.case_ledger:
    operation: verify
    store: /srv/cases
    case: 2026-0142
    allowed_signers: /etc/vmward/allowed_signers
    expect_head: "17:0f343b0931126a20f133d67c2b018a3b5f70bf18a086007016e948b04aed3b82"
  delegate_to: evidence1
"""

RETURN = r"""
head:
  description: The ledger's last entry, as stored on the evidence host. Absent if the entries went to the spool.
  type: dict
  returned: except for verify
  contains:
    seq:
      description: Its number, counted from 1.
      type: int
    hash:
      description: The SHA-256 of its line.
      type: str
anchor:
  description: The head as C(SEQ:HASH), to be put into every notification and kept outside the store.
  type: str
  returned: except for verify
  sample: "17:0f343b0931126a20f133d67c2b018a3b5f70bf18a086007016e948b04aed3b82"
case_directory:
  description: The case on the evidence host.
  type: str
  returned: except for verify
created:
  description: Whether this call created the case.
  type: bool
  returned: when recording
recorded:
  description: Where each requested entry stands in the ledger, in the order given, after those from the spool.
  type: list
  elements: dict
  returned: when recording
  contains:
    seq:
      description: Its number.
      type: int
    hash:
      description: The SHA-256 of its line.
      type: str
    added:
      description: False if it was there already.
      type: bool
signed:
  description: Whether a signature over the requested entries is in the ledger.
  type: bool
  returned: when recording
unsigned_reason:
  description: Why not.
  type: str
  returned: when RV(signed) is false
signed_seq:
  description: The newest entry that some signature covers. Only verify says whether the signature holds.
  type: int
  returned: except for verify
certificates:
  description: The certificates written by this call, relative to the case.
  type: list
  elements: str
  returned: when certificates were asked for
spooled:
  description: Whether the entries wait on the controller because the store could not take them.
  type: bool
  returned: when recording
spool_reason:
  description: Why the store could not take them.
  type: str
  returned: when RV(spooled) is true
spool_pending:
  description: How many entries of this case wait on this controller.
  type: int
  returned: always
epoch:
  description: The epoch of the current lease, 0 without one.
  type: int
  returned: except for verify
lease:
  description: Who leads the case (C(holder), C(epoch), C(expires) in UTC), or null.
  type: dict
  returned: except for verify
sealed:
  description: Whether the case is sealed.
  type: bool
  returned: except for verify
exists:
  description: Whether the case exists. Only in check mode can it be false, since a missing case is an error.
  type: bool
  returned: on read
metadata:
  description: The metadata of the case.
  type: dict
  returned: on read
entries:
  description: The chosen entries as stored.
  type: list
  elements: dict
  returned: on read
phases_last:
  description: The last entry per target and phase, with C(seq), C(time), C(actor), C(action) and C(result).
  type: dict
  returned: on read
artefacts:
  description: The evidence register, the newest record of each path.
  type: dict
  returned: on read
gate:
  description: >-
    Per target whether all that a destructive operation would destroy is evidence. C(open) says so, C(missing) lists
    the classes that are not, C(classes) gives C(state), C(reason), C(by) and C(seq) of each class.
  type: dict
  returned: on read
checks:
  description: Each check with C(name), C(state) (C(ok), C(FAILED) or C(NOT CHECKED)) and C(text).
  type: list
  elements: dict
  returned: on verify
verified:
  description: Whether nothing that was checked failed.
  type: bool
  returned: on verify
anchored:
  description: Whether also the signing keys and an anchor were checked. Without them a rolled-back ledger looks whole.
  type: bool
  returned: on verify
not_checked:
  description: What was not checked.
  type: list
  elements: str
  returned: on verify
verified_at:
  description: When, in UTC.
  type: str
  returned: on verify
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import CaseError
from ansible_collections.vmward.remediation.plugins.module_utils._case.lease import LeaseError
from ansible_collections.vmward.remediation.plugins.module_utils._case.operations import run
from ansible_collections.vmward.remediation.plugins.module_utils._case.options import ARGUMENT_SPEC, REQUIRED_IF


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, required_if=REQUIRED_IF, supports_check_mode=True)
    try:
        result = run(module.params, module.check_mode)
    except LeaseError as exc:
        module.fail_json(msg=str(exc), kind=exc.kind, lease=exc.current.to_dict() if exc.current else None)
    except CaseError as exc:
        module.fail_json(msg=str(exc), kind=exc.kind)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
