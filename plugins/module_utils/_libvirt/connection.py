# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One libvirt URI: connected again when libvirtd was restarted, its errors put into sentences.

Source: U(https://libvirt.org/html/libvirt-virterror.html).
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from typing import Any, Callable, TypeVar

from .._errors import AuthFailed, NotFound, TaskFailed, TimedOut, Unsupported, VmwardError
from .._model import VmRef, printable

try:
    import libvirt
except ImportError as _exc:  # told as a sentence when a connection is wanted
    libvirt = None
    IMPORT_ERROR: ImportError | None = _exc
else:
    IMPORT_ERROR = None

__all__ = ["Connection", "libvirt"]

T = TypeVar("T")
RESTART = 30.0  # seconds that a restarting libvirtd is waited for


def opened(uri: str) -> Any:
    """The connection, or libvirt's error."""
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as exc:
        return exc


def alive(conn: Any) -> bool:
    try:
        return bool(conn.isAlive())
    except libvirt.libvirtError:
        return False


def closed(conn: Any) -> None:
    with suppress(libvirt.libvirtError):  # the other side may be gone: nothing is left to log out from
        conn.close()


class Connection:
    """Calls into libvirt, each with the words for its failure.

    Each call that is under way has a connection to itself: where one does not return, libvirt 9 may keep the answers
    to other calls of that connection waiting too.
    """

    def __init__(self, name: str, uri: str, timeout: float = 15) -> None:
        if libvirt is None:
            raise Unsupported(
                f"Cannot use hypervisor {name}: the Python library libvirt is missing ({IMPORT_ERROR}). "
                "Install python3-libvirt, or libvirt-python with pip, for the interpreter that runs this task."
            ) from IMPORT_ERROR
        self.name, self.uri, self.timeout = name, uri, timeout
        libvirt.registerErrorHandler(lambda _context, _error: None, None)  # libvirt would print to stderr
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._lent: set[object] = set()  # the calls under way
        self._idle.put(self._open())

    def _open(self) -> Any:
        """libvirt has no time limit of its own here, and a host that drops packets answers after minutes."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=lambda: answer.put(opened(self.uri)), daemon=True).start()
        try:
            conn = answer.get(timeout=self.timeout)
        except queue.Empty:
            raise TimedOut(
                f"Cannot open a session on {self.name}: no answer from {self.uri} within {self.timeout:g} s. "
                "Check that the host is up and reached from here; a slow one needs a higher connect_timeout."
            ) from None
        if isinstance(conn, libvirt.libvirtError):
            raise self.sentence(conn, "open a session", None) from conn
        return conn

    def close(self) -> None:
        """What does not return keeps its connection."""
        with suppress(queue.Empty):
            while True:
                closed(self._idle.get_nowait())

    def _one(self) -> Any:
        """An idle connection, else a new one; a host that lets nobody in again so soon leaves that of another call."""
        with suppress(queue.Empty):
            return self._idle.get_nowait()
        try:
            return self._open()
        except VmwardError:
            with suppress(queue.Empty):
                return self._idle.get(bool(self._lent), self.timeout)
            raise

    def call(self, what: str, vm: VmRef | None, action: Callable[[Any], T], repeat: bool = True) -> T:
        """Run ``action(conn)``. After a lost connection, connect again and repeat it once, if it may be repeated."""
        conn, mark = self._one(), object()
        self._lent.add(mark)
        try:
            try:
                return action(conn)
            except libvirt.libvirtError as exc:
                if alive(conn) or not repeat:
                    raise self.sentence(exc, what, vm) from exc
            closed(conn)
            conn = self._opened_again()
            try:
                return action(conn)
            except libvirt.libvirtError as exc:
                raise self.sentence(exc, what, vm) from exc
        finally:
            self._lent.discard(mark)
            if alive(conn):
                self._idle.put(conn)

    def domain(self, vm: VmRef, what: str, action: Callable[[Any], T], repeat: bool = True) -> T:
        """Run ``action(domain)`` on the VM, looked up anew, since a domain object dies with its connection."""
        return self.call(what, vm, lambda conn: action(conn.lookupByUUIDString(vm.id)), repeat)

    def _opened_again(self) -> Any:
        end = time.monotonic() + RESTART
        while True:
            try:
                return self._open()
            except VmwardError:
                if time.monotonic() >= end:
                    raise
            time.sleep(0.5)

    def sentence(self, exc: Any, what: str, vm: VmRef | None) -> VmwardError:
        """Cannot <operation> <vm> (<uuid>) on <hypervisor>: <cause>. <what to do>."""
        code, cause = exc.get_error_code(), printable(exc.get_error_message() or str(exc), 300).rstrip(".")
        whom = f" {printable(vm.name)} ({vm.id})" if vm else ""
        start = f"Cannot {what}{whom} on {self.name}: {cause}."
        if code in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT, libvirt.VIR_ERR_NO_STORAGE_VOL):
            return NotFound(start + " It may have been removed meanwhile: list what there is with vm_info.")
        # The socket or SSH refuses with a system error. Of a VM, "permission denied" is about its files.
        if (vm is None and "permission denied" in cause.lower()) or code in (
            libvirt.VIR_ERR_AUTH_FAILED,
            libvirt.VIR_ERR_AUTH_CANCELLED,
            libvirt.VIR_ERR_AUTH_UNAVAILABLE,
            libvirt.VIR_ERR_ACCESS_DENIED,
            libvirt.VIR_ERR_OPERATION_DENIED,
        ):
            return AuthFailed(
                f"{start} Run as root or as a member of group libvirt, correct the log-in of {self.uri}, or let its "
                "polkit rules (org.libvirt.api) allow this."
            )
        if code in (
            libvirt.VIR_ERR_NO_SUPPORT,
            libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
            libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
            libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        ):
            return Unsupported(start + " This libvirt cannot do it: do it by hand, or update it.")
        if code == libvirt.VIR_ERR_OPERATION_TIMEOUT:
            return TimedOut(start + " Another job may hold it: see virsh domjobinfo, then run again.")
        if code == libvirt.VIR_ERR_AGENT_UNRESPONSIVE:
            return TimedOut(start + " Do without the guest's agent, or look whether it runs.")
        if vm is None:
            return TaskFailed(start + f" Check that libvirtd runs there and that the URI {self.uri} is right.")
        return TaskFailed(start + f" See the log of libvirtd on {self.name}.")
