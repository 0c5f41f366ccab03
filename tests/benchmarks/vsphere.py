# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast are a hundred VMs of a vCenter handled? Against a bare script, and against community.vmware.

The server is the tests' own vCenter with a delay on every call. Each contender works on VMs of its own, so that none
finds another's work done. The floor is a bare pyvmomi script with one session and 32 threads plus one empty Ansible
task; ``loop`` and ``forks`` are community.vmware, one task over its VMs in a loop, and one inventory host for each VM
with ten forks.
Writes build/bench/vsphere.json. Options: --vms, --batch, --loop, --delay, --no-peers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "build/collections"))

from ansible_collections.vmward.remediation.tests.vcsim.server import Vcsim  # noqa: E402

PEERS = "ansible==12.3.0"  # the PyPI package that carries community.vmware, for ansible-core 2.19
PYVMOMI = "pyvmomi==9.1.1.0"
BIN = Path(sys.executable).parent
SETTINGS = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build/collections")}
GOALS = {"floor": 1.5, "loop": 100.0, "forks": 10.0}
INVENTORY_GOALS = {"floor": 1.3, "inventories": 5.0}
ROUNDS = 3  # of short measurements; the best counts, since the machine may do other things
COUNTS = (10, 100, 1000)  # VMs of a batch as it grows
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "isolate": ("vm_isolation", {"state": "sealed", "case": "bench"}),
    "snapshot": ("vm_snapshot", {"name": "bench"}),
    "revert": ("vm_snapshot_revert", {"snapshot": "bench", "discard": True}),
    "power_off": ("vm_power", {"state": "stopped", "force": True, "grace": 0}),
}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "isolate": ("vmware_guest_network", {"state": "present", "connected": False, "start_connected": False}),
    "snapshot": ("vmware_guest_snapshot", {"state": "present", "snapshot_name": "bench"}),
    "revert": ("vmware_guest_snapshot", {"state": "revert", "snapshot_name": "bench"}),
    "power_off": ("vmware_guest_powerstate", {"state": "powered-off", "force": True}),
}
# An inventory that fails must not look quick.
COUNTED = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", "ANSIBLE_INVENTORY_UNPARSED_FAILED": "true"}
INVENTORIES = {"community.vmware.vmware_vm_inventory": "all.vmware.yml", "vmware.vmware.vms": "all.vms.yml"}
SETS = {"isolate": "a", "snapshot": "b", "revert": "b", "power_off": "c"}  # VMs that a verb works on


