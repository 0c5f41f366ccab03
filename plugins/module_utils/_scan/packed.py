# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which contents are archives or packed, by their beginning: what is in them is seen only by who opens them."""

from __future__ import annotations

HEAD = 512
_MAGIC = (
    b"PK\x03\x04",  # zip: docx, jar, apk and the like too
    b"\x1f\x8b\x08",  # gzip
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",  # zstd
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"MSCF\0\0\0\0",  # cabinets
)
_BZIP2 = b"1AY&SY"  # of its first block


def is_packed(head: bytes) -> bool:
    return head.startswith(_MAGIC) or (head[:3] == b"BZh" and head[4:10] == _BZIP2) or head[257:262] == b"ustar"
