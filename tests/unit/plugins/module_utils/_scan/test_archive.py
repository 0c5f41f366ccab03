# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that lead nowhere, and an archive that holds whole files only."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.archive import (
    Archive,
    CannotWrite,
    NoRoom,
    member_name,
)

MB = 1 << 20


def add(archive: Archive, path: tuple[str, ...], content: bytes, size: int = -1) -> None:
    def read(at: int, length: int) -> bytes:
        return content[at : at + length]

    archive.add(path, len(content) if size < 0 else size, read, 0o104755, (1 << 31, 5), 1234567890)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("1", "var", "log", "syslog"), "1/var/log/syslog"),
        (("1", "..", "..", "etc"), "1/\\x2e\\x2e/\\x2e\\x2e/etc"),
        (("1", ".", "a"), "1/\\x2e/a"),
        (("1", "/etc/passwd"), "1/\\x2fetc\\x2fpasswd"),
        (("1", "a\nb\x1b[2J"), "1/a\\x0ab\\x1b[2J"),
        (("1", "a\\b"), "1/a\\x5cb"),
        (("1", "right\u202eleft"), "1/right\\u202eleft"),
        (("1", "\udcff"), "1/\\xff"),
        (("1", "straße%4x"), "1/straße%4x"),
    ],
)
def test_names_are_neutralised(path: tuple[str, ...], name: str) -> None:
    assert member_name(path) == name


def test_long_names_are_cut_and_stay_apart() -> None:
    one, other = member_name(("1", "ä" * 250 + "1")), member_name(("1", "ä" * 250 + "2"))
    assert one != other
    assert all(len(part.encode()) <= 255 for part in one.split("/"))
    deep = member_name(("1", *["d" * 99] * 90, "x"))
    assert len(deep) <= 1000
    assert deep != member_name(("1", *["d" * 99] * 90, "y"))


def test_members_are_regular_files_with_times_and_numbers(tmp_path: Path) -> None:
    place = tmp_path / "a.tar"
    with place.open("wb") as file:
        archive = Archive(file.fileno(), MB)
        add(archive, ("1", "a"), b"x" * 700)
        add(archive, ("1", "a"), b"second")
        archive.finish()
    with tarfile.open(place) as tar:
        first, second = tar.getmembers()
        assert (first.name, second.name) == ("1/a", "1/a~2")
        assert first.isreg()
        assert (first.mode, first.uid, first.gid) == (0o755, 1 << 31, 5)
        assert (first.mtime, first.uname) == (1234567890, "")
        content = tar.extractfile(second)
        assert content is not None
        assert content.read() == b"second"


def test_what_does_not_fit_or_fails_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "a.tar"
    with place.open("wb") as file:
        archive = Archive(file.fileno(), 8192)
        with pytest.raises(NoRoom, match="exceed the limit of 8192 bytes"):
            add(archive, ("1", "large"), bytes(9000))
        with pytest.raises(ValueError, match="shorter"):
            add(archive, ("1", "short"), b"abc", size=2000)
        add(archive, ("1", "small"), b"kept")
        archive.finish()
    extended, header, content, end = 1024, 512, 512, 1024  # the owner's number needs an extended header
    assert place.stat().st_size == extended + header + content + end
    with tarfile.open(place) as tar:
        assert tar.getnames() == ["1/small"]


def test_a_descriptor_that_takes_nothing_is_told() -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(CannotWrite):
        Archive(full.fileno(), MB).finish()
