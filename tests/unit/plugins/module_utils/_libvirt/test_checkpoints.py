# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stopped VM that was opened for its checkpoints is off again, or the responder is told that it is not."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import (
    Refused,
    TaskFailed,
    TimedOut,
    VmwardError,
)
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.checkpoints import CheckpointVerbs
from ansible_collections.vmward.remediation.plugins.module_utils._model import PowerState, Vm, VmRef

VM = Vm(VmRef("paper", "id-1", "desk1"), PowerState.STOPPED, (), 1 << 30, True)


class Checkpoint:
    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    def getName(self) -> str:
        return "vmward-scan-1"

    def delete(self, flags: int) -> None:
        if self._domain.trouble is not None:
            raise self._domain.trouble
        self._domain.kept = False


class Domain:
    """Stopped, with a checkpoint; each `destroy` takes one of the failures away."""

    def __init__(self, trouble: Exception | None, failures: int, saved: bool = False) -> None:
        self.trouble, self.failures, self.saved = trouble, failures, saved
        self.on, self.kept, self.started = False, True, False
        self.lost: Exception | None = None

    def name(self) -> str:
        return "desk1"

    def isActive(self) -> bool:
        return self.on

    def hasManagedSaveImage(self, flags: int) -> bool:
        return self.saved

    def createWithFlags(self, flags: int) -> None:
        self.on = self.started = True
        if self.lost:
            raise self.lost

    def destroy(self) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise TaskFailed("Cannot end it: the daemon is busy.")
        self.on = False

    def listAllCheckpoints(self, flags: int) -> list[Checkpoint]:
        return [Checkpoint(self)] if self.kept else []

    def checkpointLookupByName(self, name: str) -> Checkpoint:
        return Checkpoint(self)


class Link:
    """Of a connection, the part that calls into one VM."""

    def __init__(self, domain: Domain) -> None:
        self.found = domain

    def domain(self, vm: VmRef, what: str, action: Any, repeat: bool = True) -> Any:
        return action(self.found)


def cleared(domain: Domain) -> str:
    """What a responder reads."""
    verbs, link = CheckpointVerbs(), Link(domain)
    verbs.link = link  # type: ignore[assignment]
    try:
        verbs.clear_checkpoints(VM)
    except VmwardError as exc:
        return str(exc)
    return ""


def test_it_is_off_again() -> None:
    domain = Domain(None, 0)
    assert cleared(domain) == ""
    assert (domain.started, domain.on, domain.kept) == (True, False, False)


@pytest.mark.parametrize("trouble", [TaskFailed("no"), TimedOut("no"), VmwardError("no")])
def test_whatever_fails_it_is_off_again_and_the_way_by_hand_is_told(trouble: Exception) -> None:
    domain = Domain(trouble, 0)
    told = cleared(domain)
    assert "qemu-img bitmap --remove" in told
    assert "virsh destroy" not in told
    assert (domain.started, domain.on) == (True, False)


@pytest.mark.parametrize("trouble", [None, TimedOut("no")])
def test_one_that_stays_on_is_told(trouble: Exception | None) -> None:
    domain = Domain(trouble, 9)
    told = cleared(domain)
    assert "It is on, paused: its guest does not run" in told
    assert "virsh destroy id-1" in told
    assert domain.on


def test_one_that_was_opened_as_the_connection_broke_is_told() -> None:
    domain = Domain(None, 0)
    domain.lost = TaskFailed("the connection is lost")
    assert "If it is paused, stop it with virsh destroy id-1" in cleared(domain)
    assert domain.on


def test_saved_memory_is_refused_before_anything_is_touched() -> None:
    domain = Domain(None, 0, saved=True)
    verbs = CheckpointVerbs()
    verbs.link = Link(domain)  # type: ignore[assignment]
    with pytest.raises(Refused, match="Nothing was touched"):
        verbs.clear_checkpoints(VM)
    assert not domain.started
