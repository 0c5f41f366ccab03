# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every test imports the collection as Ansible does: ansible_collections.vmward.remediation."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ansible_collections.vmward.remediation.tests.conformance.vsphere import VsphereBench
    from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench
    from ansible_collections.vmward.remediation.tests.vcsim.server import Vcsim

ROOT = Path(__file__).resolve().parent.parent
COLLECTIONS = ROOT / "build" / "collections"


def _link_collection() -> None:
    link = COLLECTIONS / "ansible_collections" / "vmward" / "remediation"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../../../..")
    if link.resolve() != ROOT:
        raise RuntimeError(f"{link} does not lead to {ROOT}. Run make clean, then make collections.")
    sys.path.insert(0, str(COLLECTIONS))


_link_collection()


def playbook(name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of the collection's playbooks on the lab, as its user would; a failure shows what it printed."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), f"vmward.remediation.{name}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if check and done.returncode:
        pytest.fail(
            f"{' '.join(command[1:])} ended with {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False
        )
    return done


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """What a module leaves ends here: a scanner of YARA-X does not bear to be collected in another test's thread."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def lab() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """The lab's virtual machines, started once for all tests; taken down afterwards unless it was up before."""
    if os.geteuid() != 0:
        pytest.skip("virtual machines need root: run make test with sudo, or as root")
    listed = subprocess.run(
        ["virsh", "-c", "qemu:///system", "list", "--name"], capture_output=True, text=True, check=False
    )
    was_up = "desk1" in listed.stdout.split()
    playbook("lab_up", "-e", "lab_fresh=true")
    yield playbook
    if not was_up:
        playbook("lab_down")


# The servers that stand in for vendors. What they are made of is imported only where a test asks for one.


@pytest.fixture(scope="session")
def vcenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    """A simulated vCenter without VMs."""
    from ansible_collections.vmward.remediation.tests.vcsim.server import Vcsim

    with Vcsim(tmp_path_factory.mktemp("vcsim")) as made:
        yield made


@pytest.fixture
def vsphere(vcenter: Vcsim) -> Iterator[VsphereBench]:
    """A stage on it, which is empty before and after."""
    from ansible_collections.vmward.remediation.tests.conformance.vsphere import VsphereBench

    bench = VsphereBench(vcenter)
    yield bench
    bench.clean()


@pytest.fixture
def proxmox(tmp_path: Path) -> Iterator[ProxmoxBench]:
    """A stage on a cluster of its own."""
    from ansible_collections.vmward.remediation.tests.pve.bench import ProxmoxBench

    bench = ProxmoxBench(tmp_path)
    yield bench
    bench.stop()
