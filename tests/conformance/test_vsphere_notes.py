# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The undo note on vSphere: where it lies, who else has written there, and what it no longer knows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.note import KEY as NOTE
from ansible_collections.vmward.remediation.tests.conformance.benches import mac
from ansible_collections.vmward.remediation.tests.conformance.vsphere import (
    FORENSIC,
    FREE,
    SEAL,
    VsphereBench,
    card,
    finish,
    without_attribute,
)


def noted(vsphere: VsphereBench, vm_id: str) -> list[tuple[Any, str]]:
    """The note on a VM: for which kind of object its attribute is, and the text."""
    kinds = {one.key: one.managedObjectType for one in vsphere.inventory.customFieldsManager.field}
    return [(kinds[one.key], one.value) for one in vsphere.machine(vm_id).customValue if one.value]


def test_an_attribute_of_that_name_for_hosts_only_is_not_taken_for_ours(vsphere: VsphereBench) -> None:
    attributes, vm_id = without_attribute(vsphere), vsphere.create("desk1")
    attributes.AddFieldDefinition(NOTE, vim.HostSystem, None, None)
    former = vsphere.wiring(vm_id)
    vsphere.one(SEAL, vm_id)
    assert [kind for kind, _text in noted(vsphere, vm_id)] == [vim.VirtualMachine]
    vsphere.one(FREE, vm_id)
    assert vsphere.wiring(vm_id) == former
    without_attribute(vsphere)


def test_where_the_name_of_the_attribute_is_anothers_that_is_said(vsphere: VsphereBench) -> None:
    attributes, vm_id = without_attribute(vsphere), vsphere.create("desk1")
    attributes.AddFieldDefinition(NOTE, vim.HostSystem, None, None)
    vsphere.server.faults({"method": "AddCustomFieldDef", "fault": "The name already exists", "times": 9})
    (outcome,) = vsphere.do(SEAL, vm_id)
    assert "an attribute of that name is there for HostSystem. Rename that one" in outcome.msg
    without_attribute(vsphere)


def test_a_vm_that_was_cut_at_its_host_itself_is_freed_at_the_vcenter(vsphere: VsphereBench) -> None:
    """While the vCenter was away, say: on a host the note lies in the VM's extra configuration."""
    vm_id = vsphere.create("desk1")
    former = vsphere.wiring(vm_id)
    vsphere.one(SEAL, vm_id)
    ((_kind, text),) = noted(vsphere, vm_id)
    (key,) = (one.key for one in vsphere.inventory.customFieldsManager.field if one.name == NOTE)
    vsphere.inventory.customFieldsManager.SetField(vsphere.machine(vm_id), key, "")
    option = vim.option.OptionValue(key=NOTE, value=text)
    finish(vsphere.machine(vm_id).ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[option])))
    assert vsphere.vm(vm_id).note is not None
    vsphere.one(FREE, vm_id)
    assert (vsphere.vm(vm_id).note, vsphere.wiring(vm_id)) == (None, former)
    assert not vsphere.one(FREE, vm_id).changed


def test_a_note_of_a_later_version_is_not_taken_for_one_of_ours(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.one(SEAL, vm_id)
    ((_kind, text),) = noted(vsphere, vm_id)
    (key,) = (one.key for one in vsphere.inventory.customFieldsManager.field if one.name == NOTE)
    later = json.dumps({**json.loads(text), "v": 2})
    vsphere.inventory.customFieldsManager.SetField(vsphere.machine(vm_id), key, later)
    (outcome,) = vsphere.do(FREE, vm_id)
    assert "version 2" in outcome.msg
    assert '"now": "down"' in vsphere.wiring(vm_id)


@pytest.mark.parametrize(("first", "then"), [(SEAL, FORENSIC), (FORENSIC, SEAL)], ids=["sealed", "forensic"])
def test_a_change_of_mode_that_fails_is_not_told_as_free(vsphere: VsphereBench, first: Any, then: Any) -> None:
    """The cards are cut as before: whoever reads this must not think that the VM is open."""
    vm_id = vsphere.create("desk1")
    vsphere.one(first, vm_id)
    vsphere.hurt(vm_id)
    (outcome,) = vsphere.do(then, vm_id)
    assert "The lock is held" in outcome.msg
    assert outcome.after["isolation"] == first.mode.value
    vsphere.mend()
    vsphere.one(then, vm_id)
    assert vsphere.vm(vm_id).isolation is then.mode


def changed_address(vsphere: VsphereBench, vm_id: str, address: str) -> None:
    device = next(one for one in vsphere.machine(vm_id).config.hardware.device if isinstance(one, card))
    device.macAddress, device.addressType = address, "manual"
    change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=device)
    finish(vsphere.machine(vm_id).ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))


def test_a_card_whose_address_was_changed_while_it_was_cut_is_told_as_not_known(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1")
    vsphere.one(SEAL, vm_id)
    changed_address(vsphere, vm_id, mac(7))
    (refused,) = vsphere.do(FREE, vm_id)
    assert mac(7) in refused.msg
    again = vsphere.one(SEAL, vm_id)
    assert any(f"NIC {mac(7)} was cut already" in told for told in again.warnings)
    assert any("ledger" in told for told in again.warnings)


def test_a_card_that_is_gone_when_its_vm_is_freed_is_told(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1", ["tap", "tap"])
    vsphere.one(SEAL, vm_id)
    device = next(one for one in vsphere.machine(vm_id).config.hardware.device if isinstance(one, card))
    change = vim.vm.device.VirtualDeviceSpec(operation="remove", device=device)
    finish(vsphere.machine(vm_id).ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))
    freed = vsphere.one(FREE, vm_id)
    assert freed.steps[0] == "restore the former wiring of 1 NIC(s)"
    assert any(f"NIC {mac(0)} is gone since it was cut" in told for told in freed.warnings)
