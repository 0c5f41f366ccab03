# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation shared by everything that talks to hypervisors."""

from __future__ import annotations


class ModuleDocFragment:
    """The fragments: C(hypervisors) alone, C(hypervisors.batch) for batch verbs."""

    DOCUMENTATION = r"""
options:
  hypervisors:
    description:
      - The managed endpoints, by a name of your choice. Each entry has exactly one key, its kind.
      - V(libvirt) takes C(uri) (required, see U(https://libvirt.org/uri.html)); C(data_host), the inventory host that
        can read the VM's disks; C(data_uri), the URI to use when a task runs on that host (default
        V(qemu:///system)); and C(connect_timeout), the seconds within which a session must be open (default V(15)).
      - V(vsphere) is a vCenter or a stand-alone ESXi host. It takes C(hostname), C(username) and C(password) (required;
        the last two may come from the environment variables E(VMWARD_VSPHERE_USERNAME) and
        E(VMWARD_VSPHERE_PASSWORD)); C(port) (default 443); C(ca_path), a PEM file with the authority that signed the
        server's certificate (default is the system's own list); C(validate_certs) (default V(true); V(false) warns);
        C(forensic_network), the name of the isolation port group, standard or distributed, that C(forensic) isolation
        moves network cards to (without it there is no C(forensic)); C(guest_username) and C(guest_password), a log-in
        of the guests, as which M(vmward.remediation.vm_guest_run) runs its programs by VMware Tools (the password may
        come from E(VMWARD_VSPHERE_GUEST_PASSWORD); without both no guest is asked); C(timeout), seconds for one answer
        (default 60); and C(data_host).
      - V(proxmox) takes C(host) (required), a node of the cluster that all calls go through; C(port) (default V(8006));
        C(token_id) (V(user@realm!name)) with C(token_secret), or C(user) (V(user@realm)) with C(password); C(ca_path),
        the cluster's CA certificate (on a node V(/etc/pve/pve-root-ca.pem)); C(validate_certs) (default V(true));
        C(quarantine), the bridge or VNet that C(forensic) moves network cards to; and C(data_host), the
        node that can read the VM's disks. The secrets may come from the environment variables
        E(VMWARD_PROXMOX_TOKEN_SECRET) and E(VMWARD_PROXMOX_PASSWORD), and are shown nowhere.
      - V(fake) takes C(path) (required), the state file of a simulated hypervisor for tours and tests; and
        C(data_host).
      - "For example V({kvm1: {libvirt: {uri: 'qemu:///system', data_host: kvm1}}, pve: {proxmox: {host: pve1, token_id: 'ir@pve!contain',
        ca_path: pve-root-ca.pem}}})."
    type: dict
    required: true
requirements:
  - python >= 3.9
  - libvirt-python (for hypervisors of kind libvirt)
  - pyvmomi (for hypervisors of kind vsphere)
  - proxmoxer >= 2.0 and requests (for hypervisors of kind proxmox)
"""

    BATCH = r"""
options:
  vms:
    description:
      - The VMs, each by name, id (UUID; on vSphere the instance UUID, on Proxmox VE the VMID), MAC address or IP address,
        or by what the hypervisor has besides, such as vSphere's managed object id, V(tag:NAME) on Proxmox VE and
        vSphere (there also V(tag:CATEGORY/NAME)), or V(pool:NAME) on Proxmox VE. A name that the inventory gives to VMs
        of the same name (C(NAME_HYPERVISOR)) is taken, too. Each must match exactly one VM over all hypervisors.
    type: list
    elements: str
    required: true
  only:
    description:
      - Look only on these hypervisors, for example while another one cannot be reached. Empty means all.
      - While one of them cannot be asked, VMs on the others can still be read and isolated, with a warning. Every other
        verb refuses, since a second VM of the same name might be there; name the others here to go on without it.
    type: list
    elements: str
    default: []
  report_only:
    description:
      - Tell failures in RV(vms) without failing the task. The M(vmward.remediation.outcome) action then fails each
        host on its own result.
      - Without it, all is done that can be done, and then the task fails, naming each failure.
    type: bool
    default: false
  deadline:
    description:
      - Seconds for the whole task, log-in and listing included. What still runs then is reported as still running, and a
        second run takes it up. Listing and reading have 5 seconds in any case, and reading back what was changed 10.
    type: int
"""
