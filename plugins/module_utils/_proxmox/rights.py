# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is what we are about to do allowed? Read before the first write, told privilege by privilege. Pure.

Source: U(https://pve.proxmox.com/pve-docs/pveum.1.html#pveum_permission_management).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Rights = Mapping[str, Mapping[str, int]]  # path -> privilege -> 1 when it holds below the path too
Need = tuple[str, tuple[str, ...]]  # a path, and privileges of which one is enough


def holds(rights: Rights, path: str, privilege: str, pool: str = "") -> bool:
    """Is the privilege held on the path: by itself, by one above it, or for a VM by its pool?"""
    if path in rights:
        return privilege in rights[path]
    above = path
    while above not in ("", "/"):
        above = above.rpartition("/")[0] or "/"
        if rights.get(above, {}).get(privilege):
            return True
        if above in rights and above != "/":
            break
    return bool(pool) and path.startswith("/vms/") and bool(rights.get(f"/pool/{pool}", {}).get(privilege))


def missing(rights: Rights, needs: Iterable[Need], pool: str = "") -> list[str]:
    """Each need that is not met, as a sentence's part."""
    return [
        f"{' or '.join(privileges)} on {path}"
        for path, privileges in needs
        if not any(holds(rights, path, privilege, pool) for privilege in privileges)
    ]


def on_vm(vmid: str, *privileges: str) -> Need:
    return f"/vms/{vmid}", privileges


def on_node(node: str, *privileges: str) -> Need:
    return f"/nodes/{node}", privileges


def on_bridges(rights: Rights, lans: Sequence[str]) -> list[Need]:
    """A bridge is a VNet of the zone ``localnetwork``; a VNet of another zone is told by that zone's path.

    A VLAN on it (vmbr0/20) has a path of its own.
    """
    needs: list[Need] = []
    for lan in sorted(set(lans)):
        bridge = lan.partition("/")[0]
        told = [path.split("/")[3] for path in rights if path.startswith("/sdn/zones/")
                and path.split("/")[4:5] == [bridge]]  # fmt: skip
        needs.append((f"/sdn/zones/{told[0] if told else 'localnetwork'}/{lan}", ("SDN.Use",)))
    return needs