class Bench:
    """One server, its contenders, and the clock."""

    def __init__(self, server: Vcsim, directory: Path, peers: Path | None) -> None:
        self.server, self.directory, self.peers = server, directory, peers
        self.options = {key: value for key, value in server.entry["vsphere"].items() if key != "forensic_network"}
        self.cpu = 0.0  # seconds of the processor that the last command took

    def clock(self, command: list[str], given: Any = None, **environment: str) -> tuple[float, float]:
        """Seconds of a command, and the MiB of its largest process."""
        began = time.monotonic()
        with tempfile.TemporaryFile() as told:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=told, stderr=told, env={**os.environ, **environment}
            )
            assert process.stdin is not None
            process.stdin.write(json.dumps(given).encode() if given else b"")
            process.stdin.close()
            _pid, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu = usage.ru_utime + usage.ru_stime
            told.seek(0)
            if process.returncode:
                raise SystemExit(told.read()[-4000:].decode() + f"\nCannot measure: {command[:4]} failed.")
        return time.monotonic() - began, usage.ru_maxrss / 1024

    def play(self, task: dict[str, Any], hosts: list[str] | None = None, theirs: bool = False) -> tuple[float, float]:
        header = {"hosts": "all", "connection": "local", "gather_facts": False}
        variables = {"ansible_python_interpreter": str((self.peers or BIN) / "python" if theirs else BIN / "python")}
        playbook = self.directory / "play.yml"
        playbook.write_text(json.dumps([dict(header, vars=variables, tasks=[task])]))
        inventory = ",".join(hosts or ["localhost"]) + ","
        program = str((self.peers if theirs and self.peers else BIN) / "ansible-playbook")
        settings = {} if theirs else SETTINGS
        return self.clock([program, "-f", "10", "-i", inventory, str(playbook)], **settings)

    def empty(self) -> float:
        return self.play({"ansible.builtin.ping": {}})[0]

    def ours(self, verb: str, names: list[str], **changed: Any) -> tuple[float, float]:
        module, options = OURS.get(verb, (verb, {}))
        told = {"hypervisors": {"vc1": {"vsphere": self.options}}, "vms": names, **options, **changed}
        return self.play({f"vmward.remediation.{module}": told})

    def bare(self, verb: str, names: list[str]) -> float:
        script = str(ROOT / "tests/benchmarks/reference/bare_vsphere.py")
        return self.clock([sys.executable, script, verb], {**self.options, "names": names})[0]

    def theirs(self, verb: str, names: list[str], forks: bool) -> float:
        """community.vmware on these VMs, in a loop or with a host for each."""
        module, options = THEIRS[verb]
        told: dict[str, Any] = {
            **{key: self.options[key] for key in ("hostname", "port", "username", "password")},
            "validate_certs": False,
            "name": "{{ inventory_hostname if forked else item }}",
            **options,
        }
        told["datacenter" if verb != "power_off" else "folder"] = "DC0" if verb != "power_off" else "/DC0/vm"
        if "snapshot" in module:
            told["folder"] = "/DC0/vm"
        if verb == "isolate":
            told.update(network_name="DC0_DVPG0", label="ethernet-0")
        task: dict[str, Any] = {f"community.vmware.{module}": told, "vars": {"forked": forks}}
        if not forks:
            task["loop"] = names
        return self.play(task, names if forks else None, theirs=True)[0]


