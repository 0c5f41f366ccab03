# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What lies in a file's archives, within limits. What is unpacked is held in memory, and written nowhere."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Callable

from .cpios import cpio_members, rpm_members
from .engines import Content
from .packed import BY_CLAMAV, EMBEDDED, OTHER, UNPACKED, kinds_of
from .streams import FAILED, LZMA, LZMA_ENDED, Followed, Member, NotUnpacked, pieces
from .tars import ar_members, tar_members
from .zips import zip_members, zip_place

BETWEEN = b"!/"  # a file, and what lies in it
_PLAIN = 16 << 20  # bytes that anything may unpack to, whatever the ratio
_MOST_TOLD = 20
_MOST_PATH = 4096
_CONTAINERS = frozenset(("cpio", "tar"))  # that hold their members as they are
_BY_MEMBERS = 16 << 20  # bytes: of larger ones the members are what is judged, for ClamAV takes no file of any size


@dataclass(frozen=True)
class Archives:
    """How far those of one file are unpacked: layers, members and bytes in all, and bytes for each byte of the file."""

    depth: int = 8
    members: int = 50_000
    size: int = 1 << 30
    ratio: int = 500


class Full(Exception):
    """A limit for all of the file's archives was reached; the sentence says which."""


class Inside:
    """`judge` is given each member with its path below the file, and whether who was given what it lies in, and
    unpacks by itself, sees it too; `gap`, why one can't be judged. `left`: formats of which those that are found are
    counted."""

    def __init__(
        self,
        limits: Archives,
        judge: Callable[[bytes, Content, bool], None],
        gap: Callable[[bytes, str], None],
        left: frozenset[str] = frozenset(),
    ) -> None:
        self._limits = limits
        self._left = left
        self._judge = judge
        self._gap = gap
        self._told = 0
        self._size = self._most = 0
        self.members = self.unopened = 0
        self.lacking: set[str] = set()

    def run(self, content: Content, kinds: tuple[str, ...], room: int) -> None:
        """`room`: bytes of members that may be held in memory at once."""
        self._most = min(self._limits.size, max(_PLAIN, content.size * self._limits.ratio))
        try:
            self._open(content, kinds, b"", 1, room)
        except Full as exc:
            self._gap(b"", str(exc))
        if self._told > _MOST_TOLD:
            self._gap(b"", "%d more things in it were not judged, or not as a whole" % (self._told - _MOST_TOLD))

    def _open(
        self, content: Content, kinds: tuple[str, ...], path: bytes, depth: int, room: int, apart: bool = False
    ) -> None:
        """`apart`: it was not given as a whole to who unpacks by itself."""
        if depth > self._limits.depth:
            self._tell(path, "it lies deeper than archive_depth (%d), and was not unpacked" % self._limits.depth)
            return
        places = set[tuple[int, int]]()
        for kind in UNPACKED.intersection(kinds) - {EMBEDDED}:
            self._each(content, kind, path, depth, room, places, apart)
        if EMBEDDED in kinds:
            self._open_embedded(content, path, depth, room, places)

    def _open_embedded(
        self, content: Content, path: bytes, depth: int, room: int, places: set[tuple[int, int]]
    ) -> None:
        """Unless it is a member of what it lies in, which was judged."""
        try:
            start, size = zip_place(content.read, content.size)
        except NotUnpacked as exc:
            self._tell(path, "it is a zip too, and was not unpacked as one: %s" % exc)
            return
        if (start, size) not in places:
            part = content.inner(size, lambda at, length: content.read(start + at, length), 0)
            self._each(part, EMBEDDED, path, depth, room, places)

    def _each(
        self, content: Content, kind: str, path: bytes, depth: int, room: int, places: set[tuple[int, int]],
        apart: bool = False,
    ) -> None:  # fmt: skip
        """`places`: takes where members lie, and their sizes."""
        try:
            for member in self._members(content, kind):
                self.members += 1
                if self.members > self._limits.members:
                    raise Full("it holds more than archive_members (%d)" % self._limits.members)
                # What a packed file unpacks to has no name; what lies in that is named as in the file
                below = path if member.name and path.endswith(BETWEEN) else path + BETWEEN
                is_seen = kind in BY_CLAMAV and not (apart or member.behind) and member.method not in (LZMA, LZMA_ENDED)
                self._member(content, member, _cut(below + member.name.lstrip(b"/")), depth, room, is_seen)
                places.add((member.start, member.length))
        except NotUnpacked as exc:
            self._tell(path, "it was not unpacked to its end: %s" % exc)

    def _members(self, content: Content, kind: str) -> Iterator[Member]:
        if kind in ("zip", EMBEDDED):
            return zip_members(content.read, content.size, self._limits.members)
        if kind == "tar":
            return tar_members(content.read, content.size, self._limits.members)
        if kind == "cpio":
            return cpio_members(content.read, content.size, self._limits.members)
        if kind == "ar":
            return ar_members(content.read, content.size)
        if kind == "rpm":
            return (_known_payload(content, member) for member in rpm_members(content.read, content.size))
        return iter([Member(b"", 0, content.size, kind)])

    def _member(self, parent: Content, member: Member, path: bytes, depth: int, room: int, is_seen: bool) -> None:
        rest = -1
        if member.method and not member.gap:
            data, why, rest = self._unpacked(parent, member, room)
            content = parent.inner(len(data), lambda at, length: data[at : at + length], len(data))
        else:
            content, why = self._stored(parent, member, room)
        if why:
            self._tell(path, why)
        if not content.is_whole:
            return
        kinds = kinds_of(content)
        apart = not is_seen and content.size > _BY_MEMBERS and bool(kinds) and _CONTAINERS.issuperset(kinds)
        self._judge(path, content, is_seen or apart)
        self.unopened += not self._left.isdisjoint(kinds)
        self.lacking |= self._left.intersection(kinds)
        if not UNPACKED.isdisjoint(kinds) and not member.gap and content.size <= room:
            self._open(content, kinds, path, depth + 1, room - content.size, apart)
        elif apart:
            self._tell(path, "it was not unpacked")
        if rest >= 0:
            trailing = Member(b"trailing", rest, parent.size - rest)
            self._member(parent, trailing, path + b"trailing", depth, room, is_seen=False)

    def _stored(self, parent: Content, member: Member, room: int) -> tuple[Content, str]:
        start, left = member.start, max(0, parent.size - member.start)
        size, why = min(member.length, left), member.gap
        if member.length > left:
            why = "it was not judged to its end: its archive ends before"
        if size > room:
            why = "it is larger than a quarter of the memory limit, and was matched within its archive only"
        elif not parent.is_whole:  # its bytes are read once more; holes cost time too
            self._spend(size)
        return parent.inner(size, lambda at, length: parent.read(start + at, length), room), why

    def _spend(self, size: int) -> None:
        if self._size >= self._most:
            raise Full("what lies in it has more bytes than %s" % self._limit())
        self._size += size

    def _limit(self) -> str:
        if self._most == self._limits.size:
            return "archive_size (%d)" % self._most
        return "archive_ratio (%d) times the file's own, as in a bomb" % self._limits.ratio

    def _unpacked(self, parent: Content, member: Member, room: int) -> tuple[bytes, str, int]:
        """As far as the limits allow; why not to its end; and where what follows it lies, or -1."""
        self._spend(0)
        left = self._most - self._size
        taken, size, why, rest = io.BytesIO(), 0, "", -1
        try:
            for piece in pieces(member, parent.read, self._limits.members):
                size += taken.write(piece)
                why = self._too_much(size, room, left)
                if why:
                    break
        except Followed as exc:
            rest = exc.at
        except NotUnpacked as exc:
            why = "it was not unpacked to its end: %s" % exc
        except FAILED as exc:
            why = "it was not unpacked to its end: it is damaged (%s)" % (str(exc) or type(exc).__name__)
        data = taken.getvalue()  # shares its memory
        self._size += size
        if not why and member.crc >= 0 and (size != member.size or zlib.crc32(data) != member.crc):
            why = "it is damaged: its size or checksum is not what its archive says"
        return data, why, rest

    def _too_much(self, size: int, room: int, left: int) -> str:
        if size > left:
            return "it unpacks to more than %s" % self._limit()
        return "it unpacks to more than a quarter of the memory limit" if size > room else ""

    def _tell(self, path: bytes, why: str) -> None:
        self._told += 1
        if self._told <= _MOST_TOLD:
            self._gap(path, why)


def _known_payload(content: Content, member: Member) -> Member:
    """What it is packed by stands in headers that are passed over."""
    start = member.start
    part = content.inner(member.length, lambda at, length: content.read(start + at, length), 0)
    is_known = not {OTHER}.issuperset(kinds_of(part))
    return member if is_known else replace(member, gap="it is packed in a way that is not unpacked here")


def _cut(path: bytes) -> bytes:
    """Its last name stays."""
    half = _MOST_PATH // 2
    return path if len(path) <= _MOST_PATH else path[:half] + b"..." + path[-half:]
