# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the reader of logs says of a disk, as far as there is room for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ansible_collections.vmward.remediation.plugins.module_utils._evidence.logs import Told, _settled
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.progress import Progress


def test_volumes_past_those_listed_are_counted() -> None:
    told = Told(Progress(""), "vda")
    for number in range(1030):
        told.take("volume", {"number": number, "name": "", "start": 0, "size": 1, "type": "ext", "read": True})
    assert (len(told.volumes), told.volumes_count) == (1024, 1030)


def test_what_the_ledger_has_no_room_for_is_counted() -> None:
    told = {"missing_count": 25, "missing": [f"Volume {n} was not read." for n in range(25)], "changed": True}
    image: Any = SimpleNamespace(artefact="logs-vda.tar")
    kept = _settled(SimpleNamespace(vm="desk1"), {**told, "files": 1, "bytes": 1}, [(image, {})])  # type: ignore[arg-type]
    assert (len(kept["evidence"]["logs"]["incomplete"]), kept["evidence"]["logs"]["incomplete"][-1]) == (21, "5 more")
