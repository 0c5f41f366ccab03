# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may carry frames without being a NIC of the VM: passed-through PCI devices, QEMU's own arguments. Pure.

Shared by every backend on QEMU, so that they judge alike. What is not known to carry none may carry some.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

# Base classes by the PCI Code and ID Assignment Specification: storage, display, multimedia, processing accelerator.
CARRY_NO_FRAMES = ("01", "03", "04", "12")
KINDS = {
    "02": "passed-through network card",
    "0d": "passed-through wireless controller",
    "0c03": "passed-through USB controller, on which a network card may sit",
}
UNKNOWN = "passed-through device, which may be a network card"

OPTIONS = ("net", "netdev", "nic", "readconfig")
# Substrings of QEMU's names of NICs (`qemu-system-x86_64 -device help`) and of devices that bring one from the host.
DRIVERS = re.compile(
    r"net|e1000|igb|rtl8139|pcnet|ne2k|tulip|i82[58]|lan9118|smc91|sungem|sunhme|rocker|rdma|spapr-vlan|dp83932"
    r"|vfio|vdpa|usb-host|usb-redir"
)


def pci_kind(code: str) -> str:
    """What a device of this class (``0x020000``) is, if it may carry frames; empty when it carries none."""
    digits = code.lower().replace("0x", "", 1)
    if digits[:2] in CARRY_NO_FRAMES:
        return ""
    return KINDS.get(digits[:4]) or KINDS.get(digits[:2]) or UNKNOWN


def has_own_nic(words: Sequence[str]) -> bool:
    """Do QEMU's arguments bring a NIC of their own?"""
    return any(option in OPTIONS or DRIVERS.search(driver) for option, driver in options(words))


def options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each option without its dashes, and for ``device`` the driver that it names."""
    for word, value in zip(words, [*words[1:], ""]):
        option = re.sub(r"^--?", "", word) if word.startswith("-") else ""
        yield option, driver_of(value) if option == "device" else ""


def driver_of(value: str) -> str:
    """From ``driver,id=...``, ``driver=...`` anywhere in it, or JSON."""
    if value.lstrip().startswith("{"):
        try:
            return str(json.loads(value).get("driver", "")).lower()
        except (ValueError, AttributeError, RecursionError):
            return value.lower()
    named = re.search(r"(?:^|,)driver=([^,]*)", value)
    return (named[1] if named else value.partition(",")[0]).lower()
