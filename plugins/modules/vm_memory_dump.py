#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_memory_dump
short_description: Take the memory of a VM as evidence
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Writes the whole memory of a running or paused VM as an ELF core and keeps it in the case's store.
  - The guest's CPUs stand still while it is written into the scratch directory. That time is measured and reported.
    A running VM runs on afterwards, a paused one stays paused, and its isolation is not touched.
  - Size, time and free space are looked at first. The core is then read exactly once, for its hash and the copy
    together, and goes straight to the evidence host.
  - An artefact that is whole is not taken again. A run that was killed is taken up by the next one, which waits for
    its job to end if it still works, and otherwise removes what it left.
  - On Proxmox VE the memory is the state volume of a snapshot with RAM, which is removed again; the artefact is
    C(memory.qemu-state). The guest mostly runs on meanwhile; the time that is reported is an upper bound.
  - Of a VM that does not run, memory that its hypervisor still keeps is copied, which is what an earlier dump left in a
    snapshot (vSphere, Proxmox VE), and what a suspend to disk saved (Proxmox VE). Each is an artefact of its own, named
    after where it lay, for example C(memory-vmward-memory-1795302286.qemu-state). It stays where it lies. If it cannot
    be copied the module fails and says where it lies; the class is never C(unavailable) then.
  - The action of this module runs it as an asynchronous job and prints its progress.

extends_documentation_fragment:
  - vmward.remediation.hypervisors
  - vmward.remediation.evidence
  - vmward.remediation.evidence.vm
  - vmward.remediation.evidence.long
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
    default: 14400
seealso:
  - module: vmward.remediation.case_ledger
  - name: Memory dumps of libvirt
    description: The mechanism on libvirt.
    link: https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainCoreDumpWithFormat
"""

EXAMPLES = r"""
- name: Take the memory of desk1
  vmward.remediation.vm_memory_dump:
    hypervisors: "{{ vmward_hypervisors }}"
    vm: desk1
    case: 2026-0142
    dest:
      path: /srv/cases/2026-0142
  delegate_to: kvm1

- name: Take it straight to another host
  vmward.remediation.vm_memory_dump:
    hypervisors: "{{ vmward_hypervisors }}"
    vm: desk1
    case: 2026-0142
    dest:
      path: /srv/cases/2026-0142
      host: vmward@evidence.example.net
      identity_file: /etc/vmward/evidence_ed25519
      known_hosts: /etc/vmward/known_hosts
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
      sample: evidence/data/5f0c1f0e-6b5a-4b0e-9d3b-3f6a7c1f2a11/memory.elf
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
    seconds:
      description: Time from the order to the whole artefact, in seconds.
      type: float
      returned: not for sidecars
    freeze_seconds:
      description: Seconds that the guest stood still for it.
      type: float
      returned: not for sidecars
    freeze_measured_by:
      description: Who measured that, and whether it is an upper bound.
      type: str
      returned: not for sidecars
    location:
      description: The host and path where it lies.
      type: str
      returned: not for sidecars
    tools:
      description: The programs that took it, with their versions.
      type: dict
      returned: not for sidecars
taken:
  description: The names of the artefacts that this run took (in check mode, would take).
  type: list
  elements: str
  returned: success
evidence:
  description:
    - The state of the class C(memory) for the order-of-volatility gate, C(stored) or C(unavailable) with its reason.
      Empty while nothing can be said, as in check mode.
  type: dict
  returned: success
  sample: {memory: {state: stored}}
estimate:
  description: The C(bytes) and C(seconds) that were expected of what was still to be taken.
  type: dict
  returned: when there was something to take
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

from ansible_collections.vmward.remediation.plugins.module_utils._evidence.task import long_spec, run
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.verbs import dump_memory


def main() -> None:
    """Run the verb on the VM."""
    run(long_spec(14400), dump_memory)


if __name__ == "__main__":
    main()
