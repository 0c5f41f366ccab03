#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_power
short_description: Bring VMs to a power state
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Starts, pauses, stops or restarts VMs and reads back that it happened.
  - V(stopped) asks the guest first, for O(grace) seconds; only with O(force) is its power then taken away. A hostile
    guest may never obey.
extends_documentation_fragment:
  - vmward.remediation.hypervisors
  - vmward.remediation.hypervisors.batch
attributes:
  check_mode:
    description: Can run in check mode and return the changed status that a real run would return.
    support: full
  diff_mode:
    description: Returns what changed, or would change, when in diff mode.
    support: full
  platform:
    description: Runs where the hypervisors' APIs can be reached, usually the controller.
    platforms: posix
    support: full
options:
  deadline:
    default: 300
  state:
    description: The power state wanted. V(restarted) is a cold start, and always a change.
    type: str
    choices: [running, paused, stopped, restarted]
    required: true
  force:
    description:
      - Take the power away when the guest has not shut down after O(grace) seconds, or cannot be asked to.
      - Why it could not be asked is told as a warning.
    type: bool
    default: false
  grace:
    description: Seconds that the guest has for shutting down. V(0) together with O(force) takes the power away at once.
    type: int
    default: 60
  gate:
    description:
      - What the case's ledger says about the evidence of each VM, the RV(vmward.remediation.case_ledger#module:gate)
        that M(vmward.remediation.case_ledger) returns when it reads a case.
      - A VM that is held by a case is refused while a class of evidence that this verb destroys is neither stored nor
        unavailable nor waived.
    type: dict
    default: {}
seealso:
  - name: libvirt domain API
    description: The calls behind this module on libvirt.
    link: https://libvirt.org/html/libvirt-libvirt-domain.html
"""

EXAMPLES = r"""
- name: Pause desk1, memory stays
  vmward.remediation.vm_power:
    hypervisors: "{{ vmward_hypervisors }}"
    vms: [desk1]
    state: paused

- name: Stop it, by force after a minute
  vmward.remediation.vm_power:
    hypervisors: "{{ vmward_hypervisors }}"
    vms: [desk1]
    state: stopped
    force: true
    gate: "{{ ledger.gate }}"
"""

RETURN = r"""
vms:
  description: One outcome for each VM asked for, in the order given.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The VM as it was asked for.
      type: str
      returned: always
    id:
      description: The id on its hypervisor (a UUID on libvirt).
      type: str
      returned: always
    hypervisor:
      description: The name of its hypervisor.
      type: str
      returned: always
    changed:
      description: Whether this VM was changed (in check mode, would be).
      type: bool
      returned: always
    failed:
      description: Whether this VM failed.
      type: bool
      returned: always
    msg:
      description: What happened, and what to do.
      type: str
      returned: always
    steps:
      description: The steps taken (in check mode, to be taken), in plain words.
      type: list
      elements: str
      returned: always
    before:
      description: The C(power) state.
      type: dict
      returned: always
    after:
      description: The same, read back from the hypervisor afterwards (in check mode, predicted).
      type: dict
      returned: always
    warnings:
      description: What else the reader should know.
      type: list
      elements: str
      returned: always
    seconds:
      description: Time until this hypervisor's VMs were done, in seconds.
      type: float
      returned: always
    task:
      description: The id of what is still running, where something is.
      type: str
      returned: always
seconds:
  description: Time for the whole task, log-in included, in seconds.
  returned: success
  type: float
"""

from ansible_collections.vmward.remediation.plugins.module_utils._argspec import batch_spec
from ansible_collections.vmward.remediation.plugins.module_utils._module import run
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower


def main() -> None:
    """Run the verb over the VMs asked for."""
    spec = {
        **batch_spec(),
        "state": {"type": "str", "choices": ["running", "paused", "stopped", "restarted"], "required": True},
        "force": {"type": "bool", "default": False},
        "grace": {"type": "int", "default": 60},
        "gate": {"type": "dict", "default": {}},
    }
    run(spec, lambda params: SetPower(params["state"], params["force"], params["grace"], params["gate"]))


if __name__ == "__main__":
    main()
