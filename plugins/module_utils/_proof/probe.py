# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One window in which a witness tries to reach VMs and, at the same time, control targets that must answer.

Source for the raw sockets: packet(7), raw(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import selectors
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable

from . import frames, routes

TICK = 0.25  # seconds between two rounds of packets
ATTACH_FILTER, PACKET_STATISTICS, SOL_PACKET, ETH_P_ALL, OUTGOING = 26, 6, 263, 3, 4  # not in Python's socket module
REFUSED = (errno.ECONNREFUSED, errno.ECONNRESET)  # the other side has answered


@dataclass
class Try:
    """One protocol against one address."""

    sent: int = 0
    answered: bool = False
    error: str = ""


@dataclass
class Aim:
    """One address of a VM or of a control target. Only a VM's has a MAC."""

    owner: str
    address: str
    mac: str
    way: routes.Way
    source: str  # the witness's own address on this way
    tries: dict[str, Try] = field(default_factory=dict)

    @property
    def on_segment(self) -> bool:
        return not self.way.gateway

    def at(self, protocol: str) -> Try:
        return self.tries.setdefault(protocol, Try())


class Wire:
    """A raw socket on one interface: hears ARP and the VMs' MACs, from the first moment of the window."""

    def __init__(self, interface: str, macs: Sequence[str]) -> None:
        self.mac, self.link_local = routes.read_mac(interface), routes.read_link_local(interface)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0 hears nothing yet
        program = frames.listen_for(list(macs))
        kept = ctypes.create_string_buffer(program)
        attached = struct.pack("HP", len(program) // 8, ctypes.addressof(kept))
        self.socket.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, attached)
        self.socket.bind((interface, ETH_P_ALL))

    def lost(self) -> int:
        return int(struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1])


class Window:
    """The sockets of one window, and what came back."""

    def __init__(self, aims: Sequence[Aim], tcp_ports: Sequence[int], udp_ports: Sequence[int]) -> None:
        self.aims, self.tcp_ports, self.udp_ports = aims, tcp_ports, udp_ports
        self.ident = os.getpid() & 0xFFFF
        self.heard: dict[str, int] = {aim.mac: 0 for aim in aims if aim.mac}  # frames from each VM's MAC
        self.selector = selectors.DefaultSelector()
        self.wires = {name: Wire(name, sorted(self.heard)) for name in sorted({aim.way.interface for aim in aims})}
        for wire in self.wires.values():
            self._watch(wire.socket, partial(self._on_frame, wire.socket))
        self.icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._watch(self.icmp, self._on_echo)
        self.udp: list[tuple[Try, socket.socket]] = []

    def _watch(self, sock: socket.socket, call: Callable[[], None], event: int = selectors.EVENT_READ) -> None:
        sock.setblocking(False)
        self.selector.register(sock, event, call)

    def run(self, seconds: float, now: Callable[[], float] = time.monotonic) -> float:
        """Send a round every tick and listen until the window closes. Answers how long it really was."""
        began = now()
        for aim in self.aims:
            self._open(aim)
        tick = began
        while now() < began + seconds:
            if now() >= tick:
                for aim in self.aims:
                    self._send(aim)
                for attempt, sock in self.udp:
                    tried(attempt, sock.send, frames.PAYLOAD)
                tick = now() + TICK
            for key, _events in self.selector.select(max(min(tick, began + seconds) - now(), 0)):
                key.data()
        self._close()
        return now() - began

    def _open(self, aim: Aim) -> None:
        family = socket.AF_INET6 if ":" in aim.address else socket.AF_INET
        for port in self.tcp_ports if aim.address else ():
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            tried(aim.at("tcp"), connect, sock, aim.address, port)
            self._watch(sock, partial(self._on_stream, aim, sock), selectors.EVENT_WRITE)
        for port in self.udp_ports if aim.address else ():
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.connect((aim.address, port))
            self._watch(sock, partial(self._on_datagram, aim, sock))
            self.udp.append((aim.at("udp"), sock))

    def _send(self, aim: Aim) -> None:
        wire = self.wires[aim.way.interface]
        v4 = aim.address and ":" not in aim.address
        if v4:
            tried(aim.at("icmp"), self.icmp.sendto, frames.echo(self.ident), (aim.address, 0))
        if not aim.on_segment:
            return
        if v4:
            tried(aim.at("arp"), wire.socket.send, frames.arp_request(wire.mac, aim.source, aim.address))
        if v4 and aim.mac:
            straight = frames.arp_request(wire.mac, aim.source, aim.address, to=aim.mac)
            tried(aim.at("arp"), wire.socket.send, straight)
            frame = frames.ipv4_echo(wire.mac, aim.mac, aim.source, aim.address, self.ident)
            tried(aim.at("icmp"), wire.socket.send, frame)
        if aim.mac and wire.link_local:
            tried(aim.at("ipv6"), wire.socket.send, frames.ipv6_echo(wire.mac, aim.mac, wire.link_local, self.ident))

    def _on_frame(self, wire: socket.socket) -> None:
        packet, sender = wire.recvfrom(256)
        seen = frames.heard(packet)
        if seen is None or sender[2] == OUTGOING:
            return
        if seen.mac in self.heard:
            self.heard[seen.mac] += 1
        for aim in self.aims:
            if seen.kind == "arp" and aim.address == seen.address:
                aim.at("arp").answered = True
            if seen.kind == "ipv6" and aim.mac == seen.mac:
                aim.at("ipv6").answered = True

    def _on_echo(self) -> None:
        packet, sender = self.icmp.recvfrom(2048)
        for aim in self.aims:
            if aim.address == sender[0] and frames.echo_reply(packet, self.ident):
                aim.at("icmp").answered = True

    def _on_stream(self, aim: Aim, sock: socket.socket) -> None:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, *REFUSED):
            aim.at("tcp").answered = True
        self.selector.unregister(sock)
        sock.close()

    def _on_datagram(self, aim: Aim, sock: socket.socket) -> None:
        try:
            sock.recv(2048)
            aim.at("udp").answered = True
        except OSError as exc:
            aim.at("udp").answered |= exc.errno in REFUSED

    def _close(self) -> None:
        self.lost = sum(wire.lost() for wire in self.wires.values())
        for key in list(self.selector.get_map().values()):
            self.selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()


def tried(attempt: Try, action: Callable[..., Any], *args: Any) -> None:
    """Count what went out. What could not be sent is told, and never counts as unanswered; a refusal is an answer."""
    try:
        action(*args)
        attempt.sent += 1
    except OSError as exc:
        attempt.answered |= exc.errno in REFUSED
        attempt.error = exc.strerror or str(exc)


def connect(sock: socket.socket, address: str, port: int) -> None:
    """Begin a connection; that it is not finished at once is no error."""
    result = sock.connect_ex((address, port))
    if result not in (0, errno.EINPROGRESS):
        raise OSError(result, os.strerror(result))


def source_for(address: str) -> str:
    """The address from which this host would talk to another; no packet is sent."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, 9))
        return str(sock.getsockname()[0])


def aim_at(owner: str, address: str, mac: str, table: Sequence[routes.Route]) -> Aim:
    """Prepare one address. Raises ``OSError`` when there is no way to it."""
    way = routes.way_to(address, table)
    if way is None:
        raise OSError(errno.ENETUNREACH, "there is no route to it")
    return Aim(owner, address, mac, way, source_for(address))
