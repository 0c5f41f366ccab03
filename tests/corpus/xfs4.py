# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""XFS of version 4 as a guest leaves it that loses its power, and what the next mount makes of it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

GUEST = Path(__file__).with_name("xfs4_guest.py")
DRIVERS = "virtio_pci", "virtio_blk", "xfs"
INIT = """#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r driver; do insmod "/drivers/$driver"; done < /drivers/order
sleep 0.2
python3 -S -E /guest.py $(sed 's/.*guest=//; s/,/ /' /proc/cmdline) < /dev/null
echo GUEST-ENDED
poweroff -f
"""


class Boot:
    """A kernel, and an initial file system with this Python and the guest's program in it."""

    def __init__(self, package: Path, place: Path) -> None:
        """`package`: of Debian, `linux-image-...-cloud-amd64`."""
        self.root = place / "kernel"
        subprocess.run(["dpkg-deb", "-x", package, self.root], check=True)
        (self.kernel,) = self.root.glob("boot/vmlinuz-*")
        self.initrd = place / "initrd.img"
        self._pack(place / "initrd")

    def _pack(self, tree: Path) -> None:
        for folder in ("bin", "dev", "proc", "sys", "mnt", "drivers", "tmp"):
            (tree / folder).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "busybox", tree / "bin/busybox")
        for applet in ("sh", "mount", "insmod", "sleep", "sed", "poweroff", "echo"):
            (tree / "bin" / applet).symlink_to("busybox")
        (tree / "init").write_text(INIT)
        (tree / "init").chmod(0o755)
        shutil.copy(GUEST, tree / "guest.py")
        self._drivers(tree / "drivers")
        for file in self._python():
            target = tree / file.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        (tree / "bin/python3").symlink_to("/usr/bin/python3")
        with self.initrd.open("wb") as file:
            names = subprocess.run(["find", "."], cwd=tree, stdout=subprocess.PIPE, check=True).stdout
            subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names, stdout=file, check=True)

    def _drivers(self, target: Path) -> None:
        version = self.kernel.name.removeprefix("vmlinuz-")
        subprocess.run(["depmod", "-b", self.root, version], check=True)
        order = list[str]()
        for driver in DRIVERS:
            told = subprocess.run(
                ["modprobe", "-d", self.root, "-S", version, "--show-depends", driver],
                stdout=subprocess.PIPE, text=True, check=True,
            ).stdout  # fmt: skip
            for line in told.splitlines():
                file = Path(line.split()[1]) if line.startswith("insmod") else None
                if file is not None and file.name not in order:
                    order.append(file.name)
                    shutil.copy(file, target)
        (target / "order").write_text("".join(name + "\n" for name in order))

    @staticmethod
    def _python() -> list[Path]:
        """What the guest's program loads, and the libraries of that."""
        program = "import runpy, sys; runpy.run_path(sys.argv[1]); import encodings.idna, encodings.latin_1"
        program += "; print(sys.executable, *(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', '')))"
        python = "/usr/bin/python3"
        run = subprocess.run([python, "-S", "-E", "-c", program, GUEST], stdout=subprocess.PIPE, text=True, check=True)
        files = [Path(python), *map(Path, run.stdout.split()[1:])]
        for file in list(files):
            if file.suffix != ".py":
                told = subprocess.run(["ldd", file], stdout=subprocess.PIPE, text=True, check=False).stdout
                files += [Path(word) for word in told.split() if word.startswith("/")]
        return files

    def start(self, verb: str, seed: int, images: Sequence[Path]) -> subprocess.Popen[bytes]:
        command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "384", "-nodefaults", "-display", "none"]
        command += ["-serial", "stdio", "-no-reboot", "-kernel", self.kernel, "-initrd", self.initrd]
        command += ["-append", f"console=ttyS0 quiet panic=-1 guest={verb},{seed}"]
        for image in images:
            command += ["-drive", f"if=virtio,format=raw,file={image},cache=writeback"]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def tell(self, images: Sequence[Path]) -> list[dict[str, list[object]] | str]:
        """What each holds once it was mounted; or why it can't be."""
        run = self.start("tell", 0, images)
        assert run.stdout is not None
        seen = dict[int, dict[str, list[object]] | str]()
        log = list[str]()
        for line in run.stdout:
            words = line.decode(errors="replace").strip().split(" ", 2)
            if words[0] == "SEEN":
                seen[int(words[1])] = json.loads(words[2])
            else:
                log.append(line.decode(errors="replace"))
        run.wait()
        if len(seen) != len(images):
            raise RuntimeError("".join(log[-40:]))
        return [seen[number] for number in range(len(images))]


def powerless(run: subprocess.Popen[bytes], images: Sequence[Path], copies: Sequence[Path]) -> None:
    """Copies of all disks, of the moment at which the machine stands still."""
    os.kill(run.pid, signal.SIGSTOP)
    try:
        for image, copy in zip(images, copies):
            subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    finally:
        os.kill(run.pid, signal.SIGCONT)
