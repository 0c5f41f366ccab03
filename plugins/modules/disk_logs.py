#!/usr/bin/python
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: disk_logs
short_description: Take the logs out of exported disks as evidence
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Reads exported disks in user space, and keeps the files that patterns name as one tar archive for each disk,
    C(logs-<disk>.tar), beside the disks in the case.
  - Nothing is mounted, and nothing is written to the disks. Their content is hostile and is parsed by a child process
    that may read the disk and write the archive, no more than O(max_bytes) of it. Started as root, it is left without
    any rights; else it has those of the task's user.
  - The members of an archive are called C(<number of the volume>/<path in the guest>). Only regular files are taken,
    with their modification time, and with their owner as numbers. A name that would lead elsewhere, that holds control
    characters or backslashes, or that is too long is escaped, for example C(\\x2e\\x2e).
  - An ext journal is replayed in memory first. Symbolic links are not followed.
  - What could not be read, or did not fit, is named in the result and in the sidecar; the rest is kept. Without any
    file there is no archive, and RV(evidence) says why.
  - An archive that is whole is not taken again.
  - The action of this module runs it as an asynchronous job and prints its progress.
requirements:
  - dissect.target (Python library, for NTFS)
attributes:
  check_mode:
    description:
      - Disks are not read in check mode. For a disk that turns out to hold no logs a change is predicted that does not
        come.
    support: partial
    details: Everything but what the disks hold is checked.
  diff_mode:
    description: Returns what changed, or would change, when in diff mode.
    support: none
  platform:
    description: Runs on the evidence host, where the exported disks lie.
    platforms: linux
    support: full
