# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What earlier scans leave for later ones, in one directory: an index per base, and the contents found clean.

All of it is bound to the rules and engines that judged. What was judged by others, or can't be proven to be the same,
counts as unknown.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from .baseline import FORMAT
from .chain import Layer
from .packed import UNPACKED
from .remembered import KEY, MOST_CONTENTS

READER = 11  # raise it whenever a reader learns to see more: what an older one called clean is scanned again
_MOST_HEAD = 1 << 20
_DRAFT = ".draft"
_UNUSABLE = "Cannot use the directory %s: %s."


@dataclass(frozen=True)
class Base:
    """An indexed base: what was scanned, by what, with which result; and the index itself."""

    head: dict[str, Any]
    body: bytes

    @property
    def binding(self) -> str:
        return str(self.head["binding"])

    @property
    def verdict(self) -> str:
        return str(self.head["verdict"])

    @property
    def unopened(self) -> int:
        return int(self.head["result"]["archives_unopened"])

    def is_of(self, layers: Sequence[Layer]) -> bool:
        """Whether these files are still what was indexed: untouched, or (a new owner touches a file) the same bytes."""
        if self.is_untouched(layers):
            return True
        sizes = [os.fstat(layer.fd).st_size for layer in layers]
        return sizes == [state[4] for state in self.head["states"]] and self.head["sha256"] == [
            fingerprint(layer) for layer in layers
        ]

    def is_untouched(self, layers: Sequence[Layer]) -> bool:
        # Nothing tells when a block device was written to
        devices = any(stat.S_ISBLK(os.fstat(layer.fd).st_mode) for layer in layers)
        return not devices and bool(self.head["states"] == [state_of(layer) for layer in layers])


@dataclass(frozen=True)
class Former:
    """What an earlier scan kept of a disk that it found clean, and who tells what was written to it since."""

    name: str
    at: int  # seconds since 1970
    binding: str
    body: bytes
    context: str  # of NBD: a dirty bitmap
    unopened: int = 0  # archives that nobody looked into


@dataclass
class Records:
    """Of a scan that was asked for them: by disk, what a later one must know, bound to the rules and engines."""

    binding: str = ""
    bodies: dict[str, bytes] = field(default_factory=dict)


def binding(engines: Sequence[dict[str, Any]], extra: Sequence[Any]) -> str:
    """One text for all that decides on a verdict, what this host can unpack included."""
    told = [
        [one["name"], one["version"], sorted(rule["sha256"] for rule in one["rules"])]
        + [one.get("database", ""), one.get("limits", ""), one.get("archives", "")]
        for one in engines
    ]
    return hashlib.sha256(
        json.dumps([READER, FORMAT, told, sorted(UNPACKED), list(extra)], sort_keys=True).encode()
    ).hexdigest()


def state_of(layer: Layer) -> list[Any]:
    """Changes whenever the file does; only who may set the host's clock can prevent that."""
    status = os.fstat(layer.fd)
    return [
        layer.path,
        layer.format,
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    ]


def fingerprint(layer: Layer) -> str:
    """SHA-256 of a layer's file."""
    digest = hashlib.sha256()
    at = 0
    while True:
        data = os.pread(layer.fd, 4 << 20, at)
        if not data:
            return digest.hexdigest()
        digest.update(data)
        at += len(data)


