# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is told of archives that no engine opened."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.packed import HEAD, is_packed


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a", "b")
    return data.getvalue()


def tarred() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return data.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        zipped(),
        tarred(),
        gzip.compress(b"a"),
        bz2.compress(b"a"),
        lzma.compress(b"a"),
        b"\x28\xb5\x2f\xfd" + bytes(9),
        b"7z\xbc\xaf\x27\x1c\0\4",
        b"Rar!\x1a\x07\x01\0",
        b"Rar!\x1a\x07\0",
    ],
    ids=["zip", "tar", "gzip", "bzip2", "xz", "zstd", "7z", "rar5", "rar"],
)
def test_an_archive_is_known_by_its_beginning(data: bytes) -> None:
    assert is_packed(data[:HEAD])


@pytest.mark.parametrize("data", [b"", b"PK", b"BZh9 is a name", b"\x1f\x8b", b"a" * HEAD, bytes(HEAD)])
def test_other_files_are_none(data: bytes) -> None:
    assert not is_packed(data)
