# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: scan_entry
short_description: Make the entry of a scan fit into a ledger
version_added: "0.1.0"
author: vmward contributors (@vmward)
description:
  - Takes an entry as M(vmward.remediation.case_ledger) takes it, and gives one whose lists never make it too large,
    whatever names an attacker gave to files. The verdict and all numbers stay.
  - Of every engine, the list of rule files becomes their number, the number of their rules, and one SHA-256 over what
    C(sha256sum FILE... | LC_ALL=C sort) prints of them. Indicators count as a file named V((indicators\)).
  - If the entry still has more bytes than O(limit), the lists in its result are cut from their ends, the longest first,
    until it fits.
positional: _input
options:
  _input:
    description: The entry.
    type: dict
    required: true
  limit:
    description:
      - Bytes of the entry as JSON that is ASCII only. The default leaves room for what the ledger adds to it.
    type: int
    default: 57344
"""

EXAMPLES = r"""
- name: Keep the verdict on a host
  vmward.remediation.case_ledger:
    operation: append
    store: /srv/cases
    case: 2026-0142
    entries:
      - "{{ {'phase': 'scan', 'action': 'host', 'target': inventory_hostname, 'result': told}
            | vmward.remediation.scan_entry }}"
"""

RETURN = r"""
_value:
  description: The entry that fits.
  type: dict
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import ENTRY_LIMIT, canonical

LIMIT = ENTRY_LIMIT - 8 * 1024


def plain(value: Any) -> Any:
    """Dictionaries and lists of one's own, whatever the template engine passes."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def in_short(engine: Mapping[str, Any]) -> dict[str, Any]:
    """An engine, with its rule files as numbers and one hash."""
    files: Iterable[Mapping[str, Any]] = engine.get("rules") or []
    lines = sorted(f"{file['sha256']}  {file['path']}\n".encode("utf-8", "surrogateescape") for file in files)
    rules = {
        "files": len(lines),
        "rules": sum(int(file["rules"]) for file in files),
        "sha256": hashlib.sha256(b"".join(lines)).hexdigest(),
    }
    return {**engine, "rules": rules}


def innermost(value: Any) -> list[list[Any]]:
    """The lists in it that have items, but no such list among them."""
    inner: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [one for item in inner for one in innermost(item)]
    return found or ([value] if isinstance(value, list) and value else [])


def scan_entry(entry: Mapping[str, Any], limit: int = LIMIT) -> dict[str, Any]:
    """The entry, its lists cut until it has at most `limit` bytes."""
    fitting: dict[str, Any] = plain(entry)
    result = fitting["result"]
    if "engines" in result:
        result["engines"] = [in_short(engine) for engine in result["engines"]]
    while len(canonical(fitting)) > limit:
        lists = innermost(result)
        if not lists:
            break  # what is too large is no list: the ledger says so
        longest = max(lists, key=lambda one: len(canonical(one)))
        del longest[-max(1, len(longest) // 8) :]
    return fitting


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"scan_entry": scan_entry}
