# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk in pieces of one size, each of which lies somewhere in one file."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .blocks import MAX_DISK, Blocks, Place, UnreadableImage, identity, pread


class Pieces(Blocks):
    """Who is derived from it finds out `size` and `_piece`, and where each piece lies."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._identity = identity(fd)
        self._file_size = os.lseek(fd, 0, os.SEEK_END)
        self.size = self._piece = 0

    def _place(self, number: int) -> int:
        """Where in the file; 0 if nowhere: then it is zeros."""
        raise NotImplementedError

    def _check_size(self) -> None:
        if not 0 < self.size <= MAX_DISK:
            raise UnreadableImage("its header holds absurd sizes")

    def read(self, offset: int, length: int) -> bytes:
        parts = [
            self._content(place, inside, step) if place else bytes(step)
            for place, inside, step in self._walk(offset, length)
        ]
        return b"".join(parts).ljust(length, b"\0")

    def places(self, offset: int, length: int, stop: Blocks | None = None) -> Iterator[Place]:
        inside = max(0, min(length, self.size - offset))
        last: Place | None = None
        for place, at, step in self._walk(offset, inside):
            one = self._origin(place, at, step) if place else (step, None, 0)
            if last is None:
                last = one
            elif last[1] == one[1] and (one[1] is None or last[2] + last[0] == one[2]):
                last = last[0] + step, last[1], last[2]
            else:
                yield last
                last = one
        if last is not None:
            yield last
        if length > inside:
            yield length - inside, None, 0

    def _walk(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Where the piece lies, where in it to begin, and how many bytes."""
        end = min(offset + length, self.size)
        while offset < end:
            number, inside = divmod(offset, self._piece)
            step = min(self._piece - inside, end - offset)
            yield self._place(number), inside, step
            offset += step

    def _content(self, place: int, inside: int, length: int) -> bytes:
        return self._must_read(place + inside, length)

    def _origin(self, place: int, inside: int, length: int) -> Place:
        return length, self._identity, place + inside

    def _must_read(self, offset: int, length: int) -> bytes:
        data = pread(self._fd, offset, length) if offset + length <= self._file_size else b""
        if len(data) < length:
            raise UnreadableImage("it is truncated: what should lie at %#x lies past its end" % offset)
        return data
