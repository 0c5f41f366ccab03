# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The logs of a guest, out of its exported disks into a tar archive for each: the evidence host's side.

A child without rights parses the disk and fills a file without a name; what it wrote is then read once, for its hash
and the copy in the case together.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib import metadata
from typing import Any, BinaryIO

from .._errors import Refused, TaskFailed
from .._model import printable
from .._scan.archive import Archive, CannotWrite
from .._scan.chain import Layer, open_chain
from .._scan.collect import Collector
from .._scan.foreign import preload
from .._scan.job import BadInput, DiskRequest, LayerSpec, opened
from .._scan.judge import Emit
from .._scan.known import state_of
from .._scan.patterns import BadPattern, Patterns
from .._scan.sandbox import Limits, run_confined
from .progress import DONE, Progress, human
from .store import NAME, PAYLOAD, Store, StoreError

METHOD = "files read from the exported disk, outside of the guest (tar)"
PATTERNS = (
    "/var/log/**",
    "/log/**",
    "/root/.*_history",
    "/home/*/.*_history",
    "/*/.*_history",
    "/Windows/System32/winevt/Logs/**",
    "/Windows/System32/LogFiles/**",
    "/inetpub/logs/LogFiles/**",
    "/Users/*/AppData/Roaming/Microsoft/Windows/PowerShell/PSReadLine/*",
)
LEAST = 1 << 20  # bytes that an archive may at least hold
_MOST_TOLD, _MOST_VOLUMES = 200, 1024
_CHUNK = 1 << 20
_HOLE = bytes(_CHUNK)
_VOLUME = {"number": int, "name": str, "start": int, "size": int, "type": str, "read": bool}


@dataclass(frozen=True)
class Image:
    """An exported disk: its name on the VM, its file, and the format in which it was written."""

    name: str
    path: str
    format: str

    @property
    def artefact(self) -> str:
        return "logs-%s.tar" % self.name


@dataclass(frozen=True)
class Wanted:
    """What the user asked for."""

    vm: str
    case: str
    directory: str
    folder: str
    images: tuple[Image, ...]
    patterns: tuple[str, ...]
    limits: Limits
    end: float  # on the monotonic clock
    progress: Progress
    ansible_version: str

    def check(self) -> None:
        """Bad input fails before anything is read."""
        names = [image.name for image in self.images]
        if not names or len(names) != len(set(names)) or not self.patterns:
            raise Refused("Cannot take the logs of %s: name every disk once, and at least one pattern." % self.vm)
        if self.limits.writes < LEAST or min(self.limits.memory, self.limits.cpu, self.limits.deadline) < 1:
            raise Refused("Cannot take logs with max_bytes below %d, or another limit below 1." % LEAST)
        for what, value in (("case", self.case), ("dest.folder", self.folder)):
            if not NAME.fullmatch(value):
                told = "Cannot use %r as %s: letters, digits, dot, dash and underscore only."
                raise Refused(told % (value[:99], what))
        try:
            Patterns(self.patterns)
        except BadPattern as exc:
            raise Refused(str(exc)) from exc


@dataclass
class Told:
    """What the child says. None of its shapes is believed: it parsed what an attacker wrote."""

    progress: Progress
    disk: str
    volumes: list[dict[str, Any]] = field(default_factory=list)
    volumes_count: int = 0
    missing: list[str] = field(default_factory=list)
    missing_count: int = 0
    files: int = 0
    bytes: int = 0
    finished: bool = False
    failed: str = ""

    def take(self, kind: str, body: dict[str, Any]) -> None:
        if kind == "volume":
            told = {name: shape(body[name]) for name, shape in _VOLUME.items()}
            volume = {name: printable(v, 64) if isinstance(v, str) else v for name, v in told.items()}
            self.volumes_count += 1
            self.volumes += [volume] if self.volumes_count <= _MOST_VOLUMES else []
        elif kind == "missing" and len(self.missing) < _MOST_TOLD:
            self.missing.append(printable(str(body["text"]), 512))
        elif kind in ("finished", "progress"):
            self.files, self.bytes = max(0, int(body["files"])), max(0, int(body["bytes"]))
            if kind == "finished":
                self.finished, self.missing_count = True, max(0, int(body["missing"]))
        elif kind == "failed":
            self.failed = printable(str(body["text"]), 200)

    def tick(self) -> None:
        self.progress("logs of disk %s" % self.disk, self.bytes)


