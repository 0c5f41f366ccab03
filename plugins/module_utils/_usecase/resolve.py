# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a user or the inventory calls a VM (name, id, MAC or IP address) to exactly one VM."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import partial

from .._crew import within
from .._errors import Ambiguous, NotFound, Unsupported, VmwardError
from .._hypervisor import Detail, Hypervisor
from .._model import Vm, VmRef, printable

TAG = "tag:"
ADDRESSES = frozenset([Detail.ADDRESSES])
MAC = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")


def is_address(selector: str) -> bool:
    try:
        ipaddress.ip_address(selector)
    except ValueError:
        return False
    return True


def long_names(name: str, hypervisor: str, vm_id: str) -> tuple[str, str, str]:
    """What the inventory calls a VM whose own name is also another's: by its hypervisor, by its id, by both."""
    return f"{name}_{hypervisor}", f"{name}_{vm_id}", f"{vm_id}_{hypervisor}"


def answers_to(vm: Vm, selector: str) -> bool:
    return any(selector == nic.mac or selector in nic.addresses for nic in vm.nics)


def resolve(
    hypervisors: Iterable[Hypervisor], refs: Sequence[VmRef], selectors: Sequence[str], patience: float = 3600.0
) -> dict[str, VmRef | VmwardError]:
    """Each selector's one VM among ``refs``, or the error that says why there is not exactly one.

    A hypervisor that must be asked for addresses or tags has so many seconds of ``patience``.
    """
    hypervisors = list(hypervisors)
    read: list[Vm] = []
    unread: list[str] = []
    if any(by_address(selector) for selector in selectors):
        for hypervisor in hypervisors:
            mine = {ref.id: ref for ref in refs if ref.hypervisor == hypervisor.name}
            try:
                what = f"read the VMs on {hypervisor.name}"
                told = within(patience, what, partial(hypervisor.read, list(mine), ADDRESSES))
            except VmwardError as exc:
                unread.append(str(exc))
                continue
            read += [vm for vm in told.values() if isinstance(vm, Vm)]
            unread += [f"{mine[i].name}: {vm}" for i, vm in told.items() if not isinstance(vm, (Vm, NotFound))]
    labels = Labels(hypervisors, refs, any(selector.startswith(TAG) for selector in selectors), patience)
    found: dict[str, VmRef | VmwardError] = {}
    for selector in selectors:
        hits = [ref for ref in refs if selector in (ref.name, ref.id, *ref.aliases, *labels.of(ref))]
        hits = hits or [ref for ref in refs if selector in long_names(ref.name, ref.hypervisor, ref.id)]
        hits += [vm.ref for vm in read if vm.ref not in hits and answers_to(vm, selector.lower())]
        found[selector] = (
            unsure(selector, unread) if by_address(selector) and unread else exactly_one(selector, hits, refs)
        )
        if selector.startswith(TAG):
            found[selector] = labels.judged(selector, found[selector])
    unnamed = " ".join(filter(None, (hypervisor.unnamed() for hypervisor in hypervisors)))
    return {
        selector: NotFound(f"{ref} {unnamed}") if isinstance(ref, NotFound) and unnamed else ref
        for selector, ref in found.items()
    }


class Labels:
    """The tags of VMs, asked for only where a selector names one."""

    def __init__(self, hypervisors: Sequence[Hypervisor], refs: Sequence[VmRef], wanted: bool, patience: float) -> None:
        self.told: dict[tuple[str, str], tuple[str, ...]] = {}
        self.unread: list[str] = []
        self.without: list[str] = []  # those that can have no tags, each with a word of its own
        self.refs = refs
        for hypervisor in hypervisors if wanted else ():
            try:
                tags = within(patience, f"read the tags on {hypervisor.name}", hypervisor.tags)
            except Unsupported as exc:
                self.without.append(str(exc))
            except VmwardError as exc:
                self.unread.append(str(exc))
            else:
                self.told.update(((hypervisor.name, vm_id), mine) for vm_id, mine in tags.items())

    def of(self, ref: VmRef) -> tuple[str, ...]:
        return tuple(TAG + tag for tag in self.told.get((ref.hypervisor, ref.id), ()))

    def judged(self, selector: str, found: VmRef | VmwardError) -> VmRef | VmwardError:
        """A tag that could be another VM's too is taken for none; one that is unknown is told with those there are."""
        if self.unread:
            return unsure(selector, self.unread)
        if not isinstance(found, NotFound):
            return found
        every = {label for ref in self.refs for label in (*ref.aliases, *self.of(ref)) if label.startswith(TAG)}
        known = sorted(printable(label, 80) for label in every)
        twins = [label for label in known if label.rpartition("/")[2] == selector[len(TAG) :]]
        if twins:
            told = ", ".join(twins)
            return Ambiguous(f"'{printable(selector)}' names {len(twins)} tags: {told}. Nothing was touched. Name one.")
        there = ", ".join(known[:20]) + (f", and {len(known) - 20} more" if len(known) > 20 else "")
        return NotFound(
            " ".join([
                f"No VM has the tag '{printable(selector)}'. Nothing was touched. There are: {there or 'none'}.",
                *self.without,
            ])
        )  # fmt: skip


def by_address(selector: str) -> bool:
    """Is it a MAC or IP address?"""
    return bool(MAC.match(selector.lower())) or is_address(selector)


def unsure(selector: str, unread: Sequence[str]) -> VmwardError:
    """A VM that cannot be read may be the one that bears the address; another that also does is not taken for it."""
    return Ambiguous(
        "Cannot tell which VM has {}: {} VM(s) or hypervisors cannot be read ({}). Nothing was touched. Name the VM by "
        "its name or id.".format(selector, len(unread), printable("; ".join(unread[:3]), 400))
    )


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
