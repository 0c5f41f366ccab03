#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scan a golden image once as a whole and keep what later scans on top of it must know."""

from __future__ import annotations

DOCUMENTATION = r"""
module: golden_index
short_description: Scan a golden image once, so that disks on top of it are scanned by their differences
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Reads and judges a golden image as a whole, as M(vmward.remediation.disk_scan) does, and writes an index of its
    files and
    their blocks. A disk that stands on it is then scanned by what differs.
  - Nothing is done if the same bytes were indexed with the same rules, engines and limits. A file that was touched is
    hashed again. To have an image scanned again all the same, delete its index.
  - An image that is not clean is indexed with its verdict, which no later scan relies on.
  - Runs on the data host. The image is not written to, and may be the base of running VMs.
requirements:
  - yara-x (Python library, for the engine V(yara))
  - clamd (for the engine V(clamd))
attributes:
  check_mode:
    support: full
    description: Says whether the image would be scanned. The engines are loaded for that, the image is not scanned.
  diff_mode:
    support: none
    description: There is nothing to be shown.
  platform:
    support: full
    platforms: linux
    description: The operating system of the data host.
options:
  layers:
    description:
      - The image's files, the top first and the base last; for most golden images it is one. As the hypervisor names
        them.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Path of the file or block device on the data host. It must not be a symbolic link.
        type: path
        required: true
      format:
        description: Format of this layer, from the hypervisor's configuration.
        type: str
        required: true
        choices: [qcow2, raw, vmdk, vhdx]
  index_directory:
    description:
      - Directory for the indexes. It is made if it is missing. Only root may write to it, or nothing is kept there.
    type: path
    default: /var/lib/vmward/index
extends_documentation_fragment:
  - vmward.remediation.scan
  - vmward.remediation.scan.files
seealso:
  - module: vmward.remediation.disk_scan
"""

EXAMPLES = r"""
- name: Know the golden image
  vmward.remediation.golden_index:
    layers:
      - path: /var/lib/libvirt/images/golden.qcow2
        format: qcow2
    rules:
      - /etc/vmward/rules
"""

RETURN = r"""
msg:
  description: The result in one line.
  type: str
  returned: success
  sample: clean (8469 files, 338 MB), known already
verdict:
  description: V(clean), V(infected) or V(incomplete), of this scan or of the one that is known.
  type: str
  returned: success
index:
  description: Path of the index; empty if none is kept, since the scan did not end, or nothing tells what it was of.
  type: str
  returned: success
findings:
  description: As of M(vmward.remediation.disk_scan).
  type: list
  elements: dict
  returned: success
incomplete_reasons:
  description: Why the scan is not complete.
  type: list
  elements: str
  returned: success
engines:
  description:
    - The engines that passed their self-test, with version and, for YARA, the rule files.
    - Of clamd also C(database) (what its signatures are known as, or V(unknown), when nothing that it judged is relied
      on later), C(database_age_days) of its official signatures, V(null) without such, C(limits) (V(told) or V(silent))
      and C(archives) (V(opened) or V(closed)).
  type: list
  elements: dict
  returned: success
archives_unopened:
  description:
    - Archives and packed files that were neither unpacked here nor given to an engine that is known to open them.
      They were matched as they are. ClamAV opens 7z and cab. Others (rar; zstd and lz4 without their libraries) count
      beside it too.
  type: int
  returned: success
files:
  description: Number of files judged.
  type: int
  returned: success
bytes_read:
  description: Bytes judged.
  type: int
  returned: success
seconds:
  description: Seconds that this run took.
  type: float
  returned: success
cpu_seconds:
  description: Seconds of processor time that this run took.
  type: float
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import BadInput, DiskRequest
from ansible_collections.vmward.remediation.plugins.module_utils._scan.options import (
    LAYERS,
    file_spec,
    layers_of,
    request_of,
)

ARGUMENTS = {
    "layers": LAYERS,
    "index_directory": {"type": "path", "default": "/var/lib/vmward/index"},
    **file_spec(),
}


def told(result: dict[str, Any], dry: bool) -> str:
    """The result in one line."""
    packed = f", {result['archives_unopened']} archives unopened" if result["archives_unopened"] else ""
    if result["index"] and not result["changed"]:
        megabytes = result["bytes_read"] / 1e6
        return f"{result['verdict']} ({result['files']} files, {megabytes:.0f} MB{packed}), known already"
    if dry:
        return "would be scanned as a whole and indexed"
    why = f"; {result['incomplete_reasons'][0]}" if result["incomplete_reasons"] else ""
    kept = "indexed" if result["index"] else "not indexed, since it can't be bound to these bytes and engines"
    return f"{result['verdict']} ({result['files']} files, {result['seconds']:.1f} s{packed}), {kept}{why}"


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        disk = DiskRequest("base", layers_of(module.params["layers"]))
        result = index(request_of(module.params, [disk], module.check_mode))
    except BadInput as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(msg=told(result, module.check_mode), **result)


if __name__ == "__main__":
    main()
