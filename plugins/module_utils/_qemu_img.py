# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk's whole chain as one stand-alone qcow2 image, by qemu-img. Every format is stated, none is probed.

Source: U(https://www.qemu.org/docs/master/tools/qemu-img.html).
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tempfile
from typing import Any

from ._errors import TaskFailed, Unsupported
from ._model import Disk, VmRef, printable


class Conversion:
    """One run of qemu-img, begun at once. It ends with this process.

    QEMU's locks keep a stopped VM from starting meanwhile. With ``snapshot``, an internal one of a running VM's image
    is read, which nobody changes any more: then the lock is not asked for.
    """

    def __init__(self, vm: VmRef, disk: Disk, path: str, snapshot: str = "") -> None:
        self.vm, self.disk, self.path = vm, disk, path
        argv = ["setpriv", "--pdeathsig", "KILL", "qemu-img", "convert", "-O", "qcow2"]
        argv += ["-U", "-l", f"snapshot.name={snapshot}"] if snapshot else []
        argv += ["json:" + json.dumps(block_node(disk)), path]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as poll
        try:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors
            )
        except FileNotFoundError as exc:
            raise Unsupported(
                f"Cannot export disk {disk.id} of {vm.name}: qemu-img or setpriv is missing there. Install "
                "qemu-utils and util-linux."
            ) from exc

    def poll(self) -> bool:
        if self.process.poll() is None:
            return False
        self._errors.seek(0)
        told = printable(self._errors.read(1000).decode("utf-8", "replace").strip(), 300)
        if self.process.returncode:
            raise TaskFailed(f"Cannot export disk {self.disk.id} of {self.vm.name} ({self.vm.id}): {told}.")
        return True

    def abort(self) -> None:
        self.process.kill()

    def progress(self) -> tuple[int, int]:
        """Bytes written, of those that the disk holds; (n, 0) where that is not known."""
        done = os.stat(self.path).st_blocks * 512 if os.path.exists(self.path) else 0
        return min(done, self.disk.allocated or done), self.disk.allocated


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
