# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input and faults in the middle: each gives its sentence, harms no other VM, and ends in time."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3

from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect
from ansible_collections.vmward.remediation.plugins.module_utils._crew import apart
from ansible_collections.vmward.remediation.plugins.module_utils._errors import (
    Ambiguous,
    AuthFailed,
    NotFound,
    TimedOut,
    VmwardError,
)
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import FINDING, FIRST, LAST
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation
from ansible_collections.vmward.remediation.plugins.module_utils._plan import UseCase
from ansible_collections.vmward.remediation.plugins.module_utils._proxmox.connection import AT_ONCE
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.info import Info
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve
from ansible_collections.vmward.remediation.tests.integration.test_modules_control import play, task
from ansible_collections.vmward.remediation.tests.pve.bench import HELD, ProxmoxBench
from ansible_collections.vmward.remediation.tests.pve.verbs import FORENSIC, OFF, SEAL, WAIVED, take

FREE = SetIsolation(Isolation.FREE, keep_sessions=True)

# In the middle of a batch


@pytest.mark.parametrize(
    ("status", "message", "part"),
    [
        (401, "permission denied - invalid PVE ticket", "was refused: it has expired or was removed"),
        (400, "link: property is not defined in schema", "(HTTP 400). Proxmox VE on 127.0.0.1 does not know"),
        (403, "Permission check failed (/vms/102, VM.Audit)", "Give ir@pve!contain the privilege that it names."),
        (500, "unexpected property", "unexpected property"),
        (500, "VM 501 went away", "VM 501 went away."),  # which is no status
        (500, "cfs-lock 'x' error: no quorum!", "bring the other nodes back"),
        (501, "Method 'PUT /x' not implemented", "its version and this vmward do not fit. Update the older one."),
        (502, "Bad Gateway", "A proxy between here and 127.0.0.1 answers in its place."),
        (503, "Service Unavailable", "(HTTP 503). The VM's node cannot be reached through 127.0.0.1."),
        (595, "No route to host", "(HTTP 595). 127.0.0.1 finds no way to the VM's node: nothing was done there."),
        (596, "Connection timed out", "(HTTP 596). 127.0.0.1 reached the VM's node, and got no answer that it can"),
        (599, "Too many redirections", "gave up on the VM's node; what was asked for may have been"),
    ],
)
def test_one_refusal_in_a_batch_stays_with_its_vm(bench: ProxmoxBench, status: int, message: str, part: str) -> None:
    ids = [bench.create(f"desk{number}") for number in range(5)]
    bench.pve.fail("PUT", f"/qemu/{ids[2]}/config", status, message)
    outcomes = bench.do(SEAL, *ids)
    assert [outcome.failed for outcome in outcomes] == [False, False, True, False, False]
    assert part in outcomes[2].msg
    assert bench.vm(ids[2]).isolation is Isolation.FREE
    assert bench.vm(ids[2]).note is not None, "the undo note was written before the cut"


def test_a_ticket_that_expires_in_the_middle_of_a_batch_is_renewed_once_for_all(bench: ProxmoxBench) -> None:
    ids = [bench.create(f"desk{number}") for number in range(20)]
    log_in = {"token_id": None, "token_secret": None, "user": "root@pam", "password": "secret"}
    bench.hypervisor = connect("hv1", {"proxmox": {**bench.cluster.entry, **log_in}})
    bench.hypervisor.refs()
    bench.pve.meanwhile[f"/qemu/{ids[7]}/config"] = bench.pve.revoke_tickets
    with bench.cluster.counted() as calls:
        outcomes = bench.do(SEAL, *ids)
    assert not any(outcome.failed for outcome in outcomes)
    assert calls["POST /access/ticket"] == 1


def test_a_log_in_that_is_refused_in_the_middle_of_a_batch_is_not_tried_again(bench: ProxmoxBench) -> None:
    """It would be, for each call of each VM: and the account would be locked."""
    ids = [bench.create(f"desk{number}") for number in range(20)]
    bench.log_in()
    bench.pve.meanwhile[f"/qemu/{ids[7]}/config"] = bench.pve.revoke_tickets
    bench.pve.fail("POST", "/access/ticket", 401, "authentication failure")
    with bench.cluster.counted() as calls:
        outcomes = bench.do(SEAL, *ids)
    assert calls["POST /access/ticket"] == 1
    assert outcomes[-1].failed
    assert "refused root@pam. Correct user and password" in outcomes[-1].msg


