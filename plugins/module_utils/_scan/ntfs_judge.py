# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judges the files of an NTFS volume with all their streams, and the volume as a whole."""

from __future__ import annotations

import re
from collections.abc import Hashable

from .blocks import Blocks
from .engines import Content
from .ext4_records import BadFilesystem
from .judge import Judge
from .ntfs import EXTEND, ROOT, File, Ntfs, Stream
from .ntfs_doubts import doubts, is_asleep
from .ntfs_records import EA, ENCRYPTED, KNOWN, PACKED, REPARSE
from .partitions import Extent
from .verdict import Where, printable

# The tables, the log and the map of the volume itself, which no program of the guest can open by these names
_OWN = {0: b"$MFT", 1: b"$MFTMirr", 2: b"$LogFile", 6: b"$Bitmap"}
_BAD_CLUSTERS, _BAD = (8, b"$Bad"), (ROOT, b"$BadClus")
_JOURNAL = EXTEND, b"$UsnJrnl"
_PROGRAMS = b"MZ", b"\x7fELF", b"#!"  # Windows never writes to the first page, so that it holds what lay there before
_PAGED = frozenset((b"pagefile.sys", b"swapfile.sys", b"hiberfil.sys"))
_STORE = re.compile(rb"\{[0-9a-f-]{36}\}\{3808876b-c176-4e48-b7ae-04046e6cc752\}", re.IGNORECASE)
_STORES = b"/system volume information"
# By [MS-FSCC] 2.1.2.1: what Windows reads there lies in the streams, in another file, or not on this volume
_HERE = frozenset((0xA0000003, 0xC0000004, 0xA000000C, 0xA0000010, 0xA0000019, 0x9000001C, 0xA000001D, 0xA000001F))
_HERE |= {0x80000006, 0x80000009, 0x8000000A, 0x8000000B, 0x80000012, 0x80000014, 0x80000015, 0x80000016, 0x80000018}
_HERE |= {0x8000001B, 0x8000001E, *range(0x80000020, 0x80000027), 0xA0000022, 0xA0000027, 0x90000027}
_HERE |= {0x90001018, 0x90001027, 0xA0001027, *range(0x9000001A, 0x90010000, 0x1000)}
_LARGEST_ATTRIBUTE = 64 << 10
_MOST_TOLD = 20
_BOOT = Extent(0, 8192)


class NtfsJudge:
    """`remember`: judge what several states share once."""

    def __init__(self, judge: Judge, where: Where, fs: Ntfs, volume: Blocks, remember: bool) -> None:
        self._judge, self._where, self._fs, self._volume = judge, where, fs, volume
        self._remember = remember

    def doubts(self) -> None:
        told = self._where.capital

        def tell() -> None:
            for doubt in doubts(self._fs):
                self._judge.reason("%s may look different to the guest: %s." % (told, doubt))

        self._judge.each("The state of %s" % self._where, tell)

    def file(self, file: File) -> list[tuple[int, int]]:
        """Where on the volume the content lies that was judged, as (start, end)."""
        judge, covered = self._judge, []
        what = "Record %d on %s" % (file.number, self._where)
        for name in file.streams:
            if name or not is_own(file, name):
                judge.each(what, lambda name=name: covered.extend(self._stream(file, name)))
        for kind, name in sorted({(one.type, one.name) for one in file.attributes if one.type in (EA, REPARSE)}):
            judge.each(what, self._attributes, file, kind, name)
        judge.each(what, self._reparse, file)
        for kind in sorted({one.type for one in file.attributes} - KNOWN):
            judge.reason(
                "%s was not read as a whole: it holds an attribute of a kind that is not known (%#x)." % (what, kind)
            )
        self.indicators(file)
        return covered

    def indicators(self, file: File) -> None:
        """Of all its names, with those of its streams."""
        wanted = self._judge.indicators
        if not (wanted.paths or wanted.names):
            return
        for name in file.all_names:
            path = self._fs.path(file.number, name)
            for whole in (path, *(path + b":" + stream for stream in file.streams if stream)):
                for rule in wanted.of_path(whole.decode("utf-8", "surrogateescape"), "ntfs"):
                    self._judge.named(self._where, whole, rule)

    def _reparse(self, file: File) -> None:
        tag = self._fs.reparse_tag(file)
        if tag is not None and tag not in _HERE:
            text = "%s on %s was not read: Windows keeps its content packed, or elsewhere (reparse tag %#x)."
            self._judge.reason(text % (printable(self._fs.path(file.number), 300), self._where, tag))

    def _attributes(self, file: File, kind: int, name: bytes) -> None:
        stream = self._fs.stream(file, name, kind)
        if stream.size > _LARGEST_ATTRIBUTE:
            raise BadFilesystem("its attributes are larger than Windows makes them")
        self._judge.attributes(self._where, file.number, self._fs.read(stream, 0, stream.size))

    def _stream(self, file: File, name: bytes) -> list[tuple[int, int]]:
        fs, judge, stream = self._fs, self._judge, self._fs.stream(file, name)
        if (file.number, name) == _BAD_CLUSTERS:
            bad = self._bad(stream)
            if is_own(file, name):
                return bad
        if not name and is_asleep(fs, file, stream):
            text = "%s may look different to the guest: Windows sleeps in it. Shut it down fully (shutdown /s /t 0)."
            judge.reason(text % self._where.capital)

        def read(at: int, length: int) -> bytes:
            return fs.read(stream, at, length)

        content = judge.content(stream.size, read, lambda: fs.stretches(stream))
        is_plain = not stream.flags & (PACKED | ENCRYPTED)
        if not content.is_whole and is_plain and not read(0, 4).startswith(_PROGRAMS):
            if is_journal(file, name):
                # Its size counts all that was ever written, and the newest part is there
                parts = Content(stream.size, read, 0, lambda: fs.stretches(stream))
                judge.parts(self._where, parts, "journal of changes")
                return fs.on_volume(stream)
            if not name and is_paged(file):
                judge.paged(self._where, content, fs.path(file.number))
                return fs.on_volume(stream)
            if not name and is_store(fs, file):
                judge.parts(self._where, content, "what shadow copies keep", key=self._key(stream))
                return fs.on_volume(stream)
        suffix = b":" + name if name else b""
        judge.file(self._where, content, lambda: fs.path(file.number) + suffix, self._key(stream))
        return fs.on_volume(stream)

    def _bad(self, stream: Stream) -> list[tuple[int, int]]:
        """The clusters that no file may use. The stream is as large as the volume, and no byte of it is initialized."""
        size = self._fs.cluster
        places = [(lcn * size, (lcn + count) * size) for _vcn, lcn, count in stream.runs if lcn is not None]
        for start, end in places:
            self._judge.raw(self._where, self._volume, Extent(start, end - start), "clusters marked as bad")
        return places

    def _key(self, stream: Stream) -> Hashable | None:
        """Equal for two states of a stream only if its content is the same."""
        if not self._remember or stream.value is not None:
            return None
        size = self._fs.cluster
        places = [
            (vcn, *place)
            for vcn, lcn, count in stream.runs
            if lcn is not None
            for place in self._volume.places(lcn * size, count * size)
        ]
        return stream.flags, stream.size, stream.initialized, stream.unit, size, tuple(places)


