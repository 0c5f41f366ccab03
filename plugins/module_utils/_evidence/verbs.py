# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs: memory, disks, and what the guest says of itself."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, Callable

from .._errors import NotFound, NotVerified, TaskFailed, TimedOut, Unsupported
from .._hypervisor import Capability, Hypervisor, Pending
from .._model import ON, Disk, PowerState, Vm, printable
from . import space
from .content import flaw_of_core, flaw_of_qcow2, flaw_of_state
from .progress import human
from .store import PAYLOAD
from .take import Item, open_store, require_own
from .task import Task

CLAIMS = "guest-claims.json"
MEMORY = {
    "elf": ("memory.elf", "memory dump by the hypervisor (ELF core)", flaw_of_core),
    "qemu-state": ("memory.qemu-state", "snapshot with memory by the hypervisor (state saved by QEMU)", flaw_of_state),
}

# What may be asked inside a guest: read-only programs, constant arguments.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "processes": ("ps", "-ww", "-e", "-o", "pid,ppid,user,lstart,stat,args"),
    "sockets": ("ss", "-t", "-u", "-n", "-a", "-p"),
    "users": ("who", "-a"),
    "routes": ("ip", "route", "show", "table", "all"),
    "mounts": ("cat", "/proc/self/mounts"),
}


def dump_memory(task: Task) -> dict[str, Any]:
    """The whole of the guest's memory: what it has now, or what its hypervisor keeps of an earlier moment."""
    vm, hypervisor = task.vm, task.hypervisor
    require(hypervisor, vm, Capability.MEMORY_DUMP)
    name, method, _flaw = MEMORY[hypervisor.memory_format()]
    now = memory_item(hypervisor, vm, name, method, lambda path: hypervisor.submit_memory_dump(vm, path))
    if vm.power in ON:
        return settled(task, [now], "memory")
    lying = hypervisor.kept_memory(vm)
    items = [kept_item(hypervisor, vm, kept) for kept in lying] + ([now] if stored_already(task, name) else [])
    if items:
        return settled_or_lying(task, items, lying)
    if vm.power is PowerState.SUSPENDED:
        raise TaskFailed(
            f"Cannot dump the memory of {vm.ref.name}: it is saved on disk by its hypervisor. Nothing was taken. "
            "Isolate it and bring it to paused (vm_power), which loads that memory; or keep that file as evidence by "
            "hand, and waive the class memory by name (vmward_waive)."
        )
    reason = f"the VM is {vm.power.value}: it has no memory to dump"
    return {**nothing("memory", reason), "msg": f"No memory of {vm.ref.name} was taken: {reason}."}


def memory_item(hypervisor: Hypervisor, vm: Vm, name: str, method: str, submit: Callable[[str], Pending]) -> Item:
    flaw = MEMORY[hypervisor.memory_format()][2]
    return Item(name, "memory", "memory", space.of_memory(vm), method, submit, flaw, hypervisor.freeze)


def kept_item(hypervisor: Hypervisor, vm: Vm, kept: str) -> Item:
    """A memory of an earlier moment, under a name of its own: it is not the one that a dump would give."""
    name, method, _flaw = MEMORY[hypervisor.memory_format()]
    where = re.sub("[^A-Za-z0-9]+", "-", kept[-40:]).strip("-")
    return memory_item(
        hypervisor,
        vm,
        name.replace(".", f"-{where}."),
        f"{method}, copied from where it lay: {printable(kept)}",
        lambda path: hypervisor.submit_kept_memory(vm, kept, path),
    )


def settled_or_lying(task: Task, items: list[Item], lying: Sequence[str]) -> dict[str, Any]:
    """What cannot be copied is no reason to say that there is none."""
    try:
        result = settled(task, items, "memory")
    except (TaskFailed, TimedOut, NotVerified, NotFound, Unsupported) as exc:
        where = ", ".join(f"'{printable(kept)}'" for kept in lying)
        raise TaskFailed(
            f"{exc} Memory of {task.vm.ref.name} lies in {where or 'its file in the case'}. What cannot be copied, "
            "keep as evidence by hand; then waive the class memory by name (vmward_waive)."
        ) from exc
    left = [f"its memory lies in {printable(kept)} too, where it stays" for kept in lying]
    return {**result, "warnings": left}


