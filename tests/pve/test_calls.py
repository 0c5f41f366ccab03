# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each operation costs in calls to the API, for one VM and for fifty."""

from __future__ import annotations

from collections import Counter

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation
from ansible_collections.vmward.remediation.plugins.module_utils._plan import UseCase
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.info import Info
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert, SetSnapshot
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench

MANY = 50
VM = "/nodes/N/qemu/N"
READ = (f"GET {VM}/pending", f"GET {VM}/firewall/options", f"GET {VM}/firewall/ipset")


def per_vm(calls: Counter[str], count: int) -> dict[str, float]:
    """Calls by VM; what is asked of the cluster or a node, and the polling of tasks, is left out."""
    return {call: number / count for call, number in calls.items() if "/qemu/" in call and "/tasks" not in call}


def once(calls: Counter[str]) -> dict[str, int]:
    return {call: number for call, number in calls.items() if "/qemu/" not in call and "/tasks" not in call}


def counted(bench: ProxmoxBench, usecase: UseCase, count: int, nics: tuple[str, ...] = ("tap",)) -> Counter[str]:
    ids = [bench.create(f"desk{number}", nics) for number in range(count)]
    bench.hypervisor.refs()
    with bench.cluster.counted() as calls:
        outcomes = bench.do(usecase, *ids)
    assert [outcome.msg for outcome in outcomes if outcome.failed] == []
    return Counter({call.replace("/nodes/pve1/", "/nodes/N/"): number for call, number in calls.items()})


def state(count: int) -> tuple[dict[str, float], dict[str, int]]:
    """How the VMs' power is read: one by one, or in one list of their node."""
    return ({f"GET {VM}/status/current": 1.0}, {}) if count == 1 else ({}, {"GET /nodes/N/qemu": 1})


def added(*parts: dict[str, float]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


@pytest.mark.parametrize("count", [1, MANY])
def test_reading(bench: ProxmoxBench, count: int) -> None:
    calls = counted(bench, SetPower("running", False, 0, {}), count)
    each, shared = state(count)
    assert per_vm(calls, count) == added(dict.fromkeys(READ, 1.0), each)
    assert once(calls) == shared


@pytest.mark.parametrize("count", [1, MANY])
@pytest.mark.parametrize("nics", [("tap",), ("tap",) * 10], ids=["one NIC", "ten NICs"])
def test_a_seal(bench: ProxmoxBench, count: int, nics: tuple[str, ...]) -> None:
    """Read, write note, NICs and firewall, read back with the second layer: ten NICs cost no more than one."""
    calls = counted(bench, SetIsolation(Isolation.SEALED, "2026-1"), count, nics)
    each, shared = state(count)
    writes = (f"POST {VM}/firewall/ipset", f"PUT {VM}/config", f"PUT {VM}/firewall/options")
    rules = {f"GET {VM}/firewall/rules": 1.0}  # after ours would have been set
    assert per_vm(calls, count) == added(dict.fromkeys(READ, 2.0), each, each, dict.fromkeys(writes, 1.0), rules)
    second = {"GET /cluster/firewall/options": 1, "GET /nodes/N/services/pve-firewall/state": 1}
    assert once(calls) == {**dict.fromkeys(shared, 2), **second}


@pytest.mark.parametrize("count", [1, MANY])
def test_a_snapshot(bench: ProxmoxBench, count: int) -> None:
    calls = counted(bench, SetSnapshot("clean", "present", "", False), count)
    each, shared = state(count)
    tree = {f"GET {VM}/snapshot": 2.0, f"POST {VM}/snapshot": 1.0}
    assert per_vm(calls, count) == added(dict.fromkeys(READ, 2.0), each, each, tree)
    assert once(calls) == dict.fromkeys(shared, 2)


@pytest.mark.parametrize("count", [1, MANY])
def test_a_power_off_and_its_tasks(bench: ProxmoxBench, count: int) -> None:
    """Of which nothing but the power is read back."""
    calls = counted(bench, SetPower("stopped", True, 0, {}), count)
    each, shared = state(count)
    assert per_vm(calls, count) == added(dict.fromkeys(READ, 1.0), each, each, {f"POST {VM}/status/stop": 1.0})
    assert once(calls) == dict.fromkeys(shared, 2)
    tasks = sum(number for call, number in calls.items() if "/tasks" in call)
    assert tasks <= 6, "tasks are read from one list, not one by one"


def test_a_revert(bench: ProxmoxBench) -> None:
    ids = [bench.create(f"desk{number}", running=False) for number in range(MANY)]
    bench.do(SetSnapshot("clean", "present", "", False), *ids)
    with bench.cluster.counted() as calls:
        outcomes = bench.do(Revert("clean", False, True, {}), *ids)
    assert not any(outcome.failed for outcome in outcomes)
    assert calls["POST /nodes/pve1/qemu/N/snapshot/clean/rollback"] == MANY
    assert sum(number for call, number in calls.items() if "/tasks" in call) <= 6


def test_a_list_of_all_vms_is_one_call_and_one_for_the_nodes(bench: ProxmoxBench) -> None:
    for number in range(MANY):
        bench.create(f"desk{number}")
    with bench.cluster.counted() as calls:
        assert len(bench.hypervisor.refs()) == MANY
    assert dict(calls) == {"GET /cluster/resources": 1, "GET /nodes": 1}


def test_a_session_logs_in_once(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    with bench.cluster.counted() as calls:
        bench.hypervisor = bench.connect()
        bench.one(Info(), vm_id)
    assert calls["GET /access/permissions"] == 1
    assert calls["GET /cluster/resources"] == 1
