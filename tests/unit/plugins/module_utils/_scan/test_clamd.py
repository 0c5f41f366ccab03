# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How old signatures are, and a file of ours among them."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import clamd
from ansible_collections.vmward.remediation.plugins.module_utils._scan.clamd import MARK, age
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
