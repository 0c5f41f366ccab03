# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happened to the files of a base: evidence of what was touched, whatever the verdict."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass

from .ext4 import ROOT, Ext4
from .ext4_records import Inode, attribute, attribute_in_block
from .judge import Emit, Judge
from .names import NamesOnTop
from .verdict import Change, Where, printable

_COMPARED = 64 << 20
_SECURITY = 6


@dataclass(frozen=True)
class Pair:
    """One inode, then and now; None where it was or is not in use."""

    number: int
    old: Inode | None
    new: Inode | None


def tell_changes(
    judge: Judge, where: Where, pairs: Sequence[Pair], old: Ext4, new: Ext4, names: NamesOnTop, touched: set[int] | None
) -> None:
    """`touched`: inodes one of whose blocks differs; None if former contents can't be read, so that it isn't known."""
    for pair in pairs:
        if not new.is_own(pair.number) and pair.number != ROOT:
            what = "What happened to inode %d of %s" % (pair.number, where)
            is_touched = None if touched is None else pair.number in touched
            judge.each(what, _tell_pair, judge.emit, where, pair, old, new, names, is_touched)
    told = {pair.number for pair in pairs}
    for number in sorted(set(names.touched()) - told):
        what = "What happened to inode %d of %s" % (number, where)
        judge.each(what, _tell_name, judge.emit, where, number, names)


def _tell_name(emit: Emit, where: Where, number: int, names: NamesOnTop) -> None:
    kind = _renamed(names, number)
    if kind:
        _tell(emit, where, kind, names.path(number), names.old_path(number), [], None)


def _tell_pair(
    emit: Emit, where: Where, pair: Pair, old: Ext4, new: Ext4, names: NamesOnTop, touched: bool | None
) -> None:
    was = pair.old if pair.old and pair.old.mode else None
    now = pair.new if pair.new and pair.new.mode else None
    if was and now and was.generation == now.generation and stat.S_IFMT(was.mode) == stat.S_IFMT(now.mode):
        what = _what(old, new, was, now, touched)
        kind = _renamed(names, pair.number)
        if kind or what:
            former = names.old_path(pair.number) if kind else b""
            _tell(emit, where, kind or "changed", names.path(pair.number), former, what, now)
        return
    if was:
        _tell(emit, where, "deleted", names.old_path(pair.number), b"", [], was)
    if now:
        what = ["setuid"] if _is_privileged(now) else []
        what += ["capability"] if _capability(new, now) else []
        _tell(emit, where, "new" if now.links else "orphan", names.path(pair.number), b"", what, now)


def _renamed(names: NamesOnTop, number: int) -> str:
    """What happened to its names; empty if nothing did."""
    before, after = set(names.before(number)), set(names.entries(number))
    if before == after:
        return ""
    if not after:
        return "orphan"
    return "renamed" if before - after else "linked"


def _what(old: Ext4, new: Ext4, was: Inode, now: Inode, touched: bool | None) -> list[str]:
    what = []
    if touched is None:
        if not now.is_dir and (was.shape != now.shape or was.modified != now.modified):
            what.append("content")
    elif not now.is_dir and (touched or was.shape != now.shape) and _content_differs(old, new, was, now):
        what.append("content")
        if was.times == now.times:
            what.append("mtime_forged")
        elif was.raw[16:20] == now.raw[16:20]:
            what.append("mtime_kept")
    if stat.S_IMODE(was.mode) != stat.S_IMODE(now.mode):
        what.append("mode")
    if _is_privileged(now) and not _is_privileged(was):
        what.append("setuid")
    if was.owner != now.owner:
        what.append("owner")
    if (was.acl, was.extra) != (now.acl, now.extra) or touched is not False:
        if _capability(old, was) != _capability(new, now):
            what.append("capability")
        elif (was.acl, was.extra) != (now.acl, now.extra) and not now.is_dir and "content" not in what:
            what.append("attributes")
    return what


def _content_differs(old: Ext4, new: Ext4, was: Inode, now: Inode) -> bool:
    """Blocks are compared in a coarse grain, so a neighbour may have been meant. Large ones are taken to differ."""
    if was.size != now.size or was.size > _COMPARED or not was.is_file:
        return was.size != now.size or was.block != now.block or was.size > _COMPARED
    return old.read(was, 0, was.size) != new.read(now, 0, now.size)


def _is_privileged(inode: Inode) -> bool:
    return inode.is_file and bool(inode.mode & (stat.S_ISUID | stat.S_ISGID))


def _capability(fs: Ext4, inode: Inode) -> bytes:
    found = attribute(inode.extra, _SECURITY, b"capability")
    return found or attribute_in_block(fs.xattr_block(inode), _SECURITY, b"capability") or b""


def _tell(
    emit: Emit, where: Where, kind: str, path: bytes, former: bytes, what: list[str], inode: Inode | None
) -> None:
    size, mode = (inode.size, stat.S_IMODE(inode.mode)) if inode else (0, 0)
    uid, gid = inode.owner if inode else (0, 0)
    change = Change(
        where.disk,
        where.volume,
        kind,
        printable(path),
        printable(former),
        ",".join(what),
        size,
        "%04o" % mode,
        uid,
        gid,
    )
    emit("change", vars(change))
