# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import CaseError
from ansible_collections.vmward.remediation.plugins.module_utils._case.lease import Claim, Lease, LeaseError, decide

from .conftest import Run, note

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ANN = Lease("ann", 3, NOW + timedelta(seconds=60))
LATER = NOW + timedelta(seconds=61)


def test_a_lease_survives_being_stored() -> None:
    assert Lease.from_dict(ANN.to_dict()) == ANN


def test_the_first_claim_leads_and_a_later_epoch_is_always_higher() -> None:
    assert decide("c1", None, 7, Claim("ann", 60), NOW) == Lease("ann", 8, NOW + timedelta(seconds=60))


def test_the_holder_renews_without_a_new_epoch_even_when_late() -> None:
    assert decide("c1", ANN, 3, Claim("ann", 60), LATER) == Lease("ann", 3, LATER + timedelta(seconds=60))


def test_another_run_of_the_same_holder_is_refused_until_the_lease_is_over() -> None:
    first = decide("c1", None, 0, Claim("ann", 60, run="ctl/7/1"), NOW)
    with pytest.raises(LeaseError, match=r"ann \(run ctl/7/1\) leads it") as caught:
        decide("c1", first, 1, Claim("ann", 60, run="ctl/8/1"), NOW)
    assert caught.value.current == first
    assert decide("c1", first, 1, Claim("ann", 60, run="ctl/8/1"), LATER) == Lease(
        "ann", 2, LATER + timedelta(seconds=60), "ctl/8/1"
    )


def test_another_holder_is_refused_and_told_who_leads_until_when() -> None:
    says = r"ann leads it under epoch 3, until 2026-01-31T12:01:00.000Z"
    with pytest.raises(CaseError, match=says) as caught:
        decide("c1", ANN, 3, Claim("bob"), NOW)
    assert caught.value.kind == "lease"


@pytest.mark.parametrize(("claim", "now"), [(Claim("bob", 60), LATER), (Claim("bob", 60, take_over=True), NOW)])
def test_an_expired_or_taken_lease_gets_a_new_epoch(claim: Claim, now: datetime) -> None:
    assert decide("c1", ANN, 3, claim, now) == Lease("bob", 4, now + timedelta(seconds=60))


def test_a_stale_epoch_is_refused_even_for_the_same_holder() -> None:
    with pytest.raises(CaseError, match="epoch 2 is over; ann leads"):
        decide("c1", ANN, 3, Claim("ann", epoch=2), NOW)


def test_a_note_without_a_claim_leaves_the_lease_alone() -> None:
    assert decide("c1", ANN, 3, Claim(), LATER) == ANN


@pytest.mark.parametrize("claim", [Claim(""), Claim("x" * 257), Claim("ann", 0), Claim("ann", 86401)])
def test_a_senseless_claim_is_bad_input(claim: Claim) -> None:
    with pytest.raises(CaseError) as caught:
        decide("c1", None, 0, claim, NOW)
    assert caught.value.kind == "input"


def test_the_ledger_records_every_change_of_leader_and_stops_the_former(case: Run) -> None:
    ann, bob = {"holder": "ann", "ttl": 60}, {"holder": "bob", "ttl": 60}
    assert case("open", lease=ann)["epoch"] == 1
    assert case("append", lease=ann, epoch=1, entries=[note()])["epoch"] == 1
    with pytest.raises(CaseError, match="ann leads"):
        case("append", lease=bob, entries=[note()])
    taken = case("append", lease=bob, take_over=True, actor="bob", entries=[note()])
    assert taken["lease"]["holder"] == "bob"
    with pytest.raises(CaseError, match="epoch 1 is over"):
        case("append", epoch=1, entries=[note()])
    changes = [entry for entry in case("read")["entries"] if entry["action"] == "lease"]
    assert [(entry["actor"], entry["inputs"]["take_over"]) for entry in changes] == [("ann", False), ("bob", True)]
    assert [entry["epoch"] for entry in case("read")["entries"]] == [0, 1, 1, 2, 2] or changes[0]["epoch"] == 1
