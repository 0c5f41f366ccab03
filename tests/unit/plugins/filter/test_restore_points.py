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


def test_of_two_of_one_second_the_later_in_the_list_comes_first() -> None:
    twins = [taken("first", "2026-01-01T00:00:00Z"), taken("second", "2026-01-01T00:00:00Z")]
    assert [point["name"] for point in restore_points(twins, before=INCIDENT)] == ["second", "first"]


def test_a_wrong_incident_time_is_said_to_be_one() -> None:
    with pytest.raises(AnsibleFilterError, match="'yesterday' is not a time. Write vmward_incident_time"):
        restore_points(SNAPSHOTS, before="yesterday")


DISKS = [{"name": "vda", "layers": [{"path": "/top", "format": "qcow2"}, {"path": "/golden", "format": "qcow2"}]}]


def kept(name: str, time: str, *disks: str) -> dict[str, object]:
    return {"name": name, "time": time, "disks": [{"disk": one, "path": f"/{one}", "format": "raw"} for one in disks]}


def test_all_points_come_with_the_present_and_say_which_may_be_taken() -> None:
    points = restore_points(SNAPSHOTS, before=INCIDENT, every=True, now="2026-01-05T00:00:00Z")
    assert [(point["kind"], point["name"], point["candidate"]) for point in points] == [
        ("present", "present state", False),
        ("snapshot", "new", False),
        ("snapshot", "old", True),
        ("snapshot", "undated\n", False),
    ]
    assert points[0]["created"] == "2026-01-05T00:00:00Z"
    asked = restore_points(SNAPSHOTS, every=True)
    assert [point["candidate"] for point in asked] == [False, True, True, True]
    golden = restore_points(SNAPSHOTS, golden=True, every=True)
    assert [point["kind"] for point in golden if point["candidate"]] == ["golden"]
    assert len(golden) == 5
    with pytest.raises(AnsibleFilterError, match="There is no snapshot named 'nosuch'"):
        restore_points(SNAPSHOTS, named="nosuch", every=True)


def test_a_backup_takes_its_place_among_the_snapshots() -> None:
    backups = [kept("nightly", "2026-01-01T12:00:00Z", "vda"), kept("late", "2026-01-04T00:00:00Z", "vda")]
    points = restore_points(SNAPSHOTS[::2], before=INCIDENT, backups=backups, disks=DISKS)
    assert [(point["kind"], point["name"]) for point in points] == [("backup", "nightly"), ("snapshot", "old")]
    image, golden = {"path": "/vda", "format": "raw"}, {"path": "/golden", "format": "qcow2"}
    assert points[0]["disks"] == [{"name": "vda", "layers": [image], "clone_of": [golden]}]
    assert points[0]["images"] == [{"disk": "vda", "image": "/vda", "format": "raw", "sha256": ""}]
    hashed = {"disks": [{"disk": "vda", "path": "/vda", "format": "raw", "sha256": "ab"}]}
    (named,) = restore_points(SNAPSHOTS, named="late", backups=[backups[0], {**backups[1], **hashed}], disks=DISKS)
    assert [one["sha256"] for one in named["images"]] == ["ab"]
    assert named["kind"] == "backup"
    alone = [{**DISKS[0], "layers": DISKS[0]["layers"][:1]}]
    assert restore_points([], named="late", backups=backups, disks=alone)[0]["disks"][0]["clone_of"] == []


@pytest.mark.parametrize(
    ("backup", "why"),
    [
        (kept("part\x1b", "2026-01-01T00:00:00Z", "vdb"), r"'part\\x1b' has the disks vdb, the VM has vda"),
        (kept("twice", "2026-01-01T00:00:00Z", "vda", "vda"), "Name one copy of each"),
        (kept("more", "2026-01-01T00:00:00Z", "vda", "vdb"), "Name one copy of each"),
        (kept("odd", "last night", "vda"), "'last night' is not the time of a backup"),
        ({"name": "bare"}, "is not told as a name, a time and disks"),
    ],
)
def test_a_backup_that_is_none_of_the_vm_is_refused(backup: dict[str, object], why: str) -> None:
    with pytest.raises(AnsibleFilterError, match=why):
        restore_points(SNAPSHOTS, named="old", backups=[backup], disks=DISKS)


def test_a_backup_of_the_name_that_is_a_snapshots_id_too_is_ambiguous() -> None:
    """On libvirt a snapshot's name is its id."""
    nightly = {"id": "nightly", "name": "nightly", "created": "2026-01-01T00:00:00Z"}
    backup = kept("nightly", "2026-01-02T00:00:00Z", "vda")
    with pytest.raises(AnsibleFilterError, match=r"2 points are named 'nightly': .*the backup of .* another name"):
        restore_points([nightly], named="nightly", backups=[backup], disks=DISKS)
