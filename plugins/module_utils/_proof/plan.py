# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is asked about which NIC: from vm_info's answer to the work of each KVM host and each witness. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Data = Mapping[str, Any]
WITH_TAPS = ("libvirt",)  # kinds of hypervisor whose host's kernel counts what passes a tap


def data_host(hypervisor: str, entries: Data) -> str | None:
    """The inventory host whose kernel carries this hypervisor's taps."""
    for kind, options in (entries.get(hypervisor) or {}).items():
        return (options or {}).get("data_host") if kind in WITH_TAPS else None
    return None


def counter_work(vms: Sequence[Data], entries: Data) -> list[dict[str, Any]]:
    """The taps that each KVM host is asked about."""
    work: dict[str, list[dict[str, str]]] = {}
    for vm in vms:
        host = data_host(vm["hypervisor"], entries)
        for nic in nics_of(vm):
            if host and nic["device"]:
                work.setdefault(host, []).append({"vm": vm["name"], "mac": nic["mac"], "device": nic["device"]})
    return [{"host": host, "nics": nics} for host, nics in work.items()]


def probe_work(
    vms: Sequence[Data], witnesses: Sequence[str], controls: Sequence[str], known: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What each witness is asked. A VM that is being isolated can neither witness nor be a control target.

    ``known`` holds addresses from the inventory, used for a VM with one NIC where its hypervisor knows none.
    """
    targets = []
    for vm in vms:
        nics = [nic for nic in nics_of(vm) if nic["wiring"]["live"]]
        for nic in nics:
            hint = [known[vm["name"]]] if len(nics) == 1 and vm["name"] in known else []
            targets.append(
                {"name": vm["name"], "mac": nic["mac"], "addresses": list(dict.fromkeys([*nic["addresses"], *hint]))}
            )
    cut = {vm["name"] for vm in vms}
    taken = {address for target in targets for address in target["addresses"]} | {
        known[vm] for vm in cut if vm in known
    }
    left = [control for control in controls if control not in taken]
    names = [witness for witness in dict.fromkeys(witnesses) if witness not in cut]
    return [{"witness": name, "targets": targets, "controls": left} for name in names] if targets else []


def nics_of(vm: Data) -> Sequence[Data]:
    """A VM that could not be read has none here; the judge is told that it could not be read."""
    return (vm.get("after") or {}).get("nics") or ()


def flat_counters(results: Sequence[Data]) -> list[Data]:
    """The NICs of all KVM hosts' answers; a host that could not answer gives each of its NICs its reason."""
    found: list[Data] = []
    for result in results:
        if result.get("nics"):
            found += result["nics"]
            continue
        reason = f"{result['item']['host']}: {result.get('msg') or 'it did not answer'}"
        found += [dict(nic, shown=False, reason=reason, delta={}) for nic in result["item"]["nics"]]
    return found


def flat_probes(results: Sequence[Data]) -> list[Data]:
    """Each witness's answer with its name, or the reason why there is none."""
    return [
        {
            "witness": result["item"]["witness"],
            "targets": result.get("targets") or [],
            "lost": result.get("lost", 0),
            "problem": "" if result.get("targets") else result.get("msg") or "it did not answer",
        }
        for result in results
    ]
