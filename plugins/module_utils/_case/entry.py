# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one line of a ledger is: its fields, its limits, its canonical form. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
VERB = re.compile(r"[a-z][a-z0-9_.-]{0,63}\Z")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z\Z")
SHA256 = re.compile(r"[0-9a-f]{64}\Z")

GENESIS = "0" * 64
ENTRY_LIMIT = 64 * 1024
TEXT_LIMITS = {"actor": 256, "host": 256, "target": 1024, "key": 256, "spool_id": 64}
# What makes two entries the same event: everything except who noticed it when, and where it stands in the chain.
CONTENT = ("phase", "action", "target", "inputs", "result", "artefacts")

Entry = Mapping[str, Any]


class CaseError(Exception):
    """A ledger operation that could not be done. `kind` says why: input, store, lease, sealed or broken."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def canonical(value: Any) -> str:
    """Sorted, compact and ASCII only: text from a guest cannot reorder or recolour a terminal that shows it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def timestamp(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def artefact_name(foreign: str) -> str:
    """A file name for a foreign name: equal for harmless names, else cleaned and made unique by its hash."""
    if NAME.match(foreign) and len(foreign) <= 96:
        return foreign
    cleaned = re.sub(r"[^A-Za-z0-9._-]", "_", foreign)[:64].lstrip("._-")
    return f"{cleaned or 'name'}-{digest(foreign.encode('utf-8', 'surrogatepass'))[:12]}"


def check_case_id(case: str) -> str:
    if not CASE_ID.match(case):
        raise CaseError(
            "input",
            f"Cannot use {canonical(case[:80])} as a case: an id is 1 to 64 letters, digits, dots, dashes or "
            "underscores and begins with a letter or digit. Choose another, for instance 2026-0142.",
        )
    return case


def check_path(path: str) -> str:
    """An artefact lies under evidence/, undo/ or report/ of its case, and nowhere else."""
    parts = path.split("/")
    if len(parts) < 2 or parts[0] not in ("evidence", "undo", "report") or not all(NAME.match(part) for part in parts):
        raise CaseError(
            "input",
            f"Cannot record the artefact {canonical(path[:200])}: its path must be relative to the case, below "
            "evidence/, undo/ or report/, in names of letters, digits, dots, dashes and underscores. Rename the file.",
        )
    return path


def _check_artefact(raw: Mapping[str, Any]) -> dict[str, Any]:
    artefact = {name: value for name, value in raw.items() if value is not None}
    check_path(str(artefact.get("path", "")))
    size = artefact.get("size")
    if not isinstance(size, int) or size < 0 or not SHA256.match(str(artefact.get("sha256", ""))):
        raise CaseError(
            "input",
            f"Cannot record the artefact {artefact['path']}: it needs its size in bytes and its SHA-256 in lower-case "
            "hexadecimal. Take both from the pass that wrote it.",
        )
    return artefact


def check_entry(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A caller's entry in its stored form, or a CaseError before anything is touched."""
    entry = check_shape(raw)
    _check_size(entry)
    return entry


def check_shape(raw: Mapping[str, Any]) -> dict[str, Any]:
    entry = {name: value for name, value in raw.items() if value is not None}
    for name in ("phase", "action"):
        if not VERB.match(str(entry.get(name, ""))):
            raise CaseError("input", f"Cannot record an entry: {name} {entry.get(name)!r} is not a lower-case word.")
    for name, limit in TEXT_LIMITS.items():
        if name in entry and (not isinstance(entry[name], str) or len(entry[name]) > limit):
            raise _bad(entry, f"{name} must be a text of at most {limit} characters")
    for name in ("time", "spooled_at"):
        if name in entry and not TIME.match(str(entry[name])):
            raise _bad(entry, f"{name} must be UTC in the form 2026-01-31T12:00:00Z")
    for name in ("inputs", "result"):
        if not isinstance(entry.setdefault(name, {}), dict):
            raise _bad(entry, f"{name} must be a dictionary")
    entry["artefacts"] = [_check_artefact(artefact) for artefact in entry.get("artefacts", ())]
    entry.setdefault("target", "")
    return entry


def _bad(entry: Entry, cause: str) -> CaseError:
    return CaseError("input", f"Cannot record the entry {entry['action']}: {cause}.")


def _check_size(entry: Entry) -> None:
    try:
        size = len(canonical(entry))
    except (TypeError, ValueError) as exc:
        raise _bad(entry, f"it is not JSON: {exc}") from exc
    if size > ENTRY_LIMIT:
        raise _bad(
            entry,
            f"it has {size} bytes, the limit is {ENTRY_LIMIT}. Save long output as an artefact and record its hash",
        )


def same_event(one: Entry, other: Entry) -> bool:
    return all(one.get(name) == other.get(name) for name in CONTENT)


def says(recorded: Entry, wanted: Entry) -> bool:
    """Does the ledger say this already? Opening a case without metadata is content with any opening."""
    opens = recorded.get("action") == wanted["action"] == "open" and "metadata" not in wanted["inputs"]
    return opens or same_event(recorded, wanted)


def link(entry: Entry, seq: int, prev: str, epoch: int) -> bytes:
    """The entry as the line that follows the line whose hash is `prev`, without its newline."""
    return canonical({**entry, "seq": seq, "prev": prev, "epoch": epoch}).encode("ascii")
