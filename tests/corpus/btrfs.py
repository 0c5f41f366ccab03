# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""btrfs as Linux makes it by chance, and what Linux shows of it: held against our reader, and recorded for tests.

Images of so many seeds, each held against a mount (as root):
  PYTHONPATH=build/collections .venv/bin/python tests/corpus/btrfs.py campaign 0 100
And as many that lost their power, mounted with and without their logs: `crash 0 100`.
Those that the tests keep:
  PYTHONPATH=build/collections .venv/bin/python tests/corpus/btrfs.py record
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import lzma
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.btrfs_records import Inode
from ansible_collections.vmward.remediation.plugins.module_utils._scan.btrfs_walk import BtrfsWalk
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.mounting import powerless

REFUSED = {
    errno.EPERM, errno.ENOENT, errno.EACCES, errno.EEXIST, errno.EXDEV, errno.ENOTDIR, errno.EISDIR, errno.ENOSPC,
    errno.EROFS, errno.EMLINK, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EBUSY, errno.EOPNOTSUPP, errno.EINVAL,
}  # fmt: skip
RECORDS = Path(__file__).with_name("btrfs_records")
BLOCK, SIZE = 4096, 256 * disks.MB
_FICLONE, _TOP = 0x40049409, 256
NODES = ("4096", "16384", "65536")
OPTIONS = ("compress=zlib", "compress-force=zlib", "compress=lzo", "compress-force=lzo", "compress=zstd",
           "compress-force=zstd", "nodatasum", "nodatacow", "max_inline=0", "autodefrag", "noatime")  # fmt: skip
FEATURES, LATE_FEATURES = ("^no-holes", "^extref", "^skinny-metadata"), ("^free-space-tree", "quota")
SUMS = ("crc32c", "sha256", "blake2")
NAMES = ("plain", "two words", "a\nb", "\udcff\udcfe", "ä" * 100, "x" * 255, "-rf", "$(x)", "\x1b[31m")
SNAPSHOTS, LOGGED = RECORDED = "snapshots and packed files", "a log"

# By its path: mode, owner, size, the hash of what it holds or leads to, and those of its attributes
Row = tuple[int, int, int, str, str]
Tree = dict[str, Row]


