# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shadow copies written by hand into an image, as Windows would keep them of it."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.tests.corpus import disks

MARK = bytes.fromhex("6b87083876c1484eb7ae04046e6cc752")
BLOCK, HEADER_AT = 0x4000, 0x1E00
FORWARDER, OVERLAY, NOT_USED = 1, 2, 4
FILE = "{3808876b-c176-4e48-b7ae-04046e6cc752}"
_VOLUME, _CATALOG, _LIST, _STORE, _RANGES, _BITMAP = range(1, 7)
_FIRST = 132_400_000_000_000_000  # 2020-07-22


@dataclass(frozen=True)
class Descriptor:
    """`target`: where what it keeps lies; of a forwarder, which block it is now."""

    original: int
    target: int
    flags: int = 0
    sectors: int = 0

    def raw(self) -> bytes:
        relative, place = (self.target, 0) if self.flags == FORWARDER else (0x10000, self.target)
        return struct.pack("<QQQII", self.original, relative, place, self.flags, self.sectors)


@dataclass
class Store:
    descriptors: list[Descriptor] = field(default_factory=list)


def write(image: Path, free: Iterable[int], stores: Sequence[Store]) -> None:
    """Into these free blocks of the volume, the first store being the oldest."""
    at = iter(free)
    catalog, entries = next(at), b""
    for number, store in enumerate(stores):
        name, places = uuid.UUID(int=number + 1).bytes_le, {kind: next(at) for kind in (_STORE, _RANGES, _BITMAP)}
        rows = [one.raw() for one in store.descriptors]
        lists = [rows[low : low + 508] for low in range(0, len(rows), 508)] or [[]]
        placed = [next(at) for _list in lists]
        for here, following, part in zip(placed, [*placed[1:], 0], lists, strict=True):
            disks.write_at(image, here, record(_LIST, here, following, b"".join(part)))
        for kind, here in places.items():
            disks.write_at(image, here, record(kind, here, 0, b"", 128 if kind == _STORE else 0))
        second = 10_000_000
        entries += struct.pack("<QQ16sQQQ72x", 2, image.stat().st_size, name, number + 1, 0x40,
                               _FIRST + number * second)  # fmt: skip
        entries += struct.pack("<QQ16sQQQQQQQ40x", 3, placed[0], name, places[_STORE], places[_RANGES],
                               places[_BITMAP], 40, 0, 0, number)  # fmt: skip
    disks.write_at(image, catalog, record(_CATALOG, catalog, 0, entries))
    disks.write_at(image, HEADER_AT, header(catalog))


def header(catalog: int) -> bytes:
    return (MARK + struct.pack("<IIQQQQ", 1, _VOLUME, HEADER_AT, HEADER_AT, 0, catalog)).ljust(512, b"\0")


def record(kind: int, here: int, following: int, body: bytes, told: int = 0) -> bytes:
    head = MARK + struct.pack("<IIQQQQ", 1, kind, 0, here, following, told)
    return (head.ljust(128, b"\0") + body).ljust(BLOCK, b"\0")


@contextmanager
def shown(image: Path) -> Iterator[list[Path]]:
    """What libvshadow makes of them, the oldest first."""
    if not shutil.which("vshadowmount"):
        pytest.skip("libvshadow is not installed")
    disks.run("vshadowinfo", image)  # it takes what is written here for shadow copies
    point = image.with_suffix(".shadows")
    point.mkdir(exist_ok=True)
    driver = subprocess.Popen(["vshadowmount", image, point], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not point.is_mount():
        if driver.poll():
            pytest.skip(f"nothing can be mounted here: {driver.communicate()[1].decode()}")
        time.sleep(0.02)
    try:
        yield sorted(point.iterdir(), key=lambda path: int(path.name.removeprefix("vss")))
    finally:
        disks.run("umount", point)
        driver.communicate()


def keep(image: Path, states: Sequence[Path], place: int) -> None:
    """What a volume was in these former states, the oldest first; from `place` on nothing else lies on it."""
    free = iter(range(-(-place // BLOCK) * BLOCK, image.stat().st_size, BLOCK))
    held = [state.read_bytes() for state in (*states, image)]
    stores = []
    for then, after in pairwise(held):
        store = Store()
        for at in range(0, len(then), BLOCK):
            if then[at : at + BLOCK] != after[at : at + BLOCK]:
                store.descriptors.append(Descriptor(at, next(free)))
                disks.write_at(image, store.descriptors[-1].target, then[at : at + BLOCK])
        stores.append(store)
    write(image, free, stores)
