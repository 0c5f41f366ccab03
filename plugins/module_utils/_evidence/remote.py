# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store on another host: its own program text goes first over ssh, then the artefact. Nothing is installed there.

The remote command is a constant. Names, paths and data travel as frames on its standard input: no shell sees them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import inspect
import json
import re
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any

from . import store
from .store import FRAME, ZEROS, StoreError

BOOTSTRAP = "exec python3 -c 'import sys; i = sys.stdin.buffer; exec(i.read(int(i.readline())))'"
TARGET = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9\[][A-Za-z0-9.:%\]_-]*")
PLAIN_PATH = re.compile(r"/[^\s\"'%]*")
ANSWER_LIMIT = 1 << 21


@dataclass(frozen=True)
class Destination:
    """The case's directory on the evidence host, and how to get there from the data host; no host: it is the same."""

    path: str
    folder: str
    host: str = ""
    port: int = 22
    identity_file: str = ""
    known_hosts: str = ""

    def ssh(self) -> list[str]:
        """The command line; every value is checked, for ssh reads some of them as options or patterns."""
        if not TARGET.fullmatch(self.host):
            raise StoreError(f"Cannot use {self.host[:120]!r} as an evidence host. Write user@host.")
        argv = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=20"]
        argv += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4", "-o", "Compression=no"]
        for option, path in (("IdentityFile", self.identity_file), ("UserKnownHostsFile", self.known_hosts)):
            if path and not PLAIN_PATH.fullmatch(path):
                raise StoreError(f"Cannot use {path[:120]!r}: give an absolute path without spaces or quotes.")
            argv += ["-o", f"{option}={path}"] if path else []
        argv += ["-o", "IdentitiesOnly=yes"] if self.identity_file else []
        return [*argv, "-p", str(self.port), "--", self.host, BOOTSTRAP]


class RemoteStore:
    """The same verbs as ``Store``, done on the evidence host. What is sent is hashed here as it was read."""

    def __init__(self, destination: Destination, name: str) -> None:
        self.host = destination.host
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self.process = subprocess.Popen(
            destination.ssh(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, bufsize=1 << 20
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise StoreError(f"Cannot talk to {destination.host}: ssh was started without its pipes.")
        self.sink, self.source = self.process.stdin, self.process.stdout
        text = inspect.getsource(store).encode()
        self._send(b"%d\n%s" % (len(text), text))
        self._ask("at", destination.path, destination.folder, name)

    def look(self) -> dict[str, Any]:
        return dict(self._ask("look"))

    def open(self, wait: float) -> dict[str, Any]:
        return dict(self._ask("open", wait))

    def begin(self) -> None:
        self._ask("begin")
        self._size, self._sha = 0, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._send(FRAME.pack(b"D", len(data)), data)
        self._sha.update(data)
        self._size += len(data)

    def hole(self, size: int) -> None:
        self._send(FRAME.pack(b"H", size))
        self._size += size
        for start in range(0, size, len(ZEROS)):
            self._sha.update(ZEROS[: size - start])

    def beat(self) -> None:
        """Tell the other side that this one lives."""
        self._send(FRAME.pack(b"B", 0))
        self._send_now()

    def finish(self, details: dict[str, Any]) -> dict[str, Any]:
        return dict(self._ask("finish", details, [self._size, self._sha.hexdigest()]))

    def rehash(self) -> str:
        return str(self._ask("rehash"))

    def sidecar_artefact(self) -> dict[str, Any]:
        return dict(self._ask("sidecar_artefact"))

    def close(self) -> None:
        """End the other side; it removes what is not whole."""
        with contextlib.suppress(OSError):  # it may have ended already
            self.sink.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.source.close()
        self.errors.close()

    def _ask(self, verb: str, *arguments: Any) -> Any:
        request = json.dumps({"verb": verb, "arguments": arguments}).encode()
        self._send(FRAME.pack(b"R", len(request)), request)
        self._send_now()
        return self._answer()

    def _answer(self) -> Any:
        line = self.source.readline(ANSWER_LIMIT)
        try:
            answer = json.loads(line)
        except ValueError:
            raise StoreError(f"The evidence host {self.host} does not answer: {self._complaint()}") from None
        if answer.get("full"):
            raise OSError(errno.ENOSPC, f"{answer['error']} (on {self.host})")
        if "error" in answer:
            raise StoreError(f"{answer['error']} (on {self.host})")
        return answer["answer"]

    def _send(self, *parts: bytes) -> None:
        try:
            for part in parts:
                self.sink.write(part)
        except OSError:
            self._answer()  # why the other side has ended
            raise StoreError(f"The evidence host {self.host} has hung up: {self._complaint()}") from None

    def _send_now(self) -> None:
        try:
            self.sink.flush()
        except OSError:
            self._answer()
            raise StoreError(f"The evidence host {self.host} has hung up: {self._complaint()}") from None

    def _complaint(self) -> str:
        self.errors.seek(0)
        text = self.errors.read(2000).decode("utf-8", "replace").strip()
        shown = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return (shown or "no message") + ". Check the key, the host key and that python3 is there."
