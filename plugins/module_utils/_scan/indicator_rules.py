# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses and domains as YARA rules, in single bytes and in UTF-16: by themselves, not as parts of longer ones."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from .engines import HINT

_RULE = (
    'rule %s%d { meta: severity = "%s" value = "%s" strings: $bytes = /%s/s nocase $wide = /%s/s nocase '
    "condition: any of them }"
)
_WORD, _HEX = "0-9A-Za-z", "0-9A-Fa-f"


def rules(prefix: str, values: Iterable[str]) -> str:
    """Hints: a log may tell of a mere attempt."""
    lines = enumerate(sorted(values))
    return "\n".join(_RULE % (prefix, at, HINT, one, _pattern(one, False), _pattern(one, True)) for at, one in lines)


def _pattern(value: str, wide: bool) -> str:
    def literal(text: str) -> str:
        return "".join(_unit(re.escape(character), wide) for character in text)

    address = _address(value)
    if address is None:  # what is below a domain is found with it
        after = _then(_WORD + ".-", wide), _unit("[.-]", wide) + _then(_WORD, wide)
        return "%s%s(%s|%s)" % (_behind(_WORD + "-", wide), literal(value), *after)
    if isinstance(address, ipaddress.IPv4Address):
        before = _behind(_WORD + ".", wide), _behind("0-9", wide) + _unit(r"\.", wide)
        after = _then(_WORD + ".", wide), _unit(r"\.", wide) + _then("0-9", wide)
        return "(%s|%s)%s(%s|%s)" % (*before, literal(value), *after)
    before = _behind(_WORD + ":.", wide), _behind(_HEX + ":", wide) + _unit(":", wide)
    after = _then(_WORD + ":", wide), _unit(":", wide) + _then(_HEX + ":", wide)
    return "(%s|%s)(%s)(%s|%s)" % (*before, "|".join(map(literal, _spellings(address))), *after)


def _address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def _unit(pattern: str, wide: bool) -> str:
    """One character."""
    return pattern + r"\x00" if wide else pattern


def _behind(other_than: str, wide: bool) -> str:
    """Behind the beginning, or a character other than these; in UTF-16 that of any other script is one too."""
    return r"(^|[^\x00]|[^%s]\x00)" % other_than if wide else "(^|[^%s])" % other_than


def _then(other_than: str, wide: bool) -> str:
    return r"($|[^%s]|.[^\x00])" % other_than if wide else "($|[^%s])" % other_than


def _spellings(address: ipaddress.IPv6Address) -> list[str]:
    """The usual one; all groups, with and without leading zeros; and the usual one with them."""
    full = address.exploded.split(":")
    short = ":".join("%x" % int(group, 16) for group in full)
    padded = ":".join(group and group.zfill(4) for group in address.compressed.split(":"))
    return sorted({address.compressed, short, ":".join(full), padded})
