# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading taps and chains on the KVM host."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable

from .counters import DEVICE, Sample, difference, parse_chains, sample

QUIET = 10  # attempts to read tap and chains with no frame in between


class Taps:
    """The taps of this host. ``listing`` answers ``ebtables -t nat -L --Lc``; None when there is no ebtables."""

    def __init__(
        self,
        listing: Callable[[], str] | None,
        net: Path = Path("/sys/class/net"),
        ipv6: Path = Path("/proc/net/dev_snmp6"),
    ) -> None:
        self.listing, self.net, self.ipv6 = listing, net, ipv6

    def read(self, devices: Sequence[str]) -> dict[str, Sample]:
        """Sample all devices around one listing of the chains. Raises ``ValueError`` with the reason."""
        if os.geteuid() != 0:
            raise ValueError("the kernel's chains can be read by root only: set become")
        if self.listing is None:
            raise ValueError("ebtables is not installed on this host")
        for _attempt in range(QUIET):
            before = {device: self._counts(device) for device in devices}
            chains = parse_chains(self.listing())
            after = {device: self._counts(device) for device in devices}
            if before == after:
                break
        return {
            device: sample(
                chains,
                device,
                int((self.net / device / "ifindex").read_text()),
                (before[device][0], after[device][0]),
                after[device][1],
                before[device][2],
            )
            for device in devices
        }

    def there(self, device: str) -> str:
        """Why this device cannot be read; empty when it can."""
        if not DEVICE.match(device):
            return f"{device[:40]!r} is no name of a device"
        return "" if (self.net / device / "statistics").is_dir() else f"there is no device {device} on this host"

    def _counts(self, device: str) -> tuple[int, int, int]:
        """Frames from the guest, frames to it, and what the host's own IPv6 sent to it."""
        received, sent = (
            int((self.net / device / "statistics" / name).read_text()) for name in ("rx_packets", "tx_packets")
        )
        return received, sent, own_frames(self.ipv6 / device)


def own_frames(counters: Path) -> int:
    """``Ip6OutRequests`` of the device: a tap on a bridge has an IPv6 address of the host's, which solicits and reports
    by itself, past every bridge chain. 0 where IPv6 is off. Source: U(https://www.rfc-editor.org/rfc/rfc4293)."""
    try:
        lines = counters.read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Ip6OutRequests"))


def read_all(taps: Taps, nics: Sequence[Mapping[str, Any]], since: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the module returns: one result for each NIC."""
    missing = {nic["device"]: taps.there(nic["device"]) for nic in nics}
    problem, samples = "", {}
    try:
        samples = taps.read([device for device, reason in missing.items() if not reason])
    except (ValueError, OSError) as exc:
        problem = str(exc)
    earlier = {(nic["vm"], nic["device"]): nic for nic in since}
    found = []
    for nic in nics:
        reason = missing[nic["device"]] or problem
        result = {**nic, "shown": not reason, "reason": reason, "broken": "", "accepts": 0, "sample": {}, "delta": {}}
        if not reason:
            former = earlier.get((nic["vm"], nic["device"]))
            result.update(compared(samples[nic["device"]], former, wanted=bool(since)))
        found.append(result)
    return {"nics": found, "uptime": float(Path("/proc/uptime").read_text().split()[0])}


def compared(now: Sample, former: Mapping[str, Any] | None, wanted: bool) -> dict[str, Any]:
    """One sample, set against the earlier one where that was asked for."""
    result: dict[str, Any] = {"broken": now.broken, "accepts": now.accepts, "sample": asdict(now)}
    if not wanted:
        return result
    if not former or not former.get("sample"):
        return dict(result, shown=False, reason=(former or {}).get("reason") or "it was not read before")
    delta, reason = difference(former["sample"], now)
    return dict(result, delta=delta, shown=not reason, reason=reason)
