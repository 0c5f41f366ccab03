# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated hypervisor's memory: one JSON file shared by processes, and the faults that it is told to have."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import _errors
from .._errors import TaskFailed, VmwardError

Data = dict[str, Any]


class State:
    """Read whole, changed under a lock, replaced at once: a reader never sees half a change."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> Data:
        try:
            with open(self.path, encoding="utf-8") as stream:
                data: Data = json.load(stream)
        except (OSError, ValueError) as exc:
            raise TaskFailed(
                "Cannot read the simulated hypervisor's state: %s. Create it first, see docs/adding-a-hypervisor.md."
                % exc
            ) from exc
        return data

    @contextmanager
    def change(self) -> Iterator[Data]:
        """What the block leaves in the data is kept; a block that raises changes nothing."""
        with open(self.path + ".lock", "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            data = self.read()
            yield data
            self.write(data)

    def write(self, data: Data) -> None:
        fresh = "%s.%d" % (self.path, os.getpid())
        with open(fresh, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(data, sort_keys=True))
        os.replace(fresh, self.path)

    def strike(self, verb: str, vm: str = "") -> float:
        """Have the fault that is planned for this verb, if one is; answers the seconds that the verb shall take.

        A fault is ``{verb, vm, times, error, message, seconds}``: ``verb`` is a method of the contract, ``error`` a
        class of ``_errors.py``; without ``vm`` it hits any VM; without ``error`` it only delays.
        """
        if not self.read().get("faults"):
            return 0.0
        with self.change() as data:
            hit = next((fault for fault in data["faults"] if hits(fault, verb, vm)), None)
            if hit is not None:
                hit["times"] = hit.get("times", 1) - 1
        if hit is None:
            return 0.0
        if "error" in hit:
            raise error(hit["error"], hit.get("message", "%s of %s fails as it was told to." % (verb, vm)))
        return float(hit.get("seconds", 0))


def hits(fault: Data, verb: str, vm: str) -> bool:
    return bool(fault["verb"] == verb and fault.get("vm", vm) == vm and fault.get("times", 1) > 0)


def error(name: str, sentence: str) -> VmwardError:
    kind = getattr(_errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, VmwardError)):
        raise TaskFailed("Cannot have the fault '%s': there is no such error in _errors.py." % name)
    return kind(sentence)
