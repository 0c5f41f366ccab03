# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence of a case as a BagIt bag (RFC 8493): manifests from recorded hashes, validated by the library."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .book import Book
from .entry import CaseError, canonical
from .ledger import Ledger
from .verify import hash_file

PAYLOAD = "evidence/data/"


def payload_of(ledger: Ledger, book: Book) -> dict[str, Any]:
    """The recorded payload by its path in the bag; a file too many or too few is an error."""
    payload = {path[len("evidence/") :]: one for path, one in book.artefacts.items() if path.startswith(PAYLOAD)}
    _refuse_strangers(ledger, payload)
    return payload


def write_bag(ledger: Ledger, book: Book, now: datetime, rehash: bool) -> list[dict[str, Any]]:
    """Write the bag's own files and validate it; they are returned as artefacts of the closing entry."""
    payload = payload_of(ledger, book)
    lines = [f"{artefact['sha256']}  {path}\n" for path, artefact in sorted(payload.items())]
    written = [
        ledger.write("evidence/bagit.txt", b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"),
        ledger.write("evidence/manifest-sha256.txt", "".join(lines).encode()),
        ledger.write("evidence/bag-info.txt", _bag_info(ledger.case, book, payload, now).encode()),
    ]
    certificates = sorted((ledger.directory / "evidence" / "certificates").rglob("*"))
    tags = {one["path"][len("evidence/") :]: one["sha256"] for one in written}
    for path in certificates:
        if path.is_file():
            tags[str(path.relative_to(ledger.directory / "evidence"))] = hash_file(str(path))
    text = "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(tags.items()))
    written.append(ledger.write("evidence/tagmanifest-sha256.txt", text.encode()))
    _validate(ledger, rehash)
    return written


def _refuse_strangers(ledger: Ledger, payload: Mapping[str, Any]) -> None:
    root = str(ledger.directory / "evidence")
    found = {os.path.relpath(f"{at}/{name}", root) for at, _dirs, names in os.walk(f"{root}/data") for name in names}
    for cause, paths in (("in no entry of the ledger", found - set(payload)), ("missing", set(payload) - found)):
        if paths:
            names = ", ".join(canonical(path) for path in sorted(paths)[:10])
            raise CaseError(
                "input",
                f"Cannot seal case {ledger.case}: {len(paths)} payload files are {cause}: {names}. Record each file "
                "under evidence/data with its hash, or record its disposal, then seal again.",
            )


def _bag_info(case: str, book: Book, payload: Mapping[str, Any], now: datetime) -> str:
    total = sum(artefact["size"] for artefact in payload.values())
    described = sorted((str(name), canonical(value)) for name, value in book.metadata.get("metadata", {}).items())
    tags = [
        ("Bag-Software-Agent", "vmward.remediation case_ledger"),
        ("Bagging-Date", now.date().isoformat()),
        ("External-Identifier", case),
        ("Payload-Oxum", f"{total}.{len(payload)}"),
        ("Ledger-Head", f"{book.head['seq']}:{book.head['hash']}"),
        *((f"Case-{canonical(name)[1:-1].replace(':', '_').replace(' ', '-')}", value) for name, value in described),
    ]
    return "".join(f"{name}: {value}\n" for name, value in tags)


def _validate(ledger: Ledger, rehash: bool) -> None:
    root = str(ledger.directory / "evidence")
    try:
        import bagit
    except ImportError as exc:
        raise CaseError(
            "store",
            f"Cannot seal case {ledger.case}: the Python library bagit is missing on the evidence host. Install bagit "
            "from PyPI or python3-bagit from Debian for the interpreter that Ansible uses there.",
        ) from exc
    try:
        bagit.Bag(root).validate(fast=False, completeness_only=not rehash)
    except bagit.BagError as exc:
        raise CaseError(
            "broken",
            f"Cannot seal case {ledger.case}: its evidence is not what the ledger recorded: {str(exc)[:500]}. Run "
            "verify, and restore the file from another copy.",
        ) from exc
