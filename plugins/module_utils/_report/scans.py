# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a verdict rests on and leaves out, as its entry says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def remarks(result: Mapping[str, Any]) -> list[str]:
    """Golden images that were not relied on, with the reason; disks that were not scanned; what is only counted."""
    bases = [base_in_words(one) for one in items(result, "bases") if one.get("why")]
    left = [
        f"{one.get('name')} was NOT scanned: {one.get('why')} ({one.get('path')})"
        for one in items(result, "not_scanned")
    ]
    counted = [unlisted(result, what) for what in ("findings", "indicators")]
    return [*dict.fromkeys(bases), *left, *filter(None, counted)]


def unlisted(result: Mapping[str, Any], what: str) -> str:
    """An entry has room for some of them."""
    kept = len(items(result, what))
    count = int(result.get(f"{what}_count") or 0)
    return f"{count} {what}, of which the ledger lists {kept}" if count > kept else ""


def base_in_words(base: Mapping[str, Any]) -> str:
    known = f", nothing known of {base['base']} was relied on" if base.get("base") else ""
    return f"{base.get('disk')}: all of it was scanned{known}: {base['why']}"


def items(result: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    listed = result.get(name)
    return [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
