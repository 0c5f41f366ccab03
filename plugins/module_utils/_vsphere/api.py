# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vSphere backend, for vCenter and stand-alone ESXi: reading here; what changes VMs, wiring and evidence beside.

Sources: U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.VirtualMachine.html),
U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.Snapshot.html).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable, TypeVar

from .._errors import AuthFailed, NotFound, TaskFailed, VmwardError, attempt
from .._hypervisor import FINDING, Capability, Detail, Hypervisor, Pending
from .._model import Vm, VmRef, printable
from . import convert
from .changes import ChangeVerbs
from .connection import Connection, vim, vmodl
from .disks import NO_RESET, DiskVerbs
from .evidence import EvidenceVerbs
from .rehearsal import Rehearsal
from .steps import Removal
from .tags import TagVerbs
from .tasks import Tasks
from .wiring import WiringVerbs

PATHS = [
    "config.extraConfig",
    "config.hardware.device",
    "config.hardware.memoryMB",
    "config.template",
    "customValue",
    "name",
    "runtime.bootTime",
    "runtime.connectionState",
    "runtime.powerState",
    "runtime.question",
    "summary.runtime.bootTime",
]
MORE = {
    Detail.DISKS: ["layoutEx.disk", "layoutEx.file"],
    Detail.SNAPSHOTS: ["guest.toolsRunningStatus", "layoutEx.snapshot", "snapshot"],
    Detail.ADDRESSES: ["guest.net"],
}
UNREAD = ""  # beside the property paths: why the server withholds some of them
TRIES = 3  # reads of a set from which VMs vanish meanwhile
HAVE = frozenset(
    {
        Capability.POWER,
        Capability.SUSPEND,
        Capability.SEAL,
        Capability.SNAPSHOT,
        Capability.SNAPSHOT_MEMORY,
        Capability.SNAPSHOT_QUIESCE,
        Capability.REVERT,
        Capability.REVERT_RUNNING,
        Capability.DELETE,
        Capability.MEMORY_DUMP,
        Capability.DISK_EXPORT_LIVE,
        Capability.DISK_EXPORT_STOPPED,
    }
)

Props = dict[str, Any]
T = TypeVar("T")


