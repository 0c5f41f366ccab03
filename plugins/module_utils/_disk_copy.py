# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New disk images beside a VM's present ones, with the content of a backup's images. Written once, for all backends.

A copy grows in a file of a name that the next run knows. When it is whole and equals its image it gets its own name
too, by a hard link, and keeps both until the VM has it: so what a killed run left is found, whatever it was at, and
removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Collection, Generator, Sequence
from dataclasses import replace
from typing import Callable

from ._backup_image import HEADER, flaw_of, held, stamp_of
from ._errors import NotVerified, Refused, TaskFailed
from ._evidence import space
from ._model import Disk, DiskCopy, Layer, Vm, printable
from ._qemu_img import Program, in_full

LABEL = "security.selinux"
EQUAL, DIFFERENT = 0, 1  # what qemu-img compare ends with


class Copies:
    """All copies for one VM, one after the other, as ``poll`` is called."""

    def __init__(self, vm: Vm, copies: Sequence[DiskCopy]) -> None:
        self.vm, self.copies = vm, copies
        self.whole = False
        self._program: Program | None = None
        self._work = self._made()
        self._total, self._done, self._now = sum(2 * copy.disk.size for copy in copies), 0, 0

    def poll(self) -> bool:
        """Whether each is there, and equal to its image. After a failure nothing of them is left."""
        try:
            if self._program is None or self._program.poll():
                self._done, self._now = self._done + self._now, 0
                self._program = next(self._work, None)
        except BaseException:
            self.abort()
            raise
        return self.whole

    def abort(self) -> None:
        if self._program:
            self._program.abort()
        self._work.close()
        self.whole = False
        tidy(self.vm)

    def settle(self) -> None:
        """The VM has them: they keep their own names alone."""
        for copy in self.copies:
            os.unlink(part_of(self.vm, copy.disk))

    def progress(self) -> tuple[int, int]:
        """Bytes copied and compared, of all that will be."""
        return self._done + (int(self._program.share() * self._now) if self._program else 0), self._total

    def _made(self) -> Generator[Program, None, None]:
        for copy in self.copies:
            part, what = part_of(self.vm, copy.disk), f"Cannot bring disk {copy.disk.id} of {self.vm.ref.name} back"
            try:
                with held(copy.image, copy.stamp) as image:
                    source, made = alone(copy.disk, image), alone(copy.disk, Layer(part, "qcow2"))
                    self._now = copy.disk.size
                    prepare(part, copy.disk.layers[0].path)
                    os.link(part, copy.target)  # not after hours: whether it can have that name
                    os.unlink(copy.target)
                    yield Program(what, "convert", "-p", "-O", "qcow2", source, part)
                    self._now = copy.disk.size
                    yield Program(f"{what}: the copy is not as its image", "compare", "-p", source, made)
                    self._keep(copy, image, part)
            except OSError as exc:
                raise TaskFailed(f"{what}: {exc.strerror}: {exc.filename}. What was written was removed.") from exc
            except NotVerified as exc:
                raise NotVerified(f"{what}: {exc}. The copy was removed, and the VM is as it was.") from exc
        for copy in self.copies:
            self._look(copy)
        self.whole = True

    def _keep(self, copy: DiskCopy, image: Layer, part: str) -> None:
        """On disk, of the right size, and from an image that nobody changed: under its own name, too."""
        with open(part, "rb") as file:
            os.fsync(file.fileno())
            flaw = flaw_of("qcow2", file.read(HEADER), 0, copy.disk.size)
        if flaw:
            raise NotVerified(f"of the copy, {flaw}")
        if stamp_of(os.stat(image.path)) != copy.stamp:
            raise NotVerified(f"somebody changed {printable(copy.image.path, 200)} meanwhile")
        os.link(part, copy.target)
        handle = os.open(os.path.dirname(part), os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(handle)
        os.close(handle)

    def _look(self, copy: DiskCopy) -> None:
        """The first may have waited for the last for hours, and who has another lock may take it for a dead run's."""
        with contextlib.suppress(OSError):
            if os.path.samefile(copy.target, part_of(self.vm, copy.disk)):
                return
        raise TaskFailed(
            f"Cannot bring disk {copy.disk.id} of {self.vm.ref.name} back: somebody removed its copy {copy.target}. "
            "The VM is as it was. Look for another run on it, with another scratch directory, then run again."
        )


def prepare(part: str, present: str) -> None:
    """An empty file that belongs to whom the present image belongs to: the hypervisor opens it as it opens that."""
    like = os.stat(present)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(handle, like.st_uid, like.st_gid)
        os.fchmod(handle, like.st_mode & 0o777)
        with contextlib.suppress(OSError):  # no SELinux here
            os.setxattr(handle, LABEL, os.getxattr(present, LABEL))
    finally:
        os.close(handle)


def alone(disk: Disk, image: Layer) -> str:
    """One image, without what its header may name below it, as an argument of qemu-img."""
    return in_full(Disk(disk.id, disk.bus, disk.size, 0, True, (image,)))


def part_of(vm: Vm, disk: Disk) -> str:
    """Where a copy grows."""
    for name in (vm.ref.id, disk.id):
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,80}", name):
            raise Refused(f"Cannot name a file after '{printable(name, 80)}'. Nothing was touched.")
    directory = os.path.dirname(disk.layers[0].path)
    return os.path.join(directory, f".vmward-restore-{vm.ref.id}-{disk.id}.part")


