# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs in a guest, by VMware Tools: no network of the guest is needed, so that an isolated VM is asked as well.

vSphere hands no output out but by a file in the guest: it lies in the guest's shared memory where there is one, and is
removed again. Everything that the guest answers may be a lie: paths are checked, sizes bounded, times too.

Sources: U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.guest.ProcessManager.html),
U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.guest.FileManager.html).
"""

from __future__ import annotations

import re
import shlex
import threading
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Callable
from urllib.parse import urlsplit

from .._errors import AuthFailed, TaskFailed, TimedOut, Unsupported, VmwardError
from .._hypervisor import GuestOutput, Pending
from .._model import Vm, printable
from .._wait import poll_all
from .connection import told, vim
from .download import Download
from .steps import Work

FAMILY = "linuxGuest"
NO_DISK = "/dev/shm"  # a guest's shared memory: what is written there touches no disk that is evidence
DIRECTORY = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}){1,8}")
TIDYING = 10.0  # seconds that tidying up may take at the end
BLOCK = 512  # bytes in the unit of a shell's ulimit -f
SCRIPT = 'ulimit -f {blocks}; PATH=$PATH:/usr/sbin:/sbin; exec "$@" >{place}/out 2>{place}/err </dev/null'


class GuestVerbs(Work):
    """The part of the contract that asks the guest."""

    def guest_run(self, vm: Vm, argv: Sequence[str], deadline: float, limit: int) -> GuestOutput:
        errand = Errand(self, vm, argv[0], deadline)
        errand.require_tools()
        place = errand.directory()
        try:
            return errand.run(place, argv, limit)
        finally:
            errand.tidy(place)


class Errand:
    """One program in one guest."""

    def __init__(self, work: Work, vm: Vm, program: str, deadline: float) -> None:
        options = work.link.options
        self.work, self.vm, self.link = work, vm, work.link
        self.what, self.deadline, self.end = f"run {program} in the guest of", deadline, time.monotonic() + deadline
        self.start = f"Cannot {self.what} {vm.ref.name} ({vm.ref.id}) on {work.name}"
        self.machine, self.pid = work.machine(vm.ref), 0
        self.user = options["guest_username"]
        self.login = vim.vm.guest.NamePasswordAuthentication(
            username=self.user, password=options["guest_password"], interactiveSession=False
        )

    def require_tools(self) -> None:
        """Raise ``Unsupported`` before anything is written into a guest that cannot be asked."""
        paths = "guest.guestOperationsReady", "guest.toolsRunningStatus", "guest.guestFamily"
        props = self.ask(lambda: self.work.properties("look for the Tools", self.machine, *paths))
        family = props.get("guest.guestFamily") or "not told"
        if not props.get("guest.guestOperationsReady"):
            state = printable(str(props.get("guest.toolsRunningStatus") or "not told"), 60)
            raise Unsupported(f"{self.start}: VMware Tools in it take no orders (their state: {state}).")
        if family != FAMILY:
            raise Unsupported(f"{self.start}: it is no Linux guest ({printable(family, 60)}), which alone is asked.")
        manager = self.link.content.guestOperationsManager
        if manager is None:
            raise Unsupported(f"{self.start}: this server has no guest operations.")
        props = self.ask(
            lambda: self.work.properties("find the guest operations", manager, "processManager", "fileManager")
        )
        self.processes, self.files = props["processManager"], props["fileManager"]

    def ask(self, call: Callable[[], Any], end: float = 0.0) -> Any:
        """A call that the guest has a word in: it may never be answered."""
        left = (end or self.end) - time.monotonic()
        if left <= 0:
            raise self.late()
        future = self.work.tasks.crew.submit(lambda: self.link.run(self.what, self.vm.ref, call, False))
        try:
            return future.result(left)
        except FutureTimeout as exc:
            raise self.late() from exc
        except VmwardError as exc:
            raise self.judged(exc) from exc.__cause__

    def late(self) -> TimedOut:
        return TimedOut(f"{self.start}: the guest has not answered within {self.deadline:g} s.")

    def judged(self, error: VmwardError) -> VmwardError:
        """A guest that cannot be asked is an outcome; a log-in that is wrong is ours to correct."""
        fault = error.__cause__
        if isinstance(fault, (vim.fault.InvalidGuestLogin, vim.fault.GuestPermissionDenied)):
            return AuthFailed(
                f"{self.start}: the guest refuses {printable(str(self.user), 60)} ({told(fault)}). Check "
                f"guest_username and guest_password of {self.work.name}, or give the class connections up by name "
                "(vmward_waive)."
            )
        if isinstance(fault, vim.fault.GuestOperationsFault):
            return Unsupported(f"{self.start}: {told(fault)}.")
        return error

    def directory(self) -> str:
        """A directory of its own in the guest, by the guest's word."""
        make = self.files.CreateTemporaryDirectoryInGuest
        try:
            try:
                place = self.ask(lambda: make(self.machine, self.login, "vmward", "", NO_DISK))
            except VmwardError as exc:
                if not isinstance(exc.__cause__, vim.fault.FileFault):
                    raise
                place = self.ask(lambda: make(self.machine, self.login, "vmward", "", None))
        except TimedOut:
            self.tell("A temporary directory vmward* may be left in the guest.")
            raise
        if not DIRECTORY.fullmatch(place):
            raise TaskFailed(f"{self.start}: the guest names a strange directory, {printable(place, 200)!r}.")
        return str(place)

    def run(self, place: str, argv: Sequence[str], limit: int) -> GuestOutput:
        script = SCRIPT.format(blocks=limit // BLOCK + 1, place=place)
        spec = vim.vm.guest.ProcessManager.ProgramSpec(
            programPath="/bin/sh",
            arguments=" ".join(shlex.quote(word) for word in ("-c", script, "sh", *argv)),
            workingDirectory="/",
        )
        self.pid = self.ask(lambda: self.processes.StartProgramInGuest(self.machine, self.login, spec))
        status = self.awaited()
        out, err = (self.fetched(f"{place}/{name}", limit) for name in ("out", "err"))
        return GuestOutput(status, out[:limit], err[:limit], len(out) > limit or len(err) > limit)

    def awaited(self) -> int:
        """The program's exit status."""
        seen: list[Any] = []

        def ended() -> bool:
            seen[:] = self.ask(
                lambda: self.processes.ListProcessesInGuest(self.machine, self.login, [self.pid])
            ) or []  # fmt: skip
            if not seen:
                raise TaskFailed(f"{self.start}: the guest does not know its process {self.pid} any more.")
            return seen[0].endTime is not None

        pending = Pending(self.vm.ref, self.what, ended)
        error = poll_all([pending], max(self.end - time.monotonic(), 0.0))[self.vm.ref.id]
        if error is not None:
            raise self.late() if isinstance(error, TimedOut) else error
        self.pid = 0
        return int(-1 if seen[0].exitCode is None else seen[0].exitCode)

    def fetched(self, path: str, limit: int) -> bytes:
        """A file of the guest, from the host that has the VM; one byte more than the limit at most."""
        told_of = self.ask(lambda: self.files.InitiateFileTransferFromGuest(self.machine, self.login, path))
        host = f"[{self.link.host}]" if ":" in self.link.host else self.link.host
        source = urlsplit(told_of.url.replace("//*", f"//{host}:{self.link.port}", 1))
        if source.scheme != "https":
            raise TaskFailed(f"{self.start}: vSphere offers its output at {printable(told_of.url, 120)}, not by HTTPS.")
        place = source.path + (f"?{source.query}" if source.query else "")
        download = Download(self.link, self.vm.ref, self.what, source.hostname or "", source.port or 443)
        timer = threading.Timer(max(self.end - time.monotonic(), 0.0), download.halt)
        timer.start()
        try:
            download.begin(place, {}, "Its address may have ended. Run again.")
            return download.read(limit + 1)
        except TaskFailed as exc:
            raise (self.late() if download.halted else exc) from exc
        finally:
            timer.cancel()
            download.close()

    def tidy(self, place: str) -> None:
        """End what still runs, and remove what was written. What stays is told."""
        end = time.monotonic() + TIDYING
        try:
            if self.pid:
                self.ask(lambda: self.processes.TerminateProcessInGuest(self.machine, self.login, self.pid), end)
            self.ask(lambda: self.files.DeleteDirectoryInGuest(self.machine, self.login, place, True), end)
        except VmwardError as exc:
            self.tell(f"{exc} What was written into its {place} may still be there, and the program may still run.")

    def tell(self, remark: str) -> None:
        self.work.told.setdefault(self.vm.ref.id, []).append(remark)
