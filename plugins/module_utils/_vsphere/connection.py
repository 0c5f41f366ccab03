# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One vCenter or ESXi session: logged in once, again when it expired, its errors put into sentences.

Source: U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/).
"""

from __future__ import annotations

import http.client
import math
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Callable, TypeVar
from xml.parsers.expat import ExpatError

from .._crew import within
from .._errors import AuthFailed, NotFound, TaskFailed, Unsupported, VmwardError
from .._model import VmRef, printable
from .lean import HttpsConnection

try:
    from pyVmomi import SoapAdapter, VmomiSupport, vim, vmodl
except ImportError as _exc:  # told as a sentence when a connection is wanted
    vim = vmodl = None
    IMPORT_ERROR: ImportError | None = _exc
else:
    IMPORT_ERROR = None

__all__ = ["Connection", "vim", "vmodl"]

T = TypeVar("T")
LOST = (OSError, http.client.HTTPException, ExpatError)  # what a broken connection or a proxy's page looks like
VERSION = re.compile(r"<version>([0-9.]{1,20})</version>")
RENEWED = "Have it renewed, or correct the clock of this host."
NAMED = "Set hostname to a name that the certificate bears."
ADVICE = {9: RENEWED, 10: RENEWED, 62: NAMED, 64: NAMED}  # by OpenSSL's reason not to trust a certificate
SIGNED = "Set ca_path to the certificate of the authority that signed it."  # and for any other
UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")  # in XML, or a line end that no log-in has
THREADS = 32  # calls under way at once: most take the server longer than the network


class Connection:
    """Calls into vSphere, each with the words for its failure."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        if IMPORT_ERROR is not None:
            raise Unsupported(
                f"Cannot use hypervisor {name}: the Python library pyVmomi is missing ({IMPORT_ERROR}). "
                "Install pyvmomi with pip for the interpreter that runs this task."
            ) from IMPORT_ERROR
        self.name, self.options = name, options
        for option in ("username", "password", "guest_username", "guest_password"):
            if UNWRITABLE.search(options.get(option) or ""):
                raise AuthFailed(
                    f"Cannot log in to {name}: {option} holds a control character such as the end of a line, or what "
                    "is no text. Write it without (in YAML with |- instead of |, in a shell with printf %s instead of "
                    "echo)."
                )
        self.host, self.port = options["hostname"], options["port"]
        self._lock = threading.Lock()
        self.closed = False
        self.end = math.inf  # of what is waited for, by time.monotonic()
        self.refused: VmwardError | None = None  # a log-in that was: tried for every call, it would lock the account
        self.generation = 0  # log-ins so far: what lives in a session dies with it
        self.tls = self._tls()
        self.stub = SoapAdapter.SoapStubAdapter(
            host=self.host,
            port=self.port,
            version=self._version(),
            sslContext=self.tls,
            poolSize=THREADS,
            httpConnectionTimeout=max(options["timeout"], 2),  # a wait for tasks is not shorter than a second
        )
        self.stub.scheme = HttpsConnection
        instance = vim.ServiceInstance("ServiceInstance", self.stub)
        self.content = self.call("ask what it is", None, instance.RetrieveContent)
        if self.content is None:  # the library's answer to a page of HTML
            raise self._no_vsphere(200)
        self._login()

    @property
    def is_vcenter(self) -> bool:
        return bool(self.content.about.apiType == "VirtualCenter")

    def close(self) -> None:
        """Log out, whatever happened before; a session that cannot be reached ends by itself."""
        with self._lock:
            self.closed = True
        if self.generation:
            with suppress(VmwardError, vmodl.MethodFault, *LOST):
                attempt(self.content.sessionManager.Logout)
        self.stub.DropConnections()

    def call(self, what: str, vm: VmRef | None, action: Callable[[], T], repeat: bool = True) -> T:
        """Run ``action``, and wait for it no longer than the task has time."""
        if self.end == math.inf:
            return self.run(what, vm, action, repeat)
        left = self.end - time.monotonic()
        answer: T = within(left, self._start(what, vm), lambda: self.run(what, vm, action, repeat))
        return answer

    def run(self, what: str, vm: VmRef | None, action: Callable[[], T], repeat: bool = True) -> T:
        """Run ``action``. After an expired session, log in and run it again: it had not begun.

        After a lost connection it is run again only if it may be: what changes something may have begun. Who has not
        answered for the whole time-out is not asked again.
        """
        generation = self.generation
        try:
            return attempt(action)
        except vmodl.MethodFault as exc:
            if not isinstance(exc, vim.fault.NotAuthenticated) or not generation:
                raise self.sentence(exc, what, vm) from exc
        except LOST as exc:
            if not repeat or isinstance(exc, socket.timeout):
                raise self.sentence(exc, what, vm) from exc
        if generation:
            self._login_after(generation)
        try:
            return attempt(action)
        except (vmodl.MethodFault, *LOST) as exc:
            raise self.sentence(exc, what, vm) from exc

    def _login_after(self, generation: int) -> None:
        """Log in anew, once for all threads that found the same session dead."""
        with self._lock:
            if self.closed:
                raise TaskFailed(f"The session on {self.name} was ended; this call was not made.")
            if self.generation != generation:
                return
            if self.refused:
                raise self.refused
            try:
                alive = attempt(lambda: self.content.sessionManager.currentSession) is not None
            except (vmodl.MethodFault, *LOST):
                alive = False
            if not alive:
                self._login()

    def _login(self) -> None:
        self.stub.cookie = ""
        try:
            attempt(lambda: self.content.sessionManager.Login(self.options["username"], self.options["password"], None))
        except (vmodl.MethodFault, *LOST) as exc:
            error = self.sentence(exc, "log in", None)
            self.refused = error if isinstance(exc, vim.fault.InvalidLogin) else None
            raise error from exc
        self.generation += 1

    def _tls(self) -> ssl.SSLContext:
        ca_path = self.options["ca_path"]
        try:
            context = ssl.create_default_context(cafile=ca_path)
        except (OSError, ssl.SSLError) as exc:
            raise TaskFailed(
                f"Cannot use hypervisor {self.name}: its ca_path {ca_path} cannot be read ({exc}). "
                "Name a PEM file with the certificate of the authority that signed for it."
            ) from exc
        if not self.options["validate_certs"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _version(self) -> str:
        """The newest API version that server and library both know."""
        line = http.client.HTTPSConnection(
            self.host, self.port, timeout=min(self.options["timeout"], 15), context=self.tls
        )
        try:
            line.request("GET", "/sdk/vimServiceVersions.xml")
            answer = line.getresponse()
            spoken = set(VERSION.findall(answer.read(100_000).decode("utf-8", "replace")))
        except LOST as exc:
            raise self.sentence(exc, "open a session", None) from exc
        finally:
            line.close()
        for version in VmomiSupport.GetServiceVersions("vim25"):
            if VmomiSupport.GetVersionNamespace(version).partition("/")[2] in spoken:
                return str(version)
        raise self._no_vsphere(answer.status)

    def _no_vsphere(self, status: int) -> TaskFailed:
        return TaskFailed(
            f"Cannot open a session on {self.name}: {self.host}:{self.port} answers (HTTP status {status}), but not as "
            "vCenter or ESXi does. Check that the server runs, its hostname and its port."
        )

    def sentence(self, exc: BaseException, what: str, vm: VmRef | None, server: str = "") -> VmwardError:
        """Cannot <operation> <vm> (<id>) on <hypervisor>: <cause>. <what to do>."""
        server = server or f"{self.host}:{self.port}"
        start = f"Cannot {self._start(what, vm)}"
        if isinstance(exc, ssl.SSLCertVerificationError):  # another error of TLS is a broken connection
            advice = ADVICE.get(exc.verify_code, SIGNED)
            return AuthFailed(
                f"{start}: the certificate of {server.rpartition(':')[0]} is not trusted "
                f"({printable(str(exc), 200).rstrip('.')}). {advice}"
            )
        if isinstance(exc, LOST):
            return TaskFailed(
                f"{start}: the connection to {server} failed ({told(exc)}). Check that the server runs "
                "and can be reached, look at the VM with vm_info, and run again."
            )
        return self.of_fault(exc, start)

    def _start(self, what: str, vm: VmRef | None) -> str:
        whom = f" {printable(vm.name)} ({vm.id})" if vm else ""
        return f"{what}{whom} on {self.name}"

    def of_fault(self, exc: Any, start: str) -> VmwardError:
        """The error for a fault, of a call or of a task."""
        cause = f"{start}: {told(exc)}."
        if isinstance(exc, vim.fault.InvalidLogin):
            return AuthFailed(f"{cause} Check username and password of {self.name}.")
        if isinstance(exc, vim.fault.NotAuthenticated):
            return AuthFailed(f"{cause} The session has expired, and logging in again did not help.")
        if isinstance(exc, vim.fault.NoPermission):
            return AuthFailed(
                f"{start}: the privilege {printable(exc.privilegeId or 'needed', 100)} is missing. "
                f"Give it to {self.options['username']}."
            )
        if isinstance(exc, (vmodl.fault.ManagedObjectNotFound, vim.fault.NotFound)):
            return NotFound(
                f"{cause} It may have been removed meanwhile: list what there is with vm_info. If it was registered "
                "anew, run again."
            )
        if isinstance(exc, vim.fault.InvalidPowerState):
            return TaskFailed(f"{start}: it is {exc.existingState} now. Look at it with vm_info, and run again.")
        if isinstance(exc, vim.fault.ToolsUnavailable):
            return TaskFailed(f"{start}: VMware Tools do not run in it. Use force: true to take its power away.")
        if isinstance(exc, vim.fault.TaskInProgress):
            return TaskFailed(f"{start}: another task runs on it. Run again when that has ended.")
        if isinstance(exc, (vmodl.fault.NotSupported, vmodl.fault.MethodNotFound)):
            return Unsupported(f"{cause} This server cannot do it.")
        return TaskFailed(f"{cause} See the tasks of the VM in the vSphere Client.")


def attempt(action: Callable[[], T]) -> T:
    try:
        return action()
    except Exception as exc:
        if exc.__class__ is Exception:  # the library's word for an answer that is no SOAP
            raise http.client.HTTPException("its answer is not vSphere's") from exc
        raise


def told(exc: Any) -> str:
    """What a fault says, on one line, without a vendor's dump of the whole object."""
    words = [str(getattr(exc, key, "") or "") for key in ("msg", "reason", "strerror")]
    words += [str(exc)] if isinstance(exc, http.client.HTTPException) else []
    words += [str(one.message or "") for one in getattr(exc, "faultMessage", None) or []]
    name = type(exc).__name__.rpartition(".")[2]
    text = "; ".join(dict.fromkeys(printable(word, 200).rstrip(".") for word in words if word.strip()))
    return f"{text} ({name})" if text else name
