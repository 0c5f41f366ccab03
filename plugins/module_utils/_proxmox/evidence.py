# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence on Proxmox VE."""

from __future__ import annotations

from collections.abc import Sequence

from .._errors import Unsupported
from .._hypervisor import GuestOutput, Pending
from .._model import Vm
from .work import Work


class EvidenceVerbs(Work):
    """The Evidence part of the contract."""

    def submit_memory_dump(self, vm: Vm, path: str) -> Pending:
        raise Unsupported(
            f"Cannot dump the memory of {vm.ref.name}: not on Proxmox VE yet. Take a snapshot with memory."
        )

    def submit_disk_export(self, vm: Vm, disk_id: str, path: str) -> Pending:
        raise Unsupported(f"Cannot export disk {disk_id} of {vm.ref.name}: not on Proxmox VE yet. Take a snapshot.")

    def progress(self, vm: Vm) -> tuple[int, int]:
        return (0, 0)

    def guest_run(self, vm: Vm, argv: Sequence[str], deadline: float, limit: int) -> GuestOutput:
        raise Unsupported(f"Cannot ask the guest of {vm.ref.name}: not on Proxmox VE yet.")
