# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which stretches of two disks differ."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Blocks, Meter, Place, Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.places import Ranges, apart, differing

MB = 1 << 20


class Memory(Blocks):
    """Bytes that share what they say they share."""

    def __init__(self, data: bytes, places: list[Place] | None = None) -> None:
        self._data, self._places, self.size = data, places, len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length].ljust(length, b"\0")

    def places(self, offset: int, length: int, stop: Blocks | None = None) -> Iterator[Place]:
        if self._places is None:
            yield from super().places(offset, length, stop)
            return
        at = 0
        for size, file, host in self._places:
            low, high = max(at, offset), min(at + size, offset + length)
            if low < high:
                yield high - low, file, host + low - at
            at += size


def as_set(ranges: Ranges) -> set[int]:
    return {at for start, end in ranges for at in range(start, end)}


def test_ranges_are_sets() -> None:
    chance = random.Random(1)
    for _round in range(300):
        one, other = (
            Ranges((start, start + chance.randrange(9)) for start in chance.sample(range(60), chance.randrange(6)))
            for _which in range(2)
        )
        assert as_set(one.minus(other)) == as_set(one) - as_set(other)
        assert as_set(one.plus(other)) == as_set(one) | as_set(other)
        low = chance.randrange(50)
        assert as_set(Ranges(one.within(low, low + 13))) == as_set(one) & set(range(low, low + 13))
        assert as_set(one.part(low, 13)) == {at - low for at in as_set(one) & set(range(low, low + 13))}
        assert one.touches(low, low + 13) == bool(as_set(one) & set(range(low, low + 13)))
        assert one.size == len(as_set(one))


def test_only_what_lies_elsewhere_is_compared() -> None:
    old = Memory(bytes(40960), [(16384, "a", 0), (8192, None, 0), (16384, "a", 90000)])
    new = Memory(bytes(40960), [(8192, "a", 0), (8192, "b", 0), (8192, None, 0), (8192, "a", 90000), (8192, "a", 0)])
    assert list(apart(new, old)) == [(8192, 8192), (32768, 8192)]


def test_what_the_base_holds_is_not_looked_into() -> None:
    old = Memory(bytes(8192))
    assert list(apart(Memory(bytes(8192), [(4096, old, 0), (4096, "top", 0)]), old)) == [(4096, 4096)]


def test_differing_blocks_are_those_whose_bytes_differ() -> None:
    chance = random.Random(2)
    base = chance.randbytes(3 << 20)
    changed = bytearray(base)
    places = sorted(chance.sample(range(len(base)), 9))
    for place in places:
        changed[place] ^= 1
    found = differing(Memory(bytes(changed)), Memory(base), [(0, len(base))])
    assert list(found) == list(Ranges((place & ~4095, (place & ~4095) + 4096) for place in places))


class Watched(Memory):
    """Bytes that note what was asked of them, in order."""

    def __init__(self, data: bytes, asked: list[tuple[str, int]]) -> None:
        super().__init__(data)
        self._asked = asked

    def read(self, offset: int, length: int) -> bytes:
        self._asked.append(("read", offset))
        return super().read(offset, length)

    def expect(self, offset: int, length: int) -> None:
        self._asked.append(("expect", offset))


def test_what_is_compared_was_announced_before_but_not_all_at_once() -> None:
    asked: list[tuple[str, int]] = []
    size = 100 * MB
    differing(Watched(bytes(size), asked), Memory(b""), [(0, size)])
    assert [at for what, at in asked if what == "read"] == list(range(0, size, MB))
    assert sorted(at for what, at in asked if what == "expect") == list(range(0, size, MB))
    ahead = 0
    for index, (what, at) in enumerate(asked):
        ahead = max(ahead, at) if what == "expect" else ahead
        if what == "read":
            assert ("expect", at) in asked[:index]
            assert ahead - at <= 33 * MB, "the window is bounded"
            assert ahead - at >= 32 * MB or ahead == size - MB, "it is full until the end comes"


def sparse(path: Path, size: int, parts: dict[int, bytes]) -> Raw:
    with path.open("wb") as file:
        file.truncate(size)
        for at, data in parts.items():
            file.seek(at)
            file.write(data)
    return Raw(os.open(path, os.O_RDONLY))


def test_holes_of_a_raw_image_are_zeros_that_lie_nowhere(tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 8 * MB, {2 * MB: b"a" * MB, 5 * MB + 7: b"b"})
    data = bytearray(8 * MB)
    for length, file, host in disk.places(0, 8 * MB + 100):
        assert length > 0
        if file is not None:
            at = host
            data[at : at + length] = disk.read(at, length)
    assert bytes(data) == disk.read(0, 8 * MB)
    places = list(disk.places(0, 8 * MB + 100))
    assert sum(place[0] for place in places) == 8 * MB + 100
    assert places[0] == (2 * MB, None, 0)
    assert list(disk.places(MB, 100)) == [(100, None, 0)]
    assert [place[0] for place in disk.places(2 * MB, 100)] == [100]


def test_holes_of_the_base_are_not_read(tmp_path: Path) -> None:
    base = sparse(tmp_path / "base", 8 * MB, {6 * MB: b"a" * MB})
    changed = bytearray(8 * MB)
    changed[6 * MB : 7 * MB] = b"a" * MB
    changed[3 * MB + 5] = 1
    changed[6 * MB + 9000] = 1
    before = Meter.bytes
    found = differing(Memory(bytes(changed)), base, [(0, 8 * MB)])
    assert list(found) == [(3 * MB, 3 * MB + 4096), (6 * MB + 8192, 6 * MB + 12288)]
    assert Meter.bytes - before == MB


def test_what_lies_on_a_hole_differs_but_for_zeros(tmp_path: Path) -> None:
    chance = random.Random(3)
    base = sparse(tmp_path / "base", 4 * MB, {})
    for size in (4 * MB, 4 * MB - 4096 - 100):
        full = chance.randbytes(size)
        assert list(differing(Memory(full), base, [(0, size)])) == [(0, size)]
        holed = bytearray(full)
        holed[MB + 8192 : MB + 16384] = bytes(8192)
        holed[100:4200] = bytes(4100)  # longer than a block, but in none
        assert list(differing(Memory(bytes(holed)), base, [(0, size)])) == [(0, MB + 8192), (MB + 16384, size)]
    assert not differing(Memory(bytes(4 * MB)), base, [(0, 4 * MB)])
