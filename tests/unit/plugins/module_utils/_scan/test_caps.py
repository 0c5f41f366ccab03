# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever is cut says so: lists that are full, paths that are too deep, contents that are too large."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import judge as judging
from ansible_collections.vmward.remediation.plugins.module_utils._scan.baseline import VolumeIndex
from ansible_collections.vmward.remediation.plugins.module_utils._scan.delta import tell_unread
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Content
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ext4_records import DEEPER
from ansible_collections.vmward.remediation.plugins.module_utils._scan.groups import joined, merged
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import Indicators
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.names import NamesOnTop
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ntfs import ROOT as NTFS_ROOT
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ntfs import Ntfs
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import (
    MAX_BASES,
    MAX_CHANGES,
    MAX_REASONS,
    MAX_VOLUMES,
    BaseUse,
    Change,
    Tally,
    Verdict,
    Volume,
    Where,
    in_one_line,
)
from ansible_collections.vmward.remediation.tests.unit.plugins.module_utils._scan.test_judge import WHERE, Looking

READ = Volume("vda", 1, 0, 4096, "ext", read=True)
BASE = BaseUse("vda", "/golden", True, "", 0)
CHANGE = Change("vda", 1, "new", "/a", "", "content", 0, "0644", 0, 0)


def listened(*told: tuple[str, dict[str, Any]]) -> Listener:
    listener = Listener(Progress("", 0))
    for kind, body in told:
        listener.take(kind, body)
    return listener


def crowded(count: int) -> Listener:
    last = replace(READ, read=False)
    return listened(*[("volume", vars(READ))] * (count - 1), ("volume", vars(last)), ("finished", {}))


@pytest.mark.parametrize("read", [True, False])
def test_a_volume_that_has_no_room_in_the_list_is_not_passed_over(read: bool) -> None:
    """A disk may have as many as its LVM likes."""
    listener = listened(*[("volume", vars(READ))] * MAX_VOLUMES, ("finished", {}))
    assert listener.tally.verdict() is Verdict.CLEAN
    listener.take("volume", vars(replace(READ, read=read)))
    told = listener.tally.as_result()
    assert (told["verdict"], len(told["volumes"])) == ("incomplete", MAX_VOLUMES)
    assert told["incomplete_reasons"] == [
        "Only 4096 volumes can be listed, and 1 more were found: nobody can see which of these were read."
    ]


def test_volumes_without_room_are_counted_over_disks_and_once_over_shares() -> None:
    one, other = crowded(MAX_VOLUMES + 2), crowded(MAX_VOLUMES + 2)
    assert merged([one.tally, other.tally]).volumes_more == 4
    assert joined([one.tally, other.tally]).volumes_more == 2


def test_bases_without_room_are_counted() -> None:
    listener = listened(*[("base", vars(BASE))] * (MAX_BASES + 3), ("point", {"id": "0"}))
    told = listener.tally.as_result()
    assert (len(told["bases"]), told["coverage_notes"]) == (MAX_BASES, ["3 more bases are not listed."])
    assert merged([listener.tally, listener.tally]).bases_more == 6
    assert joined([listener.tally, listener.tally]).bases_more == 3


def test_changes_that_two_disks_have_together_are_counted() -> None:
    """Each has room for its own."""
    tallies = [listened(*[("change", vars(CHANGE))] * (MAX_CHANGES - 1)).tally for _disk in range(2)]
    told = merged(tallies).as_result()
    assert (len(told["changes"]), told["changes_count"]["new"]) == (MAX_CHANGES, 2 * MAX_CHANGES - 2)
    assert told["coverage_notes"] == ["%d more changes are counted, but not listed." % (MAX_CHANGES - 2)]


def test_all_reasons_are_counted() -> None:
    listener = listened(("volume", vars(READ)))
    judge = Judge([Looking()], listener.take, 1 << 20)
    for number in range(5000):
        judge.reason("Why %d." % number)
    judge.flush()
    told = listener.tally.as_result()
    assert (len(told["incomplete_reasons"]), told["incomplete_count"]) == (MAX_REASONS, 5000)
    assert in_one_line({**told, "seconds": 1.0}).endswith("; Why 0. (and 4999 more reasons)")


def test_one_reason_alone_has_no_more() -> None:
    tally = Tally(finished=True, volumes=[READ])
    tally.add_reason("Why.")
    assert in_one_line({**tally.as_result(), "seconds": 1.0}).endswith("; Why.")


def test_more_kinds_of_changes_than_there_are_end_the_scan() -> None:
    with pytest.raises(ValueError, match="kinds"):
        listened(("more", {"of": "change", "total": 101, "counts": {str(number): 1 for number in range(101)}}))


def test_directories_beyond_those_told_are_counted() -> None:
    listener = Listener(Progress("", 0))
    tell_unread(Judge([Looking()], listener.take, 1 << 20), WHERE, ["inode %d: why" % at for at in range(53)])
    assert len(listener.tally.reasons) == 51
    assert listener.tally.reasons[-1] == "3 more directories of volume 1 of disk vda were not read."


class Nested(VolumeIndex):
    """Each inode lies in the next one."""

    def entries(self, child: int) -> list[tuple[int, bytes]]:  # type: ignore[override]
        return [(child + 1, b"d%d" % child)]


def test_a_path_that_is_too_deep_does_not_pretend_to_begin_at_the_root() -> None:
    """A cut path would name another file."""
    names = NamesOnTop(None, Nested())  # type: ignore[arg-type]
    path = names.old_path(1000)
    assert path.startswith(DEEPER + b"d1255/")
    assert path.endswith(b"/d1000")


def test_so_it_is_on_ntfs() -> None:
    fs = Ntfs.__new__(Ntfs)
    fs._places = {number: (number + 1, b"d%d" % number) for number in range(1000, 2000)}
    assert fs.path(1000).startswith(DEEPER + b"d1255/")
    fs._places = {1000: (NTFS_ROOT, b"file")}
    assert fs.path(1000) == b"/file"


def test_a_large_file_that_is_judged_as_a_whole_is_held_against_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """How large that may be, the memory limit says."""
    monkeypatch.setattr(judging, "_HASHED", 10)
    wanted = Indicators(sha256=frozenset([hashlib.sha256(b"a" * 20).hexdigest()]))
    listener = Listener(Progress("", 0))
    judge = Judge([Looking()], listener.take, 1 << 20, indicators=wanted)
    judge.file(WHERE, judge.content(20, lambda at, size: (b"a" * 20)[at : at + size]), lambda: "/a")
    assert [found.rule for found in listener.tally.findings] == ["ioc_sha256"]


def test_written_out_memory_that_is_too_large_to_be_hashed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "_HASHED", 10)
    listener = Listener(Progress("", 0))
    judge = Judge([Looking()], listener.take, 1 << 20)
    for size in (10, 11):
        judge.paged(Where("vda", 1), Content(size, lambda at, length: bytes(length), 0), "/swap")
    assert [note.endswith("not held against hashes (it has more than 4 GiB).") for note in listener.tally.notes] == [
        False,
        True,
    ]
