# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exported disks of a case as backups."""

from __future__ import annotations

from typing import Any

from ansible_collections.vmward.remediation.plugins.filter.exported_disks import exported_disks


def kept(*paths: str, taken_at: str = "2026-01-31T12:05:00Z") -> dict[str, Any]:
    return {
        "action": "evidence",
        "artefacts": [{"path": path, "taken_at": taken_at, "sha256": path[-11:]} for path in paths],
    }


TWO = [{"name": "vda", "layers": []}, {"name": "vdb", "layers": []}]


def test_each_cut_is_one_export_of_all_its_disks() -> None:
    first, second = "evidence/data/desk1-20260131T120000Z", "evidence/data/desk1-20260202T080000Z"
    entries = [
        kept(f"{first}/memory.elf", f"{first}/disk-vda.qcow2", f"{first}/disk-vda.qcow2.json"),
        kept(f"{first}/disk-vdb.qcow2", taken_at="2026-01-31T12:07:00Z"),
        kept(f"{second}/disk-vda.qcow2", taken_at="2026-02-02T08:01:00Z"),
        kept("evidence/data/x/y/disk-vda.qcow2", "report/disk-vda.qcow2"),
        {"action": "begin"},
    ]
    (older,) = exported_disks(entries, "/srv/cases/1", TWO)
    (newer,) = exported_disks(entries, "/srv/cases/1", TWO[:1])
    assert (older["name"], older["time"]) == ("export desk1-20260131T120000Z", "2026-01-31T12:07:00Z")
    assert older["disks"] == [
        {"disk": "vda", "path": f"/srv/cases/1/{first}/disk-vda.qcow2", "format": "qcow2", "sha256": "k-vda.qcow2"},
        {"disk": "vdb", "path": f"/srv/cases/1/{first}/disk-vdb.qcow2", "format": "qcow2", "sha256": "k-vdb.qcow2"},
    ]
    assert (newer["time"], len(newer["disks"])) == ("2026-02-02T08:01:00Z", 1)


def test_an_export_of_other_disks_is_told_and_is_no_hindrance() -> None:
    part, whole, more = (f"evidence/data/desk1-{number}" for number in (1, 2, 3))
    entries = [
        kept(f"{part}/disk-vda.qcow2"),
        kept(*(f"{whole}/disk-{disk}.qcow2" for disk in ("vda", "vdb"))),
        kept(*(f"{more}/disk-{disk}.qcow2" for disk in ("vda", "vdb", "vd\x1b"))),
    ]
    assert [one["name"] for one in exported_disks(entries, "/c", TWO)] == ["export desk1-2"]
    told = exported_disks(entries, "/c", TWO, unusable=True)
    assert [(one["name"], one["path"], one["why"]) for one in told] == [
        ("export desk1-1", f"/c/{part}", "it has the disks vda, the VM has vda, vdb"),
        ("export desk1-3", f"/c/{more}", "it has the disks vd\\x1b, vda, vdb, the VM has vda, vdb"),
    ]
