# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which disks are read, and which are told as left out."""

from __future__ import annotations

from typing import Any

from ansible_collections.vmward.remediation.plugins.filter.disks_to_scan import disks_to_scan


def disk(name: str, read_only: bool, *paths: str) -> dict[str, Any]:
    return {"id": name, "read_only": read_only, "layers": [{"path": path, "format": "qcow2"} for path in paths]}


DISKS = [disk("vda", False, "/top", "/golden"), disk("vdb", True, "/shared"), disk("sda", True)]


def test_every_disk_is_either_read_or_told_as_left_out() -> None:
    read, left = disks_to_scan(DISKS), disks_to_scan(DISKS, left_out=True)
    assert sorted(one["name"] for one in [*read, *left]) == sorted(one["id"] for one in DISKS)
    assert [(one["name"], one["path"]) for one in left] == [("vdb", "/shared"), ("sda", "")]
    assert all(one["why"].startswith("read-only for the VM") for one in left)


def test_the_base_alone_is_the_last_layer() -> None:
    assert disks_to_scan(DISKS, base_only=True) == [
        {"name": "vda", "layers": [{"path": "/golden", "format": "qcow2"}], "snapshot": ""}
    ]
