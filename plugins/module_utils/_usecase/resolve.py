# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a user or the inventory calls a VM (name, id, MAC or IP address) to exactly one VM."""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, Callable

from .._crew import apart, told
from .._errors import Ambiguous, NeverRuns, NotFound, Unsupported, VmwardError, attempt
from .._hypervisor import FINDING, Hypervisor
from .._model import Vm, VmRef, printable

TAG = "tag:"
VMS, TAGS = "VMs", "tags"  # what a hypervisor is asked for
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


class Lookup:
    """What hypervisors are asked for beside their lists, where a selector names a VM by it. Each is asked once."""

    def __init__(self, before: Callable[[str], object] = bool) -> None:
        self.before = before  # what is awaited before a hypervisor is asked
        self.asked: dict[tuple[str, str], Future[Any]] = {}
        self.began = math.inf

    def ask(self, hypervisors: Iterable[Hypervisor], refs: Sequence[VmRef], selectors: Iterable[str]) -> None:
        """Begin to ask those who have not been asked yet, all at once."""
        for kind in {asks(selector) for selector in selectors} - {""}:
            for hypervisor in hypervisors:
                if (kind, hypervisor.name) in self.asked:
                    continue
                ids = [ref.id for ref in refs if ref.hypervisor == hypervisor.name]
                call = hypervisor.tags if kind == TAGS else partial(hypervisor.read, ids, FINDING)
                self.began = min(self.began, time.monotonic())
                self.asked[kind, hypervisor.name] = apart(partial(self._ask, kind, hypervisor.name, call))

    def _ask(self, kind: str, name: str, call: Callable[[], Any]) -> Any:
        self.before(name)
        return attempt(f"read the {kind} on {name}", call)

    def knows(self, hypervisors: Iterable[Hypervisor], selector: str) -> bool:
        """Have all of them answered what must be asked for this selector?"""
        kind = asks(selector)
        asked = [self.asked.get((kind, hypervisor.name)) for hypervisor in hypervisors if kind]
        return all(future is not None and future.done() for future in asked)

    def told(self, kind: str, hypervisors: Iterable[Hypervisor]) -> dict[str, Any]:
        """What each of those asked has answered, or why it has not."""
        answers: dict[str, Any] = {}
        for name in [hypervisor.name for hypervisor in hypervisors if (kind, hypervisor.name) in self.asked]:
            try:
                waited = time.monotonic() - self.began
                answers[name] = told(self.asked[kind, name], waited, f"read the {kind} on {name}")
            except VmwardError as exc:
                answers[name] = exc
        return answers


class Known:
    """The VMs, by all that is known of them now."""

    def __init__(self, hypervisors: Iterable[Hypervisor], refs: Sequence[VmRef], lookup: Lookup) -> None:
        self.refs, self.hypervisors = refs, list(hypervisors)
        self.read: list[Vm] = []
        self.unread: list[str] = []
        names = {(ref.hypervisor, ref.id): ref.name for ref in refs}
        for hypervisor, answer in lookup.told(VMS, self.hypervisors).items():
            if isinstance(answer, VmwardError):
                self.unread.append(str(answer))
                continue
            for vm_id, vm in answer.items():
                if isinstance(vm, Vm):
                    self.read.append(vm)
                elif not isinstance(vm, (NeverRuns, NotFound)):
                    self.unread.append(f"{names[hypervisor, vm_id]}: {vm}")
        self.labels = Labels(refs, lookup.told(TAGS, self.hypervisors))

    def hits(self, selector: str) -> list[VmRef]:
        hits = [ref for ref in self.refs if selector in (ref.name, ref.id, *ref.aliases, *self.labels.of(ref))]
        hits = hits or [ref for ref in self.refs if selector in long_names(ref.name, ref.hypervisor, ref.id)]
        return hits + [vm.ref for vm in self.read if vm.ref not in hits and answers_to(vm, selector.lower())]

    def one(self, selector: str) -> VmRef | VmwardError:
        if by_address(selector) and self.unread:
            return unsure(selector, self.unread)
        found = exactly_one(selector, self.hits(selector), self.refs)
        if selector.startswith(TAG):
            found = self.labels.judged(selector, found)
        if not isinstance(found, NotFound):
            return found
        more = [text for one in self.hypervisors for text in (one.no_vm(selector), one.unnamed())]
        return NotFound(" ".join(filter(None, [str(found), *more])))


