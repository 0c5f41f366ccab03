# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole response where nothing is local: libvirt by a remote URI, data host and evidence host by SSH and sudo."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.tests.ssh_server import SshServer, serve

pytestmark = [pytest.mark.real, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
VM, CASE = "desk1", "over-ssh"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    place = tmp_path / "sshd"
    place.mkdir()
    with serve(place) as made:
        yield made


def ways(server: SshServer, place: Path) -> list[str]:
    """The arguments that change the lab's inventory: other ways to its KVM host and to the evidence."""
    wrapper = place / "ssh"  # what libvirt runs: its URI has no parameter for a known_hosts file
    wrapper.write_text(f'#!/bin/sh\nexec ssh -o UserKnownHostsFile={server.known_hosts} "$@"\n')
    wrapper.chmod(0o755)
    uri = f"qemu+ssh://root@127.0.0.1:{server.port}/system?command={wrapper}&keyfile={server.identity}&no_tty=1"
    log_in = {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": server.port,
        "ansible_user": "responder",
        "ansible_ssh_private_key_file": str(server.identity),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={server.known_hosts}",
        "ansible_python_interpreter": sys.executable,
    }
    transfer = {"host": "root@127.0.0.1", "port": server.port}
    transfer.update(identity_file=str(server.identity), known_hosts=str(server.known_hosts))
    hosts = {"kvm1": log_in, "evidence1": {**log_in, "ansible_user": "root"}}
    (place / "remote.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    variables = {
        "vmward_hypervisors": {"kvm1": {"libvirt": {"uri": uri, "data_host": "kvm1"}}},
        "vmward_evidence_host": "evidence1",
        "vmward_evidence_transfer": transfer,
        "vmward_case_store": str(place / "cases"),
    }
    return ["-i", str(ROOT / "inventories/lab"), "-i", str(place / "remote.json"), "-e", json.dumps(variables)]


def test_a_response_with_nothing_local_ends_as_any_other(
    lab: Callable[..., subprocess.CompletedProcess[str]], server: SshServer, tmp_path: Path
) -> None:
    lab("lab_up", "-e", "lab_fresh=true")
    lab("lab_infect")
    (tmp_path / "cases").mkdir(mode=0o700)
    done = lab("respond", *ways(server, tmp_path), "-e", f"vmward_vms={VM}", "-e", f"vmward_case={CASE}", check=False)
    assert done.returncode == 0, done.stdout[-15000:] + done.stderr[-3000:]
    case = tmp_path / "cases" / CASE
    allowed = "/var/lib/vmward-lab/signing/allowed_signers"
    subprocess.run([sys.executable, str(case / "verify.py"), str(case), "--allowed-signers", allowed], check=True)
    kept = {one.name for one in case.rglob("evidence/data/*/*")}
    assert kept >= {"memory.elf", "disk-vda.qcow2", "guest-claims.json", "logs-vda.tar"}