def test_a_ticket_that_cannot_be_renewed_is_asked_for_once(bench: ProxmoxBench) -> None:
    ids = [bench.create(f"desk{number}") for number in range(5)]
    bench.log_in()
    bench.hypervisor.link.api._store["session"].ends = 0.0  # type: ignore[attr-defined]
    bench.pve.fail("POST", "/access/ticket", 401, "authentication failure")
    with bench.cluster.counted() as calls:
        assert {type(one) for one in bench.hypervisor.read(ids).values()} == {AuthFailed}
    assert calls["POST /access/ticket"] == 1


def test_a_server_that_goes_away_in_the_middle_fails_every_vm_by_name(bench: ProxmoxBench, quick: None) -> None:
    ids = [bench.create(f"desk{number}") for number in range(6)]
    bench.pve.meanwhile[f"/qemu/{ids[3]}/config"] = lambda: asyncio.ensure_future(bench.pve.stop())
    outcomes = bench.do(SEAL, *ids)
    assert all(outcome.failed for outcome in outcomes), "nothing could be read back"
    words = ("the connection to 127.0.0.1 failed", "127.0.0.1 took the request and has not answered")
    assert all(any(word in outcome.msg for word in words) for outcome in outcomes), outcomes


def test_a_cut_that_gets_no_answer_ends_with_its_deadline(bench: ProxmoxBench) -> None:
    ids = [bench.create(f"desk{number}") for number in range(3)]
    bench.pve.hang[f"/qemu/{ids[1]}/config"] = 60.0  # longer than a request is waited for
    outcomes = bench.do(SEAL, *ids, deadline=1)
    assert [outcome.failed for outcome in outcomes] == [False, True, False]
    assert "it still runs after 1 s" in outcomes[1].msg