def is_own(file: File, name: bytes) -> bool:
    """Does it serve the file system itself? It is not read, like free blocks, if no further name opens the file."""
    if (file.number, name) == _BAD_CLUSTERS:
        return set(file.all_names) == {_BAD}
    return not name and file.number in _OWN and set(file.all_names) == {(ROOT, _OWN[file.number])}


def is_journal(file: File, name: bytes) -> bool:
    """Does it tell what happened to the files? Not if the file can be opened by a further name."""
    return name == b"$J" and set(file.all_names) == {_JOURNAL}


def is_paged(file: File) -> bool:
    """Is it memory that Windows wrote out, by its name? Not if the file can be opened by a further one."""
    return bool(file.all_names) and all(parent == ROOT and name.lower() in _PAGED for parent, name in file.all_names)


def is_store(fs: Ntfs, file: File) -> bool:
    """Does it keep what shadow copies held before it was written, by its place? Their files are read for themselves."""
    names = file.all_names
    is_named = bool(names) and all(_STORE.fullmatch(name) for _parent, name in names)
    return is_named and all(fs.path(parent).lower() == _STORES for parent, _name in names)


class NtfsScan:
    """The volume as a whole: every record in use, whether or not a directory names it."""

    def __init__(self, judge: Judge, where: Where, volume: Blocks, remember: bool) -> None:
        self._judge, self._where, self._volume = judge, where, volume
        self.fs = Ntfs(volume)
        self._files = NtfsJudge(judge, where, self.fs, volume, remember)
        self._continuing: set[int] = set()
        self._reached: set[int] = set()

    def run(self) -> None:
        judge, where, fs = self._judge, self._where, self.fs
        self._files.doubts()
        judge.emit("expect", {"bytes": fs.end})
        for number in fs.used_records():
            judge.each("Record %d on %s" % (number, where), self._record, number)
        lost = sorted(self._continuing - self._reached)
        for number in lost[:_MOST_TOLD]:
            tell_lost(judge, where, number)
        if lost[_MOST_TOLD:]:
            told = "%d more records on %s were not read: they continue files that do not list them."
            judge.reason(told % (len(lost[_MOST_TOLD:]), where))
        judge.raw(where, self._volume, _BOOT, "boot sectors")
        judge.raw(where, self._volume, Extent(fs.end, self._volume.size - fs.end), "behind the file system")

    def _record(self, number: int) -> None:
        if self.fs.base_of(number) is not None:
            self._continuing.add(number)
            return
        file = self.fs.file(number)
        self._reached.update(file.records)
        self._files.file(file)


def tell_lost(judge: Judge, where: Where, number: int) -> None:
    judge.reason("Record %d on %s was not read: it continues a file that does not list it." % (number, where))
