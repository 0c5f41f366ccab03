# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One task over several hypervisors: whose failure is whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils import _module
from ansible_collections.vmward.remediation.plugins.module_utils._errors import Ambiguous, TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._fake.hypervisor import FakeHypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Outcome
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve
from ansible_collections.vmward.remediation.tests.conformance.benches import FakeBench, mac


def cut(bench: FakeBench, *vms: str) -> list[Outcome]:
    params = {"hypervisors": {"hv1": bench.entry}, "only": [], "vms": list(vms), "deadline": 30}
    return _module.whole(params, lambda _params: SetIsolation(Isolation.SEALED), False)


def test_a_vm_named_twice_has_one_fate(tmp_path: Path) -> None:
    bench = FakeBench(tmp_path)
    vm_id = bench.create("desk1", ["uncuttable"])
    first, twin = cut(bench, "desk1", vm_id)
    assert first.failed
    assert twin.failed
    assert twin.msg == f"Same VM as desk1. {first.msg}"


def test_a_log_out_that_fails_takes_no_outcome_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def close(_self: FakeHypervisor) -> None:
        raise RuntimeError("502")

    bench = FakeBench(tmp_path)
    bench.create("desk1")
    monkeypatch.setattr(FakeHypervisor, "close", close)
    (outcome,) = cut(bench, "desk1")
    assert not outcome.failed


def test_an_address_is_not_looked_up_past_a_vm_that_cannot_be_read(tmp_path: Path) -> None:
    bench = FakeBench(tmp_path)
    bench.create("infected")
    vm_id = bench.create("clone")

    class Blind(FakeHypervisor):
        def read(self, ids, detail=frozenset()):  # type: ignore[no-untyped-def]
            told = super().read(ids, detail)
            return {i: vm if i == vm_id else TaskFailed("An unknown NIC.") for i, vm in told.items()}

    hypervisor = Blind("hv1", str(tmp_path / "state.json"))
    found = resolve([hypervisor], hypervisor.refs(), [mac(0), "clone"])
    assert isinstance(found[mac(0)], Ambiguous)
    assert "infected: An unknown NIC." in str(found[mac(0)])
    assert found["clone"] == next(ref for ref in hypervisor.refs() if ref.id == vm_id)
