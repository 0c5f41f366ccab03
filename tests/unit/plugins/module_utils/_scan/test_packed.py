# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is an archive, and of which format."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Content
from ansible_collections.vmward.remediation.plugins.module_utils._scan.packed import (
    CLAMAV,
    EMBEDDED,
    HEAD,
    kinds_of,
)
from ansible_collections.vmward.remediation.tests.corpus.archives import cpio, cpio_member

MB = 1 << 20


def zipped(comment: bytes = b"") -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a", "b")
        archive.comment = comment
    return data.getvalue()


def tarred() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return data.getvalue()


def of_1979(data: bytes, told: Callable[[int], bytes] = lambda total: b"%06o\0 " % total) -> bytes:
    """A tar without a mark, as its first tools made it. `told`: how its checksum is spelled."""
    head = bytearray(data[:257] + bytes(255))
    head[148:156] = b" " * 8
    head[148:156] = told(sum(head))
    return bytes(head) + data[512:]


def kinds(data: bytes, most: int = MB) -> tuple[str, ...]:
    return kinds_of(Content(len(data), lambda at, length: data[at : at + length], most))


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (zipped(), "zip"),
        (b"#!/bin/sh\nexit\n" + zipped(), "zip"),
        (b"MZ" + bytes(90_000) + zipped(b"c" * 0xFFFF), "zip"),
        (b"PK\5\6" + bytes(18), "zip"),
        (b"#!/bin/sh\nexit\n" + zipped() + b"\n", "zip"),
        (b"MZ" + bytes(90_000) + zipped() + bytes(900_000), "zip"),
        (b"PK\7\x08" + zipped(), "zip"),
        (tarred(), "tar"),
        (of_1979(tarred()), "tar"),
        (of_1979(tarred(), lambda total: b"%08o" % total), "tar"),
        (of_1979(tarred(), lambda total: b"%06o\0X" % total), "tar"),
        (of_1979(tarred(), lambda total: b"\x80" + total.to_bytes(7, "big")), "tar"),
        (bytes(512) + tarred(), "tar"),
        (bytes(512) + of_1979(tarred()), "tar"),
        (b"!<arch>\n", "ar"),
        (gzip.compress(b"a"), "gzip"),
        (bz2.compress(b"a"), "bzip2"),
        (bz2.compress(b""), "bzip2"),
        (lzma.compress(b"a"), "xz"),
        (lzma.compress(b"a", lzma.FORMAT_ALONE), "lzma"),
        (b"\x28\xb5\x2f\xfd" + bytes(9), "zstd"),
        (b"\x27\xb5\x2f\xfd" + bytes(9), "other"),
        (b"7z\xbc\xaf\x27\x1c\0\4", CLAMAV),
        (b"Rar!\x1a\x07\x01\0", "other"),
        (b"Rar!\x1a\x07\0", "other"),
        (b"\x04\x22\x4d\x18" + bytes(9), "lz4"),
        (b"\xed\xab\xee\xdb\3\0", "rpm"),
        (b"070701" + b"0" * 104, CLAMAV),
        (b"070707" + b"0" * 104, CLAMAV),
        (cpio_member("a", b"", mode=0o170644), "cpio"),
        (cpio_member("a", b"", "little", mode=0o170644), CLAMAV),
        (cpio_member("a", b"", named=1), CLAMAV),
        *((cpio({"a": b"a"}, kind), "cpio") for kind in ("newc", "crc", "odc", "little", "big")),
        (cpio({}), "cpio"),
        (cpio_member("n" * 4000, b"a"), "cpio"),
        (b"07070X" + b"0" * 8, "other"),
        (b"\xc7\x71" + bytes(24), CLAMAV),
        (b"\x71\xc7" + bytes(24), CLAMAV),
        (b"MSCF\0\0\0\0" + bytes(24), CLAMAV),
        (b"\x60\xea\x2c\0" + bytes(24), "other"),
        (b"\x1f\x9d\x90" + bytes(24), "other"),
        (b"\x1f\x1e" + bytes(24), "other"),
        (b"\x5a\x2a\x4d\x18" + bytes(24), "other"),
        (b"\x5a\x2a\x4d\x18\2\0\0\0ab\x28\xb5\x2f\xfd", "zstd"),
        (b"\x50\x2a\x4d\x18\2\0\0\0ab\x5f\x2a\x4d\x18\0\0\0\0\x04\x22\x4d\x18", "lz4"),
        (b"\x5a\x2a\x4d\x18\2\0\0\0ab" + gzip.compress(b"a"), "other"),
        (b"\x5a\x2a\x4d\x18\xff\xff\xff\xff", "other"),
        (b"\x5a\x2a\x4d\x18\0\0\0\0" * 1000, "other"),
        (b"\x02\x21\x4c\x18" + bytes(24), "legacy lz4"),
        (b"PK\7\x08" + bytes(24), "other"),
        (b"\x20\x11-lh5-" + bytes(24), "other"),
        (b"xar!\0\x1c\0\1", "other"),
        (b"MSWIM\0\0\0", "other"),
        (lzma.compress(b"a", lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 4096}]), "lzma"),
        (b"\x5d\0\0\x80\0" + (1000).to_bytes(8, "little") + bytes(24), "lzma"),
        (b"LZIP\1\x0c", "lzip"),
        (b"LZIP\0\x0c", "lzip"),
        (bytes(4) + cpio({}), "cpio"),
        (bytes(5 * MB) + gzip.compress(b"a"), "cpio"),
    ],
)
@pytest.mark.parametrize("most", [MB, 0], ids=["whole", "in windows"])
def test_an_archive_is_known_by_its_bytes(data: bytes, wanted: str, most: int) -> None:
    assert kinds(data, most) == (wanted,)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"PK", b"BZh9 is a name", b"\x1f\x8b", b"a" * HEAD, bytes(HEAD), b"0707 is a number"),
        b"a" + zipped().replace(b"PK\1\2", b"PK\1\3") + b"a",
        b"a" + zipped() + bytes(200_000),
        b"a" * 148 + b"0000123\0" + bytes(HEAD),
    ],
)
def test_other_files_are_none(data: bytes) -> None:
    assert not kinds(data)


@pytest.mark.parametrize("head", [tarred(), b"!<arch>\n", b"\xc7\x71", b"\x28\xb5\x2f\xfd", gzip.compress(b"a")])
@pytest.mark.parametrize("behind", [b"", b"\n", bytes(1024)])
def test_what_begins_as_another_format_may_be_a_zip_too(head: bytes, behind: bytes) -> None:
    first, second = kinds(head + zipped() + behind)
    assert (first != "zip", second) == (True, EMBEDDED)
