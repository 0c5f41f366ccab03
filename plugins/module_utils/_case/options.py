# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What case_ledger can be asked, and the entries a request stands for: on controller and evidence host alike. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .certificate import certifiable
from .entry import CaseError, Entry, check_case_id, check_entry
from .gate import check_evidence

ARTEFACT = {
    "path": {"type": "str", "required": True},
    "size": {"type": "int", "required": True},
    "sha256": {"type": "str", "required": True},
    "classification": {"type": "str"},
    "location": {"type": "str"},
    "method": {"type": "str"},
    "seal_number": {"type": "str"},
    "taken_at": {"type": "str"},
    "seconds": {"type": "float"},
    "freeze_seconds": {"type": "float"},
    "freeze_measured_by": {"type": "str"},
    "claimed_by_guest": {"type": "bool"},
    "tools": {"type": "dict"},
}
ENTRY = {
    "action": {"type": "str", "required": True},
    "actor": {"type": "str"},
    "artefacts": {"type": "list", "elements": "dict", "options": ARTEFACT},
    "host": {"type": "str"},
    "inputs": {"type": "dict"},
    "key": {"type": "str", "no_log": False},
    "phase": {"type": "str", "required": True},
    "result": {"type": "dict"},
    "spool_id": {"type": "str"},
    "spooled_at": {"type": "str"},
    "target": {"type": "str"},
    "time": {"type": "str"},
}
CERTIFICATE = {
    "artefact": {"type": "str", "required": True},
    "signature": {"type": "str"},
    "text": {"type": "str", "required": True},
}
LEASE = {
    "holder": {"type": "str"},
    "run": {"type": "str"},
    "ttl": {"type": "int", "default": 900},
}
ARGUMENT_SPEC: dict[str, Any] = {
    "actor": {"type": "str"},
    "allowed_signers": {"type": "path"},
    "allowed_signers_content": {"type": "str"},
    "case": {"type": "str", "required": True},
    "certificate": {"type": "bool", "default": False},
    "certificates": {"type": "list", "elements": "dict", "options": CERTIFICATE},
    "entries": {"type": "list", "elements": "dict", "options": ENTRY},
    "epoch": {"type": "int"},
    "expect_head": {"type": "str"},
    "host": {"type": "str"},
    "lease": {"type": "dict", "options": LEASE},
    "limit": {"type": "int", "default": 0},
    "metadata": {"type": "dict"},
    "operation": {"type": "str", "required": True, "choices": ["open", "append", "read", "verify", "seal", "reopen"]},
    "phases": {"type": "list", "elements": "str"},
    "reason": {"type": "str"},
    "rehash": {"type": "bool"},
    "signed": {"type": "bool", "default": False},
    "signing_key": {"type": "path", "no_log": False},
    "signing_principal": {"type": "str"},
    "since": {"type": "int"},
    "spool": {"type": "bool", "default": False},
    "spool_directory": {"type": "path", "default": "~/.local/state/vmward/spool"},
    "store": {"type": "path", "required": True},
    "take_over": {"type": "bool", "default": False},
    "targets": {"type": "list", "elements": "str"},
}
REQUIRED_IF = [("operation", "append", ("entries", "certificates"), True), ("operation", "reopen", ("reason",))]

# These the ledger writes itself; a caller who could would forge the life of the case.
RESERVED = ("open", "seal", "reopen", "lease", "repair", "certificate")


def requested(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries this request adds, checked; the closing entry of a seal comes later, when the bag is whole."""
    check_case_id(options["case"])
    entries = [check_entry({**_author(options), **_present(entry)}) for entry in options.get("entries") or ()]
    for entry in entries:
        check_evidence(entry)
        if entry["action"] in RESERVED and "spool_id" not in entry:
            raise CaseError("input", f"Cannot record the entry {entry['action']}: the ledger writes that one itself.")
    if options["operation"] == "open":
        entries.insert(0, opening(options))
    if options["operation"] == "reopen":
        entries.insert(0, check_entry(own_entry(options, "reopen", inputs={"reason": options["reason"]})))
    return entries


def opening(options: Mapping[str, Any]) -> dict[str, Any]:
    """Its key makes opening the same case again with the same metadata no change."""
    described = {} if options.get("metadata") is None else {"metadata": options["metadata"]}
    inputs = {"case": options["case"], **described}
    return check_entry(own_entry(options, "open", inputs=inputs, key="case-open"))


def own_entry(options: Mapping[str, Any], action: str, **fields: Any) -> dict[str, Any]:
    return {**_author(options), "phase": "case", "action": action, **fields}


def certified_artefacts(entries: Sequence[Entry]) -> list[str]:
    return [one["path"] for entry in entries for one in entry["artefacts"] if certifiable(one["path"])]


def _author(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("actor", "host") if options.get(name)}


def _present(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value is not None}
