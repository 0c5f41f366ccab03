# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only place that touches AnsibleModule: parse, connect, resolve, execute on every hypervisor at once, report."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

from ._argspec import Spec
from ._connect import chosen_names, connect, secrets_of, validate_entry, warnings_of
from ._crew import apart
from ._errors import Ambiguous, NotFound, TimedOut, VmwardError, attempt
from ._hypervisor import FIRST, LAST, Hypervisor
from ._model import VmRef, printable
from ._plan import Outcome, UseCase, execute
from ._usecase.resolve import Known, Lookup, asks

Params = dict[str, Any]
PATIENCE = 15.0  # seconds in which a hypervisor is listed, or a cut on the others begins without it


class Module(AnsibleModule):
    """A module that takes C(hypervisors): the secrets in its entries are in no log and in no result."""

    def __init__(self, spec: Spec, **module_args: Any) -> None:
        super().__init__(argument_spec=spec, supports_check_mode=True, no_log=True, **module_args)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, give_up)

    def exit_json(self, **result: Any) -> None:
        self._hide()
        super().exit_json(**result)

    def fail_json(self, msg: str, **result: Any) -> None:
        self._hide()
        super().fail_json(msg, **result)

    def _hide(self) -> None:
        self.no_log_values.update(secrets_of(self.params.get("hypervisors")))


def give_up(_number: int, _frame: object) -> None:
    """So that what was begun is ended, and who was logged in is logged out."""
    raise SystemExit(1)


class Session:
    """The hypervisors of one task, connected and listed all at once: logged in once, logged out always.

    A verb that ``needs_all`` of them ends here when one cannot be asked until ``end``. Another goes on without those
    that do not answer in time, and takes them in as they come.
    """

    def __init__(self, entries: Mapping[str, Any], only: Sequence[str], needs_all: bool, end: float) -> None:
        self.entries = {name: entries[name] for name in chosen_names(entries, only)}
        for name, entry in self.entries.items():
            validate_entry(name, entry)
        self.needs_all, self.started, self.over = needs_all, time.monotonic(), False
        self.end = max(end, self.started + FIRST)  # of listing and looking up
        self.hypervisors: dict[str, Hypervisor] = {}
        self.refs: list[VmRef] = []
        self.missing: dict[str, VmwardError] = {}
        self.asked: dict[str, Future[Any]] = {}  # those that have not answered yet
        self.busy: dict[str, list[Future[Any]]] = {}  # the verbs under way on each
        self.lookup = Lookup(self.rest)
        self.used: set[Future[Any]] = set()  # the answers that were looked at

    def __enter__(self) -> Session:
        try:
            self._list()
        except BaseException:  # also a signal
            self.__exit__()
            raise
        return self

    def _list(self) -> None:
        self.asked = {name: apart(partial(attempt, "ask " + name, self._ask, name)) for name in self.entries}
        self.take_in(self.end if self.needs_all else min(self.end, self.started + PATIENCE), ALL_COMPLETED)
        while not self.needs_all and len(self.missing) == len(self.entries) and self.take_in(self.end):
            pass
        if self.missing and (self.needs_all or len(self.missing) == len(self.entries)):
            raise self._refusal()

    def take_in(self, until: float, how: str = FIRST_COMPLETED) -> bool:
        """Wait for those who have not answered, and for what is looked up; has one answered?"""
        open_ = [*self.asked.values(), *(future for future in self.lookup.asked.values() if future not in self.used)]
        answered = wait(open_, max(until - time.monotonic(), 0.0), how).done
        for name, future in list(self.asked.items()):
            try:
                if future not in answered:
                    raise TimedOut(
                        f"Cannot list the VMs on {name}: no answer for {time.monotonic() - self.started:.0f} s. Check "
                        "that it runs and can be reached."
                    )
                del self.asked[name]
                self.refs += future.result()
                self.missing.pop(name, None)
            except VmwardError as exc:
                self.missing[name] = exc
        return bool(answered)

    def _ask(self, name: str) -> tuple[VmRef, ...]:
        hypervisor = self.hypervisors[name] = connect(name, self.entries[name])
        if self.over:  # nobody waits for it any longer
            hypervisor.close()
            return ()
        hypervisor.until(self.end + LAST)
        return hypervisor.refs()

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
        """One log-out that fails or hangs takes no outcome away, and no other log-out."""
        self.over = True
        wait([apart(hypervisor.close) for hypervisor in list(self.hypervisors.values())], LAST)

    def listed(self) -> list[Hypervisor]:
        return [hypervisor for name, hypervisor in list(self.hypervisors.items()) if name not in self.missing]

    def find(self, selectors: Sequence[str], last: bool = False) -> dict[str, VmRef | VmwardError]:
        """Each selector's one VM among those that could be listed, or why there is not exactly one.

        What is still being looked up is left out, until it is asked for the ``last`` time.
        """
        self.used |= {future for future in self.lookup.asked.values() if future.done()}
        listed = self.listed()
        ready = [selector for selector in selectors if last or self.lookup.knows(listed, selector)]
        known = Known(listed, self.refs, self.lookup)  # after that: what comes meanwhile is only more
        found = {selector: known.one(selector) for selector in ready}
        for selector, ref in found.items():
            if isinstance(ref, NotFound) and self.missing:
                found[selector] = NotFound(f"{ref} It may be where nobody could be asked: {self.told()}")
        return found

    def look_up(self, selectors: Sequence[str]) -> None:
        """Begin to read addresses and tags, where one is asked for, on all that have listed their VMs."""
        before = len(self.lookup.asked)
        self.lookup.ask(self.listed(), self.refs, selectors)
        if len(self.lookup.asked) > before:
            self.end = max(self.end, time.monotonic() + FIRST)

    def rest(self, name: str) -> None:
        """A backend remembers what it read last, so that a verb under way there ends first; not for ever."""
        wait(self.busy.get(name, []), PATIENCE)

    def told(self) -> str:
        """Who could not be asked, and why."""
        return " ".join(str(error) for error in self.missing.values())


