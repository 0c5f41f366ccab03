# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packed streams, unpacked a piece at a time: no size that they declare is believed."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Callable

from . import frames

Read = Callable[[int, int], bytes]

_STEP, _PIECE = 1 << 16, 1 << 18
_FAR = 1 << 20
_DICTIONARY = 128 << 20  # bytes that LZMA may take: its best preset takes 65 MiB
_LZMA_HEAD = 9  # in a zip: version, size of the properties, and those
# What the libraries raise
FAILED: tuple[type[Exception], ...] = (
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
    MemoryError,
    *frames.FAILED,
)


LZIP, _LZIP_HEAD = {b"LZIP\x00": 12, b"LZIP\x01": 20}, 6  # by version, bytes of a member's trailer


class NotUnpacked(Exception):
    """Why an archive, or something in one, can't be unpacked, or not to its end."""


class Followed(Exception):
    """Something else lies at `at`, behind all that was packed. Tools pass over it."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


@dataclass(frozen=True)
class Member:
    """What an archive holds at one place. `method`: how it is packed; it is stored as it is if that is empty.

    `size` and `crc` are what the archive declares, if it does. `gap` says why it can't be judged. `behind`: something
    ended before it, where other tools may have stopped.
    """

    name: bytes
    start: int
    length: int
    method: str = ""
    gap: str = ""
    size: int = -1
    crc: int = -1
    behind: bool = False


class _Zlib:
    """With the manners of the decompressors of bz2 and lzma."""

    def __init__(self, bits: int) -> None:
        self._engine = zlib.decompressobj(bits)
        self.needs_input = True

    def decompress(self, data: bytes, most: int) -> bytes:
        piece = self._engine.decompress(self._engine.unconsumed_tail + data, most)
        self.needs_input = len(piece) < most and not self._engine.unconsumed_tail
        return piece

    @property
    def eof(self) -> bool:
        return self._engine.eof

    @property
    def unused_data(self) -> bytes:
        return self._engine.unused_data


# Formats of files; several streams of one may follow each other, and zeros the last
_MAKERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: _Zlib(31),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _DICTIONARY),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, _DICTIONARY),
    **frames.MAKERS,
}
_SKIPPED = rb"|[\x50-\x5f]\x2a\x4d\x18"  # a frame that holds nothing packed
# How a further stream begins, where what begins otherwise is no part of it
_MARKS = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "bzip2": re.compile(rb"BZh"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd" + _SKIPPED),
    "lz4": re.compile(rb"\x04\x22\x4d\x18" + _SKIPPED),
}
_LZ4_MARK, _MOST_BLOCK = b"\x02\x21\x4c\x18", (8 << 20) + (8 << 20) // 255 + 16
# Of a zip's entries, by their number; some streams of LZMA end with a mark
LZMA, LZMA_ENDED = "lzma entry", "lzma entry with a mark"
METHODS = {0: "", 8: "deflate", 12: "bzip2 entry", 14: LZMA}


def pieces(member: Member, read: Read, most_streams: int) -> Iterator[bytes]:
    """What the member unpacks to, in small pieces; raises NotUnpacked, or one of FAILED, where it is damaged; or
    Followed."""
    start, end = member.start, member.start + member.length
    if member.method in _MAKERS:
        yield from _streams(member.method, read, start, end, most_streams)
        return
    if member.method in _MARKED:
        yield from _MARKED[member.method](read, start, end)
        return
    engine: Any = _Zlib(-15)
    if member.method == "bzip2 entry":
        engine = bz2.BZ2Decompressor()
    elif member.method in (LZMA, LZMA_ENDED):
        head = read(start, min(_LZMA_HEAD, member.length))
        if len(head) < _LZMA_HEAD or head[2:4] != b"\5\0":
            raise NotUnpacked("it is damaged")
        engine, start = _MAKERS["lzma"](), start + _LZMA_HEAD
        engine.decompress(head[4:] + (member.size.to_bytes(8, "little") if member.method == LZMA else b"\xff" * 8), 0)
    at = yield from _one(engine, read, start, end, b"")
    if at < end or engine.unused_data:
        raise NotUnpacked("more follows it than it unpacks to")


def _streams(kind: str, read: Read, at: int, end: int, most: int) -> Iterator[bytes]:
    rest, place = b"", at
    for _number in range(most):
        why = frames.refusal(kind, read(place, min(frames.HEAD, end - place)))
        if why:
            raise NotUnpacked(why)
        engine = _MAKERS[kind]()
        at = yield from _one(engine, read, at, end, rest)
        rest = engine.unused_data or b""
        ended, rest = at - len(rest), rest.lstrip(b"\0")
        while not rest and at < end:
            rest = _some(read, at, end)
            at += len(rest)
            rest = rest.lstrip(b"\0")
        if not rest:
            return
        place = at - len(rest)
        is_apart = kind == "gzip" and place > ended  # some tools take what lies behind zeros for a part of it
        if is_apart or (kind in _MARKS and not _MARKS[kind].match(read(place, min(4, end - place)))):
            raise Followed(place)
    raise NotUnpacked("it is made of more streams than archive_members")


def _blocks(read: Read, at: int, end: int) -> Iterator[bytes]:
    """Of lz4's legacy format, as Linux packs its own with. Nothing tells the last one."""
    while at < end:
        told = read(at, min(4, end - at))
        size = int.from_bytes(told, "little")
        if told == _LZ4_MARK:
            at += 4
        elif not size:
            at = behind_zeros(read, at, end, end)
            if at < end:
                raise Followed(at)
        elif size > _MOST_BLOCK:
            raise Followed(at)
        elif at + 4 + size > end:
            raise NotUnpacked("it ends too early")
        else:
            yield frames.lz4_block(read(at + 4, size))
            at += 4 + size


