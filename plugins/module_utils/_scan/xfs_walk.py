# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All files of an XFS: those that its directories name, and those that only the trees of its inodes tell of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable, NamedTuple

from .blocks import Blocks
from .fat import MAX_DEPTH
from .layout import ForeignFile, NotReadable, opened_when_read
from .partitions import Extent
from .verdict import printable
from .xfs import Xfs
from .xfs_records import Inode

_MOST_ODD = 20
_DOTS = b".", b".."


class Entry(NamedTuple):
    """One name in a directory."""

    path: str
    inode: Inode
    attributes: Callable[[], bytes]  # extended ones, with what its inode says of them


class XfsWalk:
    """Walked by its directories. After the walk `unproven` tells why some of it may be missing."""

    def __init__(self, volume: Blocks) -> None:
        self._volume, self._fs = volume, Xfs(volume)
        self._reached: set[int] = set()
        self._attributed: list[int] = []
        self._odd: list[str] = []
        self._unnamed: list[str] = []

    def edges(self) -> list[Extent]:
        """What lies behind it."""
        return [Extent(self._fs.end, self._volume.size - self._fs.end)]

    def files(
        self,
        enter: Callable[[str], bool] = lambda path: True,
        see: Callable[[Entry, Entry], None] = lambda directory, entry: None,
    ) -> Iterator[ForeignFile]:
        """All files of directories that are to be entered. `see` is shown each directory with each of its entries."""
        root = self._fs.read_inode(self._fs.root)
        self._reach(root)
        pending = [(self._entry("", root), 0)]
        while pending:
            directory, depth = pending.pop()
            if depth > MAX_DEPTH:
                raise NotReadable("its directories are nested too deeply")
            for entry in self._entries(directory):
                see(directory, entry)
                is_new = self._reach(entry.inode)
                if entry.inode.is_file:
                    yield self._file(entry.path, entry.inode)
                elif entry.inode.is_directory and not is_new:
                    self._add("directory %s is named twice" % printable(entry.path, 200))
                elif entry.inode.is_directory and enter(entry.path):
                    pending.append((entry, depth + 1))

    def _entries(self, directory: Entry) -> Iterator[Entry]:
        """Damage in one of them must not hide the others."""
        try:
            for name, number in self._fs.entries(directory.inode):
                if name in _DOTS:
                    continue
                # A path is split again
                path = "%s/%s" % (directory.path, name.decode("utf-8", "surrogateescape").replace("/", "\ufffd"))
                try:
                    entry = self._entry(path, self._fs.read_inode(number))
                except Exception as exc:  # noqa: BLE001 - the edge to a parser that an attacker feeds
                    self._add("%s was not read: %s" % (printable(path, 200), _why(exc)))
                else:
                    yield entry
        except Exception as exc:  # noqa: BLE001 - the same
            self._add("directory %s was not read: %s" % (printable(directory.path, 200) or "/", _why(exc)))

    def _entry(self, path: str, inode: Inode) -> Entry:
        def attributes() -> bytes:
            return inode.attribute_fork + (self._fs.attributes(inode) if inode.has_attribute_blocks else b"")

        return Entry(path, inode, attributes)

    def _reach(self, inode: Inode) -> bool:
        """Whether it is met for the first time."""
        is_new = inode.number not in self._reached
        self._reached.add(inode.number)
        if is_new and inode.has_attribute_blocks:
            self._attributed.append(inode.number)
        return is_new

    def _file(self, path: str, inode: Inode) -> ForeignFile:
        if inode.is_real_time:
            self._add("%s may lie on a real-time device, which was not read" % printable(path, 200))
        key = inode.number if inode.links > 1 else None
        return opened_when_read(path, inode.size, inode.status, lambda: self._fs.content(inode), key)

    def unnamed(self) -> Iterator[ForeignFile]:
        """After `files` of all directories: what none of them names, but the file system holds."""
        used, marked_free = self._fs.inodes()
        own, missed = self._fs.own(), (used | marked_free) - self._reached
        for found, text in (
            (missed - own - marked_free - self._fs.deleted(), "no directory names %d inodes that are in use"),
            (self._reached - used - marked_free, "directories name %d inodes that are not in use"),
            (marked_free, "%d inodes are in use, but marked as free"),
        ):
            self._unnamed += [text % len(found)] if found else []
        for number in sorted(missed):
            try:
                inode = self._fs.read_inode(number)
            except Exception as exc:  # noqa: BLE001 - the edge to a parser that an attacker feeds
                self._add("inode %d was not read: %s" % (number, _why(exc)))
                continue
            self._reach(inode)
            if inode.is_file and inode.size:
                yield self._file("/(inode %d)" % number, inode)

    def attributes(self) -> Iterator[tuple[int, Callable[[], bytes]]]:
        """After all files: extended attributes that lie in blocks, by the number of their inode."""
        for number in self._attributed:
            yield number, lambda number=number: self._fs.attributes(self._fs.read_inode(number))  # type: ignore[misc]

    def doubts(self) -> list[str]:
        return self._fs.doubts()

    def odd(self) -> list[str]:
        """What was met that could not be read, or only in one of several ways."""
        return self._odd

    def _add(self, text: str) -> None:
        if len(self._odd) <= _MOST_ODD:
            self._odd.append(text if len(self._odd) < _MOST_ODD else "and more")

    def unproven(self) -> str:
        return "; ".join((*self._unnamed, *self._odd))


def _why(exc: Exception) -> str:
    return str(exc).rstrip(".") or type(exc).__name__
