# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VMDK in one sparse file (monolithicSparse, streamOptimized), read-only.

Its descriptor is asked for one thing only, whether a parent lies below. No other file that it names is ever opened.
Source: "Virtual Disk Format 5.0", U(https://www.vmware.com/app/vmdk/?src=vmdk).
"""

from __future__ import annotations

import re
import struct
import zlib
from array import array

from .blocks import Place, UnreadableImage
from .pieces import Pieces

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_MARKER = struct.Struct("<QI")
_SECTOR = 512
_ZEROED, _COMPRESSED, _AT_THE_END = 1 << 2, 1 << 16, (1 << 64) - 1
_MOST_TABLES = 1 << 21
_MOST_TEXT = 1 << 20


class Vmdk(Pieces):
    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._unpacked: tuple[int, bytes] = (-1, b"")
        directory = self._read_header(0)
        if directory == _AT_THE_END:
            directory = self._read_header(self._file_size - 2 * _SECTOR)
        self._tables = self._read_tables(directory)
        last = max((max(table) for table in self._tables.values()), default=0)
        if last > 1:
            least = self._packed_size(last * _SECTOR) if self._is_packed else self.size % self._piece or self._piece
            self._must_read(last * _SECTOR, least)

    def _read_header(self, at: int) -> int:
        """Where its grain directory lies."""
        raw = self._must_read(max(0, at), _SECTOR)
        magic, version, flags, capacity, grain, text, texts, per_table = _HEADER.unpack_from(raw)[:8]
        directory, _overhead, is_open, ends, method = _HEADER.unpack_from(raw)[9:]
        if magic != b"KDMV" or version not in (1, 2, 3):
            # A text descriptor names other files, and an opener that follows it reads what the image wants.
            raise UnreadableImage("it is not a sparse VMDK in one file. Name its -flat file with the format raw")
        self.size, self._piece, self._per_table = capacity * _SECTOR, grain * _SECTOR, per_table
        self._check_size()
        self._is_packed, self._has_zeroed = bool(flags & _COMPRESSED), bool(flags & _ZEROED)
        sane = 8 <= grain <= 2048 and grain & (grain - 1) == 0 and 0 < per_table <= 1 << 16
        if not sane or (self._is_packed and method != 1) or (flags & 1 and ends != b"\n \r\n"):
            raise UnreadableImage("its header holds absurd values")
        if is_open:
            raise UnreadableImage("it was not closed cleanly. Open and close it with its hypervisor")
        if not at:
            self._check_descriptor(text * _SECTOR, texts * _SECTOR)
        return int(directory)

    def _check_descriptor(self, at: int, length: int) -> None:
        if length > _MOST_TEXT:
            raise UnreadableImage("its descriptor is absurdly long")
        text = self._must_read(at, length).split(b"\0", 1)[0].decode("utf-8", "replace")
        if not text:
            raise UnreadableImage("it has no descriptor, so it is one of several files of a disk")
        parents = re.findall(r"^\s*parentCID\s*=\s*\"?(\w+)", text, re.MULTILINE | re.IGNORECASE)
        extents = re.findall(r"^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\S+)", text, re.MULTILINE)
        if [parent.lower() for parent in parents] != ["ffffffff"]:
            raise UnreadableImage("it lies on a parent, which is not supported. Consolidate its snapshots first")
        if extents != ["SPARSE"]:
            raise UnreadableImage("it is made of several files, which is not supported. Convert it with qemu-img first")

    def _read_tables(self, directory: int) -> dict[int, array[int]]:
        count = -(-self.size // (self._piece * self._per_table))
        if count > _MOST_TABLES:
            raise UnreadableImage("its header holds absurd sizes")
        places = _numbers(self._must_read(directory * _SECTOR, 4 * count))
        return {
            number: _numbers(self._must_read(place * _SECTOR, 4 * self._per_table))
            for number, place in enumerate(places)
            if place
        }

    def _place(self, number: int) -> int:
        table = self._tables.get(number // self._per_table)
        entry = table[number % self._per_table] if table is not None else 0
        if entry == 1 and not self._has_zeroed:
            raise UnreadableImage("a piece of it lies in its own header")
        return entry * _SECTOR if entry > 1 else 0

    def _content(self, place: int, inside: int, length: int) -> bytes:
        if not self._is_packed:
            return super()._content(place, inside, length)
        if self._unpacked[0] != place:
            packed = self._must_read(place, self._packed_size(place))[_MARKER.size :]
            try:
                self._unpacked = place, zlib.decompressobj().decompress(packed, self._piece)
            except zlib.error as exc:
                raise UnreadableImage("a compressed piece in it is damaged") from exc
        data = self._unpacked[1][inside : inside + length]
        if len(data) < length:
            raise UnreadableImage("a compressed piece in it is short")
        return data

    def _packed_size(self, place: int) -> int:
        size = int(_MARKER.unpack(self._must_read(place, _MARKER.size))[1])
        if not 0 < size <= 2 * self._piece:
            raise UnreadableImage("a compressed piece in it is of an absurd size")
        return _MARKER.size + size

    def _origin(self, place: int, inside: int, length: int) -> Place:
        return (length, (self._identity, place), inside) if self._is_packed else super()._origin(place, inside, length)


def _numbers(raw: bytes) -> array[int]:
    values = array("I", raw)
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        values.byteswap()
    return values
