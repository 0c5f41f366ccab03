# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which part of a live host a scan was about, as its entry says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def paths_of(inputs: Mapping[str, Any], name: str) -> list[str]:
    listed = inputs.get(name)
    return [str(path) for path in listed] if isinstance(listed, list) else []


def covers(inputs: Mapping[str, Any], former: Mapping[str, Any]) -> bool:
    """Whether a scan was asked for all that a former one was asked for.

    A path covers itself alone, and `/` every path: below any other, a link or a mount may lead elsewhere.
    """
    asked, read = set(paths_of(former, "paths")), set(paths_of(inputs, "paths"))
    if not asked:
        return not read
    nothing_more_is_left_out = set(paths_of(inputs, "exclude")) <= set(paths_of(former, "exclude"))
    return nothing_more_is_left_out and ("/" in read or asked <= read)


def in_words(inputs: Mapping[str, Any]) -> str:
    """The paths, and what of them was left out: `/srv, /tmp but not /srv/iso`; empty if the entry names none."""
    read, left_out = paths_of(inputs, "paths"), paths_of(inputs, "exclude")
    return ", ".join(read) + (f" but not {', '.join(left_out)}" if read and left_out else "")
