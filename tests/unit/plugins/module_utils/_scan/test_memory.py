# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory files: where each byte of the guest lies, what is missing, and matches at the seams."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Blocks, OfFile
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import (
    MARKER,
    OVERLAP,
    WINDOW,
    RuleFile,
    Yara,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.memory import (
    FORMATS,
    NotAsTold,
    Region,
    match,
    planted,
    regions_of,
    sees_memory,
)

NEEDLE = RuleFile("my.yar", 'rule found { strings: $a = "needle" condition: $a }', "00", 0.0)


def blocks(data: bytes) -> Blocks:
    return OfFile(io.BytesIO(data), len(data))


def core(loads: list[tuple[int, bytes]], big: bool = False, narrow: bool = False) -> bytes:
    """An ELF core with these stretches of memory, as (physical address, bytes)."""
    order = ">" if big else "<"
    header, shape, size = ("HHIIIIIHHHHHH", "IIIIIIII", 52) if narrow else ("HHIQQQIHHHHHH", "IIQQQQQQ", 64)
    step = struct.calcsize(order + shape)
    head = b"\x7fELF" + bytes([1 if narrow else 2, 2 if big else 1, 1]) + bytes(9)
    head += struct.pack(order + header, 4, 62, 1, 0, size, 0, 0, size, step, len(loads), 0, 0, 0)
    start = -(-(size + step * len(loads)) // 4096) * 4096
    table, body, at = b"", b"", start
    for address, data in loads:
        fields = (
            (1, at, 0, address, len(data), len(data), 0, 0)
            if narrow
            else (1, 0, at, 0, address, len(data), len(data), 0)
        )
        table, body, at = table + struct.pack(order + shape, *fields), body + data, at + len(data)
    return (head + table).ljust(start, b"\0") + body


def look(data: bytes, kind: str) -> dict[str, list[dict[str, Any]]]:
    told: dict[str, list[dict[str, Any]]] = {"indicator": [], "reason": [], "volume": [], "finding": []}
    judge = Judge([Yara([NEEDLE], 60)], lambda what, body: told.setdefault(what, []).append(body), WINDOW)
    match(judge, blocks(data), kind)
    return told


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("narrow", [False, True])
def test_a_core_says_where_each_stretch_lies(big: bool, narrow: bool) -> None:
    data = core([(0, bytes(8192)), (0xF0000000, bytes(4096))], big, narrow)
    assert regions_of(blocks(data), "elf") == [Region(0, 4096, 8192), Region(0xF0000000, 12288, 4096)]


def test_a_match_is_an_indicator_at_its_physical_address() -> None:
    told = look(core([(0, bytes(4096)), (1 << 32, b"." * 100 + b"needle")]), "elf")
    (hit,) = told["indicator"]
    volume = told["volume"][hit["volume"] - 1]
    assert volume["start"] + hit["offset"] == (1 << 32) + 100
    assert [one["read"] for one in told["volume"]] == [True, True]
    assert told["finding"] == told["reason"] == []


@pytest.mark.parametrize("at", [WINDOW - 3, WINDOW - OVERLAP - 3, WINDOW - OVERLAP + 5, 2 * WINDOW])
def test_a_match_at_the_seam_of_two_parts_is_found_once(at: int) -> None:
    data = bytearray(2 * WINDOW + 100)
    data[at : at + 6] = b"needle"
    assert [hit["offset"] for hit in look(bytes(data), "raw")["indicator"]] == [at]


def test_a_core_that_was_cut_short_is_not_whole_and_still_matched() -> None:
    whole = core([(0, b"needle" + bytes(8186)), (1 << 20, bytes(4096))])
    told = look(whole[:-5000], "elf")
    assert len(told["indicator"]) == 1
    assert [one["read"] for one in told["volume"]] == [False, False]
    assert "904 bytes of memory at address 0x0 are missing" in told["reason"][0]["text"]
    assert "4096 bytes of memory at address 0x100000 are missing" in told["reason"][1]["text"]


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", "raw", "it is empty"),
        (b"needle", "elf", "does not begin as an ELF core"),
        (b"needle", "qemu-state", "does not begin as a state saved by QEMU"),
        (core([]) + b"needle", "elf", "without memory"),
        (core([(0, b"needle")])[:56] + struct.pack("<H", 9999) + core([(0, b"needle")])[58:], "elf", "absurd"),
        (b"\x7fELF\x02\x01needle", "elf", "no ELF core"),
    ],
)
def test_what_is_not_as_told_is_matched_as_it_lies_and_not_whole(data: bytes, kind: str, words: str) -> None:
    told = look(data, kind)
    assert words in told["reason"][0]["text"]
    assert len(told["indicator"]) == data.count(b"needle")
    with pytest.raises(NotAsTold, match=words):
        regions_of(blocks(data), kind)


def test_an_extended_count_of_segments_is_read() -> None:
    data = bytearray(core([(7 << 20, bytes(4096))]))
    data[56:58] = b"\xff\xff"
    data[40:48] = struct.pack("<Q", 2048)
    data[2048 + 44 : 2048 + 48] = struct.pack("<I", 1)
    assert regions_of(blocks(bytes(data)), "elf") == [Region(7 << 20, 4096, 4096)]


@pytest.mark.parametrize("kind", FORMATS)
def test_an_engine_that_is_blind_in_memory_is_not_believed(kind: str) -> None:
    engine = Yara([NEEDLE], 60)
    assert sees_memory(engine, kind)
    assert MARKER in planted(kind)
    engine.scan = lambda content: ([], "")  # type: ignore[method-assign]
    assert not sees_memory(engine, kind)


def test_all_matches_are_counted_though_not_all_are_listed() -> None:
    told = look(core([(number << 20, b"needle") for number in range(1500)]), "elf")
    assert len(told["indicator"]) == 1000
    assert told["more"] == [{"of": "indicator", "total": 500, "counts": {}}]


def test_what_holds_no_memory_is_no_core() -> None:
    program = bytearray(core([(0, bytes(4096))]))
    program[16] = 2  # ET_EXEC
    for data in (core([]), core([(0, b"")]), bytes(program)):
        (reason,) = look(data, "elf")["reason"]
        assert "ELF core" in reason["text"]
