# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sample in an archive of each format that is opened here: what the self-test of scans holds against them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile

from .engines import eicar
from .frames import MISSING

INSIDE = {"a.tar!/gz!/", "a.tar!/bz2!/", "a.tar!/xz!/", "a.tar!/zip!/sample"}
INSIDE |= {"a.tar!/cpio!/sample", "a.tar!/rpm!/payload!/sample", "a.tar!/lzip!/"}
INSIDE |= {"a.tar!/%s!/" % kind for kind in ("zstd", "lz4", "legacy lz4") if kind not in MISSING}
_LZMA = [{"id": lzma.FILTER_LZMA1, "dict_size": 4096}]


def archive() -> bytes:
    """A tar that holds one of each other format."""
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sample", eicar())
    packed = {"gz": gzip.compress(eicar(), 1), "bz2": bz2.compress(eicar(), 1), "xz": lzma.compress(eicar(), preset=0)}
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        for name, data in {**packed, **_others(), "zip": zipped.getvalue()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return tarred.getvalue()


def _others() -> dict[str, bytes]:
    """What Python can't write: an rpm of no tags around a cpio, and frames that hold their data as they are."""
    sample, size = eicar(), len(eicar())
    cpio = b"".join(
        b"070701"
        + b"".join(b"%08x" % number for number in (0, mode, *[0] * 4, len(data), *[0] * 4, len(name), 0))
        + name
        + data
        for mode, name, data in ((0o100644, b"sample".ljust(10, b"\0"), sample), (0, b"TRAILER!!!\0", b""))
    )
    return {
        "cpio": cpio,
        "lzip": b"LZIP\1\x0c" + lzma.compress(sample, lzma.FORMAT_RAW, filters=_LZMA) + bytes(20),
        "rpm": b"\xed\xab\xee\xdb".ljust(96, b"\0") + (b"\x8e\xad\xe8\1" + bytes(12)) * 2 + cpio,
        "zstd": b"\x28\xb5\x2f\xfd\x20%c" % size + (size << 3 | 1).to_bytes(3, "little") + sample,
        "lz4": b"\x04\x22\x4d\x18\x60\x40\x82" + struct.pack("<I", size | 1 << 31) + sample + bytes(4),
        "legacy lz4": b"\x02\x21\x4c\x18" + struct.pack("<I", size + 2) + b"\xf0%c" % (size - 15) + sample,
    }
