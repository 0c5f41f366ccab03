# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A FAT volume written by hand, so that it can say what no driver would write."""

from __future__ import annotations

import struct
from pathlib import Path

SECTOR = 512
FILE, DIRECTORY, LABEL = 0x20, 0x10, 0x08
END = 0x0FFFFFFF
_RESERVED = 32
_ROOT_ENTRIES = 64


class FatVolume:
    """Clusters of one sector. `table`: what follows each cluster. The root of a FAT32 is cluster 2."""

    def __init__(self, bits: int = 16, clusters: int = 0, copies: int = 1) -> None:
        self.bits, self.copies = bits, copies
        self.clusters = clusters or {12: 500, 16: 4200, 32: 66000}[bits]
        self.table = [END - 7, END] + [0] * self.clusters
        self.content: dict[int, bytes] = {}
        self.root = b""

    def put(self, content: bytes, *chain: int) -> None:
        """Content in these clusters, which are chained to each other."""
        for number, cluster in enumerate(chain):
            self.content[cluster] = content[number * SECTOR : (number + 1) * SECTOR]
            self.table[cluster] = chain[number + 1] if number + 1 < len(chain) else END

    def image(self) -> bytes:
        fat, boot = self._fat(), bytearray(SECTOR)
        sectors, root = len(fat) // SECTOR, self.root
        if self.bits == 32:
            self.content[2] = root
            self.table[2] = self.table[2] or END
            fat, root = self._fat(), b""
            struct.pack_into("<IHHI", boot, 36, sectors, 0, 0, 2)
        entries = 0 if self.bits == 32 else _ROOT_ENTRIES
        size = _RESERVED + self.copies * sectors + entries * 32 // SECTOR + self.clusters
        short = 0 if self.bits == 32 else sectors
        struct.pack_into("<3s8sHBHBHHBHHHII", boot, 0, b"\xeb\x3c\x90", b"by hand ", SECTOR, 1, _RESERVED, self.copies,
                         entries, 0, 0xF8, short, 0, 0, 0, size)  # fmt: skip
        boot[510:] = b"\x55\xaa"
        data = b"".join(self.content.get(at, b"").ljust(SECTOR, b"\0") for at in range(2, self.clusters + 2))
        return bytes(boot).ljust(_RESERVED * SECTOR, b"\0") + self.copies * fat + root.ljust(entries * 32, b"\0") + data

    def write(self, path: Path) -> Path:
        path.write_bytes(self.image())
        return path

    def _fat(self) -> bytes:
        mask = {12: 0xFFF, 16: 0xFFFF, 32: END}[self.bits]
        values = [value & mask for value in self.table]
        if self.bits == 12:
            values += [0] * (len(values) % 2)
            pairs = zip(values[::2], values[1::2], strict=True)
            raw = b"".join((low | high << 12).to_bytes(3, "little") for low, high in pairs)
        else:
            raw = struct.pack("<%d%s" % (len(values), "H" if self.bits == 16 else "I"), *values)
        return raw.ljust(-(-len(raw) // SECTOR) * SECTOR, b"\0")


def entry(name: str, cluster: int = 0, size: int = 0, kind: int = FILE) -> bytes:
    """One of a directory, by its short name `NAME.EXT`."""
    base, _dot, extension = (name, "", "") if name.startswith(".") else name.partition(".")
    raw = base.encode("cp437").ljust(8) + extension.encode("cp437").ljust(3)
    return struct.pack("<11sBBBHHHHHHHI", raw, kind, 0, 0, 0, 0, 0, cluster >> 16, 0, 33, cluster & 0xFFFF, size)


def long_entry(name: str, short: bytes) -> bytes:
    """The entries of a long name, which stand before `short`."""
    total = 0
    for byte in short[:11]:
        total = ((total & 1) << 7) + (total >> 1) + byte & 0xFF
    units = name.encode("utf-16-le", "surrogatepass") + b"\0\0"
    count = -(-len(units) // 26)
    units = units.ljust(count * 26, b"\xff")
    parts = [units[at : at + 26] for at in range(0, len(units), 26)]
    rows = [
        struct.pack(
            "<B10sBBB12sH4s",
            number + 1 | 0x40 * (number + 1 == count),
            part[:10],
            0x0F,
            0,
            total,
            part[10:22],
            0,
            part[22:],
        )  # fmt: skip
        for number, part in enumerate(parts)
    ]
    return b"".join(reversed(rows)) + short
