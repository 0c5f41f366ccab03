#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: case_notify
short_description: Tell the administrators about a case by mail and webhook
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Sends the state of the VMs of a case in plain words to each contact, with the head of the ledger as an anchor. Mail
    and webhooks are sent from the controller, all at once.
  - A dead or hanging server costs at most O(deadline) seconds and is no failure of this module. Each delivery and each
    failure is in RV(entries), to be recorded with M(vmward.remediation.case_ledger).
  - Whoever was told the same already is not told again.
  - Does not need the ledger. While it cannot be read, the message says that it has no anchor.
attributes:
  action:
    description: Runs on the controller; the ledger is read on the host to which the task is delegated.
    support: full
  check_mode:
    description: Composes the message and sends nothing.
    support: full
  diff_mode:
    description: Nothing on a host is changed.
    support: none
  platform:
    description: The evidence host.
    platforms: posix
    support: full
options:
  store:
    description: The directory on the evidence host that holds all cases. Without it the message has no anchor.
    type: path
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
  contacts:
    description: Who is told. Each has an e-mail address, a webhook or both.
    type: list
    elements: dict
    required: true
    suboptions:
      role:
        description: The role of the contact, for instance C(administrator). It is recorded.
        type: str
        required: true
      email:
        description: The e-mail address.
        type: str
      webhook:
        description:
          - The address to which the message is posted as JSON. Certificates are checked.
          - It may hold a secret. Ledger and output show only its host.
        type: str
      webhook_headers:
        description: Further headers, for instance an authorization.
        type: dict
      ca_path:
        description: On the controller, the certificates to trust for the webhook. By default those of the system.
        type: path
  smtp:
    description: The mail server.
    type: dict
    suboptions:
      host:
        description: Its name.
        type: str
        required: true
      port:
        description: Its port. By default 587, with V(tls) 465, with V(none) 25.
        type: int
      security:
        description: How the connection is encrypted. V(none) warns.
        type: str
        choices: [starttls, tls, none]
        default: starttls
      sender:
        description: The address that the mail comes from.
        type: str
        required: true
      username:
        description: The user to log in as.
        type: str
      password:
        description: The password.
        type: str
      ca_path:
        description: On the controller, the certificates to trust. By default those of the system.
        type: path
  occasion:
    description: Why the contacts are told, for the subject.
    type: str
    default: machines were cut off
  deadline:
    description: Seconds for all deliveries together.
    type: int
    default: 15
"""

EXAMPLES = r"""
- name: Tell the administrators
  vmward.remediation.case_notify:
    store: /srv/cases
    case: 2026-0142
    contacts:
      - role: administrator
        email: admins@example.net
      - role: security
        webhook: "{{ vault_chat_webhook }}"
    smtp:
      host: mail.example.net
      sender: vmward@example.net
  delegate_to: evidence1
  register: __told
"""

RETURN = r"""
deliveries:
  description:
    - What became of each message. C(channel) is C(mail) or C(webhook), C(role) and C(to) say to whom, C(state) is
      C(done) or C(failed), C(msg) says why, C(seconds) how long it took.
  type: list
  elements: dict
  returned: success
entries:
  description: The same as M(vmward.remediation.case_ledger) takes them.
  type: list
  elements: dict
  returned: success
undelivered:
  description: How many messages failed.
  type: int
  returned: success
subject:
  description: The subject.
  type: str
  returned: success
body:
  description: The text.
  type: str
  returned: success
anchor:
  description: The head of the ledger that was sent, or an empty text.
  type: str
  returned: success
msg:
  description: The outcome in one line.
  type: str
  returned: success
"""
