# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which address or domain stands by itself where its beginning was found, and is no part of a longer one.

YARA could be asked for that with the text itself, but takes milliseconds to compile such an expression, for each text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

IPV4, IPV6, DOMAIN = "IPv4", "IPv6", "domain"
WIDE = "wide"  # what the names of patterns begin with that look for UTF-16
_WORD, _HEX = "0-9A-Za-z", "0-9A-Fa-f"
_REACH = 4  # bytes before it that tell: two characters


def standing(kind: str, endings: Mapping[bytes, str], data: bytes, start: int, end: int, wide: bool) -> str:
    """The value of the ending that follows there, if it then stands alone; else nothing."""
    before, ending, after = _PARTS[kind, wide]
    last = ending.match(data, end)
    value = endings.get(last.group().replace(b"\0", b"").lower(), "") if last else ""
    if not (value and last and after.match(data, last.end()) and before.search(data, max(0, start - _REACH), start)):
        return ""
    return value


def _unit(pattern: str, wide: bool) -> str:
    """One character."""
    return pattern + r"\x00" if wide else pattern


def _behind(other_than: str, wide: bool) -> str:
    """Behind the beginning, or a character other than these; in UTF-16 that of any other script is one too."""
    return r"(^|[^\x00]|[^%s]\x00)" % other_than if wide else "(^|[^%s])" % other_than


def _then(other_than: str, wide: bool) -> str:
    return r"(\Z|[^%s]|.[^\x00])" % other_than if wide else r"(\Z|[^%s])" % other_than


def _around(kind: str, wide: bool) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    if kind == DOMAIN:  # what is below a domain is found with it
        before = [_behind(_WORD + "-", wide)]
        after = [_then(_WORD + ".-", wide), _unit("[.-]", wide) + _then(_WORD, wide)]
    elif kind == IPV4:
        before = [_behind(_WORD + ".", wide), _behind("0-9", wide) + _unit(r"\.", wide)]
        after = [_then(_WORD + ".", wide), _unit(r"\.", wide) + _then("0-9", wide)]
    else:
        before = [_behind(_WORD + ":.", wide), _behind(_HEX + ":", wide) + _unit(":", wide)]
        after = [_then(_WORD + ":", wide), _unit(":", wide) + _then(_HEX + ":", wide)]
    return _compiled(r"(%s)\Z" % "|".join(before)), _compiled("|".join(after))


def _compiled(pattern: str) -> re.Pattern[bytes]:
    return re.compile(pattern.encode(), re.DOTALL)


def _ending(kind: str, wide: bool) -> re.Pattern[bytes]:
    """The last part of an address, or what of it follows."""
    digits, most = {IPV4: ("0-9", 3), IPV6: (_HEX, 4), DOMAIN: ("0", 0)}[kind]
    return _compiled("(?:%s){0,%d}" % (_unit("[%s]" % digits, wide), most))


def _parts(kind: str, wide: bool) -> tuple[re.Pattern[bytes], re.Pattern[bytes], re.Pattern[bytes]]:
    before, after = _around(kind, wide)
    return before, _ending(kind, wide), after


_PARTS = {(kind, wide): _parts(kind, wide) for kind in (IPV4, IPV6, DOMAIN) for wide in (False, True)}
