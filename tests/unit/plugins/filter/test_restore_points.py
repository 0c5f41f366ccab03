# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which points a VM may be restored to."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display

from ansible_collections.vmward.remediation.plugins.filter.restore_points import restore_points


def taken(name: str, created: str) -> dict[str, str]:
    return {"id": f"id-{name}", "name": name, "created": created}


SNAPSHOTS = [taken("old", "2026-01-01T00:00:00Z"), taken("undated\n", ""), taken("new", "2026-01-03T00:00:00Z")]
INCIDENT = "2026-01-02T00:00:00Z"


def test_a_snapshot_without_a_time_blocks_no_other_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, text: warned.append(text))
    assert [point["name"] for point in restore_points(SNAPSHOTS, before=INCIDENT)] == ["old"]
    assert len(warned) == 1
    assert "undated\\x0a" in warned[0]
    assert [point["id"] for point in restore_points(SNAPSHOTS, named="id-undated\n")] == ["id-undated\n"]
    assert len(warned) == 1
    with pytest.raises(AnsibleFilterError, match=r"There is no snapshot older than .*undated\\x0a \(no time\)"):
        restore_points(SNAPSHOTS[1:], before=INCIDENT)


def test_the_newest_from_before_the_incident_comes_first() -> None:
    after = "2026-02-01"
    assert [point["name"] for point in restore_points(SNAPSHOTS[::2], before=after)] == ["new", "old"]


def test_a_wrong_incident_time_is_said_to_be_one() -> None:
    with pytest.raises(AnsibleFilterError, match="'yesterday' is not a time. Write vmward_incident_time"):
        restore_points(SNAPSHOTS, before="yesterday")
