# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Proxmox VE backend's place in the conformance suite: VMs on the test cluster."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._argspec import PROXMOX
from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect
from ansible_collections.vmward.remediation.plugins.module_utils._plan import Outcome, UseCase
from ansible_collections.vmward.remediation.plugins.module_utils._proxmox.api import ProxmoxHypervisor
from ansible_collections.vmward.remediation.tests.conformance.benches import Bench, mac
from ansible_collections.vmward.remediation.tests.pve.fixture import SECRET, Cluster

BASE = "9000/base-9000-disk-0.qcow2"
SIZE = 16 * 1024 * 1024
PATIENCE = 1.0  # seconds that a test waits for a lock at most
HELD = 600.0  # seconds for which an answer is held back: until it is let go of


class ProxmoxBench(Bench):
    """VMs on a cluster in this process. The base image is a volume of a template."""

    def __init__(self, directory: Path, cluster: Cluster | None = None) -> None:
        self.cluster = cluster or Cluster(directory)
        self.pve = self.cluster.pve
        self.pve.storages["local"].setdefault("volumes", {})[BASE] = volume(9000)
        self.entry = {"proxmox": self.cluster.entry}
        self.hypervisor = self.connect()
        self.numbers: dict[str, dict[int, str]] = {}
        self.made = 0  # VMs

    def connect(self) -> ProxmoxHypervisor:
        defaults = {key: option.get("default") for key, option in PROXMOX.items()}
        made = ProxmoxHypervisor("hv1", {**defaults, **self.cluster.entry})
        made.patience = PATIENCE
        return made

    def do(self, usecase: UseCase, *vm_ids: str, check: bool = False, deadline: float = 60) -> list[Outcome]:
        """The verb; nothing that a user could see of it holds the secret."""
        outcomes = super().do(usecase, *vm_ids, check=check, deadline=deadline)
        assert SECRET not in str([asdict(outcome) for outcome in outcomes])
        return outcomes

    def stop(self) -> None:
        self.hypervisor.close()
        self.cluster.stop()

    def create(
        self, name: str, nics: Sequence[str] = ("tap",), running: bool = True, persistent: bool = True,
        node: str = "pve1",
    ) -> str:  # fmt: skip
        if not persistent:
            pytest.skip("Proxmox VE has no transient VMs")
        vmid = 100 + max((vm.vmid - 99 for vm in self.pve.vms), default=0)
        disk = f"{vmid}/vm-{vmid}-disk-0.qcow2"
        self.pve.storages["local"]["volumes"][f"{BASE}/{disk}"] = volume(vmid)
        config = {
            "memory": "8", "agent": "1", "scsi0": f"local:{BASE}/{disk},size=16M", **self.marks(),
            **{self.key(n, kind): card(n, kind) for n, kind in enumerate(nics)},
        }  # fmt: skip
        vm = self.pve.add_vm(vmid, name, node=node, config=config)
        vm.acpi = False
        if running:
            self.pve.boot(vm)
        return str(vmid)

    def marks(self) -> dict[str, str]:
        """What Proxmox VE gives a VM that is made."""
        self.made += 1
        return {"smbios1": f"uuid={uuid.uuid4()}", "meta": f"creation-qemu=9.2.0,ctime={1795302286 + self.made}"}

    @staticmethod
    def key(number: int, kind: str) -> str:
        return f"hostpci{number}" if kind == "uncuttable" else f"net{number}"

    def nic_id(self, number: int, kind: str = "tap") -> str:
        return self.key(number, kind)

    def tag(self, vm_id: str, name: str) -> None:
        config = self.pve.vm(int(vm_id)).config
        config["tags"] = ";".join(filter(None, [config.get("tags", ""), name]))

    def answers(self, vm_id: str) -> None:
        self.pve.vm(int(vm_id)).agent = {}

    def plug(self, vm_id: str, mac: str) -> None:
        """A NIC that is hot-plugged stays: Proxmox VE knows no other."""
        self.pve.vm(int(vm_id)).config["net7"] = f"virtio={mac.upper()},bridge=vmbr0,firewall=1"

    def reboot(self, vm_id: str) -> None:
        """A guest's own restart changes nothing that the API tells."""

    def vanish(self, vm_id: str) -> None:
        self.pve.vms.remove(self.pve.vm(int(vm_id)))

    def wiring(self, vm_id: str) -> str:
        vm, firewall = self.pve.vm(int(vm_id)), self.pve.firewall_config("vm", vmid=int(vm_id))
        cards = {key: value for key, value in vm.config.items() if key.startswith("net")}
        return json.dumps([cards, vm.pending, firewall["options"], firewall["rules"]], sort_keys=True)

    def loosen(self, vm_id: str) -> None:
        vm = self.pve.vm(int(vm_id))
        for key in [key for key in vm.config if key.startswith("net")]:
            vm.config[key] = vm.config[key].replace(",link_down=1", "")

    def log_in(self) -> None:
        log_in = {"token_id": None, "token_secret": None, "user": "root@pam", "password": "secret"}
        self.hypervisor = connect("hv1", {"proxmox": {**self.cluster.entry, **log_in}})
        self.hypervisor.refs()

    def expire(self) -> None:
        self.pve.revoke_tickets()

    def lose(self) -> None:
        self.cluster.restart()

    def slow(self, vm_id: str, seconds: int) -> bool:
        self.pve.time_scale, self.pve.delays = 1.0, {f"qmpause {vm_id}": float(seconds)}
        return True

    def hurt(self, vm_id: str) -> None:
        self.pve.fail("PUT", f"/qemu/{vm_id}/config", 500, "The lock is held")

    def hold_note(self, vm_id: str) -> None:
        self.pve.hang[f"POST /api2/json/nodes/pve1/qemu/{vm_id}/firewall/ipset"] = HELD

    def mend(self) -> None:
        self.pve.failures.clear()
        self.pve.hang.clear()
        self.pve.delays = {}

    def obey(self, vm_id: str) -> None:
        self.pve.vm(int(vm_id)).acpi = True

    def content(self, path: str) -> str:
        storage, _colon, name = path.partition(":")
        return "there" if name in self.pve.storages[storage]["volumes"] else "gone"


def volume(vmid: int) -> dict[str, object]:
    return {"content": "images", "format": "qcow2", "size": SIZE, "used": 196608, "ctime": 1795302286, "vmid": vmid}


def card(number: int, kind: str) -> str:
    address = mac(number).upper()
    return {
        "tap": f"virtio={address},bridge=vmbr0,firewall=1",
        "tap-down": f"virtio={address},bridge=vmbr0,firewall=1,link_down=1",
        "link-only": f"virtio={address}",
        "uncuttable": "0000:01:00.0",
    }[kind]