class Batch:
    """One verb on the VMs of many hypervisors, each in a thread of its own as soon as its VMs are known."""

    def __init__(self, session: Session, usecase: UseCase, check: bool, end: float) -> None:
        self.session, self.usecase, self.check, self.end = session, usecase, check, end
        self.outcomes: dict[str, Outcome] = {}
        self.taken: dict[tuple[str, str], str] = {}
        self.twins: dict[str, str] = {}
        self.doubts: dict[str, VmRef] = {}  # those found while one could not be asked for a VM of the same name
        self.jobs: dict[Future[list[Outcome]], Callable[[], list[Outcome]]] = {}  # and what is told if one hangs

    def begin(self, found: Mapping[str, VmRef | VmwardError]) -> list[str]:
        """Start with what was found; answers what was not."""
        chosen: dict[str, list[tuple[str, str]]] = {}
        for selector, ref in found.items():
            if isinstance(ref, VmwardError):
                self.outcomes[selector] = Outcome(selector, failed=True, msg=str(ref))
                continue
            if self.session.missing:
                self.doubts[selector] = ref
            if (ref.hypervisor, ref.id) in self.taken:
                self.twins[selector] = self.taken[ref.hypervisor, ref.id]
            else:
                self.taken[ref.hypervisor, ref.id] = selector
                chosen.setdefault(ref.hypervisor, []).append((ref.id, selector))
        deadline = self.end - time.monotonic()
        for name, vms in chosen.items():
            hypervisor = self.session.hypervisors[name]
            job = apart(partial(guarded, hypervisor, self.usecase, vms, deadline, self.check))
            self.jobs[job] = partial(hung, name, vms, time.monotonic(), self.check)
            self.session.busy.setdefault(name, []).append(job)
        return [selector for selector, ref in found.items() if isinstance(ref, NotFound)]

    def ended(self) -> dict[str, Outcome]:
        """A cut's outcome waits for no other that hangs. Another change is awaited: a cut may have to follow it."""
        left = max(self.end - time.monotonic(), FIRST) + 2 * LAST  # for the last step's own overrun, and to read back
        wait(self.jobs, None if self.session.needs_all else left)
        for job, told in self.jobs.items():
            outcomes = job.result() if job.done() else told()
            self.outcomes.update((outcome.name, outcome) for outcome in outcomes)
        for selector, first in self.twins.items():
            one = self.outcomes[first]
            same = f"Same VM as {first}. {one.msg}".rstrip()
            warnings = list(one.warnings)
            self.outcomes[selector] = replace(one, name=selector, changed=False, steps=[], msg=same, warnings=warnings)
        self._judge_doubts()
        for selector, outcome in self.outcomes.items():
            others = [one.no_vm(selector) for one in self.session.listed() if outcome.id]
            outcome.warnings += filter(None, others)
        return self.outcomes

    def _judge_doubts(self) -> None:
        """Who was too late to be asked may have a VM of the same name: look, without waiting for it any longer."""
        if not self.doubts:
            return
        session = self.session
        session.take_in(0.0)
        session.look_up(list(self.doubts))
        wait(session.lookup.asked.values(), FIRST)
        known = Known(session.listed(), session.refs, session.lookup)
        for selector, ref in self.doubts.items():
            outcome = self.outcomes[selector]
            others = [one for one in known.hits(selector) if (one.hypervisor, one.id) != (ref.hypervisor, ref.id)]
            if others:
                outcome.fail(too_late(selector, ref, others))
            unasked = [session.told(), *(known.unread if asks(selector) else ())]
            doubt = " ".join(filter(None, unasked))
            if doubt:
                outcome.warnings.append(f"a second VM of this name would not have been seen: {doubt}")


