# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What moves on a live host while it is read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import WINDOW, Content, EngineFailed, Hit
from ansible_collections.vmward.remediation.plugins.module_utils._scan.host import Area, Walk, mounts, scan_host
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import Indicators
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import BadInput, Request
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally, in_one_line


class Moving:
    """An engine that finds `bad`, and that acts when it is first asked: it stands for malware that looks on."""

    name = "yara"

    def __init__(self, act: Callable[[], Any]) -> None:
        self.acts = [act]

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        if self.acts:
            self.acts.pop()()
        return [Hit("bad", 0)] if content.whole() == b"bad" else [], ""

    def describe(self) -> dict[str, Any]:
        return {}

    def testing(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def walked(act: Callable[[], Any], *paths: Path) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {"finding": [], "reason": [], "note": []}

    def take(kind: str, body: dict[str, Any]) -> None:
        told.setdefault(kind, []).append(str(body.get("path") or body.get("text")))

    area = Area(tuple(os.fsencode(path) for path in paths), frozenset(), {})
    Walk(Judge([Moving(act)], take, WINDOW), area).run()
    return {kind: told[kind] for kind in ("finding", "reason", "note")}


@pytest.fixture
def hiding(tmp_path: Path) -> Path:
    (tmp_path / "top" / "hiding" / "below").mkdir(parents=True)
    (tmp_path / "top" / "hiding" / "below" / "x").write_bytes(b"bad")
    (tmp_path / "top" / "first").write_bytes(b"harmless")
    return tmp_path / "top" / "hiding"


def test_a_directory_under_another_name_is_found(hiding: Path) -> None:
    other = hiding.with_name("other")
    assert walked(lambda: hiding.rename(other), hiding.parent) == {
        "finding": [f"{other}/below/x"],
        "reason": [],
        "note": [],
    }


def test_a_directory_that_went_where_it_is_read_later_is_not_missed(hiding: Path) -> None:
    later = hiding.parent.parent / "later"
    later.mkdir()
    told = walked(lambda: hiding.rename(later / "x"), hiding.parent, later)
    assert (told["finding"], told["reason"]) == ([f"{later}/x/below/x"], [])


def test_a_directory_that_another_one_replaces_is_not_missed(hiding: Path) -> None:
    """Under its name there is one to be read."""
    other = hiding.with_name("other")

    def replace() -> None:
        hiding.rename(other)
        hiding.mkdir()

    told = walked(replace, hiding.parent)
    assert told == {"finding": [f"{other}/below/x"], "reason": [], "note": []}


def test_what_moves_to_where_it_was_read_already_is_not_missed(hiding: Path) -> None:
    """A file into a directory, and a directory that is all read by then."""
    done = hiding.parent.parent / "done"
    (done / "deep").mkdir(parents=True)
    (done / "deep" / "first").write_bytes(b"harmless")
    (hiding / "y").write_bytes(b"bad")

    def move() -> None:
        (hiding / "y").rename(done / "deep" / "y")
        (hiding / "below").rename(done / "below")

    told = walked(move, done, hiding.parent)
    assert sorted(told["finding"]) == [f"{done}/below/x", f"{done}/deep/y"]
    assert (told["reason"], told["note"]) == ([], [])


def test_a_file_that_takes_the_place_of_one_that_was_read_is_read(files: list[Path], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "first").write_bytes(b"harmless")
    told = walked(lambda: files[0].rename(kept / "first"), kept)
    assert told["finding"] == [f"{kept}/first"]


def test_what_is_listed_again_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left out, what can't be read, what is named as the indicators say, and what was judged."""
    for name in ("mounted", "closed"):
        (tmp_path / name).mkdir()
    for name in ("first", "bad", "wanted"):
        (tmp_path / name).write_bytes(name.encode())
    told: dict[str, list[str]] = {}

    def take(kind: str, body: dict[str, Any]) -> None:
        told.setdefault(kind, []).append(str(body.get("path") or body.get("text") or body.get("type")))

    real = os.open

    def refusing(path: Any, *arguments: Any, **options: Any) -> int:
        if path == os.fsencode(tmp_path / "closed"):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refusing)
    area = Area((os.fsencode(tmp_path),), frozenset(), {os.fsencode(tmp_path / "mounted"): b"ext4"})
    judge = Judge([Moving((tmp_path / "new").touch)], take, WINDOW, indicators=Indicators(names=frozenset({"wanted"})))
    Walk(judge, area).run()
    assert sorted(told["finding"]) == [f"{tmp_path}/bad", f"{tmp_path}/wanted"]
    assert told["reason"] == [f"{tmp_path}/closed was not read: Permission denied."]
    assert told["volume"] == ["unknown", "ext4"]


