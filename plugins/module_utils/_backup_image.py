# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of a backup, before it is copied: whether it is what it is said to be, and leans on no other file.

Whoever wrote it may be hostile: a qcow2 header can name any file of the host as its base or as its data. So the
header is read here, and QEMU gets only what has passed.

Source: U(https://www.qemu.org/docs/master/interop/qcow2.html).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from typing import Callable

from ._errors import NotFound, NotVerified, Refused, VmwardError
from ._model import Layer, printable

FORMATS = ("qcow2", "raw")
CHUNK = 1 << 20
HEADER = 104  # bytes of a qcow2 header with all that is read here
DIRTY, DATA_FILE, KNOWN = 0x1, 0x4, 0x1 | 0x8 | 0x10  # incompatible features: those that a copy may have are KNOWN


def opened(image: Layer) -> int:
    """Its file, for reading only."""
    path = printable(image.path, 200)
    try:
        handle = os.open(image.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise NotFound(f"the image {path} is not there. Nothing was touched.") from exc
    except OSError as exc:
        raise Refused(f"the image {path} cannot be opened: {exc.strerror}. Nothing was touched.") from exc
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Refused(f"the image {path} is no regular file. Nothing was touched. Name a file.")
    return handle


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Changes with every write to a file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextlib.contextmanager
def held(image: Layer, stamp: tuple[int, ...]) -> Iterator[Layer]:
    """The very file that was judged: whatever its path leads to by now, QEMU opens it by this process's handle."""
    changed = f"somebody changed {printable(image.path, 200)} meanwhile"
    try:
        handle = opened(image)
    except VmwardError as exc:
        raise NotVerified(changed) from exc
    try:
        if stamp_of(os.fstat(handle)) != stamp:
            raise NotVerified(changed)
        yield Layer(f"/proc/{os.getpid()}/fd/{handle}", image.format)
    finally:
        os.close(handle)


def judged(image: Layer, size: int, tick: Callable[[int, int], None]) -> tuple[tuple[int, ...], str]:
    """The stamp and the SHA-256 of an image that is whole by itself and has ``size`` bytes for the guest."""
    handle = opened(image)
    try:
        status = os.fstat(handle)
        flaw = flaw_of(image.format, os.pread(handle, HEADER, 0), status.st_size, size)
        if flaw:
            raise Refused(f"the image {printable(image.path, 200)} cannot be taken: {flaw}. Nothing was touched.")
        return stamp_of(status), digest(handle, status.st_size, tick)
    finally:
        os.close(handle)


def digest(handle: int, size: int, tick: Callable[[int, int], None]) -> str:
    found, done = hashlib.sha256(), 0
    while data := os.pread(handle, CHUNK, done):
        found.update(data)
        done += len(data)
        tick(done, size)
    return found.hexdigest()


def flaw_of(image_format: str, head: bytes, file_size: int, size: int) -> str:
    """Why an image of ``file_size`` bytes with this head is no disk of ``size`` bytes; empty when it is. Pure."""
    if image_format not in FORMATS:
        return f"its format is {image_format}, and only {' and '.join(FORMATS)} are. Convert a copy with qemu-img"
    told = file_size
    if image_format == "qcow2":
        if head[:4] != b"QFI\xfb" or len(head) < 72:
            return "it does not begin as a qcow2 image"
        version, backing = struct.unpack_from(">IQ", head, 4)
        told, encrypted = struct.unpack_from(">QI", head, 24)
        features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 and len(head) >= 80 else 0
        if version not in (2, 3) or (version == 3 and len(head) < HEADER):
            return f"it is a qcow2 image of the unknown version {version}"
        if backing:
            return "it leans on another image (a backing file), which may be any file of this host"
        if features & DATA_FILE:
            return "its content lies in another file (an external data file), which may be any file of this host"
        if encrypted:
            return "it is encrypted"
        if features & ~KNOWN:
            return f"it is marked as corrupt, or has features that are not known here ({features:#x})"
    if told != size:
        return f"it is an image of {told} bytes, the disk has {size}. Resize the disk, or a copy of the image"
    return ""
