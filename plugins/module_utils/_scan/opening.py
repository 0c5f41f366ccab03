# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of the disks that are asked for, each opened once, before anything is read."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from .blocks import UnreadableImage
from .chain import Layer
from .claim import claimed
from .known import Former
from .nbd import PATIENCE, connect, written
from .scanner import DiskSpec
from .verdict import printable


class BadInput(Exception):
    """What was asked for can't be done. Nothing was scanned."""


@dataclass(frozen=True)
class LayerSpec:
    """A file, or with the format nbd a UNIX socket and the name of what is served there."""

    path: str
    format: str
    export: str = ""


@dataclass(frozen=True)
class DiskRequest:
    """Layers from the top to the base; an internal snapshot of the top one, or none; what it is a full copy of."""

    name: str
    layers: tuple[LayerSpec, ...]
    snapshot: str = ""
    clone_of: tuple[LayerSpec, ...] = ()
    former: Former | None = None


@contextmanager
def opened(disks: Sequence[DiskRequest], seconds: float = PATIENCE) -> Iterator[tuple[list[DiskSpec], list[Layer]]]:
    """Open every file once, read-only, and refuse those that a running VM writes to. What was written since an earlier
    scan is asked for within so many seconds."""
    end = time.monotonic() + seconds
    with ExitStack() as stack:
        layers: dict[LayerSpec, Layer] = {}
        for disk in disks:
            for spec in (*disk.layers, *disk.clone_of):
                if spec.format == "nbd":
                    layers[spec] = _connected(disk.name, spec, stack)
                elif spec not in layers:
                    layers[spec] = Layer(spec.path, spec.format, _open(disk.name, spec.path, stack))
        found = [
            DiskSpec(
                printable(disk.name, 64),
                tuple(layers[spec] for spec in disk.layers),
                disk.snapshot,
                tuple(layers[spec] for spec in disk.clone_of),
                written=where,
                doubt=why,
            )
            for disk, (where, why) in ((disk, _written(disk, end)) for disk in disks)
        ]
        yield found, list(layers.values())


def _connected(name: str, spec: LayerSpec, stack: ExitStack) -> Layer:
    try:
        fd, size = connect(spec.path, spec.export)
    except UnreadableImage as exc:
        raise BadInput("Cannot read disk %s from its hypervisor: %s." % (name, exc)) from exc
    stack.callback(os.close, fd)
    return Layer(spec.path, spec.format, fd, size)


def _written(disk: DiskRequest, end: float) -> tuple[tuple[tuple[int, int], ...], str]:
    """Where; or why that is not known, and all is read."""
    if disk.former is None:
        return (), ""
    layer = disk.layers[0]
    try:
        return tuple(written(layer.path, layer.export, disk.former.context, end - time.monotonic())), ""
    except UnreadableImage as exc:
        return (), "it can't be told what was written since (%s)" % exc


def _open(name: str, path: str, stack: ExitStack) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        why = "it is a symbolic link. Name what it leads to" if exc.errno == errno.ELOOP else exc.strerror
        raise BadInput("Cannot open the layer %s of disk %s: %s." % (path, name, why)) from exc
    stack.callback(os.close, fd)
    why = claimed(path, fd)
    if why:
        raise BadInput(why)
    return fd
