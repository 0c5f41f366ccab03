# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line that a tired reader sees for each VM."""

from __future__ import annotations

from ansible_collections.vmward.remediation.plugins.action.outcome import line, outcome_of

SEALED = {
    "name": "desk1",
    "failed": False,
    "changed": True,
    "msg": "",
    "seconds": 0.57,
    "steps": ["write the undo note", "seal NIC 52:54:00:86:00:11"],
    "after": {"isolation": "sealed", "nics": {"52:54:00:86:00:11": {}}},
}


def test_what_was_done_in_one_line() -> None:
    assert line(SEALED, check=False) == "desk1: sealed, 1 NIC, 0.6 s"
    assert line({**SEALED, "changed": False}, check=True) == "desk1: sealed already, 1 NIC, 0.6 s"
    power = {**SEALED, "after": {"power": "stopped"}}
    assert line(power, check=False) == "desk1: stopped, 0.6 s"


def test_check_mode_tells_what_would_be_done() -> None:
    assert line(SEALED, check=True) == "desk1: would write the undo note; seal NIC 52:54:00:86:00:11"


def test_a_failure_is_told_on_one_line_without_control_characters() -> None:
    told = line({**SEALED, "failed": True, "name": "a\nb", "msg": "\x1b[31mno"}, check=False)
    assert told.startswith("a\\x0ab: FAILED. ")
    assert "\n" not in told
    assert "\x1b" not in told


def test_a_vm_without_a_result_has_failed() -> None:
    assert outcome_of({"vms": [SEALED]}, "desk1")["changed"]
    assert outcome_of({"vms": [SEALED]}, "desk2")["failed"]
    whole = outcome_of({"failed": True, "msg": "Cannot connect to kvm1.", "vms": []}, "desk1")
    assert (whole["failed"], whole["msg"]) == (True, "Cannot connect to kvm1.")
