# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The frames that a witness sends and hears. Pure.

Sources: RFC 826 (ARP), RFC 792 (ICMP), RFC 4443 (ICMPv6), and for the filter
U(https://www.kernel.org/doc/Documentation/networking/filter.txt).
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES = "ff02::1"
ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
ARP_REQUEST, ARP_REPLY = 1, 2
PAYLOAD = b"vmward isolation probe"


@dataclass(frozen=True)
class Heard:
    """What matters of a received frame."""

    mac: str
    kind: str  # "arp" for an ARP reply, "ipv6" for an ICMPv6 echo reply, else ""
    address: str = ""


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(to: str, source: str, ethertype: int, payload: bytes) -> bytes:
    return (mac_bytes(to) + mac_bytes(source) + struct.pack("!H", ethertype) + payload).ljust(60, b"\0")


def arp_request(source_mac: str, source_ip: str, target_ip: str, to: str = BROADCAST) -> bytes:
    """Who has this address? Broadcast, or straight to one MAC."""
    asker = mac_bytes(source_mac) + ipaddress.IPv4Address(source_ip).packed
    asked = bytes(6) + ipaddress.IPv4Address(target_ip).packed
    return ethernet(to, source_mac, ARP, struct.pack("!HHBBH", 1, IPV4, 6, 4, ARP_REQUEST) + asker + asked)


def checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo(ident: int, kind: int = 8, pseudo: bytes = b"") -> bytes:
    """An echo request; the kernel fills in the checksum of ICMPv6 on its own sockets, else ``pseudo`` is needed."""
    body = struct.pack("!HH", ident, 1) + PAYLOAD
    summed = checksum(pseudo + struct.pack("!BBH", kind, 0, 0) + body)
    return struct.pack("!BBH", kind, 0, summed) + body


def ipv4_echo(source_mac: str, to: str, source_ip: str, target_ip: str, ident: int) -> bytes:
    """An IPv4 echo request in a frame straight to one MAC, needing no ARP."""
    message = echo(ident)
    ends = ipaddress.IPv4Address(source_ip).packed + ipaddress.IPv4Address(target_ip).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0, 64, 1, 0)
    head = head[:10] + struct.pack("!H", checksum(head + ends))
    return ethernet(to, source_mac, IPV4, head + ends + message)


def ipv6_echo(source_mac: str, to: str, source_ip: str, ident: int) -> bytes:
    """An IPv6 echo request to all nodes, in a frame straight to one MAC: needs no knowledge of its addresses."""
    ends = ipaddress.IPv6Address(source_ip).packed + ipaddress.IPv6Address(ALL_NODES).packed
    length = len(echo(ident))
    message = echo(ident, 128, ends + struct.pack("!II", length, 58))
    return ethernet(to, source_mac, IPV6, struct.pack("!IHBB", 0x60000000, length, 58, 255) + ends + message)


def heard(frame: bytes) -> Heard | None:
    """Read a frame that came in; too short a frame is None."""
    if len(frame) < 14:
        return None
    mac = ":".join(f"{byte:02x}" for byte in frame[6:12])
    ethertype, body = struct.unpack("!H", frame[12:14])[0], frame[14:]
    if ethertype == ARP and len(body) >= 28 and body[6:8] == struct.pack("!H", ARP_REPLY):
        return Heard(mac, "arp", str(ipaddress.IPv4Address(body[14:18])))
    if ethertype == IPV6 and len(body) >= 41 and body[6] == 58 and body[40] == 129:
        return Heard(mac, "ipv6", str(ipaddress.IPv6Address(body[8:24])))
    return Heard(mac, "")


def echo_reply(packet: bytes, ident: int) -> bool:
    """Is this the answer to our IPv4 echo request? ``packet`` begins with its IP header, as raw sockets give it."""
    if not packet:
        return False
    start = (packet[0] & 15) * 4
    return len(packet) >= start + 6 and packet[start] == 0 and packet[start + 4 : start + 6] == struct.pack("!H", ident)


def listen_for(macs: list[str]) -> bytes:
    """A classic BPF program that passes ARP and whatever comes from these MACs: a busy witness loses nothing."""
    code = [(0x28, 0, 0, 12), (0x15, 0, 1, ARP), (0x06, 0, 0, 256)]  # ethertype == ARP: keep 256 bytes
    for mac in macs:
        high, low = struct.unpack("!HI", mac_bytes(mac))
        code += [(0x20, 0, 0, 8), (0x15, 0, 3, low), (0x28, 0, 0, 6), (0x15, 0, 1, high), (0x06, 0, 0, 256)]
    code.append((0x06, 0, 0, 0))
    return b"".join(struct.pack("HBBI", *one) for one in code)