def export_disks(task: Task) -> dict[str, Any]:
    """Disks as stand-alone images."""
    vm, hypervisor = task.vm, task.hypervisor
    require(hypervisor, vm, Capability.DISK_EXPORT_LIVE if vm.power in ON else Capability.DISK_EXPORT_STOPPED)
    disks = chosen(vm, task.params["disks"])
    method = hypervisor.export_method(vm)
    every = all(disk.read_only or disk in disks for disk in vm.disks)
    result = settled(task, [disk_item(hypervisor, vm, disk, method) for disk in disks], "disks" if every else "")
    if vm.power is PowerState.RUNNING and len(result["taken"]) > 1:
        result["warnings"] = [
            f"{vm.ref.name} ran on: each disk is of its own moment. Pause it first for one moment of all."
        ]
    return result


def disk_item(hypervisor: Hypervisor, vm: Vm, disk: Disk, method: str) -> Item:
    return Item(
        f"disk-{disk.id}.qcow2",
        f"disk {disk.id}",
        "disk",
        space.of_disk(disk),
        f"{method} (qcow2)",
        lambda path: hypervisor.submit_disk_export(vm, disk.id, path),
        lambda head, _size: flaw_of_qcow2(head, disk.size),
    )


def chosen(vm: Vm, names: list[str]) -> list[Disk]:
    """The disks named, or every disk that the guest can write."""
    known = {disk.id: disk for disk in vm.disks}
    missing = [name for name in names if name not in known]
    disks = [known[name] for name in names if name in known] or [d for d in vm.disks if not d.read_only]
    if missing or not disks:
        there = ", ".join(known) or "none"
        raise NotFound(f"Cannot export disk {', '.join(missing) or '(any)'} of {vm.ref.name}: it has {there}.")
    return disks


def settled(task: Task, items: list[Item], kind: str) -> dict[str, Any]:
    """Take, or predict; then what the order-of-volatility gate may be told of the class ``kind``, and a sentence."""
    taking = task.taking()
    result = taking.predict(items) if task.check else taking.take(items)
    stored = bool(kind) and not (result["changed"] and task.check)
    size = human(sum(one["size"] for one in result["artefacts"]))
    names = ", ".join(item.name for item in items)
    if not result["changed"]:
        msg = f"{names} of {task.vm.ref.name} was stored already and is whole ({size})."
    elif task.check:
        expected = result["estimate"]
        msg = (
            f"Would take {names} of {task.vm.ref.name}: about {human(expected['bytes'])}, {expected['seconds']:.0f} s."
        )
    else:
        msg = f"{names} of {task.vm.ref.name} is stored ({size})."
    return {**result, "available": True, "evidence": {kind: {"state": "stored"}} if stored else {}, "msg": msg}


def nothing(kind: str, reason: str) -> dict[str, Any]:
    """An outcome, not a failure: there is nothing to be had, and why."""
    return {
        "changed": False,
        "available": False,
        "artefacts": [],
        "taken": [],
        "evidence": {kind: {"state": "unavailable", "reason": reason}},
    }


def stored_already(task: Task, name: str) -> bool:
    with contextlib.closing(open_store(task.terms.destination, name)) as store:
        whole = store.look()["whole"]
        if whole:
            require_own(whole, task.vm, task.terms.destination)
        return bool(whole)


def require(hypervisor: Hypervisor, vm: Vm, needed: Capability) -> None:
    if needed not in hypervisor.capabilities():
        why = hypervisor.why_not(needed)
        told = f": {why}" if why else "."
        raise Unsupported(f"Cannot do this for {vm.ref.name}: {hypervisor.name} has no {needed.value}{told}")


