# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No job of a role outlives the lease under which its evidence is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment

from ansible_collections.vmward.remediation.plugins.plugin_utils._data_verb import GRACE

ROLES = Path(__file__).resolve().parents[3] / "roles"


def defaults(role: str) -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    return told


def lease(vms: int, **known: object) -> int:
    names = [f"desk{number}" for number in range(vms)]
    template = Environment(autoescape=False).from_string(defaults("case")["case_lease_seconds"])
    return int(template.render(ansible_play_hosts_all=names, **known))


LONG = {
    key: value for role in ("preserve", "scan") for key, value in defaults(role).items() if key.endswith("_deadline")
}


def test_the_lease_is_longer_than_every_job_of_the_roles() -> None:
    assert len(LONG) == 4
    for vms in (1, 3):
        assert lease(vms) >= vms * (max(LONG.values()) + GRACE) + 900, "restore does not know the deadlines of scan"
        assert lease(vms, **LONG) == lease(vms)


@pytest.mark.parametrize("name", ["preserve_deadline", "preserve_log_deadline", "scan_deadline"])
def test_a_longer_deadline_lengthens_it_up_to_a_day(name: str) -> None:
    assert name in LONG
    assert lease(1, **{**LONG, name: "7200"}) == 7200 + GRACE + 900
    assert lease(100, **LONG) == 86400
