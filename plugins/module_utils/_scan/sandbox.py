# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Child processes that may do nothing but read what they were given and report through a pipe each."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pwd
import resource
import select
import signal
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Callable

from .judge import Emit
from .seats import Seats

MAX_LINE = 1 << 16
MAX_TOTAL = (64 + 96) << 20  # the latter for all contents that are remembered
_PATIENCE = 10.0
_MOST_CPU = 1 << 31  # seconds: much more is taken for none
_NO_NEW_PRIVS, _DEATH_SIGNAL, _DUMPABLE, _KEEP_CAPABILITIES = 38, 1, 4, 8
_CAPABILITY_VERSION, _READ_ALL = 0x20080522, 1 << 2  # linux/capability.h: CAP_DAC_READ_SEARCH
_NEW_NETWORK, _NEW_IPC = 0x40000000, 0x08000000


@dataclass(frozen=True)
class Limits:
    """What the child may use. Memory counts on top of what it holds once the engines are loaded.

    `writes`: how long a file that it was given open for writing may become; 0 and it can write to none.
    `reads_all`: it keeps root's right to read every file, and no other.
    """

    deadline: float
    memory: int
    cpu: int
    writes: int = 0
    reads_all: bool = False


@dataclass(frozen=True)
class Ended:
    trouble: str
    cpu_seconds: float
    seconds: float = 0


@dataclass(frozen=True)
class Job:
    """What one child does. `prepare` runs with the caller's rights and returns the work, which runs without any.

    `keep`: the descriptors that it may use. `take` is given each of its messages.
    """

    prepare: Callable[[Emit], Callable[[Emit], None]]
    keep: Sequence[int]
    take: Callable[[str, dict[str, Any]], None]


def run_confined(
    prepare: Callable[[Emit], Callable[[Emit], None]],
    limits: Limits,
    keep: list[int],
    take: Callable[[str, dict[str, Any]], None],
    tick: Callable[[], None],
) -> Ended:
    """One child."""
    return run_all([Job(prepare, keep, take)], limits, tick)[0]


def run_all(
    jobs: Sequence[Job],
    limits: Limits,
    tick: Callable[[], None],
    at_once: int = 1,
    seats: Seats | None = None,
    over: Callable[[int, Ended], None] = lambda index, ended: None,
) -> list[Ended]:
    """A child for each job, so many at once; each has limits of its own, but for the deadline, which holds for all.

    `tick` is called at least once a second, `over` for each job that has ended. One that dies leaves the others alone.
    """
    late = "the deadline of %.0f s was reached" % limits.deadline
    left = min(1.0, limits.deadline)
    end = time.monotonic() + limits.deadline
    ended = [Ended(late + " before its turn", 0.0)] * len(jobs)
    waiting, running = list(range(len(jobs)))[::-1], dict[_Child, int]()
    try:
        while (waiting or running) and left > 0:
            while waiting and len(running) < at_once and (seats is None or seats.take()):
                index = waiting.pop()
                running[_Child(jobs[index], limits)] = index
            pause = 0.2 if waiting and len(running) < at_once else 1.0
            left = end - time.monotonic()
            ready = select.select(list(running), [], [], max(0.0, min(pause, left)))[0]
            tick()
            for child in running if left <= 0 else [one for one in ready if not one.goes_on()]:
                ended[running[child]] = child.end(late if left <= 0 else "")
                over(running[child], ended[running[child]])
            for child in [one for one in running if one.is_reaped]:
                del running[child]
                if seats is not None:
                    seats.leave()
    finally:
        for child in running:
            if not child.is_reaped:
                child.end("interrupted")
    return ended


