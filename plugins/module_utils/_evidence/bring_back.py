# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame of the module that brings disks back: one VM, on its data host, alone on it, with progress and an end."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from .._argspec import Spec, hypervisors_spec, wait_spec
from .._connect import connect
from .._disk_copy import tidy
from .._errors import TaskFailed, TimedOut, VmwardError, attempt
from .._hypervisor import LAST, Hypervisor
from .._model import Layer, Vm
from .._module import Module
from .._plan import execute
from .._usecase.restore import RestoreDisks, Wanted
from .progress import DONE, Progress
from .scratch import Scratch
from .store import StoreError
from .task import Params, the_one, the_vm

IMAGE: Spec = {
    "disk": {"type": "str", "required": True},
    "image": {"type": "path", "required": True},
    "format": {"type": "str", "required": True, "choices": ["qcow2", "raw", "vmdk"]},
    "sha256": {"type": "str", "default": ""},
}
SPEC: Spec = {
    **hypervisors_spec(),
    **wait_spec(43200),
    "vm": {"type": "str", "required": True},
    "only": {"type": "list", "elements": "str", "default": []},
    "disks": {"type": "list", "elements": "dict", "required": True, "options": IMAGE},
    "partial": {"type": "bool", "default": False},
    "discard": {"type": "bool", "default": False},
    "gate": {"type": "dict", "default": {}},
    "scratch": {"type": "path", "default": "/var/lib/vmward/scratch"},
    "progress_file": {"type": "path", "default": ""},
    "free_space_factor": {"type": "float", "default": 1.1},
}


class Clock:
    """Tells progress, and when the deadline has passed."""

    def __init__(self, vm: str, params: Params, end: float) -> None:
        self.vm, self.end, self.deadline = vm, end, params["deadline"]
        self.progress = Progress(params["progress_file"] or "")

    def left(self) -> float:
        return max(self.end - time.monotonic(), 0.0)

    def tick(self, phase: str, done: int = 0, total: int = 0) -> None:
        self.progress(phase, done, total)
        if not self.left():
            raise TimedOut(
                f"Cannot bring the disks of {self.vm} back: the deadline of {self.deadline} s passed in the {phase}. "
                "What was copied was removed, and the VM is as it was. Run again with a later one (deadline)."
            )


def run() -> None:
    """The module, whole."""
    module = Module(SPEC)
    started = time.monotonic()
    try:
        result = attempt("run this task", whole, module, started)
    except VmwardError as exc:
        module.fail_json(msg=str(exc), changed=False)
    for warning in result.pop("warnings"):
        module.warn(warning)
    result["seconds"] = round(time.monotonic() - started, 3)
    if module._diff and result["changed"]:
        result["diff"] = {"before": result["before"], "after": result["after"]}
    if result.pop("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


def whole(module: Module, started: float) -> dict[str, Any]:
    params = module.params
    name = the_one(params)
    hypervisor = connect(name, params["hypervisors"][name], on_data_host=True)
    try:
        vm = the_vm(hypervisor, params["vm"])
        clock = Clock(vm.ref.name, params, started + params["deadline"])
        if module.check_mode:
            return done(hypervisor, vm, params, clock, check=True)
        scratch = Scratch(params["scratch"])
        scratch.prepare()
        with scratch.alone_on(vm.ref.id, clock.left()):
            tidy(the_vm(hypervisor, vm.ref.id))  # as it is now: another run may have ended just now
            return done(hypervisor, vm, params, clock, check=False)
    except (StoreError, OSError) as exc:
        raise TaskFailed(f"Cannot bring the disks of {params['vm']} back: {exc}") from exc
    finally:
        hypervisor.close()


def done(hypervisor: Hypervisor, vm: Vm, params: Params, clock: Clock, check: bool) -> dict[str, Any]:
    """The outcome, and what was found of each image."""
    wanted = [Wanted(one["disk"], Layer(one["image"], one["format"]), one["sha256"]) for one in params["disks"]]
    verb = RestoreDisks(
        wanted, params["partial"], params["discard"], params["gate"], clock.tick, params["free_space_factor"]
    )
    try:
        (outcome,) = execute(hypervisor, verb, [(vm.ref.id, vm.ref.name)], clock.left() + LAST, check)
    finally:
        verb.give_up()
    clock.progress(DONE)
    told = asdict(outcome)
    if not told["msg"]:
        names = ", ".join(one["disk"] for one in verb.images)
        state = "would get" if check and told["changed"] else "has"
        again = "" if told["changed"] else " already"
        told["msg"] = f"{names} of {vm.ref.name} {state} the content of the backup{again}; it is off."
    forgotten = sorted(set(told["before"].get("snapshots", [])) - set(told["after"].get("snapshots", [])))
    return {**told, "images": verb.images, "forgotten": forgotten if told["changed"] else []}
