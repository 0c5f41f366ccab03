# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the inodes of an ext file system are called."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Callable

from .baseline import VolumeIndex
from .ext4 import ROOT, Ext4
from .ext4_records import DEEPER, BadFilesystem, Inode

_DEEPEST = 256


class Names:
    """Who is named where, read only once a name is needed; and which entries bear one of the wanted names."""

    def __init__(self, fs: Ext4, wanted: frozenset[bytes] = frozenset()) -> None:
        self._fs = fs
        self._wanted = wanted
        self._found: dict[tuple[int, bytes], None] = {}
        self._parents: dict[int, tuple[int, bytes]] = {}
        self._done = False
        self.problems: list[str] = []

    def listed(self) -> set[int]:
        if not self._done:
            self._done = True
            for directory in self._fs.used_inodes(stat.S_IFDIR):
                self._read(directory)
        return set(self._parents)

    def _read(self, directory: Inode) -> None:
        with _told(self.problems, directory):
            strays = 0
            for number, name in self._fs.entries(directory):
                if name in self._wanted:
                    self._found[directory.number, name] = None
                if 1 <= number <= self._fs.inodes_count:
                    self._parents.setdefault(number, (directory.number, name))
                else:
                    strays = number
            if strays:
                raise BadFilesystem("a directory names inode %d, which does not exist" % strays)

    def found(self) -> list[bytes]:
        """The paths whose last part is one of the wanted names."""
        return [below(self.path(parent), name) for parent, name in self._found]

    def path(self, number: int) -> bytes:
        if not self._done:
            self.listed()
        return _path(number, self._parents.get)


class NamesOnTop:
    """The names of a base, but for the directories that were read again."""

    def __init__(self, fs: Ext4, index: VolumeIndex) -> None:
        self._fs = fs
        self._index = index
        self._again: set[int] = set()
        self._entries: dict[int, list[tuple[int, bytes]]] = {}
        self.problems: list[str] = []

    def read(self, directory: Inode) -> None:
        self._again.add(directory.number)
        with _told(self.problems, directory):
            for number, name in self._fs.entries(directory):
                self._entries.setdefault(number, []).append((directory.number, name))

    def forget(self, directory: int) -> None:
        """It is no directory any more."""
        self._again.add(directory)

    def entries(self, number: int) -> list[tuple[int, bytes]]:
        old = [entry for entry in self._index.entries(number) if entry[0] not in self._again]
        # By the directory's number, as a reading of the whole finds them
        return sorted(old + self._entries.get(number, []), key=lambda entry: entry[0])

    def before(self, number: int) -> list[tuple[int, bytes]]:
        return list(self._index.entries(number))

    def touched(self) -> Iterable[int]:
        """All inodes that a directory lists, or listed before, which was read again."""
        return {*self._entries, *self._index.children_of(self._again)} if self._again else ()

    def path(self, number: int) -> bytes:
        return _path(number, lambda one: next(iter(self.entries(one)), None))

    def old_path(self, number: int) -> bytes:
        return _path(number, lambda one: next(iter(self.before(one)), None))


def below(directory: bytes, name: bytes) -> bytes:
    return directory.rstrip(b"/") + b"/" + name


@contextmanager
def _told(problems: list[str], directory: Inode) -> Iterator[None]:
    """Whatever is wrong with one directory, what it said before that counts, and so do all others."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - the edge to a parser that an attacker feeds
        problems.append("inode %d: %s" % (directory.number, str(exc) or type(exc).__name__))


def _path(number: int, entry: Callable[[int], tuple[int, bytes] | None]) -> bytes:
    parts: list[bytes] = []
    at = number
    while at != ROOT and len(parts) < _DEEPEST:
        found = entry(at)
        if found is None:
            return b"/".join([b"(no name: inode %d)" % at, *reversed(parts)])
        at, name = found
        parts.append(name)
    return (b"/" if at == ROOT else DEEPER) + b"/".join(reversed(parts))
