# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory on vSphere: a snapshot with memory, its file fetched from the datastore, the snapshot removed again.

Sources: U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.FileLayoutEx.html),
U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.FileManager.html) (access over HTTP).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from .._errors import NotFound, TaskFailed, VmwardError
from .._hypervisor import Detail, Pending
from .._model import PowerState, Vm
from . import convert, core
from .connection import vim
from .download import Download
from .export import DiskExport
from .guest import GuestVerbs
from .steps import MEMORY, Steps, Waiting

CHUNK = 1 << 20


class EvidenceVerbs(DiskExport, GuestVerbs):
    """The Evidence part of the contract."""

    _fetched = (0, 0)

    def submit_memory_dump(self, vm: Vm, path: str) -> Pending:
        """Of a running VM from a snapshot, which is removed again; of a suspended one from the file it left."""
        run = Steps(self._memory_out(vm, path))
        return Pending(vm.ref, "dump the memory of", run, abort=run.abort)

    def _memory_out(self, vm: Vm, path: str) -> Waiting:
        self._fetched = (0, 0)
        if vm.power is PowerState.RUNNING:
            yield from self.on_snapshot(vm, MEMORY, lambda snapshot: self._memory_of(vm, snapshot._moId, path))
        else:
            yield from self._memory_of(vm, "", path)

    def submit_kept_memory(self, vm: Vm, kept: str, path: str) -> Pending:
        run = Steps(self._kept_out(vm, kept, path))
        return Pending(vm.ref, "copy the kept memory of", run, abort=run.abort)

    def _kept_out(self, vm: Vm, kept: str, path: str) -> Waiting:
        self._fetched = (0, 0)
        found = next((one.id for one in self.left(vm, MEMORY) if one.name == kept), "")
        if not found:
            raise NotFound(f"Cannot copy the memory of {vm.ref.name}: its snapshot '{kept}' is gone. Look at vm_info.")
        yield from self._memory_of(vm, found, path)

    def _memory_of(self, vm: Vm, snapshot: str, path: str) -> Waiting:
        """The file that holds the memory, whole and flat, as an ELF core."""
        found = self.read([vm.ref.id], frozenset([Detail.DISKS, Detail.SNAPSHOTS]))[vm.ref.id]
        if isinstance(found, VmwardError):
            raise found
        text, size = core.memory_file(vm, self.props[vm.ref.id], snapshot)
        store, _bracket, name = text[1:].partition("] ")
        place = "/folder/%s?%s" % (quote(name), urlencode({"dcPath": self.datacenter(vm)[1], "dsName": store}))
        download = Download(self.link, vm.ref, f"fetch {text} of")
        yield from self.threaded(lambda: self._fetch(download, place, size, path), download.halt, lambda: None)

    def tools(self) -> dict[str, str]:
        about = self.link.content.about
        return {"vSphere": f"{about.fullName} (API {about.apiVersion})"}

    def progress(self, vm: Vm) -> tuple[int, int]:
        return self._fetched

    def datacenter(self, vm: Vm) -> tuple[Any, str]:
        """The VM's datacenter, and its path, as the datastore's files are asked for."""
        names: list[str] = []
        above, found = self.machine(vm.ref), None
        for _level in range(convert.DEEPEST):
            vapp = ["parentVApp"] if isinstance(above, vim.VirtualMachine) else []
            props = self.properties("read the folders", above, "name", "parent", *vapp)
            found = above if isinstance(above, vim.Datacenter) else found
            above, name = props.get("parent") or props.get("parentVApp"), props.get("name", "")
            if above is None and found is not None:
                return found, "/".join(reversed(names))
            if above is None:
                break
            names += [name] if found is not None else []
        raise TaskFailed(f"Cannot find the datacenter of {vm.ref.name} on {self.name}. Fetch its files by hand.")

    def _fetch(self, download: Download, place: str, size: int, path: str) -> None:
        try:
            download.begin(
                place, {"Cookie": self.link.stub.cookie}, "The privilege Datastore.Browse is needed on its datastore."
            )
            with open(path, "xb") as file:
                file.write(core.head(size))
                done = 0
                while done <= size and (chunk := download.read(CHUNK)):
                    file.write(chunk)
                    done += len(chunk)
                    self._fetched = (done, size)
        finally:
            download.close()
        if done != size:
            raise TaskFailed(
                f"Cannot {download.what} {download.vm.name} from {self.name}: {done} bytes came, its memory has "
                f"{size}. Run again."
            )
