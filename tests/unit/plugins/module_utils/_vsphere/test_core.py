# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file holds a VM's memory, and the head that makes it an ELF core."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Unsupported
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.content import flaw_of_core
from ansible_collections.vmward.remediation.plugins.module_utils._model import PowerState, Vm, VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere import core

GiB = 1 << 30
parts = vim.vm.FileLayoutEx


def segments(size: int) -> list[tuple[int, int, int]]:
    """(offset in the file, physical address, length) of each segment."""
    head = core.head(size)
    (count,) = struct.unpack_from("<H", head, 56)
    found = [struct.unpack_from("<IIQQQQQQ", head, 64 + 56 * number) for number in range(count)]
    return [(one[2], one[4], one[5]) for one in found]


def test_memory_lies_below_and_above_the_hole() -> None:
    assert segments(GiB) == [(4096, 0, GiB)]
    assert segments(3 * GiB) == [(4096, 0, 3 * GiB)]
    assert segments(5 * GiB) == [(4096, 0, 3 * GiB), (4096 + 3 * GiB, 4 * GiB, 2 * GiB)]


@pytest.mark.parametrize("size", [GiB, 5 * GiB])
def test_the_head_fits_its_file_and_no_shorter_one(size: int) -> None:
    assert len(core.head(size)) == core.HEAD
    assert flaw_of_core(core.head(size), core.HEAD + size) == ""
    assert "its memory would end" in flaw_of_core(core.head(size), core.HEAD + size - 1)


def layout(size: int = GiB, memory_key: int = 2, kind: str = "snapshotMemory") -> dict[str, Any]:
    taken = vim.vm.Snapshot("snapshot-1", None)
    return {
        "layoutEx.file": [parts.FileInfo(key=1, name="[ds] vm/vm.vmsn", type="snapshotData", size=9)]
        + [parts.FileInfo(key=2, name="[ds] vm/vm.vmem", type=kind, size=size)],
        "layoutEx.snapshot": [parts.SnapshotLayout(key=taken, dataKey=1, memoryKey=memory_key)],
    }


VM = Vm(VmRef("vc1", "uuid-1", "desk1"), PowerState.RUNNING, (), GiB, True)


def test_the_file_is_the_snapshots_or_the_suspended_vms() -> None:
    assert core.memory_file(VM, layout(), "snapshot-1") == ("[ds] vm/vm.vmem", GiB)
    assert core.memory_file(VM, layout(kind="suspendMemory"), "") == ("[ds] vm/vm.vmem", GiB)


@pytest.mark.parametrize(
    ("given", "snapshot"),
    [
        ({}, "snapshot-1"),
        ({}, ""),
        (layout(size=GiB - 1), "snapshot-1"),
        (layout(memory_key=-1), "snapshot-1"),
        (layout(memory_key=1), "snapshot-1"),  # inside the .vmsn
        (layout(), "snapshot-2"),
        (layout(), ""),
    ],
)
def test_what_is_no_flat_file_of_the_whole_memory_is_refused(given: dict[str, Any], snapshot: str) -> None:
    with pytest.raises(Unsupported, match="no flat file"):
        core.memory_file(VM, given, snapshot)
