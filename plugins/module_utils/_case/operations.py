# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operations of case_ledger on the evidence host, from options to a result."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

from . import verify as verifier
from .bag import payload_of, write_bag
from .book import Appended, Book, plan_append
from .certificate import certificate_path
from .entry import CaseError, Entry
from .gate import judge
from .lease import Claim
from .ledger import Ledger, Transaction
from .options import certified_artefacts, opening, own_entry, requested

BOOKKEEPING = ("signature", "lease", "repair", "certificate")

Options = Mapping[str, Any]


def run(options: Options, check: bool) -> dict[str, Any]:
    ledger = Ledger(Path(options["store"]), options["case"])
    readers: dict[str, Callable[[Ledger, Options, bool], dict[str, Any]]] = {"read": read, "verify": verify}
    return readers.get(options["operation"], record)(ledger, options, check)


def record(ledger: Ledger, options: Options, check: bool) -> dict[str, Any]:
    """Open, append, seal and reopen: each is an append, with something to do before it."""
    entries = requested(options)
    if check:
        before, appended = _predict(ledger, options, entries)
    else:
        creates = any(entry["action"] == "open" for entry in entries)
        with ledger.locked(create=creates) as transaction:
            before, appended = _write(transaction, options, entries)
    return _result(ledger, options, entries, before, appended)


def _predict(ledger: Ledger, options: Options, entries: Sequence[Entry]) -> tuple[Book, Appended]:
    before = ledger.read()
    now = ledger.now()
    if before is None:
        before = Book()
        if not any(entry["action"] == "open" for entry in entries):
            before = plan_append(ledger.case, before, None, [opening(options)], Claim(), now).book
    _require_head(ledger, options, before)
    lease = ledger.lease() if ledger.directory.is_dir() else None
    claim = _claim(options)
    if (claim.epoch or 0) > (lease.epoch if lease else 0):  # an earlier task foresaw it, and took no lease
        claim = replace(claim, epoch=None)
    appended = plan_append(ledger.case, before, lease, _due(options, before, entries), claim, now)
    if options["operation"] == "seal" and not appended.book.sealed:
        payload_of(ledger, appended.book)
        closing = [own_entry(options, "seal", target="", inputs={}, result={}, artefacts=[])]
        sealed = plan_append(ledger.case, appended.book, appended.lease, closing, Claim(), now)
        appended = Appended(sealed.book, appended.recorded, sealed.lease)
    return before, appended


def _write(transaction: Transaction, options: Options, entries: Sequence[Entry]) -> tuple[Book, Appended]:
    ledger, before = transaction.ledger, transaction.book()
    if not before.lines and not any(entry["action"] == "open" for entry in entries):
        raise ledger.missing("record in")
    _require_head(ledger, options, before)
    if not before.lines:
        ledger.write("verify.py", verifier_source())
    certificates = _store_certificates(ledger, options, before)
    due = _due(options, before, entries)
    appended = transaction.append([*certificates, *due], _claim(options))
    recorded = appended.recorded[len(certificates) :]
    if options["operation"] == "seal" and not appended.book.sealed:
        tags = write_bag(ledger, appended.book, ledger.now(), options.get("rehash") is not False)
        closing = own_entry(options, "seal", target="", inputs={}, result={}, artefacts=tags)
        appended = transaction.append([closing], Claim())
    return before, Appended(appended.book, recorded, appended.lease)


