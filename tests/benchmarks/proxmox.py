# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a batch on Proxmox VE cost? isolate, snapshot, revert and power-off of 50 VMs whose tasks last 2 s.

Side by side in one run: ours; a bare concurrent client that looks first, keeps an undo and reads back, as ours does;
``community.proxmox`` in a loop and with one inventory host per VM and 10 forks, both on a few VMs and scaled. Then time
and memory of one task on 10, 100 and 1000 VMs. The cluster is the tests' own. Writes build/bench/proxmox.json.
Arguments: number of VMs, of VMs in the loop, and of VMs on the forks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "build/collections"))

from ansible_collections.vmward.remediation.tests.pve.fixture import SECRET, TOKEN, Cluster  # noqa: E402

PEERS = "ansible==12.3.0"  # brings community.proxmox, for the same ansible-core as ours
TASK = 2.0  # seconds that each of PVE's tasks lasts
GOALS = {"floor": 1.5, "loop": 20.0, "forks": 5.0}
SIZES = (10, 100, 1000)
ROUNDS = 3  # of the short measurements; the best counts, since the machine may do other things
KINDS = {"qmsnapshot": TASK, "qmrollback": TASK, "qmstop": TASK}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "isolate": ("vm_isolation", {"state": "sealed", "case": "bench"}),
    "snapshot": ("vm_snapshot", {"name": "bench"}),
    "revert": ("vm_snapshot_revert", {"snapshot": "bench", "discard": True}),
    "power_off": ("vm_power", {"state": "stopped", "force": True, "grace": 0}),
}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "isolate": ("proxmox_nic", {"interface": "net0", "model": "virtio", "bridge": "vmbr0", "link_down": True}),
    "snapshot": ("proxmox_snap", {"state": "present", "snapname": "bench", "timeout": 60}),
    "revert": ("proxmox_snap", {"state": "rollback", "snapname": "bench", "timeout": 60}),
    "power_off": ("proxmox_kvm", {"state": "stopped", "force": True, "timeout": 60}),
}


class Rig:
    """A fresh cluster for each measurement, and the two environments that are compared."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.number = directory, 0
        self.peers = peers_environment()

    def cluster(self, count: int, operation: str) -> Cluster:
        """VMs in the state that the operation begins with: on; for a revert, off and with a snapshot."""
        self.number += 1
        place = self.directory / str(self.number)
        place.mkdir()
        made = Cluster(place)
        for number in range(count):
            net = f"virtio=BC:24:11:00:{number // 256:02X}:{number % 256:02X},bridge=vmbr0,firewall=1"
            disk = f"local:{100 + number}/vm-{100 + number}-disk-0.qcow2,size=1G"
            vm = made.pve.add_vm(100 + number, f"desk{number}", config={"net0": net, "scsi0": disk, "memory": "512"})
            if operation == "revert":
                vm.snapshots["bench"] = {**vm.config, "snaptime": 1795302283}
            else:
                made.pve.boot(vm)
        made.pve.time_scale, made.pve.delays = 1.0, dict(KINDS)
        return made

    def ours(self, operation: str, count: int) -> tuple[float, int]:
        """Seconds, and the most memory in MiB that one of the processes had."""
        verb, options = OURS[operation]
        cluster = self.cluster(count, operation)
        told = {"hypervisors": {"pve": {"proxmox": cluster.entry}}, "vms": names(count), **options}
        environment = {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build/collections"),
        }
        return self.timed(cluster, sys.executable, [{f"vmward.remediation.{verb}": told}], environment)

    def empty(self) -> float:
        cluster = self.cluster(0, "isolate")
        return self.timed(cluster, sys.executable, [{"ansible.builtin.ping": {}}], {})[0]

    def bare(self, operation: str, count: int) -> float:
        cluster = self.cluster(count, operation)
        pve = cluster.pve
        command = [sys.executable, str(ROOT / "tests/benchmarks/reference/bare_pve.py"), operation, pve.host]
        command += [str(pve.port), str(cluster.ca_path), TOKEN, SECRET, *(str(100 + n) for n in range(count))]
        return waited(cluster, command, {})[0]

    def theirs(self, operation: str, count: int, forks: int) -> float:
        verb, options = THEIRS[operation]
        cluster = self.cluster(count, operation)
        user, name = TOKEN.split("!")
        log_in = {"api_host": cluster.pve.host, "api_port": cluster.pve.port, "api_user": user, "api_token_id": name}
        told = {**log_in, "api_token_secret": SECRET, "validate_certs": False, **options}
        if verb != "proxmox_kvm":
            told["vmid"] = "{{ number }}"
        else:
            told.update(vmid="{{ number }}", node="pve1")
        task: dict[str, Any] = {f"community.proxmox.{verb}": told}
        hosts = None
        if forks == 1:
            task.update(loop=[100 + n for n in range(count)], loop_control={"loop_var": "number"})
        else:
            hosts = {f"desk{n}": {"number": 100 + n} for n in range(count)}
        return self.timed(cluster, str(self.peers / "bin/python"), [task], {}, hosts, forks)[0]

    def timed(
        self, cluster: Cluster, python: str, tasks: list[dict[str, Any]], environment: dict[str, str],
        hosts: dict[str, Any] | None = None, forks: int = 5,
    ) -> tuple[float, int]:  # fmt: skip
        playbook, inventory = (self.directory / f"{self.number}.{kind}" for kind in ("yml", "json"))
        playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        local = {"ansible_connection": "local", "ansible_python_interpreter": python}
        inventory.write_text(json.dumps({"all": {"hosts": hosts or {"localhost": {}}, "vars": local}}))
        command = [
            str(Path(python).with_name("ansible-playbook")),
            "-i",
            str(inventory),
            "-f",
            str(forks),
            str(playbook),
        ]
        return waited(cluster, command, environment)


def waited(cluster: Cluster, command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Run to the end; seconds and MiB. A command that fails measures nothing."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
        _pid, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        cluster.stop()
        if status:
            output.seek(0)
            raise SystemExit(f"Cannot measure: {command[0]} ended with {status}.\n{output.read().decode()[-3000:]}")
    return seconds, usage.ru_maxrss // 1024


def names(count: int) -> list[str]:
    return [f"desk{number}" for number in range(count)]


def peers_environment() -> Path:
    """community.proxmox in an environment of its own, made once under build/."""
    place = ROOT / "build/bench/peers-proxmox"
    if not (place / "ready").exists():
        print(f"Making {place} with {PEERS}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        subprocess.run([str(place / "bin/pip"), "install", "-q", PEERS, "proxmoxer", "requests"], check=True)
        (place / "ready").touch()
    return place


def measure(rig: Rig, operation: str, count: int, looped: int, forked: int) -> dict[str, float]:
    """Seconds of each, the peers' scaled."""
    empty = [rig.empty() for _round in range(ROUNDS)]
    ours = [rig.ours(operation, count)[0] for _round in range(ROUNDS)]
    bare = [rig.bare(operation, count) for _round in range(ROUNDS)]
    loop, forks = rig.theirs(operation, looped, 1), rig.theirs(operation, forked, 10)
    return {"ours": min(ours), "empty": min(empty), "bare": min(bare), "loop": loop, "forks": forks}


