# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a file as long as it says itself? Read from its first bytes. Pure.

Sources: U(https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html),
U(https://github.com/qemu/qemu/blob/v7.2.0/docs/interop/qcow2.txt),
U(https://github.com/qemu/qemu/blob/v7.2.0/migration/savevm.h).
"""

from __future__ import annotations

import struct

HEAD = 4096  # bytes that both checks need at most
LOAD, MANY = 1, 0xFFFF
# by ELF class: the file header from e_type on, a program header, and where in it p_offset and p_filesz stand
_ELF = {1: ("HHIIIIIHHH", "IIIIII", 1, 4), 2: ("HHIQQQIHHH", "IIQQQQ", 2, 5)}


def flaw_of_core(head: bytes, size: int) -> str:
    """Why a file of ``size`` bytes with this head is not a whole ELF core; empty when it is."""
    if head[:4] != b"\x7fELF" or len(head) < 64 or head[4] not in _ELF or head[5] not in (1, 2):
        return "it does not begin as an ELF file"
    order = "<" if head[5] == 1 else ">"
    header, segment, offset, length = _ELF[head[4]]
    fields = struct.unpack_from(order + header, head, 16)
    table, entry, count = fields[4], fields[8], fields[9]
    if count == MANY or table + count * entry > len(head):
        return ""  # more segments than the head shows: nothing to judge by
    segments = [struct.unpack_from(order + segment, head, table + number * entry) for number in range(count)]
    end = max((one[offset] + one[length] for one in segments if one[0] == LOAD), default=0)
    if not end:
        return "it holds no memory"
    return "" if end <= size else f"its memory would end at byte {end}, it has {size} bytes"


def flaw_of_state(head: bytes, size: int) -> str:
    """Why a file is not a state that QEMU saved of a running guest; empty when it begins as one."""
    return "" if head[:4] == b"QEVM" and size > len(head) else "it does not begin as a state saved by QEMU"


def flaw_of_qcow2(head: bytes, disk_size: int) -> str:
    """Why a file with this head is not a stand-alone qcow2 image of a disk of this size; empty when it is."""
    if head[:4] != b"QFI\xfb" or len(head) < 32:
        return "it does not begin as a qcow2 image"
    backing, _length, _bits, size = struct.unpack_from(">QIIQ", head, 8)
    if backing:
        return "it leans on another image"
    return "" if size == disk_size else f"it is an image of {size} bytes, the disk has {disk_size}"