def too_late(selector: str, first: VmRef, others: Sequence[VmRef]) -> Ambiguous:
    """The selector has turned out to name more than one VM."""
    listed = "; ".join(f"{printable(one.name)} ({one.id}) on {one.hypervisor}" for one in (first, *others))
    return Ambiguous(
        f"'{printable(selector)}' names {len(others) + 1} VMs: {listed}. When this began, only the first was known: "
        "what was done to it stays, and nothing was done to the rest. Run again, and name each by its id."
    )


def fan_out(session: Session, usecase: UseCase, selectors: Sequence[str], check: bool, end: float) -> list[Outcome]:
    """Find every VM, run the verb on each hypervisor; outcomes in the order given. Nobody waits for a look-up but
    those who are named by an address or a tag.
    """
    batch = Batch(session, usecase, check, end)
    wanted = list(dict.fromkeys(selectors))
    left = wanted
    while True:
        found = session.find(left)
        unfound = batch.begin(found)
        left = [selector for selector in left if selector not in found or selector in unfound]
        session.look_up([selector for selector in left if asks(selector)])
        if not left or not session.take_in(session.end):
            break
    batch.begin(session.find(left, last=True))
    outcomes = batch.ended()
    return [outcomes[selector] for selector in wanted]


def hung(name: str, chosen: Sequence[tuple[str, str]], began: float, check: bool) -> list[Outcome]:
    """What is told of the VMs of a hypervisor that no call comes back from."""
    outcomes = []
    for vm_id, selector in chosen:
        outcome = Outcome(selector, vm_id, name, changed=not check)
        outcome.fail(
            TimedOut(
                f"Cannot say yet what became of {selector} on {name}: no answer for {time.monotonic() - began:.0f} s. "
                "Check that it runs and can be reached, and run again."
            )
        )
        outcomes.append(outcome)
    return outcomes


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
    verb, end = usecase(params), time.monotonic() + params["deadline"]
    with Session(params["hypervisors"], params["only"], verb.needs_all, end) as session:
        return fan_out(session, verb, params["vms"], check, end)


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
