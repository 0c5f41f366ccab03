# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take artefacts of one VM: written once by the hypervisor, then read exactly once for hash and copy together."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Callable, Union

from .._errors import NotVerified, Refused, TaskFailed, TimedOut, VmwardError
from .._hypervisor import Hypervisor, Pending
from .._model import PowerState, Vm, printable
from . import space
from .content import HEAD
from .progress import DONE, Progress
from .remote import Destination, RemoteStore
from .scratch import Scratch
from .store import PAYLOAD, Store, StoreError

CHUNK = 1 << 20
HOLE = bytes(CHUNK)
BEAT = 5.0  # seconds between signs of life to the evidence host
AnyStore = Union[Store, RemoteStore]


@dataclass(frozen=True)
class Item:
    """One artefact to take."""

    name: str  # of the file: memory.elf
    phase: str  # in the progress: memory
    kind: str  # of the rate: memory or disk
    estimate: int
    method: str
    submit: Callable[[str], Pending]  # from the scratch file's path
    flaw: Callable[[bytes, int], str]  # from its first bytes and its size: why it is not whole
    freeze: Callable[[], float | None] | None = None


@dataclass(frozen=True)
class Terms:
    """What the user asked for, beside the VM."""

    destination: Destination
    scratch: Scratch
    progress: Progress
    end: float  # on the monotonic clock
    factor: float
    verify: bool
    details: dict[str, Any]  # for every sidecar: case, VM, tools

    def left(self) -> float:
        return max(self.end - time.monotonic(), 0.0)


def open_store(destination: Destination, name: str) -> AnyStore:
    if destination.host:
        return RemoteStore(destination, name)
    return Store(destination.path, destination.folder, name)


