# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls in threads for which a process that ends does not wait: the standard library's own pools join theirs."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, wait
from typing import Any, Callable

from ._errors import TimedOut

Call = Callable[[], Any]


class Crew:
    """Threads for many calls at once."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.work: queue.SimpleQueue[tuple[Future[Any], Call] | None] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.lock = threading.Lock()  # of the threads, whom more than one may ask for more
        self.dismissed = False

    def submit(self, call: Call) -> Future[Any]:
        future: Future[Any] = Future()
        self.work.put((future, call))
        with self.lock:
            if len(self.threads) < self.at_once:
                thread = threading.Thread(target=self._run, daemon=True)
                thread.start()
                self.threads.append(thread)
        return future

    def dismiss(self) -> None:
        """What has not begun by now never does."""
        with self.lock:
            self.dismissed = True
            for _thread in self.threads:
                self.work.put(None)

    def _run(self) -> None:
        while True:
            item = self.work.get()
            if item is None:
                return
            if self.dismissed:
                item[0].cancel()
                item[0].set_running_or_notify_cancel()  # else who waits for it would not learn of it
            else:
                carry(*item)


def carry(future: Future[Any], call: Call) -> None:
    try:
        future.set_result(call())
    except BaseException as exc:  # noqa: BLE001  carried to who asks for the result
        future.set_exception(exc)


def apart(call: Call) -> Future[Any]:
    """A call in a thread of its own."""
    future: Future[Any] = Future()
    threading.Thread(target=carry, args=(future, call), daemon=True).start()
    return future


def within(seconds: float, what: str, call: Call) -> Any:
    """The call's answer, or ``TimedOut`` when it has not come by then: nobody waits for it any longer."""
    future = apart(call)
    wait([future], max(seconds, 0.0))
    return told(future, seconds, what)


def told(future: Future[Any], seconds: float, what: str) -> Any:
    """The answer that has come, or ``TimedOut``."""
    if not future.done():
        raise TimedOut(f"Cannot {what}: no answer for {seconds:.0f} s. Check that it runs and can be reached.")
    return future.result()
