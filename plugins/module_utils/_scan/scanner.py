# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The scan itself, as it runs in the confined child: every disk, every volume, every file, through every engine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

from .blocks import Blocks, Slice, UnreadableImage
from .chain import Layer, open_chain
from .engines import WINDOW, Content, Engine, EngineFailed
from .ext4 import ROOT, BadFilesystem, Ext4, Inode
from .foreign import READABLE, Foreign, NotReadable, identify, logical_volumes
from .partitions import BadPartitionTable, Extent, find_gaps, find_partitions
from .verdict import Finding, Volume, printable

Emit = Callable[[str, dict[str, Any]], None]
_EXPECTED = (UnreadableImage, BadFilesystem, NotReadable, BadPartitionTable, EngineFailed)
_REASONS_PER_VOLUME = 50


@dataclass(frozen=True)
class DiskSpec:
    name: str
    layers: tuple[Layer, ...]
    snapshot: str = ""


@dataclass(frozen=True)
class Where:
    """What is being read: for findings and for sentences."""

    disk: str
    volume: int

    def __str__(self) -> str:
        return "volume %d of disk %s" % (self.volume, self.disk)


class Scanner:
    def __init__(self, engines: Sequence[Engine], emit: Emit, whole_limit: int, max_file_size: int = 0) -> None:
        self._engines = engines
        # ClamAV judges files by their type, and raw bytes have none
        self._raw_engines = [engine for engine in engines if engine.name == "yara"]
        self._emit = emit
        self._whole_limit = whole_limit
        self._max_file_size = max_file_size
        self._files = self._bytes = 0
        self._reasons = 0
        self._told = 0.0
        self._physical: list[tuple[Where, Blocks]] = []

    def run(self, disks: Sequence[DiskSpec]) -> None:
        for disk in disks:
            self._guard("disk %s" % disk.name, self._disk, disk)
        self._guard("LVM", self._logical_volumes)
        self._tell(force=True)
        self._emit("finished", {})

    def _guard(self, what: str, step: Callable[..., Any], *arguments: Any) -> bool:
        """Hostile input may raise anything in a parser. Whatever it is, the scan goes on and is incomplete."""
        try:
            step(*arguments)
        except _EXPECTED as exc:
            self._reason("%s was not read: %s." % (what, str(exc).rstrip(".")))
        except Exception as exc:  # noqa: BLE001 - the edge to parsers that an attacker feeds
            self._reason("%s was not read: its parser failed (%s: %s)." % (what, type(exc).__name__, exc))
        else:
            return True
        return False

    def _reason(self, text: str) -> None:
        self._reasons += 1
        if self._reasons <= 1000:
            self._emit("reason", {"text": printable(text)})

    def _note(self, text: str) -> None:
        self._emit("note", {"text": printable(text)})

    def _disk(self, spec: DiskSpec) -> None:
        disk = open_chain(spec.layers, spec.snapshot)
        parts = self._parts(spec.name, disk)
        for index, part in enumerate(parts):
            volume = disk if part == Extent(0, disk.size) else Slice(disk, part.start, part.size)
            self._volume(Where(spec.name, index + 1), volume, part.start)
        gaps = find_gaps(parts, disk.size)
        if gaps:
            self._note(
                "Disk %s: %d bytes outside of its volumes were matched as raw bytes."
                % (spec.name, sum(gap.size for gap in gaps))
            )
        for gap in gaps:
            self._guard("A gap of disk %s" % spec.name, self._raw, Where(spec.name, 0), disk, gap, "outside of volumes")

    def _parts(self, name: str, disk: Blocks) -> list[Extent]:
        kind, parts = identify(disk), find_partitions(disk)
        if parts and kind != "unknown":
            self._reason("Disk %s holds a partition table and a file system (%s) in one place." % (name, kind))
        return parts or [Extent(0, disk.size)]

    def _volume(self, where: Where, volume: Blocks, start: int) -> None:
        kind = "unknown"
        before = self._reasons

        def scan() -> None:
            nonlocal kind
            kind = identify(volume)
            kind = self._by_kind(where, volume, kind)

        read = self._guard(str(where).capitalize(), scan) and self._reasons == before
        self._emit("volume", vars(Volume(where.disk, where.volume, start, volume.size, kind, read)))

    def _by_kind(self, where: Where, volume: Blocks, kind: str) -> str:
        if kind == "ext":
            fs = Ext4(volume)
            self._ext(where, fs)
            self._raw(where, volume, Extent(0, 1024), "before the file system")
            self._raw(where, volume, Extent(fs.end, volume.size - fs.end), "behind the file system")
        elif kind in READABLE:
            self._foreign(where, kind, volume)
        elif kind == "swap":
            self._raw(where, volume, Extent(0, volume.size), "swap")
            self._note("%s is swap and was matched as raw bytes." % str(where).capitalize())
        elif kind == "lvm":
            self._physical.append((where, volume))
        elif self._raw(where, volume, Extent(0, volume.size), "unread volume"):
            self._reason("%s holds nothing that can be read (%s)." % (str(where).capitalize(), kind))
        else:
            return "empty"
        return kind

    def _logical_volumes(self) -> None:
        if not self._physical:
            return
        disk = self._physical[0][0].disk
        for index, (name, volume) in enumerate(logical_volumes([blocks for _where, blocks in self._physical])):
            self._volume(Where("%s/%s" % (disk, printable(name, 64)), index + 1), volume, 0)
        self._note("Space of the volume group that belongs to no logical volume was not read.")

    def _raw(self, where: Where, source: Blocks, extent: Extent, label: str) -> bool:
        """Match raw bytes; every hit is an indicator only. Says whether there was anything but zeros."""
        something = False
        content = Content(extent.size, lambda at, length: source.read(extent.start + at, length), 0)
        for at, data in content.windows():
            self._bytes += len(data)
            self._tell()
            if data.count(0) == len(data):
                continue
            something = True
            part = Content(len(data), lambda _at, _length, data=data: data, WINDOW)  # type: ignore[misc]
            for engine in self._raw_engines:
                hits, gap = engine.scan(part)
                if gap:
                    self._reason("Raw bytes of %s: %s." % (where, gap))
                for hit in hits:
                    path = "(%s)" % label
                    self._hit(
                        "indicator",
                        where,
                        path,
                        engine.name,
                        hit.rule,
                        extent.size,
                        extent.start + at + hit.offset,
                        "",
                    )
        return something

    def _ext(self, where: Where, fs: Ext4) -> None:
        for doubt in fs.doubts():
            self._reason("%s may look different to the guest: %s." % (str(where).capitalize(), doubt))
        self._emit("expect", {"bytes": max(0, fs.blocks_count - fs.free_blocks) * fs.block_size})
        names = Names(fs)
        seen: set[int] = set()
        for inode in fs.used_inodes():
            if inode.mode:
                seen.add(inode.number)
            if inode.is_odd:
                self._reason("Inode %d on %s was not read: it is damaged." % (inode.number, where))
            if inode.is_file and not fs.is_reserved(inode.number):
                self._ext_file(where, fs, names, inode)
            self._ext_attributes(where, fs, inode)
        listed = names.listed()
        for number in sorted(listed - seen):
            # A directory names it, but it looks free: the kernel would refuse it, e2fsck may revive it.
            inode = fs.inode(number)
            if inode.is_file:
                self._ext_file(where, fs, names, inode)
            else:
                self._reason("Inode %d on %s was not read: a directory names it, but it is free." % (number, where))
        for problem in names.problems[:_REASONS_PER_VOLUME]:
            self._reason("A directory of %s was not read: %s." % (where, problem))
        hidden = [number for number in seen - listed if number != ROOT and not fs.is_reserved(number)]
        if hidden:
            self._note("%d files of %s have no name in any directory; they were scanned." % (len(hidden), where))

    def _ext_file(self, where: Where, fs: Ext4, names: Names, inode: Inode) -> None:
        def read(offset: int, length: int) -> bytes:
            return fs.read(inode, offset, length)

        content = Content(inode.size, read, self._whole_limit, lambda: fs.stretches(inode))
        self._file(where, content, lambda: names.path(inode.number))

    def _ext_attributes(self, where: Where, fs: Ext4, inode: Inode) -> None:
        if inode.acl:
            block = fs.xattr_block(inode)
            content = Content(len(block), lambda _at, _length: block, WINDOW)
            for engine in self._raw_engines:
                for hit in engine.scan(content)[0]:
                    path = "(attributes of inode %d)" % inode.number
                    self._hit("indicator", where, path, engine.name, hit.rule, len(block), hit.offset, "")

    def _foreign(self, where: Where, kind: str, volume: Blocks) -> None:
        fs = Foreign(kind, volume)
        for doubt in fs.doubts():
            self._reason("%s may look different to the guest: %s." % (str(where).capitalize(), doubt))
        self._emit("expect", {"bytes": volume.size})
        for file in fs.files():
            path = file.path
            self._file(where, Content(file.size, file.read, self._whole_limit), lambda path=path: path)  # type: ignore[misc]
        unproven = fs.unproven()
        if unproven:
            self._reason("%s was read, but not provably as a whole: %s." % (str(where).capitalize(), unproven))

    def _file(self, where: Where, content: Content, path: Callable[[], str | bytes]) -> None:
        self._files += 1
        if self._max_file_size and content.size > self._max_file_size:
            self._reason("%s on %s is larger than max_file_size." % (printable(path(), 300), where))
            return
        if not content.size:
            return
        try:
            for engine in self._engines:
                hits, gap = engine.scan(content)
                if gap:
                    self._reason("%s on %s: %s." % (printable(path(), 300), where, gap))
                for hit in hits:
                    self._hit(
                        "finding", where, path(), engine.name, hit.rule, content.size, hit.offset, _sha256(content)
                    )
        except EngineFailed:
            raise
        except Exception as exc:  # noqa: BLE001 - one hostile file must not hide the others
            self._reason("%s on %s was not read: %s." % (printable(path(), 300), where, str(exc) or type(exc).__name__))
        self._bytes += content.size if content.is_whole else 0
        self._tell()

    def _hit(
        self, kind: str, where: Where, path: Any, engine: str, rule: str, size: int, offset: int, sha256: str
    ) -> None:
        found = Finding(where.disk, where.volume, printable(path), printable(rule, 128), engine, size, offset, sha256)
        self._emit(kind, vars(found))

    def _tell(self, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._told >= 1:
            self._told = now
            self._emit("progress", {"files": self._files, "bytes": self._bytes})


class Names:
    """Who is named where in an ext file system. Read only once a name is needed."""

    def __init__(self, fs: Ext4) -> None:
        self._fs = fs
        self._parents: dict[int, tuple[int, bytes]] = {}
        self._done = False
        self.problems: list[str] = []

    def listed(self) -> set[int]:
        if not self._done:
            self._done = True
            for directory in self._fs.used_inodes():
                if directory.is_dir and not self._fs.is_reserved(directory.number):
                    self._read(directory)
        return set(self._parents)

    def _read(self, directory: Inode) -> None:
        try:
            for number, name in self._fs.entries(directory):
                self._parents.setdefault(number, (directory.number, name))
        except BadFilesystem as exc:
            self.problems.append("inode %d: %s" % (directory.number, exc))

    def path(self, number: int) -> bytes:
        if not self._done:
            self.listed()
        parts: list[bytes] = []
        at = number
        while at != ROOT and len(parts) < 256:
            if at not in self._parents:
                return b"/".join([b"(no name: inode %d)" % at, *reversed(parts)])
            at, name = self._parents[at]
            parts.append(name)
        return b"/" + b"/".join(reversed(parts))


def _sha256(content: Content) -> str:
    digest = hashlib.sha256()
    for part in content.stream():
        digest.update(part)
    return digest.hexdigest()
