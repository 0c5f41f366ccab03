# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: steps
type: stdout
short_description: One line per step in plain words
version_added: "0.1.0"
author: vmward contributors (@vmward)
description:
  - Prints a heading per play and one line per step that touched or asked something, with the time it took, for a person
    who follows a response at night. Steps that only think (facts, checks, includes), and entries that the case's ledger
    takes in, are silent unless something is wrong.
  - A step that takes longer says so after 5 seconds, and then ever more rarely.
  - A failure is printed as its sentence. For everything else that a result holds, use C(-v) or the case's ledger.
  - Every line is printed through the display, so it goes to the log file too.
extends_documentation_fragment:
  - ansible.builtin.default_callback
requirements:
  - set as stdout in the configuration (C(stdout_callback = vmward.remediation.steps))
"""

import re
import sys
import threading
import time
from typing import Any

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.plugins.loader import action_loader

from ansible_collections.vmward.remediation.plugins.module_utils._model import printable

# Steps that only think, and those that print their own line.
SILENT = (
    "assert",
    "gather_facts",
    "import_role",
    "include_role",
    "include_tasks",
    "include_vars",
    "isolation_proof",
    "meta",
    "outcome",
    "set_fact",
    "validate_argument_spec",
)
BEATS = (5, 10, 20, 40, *range(60, 86400, 60))  # seconds after which a running step is told
WIDTH = 52
WRAPPED = re.compile(r"Task failed: .*The filter plugin '[^']*' failed: ", re.DOTALL)  # Ansible's words before ours
HERE = ("localhost", "127.0.0.1", "")


class Step:
    """The step that runs now, and the hosts that have not come back from it."""

    def __init__(self, task: Any) -> None:
        self.name = printable(task.get_name().rpartition(" : ")[2], WIDTH)
        self.quiet = task.action.rpartition(".")[2] in SILENT or tells_progress(task.action)
        self.for_all = is_for_all(task)
        self.began = time.monotonic()
        self.waiting: set[str] = set()
        self.told = 0


def tells_progress(action: str) -> bool:
    """Does the action print its own lines while it runs?"""
    return bool(getattr(action_loader.get(action, class_only=True), "tells_progress", False))


class CallbackModule(Default):
    """The default callback with a line where it has a paragraph."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "vmward.remediation.steps"

    def __init__(self) -> None:
        super().__init__()
        if hasattr(sys.stdout, "reconfigure"):  # else a pipe or a file gets what a long step says when it is over
            sys.stdout.reconfigure(line_buffering=True)
        self._began: dict[str, float] = {}
        self._step: Step | None = None
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._hosts: list[str] = []  # of the play
        self._fell: set[str] = set()  # hosts that failed at something of their own
        self._has_run = False  # a step that touches or asks something
        self._all_fell = False  # a step for all of them failed, whomever it was about

    def _beat(self) -> None:
        """A thread of its own. It asks for no time of day: a worker forked just then would find that lock taken."""
        while not self._over.wait(0.5):
            step, now = self._step, time.monotonic()
            if step and step.waiting and not step.quiet and now - step.began > BEATS[min(step.told, len(BEATS) - 1)]:
                step.told += 1
                waiting = tuple(step.waiting) or ("",)
                hosts = self._hosts if step.for_all else waiting
                who = printable(waiting[0], 24) if len(hosts) < 2 else f"{len(hosts)} hosts"
                text = f"{'':>10}{who:<9} {step.name}: still at it, {now - step.began:.0f} s"
                self._display.display(text, color=C.COLOR_SKIP)

    def _back(self, result: Any) -> None:
        if self._step:
            self._step.waiting.discard(result._host.get_name())

    def v2_playbook_on_play_start(self, play: Any) -> None:
        if not self._heart.is_alive():
            self._heart.start()
        self._play = play
        self._hosts = play.get_variable_manager().get_vars(play=play).get("ansible_play_hosts_all") or []
        self._display.display(f"\n{play.get_name().strip() or 'Play'}", color=C.COLOR_HIGHLIGHT)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._began[task._uuid] = time.monotonic()
        self._step = Step(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._began[task._uuid] = time.monotonic()
        self._step = Step(task)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        if self._step:
            self._step.waiting.add(host.get_name())

    def v2_playbook_on_include(self, included_file: Any) -> None:
        pass

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._back(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._handle_warnings(result._result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        pass

    def v2_runner_on_ok(self, result: Any) -> None:
        self._back(result)
        action = result._task.action.rpartition(".")[2]
        self._has_run = self._has_run or action not in SILENT
        if action in SILENT or self._is_bookkeeping(result, action):
            return
        if action == "debug":
            self._tell(result._result.get("msg"), C.COLOR_OK)
            return
        changed = bool(result._result.get("changed"))
        state = ("would" if result._task.check_mode else "done") if changed else "ok"
        fallen = fallen_in_batch(result)
        color = C.COLOR_ERROR if fallen else C.COLOR_CHANGED if changed else C.COLOR_OK
        self._line(result, fallen or state, color)
        if self._display.verbosity:
            self._display.display(self._dump_results(result._result))

    @staticmethod
    def _is_bookkeeping(result: Any, action: str) -> bool:
        """Did the ledger take an entry in as it should? The step itself has told what the entry says."""
        recorded = action == "case_ledger" and result._task.args.get("operation") in ("open", "append")
        parts = result._result.get("results") or [result._result]
        return recorded and not any(part.get("warnings") or part.get("spooled") for part in parts)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._back(result)
        if not ignore_errors:
            self._note_fallen(result)
        if "results" not in result._result:  # else each item has told already
            self._line(result, "FAILED", C.COLOR_ERROR)
        if self._display.verbosity:
            self._handle_exception(result._result)
            self._display.display(self._dump_results(result._result), color=C.COLOR_ERROR)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._back(result)
        self._note_fallen(result)
        if "results" not in result._result:
            self._line(result, "UNREACHABLE", C.COLOR_UNREACHABLE)

    def _note_fallen(self, result: Any) -> None:
        if is_for_all(result._task):
            self._all_fell = True
        else:
            self._fell.add(result._host.get_name())

    def v2_runner_item_on_failed(self, result: Any) -> None:
        unreachable = result._result.get("unreachable")
        item = self._get_item_label(result._result)
        state, color = ("UNREACHABLE", C.COLOR_UNREACHABLE) if unreachable else ("FAILED", C.COLOR_ERROR)
        self._line(result, state, color, item if isinstance(item, str) else "")

    def _who(self, result: Any) -> str:
        """Whom a step was about, and where it ran: ``desk1``, ``desk1 -> kvm1``, ``10 hosts -> app1``."""
        host = printable(result._host.get_name(), 24)
        about = f"{len(self._hosts)} hosts" if is_for_all(result._task) and len(self._hosts) > 1 else host
        told = result._result.get("_ansible_delegated_vars") or {}
        place = printable(str(told.get("ansible_delegated_host") or result._task.delegate_to or ""), 24)
        return about if place in (*HERE, host) or "{{" in place else f"{about} -> {place}"

    def _line(self, result: Any, state: str, color: str, item: str = "") -> None:
        """12:34:56  desk1     Dump the memory ......................... done   2.1 s"""
        seconds = time.monotonic() - self._began.get(result._task._uuid, time.monotonic())
        who = self._who(result)
        more = f" ({printable(item, 40)})" if item and not who.endswith(f"> {item}") else ""
        name = printable(result._task.get_name().rpartition(" : ")[2], WIDTH) + more
        dots = "." * max(WIDTH + 9 - len(name) - max(len(who), 9), 2)
        at = time.strftime("%H:%M:%S")
        self._display.display(f"{at}  {who:<9} {name} {dots} {state}  {seconds:.1f} s", color=color)
        message = result._result.get("msg")
        self._handle_warnings(result._result)
        words = result._result.get("stderr") or result._result.get("cmd")  # a command's own words, or its name
        if state == "FAILED" and words:
            text = words if isinstance(words, str) else " ".join(map(str, words))
            message = f"{str(message).rstrip('.')}: {text.strip()}"
        ours = result._task.action.startswith("vmward.") or state not in ("ok", "done", "would")
        if ours and "results" not in result._result:
            self._tell(message, color)

    def _tell(self, message: object, color: str) -> None:
        if isinstance(message, str) and message:
            self._display.display(f"{'':>20}{printable(WRAPPED.sub('', message), 2000)}", color=color)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._over.set()
        failed = [host for host in sorted(stats.processed) if stats.failures.get(host) or stats.dark.get(host)]
        if failed:  # a step for all of them is counted for the first, whom it may be the least about
            own = all(host in self._fell for host in failed) and not self._all_fell
            names = ", ".join(printable(host, 60) for host in failed)
            told = f" for: {names}" if own else ": see what FAILED or is MISSING above"
            self._display.display(f"\nNot everything was done{told}", color=C.COLOR_ERROR)
        elif not self._has_run:
            told = "Look at the hosts that are named, at --limit, --tags and --start-at-task."
            self._display.display(f"\nNothing was done: no step ran. {told}", color=C.COLOR_ERROR)


def fallen_in_batch(result: Any) -> str:
    """How many VMs failed in a batch that only reports it; empty for none."""
    if not result._task.args.get("report_only"):
        return ""
    vms = result._result.get("vms") or []
    fallen = sum(bool(one.get("failed")) for one in vms)
    if not vms:
        return "FAILED" if result._result.get("msg") else ""
    return f"{fallen} of {len(vms)} FAILED" if fallen else ""


def is_for_all(task: Any) -> bool:
    """Does it run once for all hosts of the play, by itself or as a part of what does?"""
    while task is not None:
        if task.run_once:
            return True
        task = getattr(task, "_parent", None)
    return False
