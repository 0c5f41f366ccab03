# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an engine judges and answers, and YARA-X, which judges in this process. ClamAV is in clamd.py."""

from __future__ import annotations

import hashlib
import io
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, Callable, Protocol

from .alone import WIDE, standing

WINDOW = 16 << 20
OVERLAP = 1 << 16
SELF_TEST = "vmward_self_test"
MARKER = b"VMWARD-INERT-" + b"SAMPLE"
PLANTED = b"VMWARD-PLANTED-" + b"SAMPLE"  # on a host, where another scan may come upon it: no rule but ours knows it
HINT = "suspicious"  # the severity of a rule that asks for a person's judgement, where others prove an infection
ALONE = "vmward_alone"  # in the metadata of a rule: what its texts are, that count only by themselves
ENDINGS = "vmward_endings"  # beside it: what each of their endings is told as, `ending=value` by `ending=value`
NETWORK = "ioc_network_"  # so begins what is told of them
_BESIDE = 1 << 18
_MOST_MATCHES = 1_000_000  # of one pattern, that YARA-X tells


class EngineFailed(Exception):
    """An engine can't judge: nothing it was asked may be called clean."""


class BadRules(Exception):
    """A rule file can't be used. Nothing was scanned."""


@dataclass(frozen=True)
class RuleFile:
    path: str
    text: str
    sha256: str
    mtime: float


@dataclass(frozen=True)
class Hit:
    rule: str
    offset: int  # -1 if the engine does not say
    is_hint: bool = False


@dataclass
class Judgement:
    """What is known of one content. A gap says why an engine could not judge all of it.

    `inside`: what was found in its archives, by the path below it.
    """

    size: int = 0
    hits: list[tuple[str, Hit]] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    sha256: str = ""
    inside: list[tuple[bytes, Judgement]] = field(default_factory=list)
    unopened: int = 0

    @property
    def is_clean(self) -> bool:
        return not (self.hits or self.gaps or self.inside or self.unopened)


class OverTime(Exception):
    """A file's time is spent; the sentence says so."""


