# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of a live host, as its kernel shows them: every regular file below some paths, through every engine."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable

from .engines import PLANTED, WINDOW, Engine
from .job import BadInput, Request, check_directory, confined, outcome, prepare, spent
from .judge import Emit, Judge
from .self_test import see_inside
from .verdict import ELSEWHERE, Volume, Where, printable

# File systems that hold no files of their own, and those whose files lie on another host
_KERNEL = frozenset(
    b"autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts efivarfs fusectl hugetlbfs mqueue nsfs proc pstore "
    b"rpc_pipefs securityfs selinuxfs sysfs tracefs".split()
)
_ELSEWHERE = frozenset(b"9p afs ceph cifs fuse.glusterfs fuse.sshfs lustre nfs nfs4 smb3 smbfs virtiofs".split())
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GONE = (FileNotFoundError, NotADirectoryError)
_MOST_LEFT_OUT = 100
_AGAIN = 3  # times that the directories which changed meanwhile are listed anew
_FINEST = 2_000_000_000  # nanoseconds: some file systems tell no time more exactly
_TRUST = "A live host is read through its own kernel: what a rootkit hides there was not seen."

Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True)
class Area:
    """What to read, and what not: absolute paths. `mounts`: the kind of file system at each mount point."""

    paths: tuple[bytes, ...]
    exclude: frozenset[bytes]
    mounts: dict[bytes, bytes]


def scan_host(request: Request, paths: Sequence[str], exclude: Sequence[str]) -> dict[str, Any]:
    if not paths:
        raise BadInput("Cannot scan nothing: name at least one path.")
    check_directory(request)
    area = Area(_absolute(paths), frozenset(_absolute(exclude)), mounts())
    planted = os.path.realpath(tempfile.mkdtemp(prefix="vmward-self-test-"))
    try:
        with open(os.path.join(planted, "sample"), "wb", opener=_private) as file:
            file.write(PLANTED)
        listener, ended = confined(
            replace(request, limits=replace(request.limits, reads_all=True)),
            (),
            lambda emit: _prepare(request, area, os.fsencode(planted), emit),
        )
    finally:
        shutil.rmtree(planted)
    told = {**outcome(listener.tally, ended), **spent(ended)}
    of_disks = ("changes", "changes_count", "bases", "bytes_from_disk")
    return {key: value for key, value in told.items() if key not in of_disks}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _absolute(paths: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(os.fsencode(os.path.realpath(path)) for path in paths)


def mounts(table: str = "/proc/self/mountinfo") -> dict[bytes, bytes]:
    """The kinds of those that can be seen: what lies beneath a later one is a directory of that."""
    rows: dict[bytes, list[tuple[bytes, bytes, bytes]]] = {}
    numbers = set()
    with open(table, "rb") as file:
        for line in file:
            fields, _dash, rest = line.partition(b" - ")
            number, parent, _device, _root, escaped = fields.split()[:5]
            place = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), escaped)
            parent = b"" if parent == number else parent  # the first root of all
            rows.setdefault(parent, []).append((number, place, rest.split()[0]))
            numbers.add(number)
    found = {}
    pending = [row for parent, below in rows.items() if parent not in numbers for row in below]
    while pending:
        number, place, kind = pending.pop()
        found[place] = kind
        below = rows.get(number, [])
        places = {other for _number, other, _kind in below}
        pending += [row for row in below if places.isdisjoint(_above(row[1]))]
    return found


def _above(path: bytes) -> Iterator[bytes]:
    while path != b"/":
        path = os.path.dirname(path)
        yield path


def _prepare(request: Request, area: Area, planted: bytes, emit: Emit) -> Callable[[Emit], None]:
    prepared = prepare(request, emit)
    if prepared is None:
        return lambda emit: None
    judge, own = prepared.judge, os.stat(planted)

    def work(emit: Emit) -> None:
        blind = [engine.name for engine in judge.engines if engine.name == "yara" and not _sees(engine, area, planted)]
        if blind:
            emit("reason", {"text": "The self-test failed: a sample in a private file was missed. Nothing was read."})
            return
        if not see_inside(judge.engines, emit):
            return
        Walk(judge, area, {(own.st_dev, own.st_ino)}).run()
        judge.note(_TRUST)
        emit("finished", {})

    return work


