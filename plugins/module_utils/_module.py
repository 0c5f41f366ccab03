# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only place that touches AnsibleModule: parse, connect, resolve, execute on every hypervisor at once, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

from ._argspec import Spec
from ._connect import chosen_names, connect, secrets_of, validate_entry, warnings_of
from ._errors import NotFound, VmwardError, attempt
from ._hypervisor import Hypervisor
from ._model import VmRef
from ._plan import Outcome, UseCase, execute
from ._usecase.resolve import resolve

Params = dict[str, Any]


class Module(AnsibleModule):
    """A module that takes C(hypervisors): the secrets in its entries are in no log and in no result."""

    def __init__(self, spec: Spec, **module_args: Any) -> None:
        super().__init__(argument_spec=spec, supports_check_mode=True, no_log=True, **module_args)

    def exit_json(self, **result: Any) -> None:
        self._hide()
        super().exit_json(**result)

    def fail_json(self, msg: str, **result: Any) -> None:
        self._hide()
        super().fail_json(msg, **result)

    def _hide(self) -> None:
        self.no_log_values.update(secrets_of(self.params.get("hypervisors")))


class Session:
    """The hypervisors of one task, connected and listed all at once: logged in once, logged out always.

    A verb that ``needs_all`` of them ends here when one cannot be asked; for another it is left out, and named.
    """

    def __init__(self, entries: Mapping[str, Any], only: Sequence[str], needs_all: bool) -> None:
        self.entries = {name: entries[name] for name in chosen_names(entries, only)}
        for name, entry in self.entries.items():
            validate_entry(name, entry)
        self.needs_all = needs_all
        self.hypervisors: dict[str, Hypervisor] = {}
        self.refs: list[VmRef] = []
        self.missing: dict[str, VmwardError] = {}

    def __enter__(self) -> Session:
        with ThreadPoolExecutor(max_workers=len(self.entries)) as pool:
            jobs = {name: pool.submit(attempt, "ask " + name, self._ask, name) for name in self.entries}
        for name, job in jobs.items():
            try:
                self.refs += job.result()
            except VmwardError as exc:
                self.missing[name] = exc
        if self.missing and (self.needs_all or len(self.missing) == len(self.entries)):
            self.__exit__()
            raise self._refusal()
        return self

    def _ask(self, name: str) -> tuple[VmRef, ...]:
        self.hypervisors[name] = connect(name, self.entries[name])
        return self.hypervisors[name].refs()

    def _refusal(self) -> VmwardError:
        error = next(iter(self.missing.values()))
        if len(self.entries) == 1:
            return error
        told = " ".join(str(missing) for missing in self.missing.values())
        return type(error)(
            f"{told} Nothing was touched, since a VM of the same name may be there. "
            f"To go on without {', '.join(self.missing)}, name the others with only: [...]."
        )

    def __exit__(self, *_exc: object) -> None:
        for hypervisor in self.hypervisors.values():
            with suppress(VmwardError):  # one log-out that fails takes no outcome away, and no other log-out
                attempt("log out", hypervisor.close)

    def find(self, selectors: Sequence[str]) -> dict[str, VmRef | VmwardError]:
        """Each selector's one VM among those that could be listed, or why there is not exactly one."""
        asked = [hypervisor for name, hypervisor in self.hypervisors.items() if name not in self.missing]
        found = resolve(asked, self.refs, selectors)
        for selector, ref in found.items():
            if isinstance(ref, NotFound) and self.missing:
                found[selector] = NotFound(f"{ref} It may be where nobody could be asked: {self.told()}")
        return found

    def told(self) -> str:
        """Who could not be asked, and why."""
        return " ".join(str(error) for error in self.missing.values())


