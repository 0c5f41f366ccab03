# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the confined child can't do, and how its end is told."""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import socket
import stat
import time
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import sandbox
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Emit
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Ended, Limits, run_confined

MB = 1 << 20


def _nothing() -> None:
    """No sign of life is wanted."""


def confined(
    work: Callable[[Emit], None], deadline: float = 30, cpu: int = 20, reads_all: bool = False
) -> tuple[Ended, dict[str, Any]]:
    said: dict[str, Any] = {}
    limits = Limits(deadline, 64 * MB, cpu, reads_all=reads_all)
    ended = run_confined(lambda emit: work, limits, [], lambda kind, body: said.update({kind: body}), lambda: None)
    return ended, said


def test_it_reports_and_ends_well() -> None:
    ended, said = confined(lambda emit: emit("x", {"a": 1}))
    assert (ended.trouble, said) == ("", {"x": {"a": 1}})


class Inherited:
    """Garbage that the parent has not collected, as a connection in a reference cycle is."""

    ended: list[int] = []

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        self.ended.append(os.getpid())


def test_it_ends_nothing_that_it_inherited() -> None:
    def collect(emit: Emit) -> None:
        gc.collect()
        emit("ended", {"by": [pid == os.getpid() for pid in Inherited.ended]})

    gc.disable()
    try:
        Inherited()
        assert confined(collect)[1] == {"ended": {"by": []}}
    finally:
        gc.enable()
    gc.collect()
    assert Inherited.ended == [os.getpid()]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop rights")
def test_it_has_no_rights(tmp_path: Any) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)

    def attempt(emit: Emit) -> None:
        refused = []
        for act in (
            secret.read_text,
            lambda: os.setuid(0),
            lambda: os.kill(os.getppid(), 0),
            lambda: socket.create_connection(("127.0.0.1", 9), 1),
        ):
            try:
                act()
                refused.append("")
            except OSError as exc:
                refused.append(type(exc).__name__)
        emit("refused", {"by": refused, "uid": os.getuid(), "environment": dict(os.environ)})

    refused = confined(attempt)[1]["refused"]
    assert refused["uid"] != 0
    assert refused["environment"] == {}
    assert refused["by"][:3] == ["PermissionError"] * 3
    assert refused["by"][3] != ""


def test_its_end_is_told() -> None:
    def spin(emit: Emit) -> None:
        while True:
            pass

    def hog(emit: Emit) -> None:
        bytearray(1 << 30)

    assert "deadline" in confined(lambda emit: time.sleep(60), deadline=0.3)[0].trouble
    assert "processor time" in confined(spin, cpu=1)[0].trouble
    assert confined(lambda emit: None, cpu=1 << 62)[0].trouble == ""  # more than the kernel can count
    assert "failed with 12" in confined(hog)[0].trouble
    assert "SIGSEGV" in confined(lambda emit: os.kill(os.getpid(), signal.SIGSEGV))[0].trouble
    assert "failed with 3" in confined(lambda emit: os._exit(3))[0].trouble


def test_a_flood_is_cut_off() -> None:
    assert "more than it may" in confined(lambda emit: emit("x", {"a": "y" * 200000}))[0].trouble


def test_it_writes_no_more_than_it_may(tmp_path: Any) -> None:
    place = tmp_path / "out"
    said: dict[str, Any] = {}
    with place.open("wb") as file:
        out = file.fileno()

        def work(emit: Emit) -> None:
            os.pwrite(out, bytes(1000), 0)
            try:
                os.pwrite(out, b"x", 1000)
            except OSError as exc:
                emit("refused", {"errno": exc.errno})

        limits = Limits(30, 64 * MB, 20, writes=1000)
        ended = run_confined(lambda emit: work, limits, [out], lambda kind, body: said.update({kind: body}), _nothing)
    assert (ended.trouble, said) == ("", {"refused": {"errno": errno.EFBIG}})
    assert place.stat().st_size == 1000


def test_one_that_ends_slowly_on_a_busy_host_is_waited_for() -> None:
    def slowly(_emit: Emit) -> None:
        os.closerange(3, 128)
        time.sleep(0.8)

    assert confined(slowly)[0].trouble == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop rights")
