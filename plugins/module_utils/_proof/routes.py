# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which way a Linux host would send a packet: read from /proc/net, without any program. Pure, but for ``read_*``.

Sources: proc_net_route(5), and for IPv6 U(https://tldp.org/HOWTO/Linux+IPv6-HOWTO/ch11s04.html).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
UP, REJECT, LOCAL = 0x0001, 0x0200, 0x80000000


@dataclass(frozen=True)
class Way:
    """An interface, and the next hop on it; without a gateway the address is on the interface's own segment."""

    interface: str
    gateway: str = ""


@dataclass(frozen=True)
class Route:
    """One line of the routing table."""

    network: Network
    way: Way
    metric: int


def routes4(table: str) -> list[Route]:
    """/proc/net/route: little-endian hexadecimal numbers."""
    found = []
    for words in (line.split() for line in table.splitlines()[1:]):
        if len(words) < 8 or not int(words[3], 16) & UP or int(words[3], 16) & REJECT:
            continue
        address, gateway, mask = (str(ipaddress.IPv4Address(struct.pack("<I", int(words[at], 16)))) for at in (1, 2, 7))
        way = Way(words[0], "" if gateway == "0.0.0.0" else gateway)
        found.append(Route(ipaddress.IPv4Network(f"{address}/{mask}", strict=False), way, int(words[6])))
    return found


def routes6(table: str) -> list[Route]:
    """/proc/net/ipv6_route. Link-local routes say nothing about an address, and the host's own addresses are no way."""
    found = []
    for words in (line.split() for line in table.splitlines()):
        if len(words) < 10 or int(words[8], 16) & (REJECT | LOCAL):
            continue
        network = ipaddress.IPv6Network((bytes.fromhex(words[0]), int(words[1], 16)), strict=False)
        gateway = ipaddress.IPv6Address(bytes.fromhex(words[4]))
        if not network.is_link_local and not network.is_multicast:
            way = Way(words[9], "" if gateway.is_unspecified else str(gateway))
            found.append(Route(network, way, int(words[5], 16)))
    return found


def way_to(address: str, routes: Sequence[Route]) -> Way | None:
    """The longest match, then the lowest metric; None when there is no route."""
    wanted = ipaddress.ip_address(address)
    fitting = [route for route in routes if route.network.version == wanted.version and wanted in route.network]
    return min(fitting, key=lambda r: (-r.network.prefixlen, r.metric)).way if fitting else None


def read_routes() -> list[Route]:
    """This host's routes."""
    six = Path("/proc/net/ipv6_route")
    return routes4(Path("/proc/net/route").read_text()) + (routes6(six.read_text()) if six.exists() else [])


def read_mac(interface: str) -> str:
    return Path("/sys/class/net", interface, "address").read_text().strip()


def read_link_local(interface: str) -> str:
    """The interface's own fe80:: address, or an empty string."""
    table = Path("/proc/net/if_inet6")
    for words in (line.split() for line in (table.read_text().splitlines() if table.exists() else [])):
        if words[5] == interface and words[3] == "20":
            return str(ipaddress.IPv6Address(bytes.fromhex(words[0])))
    return ""
