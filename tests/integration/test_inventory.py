# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin as ansible-inventory runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation
from ansible_collections.vmward.remediation.tests.conformance.benches import FakeBench
from ansible_collections.vmward.remediation.tests.conformance.vsphere import VsphereBench
from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench
from ansible_collections.vmward.remediation.tests.pve.fixture import SECRET
from ansible_collections.vmward.remediation.tests.vcsim.server import PASSWORD

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build/collections"),
}
EVIL = "{{ lookup('pipe', 'touch /tmp/vmward-owned') }}"


@pytest.fixture
def two(tmp_path: Path) -> dict[str, FakeBench]:
    made = {}
    for name in ("kvm1", "kvm2"):
        (tmp_path / name).mkdir()
        made[name] = FakeBench(tmp_path / name)
    return made


def run(tmp_path: Path, two: dict[str, FakeBench], **options: Any) -> subprocess.CompletedProcess[str]:
    source = tmp_path / "vmward.yml"
    hypervisors = {name: {"fake": dict(bench.entry["fake"], data_host=name)} for name, bench in two.items()}  # type: ignore[call-overload]
    told = {"plugin": "vmward.remediation.vms", "hypervisors": hypervisors, **options}
    source.write_text(json.dumps(told))
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(source), "--list"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **SETTINGS},
    )


def listed(tmp_path: Path, two: dict[str, FakeBench], **options: Any) -> Any:
    told = run(tmp_path, two, **options)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout, object_hook=lambda value: value.get("__ansible_unsafe", value))


def test_every_vm_is_a_host_in_its_groups(tmp_path: Path, two: dict[str, FakeBench]) -> None:
    sealed, off = two["kvm1"].create("desk1"), two["kvm2"].create("desk2", running=False)
    two["kvm1"].one(SetIsolation(Isolation.SEALED, "2026-1"), sealed)
    with two["kvm2"].state.change() as state:
        state["vms"][off]["tags"] = ["pci dss"]
    told = listed(tmp_path, two, keyed_groups=[{"key": "vmward_networks", "prefix": "net"}])
    groups = {name: group["hosts"] for name, group in told.items() if "hosts" in group}
    assert groups == {
        "hypervisor_kvm1": ["desk1"],
        "hypervisor_kvm2": ["desk2"],
        "power_running": ["desk1"],
        "power_stopped": ["desk2"],
        "isolation_sealed": ["desk1"],
        "isolation_free": ["desk2"],
        "tag_pci_dss": ["desk2"],
        "net_lan": ["desk1", "desk2"],
    }
    assert told["_meta"]["hostvars"]["desk1"] == {
        "vmward_name": "desk1",
        "vmward_id": sealed,
        "vmward_hypervisor": "kvm1",
        "vmward_data_host": "kvm1",
        "vmward_power": "running",
        "vmward_isolation": "sealed",
        "vmward_case": "2026-1",
        "vmward_addresses": ["192.0.2.10"],
        "vmward_macs": ["52:54:00:00:02:00"],
        "vmward_networks": ["lan"],
        "vmward_tags": [],
        "vmward_problem": "",
    }


def test_a_hostile_name_becomes_the_id_and_is_never_evaluated(tmp_path: Path, two: dict[str, FakeBench]) -> None:
    vm_id = two["kvm1"].create(EVIL)
    told = listed(tmp_path, two, compose={"shown": "vmward_name | length"})
    assert told["hypervisor_kvm1"]["hosts"] == [vm_id]
    assert int(told["_meta"]["hostvars"][vm_id]["shown"]) == len(EVIL)
    assert not Path("/tmp/vmward-owned").exists()


def test_twins_get_their_hypervisors_name(tmp_path: Path, two: dict[str, FakeBench]) -> None:
    for bench in two.values():
        bench.create("desk1")
    told = listed(tmp_path, two)
    assert set(told["_meta"]["hostvars"]) == {"desk1_kvm1", "desk1_kvm2"}


def test_a_hypervisor_that_cannot_be_listed_is_an_error_unless_told(tmp_path: Path, two: dict[str, FakeBench]) -> None:
    two["kvm1"].create("desk1")
    os.unlink(two["kvm2"].state.path)
    failed = run(tmp_path, two)
    assert failed.returncode != 0
    assert "Cannot read the simulated hypervisor's state" in failed.stderr
    told = run(tmp_path, two, strict_hypervisors=False)
    assert told.returncode == 0
    assert "The VMs of kvm2 are unknown" in told.stderr
    assert set(json.loads(told.stdout)["_meta"]["hostvars"]) == {"desk1"}


def test_a_variable_that_an_inventory_cannot_know_is_told_with_the_way_out(
    tmp_path: Path, two: dict[str, FakeBench]
) -> None:
    unknown = {"vc1": {"vsphere": {"hostname": "vc1", "username": "ir", "password": "{{ vault_vc1 }}"}}}
    told = " ".join(run(tmp_path, two, hypervisors=unknown).stderr.split())
    assert "'vault_vc1' is undefined" in told
    assert "An inventory is read before group_vars" in told