def peers_of(directory: Path) -> Path:
    """A throw-away environment with community.vmware."""
    if not (directory / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        subprocess.run([str(directory / "bin/pip"), "install", "-q", PEERS, PYVMOMI, "requests"], check=True)
        (directory / "made").touch()
    return directory / "bin"


def dealt(names: list[str], sizes: dict[str, int]) -> dict[tuple[str, str], list[str]]:
    """VMs for each contender and each set of verbs, each VM once."""
    if len(names) < 3 * sum(sizes.values()):
        raise SystemExit("Cannot measure: too few VMs for all contenders. Raise --vms.")
    rest = iter(names)
    return {(who, part): [next(rest) for _number in range(size)] for who, size in sizes.items() for part in "abc"}


def measure(bench: Bench, names: list[str], batch: int, loop: int) -> dict[str, Any]:
    """Every verb, all contenders side by side."""
    sizes = {"ours": batch, "bare": batch, **({"loop": loop, "forks": 2 * loop} if bench.peers else {})}
    parts = dealt(names, sizes)
    empty = bench.empty()
    figures: dict[str, Any] = {"seconds_empty_task": round(empty, 2)}
    for verb, part in SETS.items():
        ours = bench.ours(verb, parts["ours", part])[0]
        bare = bench.bare(verb, parts["bare", part])
        told = {"ours": ours, "bare": bare, "floor": ours / (bare + empty)}
        if bench.peers:
            each = max(ours - empty, 0.001) / batch
            told["loop"] = (bench.theirs(verb, parts["loop", part], False) - empty) / loop / each
            told["forks"] = (bench.theirs(verb, parts["forks", part], True) - empty) / (2 * loop) / each
        figures[verb] = {key: round(value, 3) for key, value in told.items()}
        print(verb, figures[verb], flush=True)
    return figures


def inventory(bench: Bench, names: list[str]) -> dict[str, float]:
    """All VMs in the inventory, against one bare read plus Ansible's own start."""
    source = bench.directory / "vmward.yml"
    source.write_text(
        json.dumps({"plugin": "vmward.remediation.vms", "hypervisors": {"vc1": {"vsphere": bench.options}}})
    )
    program = str(BIN / "ansible-inventory")
    contenders: dict[str, Callable[[], float]] = {
        "start": lambda: bench.clock([program, "-i", "localhost,", "--list"], **SETTINGS)[0],
        "ours": lambda: bench.clock([program, "-i", str(source), "--list"], **SETTINGS)[0],
        "bare": lambda: bench.bare("list", names),
    }
    for plugin, file in INVENTORIES.items() if bench.peers else ():
        theirs = bench.directory / file
        options = {key: bench.options[key] for key in ("hostname", "port", "username", "password")}
        theirs.write_text(json.dumps({"plugin": plugin, **options, "validate_certs": False}))
        command = [str(bench.peers) + "/ansible-inventory", "-i", str(theirs), "--list"]
        contenders[plugin] = lambda command=command: bench.clock(command, **COUNTED)[0]  # type: ignore[misc]
    told = {}
    for who, measured in contenders.items():
        rounds = [(measured(), bench.cpu) for _round in range(ROUNDS)]
        told[who], told[f"{who} cpu"] = min(seconds for seconds, _cpu in rounds), min(cpu for _seconds, cpu in rounds)
    told["floor"] = told["ours"] / (told["bare"] + told["start"])
    told["floor cpu"] = told["ours cpu"] / (told["bare cpu"] + told["start cpu"])
    told.update({f"ratio {plugin}": told[plugin] / told["ours"] for plugin in INVENTORIES if plugin in told})
    return {key: round(value, 2) for key, value in told.items()}


def growth(directory: Path) -> dict[str, dict[str, float]]:
    """Seconds and memory of one cut as its batch grows, on a server of its own that answers without delay."""
    found = {}
    with Vcsim(directory, "-vms", str(sum(COUNTS))) as server:
        bench, names = Bench(server, directory, None), iter(f"DC0_C0_RP0_VM{number}" for number in range(sum(COUNTS)))
        for count in COUNTS:
            seconds, memory = bench.ours("isolate", [next(names) for _number in range(count)])
            found[str(count)] = {"seconds": round(seconds, 2), "MiB": round(memory, 1)}
    return found


def main() -> int:
    """Measure, print, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--loop", type=int, default=10)
    parser.add_argument("--delay", type=int, default=100, help="milliseconds of every call")
    parser.add_argument("--no-peers", action="store_true")
    args = parser.parse_args()
    peers = None if args.no_peers else peers_of(ROOT / "build/bench/community-vmware")
    with tempfile.TemporaryDirectory() as directory:
        server = Vcsim(Path(directory), "-vms", str(args.vms))
        try:
            bench = Bench(server, Path(directory), peers)
            names = [f"DC0_C0_RP0_VM{number}" for number in range(args.vms)]
            listing = inventory(bench, names)
            print("inventory", listing, flush=True)
            server.delays(calls=args.delay)
            figures = measure(bench, names, args.batch, args.loop)
        finally:
            server.stop()
        grown_in = Path(directory) / "growth"
        grown_in.mkdir()
        grown = growth(grown_in)
        print("growth", grown, flush=True)
    ratios = {f"{ratio}_{verb}": figures[verb][ratio] for verb in SETS for ratio in GOALS if ratio in figures[verb]}
    ratios["floor_inventory"], ratios["floor_inventory_cpu"] = listing["floor"], listing["floor cpu"]
    ratios.update((key.replace("ratio ", "inventory_"), listing[key]) for key in listing if key.startswith("ratio "))
    target = ROOT / "build/bench/vsphere.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    told = {
        "ratios": ratios,
        "goals": {**GOALS, "inventory": INVENTORY_GOALS},
        "figures": figures,
        "inventory": listing,
        "growth": grown,
    }
    target.write_text(json.dumps(told, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
