# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The response on a real VM while things go wrong: killed at any moment, libvirtd restarted, two responders at once.

Each takes minutes, so these run with `make test-all` only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.real
ROOT = Path(__file__).resolve().parents[2]
LAB = Path("/var/lib/vmward-lab")
CASES = Path("/var/lib/vmward-lab-cases")
VM, ADDRESS = "desk1", "192.168.86.11"
Play = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def case(lab: Play) -> Iterator[str]:
    """desk1 up and infected, and a new case for it. A response that ended well has left it clean."""
    if cut() or not reached("true"):
        lab("lab_up", "-e", "lab_fresh=true")
    lab("lab_infect")
    name = f"fault-{time.time_ns()}"
    yield name
    shutil.rmtree(CASES / name, ignore_errors=True)


def virsh(*argv: str) -> str:
    done = subprocess.run(["virsh", "-c", "qemu:///system", *argv], capture_output=True, text=True, check=True)
    return done.stdout


def start(case: str) -> subprocess.Popen[str]:
    """A response in a session of its own, as from a terminal of its own."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "vmward.remediation.respond"]
    command += ["-e", f"vmward_vms={VM}", "-e", f"vmward_case={case}"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until(response: subprocess.Popen[str], step: str) -> str:
    """Read what it prints, up to the line that tells of this step."""
    told = ""
    for line in response.stdout or ():
        told += line
        if step in line:
            return told
    pytest.fail(f"'{step}' never came:\n{told}")


def sealed() -> bool:
    """Both definitions carry the filter, and the link is down."""
    texts = [virsh("dumpxml", VM, *more) for more in ((), ("--inactive",))]
    return all("filterref filter='vmward-sealed'" in text and "link state='down'" in text for text in texts)


def cut() -> bool:
    """Is there any trace of isolation on the VM?"""
    text = virsh("dumpxml", VM) + virsh("dumpxml", VM, "--inactive")
    return re.search(r"filterref|state='down'|xmlns/isolation", text) is not None


def reached(command: str) -> bool:
    """Does the guest answer, and the command succeed there?"""
    options = ["-i", str(LAB / "ssh/id_ed25519"), "-o", f"UserKnownHostsFile={LAB / 'ssh/known_hosts'}"]
    options += ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
    return subprocess.run(["ssh", "-n", *options, f"root@{ADDRESS}", command], check=False).returncode == 0


def back_in_service(case: str) -> None:
    """Free as before, answering, without the sample, and with a ledger that the stand-alone verifier believes."""
    assert not cut()
    planted = json.loads((LAB / "infection.json").read_text())[VM]["files"]
    assert reached(" && ".join(f"test ! -e {path}" for path in planted))
    verifier = [sys.executable, str(CASES / case / "verify.py"), str(CASES / case), "--allowed-signers"]
    subprocess.run([*verifier, str(LAB / "signing/allowed_signers")], check=True)


MOMENTS = [
    ("Cut every VM off", 0.3, "the cut is not yet recorded"),
    ("Read the VMs .", 3.0, "memory is being dumped"),
    ("Pause it, so that all disks", 2.0, "a disk is being exported"),
    ("Know the golden images", 1.5, "a disk is being scanned"),
    ("Stop it .", 0.8, "the VM is being reverted"),
]


@pytest.mark.parametrize(("step", "delay", "moment"), MOMENTS, ids=[moment for *_more, moment in MOMENTS])
def test_killed_and_started_again_it_ends_as_if_nothing_had_been(
    lab: Play, case: str, step: str, delay: float, moment: str
) -> None:
    response = start(case)
    until(response, step)
    time.sleep(delay)
    os.killpg(response.pid, signal.SIGKILL)
    response.communicate()
    assert sealed(), f"killed while {moment}, the cut does not hold"
    again = lab("respond", "-e", f"vmward_vms={VM}", "-e", f"vmward_case={case}", check=False)
    assert again.returncode == 0, again.stdout[-8000:]
    back_in_service(case)


def test_two_responders_do_not_both_respond(case: str) -> None:
    first, second = start(case), start(case)
    told = [response.communicate()[0] for response in (first, second)]
    codes = [first.returncode, second.returncode]
    assert sorted(code == 0 for code in codes) == [False, True], "\n".join(told)
    loser = told[codes.index(next(code for code in codes if code))]
    assert re.search(rf"Cannot (lead|record in) case {case}.*\(run ", loser, re.DOTALL), loser
    back_in_service(case)


def restart_libvirtd() -> None:
    """As its package's upgrade does. The VMs run on."""
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "restart", "libvirtd"], check=True)
        return
    pid = int(Path("/run/libvirtd.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.1)
    subprocess.run(["libvirtd", "--daemon", "--pid-file", "/run/libvirtd.pid"], check=True)
    shutil.copy("/run/libvirtd.pid", LAB / "run/libvirtd.pid")  # so that lab_down knows it as the lab's own


@pytest.mark.parametrize(("step", "delay"), [("Read the VMs .", 3.0), ("Pause it, so that all disks", 2.0)])
def test_libvirtd_restarted_in_the_middle_stops_nothing_or_says_so(
    lab: Play, case: str, step: str, delay: float
) -> None:
    response = start(case)
    told = until(response, step)
    time.sleep(delay)
    restart_libvirtd()
    told += response.communicate()[0]
    if response.returncode:
        assert sealed(), told
        assert re.search(r"FAILED\s+preserve", told), told
        again = lab("respond", "-e", f"vmward_vms={VM}", "-e", f"vmward_case={case}", check=False)
        assert again.returncode == 0, again.stdout[-8000:]
    back_in_service(case)
