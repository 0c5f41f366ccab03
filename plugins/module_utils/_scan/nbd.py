# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk that QEMU serves on a UNIX socket: read only, one request at a time, and no word of the server is believed.

Source: U(https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md), fixed newstyle with structured replies.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator

from .blocks import MAX_DISK, Blocks, Meter, Place, UnreadableImage

PATIENCE = 30  # seconds for the server to answer while the session is agreed on
_GREETING, _OPTION, _ANSWER = b"NBDMAGIC", b"IHAVEOPT", 0x3E889045565A9
_REQUEST, _CHUNK = 0x25609513, 0x668E33EF
_GO, _STRUCTURED, _META = 7, 8, 10
_ACK, _INFO, _CONTEXT, _ERROR = 1, 3, 4, 1 << 31
_READ, _STATUS = 0, 7
_DONE = 1
_NONE, _DATA, _HOLE, _EXTENTS, _FAILED = 0, 1, 2, 5, 1 << 15
_ZERO = 2  # of base:allocation: reads as zeros
_ALLOCATION = b"base:allocation"
_MOST = 16 << 20  # bytes asked for at once
_SPAN = 1 << 30  # bytes whose allocation is asked for at once
_MOST_PARTS, _APART = 200_000, 1 << 20
_SMALL, _AHEAD, _KEPT = 64 << 10, 256 << 10, 64  # of small reads: parts of the disk that are kept


