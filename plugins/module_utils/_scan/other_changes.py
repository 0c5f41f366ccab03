# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happened to the files of an XFS, btrfs, FAT or exFAT base: its names are held against those of now."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple

from .btrfs_walk import Entry as NamedInTree
from .exfat import ExfatRow
from .fat import Row
from .judge import Judge
from .verdict import Change, Where, printable
from .xfs_walk import Entry as Named

_ARCHIVE = 0x20  # set by every system with every change of content
_CAPABILITY = b"capability"
_WITHOUT_INODES = ("fat", "exfat")


class Entry(NamedTuple):
    """One name in a directory. `number`: the inode, or on FAT the first cluster, 0 of an empty file.

    `attributes`: a digest of the extended ones, on FAT the flags, which has no `generation` either, and no time at
    which the inode `changed` last.
    """

    path: str
    parent: int
    number: int
    mode: int
    size: int
    modified: int
    attributes: str
    generation: int = 0
    uid: int = 0
    gid: int = 0
    changed: int = 0
    capable: bool = False

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def is_privileged(self) -> bool:
        return stat.S_ISREG(self.mode) and bool(self.mode & (stat.S_ISUID | stat.S_ISGID))


# The same file, then and now, under each of its names; empty where there was or is none
Pair = tuple[Sequence[Entry], Sequence[Entry]]


def xfs_entry(directory: Named, entry: Named) -> Entry:
    return _entry(directory.inode.number, entry.inode.number, entry)


def btrfs_entry(directory: int, entry: NamedInTree) -> Entry:
    return _entry(directory, entry.inode.identity, entry)


def _entry(parent: int, number: int, entry: Named | NamedInTree) -> Entry:
    inode, extended = entry.inode, entry.attributes()
    return Entry(
        path=entry.path,
        parent=parent,
        number=number,
        generation=inode.generation,
        mode=inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        size=inode.size,
        modified=inode.modified,
        changed=inode.changed,
        attributes=hashlib.sha256(extended).hexdigest()[:16] if extended else "",
        capable=_CAPABILITY in extended,
    )


def fat_entry(directory: Row, entry: Row) -> Entry:
    """FAT tells of content by one time only, and has no owner and no permissions."""
    return Entry(
        path=entry.path,
        parent=directory.cluster,
        number=entry.cluster,
        mode=stat.S_IFDIR if entry.is_directory else stat.S_IFREG,
        size=entry.size,
        modified=entry.modified,
        attributes=str(entry.attributes & ~_ARCHIVE),
    )


def exfat_entry(directory: Row, entry: ExfatRow) -> Entry:
    return fat_entry(directory, entry)._replace(modified=entry.modified << 8 | entry.hundredths)


ENTRY_OF: dict[str, Callable[[Any, Any], Entry]] = {
    "xfs": xfs_entry,
    "btrfs": btrfs_entry,
    "fat": fat_entry,
    "exfat": exfat_entry,
}


def pack(entries: Sequence[Entry]) -> bytes:
    return json.dumps(entries).encode()


def unpack(data: bytes) -> list[Entry]:
    return [Entry(*row) for row in json.loads(data or b"[]")]


def tell_changes(
    judge: Judge, where: Where, kind: str, before: Sequence[Entry], after: Sequence[Entry], differing: set[str]
) -> None:
    """`differing`: the paths of all files whose content is not one of the base's."""
    pairs = _by_place(before, after) if kind in _WITHOUT_INODES else _by_inode(before, after)
    for was, now in pairs:
        told = _told(was, now, any(entry.path in differing for entry in now))
        if told:
            fresh = [one for one in now if not any(_name(one) == _name(other) for other in was)]
            _emit(judge, where, *told, (fresh or now or was)[0], kind not in _WITHOUT_INODES)


def _by_inode(before: Sequence[Entry], after: Sequence[Entry]) -> Iterator[Pair]:
    old, new = (_grouped((entry, _inode(entry)) for entry in entries) for entries in (before, after))
    return ((old.get(key, []), new.get(key, [])) for key in dict.fromkeys((*old, *new)))


def _name(entry: Entry) -> tuple[int, str]:
    return entry.parent, entry.name


def _inode(entry: Entry) -> Hashable:
    return entry.number, entry.generation, stat.S_IFMT(entry.mode)


def _by_place(before: Sequence[Entry], after: Sequence[Entry]) -> Iterator[Pair]:
    """A name that is there then and now is the same file; of the others those that begin at the same cluster are."""
    old, new = ({(one.parent, one.name, one.mode): one for one in entries} for entries in (before, after))
    gone = _grouped((old[key], (old[key].number, old[key].mode)) for key in old if key not in new)
    for key, one in new.items():
        if key in old:
            yield [old[key]], [one]
        elif one.number and gone.get((one.number, one.mode)):
            yield [gone[one.number, one.mode].pop()], [one]
        else:
            yield [], [one]
    for rest in gone.values():
        for one in rest:
            yield [one], []


def _grouped(entries: Iterable[tuple[Entry, Hashable]]) -> dict[Hashable, list[Entry]]:
    found: dict[Hashable, list[Entry]] = {}
    for entry, key in entries:
        found.setdefault(key, []).append(entry)
    return found


def _told(was: Sequence[Entry], now: Sequence[Entry], differs: bool) -> tuple[str, str, list[str]] | None:
    """What happened, the former path, and what changed."""
    if not now:
        return "deleted", "", []
    if not was:
        return "new", "", [*(["setuid"] if now[0].is_privileged else []), *(["capability"] if now[0].capable else [])]
    names, before = ({_name(entry) for entry in entries} for entries in (now, was))
    kind = "" if names == before else "renamed" if before - names else "linked"
    what = _what(was[0], now[0], differs)
    return (kind or "changed", was[0].path if kind else "", what) if kind or what else None


def _what(was: Entry, now: Entry, differs: bool) -> list[str]:
    what = []
    if differs or (stat.S_ISREG(now.mode) and was.size != now.size):
        what.append("content")
        if was.modified == now.modified:
            # A file system without a second time can't tell a forged one from one that was set
            what.append("mtime_forged" if was.changed and was.changed == now.changed else "mtime_kept")
    if stat.S_IMODE(was.mode) != stat.S_IMODE(now.mode):
        what.append("mode")
    if now.is_privileged and not was.is_privileged:
        what.append("setuid")
    if (was.uid, was.gid) != (now.uid, now.gid):
        what.append("owner")
    if was.attributes != now.attributes:
        what.append("capability" if was.capable or now.capable else "attributes")
    return what


def _emit(judge: Judge, where: Where, kind: str, former: str, what: list[str], entry: Entry, has_mode: bool) -> None:
    mode = "%04o" % stat.S_IMODE(entry.mode) if has_mode else ""
    path, former = printable(entry.path), printable(former)
    place = where.disk, where.volume
    change = Change(*place, kind, path, former, ",".join(what), entry.size, mode, entry.uid, entry.gid)
    judge.emit("change", vars(change))
