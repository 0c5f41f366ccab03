# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mail server and a web server on loopback, with the faults of real ones."""

from __future__ import annotations

import http.server
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Mail(socketserver.StreamRequestHandler):
    """Enough SMTP for one letter. `server.fault` is what it does wrong."""

    def handle(self) -> None:
        server: Any = self.server
        if server.fault == "hangs":
            time.sleep(30)
            return
        if server.fault == "trickles":  # every read gets a byte in time, the greeting never ends
            for _byte in range(300):
                self.wfile.write(b"2")
                time.sleep(0.1)
            return
        self.say("220 loopback ESMTP")
        while line := self.rfile.readline().decode().strip():
            verb = line.split()[0].upper()
            if verb == "EHLO":
                self.wfile.write(b"250-loopback\r\n250-AUTH PLAIN\r\n" + (b"250-STARTTLS\r\n" if server.tls else b""))
                self.say("250 HELP")
            elif verb == "STARTTLS":
                self.say("220 go on")
                self.connection = server.tls.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
                server.encrypted = True
            elif verb == "AUTH":
                self.say("535 5.7.8 bad credentials" if server.fault == "refuses login" else "235 ok")
            elif verb == "RCPT" and server.fault == "refuses recipient":
                self.say("550 5.1.1 no such user")
            elif verb == "DATA":
                self.say("354 go on")
                lines = []
                while (text := self.rfile.readline()) != b".\r\n":
                    lines.append(text)
                server.letters.append(b"".join(lines).decode())
                self.say("250 taken")
            elif verb == "QUIT":
                self.say("421 no" if server.fault == "refuses to end" else "221 bye")
                return
            else:
                self.say("250 ok")

    def say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


class Web(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.posts.append((self.path, dict(self.headers), body))
        if server.fault == "hangs":
            time.sleep(30)
        self.send_response({"fails": 500, "redirects": 302}.get(server.fault, 204))
        if server.fault == "redirects":
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""


@contextmanager
def served(handler: type, fault: str = "", tls: ssl.SSLContext | None = None) -> Iterator[Any]:
    """A server on a free port; `letters` and `posts` are what it received."""
    kind = http.server.ThreadingHTTPServer if handler is Web else socketserver.ThreadingTCPServer
    kind.daemon_threads, kind.block_on_close = True, False
    with kind(("127.0.0.1", 0), handler) as server:
        state: Any = server
        state.fault, state.tls, state.letters, state.posts, state.encrypted = fault, tls, [], [], False
        state.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield state
        server.shutdown()


def certificate(directory: Path) -> Path:
    """A certificate of our own for 127.0.0.1, with its key in the same file."""
    path = directory / "loopback.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(path), "-out", str(directory / "crt"), "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + (directory / "crt").read_text())
    return path
