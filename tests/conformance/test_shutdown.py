# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest that is asked to shut down, on every backend that has one which obeys."""

from __future__ import annotations

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._model import PowerState
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench, NotShown

OFF_BY_ITSELF = SetPower("stopped", False, 10, {})


def test_a_guest_that_obeys_needs_no_force_and_one_that_does_not_keeps_running(bench: Bench) -> None:
    good, deaf = bench.create("desk1"), bench.create("desk2")
    if bench.has_obedient_guests:
        bench.obey(good)
    else:
        with pytest.raises(NotShown, match="the tiny guests hear no power button"):
            bench.obey(good)
        good = ""
    asked = [vm_id for vm_id in (good, deaf) if vm_id]
    outcomes = {outcome.id: outcome for outcome in bench.do(SetPower("stopped", False, 2, {}), *asked)}
    if good:
        assert not outcomes[good].failed, outcomes[good].msg
        assert outcomes[good].after == {"power": "stopped"}
        assert not bench.one(OFF_BY_ITSELF, good).changed
    assert "the guest has not obeyed for 2 s and still runs" in outcomes[deaf].msg
    assert bench.vm(deaf).power is PowerState.RUNNING
