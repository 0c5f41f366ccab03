# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every scan of the role has the limits that its user set: the golden image's too, else no scan could rely on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles/scan"
SCANNING = ("disk_scan", "vm_disk_scan", "golden_index", "host_scan", "memory_scan", "clean_point")
LIMITS = ("deadline", "cpu_limit", "memory_limit", "file_timeout", "at_once")
OF_FILES = ("max_file_size", "archive_depth", "archive_members", "archive_size", "archive_ratio")


def tasks(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in found:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks(task.get(part, []))


@pytest.mark.parametrize("name", SCANNING)
def test_limits_are_variables_of_the_role(name: str) -> None:
    every = [task for path in ROLE.glob("tasks/*.yml") for task in tasks(yaml.safe_load(path.read_text()))]
    given = [task[f"vmward.remediation.{name}"] for task in every if f"vmward.remediation.{name}" in task]
    assert given
    limits = LIMITS if name == "memory_scan" else LIMITS + OF_FILES
    wanted = {limit: f"{{{{ scan_{limit} }}}}" for limit in limits}
    for arguments in given:
        assert {limit: arguments.get(limit) for limit in limits} == wanted


def test_they_are_described_with_their_defaults() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert {limit: options[f"scan_{limit}"]["default"] for limit in LIMITS + OF_FILES} == {
        limit: defaults[f"scan_{limit}"] for limit in LIMITS + OF_FILES
    }
