# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The floor of tests/benchmarks/proxmox.py: what a careful script does, by a bare concurrent client.

It looks before it acts, keeps what it needs to undo the cut on the VM itself, and reads back all that it changed.

bare_pve.py OPERATION HOST PORT CA TOKEN SECRET VMID...
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from proxmoxer import ProxmoxAPI
from requests.adapters import HTTPAdapter

operation, host, port, ca, token, secret, *vmids = sys.argv[1:]
user, name = token.split("!")
pool = ThreadPoolExecutor(16)
api = ProxmoxAPI(host, port=port, verify_ssl=ca, timeout=40, user=user, token_name=name, token_value=secret)
session = api._store["session"]
session.trust_env = False
session.mount("https://", HTTPAdapter(pool_maxsize=16))
node = {str(row["vmid"]): row["node"] for row in api.cluster.resources.get(type="vm")}


wanted = {"enable": 1, "policy_in": "DROP", "policy_out": "DROP", "dhcp": 0, "ndp": 0, "macfilter": 1}


def machine(vmid: str) -> Any:
    return api.nodes(node[vmid]).qemu(vmid)


def nets(vmid: str) -> dict[str, str]:
    return {row["key"]: row["value"] for row in machine(vmid).pending.get() if row["key"].startswith("net")}


def isolate(vmid: str) -> str:
    vm, now, firewall = machine(vmid), nets(vmid), machine(vmid).firewall.options.get()
    if "undo" in {one["name"] for one in vm.firewall.ipset.get()}:
        sys.exit("cut already")
    vm.firewall.ipset.post(name="undo", comment=json.dumps([now, firewall]))
    vm.config.put(**{key: f"{value},link_down=1" for key, value in now.items()})
    vm.firewall.options.put(**wanted)
    if vm.firewall.rules.get():
        sys.exit("rules of others")
    return ""


def isolate_done(vmid: str) -> bool:
    firewall = machine(vmid).firewall.options.get()
    noted = "undo" in {one["name"] for one in machine(vmid).firewall.ipset.get()}
    cut = all("link_down=1" in value for value in nets(vmid).values())
    return noted and cut and all(firewall.get(key) == value for key, value in wanted.items())


def names(vmid: str) -> set[str]:
    return {one["name"] for one in machine(vmid).snapshot.get()}


def snapshot(vmid: str) -> str:
    if "bench" in names(vmid):
        sys.exit("there already")
    return str(machine(vmid).snapshot.post(snapname="bench"))


def snapshot_done(vmid: str) -> bool:
    return "bench" in names(vmid)


def revert(vmid: str) -> str:
    if "bench" not in names(vmid) or machine(vmid).status.current.get()["status"] != "stopped":
        sys.exit("not ready")
    return str(machine(vmid).snapshot("bench").rollback.post())


def revert_done(vmid: str) -> bool:
    current = next(one for one in machine(vmid).snapshot.get() if one["name"] == "current")
    return current.get("parent") == "bench" and machine(vmid).status.current.get()["status"] == "stopped"


def power_off(vmid: str) -> str:
    return str(machine(vmid).status.stop.post())


def power_off_done(vmid: str) -> bool:
    return bool(machine(vmid).status.current.get()["status"] == "stopped")


tasks = [one for one in pool.map(globals()[operation], vmids) if one]
while tasks:
    ended = {row["upid"] for place in set(node.values()) for row in api.nodes(place).tasks.get(source="all", limit=5000)
             if row.get("endtime")}  # fmt: skip
    tasks = [one for one in tasks if one not in ended]
    time.sleep(0.1 if tasks else 0)
if not all(pool.map(globals()[operation + "_done"], vmids)):
    sys.exit("not read back")
