# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logging in and privileges: what is wrong is told before anything is touched, and no secret is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import urllib3

from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect
from ansible_collections.vmward.remediation.plugins.module_utils._errors import (
    VmwardError,
)
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation
from ansible_collections.vmward.remediation.plugins.module_utils._plan import UseCase, execute
from ansible_collections.vmward.remediation.plugins.module_utils._proxmox import connection, session
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.disks import Delete
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.info import Info
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.power import SetPower
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.snapshot import Revert
from ansible_collections.vmward.remediation.tests.integration.test_modules_control import SETTINGS
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench
from ansible_collections.vmward.remediation.tests.pve.fixture import SECRET, Cluster, make_certificates
from ansible_collections.vmward.remediation.tests.pve.verbs import OFF, SEAL, WAIVED, take

PERSON = {"token_id": None, "token_secret": None, "user": "root@pam", "password": "secret"}
PAUSED = SetPower("paused", False, 0, {})


def refused(entry: dict[str, Any], **change: Any) -> str:
    with pytest.raises(VmwardError) as raised:
        connect("pve", {"proxmox": {**entry, **change}})
    assert SECRET not in str(raised.value)
    assert "hunter2" not in str(raised.value)
    return f"{type(raised.value).__name__}: {raised.value}"


# Logging in


def test_a_ca_that_did_not_sign_it(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")[0]
    sentence = refused(cluster.entry, ca_path=str(other))
    assert sentence.startswith("AuthFailed: Cannot log in on pve: the certificate of 127.0.0.1 cannot be trusted")
    assert "Set ca_path" in sentence


@pytest.mark.parametrize(
    ("certificates", "part"),
    [({"address": "192.0.2.1"}, "IP address mismatch"), ({"days": -1}, "certificate has expired")],
)
def test_a_certificate_of_another_host_or_of_yesterday(tmp_path: Path, certificates: dict[str, Any], part: str) -> None:
    cluster = Cluster(tmp_path, certificates)
    sentence = refused(cluster.entry)
    cluster.stop()
    assert "AuthFailed: Cannot log in on pve: the certificate of 127.0.0.1 cannot be trusted" in sentence
    assert part in sentence


def test_a_ca_file_that_is_none(cluster: Cluster, tmp_path: Path) -> None:
    assert "cannot be read here. Copy the cluster's CA" in refused(cluster.entry, ca_path=str(tmp_path / "missing.pem"))
    (tmp_path / "empty.pem").write_text("not a certificate")
    sentence = refused(cluster.entry, ca_path=str(tmp_path / "empty.pem"))
    assert sentence.startswith("AuthFailed: Cannot log in on pve: the certificate of 127.0.0.1 cannot be trusted")


def test_without_a_ca_the_systems_own_decide(cluster: Cluster) -> None:
    assert "cannot be trusted" in refused({key: v for key, v in cluster.entry.items() if key != "ca_path"})


def test_checking_off_works_and_warns(bench: ProxmoxBench) -> None:
    vm_id = bench.create("desk1")
    made = connect("hv1", {"proxmox": {**bench.cluster.entry, "validate_certs": False, "ca_path": None}})
    bench.hypervisor = made
    assert "the certificate of hv1 is not checked (validate_certs: false)" in bench.one(Info(), vm_id).warnings


def test_a_token_that_is_refused(cluster: Cluster) -> None:
    sentence = refused(cluster.entry, token_secret="hunter2")
    assert sentence.startswith("AuthFailed: Cannot log in on pve: authentication failure")
    assert "The token ir@pve!contain was refused" in sentence


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"token_id": "ir@pve"}, "user@realm!name"),
        ({"token_secret": None}, "user@realm!name"),
        ({"token_id": None}, "neither token_id and token_secret nor user and password"),
    ],
)
def test_half_a_log_in(cluster: Cluster, change: dict[str, Any], part: str) -> None:
    assert part in refused(cluster.entry, **change)