class Taking:
    """One VM's artefacts, from the first look to the last sidecar."""

    def __init__(self, hypervisor: Hypervisor, vm: Vm, terms: Terms) -> None:
        self.hypervisor, self.vm, self.terms = hypervisor, vm, terms
        self.stores: dict[str, AnyStore] = {}
        self.beaten = time.monotonic()

    def predict(self, items: Sequence[Item]) -> dict[str, Any]:
        """Check mode: what is there, what would be taken, and whether it fits."""
        with self._opened(items) as looks:
            return self._report(items, looks, [item for item in items if not looks[item.name]["whole"]])

    def take(self, items: Sequence[Item]) -> dict[str, Any]:
        """Take what is not there yet."""
        self.terms.scratch.prepare()
        with self.terms.scratch.alone_on(self.vm.ref.id, self.terms.left()), self._opened(items) as looks:
            for item in items:
                looks[item.name] = self._own(self.stores[item.name].open(self.terms.left()))
            missing = [item for item in items if not looks[item.name]["whole"]]
            report = self._report(items, looks, missing)
            for item in missing:
                looks[item.name]["whole"] = self._one(item)
            self._verify([item for item in items if item not in missing], looks)
            report["artefacts"] = [one for item in items for one in self._artefacts(item, looks[item.name]["whole"])]
            self.terms.progress(DONE)
            return report

    @contextlib.contextmanager
    def _opened(self, items: Sequence[Item]) -> Any:
        with contextlib.ExitStack() as opened:
            for item in items:
                store = self.stores[item.name] = open_store(self.terms.destination, item.name)
                opened.callback(store.close)
            yield {item.name: self._own(self.stores[item.name].look()) for item in items}

    def _own(self, look: dict[str, Any]) -> dict[str, Any]:
        if look["whole"]:
            require_own(look["whole"], self.vm, self.terms.destination)
        return look

    def _report(self, items: Sequence[Item], looks: dict[str, Any], missing: Sequence[Item]) -> dict[str, Any]:
        sizes = [item.estimate for item in missing]
        needs = []
        if missing:
            needs = [
                space.Need(f"the scratch directory {self.terms.scratch.path}", max(sizes), self.terms.scratch.free())
            ]
            look = looks[missing[0].name]
            where = f"{self.terms.destination.host}:" if self.terms.destination.host else ""
            same = not where and look["filesystem"] == device_of(self.terms.scratch.path)
            needed = sum(sizes) + (max(sizes) if same else 0)  # on one filesystem both must fit at once
            needs.append(space.Need(f"the case store {where}{self.terms.destination.path}", needed, look["free"]))
            space.require(f"take evidence of {self.vm.ref.name}", needs, self.terms.factor)
        seconds = sum(item.estimate / space.RATES[item.kind] + item.estimate / space.RATES["copy"] for item in missing)
        return {
            "changed": bool(missing),
            "estimate": {"bytes": sum(sizes), "seconds": round(seconds, 1)},
            "artefacts": [one for item in items for one in self._kept(item, looks)],
            "taken": [item.name for item in missing],
        }

    def _kept(self, item: Item, looks: dict[str, Any]) -> list[dict[str, Any]]:
        whole = looks[item.name]["whole"]
        return self._artefacts(item, whole) if whole else []

    def _one(self, item: Item) -> dict[str, Any]:
        """Dump or export into the scratch, look whether it is whole, send it, and remove it."""
        path = self.terms.scratch.file(self.vm.ref.id, item.name)
        store = self.stores[item.name]
        taken_at, started = datetime.now(timezone.utc), time.monotonic()
        try:
            self._produce(item, path)
            produced = time.monotonic()
            store.begin()
            self._send(item, path, store)
            details = {
                **self.terms.details,
                **frozen(item, self.vm, produced - started),
                "artefact": item.name,
                "method": item.method,
                "taken_at": taken_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "seconds": round(time.monotonic() - started, 3),
            }
            return store.finish(details)
        except (VmwardError, StoreError, OSError) as exc:
            raise self._told(item, exc) from exc
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _produce(self, item: Item, path: str) -> None:
        pending = item.submit(path)

        def poll() -> bool:
            self._beat()
            done, total = self.hypervisor.progress(self.vm)
            self.terms.progress(item.phase, done, total or item.estimate)
            return pending.poll()

        try:
            error = self.hypervisor.wait([replace(pending, poll=poll)], self.terms.left())[self.vm.ref.id]
            if error is not None:
                # The store's own words where it is the store that failed, not the VM
                raise error.__cause__ if isinstance(error.__cause__, StoreError) else error
        except BaseException as exc:  # also when the evidence host is gone, or something that nobody foresaw
            try:
                if pending.abort:
                    pending.abort()
            except VmwardError as late:
                raise TaskFailed(f"{exc} {late}") from late
            raise
        with open(path, "rb") as file:
            flaw = item.flaw(file.read(HEAD), os.stat(path).st_size)
        if flaw:
            raise NotVerified(f"the {item.phase} that the hypervisor wrote is not whole: {flaw}.")

    def _send(self, item: Item, path: str, store: AnyStore) -> None:
        """The one reading of the file."""
        size, sent = os.stat(path).st_size, 0
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while data := file.read(CHUNK):
                if data == HOLE:
                    store.hole(CHUNK)
                else:
                    store.write(data)
                sent += len(data)
                self._beat()
                self.terms.progress(f"copy of {item.phase}", sent, size)
                if time.monotonic() > self.terms.end:
                    raise TimedOut("the deadline passed while it was copied.")
        if sent != size:
            raise NotVerified(f"{path} changed while it was read: {sent} bytes, not {size}.")

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self.beaten > BEAT:
            self.beaten = now
            for store in self.stores.values():
                store.beat()

    def _told(self, item: Item, exc: Exception) -> VmwardError:
        """The failure as a sentence that ends with the state of the VM."""
        now = self.hypervisor.read([self.vm.ref.id]).get(self.vm.ref.id)
        state = now.power.value if isinstance(now, Vm) else "not readable now"
        full = isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Free space, then run again." if full else "Run again to take it anew."
        sentence = (
            f"Cannot keep the {item.phase} of {self.vm.ref.name}: {str(exc).rstrip('.')}. What was written of it was "
            f"removed. The VM is {state}. {remedy}"
        )
        if isinstance(exc, TimedOut):
            return TimedOut(sentence, exc.task)
        return NotVerified(sentence) if isinstance(exc, NotVerified) else TaskFailed(sentence)

    def _verify(self, items: Sequence[Item], looks: dict[str, Any]) -> None:
        for item in items if self.terms.verify else ():
            self.terms.progress(f"verify {item.phase}")
            found, stored = self.stores[item.name].rehash(), looks[item.name]["whole"]["sha256"]
            if found != stored:
                raise NotVerified(
                    f"The artefact {item.name} of {self.vm.ref.name} was altered: its hash is {found}, stored was "
                    f"{stored}. Nothing was overwritten. Treat the store as tampered with."
                )

    def _artefacts(self, item: Item, sidecar: dict[str, Any]) -> list[dict[str, Any]]:
        """The artefact and its sidecar, as the ledger takes them: paths below the case's directory."""
        destination = self.terms.destination
        path = os.path.join(PAYLOAD, destination.folder, item.name)
        shown = {
            key: sidecar.get(key) for key in ("taken_at", "method", "seconds", "freeze_seconds", "freeze_measured_by")
        }
        told = {key: value for key, value in shown.items() if value is not None}
        told.update(
            location=f"{destination.host or sidecar.get('data_host', '')}:{destination.path}/{path}",
            tools=sidecar.get("tools", {}),
        )
        artefact = {"path": path, "size": sidecar["size"], "sha256": sidecar["sha256"], **told}
        beside = {"path": path + ".json", "method": "sidecar", **self.stores[item.name].sidecar_artefact()}
        return [artefact, beside]


def require_own(sidecar: dict[str, Any], vm: Vm, destination: Destination) -> None:
    """What lies there is this VM's only if it says so: other hypervisors give the same ids."""
    told = sidecar.get("vm")
    whose = (told.get("hypervisor"), told.get("id")) if isinstance(told, dict) else (None, None)
    if whose != (vm.ref.hypervisor, vm.ref.id):
        raise Refused(
            f"{printable(str(sidecar.get('artefact', 'What lies there')))} in {destination.path}/{PAYLOAD}/"
            f"{destination.folder} is not of {vm.ref.name} ({vm.ref.id} on {vm.ref.hypervisor}), as its sidecar tells. "
            "Nothing was overwritten. Name another folder (dest.folder)."
        )


def frozen(item: Item, vm: Vm, seconds: float) -> dict[str, Any]:
    """How long the guest stood still for this artefact, and who measured it."""
    if item.freeze is None:
        return {"freeze_seconds": 0.0, "freeze_measured_by": "the export does not stop the guest"}
    if vm.power is not PowerState.RUNNING:
        return {"freeze_seconds": 0.0, "freeze_measured_by": f"the guest was {vm.power.value} already"}
    measured = item.freeze()
    if measured is not None:
        return {"freeze_seconds": round(measured, 3), "freeze_measured_by": "the hypervisor's stop and resume events"}
    return {"freeze_seconds": round(seconds, 3), "freeze_measured_by": "duration of the dump, an upper bound"}


def device_of(path: str) -> int:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return os.stat(path).st_dev
