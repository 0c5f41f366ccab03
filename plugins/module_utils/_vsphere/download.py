# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One file from a vCenter or host, over HTTPS with the session's own idea of whom to trust."""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Callable, TypeVar

from .._errors import TaskFailed
from .._model import VmRef, printable
from .connection import LOST, Connection

T = TypeVar("T")
BUFFER = 1 << 20


class Download:
    """A file as it comes. Another thread may halt it."""

    def __init__(self, link: Connection, vm: VmRef, what: str, host: str = "", port: int = 0) -> None:
        self.link, self.vm, self.what = link, vm, what
        self.host, self.port = host or link.host, port or link.port
        self.line = http.client.HTTPSConnection(self.host, self.port, timeout=link.options["timeout"], context=link.tls)
        self.socket: Any = None
        self.halted = False
        self.body: Any = None

    def begin(self, place: str, headers: Mapping[str, str], needs: str) -> None:
        """Ask for it; ``needs`` says what an answer of another status may be for want of."""
        answer = self._over_the_line(lambda: self._asked(place, headers))
        if answer.status != 200:
            raise TaskFailed(
                f"Cannot {self.what} {self.vm.name} ({self.vm.id}) from {printable(self.host)}: HTTP status "
                f"{answer.status}. {needs}"
            )
        self._goes_on()  # else its reader would open the file that it writes
        self.body = io.BufferedReader(answer, BUFFER)

    def _asked(self, place: str, headers: Mapping[str, str]) -> Any:
        self.line.connect()
        self.socket = self.line.sock
        self._goes_on()
        self.line.request("GET", place, headers=dict(headers))
        return self.line.getresponse()

    def read(self, count: int) -> bytes:
        """So many bytes, or fewer at its end."""
        self._goes_on()
        data: bytes = self._over_the_line(lambda: self.body.read(count))
        return data

    def _over_the_line(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except LOST as exc:
            raise self.link.sentence(exc, self.what, self.vm, f"{printable(self.host)}:{self.port}") from exc

    def _goes_on(self) -> None:
        if self.halted:
            raise TaskFailed(f"Cannot {self.what} {self.vm.name} ({self.vm.id}): it was given up. Run again.")

    def halt(self) -> None:
        """Also before the connection stands: then it ends as soon as it does."""
        self.halted = True
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.line.close()
