# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The content of a file of btrfs, whose parts may lie in a tree or be packed by zlib, LZO or zstd."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Callable

from .blocks import Blocks
from .btrfs_records import Piece
from .frames import MAKERS, MISSING, refusal
from .layout import Layout, NotReadable, Scattered
from .streams import FAILED

_ZLIB, _LZO, _ZSTD = 1, 2, 3
_BEHIND, _ROOM = 1 << 60, 1 << 17  # where what is unpacked lies, behind the volume; Linux packs no more at once
_DIGEST = 16
_FAILED = FAILED + (IndexError,)


class Content:
    """`place` tells where on the volume an address is."""

    def __init__(self, volume: Blocks, place: Callable[[int, int], int], sector: int, pieces: list[Piece], size: int):
        self._pieces, self._size = pieces, size
        if any(one.packing and max(one.size, one.stored) > _ROOM for one in pieces):
            raise NotReadable("a packed part of it is of an absurd size")
        self._runs = [place(one.start, one.stored) if one.is_written and not one.data else 0 for one in pieces]
        packed = [(one, run) for one, run in zip(pieces, self._runs) if one.packing or one.data]
        found, number = list[tuple[int, int, int]](), 0
        for one, run in zip(pieces, self._runs):
            if not one.is_written:
                continue
            low = run + one.inner
            if one.packing or one.data:
                low, number = _BEHIND + number * _ROOM + one.inner, number + 1
            found.append((one.offset, low, low + one.length))
        self._whole = Scattered(_Unpacked(volume, packed, sector), found, size)
        self.read, self.stretches = self._whole.read, self._whole.stretches

    def layout(self) -> Layout:
        runs, seen = list[tuple[int, int]](), list[tuple[int, int]]()
        for one, run in zip(self._pieces, self._runs):
            if one.is_written and not one.data:
                low, length = (run, one.stored) if one.packing else (run + one.inner, one.length)
                runs.append((low, low + length))
                end = low + (length if one.packing else min(length, self._size - one.offset))
                seen += [(low, end)] if end > low else []
        return Layout(key_of(self._pieces, self._size, self._runs), tuple(runs), tuple(seen))


def key_of(pieces: Sequence[Piece], size: int, runs: Sequence[int] = ()) -> bytes:
    """Two contents with the same one are the same as long as what lies there is."""
    return hashlib.sha256(repr(([tuple(one) for one in pieces], size, runs)).encode()).digest()[:_DIGEST]


class _Unpacked(Blocks):
    """The volume and, behind it, parts of a file that are packed there, or lie in the tree."""

    def __init__(self, volume: Blocks, packed: list[tuple[Piece, int]], sector: int) -> None:
        self._volume, self._packed, self._sector = volume, packed, sector
        self.size = _BEHIND + len(packed) * _ROOM
        self._last: tuple[int, bytes] = -1, b""

    def read(self, offset: int, length: int) -> bytes:
        if offset < _BEHIND:
            return self._volume.read(offset, length)
        number, inside = divmod(offset - _BEHIND, _ROOM)
        if self._last[0] != number:
            self._last = number, self._unpacked(*self._packed[number])
        return self._last[1][inside : inside + length].ljust(length, b"\0")

    def _unpacked(self, piece: Piece, run: int) -> bytes:
        data = piece.data or self._volume.read(run, piece.stored)
        return unpack(piece.packing, data, piece.size, self._sector)


def unpack(packing: int, data: bytes, size: int, sector: int) -> bytes:
    """What is missing at its end are zeros, as in Linux."""
    try:
        if packing == _ZLIB:  # whose checksum Linux does not ask for
            return zlib.decompressobj(-15).decompress(data[2:], size) if size else b""
        if packing == _LZO:
            return _lzo_parts(data, size, sector)
        return _zstd(data, size) if packing == _ZSTD else data
    except _FAILED as exc:
        raise NotReadable("a packed part of it is damaged (%s)" % exc) from exc


def _zstd(data: bytes, size: int) -> bytes:
    why = refusal("zstd", data[:18])
    if "zstd" in MISSING:
        why = "it is packed by zstd. Install the Python library %s on the host that scans" % MISSING["zstd"]
    if why:
        raise NotReadable(why)
    engine, parts, left = MAKERS["zstd"](), list[bytes](), size
    while left > 0 and not engine.eof and (data or not engine.needs_input):
        parts.append(engine.decompress(data, left))
        data, left = b"", left - len(parts[-1])
    return b"".join(parts)[:size]


def _lzo_parts(data: bytes, size: int, sector: int) -> bytes:
    """Each of a sector, behind its length, which is not split over two sectors."""
    end, at, parts, left = int.from_bytes(data[:4], "little"), 4, list[bytes](), size
    if end > len(data):
        raise ValueError("it ends early")
    while at < end and left > 0:
        at += -at % sector if -at % sector < 4 else 0
        length = int.from_bytes(data[at : at + 4], "little")
        part = data[at + 4 : at + 4 + length]
        if not length or len(part) != length:
            raise ValueError("it ends early")
        parts.append(lzo(part, sector))
        at, left = at + 4 + length, left - len(parts[-1])
    return b"".join(parts)[:size]


def lzo(data: bytes, most: int) -> bytes:
    """LZO1X (Linux, Documentation/staging/lzo.rst), without the runs of zeros that btrfs has no use for."""
    out, at, before = bytearray(), 0, 0  # `before`: how many bytes were copied as they are, 4 for all from there on
    if data[0] == 17:
        raise ValueError("it is of another version")
    if data[0] > 17:
        at, before = data[0] - 16, min(data[0] - 17, 4)
        out += data[1:at]
    while True:
        word = data[at]
        at += 1
        if word < 16 and not before:
            length, at = _length(data, at, word, 15)
            out += data[at : at + length + 3]
            at, before = at + length + 3, 4
        else:
            if word < 16:
                length, far = (3, 2049) if before == 4 else (2, 1)
                far, rest, at = far + (word >> 2) + (data[at] << 2), word, at + 1
            elif word >= 64:
                length, far, rest, at = (word >> 5) + 1, (word >> 2 & 7) + (data[at] << 3) + 1, word, at + 1
            else:
                mask = 31 if word >= 32 else 7
                length, at = _length(data, at, word & mask, mask)
                rest, at = data[at] | data[at + 1] << 8, at + 2
                length, far = min(length, most) + 2, (rest >> 2) + 1
                if word < 32:
                    far += ((word & 8) << 11) + 16383
                    if far == 16383 + 1:
                        return bytes(out)
            _repeat(out, far, length)
            before = rest & 3
            out += data[at : at + before]
            at += before
        if len(out) > most:
            raise ValueError("it unpacks to more than it may")


def _length(data: bytes, at: int, told: int, base: int) -> tuple[int, int]:
    """Of what is copied, and where the next byte is."""
    if told:
        return told, at
    while not data[at]:
        base, at = base + 255, at + 1
    return base + data[at], at + 1


def _repeat(out: bytearray, far: int, length: int) -> None:
    if far > len(out):
        raise ValueError("it refers to what lies before it")
    part = bytes(out[-far:])
    out += (part * (length // far + 1))[:length]
