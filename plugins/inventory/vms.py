# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: vms
short_description: Every VM of every hypervisor as a host
version_added: "0.1.0"
author:
  - vmward contributors (@vmward)
description:
  - Lists the VMs of all hypervisors through the same options and the same model that the modules use.
  - The configuration file's name ends with C(vmward.yml) or C(vmward.yaml).
  - Each VM is in the groups C(hypervisor_NAME), C(power_STATE) and C(isolation_STATE), and in C(tag_TAG) for each tag.
    A vSphere tag is both C(tag_CATEGORY_NAME) and, where only one category has that name on VMs, C(tag_NAME).
  - A VM's name may be hostile. One that is not a plain host name is never used as such, and no template evaluates it.
    Such a VM is listed under its id, its name is in C(vmward_name).
  - When VMs of the same name exist, each is listed as C(NAME_HYPERVISOR), and on one hypervisor as C(NAME_ID), so that
    no name ever means two VMs. The modules take these names too.
  - The host variables are C(vmward_name), C(vmward_id), C(vmward_hypervisor), C(vmward_data_host), C(vmward_power),
    C(vmward_isolation), C(vmward_case), C(vmward_addresses), C(vmward_macs), C(vmward_networks), C(vmward_tags), and
    C(vmward_problem), which says why a VM could not be judged.
extends_documentation_fragment:
  - vmward.remediation.hypervisors
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
notes:
  - The cache holds no secret. Clear it (C(--flush-cache)) before a response that relies on what it lists.
options:
  plugin:
    description: Says that the file is meant for this plugin.
    type: str
    required: true
    choices: [vmward.remediation.vms]
  hypervisors:
    description:
      - As for the modules. Strings in it may be templates. Variables of C(group_vars) are not known yet when an
        inventory is read; lookups may be used, and extra variables.
  strict_hypervisors:
    description:
      - Fail when one hypervisor cannot be listed. With V(false) it is left out with a warning; the VMs on it are then
        unknown, not absent.
    type: bool
    default: true
  tags:
    description:
      - Read the tags of VMs also where that costs a session and some calls of its own, which is vSphere. With V(false)
        VMs on vSphere are in no group C(tag_TAG). On Proxmox VE tags cost nothing and are always read.
    type: bool
    default: true
seealso:
  - module: vmward.remediation.vm_info
"""

EXAMPLES = r"""
# vmward.yml
plugin: vmward.remediation.vms
hypervisors:
  kvm1: {libvirt: {uri: "qemu+ssh://kvm1/system", data_host: kvm1}}
  kvm2: {libvirt: {uri: "qemu+ssh://kvm2/system", data_host: kvm2}}
  vc1: {vsphere: {hostname: vc1.example.net, username: ir, ca_path: /etc/ssl/vc1.pem}}
compose:
  ansible_host: vmward_addresses | first | default(omit)
keyed_groups:
  - key: vmward_networks
    prefix: network
"""

import gc
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var

from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect, warnings_of
from ansible_collections.vmward.remediation.plugins.module_utils._crew import apart
from ansible_collections.vmward.remediation.plugins.module_utils._errors import Unsupported, VmwardError, attempt
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import FINDING, Hypervisor
from ansible_collections.vmward.remediation.plugins.module_utils._model import Vm, printable
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import TAG, long_names

HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
NO_GROUP_NAME = re.compile(r"[^A-Za-z0-9_]")
RESERVED = ("all", "ungrouped", "localhost")
LOG_OUT = 60.0  # seconds that the others have to answer and log out, when one has failed


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Lists VMs; everything about them comes from the contract."""

    NAME = "vmward.remediation.vms"

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and path.endswith(("vmward.yml", "vmward.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path)
        self._read_config_data(path)
        key = self.get_cache_key(path)
        wanted = self.get_option("cache") and cache
        machines = self._cache.get(key) if wanted else None
        with keeping_what_is_made():
            if machines is None:
                machines = self._machines()
                if self.get_option("cache"):
                    self._cache[key] = machines
            for name, machine in host_names(machines).items():
                self._add(name, machine)

    def _machines(self) -> list[dict[str, Any]]:
        self.templar.available_variables = self._vars
        try:
            hypervisors = self.templar.template(self.get_option("hypervisors"))
        except AnsibleError as exc:
            raise AnsibleParserError(
                f"Cannot read hypervisors: {exc}. An inventory is read before group_vars, whose variables it does not "
                "know: use a lookup (env, file), or the environment variables that the entry's kind takes."
            ) from exc
        if not isinstance(hypervisors, Mapping) or not hypervisors:
            raise AnsibleParserError(
                "No hypervisor is configured. Set hypervisors, as vmward_hypervisors for the modules."
            )
        machines: list[dict[str, Any]] = []
        tags = self.get_option("tags")
        reading = {
            name: apart(partial(attempt, f"list the VMs on {name}", listed, name, entry, tags))
            for name, entry in hypervisors.items()
        }
        for name, entry in hypervisors.items():
            try:
                for warning in warnings_of({name: entry}):
                    self.display.warning(warning)
                machines += reading[name].result()
            except VmwardError as exc:
                if self.get_option("strict_hypervisors"):
                    wait(reading.values(), LOG_OUT)  # else this process may end before they have logged out
                    raise AnsibleParserError(
                        f"{exc} No VM was listed; strict_hypervisors: false leaves {name} out."
                    ) from exc
                self.display.warning(f"{exc} The VMs of {name} are unknown.")
        return machines

    def _add(self, name: str, machine: Mapping[str, Any]) -> None:
        self.inventory.add_host(name)
        known = {key: wrap_var(value) for key, value in machine.items()}
        for key, value in known.items():
            self.inventory.set_variable(name, key, value)
        groups = [
            f"hypervisor_{machine['vmward_hypervisor']}",
            f"power_{machine['vmward_power']}",
            f"isolation_{machine['vmward_isolation']}",
        ]
        for group in groups + [f"tag_{tag}" for tag in machine["vmward_tags"]]:
            self.inventory.add_child(self.inventory.add_group(NO_GROUP_NAME.sub("_", group)[:120]), name)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), known, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), known, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), known, name, strict=strict)


