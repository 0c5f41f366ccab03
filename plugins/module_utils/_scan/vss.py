# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shadow copies that Windows keeps of an NTFS volume (Volume Shadow Copy Service), as volumes of their own.

A store keeps what blocks held before they were written; what it does not keep is read from the next newer store, and
behind the newest from the volume itself. After the description by the libvshadow project
(https://github.com/libyal/libvshadow/blob/main/documentation/), since Microsoft published none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from .blocks import Blocks, Place
from .layout import NotReadable

MARK = bytes.fromhex("6b87083876c1484eb7ae04046e6cc752")
HEADER_AT = 0x1E00
BLOCK = 0x4000
_SECTOR = 512
_VOLUME, _CATALOG, _LIST = 1, 2, 3  # kinds of records
_UNUSED, _COPY, _STORE = 1, 2, 3  # kinds of entries in the catalog
_FORWARDER, _OVERLAY, _NOT_USED = 1, 2, 4
_MOST_CATALOG = 64  # Windows keeps 512 shadow copies of a volume at most
_MOST_KEPT = 1 << 19  # blocks of all stores: 8 GiB, for which some 200 MB of memory are needed
_DESCRIPTOR = struct.Struct("<QQQII")
_WINDOWS_EPOCH = datetime(1601, 1, 1, tzinfo=timezone.utc)


class _Overlay(NamedTuple):
    """What was written to the shadow copy itself, by sectors of a block."""

    place: int
    sectors: int


@dataclass
class _Store:
    size: int
    created: int
    number: int
    first_list: int = -1  # where its list of blocks begins
    kept: dict[int, int] = field(default_factory=dict)  # where on the volume lies what a block held
    moved: dict[int, int] = field(default_factory=dict)  # which block of the next store holds what a block held
    overlays: dict[int, _Overlay] = field(default_factory=dict)


class ShadowCopy(Blocks):
    """`stores`: its own, and all that are newer, up to the newest."""

    def __init__(self, volume: Blocks, stores: Sequence[_Store]) -> None:
        self._volume, self._stores = volume, stores
        self.size = min(stores[0].size, volume.size)

    @property
    def name(self) -> str:
        """As Windows names former versions."""
        at = _WINDOWS_EPOCH + timedelta(microseconds=min(self._stores[0].created, 1 << 61) // 10)
        return at.strftime("@GMT-%Y.%m.%d-%H.%M.%S")

    @property
    def stretches(self) -> Iterator[tuple[int, int]]:
        """Where it may differ from the next newer one, and the newest from the volume, as (start, length)."""
        own, written = self._stores[0], [store.overlays for store in self._stores[:2]]
        for block in {*own.kept, *own.moved, *(block for overlays in written for block in overlays)}:
            yield block * BLOCK, BLOCK

    def read(self, offset: int, length: int) -> bytes:
        parts = [self._volume.read(at, size) for at, size in self._lies(offset, min(length, self.size - offset))]
        return b"".join(parts).ljust(length, b"\0")

    def places(self, offset: int, length: int, stop: Blocks | None = None) -> Iterator[Place]:
        inside = max(0, min(length, self.size - offset))
        for at, size in self._lies(offset, inside):
            yield from self._volume.places(at, size, stop)
        if length > inside:
            yield length - inside, None, 0

    def _lies(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Place and size on the volume, neighbours joined."""
        first, size = 0, 0
        for at, part in self._parts(offset, length):
            if size and first + size == at:
                size += part
                continue
            if size:
                yield first, size
            first, size = at, part
        if size:
            yield first, size

    def _parts(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        own, end = self._stores[0].overlays, offset + length
        while offset < end:
            block, within = divmod(offset, BLOCK)
            overlay = own.get(block)
            step = min(end - offset, (_SECTOR - within % _SECTOR) if overlay else BLOCK - within)
            if overlay and overlay.sectors >> within // _SECTOR & 1:
                yield overlay.place + within, step
            else:
                yield self._kept(block) + within, step
            offset += step

    def _kept(self, block: int) -> int:
        for store in self._stores:
            place = store.kept.get(block)
            if place is not None:
                return place
            block = store.moved.get(block, block)
        return block * BLOCK


def shadow_copies(volume: Blocks) -> list[ShadowCopy]:
    """From the newest to the oldest. Raises `NotReadable` if what the volume says of them can't be followed."""
    header = volume.read(HEADER_AT, 128)
    if header[:16] != MARK:
        return []
    (catalog,) = struct.unpack_from("<Q", header, 48)
    if not catalog:
        return []
    stores = sorted(_catalog(volume, catalog), key=lambda store: store.number)
    if any(one.created > other.created or one.number == other.number for one, other in zip(stores, stores[1:])):
        raise NotReadable("their times and numbers leave their order open")
    left = _MOST_KEPT
    for store in stores:
        _fill(store, volume)
        left -= len(store.kept) + len(store.moved) + len(store.overlays)
        if left < 0:
            raise NotReadable("they hold more than %d GiB" % (_MOST_KEPT * BLOCK >> 30))
    return [ShadowCopy(volume, stores[number:]) for number in reversed(range(len(stores)))]


def _catalog(volume: Blocks, at: int) -> list[_Store]:
    copies: dict[bytes, _Store] = {}
    places: dict[bytes, int] = {}
    for block in _chain(volume, at, _CATALOG, _MOST_CATALOG):
        for entry in range(128, BLOCK, 128):
            kind, value = struct.unpack_from("<QQ", block, entry)
            uuid = block[entry + 16 : entry + 32]
            if kind == _COPY:
                number, _flags, created = struct.unpack_from("<QQQ", block, entry + 32)
                copies[uuid] = _Store(value, created, number)
            elif kind == _STORE:
                places[uuid] = value
            elif kind not in (0, _UNUSED):
                raise NotReadable("their catalog has an entry of a kind that is not known here (%d)" % kind)
    if set(copies) != set(places):
        raise NotReadable("what they keep lies on another volume, or is not told")
    for uuid, store in copies.items():
        store.first_list = places[uuid]
    return list(copies.values())


def _chain(volume: Blocks, at: int, kind: int, most: int) -> Iterator[bytes]:
    """Blocks of one kind of record, each of which tells where it lies and where the next one does; 0: nowhere."""
    for _count in range(most):
        block = volume.read(at, BLOCK) if at + BLOCK <= volume.size else bytes(BLOCK)
        mark, _version, told, _relative, here, following = struct.unpack_from("<16sIIQQQ", block)
        if (mark, told, here) != (MARK, kind, at):
            raise NotReadable("a block of their records is not where it is said to lie")
        yield block
        at = following
        if not at:
            return
    raise NotReadable("their records have no end")


def _fill(store: _Store, volume: Blocks) -> None:
    """Its list of blocks, in the order in which Windows wrote it."""
    awaited: dict[int, int] = {}  # a block that took another's content over -> that other
    per_block = (BLOCK - 128) // _DESCRIPTOR.size
    for block in _chain(volume, store.first_list, _LIST, _MOST_KEPT // per_block + 2):
        for original, relative, place, flags, sectors in _DESCRIPTOR.iter_unpack(block[128:]):
            if flags & _NOT_USED or not (original or relative or place or flags):
                continue
            if flags not in (0, _FORWARDER, _OVERLAY):
                raise NotReadable("a block is marked in a way that is not known here (%#x)" % flags)
            target = relative if flags == _FORWARDER else place
            if original % BLOCK or target % BLOCK or max(original, target) + _SECTOR > volume.size:
                raise NotReadable("a block lies where none can be")
            _take(store, awaited, original // BLOCK, target, flags, sectors)


def _take(store: _Store, awaited: dict[int, int], block: int, target: int, flags: int, sectors: int) -> None:
    if flags == _OVERLAY:
        before = store.overlays.get(block, _Overlay(target, 0))
        store.overlays[block] = before._replace(sectors=before.sectors | sectors)
        return
    block = awaited.pop(block, block)
    if flags == _FORWARDER:
        following = target // BLOCK
        if following != block:
            store.kept.pop(block, None)
            store.moved[block] = following
            awaited[following] = block
    else:
        store.moved.pop(block, None)
        store.kept[block] = target
