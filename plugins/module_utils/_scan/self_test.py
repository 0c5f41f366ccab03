# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Before a scan is believed, every engine finds planted samples: in every file system that has a proof of its own.

In ext on qcow2 on raw, as a whole and by differences; in FAT, exFAT, XFS, NTFS and btrfs on raw; in ext on LVM, in VMDK
and in VHDX; and in archives. Of one sample in ext on qcow2, one in XFS and one in btrfs, only the journal knows.
"""

from __future__ import annotations

import base64
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from . import planted
from .blocks import Meter
from .chain import Layer
from .engines import WINDOW, Content, Engine
from .inside import Archives
from .judge import Emit, Judge
from .samples import INSIDE, archive
from .scanner import DiskSpec, Scanner
from .verdict import Where

_WANTED = {"yara": {"/etc/replaced", "/d/new"}, "clamd": {"/etc/replaced"}}
_JOURNALED, _LOGGED = {"as a whole", "by its differences", "as XFS", "as btrfs"}, "/logged"

_OTHERS = {
    "FAT": ("raw", planted.FAT),
    "exFAT": ("raw", planted.EXFAT),
    "XFS": ("raw", planted.XFS),
    "NTFS": ("raw", planted.NTFS),
    "btrfs": ("raw", planted.BTRFS),
    "ext on LVM": ("raw", planted.LVM),
    "ext in VMDK": ("vmdk", planted.VMDK),
    "ext in VHDX": ("vhdx", planted.VHDX),
}


def open_images() -> tuple[Layer, ...]:
    """In memory: the overlay, its base, and the others in their order."""
    others = ((name, *_OTHERS[name]) for name in _OTHERS)
    images = (("overlay", "qcow2", planted.TOP), ("base", "raw", planted.BASE), *others)
    return tuple(Layer("(self-test %s)" % name, kind, _in_memory(name, text)) for name, kind, text in images)


def _in_memory(name: str, text: str) -> int:
    """Those sectors that are not empty, each behind its number; before them the size of all."""
    data = zlib.decompress(base64.b85decode(text))
    fd = os.memfd_create(name)
    os.ftruncate(fd, struct.unpack_from("<I", data)[0])
    for at in range(4, len(data), 516):
        os.pwrite(fd, data[at + 4 : at + 516], struct.unpack_from("<I", data, at)[0])
    return fd


def passes(engines: Sequence[Engine], images: tuple[Layer, ...], emit: Emit) -> bool:
    """Scan the images by the very path that a VM's disk takes; tell why nothing can be believed, if so."""
    read = Meter.bytes
    specs = _specs(images)
    for engine in engines:
        for how, spec in specs.items():
            wanted = _WANTED[engine.name] | ({_LOGGED} if how in _JOURNALED else set())
            found: set[str] = set()
            missed = _missed(engine, spec, found, wanted)
            if missed:
                told = "The self-test failed: %s did not find the planted samples in a disk scanned %s (%s)."
                emit("reason", {"text": told % (engine.name, how, missed)})
                return False
    Meter.bytes = read  # these images are no disks of the VM
    return see_inside(engines, emit)


def see_inside(engines: Sequence[Engine], emit: Emit) -> bool:
    """Whether samples in an archive, each packed in another way, are found by what does not unpack by itself."""
    sample = archive()
    for engine in engines:
        found: set[str] = set()

        judge = Judge([engine], _noting(found), WINDOW, archives=Archives())
        content = Content(len(sample), lambda at, length: sample[at : at + length], WINDOW)
        with engine.testing():
            judge.file(Where("self-test", 0), content, lambda: "a.tar")
        if not getattr(engine, "unpacks", False) and not found >= INSIDE:
            told = "The self-test failed: %s did not find the planted samples in an archive (found %s)."
            emit("reason", {"text": told % (engine.name, ", ".join(sorted(found)) or "nothing")})
            return False
    return True


def _noting(found: set[str]) -> Emit:
    def take(kind: str, body: dict[str, Any]) -> None:
        if kind == "finding":
            found.add(body["path"])

    return take


def _specs(images: tuple[Layer, ...]) -> dict[str, DiskSpec]:
    overlay, base, *others = images
    whole = DiskSpec("self-test", (overlay, base))
    scanner = Scanner(Judge([], lambda _kind, _body: None, WINDOW), indexing=True)
    scanner.run([DiskSpec("self-test", (base,))])
    specs = {"as a whole": whole, "by its differences": replace(whole, base=(base,), index=scanner.index)}
    for name, image in zip(_OTHERS, others):
        specs["as %s" % name] = DiskSpec("self-test", (image,))
    return specs


def _missed(engine: Engine, spec: DiskSpec, found: set[str], wanted: set[str]) -> str:
    reasons: list[str] = []

    def take(kind: str, body: dict[str, Any]) -> None:
        if kind == "finding":
            found.add(body["path"])
        elif kind == "reason":
            reasons.append(body["text"])

    with engine.testing():
        Scanner(Judge([engine], take, WINDOW)).run([spec])
    if wanted <= found:
        return ""  # a rule of the user's may be too slow for some other file here: the disks' own scan tells of that
    return reasons[0].rstrip(".") if reasons else "found %s" % (", ".join(sorted(found)) or "nothing")