def compared(seconds: dict[str, float], empty: float, count: int, looped: int, forked: int) -> dict[str, float]:
    """The ratios. The empty task is the shortest of the whole run: a longer one would flatter ours."""
    mine = max(seconds["ours"] - empty, 0.01)
    loop, forks = ((seconds[key] - empty) * count / of for key, of in (("loop", looped), ("forks", forked)))
    return {
        "ours": round(seconds["ours"], 2), "empty": round(empty, 2), "bare": round(seconds["bare"], 2),
        "loop_scaled": round(loop, 2), "forks_scaled": round(forks, 2), "floor": round(mine / seconds["bare"], 2),
        "loop": round(loop / mine, 1), "forks": round(forks / mine, 1),
    }  # fmt: skip


def main(count: int = 50, looped: int = 5, forked: int = 20) -> int:
    """Measure, print a table, write the figures."""
    growth: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        rig = Rig(Path(directory))
        seconds = {operation: measure(rig, operation, count, looped, forked) for operation in OURS}
        for size in (size for size in SIZES if size <= 20 * count):
            took, memory = rig.ours("isolate", size)
            growth[str(size)] = {"seconds": round(took, 2), "memory_mib": memory}
    empty = min(one["empty"] for one in seconds.values())
    figures = {operation: compared(one, empty, count, looped, forked) for operation, one in seconds.items()}
    print(f"{count} VMs, tasks of {TASK:g} s; goals: floor <= 1.5, loop >= 20, forks >= 5 (without one empty task)")
    for operation, one in figures.items():
        print(f"{operation:>10}  " + "  ".join(f"{key} {value:g}" for key, value in one.items()))
    for named, one in growth.items():
        print(f"isolate {named:>5} VMs: {one['seconds']:g} s, at most {one['memory_mib']:g} MiB in one process")
    target = ROOT / "build/bench/proxmox.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    ratios = {f"{operation}_{key}": one[key] for operation, one in figures.items() for key in GOALS}
    target.write_text(json.dumps({"ratios": ratios, "figures": figures, "growth": growth}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*(int(one) for one in sys.argv[1:])))
