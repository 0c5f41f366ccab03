# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state file of the simulated hypervisor: shared, whole, and faulty on demand."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import AuthFailed, TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._fake.state import State


def add(path: str) -> None:
    for _time in range(50):
        with State(path).change() as data:
            data["sum"] += 1


def test_no_change_is_lost_between_processes(tmp_path: Path) -> None:
    state = State(str(tmp_path / "state.json"))
    state.write({"sum": 0})
    workers = [multiprocessing.Process(target=add, args=(state.path,)) for _worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert state.read()["sum"] == 200


def test_a_change_that_raises_is_no_change(tmp_path: Path) -> None:
    state = State(str(tmp_path / "state.json"))
    state.write({"sum": 0})
    with pytest.raises(ZeroDivisionError), state.change() as data:
        data["sum"] = 1 / 0
    assert state.read() == {"sum": 0}


def test_a_fault_strikes_its_verb_and_vm_as_often_as_told(tmp_path: Path) -> None:
    state = State(str(tmp_path / "state.json"))
    fault = {"verb": "submit_start", "vm": "desk1", "error": "AuthFailed", "message": "Who are you?", "times": 2}
    state.write({"faults": [fault, {"verb": "read", "seconds": 7}, {"verb": "refs", "error": "Surprise"}]})
    assert state.strike("submit_start", "desk2") == 0
    for _time in range(2):
        with pytest.raises(AuthFailed, match="Who are you"):
            state.strike("submit_start", "desk1")
    assert state.strike("submit_start", "desk1") == 0
    assert (state.strike("read", "any"), state.strike("read", "any")) == (7, 0)
    with pytest.raises(TaskFailed, match="no such error"):
        state.strike("refs")
