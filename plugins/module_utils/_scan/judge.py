# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts content before the engines and the indicators of compromise, once per content, and reports what they say."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Callable

from .blocks import Blocks, Meter, UnreadableImage
from .brief import Brief
from .engines import WINDOW, Budget, Content, Engine, EngineFailed, Hit, Judgement, Nobody, OverTime
from .ext4_records import BadFilesystem
from .frames import MISSING
from .inside import Archives, Inside
from .ioc import NO_INDICATORS, Indicators
from .layout import NotReadable
from .packed import CLAMAV, OTHER, UNPACKED, kinds_of
from .partitions import BadPartitionTable, Extent
from .remembered import Remembered
from .share import Share
from .verdict import MAX_UNOPENED, Finding, Volume, Where, printable
from .windows import matched

Emit = Callable[[str, dict[str, Any]], None]
NEVER = Archives(depth=0)
_EXPECTED = (UnreadableImage, BadFilesystem, NotReadable, BadPartitionTable)
_MOST_INSIDE = 1000
_HASHED = 4 << 30  # bytes of what is not judged as a whole: a file may claim to be any size, and holes cost time too


_CLEAN = Judgement()
_ANOTHERS = Judgement()  # of a content that another share judged


class Judge:
    """`known`: keys of contents that these engines with these rules found clean, or None to remember nothing.

    `share`: what of the contents is judged here. What is another's is not read.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        emit: Emit,
        whole_limit: int,
        max_file_size: int = 0,
        indicators: Indicators = NO_INDICATORS,
        known: set[bytes] | None = None,
        archives: Archives = NEVER,
        file_timeout: float = math.inf,
        now: Callable[[], float] = time.monotonic,
        share: Share | None = None,
    ) -> None:
        self.engines = engines
        self.share = share or Share()
        self._file_timeout, self._now = file_timeout, now
        # ClamAV judges files by their type, and raw bytes have none
        matching: list[Engine | Nobody] = [engine for engine in engines if engine.name == "yara"]
        self._raw_engines = matching or [Nobody()]
        # Those that unpack by themselves are not given once more what they see in archives
        self._inner_engines = [engine for engine in engines if not getattr(engine, "unpacks", False)]
        self._leaves_packed = len(self._inner_engines) == len(engines)
        self._left = frozenset([OTHER, *MISSING, *[CLAMAV] * self._leaves_packed])
        self._lacking: set[str] = set()  # formats that were met, and not opened
        self._archives = archives
        self._unopened = self._opened = self._members = 0
        self._named_unopened = 0
        self.emit = Brief(emit, self.share)
        self._whole_limit = whole_limit
        self._max_file_size = max_file_size
        self.indicators = indicators
        self._known = None if known is None else Remembered(known)
        self._remembered: dict[Hashable, Judgement] = {}
        self._named: set[tuple[Where, bytes | str, str]] = set()
        self.files = self.bytes = self.reasons = 0
        self._told = 0.0
        self._read_before = Meter.bytes  # by the process that forked this one
        self._lenient, self._let_pass = False, 0

    def guard(self, what: str, step: Callable[..., Any], *arguments: Any) -> bool:
        """Hostile input may raise anything in a parser. Whatever it is, the scan goes on and is incomplete."""
        try:
            step(*arguments)
        except EngineFailed as exc:
            if self._lenient:
                raise  # that state may be none that the guest will see, but this is no fault of it
            self.reason("%s was not read: %s." % (what, str(exc).rstrip(".")), is_alike=False)
        except _EXPECTED as exc:
            self.reason("%s was not read: %s." % (what, str(exc).rstrip(".")))
        except Exception as exc:  # noqa: BLE001 - the edge to parsers that an attacker feeds
            self.reason("%s was not read: its parser failed (%s: %s)." % (what, type(exc).__name__, exc))
        else:
            return True
        return False

    def each(self, what: str, step: Callable[..., Any], *arguments: Any) -> None:
        """One of many, and damage in it must not hide the others; but an engine that fails ends them all."""
        try:
            step(*arguments)
        except EngineFailed:
            raise
        except Exception as exc:  # noqa: BLE001 - the edge to parsers that an attacker feeds
            self.reason("%s was not read: %s." % (what, str(exc).rstrip(".") or type(exc).__name__))

    def begin(self) -> None:
        """Another state of the disks: count anew."""
        self.emit.begin()
        self.files = self.bytes = self.reasons = 0
        self._named = set()

    @contextmanager
    def by_itself(self) -> Iterator[None]:
        """No content is known to be clean by an earlier scan, and none is remembered for a later one."""
        known, self._known = self._known, None
        try:
            yield
        finally:
            self._known = known

    @contextmanager
    def leniently(self, what: str) -> Iterator[None]:
        """For a state that the guest will not see: what can't be read there keeps nothing from being clean."""
        self._lenient, before = True, self._let_pass
        try:
            yield
        finally:
            self._lenient = False
        if self._let_pass > before:
            self._sum("%s: %%d things in it were not read." % what.replace("%", "%%"), self._let_pass - before)

    def reason(self, text: str, is_alike: bool = True) -> None:
        """`is_alike`: of what all shares see."""
        is_told = not is_alike or self.share.meets("reason: " + text)
        if self._lenient:
            self._let_pass += is_told
            return
        self.reasons += 1
        if is_told:
            self.emit("reason", {"text": printable(text)})

    def _sum(self, text: str, *counts: int) -> None:
        """A note with numbers in it that are those of all shares together."""
        self.emit("sum", {"text": printable(text), "counts": counts})

    def note(self, text: str) -> None:
        self.emit("note", {"text": printable(text)})

    def content(
        self,
        size: int,
        read: Callable[[int, int], bytes],
        stretches: Callable[[], Sequence[tuple[int, int]]] | None = None,
    ) -> Content:
        return Content(size, read, self._whole_limit, stretches)

    def file(
        self, where: Where, content: Content, path: Callable[[], str | bytes], key: Hashable | None = None
    ) -> None:
        """Judge one file. Two with the same `key` are the same: the second one is not read."""
        is_large = bool(self._max_file_size and content.size > self._max_file_size)
        key = None if is_large else key
        judgement = self._remembered.get(key) if key is not None else None
        if judgement is not None:
            self.share.meets("again: %s" % where)
        elif not self.share.takes(where, 0 if is_large else content.size):
            judgement = _ANOTHERS
            if key is not None:
                self._remembered[key] = judgement
        if judgement is _ANOTHERS:
            return
        self.files += 1
        if is_large:
            told = "%s on %s is larger than max_file_size."
            self.reason(told % (printable(path(), 300), where), is_alike=False)
            return
        if judgement is None:
            unopened = self._unopened
            judgement = self._judge(content)
            if self._unopened > unopened and self._named_unopened < MAX_UNOPENED:
                self._named_unopened += 1
                self.emit("unopened", {"count": 0, "names": ["%s on %s" % (printable(path(), 200), where)]})
            if key is not None:
                self._remembered[key] = _CLEAN if judgement.is_clean else judgement
        for below, found in ((b"", judgement), *judgement.inside):
            for gap in found.gaps:
                told = "%s on %s: %s."
                self.reason(told % (printable(_joined(path(), below), 300), where, gap), is_alike=False)
            for engine, hit in found.hits:
                self._hit(where, _joined(path(), below), engine, hit, found.size, found.sha256)
        self.tell()

    def paged(self, where: Where, content: Content, path: str | bytes, beneath: Content | None = None) -> None:
        """Memory that the guest wrote out, too large to be judged as a whole, which is no gap. `beneath`: if its file
        system hands out less than lies there."""
        what = "memory that was written out"
        hashed = "" if content.size <= _HASHED else ", and not held against hashes (it has more than 4 GiB)"
        self.note("%s on %s is %s, and was matched as raw bytes%s." % (printable(path, 300), where, what, hashed))
        if self.share.takes(where, 0) and not hashed:
            self._hold_against_hashes(where, content, path)
        self.parts(where, beneath or content, what)

    def _hold_against_hashes(self, where: Where, content: Content, path: str | bytes) -> None:
        try:
            for rule in self.indicators.of_content(content.stream):
                self._hit(where, path, "ioc", Hit(rule, -1), content.size, content.digest().hex())
        except Exception as exc:  # noqa: BLE001 - its parts are matched all the same
            told = "%s on %s was not held against hashes: %s."
            why = str(exc).rstrip(".") or type(exc).__name__
            self.reason(told % (printable(path, 300), where, why), is_alike=False)

    def _judge(self, content: Content) -> Judgement:
        """All of it within one budget of time, be the content known or not."""
        content.budget = Budget(self._file_timeout, self._now)
        found = Judgement(content.size)
        for step in (self._read, self._hash):
            try:
                step(content, found)
            except EngineFailed:
                raise
            except OverTime as exc:
                found.gaps += [] if str(exc) in found.gaps else [str(exc)]
            except Exception as exc:  # noqa: BLE001 - one hostile file must not hide the others
                found.gaps.append("it was not read: %s" % (str(exc).rstrip(".") or type(exc).__name__))
        return found

    def _read(self, content: Content, found: Judgement) -> None:
        kinds = kinds_of(content)
        left = self._left.intersection(kinds)
        self._lacking |= left
        self._unopened += bool(left or (self._leaves_packed and kinds and not self._archives.depth))
        if content.size and not (self._known is not None and self._known.holds(content)):
            self._ask(content, kinds, found)

    def _hash(self, content: Content, found: Judgement) -> None:
        if found.hits and (content.is_whole or content.size <= _HASHED):
            found.sha256 = content.digest().hex()

    def _ask(self, content: Content, kinds: tuple[str, ...], found: Judgement) -> None:
        self.bytes += content.size if content.is_whole else 0
        if self._known is not None:
            content.hash_beside()
        self._look(content, self.engines, found)
        if self._archives.depth and not UNPACKED.isdisjoint(kinds):
            self._look_inside(content, kinds, found)
        if self._known is not None and content.is_whole and found.is_clean:
            self._known.add(content, self.emit)

    def _look(self, content: Content, engines: Sequence[Engine], found: Judgement) -> None:
        if content.is_whole or content.size <= _HASHED:  # else there is a gap
            found.hits += [("ioc", Hit(rule, -1)) for rule in self.indicators.of_content(content.stream)]
        for engine in engines:
            hits, gap = engine.scan(content)
            found.hits += [(engine.name, hit) for hit in hits]
            found.gaps += [gap] if gap else []

    def _look_inside(self, content: Content, kinds: tuple[str, ...], found: Judgement) -> None:
        more = 0

        def judge(path: bytes, member: Content, is_seen: bool) -> None:
            nonlocal more
            # Whoever unpacks it may do so where case does not count
            named = self.indicators.of_path(os.fsdecode(re.split(rb"[/\\]", path)[-1]), "ntfs")
            one = Judgement(member.size, [("ioc", Hit(rule, -1)) for rule in named])
            try:
                if member.size:
                    self._look(member, self._inner_engines if is_seen else self.engines, one)
                if one.hits:
                    one.sha256 = member.digest().hex()
            finally:  # though the time be over
                more += not one.is_clean and len(found.inside) >= _MOST_INSIDE
                found.inside += [] if one.is_clean or more else [(path, one)]
            self.tell()

        def gap(path: bytes, why: str) -> None:
            found.inside.append((path, Judgement(gaps=[why])))

        inside = Inside(self._archives, judge, gap, self._left)
        try:
            inside.run(content, kinds, self._whole_limit)
        finally:
            if more:
                gap(b"", "in %d more things in it something was found" % more)
            self._opened += 1
            self._members += inside.members
            found.unopened = inside.unopened
            self._unopened += inside.unopened
            self._lacking |= inside.lacking

    def named(self, where: Where, path: bytes | str, rule: str) -> None:
        """A name or path is among the indicators of compromise."""
        if (where, path, rule) not in self._named:
            self._named.add((where, path, rule))
            if self.share.meets("named: %s %s" % (where, printable(path))):
                self._hit(where, path, "ioc", Hit(rule, -1), 0, "")

    def volume(self, volume: Volume) -> None:
        """Whether it was read as a whole is each share's own word."""
        self.share.meets("volume: %s" % replace(volume, read=True))
        self.emit("volume", vars(volume))

    def raw(self, where: Where, source: Blocks, extent: Extent, label: str, key: Hashable | None = None) -> bool:
        """Match raw bytes; every hit is an indicator only. Says whether there was anything but zeros."""
        content = Content(extent.size, lambda at, length: source.read(extent.start + at, length), 0)
        return self.parts(where, content, label, extent.start, key)

    def parts(self, where: Where, content: Content, label: str, start: int = 0, key: Hashable | None = None) -> bool:
        """As `raw`, in the content's own order wherever its parts lie. Offsets count from `start`."""
        something, found = False, self._remembered.get(key) if key is not None else None
        if found is None:
            takes = partial(self.share.takes, where)
            found, something = matched(content, self._raw_engines, takes, self._count)
            if key is not None:
                self._remembered[key] = found
        else:
            self.share.meets("again: %s" % where)
        for gap in dict.fromkeys(found.gaps):
            self.reason("Raw bytes of %s: %s." % (where, gap), is_alike=False)
        for engine, hit in found.hits:
            self._indicator(where, "(%s)" % label, engine, hit.rule, content.size, start + hit.offset)
        return something

    def _count(self, size: int) -> None:
        self.bytes += size
        self.tell()

    def attributes(self, where: Where, number: int, block: bytes) -> None:
        """Extended attributes of an inode."""
        if not self.share.takes(where, len(block)):
            return
        content = Content(len(block), lambda _at, _length: block, WINDOW)
        for engine in self._raw_engines:
            hits, gap = engine.scan(content)
            if gap:
                self.reason("Attributes of inode %d on %s: %s." % (number, where, gap), is_alike=False)
            for hit in hits:
                path = "(attributes of inode %d)" % number
                self._indicator(where, path, engine.name, hit.rule, len(block), hit.offset)

    def _hit(self, where: Where, path: str | bytes, engine: str, hit: Hit, size: int, sha256: str) -> None:
        rule = printable(hit.rule, 128)
        found = Finding(where.disk, where.volume, where.shown(path), rule, engine, size, hit.offset, sha256)
        self.emit("indicator" if hit.is_hint else "finding", vars(found))

    def _indicator(self, where: Where, path: str, engine: str, rule: str, size: int, offset: int) -> None:
        found = Finding(where.disk, where.volume, where.shown(path), printable(rule, 128), engine, size, offset, "")
        self.emit("indicator", vars(found))

    def tell(self, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._told >= 1:
            self._told = now
            self.emit("progress", {"files": self.files, "bytes": self.bytes, "read": Meter.bytes - self._read_before})

    def flush(self) -> None:
        """Tell what was only counted so far, and which contents were found clean."""
        self.emit.flush()
        if self._unopened:
            self.emit("unopened", {"count": self._unopened, "names": []})
            self._unopened = self._named_unopened = 0
        for kind in sorted(self._lacking.intersection(MISSING)):
            told = "What is packed by %s was not opened. Install the Python library %s on the host that scans."
            self.note(told % (kind, MISSING[kind]))
        self._lacking = set()
        if self._opened:
            told = "%d archives or packed files were unpacked, and what lies in them was judged (%d files)."
            self._sum(told, self._opened, self._members)
            self._opened = self._members = 0
        if self._known is not None:
            self._known.tell(self.emit)


def _joined(path: str | bytes, below: bytes) -> str | bytes:
    return path + below if isinstance(path, bytes) else path + below.decode("utf-8", "backslashreplace")