def ask_guest(task: Task) -> dict[str, Any]:
    """The guest's own words, kept as such."""
    vm = task.vm
    require(task.hypervisor, vm, Capability.GUEST_RUN)
    with contextlib.closing(open_store(task.terms.destination, CLAIMS)) as store:
        sidecar = store.look()["whole"]
        changed = sidecar is None
        if sidecar is not None:
            require_own(sidecar, vm, task.terms.destination)
        claims: dict[str, Any] = {}
        if changed:
            if vm.power is not PowerState.RUNNING:
                return silent(vm, f"the VM is {vm.power.value}: nobody answers in it")
            if task.check:
                msg = f"Would ask the guest agent of {vm.ref.name} for {', '.join(task.params['collect'])}."
                return {**nothing("connections", ""), "changed": True, "evidence": {}, "available": True, "msg": msg}
            taken_at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            claims, reason = collect(task)
            if reason:
                return silent(vm, reason)
            told = {"claimed_by_guest": True, "vm": vm.ref.id, "taken_at": taken_at, "programs": claims}
            store.open(task.terms.left())
            store.begin()
            store.write((json.dumps(told, indent=2, sort_keys=True) + "\n").encode())
            sidecar = store.finish({
                **task.terms.details, "claimed_by_guest": True, "artefact": CLAIMS, "taken_at": taken_at,
                "method": "programs run through the guest agent",
            })  # fmt: skip
        elif task.terms.verify and store.rehash() != sidecar["sha256"]:
            raise TaskFailed(f"The artefact {CLAIMS} of {vm.ref.name} was altered. Nothing was overwritten.")
        path = f"{PAYLOAD}/{task.terms.destination.folder}/{CLAIMS}"
        beside = {"path": path + ".json", "method": "sidecar", **store.sidecar_artefact()}
    kept = {key: sidecar[key] for key in ("size", "sha256", "taken_at", "method", "tools")}
    artefact = {"path": path, "claimed_by_guest": True, **kept}
    failed = [name for name, claim in claims.items() if claim["error"]]
    return {
        "changed": changed,
        "available": True,
        "artefacts": [artefact, beside],
        "taken": [CLAIMS] if changed else [],
        "evidence": {"connections": {"state": "stored"}},
        "claims": claims,
        "msg": f"What the guest of {vm.ref.name} says of itself is stored; it may lie."
        + (f" Not answered: {', '.join(failed)}." if failed else ""),
    }


def silent(vm: Vm, reason: str) -> dict[str, Any]:
    return {
        **nothing("connections", reason),
        "claims": {},
        "msg": f"The guest of {vm.ref.name} was not asked: {reason}",
    }


def collect(task: Task) -> tuple[dict[str, Any], str]:
    """Each program's answer or why there is none; and why nothing at all could be had."""
    claims: dict[str, Any] = {}
    for name in task.params["collect"]:
        argv, left = PROGRAMS[name], task.terms.left()
        claim: dict[str, Any] = {"argv": list(argv), "status": None, "stdout": "", "stderr": "", "truncated": False}
        try:
            if left <= 0:
                raise TimedOut("The deadline for all programs together has passed.")
            output = task.hypervisor.guest_run(task.vm, argv, left, task.params["limit"])
            claim.update(status=output.status, truncated=output.truncated, error="")
            claim.update(stdout=text(output.stdout), stderr=text(output.stderr))
        except (Unsupported, TimedOut, TaskFailed) as exc:
            claim["error"] = str(exc)
            if not any_answer(claims) and not isinstance(exc, TaskFailed):
                return {}, str(exc)  # no agent, or one that hangs: the others would fare no better
        claims[name] = claim
    if not any_answer(claims):
        return {}, next(iter(claims.values()))["error"] if claims else "nothing was asked for"
    return claims, ""


def any_answer(claims: dict[str, Any]) -> bool:
    return any(not claim["error"] for claim in claims.values())


def text(data: bytes) -> str:
    """Bytes as text that can be turned back: what is no UTF-8 is shown as an escape."""
    return data.decode("utf-8", "backslashreplace")
