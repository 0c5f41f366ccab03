# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's calls return when the change is made, and not where QEMU stands still. So they are made in threads."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from functools import partial, wraps
from typing import Any, Callable, TypeVar, cast

from .._crew import Crew
from .._errors import VmwardError
from .._hypervisor import LAST, Pending
from .._wait import poll_all

AT_ONCE = 8  # of the 20 for which libvirtd has workers (max_workers)
NAP = 0.05  # seconds

Verb = TypeVar("Verb", bound=Callable[..., Pending])


def beside(what: str) -> Callable[[Verb], Verb]:
    """A verb that is begun in a thread; its pending ends when the verb has returned and its own pending has ended."""

    def decorate(verb: Verb) -> Verb:
        @wraps(verb)
        def submit(self: Beside, vm: Any, *arguments: Any, **more: Any) -> Pending:
            begun: Future[Pending] = self.crew.submit(partial(verb, self, vm, *arguments, **more))
            self.calls.append(begun)
            return Pending(vm.ref, what, lambda: begun.done() and begun.result().poll())

        return cast("Verb", submit)

    return decorate


class Beside:
    """The threads of one libvirt URI."""

    def __init__(self) -> None:
        self.crew = Crew(AT_ONCE)
        self.calls: list[Future[Pending]] = []

    def wait(
        self, pending: Sequence[Pending], deadline: float, together: float = math.inf
    ) -> Mapping[str, VmwardError | None]:
        """When all calls have returned, nobody sleeps on."""

        def nap(seconds: float) -> None:
            under_way = [call for call in self.calls if not call.done()]  # others may add to them meanwhile
            if under_way:
                wait_for(under_way, min(seconds, NAP))
            else:
                time.sleep(seconds)

        return poll_all(pending, deadline, sleep=nap, together=together)

    def end_calls(self) -> None:
        """What has not begun never does. A verb that is under way ends whole if it can, not with this process."""
        self.crew.dismiss()
        wait_for(self.calls, LAST / 2)  # the log-out has the rest