class Guest:
    """Changes a mounted file system by chance."""

    def __init__(self, root: Path, seed: int, most: int = 400_000) -> None:
        self.root, self._chance, self._most = root, random.Random(seed), most
        self._subvolumes = list[Path]()
        self._open = list[int]()
        self.dirs = [root]

    def work(self, steps: int) -> None:
        kinds = {
            self.write: 10, self.change: 6, self.cut: 2, self.punch: 2, self.reserve: 1, self.clone: 3, self.link: 2,
            self.rename: 2, self.delete: 2, self.directory: 3, self.symlink: 1, self.attribute: 2, self.many: 0.3,
            self.subvolume: 0.7, self.snapshot: 0.7, self.drop: 0.3, self.forsake: 0.2, self.sync: 0.5, self.persist: 5,
        }  # fmt: skip
        for _step in range(steps):
            (step,) = self._chance.choices(list(kinds), list(kinds.values()))
            try:
                step()
            except subprocess.CalledProcessError:
                continue  # a path that is too long
            except OSError as exc:
                if exc.errno not in REFUSED:
                    raise

    def close(self) -> None:
        for fd in self._open:
            os.close(fd)

    def _data(self) -> bytes:
        chance = self._chance
        sizes = 0, 1, 50, 2000, 4096, 5000, 70_000, 131_072, chance.randrange(self._most)
        size = min(self._most, chance.choice(sizes))
        kind = chance.randrange(4)
        if kind == 0:
            return chance.randbytes(min(size, self._most // 20))
        if kind == 1:
            return bytes(size)
        words = [chance.randbytes(7) for _word in range(50)]
        return b"".join(chance.choice(words) for _at in range(size // 7 + 1))[:size]

    def _name(self) -> str:
        return self._chance.choice(NAMES)[:240] + str(self._chance.randrange(1000))

    def _place(self) -> Path:
        return self._chance.choice(self.dirs) / self._name()

    def _files(self) -> list[Path]:
        found = list[Path]()
        for above, dirs, names in os.walk(self.root):
            dirs.sort()
            found += [Path(above, name) for name in sorted(names)]
        return [file for file in found if not file.is_symlink()]

    def _file(self) -> Path:
        files = self._files()
        if not files:
            raise FileNotFoundError(errno.ENOENT, "there is none yet")
        return self._chance.choice(files)

    def write(self) -> None:
        place = self._place()
        place.write_bytes(self._data())
        if not self._chance.randrange(5):
            os.chown(place, self._chance.randrange(3), 0)
            place.chmod(self._chance.choice((0o600, 0o4755, 0o644)))

    def change(self) -> None:
        with self._file().open("r+b") as file:
            file.seek(self._chance.randrange(300_000))
            file.write(self._data())
            file.flush()
            if not self._chance.randrange(3):
                os.fsync(file.fileno())

    def cut(self) -> None:
        file = self._file()
        os.truncate(file, self._chance.randrange(file.stat().st_size * 2 + 10_000))

    def punch(self) -> None:
        at, size = self._chance.randrange(100_000), self._chance.randrange(1, 90_000)
        subprocess.run(["fallocate", "-p", "-o", str(at), "-l", str(size), self._file()], check=False, stderr=-3)

    def reserve(self) -> None:
        keep = ["-n"] if self._chance.randrange(2) else []
        size = self._chance.randrange(1, 300_000)
        subprocess.run(["fallocate", *keep, "-l", str(size), self._place()], check=False, stderr=-3)

    def clone(self) -> None:
        with self._file().open("rb") as source, self._place().open("wb") as target:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())

    def link(self) -> None:
        os.link(self._file(), self._place())

    def many(self) -> None:
        """More names in one directory than its inode's item holds."""
        file, directory = self._file(), self._chance.choice(self.dirs)
        for number in range(40):
            os.link(file, directory / ("%03d" % number + "l" * 200))

    def rename(self) -> None:
        source = self._chance.choice([self._file(), *self.dirs[1:]])
        target = self._place()
        if source in self.dirs and any(source == one or source in one.parents for one in (target, *self._subvolumes)):
            return
        source.rename(target)
        self.dirs = [target / one.relative_to(source) if source in (one, *one.parents) else one for one in self.dirs]

    def delete(self) -> None:
        self._file().unlink()

    def directory(self) -> None:
        place = self._place()
        place.mkdir()
        self.dirs.append(place)

    def symlink(self) -> None:
        self._place().symlink_to(self._name())

    def attribute(self) -> None:
        os.setxattr(self._file(), "user.%s" % self._chance.randrange(9), self._data()[:2000])

    def subvolume(self) -> None:
        place = self._place()
        subvolume("create", place)
        self._subvolumes.append(place)
        self.dirs.append(place)

    def snapshot(self) -> None:
        place, sources = self._place(), [one for one in (self.root, *self._subvolumes) if one.stat().st_ino == _TOP]
        read_only = ["-r"] if self._chance.randrange(2) else []
        if not sources:
            return
        subvolume("snapshot", *read_only, self._chance.choice(sources), place)
        self._subvolumes.append(place)
        self.dirs += [] if read_only else [place]

    def drop(self) -> None:
        if self._subvolumes:
            place = self._chance.choice(self._subvolumes)
            if not any(place in one.parents for one in self._subvolumes):
                subvolume("delete", place)
                self._subvolumes.remove(place)
                self.dirs = [one for one in self.dirs if place not in (one, *one.parents)]

    def forsake(self) -> None:
        """Deleted while it is open."""
        file = self._file()
        self._open.append(os.open(file, os.O_RDONLY))
        file.unlink()

    def sync(self) -> None:
        disks.run("sync", "-f", self.root)

    def persist(self) -> None:
        """One file or directory, into the log."""
        fd = os.open(self._chance.choice([self._file(), self._file(), *self.dirs]), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def subvolume(*words: str | Path) -> None:
    """Its names may be no text."""
    subprocess.run(["btrfs", "subvolume", *words], check=True, capture_output=True)


def made_by_chance(image: Path, seed: int, steps: int, crashed: Path | None = None) -> list[str]:
    """The options that it was made with. `crashed`: a copy of it as it lies before it is unmounted."""
    chance = random.Random(seed)
    kinds = chance.choice((("-m", "dup"), ("-m", "single"), ("-m", "dup", "-d", "dup"), ("-M",), ()))
    made = ["-n", "4096" if kinds == ("-M",) else chance.choice(NODES), *kinds, "--csum", chance.choice(SUMS)]
    for option, features in (("-O", FEATURES), ("-R", LATE_FEATURES)):
        chosen = [one for one in features if not chance.randrange(4)]
        made += [option, ",".join(chosen)] if chosen else []
    mounted = ",".join(["loop", *chance.sample(OPTIONS, chance.randrange(3))])
    with image.open("wb") as file:
        file.truncate(SIZE)
    disks.run("mkfs.btrfs", "-q", "-f", *made, image)
    with mounted_with(image, mounted) as root:
        guest = Guest(root, seed)
        try:
            guest.work(steps)
            if crashed is not None:
                guest.sync()
                guest.work(steps // 4)
                guest.persist()
                powerless(image, crashed)
        finally:
            guest.close()
    return [*made, mounted]


@contextmanager
def mounted_with(image: Path, options: str) -> Iterator[Path]:
    point = image.with_suffix(".mount")
    point.mkdir(exist_ok=True)
    disks.run("mount", "-o", options, image, point)
    try:
        yield point
    finally:
        disks.run("umount", point)


def seen(root: Path) -> Tree:
    """As Linux shows it."""
    found: Tree = {}
    for above, dirs, names in os.walk(root):
        for name in (*dirs, *names):
            place = os.path.join(above, name)
            status = os.lstat(place)
            told = b""
            if stat.S_ISREG(status.st_mode):
                told = Path(place).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                told = os.fsencode(os.readlink(place))
            keys = [] if stat.S_ISLNK(status.st_mode) else sorted(os.listxattr(place))
            extended = [b"%b\0%b" % (key.encode(), os.getxattr(place, key)) for key in keys]
            size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
            row = status.st_mode, status.st_uid, size, _hash(told), _hashes(extended)
            found["/" + os.path.relpath(place, root)] = row
    return found


def read(image: Path) -> tuple[Tree, BtrfsWalk]:
    """As our reader tells it, without what no directory names."""
    volume = Raw(os.open(image, os.O_RDONLY))
    walk = BtrfsWalk(volume)
    named: dict[str, Any] = {}
    contents, known, found = dict[str, str](), dict[Any, str](), Tree()
    for file in walk.files(see=lambda _directory, entry: named.update({entry.path: entry.inode})):
        parts = (file.read(at, min(disks.MB, file.size - at)) for at in range(0, file.size, disks.MB))
        contents[file.path] = (known.get(file.key) if file.key else None) or _hash(b"".join(parts))
        known[file.key] = contents[file.path]
    for path, inode in named.items():
        told = contents.get(path, "")
        if stat.S_ISLNK(inode.mode):
            told = _hash(b"".join(piece.data for piece in inode.pieces()))
        size = 0 if stat.S_ISDIR(inode.mode) else inode.size
        found[path] = inode.mode, inode.uid, size, told or _hash(b""), _hashes(inode.extended)
    return {path: row for path, row in found.items() if not path.startswith("/(")}, walk


def missed(shown: Tree, image: Path) -> tuple[list[str], BtrfsWalk]:
    """What of all that Linux shows is in none of the states that our reader tells."""
    walk = BtrfsWalk(Raw(os.open(image, os.O_RDONLY)))
    named: dict[str, list[Inode]] = {}
    contents = set[tuple[int, int, str]]()
    for file in walk.files(see=lambda _directory, entry: named.setdefault(entry.path, []).append(entry.inode)):
        parts = (file.read(at, min(disks.MB, file.size - at)) for at in range(0, file.size, disks.MB))
        contents.add((file.status().st_ino, file.size, _hash(b"".join(parts))))
    found = list[str]()
    for path, (mode, _owner, size, told, extended) in shown.items():
        inodes = named.get(path, [])
        if not inodes:
            found.append(f"only Linux shows {path!r}")
        elif stat.S_ISREG(mode) and not any((inode.number, size, told) in contents for inode in inodes):
            found.append(f"another content of {path!r}")
        elif not set(extended.split()) <= {_hash(one) for inode in inodes for one in inode.extended}:
            found.append(f"other attributes of {path!r}")
    return found, walk


def _hashes(attributes: Sequence[bytes]) -> str:
    return " ".join(sorted(map(_hash, attributes)))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16] if data else ""


def differences(shown: Tree, told: Tree) -> list[str]:
    """Directories of subvolumes are told by name only, and those in snapshots are empty ones."""
    found = [f"only Linux shows {path!r}" for path in shown.keys() - told.keys()]
    found += [f"only we tell {path!r}" for path in told.keys() - shown.keys()]
    for path in shown.keys() & told.keys():
        if shown[path] != told[path] and not stat.S_ISDIR(shown[path][0]):
            found.append(f"{path!r}: {shown[path]} is told as {told[path]}")
    return sorted(found)


def doubts_of(walk: BtrfsWalk) -> list[str]:
    return [*walk.doubts(), *filter(None, [walk.unproven()])]


def campaign(first: int, last: int) -> int:
    """How many differ."""
    failed = 0
    for seed in range(first, last):
        with tempfile.TemporaryDirectory() as folder:
            image = Path(folder) / "btrfs.img"
            how = made_by_chance(image, seed, 150)
            told, walk = read(image)
            doubts = doubts_of(walk)
            with mounted_with(image, "loop,ro,subvolid=5") as root:
                found = differences(seen(root), told)
            if found or doubts:
                failed += 1
                print("seed", seed, how, len(told), "files", *found[:8], *doubts, sep="\n  ", flush=True)
    print(f"{last - first} images, {failed} of them differ")
    return failed


def crash(first: int, last: int) -> int:
    """How many look otherwise to Linux, with the log or without it, than in all states that are told."""
    failed = unknown = logs = 0
    for seed in range(first, last):
        with tempfile.TemporaryDirectory() as folder:
            image, crashed = Path(folder) / "btrfs.img", Path(folder) / "crashed.img"
            how = made_by_chance(image, seed, 60, crashed)
            with mounted_with(crashed, "loop,ro,subvolid=5,rescue=nologreplay") as root:
                before = seen(root)
            found, walk = missed(before, crashed)
            doubts = doubts_of(walk)
            replayed = Path(shutil.copy(crashed, Path(folder) / "replayed.img"))
            with mounted_with(replayed, "loop,subvolid=5") as root:
                after = seen(root)
            found += missed(after, crashed)[0]
            unknown, logs = unknown + bool(doubts), logs + (before != after)
            if doubts:
                print("seed", seed, *doubts)
            if found:
                failed += 1
                print("seed", seed, how, len(after), "files", *found[:8], *doubts, sep="\n  ", flush=True)
    print(f"{last - first} images, {logs} changed by their logs, {unknown} with doubts, {failed} of them differ")
    return failed


class Record(NamedTuple):
    image: bytes
    seen: Tree

    def put(self, place: Path) -> Path:
        with place.open("wb") as file:
            file.truncate(len(self.image))
            for at in range(0, len(self.image), BLOCK):
                if self.image.count(0, at, at + BLOCK) != BLOCK:
                    file.seek(at)
                    file.write(self.image[at : at + BLOCK])
        return place


def load(name: str) -> Record:
    data = lzma.decompress((RECORDS / (name.replace(" ", "_") + ".xz")).read_bytes())
    length, size, count = struct.unpack_from("<3I", data)
    rows = json.loads(data[12 : 12 + length])
    places = struct.unpack_from(f"<{count}I", data, 12 + length)
    image, at = bytearray(size), 12 + length + 4 * count
    for place in places:
        image[place * BLOCK : (place + 1) * BLOCK] = data[at : at + BLOCK]
        at += BLOCK
    return Record(bytes(image), {path: tuple(row) for path, row in rows.items()})


def save(name: str, record: Record) -> None:
    """Those blocks that are not empty, behind their numbers."""
    image, rows = record.image, json.dumps(record.seen).encode()
    used = [at for at in range(0, len(image), BLOCK) if image.count(0, at, at + BLOCK) != BLOCK]
    head = struct.pack("<3I", len(rows), len(image), len(used)) + rows
    head += struct.pack(f"<{len(used)}I", *(at // BLOCK for at in used))
    RECORDS.mkdir(exist_ok=True)
    data = lzma.compress(head + b"".join(image[at : at + BLOCK] for at in used), preset=9 | lzma.PRESET_EXTREME)
    (RECORDS / (name.replace(" ", "_") + ".xz")).write_bytes(data)


def snapshots_and_packed_files(image: Path) -> Record:
    """Packed in each way, in a subvolume and its snapshots; one of those is deleted."""
    with image.open("wb") as file:
        file.truncate(SIZE)
    disks.run("mkfs.btrfs", "-q", "-f", "-M", "-n", "4096", "-m", "single", image)
    for seed, packing in enumerate(("zlib", "lzo", "zstd", "none")):
        with mounted_with(image, f"loop,noatime,compress-force={packing}") as root:
            if not seed:
                subvolume("create", root / "top")
            (root / "top" / packing).mkdir()
            guest = Guest(root / "top" / packing, seed, 20_000)
            guest.write()
            guest.many()
            guest.work(25)
            guest.close()
            subvolume("snapshot", root / "top", root / f"before {packing}")
    with mounted_with(image, "loop,noatime") as root:
        subvolume("delete", root / "before lzo")
    raw = image.read_bytes()
    with mounted_with(image, "loop,ro,subvolid=5") as root:
        return Record(raw, seen(root))


def a_log(folder: Path) -> Record:
    """Of what was written since, all but a file is in the log: new files, and old ones that are others now."""
    image, crashed = folder / "log.img", folder / "crashed.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    disks.run("mkfs.btrfs", "-q", "-f", "-M", "-n", "4096", "-m", "single", image)
    with mounted_with(image, "loop,noatime,commit=300,compress=zlib") as root:
        (root / "old").write_bytes(b"o" * 9000)
        (root / "shorter").write_bytes(random.Random(1).randbytes(9000))
        (root / "d").mkdir()
        disks.run("sync", "-f", root)
        for name, at, data in (
            ("old", 4096, disks.MARKER),
            ("d/new", 0, b"." * 9000 + disks.MARKER),
            ("d/small", 0, b"s"),
        ):
            with (root / name).open("r+b" if name == "old" else "wb") as file:
                file.seek(at)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        with (root / "shorter").open("r+b") as file:
            file.truncate(10)
            os.fsync(file.fileno())
        (root / "d").chmod(0o700)
        directory = os.open(root / "d", os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        (root / "lost").write_bytes(b"l" * 9000)
        powerless(image, crashed)
    raw = crashed.read_bytes()
    with mounted_with(crashed, "loop,subvolid=5") as root:
        return Record(raw, seen(root))


def main(words: Sequence[str]) -> int:
    if words[:1] == ["campaign"]:
        return min(1, campaign(int(words[1]), int(words[2])))
    if words[:1] == ["crash"]:
        return min(1, crash(int(words[1]), int(words[2])))
    with tempfile.TemporaryDirectory() as folder:
        save(SNAPSHOTS, snapshots_and_packed_files(Path(folder) / "image"))
        save(LOGGED, a_log(Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
