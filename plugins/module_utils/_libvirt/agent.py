# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talk with a guest agent that may lie, stall or flood: every answer is bounded and decoded strictly.

Source: U(https://www.qemu.org/docs/master/interop/qemu-ga-ref.html).
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Sequence
from typing import Any, Callable

from .._errors import TaskFailed, TimedOut
from .._hypervisor import GuestOutput, Pending
from .._model import Vm, printable
from .._wait import poll_all

CALL = 5  # seconds that one answer may take
MARGIN = 64 * 1024  # bytes of JSON around the streams
Call = Callable[[str, int], str]  # (command, seconds) -> the agent's answer, as text


def run_program(
    call: Call,
    vm: Vm,
    argv: Sequence[str],
    deadline: float,
    limit: int,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> GuestOutput:
    """Run one program and wait for its end. libvirt synchronises with the agent before each command."""
    end = now() + deadline

    def ask(command: str, **arguments: Any) -> Any:
        left = end - now()
        if left <= 0:
            raise TimedOut(f"The guest agent of {vm.ref.name} has not finished {argv[0]} within {deadline:.0f} s.")
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        return answer(call(json.dumps(request), max(1, min(CALL, round(left)))), limit)

    ask("guest-ping")
    started = ask("guest-exec", path=argv[0], arg=list(argv[1:]), **{"capture-output": True})
    pid = number(started, "pid")
    last: dict[str, Any] = {}

    def ended() -> bool:
        last.update(mapping(ask("guest-exec-status", pid=pid)))
        return last.get("exited") is True

    error = poll_all([Pending(vm.ref, f"{argv[0]} in the guest", ended)], max(end - now(), 0.0), now, sleep)[vm.ref.id]
    if error is not None:
        raise error
    out, err = stream(last, "out-data"), stream(last, "err-data")
    cut = len(out) > limit or len(err) > limit or bool(last.get("out-truncated")) or bool(last.get("err-truncated"))
    return GuestOutput(number(last, "exitcode"), out[:limit], err[:limit], cut)


def answer(text: str, limit: int) -> Any:
    """The agent's ``return``. Both streams in base64 must fit; libvirt itself stops reading at 10 MiB."""
    most = 2 * (limit * 4 // 3 + 4) + MARGIN
    if len(text) > max(most, 40 << 20):
        raise TaskFailed(f"The guest agent sent {len(text)} bytes, more than is read. The rest was refused.")
    try:
        return json.loads(text)["return"]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise TaskFailed(f"The guest agent's answer cannot be read ({type(exc).__name__}).") from exc


def mapping(told: Any) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise TaskFailed(f"The guest agent's answer is a {type(told).__name__}, not an object.")
    return told


def number(told: Any, key: str) -> int:
    value = mapping(told).get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise TaskFailed(f"The guest agent's answer holds no number '{key}': {printable(repr(value), 60)}.")
    return value


def stream(told: dict[str, Any], key: str) -> bytes:
    value = told.get(key, "")
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (AttributeError, UnicodeError, binascii.Error) as exc:
        raise TaskFailed(f"The guest agent's '{key}' is not base64 ({type(exc).__name__}).") from exc
