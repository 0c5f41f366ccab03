# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records of NTFS written by hand, as an attacker may write them behind the driver's back."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ntfs import Ntfs
from ansible_collections.vmward.remediation.tests.corpus import disks

SIZE, CLUSTER = 1024, 4096
ROOT = 5
# First cluster (None: a hole), how many there are
Runs = list[tuple["int | None", int]]


def volume(image: Path, megabytes: int = 16) -> Path:
    """An empty one, with room in its table from record 16 to 23."""
    image.write_bytes(b"")
    os.truncate(image, megabytes * disks.MB)
    disks.run("mkntfs", "-q", "-F", "-s", "512", "-c", str(CLUSTER), image)
    return image


def put(image: Path, number: int, record: bytes) -> None:
    disks.write_at(image, at_of(opened(image), number), record)


def opened(image: Path) -> Ntfs:
    return Ntfs(Raw(os.open(image, os.O_RDONLY)))


def at_of(fs: Ntfs, number: int) -> int:
    """Where on the volume a record lies."""
    offset = number * fs.record_size
    for vcn, lcn, count in fs.table.runs:
        if vcn * fs.cluster <= offset < (vcn + count) * fs.cluster:
            assert lcn is not None
            return lcn * fs.cluster + offset - vcn * fs.cluster
    raise LookupError(number)


def record(number: int, *attributes: bytes, base: int = 0, sequence: int = 1) -> bytes:
    body = b"".join(attributes) + struct.pack("<II", 0xFFFFFFFF, 0)
    head = struct.pack("<4sHHQHHHH", b"FILE", 48, SIZE // 512 + 1, 0, sequence, 1, 56, 1)
    head += struct.pack("<IIQHHI", 56 + len(body), SIZE, base, 99, 0, number)
    raw, mark = bytearray(head.ljust(56, b"\0") + body.ljust(SIZE - 56, b"\0")), b"\7\0"
    raw[48:50] = mark
    for sector in range(1, SIZE // 512 + 1):
        end = sector * 512
        raw[48 + 2 * sector : 50 + 2 * sector] = raw[end - 2 : end]
        raw[end - 2 : end] = mark
    assert len(raw) == SIZE
    return bytes(raw)


def resident(kind: int, value: bytes, number: int, name: str = "") -> bytes:
    encoded = name.encode("utf-16-le")
    at = 24 + len(encoded) + -len(encoded) % 8
    body = encoded.ljust(at - 24, b"\0") + value
    head = struct.pack("<IIBBHHHIHH", kind, 24 + len(_whole(body)), 0, len(name), 24, 0, number, len(value), at, 0)
    return head + _whole(body)


def outside(
    kind: int,
    runs: Runs,
    size: int,
    number: int,
    *,
    flags: int = 0,
    unit: int = 0,
    initialized: int = -1,
    first: int = 0,
    name: str = "",
) -> bytes:
    listed, before, count = b"", 0, 0
    for cluster, length in runs:
        count += length
        if cluster is None:
            listed += b"\x08" + struct.pack("<q", length)
        else:
            listed += b"\x48" + struct.pack("<qi", length, cluster - before)
            before = cluster
    encoded = _whole(name.encode("utf-16-le"))
    at = 72 + len(encoded)
    body = _whole(struct.pack("<qqHHI", first, first + count - 1, at, unit, 0) + bytes(32) + encoded + listed + b"\0")
    sizes = struct.pack("<QQQ", count * CLUSTER, size, size if initialized < 0 else initialized)
    head = struct.pack("<IIBBHHH", kind, 16 + len(body), 1, len(name), 72, flags, number)
    return head + body[:24] + sizes + body[48:]


def standard() -> bytes:
    return resident(0x10, bytes(72), 0)


def name(text: str, parent: int = ROOT, space: int = 1, number: int = 1) -> bytes:
    encoded = text.encode("utf-16-le")
    value = struct.pack("<Q", parent | ROOT << 48) + bytes(56) + bytes([len(text), space]) + encoded
    return resident(0x30, value, number)


def entry(kind: int, owner: int, number: int, first: int = 0) -> bytes:
    """Of a list of attributes."""
    return struct.pack("<IHBBQQH", kind, 32, 0, 26, first, owner | 1 << 48, number).ljust(32, b"\0")


def restart(size: int, lsn: int, client: int, flags: int, version: tuple[int, int]) -> bytes:
    """A restart page as Windows writes it."""
    page, area = bytearray(4096), 48
    struct.pack_into("<4sHHQIIH2H", page, 0, b"RSTR", 30, 9, 0, 4096, 4096, area, version[1], version[0])
    bits = 67 - size.bit_length()
    last = (lsn, 1, 0xFFFF if client == 0 else 0, client, flags, bits, 224, 64, size, 0, 48, 64)
    struct.pack_into("<Q4HIHHQIHH", page, area, *last)
    name = "NTFS".encode("utf-16-le")
    struct.pack_into("<QQHHH6sI8s", page, area + 64, 0, 0, 0xFFFF, 0xFFFF, 0, b"", len(name), name)
    for end in range(512, 4097, 512):
        page[end - 2 : end], page[30 + end // 256 : 32 + end // 256] = b"\1\0", page[end - 2 : end]
    page[30:32] = b"\1\0"
    return bytes(page)


def _whole(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)
