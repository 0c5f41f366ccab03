# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The append-only ledger of a case on the evidence host: locked, hash-linked, synced to disk, never rewritten."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

from .book import Appended, Book, plan_append, torn_artefact
from .entry import CaseError, Entry, check_case_id, digest
from .lease import Claim, Lease

DIRECTORIES = ("evidence", "evidence/data", "undo", "report")


@dataclass(frozen=True)
class Ledger:
    """The ledger of one case in a store. Reads need no lock; every change holds it from the read to the last sync."""

    store: Path
    case: str
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
    sleep: Callable[[float], None] = time.sleep
    patience: float = 30.0

    def __post_init__(self) -> None:
        check_case_id(self.case)

    @property
    def directory(self) -> Path:
        return self.store / self.case

    @property
    def path(self) -> Path:
        return self.directory / "ledger.jsonl"

    def read(self) -> Book | None:
        """The book as it is, or None where there is no such case."""
        try:
            book = Book.parse(self.case, self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self.store_error("read", exc) from exc
        return book if book.lines else None

    @contextmanager
    def locked(self, create: bool = False) -> Iterator[Transaction]:
        try:
            if create:
                self._create_directories()
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
            descriptor = os.open(self.path, flags, 0o600)
        except OSError as exc:
            raise self.store_error("open", exc) from exc
        try:
            self._lock(descriptor)
            yield Transaction(self, descriptor)
        except OSError as exc:
            raise self.store_error("write", exc) from exc
        finally:
            os.close(descriptor)

    def lease(self) -> Lease | None:
        try:
            return Lease.from_dict(json.loads((self.directory / "lease.json").read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as exc:
            raise CaseError(
                "broken", f"Cannot tell who leads case {self.case}: lease.json is damaged: {exc}. Remove that file."
            ) from exc

    def write(self, name: str, data: bytes) -> dict[str, Any]:
        """Write a small file of the case in one step, and return it as an artefact."""
        target = self.directory / name
        for parent in reversed(target.relative_to(self.directory).parents):
            make_private(self.directory / parent)
        temporary = target.with_name(f".{target.name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, target)
        sync_directory(target.parent)
        return {"path": name, "size": len(data), "sha256": digest(data)}

    def _create_directories(self) -> None:
        make_private(self.store)
        make_private(self.directory)
        for name in DIRECTORIES:
            make_private(self.directory / name)

    def _lock(self, descriptor: int) -> None:
        deadline = time.monotonic() + self.patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    raise CaseError(
                        "store",
                        f"Cannot record in case {self.case}: another process held its lock for {self.patience:.0f} s. "
                        f"See who with 'fuser {self.path}'.",
                    ) from exc
            self.sleep(0.005)

    def missing(self, verb: str) -> CaseError:
        others = sorted(path.parent.name for path in self.store.glob("*/ledger.jsonl") if path.stat().st_size)[:10]
        known = f"the cases there are {', '.join(others)}" if others else "there is no case there"
        where = f"it was never opened in {self.store}; {known}"
        return CaseError("store", f"Cannot {verb} case {self.case}: {where}. Open the case first.")

    def store_error(self, verb: str, exc: OSError) -> CaseError:
        if isinstance(exc, FileNotFoundError) and exc.filename == str(self.path):
            return self.missing(verb)
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "Free space there; nothing of this call was kept" if full else "Check the store's mount and rights"
        where = f" ({exc.filename})" if exc.filename else ""
        return CaseError("store", f"Cannot {verb} case {self.case}: {exc.strerror or exc}{where}. {advice}.")


@dataclass(frozen=True)
class Transaction:
    """The ledger under its lock."""

    ledger: Ledger
    descriptor: int

    def book(self) -> Book:
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        with os.fdopen(os.dup(self.descriptor), "rb") as stream:
            return Book.parse(self.ledger.case, stream.read())

    def append(self, entries: Sequence[Entry], claim: Claim) -> Appended:
        book = self.book()
        appended = plan_append(self.ledger.case, book, self.ledger.lease(), entries, claim, self.ledger.now())
        new = appended.book.lines[len(book.lines) :]
        if new:
            self._write(book, b"".join(line + b"\n" for line in new))
        if appended.lease is not None and claim.holder is not None:
            self.ledger.write("lease.json", json.dumps(appended.lease.to_dict()).encode("ascii"))
        return appended

    def _write(self, book: Book, data: bytes) -> None:
        """Torn bytes are moved aside first; a write that fails leaves the file as it was found."""
        start = sum(len(line) + 1 for line in book.lines)
        if book.torn:
            self.ledger.write(torn_artefact(book)["path"], book.torn)
        try:
            overwrite(self.descriptor, start, data)
        except OSError:
            overwrite(self.descriptor, start, book.torn)
            raise
        sync_directory(self.ledger.directory)


def overwrite(descriptor: int, start: int, data: bytes) -> None:
    """Make `data` all that stands behind `start`, on disk."""
    os.lseek(descriptor, start, os.SEEK_SET)
    write_all(descriptor, data)
    os.ftruncate(descriptor, start + len(data))
    os.fsync(descriptor)


def make_private(directory: Path) -> None:
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        if not directory.is_dir():
            raise
    else:
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
