# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame of the modules that take evidence of one VM: parse, connect on the data host, find the VM, report."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from typing import Any, Callable

from .._argspec import Spec, hypervisors_spec, wait_spec
from .._connect import chosen_names, connect
from .._errors import Refused, TaskFailed, VmwardError, attempt
from .._hypervisor import Detail, Hypervisor
from .._model import Vm
from .._module import Module
from .._usecase.resolve import resolve
from .progress import Progress
from .remote import Destination
from .scratch import Scratch
from .store import NAME, StoreError
from .take import Taking, Terms

Params = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What a verb works with."""

    hypervisor: Hypervisor
    vm: Vm
    params: Params
    terms: Terms
    check: bool

    def taking(self) -> Taking:
        return Taking(self.hypervisor, self.vm, self.terms)


Verb = Callable[[Task], dict[str, Any]]


def data_spec(deadline: int) -> Spec:
    """What every verb on one VM's data takes."""
    return {
        **hypervisors_spec(),
        **wait_spec(deadline),
        "vm": {"type": "str", "required": True},
        "only": {"type": "list", "elements": "str", "default": []},
        "case": {"type": "str", "required": True},
        "dest": {
            "type": "dict",
            "required": True,
            "options": {
                "path": {"type": "path", "required": True},
                "folder": {"type": "str"},
                "host": {"type": "str", "default": ""},
                "port": {"type": "int", "default": 22},
                "identity_file": {"type": "path"},
                "known_hosts": {"type": "path"},
            },
        },
        "verify": {"type": "bool", "default": False},
    }


def long_spec(deadline: int) -> Spec:
    """What the long verbs take."""
    return {
        **data_spec(deadline),
        "scratch": {"type": "path", "default": "/var/lib/vmward/scratch"},
        "progress_file": {"type": "path", "default": ""},
        "free_space_factor": {"type": "float", "default": 1.1},
    }


def run(spec: Spec, verb: Verb) -> None:
    """A module, whole."""
    module = Module(spec)
    started = time.monotonic()
    try:
        result = attempt("run this task", whole, module, verb, started)
    except VmwardError as exc:
        module.fail_json(msg=str(exc), changed=False, seconds=round(time.monotonic() - started, 3))
    for warning in result.pop("warnings", []):
        module.warn(warning)
    module.exit_json(seconds=round(time.monotonic() - started, 3), **result)


def whole(module: Module, verb: Verb, started: float) -> dict[str, Any]:
    params = module.params
    try:
        name = the_one(params)
        hypervisor = connect(name, params["hypervisors"][name], on_data_host=True)
        try:
            vm = the_vm(hypervisor, params["vm"])
            terms = terms_of(params, hypervisor, vm, module.ansible_version, started)
            try:
                result = verb(Task(hypervisor, vm, params, terms, module.check_mode))
            except BaseException:
                for remark in hypervisor.remarks(vm.ref.id):
                    module.warn(remark)
                raise
            after, changes = as_it_is(hypervisor, vm)
            warnings = [*result.get("warnings", []), *changes, *hypervisor.remarks(vm.ref.id)]
            return {**result, "vm": after, "warnings": warnings}
        finally:
            hypervisor.close()
    except (StoreError, OSError) as exc:
        raise TaskFailed(f"Cannot take evidence of {params['vm']}: {exc}") from exc


def the_one(params: Params) -> str:
    """The hypervisor that holds the VM."""
    names = chosen_names(params["hypervisors"], params["only"])
    if len(names) != 1:
        raise Refused(
            f"Cannot tell which hypervisor holds {params['vm']} on this data host: {', '.join(names)} are "
            "configured. Nothing was touched. Name its own with only: [...]."
        )
    return names[0]


def the_vm(hypervisor: Hypervisor, selector: str) -> Vm:
    ref = resolve([hypervisor], hypervisor.refs(), [selector])[selector]
    if isinstance(ref, VmwardError):
        raise ref
    vm = hypervisor.read([ref.id], frozenset([Detail.DISKS]))[ref.id]
    if isinstance(vm, VmwardError):
        raise vm
    return vm


def terms_of(params: Params, hypervisor: Hypervisor, vm: Vm, ansible_version: str, started: float) -> Terms:
    dest = params["dest"]
    folder = dest["folder"] or vm.ref.id
    for what, value in (("case", params["case"]), ("dest.folder", folder)):
        if not NAME.fullmatch(value):
            raise Refused(f"Cannot use {value[:120]!r} as {what}: letters, digits, dot, dash and underscore only.")
    destination = Destination(
        dest["path"], folder, dest["host"], dest["port"], dest["identity_file"] or "", dest["known_hosts"] or ""
    )
    details = {
        "case": params["case"],
        "vm": {"id": vm.ref.id, "name": vm.ref.name, "hypervisor": vm.ref.hypervisor, "power": vm.power.value},
        "tools": {**hypervisor.tools(), "ansible-core": ansible_version, "python": platform.python_version()},
        "data_host": platform.node(),
        "claimed_by_guest": False,
    }
    return Terms(
        destination,
        Scratch(params.get("scratch", "")),
        Progress(params.get("progress_file") or ""),
        started + params["deadline"],
        params.get("free_space_factor", 1.0),
        params["verify"],
        details,
    )


def as_it_is(hypervisor: Hypervisor, vm: Vm) -> tuple[dict[str, str], list[str]]:
    """The VM afterwards, and a warning where it no longer is as it was."""
    after = hypervisor.read([vm.ref.id])[vm.ref.id]
    power = after.power.value if isinstance(after, Vm) else "unknown"
    changes = []
    if power != vm.power.value:
        changes.append(f"{vm.ref.name} was {vm.power.value} before and is {power} now. Look at it with vm_info.")
    return {"id": vm.ref.id, "name": vm.ref.name, "hypervisor": vm.ref.hypervisor, "power": power}, changes
