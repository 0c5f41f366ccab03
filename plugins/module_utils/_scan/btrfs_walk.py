# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All files of a btrfs, in all of its subvolumes: tree by tree and inode by inode, not by its directories.

Snapshots share what they hold: a content that several of them have has one key, so that it is judged once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from .blocks import Blocks
from .btrfs import Btrfs
from .btrfs_content import Content, key_of
from .btrfs_log import states
from .btrfs_proof import Proof
from .btrfs_records import BEHIND, CHUNKS, EXTENTS, GROUPS, INODE, OWN, ROOTS, SUPER, TOP, Inode, Piece, Tree
from .fat import MAX_DEPTH
from .layout import ForeignFile, NotReadable, opened_when_read
from .partitions import Extent

_MOST_ATTRIBUTES = 16 << 20  # bytes of one inode's
_UNKNOWN = (
    "what its log will make of it at the next mount is not known (%s). "
    "Start and shut the VM down cleanly, or mount a copy"
)
_MOST_PATHS, _LONGEST = 1 << 15, 4096
_DEVICES, _SUMS, _QUOTAS, _UUIDS, _FREE = 4, 7, 8, 9, 10
_WITHOUT_FILES = (EXTENTS, CHUNKS, _DEVICES, _SUMS, _QUOTAS, _UUIDS, _FREE, GROUPS)


class Entry(NamedTuple):
    """One name in a directory. `within`: its path from where its subvolume may be mounted."""

    path: str
    within: str
    parent: int
    inode: Inode

    def attributes(self) -> bytes:
        return b"".join(self.inode.extended)


