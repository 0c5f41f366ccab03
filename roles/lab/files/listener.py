# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes every TCP session on a port, reads it for as long as it lasts, and swallows UDP on the same port."""

from __future__ import annotations

import socketserver
import sys
import threading


class Swallow(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while self.request.recv(4096):
            pass


class Ignore(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        pass


address = ("0.0.0.0", int(sys.argv[1]))
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer.daemon_threads = True
threading.Thread(target=socketserver.UDPServer(address, Ignore).serve_forever, daemon=True).start()
socketserver.ThreadingTCPServer(address, Swallow).serve_forever()
