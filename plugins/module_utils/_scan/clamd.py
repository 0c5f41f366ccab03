# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ClamAV, through the UNIX socket of its daemon; and which signatures that judges by.

clamd tells the version of its official signatures only, and nothing when it has loaded others or failed to. So a
signature of ours, named after all files beside it, is put there: when clamd finds it, it has loaded those files too.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import socket
import struct
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Callable

from .blocks import UnreadableImage
from .engines import WINDOW, Content, EngineFailed, Hit, eicar, self_test
from .given import why_not
from .judge import Emit
from .known import Known

if TYPE_CHECKING:
    from .job import Request

MARK = "vmward.hsb"
PATIENCE = 120.0  # seconds that clamd is given to load its signatures
_PROVEN = 1 << 20
_MOST = (1 << 31) - 1
_LIMIT = "Heuristics.Limits.Exceeded"
_FOUND = " FOUND"
_SILENT = (
    "clamd does not say when an archive exceeds its limits, so that what such a one holds was not judged. "
    "Set AlertExceedsMax yes in clamd.conf and restart clamd."
)
_CLOSED = (
    "clamd does not open archives, so that what lies in one was not judged. Set ScanArchive yes in clamd.conf and "
    "restart clamd."
)
_NOT_RELIED_ON = "Nothing that ClamAV judged is relied on later: %s."


class Clamd:
    """Each content goes as an INSTREAM over a new connection. `database`: what its signatures are known as."""

    name = "clamd"

    def __init__(self, path: str, timeout: float, database: str = "unknown") -> None:
        self._path = path
        self._database = database
        self._timeout = timeout
        self._proven = _PROVEN
        self._limit = 0
        self._version = ask(path, timeout, b"zVERSION\0")
        self_test(self, [eicar()])
        self._tells_limits = _LIMIT in self._instream([_nested()])
        self.unpacks = self._instream([_zipped()]).endswith(_FOUND)

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        gap = self._size_gap(content.size)
        if gap:
            return [], gap
        answer = self._judged(content)
        name = answer[len("stream: ") : -len(_FOUND)] if answer.endswith(_FOUND) else ""
        if name.startswith(_LIMIT):
            return [], "ClamAV reached one of its limits on it (%s)" % name
        if name:
            return [Hit(name, -1)], ""
        return [], "" if answer == "stream: OK" else "ClamAV did not judge it (%s)" % answer

    def _judged(self, content: Content) -> str:
        """That it takes long for one file is no failure of clamd's, as long as it answers."""
        wait = min(self._timeout, max(0.1, content.budget.left()))
        try:
            return ask(self._path, wait, b"zINSTREAM\0", content.stream())
        except EngineFailed:
            if content.budget.left() <= 0:
                ask(self._path, self._timeout, b"zVERSION\0")
            content.budget.check()
            raise

    def _size_gap(self, size: int) -> str:
        """clamd says OK to what exceeds its MaxFileSize, without looking. So prove that it looks at this size."""
        gap = "it exceeds a size limit of clamd. Raise StreamMaxLength, MaxFileSize and MaxScanSize"
        if size > _MOST or (self._limit and size >= self._limit):
            return gap
        for probe in (1 << size.bit_length(), size):
            if size <= self._proven:
                break
            if self._instream(_padded(probe)).endswith(_FOUND):
                self._proven = probe
            elif probe == size:
                self._limit = size
                return gap
        return ""

    def _instream(self, chunks: Iterable[bytes]) -> str:
        return ask(self._path, self._timeout, b"zINSTREAM\0", chunks)

    @contextmanager
    def testing(self) -> Iterator[None]:
        yield  # it finds EICAR at all times

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self._version,
            "rules": [],
            "database": self._database,
            "database_age_days": age(self._version, time.time()),
            "limits": "told" if self._tells_limits else "silent",
            "archives": "opened" if self.unpacks else "closed",
            "self_test": "passed",
        }


def doubts(described: dict[str, Any]) -> list[str]:
    """What of its configuration keeps ClamAV from judging all that it is given."""
    silent, closed = described.get("limits") == "silent", described.get("archives") == "closed"
    return [_SILENT] * silent + [_CLOSED] * closed


