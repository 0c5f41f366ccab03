# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a probe is asked to what it found: bad input is refused first, then windows of at most 100 NICs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from . import routes
from .probe import Aim, Try, Window, aim_at

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
GROUP = 100  # NICs in one window: each port of each address is a socket


class BadTarget(ValueError):
    """What was asked for cannot be probed."""


def survey(
    targets: Sequence[Mapping[str, Any]],
    controls: Sequence[str],
    window: int,
    tcp_ports: Sequence[int],
    udp_ports: Sequence[int],
    send: bool = True,
) -> dict[str, Any]:
    """Probe all targets; answers what the module returns."""
    wanted = [dict(target, mac=target["mac"].lower(), addresses=addresses(target)) for target in targets]
    check(wanted, controls, window, [*tcp_ports, *udp_ports])
    table = routes.read_routes()
    found: dict[str, Any] = {"targets": [], "controls": [], "lost": 0, "window": float(window)}
    for start in range(0, len(wanted), GROUP):
        group = [(target, *aims_of(target, controls, table)) for target in wanted[start : start + GROUP]]
        checks = others([aim_at("", address, "", table) for address in controls if routes.way_to(address, table)])
        run = Window([aim for _target, aims, _problem in group for aim in aims] + checks, tcp_ports, udp_ports)
        seconds = run.run(window if send else 0)
        found["window"] = round(min(seconds, found["window"]), 3) if send else 0.0
        found["lost"] += run.lost
        reached = [aim for aim in checks if any(one.answered for one in aim.tries.values())]
        found["controls"] += [aim.address for aim in reached if aim.address not in found["controls"]]
        found["targets"] += [told(target, aims, run, reached, problem) for target, aims, problem in group]
    return found


def addresses(target: Mapping[str, Any]) -> list[str]:
    """The target's addresses in their canonical form. A link-local one is left to the IPv6 echo to all nodes."""
    try:
        parsed = [ipaddress.ip_address(address) for address in target["addresses"]]
    except ValueError as exc:
        raise BadTarget(f"{str(exc)[:120]}, given as an address of {target['name'][:80]!r}.") from exc
    return [str(address) for address in parsed if not address.is_link_local]


def check(targets: Sequence[Mapping[str, Any]], controls: Sequence[str], window: int, ports: Sequence[int]) -> None:
    """Refuse bad input before a packet is sent."""
    for target in targets:
        if not MAC.match(target["mac"]):
            raise BadTarget(f"{target['mac'][:80]!r} is no MAC address of {target['name'][:80]!r}.")
    for control in controls:
        try:
            ipaddress.ip_address(control)
        except ValueError as exc:
            raise BadTarget(f"the control target {control[:80]!r} is no IP address.") from exc
    if not 1 <= window <= 60:
        raise BadTarget(f"a window of {window} seconds is not between 1 and 60.")
    if any(not 1 <= port <= 65535 for port in ports):
        raise BadTarget("a port is not between 1 and 65535.")


def others(aims: Sequence[Aim]) -> list[Aim]:
    """Without the witness's own addresses: reaching itself shows nothing."""
    return [aim for aim in aims if aim.address != aim.source]


def aims_of(target: Mapping[str, Any], controls: Sequence[str], table: Sequence[routes.Route]) -> tuple[list[Aim], str]:
    """One aim for each address; without any, the MAC alone on the segment of the control targets."""
    problem, aims = "", []
    for address in target["addresses"]:
        try:
            aims.append(aim_at(target["name"], address, target["mac"], table))
        except OSError as exc:
            problem = f"{address}: {exc.strerror or exc}"
    if not target["addresses"]:
        ways = {routes.way_to(control, table) for control in controls}
        aims = [Aim(target["name"], "", target["mac"], way, "") for way in ways if way and not way.gateway]
        problem = "" if aims else "it has no known address, and no control target is on the witness's own segment"
    return aims, problem


def told(
    target: Mapping[str, Any], aims: Sequence[Aim], run: Window, reached: Sequence[Aim], problem: str
) -> dict[str, Any]:
    """What became of one NIC."""
    tries: dict[str, Try] = {}
    for aim in aims:
        for protocol, one in aim.tries.items():
            whole = tries.setdefault(protocol, Try())
            whole.sent += one.sent
            whole.answered |= one.answered
            whole.error = one.error or whole.error
    ways = {aim.way for aim in aims}
    return dict(
        target,
        tries={protocol: asdict(one) for protocol, one in sorted(tries.items())},
        answered=sorted(protocol for protocol, one in tries.items() if one.answered),
        heard=run.heard.get(target["mac"], 0),
        ways=[asdict(way) for way in sorted(ways, key=repr)],
        controls=sorted({aim.address for aim in reached if ways and ways <= {aim.way}}),
        problem=problem,
    )
