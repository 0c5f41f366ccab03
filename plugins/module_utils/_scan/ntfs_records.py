# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a record of NTFS is made of: attributes, their run lists, and units that are packed with LZNT1.

Made after Microsoft's [MS-XCA] (LZNT1) and the layout published by the Linux-NTFS project (https://flatcap.github.io/linux-ntfs).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from .ext4_records import BadFilesystem

STANDARD, LIST, NAME, VOLUME, DATA, BITMAP, REPARSE, EA = 0x10, 0x20, 0x30, 0x70, 0x80, 0xB0, 0xC0, 0xE0
KNOWN = frozenset(range(0x10, 0x101, 0x10))  # a volume may tell of further ones
PACKED, LZNT1, ENCRYPTED = 0x00FF, 1, 0x4000
_END = 0xFFFFFFFF
_SECTOR = 512
_CHUNK = 4096
_DOS_NAME = 2

# First cluster within the attribute, where it lies on the volume (None: a hole), how many there are
Run = tuple[int, "int | None", int]
# Of a list of attributes: type, name, first cluster, reference of the record, number in it
Listed = tuple[int, bytes, int, int, int]


@dataclass(frozen=True)
class Attribute:
    """`value` is None if it lies outside of the record; then `runs` and the sizes, which only the first part tells."""

    type: int
    name: bytes
    flags: int
    number: int
    raw: bytes
    value: bytes | None
    first: int = 0
    size: int = 0
    initialized: int = 0
    unit: int = 0
    runs: tuple[Run, ...] = ()


def fixed(raw: bytes, magic: bytes) -> bytes:
    """A record with the true last bytes of its sectors; a torn one is told from them."""
    at, count = struct.unpack_from("<HH", raw, 4)
    if raw[:4] != magic or count != len(raw) // _SECTOR + 1 or at < 8 or at + 2 * count > _SECTOR - 2:
        raise BadFilesystem("a record is damaged")
    whole, mark = bytearray(raw), raw[at : at + 2]
    for index in range(1, count):
        end = index * _SECTOR
        if raw[end - 2 : end] != mark:
            raise BadFilesystem("a record was written in part only")
        whole[end - 2 : end] = raw[at + 2 * index : at + 2 * index + 2]
    return bytes(whole)


def attributes(record: bytes) -> list[Attribute]:
    at = struct.unpack_from("<H", record, 20)[0]
    end = min(struct.unpack_from("<I", record, 24)[0], len(record))
    found: list[Attribute] = []
    while at + 4 <= end:
        if struct.unpack_from("<I", record, at)[0] == _END:
            return found
        length = struct.unpack_from("<I", record, at + 4)[0] if at + 8 <= end else 0
        if length < 24 or length % 8 or at + length > end:
            break
        found.append(_attribute(record[at : at + length]))
        at += length
    raise BadFilesystem("the attributes of a record are damaged")


def _attribute(raw: bytes) -> Attribute:
    kind, _length, outside, name_length, name_at, flags, number = struct.unpack_from("<IIBBHHH", raw)
    name = raw[name_at : name_at + 2 * name_length]
    if len(name) != 2 * name_length:
        raise BadFilesystem("the name of an attribute is damaged")
    if not outside:
        size, at = struct.unpack_from("<IH", raw, 16)
        if at + size > len(raw):
            raise BadFilesystem("an attribute is longer than its record")
        return Attribute(kind, _utf8(name), flags, number, raw, raw[at : at + size], 0, size, size)
    if len(raw) < 64:
        raise BadFilesystem("an attribute is damaged")
    first, last, at, unit = struct.unpack_from("<QqHB", raw, 16)
    _allocated, size, initialized = struct.unpack_from("<QQQ", raw, 40)
    runs = tuple(_runs(raw, at, first, last))
    return Attribute(kind, _utf8(name), flags, number, raw, None, first, size, initialized, unit, runs)


