# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How large an artefact will be, how long it will take, and whether it fits: before anything is touched."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Callable

from .._errors import Refused
from .._model import Disk, Vm
from .progress import human

MiB = 1 << 20
DEVICES = 32 * MiB  # a dump holds the video memory and firmware too
RATES = {"memory": 200 * MiB, "disk": 80 * MiB, "copy": 150 * MiB}  # bytes per second, until a run has measured them


@dataclass(frozen=True)
class Need:
    """Room that one place must have, and has."""

    place: str
    needed: int
    free: int


def of_memory(vm: Vm) -> int:
    return vm.memory + DEVICES


def allocated(path: str) -> int:
    """What a file takes on its disk; 0 for a block device."""
    return os.stat(path).st_blocks * 512


def of_disk(disk: Disk, layer_size: Callable[[str], int] = allocated) -> int:
    """At most the whole disk; less when its images hold less. What cannot be seen counts as full."""
    held = 0
    for layer in disk.layers:
        try:
            held += layer_size(layer.path) or disk.size
        except OSError:
            held += disk.size
    data = min(disk.size, held)
    return data + data // 100 + MiB  # and qcow2's own tables


def require(what: str, needs: list[Need], factor: float) -> None:
    """Raise ``Refused`` with numbers where it does not fit."""
    short = [need for need in needs if need.needed * factor > need.free]
    if short:
        told = "; ".join(
            f"{need.place} has {human(need.free)} free, {human(need.needed * factor)} are needed" for need in short
        )
        raise Refused(f"Cannot {what}: {told}. Nothing was touched. Free space, or give another place.")
