# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why what lies on an NTFS volume may not be what the guest will see."""

from __future__ import annotations

import struct

from .ext4_records import BadFilesystem
from .ntfs import ROOT, File, Ntfs, Stream
from .ntfs_records import VOLUME, fixed

_DIRTY, _CHECKING = 1, 0x4000
_NO_CLIENT, _CLEAN = 0xFFFF, 2
_AWAKE = (b"wake", b"WAKE", bytes(4))


def doubts(fs: Ntfs) -> list[str]:
    """Why what lies on the disk may not be what the guest will see."""
    found = []
    told = fs.stream(fs.file(3), b"", VOLUME).value or b""
    flags = struct.unpack_from("<H", told.ljust(12, b"\0"), 10)[0]
    if flags & (_DIRTY | _CHECKING) or len(told) < 12:
        found.append("it was not unmounted cleanly")
    if told[8:9] != b"\3":
        found.append("it is of a version of NTFS that this reader does not know")
    if not _log_is_clean(fs):
        found.append("its log holds changes that are not yet written. Start and shut the VM down cleanly")
    if not _is_mirrored(fs):
        found.append("its master file table and the copy of it are not the same")
    return found


def _is_mirrored(fs: Ntfs) -> bool:
    """But for the place in the log that wrote it, and the marks against torn writes."""
    copy, size = fs.stream(fs.file(1), b""), fs.record_size
    try:
        for number in range(min(copy.size // size, 4, fs.count)):
            first, second = fs.raw_record(number), fs.read(copy, number * size, size)
            if fixed(first, b"FILE")[56:] != fixed(second, b"FILE")[56:]:
                return False
    except BadFilesystem:
        return False
    return True


def _log_is_clean(fs: Ntfs) -> bool:
    """By the newer one of its two restart pages. A log that was emptied is all ones."""
    log = fs.stream(fs.file(2), b"")
    if fs.read(log, 0, 8192) == b"\xff" * 8192:
        return True
    page = struct.unpack_from("<I", fs.read(log, 16, 4).ljust(4, b"\0"))[0]
    found = []
    for at in (0, page if page in (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536) else 4096):
        raw = fs.read(log, at, page or 4096)
        try:
            whole = fixed(raw, b"CHKD" if raw[:4] == b"CHKD" else b"RSTR")
            area = struct.unpack_from("<H", whole, 24)[0]
            newest, _clients, _free, client, flags = struct.unpack_from("<Q4H", whole, area)
            found.append((newest, client == _NO_CLIENT or bool(flags & _CLEAN)))
        except (BadFilesystem, struct.error):
            continue
    return bool(found) and max(found)[1]


def is_asleep(fs: Ntfs, file: File, stream: Stream) -> bool:
    """Is this the file that Windows sleeps in? Then it will not read anew what it holds in memory."""
    name = next((name.lower() for parent, name in file.names if parent == ROOT), b"")
    return name == b"hiberfil.sys" and bool(stream.size) and fs.read(stream, 0, 4) not in _AWAKE
