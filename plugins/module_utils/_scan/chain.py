# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The layers of a disk, put together as the hypervisor knows them. Nothing is probed."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from .blocks import Blocks, Raw, UnreadableImage
from .nbd import Nbd
from .qcow2 import Qcow2
from .vhdx import Vhdx
from .vmdk import Vmdk


@dataclass(frozen=True)
class Layer:
    """One file of a chain, already opened read-only; or (as nbd) a connection to who serves the disk, and its size."""

    path: str
    format: str
    fd: int
    size: int = 0


def open_chain(layers: Sequence[Layer], snapshot: str = "", base: Blocks | None = None) -> Blocks:
    """The disk that `layers` (top first) make together, on top of `base` if there is one."""
    disk = base
    for depth, layer in reversed(list(enumerate(layers))):
        wanted = snapshot if depth == 0 else ""
        try:
            disk = _open_layer(layer, disk, wanted)
        except (UnreadableImage, OSError, struct.error, ValueError, OverflowError) as exc:
            raise UnreadableImage("Cannot read the disk image %s: %s." % (layer.path, exc)) from exc
    if disk is None:
        raise UnreadableImage("Cannot read a disk without any layer.")
    if not disk.size:
        raise UnreadableImage("Cannot read the disk image %s: it is empty, not even zeros are in it." % layers[0].path)
    return disk


def _open_layer(layer: Layer, backing: Blocks | None, snapshot: str) -> Blocks:
    if layer.format == "qcow2":
        return Qcow2(layer.fd, backing, snapshot)
    if snapshot:
        raise UnreadableImage("only a qcow2 image holds internal snapshots, this one is %s" % layer.format)
    if backing is not None:
        raise UnreadableImage("a %s image can only be the last of a chain" % layer.format)
    if layer.format == "raw":
        return Raw(layer.fd)
    if layer.format == "nbd":
        return Nbd(layer.fd, layer.size)
    if layer.format == "vmdk":
        return Vmdk(layer.fd)
    if layer.format == "vhdx":
        return Vhdx(layer.fd)
    raise UnreadableImage("the format %s is not supported" % layer.format)