class BtrfsWalk:
    """After the walk `unproven` tells why some of it may be missing."""

    def __init__(self, volume: Blocks) -> None:
        self._volume, self._fs = volume, Btrfs(volume)
        self._log = self._fs.log()
        self._proof = Proof(volume, self._fs)
        self._paths: dict[int, dict[int, str]] = {}  # of directories, by their trees
        self._attributed: dict[int, tuple[Btrfs, Tree, int]] = {}  # by a hash of them, for many have the same
        self._tops = {TOP: ""}  # of subvolumes
        self._is_shared = sum(number >= OWN for number in self._fs.trees) > 1

    def edges(self) -> list[Extent]:
        """What lies before and behind it, and what no file has of the extents that are in use."""
        end = self._fs.head.end
        around = (0, SUPER), (SUPER + 4096, 1 << 20), (end, self._volume.size)
        return [*(Extent(low, high - low) for low, high in around), *self._proof.rest]

    def files(
        self,
        enter: Callable[[str], bool] = lambda path: True,
        see: Callable[[Any, Entry], None] = lambda directory, entry: None,
    ) -> Iterator[ForeignFile]:
        """All files, whatever is to be entered. `see` is shown each name in a directory."""
        for number in sorted(self._fs.trees):
            tree = self._fs.trees[number]
            if number in _WITHOUT_FILES:
                for leaf in self._fs.leaves(tree):
                    if any(row[1] == INODE for row in leaf.rows):
                        self._fs.add("tree %d holds files, which are not looked for there" % number)
            else:
                if number < OWN and number not in (ROOTS, TOP):
                    self._fs.add("what tree %d holds is not known here" % number)
                yield from self._files(tree, see)
                self._paths.pop(number, None)
        if self._log is not None:
            for number, tree in sorted(self._log.trees.items()):
                if number not in self._fs.trees or number < OWN and number != TOP:
                    self._log.add("it changes tree %d" % number)
                else:
                    yield from self._logged(self._log, tree, see)
            for text in self._log.odd:
                self._fs.add(_UNKNOWN % text)

    def _files(self, tree: Tree, see: Callable[[Any, Entry], None]) -> Iterator[ForeignFile]:
        named = listed = looked_up = 0
        unnamed = set[int]()
        for inode in self._fs.inodes(tree):
            if inode.damage:
                self._fs.add("inode %d of tree %d was not read: %s" % (inode.number, tree.number, inode.damage))
            listed, looked_up = listed + inode.listed, looked_up + inode.looked_up
            names = [one for one in inode.names if one[0] != inode.number]  # the top is its own
            named += sum(hash((parent, inode.number, name)) for parent, name in names)
            if not inode.raw:
                if inode.extents:
                    self._fs.add("tree %d holds content of inodes that are not there" % tree.number)
                continue
            self._attributes(self._fs, tree, inode)
            entries = [self._entry(tree, parent, name, inode) for parent, name in names]
            if names and inode.is_directory:  # most come before what is in them
                self._paths[tree.number][inode.number] = entries[0].within
            entries += [self._entry(tree, inode.number, name, root) for name, root in inode.subvolumes]
            for entry in entries:
                see(entry.parent, entry)
            if inode.is_file:  # what others have of extents nobody reads
                pieces = self._pieces(inode)
                if not names:
                    unnamed.add(inode.number)
                paths = [entry.path for entry in entries[: len(names)]]
                for path in paths or ["%s/(inode %d)" % (self._top(tree.number), inode.number)]:
                    yield self._file(path, inode, pieces, inode.size)
        if tree.is_alive and tree.number != ROOTS:
            if not named == listed == looked_up:
                self._fs.add("directories of tree %d name other files than there are" % tree.number)
            unnamed -= self._fs.orphans(tree)
            if unnamed:
                self._fs.add("no directory names %d inodes of tree %d that are in use" % (len(unnamed), tree.number))

    def _logged(self, log: Btrfs, tree: Tree, see: Callable[[Any, Entry], None]) -> Iterator[ForeignFile]:
        """What the log makes of files, and how it calls them."""
        main = self._fs.trees[tree.number]
        for inode in log.inodes(tree):
            if inode.damage or (inode.extents and not inode.raw):
                log.add("inode %d of tree %d was not read" % (inode.number, tree.number))
            before, names = self._fs.inode(main, inode.number), list[tuple[int, bytes, Inode]]()
            for child, name in inode.children:
                one = log.inode(tree, child) or self._fs.inode(main, child)
                names += [(inode.number, name, one)] if one is not None else []
            self._attributes(log, tree, inode)
            itself = inode if inode.raw else before
            if itself is not None:
                names += [(parent, name, itself) for parent, name in inode.names if parent != inode.number]
            for parent, name, one in names:
                known = self._fs.inode(main, one.number) if one.is_directory else None
                if known is not None and (parent, name) not in known.names:
                    log.add("it gives directories another place")
                entry = self._entry(main, parent, name, one)
                see(entry.parent, entry)
            # One that the log has no generation of stays what it was, whatever it is in the log
            if inode.raw and (inode.is_file or before is not None and before.is_file):
                yield from self._states(log, main, inode, before)
            elif inode.raw and inode.extents and not inode.is_link:
                log.add("inode %d of tree %d has content, and is no file" % (inode.number, tree.number))

    def _states(self, log: Btrfs, tree: Tree, inode: Inode, before: Inode | None) -> Iterator[ForeignFile]:
        names = inode.names or (before.names if before is not None else [])
        paths = [self._entry(tree, parent, name, inode).path for parent, name in names]
        try:
            found = list(states(inode, before, self._fs.head.sector))
            self._proof.log(inode.pieces())
        except Exception as exc:  # noqa: BLE001 - the edge to a parser that an attacker feeds
            log.add("inode %d of tree %d was not read: %s" % (inode.number, tree.number, exc))
            return
        for pieces, size in found:
            for path in paths or ["%s/(inode %d)" % (self._top(tree.number), inode.number)]:
                yield self._file(path, inode, pieces, size)

    def _entry(self, tree: Tree, parent: int, name: bytes, inode: Inode) -> Entry:
        within = "%s/%s" % (self._path(tree, parent), _decoded(name))
        return Entry(self._top(tree.number) + within, within, tree.number << 64 | parent, inode)

    def _path(self, tree: Tree, number: int) -> str:
        """Of a directory, below the top of its tree."""
        known = self._paths.setdefault(tree.number, {})
        if len(known) > _MOST_PATHS:
            known.clear()
        known[OWN] = ""
        way: dict[int, bytes] = {}
        while number not in known:
            place = self._fs.directory(tree, number)
            if place is None and self._log is not None and tree.number in self._log.trees:
                place = self._log.directory(self._log.trees[tree.number], number)
            if place is None or number in way or len(way) > MAX_DEPTH:
                if tree.is_alive:
                    self._fs.add("directories of tree %d have no name, or hold each other" % tree.number)
                known[number] = "/(directory %d)" % number
                way.pop(number, None)
                break
            way[number] = place[1]
            number = place[0]
        for child, name in reversed(way.items()):
            number, above = child, known[number]
            known[number] = "%s/%s" % (above, _decoded(name)) if len(above) < _LONGEST else "/(directory %d)" % number
        return known[number]

    def _top(self, number: int) -> str:
        """Where in the top level volume a subvolume is."""
        if number in self._tops:
            return self._tops[number]
        tree, place = self._fs.trees.get(number), self._fs.parents.get(number)
        self._tops[number] = "/(%s %d)" % ("subvolume" if tree and tree.is_alive else "deleted subvolume", number)
        if tree is None or number == ROOTS or number >= BEHIND[0] >> 1:
            self._tops[number] = "/(tree %d)" % number
        elif tree.is_alive and place is not None and place[0] in self._fs.trees:
            parent, directory, name = place
            within = self._path(self._fs.trees[parent], directory)
            self._tops[number] = "%s%s/%s" % (self._top(parent), within, _decoded(name))
        return self._tops[number]

    def _pieces(self, inode: Inode) -> list[Piece]:
        try:
            pieces = inode.pieces()
        except Exception as exc:  # noqa: BLE001 - the edge to a parser that an attacker feeds
            self._fs.add("inode %d of tree %d was not read: %s" % (inode.number, inode.tree, exc))
            return []
        self._proof.refer(pieces, inode.size)
        return pieces

    def _file(self, path: str, inode: Inode, pieces: list[Piece], size: int) -> ForeignFile:
        def content() -> Content:
            whole = pieces or inode.pieces()  # which tells what is wrong with them
            return Content(self._volume, self._fs.place, self._fs.head.sector, whole, size)

        key = key_of(pieces, size) if pieces and (self._is_shared or inode.links > 1) else None
        return opened_when_read(path, size, inode.status, content, key)

    def _attributes(self, fs: Btrfs, tree: Tree, inode: Inode) -> None:
        if inode.extended:
            self._attributed.setdefault(hash(tuple(inode.extended)), (fs, tree, inode.number))

    def unnamed(self) -> Iterator[ForeignFile]:
        """They are among `files`."""
        return iter(())

    def attributes(self) -> Iterator[tuple[int, Callable[[], bytes]]]:
        """After all files: extended attributes, each of several that are the same once, by the number of an inode."""
        for fs, tree, number in self._attributed.values():
            yield number, lambda fs=fs, tree=tree, number=number: _extended(fs, tree, number)  # type: ignore[misc]

    def doubts(self) -> list[str]:
        return self._fs.head.doubts()

    def odd(self) -> list[str]:
        """What was met that could not be read, or only in one of several ways."""
        return self._fs.odd

    def unproven(self) -> str:
        self._proof.run()
        return "; ".join(self._fs.odd)


def _extended(fs: Btrfs, tree: Tree, number: int) -> bytes:
    found = next(fs.inodes(tree, number)).extended
    if sum(map(len, found)) > _MOST_ATTRIBUTES:
        raise NotReadable("they are larger than %d MiB" % (_MOST_ATTRIBUTES >> 20))
    return b"".join(found)


def _decoded(name: bytes) -> str:
    """A path is split again."""
    return name.decode("utf-8", "surrogateescape").replace("/", "\ufffd")
