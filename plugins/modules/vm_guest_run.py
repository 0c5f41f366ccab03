#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_guest_run
short_description: Ask the guest of a VM what it runs, and keep its answers as evidence
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Runs a fixed list of read-only programs through the guest agent, which needs no network, and keeps the answers in
    the case's store.
  - On vSphere the agent is VMware Tools, in Linux guests, with the log-in C(guest_username) and C(guest_password) of
    the hypervisor's entry. vSphere hands out no output but by a file in the guest. It is written into the guest's
    shared memory C(/dev/shm) where there is one, which touches no disk, and removed again; what stays is told as a
    warning.
  - The guest may be in an attacker's hands. Its answers are labelled C(claimed_by_guest), and are no proof.
  - A missing, blocked or silent agent is reported in RV(evidence), and is no failure. Answers are bounded in time
    and size and never interpreted.
  - Answers that are stored are kept; the guest is not asked again.

extends_documentation_fragment:
  - vmward.remediation.hypervisors
  - vmward.remediation.evidence
  - vmward.remediation.evidence.vm
attributes:
  check_mode:
    description: Can run in check mode and return the changed status that a real run would return.
    support: full
  diff_mode:
    description: Returns what changed, or would change, when in diff mode.
    support: none
  platform:
    description: Runs on the VM's data host, the host that can read its disks.
    platforms: posix
    support: full
options:
  deadline:
    default: 60
  collect:
    description:
      - What to ask for. The programs are C(ps), C(ss), C(who), C(ip route) and C(cat /proc/self/mounts).
    type: list
    elements: str
    choices: [processes, sockets, users, routes, mounts]
    default: [processes, sockets, users, routes, mounts]
  limit:
    description:
      - Bytes kept of each output of each program. What is cut off is marked as truncated.
    type: int
    default: 1048576
seealso:
  - module: vmward.remediation.case_ledger
  - name: QEMU guest agent
    description: The protocol behind it on QEMU.
    link: https://www.qemu.org/docs/master/interop/qemu-ga-ref.html
"""

EXAMPLES = r"""
- name: Ask the guest of desk1
  vmward.remediation.vm_guest_run:
    hypervisors: "{{ vmward_hypervisors }}"
    vm: desk1
    case: 2026-0142
    dest:
      path: /srv/cases/2026-0142
  delegate_to: kvm1

- name: Ask only for its processes
  vmward.remediation.vm_guest_run:
    hypervisors: "{{ vmward_hypervisors }}"
    vm: desk1
    case: 2026-0142
    collect: [processes]
    dest:
      path: /srv/cases/2026-0142
  delegate_to: kvm1
"""

RETURN = r"""
available:
  description: Whether there was anything to take. If not, RV(evidence) says why.
  type: bool
  returned: success
artefacts:
  description:
    - What is stored now, each file and its sidecar, in the form that M(vmward.remediation.case_ledger) takes.
  type: list
  elements: dict
  returned: success
  contains:
    path:
      description: The file, relative to the case's directory.
      type: str
      returned: always
      sample: evidence/data/5f0c1f0e-6b5a-4b0e-9d3b-3f6a7c1f2a11/guest-claims.json
    size:
      description: Its size in bytes.
      type: int
      returned: always
    sha256:
      description: Its SHA-256, from the one reading that made the copy.
      type: str
      returned: always
    method:
      description: How it was taken.
      type: str
      returned: always
    taken_at:
      description: When taking it began (UTC, RFC 3339).
      type: str
      returned: not for sidecars
    claimed_by_guest:
      description: Always true for the answers.
      type: bool
      returned: not for sidecars
taken:
  description: The names of the artefacts that this run took (in check mode, would take).
  type: list
  elements: str
  returned: success
evidence:
  description:
    - The state of the class C(connections) for the order-of-volatility gate, C(stored) or C(unavailable) with its
      reason. Empty while nothing can be said, as in check mode.
  type: dict
  returned: success
  sample: {connections: {state: stored}}
claims:
  description:
    - By what was asked for, the C(argv), its C(status), C(stdout), C(stderr), whether they were C(truncated), and
      the C(error) if there was no answer.
  type: dict
  returned: when the guest was asked by this run
vm:
  description: The VM's C(id), C(name) and C(hypervisor), and its C(power) read after the work.
  type: dict
  returned: success
msg:
  description: What happened, in a sentence.
  type: str
  returned: always
seconds:
  description: Time for the whole task, in seconds.
  type: float
  returned: always
"""

from ansible_collections.vmward.remediation.plugins.module_utils._argspec import Spec
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.task import data_spec, run
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.verbs import PROGRAMS, ask_guest


def main() -> None:
    """Run the verb on the VM."""
    names = list(PROGRAMS)
    asked: Spec = {
        "collect": {"type": "list", "elements": "str", "choices": names, "default": names},
        "limit": {"type": "int", "default": 1048576},
    }
    run({**data_spec(60), **asked}, ask_guest)


if __name__ == "__main__":
    main()
