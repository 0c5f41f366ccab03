# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mailbox.py PORT FILE: takes letters on loopback into a file, until its directory is gone or 5 minutes over."""

from __future__ import annotations

import socketserver
import sys
import time
from pathlib import Path

LETTERS = Path(sys.argv[2])


class Mailbox(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 mailbox\r\n")
        while line := self.rfile.readline():
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                with LETTERS.open("ab") as letters:
                    while (text := self.rfile.readline()) != b".\r\n":
                        letters.write(text)
            self.wfile.write(b"250 ok\r\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


with Server(("127.0.0.1", int(sys.argv[1])), Mailbox) as server:
    server.timeout = 1
    end = time.monotonic() + 300
    while time.monotonic() < end and LETTERS.parent.is_dir():
        server.handle_request()
