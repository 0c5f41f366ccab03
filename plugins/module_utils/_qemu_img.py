# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks read whole by qemu-img: as one stand-alone qcow2 image, or compared. Every format is stated, none is probed.

Source: U(https://www.qemu.org/docs/master/tools/qemu-img.html).
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import tempfile
from typing import IO, Any

from ._errors import TaskFailed, Unsupported
from ._model import Disk, VmRef, printable


class Program:
    """One run of qemu-img, begun at once. It ends with this process."""

    def __init__(self, what: str, *arguments: str) -> None:
        self.what = what  # begins the sentence of its failure
        self._told = tempfile.TemporaryFile()  # noqa: SIM115  both live as long as poll
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        argv = ["setpriv", "--pdeathsig", "KILL", "qemu-img", *arguments]
        try:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self._told, stderr=self._errors)
        except FileNotFoundError as exc:
            raise Unsupported(
                f"{what}: qemu-img or setpriv is missing there. Install qemu-utils and util-linux."
            ) from exc

    def poll(self) -> bool:
        """Whether it has ended; a failure raises."""
        if self.process.poll() is None:
            return False
        if self.process.returncode:
            raise TaskFailed(f"{self.what}: {self.words()}.")
        return True

    def words(self) -> str:
        """What it said last."""
        said = [tail(file).decode("utf-8", "replace").split("\r")[-1].strip() for file in (self._errors, self._told)]
        return printable(said[0] or said[1], 300)

    def told(self) -> bytes:
        """The last of what it answers."""
        return tail(self._told)

    def share(self) -> float:
        """How much of the work is done, as ``-p`` tells: from 0 to 1."""
        told = re.findall(rb"\((\d+\.\d+)/100%\)", self.told())
        return float(told[-1]) / 100 if told else 0.0

    def abort(self) -> None:
        self.process.kill()
        self.process.wait()


class Conversion:
    """A disk's whole chain, written to a new file.

    QEMU's locks keep a stopped VM from starting meanwhile. With ``snapshot``, an internal one of a running VM's image
    is read, which nobody changes any more: then the lock is not asked for.
    """

    def __init__(self, vm: VmRef, disk: Disk, path: str, snapshot: str = "") -> None:
        self.disk, self.path = disk, path
        shared = ["-U", "-l", f"snapshot.name={snapshot}"] if snapshot else []
        what = f"Cannot export disk {disk.id} of {vm.name} ({vm.id})"
        self.program = Program(what, "convert", "-O", "qcow2", *shared, in_full(disk), path)
        self.process, self.poll, self.abort = self.program.process, self.program.poll, self.program.abort

    def progress(self) -> tuple[int, int]:
        """Bytes written, of those that the disk holds; (n, 0) where that is not known."""
        done = os.stat(self.path).st_blocks * 512 if os.path.exists(self.path) else 0
        return min(done, self.disk.allocated or done), self.disk.allocated


def tail(file: IO[bytes]) -> bytes:
    """The last of a file that a program writes, whose position is the program's, too."""
    end = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), 1000, max(end - 1000, 0))


def in_full(disk: Disk) -> str:
    """A whole chain, as an argument of qemu-img."""
    return "json:" + json.dumps(block_node(disk))


def block_node(disk: Disk) -> dict[str, Any]:
    """QEMU's description of a whole chain, the base last."""
    node: dict[str, Any] | None = None
    for layer in reversed(disk.layers):
        below, device = node, is_block_device(layer.path)
        file = {"driver": "host_device" if device else "file", "filename": layer.path}
        node = {"driver": layer.format, "file": file}
        if layer.format in ("qcow2", "qed") or below is not None:
            node["backing"] = below
    if node is None:
        raise Unsupported(f"Cannot export disk {disk.id}: it has no image.")
    return node


def is_block_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
