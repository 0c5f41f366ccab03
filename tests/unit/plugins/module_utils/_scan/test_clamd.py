# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How old signatures are, a file of ours among them, and whose fault it is that a file was not judged."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import clamd
from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import UnreadableImage
from ansible_collections.vmward.remediation.plugins.module_utils._scan.clamd import MARK, age, ask
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import EngineFailed
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally, ageing, in_one_line

NOW = time.mktime((2026, 11, 30, 12, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("version", "days"),
    [
        ("ClamAV 1.4.6/27500/Mon Nov 30 08:23:11 2026", 0),
        ("ClamAV 1.4.6/27500/Fri Nov 20 08:23:11 2026", 10),
        ("ClamAV 1.4.6/27500/Tue Dec  1 08:23:11 2026", 0),
        ("ClamAV 1.4.6", None),
        ("ClamAV 1.4.6/27500/yesterday", None),
    ],
)
def test_the_age_of_the_official_signatures(version: str, days: int | None) -> None:
    assert age(version, NOW) == days


def test_old_signatures_are_told() -> None:
    assert ageing([{"database_age_days": 7}, {"database_age_days": None}, {"name": "yara"}]) == []
    assert ageing([{"database_age_days": 8}]) == [
        "ClamAV's official signatures are 8 days old. Renew them (freshclam), and scan again."
    ]
    result = {**Tally(engines=[{"database_age_days": 8}]).as_result(), "seconds": 1.0}
    assert "signatures are 8 days old" in in_one_line(result)


def test_the_mark_follows_no_link_and_can_be_read_by_clamd(tmp_path: Path) -> None:
    """The directory belongs to another account; a file there that this one cannot read would keep it from loading."""
    victim = tmp_path / "victim"
    victim.write_text("x")
    (tmp_path / (MARK + ".new")).symlink_to(victim)
    (tmp_path / MARK).symlink_to(victim)
    before = os.umask(0o077)
    try:
        clamd._replace(str(tmp_path / MARK), b"line")
    finally:
        os.umask(before)
    assert victim.read_text() == "x"
    assert (tmp_path / MARK).read_text() == "line"
    assert stat.S_IMODE((tmp_path / MARK).lstat().st_mode) == 0o644


def test_a_pipe_in_place_of_the_mark_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MARK)
    assert clamd._held_by(str(tmp_path / MARK)) == b""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    """A clamd that takes what it is sent and finds it fine."""
    listening, path = socket.socket(socket.AF_UNIX), str(tmp_path / "clamd.sock")
    listening.bind(path)
    listening.listen()

    def answer() -> None:
        link, _peer = listening.accept()
        with link:
            seen = b""
            while not seen.endswith(bytes(4)):
                part = link.recv(65536)
                if not part:
                    return
                seen += part
            link.sendall(b"stream: OK\0")

    server = Thread(target=answer)
    server.start()
    yield path
    with socket.socket(socket.AF_UNIX) as link:  # if nobody asked it
        link.connect(path)
    server.join()
    listening.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE, errno.ECONNRESET, errno.ETIMEDOUT])
def test_a_disk_that_cannot_be_read_is_not_clamd_s_fault(daemon: str, number: int) -> None:
    """An image may lie behind a socket too, so that it fails as clamd would."""

    def chunks() -> Iterator[bytes]:
        yield b"begin"
        raise OSError(number, "the disk failed")

    with pytest.raises(UnreadableImage, match="the disk failed"):
        ask(daemon, 5, b"zINSTREAM\0", chunks())


def test_what_can_be_read_is_sent_as_a_whole(daemon: str) -> None:
    assert ask(daemon, 5, b"zINSTREAM\0", [b"begin", b"", b"end"]) == "stream: OK"


def test_a_clamd_that_is_not_there_is_named(daemon: str) -> None:
    with pytest.raises(EngineFailed, match=f"Cannot ask clamd at {daemon}x"):
        ask(daemon + "x", 5, b"zINSTREAM\0", [b"begin"])
