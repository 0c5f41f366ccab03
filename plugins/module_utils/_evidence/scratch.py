# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room on the data host that QEMU writes into, and the lock that lets one run at a time work on a VM."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from .._errors import Refused, TimedOut
from .store import StoreError, checked_name, lock


class Scratch:
    """A directory of root's that the QEMU user may pass through but not list."""

    def __init__(self, path: str) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make it, or refuse one that somebody else could have prepared."""
        os.makedirs(self.path, mode=0o711, exist_ok=True)
        status = os.lstat(self.path)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022 or not os.path.isdir(self.path):
            raise Refused(
                f"Cannot use the scratch directory {self.path}: others may write there, or it is not ours. Nothing was "
                "touched. Remove it, or name another one (scratch)."
            )
        os.chmod(self.path, 0o711)

    def file(self, vm_id: str, name: str) -> str:
        return os.path.join(self.path, checked_name("a scratch file", f"{vm_id}.{name}"))

    def free(self) -> int:
        place = self.path
        while not os.path.isdir(place):
            place = os.path.dirname(place)
        room = os.statvfs(place)
        return room.f_bavail * room.f_frsize

    @contextlib.contextmanager
    def alone_on(self, vm_id: str, wait: float) -> Iterator[None]:
        """Be the only run that takes evidence of this VM; what a dead run left is removed."""
        path = os.path.join(self.path, checked_name("a VM's id", vm_id) + ".lock")
        try:
            handle = lock(path, wait)
        except StoreError as exc:
            raise TimedOut(f"Cannot work on the data of VM {vm_id}: {exc}", task=path) from exc
        try:
            for name in os.listdir(self.path):
                if name.startswith(vm_id + ".") and name != os.path.basename(path):
                    remove(os.path.join(self.path, name))
            yield
        finally:
            os.unlink(path)
            os.close(handle)


def remove(path: str) -> None:
    """A file, or a directory that QEMU's user may write to: no link in it is followed."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
