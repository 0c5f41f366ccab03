# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the log of an XFS ends with an unmount. Its head is where Linux finds it (fs/xfs/xfs_log_recover.c)."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator

from .blocks import Blocks

_BLOCK = 512
_LARGEST = 2 << 30
_STEP = 1 << 20
_RECORD = 0xFEEDBABE
_LARGEST_RECORD = 256 << 10
_GAP = 512  # blocks in which Linux looks for the record before what it takes for the head
_HEADER_BLOCK_FOR = 32 << 10  # bytes of a record
_UNMOUNT = 0x20
# Its first block, the cycle in which it was written, and the last block in it that begins a record (-1: none does)
Part = tuple[int, int, int]


def doubt(volume: Blocks, start: int, size: int) -> str:
    """Empty if nothing in the log waits to be written."""
    if not 0 < start < start + size <= volume.size or size > _LARGEST:
        return "its log lies outside of it, and was not read"
    parts = _parts(volume, start, size)
    if parts is None or not _ends_with_unmount(volume, start, size // _BLOCK, parts):
        return (
            "its log does not end with an unmount, so that it may hold changes that are not yet written, and was not "
            "replayed. Start and shut the VM down cleanly, or replay the log on a copy"
        )
    return ""


def _parts(volume: Blocks, start: int, size: int) -> list[Part] | None:
    """What was written last, and before it what of the round before is left. None if it is no such log."""
    parts = list[Part]()
    for number, cycle, is_record in _blocks(volume, start, size):
        if not parts or parts[-1][1] != cycle:
            parts.append((number, cycle, -1))
        if is_record:
            parts[-1] = (*parts[-1][:2], number)
        if len(parts) > 3:
            return None
    if len(parts) == 3 and _is_wiped(parts) and _sizes(volume.read(start, _BLOCK))[1] == parts[1][0]:
        parts = parts[2:]
    agrees = len(parts) == 1 or len(parts) == 2 and parts[1][1] == parts[0][1] - 1
    return parts if agrees and parts[0][1] else None


def _is_wiped(parts: list[Part]) -> bool:
    """By xfs_repair or xfs_admin: one record, a gap of zeros, the round before. Linux takes its begin for the head."""
    return parts[0][2] == 0 and parts[1][1:] == (0, -1) and parts[2][0] <= _GAP and parts[2][1] == parts[0][1] - 1


def _blocks(volume: Blocks, start: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """Each block begins with its cycle, but for one that begins a record."""
    for at in range(0, size, _STEP):
        words = array("I", volume.read(start + at, min(_STEP, size - at)))
        if sys.byteorder == "little":
            words.byteswap()
        step = _BLOCK // words.itemsize
        for number, (first, second) in enumerate(zip(words[::step], words[1::step]), at // _BLOCK):
            is_record = first == _RECORD
            yield number, second if is_record else first, is_record


def _ends_with_unmount(volume: Blocks, start: int, blocks: int, parts: list[Part]) -> bool:
    """The record before the head ends there, stands where it says, and consists of an unmount."""
    head = parts[1][0] if len(parts) > 1 else 0
    _first, cycle, last = parts[0] if parts[0][2] >= 0 else parts[-1]
    if last < 0:
        return False
    header = volume.read(start + last * _BLOCK, _BLOCK)
    number, tail, operations = struct.unpack_from(">QQ8xI", header, 16)
    headers, whole = _sizes(header)
    ends_there = whole > 0 and (last + whole) % blocks == head and number == cycle << 32 | last and tail <= number
    operation = volume.read(start + (last + headers) % blocks * _BLOCK, _BLOCK)
    return ends_there and operations == 1 and bool(operation[9] & _UNMOUNT)


def _sizes(header: bytes) -> tuple[int, int]:
    """Of a record in blocks: its headers, and all of it. Nothing if it is larger than any."""
    version, length, size = struct.unpack_from(">II304xI", header, 8)
    headers = max(1, -(-size // _HEADER_BLOCK_FOR)) if version & 2 else 1
    is_sane = length <= _LARGEST_RECORD and headers * _HEADER_BLOCK_FOR <= _LARGEST_RECORD
    return (headers, headers + -(-length // _BLOCK)) if is_sane else (0, 0)
