# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happened to the files and streams of an NTFS base: evidence of what was touched, whatever the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .judge import Judge
from .ntfs import FIRST_OF_USERS, File, Ntfs
from .ntfs_judge import is_journal
from .ntfs_records import EA, REPARSE
from .verdict import Change, Where, printable

_COMPARED = 64 << 20
_ARCHIVE = 0x20  # set by Windows itself with every change of content


@dataclass(frozen=True)
class NtfsPair:
    """One file, then and now; None where there was or is none. `touched`: bytes of its clusters differ."""

    number: int
    old: File | None
    new: File | None
    touched: bool


def tell_changes(judge: Judge, where: Where, pairs: Sequence[NtfsPair], old: Ntfs, new: Ntfs) -> None:
    teller = _Teller(judge, where, old, new)
    for pair in pairs:
        if pair.number >= FIRST_OF_USERS:
            judge.each("What happened to record %d of %s" % (pair.number, where), teller.tell, pair)


class _Teller:
    def __init__(self, judge: Judge, where: Where, old: Ntfs, new: Ntfs) -> None:
        self._judge, self._where, self._old, self._new = judge, where, old, new

    def tell(self, pair: NtfsPair) -> None:
        was, now = pair.old, pair.new
        if was and now and (was.sequence, was.is_dir) == (now.sequence, now.is_dir):
            self._tell_changed(was, now, pair.touched)
            return
        if was:
            self._emit("deleted", self._old.path(was.number), b"", [], _size(self._old, was))
        if now:
            kind = "new" if now.names else "orphan"
            self._emit(kind, self._new.path(now.number), b"", [], _size(self._new, now))
            for name in filter(None, now.streams):
                self._stream("new", self._new, now, name, [])

    def _tell_changed(self, was: File, now: File, touched: bool) -> None:
        kind, former, before, after = "", b"", set(was.names), set(now.names)
        path = self._new.path(now.number, next((name for name in now.names if name not in before), None))
        if before != after:
            kind = "orphan" if not after else "renamed" if before - after else "linked"
            former = self._old.path(was.number)
        what = self._content(was, now, b"", touched) if b"" in was.streams and b"" in now.streams else []
        if was.standard[52:56] != now.standard[52:56]:
            what.append("mode")
        if _attributes(was) != _attributes(now):
            what.append("attributes")
        if kind or what:
            self._emit(kind or "changed", path, former, what, _size(self._new, now))
        for name in sorted({*filter(None, was.streams), *filter(None, now.streams)}):
            if name not in now.streams:
                self._stream("deleted", self._old, was, name, [])
            elif name not in was.streams:
                self._stream("new", self._new, now, name, [])
            elif not is_journal(now, name) and (found := self._content(was, now, name, touched)):
                self._stream("changed", self._new, now, name, found)

    def _content(self, was: File, now: File, name: bytes, touched: bool) -> list[str]:
        if not self._differs(was, now, name, touched):
            return []
        if was.standard[8:24] == now.standard[8:24]:
            return ["content", "mtime_forged"]
        return ["content", "mtime_kept"] if was.standard[8:16] == now.standard[8:16] else ["content"]

    def _differs(self, was: File, now: File, name: bytes, touched: bool) -> bool:
        """Blocks are compared in a coarse grain, so a neighbour may have been meant. Large ones are taken to differ."""
        old, new = self._old.stream(was, name), self._new.stream(now, name)
        if old == new and not touched:
            return False
        if old.size != new.size or old.size > _COMPARED:
            return old.size != new.size or old.runs != new.runs or touched
        return self._old.read(old, 0, old.size) != self._new.read(new, 0, new.size)

    def _stream(self, kind: str, fs: Ntfs, file: File, name: bytes, what: list[str]) -> None:
        self._emit(kind, fs.path(file.number) + b":" + name, b"", what, fs.stream(file, name).size)

    def _emit(self, kind: str, path: bytes, former: bytes, what: list[str], size: int) -> None:
        """NTFS has no owner by number and no permissions in octal."""
        place = self._where.disk, self._where.volume
        change = Change(*place, kind, printable(path), printable(former), ",".join(what), size, "", 0, 0)
        self._judge.emit("change", vars(change))


def _size(fs: Ntfs, file: File) -> int:
    return fs.stream(file, b"").size if b"" in file.streams else 0


def _attributes(file: File) -> tuple[object, ...]:
    """Flags (hidden, system, read-only and the like), extended attributes, and where a reparse point leads."""
    flags = int.from_bytes(file.standard[32:36], "little") & ~_ARCHIVE
    return flags, [one.raw for one in file.of(EA)], [one.raw for one in file.of(REPARSE)]
