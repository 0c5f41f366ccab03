# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is kept for later scans: who could have put it there, what a full disk leaves, and what a parser may say."""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.inside import Archives
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import (
    BadInput,
    Request,
    check_directory,
    confined,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Emit
from ansible_collections.vmward.remediation.plugins.module_utils._scan.known import Known
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener
from ansible_collections.vmward.remediation.plugins.module_utils._scan.remembered import KEY
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Ended, Limits
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Volume

MALLORY = 54321
BOUND = "ab" * 32
CONTENT = b"k" * KEY


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    place = tmp_path / "above" / "known"
    place.mkdir(parents=True, mode=0o700)
    return place


def asked(directory: Path, dry: bool = False) -> Request:
    limits = Limits(600, 64 << 20, 60)
    return Request((), (), "", ("yara",), 0, "", limits, directory=str(directory), dry=dry, archives=Archives())


def refusal(directory: Path, dry: bool = False) -> str:
    with pytest.raises(BadInput) as caught:
        check_directory(asked(directory, dry))
    return str(caught.value)


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("name", ["x.clean", "x.index", "x.checkpoint", "contents.lock"])
def test_a_file_that_another_user_left_there_is_not_believed(directory: Path, name: str, dry: bool) -> None:
    """Such as one from before the directory was given to root, as we say to do."""
    (directory / name).write_bytes(CONTENT)
    check_directory(asked(directory, dry))
    os.lchown(directory / name, MALLORY, MALLORY)
    assert f"{directory / name} belongs to another user" in refusal(directory, dry)


def test_a_link_that_another_user_left_there_is_refused(directory: Path, tmp_path: Path) -> None:
    (directory / "contents.lock").symlink_to(tmp_path / "passwd")
    os.lchown(directory / "contents.lock", MALLORY, MALLORY)
    assert "belongs to another user" in refusal(directory)


def test_whoever_may_replace_the_directory_is_told(directory: Path, tmp_path: Path) -> None:
    directory.parent.chmod(0o777)
    assert f"Everybody may write to {directory.parent}" in refusal(directory)
    (tmp_path / "link").symlink_to(directory)
    assert f"Everybody may write to {directory.parent}" in refusal(tmp_path / "link")
    directory.parent.chmod(0o1777)  # as /tmp: only who owns it can replace it there
    check_directory(asked(directory))
    directory.parent.chmod(0o775)  # as in a checkout: who made it so knows who is in that group
    os.chown(directory.parent, MALLORY, MALLORY)
    check_directory(asked(directory))


def test_nothing_is_made_or_needed_in_check_mode(tmp_path: Path) -> None:
    check_directory(asked(tmp_path / "none", dry=True))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("dry", [False, True])
def test_what_is_no_directory_is_refused_in_check_mode_too(tmp_path: Path, dry: bool) -> None:
    (tmp_path / "file").touch()
    assert "no directory lies there" in refusal(tmp_path / "file", dry)


def test_a_lock_and_a_draft_follow_no_link(directory: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("contents.lock", BOUND[:32] + f".clean.{os.getpid()}", BOUND[:32] + ".clean.draft"):
        (directory / name).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        Known(str(directory)).add_contents(BOUND, [CONTENT])
    (directory / "contents.lock").unlink()
    Known(str(directory)).add_contents(BOUND, [CONTENT])
    assert victim.read_text() == "precious"
    assert Known(str(directory)).contents(BOUND) == {CONTENT}


def test_two_that_write_the_same_record_at_once_do_not_trip_each_other(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two scans of one VM would that have no lock in common; the second is done while the first one writes."""
    known, real = Known(str(directory)), os.fsync
    second = [lambda: known.keep_record("vm", {"at": 2}, {"vda": b"second"})]

    def slow(fd: int) -> None:
        if second:
            second.pop()()
        real(fd)

    monkeypatch.setattr(os, "fsync", slow)
    known.keep_record("vm", {"at": 1}, {"vda": b"first"})
    head, bodies = known.record("vm") or ({}, {})
    assert (head["at"], bodies) == (1, {"vda": b"first"})
    assert [path.suffix for path in directory.iterdir()] == [".checkpoint"]


def test_the_draft_of_one_that_was_killed_goes_in_time(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, at in (("old.clean.x.draft", 1), ("new.clean.x.draft", None)):
        (directory / name).touch()
        os.utime(directory / name, None if at is None else (at, at))
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*listed(path), "finished.index.y.draft"])
    Known(str(directory)).add_contents(BOUND, [CONTENT])
    assert [path.name for path in directory.glob("*.draft")] == ["new.clean.x.draft"]


def full(_fd: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def clean(emit: Emit) -> None:
    emit("volume", vars(Volume("vda", 1, 0, 1, "ext", True)))
    emit("judged", {"keys": base64.b64encode(CONTENT).decode()})
    emit("finished", {})


def listened(directory: Path, work: Callable[[Emit], None]) -> tuple[Listener, Ended]:
    def prepare(emit: Emit) -> Callable[[Emit], None]:
        emit("binding", {"sha256": BOUND})
        return work

    return confined(asked(directory), (), prepare)


def test_a_full_disk_costs_what_would_be_kept_not_the_verdict(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full)
    listener, ended = listened(directory, clean)
    assert (listener.tally.verdict().value, ended.trouble) == ("clean", "")
    assert "No space left on device" in listener.tally.notes[-1]
    assert [path.name for path in directory.iterdir()] == ["contents.lock"]


TOO_LATE: list[tuple[str, dict[str, Any]]] = [
    ("binding", {"sha256": "/etc/cron.d/x"}),
    ("current", {}),
    ("engine", {"name": "clamd", "self_test": "passed"}),
    ("refused", {"text": "x"}),
    ("base", {"disk": "vda", "base": "/x", "used": True, "why": "", "indexed": 1}),
]


@pytest.mark.parametrize(("kind", "body"), TOO_LATE)
def test_one_that_reads_a_disk_cannot_say_what_only_comes_before(
    directory: Path, kind: str, body: dict[str, Any]
) -> None:
    def taken_over(emit: Emit) -> None:
        emit(kind, body)
        clean(emit)

    # Without a binding of its own, where one that is told later would be the first
    listener, ended = confined(replace(asked(directory)), (), lambda _emit: taken_over)
    assert ended.trouble == "the scanning process reported nonsense"
    assert (listener.is_current, listener.binding, listener.tally.verdict().value) == (False, "", "incomplete")
    assert list(directory.iterdir()) == []
