# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which contents are archives or packed, and in which format: what is in them is seen only by who opens them."""

from __future__ import annotations

import re
from typing import Callable

from .cpios import MOST_ZEROS, is_cpio
from .engines import Content
from .frames import MISSING
from .streams import LZIP, NotUnpacked, behind_zeros

HEAD = 1024
OTHER = "other"  # a format that is known here, but not unpacked
CLAMAV = "other that ClamAV opens"
EMBEDDED = "embedded zip"  # in a file that begins as another archive
_BLOCK = 512  # of tar
_OPENED = {
    b"\x1f\x8b\x08": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"!<arch>\n": "ar",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "legacy lz4",
    b"\xed\xab\xee\xdb": "rpm",
    **dict.fromkeys(LZIP, "lzip"),
}
UNPACKED = frozenset([*_OPENED.values(), "bzip2", "lzma", "tar", "cpio", EMBEDDED]).difference(MISSING)
_OTHERS = (
    b"Rar!\x1a\x07",
    b"07070X",  # cpio without names, in new rpm
    b"\x1f\x9d",  # compress
    b"\x1f\x1e",  # pack
    b"xar!",
    b"MSWIM\0\0\0",
)
_CLAMAV = (
    b"7z\xbc\xaf\x27\x1c",
    b"MSCF\0\0\0\0",  # cabinets
    b"070701",  # cpio, with and without checksums, and older, whose first header makes no sense
    b"070702",
    b"070707",
    b"\xc7\x71",
    b"\x71\xc7",
)
# Of which ClamAV judges the members by itself, but for those behind an end
BY_CLAMAV = frozenset(("gzip", "xz", "zip", "tar", "cpio"))
_ARJ, _ARJ_MOST = b"\x60\xea", 2600  # bytes of its first header
_LHA = re.compile(rb"..-l[hz].-", re.DOTALL)
_INITRD = frozenset(("cpio", "gzip", "bzip2", "xz", "lzma", "zstd", "legacy lz4"))  # what Linux unpacks as one
_SKIPPED = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # before data of zstd and lz4
_MOST_SKIPPED = 100
_OLD_ZSTD = re.compile(rb"[\x1e-\x27]\xb5\x2f\xfd")
_BZIP2 = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")  # of its first block, and of its end if there is none
_SUM = re.compile(rb"[ \0]*([0-7]{1,8})(?:[ \0].*)?", re.DOTALL)
_ZIP_END = b"PK\x05\x06"
_SPLIT = b"PK\x07\x08"  # the first part of a zip of several
ZIP_END_SIZE, _ZIP_ENTRY, ZIP_LOCATOR = 22, 46, 20
_REACH, _REACH_OF_PROGRAMS = 128 << 10, 1 << 20  # a program's certificate lies behind its zip
_MOST_ENDS = 1000

Read = Callable[[int, int], bytes]


def kinds_of(content: Content) -> tuple[str, ...]:
    """The names of its formats; none if it is no archive. Tools know a zip by its end, and all else by its head."""
    head = content.head(HEAD)
    first = _behind_skipped(content) if _SKIPPED.match(head) else _by_head(head, content.read)
    if first == "zip":
        return (first,)
    if not first and head[:1] == b"\0":
        first = _behind_zeros(content)
    if content.size > ZIP_END_SIZE and zip_end(content.read, content.size) >= 0:
        return (first, EMBEDDED) if first else ("zip",)
    return (first or OTHER,) if first or head.startswith(_SPLIT) else ()


def _behind_skipped(content: Content) -> str:
    """Of frames that hold nothing packed and lie before others, each tells its size."""
    at = 0
    for _number in range(_MOST_SKIPPED):
        head = content.read(at, 8)
        if not _SKIPPED.match(head):
            return next((kind for kind in ("zstd", "lz4") if _OPENED.get(head[:4]) == kind), OTHER)
        at += 8 + int.from_bytes(head[4:], "little")
    return OTHER


def _behind_zeros(content: Content) -> str:
    """Linux passes over zeros before an initrd."""
    try:
        at = behind_zeros(content.read, 0, content.size, MOST_ZEROS)
    except NotUnpacked:
        return ""
    kind = _by_head(content.read(at, HEAD), lambda start, length: content.read(at + start, length))
    return "cpio" if kind in _INITRD else ""


def _by_head(head: bytes, read: Read) -> str:
    for magic, kind in _OPENED.items():
        if head.startswith(magic):
            return kind
    if head.startswith(_CLAMAV):
        return "cpio" if is_cpio(read) else CLAMAV
    is_arj = head.startswith(_ARJ) and 0 < int.from_bytes(head[2:4], "little") <= _ARJ_MOST
    if is_arj or head.startswith(_OTHERS) or _LHA.match(head) or _OLD_ZSTD.match(head):
        return OTHER
    if head[:3] == b"BZh" and head[4:10] in _BZIP2:
        return "bzip2"
    if _is_lzma(head):
        return "lzma"
    if not any(head[:_BLOCK]):  # tools pass over an empty block
        head = head[_BLOCK:]
    return "tar" if head[257:262] == b"ustar" or is_tar(head[:_BLOCK]) else ""


def _is_lzma(head: bytes) -> bool:
    """It has no mark of its own. Its dictionary is 2^n or 2^n + 2^(n-1) bytes, and coded data begin with a zero."""
    if len(head) < 14 or head[0] != 0x5D or head[13]:
        return False
    dictionary, size = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:13], "little")
    is_usual = dictionary >= 1 << 12 and bin(dictionary).rstrip("0") in ("0b1", "0b11")
    return is_usual and (size < 1 << 38 or size == (1 << 64) - 1)


def is_tar(head: bytes) -> bool:
    """By its checksum, as tools know the oldest archives, which bear no mark."""
    if len(head) < _BLOCK:
        return False
    told = _SUM.fullmatch(head[148:156])
    if head[148] != 0x80 and not told:
        return False
    total = sum(head[:148] + b" " * 8 + head[156:_BLOCK])
    signed = total - 256 * sum(byte > 127 for byte in head[:148] + head[156:_BLOCK])
    return (int(told[1], 8) if told else int.from_bytes(head[149:156], "big")) in (total, signed)


def zip_end(read: Read, size: int) -> int:
    """Where the record at the end of a zip lies, or -1: its comment reaches to the end of the file, or (something may
    lie behind) it leads back to its directory."""
    reach = min(size, _REACH_OF_PROGRAMS if read(0, 2) == b"MZ" else _REACH)
    tail = read(size - reach, reach)
    if _ZIP_END not in tail:
        return -1
    ends = [match.start() for match in re.finditer(_ZIP_END, tail) if match.start() + ZIP_END_SIZE <= reach]
    for at in ends:
        if zip_comment(tail[at:]) == reach - at - ZIP_END_SIZE:
            return size - reach + at
    if len(ends) > _MOST_ENDS:
        return size - reach + ends[0]
    leading = (at for at in reversed(ends) if _leads_back(read, size - reach + at, tail[at : at + ZIP_END_SIZE]))
    return size - reach + next(leading, -1 - size + reach)


def zip_comment(end: bytes) -> int:
    return int.from_bytes(end[20:22], "little")


def _leads_back(read: Read, at: int, end: bytes) -> bool:
    start = at - int.from_bytes(end[12:16], "little")
    if 0 <= start <= at - _ZIP_ENTRY and read(start, 4) == b"PK\x01\x02":
        return True
    return at >= ZIP_LOCATOR and read(at - ZIP_LOCATOR, 4) == b"PK\x06\x07"