def target_of(disk: Disk, sha256: str, taken: Collection[str] = ()) -> str:
    """A name that nothing has: desk1.qcow2, then desk1.from-0123456789ab.qcow2, desk1.from-0123456789ab-2.qcow2."""
    directory, name = os.path.split(disk.layers[0].path)
    stem, number = re.sub(r"\.from-[0-9a-f]{12}(-\d+)?$", "", os.path.splitext(name)[0]), 1
    while True:
        more = f"-{number}" if number > 1 else ""
        path = os.path.join(directory, f"{stem}.from-{sha256[:12]}{more}.qcow2")
        if path not in taken and not os.path.lexists(path):
            return path
        number += 1


def left_behind(vm: Vm, directory: str) -> int:
    """Bytes that a dead run's copies take there, until they are removed."""
    parts = {part_of(vm, disk) for disk in vm.disks if not disk.read_only}
    there = [part for part in parts if os.path.dirname(part) == directory and os.path.lexists(part)]
    return sum(os.lstat(part).st_blocks * 512 for part in there)


def tidy(vm: Vm) -> None:
    """Remove what a dead run left of its copies: half ones, and whole ones that the VM did not get."""
    used = {layer.path for disk in vm.disks for layer in disk.layers}
    for disk in vm.disks:
        if disk.read_only:
            continue
        part = part_of(vm, disk)
        if not os.path.lexists(part):
            continue
        with os.scandir(os.path.dirname(part)) as entries:
            twins = [entry.path for entry in entries if ".from-" in entry.name and entry.is_file(follow_symlinks=False)]
        for path in [twin for twin in twins if twin not in used and os.path.samestat(os.lstat(twin), os.lstat(part))]:
            os.unlink(path)
        os.unlink(part)


def equals(disk: Disk, image: Layer, tick: Callable[[int, int], None]) -> tuple[bool, str]:
    """Whether a disk holds an image's content now; and why that cannot be told, when it cannot."""
    program = Program("", "compare", "-p", alone(disk, image), in_full(disk))
    code = ended(program, disk.size, tick)
    return code == EQUAL, "" if code in (EQUAL, DIFFERENT) else program.words()


def room_for(disk: Disk, image: Layer, tick: Callable[[int, int], None]) -> int:
    """Bytes that a copy takes at most. What a qcow2 image holds may be compressed; the copy is not."""
    if image.format != "qcow2":
        return space.of_disk(replace(disk, layers=(image,)))
    what = f"Cannot tell how large a copy for disk {disk.id} is"
    program = Program(what, "measure", "--output=json", "-O", "qcow2", alone(disk, image))
    ended(program, disk.size, tick)
    program.poll()
    return int(json.loads(program.told())["required"])


def ended(program: Program, size: int, tick: Callable[[int, int], None]) -> int:
    """What it ended with."""
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return program.process.wait(0.5)
            tick(int(program.share() * size), size)
    finally:
        program.abort()
