# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs in a VM whose kernel mounts XFS of version 4: uses its disks as servers do, or tells what it sees on them.

Started by tests/corpus/xfs4.py with Python's standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import random
import stat
import sys
import time

C = ctypes.CDLL(None, use_errno=True)
MOST_FILES = 150
FREEZE, THAW = 0xC0045877, 0xC0045878
SAMPLE = b"VMWARD-INERT-" + b"SAMPLE"


def mount(device: str, point: str, options: str) -> str:
    """Why it failed, if it did."""
    os.makedirs(point, exist_ok=True)
    if C.mount(device.encode(), point.encode(), b"xfs", 1024, options.encode()):
        return os.strerror(ctypes.get_errno())
    return ""


def unmount(point: str) -> None:
    if C.umount2(point.encode(), 0):
        raise OSError(ctypes.get_errno(), "umount")


def write_out(root: str) -> None:
    """All that is in memory or in the log is brought to its place."""
    place = os.open(root, os.O_RDONLY)
    fcntl.ioctl(place, FREEZE, 0)
    fcntl.ioctl(place, THAW, 0)
    os.close(place)


def write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


class Use:
    """Files come, grow, move and go."""

    def __init__(self, root: str, seed: int, largest: int = 30000) -> None:
        self.root, self.chance, self.largest = root, random.Random(seed), largest
        self.folders, self.files, self.open = [root], list[str](), list[int]()
        self.many = os.path.join(root, "many")
        os.makedirs(self.many, exist_ok=True)

    def one(self) -> None:
        try:
            self.chance.choice(self.DOES)(self)
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EEXIST, errno.EMLINK):
                raise
        if len(self.files) > MOST_FILES:
            self._remove()
        if self.chance.randrange(12) == 0:
            write(os.path.join(self.root, "last"), b"")
        if self.chance.randrange(60) == 0:
            os.sync()
        if self.chance.randrange(90) == 0:
            write_out(self.root)

    def _new(self, folder: str = "") -> str:
        name = "f%x" % self.chance.getrandbits(40) + "n" * self.chance.choice((0, 0, 5, 60))
        return os.path.join(folder or self.chance.choice(self.folders), name)

    def _any(self) -> str:
        if not self.files:
            self._write()
        return self.chance.choice(self.files)

    def _content(self) -> bytes:
        size = self.chance.choice((0, 40, 3000, 5000, 30000))
        return self.chance.randbytes(4) * (min(size, self.largest) // 4)

    def _write(self) -> None:
        path = self._new()
        self.files.append(path)
        with open(path, "wb") as file:
            file.write(self._content())
            if self.chance.randrange(3) == 0:
                file.flush()
                os.fsync(file.fileno())

    def _folder(self) -> None:
        if len(self.folders) < 30:
            path = self._new()
            os.mkdir(path)
            self.folders.append(path)

    def _remove(self) -> None:
        path = self._any()
        self.files.remove(path)
        os.unlink(path)

    def _rename(self) -> None:
        old, new = self._any(), self._new() if self.chance.randrange(2) else self._any()
        os.rename(old, new)
        if old != new:
            self.files.remove(old)
            self.files += [] if new in self.files else [new]

    def _attributes(self) -> None:
        path, name = self._any(), "user.%d" % self.chance.randrange(6)
        size = min(self.chance.choice((9, 90, 700, 9000)), self.largest)
        os.setxattr(path, name, self.chance.randbytes(3) * (size // 3))

    def _less_attributes(self) -> None:
        path = self._any()
        for name in os.listxattr(path):
            os.removexattr(path, name)

    def _links(self) -> None:
        path = self._new()
        os.link(self._any(), path)
        self.files.append(path)
        os.symlink("t" * self.chance.choice((9, 90, 700)), self._new() + "s")

    def _others(self) -> None:
        os.mkfifo(self._new() + "p")
        os.mknod(self._new() + "d", stat.S_IFBLK | 0o600, os.makedev(7, self.chance.randrange(200)))
        os.chmod(self._any(), self.chance.choice((0o600, 0o4755)))
        os.chown(self._any(), self.chance.randrange(3), 0)

    def _pieces(self) -> None:
        """As many extents as an inode cannot hold."""
        with open(self._any(), "r+b") as file:
            file.truncate(self.chance.randrange(20000))
            for part in range(self.chance.choice((3, 30))):
                file.seek(part << 14)
                file.write(b"part")
                file.flush()
                os.fdatasync(file.fileno())

    def _cut(self) -> None:
        with open(self._any(), "r+b") as file:
            file.truncate(self.chance.choice((0, 7, 4096, 300000)))

    def _allocate(self) -> None:
        with open(self._any(), "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, 65536)
            file.seek(8192)
            file.write(b"within")

    def _open_deleted(self) -> None:
        path = self._new()
        self.open.append(os.open(path, os.O_CREAT | os.O_RDWR))
        os.write(self.open[-1], b"deleted, but open" * 300)
        os.unlink(path)
        if len(self.open) > 4:
            os.close(self.open.pop(self.chance.randrange(4)))

    def _crowd(self) -> None:
        """A directory of many blocks, which grows and shrinks."""
        names = os.listdir(self.many)
        if len(names) > 500:
            for name in self.chance.sample(names, 480):
                os.unlink(os.path.join(self.many, name))
        for _number in range(60):
            with open(self._new(self.many), "wb"):
                pass

    DOES = (
        *[_write] * 4, _folder, _remove, _remove, _rename, _rename, _attributes, _less_attributes, _links, _others,
        _pieces, _cut, _allocate, _open_deleted, _crowd,
    )  # fmt: skip


def see(root: str) -> dict[str, list[object]]:
    """By path: mode, owner, links, time of change, time of writing; of a file the hash."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            status, told = os.lstat(path), ""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    told = hashlib.sha256(file.read()).hexdigest()[:16]
            plain = status.st_mode, status.st_uid, status.st_nlink, int(status.st_ctime), int(status.st_mtime)
            found[path[len(root) :]] = [*plain, told]
    return found


def say(line: str) -> None:
    """Longer lines than a console takes at once."""
    os.write(1, b"\n")
    data = line.encode() + b"\n"
    while data:
        data = data[os.write(1, data[:512]) :]


def use_all(devices: list[str], seed: int) -> None:
    """For ever: who started it ends it, or copies the disks meanwhile."""
    uses = []
    for number, device in enumerate(devices):
        point = "/mnt/%d" % number
        why = mount(device, point, "uquota" if number % 4 == 3 else "")
        if why:
            say("FAILED %s %s" % (device, why))
        else:
            uses.append(Use(point, seed * 1000 + number))
    say("READY")
    while True:
        for use in uses:
            for _number in range(use.chance.randrange(12)):
                use.one()


def record_all(devices: list[str], seed: int) -> None:
    """So much as fits into a small log. What comes last, only the log knows."""
    for number, device in enumerate(devices):
        point = "/mnt/%d" % number
        why = mount(device, point, "")
        if why:
            raise OSError(why)
        write(point + "/first", b"first" * 100)
        write(point + "/victim", SAMPLE)
        use = Use(point, seed + number, 700)
        for steps in (16, 10):
            write_out(point)
            for _number in range(steps):
                use.one()
        os.truncate(point + "/victim", 0)
        write(point + "/evil", SAMPLE)
        write(point + "/last", b"")
    say("READY")
    while True:
        time.sleep(60)


def tell_all(devices: list[str]) -> None:
    for number, device in enumerate(devices):
        point = "/mnt/%d" % number
        why = mount(device, point, "")
        told: object = why
        if not why:
            told = see(point)
            unmount(point)
        say("SEEN %d %s" % (number, json.dumps(told)))
    os.sync()
    say("DONE")


def main() -> None:
    devices = sorted("/dev/" + name for name in os.listdir("/dev") if name.startswith("vd"))
    verb, seed = sys.argv[1], int(sys.argv[2])
    if verb == "use":
        use_all(devices, seed)
    elif verb == "record":
        record_all(devices, seed)
    else:
        tell_all(devices)


if __name__ == "__main__":
    main()
