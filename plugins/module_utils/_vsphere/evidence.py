# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory on vSphere: a snapshot with memory, its file fetched from the datastore, the snapshot removed again.

Sources: U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.FileLayoutEx.html),
U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.FileManager.html) (access over HTTP).
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Callable
from urllib.parse import quote, urlencode

from .._errors import TaskFailed, Unsupported, VmwardError
from .._hypervisor import Detail, GuestOutput, Pending
from .._model import PowerState, Vm
from . import core
from .connection import LOST, Connection, vim, vmodl
from .tasks import Tasks

CHUNK = 1 << 20
DEEPEST = 64  # folders above a VM


class EvidenceVerbs:
    """The Evidence part of the contract."""

    name: str
    link: Connection
    tasks: Tasks
    props: dict[str, dict[str, Any]]
    machine: Callable[[Any], Any]
    read: Callable[..., Any]
    _retrieve: Callable[[Sequence[Any]], list[tuple[Any, dict[str, Any]]]]
    _fetched = (0, 0)

    def submit_memory_dump(self, vm: Vm, path: str) -> Pending:
        """Of a running VM from a snapshot, which is removed again; of a suspended one from the file it left."""
        dump = MemoryDump(self, vm, path)
        return Pending(vm.ref, "dump the memory of", dump, abort=dump.abort)

    def submit_disk_export(self, vm: Vm, disk_id: str, path: str) -> Pending:
        raise Unsupported(
            f"Cannot export disk {disk_id} of {vm.ref.name}: this is not built for vSphere yet. Export it with the "
            "vSphere Client."
        )

    def tools(self) -> dict[str, str]:
        about = self.link.content.about
        return {"vSphere": f"{about.fullName} (API {about.apiVersion})"}

    def progress(self, vm: Vm) -> tuple[int, int]:
        return self._fetched

    def guest_run(self, vm: Vm, argv: Sequence[str], deadline: float, limit: int) -> GuestOutput:
        raise Unsupported(f"Cannot run a program in {vm.ref.name}: this is not built for vSphere yet.")

    def state_of(self, task: Any) -> tuple[str, Any]:
        """A task's state and fault, now."""
        kind = vmodl.query.PropertyCollector
        wanted = kind.PropertySpec(type=vim.Task, pathSet=["info.state", "info.error", "info.result"])
        spec = kind.FilterSpec(objectSet=[kind.ObjectSpec(obj=task)], propSet=[wanted])
        found = self.link.call("read a task", None, lambda: self._retrieve([spec]))
        props = next((props for obj, props in found if isinstance(obj, vim.Task)), {})
        return str(props.get("info.state", "")), props.get("info.error") or props.get("info.result")

    def datacenter(self, vm: Vm) -> tuple[Any, str]:
        """The VM's datacenter, and its path, as the datastore's files are asked for."""
        names: list[str] = []
        above, found = self.machine(vm.ref), None
        for _level in range(DEEPEST):
            props = self._entity(above)
            found = above if isinstance(above, vim.Datacenter) else found
            above, name = props.get("parent"), props.get("name", "")
            if above is None and found is not None:
                return found, "/".join(reversed(names))
            if above is None:
                break
            names += [name] if found is not None else []
        raise TaskFailed(f"Cannot find the datacenter of {vm.ref.name} on {self.name}. Fetch its files by hand.")

    def _entity(self, entity: Any) -> dict[str, Any]:
        kind = vmodl.query.PropertyCollector
        wanted = kind.PropertySpec(type=vim.ManagedEntity, pathSet=["name", "parent"])
        spec = kind.FilterSpec(objectSet=[kind.ObjectSpec(obj=entity)], propSet=[wanted])
        found = self.link.call("read the folders", None, lambda: self._retrieve([spec]))
        return next((props for obj, props in found if obj._moId == entity._moId), {})

    def fetch(self, vm: Vm, text: str, size: int, path: str) -> None:
        """Write a file of a datastore, ``[store] directory/name``, as an ELF core."""
        store, _bracket, name = text[1:].partition("] ")
        place = "/folder/%s?%s" % (quote(name), urlencode({"dcPath": self.datacenter(vm)[1], "dsName": store}))
        line = http.client.HTTPSConnection(
            self.link.host, self.link.port, timeout=self.link.options["timeout"], context=self.link.tls
        )
        try:
            line.request("GET", place, headers={"Cookie": self.link.stub.cookie})
            answer = line.getresponse()
            if answer.status != 200:
                raise TaskFailed(
                    f"Cannot fetch {text} of {vm.ref.name} from {self.name}: HTTP status {answer.status}. "
                    "The privilege Datastore.Browse is needed on its datastore."
                )
            with open(path, "xb") as file:
                file.write(core.head(size))
                done = self._copy(answer, file, size)
        except LOST as exc:
            raise self.link.sentence(exc, "fetch the memory of", vm.ref) from exc
        finally:
            line.close()
        if done != size:
            raise TaskFailed(
                f"Cannot fetch {text} of {vm.ref.name} from {self.name}: {done} bytes came, its memory has {size}. "
                "Run again."
            )

    def _copy(self, answer: Any, file: Any, size: int) -> int:
        done = 0
        while done <= size:
            chunk = answer.read(CHUNK)
            if not chunk:
                break
            file.write(chunk)
            done += len(chunk)
            self._fetched = (done, size)
        return done


