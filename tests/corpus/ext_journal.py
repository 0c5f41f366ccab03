# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes transactions into the journal of an ext4 as somebody does who knows the format."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.vmward.remediation.tests.corpus import disks

BLOCK = 4096
PLAIN = ("-b", "4096", "-O", "^metadata_csum,^resize_inode", "-J", "size=4")  # nothing in it bears a checksum
_MAGIC, _DESCRIPTOR, _COMMIT, _REVOKE = 0xC03B3998, 1, 2, 5
_SAME_UUID, _LAST = 2, 8


class Journal:
    """Of an image made with `PLAIN`. `first`: the number of the oldest transaction; `start`: the block where it is."""

    def __init__(self, image: Path, first: int = 7, start: int = 1) -> None:
        self.image, self.first, self.start = image, first, start
        self.own = self.at(0)
        head = self.block(self.own)
        self.length, self.features = struct.unpack_from(">I", head, 16)[0], struct.unpack_from(">I", head, 40)[0]
        assert not self.features
        self.place, self.number = start, first

    def at(self, place: int) -> int:
        """Where a block of it lies on the volume."""
        return int(disks.run("debugfs", "-R", f"bmap <8> {place}", self.image).split()[-1])

    def block(self, number: int) -> bytes:
        with self.image.open("rb") as file:
            file.seek(number * BLOCK)
            return file.read(BLOCK)

    def put(self, data: bytes) -> None:
        """One block of it more."""
        disks.write_at(self.image, self.at(self.place) * BLOCK, data.ljust(BLOCK, b"\0"))
        self.place = self.place + 1 if self.place + 1 < self.length else 1

    def commit(self, writes: dict[int, bytes] | None = None, revoked: Iterable[int] = ()) -> None:
        """One transaction: blocks of the volume and what is written there, and blocks that are revoked."""
        tags = list((writes or {}).items())
        if tags:
            flags = [_SAME_UUID] * len(tags)
            flags[0], flags[-1] = flags[0] & ~_SAME_UUID, flags[-1] | _LAST
            uuids = [b"" if flag & _SAME_UUID else bytes(16) for flag in flags]
            told = b"".join(
                struct.pack(">IHH", target, 0, flag) + uuid
                for (target, _data), flag, uuid in zip(tags, flags, uuids, strict=True)
            )
            self.put(self._head(_DESCRIPTOR) + told)
            for _target, data in tags:
                self.put(data)
        numbers = list(revoked)
        if numbers:
            told = b"".join(struct.pack(">I", number) for number in numbers)
            self.put(self._head(_REVOKE) + struct.pack(">I", 16 + len(told)) + told)
        self.put(self._head(_COMMIT))
        self.number = (self.number + 1) & 0xFFFFFFFF

    def descriptor(self, targets: Iterable[int]) -> None:
        """A descriptor by itself: what follows, whatever it is, is written there."""
        numbers = list(targets)
        told = [struct.pack(">IHH", number, 0, _SAME_UUID if at else 0) for at, number in enumerate(numbers)]
        told[-1] = told[-1][:6] + struct.pack(">H", _LAST | (_SAME_UUID if len(told) > 1 else 0))
        self.put(self._head(_DESCRIPTOR) + told[0] + bytes(16) + b"".join(told[1:]))

    def end(self) -> None:
        """The journal is to be replayed."""
        disks.write_at(self.image, self.own * BLOCK + 24, struct.pack(">II", self.first, self.start))
        with self.image.open("r+b") as file:
            file.seek(1024 + 96)
            flags = struct.unpack("<I", file.read(4))[0]
            file.seek(1024 + 96)
            file.write(struct.pack("<I", flags | 4))

    def _head(self, kind: int) -> bytes:
        return struct.pack(">3I", _MAGIC, kind, self.number)
