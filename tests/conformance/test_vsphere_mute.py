# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A vCenter that goes mute: the deadline is the whole task's, and who is healthy does not wait for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils import _module, _plan
from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect
from ansible_collections.vmward.remediation.plugins.module_utils._errors import TaskFailed, TimedOut
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Outcome, UseCase
from ansible_collections.vmward.remediation.tests.conformance.benches import FakeBench
from ansible_collections.vmward.remediation.tests.conformance.vsphere import OFF, SEAL, VsphereBench
from ansible_collections.vmward.remediation.tests.vcsim.server import PASSWORD

HELD = 20_000  # milliseconds for which an answer is held back: far past each deadline here
READ = "RetrievePropertiesEx"


def whole(usecase: UseCase, deadline: float, vms: list[str], **benches: Any) -> list[Outcome]:
    """What a module does."""
    entries = {name: bench.entry for name, bench in benches.items()}
    params = {"hypervisors": entries, "only": [], "vms": vms, "deadline": deadline}
    return _module.whole(params, lambda _params: usecase, False)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_module, "PATIENCE", 1.0)


@pytest.mark.usefixtures("impatient")
def test_a_cut_elsewhere_does_not_wait_for_a_vcenter_that_is_half_dead(fake: FakeBench, vsphere: VsphereBench) -> None:
    vm_id = fake.create("desk1")
    vsphere.server.faults({"method": "RetrieveServiceContent", "hold": HELD, "times": 9})
    (outcome,) = whole(SEAL, 60, ["desk1"], kvm1=fake, vc1=vsphere)
    assert not outcome.failed, outcome.msg
    assert fake.vm(vm_id).isolation is Isolation.SEALED
    (told,) = outcome.warnings
    assert "a second VM of this name would not have been seen: Cannot list the VMs on vc1: no answer for " in told


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("alone", [True, False])
def test_a_vcenter_that_answers_late_has_its_vms_cut_too(fake: FakeBench, vsphere: VsphereBench, alone: bool) -> None:
    fake.create("desk1")
    vm_id = vsphere.create("desk2")
    vsphere.server.faults({"method": "RetrieveServiceContent", "hold": 3000})
    others = {} if alone else {"kvm1": fake}
    outcomes = whole(SEAL, 60, ["desk2"] if alone else ["desk1", "desk2", "desk3"], vc1=vsphere, **others)
    assert [outcome.failed for outcome in outcomes] == ([False] if alone else [False, False, True])
    assert vsphere.vm(vm_id).isolation is Isolation.SEALED
    if not alone:
        assert outcomes[2].msg.startswith("No VM 'desk3' on any hypervisor.")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("selector", ["192.0.2.10", "tag:web"])
def test_a_lookup_that_hangs_on_one_vcenter_is_told(fake: FakeBench, vsphere: VsphereBench, selector: str) -> None:
    fake.create("desk1")
    vsphere.server.faults({"method": READ, "hold": HELD, "skip": 1})
    vsphere.server.delays(methods={"POST /api/session": HELD})
    named, sought = whole(SEAL, 6, ["desk1", selector], kvm1=fake, vc1=vsphere)
    assert named.msg == ""
    assert "Cannot tell which VM has " in sought.msg
    assert "on vc1: no answer for " in sought.msg


def test_log_in_and_listing_count_for_the_deadline(fake: FakeBench, vsphere: VsphereBench) -> None:
    fake.create("desk1")
    for method in ("RetrieveServiceContent", "Login", READ):
        vsphere.server.faults({"method": method, "hold": HELD})
        with pytest.raises(TimedOut, match="Cannot list the VMs on vc1: no answer for ") as told:
            whole(OFF, 2, ["desk1"], kvm1=fake, vc1=vsphere)
        assert "Nothing was touched" in str(told.value)


def test_a_read_that_hangs_ends_with_the_deadline(vsphere: VsphereBench, monkeypatch: pytest.MonkeyPatch) -> None:
    vsphere.create("desk1")
    monkeypatch.setattr(_module, "LAST", 1.0)
    for skip, sentence in ((1, "read the VMs on vc1"), (2, "look for running tasks on vc1")):
        vsphere.server.faults({"method": READ, "hold": HELD, "skip": skip})
        (outcome,) = whole(OFF, 3, ["desk1"], vc1=vsphere)
        assert f"Cannot {sentence}: no answer for" in outcome.msg


def test_a_cut_at_the_last_moment_is_read_back(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.hypervisor.refs()
    vsphere.server.faults({"method": READ, "hold": 4000, "skip": 1})
    (outcome,) = vsphere.do(SEAL, vm_id, deadline=3)
    assert (outcome.msg, outcome.changed, outcome.after["isolation"]) == ("", True, "sealed")


def test_a_read_back_that_hangs_takes_nothing_away_from_what_was_done(
    vsphere: VsphereBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm_id = vsphere.create("desk1")
    monkeypatch.setattr(_plan, "LAST", 1.0)
    vsphere.hypervisor.refs()
    vsphere.server.faults({"method": READ, "hold": HELD, "skip": 1})
    (outcome,) = vsphere.do(SEAL, vm_id, deadline=2)
    assert (outcome.failed, outcome.changed) == (True, True)
    assert outcome.msg.startswith(f"Cannot read {vm_id} back: Cannot read the VMs on hv1: no answer for")
    assert vsphere.vm(vm_id).isolation is Isolation.SEALED


def test_a_log_out_that_hangs_takes_no_outcome_away(vsphere: VsphereBench, monkeypatch: pytest.MonkeyPatch) -> None:
    vsphere.create("desk1")
    monkeypatch.setattr(_module, "LAST", 1.0)
    vsphere.server.faults({"method": "Logout", "hold": HELD})
    (outcome,) = whole(OFF, 30, ["desk1"], vc1=vsphere)
    assert outcome.msg == ""


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a host that takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def test_a_host_that_never_says_a_word_is_told(vsphere: VsphereBench, mute: int) -> None:
    with pytest.raises(TaskFailed) as told:
        connect("vc1", {"vsphere": {**vsphere.server.entry["vsphere"], "port": mute, "timeout": 1}})
    assert f"Cannot open a session on vc1: the connection to 127.0.0.1:{mute} failed" in str(told.value)
    assert PASSWORD not in str(told.value)
