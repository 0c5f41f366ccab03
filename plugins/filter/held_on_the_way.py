# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: held_on_the_way
short_description: Say whether a run starts on, or leads through, a VM that may be infected
version_added: "0.1.0"
author: vmward contributors (@vmward)
description:
  - Looks for the controller, and for the jump hosts of the hosts to be reached, among the VMs of the inventory that are
    not free, and among the VMs that are named.
  - The controller is such a VM if one of its interfaces has a hardware address of it, or if its name is the VM's.
  - A jump host is what C(ansible_ssh_common_args), C(ansible_ssh_extra_args) and C(ansible_ssh_args) mention.
positional: _input
options:
  _input:
    description: The hosts to be reached.
    type: list
    elements: str
    required: true
  origin:
    description: What tells the controller, its name and the hardware addresses of its interfaces.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of all hosts of the inventory.
    type: dict
    required: true
  named:
    description: Hosts that count as not free, whatever the inventory says.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Refuse to start on a VM that may be infected
  ansible.builtin.assert:
    that: ansible_play_hosts_all | vmward.remediation.held_on_the_way(origin, hostvars) | length == 0
"""

RETURN = r"""
_value:
  description: A sentence for each such VM.
  type: list
  elements: str
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Callable

_WAYS = ("ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_ssh_args")


def held_on_the_way(
    hosts: Iterable[str], origin: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], named: Iterable[str] = ()
) -> list[str]:
    """A sentence for each VM that the run starts on or leads through, and that may be infected."""
    wanted = set(named)
    states = {
        name: "named as infected" if name in wanted else str(hostvars[name]["vmward_isolation"])
        for name in hostvars
        if name in wanted or hostvars[name].get("vmward_isolation", "free") != "free"
    }
    here = {word.lower() for text in origin for word in (text, text.split(".")[0])}
    ways = {host: _words(hostvars[host]) for host in hosts}
    told = []
    for name, state in sorted(states.items()):
        own = hostvars[name]
        names = {name, str(own.get("vmward_name") or name)}
        if here & {one.lower() for one in (*names, *own.get("vmward_macs", ()))}:
            told.append(f"This controller is the VM {name}, which is {state}.")
        names |= {str(own.get("ansible_host") or name), *own.get("vmward_addresses", ())}
        through = sorted(host for host, words in ways.items() if names & words)
        if through:
            told.append(f"The way to {through[0]} leads through the VM {name}, which is {state}.")
    return told


def _words(variables: Mapping[str, Any]) -> set[str]:
    """Whatever may name a host in the arguments of ssh: user@host:port, and an IPv6 address in brackets."""
    text = " ".join(str(variables.get(way) or "") for way in _WAYS)
    words = re.split(r"[\s,=@\"'\[\]]+", text)
    return {form for word in words for form in (word, word.rsplit(":", 1)[0])}


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"held_on_the_way": held_on_the_way}
