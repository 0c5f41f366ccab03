# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preservation certificate of one artefact: one printable page, to be signed and laid beside it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .entry import Entry, canonical

WIDTH = 78
VALUE_LIMIT = 240
PAYLOAD = "evidence/data/"


def certificate_path(artefact_path: str) -> str:
    return f"evidence/certificates/{artefact_path[len(PAYLOAD) :]}.txt"


def certifiable(artefact_path: str) -> bool:
    return artefact_path.startswith(PAYLOAD)


def certificate(case: str, entry: Entry, artefact: Mapping[str, Any], seq: int, sha256: str) -> str:
    """The page for an artefact of the entry that stands at `seq` with the hash `sha256`."""
    tools = {**_dictionary(entry["inputs"].get("tools")), **_dictionary(artefact.get("tools"))}
    fields = [
        ("Case", case),
        ("Artefact", artefact["path"]),
        ("Taken from", entry["target"]),
        ("Kind", entry["result"].get("class", "")),
        ("Classification", artefact.get("classification", "")),
        ("Time (UTC)", entry["time"]),
        *((("Taken at (UTC)", artefact["taken_at"]),) if artefact.get("taken_at") else ()),
        *((("Guest stood still", f"{artefact['freeze_seconds']} s"),) if artefact.get("freeze_seconds") else ()),
        *((("Content", "only what the guest claims of itself"),) if artefact.get("claimed_by_guest") else ()),
        ("Taken by", entry["actor"]),
        ("On host", entry["host"]),
        ("Method", artefact.get("method") or entry["inputs"].get("method") or f"{entry['phase']} {entry['action']}"),
        *((f"Tool {name}", version) for name, version in sorted(tools.items())[:8]),
        ("Size in bytes", artefact["size"]),
        ("SHA-256", artefact["sha256"]),
        ("Stored at", artefact.get("location", "")),
        ("Seal number", artefact.get("seal_number", "")),
        ("Ledger entry", seq),
        ("Entry's SHA-256", sha256),
    ]
    rule = "=" * WIDTH
    body = "\n".join(_field(name, value) for name, value in fields)
    return (
        f"{rule}\nPRESERVATION CERTIFICATE\n{rule}\n\n{body}\n\n"
        "The artefact was recorded in the case's ledger with this size and hash. This page\n"
        "is signed: check it with\n"
        "  ssh-keygen -Y verify -n vmward-ledger -f ALLOWED_SIGNERS -I SIGNER \\\n"
        "    -s THIS_FILE.sig < THIS_FILE\n"
        f"\nHanded over to: {'_' * 26}  Date: {'_' * 24}\n\nReceived by:    {'_' * 26}  Place: {'_' * 23}\n{rule}\n"
    )


def _dictionary(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _field(name: str, value: Any) -> str:
    """One field, escaped, wrapped and limited, so that no foreign text can break the page or pose as a field."""
    text = (canonical(value)[1:-1] if isinstance(value, str) else canonical(value)) or "-" * 30
    label = canonical(name)[1:-1][:20]
    if len(text) > VALUE_LIMIT:
        text = f"{text[: VALUE_LIMIT - 8]} ... (cut)"
    step = WIDTH - 22
    parts = [text[at : at + step] for at in range(0, len(text), step)]
    return "\n".join(f"{label if at == 0 else '':<20}: {part}" for at, part in enumerate(parts))
