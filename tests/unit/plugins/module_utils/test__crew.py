# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls that nobody waits for."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import wait

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._crew import Crew, within
from ansible_collections.vmward.remediation.plugins.module_utils._errors import TaskFailed, TimedOut


def test_what_has_not_begun_when_a_crew_is_dismissed_never_does() -> None:
    crew, gate, begun = Crew(1), threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        gate.wait(30)
        return "done"

    one, other = crew.submit(first), crew.submit(pytest.fail)
    assert begun.wait(30)
    crew.dismiss()
    gate.set()
    assert not wait([one, other], 30).not_done
    assert one.result() == "done"
    assert other.cancelled()


def test_who_submits_starts_the_thread_it_made() -> None:
    """Though another has made one at the same moment."""

    class Shared(list[threading.Thread]):
        def append(self, thread: threading.Thread) -> None:
            super().append(thread)
            other = threading.Thread(target=threading.Event)
            super().append(other)
            other.start()

    crew = Crew(1)
    crew.threads = Shared()
    assert crew.submit(lambda: "done").result(30) == "done"
    crew.dismiss()


def test_an_answer_an_error_and_none() -> None:
    def fail() -> None:
        raise TaskFailed("No.")

    assert within(30, "ask", lambda: "yes") == "yes"
    with pytest.raises(TaskFailed, match="^No.$"):
        within(30, "ask", fail)
    gate = threading.Event()
    with pytest.raises(TimedOut, match="Cannot ask: no answer for 0 s"):
        within(0, "ask", gate.wait)
    gate.set()


def test_a_process_does_not_wait_for_its_calls() -> None:
    script = f"import sys; sys.path[:0] = {sys.path!r}; import time; from {Crew.__module__} import Crew, apart\n"
    script += "Crew(1).submit(lambda: time.sleep(600)); apart(lambda: time.sleep(600)); print('end')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "end\n"
