# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A clamd of the tests' own, with two signatures and small limits."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.vmward.remediation.tests.corpus import disks


@contextmanager
def open_place() -> Iterator[Path]:
    """A directory that the scanning account may enter. Every start of pytest closes what pytest made to others."""
    with tempfile.TemporaryDirectory(prefix="vmward-test-") as place:
        Path(place).chmod(0o755)
        yield Path(place)


@contextmanager
def daemon(*settings: str, tells_limits: bool = True) -> Iterator[str]:
    """The path of its socket."""
    with open_place() as place:
        (place / "db").mkdir()
        signatures = f"Test.Eicar:0:0:{disks.EICAR.hex()}\nTest.Marker:0:*:{disks.MARKER.hex()}\n"
        (place / "db" / "test.ndb").write_text(signatures)
        path = place / "socket"
        lines = [
            f"LocalSocket {path}\nLocalSocketMode 666\nDatabaseDirectory {place / 'db'}\nForeground true\nUser root",
            "MaxFileSize 4M\nMaxScanSize 8M\nStreamMaxLength 12M",
            f"AlertExceedsMax {'yes' if tells_limits else 'no'}",
            *settings,
        ]
        (place / "clamd.conf").write_text("\n".join(lines) + "\n")
        command = ["clamd", "-c", str(place / "clamd.conf")]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 60
            while not answers(path):
                assert running.poll() is None, "clamd did not start"
                assert time.monotonic() < end, "clamd does not answer"
                time.sleep(0.2)
            yield str(path)
        finally:
            running.terminate()
            running.wait(30)


def answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(10)
            link.connect(str(path))
            link.sendall(b"zPING\0")
            return link.recv(16) == b"PONG\0"
    except OSError:
        return False