def test_what_never_rests_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first").write_bytes(b"harmless")
    real, made = os.scandir, iter(range(100))

    def restless(place: int) -> Any:
        (tmp_path / str(next(made))).touch()
        return real(place)

    monkeypatch.setattr(os, "scandir", restless)
    (note,) = walked(int, tmp_path)["note"]
    assert note.startswith("1 directories changed each time they were listed")


def test_a_directory_that_is_not_found_again_is_missed(hiding: Path) -> None:
    elsewhere = hiding.parent.parent / "elsewhere"
    told = walked(lambda: hiding.rename(elsewhere), hiding.parent)
    assert told["reason"] == [f"{hiding} was not read: it went away, and was not found under another name."]


def test_a_path_that_was_asked_for_and_is_gone_is_missed(hiding: Path) -> None:
    first, second = hiding.parent, hiding.parent.parent / "second"
    second.mkdir()
    (told,) = walked(second.rmdir, first, second)["reason"]
    assert told.startswith(f"{second} was not read")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Whichever is listed first is read before the others move."""
    found = [tmp_path / name for name in "abc"]
    for path in found:
        path.write_bytes(b"bad")
    return found


def test_files_under_other_names_are_found(files: list[Path]) -> None:
    told = walked(lambda: [path.rename(f"{path}-renamed") for path in files], files[0].parent)
    assert (len(told["finding"]), told["reason"], told["note"]) == (3, [], [])


def test_files_that_are_gone_are_told(files: list[Path]) -> None:
    told = walked(lambda: any(map(os.unlink, files)), files[0].parent)
    assert (len(told["finding"]), told["reason"]) == (1, [])
    assert told["note"] == ["2 files went away while they were to be read."]


def test_a_path_that_was_asked_for_is_held_against_the_indicators(tmp_path: Path) -> None:
    """It is no entry of a directory that is listed."""
    (tmp_path / "evil").mkdir()
    (tmp_path / "worse").write_bytes(b"harmless")
    found: list[tuple[str, str]] = []

    def take(kind: str, body: dict[str, Any]) -> None:
        if kind == "finding":
            found.append((body["path"], body["rule"]))

    indicators = Indicators(names=frozenset({"evil"}), paths=frozenset({f"{tmp_path}/worse"}))
    asked = tuple(os.fsencode(tmp_path / name) for name in ("evil", "worse"))
    Walk(Judge([Moving(int)], take, WINDOW, indicators=indicators), Area(asked, frozenset(), {})).run()
    assert found == [(f"{tmp_path}/evil", "ioc_name"), (f"{tmp_path}/worse", "ioc_path")]


def test_an_engine_that_fails_in_the_middle_leaves_what_was_found(files: list[Path]) -> None:
    def fail() -> None:
        raise EngineFailed("Cannot ask clamd")

    told: dict[str, list[Any]] = {}

    def take(kind: str, body: dict[str, Any]) -> None:
        told.setdefault(kind, []).append(body.get("path") or body.get("text") or body.get("read"))

    engine = Moving(int)
    engine.acts = [fail, int]
    area = Area((os.fsencode(files[0].parent),), frozenset(), {})
    Walk(Judge([engine], take, WINDOW), area).run()
    assert (len(told["finding"]), told["volume"]) == (1, [False])
    assert told["reason"] == ["The rest of the host was not read: Cannot ask clamd."]


def test_no_path_is_nothing_to_be_scanned(tmp_path: Path) -> None:
    request = Request((), (), "", ("yara",), 0, "", Limits(60, 64 << 20, 60))
    with pytest.raises(BadInput, match="name at least one path"):
        scan_host(request, [], [])


def test_all_that_is_left_out_is_told_or_counted(tmp_path: Path) -> None:
    places = [os.fsencode(tmp_path / str(number)) for number in range(300)]
    for place in places:
        os.mkdir(place)
    notes: list[str] = []

    def take(kind: str, body: dict[str, Any]) -> None:
        notes.extend([body["text"]] if kind == "note" else [])

    kinds = {**dict.fromkeys(places, b"proc"), **dict.fromkeys(places[-2:], b"nfs4")}
    area = Area((os.fsencode(tmp_path),), frozenset(), kinds)
    Walk(Judge([Moving(int)], take, WINDOW), area).run()
    assert [note for note in notes if not note.endswith(" was left out.")] == [*notes[:2], notes[-1]]
    assert {note.partition(": ")[2] for note in notes[:2]} == {
        f"{tmp_path}/{at} (nfs4). Scan it there." for at in (298, 299)
    }
    told = Tally(notes=notes).as_result()
    assert in_one_line({**told, "seconds": 1.0}).endswith("; file systems of other hosts were left out")
    assert (len(notes), notes[-1]) == (101, "200 more paths were left out.")


def test_the_first_root_of_a_host_without_a_disk_is_its_own_parent(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("1 1 0:2 / / rw - rootfs rootfs rw\n20 1 0:5 / /proc rw - proc proc rw\n")
    assert mounts(str(table)) == {b"/": b"rootfs", b"/proc": b"proc"}


def test_a_mount_beneath_a_later_one_is_none(tmp_path: Path) -> None:
    """What is left out by its kind would be a directory of the later one."""
    table = tmp_path / "mountinfo"
    table.write_text(
        "20 1 8:1 / / rw - ext4 /dev/a rw\n"
        "21 20 0:5 / /proc rw - proc proc rw\n"
        "22 21 0:6 / /proc/sys rw - autofs x rw\n"
        "23 22 0:7 / /proc/sys rw - binfmt_misc x rw\n"
        "24 20 8:2 / /mnt rw - xfs /dev/b rw\n"
        "25 24 0:8 / /mnt/a\\040b rw - nfs4 x rw\n"
        "26 24 0:9 / /mnt/over/deep rw - proc proc rw\n"
        "27 24 8:3 / /mnt/over rw - ext4 /dev/c rw\n"
        "28 20 8:4 / /srv rw - ext4 /dev/d rw\n"
        "29 28 0:8 / /srv/share rw - nfs4 x rw\n"
        "30 28 8:5 / /srv rw - ext4 /dev/e rw\n"
    )
    assert mounts(str(table)) == {
        b"/": b"ext4",
        b"/proc": b"proc",
        b"/proc/sys": b"binfmt_misc",
        b"/mnt": b"xfs",
        b"/mnt/a b": b"nfs4",
        b"/mnt/over": b"ext4",
        b"/srv": b"ext4",
    }


def test_a_file_system_that_lets_nobody_in_is_told_and_hides_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the FUSE of another user, to which not even root has access."""
    closed = tmp_path / "closed"
    closed.mkdir()
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(b"bad")
    of_all: dict[str, Callable[..., Any]] = {"stat": os.stat, "statvfs": os.statvfs, "open": os.open}

    def refusing(what: str) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if path == os.fsencode(closed):
                raise PermissionError(13, "Permission denied")
            return of_all[what](path, *arguments, **options)

        return call

    for what in of_all:
        monkeypatch.setattr(os, what, refusing(what))
    told: dict[str, list[str]] = {}

    def take(kind: str, body: dict[str, Any]) -> None:
        told.setdefault(kind, []).append(str(body.get("path") or body.get("text")))

    for asked in (tmp_path, closed):
        told.clear()
        area = Area((os.fsencode(asked),), frozenset(), {os.fsencode(closed): b"fuse.portal"})
        Walk(Judge([Moving(int)], take, WINDOW), area).run()
        assert told["reason"] == [f"{closed} was not read: Permission denied."]
        assert len(told.get("finding", [])) == (8 if asked == tmp_path else 0)