class _Child:
    """One confined process, and what it says."""

    def __init__(self, job: Job, limits: Limits) -> None:
        self._take = job.take
        self._total, self._rest, self._trouble = 0, b"", ""
        self.is_reaped = False
        self._reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._reader)
            _child(job.prepare, limits, list(job.keep), writer)
        os.close(writer)

    def fileno(self) -> int:
        return self._reader

    def goes_on(self) -> bool:
        """Take what it says; False once it has said everything, or something that ends it."""
        data = os.read(self._reader, 1 << 16)
        if not data:
            return False
        self._total += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._total > MAX_TOTAL or len(self._rest) > MAX_LINE:
            self._trouble = "the scanning process reported more than it may"
            return False
        for line in lines:
            try:
                message = json.loads(line)
                self._take(str(message["kind"]), dict(message["body"]))
            except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
                self._trouble = "the scanning process reported nonsense"
                return False
        return True

    def end(self, trouble: str) -> Ended:
        trouble = trouble or self._trouble
        os.close(self._reader)
        _kill(self._pid, 0 if trouble else _PATIENCE)
        with suppress(ProcessLookupError, PermissionError):  # what it started, which is of its session as well
            os.killpg(self._pid, signal.SIGKILL)
        status, usage = os.wait4(self._pid, 0)[1:]
        self.is_reaped = True
        return Ended(trouble or _how(status), usage.ru_utime + usage.ru_stime)


def _kill(child: int, patience: float) -> None:
    """One that has said everything may take a while to end on a busy host. The number is its own until it is reaped."""
    end = time.monotonic() + patience
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            return
        time.sleep(0.01)


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return "the limit of processor time was reached"
        return "the scanning process was killed by %s" % signal.Signals(number).name
    code = os.WEXITSTATUS(status)
    return "the scanning process failed with %d" % code if code else ""


def _child(prepare: Callable[[Emit], Callable[[Emit], None]], limits: Limits, keep: list[int], writer: int) -> None:
    code = 1
    gc.freeze()  # what the parent left is not this process's to end: a connection would log out on its socket
    try:
        emit = _emitter(writer)
        _cut_off({writer, *keep})
        work = prepare(emit)
        why = _drop_rights(limits)
        if why:
            emit("reason", {"text": why})
        work(emit)
        code = 0
    except MemoryError:
        code = 12
    finally:
        os._exit(code)


def _emitter(writer: int) -> Emit:
    def emit(kind: str, body: dict[str, Any]) -> None:
        line = json.dumps({"kind": kind, "body": body}).encode() + b"\n"
        while line:
            line = line[os.write(writer, line) :]

    return emit


def _cut_off(keep: set[int]) -> None:
    os.setsid()
    os.environ.clear()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                continue  # the descriptor of the listing itself
    _prctl(_NO_NEW_PRIVS, 1)


def _drop_rights(limits: Limits) -> str:
    """Why the right to read every file was not kept, where it was wanted: never together with a network."""
    why = ""
    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    if os.geteuid() == 0:
        # Best effort: a container may forbid it, and without that one right the child has none to speak of.
        libc = ctypes.CDLL(None, use_errno=True)
        libc.unshare(_NEW_IPC)
        if libc.unshare(_NEW_NETWORK) and limits.reads_all:
            why = (
                "The scanning process could not be cut off from the network (%s), so that it was not let read private "
                "files. Scan the host itself, not from within a container." % os.strerror(ctypes.get_errno())
            )
        capabilities = _READ_ALL if limits.reads_all and not why else 0
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
        _prctl(_KEEP_CAPABILITIES, int(bool(capabilities)))
        os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
        _keep(capabilities)
    _prctl(_DEATH_SIGNAL, signal.SIGKILL)
    _prctl(_DUMPABLE, 0)
    for kind, amount in (
        (resource.RLIMIT_AS, held + limits.memory),
        (resource.RLIMIT_FSIZE, limits.writes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 128),
    ):
        _limit(kind, amount, amount)
    cpu = min(limits.cpu, _MOST_CPU)
    _limit(resource.RLIMIT_CPU, cpu, cpu + 5)  # the hard limit kills without saying why
    return why


def _keep(capabilities: int) -> None:
    """Of root's rights these only: effective, permitted and inheritable ones, the lower 32 and the upper 32."""
    head = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    data = struct.pack("=6I", capabilities, capabilities, 0, 0, 0, 0)
    if ctypes.CDLL(None, use_errno=True).capset(head, data):
        raise OSError(ctypes.get_errno(), "capset failed")


def _limit(kind: int, soft: int, hard: int) -> None:
    given = resource.getrlimit(kind)[1]
    if given != resource.RLIM_INFINITY:
        soft, hard = min(soft, given), min(hard, given)
    resource.setrlimit(kind, (soft, hard))


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(%d) failed" % option)