def resolve(
    hypervisors: Iterable[Hypervisor], refs: Sequence[VmRef], selectors: Sequence[str]
) -> dict[str, VmRef | VmwardError]:
    """Each selector's one VM among ``refs``, or the error that says why there is not exactly one."""
    hypervisors, lookup = list(hypervisors), Lookup()
    lookup.ask(hypervisors, refs, selectors)
    wait(lookup.asked.values())
    known = Known(hypervisors, refs, lookup)
    return {selector: known.one(selector) for selector in selectors}


class Labels:
    """The tags of VMs, asked for only where a selector names one."""

    def __init__(self, refs: Sequence[VmRef], tags: Mapping[str, Any]) -> None:
        self.told: dict[tuple[str, str], tuple[str, ...]] = {}
        self.unread: list[str] = []
        self.without: list[str] = []  # those that can have no tags, each with a word of its own
        self.refs = refs
        for hypervisor, answer in tags.items():
            if isinstance(answer, Unsupported):
                self.without.append(str(answer))
            elif isinstance(answer, VmwardError):
                self.unread.append(str(answer))
            else:
                self.told.update(((hypervisor, vm_id), mine) for vm_id, mine in answer.items())

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
            both = ", ".join(twins)
            return Ambiguous(f"'{printable(selector)}' names {len(twins)} tags: {both}. Nothing was touched. Name one.")
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


def asks(selector: str) -> str:
    """What hypervisors must be asked for that a list does not tell; empty for a name or an id."""
    return TAGS if selector.startswith(TAG) else VMS if by_address(selector) else ""


def unsure(selector: str, unread: Sequence[str]) -> VmwardError:
    """A VM that cannot be read may be the one that bears the address; another that also does is not taken for it."""
    return Ambiguous(
        "Cannot tell which VM has {}: {} VM(s) or hypervisors cannot be read ({}). Nothing was touched. Name the VM by "
        "its name or id.".format(selector, len(unread), printable("; ".join(unread[:3]), 400))
    )


def told_apart(selector: str, hits: Sequence[VmRef]) -> str:
    """How to name one of them: by its id, unless another has that too, on another hypervisor or as its name."""
    ids = [ref.id for ref in hits]
    if len(set(ids)) == len(ids) and selector not in ids:
        return "Use the id."
    names = [long_names(ref.name, ref.hypervisor, ref.id) for ref in hits]
    each = [by_both if ids.count(ref.id) > 1 else by_id for ref, (_name, by_id, by_both) in zip(hits, names)]
    return f"Use {' or '.join(printable(name, 60) for name in each)}."


def exactly_one(selector: str, hits: Sequence[VmRef], refs: Iterable[VmRef]) -> VmRef | VmwardError:
    """The one hit; or ``NotFound`` / ``Ambiguous`` with the candidates."""
    shown = printable(selector)
    if not selector.strip():
        return NotFound("An empty VM name was given. Nothing was touched. Name a VM: -e vmward_vms=desk1.")
    if len(hits) == 1:
        return hits[0]
    if hits:
        listed = "; ".join(f"{printable(r.name)} ({r.id}) on {r.hypervisor}" for r in hits)
        told = "'%s' names %d VMs: %s. Nothing was touched. %s" % (shown, len(hits), listed, told_apart(selector, hits))
        return Ambiguous(told)
    names = sorted(printable(ref.name, 40) for ref in refs)
    listed = ", ".join(names[:10]) + (", and %d more" % (len(names) - 10) if len(names) > 10 else "")
    return NotFound("No VM '{}' on any hypervisor. Nothing was touched. There are: {}.".format(shown, listed or "none"))
