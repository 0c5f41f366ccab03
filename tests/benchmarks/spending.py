# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On what a scan spends its processor time: clocks around its functions, while it is measured and never else."""

from __future__ import annotations

import functools
import mmap
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import OfFile, Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.clamd import Clamd
from ansible_collections.vmward.remediation.plugins.module_utils._scan.delta import ExtDelta
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Content, Yara
from ansible_collections.vmward.remediation.plugins.module_utils._scan.qcow2 import Qcow2
from ansible_collections.vmward.remediation.plugins.module_utils._scan.scanner import Scanner

WATCHED: dict[str, list[tuple[type, str]]] = {
    "comparing": [(Scanner, "_changed"), (ExtDelta, "_candidates"), (ExtDelta, "_is_same")],
    "reading": [(Raw, "read"), (Qcow2, "read"), (OfFile, "read")],
    "hashing": [(Content, "_hash")],
    "engines": [(Yara, "scan"), (Clamd, "scan")],
}


class Clocks:
    """Seconds of each kind without those of others inside; kept where children that are forked write to as well."""

    def __init__(self) -> None:
        self._kinds = list(WATCHED)
        self._seconds = mmap.mmap(-1, 8 * len(self._kinds))
        self._running = threading.local()
        self._lock = threading.Lock()

    def table(self) -> dict[str, float]:
        return dict(zip(self._kinds, struct.unpack(f"{len(self._kinds)}d", self._seconds[:]), strict=True))

    def around(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        at = 8 * self._kinds.index(kind)

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            outer, self._running.inner = getattr(self._running, "inner", 0.0), 0.0
            began = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                whole = time.thread_time() - began
                with self._lock:
                    (before,) = struct.unpack_from("d", self._seconds, at)
                    struct.pack_into("d", self._seconds, at, before + whole - self._running.inner)
                self._running.inner = outer + whole

        return timed


@contextmanager
def watched() -> Iterator[Clocks]:
    """One disk at a time: children that run at once would write over each other's seconds."""
    clocks = Clocks()
    with ExitStack() as stack:
        for kind, functions in WATCHED.items():
            for owner, name in functions:
                stack.enter_context(patch.object(owner, name, clocks.around(kind, getattr(owner, name))))
        yield clocks
