# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new qcow2 image, written once from its begin to its end: clusters as they come, the tables that find them last.

Source: U(https://www.qemu.org/docs/master/interop/qcow2.html).
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import IO

HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
WHOLE = 104  # bytes of a header of version 3
COPIED = 1 << 63
COUNT = 2  # bytes of a reference count


class Writer:
    """An image of ``size`` bytes; ``cluster`` is a power of two from 512 bytes to 2 MiB."""

    def __init__(self, file: IO[bytes], size: int, cluster: int) -> None:
        self.file, self.size, self.cluster = file, size, cluster
        self.per_table = cluster // 8
        self.used = 1  # clusters: the first is the header's
        self.tables: dict[int, array[int]] = {}

    def write(self, offset: int, data: bytes) -> None:
        """One cluster, or the last piece of the disk; none twice."""
        number, entry = divmod(offset // self.cluster, self.per_table)
        table = self.tables.setdefault(number, array("Q", bytes(self.cluster)))
        if offset % self.cluster or len(data) > self.cluster or table[entry]:
            raise ValueError(f"it holds what lies at {offset} twice, or not as it should")
        table[entry] = self._append(data) | COPIED

    def _append(self, data: bytes) -> int:
        """Whole clusters at the end; answers where they begin."""
        place = self.used * self.cluster
        self.file.seek(place)
        self.file.write(data + bytes(-len(data) % self.cluster))
        self.used += -(-len(data) // self.cluster)
        return place

    def finish(self) -> None:
        per_entry = self.cluster * self.per_table
        top = array("Q", bytes(8 * max(-(-self.size // per_entry), 1)))
        for number, table in sorted(self.tables.items()):
            top[number] = self._append(big_endian(table)) | COPIED
        first = self._append(big_endian(top))
        counts, count_clusters = self._append_counts()
        head = HEADER.pack(
            b"QFI\xfb", 3, 0, 0, self.cluster.bit_length() - 1, self.size, 0, len(top), first, counts, count_clusters,
            0, 0, 0, 0, 0, 4, WHOLE,
        )  # fmt: skip
        self.file.seek(0)
        self.file.write(head + bytes(self.cluster - len(head)))

    def _append_counts(self) -> tuple[int, int]:
        """The count of every cluster, 1, of the counts' own too; answers where their table is, and its clusters."""
        per_block, total, before = self.cluster // COUNT, self.used, 0
        while total != before:
            blocks = -(-total // per_block)
            table, before = -(-blocks * 8 // self.cluster), total
            total = self.used + blocks + table
        ones = b"\0\1" * total
        places = array("Q", [self._append(ones[i : i + self.cluster]) for i in range(0, len(ones), self.cluster)])
        return self._append(big_endian(places)), table


def big_endian(numbers: array[int]) -> bytes:
    told = array("Q", numbers)
    if sys.byteorder == "little":
        told.byteswap()
    return told.tobytes()