class MemoryDump:
    """The steps of one dump; each poll takes the next that is due."""

    def __init__(self, endpoint: EvidenceVerbs, vm: Vm, path: str) -> None:
        self.endpoint, self.vm, self.path = endpoint, vm, path
        self.snapshot: Any = None
        self.fetching: Future[None] | None = None
        self.removing: Any = None
        self.failure: VmwardError | None = None
        self.taking: Any = None
        if vm.power is PowerState.RUNNING:
            title = time.strftime("vmward memory %Y-%m-%dT%H:%M:%SZ", time.gmtime())
            machine = endpoint.machine(vm.ref)
            self.taking = self._call(
                "take a snapshot with memory of",
                lambda: machine.CreateSnapshot_Task(title, "taken by vmward, and removed again", True, False),
            )

    def _call(self, what: str, action: Callable[[], Any]) -> Any:
        return self.endpoint.link.call(what, self.vm.ref, action, repeat=False)

    def __call__(self) -> bool:
        if self.taking is not None:
            if not self._ended(self.taking, "take a snapshot with memory of"):
                return False
            self.snapshot, self.taking = self.endpoint.state_of(self.taking)[1], None
        if self.fetching is None:
            self._fetch()
        if self.fetching is not None and not self.fetching.done():
            return False
        if self.removing is None and self.snapshot is not None:
            self.removing = self._call("remove the snapshot of", lambda: self.snapshot.RemoveSnapshot_Task(False, True))
        if self.removing is not None and not self._ended(self.removing, "remove the memory snapshot of"):
            return False
        if self.failure:
            raise self.failure
        if self.fetching is not None:
            self.fetching.result()
        return True

    def _ended(self, task: Any, what: str) -> bool:
        state, told = self.endpoint.state_of(task)
        if state == "error":
            ref = self.vm.ref
            raise self.endpoint.link.of_fault(told, f"Cannot {what} {ref.name} ({ref.id}) on {self.endpoint.name}")
        return state == "success"

    def _fetch(self) -> None:
        try:
            name, size = self._file()
            self.fetching = self.endpoint.tasks.pool.submit(self.endpoint.fetch, self.vm, name, size, self.path)
        except VmwardError as exc:
            self.fetching, self.failure = Future(), exc
            self.fetching.set_result(None)

    def _file(self) -> tuple[str, int]:
        """The file that holds the memory, whole and flat."""
        vm_id = self.vm.ref.id
        found = self.endpoint.read([vm_id], frozenset([Detail.SNAPSHOTS]))[vm_id]
        if isinstance(found, VmwardError):
            raise found
        layout = self.endpoint.props[vm_id].get("layoutEx")
        moid = self.snapshot._moId if self.snapshot is not None else ""
        return core.memory_file(self.vm, layout, moid)

    def abort(self) -> None:
        """The snapshot goes, whatever became of the dump."""
        if self.snapshot is not None and self.removing is None:
            self.removing = self._call("remove the snapshot of", lambda: self.snapshot.RemoveSnapshot_Task(False, True))
