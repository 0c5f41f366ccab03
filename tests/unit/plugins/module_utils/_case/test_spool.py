# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import stat
from pathlib import Path

from ansible_collections.vmward.remediation.plugins.module_utils._case.spool import Anchor, Spool

from .conftest import Run, note

AT = "2026-01-31T12:00:00.000Z"


def test_a_spool_keeps_order_and_is_private(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "state" / "spool", "c1")
    assert spool.pending() == ([], 0)
    spool.add([note("one"), note("two")], AT)
    spool.add([note("three")], AT)
    assert [entry["action"] for entry in spool.pending()[0]] == ["one", "two", "three"]
    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700


def test_it_is_emptied_only_when_all_of_it_was_taken_in(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "c1")
    spool.add([note("one"), note("two")], AT)
    ids = [entry["spool_id"] for entry in spool.pending()[0]]
    spool.remove(ids[:1])
    assert len(spool.pending()[0]) == 2
    spool.remove(ids)
    assert spool.pending() == ([], 0)


def test_a_torn_line_is_kept_counted_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "c1")
    spool.add([note("one")], AT)
    with spool.path.open("ab") as stream:
        stream.write(b'{"action":"tor')
    spool.add([note("two")], AT)
    entries, unreadable = spool.pending()
    assert ([entry["action"] for entry in entries], unreadable) == (["one", "two"], 1)
    spool.remove([entry["spool_id"] for entry in entries])
    assert b'{"action":"tor' in spool.path.read_bytes()


def test_taking_the_same_spool_in_twice_records_it_once(case: Run, tmp_path: Path) -> None:
    case("open")
    spool = Spool(tmp_path / "spool", "c1")
    spool.add([note("isolate", key="k", time=AT), note("free", key="k", time=AT)], AT)
    waiting = spool.pending()[0]
    assert case("append", entries=waiting)["changed"]
    assert not case("append", entries=waiting)["changed"]
    entry = case("read")["entries"][1]
    assert (entry["time"], entry["spooled_at"]) == (AT, AT)


def test_an_anchor_belongs_to_one_place(tmp_path: Path) -> None:
    here, there = Anchor(tmp_path, "c1", "evidence1:/srv"), Anchor(tmp_path, "c1", "evidence2:/srv")
    assert here.load() is None
    here.save(7, "ab")
    assert here.load() == (7, "ab")
    assert there.load() is None
    here.forget()
    here.forget()
    assert here.load() is None
