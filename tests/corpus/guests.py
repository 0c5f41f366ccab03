# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A golden image of many files, and overlays with what guests write on it. Each is made once and kept by its name."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import disks

MB = disks.MB
FOLDERS = 97
_INNER = 89
_BLOCK = 4096
_VERSION = 2  # of what is kept


def content(chance: random.Random, length: int) -> bytes:
    """Half text, half what looks like a program: rules look at both."""
    if chance.random() < 0.5:
        text = " ".join(chance.randbytes(4).hex() for _word in range(200)).encode()
        return (text * (length // len(text) + 1))[:length]
    return b"\x7fELF" + chance.randbytes(max(0, length - 4))


def path(number: int) -> str:
    """Of one of the golden image's files."""
    return f"d{number % FOLDERS}/e{number % _INNER}/f{number}"


def golden(place: Path, files: int, size: int, disk: int) -> Path:
    """The golden image: so many files, of so many bytes together, on ext4 as large as `disk`."""
    target = place / f"golden{_VERSION}-{files}-{size // MB}.img"
    if target.exists():
        return target
    chance, tree = random.Random(1), place / "tree"
    for number in range(files):
        one = tree / path(number)
        one.parent.mkdir(parents=True, exist_ok=True)
        one.write_bytes(content(chance, int(chance.expovariate(files / size))))
    draft = target.with_suffix(".new")
    with draft.open("wb") as file:
        file.truncate(disk)
    disks.run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, draft)
    shutil.rmtree(tree)
    draft.rename(target)
    return target


def _kept(base: Path, name: str, fill: Callable[[Path, Path], None]) -> Path:
    target = base.with_name(f"{base.stem}-{name}.qcow2")
    if not target.exists():
        draft = target.with_suffix(".new")
        disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, draft)
        with tempfile.TemporaryDirectory(dir=base.parent) as scratch:
            fill(draft, Path(scratch))
        draft.rename(target)
    return target


def written(base: Path, megabytes: int) -> Path:
    """New files of this size together, and a few deleted ones."""

    def fill(top: Path, scratch: Path) -> None:
        chance, number, left = random.Random(megabytes), 0, megabytes * MB
        requests = ["mkdir new", "cd new"]
        while left > 0:
            length = min(left, chance.choice((4000, 60_000, 400_000, 4 * MB)))
            (scratch / f"n{number}").write_bytes(content(chance, length))
            requests.append(f"write {scratch}/n{number} n{number}")
            left, number = left - length, number + 1
        requests += [f"rm /{path(one)}" for one in range(0, 200, 7)]
        with disks.exported(top) as disk:
            disks.debugfs(disk, *requests)

    return _kept(base, str(megabytes), fill)


def chain(base: Path, count: int) -> Path:
    """A VM with many snapshots, 2 MB written before each."""

    def fill(top: Path, scratch: Path) -> None:
        chance = random.Random(9)
        for number in range(count):
            (scratch / "block").write_bytes(content(chance, 2 * MB))
            with disks.exported(top) as disk:
                disks.debugfs(disk, f"write {scratch}/block step{number}")
            disks.run("qemu-img", "snapshot", "-c", f"s{number}", top)

    return _kept(base, f"chain{count}", fill)


def boot(base: Path, files: int) -> Path:
    """One boot and shut-down, as one of Debian writes: the access times of what was read, logs that grew, state files
    made anew or overwritten in their place, and what all that left in the journal of the file system.
    """

    def fill(top: Path, scratch: Path) -> None:
        chance = random.Random(7)
        read = [number for number in range(files) if number % FOLDERS < 15 and number // FOLDERS % 6 == 0]
        requests = [f"sif /{path(number)} atime 20261101080000" for number in read]
        requests += ["mkdir log", "cd log"]
        for number, length in enumerate([MB, MB, 400_000, *[90_000] * 12, *[9_000] * 40]):
            (scratch / f"log{number}").write_bytes(content(chance, length))
            requests.append(f"write {scratch}/log{number} log{number}")
        for number in read[:400:10]:
            folder, name = path(number).rsplit("/", 1)
            requests += [f"cd /{folder}", f"rm {name}", f"write {scratch}/log{20 + number % 30} {name}"]
        with disks.exported(top) as disk:
            disks.debugfs(disk, *requests)
            told = disks.debugfs(disk, *[f"bmap /{path(number)} 0" for number in read[1:400:10]], "bmap <8> 1")
            *blocks, journal = [int(line) for line in told.splitlines() if line.isdigit()]
            for block in blocks:
                disks.write_at(disk, block * _BLOCK, chance.randbytes(_BLOCK))
            # An empty journal after its superblock, with the blocks of former transactions left in it
            disks.write_at(disk, journal * _BLOCK, content(chance, 3 * MB))

    return _kept(base, "boot", fill)
