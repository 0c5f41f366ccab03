# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a user calls a VM (name, id, MAC or IP address) to exactly one VM."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence

from .._errors import Ambiguous, NotFound, VmwardError
from .._hypervisor import Detail, Hypervisor
from .._model import Vm, VmRef, printable

MAC = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")


def is_address(selector: str) -> bool:
    try:
        ipaddress.ip_address(selector)
    except ValueError:
        return False
    return True


def answers_to(vm: Vm, selector: str) -> bool:
    return any(selector == nic.mac or selector in nic.addresses for nic in vm.nics)


def resolve(hypervisors: Mapping[str, Hypervisor], selectors: Sequence[str]) -> dict[str, VmRef | VmwardError]:
    """Each selector's one VM, or the error that says why there is not exactly one.

    A hypervisor that cannot be listed raises: a shorter list could hide a second VM of the same name.
    """
    refs = [ref for hypervisor in hypervisors.values() for ref in hypervisor.refs()]
    read: list[Vm] = []
    if any(MAC.match(s.lower()) or is_address(s) for s in selectors):
        for hypervisor in hypervisors.values():
            mine = [ref.id for ref in refs if ref.hypervisor == hypervisor.name]
            read += [vm for vm in hypervisor.read(mine, frozenset([Detail.ADDRESSES])).values() if isinstance(vm, Vm)]
    found: dict[str, VmRef | VmwardError] = {}
    for selector in selectors:
        hits = [ref for ref in refs if selector in (ref.name, ref.id, *ref.labels)]
        hits += [vm.ref for vm in read if vm.ref not in hits and answers_to(vm, selector.lower())]
        found[selector] = exactly_one(selector, hits, refs)
    return found


def exactly_one(selector: str, hits: Sequence[VmRef], refs: Iterable[VmRef]) -> VmRef | VmwardError:
    """The one hit; or ``NotFound`` / ``Ambiguous`` with the candidates."""
    shown = printable(selector)
    if not selector.strip():
        return NotFound("An empty VM name was given. Nothing was touched. Name a VM: -e vmward_vms=desk1.")
    if len(hits) == 1:
        return hits[0]
    if hits:
        listed = "; ".join(f"{printable(r.name)} ({r.id}) on {r.hypervisor}" for r in hits)
        return Ambiguous("'%s' names %d VMs: %s. Nothing was touched. Use the id." % (shown, len(hits), listed))
    names = sorted(printable(ref.name, 40) for ref in refs)
    listed = ", ".join(names[:10]) + (", and %d more" % (len(names) - 10) if len(names) > 10 else "")
    return NotFound("No VM '{}' on any hypervisor. Nothing was touched. There are: {}.".format(shown, listed or "none"))