def test_one_that_may_read_all_may_do_nothing_else(tmp_path: Any) -> None:
    secret = tmp_path / "private" / "secret"
    secret.parent.mkdir(mode=0o700)
    secret.write_text("x")
    secret.chmod(0o600)

    def attempt(emit: Emit) -> None:
        refused = []
        for act in (
            lambda: secret.write_text("y"),
            secret.unlink,
            lambda: secret.chmod(0o644),
            lambda: os.setuid(0),
            lambda: os.kill(os.getppid(), 0),
            lambda: socket.create_connection(("127.0.0.1", 9), 1),
        ):
            try:
                act()
                refused.append("")
            except OSError as exc:
                refused.append(type(exc).__name__)
        emit("tried", {"read": secret.read_text(), "by": refused})

    ended, said = confined(attempt, reads_all=True)
    assert ended.trouble == ""
    assert said["tried"] == {"read": "x", "by": ["PermissionError"] * 5 + ["OSError"]}
    assert secret.read_text() == "x"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop rights")
def test_one_that_keeps_the_network_may_not_read_all(tmp_path: Any) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    said: dict[str, Any] = {}

    def prepare(_emit: Emit) -> Callable[[Emit], None]:
        sandbox._keep(1 << 6 | 1 << 7 | 1 << 2)  # root as in a container: it may change users, but make no namespace
        return lambda emit: emit("read", {"secret": os.access(secret, os.R_OK)})

    limits = Limits(30, 64 * MB, 20, reads_all=True)
    ended = run_confined(prepare, limits, [], lambda kind, body: said.update({kind: body}), _nothing)
    assert ended.trouble == ""
    assert said["read"] == {"secret": False}
    assert "could not be cut off from the network (Operation not permitted)" in said["reason"]["text"]


def test_what_the_child_started_ends_with_it() -> None:
    alive, held = os.pipe()

    def work(_emit: Emit) -> None:
        if os.fork() == 0:
            while True:
                signal.pause()

    limits = Limits(1, 64 * MB, 20)
    run_confined(lambda emit: work, limits, [held], lambda kind, body: None, _nothing)
    os.close(held)
    ready = select.select([alive], [], [], 60)[0]
    assert ready, "a process that the child started lives on"
    os.close(alive)


NONSENSE: list[tuple[str, bytes]] = [
    ("depth", b"[" * 60000),
    ("infinity", b'{"kind": "progress", "body": {"files": Infinity, "bytes": 1, "read": 1}}'),
    ("no mapping", b'{"kind": "more", "body": {"of": "change", "counts": 5}}'),
    ("no list", b'{"kind": "unopened", "body": {"count": 1, "names": 5}}'),
]


def test_amounts_stay_within_what_there_can_be() -> None:
    listener = Listener(Progress("", 0))
    listener.take("expect", {"bytes": 10**400})
    listener.take("progress", {"files": -1, "bytes": 5, "read": 10**400})
    listener.take("unopened", {"count": -5, "names": []})
    state = listener.progress.state("scan", "", 1.0)
    assert (state["files"], state["bytes"], state["total_bytes"], state["eta"]) == (0, 5, 1 << 62, (1 << 62) / 5)
    assert (listener.tally.unopened, listener.tally.bytes_from_disk) == (0, 1 << 62)


@pytest.mark.parametrize("line", [line for _name, line in NONSENSE], ids=[name for name, _line in NONSENSE])
def test_no_message_ends_the_one_that_listens(line: bytes) -> None:
    listener = Listener(Progress("/dev/null", 0))

    def work(emit: Emit) -> None:
        (writer,) = (int(name) for name in os.listdir("/proc/self/fd") if is_pipe(name))
        os.write(writer, line + b"\n")
        emit("finished", {})

    def is_pipe(name: str) -> bool:
        try:
            return stat.S_ISFIFO(os.fstat(int(name)).st_mode)
        except OSError:
            return False

    def tick() -> None:
        listener.progress.state("scan", "", 1.0)

    ended = run_confined(lambda emit: work, Limits(30, 64 * MB, 20), [], listener.take, tick)
    assert (ended.trouble, listener.tally.finished) == ("the scanning process reported nonsense", False)