class Known:
    def __init__(self, directory: str) -> None:
        self._directory = directory

    def path(self, layers: Sequence[Layer]) -> str:
        named = json.dumps([[layer.path, layer.format] for layer in layers])
        return os.path.join(self._directory, hashlib.sha256(named.encode()).hexdigest()[:32] + ".index")

    def judged_by(self, layers: Sequence[Layer]) -> frozenset[str] | None:
        """The hashes of YARA's rules that a base was indexed with; nothing if no index of it can be read."""
        try:
            with open(self.path(layers), "rb") as file:
                engines = json.loads(file.readline(_MOST_HEAD))["result"]["engines"]
            return frozenset(rule["sha256"] for engine in engines for rule in engine["rules"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def base(self, layers: Sequence[Layer]) -> Base | None:
        """What is known of a base of these files, whether or not it still holds."""
        try:
            with open(self.path(layers), "rb") as file:
                head = json.loads(file.readline(_MOST_HEAD))
                body = file.read()
            whole = hashlib.sha256(body).hexdigest() == head["body_sha256"]
            return Base(head, body) if whole and len(head["states"]) == len(layers) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, layers: Sequence[Layer], head: dict[str, Any], body: bytes) -> str:
        full = {**head, "body_sha256": hashlib.sha256(body).hexdigest(), "written": int(time.time())}
        path = self.path(layers)
        self._replace(path, json.dumps(full).encode() + b"\n" + body)
        return path

    def record(self, vm_id: str) -> tuple[dict[str, Any], dict[str, bytes]] | None:
        """What the last clean scan of a running VM left: its head, and by disk what `Former` wants."""
        try:
            with open(self._record_path(vm_id), "rb") as file:
                head = json.loads(file.readline(_MOST_HEAD))
                body = file.read()
            if hashlib.sha256(body).hexdigest() != head["body_sha256"] or head["vm"] != vm_id:
                return None
            bodies, at = {}, 0
            for name, size in head["sizes"].items():
                bodies[name] = body[at : at + size]
                at += size
            return head, bodies
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep_record(self, vm_id: str, head: dict[str, Any], bodies: dict[str, bytes]) -> None:
        body = b"".join(bodies.values())
        sizes = {name: len(one) for name, one in bodies.items()}
        full = {**head, "vm": vm_id, "sizes": sizes, "body_sha256": hashlib.sha256(body).hexdigest()}
        self._replace(self._record_path(vm_id), json.dumps(full).encode() + b"\n" + body)

    def forget_record(self, vm_id: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._record_path(vm_id))

    def _record_path(self, vm_id: str) -> str:
        return os.path.join(self._directory, hashlib.sha256(vm_id.encode()).hexdigest()[:32] + ".checkpoint")

    def contents(self, bound: str) -> set[bytes]:
        """The keys of all contents that this binding found clean."""
        try:
            with open(self._contents_path(bound), "rb") as file:
                raw = file.read(MOST_CONTENTS * KEY)
        except OSError:
            return set()
        return {raw[at : at + KEY] for at in range(0, len(raw) - len(raw) % KEY, KEY)}

    def add_contents(self, bound: str, fresh: Sequence[bytes]) -> None:
        if not fresh:
            return
        with self.locked("contents"):
            everything = self.contents(bound) | set(fresh)
            if len(everything) > MOST_CONTENTS:
                everything = set(fresh)  # start again rather than grow for ever
            self._replace(self._contents_path(bound), b"".join(sorted(everything)))
            self._forget_others(bound)

    def _contents_path(self, bound: str) -> str:
        return os.path.join(self._directory, bound[:32] + ".clean")

    def _forget_others(self, bound: str) -> None:
        """Contents that former rules judged, and drafts of who was killed, once they are a month old."""
        for name in os.listdir(self._directory):
            path = os.path.join(self._directory, name)
            old = name.endswith((".clean", _DRAFT)) and name != bound[:32] + ".clean"
            with suppress(FileNotFoundError):  # a draft that another scan has finished meanwhile
                if old and time.time() - os.stat(path).st_mtime > 30 * 86400:
                    os.unlink(path)

    def _replace(self, path: str, content: bytes) -> None:
        """By a draft of its own, for not all who write the same hold a lock."""
        fd, draft = tempfile.mkstemp(_DRAFT, os.path.basename(path) + ".", self._directory)
        try:
            with open(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except OSError:
            with suppress(OSError):
                os.unlink(draft)
            raise

    def create(self) -> str:
        """Make the directory; say why what lies there can't be believed."""
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
        except FileExistsError:
            pass  # told below
        except OSError as exc:
            return _UNUSABLE % (self._directory, exc.strerror)
        return self.doubt()

    def doubt(self) -> str:
        """Who can write there, or replace it, calls anything clean; and so may have who once could."""
        try:
            if os.path.exists(self._directory) and not os.path.isdir(self._directory):
                return _UNUSABLE % (self._directory, "no directory lies there")
            return self._doubt() if os.path.isdir(self._directory) else ""
        except OSError as exc:
            return _UNUSABLE % (self._directory, exc.strerror)

    def _doubt(self) -> str:
        status = os.stat(self._directory)
        if not _is_ours(status) or status.st_mode & 0o022:
            return "Others may write to the directory %s. Give it to root, with mode 0700." % self._directory
        for above in _above(self._directory):
            mode = os.stat(above).st_mode
            if mode & 0o002 and not mode & stat.S_ISVTX:
                told = "Everybody may write to %s, and so replace the directory %s. Choose another one."
                return told % (above, self._directory)
        for entry in os.scandir(self._directory):
            with suppress(FileNotFoundError):
                if not _is_ours(entry.stat(follow_symlinks=False)):
                    return "%s belongs to another user, who can have made it say anything. Remove it." % entry.path
        return ""

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """One at a time, over all processes of the host."""
        path = os.path.join(self._directory, what + ".lock")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid())


def _above(directory: str) -> Iterator[str]:
    """All directories on the way to it, and to what it is a link to."""
    for path in (os.path.abspath(directory), os.path.realpath(directory)):
        while path != os.path.dirname(path):
            path = os.path.dirname(path)
            yield path


def find_base(directory: str, bound: str, parts: Sequence[Sequence[Layer]]) -> tuple[Base | None, Sequence[Layer], str]:
    """The first of these parts of a chain that is indexed; and why it can't be relied on, if it can't."""
    if not directory:
        return None, (), "no directory of indexes was given"
    if not bound:
        return None, (), "the engines' signatures can't be identified"
    known = Known(directory)
    for layers in parts:
        base = known.base(layers) if layers else None
        if base is None:
            continue
        if base.binding != bound:
            return base, layers, "the base was indexed with other rules, engines or limits"
        if not base.is_of(layers):
            return base, layers, "the base was changed since it was indexed"
        if base.verdict != "clean":
            return base, layers, "the base is not clean, but %s" % base.verdict
        return base, layers, ""
    return None, (), "no base of it is indexed"
