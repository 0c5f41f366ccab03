# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses and domains as YARA rules, in single bytes and in UTF-16: by themselves, not as parts of longer ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from .alone import DOMAIN, IPV4, IPV6, WIDE
from .engines import ALONE, ENDINGS, HINT

_RULE = 'rule network%d { meta: severity = "%s" %s = "%s" %s = "%s" strings: %s condition: any of them }'
_STRINGS = '$bytes = "%s" %s $' + WIDE + ' = "%s" wide %s'
_SHORTEST = 6  # characters that are common to several


def rules(values: Iterable[str]) -> str:
    """Hints: a log may tell of a mere attempt.

    Addresses that differ in their last part are one rule: YARA would hold what they begin with against each of them,
    for seconds where it comes often.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    for value in sorted(values):
        kind, spellings = _sought(value)
        for text in spellings:
            begun, ending = _parted(kind, text)
            found.setdefault((kind, begun), {})[ending] = value
    return "\n".join(_rule(at, *place, found[place]) for at, place in enumerate(sorted(found)))


def _rule(at: int, kind: str, begun: str, values: Mapping[str, str]) -> str:
    if len(values) == 1:
        ((ending, value),) = values.items()
        begun, values = begun + ending, {"": value}
    endings = " ".join("%s=%s" % one for one in sorted(values.items()))
    case = "nocase" if begun.upper() != begun else ""
    return _RULE % (at, HINT, ALONE, kind, ENDINGS, endings, _STRINGS % (begun, case, begun, case))


def _parted(kind: str, text: str) -> tuple[str, str]:
    """A text, and its last part if that can be looked at afterwards."""
    at = max(map(text.rfind, ".:")) + 1
    return (text, "") if kind == DOMAIN or at < _SHORTEST else (text[:at], text[at:])


def _sought(value: str) -> tuple[str, list[str]]:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return DOMAIN, [value]
    return (IPV4, [value]) if isinstance(address, ipaddress.IPv4Address) else (IPV6, _spellings(address))


def _spellings(address: ipaddress.IPv6Address) -> list[str]:
    """The usual one; all groups, with and without leading zeros; and the usual one with them. One of IPv4 in it has its
    dots, which not every Python knows as usual."""
    full = ["%04x" % (int(address) >> at & 0xFFFF) for at in range(112, -1, -16)]
    short = ":".join("%x" % int(group, 16) for group in full)
    if address.ipv4_mapped:
        begun = ("::ffff:", "0:0:0:0:0:ffff:", "0000:0000:0000:0000:0000:ffff:")
        ended = (str(address.ipv4_mapped), ":".join(full[6:]), short.split("ffff:")[1])
        return sorted({one + other for one in begun for other in ended})
    padded = ":".join(group and group.zfill(4) for group in address.compressed.split(":"))
    return sorted({address.compressed, short, ":".join(full), padded})
