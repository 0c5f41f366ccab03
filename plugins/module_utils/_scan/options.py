# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that all scanning modules share, and the request that they make."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from .engines import RuleFile
from .given import read_whole, why_not
from .inside import Archives
from .ioc import NO_INDICATORS, BadIndicators, Indicators, merged, parse
from .job import BadInput, DiskRequest, LayerSpec, Request, read_rules
from .sandbox import Limits
from .verdict import printable

_MOST = 64 << 20
_OR_NONE = ("max_file_size", "archive_depth", "at_once")
_LEAST_MEMORY = 64  # MiB: less does not do for the self-test
_POSITIVE = (
    *("deadline", "cpu_limit", "memory_limit", "file_timeout"),
    *("archive_members", "archive_size", "archive_ratio"),
)

LAYER = {
    "path": {"type": "path", "required": True},
    "format": {"type": "str", "required": True, "choices": ["qcow2", "raw", "vmdk", "vhdx"]},
}
LAYERS = {"type": "list", "elements": "dict", "required": True, "options": LAYER}
DISK = {
    "name": {"type": "str", "required": True},
    "layers": LAYERS,
    "snapshot": {"type": "str", "default": ""},
    "clone_of": {**LAYERS, "required": False, "default": []},
}


def scan_spec() -> dict[str, Any]:
    return {
        "rules": {"type": "list", "elements": "path", "default": []},
        "indicators": {"type": "list", "elements": "path", "default": []},
        "deadline": {"type": "int", "default": 7200},
        "cpu_limit": {"type": "int", "default": 7200},
        "memory_limit": {"type": "int", "default": 2048},
        "file_timeout": {"type": "int", "default": 300},
        "at_once": {"type": "int", "default": 0},
        "progress_file": {"type": "path"},
    }


def file_spec() -> dict[str, Any]:
    """For what scans files: not only YARA judges those."""
    return {
        **scan_spec(),
        "clamd_socket": {"type": "path"},
        "clamd_database": {"type": "path"},
        "engines_required": {"type": "list", "elements": "str", "choices": ["yara", "clamd"], "default": ["yara"]},
        "max_file_size": {"type": "int", "default": 0},
        "archive_depth": {"type": "int", "default": 8},
        "archive_members": {"type": "int", "default": 50000},
        "archive_size": {"type": "int", "default": 1 << 30},
        "archive_ratio": {"type": "int", "default": 500},
    }


def request_of(params: dict[str, Any], disks: Sequence[DiskRequest] | None = None, dry: bool = False) -> Request:
    """`dry`: in check mode, when nothing is kept for later scans."""
    if disks is not None and not (disks and all(disk.layers for disk in disks)):
        raise BadInput("Cannot scan nothing: name at least one disk, and at least one layer for each.")
    names = sorted(printable(disk.name, 64) for disk in disks or ())
    if "" in names or len(set(names)) < len(names):
        told = "Cannot tell the disks apart: each needs a name of its own, and they are called %s."
        raise BadInput(told % printable(", ".join(names) or "nothing", 300))
    least = {**dict.fromkeys(_POSITIVE, 1), **dict.fromkeys(_OR_NONE, 0)}
    low = ["%s: %d" % (name, params[name]) for name in least if params.get(name, 1) < least[name]]
    if low:
        told = "Cannot scan with a limit below 1 (only %s and %s may be 0): %s."
        raise BadInput(told % (", ".join(_OR_NONE[:-1]), _OR_NONE[-1], ", ".join(low)))
    if params.get("memory_limit", _LEAST_MEMORY) < _LEAST_MEMORY:
        raise BadInput("Cannot scan with a memory_limit below %d (MiB)." % _LEAST_MEMORY)
    archives = {name: params.get("archive_" + name, value) for name, value in vars(Archives()).items()}
    indicators = _indicators(params["indicators"])
    return Request(
        disks=tuple(disks or ()),
        rules=(*read_rules(params["rules"]), *rules_of(indicators)),
        clamd_socket=params.get("clamd_socket") or "",
        clamd_database=params.get("clamd_database") or "",
        engines_required=tuple(params.get("engines_required", ["yara"])),
        max_file_size=params.get("max_file_size", 0),
        progress_file=params["progress_file"] or "",
        limits=Limits(params["deadline"], params["memory_limit"] << 20, params["cpu_limit"]),
        indicators=indicators,
        directory=params.get("index_directory") or "",
        at_once=params["at_once"],
        dry=dry,
        file_timeout=params["file_timeout"],
        archives=Archives(**archives),
    )


def layers_of(layers: Sequence[dict[str, Any]]) -> tuple[LayerSpec, ...]:
    return tuple(LayerSpec(layer["path"], layer["format"]) for layer in layers)


def disks_of(disks: Sequence[dict[str, Any]]) -> list[DiskRequest]:
    return [
        DiskRequest(disk["name"], layers_of(disk["layers"]), disk["snapshot"], layers_of(disk["clone_of"]))
        for disk in disks
    ]


def _indicators(paths: Sequence[str]) -> Indicators:
    found = []
    for path in paths:
        try:
            found.append(parse(read_whole(path, _MOST)[0].decode("utf-8"), path))
        except (OSError, UnicodeDecodeError) as exc:
            raise BadInput("Cannot read the indicators in %s: %s." % (path, why_not(exc))) from exc
        except BadIndicators as exc:
            raise BadInput(str(exc)) from exc
    return merged(found) if found else NO_INDICATORS


def rules_of(indicators: Indicators) -> list[RuleFile]:
    """What of the indicators is looked for by YARA."""
    text = indicators.rules()
    return [RuleFile("(indicators)", text, hashlib.sha256(text.encode()).hexdigest(), 0)] if text else []
