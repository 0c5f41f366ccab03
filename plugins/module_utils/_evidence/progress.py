# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress of a long verb: an atomically replaced file on the data host, and its line in plain words.

The file is JSON: ``phase`` (one word or two; ``done`` at the end), ``bytes`` and ``total_bytes``, ``rate`` in bytes per
second and ``eta`` in seconds (null: unknown), ``files``, and ``message``.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Callable

from .._model import printable

DONE = "done"
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class Progress:
    """Writes the file at most once a second. Without a path nothing is written."""

    def __init__(self, path: str, now: Callable[[], float] = time.monotonic) -> None:
        self.path, self.now = path, now
        self.phase, self.began, self.written = "", 0.0, 0.0

    def __call__(self, phase: str, done: int = 0, total: int = 0, message: str = "") -> None:
        now = self.now()
        if phase != self.phase:
            self.phase, self.began = phase, now
        elif now - self.written < 1:
            return
        self.written = now
        seconds = now - self.began
        rate = done / seconds if seconds > 0.2 and done else None
        eta = round((total - done) / rate) if rate and total >= done else None
        tell(self.path, {
            "phase": phase,
            "files": 0,
            "bytes": done,
            "total_bytes": total,
            "rate": round(rate) if rate else None,
            "eta": eta,
            "message": message,
        })  # fmt: skip


def tell(path: str, told: Mapping[str, Any]) -> None:
    """Replace a progress file as a whole: a reader never sees half of it, and two jobs may share one.

    Nothing is told where that fails: the work is worth more than its progress bar.
    """
    if not path:
        return
    name = ""
    try:
        handle, name = tempfile.mkstemp(prefix=".progress-", dir=os.path.dirname(path))
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(told, file)
        os.replace(name, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)


def human(size: float) -> str:
    """Bytes for a reader: ``61.3 MiB``."""
    number, unit = float(size), 0
    while number >= 1024 and unit < len(UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.0f} {UNITS[unit]}" if number >= 100 or unit == 0 else f"{number:.3g} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds for a reader: ``2 s``, ``3 min``, ``1 h 5 min``."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 5400:
        return f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def line(name: str, told: Mapping[str, Any]) -> str:
    """``desk1: memory 128 MiB of 256 MiB (50 %), 61 MiB/s, 2 s left``"""
    parts = []
    done, total = _number(told, "bytes"), _number(told, "total_bytes")
    if total:
        parts.append(f"{human(done)} of {human(total)} ({min(100, 100 * done // total):.0f} %)")
    elif done:
        parts.append(human(done))
    if files := _number(told, "files"):
        parts.append(f"{files:.0f} files")
    if rate := _number(told, "rate"):
        parts.append(f"{human(rate)}/s")
    if told.get("eta") is not None:
        parts.append(f"{duration(_number(told, 'eta'))} left")
    if told.get("message"):
        parts.append(str(told["message"]))
    return printable(f"{name}: {told.get('phase', '')} {', '.join(parts)}".rstrip(), 200)


def _number(told: Mapping[str, Any], key: str) -> float:
    value = told.get(key)
    return max(value, 0) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0
