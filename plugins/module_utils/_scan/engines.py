# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engines that judge content: YARA-X in this process, ClamAV through the socket of its daemon."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any, Callable, Protocol

WINDOW = 16 << 20
OVERLAP = 1 << 16
SELF_TEST = "vmward_self_test"
MARKER = b"VMWARD-INERT-" + b"SAMPLE"
HINT = "suspicious"  # the severity of a rule that asks for a person's judgement, where others prove an infection
_PROVEN = 1 << 20
_BESIDE = 1 << 18
_CLAMD_MOST = (1 << 31) - 1
_LIMIT = "Heuristics.Limits.Exceeded"


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
    """YARA-X with the responder's rules, and two of our own that serve the self-test only."""

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


class Clamd:
    """ClamAV's daemon. Each content goes as an INSTREAM over a new connection to its UNIX socket."""

    name = "clamd"

    def __init__(self, path: str, timeout: int, database: str = "") -> None:
        self._path = path
        self._database = _listing(database) if database else "unknown"
        self._timeout = timeout
        self._proven = _PROVEN
        self._limit = 0
        self._version = self._ask(b"zVERSION\0", ())
        self_test(self, [eicar()])
        self._tells_limits = _LIMIT in self._instream(iter([_nested()]))

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        gap = self._size_gap(content.size)
        if gap:
            return [], gap
        answer = self._instream(content.stream())
        name = answer[len("stream: ") : -len(" FOUND")] if answer.endswith(" FOUND") else ""
        if name.startswith(_LIMIT):
            return [], "ClamAV reached one of its limits on it (%s)" % name
        if name:
            return [Hit(name, -1)], ""
        return [], "" if answer == "stream: OK" else "ClamAV did not judge it (%s)" % answer

    def _size_gap(self, size: int) -> str:
        """clamd says OK to what exceeds its MaxFileSize, without looking. So prove that it looks at this size."""
        gap = "it exceeds a size limit of clamd. Raise StreamMaxLength, MaxFileSize and MaxScanSize"
        if size > _CLAMD_MOST or (self._limit and size >= self._limit):
            return gap
        for probe in (1 << size.bit_length(), size):
            if size <= self._proven:
                break
            if self._instream(_padded(probe)).endswith(" FOUND"):
                self._proven = probe
            elif probe == size:
                self._limit = size
                return gap
        return ""

    def _instream(self, chunks: Iterator[bytes]) -> str:
        return self._ask(b"zINSTREAM\0", chunks)

    def _ask(self, command: bytes, chunks: Any) -> str:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                link.settimeout(self._timeout)
                link.connect(self._path)
                link.sendall(command)
                if command == b"zINSTREAM\0":
                    _send_chunks(link, chunks)
                return _answer(link)
        except OSError as exc:
            raise EngineFailed(
                "Cannot ask clamd at %s: %s. Start it or correct clamd_socket." % (self._path, exc)
            ) from exc

    @contextmanager
    def testing(self) -> Iterator[None]:
        yield  # it finds EICAR at all times

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self._version,
            "rules": [],
            "database": self._database,
            "limits": "told" if self._tells_limits else "silent",
            "self_test": "passed",
        }


def _listing(database: str) -> str:
    """Changes with the signature files. clamd tells the version of its own ones only."""
    try:
        files = sorted(
            (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
            for entry in os.scandir(database)
            if entry.is_file()
        )
    except OSError:
        return "unknown"  # then nothing that ClamAV judged is relied on later
    return hashlib.sha256(json.dumps(files).encode()).hexdigest() if files else "unknown"


def _send_chunks(link: socket.socket, chunks: Iterator[bytes]) -> None:
    try:
        for chunk in chunks:
            if chunk:
                link.sendall(struct.pack(">I", len(chunk)))
                link.sendall(chunk)
        link.sendall(bytes(4))
    except (BrokenPipeError, ConnectionResetError):
        return  # clamd hangs up on a stream past its limit, and its answer says so


def _answer(link: socket.socket) -> str:
    answer = b""
    while len(answer) < 4096 and not answer.endswith(b"\0"):
        try:
            part = link.recv(4096)
        except ConnectionResetError:
            break
        if not part:
            break
        answer += part
    return answer.rstrip(b"\0").decode("utf-8", "replace") or "no answer"


def _padded(size: int) -> Iterator[bytes]:
    yield eicar() + b"\n"
    left = size - len(eicar()) - 1
    while left > 0:
        yield bytes(min(left, WINDOW))
        left -= WINDOW


def _nested() -> bytes:
    """An archive in an archive, more than clamd can be told to open (its MaxRecursion is at most 100)."""
    data = b"a"
    for _layer in range(101):
        data = gzip.compress(data)
    return data


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
    samples = (("eicar", eicar()), ("marker", MARKER))
    rule = "rule %s { strings: $sample = { %s } condition: $sample }\n"
    return "".join(rule % (name, sample.hex(" ")) for name, sample in samples)
