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
_MIRRORED = 4
_RESTART = b"RSTR", b"CHKD"
_PAGES = 0, *(512 << power for power in range(8))  # how large they may be, and so where the second one may begin
_CLIENT = 160
# Of a boot sector: what Windows wants to be zero; and sizes, and where the tables lie
_EMPTY = slice(14, 21), slice(22, 24), slice(32, 36)
_TOLD = slice(11, 24), slice(40, 72)


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
        found.append(
            "its log holds changes that are not yet written, or Windows keeps some in memory. "
            "Start the VM, and shut it down fully (shutdown /s /t 0)"
        )
    if not all(_is_mirrored(fs, number) for number in range(_MIRRORED)):
        found.append("its master file table and the copy of it are not the same")
    return found + _boot_doubts(fs)


def _boot_doubts(fs: Ntfs) -> list[str]:
    """Windows refuses a boot sector with fields of FAT in it, and reads the copy."""
    found = []
    if any(any(fs.boot[part]) for part in _EMPTY):
        found.append("its boot sector is one that Windows refuses")
    if any(copy[part] != fs.boot[part] for copy in fs.boot_copies() for part in _TOLD):
        found.append("a copy of its boot sector tells of another file system. Let the guest check it (chkdsk /f)")
    return found


def _is_mirrored(fs: Ntfs, number: int) -> bool:
    """But for the place in the log that wrote it, and the marks against torn writes."""
    try:
        return _essence(fs.raw_record(number)) == _essence(fs.mirrored(number))
    except BadFilesystem:
        return False


def _essence(record: bytes) -> bytes:
    whole, (at, count) = fixed(record, b"FILE"), struct.unpack_from("<HH", record, 4)
    return whole[16:at] + whole[at + 2 * count :]


def _log_is_clean(fs: Ntfs) -> bool:
    """By the newer one of its two restart pages. A log that was emptied is all ones."""
    log = fs.stream(fs.file(2), b"")
    places = [at for at in _PAGES if fs.read(log, at, 4) in _RESTART]
    if not places:
        return fs.read(log, 0, 8192) == b"\xff" * 8192
    try:
        pages = [_restart(fs.read(log, at, _PAGES[-1]), log.size) for at in places]
    except (BadFilesystem, struct.error):
        return False
    newest = max(lsn for lsn, _size, _is_clean in pages)
    where_drivers_look = {0, pages[0][1]}
    return where_drivers_look.issuperset(places) and all(clean for lsn, _size, clean in pages if lsn == newest)


def _restart(raw: bytes, log_size: int) -> tuple[int, int, bool]:
    """Its number, its size, and whether nothing is left to be written: of version 2 Windows keeps that to itself.

    One that a driver would refuse for another is none.
    """
    size, _log_page, area, _minor, version = struct.unpack_from("<II3H", raw, 16)
    whole = fixed(raw[:size], raw[:4])
    lsn, clients, _free, client, flags, bits, length, array, told = struct.unpack_from("<Q4HIHHQ", whole, area)
    is_sound = bits == 67 - told.bit_length() and told <= log_size and not (area | array) % 8
    if not is_sound or array + clients * _CLIENT > length or area + length > size or size not in _PAGES:
        raise BadFilesystem("a restart page is damaged")
    return lsn, size, version < 2 and (client == _NO_CLIENT or bool(flags & _CLEAN))


def is_asleep(fs: Ntfs, file: File, stream: Stream) -> bool:
    """Is this the file that Windows sleeps in? Then it will not read anew what it holds in memory."""
    is_named = any(parent == ROOT and name.lower() == b"hiberfil.sys" for parent, name in file.all_names)
    return is_named and bool(stream.size) and fs.read(stream, 0, 4) not in _AWAKE
