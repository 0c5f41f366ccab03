# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes records into the log of an XFS as somebody does who knows the format, checksums and all."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_journal import checksum
from ansible_collections.vmward.remediation.tests.corpus import disks

SECTOR, BLOCK = 512, 4096
START, COMMIT, CONTINUES, CONTINUED, UNMOUNT = 1, 2, 4, 8, 32
HEAD = struct.pack("<4I", 0x5452414E, 1, 0x11, 4)  # of a transaction

Item = list[bytes]


def operation(number: int, data: bytes, flags: int = 0) -> bytes:
    return struct.pack(">IIBBH", number, len(data), 0x69, flags, 0) + data


def transaction(items: Iterable[Item], number: int = 7) -> list[bytes]:
    regions = [operation(number, region) for item in items for region in item]
    return [operation(number, b"", START), operation(number, HEAD), *regions, operation(number, b"", COMMIT)]


def buffer(at: int, data: bytes, flags: int = 0) -> Item:
    """The whole of it was logged."""
    chunks = len(data) // 128
    words = -(-chunks // 32)
    told = ((1 << chunks) - 1).to_bytes(4 * words, "little")
    return [struct.pack("<HHHHqI", 0x123C, 2, flags, len(data) // SECTOR, at // SECTOR, words) + told, data]


def chunk_of(at: int, length: int, number: int, data: bytes) -> Item:
    """128 bytes of it were logged."""
    told = struct.pack("<HHHHqII", 0x123C, 2, 0, length // SECTOR, at // SECTOR, 1, 1 << number)
    return [told, data[128 * number : 128 * number + 128]]


def given_up(at: int, length: int) -> Item:
    return [struct.pack("<HHHHqII", 0x123C, 1, 2, length // SECTOR, at // SECTOR, 1, 0)]


def created(block: int, count: int) -> Item:
    """Inodes of 512 bytes, in the first group."""
    return [struct.pack("<HH", 0x123F, 1) + struct.pack(">6I", 0, block, count, 512, count * 512 // BLOCK, 1)]


def inode(number: int, at: int, fields: int, raw: bytes, fork: bytes) -> Item:
    """In a cluster of 16 KiB."""
    cluster = at // 16384 * 16384
    where = struct.pack("<Q16xqii", number, cluster // SECTOR, 32, at - cluster)
    told = struct.pack("<HHIHHI", 0x123B, 2 + bool(fork), fields, 0, len(fork), 0) + where
    return [told, core(raw), *([fork] if fork else [])]


def core(raw: bytes) -> bytes:
    """As the log has it: the lowest byte first."""
    new = bytearray(raw[:176])
    time = "Q" if struct.unpack_from(">Q", raw, 120)[0] & 8 else "ii"
    whole = ((0, "HHbbH"), (8, "IIIHH"), (24, "Q"), (56, "QQIIH"), (84, "IHHI"), (104, "QQQI"), (152, "Q"))
    for at, form in (*whole, *((at, time) for at in (32, 40, 48, 144))):
        struct.pack_into("<" + form, new, at, *struct.unpack_from(">" + form, raw, at))
    return bytes(new)


class Writer:
    """Goes on where the log of an unmounted file system ends."""

    def __init__(self, image: Path) -> None:
        self.image, raw = image, image.read_bytes()
        start, (self.group,) = struct.unpack_from(">Q", raw, 48)[0], struct.unpack_from(">I", raw, 84)
        self.start = ((start >> raw[124]) * self.group + (start & (1 << raw[124]) - 1)) * BLOCK
        self.sectors = struct.unpack_from(">I", raw, 96)[0] * BLOCK // SECTOR
        self.uuid, self.cycle = raw[32:48], struct.unpack_from(">I", raw, self.start + 4)[0]
        cycles = (self._cycle(raw, at) for at in range(self.sectors))
        self.place = next((at for at, cycle in enumerate(cycles) if cycle != self.cycle), 0)
        self.tail = 0

    def _cycle(self, raw: bytes, at: int) -> int:
        first, second = struct.unpack_from(">II", raw, self.start + at * SECTOR)
        return int(second if first == 0xFEEDBABE else first)

    def write(self, operations: list[bytes], size: int = 262144, version: int = 2) -> None:
        """One record more. The first that is written is the oldest that a mount needs."""
        self.tail = self.tail or self.cycle << 32 | self.place
        made = self.record(operations, self.place, self.cycle, self.tail, size, version)
        disks.write_at(self.image, self.start + self.place * SECTOR, made)
        self.place += len(made) // SECTOR

    def record(
        self, operations: list[bytes], place: int, cycle: int, tail: int, size: int = 262144, version: int = 2
    ) -> bytes:
        data = bytearray().join(operations)
        data += bytes(-len(data) % SECTOR)
        headers = max(1, -(-size // 32768)) if version == 2 else 1
        head = bytearray(headers * SECTOR)
        struct.pack_into(">IIIIQQ", head, 0, 0xFEEDBABE, cycle, version, len(data), cycle << 32 | place, tail)
        struct.pack_into(">I", head, 40, len(operations))
        struct.pack_into(">I16sI", head, 300, 1, self.uuid, size)
        for number in range(1, headers):
            struct.pack_into(">I", head, number * SECTOR, cycle)
        for number in range(len(data) // SECTOR):
            block, within = divmod(number, 64)
            kept = block * SECTOR + 4 + 4 * within if block else 44 + 4 * within
            if block < headers:
                head[kept : kept + 4] = data[number * SECTOR : number * SECTOR + 4]
            struct.pack_into(">I", data, number * SECTOR, cycle)
        more = b"".join(head[at : at + 260] for at in range(SECTOR, -(-len(data) // 32768) * SECTOR, SECTOR))
        struct.pack_into("<I", head, 32, checksum(bytes(head[:328]) + more + bytes(data)))
        return bytes(head + data)