def _one(engine: Any, read: Read, at: int, end: int, data: bytes) -> Generator[bytes, None, int]:
    """One stream to its end. Returns where the next input lies."""
    while not engine.eof:
        if engine.needs_input and not data:
            data = _some(read, at, end)
            at += len(data)
        piece = engine.decompress(data, _PIECE)
        data = b""
        if piece:
            yield piece
    return at


def _some(read: Read, at: int, end: int) -> bytes:
    data = read(at, min(_STEP, end - at)) if at < end else b""
    if not data:
        raise NotUnpacked("it ends too early")
    return data


def _lzip(read: Read, at: int, end: int) -> Iterator[bytes]:
    """LZMA with an end of its own, between a head and a trailer; one such member may follow another."""
    while at < end:
        head = read(at, min(_LZIP_HEAD, end - at))
        if head[:5] not in LZIP:
            raise Followed(at)
        if len(head) < _LZIP_HEAD:
            raise NotUnpacked("it ends too early")
        whole = 1 << (head[5] & 31)
        size = whole - (whole >> 4) * (head[5] >> 5)
        if not 1 << 12 <= size <= _DICTIONARY:
            raise NotUnpacked("it needs a dictionary of %d bytes, which is not granted" % size)
        engine = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": size}])
        behind = yield from _one(engine, read, at + _LZIP_HEAD, end, b"")
        at = behind - len(engine.unused_data) + LZIP[head[:5]]
        if at > end:
            raise NotUnpacked("it ends too early")
        at = behind_zeros(read, at, end, end)


# Formats that tell by themselves what follows
_MARKED = {"legacy lz4": _blocks, "lzip": _lzip}


def behind_zeros(read: Read, at: int, size: int, most: int, block: int = 1) -> int:
    """Where the next block lies that is not empty."""
    step, end = 512, min(size, at + most)
    while at < end:
        data = read(at, min(step, size - at))
        rest = data.lstrip(b"\0")
        if rest:
            return at + (len(data) - len(rest)) // block * block
        at, step = at + step, _FAR
    if at < size:
        raise NotUnpacked("nobody looked behind %d bytes of zeros in it" % most)
    return at
