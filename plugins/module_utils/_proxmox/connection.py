# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Proxmox VE cluster over its API: one log-in, many calls at once, its answers put into sentences.

Sources: U(https://pve.proxmox.com/wiki/Proxmox_VE_API), U(https://proxmoxer.github.io/docs/).
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Mapping
from typing import Any, Callable
from urllib.parse import quote

from .._crew import Crew
from .._errors import AuthFailed, TaskFailed, TimedOut, Unsupported, VmwardError
from .._model import VmRef, printable
from .session import Session

try:
    import requests  # first: proxmoxer ends the whole process when it is missing
    from proxmoxer import ProxmoxAPI
    from proxmoxer.core import AuthenticationError, ResourceException
except ImportError as _exc:  # told as a sentence when a connection is wanted
    IMPORT_ERROR: ImportError | None = _exc
else:
    IMPORT_ERROR = None

CONNECT, ANSWER = 10.0, 40.0  # seconds; PVE itself waits 10 s for a lock and 30 s for another node
AT_ONCE = 16  # readings, and as many writes, under way on one node; pveproxy queues what is more than its workers
NODE_AWAY = (503, 595, 596, 597, 598, 599)  # the node asked cannot reach the VM's node
_UNFIT = "Proxmox VE on {host} does not know this: its version and this vmward do not fit. Update the older one"
_LOOK = "what was asked for may have been done. Look at pveproxy on that node, and run again"
_PROXY = "A proxy between here and {host} answers in its place. Name a host that stands before none"
# What to do about an answer, by its HTTP status and by words in it, where they leave no doubt.
BY_STATUS = {
    501: _UNFIT,
    502: _PROXY,
    503: "The VM's node cannot be reached through {host}. Bring it back, then run again",
    504: _PROXY,
    595: "{host} finds no way to the VM's node: nothing was done there. Bring it back (pvecm status), then run again",
    596: "{host} reached the VM's node, and got no answer that it can use; " + _LOOK,
    **dict.fromkeys((597, 598, 599), "{host} gave up on the VM's node; " + _LOOK),
}
BY_WORDS = {
    "property is not defined in schema": _UNFIT,
    "no quorum": "Nothing can be written while {host} is in the smaller part of its cluster: bring the other nodes "
    "back or, where they are certainly off, run pvecm expected 1; then run again. Until then a link can be taken down "
    "on the VM's node (qm monitor, set_link net0 off)",
}
TOKEN = re.compile(r"([^!@\s]+@[^!@\s]+)!([^!@\s]+)")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
SEGMENT = re.compile(r"[A-Za-z0-9_.:@!~+-]*")
UPID = re.compile(r"UPID:[^\s/]+")  # it ends with the name of a user, which may have any other characters


class Rejected(TaskFailed, Exception):
    """PVE answered with an error. ``text`` are its own words."""

    def __init__(self, sentence: str, status: int, text: str) -> None:
        super().__init__(sentence)
        self.status, self.text = status, text

    @property
    def lock(self) -> str:
        """What holds the VM: backup, snapshot, ...; empty when it is not locked."""
        found = re.search(r"VM is locked \((.+?)\)", self.text)
        return found[1] if found else ""

    @property
    def busy(self) -> bool:
        """Another task works on the configuration file at this moment."""
        return "can't lock file" in self.text

    @property
    def gone(self) -> bool:
        """The VM is not on the node that was asked."""
        return "Configuration file" in self.text and "does not exist" in self.text


class NoAnswer(TimedOut):
    """No answer came: whether the request was taken is unknown until it is read back."""


class Broken(NoAnswer):
    """The connection ended before its answer was whole."""


class NodeAway(NoAnswer):
    """The node that was asked cannot reach the VM's node."""


class Connection:
    """Calls, each with the words for its failure."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        if IMPORT_ERROR is not None:
            raise Unsupported(
                f"Cannot use hypervisor {name}: a Python library is missing ({IMPORT_ERROR}). Install proxmoxer and "
                "requests for the interpreter that runs this task."
            ) from IMPORT_ERROR
        self.name, self.options = name, dict(options)
        self.host = str(options["host"])
        self.closing = threading.Event()
        self.end = math.inf  # of the task, and what it needs after it, by time.monotonic()
        self.readers: dict[str, Crew] = {}  # by node, as the writers: one that hangs holds up no other's VMs
        self.writers: dict[str, Crew] = {}
        self._log_in_again = threading.Lock()
        self.refused: AuthFailed | None = None  # a log-in that was: tried for every call, it would lock the account
        self.login = self._who()
        self.api = self._log_in()

    def _who(self) -> dict[str, Any]:
        """The log-in options of proxmoxer: a token, or a user with a password."""
        told = self.options
        for option in ("token_id", "token_secret", "user", "password"):
            value = told.get(option) or ""
            if value != value.strip() or CONTROL.search(value):
                raise AuthFailed(
                    f"Cannot log in to {self.name}: {option} begins or ends with white space, or holds a control "
                    "character such as the end of a line. Write it without (in YAML with |- instead of |, in a shell "
                    "with printf %s instead of echo)."
                )
        if told.get("token_id"):
            found = TOKEN.fullmatch(told["token_id"])
            if not found or not told.get("token_secret"):
                raise AuthFailed(
                    f"Cannot log in to {self.name}: a token is told as token_id: user@realm!name and token_secret. "
                    "Correct both, or use user and password."
                )
            if not (told["token_id"] + told["token_secret"]).isascii():
                raise AuthFailed(
                    f"Cannot log in to {self.name}: token_id or token_secret holds a character that no token has (one "
                    "that is not seen, or a mark that was replaced while it was copied). Copy both anew."
                )
            return {"user": found[1], "token_name": found[2], "token_value": told["token_secret"]}
        if told.get("user") and told.get("password"):
            return {"user": told["user"], "password": told["password"]}
        raise AuthFailed(
            f"Cannot log in to {self.name}: neither token_id and token_secret nor user and password are set."
        )

    def _log_in(self) -> Any:
        verify: Any = self.options.get("ca_path") or True
        if not self.options.get("validate_certs", True):
            verify = False
        elif isinstance(verify, str) and not os.access(verify, os.R_OK):
            raise AuthFailed(
                f"Cannot log in to {self.name}: the file of ca_path, {verify}, cannot be read here. Copy the cluster's "
                "CA (/etc/pve/pve-root-ca.pem) to it."
            )

        def connect() -> Any:
            api = ProxmoxAPI(self.host, port=self.options["port"], user="", token_name="", token_value="")
            url = api._store["base_url"]
            session = api._store["session"] = Session(url, self.login, verify, (CONNECT, ANSWER), AT_ONCE)
            session.identity("GET")
            return api

        return self._worded("log in", None, connect)

    def reader(self, node: str) -> Crew:
        return self.readers.setdefault(node, Crew(AT_ONCE))

    def writer(self, node: str) -> Crew:
        return self.writers.setdefault(node, Crew(AT_ONCE))

    def call(self, what: str, vm: VmRef | None, method: str, path: str, **values: Any) -> Any:
        """One request. A ticket that has expired is renewed once; the request was then not taken."""
        path, api = "/".join(segment(what, part) for part in path.split("/")), self.api
        try:
            return self._once(what, vm, api, method, path, values)
        except Rejected as exc:
            if exc.status != 401:
                raise
            if "password" not in self.login:
                raise AuthFailed(
                    f"{exc} The token {self.options['token_id']} was refused: it has expired or was removed. Make it "
                    "valid again, then run again."
                ) from exc
        with self._log_in_again:
            if self.refused:
                raise self.refused
            if self.api is api:
                self.api = self._log_in()
        try:
            return self._once(what, vm, self.api, method, path, values)
        except Rejected as exc:
            raise AuthFailed(str(exc)) if exc.status == 401 else exc from exc

    def _once(self, what: str, vm: VmRef | None, api: Any, method: str, path: str, values: Mapping[str, Any]) -> Any:
        resource = api(path.strip("/"))

        def ask() -> Any:
            return self._worded(what, vm, lambda: getattr(resource, method.lower())(**values))

        try:
            answer = ask()
        except Broken:
            if method.lower() != "get" or self.closing.is_set():
                raise
            answer = ask()  # it only reads
        if isinstance(answer, dict) and isinstance(answer.get("errors"), bytes):  # proxmoxer's word for "no JSON"
            raise NoAnswer(
                f"{self._start(what, vm)}: the answer is not JSON but begins with "
                f"'{printable(answer['errors'][:60].decode('utf-8', 'replace'))}'. Look for a proxy between here and "
                f"{self.host}; what was asked for may have been done."
            )
        return answer

    def _start(self, what: str, vm: VmRef | None) -> str:
        whom = f" {printable(vm.name)} ({vm.id})" if vm else ""
        return f"Cannot {what}{whom} on {self.name}"

    def _worded(self, what: str, vm: VmRef | None, action: Callable[[], Any]) -> Any:
        start = self._start(what, vm)
        try:
            return action()
        except ResourceException as exc:
            raise self._rejected(start, exc) from exc
        except AuthenticationError as exc:
            self.refused = AuthFailed(
                f"{start}: {self.host} refused {self.login['user']}. Correct user and password, or use a token."
            )
            raise self.refused from exc
        except requests.exceptions.SSLError as exc:
            raise AuthFailed(
                f"{start}: the certificate of {self.host} cannot be trusted ({printable(reason(exc), 200)}). Set "
                "ca_path to the cluster's CA (/etc/pve/pve-root-ca.pem), and host to a name in the certificate."
            ) from exc
        except requests.exceptions.ConnectTimeout as exc:
            raise NoAnswer(
                f"{start}: {self.host} does not answer for {CONNECT:g} s. Check host, port and route."
            ) from exc
        except requests.exceptions.ReadTimeout as exc:
            raise NoAnswer(f"{start}: {self.host} took the request and has not answered for {ANSWER:g} s.") from exc
        except (AttributeError, KeyError, TypeError) as exc:  # proxmoxer's, of JSON of another shape
            raise NoAnswer(
                f"{start}: the answer is JSON, but not Proxmox VE's. Look for a proxy between here and {self.host}; "
                "what was asked for may have been done."
            ) from exc
        except (requests.exceptions.RequestException, OSError, ValueError) as exc:
            told = type(exc).__name__ if isinstance(exc, ValueError) else reason(exc)  # it may quote a header
            raise (Broken if isinstance(exc, requests.exceptions.ChunkedEncodingError) else NoAnswer)(
                f"{start}: the connection to {self.host} failed ({printable(told, 200)}). Check that pveproxy "
                "runs there, and host and port."
            ) from exc

    def _rejected(self, start: str, exc: Any) -> VmwardError:
        details = exc.errors if isinstance(exc.errors, dict) else {}
        told = [f"{key}: {text}" for key, text in details.items() if not isinstance(text, bytes)]
        text = "; ".join([str(exc.content).strip(), *(str(one).strip() for one in told)])
        cause = f"{start}: {printable(text, 400).rstrip('.')}"
        if exc.status_code == 403:
            who = self.options.get("token_id") or self.login["user"]
            return AuthFailed(f"{cause}. Give {who} the privilege that it names.")
        by_words = (cure for words, cure in BY_WORDS.items() if words in text)
        cure = BY_STATUS.get(exc.status_code) or next(by_words, "")
        if cure:
            cause += f" (HTTP {exc.status_code}). {cure.format(host=self.host)}"
        if exc.status_code in NODE_AWAY:
            return NodeAway(f"{cause}.")
        return Rejected(f"{cause}.", exc.status_code, text)

    def close(self) -> None:
        """Nothing waits any longer. A ticket ends by itself; PVE has no log-out."""
        self.closing.set()
        for crew in [*self.readers.values(), *self.writers.values()]:
            crew.dismiss()
        self.api._store["session"].close()


def segment(what: str, part: str) -> str:
    """A part of a path. Names come from the server too: none leads elsewhere."""
    if SEGMENT.fullmatch(part) and part not in (".", ".."):
        return part
    if UPID.fullmatch(part):
        return quote(part, safe=":@!")
    raise Unsupported(f"Cannot {what}: '{printable(part)}' is no name that Proxmox VE can have.")


def reason(exc: BaseException) -> str:
    """The innermost cause, without the client's own wrapping."""
    while exc.args and isinstance(exc.args[0], BaseException):
        exc = exc.args[0]
    inner = getattr(exc, "reason", None)
    words = exc.args[0] if exc.args and isinstance(exc.args[0], str) else str(exc)  # not what stands behind them
    return reason(inner) if isinstance(inner, BaseException) else words
