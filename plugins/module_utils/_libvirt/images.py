# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk images on libvirt: chains, fresh overlays, deletion; over the storage API, so that it works remotely too.
Disks are brought back from images on the data host alone, by qemu-img.

The format of the active image is the domain's statement. The format of each image below it is what the image above
states in its header, which only the host writes. Nothing is probed.

Sources: U(https://libvirt.org/formatstorage.html),
U(https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainDefineXML),
U(https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms).
"""

from __future__ import annotations

import os.path
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from typing import Any

from .._disk_copy import Copies
from .._errors import NotVerified, Refused, TaskFailed, Unsupported
from .._hypervisor import Pending, done
from .._model import Disk, DiskCopy, Layer, Vm, VmRef
from . import xml
from .checkpoints import forget
from .connection import Connection, libvirt

FORMATS = ("qcow2", "raw", "vmdk", "vdi", "vhdx", "qed")
OWN_POOL = "vmward-"
POOL_WAIT = 30.0  # seconds that another run may hold a pool for the same directory
WITHIN = ("encryption", "slices", "dataStore")  # of a disk's source: how its present image is to be read
DEPTH = 64  # a longer chain is a loop or an accident


class ImageVerbs:
    """The Pool part of the contract, and the reading of disks."""

    link: Connection
    _converting: Any  # of EvidenceVerbs, which tells its progress

    def disks(self, ref: VmRef, domain: ET.Element) -> tuple[Disk, ...]:
        """Every disk with its chain; CD-ROM and floppy drives without a medium are left out."""
        return tuple(
            self._disk(ref, element)
            for element in domain.findall("./devices/disk")
            if element.find("source") is not None
        )

    def _disk(self, ref: VmRef, element: ET.Element) -> Disk:
        source, driver, target = element.find("source"), element.find("driver"), element.find("target")
        if source is None or target is None:
            raise Unsupported(f"Cannot read a disk of {ref.name}: its definition names no source or no target.")
        name = target.get("dev", "")
        path = source.get("file") or source.get("dev") or ""
        if not path:
            raise Unsupported(
                "Cannot read disk {} of {}: its storage is of type '{}'. Only files and block devices are "
                "supported.".format(name, ref.name, element.get("type"))
            )
        image_format = driver.get("type", "") if driver is not None else ""
        if image_format not in FORMATS:
            raise Unsupported(
                f"Cannot read disk {name} of {ref.name}: its definition states no known format ('{image_format}'). "
                "State it in the domain's <driver type=.../>."
            )
        info = self.link.domain(ref, f"read disk {name} of", lambda d: d.blockInfo(name, 0))
        layers = (Layer(path, image_format),) + self._below(ref, Layer(path, image_format))
        read_only = element.find("readonly") is not None or element.get("device", "disk") != "disk"
        return Disk(name, target.get("bus", ""), info[0], info[1], read_only, layers)

    def _below(self, ref: VmRef, top: Layer) -> tuple[Layer, ...]:
        """The images below the active one, as each states it in its header."""
        found: list[Layer] = []
        layer: Layer | None = top
        while layer is not None and layer.format != "raw":
            if len(found) > DEPTH:
                raise TaskFailed(
                    "Cannot read the disks of %s: the chain of %s has more than %d images."
                    % (ref.name, top.path, DEPTH)
                )
            description = xml.parse(self.link.call(f"read the image {layer.path}", ref, self._describe(layer.path)))
            layer = backing(description)
            if layer is not None:
                found.append(layer)
        return tuple(found)

    def _describe(self, path: str) -> Any:
        def describe(conn: Any) -> str:
            with volumes(conn, path) as pool:
                return str(pool.storageVolLookupByName(os.path.basename(path)).XMLDesc(0))

        return describe

    def submit_reset_disks(self, vm: Vm) -> Pending:
        """New overlay first, then the definition, then the old overlay goes: at no moment is there no disk."""

        def reset(conn: Any) -> None:
            self._refuse_shared(vm)
            domain = conn.lookupByUUIDString(vm.ref.id)
            for snapshot in domain.listAllSnapshots(0):
                snapshot.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
            forget(domain)
            root = xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
            old: list[str] = []
            for disk in writable(vm):
                fresh = fresh_name(disk.layers[0].path)
                create_overlay(conn, fresh, disk)
                old += [layer.path for layer in disk.layers[:-1]]
                point_to(root, disk.id, fresh)
            conn.defineXML(xml.text_of(root))
            for path in old:
                remove_image(conn, path)

        self.link.call("reset the disks of", vm.ref, reset, repeat=False)
        return done(vm.ref, "reset the disks")

    def submit_restore_disks(self, vm: Vm, copies: Sequence[DiskCopy]) -> Pending:
        """The copies first, then the definition: at every moment each disk is either the former or the restored one."""
        what = "bring the disks back of"
        self.link.call(what, vm.ref, lambda conn: restorable(conn, vm, copies))
        work = Copies(vm, copies)
        self._converting = work

        def put(conn: Any) -> None:
            domain, root = restorable(conn, vm, copies)
            for copy in copies:
                point_to(root, copy.disk.id, copy.target)
            conn.defineXML(xml.text_of(root))  # first: where it cannot be written, nothing is forgotten
            for snapshot in domain.listAllSnapshots(0):
                snapshot.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
            forget(domain)

        def poll() -> bool:
            if not work.poll():
                return False
            try:
                self.link.call(what, vm.ref, lambda conn: restorable(conn, vm, copies))  # after hours: connects again
            except BaseException:
                work.abort()
                raise
            self.link.call(what, vm.ref, put, repeat=False)
            work.settle()
            return True

        return Pending(vm.ref, what, poll, abort=work.abort)

    def _refuse_shared(self, vm: Vm) -> None:
        """A reset removes what lies between the disk and its base: no other VM may stand on that."""
        between = {layer.path for disk in writable(vm) for layer in disk.layers[:-1]}
        shared = sorted(between & self._used_by_others(vm))
        if shared:
            raise Refused(
                f"Cannot reset the disks of {vm.ref.name}: other VMs use {', '.join(shared)} too. Nothing was touched. "
                "Revert to a snapshot instead."
            )

    def submit_delete(self, vm: Vm) -> Pending:
        def delete(conn: Any) -> None:
            shared = self._used_by_others(vm)
            domain = conn.lookupByUUIDString(vm.ref.id)
            domain.undefineFlags(
                libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
            )
            for disk in writable(vm):
                own = disk.layers[:-1] or disk.layers  # the base of a chain is an image of its own: it stays
                for layer in own:
                    if layer.path not in shared:
                        remove_image(conn, layer.path)

        self.link.call("delete", vm.ref, delete, repeat=False)
        return done(vm.ref, "delete")

    def _used_by_others(self, vm: Vm) -> set[str]:
        """Every image path that another domain uses; a domain that cannot be read raises, for it may use one too."""
        used: set[str] = set()
        for domain in self.link.call("list the VMs", None, lambda conn: conn.listAllDomains(0)):
            if domain.UUIDString() == vm.ref.id:
                continue
            ref = VmRef(vm.ref.hypervisor, domain.UUIDString(), domain.name())
            for disk in self.disks(ref, xml.parse(domain.XMLDesc(0))):
                used.update(layer.path for layer in disk.layers)
        return used


class volumes:
    """The storage pool that holds a path: the one that exists, or one that lives only for this block."""

    def __init__(self, conn: Any, path: str) -> None:
        self.conn, self.directory, self.own = conn, os.path.dirname(path), False

    def __enter__(self) -> Any:
        end = time.monotonic() + POOL_WAIT
        while True:
            try:
                return self._existing() or self._created()
            except libvirt.libvirtError:  # another run's pool for this directory came or went in between
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _existing(self) -> Any:
        """The administrator's own pool; never another run's, which may vanish under us."""
        for pool in self.conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
            where = xml.parse(pool.XMLDesc(0)).findtext("./target/path", "").rstrip("/")
            if where == self.directory and not pool.name().startswith(OWN_POOL):
                pool.refresh(0)
                return pool
        return None

    def _created(self) -> Any:
        root = ET.Element("pool", {"type": "dir"})
        ET.SubElement(root, "name").text = OWN_POOL + str(time.time_ns())
        ET.SubElement(ET.SubElement(root, "target"), "path").text = self.directory
        self.pool = self.conn.storagePoolCreateXML(xml.text_of(root), 0)
        self.own = True
        return self.pool

    def __exit__(self, *_exc: object) -> None:
        if self.own:
            self.pool.destroy()  # forgets the pool; the directory and its files stay


def backing(description: ET.Element) -> Layer | None:
    """The image below a volume, or None at the base."""
    path = description.findtext("./backingStore/path")
    if not path:
        return None
    stated = description.find("./backingStore/format")
    image_format = stated.get("type", "") if stated is not None else ""
    if image_format not in FORMATS:
        raise Unsupported(
            "The image {} states no format for its backing image {}. Write it into the header: qemu-img "
            "rebase -u -F FORMAT.".format(description.findtext("./target/path"), path)
        )
    return Layer(path, image_format)


def writable(vm: Vm) -> Iterator[Disk]:
    return (disk for disk in vm.disks if not disk.read_only)


def restorable(conn: Any, vm: Vm, copies: Sequence[DiskCopy]) -> tuple[Any, ET.Element]:
    """The domain and its definition, if it is still as it was read, and can take other images."""
    domain = conn.lookupByUUIDString(vm.ref.id)
    root = xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
    start = f"Cannot bring the disks of {vm.ref.name} back"
    if domain.isActive() or domain.hasManagedSaveImage(0):
        raise Refused(f"{start}: it is no longer stopped. Its disks are as they were. Stop it, then run again.")
    known = {snapshot.id for snapshot in vm.snapshots}
    if {snapshot.getName() for snapshot in domain.listAllSnapshots(0)} != known:
        raise Refused(f"{start}: somebody took or removed a snapshot meanwhile. Its disks are as they were. Run again.")
    elements = {one.get("dev"): disk for disk in root.findall("./devices/disk") for one in disk.findall("target")}
    for copy in copies:
        element = elements.get(copy.disk.id)
        source = element.find("source") if element is not None else None
        if element is None or source is None or source.get("file") != copy.disk.layers[0].path:
            raise Refused(
                f"{start}: disk {copy.disk.id} is not the file {copy.disk.layers[0].path} in its definition. Its disks "
                "are as they were. Only disks that are files can be brought back; bring it back by hand."
            )
        strange = [
            tag
            for tag in ("encryption", "transient", "shareable", *(f"source/{one}" for one in WITHIN))
            if element.find(tag) is not None
        ]
        if strange:
            raise Unsupported(
                f"{start}: disk {copy.disk.id} has <{strange[0]}> in its definition, which a new image would not fit. "
                "Its disks are as they were. Bring it back by hand."
            )
    return domain, root


def fresh_name(path: str) -> str:
    """A new file name beside the old one: desk1.qcow2, then desk1.r1700000000.qcow2."""
    directory, name = os.path.split(path)
    return os.path.join(directory, "%s.r%d.qcow2" % (name.split(".")[0], time.time_ns() // 1_000_000))


def create_overlay(conn: Any, path: str, disk: Disk) -> None:
    root = ET.Element("volume")
    ET.SubElement(root, "name").text = os.path.basename(path)
    ET.SubElement(root, "capacity", {"unit": "B"}).text = str(disk.size)
    ET.SubElement(ET.SubElement(root, "target"), "format", {"type": "qcow2"})
    store = ET.SubElement(root, "backingStore")
    ET.SubElement(store, "path").text = disk.layers[-1].path
    ET.SubElement(store, "format", {"type": disk.layers[-1].format})
    with volumes(conn, path) as pool:
        pool.createXML(xml.text_of(root), 0)


def point_to(domain: ET.Element, disk_id: str, path: str) -> None:
    for element in domain.findall("./devices/disk"):
        target, source, driver = element.find("target"), element.find("source"), element.find("driver")
        if target is not None and target.get("dev") == disk_id and source is not None and driver is not None:
            source.set("file", path)
            driver.set("type", "qcow2")
            for old in element.findall("backingStore"):
                element.remove(old)


def remove_image(conn: Any, path: str) -> None:
    """Delete an image and look whether it is gone."""
    name = os.path.basename(path)
    with volumes(conn, path) as pool:
        pool.storageVolLookupByName(name).delete(0)
        pool.refresh(0)
        if name in pool.listVolumes():
            raise NotVerified(f"The image {path} is still there after its deletion.")
