# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirt of the tests' own, in namespaces of its own: it can be broken without touching the machine's."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import libvirt
import pytest

SCRIPT = Path(__file__).with_name("world.sh")
BOOT = [Path("/var/lib/vmward-lab/boot"), *Path("/var/cache/vmward-lab").glob("*/boot")]


class World:
    """libvirtd, its bridge 192.0.2.1 and its VMs; ``stop`` ends all of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.uri = f"qemu+unix:///system?socket={directory}/libvirt-sock"
        self.boot = directory / "boot"  # a copy: libvirt marks the files of its guests, and the lab's carry its mark
        shutil.copytree(boot_files(), self.boot)
        with (directory / "libvirtd.log").open("w") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
                + ["sh", str(SCRIPT), str(directory)],
                stdout=log,
                stderr=log,
            )
        self.conn = self.connect()
        self.conn.networkCreateXML(
            "<network><name>lan</name><bridge name='lan0' stp='off' delay='0'/><dns enable='no'/>"
            "<ip address='192.0.2.1' netmask='255.255.255.0'/></network>"
        )

    def connect(self) -> libvirt.virConnect:
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        end = time.monotonic() + 30
        while True:
            try:
                return libvirt.open(self.uri)
            except libvirt.libvirtError:
                if time.monotonic() > end or self.process.poll() is not None:
                    log = (self.directory / "libvirtd.log").read_text()[-2000:]
                    pytest.fail(f"libvirtd does not start in a world of its own:\n{log}")
                time.sleep(0.1)

    @property
    def init(self) -> str:
        """The process id, seen from here, of PID 1 there."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return children.read_text().split()[0]

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a program in the world, as root on its host would."""
        enter = ["nsenter", "--target", self.init, "--net", "--pid", "--mount"]
        done = subprocess.run([*enter, *argv], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def kill_libvirtd(self) -> None:
        """End libvirtd; the world starts it again. The VMs run on."""
        self.run("sh", "-c", "pid=$(cat /run/libvirtd.pid); kill $pid; while kill -0 $pid; do sleep 0.1; done")
        self.conn = self.connect()

    def stop(self) -> None:
        self.conn.close()
        self.process.kill()  # --kill-child takes the whole world along
        self.process.wait()


def boot_files() -> Path:
    """Kernel and initrd of the tiny guests, built with the lab's golden image."""
    for place in BOOT:
        if (place / "initrd.img").exists() and (place / "vmlinuz").exists():
            return place
    return pytest.fail("No kernel for the tests' guests. Build the lab's golden image first: make lab-up.")


def required() -> None:
    """Skip, saying why, where the real thing cannot run; a missing program is a failure."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it starts libvirtd and real VMs in namespaces of its own")
    missing = [name for name in ("libvirtd", "qemu-system-x86_64", "nsenter", "ebtables") if not shutil.which(name)]
    assert not missing, f"{', '.join(missing)} not installed; run: make system"
