# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the guest's CPUs stood still: from QEMU's own time stamps of its STOP and RESUME events.

Source: U(https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html#run-state).
"""

from __future__ import annotations

import threading
import time
from typing import Any

from .connection import libvirt

WAKE = 100  # milliseconds between looks at whether to end
LATE = 1.0  # seconds that an event may lag behind the end of the dump


class FreezeWatch:
    """Listens on a connection of its own: libvirt delivers events only to one opened after its event loop exists."""

    def __init__(self, uri: str, vm_id: str) -> None:
        self.stamps: list[tuple[str, float]] = []
        self.ended = threading.Event()
        self.conn: Any = None
        try:
            import libvirt_qemu

            libvirt.virEventRegisterDefaultImpl()
            libvirt.virEventAddTimeout(WAKE, lambda *_args: None, None)
            self.conn = libvirt.open(uri)
            domain = self.conn.lookupByUUIDString(vm_id)
            by_pattern = libvirt_qemu.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX
            libvirt_qemu.qemuMonitorEventRegister(
                self.conn, domain, "^(STOP|RESUME)$", self._on_event, None, by_pattern
            )
        except (ImportError, libvirt.libvirtError):
            self.conn = None  # the duration of the dump then stands as an upper bound
        else:
            threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while not self.ended.is_set():
            libvirt.virEventRunDefaultImpl()

    def _on_event(
        self, _conn: Any, _dom: Any, event: str, seconds: int, micros: int, _details: Any, _opaque: Any
    ) -> None:
        self.stamps.append((event, seconds + micros / 1e6))

    def seconds(self) -> float | None:
        """The time between each STOP and its RESUME; None when they were not all seen."""
        end = time.monotonic() + LATE
        while self.conn is not None and unpaired(self.stamps) and time.monotonic() < end:
            self.ended.wait(0.05)
        self.ended.set()
        return stood_still(self.stamps)


def unpaired(stamps: list[tuple[str, float]]) -> bool:
    return not stamps or stamps[-1][0] != "RESUME"


def stood_still(stamps: list[tuple[str, float]]) -> float | None:
    """Sum of the pauses in a list of (STOP or RESUME, time); None when it is no such list."""
    events = [event for event, _when in stamps]
    if not events or events != ["STOP", "RESUME"] * (len(events) // 2):
        return None
    times = [when for _event, when in stamps]
    return sum(times[1::2]) - sum(times[::2])
