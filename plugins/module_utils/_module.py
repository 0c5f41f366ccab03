# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only place that touches AnsibleModule: parse, connect, resolve, execute on every hypervisor at once, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

from ._argspec import Spec
from ._connect import chosen_names, connect, secrets
from ._errors import VmwardError
from ._hypervisor import Hypervisor
from ._plan import Outcome, UseCase, attempt, execute
from ._usecase.resolve import resolve

Params = dict[str, Any]


class Module(AnsibleModule):
    """An AnsibleModule that keeps the secrets within ``hypervisors`` out of the log and of every output."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.no_log_values.update(secrets(self.params.get("hypervisors")))

    def _log_invocation(self) -> None:
        self.no_log_values.update(secrets(self.params.get("hypervisors")))
        super()._log_invocation()


class Session:
    """The connected hypervisors of one task: logged in once, logged out always."""

    def __init__(self, entries: Mapping[str, Any], only: Sequence[str]) -> None:
        self.entries, self.names = entries, chosen_names(entries, only)
        self.hypervisors: dict[str, Hypervisor] = {}

    def __enter__(self) -> Session:
        try:
            for name in self.names:
                self.hypervisors[name] = connect(name, self.entries[name])
        except VmwardError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        for hypervisor in self.hypervisors.values():
            hypervisor.close()


def fan_out(
    session: Session, usecase: UseCase, selectors: Sequence[str], deadline: float, check: bool
) -> list[Outcome]:
    """Resolve every selector, run the verb on each hypervisor in a thread of its own; outcomes in the order given."""
    outcomes: dict[str, Outcome] = {}
    chosen: dict[str, list[tuple[str, str]]] = {}
    taken: dict[tuple[str, str], str] = {}
    for selector, ref in resolve(session.hypervisors, selectors).items():
        if isinstance(ref, VmwardError):
            outcomes[selector] = Outcome(selector, failed=True, msg=str(ref))
        elif (ref.hypervisor, ref.id) in taken:
            twin = taken[ref.hypervisor, ref.id]
            outcomes[selector] = Outcome(selector, ref.id, ref.hypervisor, msg=f"Same VM as {twin}.")
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
    with Session(params["hypervisors"], params["only"]) as session:
        return fan_out(session, verb, params["vms"], params["deadline"], check)


def run(spec: Spec, usecase: Callable[[Params], UseCase], **module_args: Any) -> None:
    """A batch module, whole: from its parameters to exit_json or fail_json."""
    module = Module(argument_spec=spec, supports_check_mode=True, **module_args)
    started = time.monotonic()
    try:
        outcomes = attempt("run this task", whole, module.params, usecase, module.check_mode)
    except VmwardError as exc:
        module.fail_json(msg=str(exc), vms=[])
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
        "diff": [
            {"before_header": o.name, "after_header": o.name, "before": o.before, "after": o.after}
            for o in outcomes
            if o.changed
        ],
    }
    failed = [outcome for outcome in outcomes if outcome.failed]
    if failed and not module.params["report_only"]:
        told = " | ".join(f"{outcome.name}: {outcome.msg}" for outcome in failed)
        module.fail_json(msg="%d of %d VMs failed. %s" % (len(failed), len(outcomes), told), **result)
    module.exit_json(**result)
