# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our network filters: what libvirt enforces on the host's side of a tap, below everything that the guest controls.

Stateless rules only: connection tracking would let sessions live that were open before the cut.
Source: U(https://libvirt.org/formatnwfilter.html).
"""

from __future__ import annotations

import hashlib
import ipaddress
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from .._errors import Refused
from .._model import Collector

SEALED = "vmward-sealed"
FORENSIC = "vmward-forensic-"
ETHER = {4: "ip", 6: "ipv6"}


def is_forensic(name: str) -> bool:
    return name.startswith(FORENSIC)


def rule(
    parent: ET.Element, action: str, direction: str, priority: int, match: str, attributes: dict[str, str]
) -> None:
    element = ET.SubElement(parent, "rule", {"action": action, "direction": direction, "priority": str(priority)})
    ET.SubElement(element, match, attributes)


def sealed() -> tuple[str, str]:
    """Name and XML of the filter that drops every frame, both ways."""
    root = ET.Element("filter", {"name": SEALED})
    rule(root, "drop", "inout", 500, "mac", {})
    return SEALED, ET.tostring(root, encoding="unicode")


def forensic(collectors: Sequence[Collector]) -> tuple[str, str]:
    """Name and XML of the filter that passes only the collectors; its name is bound to its rules."""
    root = ET.Element("filter")
    for address in sorted({c.via or c.address for c in collectors}):
        neighbour(root, address)
    for collector in sorted(collectors, key=repr):
        exchange(root, collector)
    rule(root, "drop", "inout", 1000, "mac", {})
    name = FORENSIC + fingerprint(root)
    root.set("name", name)
    return name, ET.tostring(root, encoding="unicode")


def neighbour(root: ET.Element, address: str) -> None:
    """Let the VM and this address find each other's MAC: ARP, or neighbour discovery on IPv6."""
    if ipaddress.ip_address(address).version == 4:
        rule(root, "accept", "out", 100, "arp", {"arpdstipaddr": address})
        rule(root, "accept", "in", 100, "arp", {"arpsrcipaddr": address})
        return
    for kind in ("135", "136"):  # RFC 4861: neighbour solicitation and advertisement
        rule(root, "accept", "inout", 100, "ipv6", {"protocol": "icmpv6", "type": kind})


def exchange(root: ET.Element, collector: Collector) -> None:
    """Pass one collector's port, in both directions."""
    address = ipaddress.ip_address(collector.address)
    if collector.opened_by not in ("vm", "collector") or collector.protocol not in ("tcp", "udp"):
        raise Refused(f"Collector {collector.address}: opened_by is vm or collector, protocol is tcp or udp.")
    there = collector.opened_by == "vm"  # the port is the collector's, not the VM's
    for direction, near, far in (("out", "dst", "dst" if there else "src"), ("in", "src", "src" if there else "dst")):
        rule(
            root,
            "accept",
            direction,
            200,
            ETHER[address.version],
            {
                near + "ipaddr": str(address),
                "protocol": collector.protocol,
                far + "portstart": str(collector.port),
            },
        )


def fingerprint(root: ET.Element) -> str:
    """A short hash of the rules, blind to what libvirt adds (uuid, chain, white space, defaults)."""
    lines = []
    for element in root.findall("rule"):
        match = element[0] if len(element) else ET.Element("none")
        head = [element.get(key, "") for key in ("action", "direction", "priority")]
        lines.append("|".join(head + [match.tag] + ["{}={}".format(*pair) for pair in sorted(match.attrib.items())]))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def is_ours(name: str, definition: str) -> bool:
    """Does the host's definition of this filter hold exactly our rules?"""
    found = fingerprint(ET.fromstring(definition))
    if name == SEALED:
        return found == fingerprint(ET.fromstring(sealed()[1]))
    return is_forensic(name) and name == FORENSIC + found
