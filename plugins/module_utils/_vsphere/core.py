# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM's memory file, and the head that makes it an ELF core. Pure.

Source: U(https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from .._errors import Unsupported
from .._model import Vm

GiB = 1 << 30
HOLE = (3 * GiB, 4 * GiB)  # a PC has devices there; the memory goes on above
HEAD = 4096


def memory_file(vm: Vm, props: Mapping[str, Any], snapshot: str) -> tuple[str, int]:
    """Name and size of the file with the memory of a snapshot, or ("" given) of a suspended VM."""
    files = {file.key: file for file in props.get("layoutEx.file", ())}
    if snapshot:
        keys = [one.memoryKey for one in props.get("layoutEx.snapshot", ()) if one.key._moId == snapshot]
        found = [files[key] for key in keys if key in files]
    else:
        found = [file for file in files.values() if file.type == "suspendMemory"]
    if len(found) != 1 or found[0].size != vm.memory:
        told = ", ".join(f"{file.name} of {file.size} bytes" for file in found) or "none"
        raise Unsupported(
            f"Cannot dump the memory of {vm.ref.name}: vSphere shows no flat file of its {vm.memory} bytes ({told}). "
            "Suspend it (vm_power, state: paused) and keep its .vmss and .vmem files by hand."
        )
    return str(found[0].name), int(found[0].size)


def head(size: int) -> bytes:
    """An ELF core's head (ET_CORE, x86-64); the memory follows from byte 4096 on, below and above the hole."""
    below = min(size, HOLE[0])
    parts = [(HEAD, 0, below)] + ([(HEAD + below, HOLE[1], size - below)] if size > below else [])
    text = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(parts), 0, 0, 0)
    for offset, address, length in parts:
        text += struct.pack("<IIQQQQQQ", 1, 7, offset, 0, address, length, length, HEAD)
    return text.ljust(HEAD, b"\0")