class Budget:
    """The seconds that one file may take, over all that is read of it, hashed, judged and unpacked."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._now, self._end = seconds, now, now() + seconds

    def left(self) -> float:
        return self._end - self._now()

    def check(self) -> None:
        if self.left() <= 0:
            raise OverTime("it took longer than file_timeout (%d s)" % self._seconds)


ENDLESS = Budget(math.inf)  # of raw bytes, which are no file


class Content:
    """The bytes of one file. Those that fit are read once, for all engines; larger ones come window by window.

    Whoever reads it asks its budget by that, so that nothing else has to.
    """

    def __init__(
        self,
        size: int,
        read: Callable[[int, int], bytes],
        whole_limit: int,
        stretches: Callable[[], Sequence[tuple[int, int]]] | None = None,
        budget: Budget = ENDLESS,
    ) -> None:
        self.size = size
        self.budget = budget
        self._stretches = stretches or (lambda: [(0, size)])
        self.is_whole = size <= whole_limit
        self._read = read
        self._bytes: bytes | None = None
        self._digest = b""
        self._hashing: Thread | None = None

    def digest(self) -> bytes:
        """SHA-256 of the whole."""
        if self._hashing is not None:
            self._hashing.join()
            self._hashing = None
        if not self._digest:
            self._hash()
        return self._digest

    def _hash(self) -> None:
        digest = hashlib.sha256()
        for part in self.stream():
            digest.update(part)
        self._digest = digest.digest()

    def hash_beside(self) -> None:
        """Begin with the digest while the engines look: it is wanted afterwards, and another core may have time."""
        if self.is_whole and self.size >= _BESIDE and not self._digest:
            self.whole()
            self._hashing = Thread(target=self._hash, daemon=True)
            try:
                self._hashing.start()
            except RuntimeError:  # no room for a thread
                self._hashing = None

    def whole(self) -> bytes:
        if self._bytes is None:
            self._bytes = self._fetch(0, self.size) if self.size <= WINDOW else self._gathered()
        return self._bytes

    def _gathered(self) -> bytes:
        """Part by part, since a slow disk may take long."""
        parts = io.BytesIO()
        for at in range(0, self.size, WINDOW):
            parts.write(self._fetch(at, min(WINDOW, self.size - at)))
        return parts.getvalue()  # shares its memory

    def _fetch(self, at: int, length: int) -> bytes:
        self.budget.check()
        return self._read(at, length)

    def head(self, length: int) -> bytes:
        return self.read(0, length)

    def read(self, at: int, length: int) -> bytes:
        if not self.is_whole:
            return self._fetch(at, max(0, min(length, self.size - at)))
        self.budget.check()
        return self.whole()[at : at + length]

    def inner(self, size: int, read: Callable[[int, int], bytes], whole_limit: int) -> Content:
        """What lies in it, or was unpacked from it. It has no time of its own."""
        return Content(size, read, whole_limit, budget=self.budget)

    def windows(self) -> Iterator[tuple[int, bytes]]:
        """The whole if it fits, else overlapping parts of all that is not a hole."""
        if self.is_whole:
            yield 0, self.whole()
            return
        for at, length in self.places():
            yield at, self._fetch(at, length)

    def places(self) -> Iterator[tuple[int, int]]:
        """Where the overlapping parts lie, and how long they are."""
        for start, end in _merged(self._stretches()):
            at = start
            while True:
                yield at, min(WINDOW, end - at)
                if at + WINDOW >= end:
                    break
                at += WINDOW - OVERLAP

    def stream(self) -> Iterator[bytes]:
        """Every byte in order."""
        if self.is_whole:
            yield self.whole()
            return
        for at in range(0, self.size, WINDOW):
            yield self._fetch(at, min(WINDOW, self.size - at))


class Engine(Protocol):
    name: str
    # unpacks: whether it opens archives; one that does not say so does not

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        """The hits, and why the content could not be judged as a whole (empty if it could)."""

    def describe(self) -> dict[str, Any]: ...

    def testing(self) -> AbstractContextManager[None]:
        """While it lasts, planted samples are told too."""


class Nobody:
    """In the place of an engine that matches raw bytes: they were read, but that alone is no judgement."""

    name = "nobody"

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        return [], "no engine takes part that matches them. Name rules, for YARA"


def eicar() -> bytes:
    """The harmless test file of all scanners, put together here so that no file of ours is one."""
    return b"X5O!P%@AP[4\\PZX54(P^)7CC)7}" + b"$EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!" + b"$H+H*"


def self_test(engine: Engine, samples: Sequence[bytes]) -> None:
    """An engine that misses a planted sample is not believed when it finds nothing elsewhere."""
    for sample in samples:
        hits, gap = engine.scan(Content(len(sample), lambda at, length, data=sample: data[at : at + length], WINDOW))  # type: ignore[misc]
        if not hits or gap:
            raise EngineFailed("The engine %s missed a planted sample%s." % (engine.name, ": " + gap if gap else ""))


def compiled(files: Sequence[RuleFile]) -> Any:
    """YARA-X's rules: to be made once, and shared by processes that are forked afterwards, since nothing runs yet."""
    try:
        import yara_x
    except ImportError as exc:
        raise EngineFailed("The Python library yara-x is missing. Install it on the host that scans.") from exc
    compiler = yara_x.Compiler()
    compiler.enable_includes(False)
    for index, file in enumerate(files):
        compiler.new_namespace("r%d" % index)
        try:
            compiler.add_source(file.text, origin=file.path)
        except yara_x.CompileError as exc:
            raise BadRules("Cannot use the rule file %s: %s" % (file.path, exc)) from exc
    compiler.new_namespace(SELF_TEST)
    compiler.add_source(_self_test_rules())
    return compiler.build()


