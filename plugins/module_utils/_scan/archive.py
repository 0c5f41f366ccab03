# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of a guest in a tar archive, under names that lead nowhere when somebody extracts it."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Sequence
from typing import Callable

CHUNK = 1 << 20
END = bytes(2 * tarfile.BLOCKSIZE)
_LONGEST_PART, _LONGEST = 240, 1000  # bytes, characters

Read = Callable[[int, int], bytes]


class NoRoom(Exception):
    """The file does not fit into what the archive may hold."""


class CannotWrite(Exception):
    """The archive can't be written; nothing that follows would fare better."""


class Archive:
    """Writes to a descriptor that is open already, never more than `limit` bytes."""

    def __init__(self, fd: int, limit: int) -> None:
        self._fd, self._limit = fd, limit
        self._at = self.files = self.bytes = 0
        self._names: dict[str, int] = {}

    def add(self, path: Sequence[str], size: int, read: Read, mode: int, owner: tuple[int, int], mtime: int) -> None:
        """One regular file. What fails half-way leaves nothing of it in the archive."""
        member = tarfile.TarInfo(self._unique(member_name(path)))
        member.size, member.mtime, member.mode = size, mtime, mode & 0o777
        member.uid, member.gid = owner
        header = member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        padding = -size % tarfile.BLOCKSIZE
        if self._at + len(header) + size + padding + len(END) > self._limit:
            raise NoRoom("its %d bytes would exceed the limit of %d bytes" % (size, self._limit))
        start = self._at
        try:
            self._write(header)
            for at in range(0, size, CHUNK):
                length = min(CHUNK, size - at)
                data = read(at, length)
                if len(data) != length:
                    raise ValueError("it is shorter than its size")
                self._write(data)
            self._write(bytes(padding))
        except BaseException:
            self._at = start
            os.ftruncate(self._fd, start)
            raise
        self._names[member.name] = 1
        self.files += 1
        self.bytes += size

    def finish(self) -> None:
        self._write(END)

    def _unique(self, name: str) -> str:
        """A damaged directory may name two files alike."""
        found = name
        while found in self._names:
            self._names[name] += 1
            found = "%s~%d" % (name, self._names[name])
        return found

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self._fd, view, self._at)
                self._at += done
                view = view[done:]
        except OSError as exc:
            raise CannotWrite(exc.strerror or str(exc)) from exc


def member_name(path: Sequence[str]) -> str:
    """A relative path of plain parts, whatever the guest called them."""
    name = "/".join(_part(part) for part in path)
    return name if len(name) <= _LONGEST else "%s~%s" % (name[: _LONGEST - 20].rstrip("/"), _digest(name))


def _part(part: str) -> str:
    """Control characters, slashes, backslashes and what no terminal shows are escaped; so are `.` and `..`."""
    if part in (".", ".."):
        return part.replace(".", "\\x2e")
    shown = "".join(char if char.isprintable() and char not in "/\\" else _escaped(char) for char in part)
    return shown if 0 < len(shown.encode()) <= _LONGEST_PART else "%s~%s" % (shown[:50], _digest(part))


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return "\\x%02x" % (code - 0xDC00)
    return "\\x%02x" % code if code < 0x100 else "\\u%04x" % code if code < 0x10000 else "\\U%08x" % code


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
