# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a controller keeps about a case: entries that could not reach the store yet, and the last head it signed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .entry import Entry, canonical, check_case_id
from .ledger import sync_directory, write_all


@dataclass(frozen=True)
class Spool:
    """One private file per case, one entry per line. A line that cannot be read is kept, and counted."""

    directory: Path
    case: str

    def __post_init__(self) -> None:
        check_case_id(self.case)

    @property
    def path(self) -> Path:
        return self.directory / f"{self.case}.jsonl"

    def pending(self) -> tuple[list[dict[str, Any]], int]:
        """The entries that wait, oldest first, and the number of unreadable lines."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return [], 0
        entries = [entry for entry in map(_read, lines) if entry is not None]
        return entries, len([line for line in lines if line.strip()]) - len(entries)

    def add(self, entries: Sequence[Entry], now: str) -> None:
        with self._locked() as descriptor:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            marked = [{**entry, "spooled_at": now, "spool_id": uuid.uuid4().hex} for entry in entries]
            text = "".join(canonical(entry) + "\n" for entry in marked)
            write_all(descriptor, (("\n" if torn else "") + text).encode("ascii"))
            os.fsync(descriptor)
        sync_directory(self.directory)

    def remove(self, spool_ids: Collection[str]) -> None:
        """Empty the spool if the ledger has taken in all of it; else all stays, for the ledger knows what it has."""
        with self._locked() as descriptor:
            entries, unreadable = self.pending()
            if not unreadable and all(entry["spool_id"] in spool_ids for entry in entries):
                os.ftruncate(descriptor, 0)
                os.fsync(descriptor)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and entry.get("spool_id") else None


@dataclass(frozen=True)
class Anchor:
    """The last head this controller signed: a store that no longer holds it gets no further signature."""

    directory: Path
    case: str
    place: str

    @property
    def path(self) -> Path:
        place = hashlib.sha256(self.place.encode()).hexdigest()[:12]
        return self.directory / f"{check_case_id(self.case)}.{place}.anchor"

    def load(self) -> tuple[int, str] | None:
        try:
            seq, _colon, sha256 = self.path.read_text("ascii").strip().partition(":")
        except FileNotFoundError:
            return None
        return (int(seq), sha256) if seq.isdecimal() and sha256 else None

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)

    def save(self, seq: int, sha256: str) -> None:
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, f"{seq}:{sha256}\n".encode("ascii"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, self.path)
        sync_directory(self.directory)
