# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An exFAT volume written by hand, so that it can say what no driver would write."""

from __future__ import annotations

import struct

SECTOR, CLUSTER = 512, 4096
END = 0xFFFFFFFF
_TABLE, _HEAP = 24, 64  # sectors
BITMAP, UPCASE, ROOT = 2, 3, 4
FLAGS = 106  # where in the boot sector


class ExfatVolume:
    """`table`: what follows each cluster; `content`: what lies in it."""

    def __init__(self, clusters: int = 4000) -> None:
        self.clusters = clusters
        self.table = {BITMAP: END, UPCASE: END, ROOT: END}
        self.content: dict[int, bytes] = {UPCASE: struct.pack("<128H", *range(128))}
        self.root = b""
        self.in_use: set[int] | None = None  # what the bitmap says, if not those clusters that are in the table
        self.bitmap_size = -(-self.clusters // 8)
        self.boot: dict[int, bytes] = {}  # what its boot sector says at these places instead
        self._next = ROOT + 1

    def tree(self, files: dict[str, bytes]) -> ExfatVolume:
        """Everything in the root, and what lies below it."""
        self.root = self._directory(files)
        return self

    def _directory(self, files: dict[str, bytes]) -> bytes:
        below: dict[str, dict[str, bytes]] = {}
        listed = b""
        for name, data in files.items():
            first, slash, rest = name.partition("/")
            if slash:
                below.setdefault(first, {})[rest] = data
            else:
                listed += entry(name, self.put(data), len(data))
        for name, inner in below.items():
            data = self._directory(inner)
            data = data.ljust(-(-len(data) // CLUSTER) * CLUSTER, b"\0")
            listed += entry(name, self.put(data), len(data), directory=True)
        return listed

    def put(self, data: bytes) -> int:
        """Its first cluster. Those of each content follow each other, and are chained."""
        first = self._next
        parts = [data[at : at + CLUSTER] for at in range(0, len(data), CLUSTER)]
        for part in parts:
            self.content[self._next], self.table[self._next] = part, self._next + 1
            self._next += 1
        if parts:
            self.table[self._next - 1] = END
        return first if parts else 0

    def image(self) -> bytes:
        own = struct.pack("<BB18xIQ", 0x81, 0, BITMAP, self.bitmap_size)
        own += struct.pack("<B3xI12xIQ", 0x82, summed(self.content[UPCASE], (), 32), UPCASE, 256)
        self.content[ROOT] = struct.pack("<BB22s8x", 0x83, 0, b"") + own + self.root
        chained = {at for at, following in self.table.items() if following}
        in_use = chained if self.in_use is None else self.in_use
        self.content[BITMAP] = sum(1 << at - 2 for at in in_use).to_bytes(self.clusters // 8 + 1, "little")
        used = [self.table.get(number, 0) for number in range(self.clusters + 2)]
        used[:2] = [0xFFFFFFF8, END]
        boot = struct.pack("<3s8s53xQQIIIIIIBBHBBBBB7x", b"\xeb\x76\x90", b"EXFAT   ", 0,
                           _HEAP + self.clusters * 8, _TABLE, _HEAP - _TABLE, _HEAP, self.clusters,
                           ROOT, 1, 0, 1, 0, 9, 3, 1, 0x80, 0)  # fmt: skip
        for at, said in self.boot.items():
            boot = boot[:at] + said + boot[at + len(said) :]
        more = 8 * b"\x55\xaa".rjust(SECTOR, b"\0")
        eleven = (boot.ljust(510, b"\0") + b"\x55\xaa" + more).ljust(11 * SECTOR, b"\0")
        head = 2 * (eleven + struct.pack("<I", summed(eleven, (106, 107, 112), 32)) * (SECTOR // 4))
        table = struct.pack("<%dI" % len(used), *used).ljust((_HEAP - _TABLE) * SECTOR, b"\0")
        heap = (self.content.get(number, b"").ljust(CLUSTER, b"\0") for number in range(2, self.clusters + 2))
        return head + table + b"".join(heap)


def entry(name: str, cluster: int, size: int, directory: bool = False, chained: bool = True) -> bytes:
    """The entries of one file."""
    units = name.encode("utf-16-le")
    names = [units[at : at + 30].ljust(30, b"\0") for at in range(0, len(units), 30)]
    date = 33  # the first day that there is
    file = struct.pack("<BBHH2x3I12x", 0x85, 1 + len(names), 0, 0x10 * directory, date << 16, date << 16, date << 16)
    flags = 1 if chained else 3
    stream = struct.pack("<BBxBHxxQ4xIQ", 0xC0, flags, len(name), summed(units, (), 16), size, cluster, size)
    entries = file + stream + b"".join(b"\xc1\0" + part for part in names)
    return sealed(entries)


def sealed(entries: bytes) -> bytes:
    """With their checksum."""
    return entries[:2] + struct.pack("<H", summed(entries, (2, 3), 16)) + entries[4:]


def summed(data: bytes, without: tuple[int, ...], bits: int) -> int:
    total = 0
    for at, byte in enumerate(data):
        if at not in without:
            total = ((total << bits - 1 | total >> 1) + byte) % (1 << bits)
    return total
