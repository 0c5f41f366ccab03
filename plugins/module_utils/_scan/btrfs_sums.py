# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checksums of btrfs. Most are CRC-32C, of nodes that are so long that going through their words takes too long.

As polynomials, A * x^n + B leaves the same remainder as A * (x^n mod P) + B, which is half as long where A and B are of
one length: a few shifts of a large number do what a loop would do for each of its words.
"""

from __future__ import annotations

import hashlib
from functools import cache

from .journal import crc32c

_POLYNOMIAL, _ONES = 0x11EDC6F41, 0xFFFFFFFF
_SHORT, _TRIED = 1024, 64  # bits that are left to the loop; how many places are tried for one with few shifts

Fold = tuple[int, tuple[int, ...]]  # so many bits are taken from the front, and put back at these places


def checksum(kind: int, data: bytes) -> bytes:
    """Empty if that kind is not known here."""
    if kind == 0:
        return (_crc32c(data) ^ _ONES).to_bytes(4, "little")
    if kind == 2:
        return hashlib.sha256(data).digest()
    return hashlib.blake2b(data, digest_size=32).digest() if kind == 3 else b""


def _crc32c(data: bytes) -> int:
    rest, bits = int.from_bytes(data, "little") ^ _ONES, 8 * len(data)
    for taken, places in _folds(bits):
        front, rest, bits = rest & (1 << taken) - 1, rest >> taken, bits - taken
        for place in places:
            rest ^= front << place
    return crc32c(0, rest.to_bytes(bits // 8, "little"))


@cache
def _folds(bits: int) -> tuple[Fold, ...]:
    found = list[Fold]()
    while bits > _SHORT:
        most = (bits - 32) // 32 * 16
        taken, left = min(
            ((most - 16 * number, _power(bits - most + 16 * number)) for number in range(min(_TRIED, most // 32))),
            key=lambda one: bin(one[1]).count("1"),
        )
        bits -= taken
        found.append((taken, tuple(bits - taken - bit for bit in range(32) if left >> bit & 1)))
    return tuple(found)


def _power(exponent: int) -> int:
    """What x^exponent leaves."""
    left = 1
    for bit in bin(exponent)[2:]:
        square = sum(1 << 2 * place for place in range(32) if left >> place & 1) << int(bit)
        for place in range(square.bit_length() - 1, 31, -1):
            square ^= _POLYNOMIAL << place - 32 if square >> place & 1 else 0
        left = square
    return left