class VsphereHypervisor(ChangeVerbs, TagVerbs, WiringVerbs, EvidenceVerbs, DiskVerbs, Hypervisor):
    """One vCenter, or one ESXi host."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self.link = Connection(name, options)
        self.tasks = Tasks(self.link, self.machine)
        self.networks = convert.Networks({})
        self.fields: dict[int, str] = {}  # custom attributes of VMs: key -> name
        self.props: dict[str, Props] = {}  # of each VM, as a verb has read it last
        self.held: dict[str, Vm | None] = {}  # the same, of those that have an undo note
        self.removals: list[Removal] = []
        self.told: dict[str, list[str]] = {}
        self._moids: dict[str, str] = {}  # VM id -> managed object id
        self._running: dict[tuple[str, str], Any] | None = None  # (object id, kind of task) -> task

    def until(self, end: float) -> None:
        self.link.end = end

    def capabilities(self) -> frozenset[Capability]:
        if not self._moids:
            self.refs()  # which tells the networks too
        asks = self.link.options.get("guest_username") and self.link.options.get("guest_password")
        forensic = {Capability.FORENSIC} if self.networks.isolation else set()
        return HAVE | forensic | ({Capability.GUEST_RUN} if asks else set())

    def why_not(self, capability: Capability) -> str:
        if capability is Capability.GUEST_RUN:
            return (
                "it has no log-in for guests. Set guest_username and guest_password in its entry, or give the class "
                "connections up by name (vmward_waive)."
            )
        if capability is Capability.DISK_RESET:
            return NO_RESET
        wanted = self.link.options["forensic_network"]
        if capability is not Capability.FORENSIC or self.networks.isolation:
            return ""
        if not wanted:
            return "no forensic_network is named for it. Set it in its entry, or seal the VM."
        if wanted in self.networks.opaque:
            return (
                f"'{wanted}' is an opaque network of NSX. Set forensic_network to a standard or distributed port "
                "group, or seal the VM."
            )
        there = ", ".join(printable(name, 60) for name in self.networks.every[:20]) or "none"
        return (
            f"it has not exactly one network named '{wanted}'. There are: {there}. Correct forensic_network, or seal "
            "the VM."
        )

    # Reading

    def refs(self) -> tuple[VmRef, ...]:
        """Every VM and template, and the networks, from one read of the whole inventory."""
        found = self.link.call("list the VMs", None, lambda: self.inventory(inventory_paths()))
        for _obj, props in found:
            if UNREAD in props:
                raise props[UNREAD]
        machines = [(obj, props) for obj, props in found if isinstance(obj, vim.VirtualMachine)]
        self.networks = networks_of(found, self.link.options["forensic_network"])
        uuids = Counter(props.get("config.instanceUuid") for _obj, props in machines)
        above = vim.Folder, vim.Datacenter, vim.VirtualApp
        folders = {obj._moId: props for obj, props in found if isinstance(obj, above)}
        refs, moids = [], {}
        for obj, props in machines:
            uuid = props.get("config.instanceUuid")
            vm_id = uuid if uuid and uuids[uuid] == 1 else obj._moId  # a copied VM may carry its original's
            moids[vm_id] = obj._moId
            aliases = (obj._moId, convert.path_of(props, folders))
            refs.append(VmRef(self.name, vm_id, convert.unquoted(props.get("name", obj._moId)), aliases))
        self._moids = moids  # at once: another thread may be looking a VM up
        return tuple(refs)

    def inventory(self, paths: Mapping[Any, list[str]]) -> list[tuple[Any, Props]]:
        """These properties of everything of these types."""
        collector = vmodl.query.PropertyCollector
        view = self.link.content.viewManager.CreateContainerView(self.link.content.rootFolder, list(paths), True)
        step = collector.TraversalSpec(type=vim.view.ContainerView, path="view", skip=False)
        source = collector.ObjectSpec(obj=view, skip=True, selectSet=[step])
        wanted = [collector.PropertySpec(type=kind, pathSet=paths[kind]) for kind in paths]
        return self._retrieve([collector.FilterSpec(objectSet=[source], propSet=wanted)], each=True)

    def read(self, ids: Sequence[str], detail: frozenset[Detail] = frozenset()) -> dict[str, Vm | VmwardError]:
        """One bulk read; a VM that vanishes while it is read is left out of the next try."""
        if any(vm_id not in self._moids for vm_id in ids):
            self.refs()
        if detail != FINDING:
            self._running = self._images = None
        raw = self._of_those_left("read the VMs", ids, lambda moids: self._properties(moids, detail))
        return {vm_id: self._one(vm_id, raw.get(self._moids.get(vm_id, ""), {}), detail) for vm_id in ids}

    def _of_those_left(self, what: str, ids: Iterable[str], read: Callable[[list[str]], T]) -> T:
        """Read of many VMs at once; one that vanishes meanwhile, at which vSphere refuses the whole, is left out."""
        for left in reversed(range(TRIES)):
            moids = [self._moids[vm_id] for vm_id in ids if vm_id in self._moids]
            try:
                return self.link.call(what, None, lambda moids=moids: read(moids))  # type: ignore[misc]
            except NotFound:
                if not left:
                    raise
                self.refs()
        raise TaskFailed(f"Cannot {what} on {self.name}: they vanish faster than they can be read. Run again.")

    def _one(self, vm_id: str, props: Props, detail: frozenset[Detail]) -> Vm | VmwardError:
        if UNREAD in props:
            withheld: VmwardError = props[UNREAD]
            return withheld
        if "name" not in props:
            return NotFound(
                f"Cannot read {vm_id} on {self.name}: it is not there. It may have been removed meanwhile: list what "
                "there is with vm_info."
            )
        ref = VmRef(self.name, vm_id, convert.unquoted(props["name"]), (self._moids[vm_id],))
        told: Vm | VmwardError
        try:
            told = attempt(f"judge {ref.name}", convert.vm_of, ref, props, detail, self.networks, self.fields)
        except VmwardError as exc:
            told = exc
        if detail != FINDING:
            self.props[vm_id] = props
            self.held[vm_id] = told if isinstance(told, Vm) and told.note else None
        return told

    def _properties(self, moids: Sequence[str], detail: frozenset[Detail]) -> dict[str, Props]:
        collector = vmodl.query.PropertyCollector
        paths = sorted({*PATHS, *(path for one in detail for path in MORE[one])})
        machines = [collector.ObjectSpec(obj=vim.VirtualMachine(moid, self.link.stub)) for moid in moids]
        specs = []
        if machines:
            wanted = collector.PropertySpec(type=vim.VirtualMachine, pathSet=paths)
            specs.append(collector.FilterSpec(objectSet=machines, propSet=[wanted]))
        attributes = self.link.content.customFieldsManager
        if attributes:
            wanted = collector.PropertySpec(type=vim.CustomFieldsManager, pathSet=["field"])
            specs.append(collector.FilterSpec(objectSet=[collector.ObjectSpec(obj=attributes)], propSet=[wanted]))
        raw: dict[str, Props] = {}
        for obj, props in self._retrieve(specs, each=True):
            if isinstance(obj, vim.CustomFieldsManager):
                if UNREAD in props:
                    raise props[UNREAD]
                self.fields = {one.key: one.name for one in props.get("field", ()) if convert.is_of_vms(one)}
            elif isinstance(obj, vim.VirtualMachine):
                raw[obj._moId] = props
        return raw

    def _retrieve(self, specs: Sequence[Any], each: bool = False) -> list[tuple[Any, Props]]:
        """Everything that the specs name; a property that the server withholds is an error, not a gap.

        With ``each`` the error is one of its object's properties, and an object that has vanished is left out.
        The server's clock is asked for too: an answer without it is no answer, and must not look like "no VMs".
        """
        collector, kind = self.link.content.propertyCollector, vmodl.query.PropertyCollector
        clock = kind.FilterSpec(
            objectSet=[kind.ObjectSpec(obj=vim.ServiceInstance("ServiceInstance", self.link.stub))],
            propSet=[kind.PropertySpec(type=vim.ServiceInstance, pathSet=["serverClock"])],
        )
        page = collector.RetrievePropertiesEx([clock, *specs], kind.RetrieveOptions())
        found: list[tuple[Any, Props]] = []
        while page is not None:
            for one in page.objects:
                props = {change.name: change.val for change in one.propSet}
                error = self._withheld(one, props)
                if error and not each:
                    raise error
                if not isinstance(error, NotFound):
                    found.append((one.obj, {**props, UNREAD: error} if error else props))
            page = collector.ContinueRetrievePropertiesEx(page.token) if page.token else None
        if not any(isinstance(obj, vim.ServiceInstance) for obj, _props in found):
            raise TaskFailed(f"Cannot read from {self.name}: its answer is not vSphere's. Look for a proxy before it.")
        return found

    def _withheld(self, one: Any, props: Props) -> VmwardError | None:
        for missing in one.missingSet:
            who = f"{printable(str(props.get('name', '')))} ({one.obj._moId}) on {self.name}"
            if isinstance(missing.fault, vim.fault.NoPermission):
                return AuthFailed(
                    f"Cannot read {who}: the privilege {missing.fault.privilegeId or 'System.Read'} is missing. Give "
                    f"it to {self.link.options['username']}, on the whole inventory."
                )
            return self.link.of_fault(missing.fault, f"Cannot read {missing.path} of {who}")
        return None

    def wait(
        self, pending: Sequence[Pending], deadline: float, together: float = math.inf
    ) -> Mapping[str, VmwardError | None]:
        return self.tasks.wait(pending, deadline, together)

    def rehearse(self, vm: Vm, steps: Sequence[Callable[[Any], object]], check: bool) -> None:
        required = {
            "submit_delete": self.require_deletable,
            "submit_reconnect": self.require_reconnectable,
            "submit_resume": self.require_resumable,
        }
        for step in steps:
            step(Rehearsal(required))

    def remarks(self, vm_id: str) -> tuple[str, ...]:
        return (*super().remarks(vm_id), *self.leftovers(vm_id), *asked(self.props.get(vm_id, {})))

    def close(self) -> None:
        self.tasks.close()
        self.link.close()

    def machine(self, ref: VmRef) -> Any:
        if ref.id not in self._moids:
            self.refs()
        if ref.id not in self._moids:
            raise NotFound(f"Cannot find {ref.name} ({ref.id}) on {self.name}. It may have been removed meanwhile.")
        return vim.VirtualMachine(self._moids[ref.id], self.link.stub)


def asked(props: Props) -> tuple[str, ...]:
    """Until a question of vSphere's is answered, no task of the VM goes on."""
    question = props.get("runtime.question")
    if question is None:
        return ()
    return (
        f"vSphere asks about it and waits: '{printable(question.text or '', 300)}'. Answer it in the vSphere Client "
        "(at the VM); until then its tasks do not go on.",
    )


