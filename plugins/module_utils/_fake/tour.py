# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fresh simulated hypervisor for the tour, made by running this module with a directory to make it in.

Four VMs on one golden image, each with a snapshot ``clean-baseline``; desk1 holds the EICAR test file, which is inert.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

from .._model import Layer, VmRef
from . import images
from .convert import disk, machine, new_id, nic, vm_of
from .hypervisor import FakeHypervisor
from .state import State

MACHINES = {"desk1": 11, "desk2": 12, "app1": 21, "admin1": 31}
GOLDEN = {
    "/etc/os-release": b'PRETTY_NAME="Simulated desktop"\n',
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n",
    "/home/user/letter.txt": b"Dear Sir or Madam,\n" * 40,
    "/var/log/auth.log": b"Nov 21 09:00:01 desk sshd[411]: Accepted publickey for user from 192.0.2.50 port 50022\n",
}
# Composed here, so that no file of the collection is itself an alarm.
EICAR = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS" + "-TEST-FILE!$H+H*"
GUEST = {
    "ps": "USER PID COMMAND\nroot 1 /sbin/init\nuser 733 /home/user/invoice.com\n",
    "ss": "State Recv-Q Send-Q Local Address:Port Peer Address:Port\nESTAB 0 0 192.0.2.11:40022 203.0.113.9:443\n",
    "ip": "default via 192.0.2.1 dev eth0\n",
    "who": "user tty1 2026-11-21 08:58\n",
    "mount": "/dev/vda on / type ext4 (rw)\n",
}


def create(directory: str) -> str:
    """Make everything anew in ``directory``; answers the path of the state file."""
    directory = os.path.abspath(directory)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    golden = images.create_base(os.path.join(directory, "golden.qcow2"), GOLDEN)
    path = os.path.join(directory, "fake1.json")
    vms = {new_id(): desktop(directory, name, octet, golden) for name, octet in MACHINES.items()}
    State(path).write({"vms": vms, "faults": []})
    hypervisor = FakeHypervisor("fake1", path)
    for vm_id, data in vms.items():
        vm = vm_of(VmRef("fake1", vm_id, data["name"]), data, frozenset())
        hypervisor.submit_snapshot(vm, "clean-baseline", "Taken while it was off", memory=False)
    with State(path).change() as state:
        for data in state["vms"].values():
            power_on(data)
        desk1 = next(data for data in state["vms"].values() if data["name"] == "desk1")
        images.plant(layers(desk1), {"/home/user/invoice.com": EICAR.encode()})
    return path


def desktop(directory: str, name: str, octet: int, golden: Layer) -> dict[str, Any]:
    chain = images.create_overlay(os.path.join(directory, name + ".qcow2"), golden)
    card = dict(nic("52:54:00:86:01:%02x" % octet, addresses=["192.0.2.%d" % octet]), live=None)
    marker = "VMWARD-RAM-" + "ONLY-" + name
    return machine(name, [card], [disk("vda", chain, images.SIZE)], power="stopped", guest=GUEST, ram=marker)


def power_on(data: dict[str, Any]) -> None:
    data["power"] = "running"
    for card in data["nics"]:
        card["live"] = card["config"]


def layers(data: dict[str, Any]) -> tuple[Layer, ...]:
    return tuple(Layer(**layer) for layer in data["disks"][0]["layers"])


def create_keys(directory: str) -> None:
    """A key that signs the tour's ledger, and the list of who may sign."""
    key = os.path.join(directory, "signing", "ledger")
    os.makedirs(os.path.dirname(key))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vmward-tour", "-f", key], check=True)
    with open(key + ".pub", encoding="ascii") as public:
        line = 'vmward-tour namespaces="vmward-ledger" %s' % public.read()
    with open(os.path.join(directory, "signing", "allowed_signers"), "w", encoding="ascii") as signers:
        signers.write(line)


if __name__ == "__main__":
    create(sys.argv[1])
    create_keys(os.path.abspath(sys.argv[1]))
