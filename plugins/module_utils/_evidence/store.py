# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where one artefact comes to lie: the evidence host's side. Standard library only, for its text is also sent over ssh.

An artefact is whole when its sidecar ``<name>.json`` is there, and not before. While it is written it is called
``<name>.partial``; it gets its name only after its size and hash were compared, and the sidecar gets its own name last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import signal
import struct
import sys
import time
from typing import Any, BinaryIO, Callable

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PAYLOAD = os.path.join("evidence", "data")
SIDECAR_LIMIT = 1 << 20
ZEROS = bytes(1 << 20)
VERBS = ("look", "open", "begin", "finish", "rehash", "sidecar_artefact")
SILENCE = 120  # seconds without a frame from the sender, after which it counts as dead
FRAME = struct.Struct(">cQ")  # kind, length


class StoreError(Exception):
    """The store cannot do it; the sentence says why and what to do."""


def checked_name(what: str, name: str) -> str:
    """A name that is one plain path component, cannot be an option or a hidden file, and needs no quoting."""
    if not NAME.fullmatch(name) or name.endswith((".partial", ".lock")):
        raise StoreError(f"Cannot use {name[:120]!r} as {what}: letters, digits, dot, dash and underscore only.")
    return name


class Store:
    """The place of one artefact below a case's directory."""

    def __init__(self, case_directory: str, folder: str, name: str) -> None:
        self.case_directory = case_directory
        self.directory = os.path.join(case_directory, PAYLOAD, checked_name("a folder of the case", folder))
        self.path = os.path.join(self.directory, checked_name("an artefact's name", name))
        self.sidecar, self.partial = self.path + ".json", self.path + ".partial"
        self.pending = self.sidecar + ".partial"
        self._lock = self._file = -1

    def look(self) -> dict[str, Any]:
        """What is there, without touching anything: the sidecar of a whole artefact or None, and the free space."""
        if not os.path.isdir(self.case_directory):
            raise StoreError(
                f"The case has no directory {self.case_directory} there. Open the case (case_ledger) first."
            )
        place = self.directory
        while not os.path.isdir(place):
            place = os.path.dirname(place)
        room = os.statvfs(place)
        return {"whole": self._whole(), "free": room.f_bavail * room.f_frsize, "filesystem": os.stat(place).st_dev}

    def _whole(self) -> dict[str, Any] | None:
        try:
            with open(self.sidecar, "rb") as file:
                kept = json.loads(file.read(SIDECAR_LIMIT))
                size, sha256 = int(kept["size"]), str(kept["sha256"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as exc:
            raise StoreError(f"The sidecar {self.sidecar} cannot be read ({exc}). Compare it with the ledger.") from exc
        found = os.lstat(self.path).st_size if os.path.isfile(self.path) else -1
        if found != size:
            raise StoreError(
                f"{self.path} is not as it was stored: it has {found} bytes, its sidecar says {size}. Nothing was "
                "overwritten. Compare it with the ledger, and keep both."
            )
        return dict(kept, size=size, sha256=sha256)

    def open(self, wait: float) -> dict[str, Any]:
        """Become the only writer, waiting for another one; finish what a dead one left finished but for its names."""
        look = self.look()
        if look["whole"]:
            return look
        make_directories(self.case_directory, self.directory)
        self._lock = lock(self.path + ".lock", wait)
        if os.path.exists(self.path) and not os.path.exists(self.sidecar):
            self._finish_for_the_dead()
        return self.look()

    def _finish_for_the_dead(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            with open(self.pending, "rb") as file:
                promised = json.loads(file.read(SIDECAR_LIMIT))["sha256"]
            if promised == self.rehash():
                os.rename(self.pending, self.sidecar)
                sync_directory(self.directory)
                return
        raise StoreError(f"{self.path} was not stored by vmward, or not wholly. Nothing was overwritten. Move it away.")

    def begin(self) -> None:
        """Start the partial file anew; what a dead run left goes."""
        for stale in (self.partial, self.pending):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(stale)
        self._file = os.open(self.partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._size, self._sha = 0, hashlib.sha256()

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._sha.update(data)
        self._size += len(data)

    def hole(self, size: int) -> None:
        """Bytes of zero: hashed, but not written."""
        os.lseek(self._file, size, os.SEEK_CUR)
        self._size += size
        while size:
            part = min(size, len(ZEROS))
            self._sha.update(ZEROS[:part] if part < len(ZEROS) else ZEROS)
            size -= part

    def beat(self) -> None:
        """Nobody waits for a sign of life here."""

    def finish(self, details: dict[str, Any], read: tuple[int, str] | None = None) -> dict[str, Any]:
        """Make the artefact whole; ``read`` is the size and hash of what a sender read. Answers the sidecar."""
        os.ftruncate(self._file, self._size)
        os.fsync(self._file)
        written = (os.fstat(self._file).st_size, self._sha.hexdigest())
        os.close(self._file)
        self._file = -1
        if read is not None and tuple(read) != written:
            raise StoreError(f"{self.partial} differs from what was read: {written}, not {read}. Run again.")
        sidecar = dict(details, size=written[0], sha256=written[1])
        write_file(self.pending, (json.dumps(sidecar, indent=2, sort_keys=True) + "\n").encode())
        os.rename(self.partial, self.path)
        os.rename(self.pending, self.sidecar)
        sync_directory(self.directory)
        return sidecar

    def rehash(self) -> str:
        return hash_of(self.path)

    def sidecar_artefact(self) -> dict[str, Any]:
        """Size and hash of the sidecar itself, for the ledger."""
        return {"size": os.stat(self.sidecar).st_size, "sha256": hash_of(self.sidecar)}

    def close(self) -> None:
        """Remove what is not whole, and let others in."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._lock >= 0:
            for stale in (self.partial, self.pending, self.path + ".lock"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(stale)
            os.close(self._lock)
            self._lock = -1


def lock(
    path: str, wait: float, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> int:
    """An exclusive lock file that its holder removes. Raises after ``wait`` seconds."""
    end = now() + wait
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if same_file(handle, path):
                return handle
        except BlockingIOError:
            if now() >= end:
                os.close(handle)
                raise StoreError(f"Another run still works on it ({path}). Wait for it, then run again.") from None
            sleep(0.5)
        os.close(handle)


def same_file(handle: int, path: str) -> bool:
    """False when the last holder has removed the lock file meanwhile."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def make_directories(top: str, directory: str) -> None:
    """The directories from ``top`` down, for the owner only."""
    if not os.path.isdir(directory):
        if directory != top:
            make_directories(top, os.path.dirname(directory))
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        sync_directory(os.path.dirname(directory))


def sync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: str, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)


def hash_of(path: str) -> str:
    sha = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(1 << 20):
            sha.update(data)
    return sha.hexdigest()


# The same over a pipe: a frame is its kind, a length and, for data and requests, that many bytes.


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Do what the sender's frames say, until it ends or falls silent."""
    store: Store | None = None
    try:
        while True:
            kind, size = next_frame(source)
            if kind == b"R":
                request = json.loads(read_exactly(source, min(size, SIDECAR_LIMIT)))
                if request["verb"] == "at":
                    store, answer = Store(*request["arguments"]), None
                elif request["verb"] in VERBS:
                    answer = getattr(store, request["verb"])(*request["arguments"])
                else:
                    raise StoreError(f"Unknown request {request['verb']!r}.")
                reply(sink, {"answer": answer})
            elif store is not None and kind == b"D":
                store.write(read_exactly(source, size))
            elif store is not None and kind == b"H":
                store.hole(size)
    except EOFError:
        pass
    except (StoreError, OSError, ValueError) as exc:
        full = isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)
        reply(sink, {"error": str(exc), "full": full})
    finally:
        if store is not None:
            store.close()


def next_frame(source: BinaryIO) -> tuple[bytes, int]:
    signal.alarm(SILENCE)
    kind, size = FRAME.unpack(read_exactly(source, FRAME.size))
    signal.alarm(0)
    return kind, size


def read_exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise EOFError
    return data


def reply(sink: BinaryIO, answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        sink.write(json.dumps(answer).encode() + b"\n")
        sink.flush()


def fall_silent(_signal: int, _frame: object) -> None:
    raise EOFError


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, fall_silent)
    serve(sys.stdin.buffer, sys.stdout.buffer)
