# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The yardstick: a verb on many VMs in one short pyvmomi script with one session. bare_vsphere.py VERB < JSON.

Calls go out from as many threads at once as ours do.
"""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim, vmodl

Collector = vmodl.query.PropertyCollector
NOTE = "vmward.isolation"
AT_ONCE = 32


def retrieve(content: Any, paths: list[str]) -> list[tuple[Any, dict[str, Any]]]:
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    step = Collector.TraversalSpec(type=vim.view.ContainerView, path="view", skip=False)
    source = Collector.ObjectSpec(obj=view, skip=True, selectSet=[step])
    wanted = Collector.PropertySpec(type=vim.VirtualMachine, pathSet=paths)
    spec = Collector.FilterSpec(objectSet=[source], propSet=[wanted])
    page = content.propertyCollector.RetrievePropertiesEx([spec], Collector.RetrieveOptions())
    found = list(page.objects)
    while page.token:
        page = content.propertyCollector.ContinueRetrievePropertiesEx(page.token)
        found += page.objects
    return [(one.obj, {change.name: change.val for change in one.propSet}) for one in found]


def every(call: Callable[[Any], Any], those: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(AT_ONCE) as crew:
        return list(crew.map(call, those))


def finish(content: Any, tasks: list[Any]) -> None:
    """One property wait for all tasks."""
    spec = Collector.FilterSpec(
        objectSet=[Collector.ObjectSpec(obj=task) for task in tasks],
        propSet=[Collector.PropertySpec(type=vim.Task, pathSet=["info.state"])],
    )
    known = content.propertyCollector.CreateFilter(spec, False)
    states: dict[str, str] = {}
    version = ""
    while len(states) < len(tasks):
        update = content.propertyCollector.WaitForUpdatesEx(version, None)
        version = update.version
        for one in (one for found in update.filterSet for one in found.objectSet):
            for change in one.changeSet:
                if change.val == "error":
                    sys.exit(f"{one.obj} failed")
                if change.val == "success":
                    states[one.obj._moId] = change.val
    known.DestroyPropertyFilter()


def seal(machine: Any, props: dict[str, Any]) -> Any:
    changes = []
    for device in props["config.hardware.device"]:
        if isinstance(device, vim.vm.device.VirtualEthernetCard):
            device.connectable.connected = device.connectable.startConnected = False
            device.connectable.allowGuestControl = False
            changes.append(vim.vm.device.VirtualDeviceSpec(operation="edit", device=device))
    return machine.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=changes))


def main() -> None:
    """Do the verb and read back."""
    verb, told = sys.argv[1], json.load(sys.stdin)
    tls = ssl.create_default_context(cafile=told["ca_path"])
    session = SmartConnect(
        host=told["hostname"], port=told["port"], user=told["username"], pwd=told["password"], sslContext=tls
    )
    content = session.RetrieveContent()
    paths = ["name", "runtime.powerState", "config.hardware.device"] + ["snapshot"] * (verb == "revert")
    chosen = [(obj, props) for obj, props in retrieve(content, paths) if props["name"] in told["names"]]
    if verb == "list":
        print(len(chosen))
    elif verb == "isolate":
        fields = content.customFieldsManager
        key = next((one.key for one in fields.field if one.name == NOTE), None)
        if key is None:
            key = fields.AddFieldDefinition(NOTE, vim.VirtualMachine, None, None).key
        every(lambda one: fields.SetField(one[0], key, ""), chosen)
        finish(content, every(lambda one: seal(*one), chosen))
    elif verb == "snapshot":
        finish(content, every(lambda one: one[0].CreateSnapshot_Task("bench", "", False, False), chosen))
    elif verb == "revert":
        finish(content, every(lambda one: one[0].PowerOffVM_Task(), chosen))
        trees = [props["snapshot"].rootSnapshotList[0].snapshot for _machine, props in chosen]
        finish(content, every(lambda snapshot: snapshot.RevertToSnapshot_Task(None, True), trees))
    elif verb == "power_off":
        finish(content, every(lambda one: one[0].PowerOffVM_Task(), chosen))
    if verb != "list":
        retrieve(content, paths)
    Disconnect(session)


if __name__ == "__main__":
    main()