def clamd_of(request: Request, emit: Emit) -> Clamd:
    """Only what is to be remembered asks for proof of the signatures: one process at a time, since they load anew."""
    if not request.clamd_socket:
        raise EngineFailed("ClamAV is among the engines required, but no clamd_socket is named.")
    database, why, timeout = "unknown", "", request.file_timeout
    if request.directory and request.clamd_database:
        try:
            with nullcontext() if request.dry else Known(request.directory).locked("clamd"):
                database, why = identified(request.clamd_socket, timeout, request.clamd_database, not request.dry)
        except OSError as exc:
            why = _NOT_RELIED_ON % ("%s: %s" % (request.directory, why_not(exc)))
    if why:
        emit("note", {"text": why})
    return Clamd(request.clamd_socket, timeout, database)


def age(version: str, now: float) -> int | None:
    """How many days ago the official signatures were made; None if clamd has none."""
    try:
        made = time.strptime(version.split("/")[2], "%a %b %d %H:%M:%S %Y")
    except (IndexError, ValueError):
        return None
    return max(0, int((now - time.mktime(made)) // 86400))


def identified(path: str, timeout: float, database: str, may_write: bool) -> tuple[str, str]:
    """The name of the signatures that clamd judges by, once that is proven; else `unknown`, and why."""
    try:
        name = _listing(database)
        if not _knows(path, timeout, name) and may_write:
            _load(path, timeout, database, name)
        if _knows(path, timeout, name) and _listing(database) == name:
            return name, ""
    except OSError as exc:
        return "unknown", _NOT_RELIED_ON % ("%s: %s" % (database, exc.strerror or exc))
    told = "clamd does not show that it has loaded the files in %s. " % database
    told += "Its log says why, or clamd_database is another" if may_write else "Check mode does not have it load them"
    return "unknown", _NOT_RELIED_ON % told


def _listing(database: str) -> str:
    """Changes with every signature file."""
    files = sorted(
        (entry.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        for entry, status in ((entry, entry.stat()) for entry in os.scandir(database) if entry.is_file())
        if entry.name != MARK and not entry.name.endswith((".dat", ".new"))  # freshclam's notes, and our draft
    )
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _knows(path: str, timeout: float, name: str) -> bool:
    return ask(path, timeout, b"zINSTREAM\0", [_sample(name)]).endswith(_FOUND)


def _load(
    path: str,
    timeout: float,
    database: str,
    name: str,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Have clamd load its signatures again, ours with them, and wait for it; but once only for the same files."""
    mark, sample = os.path.join(database, MARK), _sample(name)
    line = b"%s:%d:Vmward.Signatures.Loaded\n" % (hashlib.sha256(sample).hexdigest().encode(), len(sample))
    if _held_by(mark) == line:
        return  # it was given its time before
    _replace(mark, line)
    ask(path, timeout, b"zRELOAD\0")
    end = now() + PATIENCE
    while not _knows(path, timeout, name) and now() < end:
        sleep(0.2)


def _sample(name: str) -> bytes:
    return b"vmward asks which signatures are loaded: " + name.encode()


def _held_by(path: str) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(1024)
    except OSError:
        return b""


def _replace(path: str, line: bytes) -> None:
    """The directory belongs to another account: it may have put a link there, and must be able to read the file."""
    draft = path + ".new"
    with suppress(FileNotFoundError):
        os.unlink(draft)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(line)
    os.replace(draft, path)


def ask(path: str, timeout: float, command: bytes, chunks: Iterable[bytes] = ()) -> str:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(timeout)
            link.connect(path)
            link.sendall(command)
            if command == b"zINSTREAM\0":
                _send_chunks(link, chunks)
            return _answer(link)
    except OSError as exc:
        told = "Cannot ask clamd at %s: %s. Start it or correct clamd_socket."
        raise EngineFailed(told % (path, why_not(exc))) from exc


def _send_chunks(link: socket.socket, chunks: Iterable[bytes]) -> None:
    try:
        for chunk in _read(chunks):
            if chunk:
                link.sendall(struct.pack(">I", len(chunk)))
                link.sendall(chunk)
        link.sendall(bytes(4))
    except (BrokenPipeError, ConnectionResetError):
        return  # clamd hangs up on a stream past its limit, and its answer says so


def _read(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """That a disk can't be read is not clamd's fault, and no hanging up of its."""
    try:
        yield from chunks
    except OSError as exc:
        raise UnreadableImage("its disk image can't be read (%s)" % exc) from exc


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


def _zipped() -> bytes:
    """The harmless test file in an archive, packed, so that it is seen by opening it only."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sample", eicar())
    return data.getvalue()
