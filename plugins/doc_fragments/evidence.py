# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation shared by the modules that work on one VM's data, and by those that take evidence of it."""

from __future__ import annotations


class ModuleDocFragment:
    """C(evidence.vm) for all of them, C(evidence) for evidence, C(evidence.long) for its long verbs."""

    VM = r"""
options:
  vm:
    description:
      - The VM, by name, id (UUID), MAC address or IP address. It must match exactly one.
    type: str
    required: true
  only:
    description:
      - The one hypervisor that holds the VM. May be left out when only one is configured.
    type: list
    elements: str
    default: []
"""

    DOCUMENTATION = r"""
options:
  deadline:
    description:
      - Seconds for the whole task, waiting for another run on the same VM included.
    type: int
  case:
    description:
      - The case that the evidence belongs to, written into its sidecar.
    type: str
    required: true
  dest:
    description:
      - Where the artefact is kept. It is written as C(<path>/evidence/data/<folder>/<name>), beside it a sidecar C(<name>.json) with
        size, hash, time and method. Only with its sidecar is an artefact whole.
      - The case must have been opened, so that its directory is there.
    type: dict
    required: true
    suboptions:
      path:
        description: The case's directory on the evidence host.
        type: path
        required: true
      folder:
        description: The folder of this VM in it. The VM's id, when left out.
        type: str
      host:
        description:
          - The evidence host as C(user@host), reached by SSH from the data host. Empty when the data host is the evidence host.
          - Its host key must be known and the log-in must need no password. Only C(python3) is needed there.
        type: str
        default: ""
      port:
        description: TCP port of SSH there.
        type: int
        default: 22
      identity_file:
        description: Private key for it on the data host, an absolute path without spaces.
        type: path
      known_hosts:
        description: File with its host key on the data host, an absolute path without spaces.
        type: path
  verify:
    description:
      - Read an artefact that is stored already once more and compare its hash. Without it only its size is compared.
    type: bool
    default: false
"""

    LONG = r"""
options:
  scratch:
    description:
      - Directory on the data host that the hypervisor writes into before the artefact is copied. It is made if missing, must belong to the
        user of the task, and must be reachable for the user that QEMU runs as.
    type: path
    default: /var/lib/vmward/scratch
  progress_file:
    description:
      - File on the data host to be replaced about once a second with the progress in JSON (C(phase), C(bytes), C(total_bytes), C(rate) in
        bytes per second, C(eta) in seconds). Set by the action of this module, which prints it.
    type: path
    default: ""
  free_space_factor:
    description:
      - How many times the estimated size must be free, in the scratch directory and in the case store. V(0) skips the check.
    type: float
    default: 1.1
"""