def _sees(engine: Engine, area: Area, planted: bytes) -> bool:
    """Whether a sample that only its owner may read is found on the way that all files take."""
    found: list[str] = []

    def take(kind: str, body: dict[str, Any]) -> None:
        if kind == "finding":
            found.append(body["path"])

    with engine.testing():
        Walk(Judge([engine], take, WINDOW), replace(area, paths=(planted,), exclude=frozenset())).run()
    return set(found) == {printable(os.path.join(planted, b"sample"))}


@dataclass(frozen=True)
class Listing:
    """An open directory that is listed: `again`, what did not change since the walk began was read before."""

    fd: int
    path: bytes
    volume: int
    device: int
    again: bool


class Walk:
    """Directories by their paths, each once and then again if it changed; symbolic links are not followed."""

    def __init__(self, judge: Judge, area: Area, own: Iterable[Identity] = ()) -> None:
        """`own`: directories of this scan, which are not read by whatever path."""
        self._judge = judge
        self._area = area
        self._own = frozenset(own)
        self._since = _now() - _FINEST
        self._pending: list[tuple[bytes, int, Identity | None]] = []
        self._listed: dict[Identity, tuple[int, bool]] = {}
        self._places: dict[bytes, tuple[int, Identity]] = {}
        self._recent: set[tuple[int, int, int]] = set()
        self._kinds: list[bytes] = []
        self._unread: set[int] = set()
        self._mounted: set[bytes] = set()
        self._missed: set[bytes] = set()
        self._gone = self._moving = 0
        self._lost: dict[Identity, tuple[bytes, int]] = {}
        self._left_out: dict[str, None] = {}
        self._elsewhere: dict[str, None] = {}

    def run(self) -> None:
        is_whole = self._judge.guard("The rest of the host", self._read_all)
        for identity, (path, volume) in self._lost.items():
            if identity not in self._listed:
                self._miss(path, volume, "it went away, and was not found under another name")
        for number, kind in enumerate(self._kinds):
            read = is_whole and number not in self._unread
            self._judge.emit("volume", vars(Volume("host", number + 1, 0, 0, printable(kind, 64), read)))
        left_out = [*self._elsewhere, *self._left_out]
        for told in left_out[:_MOST_LEFT_OUT]:
            self._judge.note(told)
        if len(left_out) > _MOST_LEFT_OUT:
            self._judge.note("%d more paths were left out." % (len(left_out) - _MOST_LEFT_OUT))
        if self._gone:
            self._judge.note("%d files went away while they were to be read." % self._gone)
        self._judge.flush()
        self._judge.tell(force=True)

    def _read_all(self) -> None:
        for path in self._area.paths:
            at = path
            while at not in self._area.mounts and at != b"/":
                at = os.path.dirname(at)
            kind = self._area.mounts.get(at, b"unknown")
            self._name(path, len(self._kinds), kind)
            self._begin(path, kind)
            self._directories()
        self._look_again()

    def _directories(self) -> None:
        while self._pending:
            self._directory(*self._pending.pop())

    def _look_again(self) -> None:
        """What was renamed or moved meanwhile may have been read under neither name: where it is now has changed."""
        for _time in range(_AGAIN):
            self._moving = 0
            self._pending = [(path, *place) for path, place in self._places.items()]
            self._directories()
            if not self._moving:
                return
        told = "%d directories changed each time they were listed: what came into them last may not have been read."
        self._judge.note(told % self._moving)

    def _begin(self, path: bytes, kind: bytes) -> None:
        """A path that was asked for, or another file system on the way."""
        if path in self._area.exclude or kind in _KERNEL:
            self._left_out["%s was left out." % printable(path, 300)] = None
            return
        if kind in _ELSEWHERE:
            self._elsewhere["%s%s (%s). Scan it there." % (ELSEWHERE, printable(path, 300), printable(kind))] = None
            return
        self._kinds.append(kind)
        volume = len(self._kinds) - 1
        try:
            mode = os.stat(path).st_mode
            if path in self._area.mounts:
                space = os.statvfs(path)
                self._judge.emit("expect", {"bytes": (space.f_blocks - space.f_bfree) * space.f_frsize})
        except OSError as exc:
            self._miss(path, volume, exc.strerror or str(exc))
            return
        if stat.S_ISDIR(mode):
            self._pending.append((path, volume, None))
        elif not (stat.S_ISREG(mode) and self._file(path, path, volume)):
            self._miss(path, volume, "there is neither a file nor a directory")

    def _name(self, path: bytes, volume: int, kind: bytes) -> None:
        for rule in self._judge.indicators.of_path(os.fsdecode(path), os.fsdecode(kind)):
            self._judge.named(Where("host", volume + 1), path, rule)

    def _directory(self, path: bytes, volume: int, identity: Identity | None) -> None:
        try:
            fd = os.open(path, _OPEN | os.O_DIRECTORY)
        except _GONE as exc:
            if identity is None:
                self._miss(path, volume, exc.strerror or str(exc))
            else:
                self._lost[identity] = path, volume  # it may be found under another name: judged when all was read
            return
        except OSError as exc:
            self._miss(path, volume, exc.strerror or str(exc))
            return
        try:
            self._unless_listed(fd, path, volume)
        except OSError as exc:
            self._miss(path, volume, exc.strerror or str(exc))
        finally:
            os.close(fd)

    def _unless_listed(self, fd: int, path: bytes, volume: int) -> None:
        """List it, unless that was done since it changed last: for sure, so not within the same moment."""
        status = os.fstat(fd)
        found, changed = (status.st_dev, status.st_ino), status.st_ctime_ns
        before = self._listed.get(found)
        if found in self._own or before == (changed, True):
            return
        self._moving += before is not None and before[0] != changed
        self._listed[found] = changed, changed < _now() - _FINEST
        self._places[path] = volume, found
        self._list(Listing(fd, path, volume, status.st_dev, before is not None))

    def _list(self, listing: Listing) -> None:
        """Once more for the files that went away meanwhile: they may have other names now."""
        gone: set[int] = set()
        with os.scandir(listing.fd) as entries:
            for entry in entries:
                if not self._entry(listing, entry):
                    gone.add(entry.inode())
        if gone:
            with os.scandir(listing.fd) as entries:
                for entry in entries:
                    if entry.inode() in gone and self._entry(listing, entry):
                        gone.discard(entry.inode())
        self._gone += len(gone)

    def _entry(self, listing: Listing, entry: os.DirEntry[str]) -> bool:
        """Whether it was still there: a directory is not opened yet."""
        path, volume = os.path.join(listing.path, os.fsencode(entry.name)), listing.volume
        self._name(path, volume, self._kinds[volume])
        if path in self._area.exclude:
            self._left_out["%s was left out." % printable(path, 300)] = None
        elif entry.is_dir(follow_symlinks=False):
            if path not in self._area.mounts:
                self._pending.append((path, volume, (listing.device, entry.inode())))
            elif path not in self._mounted:
                self._mounted.add(path)
                self._begin(path, self._area.mounts[path])
        elif entry.is_file(follow_symlinks=False):
            return self._file(entry.name, path, volume, listing)
        return True

    def _file(self, name: str | bytes, path: bytes, volume: int, listing: Listing | None = None) -> bool:
        """Whether it was still there. By its directory's descriptor, whatever that is called by now."""
        try:
            fd = os.open(name, _OPEN, dir_fd=listing.fd if listing else None)
        except _GONE:
            return False
        except OSError as exc:
            self._miss(path, volume, exc.strerror or str(exc))
            return True
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and not (listing and listing.again and self._was_read(status)):
                self._note_recent(status)
                before = self._judge.reasons
                key = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
                content = self._judge.content(status.st_size, lambda at, size: _read(fd, at, size), lambda: _data(fd))
                self._judge.file(Where("host", volume + 1), content, lambda: path, key)
                if self._judge.reasons > before:
                    self._unread.add(volume)
        finally:
            os.close(fd)
        return True

    def _was_read(self, status: os.stat_result) -> bool:
        """When its directory was listed before: what was written, renamed or moved there since has changed itself."""
        return status.st_ctime_ns < self._since or _stamp(status) in self._recent

    def _note_recent(self, status: os.stat_result) -> None:
        if status.st_ctime_ns >= self._since:
            self._recent.add(_stamp(status))

    def _miss(self, path: bytes, volume: int, why: str) -> None:
        self._unread.add(volume)
        if path not in self._missed:
            self._missed.add(path)
            self._judge.reason("%s was not read: %s." % (printable(path, 300), why))


def _now() -> int:
    """By the clock of which the kernel gives files their times."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _read(fd: int, at: int, size: int) -> bytes:
    """What is there now: a file may grow or shrink meanwhile."""
    parts = []
    while size > 0:
        data = os.pread(fd, size, at)
        if not data:
            break
        parts.append(data)
        at, size = at + len(data), size - len(data)
    return b"".join(parts)


def _data(fd: int) -> list[tuple[int, int]]:
    """All that is not a hole, as (start, length)."""
    found: list[tuple[int, int]] = []
    at = 0
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError:
            return found
        found.append((start, at - start))
