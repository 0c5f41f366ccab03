# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tags of VMs, which vCenter tells over its Automation API only: one session of its own, ended whatever happened.

Source: U(https://developer.broadcom.com/xapis/vsphere-automation-api/latest/cis/tagging/) (since vCenter 7.0 U2).
"""

from __future__ import annotations

import base64
import http.client
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Callable
from urllib.parse import quote

from .._errors import AuthFailed, TaskFailed, Unsupported, VmwardError
from .connection import LOST, Connection

API = "/api"
TAGGING = "cis/tagging"
MOST = 64 << 20  # bytes of one answer
Pairs = list[tuple[str, str]]


class TagVerbs:
    """The part of the contract that tells tags."""

    name: str
    link: Connection
    refs: Callable[[], Any]
    _moids: dict[str, str]

    def tags(self) -> Mapping[str, tuple[str, ...]]:
        """Of each VM that has any: C(CATEGORY/NAME), and the bare name where only one category has it."""
        if not self.link.is_vcenter:
            raise Unsupported(f"{self.name} is a stand-alone ESXi host, which knows no tags.")
        if not self._moids:
            self.refs()
        rest = Rest(self.link)
        try:
            rest.log_in()
            return by_vm(self._moids, *read(rest))
        except (KeyError, TypeError, ValueError) as exc:
            raise rest.strange() from exc
        finally:
            rest.log_out()


def read(rest: Rest) -> tuple[Pairs, dict[str, tuple[str, str]]]:
    """(tag's id, object id of a VM) pairs; and of each such tag its category and name. Others are not asked for."""
    ids = rest.ask("GET", f"{TAGGING}/tag")
    query = {"tag_ids": list(ids)}
    found = rest.ask("POST", f"{TAGGING}/tag-association?action=list-attached-objects-on-tags", query) if ids else []
    pairs = [
        (str(one["tag_id"]), str(thing["id"]))
        for one in found
        for thing in one.get("object_ids") or ()
        if thing["type"] == "VirtualMachine"
    ]
    tags = {
        tag: rest.ask("GET", f"{TAGGING}/tag/{quote(tag, safe=':')}") for tag in sorted({tag for tag, _vm in pairs})
    }
    categories = {
        category: str(rest.ask("GET", f"{TAGGING}/category/{quote(category, safe=':')}")["name"])
        for category in sorted({str(tag["category_id"]) for tag in tags.values()})
    }
    return pairs, {key: (categories[str(tag["category_id"])], str(tag["name"])) for key, tag in tags.items()}


def by_vm(moids: Mapping[str, str], pairs: Pairs, names: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    owners = Counter(name for _category, name in names.values())
    ids = {moid: vm_id for vm_id, moid in moids.items()}
    told: dict[str, set[str]] = {}
    for tag, moid in pairs:
        category, name = names[tag]
        if moid in ids:
            told.setdefault(ids[moid], set()).update([f"{category}/{name}"] + ([name] if owners[name] == 1 else []))
    return {vm_id: tuple(sorted(tags)) for vm_id, tags in told.items()}


class Rest:
    """One session, on one connection, with the SOAP session's own idea of whom to trust."""

    def __init__(self, link: Connection) -> None:
        self.link, self.session = link, ""
        self.line = http.client.HTTPSConnection(link.host, link.port, timeout=link.options["timeout"], context=link.tls)

    def log_in(self) -> None:
        told = f"{self.link.options['username']}:{self.link.options['password']}".encode()
        basic = "Basic " + base64.b64encode(told).decode("ascii")
        self.session = str(self.ask("POST", "session", headers={"Authorization": basic}))

    def log_out(self) -> None:
        if self.session:
            with suppress(VmwardError):
                self.ask("DELETE", "session")
        self.line.close()

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """What a call answers. Names in it are told by users of vCenter: data, nothing else."""
        sent = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
        if self.session:
            sent["vmware-api-session-id"] = self.session
        try:
            self.line.request(method, f"{API}/{path}", None if body is None else json.dumps(body).encode(), sent)
            answer = self.line.getresponse()
            content = answer.read(MOST)
        except LOST as exc:
            raise self.link.sentence(exc, "read the tags", None) from exc
        if answer.status >= 300:
            raise self._refused(answer.status, path)
        try:
            return json.loads(content) if content else None
        except ValueError as exc:
            raise self.strange() from exc

    def _refused(self, status: int, path: str) -> VmwardError:
        start = f"Cannot read the tags on {self.link.name}: HTTP status {status}"
        if status in (401, 403):
            return AuthFailed(f"{start}. {self.link.options['username']} may not use its Automation API, or its tags.")
        if status == 404 and path == "session":
            return Unsupported(f"{start}. It has no Automation API of that kind, which vCenter has since 7.0 U2.")
        return TaskFailed(f"{start}. Run again; if it stays, name VMs by name or id.")

    def strange(self) -> TaskFailed:
        return TaskFailed(
            f"Cannot read the tags on {self.link.name}: its answer is not the Automation API's. Look for a proxy "
            "before it, or name VMs by name or id."
        )
