# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk image as a run of bytes, read in user space. The format and the chain are told by the caller, never probed."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Hashable, Iterator
from typing import Any, Optional

MAX_DISK = 1 << 50

# Length, file and place in it: what lies at the same place of the same file is the same. No file: zeros.
Place = tuple[int, Optional[Hashable], int]


class Meter:
    """How much this process has read from images."""

    bytes = 0


class UnreadableImage(Exception):
    """The image can't be read as it is; the sentence says why."""


class Blocks:
    """What every layer, disk and volume offers."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; past the end there are zeros."""
        raise NotImplementedError

    def places(self, offset: int, length: int, stop: Blocks | None = None) -> Iterator[Place]:
        """Where these bytes lie. What comes from the layer `stop` is told as a place in it."""
        yield length, self, offset

    def expect(self, offset: int, length: int) -> None:
        """These bytes will be read soon: who can fetch them meanwhile begins."""


class Raw(Blocks):
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.lseek(fd, 0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        return pread(self._fd, offset, length).ljust(length, b"\0")

    def places(self, offset: int, length: int, stop: Blocks | None = None) -> Iterator[Place]:
        end = min(offset + length, self.size)
        at = offset
        while at < end:
            first, last = stretch_of_data(self._fd, at, end)
            if first > at:
                yield first - at, None, 0
            if last > first:
                yield last - first, identity(self._fd), first
            at = last
        if at < offset + length:
            yield offset + length - at, None, 0

    def expect(self, offset: int, length: int) -> None:
        for size, file, host in self.places(offset, length):
            if file is not None:
                os.posix_fadvise(self._fd, host, size, os.POSIX_FADV_WILLNEED)


class Slice(Blocks):
    def __init__(self, source: Blocks, start: int, size: int) -> None:
        self._source = source
        self._start = start
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        inside = max(0, min(length, self.size - offset))
        return self._source.read(self._start + offset, inside).ljust(length, b"\0")

    def places(self, offset: int, length: int, stop: Blocks | None = None) -> Iterator[Place]:
        inside = max(0, min(length, self.size - offset))
        if inside:
            yield from self._source.places(self._start + offset, inside, stop)
        if length > inside:
            yield length - inside, None, 0

    def expect(self, offset: int, length: int) -> None:
        self._source.expect(self._start + offset, max(0, min(length, self.size - offset)))


class BootCode(Slice):
    """A partition whose type says that it holds a boot loader, and no file system."""


class OfFile(Blocks):
    """A file object of a library, as blocks."""

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        data: bytes = self._file.read(max(0, min(length, self.size - offset)))
        return data.ljust(length, b"\0")


class Stream(io.RawIOBase):
    """Blocks as the file object that a library wants."""

    def __init__(self, source: Blocks) -> None:
        self._source = source
        self._at = 0
        self.size = source.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        data = self._source.read(self._at, length)
        self._at += length
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def pread(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    Meter.bytes += len(data)
    if len(data) == length or not data:
        return data
    parts = [data]
    done = len(data)
    while done < length:
        data = os.pread(fd, length - done, offset + done)
        if not data:
            break
        Meter.bytes += len(data)
        parts.append(data)
        done += len(data)
    return b"".join(parts)


def is_blank(data: bytes) -> bool:
    """Nothing but zeros. Comparing them is far faster than counting them."""
    return data == bytes(len(data))


def stretch_of_data(fd: int, start: int, end: int) -> tuple[int, int]:
    """Where data begins and ends again in [start, end), as the host's file system knows it: the rest are zeros."""
    try:
        first = min(os.lseek(fd, start, os.SEEK_DATA), end)
        return first, min(os.lseek(fd, first, os.SEEK_HOLE), end) if first < end else end
    except OSError as exc:
        # ENXIO: no data follows. What knows no holes has data everywhere.
        return (end, end) if exc.errno == errno.ENXIO else (start, end)


def identity(fd: int) -> Hashable:
    """The same for every descriptor of one file or device."""
    status = os.fstat(fd)
    return ("device", status.st_rdev) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)
