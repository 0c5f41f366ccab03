# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One scan from the caller's side: open the files, start the confined child, listen, and judge."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any, Callable

from .chain import Layer
from .engines import BadRules, Clamd, Engine, EngineFailed, RuleFile, Yara
from .foreign import preload
from .sandbox import Limits, run_confined
from .scanner import DiskSpec, Emit, Scanner
from .verdict import Finding, Tally, Volume, printable

MAX_RULE_FILE = 256 << 20
FILE_TIMEOUT = 300
_FLOCK = struct.Struct("hhqqi4x")
# QEMU marks a right that it holds by a shared lock on byte 100 + right, and one it denies to others on 200 + right
_QEMU_HOLDS_WRITE, _QEMU_HOLDS_RESIZE, _QEMU_DENIES_WRITE = 101, 103, 201


class BadInput(Exception):
    """What was asked for can't be done. Nothing was scanned."""


@dataclass(frozen=True)
class LayerSpec:
    path: str
    format: str


@dataclass(frozen=True)
class Request:
    disks: tuple[tuple[str, tuple[LayerSpec, ...], str], ...]
    rules: tuple[str, ...]
    clamd_socket: str
    engines_required: tuple[str, ...]
    max_file_size: int
    progress_file: str
    limits: Limits


def scan(request: Request) -> dict[str, Any]:
    rules = list(read_rules(request.rules))
    started = time.monotonic()
    with ExitStack() as opened:
        disks = tuple(opened.enter_context(_opened(*disk)) for disk in request.disks)
        layers = [layer for disk in disks for layer in disk.layers]
        before = [_state(layer) for layer in layers]
        listener = _Listener(Progress(request.progress_file, started))
        ended = run_confined(
            lambda emit: _prepare(request, rules, disks, emit),
            request.limits,
            [layer.fd for layer in layers],
            listener.take,
            listener.progress.write,
        )
        changed = [layer.path for layer, state in zip(layers, before) if _state(layer) != state]
    if listener.refused:
        raise BadInput(listener.refused)
    tally = listener.tally
    if ended.trouble:
        tally.add_reason("The scan did not end: %s." % ended.trouble)
    for path in changed:
        tally.add_reason("%s was changed while it was read." % path)
    seconds = time.monotonic() - started
    listener.progress.write(phase="done", message=tally.verdict().value)
    return {**tally.as_result(), "seconds": round(seconds, 3), "cpu_seconds": round(ended.cpu_seconds, 3)}


def _prepare(
    request: Request, rules: Sequence[RuleFile], disks: Sequence[DiskSpec], emit: Emit
) -> Callable[[Emit], None]:
    missing = preload()
    if missing:
        emit("note", {"text": "Only ext file systems can be read here: %s." % missing})
    engines: list[Engine] = []
    makers: dict[str, Callable[[], Engine]] = {}
    if rules or "yara" in request.engines_required:
        makers["yara"] = lambda: Yara(rules, FILE_TIMEOUT)
    if request.clamd_socket or "clamd" in request.engines_required:
        makers["clamd"] = lambda: Clamd(request.clamd_socket, FILE_TIMEOUT)
    for make in makers.values():
        try:
            engines.append(make())
        except BadRules as exc:
            emit("refused", {"text": str(exc)})
            return lambda emit: None
        except EngineFailed as exc:
            emit("reason", {"text": str(exc)})
    for engine in engines:
        emit("engine", engine.describe())
    if not engines:
        emit("reason", {"text": "No engine is ready, so nothing was read."})
        return lambda emit: None
    whole = request.limits.memory // 4
    return lambda emit: Scanner(engines, emit, whole, request.max_file_size).run(disks)


def read_rules(paths: Sequence[str]) -> Iterator[RuleFile]:
    """All rule files named, and all *.yar and *.yara files in the directories named."""
    for path in paths:
        names = [path]
        if os.path.isdir(path):
            names = sorted(
                os.path.join(root, name)
                for root, _dirs, found in os.walk(path)
                for name in found
                if name.endswith((".yar", ".yara"))
            )
            if not names:
                raise BadInput("Cannot use the rules in %s: it holds no *.yar or *.yara file." % path)
        for name in names:
            try:
                with open(name, "rb") as file:
                    raw = file.read(MAX_RULE_FILE)
                    mtime = os.fstat(file.fileno()).st_mtime
                yield RuleFile(name, raw.decode("utf-8"), hashlib.sha256(raw).hexdigest(), mtime)
            except (OSError, UnicodeDecodeError) as exc:
                raise BadInput("Cannot read the rule file %s: %s." % (name, exc)) from exc