options:
  vm:
    description: Name of the VM, for the sidecar and for messages.
    type: str
    required: true
  case:
    description: The case that the evidence belongs to, written into its sidecar.
    type: str
    required: true
  dest:
    description:
      - Where the archives are kept, C(<path>/evidence/data/<folder>/logs-<disk>.tar), each with its sidecar.
    type: dict
    required: true
    suboptions:
      path:
        description: The case's directory. It must be there.
        type: path
        required: true
      folder:
        description: The folder of this VM in it.
        type: str
        required: true
  images:
    description:
      - The exported disks.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the disk on the VM, such as V(vda).
        type: str
        required: true
      path:
        description: The image. It must not be a symbolic link.
        type: path
        required: true
      format:
        description: Format of the image, as it was exported. It is never probed.
        type: str
        choices: [qcow2, raw, vmdk, vhdx]
        default: qcow2
  patterns:
    description:
      - Paths in the guest, from the root of a volume. C(*), C(?) and C([...]) stand for characters within one part of
        the path; C(**) at the end stands for everything below.
      - Letter case counts on ext, XFS and btrfs, and does not on NTFS and FAT.
      - Which volume is mounted where in the guest is not known. The patterns without C(/var) and C(/home) are for
        volumes that are mounted there.
    type: list
    elements: str
    default:
      - /var/log/**
      - /log/**
      - /root/.*_history
      - /home/*/.*_history
      - /*/.*_history
      - /Windows/System32/winevt/Logs/**
      - /Windows/System32/LogFiles/**
      - /inetpub/logs/LogFiles/**
      - /Users/*/AppData/Roaming/Microsoft/Windows/PowerShell/PSReadLine/*
  max_bytes:
    description:
      - How many bytes an archive may have. A file that would exceed it is left out and named as missing; smaller ones
        are still taken. A sparse file counts with its full size.
    type: int
    default: 4294967296
  deadline:
    description: Seconds for the whole task. A disk that was not read to its end by then has no archive.
    type: int
    default: 1800
  cpu_limit:
    description: Seconds of processor time for each disk.
    type: int
    default: 1800
  memory_limit:
    description: Memory for reading a disk, in MiB.
    type: int
    default: 1024
  progress_file:
    description: File to be replaced about once a second with the progress in JSON. Set by the action of this module.
    type: path
    default: ""
seealso:
  - module: vmward.remediation.vm_disk_export
  - module: vmward.remediation.case_ledger
"""

EXAMPLES = r"""
- name: Take the logs out of the exported disk of desk1
  vmward.remediation.disk_logs:
    vm: desk1
    case: 2026-0142
    dest:
      path: /srv/cases/2026-0142
      folder: desk1-20261122T035846Z
    images:
      - name: vda
        path: /srv/cases/2026-0142/evidence/data/desk1-20261122T035846Z/disk-vda.qcow2
  delegate_to: evidence1
"""

RETURN = r"""
available:
  description: Whether there was anything to take. If not, RV(evidence) says why.
  type: bool
  returned: success
artefacts:
  description:
    - What is stored now, each archive and its sidecar, in the form that M(vmward.remediation.case_ledger) takes.
  type: list
  elements: dict
  returned: success
  contains:
    path: {description: "The file, relative to the case's directory.", type: str}
    size: {description: Its size in bytes., type: int}
    sha256: {description: "Its SHA-256, from the one reading that made the copy.", type: str}
    method: {description: How it was taken., type: str}
    taken_at: {description: "When taking it began (UTC, RFC 3339). Not for sidecars.", type: str}
    seconds: {description: "Time from the order to the whole artefact, in seconds. Not for sidecars.", type: float}
    location: {description: The host and path where it lies. Not for sidecars., type: str}
    tools: {description: "The programs that took it, with their versions. Not for sidecars.", type: dict}
taken:
  description: The names of the archives that this run took (in check mode, would take).
  type: list
  elements: str
  returned: success
evidence:
  description:
    - The state of the class C(logs) for the order-of-volatility gate, C(stored) or C(unavailable) with its reason. With
      C(incomplete), the first 20 of RV(missing), if not everything could be read. Empty in check mode while something
      is to be taken.
  type: dict
  returned: success
  sample: {logs: {state: stored}}
files:
  description: Number of files in the archives.
  type: int
  returned: success
bytes:
  description: Bytes of these files.
  type: int
  returned: success
volumes:
  description: The volumes of the disks that have an archive.
  type: list
  elements: dict
  returned: success
  contains:
    disk: {description: Name of the disk., type: str}
    number: {description: "Its number, from 1; the logical volumes of LVM come last.", type: int}
    name: {description: "Name of a logical volume, else empty.", type: str}
    start: {description: First byte on the disk., type: int}
    size: {description: Size in bytes., type: int}
    type: {description: What it holds., type: str, sample: ext}
    read: {description: Whether all that is wanted of it was read., type: bool}
missing:
  description: What could not be read or did not fit, in sentences; at most 200 of each disk, and in all.
  type: list
  elements: str
  returned: success
volumes_count:
  description: How many volumes there are, also of those past the 1024 of a disk that are listed.
  type: int
  returned: success
missing_count:
  description: How many there are, also of those past the 200.
  type: int
  returned: success
msg:
  description: What happened, in a sentence.
  type: str
  returned: always
seconds:
  description: Time for the whole task, in seconds.
  type: float
  returned: success
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmward.remediation.plugins.module_utils._errors import VmwardError
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.logs import PATTERNS, Image, Wanted, collect
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.progress import Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits

IMAGE = {
    "name": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "format": {"type": "str", "choices": ["qcow2", "raw", "vmdk", "vhdx"], "default": "qcow2"},
}
DEST = {"path": {"type": "path", "required": True}, "folder": {"type": "str", "required": True}}
ARGUMENTS = {
    "vm": {"type": "str", "required": True},
    "case": {"type": "str", "required": True},
    "dest": {"type": "dict", "required": True, "options": DEST},
    "images": {"type": "list", "elements": "dict", "required": True, "options": IMAGE},
    "patterns": {"type": "list", "elements": "str", "default": list(PATTERNS)},
    "max_bytes": {"type": "int", "default": 4294967296},
    "deadline": {"type": "int", "default": 1800},
    "cpu_limit": {"type": "int", "default": 1800},
    "memory_limit": {"type": "int", "default": 1024},
    "progress_file": {"type": "path", "default": ""},
}


def wanted(params: dict[str, Any], ansible_version: str, started: float) -> Wanted:
    limits = Limits(params["deadline"], params["memory_limit"] << 20, params["cpu_limit"], params["max_bytes"])
    return Wanted(
        params["vm"],
        params["case"],
        params["dest"]["path"],
        params["dest"]["folder"],
        tuple(Image(one["name"], one["path"], one["format"]) for one in params["images"]),
        tuple(params["patterns"]),
        limits,
        started + params["deadline"],
        Progress(params["progress_file"]),
        ansible_version,
    )


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    started = time.monotonic()
    try:
        result = collect(wanted(module.params, module.ansible_version, started), module.check_mode)
    except VmwardError as exc:
        module.fail_json(msg=str(exc))
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(seconds=round(time.monotonic() - started, 3), **result)


if __name__ == "__main__":
    main()