def _due(options: Options, book: Book, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Reopening an open case is no change."""
    return [entry for entry in entries if entry["action"] != "reopen" or book.sealed]


def _claim(options: Options) -> Claim:
    lease = options.get("lease") or {}
    return Claim(
        lease.get("holder"),
        lease.get("ttl") or 900,
        options.get("epoch"),
        bool(options.get("take_over")),
        lease.get("run") or "",
    )


def _require_head(ledger: Ledger, options: Options, book: Book) -> None:
    if options.get("expect_head"):
        book.require(ledger.case, options["expect_head"])


def _store_certificates(ledger: Ledger, options: Options, book: Book) -> list[dict[str, Any]]:
    entries = []
    for one in options.get("certificates") or ():
        path = one["artefact"]
        artefact = book.artefacts.get(path)
        if artefact is None:
            raise CaseError("input", f"Cannot certify {path!r} in case {ledger.case}: the ledger does not know it.")
        files = [ledger.write(certificate_path(path), one["text"].encode())]
        if one.get("signature"):
            files.append(ledger.write(f"{certificate_path(path)}.sig", one["signature"].encode()))
        inputs = {"artefact": path, "sha256": artefact["sha256"]}
        fields = {"target": artefact["target"], "inputs": inputs, "result": {}, "artefacts": files}
        entries.append(own_entry(options, "certificate", **fields))
    return entries


def _result(
    ledger: Ledger, options: Options, entries: Sequence[Entry], before: Book, appended: Appended
) -> dict[str, Any]:
    book = appended.book
    new = book.entries[len(before.entries) :]
    shown = "".join(
        f"{entry['seq']} {entry['phase']}/{entry['action']} {entry['target']}".rstrip() + "\n" for entry in new
    )
    result = {
        **_state(ledger, book, appended.lease),
        "changed": bool(new),
        "created": not before.lines,
        "recorded": [vars(one) for one in appended.recorded],
        "diff": {
            "before": "",
            "after": shown,
            "before_header": ledger.case,
            "after_header": f"ledger of {ledger.case}",
        },
    }
    if options.get("certificate"):
        result["uncertified"] = _uncertified(book, certified_artefacts(entries))
    if options.get("since") is not None:
        result["lines"] = [line.decode("ascii") for line in book.lines[options["since"] :]]
    return result


def _uncertified(book: Book, paths: Sequence[str]) -> list[str]:
    certified = {(e["inputs"]["artefact"], e["inputs"]["sha256"]) for e in book.entries if e["action"] == "certificate"}
    return [path for path in dict.fromkeys(paths) if (path, book.artefacts[path]["sha256"]) not in certified]


def _state(ledger: Ledger, book: Book, lease: Any) -> dict[str, Any]:
    return {
        "case_directory": str(ledger.directory),
        "head": book.head,
        "anchor": f"{book.head['seq']}:{book.head['hash']}",
        "epoch": lease.epoch if lease else 0,
        "lease": lease.to_dict() if lease else None,
        "sealed": book.sealed,
        "signed_seq": book.signed_seq,
    }


def read(ledger: Ledger, options: Options, check: bool) -> dict[str, Any]:
    book = ledger.read()
    if book is None and not check:
        raise ledger.missing("read")
    exists, book = book is not None, book or Book()
    _require_head(ledger, options, book)
    targets, phases = options.get("targets"), options.get("phases")
    chosen = [
        dict(entry)
        for entry in book.entries
        if (not targets or entry["target"] in targets) and (not phases or entry["phase"] in phases)
    ]
    named = targets or sorted({entry["target"] for entry in book.entries if entry["target"]})
    directory = str(ledger.directory)

    def present(artefact: Mapping[str, Any]) -> bool:
        return verifier.sound(directory, artefact["path"], dict(artefact), bool(options.get("rehash")))

    return {
        **_state(ledger, book, ledger.lease() if exists else None),
        "changed": False,
        "exists": exists,
        "metadata": book.metadata.get("metadata", {}),
        "entries": chosen[-options["limit"] :] if options.get("limit") else chosen,
        "phases_last": _last_by_phase(chosen),
        "artefacts": book.artefacts,
        "gate": {target: judge(book.entries, target, present).to_dict() for target in named},
    }


def _last_by_phase(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    last: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry["action"] not in BOOKKEEPING:
            kept = {name: entry[name] for name in ("seq", "time", "actor", "action", "result")}
            last.setdefault(entry["target"], {})[entry["phase"]] = kept
    return last


def verify(ledger: Ledger, options: Options, check: bool) -> dict[str, Any]:
    """The checks of the stand-alone verifier, with its own code."""
    rehash = options.get("rehash") is not False
    with tempfile.TemporaryDirectory() as private:
        signers = os.path.join(private, "allowed_signers")
        if options.get("allowed_signers_content"):
            Path(signers).write_text(options["allowed_signers_content"], encoding="utf-8")
        try:
            checks = verifier.verify(
                str(ledger.directory), signers if os.path.exists(signers) else None, options.get("expect_head"), rehash
            )
        except OSError as exc:
            raise CaseError(
                "store", f"Cannot verify case {ledger.case} in {ledger.store}: {exc}. Name a case."
            ) from exc
    failed = [f"{one.name}: {one.text}" for one in checks if one.state == "FAILED"]
    skipped = [f"{one.name}: {one.text}" for one in checks if one.state == "NOT CHECKED"]
    result = {
        "changed": False,
        "checks": [one._asdict() for one in checks],
        "verified": not failed,
        "anchored": not failed and not any(one.startswith(("anchor", "signatures")) for one in skipped),
        "not_checked": skipped,
        "verified_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if failed:
        result.update(
            failed=True, msg=f"Cannot trust case {ledger.case}: {'; '.join(failed)}. Compare with another copy."
        )
    return result


def verifier_source() -> bytes:
    """The verifier's own text, also from the archive that carries a module to its host."""
    loader: Any = verifier.__loader__
    return str(loader.get_source(verifier.__name__)).encode("utf-8")
