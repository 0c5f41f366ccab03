# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One disk of a running VM as it is now, whatever it lies on: out of the stream of a backup, into a qcow2 image.

vzdump has QEMU write the archive (VMA) of the VM into a pipe; vma takes it from there as a restore does, with a map of
which disk goes into which image, and leaves the other disks out. Nothing but the wanted image is ever stored.

Sources: U(https://pve.proxmox.com/pve-docs/vzdump.1.html), U(https://pve.proxmox.com/pve-docs/qmrestore.1.html),
U(https://git.proxmox.com/?p=pve-qemu.git;a=blob;f=vma_spec.txt), and in the same repository ``vma.c`` (``extract``,
whose ``-d`` is there since Proxmox VE 8.1).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time

from .._errors import NotVerified, TaskFailed, Unsupported
from .._model import Disk, VmRef, printable

PROGRAMS = ("vzdump", "vma", "qemu-img", "setpriv")
CREATING = 60  # seconds that an empty image may take
ENDING = 30.0  # seconds that vzdump has to end, to cancel QEMU's job and to give the VM's lock back
TAIL = 4000  # bytes of a log that are looked at
# What the node's own defaults (/etc/vzdump.conf) must not change: no compression, no hook, nothing pruned.
SETTLED = ("--mode", "snapshot", "--compress", "0", "--script", "", "--remove", "0", "--prune-backups", "keep-all=1")


class Extraction:
    """One run of vzdump and vma, begun at once. It ends with this process.

    vzdump is told to end once only, and not while it ends by itself: that would catch it while it gives the VM's lock
    back, which then stays.
    """

    def __init__(self, vm: VmRef, disk: Disk, path: str) -> None:
        self.vm, self.disk, self.path = vm, disk, path
        self.flaw, self.patience, self.told_to_end = "", 0.0, False
        self.device = "drive-tpmstate0-backup" if disk.id == "tpmstate0" else f"drive-{disk.id}"
        self.room = f"{path}.vzdump"  # what both write beside the image: logs, the VM's configuration
        absent = [name for name in PROGRAMS if shutil.which(name) is None]
        if absent:
            raise Unsupported(
                f"{self._cannot()}: {', '.join(absent)} is missing here. Delegate to the VM's Proxmox VE node, as root."
            )
        try:
            os.mkdir(self.room, 0o700)
            self._create()
            self.vzdump, self.vma = self._begin()
        except (OSError, subprocess.SubprocessError) as exc:
            self._tidy()
            raise TaskFailed(f"{self._cannot()}: {exc}.") from exc

    def _cannot(self) -> str:
        return f"Cannot export disk {self.disk.id} of {self.vm.name} ({self.vm.id})"

    def _create(self) -> None:
        """An empty image of the disk's size, and the map that names it: zeros need not be written."""
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", self.path, str(self.disk.size)]
        made = subprocess.run(
            argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=CREATING
        )
        if made.returncode:
            raise OSError(printable(made.stderr.strip(), 300))
        with open(f"{self.room}/map", "w", encoding="utf-8") as file:
            file.write(f"format=qcow2:0:{self.device}={self.path}\n")

    def _begin(self) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
        dump = ["vzdump", self.vm.id, *SETTLED, "--stdout", "1", "--dumpdir", self.room, "--tmpdir", self.room]
        take = ["vma", "extract", "-d", self.device, "-r", f"{self.room}/map", "-", f"{self.room}/archive"]
        with open(f"{self.room}/vzdump.log", "wb") as log, open(f"{self.room}/vma.log", "wb") as told:
            vzdump = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *dump], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
            try:
                vma = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *take], stdin=vzdump.stdout, stdout=told, stderr=told
                )
            except OSError:
                vzdump.terminate()
                raise
            finally:
                if vzdump.stdout:
                    vzdump.stdout.close()  # else QEMU would not see that vma is gone
        return vzdump, vma

    def poll(self) -> bool:
        ends = {"vzdump": self.vzdump.poll(), "vma": self.vma.poll()}
        if any(ends.values()) and not self.flaw:
            self.flaw = " ".join(f"{name} ended with {end}: {self._tail(name)}." for name, end in ends.items() if end)
            self.vma.kill()
            self.patience = time.monotonic() + ENDING
        if self.flaw and time.monotonic() >= self.patience:
            self._stop()
        if None in ends.values():
            return False
        seen = self._log("vma")
        self._tidy()
        if self.flaw:
            raise TaskFailed(f"{self._cannot()}: {self.flaw}")
        if not re.search(rf"^DEV: dev_id=\d+ size: \d+ devname: {self.device}$", seen, re.MULTILINE):
            raise NotVerified(f"{self._cannot()}: vzdump left it out of its archive.")
        return True

    def _stop(self) -> None:
        if not self.told_to_end:
            self.told_to_end = True
            self.vzdump.terminate()
            self.vma.kill()

    def abort(self) -> None:
        try:
            if self.vma.poll() is None or not self._is_over():
                self._stop()
            if not self._is_over():
                raise TaskFailed(
                    f"vzdump (process {self.vzdump.pid}) was told to end, but did not within {ENDING:g} s. See whether "
                    "the VM still has its lock 'backup' once it has ended, and only then take it off "
                    f"(qm unlock {self.vm.id})."
                )
        finally:
            self._tidy()

    def _is_over(self) -> bool:
        """Without vma vzdump ends by itself: nobody reads what it has QEMU write."""
        try:
            self.vzdump.wait(ENDING)
            self.vma.wait(ENDING)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _tidy(self) -> None:
        shutil.rmtree(self.room, ignore_errors=True)

    def _log(self, name: str) -> str:
        with open(f"{self.room}/{name}.log", "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - TAIL, 0) if name == "vzdump" else 0)
            return file.read(1 << 20).decode("utf-8", "replace")

    def _tail(self, name: str) -> str:
        """Its last errors, or its last words."""
        lines = [line.strip() for line in self._log(name).splitlines() if line.strip()]
        told = [line for line in lines if "ERROR" in line][-2:] or lines[-2:]
        return printable("; ".join(told).rstrip("."), 300) or "it said nothing"

    def progress(self) -> tuple[int, int]:
        """Bytes written; how many it will be is not known."""
        return (os.stat(self.path).st_blocks * 512 if os.path.exists(self.path) else 0), 0
