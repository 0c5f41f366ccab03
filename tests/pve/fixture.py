# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start and stop the test cluster in this process: a free loopback port, TLS by a CA of its own, calls counted."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import re
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.vmward.remediation.tests.pve.server import Pve

TOKEN, SECRET = "ir@pve!contain", "5f0c1f0e-6b5a-4b0e-9d3b-3f6a7c1f2a11"
NUMBER = re.compile(r"/\d+(?=/|$)")


class Cluster:
    """A running ``Pve``; ``pve`` is its state, to be looked at and changed between calls."""

    def __init__(self, directory: Path, certificates: Mapping[str, Any] = MappingProxyType({}), **options: Any) -> None:
        self.pve = Pve(host="127.0.0.1", port=0, **options)
        self.pve.apitokens[TOKEN] = SECRET
        self.ca_path, certificate, key = make_certificates(directory, **certificates)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.certificate, self.key = str(certificate), str(key)
        self._start()

    def _start(self) -> None:
        self.run(self.pve.start(self.certificate, self.key))
        self.pve.runner._shutdown_timeout = 1.0  # calls under way when it stops are of clients that have gone

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something in the server's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def restart(self) -> None:
        """End all connections; the server is there again at once, on the same port."""
        self.run(self.pve.stop())
        self._start()

    def stop(self) -> None:
        self.pve.hang.clear()
        self.run(self.pve.stop())
        self.run(_end_the_others())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    @property
    def entry(self) -> dict[str, Any]:
        """The options of this cluster in ``vmward_hypervisors``."""
        return {
            "host": self.pve.host,
            "port": self.pve.port,
            "token_id": TOKEN,
            "token_secret": SECRET,
            "ca_path": str(self.ca_path),
            "quarantine": "quarantine",
        }

    @contextlib.contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """The calls made within the block, by method and path; every number in a path is told as ``N``."""
        calls: Counter[str] = Counter()
        before = len(self.pve.requests)
        yield calls
        for method, path, _body in self.pve.requests[before:]:
            calls[f"{method} {NUMBER.sub('/N', path.removeprefix('/api2/json'))}"] += 1


async def _end_the_others() -> None:
    """A task or a connection that is left over would end when the garbage is collected, in some later test."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def make_certificates(directory: Path, address: str = "127.0.0.1", days: int = 2) -> tuple[Path, Path, Path]:
    """A CA, and a certificate for the address signed by it: (CA file, certificate, key). It ends in so many days."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("Test CA", "pve1"))

    def builder(subject: x509.Name, public: Any) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name).public_key(public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=9))
        return made.not_valid_after(now + datetime.timedelta(days=days))

    ca_made = builder(ca_name, ca_key.public_key())
    ca = ca_made.add_extension(x509.BasicConstraints(ca=True, path_length=None), True).sign(ca_key, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    certificate = builder(name, key.public_key()).add_extension(names, False).sign(ca_key, hashes.SHA256())
    paths = directory / "ca.pem", directory / "pve.pem", directory / "pve.key"
    paths[0].write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[2].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return paths
