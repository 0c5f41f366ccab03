# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where VMs and networks lie in larger installations of vSphere: vApps, opaque networks, port groups that went."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

from ansible_collections.vmward.remediation.plugins.module_utils._connect import connect
from ansible_collections.vmward.remediation.plugins.module_utils._errors import NotFound
from ansible_collections.vmward.remediation.plugins.module_utils._model import VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._plan import execute
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.info import Info
from ansible_collections.vmward.remediation.plugins.module_utils._usecase.resolve import resolve
from ansible_collections.vmward.remediation.tests.conformance.benches import mac
from ansible_collections.vmward.remediation.tests.conformance.vsphere import FORENSIC, FREE, ON, VsphereBench, finish
from ansible_collections.vmward.remediation.tests.vcsim.server import PASSWORD, USER, Vcsim


@pytest.fixture
def vapp(vsphere: VsphereBench) -> Iterator[vim.VirtualApp]:
    """An empty one."""
    resources = vim.ResourceConfigSpec(
        cpuAllocation=vim.ResourceAllocationInfo(reservation=0, limit=-1, expandableReservation=True),
        memoryAllocation=vim.ResourceAllocationInfo(reservation=0, limit=-1, expandableReservation=True),
    )
    for allocation in (resources.cpuAllocation, resources.memoryAllocation):
        allocation.shares = vim.SharesInfo(level="normal", shares=0)
    made = vsphere.pool.CreateVApp("shop", resources, vim.vApp.VAppConfigSpec(), vsphere.centre.vmFolder)
    yield made
    finish(made.Destroy_Task())


def test_a_vm_in_a_vapp_is_found_by_its_path_and_gives_its_memory(
    vsphere: VsphereBench, vapp: vim.VirtualApp, tmp_path: Path
) -> None:
    """vSphere tells no folder of it."""
    outside, vsphere.pool = vsphere.pool, vapp
    vm_id = vsphere.create("desk1")
    vsphere.pool = outside
    try:
        refs = vsphere.hypervisor.refs()
        found = resolve([vsphere.hypervisor], refs, ["/DC0/vm/shop/desk1", "/DC0/vm/desk1", "/desk1"])
        assert [getattr(one, "id", None) for one in found.values()] == [vm_id, None, None]
        dump = vsphere.hypervisor.submit_memory_dump(vsphere.vm(vm_id), str(tmp_path / "memory"))
        assert vsphere.hypervisor.wait([dump], 30)[vm_id] is None
        assert (tmp_path / "memory").stat().st_size > 4 << 20
    finally:
        vsphere.vanish(vm_id)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[VsphereBench]:
    """A vCenter of its own. New VMs are plugged into its port group C(doomed)."""
    with Vcsim(tmp_path) as server:
        bench = VsphereBench(server)
        spec = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(name="doomed", type="earlyBinding", numPorts=1)
        finish(bench.networks["DC0_DVPG0"].config.distributedVirtualSwitch.AddDVPortgroup_Task([spec]))
        bench.networks["DC0_DVPG0"] = {one.name: one for one in bench.centre.network}["doomed"]
        bench.hypervisor.refs()
        yield bench
        bench.hypervisor.close()
        Disconnect(bench.session)


def test_a_port_group_that_was_renamed_is_still_the_former_one(own: VsphereBench) -> None:
    vm_id = own.create("b\u00fcro-\u65e5\u672c")
    former = own.wiring(vm_id)
    own.one(FORENSIC, vm_id)
    finish(own.networks["DC0_DVPG0"].Rename_Task("renamed"))
    own.hypervisor.refs()
    own.one(FREE, vm_id)
    assert own.wiring(vm_id) == former


def test_a_port_group_that_is_gone_is_told_before_anything_is_touched(own: VsphereBench) -> None:
    vm_id = own.create("desk1")
    own.one(FORENSIC, vm_id)
    cut, key = own.wiring(vm_id), own.networks["DC0_DVPG0"].key
    finish(own.networks["DC0_DVPG0"].Destroy_Task())
    own.hypervisor.refs()
    for check in (True, False):
        (refused,) = own.do(FREE, vm_id, check=check)
        assert f"the port group that NIC {mac(0)} was plugged into is gone or not to be seen ({key})" in refused.msg
        assert "clear its custom attribute vmward.isolation" in refused.msg
        assert (refused.changed, own.wiring(vm_id)) == (False, cut)


def test_a_template_keeps_no_vm_from_being_found_by_its_address(vsphere: VsphereBench) -> None:
    golden = vsphere.create("golden", ["tap", "tap"], running=False)
    vm_id = vsphere.create("desk1", ["tap"], running=False)
    vsphere.machine(golden).MarkAsTemplate()
    try:
        refs = vsphere.hypervisor.refs()
        found = resolve([vsphere.hypervisor], refs, [mac(0), mac(1)])
    finally:
        vsphere.machine(golden).MarkAsVirtualMachine(vsphere.pool)
    assert found[mac(0)] == VmRef("hv1", vm_id, "desk1")
    assert isinstance(found[mac(1)], NotFound)


@pytest.fixture
def nsx(tmp_path: Path) -> Iterator[Vcsim]:
    """A simulated vCenter with one VM, and an opaque network of NSX."""
    with Vcsim(tmp_path, "-vms", "1", "-opaque", "1") as server:
        yield server


def test_an_opaque_network_is_refused_as_isolation_network_before_anything_is_touched(nsx: Vcsim) -> None:
    """Which distributed port group stands behind it is decided by NSX."""
    session = SmartConnect(host=nsx.host, port=nsx.port, user=USER, pwd=PASSWORD, disableSslCertValidation=True)
    (centre,) = session.RetrieveContent().rootFolder.childEntity
    (opaque,) = (one for one in centre.networkFolder.childEntity if isinstance(one, vim.OpaqueNetwork))
    hypervisor = connect("vc1", {"vsphere": {**nsx.entry["vsphere"], "forensic_network": opaque.name}})
    try:
        ref = hypervisor.refs()[0]
        before = hypervisor.read([ref.id])
        (outcome,) = execute(hypervisor, FORENSIC, [(ref.id, "vm")], 30, False)
        assert f"'{opaque.name}' is an opaque network of NSX" in outcome.msg
        assert hypervisor.read([ref.id]) == before
    finally:
        hypervisor.close()
        Disconnect(session)


# A question of vSphere's


def asks(vsphere: VsphereBench, vm_id: str, text: str) -> None:
    option = vim.option.OptionValue(key="vmward.test.question", value=text)
    finish(vsphere.machine(vm_id).ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[option])))


def test_a_question_that_vsphere_waits_for_is_told(vsphere: VsphereBench) -> None:
    vm_id = vsphere.create("desk1", running=False)
    asks(vsphere, vm_id, "This virtual machine might have been moved or copied.\nDid you copy it?")
    vsphere.server.delays(tasks={"PowerOn": 2_500})
    (outcome,) = vsphere.do(ON, vm_id, deadline=1)
    assert "it still runs after 1 s (task task-" in outcome.msg
    (warning,) = outcome.warnings
    assert "vSphere asks about it and waits: 'This virtual machine might have been moved or copied." in warning
    assert "Answer it in the vSphere Client" in warning
    assert "\n" not in warning
    vsphere.mend()
    asks(vsphere, vm_id, "")
    assert vsphere.one(Info(), vm_id).warnings == []
