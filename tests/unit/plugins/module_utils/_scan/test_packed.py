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

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Content
from ansible_collections.vmward.remediation.plugins.module_utils._scan.packed import HEAD, kind_of

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


def of_1979(data: bytes) -> bytes:
    """A tar without a mark, as its first tools made it."""
    head = bytearray(data[:257] + bytes(255))
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


def kind(data: bytes, most: int = MB) -> str:
    return kind_of(Content(len(data), lambda at, length: data[at : at + length], most))


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (zipped(), "zip"),
        (b"#!/bin/sh\nexit\n" + zipped(), "zip"),
        (b"MZ" + bytes(90_000) + zipped(b"c" * 0xFFFF), "zip"),
        (b"PK\5\6" + bytes(18), "zip"),
        (tarred(), "tar"),
        (of_1979(tarred()), "tar"),
        (b"!<arch>\n", "ar"),
        (gzip.compress(b"a"), "gzip"),
        (bz2.compress(b"a"), "bzip2"),
        (bz2.compress(b""), "bzip2"),
        (lzma.compress(b"a"), "xz"),
        (lzma.compress(b"a", lzma.FORMAT_ALONE), "lzma"),
        (b"\x28\xb5\x2f\xfd" + bytes(9), "other"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "other"),
        (b"Rar!\x1a\x07\x01\0", "other"),
        (b"Rar!\x1a\x07\0", "other"),
        (b"\x04\x22\x4d\x18" + bytes(9), "other"),
        (b"\xed\xab\xee\xdb\3\0", "other"),
        (b"070701" + b"0" * 104, "other"),
        (b"\xc7\x71" + bytes(24), "other"),
        (b"MSCF\0\0\0\0" + bytes(24), "other"),
        (b"LZIP\1\x0c", "other"),
    ],
)
@pytest.mark.parametrize("most", [MB, 0], ids=["whole", "in windows"])
def test_an_archive_is_known_by_its_bytes(data: bytes, wanted: str, most: int) -> None:
    assert kind(data, most) == wanted


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"PK", b"BZh9 is a name", b"\x1f\x8b", b"a" * HEAD, bytes(HEAD), b"0707 is a number"),
        b"a" + zipped() + b"a",
        b"a" * 148 + b"0000123\0" + bytes(HEAD),
    ],
)
def test_other_files_are_none(data: bytes) -> None:
    assert not kind(data)
