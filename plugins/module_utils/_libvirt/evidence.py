# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory, disks and guest state on libvirt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Tuple

from .._errors import Unsupported
from .._hypervisor import GuestOutput, Pending
from .._model import Vm
from .connection import Connection


class EvidenceVerbs:
    """The Evidence part of the contract."""

    link: Connection

    def submit_memory_dump(self, vm: Vm, path: str) -> Pending:
        raise Unsupported("Cannot dump the memory of %s: not built yet." % vm.ref.name)

    def submit_disk_export(self, vm: Vm, disk_id: str, path: str) -> Pending:
        raise Unsupported("Cannot export disk %s of %s: not built yet." % (disk_id, vm.ref.name))

    def progress(self, vm: Vm) -> Tuple[int, int]:
        raise Unsupported("Cannot read the progress on %s: not built yet." % vm.ref.name)

    def guest_run(self, vm: Vm, argv: Sequence[str], deadline: float, limit: int) -> GuestOutput:
        raise Unsupported("Cannot run %s in %s: not built yet." % (argv[0], vm.ref.name))
