# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The memory of a guest, matched as raw bytes in overlapping parts. A match is an indicator, never an infection."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

from .blocks import Blocks, OfFile, Raw, Slice
from .engines import MARKER, WINDOW, Engine
from .job import BadInput, DiskRequest, LayerSpec, Request, confined, opened, outcome, prepare, spent
from .judge import Emit, Judge
from .partitions import Extent
from .verdict import LEFT_OUT, Volume, Where

FORMATS = ("elf", "qemu-state", "raw")
_CORE, _LOAD, _MANY, _MOST = 4, 1, 0xFFFF, 4096
# by ELF class: the header from e_type on; a program header, and where in it p_offset, p_paddr, p_filesz and p_memsz
# stand; where a section header keeps sh_info, which counts the program headers when they are too many for the header
_ELF = {1: ("HHIIIIIHHHHHH", "IIIIIIII", (1, 3, 4, 5), 28), 2: ("HHIQQQIHHHHHH", "IIQQQQQQ", (2, 4, 5, 6), 44)}
_NOTES = (
    "Memory is matched as the host holds it: what lies in several pages of a program may lie apart here.",
    "Pages that the guest had swapped out lie on its disk.",
    "Rules that ask for the size or the start of a file mostly cannot match in memory.",
)


class NotAsTold(Exception):
    """The file is not what its format says; the sentence says why."""


@dataclass(frozen=True)
class Region:
    """A stretch of the guest's physical memory, and where the file holds it. `lost`: bytes that it should hold."""

    address: int
    offset: int
    size: int
    lost: int = 0


def scan_memory(request: Request, path: str, kind: str) -> dict[str, Any]:
    """One file, in a confined child."""
    if not os.path.exists(path):
        raise BadInput("Cannot scan the memory dump %s: there is none." % path)
    with opened([DiskRequest("memory", (LayerSpec(path, "raw"),))]) as (_disks, layers):

        def prepare_(emit: Emit) -> Callable[[Emit], None]:
            prepared = prepare(request, emit)
            if prepared is None:
                return lambda emit: None
            return lambda emit: _work(prepared.judge, Raw(layers[0].fd), kind, emit)

        listener, ended = confined(request, layers, prepare_)
    told = {**outcome(listener.tally, ended), **spent(ended)}
    of_files = ("changes", "changes_count", "bases", "archives_unopened")
    return {key: value for key, value in told.items() if key not in of_files}


def _work(judge: Judge, memory: Blocks, kind: str, emit: Emit) -> None:
    for engine in judge.engines:
        if not sees_memory(engine, kind):
            emit(
                "reason",
                {"text": "The self-test failed: %s missed a sample in memory. Nothing was read." % engine.name},
            )
            return
    match(judge, memory, kind)
    for note in _NOTES:
        judge.note(note)
    if judge.indicators.of_files or judge.indicators.paths:
        judge.note(LEFT_OUT + "hashes, paths and names are not looked for in memory.")
    emit("finished", {})


def match(judge: Judge, memory: Blocks, kind: str) -> None:
    """Every region, as a volume of its own. A file that is not what it should be is matched too, and is a reason."""
    regions = [Region(0, 0, memory.size)]
    try:
        regions = regions_of(memory, kind)
    except (NotAsTold, struct.error) as exc:
        judge.reason("The memory was matched as it lies, but it is not whole: %s." % exc)
    judge.emit("expect", {"bytes": sum(region.size for region in regions)})
    for number, region in enumerate(regions):
        where = Where("memory", number + 1)
        before = judge.reasons
        if region.lost:
            judge.reason("%d bytes of memory at address 0x%x are missing in the file." % (region.lost, region.address))
        part = Slice(memory, region.offset, region.size)
        whole = Extent(0, region.size)
        read = judge.guard("The memory", judge.raw, where, part, whole, "memory") and judge.reasons == before
        judge.emit("volume", vars(Volume("memory", number + 1, region.address, region.size, kind, read)))
    judge.flush()
    judge.tell(force=True)


def regions_of(memory: Blocks, kind: str) -> list[Region]:
    if not memory.size:
        raise NotAsTold("it is empty")
    if kind == "elf":
        regions = list(_loads(memory))
        if not any(region.size or region.lost for region in regions):
            raise NotAsTold("it is an ELF core without memory")
        return regions
    if kind == "qemu-state" and memory.read(0, 4) != b"QEVM":
        raise NotAsTold("it does not begin as a state saved by QEMU")
    return [Region(0, 0, memory.size)]


def _loads(memory: Blocks) -> Iterator[Region]:
    head = memory.read(0, 64)
    if head[:4] != b"\x7fELF" or head[4] not in _ELF or head[5] not in (1, 2):
        raise NotAsTold("it does not begin as an ELF core")
    order = "<" if head[5] == 1 else ">"
    header, shape, places, info = _ELF[head[4]]
    fields = struct.unpack_from(order + header, head, 16)
    if fields[0] != _CORE:
        raise NotAsTold("it is no ELF core, but of the ELF type %d" % fields[0])
    table, sections, step, count = fields[4], fields[5], fields[8], fields[9]
    if count == _MANY:
        count = struct.unpack(order + "I", memory.read(sections + info, 4))[0]
    length = struct.calcsize(order + shape)
    if step < length or count > _MOST or table + count * step > memory.size:
        raise NotAsTold("its table of segments is absurd")
    for number in range(count):
        fields = struct.unpack(order + shape, memory.read(table + number * step, length))
        if fields[0] == _LOAD:
            offset, address, size, wanted = (fields[place] for place in places)
            inside = max(0, min(size, memory.size - offset))
            yield Region(address, offset, inside, max(size, wanted) - inside)


def sees_memory(engine: Engine, kind: str) -> bool:
    """Whether the engine finds a planted sample by the very path that a guest's memory takes."""
    sample = planted(kind)
    found: list[tuple[int, int]] = []
    wrong: list[str] = []

    def take(what: str, body: dict[str, Any]) -> None:
        if what == "indicator":
            found.append((body["volume"], body["offset"]))
        elif what == "reason":
            wrong.append(body["text"])

    with engine.testing():
        match(Judge([engine], take, WINDOW), OfFile(io.BytesIO(sample), len(sample)), kind)
    return (2 if kind == "elf" else 1, sample.index(MARKER) % 4096) in found and not wrong


def planted(kind: str) -> bytes:
    """A small memory of this format that holds the marker; as a core, in its second region."""
    page = bytes(1234) + MARKER + bytes(2862 - len(MARKER))
    if kind != "elf":
        return (b"QEVM" if kind == "qemu-state" else b"") + page
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    loads = [(0, 4096), (1 << 32, 8192)]
    table = b"".join(struct.pack("<IIQQQQQQ", 1, 0, at, 0, address, 4096, 4096, 0) for address, at in loads)
    return (head + table).ljust(4096, b"\0") + bytes(4096) + page