@contextmanager
def keeping_what_is_made() -> Iterator[None]:
    """An inventory stays until its process ends: looking through it for garbage is a fifth of all its time.

    Source: U(https://docs.python.org/3/library/gc.html#gc.freeze), which is made for processes that fork as Ansible's.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def listed(hypervisor_name: str, entry: Any, tags: bool = True) -> list[dict[str, Any]]:
    """Every VM of one hypervisor as host variables. One that cannot be judged is listed, as unknown."""
    hypervisor = connect(hypervisor_name, entry)
    try:
        refs = hypervisor.refs()
        with ThreadPoolExecutor(max_workers=1) as beside:
            labels = beside.submit(tags_of, hypervisor) if tags else None
            read = hypervisor.read([ref.id for ref in refs], FINDING)
        more = labels.result() if labels else {}
    finally:
        hypervisor.close()
    ((_kind, options),) = entry.items()
    machines = []
    for ref in refs:
        vm = read[ref.id]
        machines.append(
            {
                "vmward_name": ref.name,
                "vmward_id": ref.id,
                "vmward_hypervisor": hypervisor_name,
                "vmward_data_host": (options or {}).get("data_host") or "",
                **(judged(vm) if isinstance(vm, Vm) else unknown(vm)),
            }
        )
        known = [alias.replace(TAG, "", 1) for alias in ref.aliases if alias.startswith(TAG)]  # also of one not judged
        machines[-1]["vmward_tags"] = list(dict.fromkeys([*known, *machines[-1]["vmward_tags"], *more.get(ref.id, ())]))
    return machines


def tags_of(hypervisor: Hypervisor) -> Mapping[str, tuple[str, ...]]:
    try:
        return hypervisor.tags()
    except Unsupported:  # it can have none
        return {}


def judged(vm: Vm) -> dict[str, Any]:
    return {
        "vmward_power": vm.power.value,
        "vmward_isolation": vm.isolation.value,
        "vmward_case": vm.note.case if vm.note else "",
        "vmward_addresses": [address for nic in vm.nics for address in nic.addresses],
        "vmward_macs": [nic.mac for nic in vm.nics],
        "vmward_networks": sorted({nic.network for nic in vm.nics if nic.network}),
        "vmward_tags": list(vm.tags),
        "vmward_problem": "",
    }


def unknown(error: VmwardError) -> dict[str, Any]:
    """A VM that cannot be judged is still there: hiding it would be worse."""
    told: dict[str, Any] = dict.fromkeys(("vmward_power", "vmward_isolation"), "unknown")
    told.update(dict.fromkeys(("vmward_addresses", "vmward_macs", "vmward_networks", "vmward_tags"), []))
    return dict(told, vmward_case="", vmward_problem=printable(str(error), 500))


def host_names(machines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One host name for each VM, which depends on no order: its own, if that is plain and no other VM's."""
    twins = Counter(machine["vmward_name"] for machine in machines)
    here = Counter((machine["vmward_name"], machine["vmward_hypervisor"]) for machine in machines)
    names = []
    for machine in machines:
        name, hypervisor, vm_id = (machine[f"vmward_{key}"] for key in ("name", "hypervisor", "id"))
        if not HOST_NAME.fullmatch(name) or name in RESERVED:
            names.append(vm_id)
        elif here[name, hypervisor] > 1:
            names.append(long_names(name, hypervisor, vm_id)[1])
        else:
            names.append(long_names(name, hypervisor, vm_id)[0] if twins[name] > 1 else name)
    taken = Counter(names)
    return {name if taken[name] == 1 else last_name(machine): machine for name, machine in zip(names, machines)}


def last_name(machine: Mapping[str, Any]) -> str:
    """Of a VM whose long name, too, is another's."""
    return long_names(*(machine[f"vmward_{key}"] for key in ("name", "hypervisor", "id")))[2]