class Yara:
    """YARA-X with the responder's rules, and a few of our own that serve the self-test only."""

    name = "yara"

    def __init__(self, files: Sequence[RuleFile], timeout: int, rules: Any = None) -> None:
        """`rules`: what `compiled` made of the same files."""
        rules = compiled(files) if rules is None else rules
        import yara_x

        self._files = files
        self._loaded = [0] * len(files)
        for rule in rules:
            if rule.namespace != SELF_TEST:
                self._loaded[int(rule.namespace[1:])] += 1
        self._scanner = yara_x.Scanner(rules)
        self._timeout = timeout
        self._errors = (yara_x.ScanError, yara_x.TimeoutError)
        self._testing = False
        with self.testing():
            self_test(self, [eicar(), MARKER])
        if not sum(self._loaded):
            raise EngineFailed("No YARA rule was loaded: name at least one rule file.")

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        hits: dict[str, Hit] = {}
        try:
            for at, data in content.windows():
                # Its clock ticks once a second, so the first one may be over at once
                self._scanner.set_timeout(1 + math.ceil(min(self._timeout, max(0.0, content.budget.left()))))
                self._take(content, at, data, hits)
        except OverTime as exc:
            return list(hits.values()), str(exc)
        except self._errors as exc:
            return list(hits.values()), "YARA gave up on it (%s)" % exc
        # A rule may look at the whole file, so windows can show what is there but not what is absent.
        gap = "" if content.is_whole else "it is too large for the memory limit, so YARA saw it in parts only"
        return list(hits.values()), gap

    def _matching(self, data: bytes, budget: Budget) -> Any:
        try:
            return self._scanner.scan(data).matching_rules
        except self._errors:
            budget.check()
            raise

    def _take(self, content: Content, at: int, data: bytes, hits: dict[str, Hit]) -> None:
        for rule in self._matching(data, content.budget):
            if self._testing or rule.namespace != SELF_TEST:
                about = dict(rule.metadata)
                if ALONE in about:
                    content.budget.check()  # each match may have to be looked at
                for name, first in _found_by(rule, data, about).items():
                    hit = Hit(name, at + first, about.get("severity") == HINT)
                    hits.setdefault("%s:%s" % (rule.namespace, name), hit)

    @contextmanager
    def testing(self) -> Iterator[None]:
        self._testing = True
        try:
            yield
        finally:
            self._testing = False

    def describe(self) -> dict[str, Any]:
        from importlib import metadata

        rules = [
            {"path": file.path, "sha256": file.sha256, "rules": count, "mtime": int(file.mtime)}
            for file, count in zip(self._files, self._loaded)
        ]
        return {"name": self.name, "version": metadata.version("yara-x"), "rules": rules, "self_test": "passed"}


def _merged(stretches: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Stretches as (start, end), those that lie close together as one."""
    start = end = -1
    for at, length in stretches:
        if start >= 0 and at - end < OVERLAP:
            end = at + length
            continue
        if start >= 0:
            yield start, end
        start, end = at, at + length
    if start >= 0:
        yield start, end


def _found_by(rule: Any, data: bytes, about: Mapping[str, Any]) -> dict[str, int]:
    """What is told of a rule that matched, and where that lies first."""
    if ALONE not in about:
        return {
            rule.identifier: min((match.offset for pattern in rule.patterns for match in pattern.matches), default=0)
        }
    endings = {one.encode(): value for one, value in (pair.split("=") for pair in about[ENDINGS].split(" "))}
    found: dict[str, int] = {}
    for pattern in rule.patterns:
        for value, start in _first_alone(pattern, data, about[ALONE], endings).items():
            found[NETWORK + value] = min(start, found.get(NETWORK + value, start))
    return found


def _first_alone(pattern: Any, data: bytes, kind: str, endings: Mapping[bytes, str]) -> dict[str, int]:
    wide, found = pattern.identifier.startswith("$" + WIDE), dict[str, int]()
    for start, end in _places(pattern.matches, data):
        value = standing(kind, endings, data, start, end, wide)
        if value and found.setdefault(value, start) == start and len(found) == len(endings):
            break
    return found


def _places(matches: Sequence[Any], data: bytes) -> Iterator[tuple[int, int]]:
    """Where they begin and end, those behind the ones that YARA-X tells too."""
    yield from ((match.offset, match.offset + match.length) for match in matches)
    if len(matches) >= _MOST_MATCHES:
        last = matches[-1]
        text = re.escape(data[last.offset : last.offset + last.length])
        yield from (found.span() for found in re.compile(text, re.IGNORECASE).finditer(data, last.offset + 1))


def _self_test_rules() -> str:
    samples = (("eicar", eicar()), ("marker", MARKER), ("planted", PLANTED))
    rule = "rule %s { strings: $sample = { %s } condition: $sample }\n"
    return "".join(rule % (name, sample.hex(" ")) for name, sample in samples)
