# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What proxmoxer asks of a session of requests, without what only browsers need: half the processor time of a call.

The log-in goes through it too: no redirect is followed, and of the environment (proxies, .netrc) nothing is used.
"""

from __future__ import annotations

import json
import os
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

try:
    import requests
    import urllib3
    from proxmoxer.core import AuthenticationError
except ImportError:  # told as a sentence by who wants a connection
    pass

RENEWED = 3600.0  # seconds after which a new ticket is asked for; PVE takes one for two hours


@dataclass(frozen=True)
class Answer:
    """The part of a response that proxmoxer reads."""

    status_code: int
    reason: str
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


class Session:
    """Connections to one host, kept open and shared by all threads; its errors are those of requests."""

    def __init__(
        self, url: str, login: Mapping[str, str], verify: Any, timeout: tuple[float, float], at_once: int
    ) -> None:
        parts = urlsplit(url)
        self.login, self.base = login, parts.path
        self.ticket: Mapping[str, str] = {}
        self.ends = 0.0  # of the ticket, by time.monotonic()
        self.refused: Exception | None = None  # a log-in, which is not tried again
        self.lock = threading.Lock()
        self.pool = urllib3.HTTPSConnectionPool(
            str(parts.hostname),
            parts.port,
            timeout=urllib3.Timeout(connect=timeout[0], read=timeout[1]),
            maxsize=at_once,
            retries=False,
            ssl_context=trusting(verify),
            cert_reqs="CERT_REQUIRED" if verify else "CERT_NONE",
            assert_hostname=None if verify else False,
        )

    def request(
        self, method: str, url: str, data: Mapping[str, Any] | None = None, params: Mapping[str, Any] | None = None
    ) -> Answer:
        target = urlsplit(url).path + (f"?{urlencode(params, doseq=True)}" if params else "")
        return self._asked(method, target, data, self.identity(method))

    def identity(self, method: str) -> dict[str, str]:
        """The headers by which PVE knows who calls."""
        if "password" not in self.login:
            return {"Authorization": "PVEAPIToken={user}!{token_name}={token_value}".format(**self.login)}
        with self.lock:
            if self.refused:
                raise self.refused
            if time.monotonic() >= self.ends:
                self.ticket = self._new_ticket()
                self.ends = time.monotonic() + RENEWED
            ticket = self.ticket
        csrf = {"CSRFPreventionToken": ticket["CSRFPreventionToken"]} if method.upper() != "GET" else {}
        return {"Cookie": f"PVEAuthCookie={ticket['ticket']}", **csrf}

    def _new_ticket(self) -> dict[str, str]:
        who = {"username": self.login["user"], "password": self.login["password"]}
        got = self._asked("POST", f"{self.base}/access/ticket", who, {})
        if got.status_code == 401:
            self.refused = AuthenticationError("the log-in is refused")
            raise self.refused
        if got.status_code != 200:
            raise requests.exceptions.ConnectionError(f"it answers HTTP {got.status_code} to the log-in")
        try:
            told = json.loads(got.text)["data"]
            ticket = {key: str(told[key]) for key in ("ticket", "CSRFPreventionToken")}
        except (ValueError, KeyError, TypeError) as exc:
            raise requests.exceptions.ConnectionError("its answer to the log-in is not Proxmox VE's") from exc
        if told.get("NeedTFA"):
            raise AuthenticationError("a second factor is wanted")
        return ticket

    def _asked(self, method: str, target: str, data: Mapping[str, Any] | None, identity: Mapping[str, str]) -> Answer:
        headers = {"Accept": "application/json", "Connection": "keep-alive", **identity}
        body = urlencode(data, doseq=True) if data else None
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        got = self._sent(method, target, body, headers)
        if 300 <= got.status < 400:
            raise requests.exceptions.TooManyRedirects(f"it answers HTTP {got.status} and points elsewhere")
        return Answer(got.status, str(got.reason or ""), got.data)

    def _sent(self, method: str, target: str, body: str | None, headers: Mapping[str, str]) -> Any:
        try:
            return self.pool.request(method, target, body=body, headers=headers, redirect=False)
        except urllib3.exceptions.NewConnectionError as exc:  # before the time-out, of which it is one kind
            raise requests.exceptions.ConnectionError(exc) from exc
        except urllib3.exceptions.ConnectTimeoutError as exc:
            raise requests.exceptions.ConnectTimeout(exc) from exc
        except urllib3.exceptions.ReadTimeoutError as exc:
            raise requests.exceptions.ReadTimeout(exc) from exc
        except urllib3.exceptions.SSLError as exc:
            raise requests.exceptions.SSLError(exc) from exc
        except urllib3.exceptions.ProtocolError as exc:  # it ended after the request had been sent
            raise requests.exceptions.ChunkedEncodingError(exc) from exc
        except urllib3.exceptions.HTTPError as exc:
            raise requests.exceptions.ConnectionError(exc) from exc

    def close(self) -> None:
        self.pool.close()


def trusting(verify: Any) -> ssl.SSLContext:
    """One for all connections: whom to trust is read once. ``verify`` as for requests."""
    context = urllib3.util.ssl_.create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if verify else ssl.CERT_NONE)
    if verify:
        place = verify if isinstance(verify, str) else requests.certs.where()
        try:
            context.load_verify_locations(**{"capath" if os.path.isdir(place) else "cafile": place})
        except OSError as exc:
            raise requests.exceptions.SSLError(exc) from exc
    return context
