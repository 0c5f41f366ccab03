# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps a scan and a running VM off the same image, by the locks that QEMU itself respects."""

from __future__ import annotations

import fcntl
import os
import stat
import struct

_FLOCK = struct.Struct("hhqqi4x")
# QEMU marks a right that it holds by a shared lock on byte 100 + right, and one it denies to others on 200 + right
_QEMU_HOLDS_WRITE, _QEMU_HOLDS_RESIZE, _QEMU_DENIES_WRITE = 101, 103, 201


def claimed(path: str, fd: int) -> str:
    """Keep a VM from starting on it while we read (a base may stay in use); or why it can't be read."""
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        return "Cannot read %s: it is neither a file nor a block device." % path
    for byte in (_QEMU_HOLDS_WRITE, _QEMU_HOLDS_RESIZE):
        probe = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        if _FLOCK.unpack(probe)[0] != fcntl.F_UNLCK:
            return (
                "Cannot read %s: it is in use by a running VM. Stop the VM, or scan it as it runs: "
                "vm_disk_scan, or scan_live of the role scan." % path
            )
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _QEMU_DENIES_WRITE, 1, 0))
    return ""
