# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which stretches of two disks differ."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Blocks, Place
from ansible_collections.vmward.remediation.plugins.module_utils._scan.places import Ranges, apart, differing


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