@dataclass(frozen=True)
class Kept:
    """One disk's outcome: its sidecar if there is an archive, else why there is none."""

    image: Image
    sidecar: dict[str, Any] | None
    beside: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    fresh: bool = False


def collect(wanted: Wanted, check: bool) -> dict[str, Any]:
    """Every disk's logs that are not there yet; or what would be taken."""
    wanted.check()
    try:
        kept = [_predicted(wanted, image) if check else _one(wanted, image) for image in wanted.images]
    except (StoreError, BadInput, OSError) as exc:
        full = isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = " Free space, then run again." if full else ""
        raise TaskFailed(
            "Cannot take the logs of %s: %s. No part of an archive was kept; the exported disks are untouched.%s"
            % (wanted.vm, str(exc).rstrip("."), remedy)
        ) from exc
    wanted.progress(DONE)
    return _report(wanted, kept, check)


def _predicted(wanted: Wanted, image: Image) -> Kept:
    with contextlib.closing(Store(wanted.directory, wanted.folder, image.artefact)) as store:
        whole = store.look()["whole"]
        if whole:
            return Kept(image, whole, store.sidecar_artefact())
    return Kept(image, None, reason="", fresh=True)


def _one(wanted: Wanted, image: Image) -> Kept:
    with contextlib.closing(Store(wanted.directory, wanted.folder, image.artefact)) as store:
        whole = store.open(max(0.0, wanted.end - time.monotonic()))["whole"]
        if whole:
            return Kept(image, whole, store.sidecar_artefact())
        with tempfile.TemporaryFile(dir=store.directory) as file:
            began = datetime.now(timezone.utc)
            told, trouble = _read(wanted, image, file)
            if told.failed:
                raise StoreError("the archive of disk %s can't be written: %s" % (image.name, told.failed))
            if trouble or not told.files:
                return Kept(image, None, reason=_why_none(image, told, trouble))
            sidecar = _store(wanted, image, file, store, told, began)
        return Kept(image, sidecar, store.sidecar_artefact(), fresh=True)


def _why_none(image: Image, told: Told, trouble: str) -> str:
    if trouble:
        return "disk %s was not read to its end (%s)" % (image.name, trouble)
    unread = "; not read: %s" % " ".join(told.missing[:3]) if told.missing else ""
    return "disk %s holds no file that the patterns name%s" % (image.name, unread)


def _read(wanted: Wanted, image: Image, file: BinaryIO) -> tuple[Told, str]:
    """Let the child fill the file; and why it did not come to its end."""
    told, out = Told(wanted.progress, image.name), file.fileno()
    limits = replace(wanted.limits, deadline=max(1.0, wanted.end - time.monotonic()))
    with opened([DiskRequest(image.name, (LayerSpec(image.path, image.format),))]) as (_disks, layers):
        before = state_of(layers[0])
        ended = run_confined(
            lambda emit: _prepared(wanted, layers[0], out, emit), limits, [layers[0].fd, out], told.take, told.tick
        )
        trouble = ended.trouble or ("" if told.finished or told.failed else "its reader ended early")
        if state_of(layers[0])[2:6] != before[2:6]:
            trouble = "it was changed while it was read"
    return told, trouble


def _prepared(wanted: Wanted, layer: Layer, out: int, emit: Emit) -> Any:
    """With the caller's rights: load the reader of NTFS. What is answered runs without any."""
    preload()  # where its library is missing, an NTFS is told as unread

    def work(emit: Emit) -> None:
        try:
            Collector(wanted.patterns, Archive(out, wanted.limits.writes), emit).run(open_chain([layer]))
        except CannotWrite as exc:
            emit("failed", {"text": str(exc)})

    return work


