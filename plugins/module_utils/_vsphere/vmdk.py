# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stream in which vSphere exports a disk (a stream-optimized VMDK), read as it comes. Pure.

It names no other file, and what a program for many formats would look up in it is not looked at. Source: "Virtual Disk
Format 5.0", U(https://www.vmware.com/app/vmdk/?src=vmdk).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Callable

SECTOR = 512
HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
MARKER = struct.Struct("<QII")
COMPRESSED, MARKERS, DEFLATE, AT_THE_END = 1 << 16, 1 << 17, 1, 2**64 - 1
END, TABLES, FOOTER = 0, (1, 2), 3  # kinds of markers: end of the stream; grain table, grain directory; footer
MOST = 64 << 20  # bytes of descriptor or tables that are skipped at once

Read = Callable[[int], bytes]


class Flaw(ValueError):
    """Why it is not the whole of the disk that was asked for."""


def grains(read: Read, grain: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Every piece of a disk of ``size`` bytes that holds something, with its offset; all others are zero.

    Zeros alone end nothing: before the end mark comes the footer, and after it nothing.
    """
    complete = False
    while True:
        sector = exactly(read, SECTOR)
        place, length, kind = MARKER.unpack_from(sector)
        if complete and (length or kind != END):
            raise Flaw("it goes on behind its footer")
        if length:
            data = unpacked(sector, read, place * SECTOR, length, grain)[: size - place * SECTOR]
            if place * SECTOR >= size:
                raise Flaw(f"it holds a grain at {place * SECTOR}, behind the end of the disk")
            if data.count(0) != len(data):
                yield place * SECTOR, data
        elif kind == END:
            if not complete:
                raise Flaw("it ends before its footer")
            if read(1):
                raise Flaw("it goes on behind its end mark")
            return
        elif kind in TABLES or kind == FOOTER:
            skip(read, place * SECTOR)
            complete = kind == FOOTER
        else:
            raise Flaw(f"it holds a marker of the unknown kind {kind}")


def begin(read: Read, size: int) -> int:
    """Bytes of a grain. The head is checked, and skipped to its end."""
    magic, version, flags, capacity, grain, _d, _ds, _n, _r, tables, overhead, _u, _nl, method = HEADER.unpack_from(
        exactly(read, SECTOR)
    )
    needed = COMPRESSED | MARKERS
    if (magic, flags & needed, tables, method) != (b"KDMV", needed, AT_THE_END, DEFLATE) or not 1 <= version <= 3:
        raise Flaw("it is no stream-optimized VMDK")
    if capacity * SECTOR != size:
        raise Flaw(f"it is of a disk of {capacity * SECTOR} bytes, not {size}")
    if grain not in (8, 16, 32, 64, 128, 256, 512, 1024, 2048) or not overhead:
        raise Flaw(f"its grains have {grain} sectors, its head has {overhead}")
    skip(read, (overhead - 1) * SECTOR)
    return int(grain) * SECTOR


def unpacked(sector: bytes, read: Read, offset: int, length: int, grain: int) -> bytes:
    if offset % grain or length > 2 * grain:
        raise Flaw(f"it holds a grain of {length} bytes at {offset}")
    whole = (MARKER.size - 4 + length + SECTOR - 1) // SECTOR * SECTOR  # the third number is the data's begin already
    packed = (sector + exactly(read, whole - SECTOR))[MARKER.size - 4 :][:length]
    engine = zlib.decompressobj()
    try:
        data = engine.decompress(packed, grain + 1)
    except zlib.error as exc:
        raise Flaw(f"the grain at {offset} is damaged ({exc})") from exc
    if len(data) != grain or not engine.eof:
        raise Flaw(f"the grain at {offset} does not have {grain} bytes")
    return data


def exactly(read: Read, count: int) -> bytes:
    data = read(count) if count else b""
    if len(data) != count:
        raise Flaw("it ends before its end mark")
    return data


def skip(read: Read, count: int) -> None:
    if count > MOST:
        raise Flaw(f"its tables have {count} bytes")
    exactly(read, count)
