# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which contents are archives or packed, and in which format: what is in them is seen only by who opens them."""

from __future__ import annotations

import re

from .engines import Content

HEAD = 512
OTHER = "other"  # a format that is known here, but not unpacked
_BLOCK = 512  # of tar
_OPENED = {b"\x1f\x8b\x08": "gzip", b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"!<arch>\n": "ar"}
_OTHERS = (
    b"\x28\xb5\x2f\xfd",  # zstd
    b"\x04\x22\x4d\x18",  # lz4
    b"LZIP\x01",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"MSCF\0\0\0\0",  # cabinets
    b"\xed\xab\xee\xdb",  # rpm
    b"070701",  # cpio, with and without checksums, and older
    b"070702",
    b"070707",
    b"\xc7\x71",
)
_BZIP2 = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")  # of its first block, and of its end if there is none
_ZIP_END = re.compile(rb"PK\x05\x06")
ZIP_END_SIZE, ZIP_COMMENT = 22, 0xFFFF


def kind_of(content: Content) -> str:
    """The name of its format; empty if it is no archive."""
    return _by_head(content.head(HEAD)) or ("zip" if content.size > ZIP_END_SIZE and _ends_as_zip(content) else "")


def _by_head(head: bytes) -> str:
    for magic, kind in _OPENED.items():
        if head.startswith(magic):
            return kind
    if head.startswith(_OTHERS):
        return OTHER
    if head[:3] == b"BZh" and head[4:10] in _BZIP2:
        return "bzip2"
    if head[:3] == b"\x5d\0\0" and head[5:13] == b"\xff" * 8:
        return "lzma"
    return "tar" if head[257:262] == b"ustar" or is_tar(head) else ""


def is_tar(head: bytes) -> bool:
    """By its checksum, as tools know the oldest archives, which bear no mark."""
    told = head[148:156].strip(b" \0")
    if len(head) < _BLOCK or not told or len(told) > 7 or told.strip(b"01234567"):
        return False
    plain = head[:148] + b" " * 8 + head[156:_BLOCK]
    total = sum(plain)
    return int(told, 8) in (total, total - 256 * sum(byte > 127 for byte in plain))


def _ends_as_zip(content: Content) -> bool:
    """Behind other data, as in programs that unpack themselves: tools look for its end."""
    size = min(content.size, ZIP_END_SIZE + ZIP_COMMENT)
    return bool(zip_ends(content.read(content.size - size, size)))


def zip_ends(tail: bytes) -> list[int]:
    """Where the record at the end of a zip may stand: its comment reaches to the end."""
    places = (match.start() for match in _ZIP_END.finditer(tail))
    return [at for at in places if at + ZIP_END_SIZE + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail)]
