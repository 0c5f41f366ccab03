# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks, from Proxmox VE's configuration strings and its storages' lists. Pure.

Source: U(https://pve.proxmox.com/pve-docs/chapter-pvesm.html).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .._model import Disk, Layer
from .convert import Data, Seen, fields

DRIVE = re.compile(r"(ide|sata|scsi|virtio|efidisk|tpmstate)\d+$")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
NEWEST_ONLY = ("zfspool", "zfs")  # storages that go back to the newest snapshot only: ZFS here, and over iSCSI


def drives_of(seen: Seen) -> dict[str, dict[str, str]]:
    """Each disk with a volume: its fields, the volume under ``volume``. CD drives with a medium count as read only."""
    found = {}
    for key in seen.keys(DRIVE):
        value = seen.live(key) or seen.config(key)
        volume, _comma, rest = value.partition(",")
        volume = volume.removeprefix("file=")
        if value and volume not in ("none", "cdrom"):
            found[key] = {**fields(rest), "volume": volume}
    return found


def disk_of(key: str, drive: Mapping[str, str], volumes: Mapping[str, Data]) -> Disk:
    volume = drive["volume"]
    told = volumes.get(volume, {})
    size = int(told.get("size") or 0) or size_of(drive.get("size", ""))
    read_only = drive.get("media") == "cdrom" or drive.get("ro") == "1"
    return Disk(
        key, key.rstrip("0123456789"), size, int(told.get("used") or 0), read_only, layers_of(volume, drive, told)
    )


def layers_of(volume: str, drive: Mapping[str, str], told: Mapping[str, Any]) -> tuple[Layer, ...]:
    """A linked clone names its base in its own volume: storage:9000/base-9000-disk-0.qcow2/104/vm-104-disk-0.qcow2."""
    format_ = str(drive.get("format") or told.get("format") or by_name(volume))
    top = Layer(volume, format_)
    storage, _colon, path = volume.partition(":")
    parts = path.split("/")
    base = [n for n, part in enumerate(parts[:-1]) if part.startswith("base-")]
    if not base:
        return (top,)
    return top, Layer(f"{storage}:{'/'.join(parts[: base[0] + 1])}", by_name(parts[base[0]]))


def by_name(volume: str) -> str:
    """PVE itself takes the format from the name: a suffix on storages of files, raw on all others."""
    suffix = volume.rpartition(".")[2]
    return suffix if suffix in ("qcow2", "raw", "vmdk") else "raw"


def size_of(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    return int(float(found[1]) * UNITS[found[2]]) if found else 0