def test_a_refusal_that_passes_is_tried_again_after_reading_back(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    bench.pve.fail("PUT", f"/qemu/{vm_id}/config", 595, "No route to host", times=1)
    assert bench.one(SEAL, vm_id).after["isolation"] == "sealed"


LOCKED = "can't lock file '/var/lock/pve-firewall/100.lock' - got timeout\n"


@pytest.mark.parametrize(("status", "message"), [(595, "No route to host"), (500, LOCKED)], ids=["lost", "locked"])
@pytest.mark.parametrize(
    ("verb", "method", "path"),
    [
        (SEAL, "POST", "firewall/ipset"),
        (SEAL, "PUT", "firewall/options"),
        (SEAL, "GET", "firewall/rules"),
        (SEAL, "POST", "firewall/rules"),
        (FREE, "PUT", "firewall/options"),
        (FREE, "DELETE", "firewall/rules/0"),
        (FREE, "DELETE", "firewall/ipset/vmward-undo"),
    ],
    ids=lambda one: one if isinstance(one, str) else "seal" if one is SEAL else "free",
)
def test_note_and_firewall_are_tried_again_too(
    bench: ProxmoxBench, verb: UseCase, method: str, path: str, status: int, message: str
) -> None:
    """A VM is not cut where its note cannot be written: it takes more than one hiccup to leave it so."""
    vm_id = bench.create("desk1")
    bench.pve.firewall_config("vm", vmid=int(vm_id))["rules"].append({"type": "in", "action": "ACCEPT", "enable": 1})
    free = bench.wiring(vm_id)
    if verb is FREE:
        bench.one(SEAL, vm_id)
    bench.pve.fail(method, f"/qemu/{vm_id}/{path}", status, message, times=1)
    warnings = bench.one(verb, vm_id).warnings
    if verb is FREE:
        assert warnings == ["its old sessions may resume (keep_sessions)"]
        assert (bench.wiring(vm_id), bench.vm(vm_id).note) == (free, None)
    else:
        assert warnings == []
        assert all(now == as_set for _name, now, as_set in bench.vm(vm_id).firewall)


def test_a_note_whose_answer_is_lost_is_written_once_more(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")

    class Late(SetIsolation):
        def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
            bench.pve.truncate[f"/qemu/{vm_id}/firewall/ipset"] = 1
            return super().plan(hypervisor, vm)

    assert bench.one(Late(Isolation.SEALED, "2026-1"), vm_id).after["case"] == "2026-1"


def test_an_answer_that_is_lost_after_the_change_is_read_back_and_not_repeated(
    bench: ProxmoxBench,
) -> None:
    vm_id = bench.create("desk1")
    bench.pve.truncate[f"/qemu/{vm_id}/config"] = 1
    with bench.cluster.counted() as calls:
        bench.one(SEAL, vm_id)
    assert calls["PUT /nodes/pve1/qemu/N/config"] == 1


def test_an_answer_that_is_cut_short(bench: ProxmoxBench) -> None:
    vm_id, other = bench.create("desk1"), bench.create("desk2")
    bench.pve.truncate[f"/qemu/{vm_id}/pending"] = 9
    outcomes = bench.do(Info(), vm_id, other)
    assert [outcome.failed for outcome in outcomes] == [True, False]
    assert "the connection to 127.0.0.1 failed (Connection broken: IncompleteRead" in outcomes[0].msg


@pytest.mark.parametrize("path", ["pending", "firewall/options", "firewall/ipset", "status/current"])
def test_a_read_whose_answer_was_cut_short_once_is_made_again(bench: ProxmoxBench, path: str) -> None:
    """An infected VM is not left uncut for it."""
    vm_id = bench.create("desk1")
    bench.pve.truncate[f"/qemu/{vm_id}/{path}"] = 1
    assert bench.one(SEAL, vm_id).after["isolation"] == "sealed"


@pytest.mark.parametrize("status", [200, 502])
def test_a_page_of_a_proxy_instead_of_json(bench: ProxmoxBench, status: int) -> None:
    vm_id = bench.create("desk1")
    bench.pve.fail("GET", f"/qemu/{vm_id}/pending", status, "<html>Please log in</html>", html=True)
    (outcome,) = bench.do(Info(), vm_id)
    assert ("begins with '<html>Please log in</html>'" if status == 200 else "Bad Gateway") in outcome.msg


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize("page", ["[]", '"log in"', "null"])
def test_json_that_is_not_proxmox_ves(bench: ProxmoxBench, status: int, page: str) -> None:
    vm_id = bench.create("desk1")
    bench.pve.fail("GET", f"/qemu/{vm_id}/pending", status, page, html=True)
    (outcome,) = bench.do(Info(), vm_id)
    assert "the answer is JSON, but not Proxmox VE's. Look for a proxy" in outcome.msg


def test_a_list_that_cannot_be_read_is_never_shortened(bench: ProxmoxBench) -> None:
    bench.pve.fail("GET", "/cluster/resources", 500, "no quorum")
    with pytest.raises(VmwardError, match="Cannot list the VMs on hv1: no quorum"):
        bench.hypervisor.refs()


def test_three_of_a_hundred_fail(bench: ProxmoxBench) -> None:
    ids = [bench.create(f"desk{number}", nics=()) for number in range(100)]
    for vm_id in ids[10:40:10]:
        bench.pve.snapshot_lock(int(vm_id), "backup")
    outcomes = bench.do(OFF, *ids)
    failed = [outcome for outcome in outcomes if outcome.failed]
    assert [outcome.id for outcome in failed] == ids[10:40:10]
    assert all("VM is locked (backup)" in outcome.msg and "TASK ERROR" in outcome.msg for outcome in failed)
    assert sum(bench.pve.vm(int(vm_id)).status == "stopped" for vm_id in ids) == 97


def test_three_of_a_hundred_fail_the_task_by_name_after_all_was_done(bench: ProxmoxBench, tmp_path: Path) -> None:
    ids = [bench.create(f"desk{number}", nics=()) for number in range(100)]
    for vm_id in ids[10:40:10]:
        bench.pve.snapshot_lock(int(vm_id), "backup")
    names = [f"desk{number}" for number in range(100)]
    (told,) = play(tmp_path, [task("vm_power", bench, *names, state="stopped", force=True, grace=0)])
    assert told["failed"]
    first = "desk10: Cannot power off desk10 (110) on hv1: VM is locked (backup)."
    assert told["msg"].startswith(f"3 of 100 VMs failed. {first}")
    assert [part.split(":")[0] for part in told["msg"].split(" | desk")[1:]] == ["20", "30"]
    assert [outcome["name"] for outcome in told["vms"]] == names
    assert [outcome["name"] for outcome in told["vms"] if outcome["failed"]] == ["desk10", "desk20", "desk30"]
    assert sum(outcome["after"] == {"power": "stopped"} for outcome in told["vms"]) == 97
    assert sum(bench.pve.vm(int(vm_id)).status == "stopped" for vm_id in ids) == 97


def test_a_vm_that_moves_between_plan_and_act_is_followed(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")

    class Moving(SetIsolation):
        def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
            bench.pve.add_node("pve2")
            bench.pve.vm(int(vm_id)).node = "pve2"
            return super().plan(hypervisor, vm)

    bench.one(Moving(Isolation.SEALED, "2026-1"), vm_id)
    assert bench.pve.vm(int(vm_id)).config["net0"].endswith("link_down=1")


def test_a_vm_that_is_deleted_between_plan_and_act_is_said_to_be_gone(bench: ProxmoxBench) -> None:
    gone, left = bench.create("desk1"), bench.create("desk2")

    class Unlucky(SetIsolation):
        def plan(self, hypervisor, vm):  # type: ignore[no-untyped-def]
            plan = super().plan(hypervisor, vm)
            if vm.ref.id == gone:
                bench.vanish(gone)
            return plan

    lost, fine = bench.do(Unlucky(Isolation.SEALED, "2026-1"), gone, left)
    assert "may have been removed meanwhile" in lost.msg
    assert not fine.failed


# Names and kinds


def test_the_same_name_on_two_nodes(bench: ProxmoxBench) -> None:
    bench.create("desk1")
    bench.create("desk1", node="pve2")
    found = resolve([bench.hypervisor], bench.hypervisor.refs(), ["desk1"])["desk1"]
    assert isinstance(found, Ambiguous)
    assert "desk1 (100) on hv1; desk1 (101) on hv1" in str(found)


def test_a_tag_or_pool_selects_the_one_vm_that_has_it(bench: ProxmoxBench) -> None:
    one, two = bench.create("desk1"), bench.create("desk2")
    bench.pve.vm(int(one)).config["tags"] = "pci;suspect"
    bench.pve.vm(int(two)).config["tags"] = "pci"
    bench.pve.vm(int(two)).pool = "vdi"
    found = resolve([bench.hypervisor], bench.hypervisor.refs(), ["tag:suspect", "pool:vdi", "tag:pci", "tag:none"])
    assert [found[key].id for key in ("tag:suspect", "pool:vdi")] == [one, two]  # type: ignore[union-attr]
    assert isinstance(found["tag:pci"], Ambiguous)
    assert isinstance(found["tag:none"], NotFound)
    assert bench.vm(one).tags == ("pci", "suspect")


def test_a_container_is_said_to_be_none_that_is_handled(bench: ProxmoxBench) -> None:
    """It shares the kernel of its node: whoever means it must not be told that there is no such thing."""
    vm_id = bench.create("desk1")
    bench.pve.add_ct(200, "db1", node="pve2", config={"tags": "suspect;ct"}, pool="cts")
    refs = bench.hypervisor.refs()
    assert [ref.id for ref in refs] == [vm_id]
    names = ["db1", "200", "tag:ct", "pool:cts", "desk1", "db2"]
    found = resolve([bench.hypervisor], refs, names)
    said = (
        "hv1 has containers that are so named, which vmward does not handle: db1 (200) on pve2. Cut one off by hand on "
        "its node: link_down=1 on each of its NICs, or pct stop."
    )
    assert {name for name in names if said in str(found[name])} == {"db1", "200", "tag:ct", "pool:cts"}
    assert all(isinstance(found[name], NotFound) for name in names if name != "desk1")


@pytest.mark.parametrize("name", ["desk1", "tag:suspect", "pool:vdi"])
def test_a_container_stops_no_vm_that_is_called_the_same(bench: ProxmoxBench, tmp_path: Path, name: str) -> None:
    vm_id, twin = bench.create("desk1"), "\x1b[2Jdesk1" if name != "desk1" else "desk1"
    bench.pve.vm(int(vm_id)).config["tags"] = "suspect"
    bench.pve._pool_join("vdi", int(vm_id))
    for number in range(12):
        bench.pve.add_ct(200 + number, twin, node="pve2", config={"tags": "suspect"}, pool="vdi")
    asked = task("vm_isolation", bench, name, "200", "desk2", state="sealed", case="2026-1", report_only=True)
    (told,) = play(tmp_path, [asked])
    done, container, nothing = told["vms"]
    assert (done["failed"], done["after"]["isolation"]) == (False, "sealed")
    (warning,) = [text for text in done["warnings"] if "containers" in text]
    assert "and 2 more. Cut one off by hand" in warning
    assert "\x1b" not in warning
    assert (container["failed"], "which vmward does not handle" in container["msg"]) == (True, True)
    assert (nothing["failed"], "containers" in nothing["msg"]) == (True, False)


@pytest.mark.parametrize("name", ["a/b", "100%", 'it\'s "q"', "two\nlines", "../../etc", "{{ 7*7 }}"])
def test_a_hostile_name_is_only_a_name(bench: ProxmoxBench, name: str) -> None:
    vm_id = bench.create(name)
    assert resolve([bench.hypervisor], bench.hypervisor.refs(), [name])[name].name == name  # type: ignore[union-attr]
    bench.one(SEAL, vm_id)
    bench.pve.snapshot_lock(int(vm_id), "backup")
    (outcome,) = bench.do(OFF, vm_id)
    assert "\n" not in outcome.msg


@pytest.mark.parametrize("name", ["x", "1bad", "a b", "../x", "a" * 41, "current", "a%2e"])
def test_a_snapshot_name_that_cannot_be_is_refused_before_anything_is_touched(bench: ProxmoxBench, name: str) -> None:
    vm_id = bench.create("desk1")
    (planned,), (outcome,) = bench.do(take(name), vm_id, check=True), bench.do(take(name), vm_id)
    assert (planned.msg, planned.failed) == (outcome.msg, True)
    assert "Nothing was touched. Choose another." in outcome.msg
    assert [m for m, _path, _body in bench.pve.requests if m != "GET"] == []


@pytest.mark.parametrize("user", ["o'brien@ad!ir", "r#1%41?=@ad", "ren\u00e9@ad"])
def test_a_task_of_somebody_with_a_strange_name_is_taken_up(bench: ProxmoxBench, user: str) -> None:
    """The name is the end of the task's id, and so of a path."""
    vm_id = bench.create("desk1", nics=())
    bench.pve.time_scale, bench.pve.delays = 1.0, {"qmstop": 1.0}
    bench.cluster.run(bench.pve._do_stop(bench.pve.vm(int(vm_id)), user, {}))
    with bench.cluster.counted() as calls:
        assert bench.one(OFF, vm_id).after == {"power": "stopped"}
    assert not calls["POST /nodes/pve1/qemu/N/status/stop"]


def test_no_nic_and_ten(bench: ProxmoxBench) -> None:
    none, ten = bench.create("none", nics=()), bench.create("ten", nics=("tap",) * 10)
    assert bench.one(SEAL, none).after["isolation"] == "sealed"
    bench.one(SEAL, ten)
    nics = bench.vm(ten).nics
    assert [nic.id for nic in nics] == [f"net{number}" for number in range(10)]
    assert {nic.isolation for nic in nics} == {Isolation.SEALED}


def test_a_template_is_no_vm(bench: ProxmoxBench) -> None:
    vm_id = bench.create("golden", running=False)
    bench.pve.vm(int(vm_id)).template = True
    (outcome,) = bench.do(SEAL, vm_id)
    assert "it is a template, not a VM" in outcome.msg


def test_a_node_that_is_down_hides_no_vm(bench: ProxmoxBench) -> None:
    near, far = bench.create("near"), bench.create("far", node="pve2")
    bench.pve.set_node_offline("pve2")
    refs = bench.hypervisor.refs()
    assert {ref.id for ref in refs} == {near, far}
    with bench.cluster.counted() as calls:
        outcomes = bench.do(SEAL, near, far)
    assert not any("nodes/pve2" in call for call in calls), "a node that is down is not asked"
    assert [outcome.failed for outcome in outcomes] == [False, True]
    assert "Cannot read 101 (101) on hv1: its node pve2 is offline" in outcomes[1].msg
    assert "Block its switch port" in outcomes[1].msg
    lost = resolve([bench.hypervisor], refs, ["far", "near", far])
    assert "hv1 does not know the names of all its VMs" in str(lost["far"])
    assert "101 on node pve2. Name such a VM by its id." in str(lost["far"])
    assert [lost[key].id for key in ("near", far)] == [near, far]  # type: ignore[union-attr]


def test_a_node_that_stops_answering_is_not_waited_for_by_every_vm(bench: ProxmoxBench) -> None:
    near = bench.create("near")
    far = [bench.create(f"far{number}", node="pve2") for number in range(40)]
    bench.pve.set_node_offline("pve2")
    bench.pve.fail("GET", "/api2/json/nodes", 403, "Permission check failed")  # so that nobody tells
    bench.hypervisor.refs()
    for vm_id in far:
        for path in ("pending", "firewall/options", "firewall/ipset"):
            bench.pve.hang[f"/qemu/{vm_id}/{path}"] = 1.0
    with bench.cluster.counted() as calls:
        answer = bench.hypervisor.read([*far, near])
    assert sum(count for call, count in calls.items() if "nodes/pve2" in call) < 60, "120 would be asked in vain"
    assert not isinstance(answer[near], Exception)
    assert all(isinstance(answer[vm_id], TimedOut) for vm_id in far)
    assert any("its node pve2 does not answer" in str(answer[vm_id]) for vm_id in far)


def test_a_node_that_hangs_leaves_no_other_nodes_vm_uncut(bench: ProxmoxBench) -> None:
    """Nor does it take the whole time of the task, or all calls that may be under way."""
    far = [bench.create(f"far{number}", node="pve2") for number in range(10)]
    near = bench.create("near")
    bench.hypervisor.refs()
    for path in ("pending", "firewall/options", "firewall/ipset", "status/current"):
        bench.pve.hang.update({f"/nodes/pve2/qemu/{vm_id}/{path}": 60.0 for vm_id in far})
    deadline = 12.0
    bench.hypervisor.until(time.monotonic() + deadline + LAST)
    outcomes = bench.do(SEAL, *far, near, deadline=deadline)
    assert [outcome.failed for outcome in outcomes] == [True] * 10 + [False]
    assert "no whole answer in 6 s. Look at its node pve2" in outcomes[0].msg
    assert bench.pve.vm(int(near)).config["net0"].endswith("link_down=1")


def test_a_node_that_does_not_tell_its_bridges_holds_up_no_other_nodes_vm(bench: ProxmoxBench) -> None:
    far, near = bench.create("far", node="pve2"), bench.create("near")
    bench.pve.hang["/nodes/pve2/network"] = HELD
    verb = apart(partial(bench.do, FORENSIC, far, near, deadline=60))
    while not verb.done() and "bridge=quarantine" not in bench.pve.vm(int(near)).config["net0"]:
        time.sleep(0.05)
    assert not [path for method, path, _body in bench.pve.requests if method != "GET" and f"/{far}/" in path]
    bench.pve.hang.clear()
    assert [outcome.msg for outcome in verb.result()] == ["", ""]
    assert bench.vm(far).isolation is Isolation.FORENSIC


@pytest.mark.parametrize("is_begun", [False, True], ids=["before the task began", "while it runs"])
def test_a_node_that_does_not_tell_its_tasks_holds_up_no_other_nodes_vm(bench: ProxmoxBench, is_begun: bool) -> None:
    """Two steps each: pve2's list of tasks stays out for more than the whole run, pve1's VM is through meanwhile."""
    bench.pve.time_scale, bench.pve.delays = 1.0, {"qmstop": 0.3}
    far, near = [bench.create(f"far{number}", node="pve2") for number in range(3)], bench.create("near")
    tasks = "GET /api2/json/nodes/pve2/tasks"

    def hang() -> None:
        bench.pve.hang[tasks] = HELD

    if is_begun:
        bench.pve.meanwhile[f"/qemu/{far[2]}/status/stop"] = hang
    else:
        hang()
    again = SetPower("restarted", True, 0, dict.fromkeys((*far, near), WAIVED))
    verb = apart(partial(bench.do, again, *far, near, deadline=60))
    while not verb.done() and not any(f"/{near}/status/start" in path for _method, path, _body in bench.pve.requests):
        time.sleep(0.05)
    assert not verb.done()
    assert tasks in bench.pve.hang
    bench.pve.hang.clear()
    assert [outcome.msg for outcome in verb.result()] == ["", "", "", ""]


@pytest.mark.parametrize("path", ["firewall/ipset", "config"])
def test_writes_that_hang_on_one_node_hold_up_no_other_nodes_vm(bench: ProxmoxBench, path: str) -> None:
    """However many they are: the calls that may be under way are each node's own."""
    far = [bench.create(f"far{number}", node="pve2") for number in range(AT_ONCE + 4)]
    near = bench.create("near")
    method = "POST" if path == "firewall/ipset" else "PUT"
    bench.pve.hang.update({f"{method} /api2/json/nodes/pve2/qemu/{vm_id}/{path}": HELD for vm_id in far})
    verb = apart(partial(bench.do, SEAL, *far, near, deadline=30))
    while not verb.done() and "link_down=1" not in bench.pve.vm(int(near)).config["net0"]:
        time.sleep(0.05)
    assert not verb.done()
    assert not [vm_id for vm_id in far if "link_down=1" in bench.pve.vm(int(vm_id)).config["net0"]]
    bench.pve.hang.clear()
    assert {outcome.msg for outcome in verb.result()} == {""}


@pytest.mark.parametrize(("left", "most"), [(1000, 120), (20, 10), (5, 4), (3, 4), (-1, 8)])
def test_a_read_answers_before_it_is_given_up(bench: ProxmoxBench, left: float, most: float) -> None:
    bench.hypervisor.until(time.monotonic() + left + LAST)
    patience = bench.hypervisor.patience_to_read()  # type: ignore[attr-defined]
    assert patience == pytest.approx(most, abs=0.5)
    assert patience < max(left, FIRST if left > 0 else LAST)


def test_a_node_that_misses_some_calls_is_not_taken_for_lost(bench: ProxmoxBench) -> None:
    ids = [bench.create(f"desk{number}") for number in range(30)]
    for vm_id in ids[:3]:
        bench.pve.fail("GET", f"/qemu/{vm_id}/pending", 595, "No route to host")
    answer = bench.hypervisor.read(ids)
    assert [vm_id for vm_id in ids if isinstance(answer[vm_id], TimedOut)] == ids[:3]


# Surprises


def test_a_surprise_in_what_is_read_once_hangs_nobody(bench: ProxmoxBench) -> None:
    def surprise() -> None:
        raise KeyError("volid")

    for _again in range(2):
        with pytest.raises(KeyError):
            bench.hypervisor.one_time("x", surprise)  # type: ignore[attr-defined]


def test_an_answer_has_the_time_that_proxmox_ve_itself_waits_for_a_node(
    bench: ProxmoxBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 s for another node, and 10 s for a lock: the client's own 5 s would lose answers."""
    allowed: list[float] = []
    answered = urllib3.connection.HTTPConnection.getresponse

    def noted(self: Any) -> Any:
        allowed.append(self.timeout)
        return answered(self)

    monkeypatch.setattr(urllib3.connection.HTTPConnection, "getresponse", noted)
    bench.hypervisor = bench.connect()
    bench.one(SEAL, bench.create("desk1"))
    assert len(allowed) > 10
    assert min(allowed) > 30.0


def test_an_unanswered_read_is_no_state(bench: ProxmoxBench, quick: None) -> None:
    vm_id, other = bench.create("desk1"), bench.create("desk2")
    bench.hypervisor = bench.connect()
    bench.pve.hang[f"/qemu/{vm_id}/pending"] = 5.0
    answer = bench.hypervisor.read([vm_id, other])
    assert isinstance(answer[vm_id], TimedOut)
    assert not isinstance(answer[other], Exception)
    assert not isinstance(answer[vm_id], AuthFailed)


def test_a_redirect_is_not_followed(bench: ProxmoxBench) -> None:
    """It would carry the token elsewhere."""
    vm_id = bench.create("desk1")
    bench.pve.elsewhere.add(f"/qemu/{vm_id}/pending")
    with bench.cluster.counted() as calls:
        (outcome,) = bench.do(Info(), vm_id)
    assert "it answers HTTP 307 and points elsewhere" in outcome.msg
    assert calls["GET /nodes/pve1/qemu/N/pending"] == 1


def test_who_looks_a_vm_up_takes_nothing_from_a_verb_that_works_on_it(bench: ProxmoxBench) -> None:
    """Nor does it ask for what only the verb tells."""
    hypervisor: Any = bench.hypervisor
    vm_id = bench.create("desk1")
    bench.one(SEAL, vm_id)
    known, hypervisor.doubts[vm_id] = hypervisor.seen[vm_id], "that it was started cold since its cut is not proven"
    bench.pve.firewall_config("vm", vmid=int(vm_id))["options"]["enable"] = 0
    with bench.cluster.counted() as calls:
        hypervisor.read([vm_id], FINDING)
    assert hypervisor.seen[vm_id] is known
    assert hypervisor.layers[vm_id] == ()
    assert hypervisor.remarks(vm_id) == ("that it was started cold since its cut is not proven",)
    assert not any("rules" in call for call in calls)
