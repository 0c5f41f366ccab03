# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast is the cut? From the start of ansible-playbook to the last packet that a witness gets through.

The floor is one ansible-playbook run with a single ping task, plus a bare script that makes the same libvirt calls.
Runs on the lab's tiny VMs, which it starts; a lab that was not up before is taken down again. Writes
build/bench/contain.json.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "build/collections"))

from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.api import LibvirtHypervisor  # noqa: E402
from ansible_collections.vmward.remediation.plugins.module_utils._model import Isolation  # noqa: E402
from ansible_collections.vmward.remediation.plugins.module_utils._plan import execute  # noqa: E402
from ansible_collections.vmward.remediation.plugins.module_utils._proof import frames  # noqa: E402
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.isolation import SetIsolation  # noqa: E402

ROUNDS = 3
SETTLE = 1.0  # seconds without an answer before the cut counts as made
GOAL = 1.5
PLAYBOOK = str(Path(sys.executable).with_name("ansible-playbook"))
ADDRESSES = {f"tiny{number}": f"192.168.87.{10 + number}" for number in range(1, 11)}
INVENTORY = {
    "all": {
        "hosts": {
            **{name: {"ansible_host": address} for name, address in ADDRESSES.items()},
            "kvm1": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        },
        "vars": {
            "vmward_hypervisors": {"kvm1": {"libvirt": {"uri": "qemu:///system"}}},
            "vmward_proof_required": "readback",
        },
    }
}
BANNERS = {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default", "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true"}  # as begun
PING = """
- hosts: "{{ vmward_vms }}"
  gather_facts: false
  tasks:
    - ansible.builtin.ping:
      run_once: true
      delegate_to: localhost
"""


def witness(addresses: list[str], period: float, last: Any, stop: Any) -> None:
    """Ping every address at each period; note when each last answered. A process of its own: nothing slows it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.setblocking(False)
    packet, index, due = frames.echo(os.getpid() & 0xFFFF), {a: n for n, a in enumerate(addresses)}, time.monotonic()
    while not stop.is_set():
        now = time.monotonic()
        if now >= due:
            due = now + period
            for address in addresses:
                sock.sendto(packet, (address, 0))
        if select.select([sock], [], [], max(due - now, 0))[0]:
            data, sender = sock.recvfrom(2048)
            if sender[0] in index and frames.echo_reply(data, os.getpid() & 0xFFFF):
                last[index[sender[0]]] = time.monotonic()


def through(command: list[str], names: list[str]) -> tuple[float, float, list[tuple[float, str]]]:
    """Run a command that cuts. Seconds until the last packet got through, until it ended, and when its tasks began."""
    addresses = [ADDRESSES[name] for name in names]
    last: Any = multiprocessing.Array("d", len(names))
    stop = multiprocessing.Event()
    prober = multiprocessing.Process(
        target=witness, args=(addresses, 0.01 if len(names) == 1 else 0.02, last, stop), daemon=True
    )
    prober.start()
    wait_for(lambda: min(last) > 0, 30, "not every VM answers the witness")
    began = time.monotonic()
    ended, marks = run(command)
    wait_for(lambda: time.monotonic() - max(last) > SETTLE, 10, "the witness still gets through after the cut")
    stop.set()
    prober.join()
    return max(last) - began, ended - began, [(at - began, text) for at, text in marks]


def lab_runs() -> bool:
    """Does any of the lab's VMs run, so that the lab is to be left standing?"""
    listed = ["virsh", "-c", "qemu:///system", "list", "--name"]
    return bool(subprocess.run(listed, capture_output=True, text=True, check=False).stdout.split())


def wait_for(condition: Any, seconds: float, why: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"Cannot measure: {why}.")
        time.sleep(0.02)


def run(command: list[str]) -> tuple[float, list[tuple[float, str]]]:
    """Run a command to its end; when it ended, and when each of its tasks began."""
    marks: list[tuple[float, str]] = []
    told: list[str] = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **BANNERS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        for line in process.stdout or ():
            told.append(line)
            found = re.match(r"TASK \[(?:vmward\.remediation\.contain : )?(.*?)\]", line)
            if found:
                marks.append((time.monotonic(), found[1]))
    if process.returncode:
        raise SystemExit("".join(told) + f"Cannot measure: {command[0]} ended with {process.returncode}.")
    return time.monotonic(), marks


def free(names: list[str]) -> None:
    """Give the VMs that there are their wiring back."""
    hypervisor = LibvirtHypervisor("kvm1", "qemu:///system")
    chosen = [(ref.id, ref.name) for ref in hypervisor.refs() if ref.name in names]
    subprocess.run([sys.executable, __file__, "--forget", *(name for _id, name in chosen)], check=True)
    for outcome in execute(hypervisor, SetIsolation(Isolation.FREE, keep_sessions=True), chosen, 60, False):
        if outcome.failed:
            raise SystemExit(outcome.msg)
    hypervisor.close()


def forget(names: list[str]) -> None:
    """Undo the bare script, whose note says nothing of the former wiring: a tiny VM has no filter."""
    import xml.etree.ElementTree as ET

    import libvirt

    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    conn = libvirt.open("qemu:///system")
    for domain in (conn.lookupByName(name) for name in names):
        uri, element = "https://vmward.github.io/xmlns/isolation/1", libvirt.VIR_DOMAIN_METADATA_ELEMENT
        try:
            note = domain.metadata(element, uri, 0)
        except libvirt.libvirtError:
            continue
        if ET.fromstring(note).text:
            continue
        domain.setMetadata(element, None, "vmward", uri, 3)
        for flag, description in ((1, 0), (2, libvirt.VIR_DOMAIN_XML_INACTIVE)):
            for interface in ET.fromstring(domain.XMLDesc(description)).findall("./devices/interface"):
                for tag in ("filterref", "link"):
                    for old in interface.findall(tag):
                        interface.remove(old)
                ET.SubElement(interface, "link", {"state": "up"})
                domain.updateDeviceFlags(ET.tostring(interface, encoding="unicode"), flag)


def measure(names: list[str], directory: Path) -> dict[str, Any]:
    """One size: interleaved rounds of ours and of both yardsticks."""
    inventory, ping = directory / "inventory.json", directory / "ping.yml"
    inventory.write_text(json.dumps(INVENTORY))
    ping.write_text(PING)
    aim = ["-i", str(inventory), "-e", json.dumps({"vmward_vms": names, "contain_case": "bench"})]
    bare = [sys.executable, str(ROOT / "tests/benchmarks/reference/bare_cut.py"), *names]
    ours: list[float] = []
    whole: list[float] = []
    empty: list[float] = []
    script: list[float] = []
    tasks: list[tuple[float, str]] = []
    try:
        for _round in range(ROUNDS):
            began = time.monotonic()
            empty.append(run([PLAYBOOK, *aim, str(ping)])[0] - began)
            script.append(through(bare, names)[1])
            free(names)
            cut, end, tasks = through([PLAYBOOK, *aim, "vmward.remediation.contain"], names)
            ours.append(cut)
            whole.append(end)
            free(names)
    finally:
        free(names)
    floor = statistics.median(empty) + statistics.median(script)
    return {
        "seconds_to_last_packet": round(statistics.median(ours), 3),
        "seconds_whole_playbook": round(statistics.median(whole), 3),
        "seconds_ping_playbook": round(statistics.median(empty), 3),
        "seconds_bare_script": round(statistics.median(script), 3),
        "ratio": round(statistics.median(ours) / floor, 3),
        "tasks": shares(tasks, statistics.median(whole)),
    }


def shares(marks: list[tuple[float, str]], end: float) -> dict[str, float]:
    """Seconds of each task in the last round, the start of Ansible first."""
    found = {"(start of Ansible)": round(marks[0][0], 3)}
    for (at, text), (after, _text) in zip(marks, [*marks[1:], (max(end, marks[-1][0]), "")], strict=True):
        found[text] = round(found.get(text, 0) + after - at, 3)
    return found


def main(counts: list[int]) -> int:
    """Measure 1 and 10 VMs (or as many as asked for), print a table, write the figures."""
    figures = {}
    was_up = lab_runs()
    tiny = ["-e", "lab_variant=tiny", "-e", "lab_fresh=true", "-e", f"lab_tiny_count={max(counts)}"]
    run([PLAYBOOK, "vmward.remediation.lab_up", *tiny])
    try:
        with tempfile.TemporaryDirectory() as directory:
            for count in counts:
                figures[str(count)] = measure(list(ADDRESSES)[:count], Path(directory))
    finally:
        if not was_up:
            run([PLAYBOOK, "vmward.remediation.lab_down"])
    columns = ("seconds_to_last_packet", "seconds_ping_playbook", "seconds_bare_script", "ratio")
    print(f"{'VMs':>4} {'last packet':>12} {'ping playbook':>14} {'bare script':>12} {'ratio':>7}  goal {GOAL}")
    for named, one in figures.items():
        told = "" if one["ratio"] <= GOAL else "  MISSED"
        row = "{:>4} {:>11.2f}s {:>13.2f}s {:>11.2f}s {:>7.2f}"
        print(row.format(named, *(one[column] for column in columns)) + told)
        for task, seconds in one["tasks"].items():
            print(f"       {seconds:6.2f} s {100 * seconds / one['seconds_whole_playbook']:4.0f} %  {task}")
    target = ROOT / "build/bench/contain.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    ratios = {"floor" if named == "1" else f"floor_{named}": one["ratio"] for named, one in figures.items()}
    target.write_text(json.dumps({"ratios": ratios, "figures": figures}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--forget"]:
        forget(sys.argv[2:])
    else:
        sys.exit(main([int(one) for one in sys.argv[1:]] or [1, 10]))