def _runs(raw: bytes, at: int, first: int, last: int) -> Iterator[Run]:
    vcn, lcn = first, 0
    while at < len(raw) and raw[at]:
        counted, placed = raw[at] & 15, raw[at] >> 4
        count = int.from_bytes(raw[at + 1 : at + 1 + counted], "little", signed=True)
        at += 1 + counted
        lcn += int.from_bytes(raw[at : at + placed], "little", signed=True)
        at += placed
        if not 0 < counted <= 8 or placed > 8 or at >= len(raw) or count <= 0 or vcn + count - 1 > last or lcn < 0:
            raise BadFilesystem("a run list is damaged")
        yield vcn, (lcn if placed else None), count
        vcn += count
    if vcn != last + 1:
        raise BadFilesystem("a run list ends too early")


def listed(value: bytes) -> Iterator[Listed]:
    """What a list of attributes names."""
    at = 0
    while at < len(value):
        if at + 26 > len(value):
            raise BadFilesystem("its list of attributes is damaged")
        kind, length, name_length, name_at, first, reference, number = struct.unpack_from("<IHBBQQH", value, at)
        name = value[at + name_at : at + name_at + 2 * name_length]
        if length < 26 or at + length > len(value) or len(name) != 2 * name_length:
            raise BadFilesystem("its list of attributes is damaged")
        yield kind, _utf8(name), first, reference, number
        at += length


def check_list(number: int, wanted: list[Listed], there: list[tuple[int, Attribute]]) -> None:
    """Windows reads what the list names, or all if there is none. What it leaves out could hide the rest."""
    lists = [one for record, one in there if (record, one.type) == (number, LIST)]
    if not lists and not any(one.first for _record, one in there):
        return
    named_ones = Counter((kind, name, first, record_of(where), own) for kind, name, first, where, own in wanted)
    others = ((record, one) for record, one in there if (record, one.type) != (number, LIST))
    if len(lists) != 1 or named_ones != Counter((one.type, one.name, one.first, at, one.number) for at, one in others):
        raise BadFilesystem("its list of attributes names one that is not there, or leaves one out")


def named(value: bytes) -> tuple[int, bytes, bool]:
    """The record of the directory, the name in it, and whether that is the short one that DOS saw."""
    if len(value) < 66 or len(value) < 66 + 2 * value[64]:
        raise BadFilesystem("its name is damaged")
    return record_of(struct.unpack_from("<Q", value)[0]), _utf8(value[66 : 66 + 2 * value[64]]), value[65] == _DOS_NAME


def record_of(reference: int) -> int:
    return reference & ((1 << 48) - 1)


def _utf8(name: bytes) -> bytes:
    """Windows lets names hold halves of surrogate pairs."""
    return name.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")


def unpacked(data: bytes, size: int) -> bytes:
    """One unit of LZNT1, filled up with zeros as Windows does."""
    out, at = bytearray(), 0
    while at + 2 <= len(data) and len(out) < size:
        head = int.from_bytes(data[at : at + 2], "little")
        if not head:
            break
        start, end = at + 2, at + 3 + (head & 0xFFF)
        if end > len(data):
            raise BadFilesystem("its packed content is damaged")
        chunk = _chunk(data[start:end]) if head & 0x8000 else data[start:end]
        if len(chunk) > _CHUNK:
            raise BadFilesystem("its packed content is damaged")
        out += chunk.ljust(_CHUNK, b"\0")
        at = end
    return bytes(out[:size]).ljust(size, b"\0")


def _chunk(data: bytes) -> bytes:
    out, at = bytearray(), 0
    while at < len(data):
        flags, at = data[at], at + 1
        for bit in range(8):
            if at >= len(data):
                break
            if not flags >> bit & 1:
                out.append(data[at])
                at += 1
                continue
            if at + 2 > len(data):
                raise BadFilesystem("its packed content is damaged")
            token, at = int.from_bytes(data[at : at + 2], "little"), at + 2
            # The more lies behind, the more of the token's bits say how far to go back
            wide = 16 - max(4, (len(out) - 1).bit_length()) if out else 0
            back, length = (token >> wide) + 1, (token & ((1 << wide) - 1)) + 3
            if back > len(out) or len(out) + length > _CHUNK:
                raise BadFilesystem("its packed content is damaged")
            while length:
                part = out[len(out) - back :][:length]
                out += part
                length -= len(part)
    return bytes(out)