def inventory_paths() -> dict[Any, list[str]]:
    """What is read of everything. A function: the types exist only where the library does."""
    return {
        vim.VirtualMachine: ["name", "config.instanceUuid", "parent", "parentVApp"],
        vim.VirtualApp: ["name", "parent", "parentFolder"],
        vim.Folder: ["name", "parent"],
        vim.Datacenter: ["name", "parent"],
        vim.Network: ["name"],
        vim.dvs.DistributedVirtualPortgroup: ["name", "key", "config.distributedVirtualSwitch"],
        vim.DistributedVirtualSwitch: ["uuid"],
    }


def networks_of(found: Sequence[tuple[Any, Props]], isolation: str | None) -> convert.Networks:
    """The networks by name, and the one that isolated VMs move to: only if its name is one network's."""
    switches = {obj._moId: props["uuid"] for obj, props in found if isinstance(obj, vim.DistributedVirtualSwitch)}
    names: dict[str, str] = {}
    every: set[str] = set()
    opaque: set[str] = set()  # a card that is plugged into one comes out in the port group that NSX has behind it
    hits: list[dict[str, str]] = []
    for obj, props in found:
        name = convert.unquoted(props.get("name", ""))
        if isinstance(obj, vim.dvs.DistributedVirtualPortgroup):
            names[props["key"]] = name
            backing = {"portgroup": props["key"], "switch": switches.get(switch_of(props), "")}
        elif isinstance(obj, vim.OpaqueNetwork):
            every.add(name)
            opaque.add(name)
            continue
        elif isinstance(obj, vim.Network):
            backing = {"standard": name}
        else:
            continue
        every.add(name)
        if isolation and name == isolation and backing not in hits:
            hits.append(backing)
    return convert.Networks(names, hits[0] if len(hits) == 1 else None, tuple(sorted(every)), frozenset(opaque))


def switch_of(props: Props) -> str:
    switch = props.get("config.distributedVirtualSwitch")
    return str(switch._moId) if switch else ""
