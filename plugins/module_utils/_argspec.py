# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specs as values: each function is one documentation fragment of the same name."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import env_fallback

Spec = dict[str, dict[str, Any]]


def hypervisors_spec() -> Spec:
    """C(hypervisors): the managed endpoints, by name."""
    return {"hypervisors": {"type": "dict", "required": True}}


def vms_spec() -> Spec:
    """C(vms), C(only) and C(report_only): which VMs, and how failures are told."""
    return {
        "vms": {"type": "list", "elements": "str", "required": True},
        "only": {"type": "list", "elements": "str", "default": []},
        "report_only": {"type": "bool", "default": False},
    }


def wait_spec(seconds: int = 300) -> Spec:
    """C(deadline): seconds for the whole task."""
    return {"deadline": {"type": "int", "default": seconds}}


def batch_spec(seconds: int = 300) -> Spec:
    """What every batch verb takes."""
    return {**hypervisors_spec(), **vms_spec(), **wait_spec(seconds)}


def collector_spec() -> Spec:
    """One collector of C(forensic) isolation."""
    return {
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
        "opened_by": {"type": "str", "choices": ["collector", "vm"], "default": "collector"},
        "via": {"type": "str"},
    }


LIBVIRT: Spec = {
    "connect_timeout": {"type": "int", "default": 15},
    "uri": {"type": "str", "required": True},
    "data_host": {"type": "str"},
    "data_uri": {"type": "str", "default": "qemu:///system"},
}

FAKE: Spec = {
    "path": {"type": "path", "required": True},
    "data_host": {"type": "str"},
}

VSPHERE: Spec = {
    "hostname": {"type": "str", "required": True},
    "port": {"type": "int", "default": 443},
    "username": {"type": "str", "required": True, "fallback": (env_fallback, ["VMWARD_VSPHERE_USERNAME"])},
    "password": {
        "type": "str",
        "required": True,
        "no_log": True,
        "fallback": (env_fallback, ["VMWARD_VSPHERE_PASSWORD"]),
    },
    "ca_path": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "forensic_network": {"type": "str"},
    "guest_username": {"type": "str"},
    "guest_password": {
        "type": "str",
        "no_log": True,
        "fallback": (env_fallback, ["VMWARD_VSPHERE_GUEST_PASSWORD"]),
    },
    "timeout": {"type": "int", "default": 60},
    "data_host": {"type": "str"},
}

PROXMOX: Spec = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "default": 8006},
    "token_id": {"type": "str"},
    "token_secret": {"type": "str", "no_log": True, "fallback": (env_fallback, ["VMWARD_PROXMOX_TOKEN_SECRET"])},
    "user": {"type": "str"},
    "password": {"type": "str", "no_log": True, "fallback": (env_fallback, ["VMWARD_PROXMOX_PASSWORD"])},
    "ca_path": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "quarantine": {"type": "str"},
    "data_host": {"type": "str"},
}

BACKENDS: dict[str, Spec] = {"libvirt": LIBVIRT, "fake": FAKE, "vsphere": VSPHERE, "proxmox": PROXMOX}
