# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takes files out of a disk, as it runs in the confined child: every volume, each directory on the way to a file."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator, Sequence
from typing import Callable

from .archive import Archive, CannotWrite, Read
from .blocks import Blocks, is_blank
from .ext4 import ROOT, Ext4
from .ext4_records import Inode
from .foreign import READABLE, identify, open_volume
from .journal import replay
from .judge import Emit
from .lvm import read_groups
from .marks import marks
from .partitions import Extent, read_table
from .patterns import Patterns
from .verdict import printable
from .xfs_replay import replay as replay_xfs

_DEEPEST = 100
_MOST_TOLD = 200
_STEP = 1 << 20
_FOLDING = ("ntfs", "fat", "exfat")
_WITHOUT_FILES = ("swap", "boot")

Path = tuple[str, ...]


class Collector:
    """What can't be read is told, and the rest is taken."""

    def __init__(self, patterns: Sequence[str], archive: Archive, emit: Emit) -> None:
        self._texts = patterns
        self._archive = archive
        self._emit = emit
        self._physical: list[Blocks] = []
        self._count = self._missing = 0
        self._told = 0.0

    def run(self, disk: Blocks) -> None:
        """All volumes; ends with the message `finished`."""
        self._guard("The partition table", lambda: self._partitions(disk))
        if self._physical:
            self._guard("LVM", self._logical_volumes)
        self._archive.finish()
        self._emit("finished", {"files": self._archive.files, "bytes": self._archive.bytes, "missing": self._missing})

    def _partitions(self, disk: Blocks) -> None:
        table = read_table(disk)
        for doubt in table.doubts:
            self._miss("The disk may look different to the guest: %s." % doubt)
        for part in table.parts or [Extent(0, disk.size)]:
            self._volume(table.volume(disk, part), part.start, "")

    def _logical_volumes(self) -> None:
        found = read_groups(self._physical)
        for problem in found.problems:
            self._miss(problem)
        for volume in found.volumes:
            self._volume(volume, 0, printable(volume.name, 64))

    def _volume(self, volume: Blocks, start: int, name: str) -> None:
        self._count += 1
        number, missing, kinds = self._count, self._missing, ["unknown"]
        what = "Volume %d%s" % (number, " (%s)" % name if name else "")

        def take() -> None:
            found = marks(volume)
            kinds[0] = kind = found[0] if found else identify(volume)
            if len(found) > 1:
                self._miss("%s bears the marks of several file systems (%s)." % (what, ", ".join(found)))
            if kind == "ext":
                self._ext(what, number, volume)
            elif kind in READABLE:
                self._foreign(what, number, kind, volume)
            elif kind == "lvm" and not name:
                self._physical.append(volume)
            elif kind == "unknown" and _is_empty(volume):
                kinds[0] = "empty"
            elif kind not in _WITHOUT_FILES:
                self._miss("%s was not read: what it holds can't be read here (%s)." % (what, kind))

        self._guard(what, take)
        told = {"number": number, "name": name, "start": start, "size": volume.size, "type": kinds[0]}
        self._emit("volume", {**told, "read": kinds[0] not in (*_WITHOUT_FILES, "lvm") and self._missing == missing})

    def _guard(self, what: str, step: Callable[[], None]) -> None:
        """Hostile input may raise anything in a parser. Whatever it is, the rest is taken."""
        try:
            step()
        except CannotWrite:
            raise
        except Exception as exc:  # noqa: BLE001 - the edge to parsers that an attacker feeds
            self._miss("%s was not read: %s." % (what, str(exc).rstrip(".") or type(exc).__name__))

    def _miss(self, text: str) -> None:
        self._missing += 1
        if self._missing <= _MOST_TOLD:
            self._emit("missing", {"text": printable(text)})

    def _file(self, what: str, path: Path, size: int, read: Read, mode: int, owner: tuple[int, int], at: int) -> None:
        label = "%s of %s" % (printable("/" + "/".join(path[1:]), 300), what[0].lower() + what[1:])
        self._guard(label, lambda: self._archive.add(path, size, read, mode, owner, at))
        now = time.monotonic()
        if now - self._told >= 1:
            self._told = now
            self._emit("progress", {"files": self._archive.files, "bytes": self._archive.bytes})

    def _ext(self, what: str, number: int, volume: Blocks) -> None:
        fs = Ext4(self._replayed(what, volume, "ext"))
        for doubt in fs.doubts():
            self._miss("%s may look different to the guest: %s." % (what, doubt))
        patterns = Patterns(self._texts)
        for path, inode in self._walk(what, fs, patterns):
            if patterns.wants(path):
                self._ext_file(what, (str(number), *path), fs, inode)

    def _replayed(self, what: str, volume: Blocks, kind: str) -> Blocks:
        """As the guest will see it after its next mount."""
        try:
            return (replay_xfs(volume) if kind == "xfs" else replay(volume, Ext4(volume))) or volume
        except Exception as exc:  # noqa: BLE001 - the edge to a parser that an attacker feeds
            self._miss("%s was read as it lies, without what its journal holds (%s)." % (what, exc))
            return volume

    def _walk(self, what: str, fs: Ext4, patterns: Patterns) -> Iterator[tuple[Path, Inode]]:
        """The files of every directory on the way, by their paths; each directory once, symbolic links not followed."""
        pending: list[tuple[Path, Inode]] = [((), fs.inode(ROOT))]
        seen = {ROOT}
        while pending:
            directory, inode = pending.pop()
            shown = "Directory %s of %s" % (printable("/" + "/".join(directory), 300), what[0].lower() + what[1:])
            for path, entry in self._entries(shown, fs, directory, inode, patterns):
                if entry.is_file:
                    yield path, entry
                elif entry.is_dir and patterns.enters(path):
                    if entry.number in seen or len(path) > _DEEPEST:
                        self._miss("%s was not read in full: a directory in it is nested too deeply, or twice." % shown)
                        continue
                    seen.add(entry.number)
                    pending.append((path, entry))
                elif stat.S_ISLNK(entry.mode) and patterns.leads(path):
                    self._miss("%s holds a symbolic link to another directory, which was not followed." % shown)
                elif not entry.mode:
                    self._miss("%s names an inode that is free (%d)." % (shown, entry.number))

    def _entries(
        self, shown: str, fs: Ext4, directory: Path, inode: Inode, patterns: Patterns
    ) -> list[tuple[Path, Inode]]:
        """What of a directory is wanted, or may hold what is; if the directory is damaged, what comes before that."""
        found: list[tuple[Path, Inode]] = []

        def read() -> None:
            for number, name in fs.entries(inode):
                path = (*directory, name.decode("utf-8", "surrogateescape"))
                if patterns.wants(path) or patterns.enters(path):
                    found.append((path, fs.inode(number)))

        self._guard(shown, read)
        return sorted(found, key=lambda one: one[0])

    def _ext_file(self, what: str, path: Path, fs: Ext4, inode: Inode) -> None:
        def read(offset: int, length: int) -> bytes:
            return fs.read(inode, offset, length)

        self._file(what, path, inode.size, read, inode.mode, inode.owner, inode.modified)

    def _foreign(self, what: str, number: int, kind: str, volume: Blocks) -> None:
        fs = open_volume(kind, self._replayed(what, volume, kind) if kind == "xfs" else volume)
        for doubt in fs.doubts():
            self._miss("%s may look different to the guest: %s." % (what, doubt))
        patterns = Patterns(self._texts, fold=kind in _FOLDING)
        for file in fs.files(lambda path: patterns.enters(_split(path))):
            path = _split(file.path)
            if patterns.wants(path):
                status = file.status()
                owner = (max(0, status.st_uid or 0), max(0, status.st_gid or 0))
                mtime = int(status.st_mtime)
                self._file(what, (str(number), *path), file.size, file.read, status.st_mode, owner, mtime)
        for oddity in fs.odd():
            self._miss("%s may hold more: %s." % (what, oddity))


def _split(path: str) -> Path:
    return tuple(part for part in path.split("/") if part)


def _is_empty(volume: Blocks) -> bool:
    for at in range(0, volume.size, _STEP):
        data = volume.read(at, min(_STEP, volume.size - at))
        if not is_blank(data):
            return False
    return True
