# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packed streams, unpacked a piece at a time: no size that they declare is believed."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Callable

Read = Callable[[int, int], bytes]

_STEP, _PIECE = 1 << 16, 1 << 18
_DICTIONARY = 128 << 20  # bytes that LZMA may take: its best preset takes 65 MiB
_LZMA_HEAD = 9  # in a zip: version, size of the properties, and those
FAILED = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError)  # what the libraries of Python raise


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

    `size` and `crc` are what the archive declares, if it does. `gap` says why it can't be judged.
    """

    name: bytes
    start: int
    length: int
    method: str = ""
    gap: str = ""
    size: int = -1
    crc: int = -1


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
}
_PASSED_OVER = {"gzip": b"\x1f\x8b", "bzip2": b"BZh"}  # whose tools stop at what does not begin so
# Of a zip's entries, by their number; some streams of LZMA end with a mark
LZMA, LZMA_ENDED = "lzma entry", "lzma entry with a mark"
METHODS = {0: "", 8: "deflate", 12: "bzip2 entry", 14: LZMA}


def pieces(member: Member, read: Read, most_streams: int) -> Iterator[bytes]:
    """What the member unpacks to, in small pieces; raises NotUnpacked, or one of FAILED, where it is damaged; or
    Followed."""
    start, end = member.start, member.start + member.length
    if member.method in _MAKERS:
        mark = _PASSED_OVER.get(member.method, b"")
        yield from _streams(_MAKERS[member.method], mark, read, start, end, most_streams)
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


def _streams(make: Callable[[], Any], mark: bytes, read: Read, at: int, end: int, most: int) -> Iterator[bytes]:
    rest = b""
    for _number in range(most):
        engine = make()
        at = yield from _one(engine, read, at, end, rest)
        rest = engine.unused_data.lstrip(b"\0")
        while not rest and at < end:
            rest = _some(read, at, end)
            at += len(rest)
            rest = rest.lstrip(b"\0")
        if not rest:
            return
        place = at - len(rest)
        if read(place, min(len(mark), end - place)) != mark:
            raise Followed(place)
    raise NotUnpacked("it is made of more streams than archive_members")


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