def test_a_secret_may_come_from_a_vault_file(tmp_path: Path, two: dict[str, FakeBench]) -> None:
    """The lookup that docs/inventory.md gives opens it."""
    two["kvm1"].create("desk1")
    word, vault = tmp_path / "word", tmp_path / "vault.yml"
    word.write_text("a word")
    vault.write_text(f"vault_path: {two['kvm1'].entry['fake']['path']}\n")  # type: ignore[index]
    crypt = [str(Path(sys.executable).with_name("ansible-vault")), "encrypt", "--vault-password-file", str(word)]
    subprocess.run([*crypt, str(vault)], check=True, capture_output=True, env={**os.environ, **SETTINGS})
    path = f"{{{{ (lookup('ansible.builtin.file', '{vault}') | from_yaml).vault_path }}}}"
    source = tmp_path / "vmward.yml"
    hypervisors = {"kvm1": {"fake": {"path": path}}}
    source.write_text(json.dumps({"plugin": "vmward.remediation.vms", "hypervisors": hypervisors}))
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(source), "--graph"]
    command += ["--vault-password-file", str(word)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **SETTINGS})
    assert "desk1" in told.stdout, told.stderr


def test_a_vm_that_cannot_be_judged_is_listed_as_unknown(tmp_path: Path, two: dict[str, FakeBench]) -> None:
    vm_id = two["kvm1"].create("desk1")
    with two["kvm1"].state.change() as state:
        state["vms"][vm_id]["nics"][0]["kind"] = "quantum"
    told = listed(tmp_path, two)
    assert told["isolation_unknown"]["hosts"] == ["desk1"]
    assert "quantum" in told["_meta"]["hostvars"]["desk1"]["vmward_problem"]


def test_the_cache_is_used_when_it_is_on(tmp_path: Path, two: dict[str, FakeBench]) -> None:
    two["kvm1"].create("desk1")
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    assert set(listed(tmp_path, two, **cache)["_meta"]["hostvars"]) == {"desk1"}
    two["kvm1"].create("desk2")
    assert set(listed(tmp_path, two, **cache)["_meta"]["hostvars"]) == {"desk1"}
    assert set(listed(tmp_path, two)["_meta"]["hostvars"]) == {"desk1", "desk2"}


def test_hypervisors_of_every_kind_are_listed_at_once(
    tmp_path: Path, two: dict[str, FakeBench], vsphere: VsphereBench, proxmox: ProxmoxBench
) -> None:
    two["kvm1"].create("desk1")
    sealed = vsphere.create("app1")
    vsphere.one(SetIsolation(Isolation.SEALED, "2026-1"), sealed)
    vm_id = proxmox.create("web1")
    proxmox.pve.vm(int(vm_id)).config.update(tags="dmz", ipconfig0="ip=192.0.2.77/24")
    proxmox.one(SetIsolation(Isolation.SEALED, "2026-1"), vm_id)
    proxmox.create("golden", running=False)
    proxmox.pve.vms[-1].template = True
    hypervisors = {
        "kvm1": two["kvm1"].entry,
        "kvm2": {"libvirt": {"uri": "test:///default"}},  # libvirt's own, with one VM named test; it needs no root
        "vc1": {"vsphere": without(vsphere.server.entry["vsphere"], "password")},
        "pve": {"proxmox": without(proxmox.cluster.entry, "token_secret")},
    }
    source = tmp_path / "all.vmward.yml"
    source.write_text(json.dumps({"plugin": "vmward.remediation.vms", "hypervisors": hypervisors}))
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(source), "--list"]
    secrets = {"VMWARD_PROXMOX_TOKEN_SECRET": SECRET, "VMWARD_VSPHERE_PASSWORD": PASSWORD}
    told = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **SETTINGS, **secrets}
    )
    assert told.returncode == 0, told.stderr
    for secret in (SECRET, PASSWORD, json.dumps(PASSWORD)[1:-1]):
        assert secret not in told.stdout + told.stderr
    groups = json.loads(told.stdout, object_hook=lambda value: value.get("__ansible_unsafe", value))
    assert {name: groups[f"hypervisor_{name}"]["hosts"] for name in hypervisors} == {
        "kvm1": ["desk1"],
        "kvm2": ["test"],
        "vc1": ["app1"],
        "pve": ["web1", "golden"],
    }
    assert groups["isolation_sealed"]["hosts"] == ["app1", "web1"]
    assert groups["tag_dmz"]["hosts"] == ["web1"]
    hosts = groups["_meta"]["hostvars"]
    assert hosts["web1"]["vmward_addresses"] == ["192.0.2.77"]
    assert (hosts["test"]["vmward_power"], hosts["test"]["vmward_isolation"]) == ("running", "free")
    assert (hosts["app1"]["vmward_id"], hosts["app1"]["vmward_case"]) == (sealed, "2026-1")
    assert "is a template" in hosts["golden"]["vmward_problem"]


def without(entry: dict[str, Any], secret: str) -> dict[str, Any]:
    """An entry whose secret comes from the environment."""
    return {key: value for key, value in entry.items() if key != secret}