@pytest.mark.parametrize("option", ["token_secret", "password", "token_id", "user"])
@pytest.mark.parametrize("spoilt", ["{}\n", " {}", "{}\t", "{}\x7f", "{0}\r\n{0}"], ids=repr)
def test_a_log_in_with_a_line_end_is_refused_without_showing_it(cluster: Cluster, option: str, spoilt: str) -> None:
    """An HTTP header that holds one is refused by the client, which quotes the whole header."""
    entry = cluster.entry if option.startswith("token") else {**cluster.entry, **PERSON, "password": "hunter2"}
    sentence = refused(entry, **{option: spoilt.format(entry[option])})
    assert sentence.startswith(f"AuthFailed: Cannot log in to pve: {option} begins or ends with white space")
    assert cluster.pve.requests == []


@pytest.mark.parametrize("option", ["token_secret", "token_id"])
def test_a_token_that_was_copied_with_a_character_that_none_has(cluster: Cluster, option: str) -> None:
    """It fits in no HTTP header; that is no fault of the server or of the way to it."""
    sentence = refused(cluster.entry, **{option: cluster.entry[option] + "\u200b"})
    assert "token_id or token_secret holds a character that no token has" in sentence
    assert cluster.pve.requests == []


@pytest.mark.parametrize("kind", [ValueError, UnicodeError])
def test_an_error_that_quotes_a_header_is_told_without_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, kind: type[ValueError]
) -> None:
    def quoting(*_args: Any, **_named: Any) -> None:
        raise kind(f"Invalid header value b'PVEAPIToken={SECRET}'")

    monkeypatch.setattr(urllib3.HTTPSConnectionPool, "urlopen", quoting)
    assert f"the connection to 127.0.0.1 failed ({kind.__name__})" in refused(cluster.entry)


def test_a_ticket_instead_of_a_token(cluster: Cluster) -> None:
    entry = {**cluster.entry, **PERSON}
    cluster.pve.add_vm(100, "desk1")
    hypervisor = connect("pve", {"proxmox": entry})
    cluster.pve.revoke_tickets()  # expired in the middle: renewed once
    assert [ref.name for ref in hypervisor.refs()] == ["desk1"]
    assert "refused root@pam" in refused(entry, password="hunter2")


def test_a_log_in_is_not_sent_on(cluster: Cluster) -> None:
    """A redirect would carry the password elsewhere."""
    cluster.pve.elsewhere.add("/access/ticket")
    assert "it answers HTTP 307 and points elsewhere" in refused(cluster.entry, **PERSON)
    assert not any(path.endswith("/elsewhere") for _method, path, _body in cluster.pve.requests)