@contextmanager
def _opened(name: str, layers: Sequence[LayerSpec], snapshot: str) -> Iterator[DiskSpec]:
    with ExitStack() as stack:
        found = []
        for layer in layers:
            try:
                fd = os.open(layer.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as exc:
                raise BadInput("Cannot open the layer %s of disk %s: %s." % (layer.path, name, exc.strerror)) from exc
            stack.callback(os.close, fd)
            _claim(layer.path, fd)
            found.append(Layer(layer.path, layer.format, fd))
        yield DiskSpec(printable(name, 64), tuple(found), snapshot)


def _claim(path: str, fd: int) -> None:
    """Refuse what a running VM writes to, and keep a VM from starting on it while we read (a base may stay in use)."""
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise BadInput("Cannot read %s: it is neither a file nor a block device." % path)
    for byte in (_QEMU_HOLDS_WRITE, _QEMU_HOLDS_RESIZE):
        probe = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        if _FLOCK.unpack(probe)[0] != fcntl.F_UNLCK:
            raise BadInput(
                "Cannot read %s: it is in use by a running VM. Stop the VM, or scan a frozen layer below it." % path
            )
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _QEMU_DENIES_WRITE, 1, 0))


def _state(layer: Layer) -> tuple[int, int]:
    status = os.fstat(layer.fd)
    return status.st_size, status.st_mtime_ns


class Progress:
    """The progress file, replaced as a whole at most once a second, so that a reader never sees half of it."""

    def __init__(self, path: str, started: float) -> None:
        self._path = path
        self._started = started
        self._written = 0.0
        self.files = self.bytes = self.total = 0

    def write(self, phase: str = "scan", message: str = "") -> None:
        now = time.monotonic()
        if not self._path or (phase == "scan" and now - self._written < 1):
            return
        self._written = now
        rate = self.bytes / max(now - self._started, 0.001)
        left = max(0, self.total - self.bytes)
        state = {
            "phase": phase,
            "files": self.files,
            "bytes": self.bytes,
            "total_bytes": self.total,
            "rate": round(rate),
            "eta": 0 if phase == "done" else round(left / rate) if rate else None,
            "message": message or "%d files, %d MB read" % (self.files, self.bytes // 1000000),
        }
        draft = self._path + ".new"
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(state, file)
        os.replace(draft, self._path)


class _Listener:
    """Takes what the child says, and believes none of its shapes: it parsed what an attacker wrote."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tally = Tally()
        self.refused = ""

    def take(self, kind: str, body: dict[str, Any]) -> None:
        getattr(self, "_" + kind if kind in _KINDS else "_unknown")(body)

    def _unknown(self, body: dict[str, Any]) -> None:
        raise ValueError(body)

    def _finding(self, body: dict[str, Any]) -> None:
        self.tally.add_finding(Finding(**_typed(Finding, body)))

    def _indicator(self, body: dict[str, Any]) -> None:
        self.tally.add_indicator(Finding(**_typed(Finding, body)))

    def _volume(self, body: dict[str, Any]) -> None:
        if len(self.tally.volumes) < 4096:
            self.tally.volumes.append(Volume(**_typed(Volume, body)))

    def _engine(self, body: dict[str, Any]) -> None:
        self.tally.engines.append(body)

    def _reason(self, body: dict[str, Any]) -> None:
        self.tally.add_reason(str(body["text"]))

    def _note(self, body: dict[str, Any]) -> None:
        if len(self.tally.notes) < 200:
            self.tally.notes.append(printable(str(body["text"])))

    def _refused(self, body: dict[str, Any]) -> None:
        self.refused = str(body["text"])[:4096]

    def _expect(self, body: dict[str, Any]) -> None:
        self.progress.total += int(body["bytes"])

    def _progress(self, body: dict[str, Any]) -> None:
        self.tally.files = self.progress.files = int(body["files"])
        self.tally.bytes_read = self.progress.bytes = int(body["bytes"])

    def _finished(self, body: dict[str, Any]) -> None:
        self.tally.finished = True


_KINDS = frozenset(
    ("finding", "indicator", "volume", "engine", "reason", "note", "refused", "expect", "progress", "finished")
)
_TYPES = {"str": str, "int": int, "bool": bool}


def _typed(shape: type, body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass out of a message, each of its type and of a sane length."""
    values = {}
    for field in fields(shape):
        value = body[field.name]
        if value.__class__ is not _TYPES[str(field.type)]:
            raise TypeError(field.name)
        values[field.name] = printable(value, 1024) if isinstance(value, str) else value
    return values
