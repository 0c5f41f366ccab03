# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scan a base once as a whole, and keep what later scans on top of it must know."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Callable

from .baseline import PART, chunks, pack
from .chain import Layer
from .groups import dealt, to_read
from .job import (
    BadInput,
    Part,
    Request,
    check_directory,
    clocks,
    confined_all,
    in_all,
    loaded,
    opened,
    prepare,
    spent,
    together_told,
)
from .judge import Emit
from .known import Base, Known, fingerprint, state_of
from .scanner import DiskSpec, Scanner
from .share import Share


def index(request: Request) -> dict[str, Any]:
    """Nothing is done if the same bytes were indexed with the same rules and engines."""
    known = Known(request.directory)
    check_directory(request)
    with opened(request.disks) as (disks, layers):
        if request.dry:
            return _index(request, known, disks, layers)
        try:
            with known.locked(known.path(layers).rsplit("/", 1)[-1]):
                return _index(request, known, disks, layers)
        except OSError as exc:
            raise BadInput("Cannot keep what is known of %s: %s." % (layers[0].path, exc)) from exc


def _index(request: Request, known: Known, disks: Sequence[DiskSpec], layers: Sequence[Layer]) -> dict[str, Any]:
    began = clocks()
    base = known.base(layers)
    states = [state_of(layer) for layer in layers]
    same = base is not None and base.is_of(layers)
    former = base if same else None
    rules = loaded(request)
    count = 1 if request.dry else dealt([to_read(tuple(disks), "")], request.children, rules)[0]
    shares = confined_all(
        request,
        [Part(layers, partial(_prepare, request, former, disks, rules, Share(index, count))) for index in range(count)],
    )
    tally, listener = together_told(shares), shares[0][0]
    ended = in_all(shares, began)
    told = {**tally.as_result(), **spent(ended), "index": known.path(layers)}
    if base is not None and all(one.is_current for one, _ended in shares):
        if not base.is_untouched(layers) and not request.dry:
            known.keep(layers, {**base.head, "states": states}, base.body)
        return {**base.head["result"], **spent(ended), "index": known.path(layers), "changed": False}
    if request.dry:
        return {**told, "changed": True}
    is_one = len({one.binding for one, _ended in shares}) == 1
    if tally.finished and listener.binding and is_one and not any(one.trouble for _listener, one in shares):
        hashes = [fingerprint(layer) for layer in layers]
        if states == [state_of(layer) for layer in layers]:
            result = {key: value for key, value in told.items() if key not in ("changes", "index")}
            head = {
                "states": states,
                "sha256": hashes,
                "binding": listener.binding,
                "verdict": told["verdict"],
                "result": {**result, "findings": told["findings"][:100], "indicators": told["indicators"][:100]},
            }
            known.keep(layers, head, bytes(listener.index))
            return {**told, "changed": True}
    return {**told, "index": "", "changed": False}


def _prepare(
    request: Request, base: Base | None, disks: Sequence[DiskSpec], rules: Any, share: Share, emit: Emit
) -> Callable[[Emit], None]:
    # Contents known to be clean would be no scan of the base by itself
    prepared = prepare(request, emit, remember=False, rules=rules, share=share)
    if prepared is None:
        return lambda emit: None
    if base is not None and prepared.binding and base.binding == prepared.binding:
        emit("current", {})
        return lambda emit: None
    if request.dry:
        return lambda emit: None

    def work(emit: Emit) -> None:
        if not prepared.is_trusted(emit):
            return
        scanner = Scanner(prepared.judge, indexing=True)
        scanner.run([replace(disk, snapshot="") for disk in disks])
        for part in chunks(pack(scanner.index or {}), PART) if share.index == 0 else ():
            emit("index", {"data": b64encode(part).decode()})
        emit("met", share.proof())
        emit("finished", {})

    return work