def test_a_log_in_goes_by_no_proxy_of_the_environment(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    connect("pve", {"proxmox": {**cluster.entry, **PERSON}}).refs()


def test_a_ticket_is_renewed_before_it_ends(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    hypervisor = connect("pve", {"proxmox": {**cluster.entry, **PERSON}})
    with cluster.counted() as calls:
        hypervisor.refs()
        assert calls["POST /access/ticket"] == 0
        monkeypatch.setattr(session, "RENEWED", -1.0)
        hypervisor.link.api._store["session"].ends = 0.0  # type: ignore[attr-defined]
        hypervisor.refs()
    assert calls["POST /access/ticket"] >= 2


@pytest.mark.parametrize(
    ("status", "html", "part"),
    [(595, False, "it answers HTTP 595 to the log-in"), (200, True, "its answer to the log-in is not Proxmox VE's")],
)
def test_a_log_in_that_meets_no_proxmox_ve_is_not_called_refused(
    cluster: Cluster, status: int, html: bool, part: str
) -> None:
    cluster.pve.fail("POST", "/access/ticket", status, "<html>Log in</html>", html=html)
    sentence = refused(cluster.entry, **PERSON)
    assert part in sentence
    assert "NoAnswer: Cannot log in on pve" in sentence


def test_a_host_that_is_not_there(cluster: Cluster, quick: None) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        sentence = refused(cluster.entry, port=closed.getsockname()[1])
    assert "Cannot log in on pve: the connection to 127.0.0.1 failed" in sentence


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_cannot_be_reached_is_given_up(cluster: Cluster, quick: None, host: str) -> None:
    sentence = refused(cluster.entry, host=host)
    assert sentence.startswith("NoAnswer: Cannot log in on pve:")
    assert host in sentence


def test_a_host_that_takes_connections_and_says_nothing(cluster: Cluster, quick: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sentence = refused(cluster.entry, port=silent.getsockname()[1])
    assert sentence.startswith(("NoAnswer", "AuthFailed"))


def test_the_missing_library_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IMPORT_ERROR", ImportError("No module named 'proxmoxer'"))
    assert "Install proxmoxer and requests" in refused(cluster.entry)


def test_no_secret_reaches_the_output_of_a_module(cluster: Cluster, tmp_path: Path) -> None:
    """At the highest verbosity, with a log-in that fails and one that works."""
    cluster.pve.add_vm(100, "desk1")
    task = {"vmward.remediation.vm_info": {"hypervisors": {"pve": {"proxmox": cluster.entry}}, "vms": ["desk1"]}}
    wrong = {**cluster.entry, "token_secret": "hunter2-hunter2"}
    bad = {"vmward.remediation.vm_info": {"hypervisors": {"pve": {"proxmox": wrong}}, "vms": ["desk1"]}}
    for one, failed in ((task, False), (bad, True)):
        ended = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-vvvv", "-i", "localhost,", "-c", "local",
             str(playbook(tmp_path, one))],
            capture_output=True, text=True, check=False, env={**os.environ, **SETTINGS},
        )  # fmt: skip
        output = ended.stdout + ended.stderr
        assert bool(ended.returncode) is failed, output
        assert SECRET not in output
        assert "hunter2" not in output
        assert "refused: its secret is wrong, or it has expired or was removed" in output or not failed


def playbook(directory: Path, task: dict[str, Any]) -> Path:
    path = directory / "play.json"
    header = {"hosts": "localhost", "gather_facts": False, "vars": {"ansible_python_interpreter": sys.executable}}
    path.write_text(json.dumps([{**header, "tasks": [task]}]))
    return path


# Privileges


@pytest.fixture
def poor(bench: ProxmoxBench) -> ProxmoxBench:
    """A token that may look at everything and cut nothing."""
    bench.pve.grant("ir@pve", "/vms", "VM.Audit")
    bench.pve.grant("ir@pve", "/sdn", "SDN.Use")
    bench.hypervisor = bench.connect()
    return bench


def test_a_missing_privilege_is_named_before_anything_is_touched(poor: ProxmoxBench) -> None:
    vm_id = poor.create("desk1")
    before = poor.wiring(vm_id)
    (outcome,) = poor.do(SEAL, vm_id)
    assert "ir@pve!contain lacks VM.Config.Network on /vms/100. Nothing was touched." in outcome.msg
    (outcome,) = poor.do(take("clean"), vm_id)
    assert "lacks VM.Snapshot on /vms/100" in outcome.msg
    (outcome,) = poor.do(OFF, vm_id)
    assert "lacks VM.PowerMgmt on /vms/100" in outcome.msg
    assert poor.wiring(vm_id) == before
    assert [m for m, _path, _body in poor.pve.requests if m != "GET"] == []


@pytest.mark.parametrize(
    ("verb", "running", "what", "lacking"),
    [
        (Revert("clean", False, True, {}), True, "revert to clean", "VM.Snapshot.Rollback or VM.Snapshot on /vms/100"),
        (Delete(True, {}), False, "delete", "VM.Allocate on /vms/100"),
        (PAUSED, False, "start paused", "VM.Config.Network or VM.Config.Options on /vms/100, VM.PowerMgmt on /vms/100"),
        (PAUSED, True, "pause", "VM.PowerMgmt on /vms/100"),
    ],
    ids=["revert", "delete", "start paused", "pause"],
)
def test_what_else_is_missing_is_named_too(
    poor: ProxmoxBench, verb: UseCase, running: bool, what: str, lacking: str
) -> None:
    vm_id = poor.create("desk1", running=running)
    poor.pve.vm(int(vm_id)).snapshots["clean"] = {**poor.pve.vm(int(vm_id)).config, "snaptime": 1795302283}
    (planned,) = execute(poor.hypervisor, verb, [(vm_id, vm_id)], 60, check=True)
    (outcome,) = poor.do(verb, vm_id)
    assert (planned.msg, planned.failed) == (outcome.msg, True)  # check mode tells it too
    start = f"Cannot {what} desk1 (100) on hv1: ir@pve!contain lacks {lacking}. Nothing was touched. Give it what it"
    assert outcome.msg.startswith(start)
    assert [m for m, _path, _body in poor.pve.requests if m != "GET"] == []


def test_a_bridge_that_may_not_be_used_is_named_before_anything_is_touched(bench: ProxmoxBench) -> None:
    bench.pve.grant("ir@pve", "/vms", "VM.Audit", "VM.Config.Network")
    bench.hypervisor = bench.connect()
    (outcome,) = bench.do(SEAL, bench.create("desk1"))
    assert "lacks SDN.Use on /sdn/zones/localnetwork/vmbr0" in outcome.msg


@pytest.mark.parametrize("cards", ["tag=20", "trunks=20;30", "tag=20,trunks=30"])
@pytest.mark.parametrize("held", [["20", "30"], ["20"], []], ids=["both", "one", "none"])
def test_a_card_with_vlans_needs_the_right_on_each_and_none_on_its_bridge(
    bench: ProxmoxBench, cards: str, held: list[str]
) -> None:
    bench.pve.grant("ir@pve", "/vms", "VM.Audit", "VM.Config.Network")
    for vlan in held:
        bench.pve.grant("ir@pve", f"/sdn/zones/localnetwork/vmbr0/{vlan}", "SDN.Use")
    vm_id = bench.create("desk1")
    bench.pve.vm(int(vm_id)).config["net0"] += f",{cards}"
    bench.hypervisor = bench.connect()
    before = bench.wiring(vm_id)
    (outcome,) = bench.do(SEAL, vm_id)
    lacking = [vlan for vlan in ("20", "30") if vlan in cards and vlan not in held]
    told = [vlan for vlan in ("20", "30") if f"SDN.Use on /sdn/zones/localnetwork/vmbr0/{vlan}" in outcome.msg]
    assert told == lacking
    assert ("Nothing was touched" in outcome.msg, bench.wiring(vm_id) == before) == (bool(lacking), bool(lacking))
    assert outcome.failed is bool(lacking)


def test_the_least_privileges_are_enough(bench: ProxmoxBench) -> None:
    bench.pve.grant("ir@pve", "/vms", "VM.Audit", "VM.Config.Network", "VM.Snapshot", "VM.Snapshot.Rollback")
    bench.pve.grant("ir@pve", "/vms", "VM.PowerMgmt")
    bench.pve.grant("ir@pve", "/sdn", "SDN.Use")
    bench.hypervisor = bench.connect()
    vm_id = bench.create("desk1")
    bench.one(take("clean"), vm_id)
    sealed = bench.one(SEAL, vm_id)
    (warning,) = sealed.warnings
    assert "its cut rests on its links alone" in warning
    assert "the cluster's firewall switch cannot be read (Sys.Audit on /)" in warning
    assert "pve-firewall is unknown" in warning
    bench.one(Revert("clean", False, True, {vm_id: WAIVED}), vm_id)
    assert bench.vm(vm_id).isolation is Isolation.SEALED