def connect(path: str, export: str, context: bytes = _ALLOCATION) -> tuple[int, int]:
    """A descriptor that is ready for `Nbd`, and the size of the export. Of its blocks the `context` will be told."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _be_patient(link, PATIENCE)
        link.connect(path)
        size = _agree(link.fileno(), export.encode(), context)
        _be_patient(link, 0)  # the scan has a deadline of its own
        return link.detach(), size
    except (OSError, struct.error) as exc:
        raise UnreadableImage("%s: %s" % (path, exc)) from exc
    finally:
        link.close()


def written(path: str, export: str, context: str, seconds: float = PATIENCE) -> list[tuple[int, int]]:
    """Where a dirty bitmap says that the disk was written to, as (start, end); told within so many seconds."""
    end = time.monotonic() + seconds
    fd, size = connect(path, export, context.encode())
    link = socket.socket(fileno=fd)
    try:
        _be_patient(link, PATIENCE)
        return _dirty(Nbd(fd, size), end)
    except (OSError, struct.error) as exc:
        raise UnreadableImage("%s: %s" % (path, exc)) from exc
    finally:
        link.close()


def _dirty(disk: Nbd, end: float) -> list[tuple[int, int]]:
    """What is not plainly said to be clean is dirty; so is what lies between where there are too many parts."""
    found: list[tuple[int, int]] = []
    at, apart = 0, 0
    while at < disk.size:
        if time.monotonic() >= end:
            raise UnreadableImage("the deadline was reached")
        for length, flags in disk.status(at, min(_SPAN, disk.size - at)):
            if flags:
                found.append((at, at + length))
            at += length
        while len(found) > _MOST_PARTS:
            apart = 2 * apart or _APART
            found = _joined(found, apart)
    return found


def _joined(parts: list[tuple[int, int]], apart: int) -> list[tuple[int, int]]:
    """Those that lie less than this apart are one."""
    found = parts[:1]
    for start, end in parts[1:]:
        if start - found[-1][1] < apart:
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return found


def _be_patient(link: socket.socket, seconds: int) -> None:
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        link.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))


def _agree(fd: int, export: bytes, context: bytes) -> int:
    magic, options, flags = struct.unpack(">8s8sH", _receive(fd, 18))
    if magic != _GREETING or options != _OPTION or not flags & 1:
        raise UnreadableImage("it does not speak NBD")
    _send(fd, struct.pack(">I", 3 if flags & 2 else 1))
    name = struct.pack(">I", len(export)) + export
    _ask(fd, _STRUCTURED, b"")
    query = struct.pack(">II", 1, len(context)) + context
    if not any(answer[4:] == context for kind, answer in _ask(fd, _META, name + query) if kind == _CONTEXT):
        what = "is allocated" if context == _ALLOCATION else "was written"
        raise UnreadableImage("the server does not tell what %s" % what)
    told = _ask(fd, _GO, name + struct.pack(">H", 0))
    sizes = [struct.unpack_from(">Q", answer, 2)[0] for kind, answer in told if kind == _INFO and answer[:2] == b"\0\0"]
    if not sizes or not 0 < sizes[0] <= MAX_DISK:
        raise UnreadableImage("the server tells no sane size of the disk")
    return int(sizes[0])


def _ask(fd: int, option: int, data: bytes) -> list[tuple[int, bytes]]:
    """What the server answers to an option, up to its acknowledgement."""
    _send(fd, _OPTION + struct.pack(">II", option, len(data)) + data)
    answers: list[tuple[int, bytes]] = []
    while len(answers) < 64:
        magic, about, kind, length = struct.unpack(">QIII", _receive(fd, 20))
        if magic != _ANSWER or about != option or length > 1 << 16:
            raise UnreadableImage("the server answers nonsense")
        data = _receive(fd, length)
        if kind & _ERROR:
            raise UnreadableImage("the server refuses option %d (%#x)" % (option, kind))
        if kind == _ACK:
            return answers
        answers.append((kind, data))
    raise UnreadableImage("the server answers without end")


def _send(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _receive(fd: int, length: int) -> bytes:
    parts, left = [], length
    while left:
        part = os.read(fd, min(left, 1 << 20))
        if not part:
            raise UnreadableImage("the server hung up")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class Nbd(Blocks):
    """One connection, which one process at a time may use."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self.size = fd, size
        self._cookie = 0
        self._kept: dict[int, bytes] = {}

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        if length <= _SMALL:
            data = self._small(offset, end)
        else:
            data = b"".join(self._fetch(at, min(_MOST, end - at)) for at in range(offset, end, _MOST))
        return data.ljust(length, b"\0")

    def _small(self, offset: int, end: int) -> bytes:
        """Metadata is read in small pieces: each would be a round trip. What is frozen does not grow old."""
        parts = []
        for start in range(offset - offset % _AHEAD, end, _AHEAD):
            if start not in self._kept:
                if len(self._kept) >= _KEPT:
                    del self._kept[next(iter(self._kept))]
                self._kept[start] = self._fetch(start, min(_AHEAD, self.size - start))
            parts.append(self._kept[start][max(0, offset - start) : end - start])
        return b"".join(parts)

    def _request(self, command: int, offset: int, length: int) -> None:
        self._cookie += 1
        _send(self._fd, struct.pack(">IHHQQI", _REQUEST, 0, command, self._cookie, offset, length))

    def _chunks(self) -> Iterator[tuple[int, bytes]]:
        """The parts of one answer. One that is cut short or mixed up ends the scan of the disk."""
        flags = 0
        while not flags & _DONE:
            magic, flags, kind, cookie, length = struct.unpack(">IHHQI", _receive(self._fd, 20))
            if magic != _CHUNK or cookie != self._cookie or length > _MOST + 8:
                raise UnreadableImage("the server answers nonsense")
            data = _receive(self._fd, length)
            if kind & _FAILED:
                raise UnreadableImage("the server could not read it")
            if kind != _NONE:
                yield kind, data

    def _fetch(self, offset: int, length: int) -> bytes:
        data, told = bytearray(length), 0
        self._request(_READ, offset, length)
        for kind, part in self._chunks():
            at = struct.unpack_from(">Q", part)[0] - offset
            size = struct.unpack_from(">I", part, 8)[0] if kind == _HOLE else len(part) - 8
            if kind not in (_DATA, _HOLE) or at < 0 or at + size > length:
                raise UnreadableImage("the server answers nonsense")
            if kind == _DATA:
                data[at : at + size] = part[8:]
            told += size
        if told != length:
            raise UnreadableImage("the server left out a part")
        Meter.bytes += length
        return bytes(data)

    def places(self, offset: int, length: int, stop: Blocks | None = None) -> Iterator[Place]:
        """Holes are zeros; of everything else it is not known in which layer it lies."""
        at, end = offset, min(offset + length, self.size)
        while at < end:
            for size, flags in self.status(at, min(_SPAN, end - at)):
                is_zero = bool(flags & _ZERO)
                yield size, None if is_zero else self, 0 if is_zero else at
                at += size
        if offset + length > at:
            yield offset + length - at, None, 0

    def status(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Lengths and flags, in the context agreed on, from `offset` on: at least one, `length` in all at most."""
        self._request(_STATUS, offset, length)
        found, left = [], length
        for kind, part in self._chunks():
            if kind != _EXTENTS or (len(part) - 4) % 8:
                raise UnreadableImage("the server answers nonsense")
            for size, flags in struct.iter_unpack(">II", part[4:]):
                if left and size:
                    found.append((min(size, left), flags))
                    left -= found[-1][0]
        if not found:
            raise UnreadableImage("the server tells nothing of its blocks")
        return found