def fan_out(
    session: Session, usecase: UseCase, selectors: Sequence[str], deadline: float, check: bool
) -> list[Outcome]:
    """Find every VM, run the verb on each hypervisor in a thread of its own; outcomes in the order given."""
    outcomes: dict[str, Outcome] = {}
    chosen: dict[str, list[tuple[str, str]]] = {}
    taken: dict[tuple[str, str], str] = {}
    twins: dict[str, str] = {}
    for selector, ref in session.find(selectors).items():
        if isinstance(ref, VmwardError):
            outcomes[selector] = Outcome(selector, failed=True, msg=str(ref))
        elif (ref.hypervisor, ref.id) in taken:
            twins[selector] = taken[ref.hypervisor, ref.id]
        else:
            taken[ref.hypervisor, ref.id] = selector
            chosen.setdefault(ref.hypervisor, []).append((ref.id, selector))
    with ThreadPoolExecutor(max_workers=max(len(chosen), 1)) as pool:
        jobs = [
            pool.submit(guarded, session.hypervisors[name], usecase, vms, deadline, check)
            for name, vms in chosen.items()
        ]
        for job in jobs:
            outcomes.update((outcome.name, outcome) for outcome in job.result())
    if session.missing:
        for name in taken.values():
            outcomes[name].warnings.append(f"a second VM of this name would not have been seen: {session.told()}")
    for selector, first in twins.items():
        same = f"Same VM as {first}. {outcomes[first].msg}".rstrip()
        outcomes[selector] = replace(outcomes[first], name=selector, changed=False, steps=[], msg=same)
    return [outcomes[selector] for selector in dict.fromkeys(selectors)]


def guarded(
    hypervisor: Hypervisor, usecase: UseCase, chosen: Sequence[tuple[str, str]], deadline: float, check: bool
) -> list[Outcome]:
    """One hypervisor's failure becomes its own VMs' outcome and never hides the others'."""
    try:
        told: list[Outcome] = attempt("run this task", execute, hypervisor, usecase, chosen, deadline, check)
        return told
    except VmwardError as exc:
        return [Outcome(name, vm_id, hypervisor.name, failed=True, msg=str(exc)) for vm_id, name in chosen]


def whole(params: Params, usecase: Callable[[Params], UseCase], check: bool) -> list[Outcome]:
    """The verb over all hypervisors, within one session on each."""
    verb = usecase(params)
    with Session(params["hypervisors"], params["only"], verb.needs_all) as session:
        return fan_out(session, verb, params["vms"], params["deadline"], check)


def run(spec: Spec, usecase: Callable[[Params], UseCase], **module_args: Any) -> None:
    """A batch module, whole: from its parameters to exit_json or fail_json."""
    module = Module(spec, **module_args)
    started = time.monotonic()
    try:
        outcomes = attempt("run this task", whole, module.params, usecase, module.check_mode)
    except VmwardError as exc:
        module.fail_json(msg=str(exc), vms=[])
    for warning in warnings_of(module.params["hypervisors"], module.params["only"]):
        module.warn(warning)
    finish(module, outcomes, round(time.monotonic() - started, 3))


def finish(module: AnsibleModule, outcomes: Sequence[Outcome], seconds: float) -> None:
    """Tell every VM's outcome. Failures fail the task after all was done, unless ``report_only``."""
    for outcome in outcomes:
        for warning in outcome.warnings:
            module.warn(f"{outcome.name}: {warning}")
    result = {
        "changed": any(outcome.changed for outcome in outcomes),
        "vms": [asdict(outcome) for outcome in outcomes],
        "seconds": seconds,
    }
    if module._diff:
        result["diff"] = [
            {"before_header": o.name, "after_header": o.name, "before": o.before, "after": o.after}
            for o in outcomes
            if o.changed
        ]
    failed = [outcome for outcome in outcomes if outcome.failed]
    if failed and not module.params["report_only"]:
        told = " | ".join(f"{outcome.name}: {outcome.msg}" for outcome in failed)
        module.fail_json(msg="%d of %d VMs failed. %s" % (len(failed), len(outcomes), told), **result)
    module.exit_json(**result)