def _store(wanted: Wanted, image: Image, file: BinaryIO, store: Store, told: Told, began: datetime) -> dict[str, Any]:
    """The one reading of what the child wrote."""
    store.begin()
    file.seek(0)
    while data := file.read(_CHUNK):
        if data == _HOLE:
            store.hole(len(data))
        else:
            store.write(data)
        if time.monotonic() > wanted.end:
            raise StoreError("the deadline passed while the archive was copied")
    return store.finish({
        "artefact": image.artefact,
        "case": wanted.case,
        "vm": {"name": wanted.vm},
        "disk": {"name": image.name, "path": image.path, "format": image.format, "size": os.stat(image.path).st_size},
        "method": METHOD,
        "taken_at": began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": round((datetime.now(timezone.utc) - began).total_seconds(), 3),
        "patterns": list(wanted.patterns),
        "max_bytes": wanted.limits.writes,
        "files": told.files,
        "bytes": told.bytes,
        "volumes": told.volumes,
        "volumes_count": told.volumes_count,
        "missing": told.missing,
        "missing_count": max(told.missing_count, len(told.missing)),
        "tools": _tools(wanted),
        "evidence_host": platform.node(),
        "claimed_by_guest": False,
    })  # fmt: skip


def _tools(wanted: Wanted) -> dict[str, str]:
    tools = {"ansible-core": wanted.ansible_version, "python": platform.python_version()}
    with contextlib.suppress(metadata.PackageNotFoundError):
        tools["dissect.target"] = metadata.version("dissect.target")
    return tools


def _report(wanted: Wanted, kept: Sequence[Kept], check: bool) -> dict[str, Any]:
    stored = [(one.image, one.sidecar) for one in kept if one.sidecar is not None]
    fresh = [one.image.artefact for one in kept if one.fresh]
    missing = [one.reason for one in kept if one.reason]
    missing += ["%s: %s" % (image.name, text) for image, sidecar in stored for text in sidecar.get("missing", [])]
    count = sum(1 for one in kept if one.reason) + sum(side.get("missing_count", 0) for _image, side in stored)
    told = {
        "changed": bool(fresh),
        "available": bool(stored or (check and fresh)),
        "artefacts": [one for item in kept if item.sidecar for one in _artefacts(wanted, item)],
        "taken": fresh,
        "files": sum(side.get("files", 0) for _image, side in stored),
        "bytes": sum(side.get("bytes", 0) for _image, side in stored),
        "volumes": [{"disk": image.name, **one} for image, side in stored for one in side.get("volumes", [])],
        "volumes_count": sum(side.get("volumes_count", len(side.get("volumes", []))) for _image, side in stored),
        "missing": missing[:_MOST_TOLD],
        "missing_count": count,
        "warnings": [
            "%s was taken with other patterns, and is not taken again." % image.artefact
            for image, side in stored
            if side.get("patterns") != list(wanted.patterns)
        ],
    }
    if check and fresh:
        return {**told, "evidence": {}, "msg": "Would take %s of %s." % (", ".join(fresh), wanted.vm)}
    return {**told, **_settled(wanted, told, stored)}


def _settled(wanted: Wanted, told: dict[str, Any], stored: Sequence[Any]) -> dict[str, Any]:
    """What the order-of-volatility gate may be told, and a sentence."""
    count, missing = told["missing_count"], told["missing"]
    if not stored:
        reason = "; ".join(missing)[:1000]
        msg = "No logs of %s were taken out: %s. What there is lies on the exported disks." % (wanted.vm, reason)
        return {"evidence": {"logs": {"state": "unavailable", "reason": reason}}, "msg": msg}
    names = ", ".join(image.artefact for image, _side in stored)
    already = "" if told["changed"] else " already"
    msg = "%s of %s is stored%s (%d files, %s)" % (names, wanted.vm, already, told["files"], human(told["bytes"]))
    state: dict[str, Any] = {"state": "stored"}
    if count:
        state["incomplete"] = missing[:20] + (["%d more" % (count - 20)] if count > 20 else [])
        msg += ", but not all could be read (%d): %s" % (count, missing[0] if missing else "no reason given")
    return {"evidence": {"logs": state}, "msg": msg.rstrip(".") + "."}


def _artefacts(wanted: Wanted, one: Kept) -> Iterator[dict[str, Any]]:
    """The archive and its sidecar, as the ledger takes them: paths below the case's directory."""
    sidecar: dict[str, Any] = one.sidecar or {}
    path = "/".join((PAYLOAD, wanted.folder, one.image.artefact))
    told: dict[str, Any] = {
        key: sidecar[key] for key in ("size", "sha256", "taken_at", "method", "seconds", "tools") if key in sidecar
    }
    place = "%s:%s/%s" % (sidecar.get("evidence_host", ""), wanted.directory, path)
    yield {"path": path, **told, "location": place}
    yield {"path": path + ".json", "method": "sidecar", **one.beside}
