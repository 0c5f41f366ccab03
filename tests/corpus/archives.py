# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives in memory: honest ones, and those that lie."""

from __future__ import annotations

import base64
import io
import lzma
import struct
import tarfile
import zipfile
import zlib


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.comment = comment
    return data.getvalue()


def tarred(files: dict[str, bytes], kind: int = tarfile.GNU_FORMAT) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=kind) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def ar(files: dict[str, bytes]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, content in files.items():
        parts.append(b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name.encode() + b"/", 0, 0, 0, 0o644, len(content)))
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


def entries(*wanted: tuple[bytes, int, int], kernel: bytes) -> bytes:
    """A zip whose directory lists these: name, offset of the local header in `kernel`, and size that is packed."""
    directory = b"".join(central(name, kernel, at, size) for name, at, size in wanted)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(wanted), len(wanted), len(directory), len(kernel), 0)
    return kernel + directory + end


def local(name: bytes, packed: bytes, content: bytes, flags: int = 0, method: int = 8) -> bytes:
    numbers = (20, flags, method, 0, 0, zlib.crc32(content), len(packed), len(content), len(name), 0)
    return struct.pack("<4s5H3I2H", b"PK\3\4", *numbers) + name + packed


def central(name: bytes, kernel: bytes, at: int, size: int, local_at: int | None = None) -> bytes:
    """As the local header says, but for the name, and the size that is packed; `at`: where that is said to lie."""
    kernel = kernel[at if local_at is None else local_at :]
    flags, method = struct.unpack_from("<2H", kernel, 6)
    crc, _packed, whole = struct.unpack_from("<3I", kernel, 14)
    numbers = (20, 20, flags, method, 0, 0, crc, size, whole, len(name), 0, 0, 0, 0, 0, at)
    return struct.pack("<4s6H3I5H2I", b"PK\1\2", *numbers) + name


def deflated(data: bytes) -> bytes:
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return engine.compress(data) + engine.flush()


# A gzip that unpacks to itself
QUINE = zlib.decompress(
    base64.b85decode("c-oWi=HOre0p=pT^eP4h5r)_Q<*|r4btoQTU|?nVg~WmosIur{#IhI|{{M#%gvFQ{+SRA;yaZ%p69WJ+T1I{")
)


TRAILER = "TRAILER!!!"
REGULAR, DIRECTORY, LINK = 0o100644, 0o040755, 0o120777


def cpio(files: dict[str, bytes], kind: str = "newc", *, modes: dict[str, int] | None = None) -> bytes:
    """With its trailer, but for the zeros that tools put behind it. `modes`: of what is no plain file."""
    told = modes or {}
    members = [cpio_member(name, content, kind, told.get(name, REGULAR)) for name, content in files.items()]
    return b"".join(members) + cpio_member(TRAILER, b"", kind, 0)


def cpio_member(
    name: str,
    content: bytes,
    kind: str = "newc",
    mode: int = REGULAR,
    *,
    size: int | None = None,
    named: int | None = None,
) -> bytes:
    """`size` and `named`: what its header declares, where that is not true."""
    text = name.encode() + b"\0"
    size, named = len(content) if size is None else size, len(text) if named is None else named
    step = {"newc": 4, "crc": 4, "odc": 1, "little": 2, "big": 2}[kind]
    if kind in ("newc", "crc"):
        numbers = (7, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, named, sum(content) if kind == "crc" else 0)
        head = (b"070701" if kind == "newc" else b"070702") + b"".join(b"%08X" % number for number in numbers)
    elif kind == "odc":
        head = b"070707" + b"%06o" * 7 % (0, 7, mode, 0, 0, 1, 0) + b"%011o%06o%011o" % (0, named, size)
    else:
        numbers = (0o070707, 0, 7, mode, 0, 0, 1, 0, 0, 0, named, size >> 16, size & 0xFFFF)
        head = struct.pack(("<" if kind == "little" else ">") + "13H", *numbers)
    named_head = head + text
    named_head += bytes(-len(named_head) % step)
    return named_head + content + bytes(-len(content) % step)


def lzip(data: bytes, dictionary: int = 0x0C) -> bytes:
    """`dictionary`: as its head codes it."""
    coded = lzma.compress(data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 4096}])
    return b"LZIP\1%c" % dictionary + coded + struct.pack("<I2Q", zlib.crc32(data), len(data), len(coded) + 26)


def rpm(payload: bytes) -> bytes:
    """Two tags in each of its headers, which mean nothing here."""
    parts = [b"\xed\xab\xee\xdb\3\0".ljust(96, b"\0")]
    for data in (b"signature\0", b"header\0"):
        index = struct.pack(">4I", 1000, 6, 0, 1) + struct.pack(">4I", 1001, 6, 0, 1)
        parts.append(b"\x8e\xad\xe8\1" + struct.pack(">3I", 0, 2, len(data)) + index + data)
    parts[1] += bytes(-len(parts[1]) % 8)
    return b"".join(parts) + payload
