# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The floor of tests/benchmarks/proxmox.py: the same work by a bare concurrent client, every VM read back.

bare_pve.py OPERATION HOST PORT CA TOKEN SECRET VMID...
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from proxmoxer import ProxmoxAPI

operation, host, port, ca, token, secret, *vmids = sys.argv[1:]
user, name = token.split("!")
pool = ThreadPoolExecutor(16)
api = ProxmoxAPI(host, port=port, verify_ssl=ca, timeout=40, user=user, token_name=name, token_value=secret)
node = {str(row["vmid"]): row["node"] for row in api.cluster.resources.get(type="vm")}


def isolate(vmid: str) -> str:
    vm = api.nodes(node[vmid]).qemu(vmid)
    nets = {key: value for key, value in vm.config.get(current=1).items() if key.startswith("net")}
    vm.config.put(**{key: f"{value},link_down=1" for key, value in nets.items() if "link_down" not in value})
    vm.firewall.options.put(enable=1, policy_in="DROP", policy_out="DROP", dhcp=0)
    return ""


def snapshot(vmid: str) -> str:
    return str(api.nodes(node[vmid]).qemu(vmid).snapshot.post(snapname="bench"))


def revert(vmid: str) -> str:
    return str(api.nodes(node[vmid]).qemu(vmid).snapshot("bench").rollback.post())


def power_off(vmid: str) -> str:
    return str(api.nodes(node[vmid]).qemu(vmid).status.stop.post())


tasks = [one for one in pool.map(globals()[operation], vmids) if one]
while tasks:
    ended = {row["upid"] for place in set(node.values()) for row in api.nodes(place).tasks.get(source="all", limit=5000)
             if row.get("endtime")}  # fmt: skip
    tasks = [one for one in tasks if one not in ended]
    time.sleep(0.1 if tasks else 0)


def read(vmid: str) -> bool:
    vm = api.nodes(node[vmid]).qemu(vmid)
    return bool(vm.status.current.get()) and bool(vm.config.get(current=1))


if not all(pool.map(read, vmids)):
    sys.exit("not read back")
