# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What proxmoxer asks of a session of requests, without what only browsers need: half the processor time of a call.

No cookie is kept, no redirect followed, and of the environment (proxies, .netrc) nothing is used.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

try:
    import requests
    import urllib3
except ImportError:  # told as a sentence by who wants a connection
    pass

COOKIE = "PVEAuthCookie"


@dataclass(frozen=True)
class Answer:
    """The part of a response that proxmoxer reads."""

    status_code: int
    reason: str
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


@dataclass
class Call:
    """The part of a request to which proxmoxer adds its log-in."""

    method: str
    headers: dict[str, str] = field(default_factory=dict)
    cert: Any = None


class Session:
    """Connections to one host, kept open and shared by all threads; its errors are those of requests."""

    def __init__(self, url: str, auth: Any, verify: Any, timeout: tuple[float, float], at_once: int) -> None:
        parts = urlsplit(url)
        self.auth = auth
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
        call = self.auth(Call(method, {"Accept": "application/json", "Connection": "keep-alive"}))
        ticket, _csrf = self.auth.get_tokens()
        if ticket:
            call.headers["Cookie"] = f"{COOKIE}={ticket}"
        body = urlencode(data, doseq=True) if data else None
        if body:
            call.headers["Content-Type"] = "application/x-www-form-urlencoded"
        target = urlsplit(url).path + (f"?{urlencode(params, doseq=True)}" if params else "")
        got = self._sent(method, target, body, call.headers)
        if 300 <= got.status < 400:
            raise requests.exceptions.TooManyRedirects(f"it answers HTTP {got.status} and points elsewhere")
        return Answer(got.status, str(got.reason or ""), got.data)

    def _sent(self, method: str, target: str, body: str | None, headers: Mapping[str, str]) -> Any:
        try:
            return self.pool.urlopen(method, target, body=body, headers=headers, redirect=False)
        except urllib3.exceptions.NewConnectionError as exc:  # before the time-out, of which it is one kind
            raise requests.exceptions.ConnectionError(exc) from exc
        except urllib3.exceptions.ConnectTimeoutError as exc:
            raise requests.exceptions.ConnectTimeout(exc) from exc
        except urllib3.exceptions.ReadTimeoutError as exc:
            raise requests.exceptions.ReadTimeout(exc) from exc
        except urllib3.exceptions.SSLError as exc:
            raise requests.exceptions.SSLError(exc) from exc
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
