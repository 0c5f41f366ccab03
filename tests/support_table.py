# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/support.md, generated from what every backend's ``capabilities()`` says. Run it to write the page anew.

A backend is one entry in ``BACKENDS``: its best and its least self, made without a connection, and how it was shown.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "build/collections"))

from ansible_collections.vmward.remediation.plugins.module_utils._fake.hypervisor import FakeHypervisor  # noqa: E402
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Capability, Hypervisor  # noqa: E402
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.api import (  # noqa: E402
    REVERT_EXTERNAL_SINCE,
    LibvirtHypervisor,
)
from ansible_collections.vmward.remediation.plugins.module_utils._proxmox.api import ProxmoxHypervisor  # noqa: E402
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.api import VsphereHypervisor  # noqa: E402

PAGE = ROOT / "docs/support.md"


@dataclass(frozen=True)
class Backend:
    """One column of the table."""

    title: str
    kind: type[Hypervisor]
    best: dict[str, Any]  # what its object holds where everything is there
    least: dict[str, Any]
    conditions: dict[Capability, str]  # what the difference between both needs
    shown: str
    simulated: frozenset[Capability] = field(default_factory=frozenset)  # beyond what its test server shows

    def can(self, state: dict[str, Any]) -> frozenset[Capability]:
        made = self.kind.__new__(self.kind)
        vars(made).update(state)
        return made.capabilities()

    def cell(self, capability: Capability) -> str:
        if capability not in self.can(self.best):
            return "no"
        told = "yes" if capability in self.can(self.least) else self.conditions[capability]
        return f"{told} (simulated)" if capability in self.simulated else told


def linked(**options: str) -> dict[str, Any]:
    return {"link": SimpleNamespace(options=options)}


GUESTS = {"guest_username": "ir", "guest_password": "a password"}
BACKENDS = (
    Backend(
        "libvirt",
        LibvirtHypervisor,
        {"version": REVERT_EXTERNAL_SINCE, "has_filters": lambda: True},
        {"version": 0, "has_filters": lambda: False},
        {
            Capability.FORENSIC: "yes, with libvirt's network filters",
            Capability.REVERT_EXTERNAL: "from libvirt 9.9 (not tried)",
            Capability.SNAPSHOT_QUIESCE: "of a running VM, with its guest agent (not tried)",
        },
        "real libvirt 9.0 and QEMU 7.2, in the conformance suite and in the lab",
    ),
    Backend(
        "vSphere",
        VsphereHypervisor,
        {"_moids": {"a": "vm-1"}, "networks": SimpleNamespace(isolation=object()), **linked(**GUESTS)},
        {"_moids": {"a": "vm-1"}, "networks": SimpleNamespace(isolation=None), **linked()},
        {
            Capability.FORENSIC: "yes, with an isolation port group named",
            Capability.GUEST_RUN: "yes, with a log-in for the guests named",
        },
        "govmomi's simulator, completed where it models less than a vCenter, in the conformance suite",
        frozenset(
            [
                Capability.SUSPEND,
                Capability.SNAPSHOT_MEMORY,
                Capability.REVERT,
                Capability.REVERT_RUNNING,
                Capability.DELETE,
                Capability.MEMORY_DUMP,
                Capability.DISK_EXPORT_LIVE,
                Capability.DISK_EXPORT_STOPPED,
                Capability.SNAPSHOT_QUIESCE,
                Capability.GUEST_RUN,
            ]
        ),
    ),
    Backend(
        "Proxmox VE",
        ProxmoxHypervisor,
        linked(quarantine="quarantine"),
        linked(),
        {Capability.FORENSIC: "yes, with a quarantine bridge named"},
        "a test server that is held against answers recorded from a real Proxmox VE 9.2.11, in the conformance suite",
        frozenset(
            [
                Capability.MEMORY_DUMP,
                Capability.DISK_EXPORT_LIVE,
                Capability.DISK_EXPORT_STOPPED,
                Capability.SNAPSHOT_QUIESCE,
            ]
        ),
    ),
    Backend(
        "fake",
        FakeHypervisor,
        {"state": SimpleNamespace(read=dict)},
        {"state": SimpleNamespace(read=dict)},
        {},
        "simulated as a whole: it is for tours and tests",
    ),
)

# What becomes of a batch when that happens in the middle of it; held by test_faults_in_the_middle.py.
TITLES = [backend.title for backend in BACKENDS]
FAULTS = {
    "its session expires": {
        "libvirt": "does not apply: a connection to libvirt has no session that could expire",
        "vSphere": "every VM is done",
        "Proxmox VE": "every VM is done",
        "fake": "its VM fails, the others are done",
    },
    "the connection is lost": dict.fromkeys(TITLES, "VMs whose call was under way fail by name, the others are done"),
    "a VM outlives the deadline": dict.fromkeys(TITLES, "it is named as still running, the others are done"),
}


def page() -> str:
    """The whole page."""
    rows = [["", *(backend.title for backend in BACKENDS)], ["---"] * (len(BACKENDS) + 1)]
    rows += [[capability.value, *(backend.cell(capability) for backend in BACKENDS)] for capability in Capability]
    faults = [["In the middle of a batch", *rows[0][1:]], rows[1]]
    faults += [[what, *(told[backend.title] for backend in BACKENDS)] for what, told in FAULTS.items()]
    lines = [
        "# Support by hypervisor",
        "",
        "Generated from what each backend says of itself (`tests/support_table.py`); a test fails when it differs.",
        "A verb that is missing is refused before anything is touched, with the alternative.",
        "",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        "When something goes wrong on the way, what is said of each VM is how it is, and a second run does the rest:",
        "",
        *("| " + " | ".join(row) + " |" for row in faults),
        "",
        "Shown on:",
        "",
        *(f"- **{backend.title}**: {backend.shown}." for backend in BACKENDS),
        "",
        "*simulated*: written from the vendor's documentation; neither a real server nor a simulator of others has "
        "shown it. See [limits](limits.md).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
