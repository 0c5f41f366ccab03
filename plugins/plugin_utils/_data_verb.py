# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module on a data host; a long one as an asynchronous job, printing its progress about every five seconds.

Such a job outlives its controller. The name of its progress file follows from the module and its options, so that a
second run of the same task, which waits for the first one's job, prints that job's progress.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Iterator
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.vmward.remediation.plugins.module_utils._evidence.progress import DONE, line
from ansible_collections.vmward.remediation.plugins.module_utils._model import printable

SHOW = 5.0  # seconds between lines
ASK = 10.0  # seconds between looks at a job that lasts
GRACE = 120  # seconds past the module's own deadline, after which the job is ended
LIMIT = 65536  # characters read of a progress file


class DataVerb(ActionBase):
    """Base of the actions that work on one VM's data, on its data host.

    A data host that does not answer fails the VM's task: as unreachable it would take the VM out of the play, past
    every rescue, and nothing of it would be recorded.
    """

    _requires_connection = True
    _supports_async = True
    _task: Task

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.variables = task_vars or {}
        try:
            return {**result, **self.work()}
        except AnsibleConnectionFailure as exc:
            host = self._task.delegate_to or self.variables.get("inventory_hostname", "")
            cause = printable(str(exc), 400)
            msg = f"Cannot reach {host} for {self._task.action.rpartition('.')[2]} of {self._subject()}: {cause}"
            again = "A job that runs there goes on. Run again when it answers: what is done is found and taken up."
            return {**result, "failed": True, "msg": f"{msg} {again}"}

    def work(self) -> dict[str, Any]:
        """Run the module."""
        wrap = bool(self._task.async_val and not self._task.check_mode)
        return dict(self._execute_module(task_vars=self.variables, wrap_async=wrap))

    def _subject(self) -> str:
        """What the work is on: the VM, else the host that the play is about."""
        return str(self._task.args.get("vm") or self.variables.get("inventory_hostname", ""))


class LongVerb(DataVerb):
    """Base of the actions of long verbs."""

    tells_progress = True  # the steps callback then does not say on its own that the step still runs
    default_deadline = 14400
    long_to_predict = False  # whether check mode takes its time, too, and is followed as well

    def work(self) -> dict[str, Any]:
        """Run the module as a job, and follow it."""
        if self._task.async_val or (self._task.check_mode and not self.long_to_predict):
            return super().work()
        self._agree_on_directory()
        arguments = dict(self._task.args)
        arguments["progress_file"] = self.progress_file = arguments.get("progress_file") or self._progress_file()
        before = self._progress_text()
        job = self._start(arguments)
        return self._follow(job, before) if job.get("ansible_job_id") else job

    def _agree_on_directory(self) -> None:
        """One path for the job and for who asks it: with sudo, the two take "~" for different homes."""
        self.directory = self._remote_expand_user(self.get_shell_option("async_dir", default="~/.ansible_async"))
        self._connection._shell.set_option("async_dir", self.directory)

    def _progress_file(self) -> str:
        """Where jobs keep their results; only the job's user may write there."""
        what = json.dumps([self._task.action, self._task.args], sort_keys=True, default=str)
        return f"{self.directory}/vmward-{hashlib.sha256(what.encode()).hexdigest()[:16]}.progress"

    def _start(self, arguments: dict[str, Any]) -> dict[str, Any]:
        own = self._task
        self._task = own.copy()
        self._task.async_val = seconds(arguments.get("deadline"), self.default_deadline) + GRACE
        try:
            return dict(self._execute_module(module_args=arguments, task_vars=self.variables, wrap_async=True))
        finally:
            self._task = own

    def _follow(self, job: dict[str, Any], before: str) -> dict[str, Any]:
        """Until the job has ended: read its progress file, print it, and now and then look at the job itself."""
        pause, shown, asked = 0.2, time.monotonic(), time.monotonic()
        told: dict[str, Any] = {}
        patience = looks()
        until = next(patience)
        while True:
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)
            text, had = self._progress_text(), bool(told)
            told = parsed(text)
            ended, is_gone = told.get("phase") == DONE, had and not told  # gone: another follower saw the end first
            now = time.monotonic()
            if is_gone or (ended and text != before) or now - asked > until:
                asked, until = now, next(patience)
                status = self._status(job, "status")
                if status.get("finished") or status.get("failed"):
                    self._status(job, "cleanup")
                    self._low_level_execute_command(f"rm -f {shlex.quote(self.progress_file)}")
                    return without_job(status)
            if told and not ended and now - shown > SHOW:
                shown = now
                Display().display(line(self._subject(), told))

    def _status(self, job: dict[str, Any], mode: str) -> dict[str, Any]:
        task = self._task.copy()
        task.check_mode = False  # to ask changes nothing
        task.args = {"jid": job["ansible_job_id"], "mode": mode}
        handler = self._shared_loader_obj.action_loader.get(
            "ansible.legacy.async_status",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return dict(handler.run(task_vars=self.variables))

    def _progress_text(self) -> str:
        command = f"head -c {LIMIT} {shlex.quote(self.progress_file)} 2>/dev/null || true"
        return str(self._low_level_execute_command(command).get("stdout", "")).strip()


def looks() -> Iterator[float]:
    """Seconds from one look at the job to the next: one that is refused at once writes no progress."""
    pause = 1.0
    while True:
        yield min(pause, ASK)
        pause *= 2


def seconds(told: Any, default: int) -> int:
    """What is no number the module refuses, and names the option."""
    try:
        return int(told)
    except (TypeError, ValueError):
        return default


def parsed(text: str) -> dict[str, Any]:
    """A progress file's content; empty when it is none."""
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def without_job(status: dict[str, Any]) -> dict[str, Any]:
    """The module's own result, without what the job added."""
    added = (
        "ansible_job_id",
        "finished",
        "started",
        "results_file",
        "stdout",
        "stderr",
        "stdout_lines",
        "stderr_lines",
    )
    return {key: value for key, value in status.items() if key not in added}
