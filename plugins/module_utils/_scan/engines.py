# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an engine judges and answers, and YARA-X, which judges in this process. ClamAV is in clamd.py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any, Callable, Protocol

WINDOW = 16 << 20
OVERLAP = 1 << 16
SELF_TEST = "vmward_self_test"
MARKER = b"VMWARD-INERT-" + b"SAMPLE"
PLANTED = b"VMWARD-PLANTED-" + b"SAMPLE"  # on a host, where another scan may come upon it: no rule but ours knows it
HINT = "suspicious"  # the severity of a rule that asks for a person's judgement, where others prove an infection
_BESIDE = 1 << 18


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


class Content:
    """The bytes of one file. Those that fit are read once, for all engines; larger ones come window by window."""

    def __init__(
        self,
        size: int,
        read: Callable[[int, int], bytes],
        whole_limit: int,
        stretches: Callable[[], Sequence[tuple[int, int]]] | None = None,
    ) -> None:
        self.size = size
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
            self._bytes = self._read(0, self.size)
        return self._bytes

    def head(self, length: int) -> bytes:
        return self.read(0, length)

    def read(self, at: int, length: int) -> bytes:
        if self.is_whole:
            return self.whole()[at : at + length]
        return self._read(at, max(0, min(length, self.size - at)))

    def windows(self) -> Iterator[tuple[int, bytes]]:
        """The whole if it fits, else overlapping parts of all that is not a hole."""
        if self.is_whole:
            yield 0, self.whole()
            return
        for start, end in _merged(self._stretches()):
            at = start
            while True:
                yield at, self._read(at, min(WINDOW, end - at))
                if at + WINDOW >= end:
                    break
                at += WINDOW - OVERLAP

    def stream(self) -> Iterator[bytes]:
        """Every byte in order."""
        if self.is_whole:
            yield self.whole()
            return
        for at in range(0, self.size, WINDOW):
            yield self._read(at, min(WINDOW, self.size - at))


class Engine(Protocol):
    name: str
    # unpacks: whether it opens archives; one that does not say so does not

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        """The hits, and why the content could not be judged as a whole (empty if it could)."""

    def describe(self) -> dict[str, Any]: ...

    def testing(self) -> AbstractContextManager[None]:
        """While it lasts, planted samples are told too."""


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
        self._scanner.set_timeout(timeout)
        self._errors = (yara_x.ScanError, yara_x.TimeoutError)
        self._testing = False
        with self.testing():
            self_test(self, [eicar(), MARKER])
        if not sum(self._loaded):
            raise EngineFailed("No YARA rule was loaded: name at least one rule file.")

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        hits: dict[str, Hit] = {}
        for at, data in content.windows():
            try:
                matches = self._scanner.scan(data).matching_rules
            except self._errors as exc:
                return list(hits.values()), "YARA gave up on it (%s)" % exc
            for rule in matches:
                if self._testing or rule.namespace != SELF_TEST:
                    is_hint = dict(rule.metadata).get("severity") == HINT
                    hit = Hit(rule.identifier, at + _first_match(rule), is_hint)
                    hits.setdefault("%s:%s" % (rule.namespace, rule.identifier), hit)
        # A rule may look at the whole file, so windows can show what is there but not what is absent.
        gap = "" if content.is_whole else "it is too large for the memory limit, so YARA saw it in parts only"
        return list(hits.values()), gap

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


def _first_match(rule: Any) -> int:
    return min((match.offset for pattern in rule.patterns for match in pattern.matches), default=0)


def _self_test_rules() -> str:
    samples = (("eicar", eicar()), ("marker", MARKER), ("planted", PLANTED))
    rule = "rule %s { strings: $sample = { %s } condition: $sample }\n"
    return "".join(rule % (name, sample.hex(" ")) for name, sample in samples)
