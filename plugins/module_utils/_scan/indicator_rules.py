# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses and domains as YARA rules, in single bytes and in UTF-16: by themselves, not as parts of longer ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from .alone import DOMAIN, IPV4, IPV6, WIDE
from .engines import ALONE, HINT

_RULE = 'rule %s%d { meta: severity = "%s" value = "%s" %s = "%s" strings: %s condition: any of them }'
_STRINGS = '$bytes%d = "%s" nocase $' + WIDE + '%d = "%s" wide nocase'


def rules(prefix: str, values: Iterable[str]) -> str:
    """Hints: a log may tell of a mere attempt."""
    return "\n".join(_rule(prefix, at, value) for at, value in enumerate(sorted(values)))


def _rule(prefix: str, at: int, value: str) -> str:
    kind, spellings = _sought(value)
    strings = " ".join(_STRINGS % (number, text, number, text) for number, text in enumerate(spellings))
    return _RULE % (prefix, at, HINT, value, ALONE, kind, strings)


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
