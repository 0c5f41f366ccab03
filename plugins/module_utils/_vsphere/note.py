# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The undo note as one short text. Pure.

Whether old sessions may live is told by the VM's boot time: the note keeps the one it was written at, and a cold start
gives another.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict
from typing import Any

from .._errors import Unsupported
from .._model import Collector, Isolation, IsolationNote, Wiring, printable

KEY = "vmward.isolation"
VERSION = 1  # of what is written; the first notes say none
PLAIN = 900  # characters up to which the text is left readable; a longer one is packed
LARGEST = 1_000_000  # characters that a packed note may have: somebody else may have written it
PACKED = "packed:"
UNKNOWN = "unknown"  # a boot time that vSphere does not tell, as after memory came back: its old sessions may live


def write(note: IsolationNote, boot: str, asleep: bool = False) -> str:
    """``boot``: when the VM was started cold, "" while it is stopped; ``asleep``: it is suspended now, while cut."""
    kept = {
        "v": VERSION,
        "case": note.case,
        "mode": note.mode.value,
        "since": note.since,
        "wiring": {nic: [packed(wiring.config), packed(wiring.live)] for nic, wiring in note.wiring},
        "collectors": [asdict(collector) for collector in note.collectors],
        "boot": boot if note.sessions else "",
        **({"asleep": boot} if asleep else {}),
    }
    text = json.dumps(kept, sort_keys=True)
    if len(text) <= PLAIN:
        return text
    return PACKED + base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def packed(side: str) -> Any:
    return json.loads(side) if side else None


def unpacked(side: Any) -> str:
    return json.dumps(side, sort_keys=True) if side else ""


def parse(text: str, boot: str) -> IsolationNote:
    """``boot``: when the VM that runs now was started cold, "" while it is stopped."""
    try:
        kept = json.loads(unpack(text))
        if kept.get("v", VERSION) != VERSION:
            raise ValueError(f"it is of version {printable(str(kept['v']), 40)}, and this vmward knows {VERSION}")
        return IsolationNote(
            str(kept["case"]),
            Isolation(kept["mode"]),
            str(kept["since"]),
            tuple(sorted((nic, restorable(*sides)) for nic, sides in kept["wiring"].items())),
            tuple(Collector(**collector) for collector in kept["collectors"]),
            sessions=bool(boot and kept["boot"]) and (kept["boot"] == boot or UNKNOWN in (kept["boot"], boot)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as exc:
        raise Unsupported(
            f"Cannot judge this VM: its attribute {KEY} holds no undo note that can be read "
            f"({printable(f'{type(exc).__name__}: {exc}', 160)}). It can be cut off (vm_isolation), which writes a new "
            "one; the former wiring lies in the ledger's undo entry."
        ) from exc


def fell_asleep_cut(text: str, boot: str) -> bool:
    """Whether the memory of a suspended VM was saved while it was cut, and is of this cold start still."""
    return boot != UNKNOWN and bool(json.loads(unpack(text)).get("asleep") == boot)


def restorable(config: Any, live: Any) -> Wiring:
    """The wiring of a card; raises where nothing could be restored from it."""
    for side in (config, *([live] if live else [])):
        dict(side["backing"]), side["up"], side["guest"]
    return Wiring(unpacked(config), unpacked(live))


def unpack(text: str) -> str:
    if not text.startswith(PACKED):
        return text
    engine = zlib.decompressobj()
    return engine.decompress(base64.b64decode(text[len(PACKED) :], validate=True), LARGEST).decode()
