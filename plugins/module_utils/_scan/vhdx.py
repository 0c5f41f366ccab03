# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VHDX, dynamic or fixed, read-only. Source: [MS-VHDX], Virtual Hard Disk v2 File Format.

One whose log is to be replayed, or that lies on a parent, is refused: what it holds is not the disk as its VM sees it.
A block that the guest gave back (2.5.1.1: undefined, unmapped) may read as zeros, or still as what it held, as the
hypervisor likes. A guest can give back what it uses, so a block is taken for what it held, if that lies in the file.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from uuid import UUID

from .blocks import UnreadableImage
from .journal import crc32c
from .pieces import Pieces

_KB, _MB = 1 << 10, 1 << 20
_HEADERS, _REGIONS = (64 * _KB, 128 * _KB), (192 * _KB, 256 * _KB)
_BAT = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
_METADATA = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_SECTOR = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
_OTHERS = frozenset(
    (
        UUID("beca12ab-b2e6-4523-93ef-c309e000c746"),  # the disk's own id
        UUID("cda348c7-445d-4471-9cc9-e9885251c556"),  # sectors of the device below
        UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c"),  # where the parent is: the parameters say if there is one
    )
)
_HAS_PARENT, _REQUIRED = 2, 4
_ABSENT, _GIVEN_BACK, _PRESENT = frozenset((0, 2)), frozenset((1, 3)), 6
_MOST_BLOCKS = 1 << 26


class Vhdx(Pieces):
    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        if self._file_size < _MB or self._must_read(0, 8) != b"vhdxfile":
            raise UnreadableImage("it is not a VHDX")
        self._check_header()
        regions = self._regions()
        sector = self._read_metadata(*regions[_METADATA])
        self._blocks = self._read_blocks(*regions[_BAT], (1 << 23) * sector // self._piece)

    def _check_header(self) -> None:
        """The newest of the two that is whole counts."""
        found = [raw for raw in (self._must_read(at, 4 * _KB) for at in _HEADERS) if _is_whole(raw, b"head")]
        if not found:
            raise UnreadableImage("both of its headers are damaged")
        newest = max(found, key=lambda raw: struct.unpack_from("<Q", raw, 8)[0])
        if struct.unpack_from("<H", newest, 66)[0] != 1:
            raise UnreadableImage("it is of a version that this reader does not know")
        if any(newest[48:64]):
            told = "its log holds changes that are not yet written. Open and close it with its hypervisor"
            raise UnreadableImage(told)

    def _regions(self) -> dict[UUID, tuple[int, int]]:
        raw = next((raw for raw in (self._must_read(at, 64 * _KB) for at in _REGIONS) if _is_whole(raw, b"regi")), b"")
        if not raw:
            raise UnreadableImage("both of its region tables are damaged")
        found = {}
        for at in _entries(struct.unpack_from("<I", raw, 8)[0], 16):
            name, place, length, required = struct.unpack_from("<16sQII", raw, at)
            kind = UUID(bytes_le=name)
            if kind not in (_BAT, _METADATA) and required & 1:
                raise UnreadableImage("it holds a region that this reader does not know")
            if kind in found:
                raise UnreadableImage("it holds a region twice")
            found[kind] = place, length
        if not {_BAT, _METADATA} <= set(found):
            raise UnreadableImage("a region of it is missing")
        return found

    def _read_metadata(self, at: int, length: int) -> int:
        """Bytes of a sector."""
        raw, found = self._must_read(at, min(length, _MB)), dict[UUID, bytes]()
        if raw[:8] != b"metadata" or len(raw) < 64 * _KB:
            raise UnreadableImage("its metadata are damaged")
        for entry in _entries(struct.unpack_from("<H", raw, 10)[0], 32):
            name, place, size, flags = struct.unpack_from("<16sIII", raw, entry)
            kind = UUID(bytes_le=name)
            if kind not in (_PARAMETERS, _SIZE, _SECTOR, *_OTHERS) and flags & _REQUIRED:
                raise UnreadableImage("it holds metadata that this reader does not know")
            if kind in found:
                raise UnreadableImage("it holds metadata twice")
            found[kind] = raw[place : place + size]
        if [len(found.get(kind, b"")) for kind in (_PARAMETERS, _SIZE, _SECTOR)] != [8, 8, 4]:
            raise UnreadableImage("its metadata are damaged")
        self._piece, flags = struct.unpack("<II", found[_PARAMETERS])
        self.size, sector = struct.unpack("<Q", found[_SIZE])[0], int(struct.unpack("<I", found[_SECTOR])[0])
        self._check_size()
        if not _MB <= self._piece <= 256 * _MB or self._piece & (self._piece - 1) or sector not in (512, 4096):
            raise UnreadableImage("its metadata hold absurd values")
        if flags & _HAS_PARENT:
            raise UnreadableImage("it lies on a parent, which is not supported. Merge it with its parent first")
        return sector

    def _read_blocks(self, at: int, length: int, per_chunk: int) -> array[int]:
        """Where each block lies. After those of each chunk comes an entry that matters above a parent only."""
        count = -(-self.size // self._piece)
        entries = count + (count - 1) // per_chunk
        if count > _MOST_BLOCKS or entries * 8 > length:
            raise UnreadableImage("its table of blocks is too short, or absurdly long")
        values = array("Q", self._must_read(at, entries * 8))
        if struct.pack("=H", 1) != struct.pack("<H", 1):
            values.byteswap()
        del values[per_chunk :: per_chunk + 1]
        for number, entry in enumerate(values):
            state, place = entry & 7, (entry >> 20) * _MB
            is_there = place + min(self._piece, self.size - number * self._piece) <= self._file_size
            if state in _ABSENT or (state in _GIVEN_BACK and not is_there):
                place = 0
            elif state not in (*_GIVEN_BACK, _PRESENT) or (state == _PRESENT and not place):
                raise UnreadableImage("a block of it is in a state that this reader does not know")
            elif not is_there:
                raise UnreadableImage("it is truncated: what should lie at %#x lies past its end" % place)
            values[number] = place
        return values

    def _place(self, number: int) -> int:
        return self._blocks[number]


def _entries(count: int, first: int) -> Iterator[int]:
    if count > 2047:
        raise UnreadableImage("a table of it is absurdly long")
    return iter(range(first, first + 32 * count, 32))


def _is_whole(raw: bytes, mark: bytes) -> bool:
    told = struct.unpack_from("<I", raw, 4)[0]
    return raw[:4] == mark and crc32c(0xFFFFFFFF, raw[:4] + bytes(4) + raw[8:]) ^ 0xFFFFFFFF == told
