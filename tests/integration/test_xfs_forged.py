# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logs of XFS that were forged to look one way to a scan and another to Linux: refused, or read as Linux reads them."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.layout import NotReadable
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_journal import checksum
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_records import Inode
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_replay import replay
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_walk import XfsWalk
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.mounting import mounted
from ansible_collections.vmward.remediation.tests.corpus.xfs_log import (
    BLOCK,
    COMMIT,
    CONTINUED,
    CONTINUES,
    HEAD,
    SECTOR,
    START,
    UNMOUNT,
    Item,
    Writer,
    buffer,
    chunk_of,
    created,
    given_up,
    inode,
    operation,
    transaction,
)

EVIL = b"EVIL" * 2000
CORE, EXTENTS, LOCAL = 1, 4, 2


class Pair:
    """A file system with a malicious file, and without it; what leads from one to the other, block by block."""

    def __init__(self, place: Path) -> None:
        self.infected, self.clean = place / "infected.img", place / "clean.img"
        with self.infected.open("wb") as file:
            file.truncate(64 * disks.MB)
        disks.run("mkfs.xfs", "-q", "-f", "--unsupported", self.infected)
        with mounted(self.infected) as root:
            (root / "good").write_bytes(b"good" * 100)
            (root / "evil").write_bytes(EVIL)
        shutil.copy(self.infected, self.clean)
        with mounted(self.clean) as root:
            (root / "evil").unlink()
        before, after, log = self.infected.read_bytes(), self.clean.read_bytes(), Writer(self.infected)
        own = range(log.start, log.start + log.sectors * SECTOR)
        places = [at for at in range(0, len(before), BLOCK) if before[at : at + BLOCK] != after[at : at + BLOCK]]
        self.places = [at for at in places if at not in own]
        self.raw = before, after

    def buffers(self, to_clean: bool = True, flags: int = 0) -> list[Item]:
        return [buffer(at, self.raw[to_clean][at : at + BLOCK], flags) for at in self.places]

    def inode(self, path: str) -> tuple[Inode, int]:
        """And where it lies."""
        found: dict[str, Inode] = {}
        list(
            XfsWalk(opened(self.infected)).files(see=lambda _directory, entry: found.update({entry.path: entry.inode}))
        )
        head, number = self.raw[0][:512], found[path].number
        group, within = divmod(number, 1 << head[123] + head[124])
        return found[path], group * struct.unpack_from(">I", head, 84)[0] * BLOCK + within * 512


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"))


def opened(image: Path) -> Raw:
    return Raw(os.open(image, os.O_RDONLY))


def as_we_see_it(image: Path) -> dict[str, bytes]:
    """Raises what is told instead."""
    walk = XfsWalk(replay(opened(image)) or opened(image))
    found = {file.path: file.read(0, file.size) for file in walk.files()}
    assert not walk.doubts()
    assert not list(walk.unnamed())
    assert walk.unproven() == ""
    return found


def as_linux_sees_it(image: Path) -> dict[str, bytes]:
    with mounted(image) as root:
        return {f"/{path.name}": path.read_bytes() for path in root.iterdir()}


def zeroed(raw: bytes, sequence: int) -> bytes:
    """An inode without content, as of that record."""
    made = bytearray(raw)
    for low, high in ((56, 72), (76, 80) if not struct.unpack_from(">Q", raw, 120)[0] & 16 else (24, 32), (176, 192)):
        made[low:high] = bytes(high - low)
    made[112:120], made[100:104] = struct.pack(">Q", sequence), bytes(4)
    made[100:104] = struct.pack("<I", checksum(bytes(made)))
    return bytes(made)


@pytest.fixture
def image(pair: Pair, tmp_path: Path) -> Path:
    return Path(shutil.copy(pair.infected, tmp_path / "d.img"))


@pytest.fixture
def clean(pair: Pair, tmp_path: Path) -> Path:
    return Path(shutil.copy(pair.clean, tmp_path / "d.img"))


def test_what_is_forged_well_is_replayed_as_linux_does(pair: Pair, image: Path) -> None:
    Writer(image).write(transaction(pair.buffers()))
    assert list(as_we_see_it(image)) == ["/good"]
    assert list(as_linux_sees_it(image)) == ["/good"]


def test_an_inode_of_no_record_is_changed(pair: Pair, image: Path) -> None:
    found, at = pair.inode("/evil")
    disks.write_at(image, at, zeroed(found.raw, (1 << 64) - 1))
    Writer(image).write(transaction([inode(found.number, at, CORE | EXTENTS, found.raw, found.raw[176:192])]))
    assert as_we_see_it(image)["/evil"] == EVIL
    assert as_linux_sees_it(image)["/evil"] == EVIL


def quotas(pair: Pair, log: Writer) -> None:
    log.write(transaction(pair.buffers(flags=4)))


def head_in_pieces(pair: Pair, log: Writer) -> None:
    """Linux takes the second piece for the rest of the head, and the third for an item that holds all others."""
    regions = [operation(9, region) for item in pair.buffers() for region in item]
    item = operation(9, struct.pack("<HHI", 0x123D, 1 + len(regions), 0))
    pieces = [operation(9, HEAD[:4], CONTINUES), operation(9, HEAD[4:8], CONTINUED)]
    log.write([operation(9, b"", START), *pieces, item, *regions, operation(9, b"", COMMIT)])


def heads_of_other_sizes(pair: Pair, log: Writer) -> None:
    """Linux takes the size of the first for all."""
    log.write([operation(5, b"", START)], 65536)
    log.write(transaction(pair.buffers()), 32768)


def two_forms_at_once(pair: Pair, log: Writer) -> None:
    found, at = pair.inode("/evil")
    elsewhere = int.from_bytes(found.raw[176:192], "big") & ~((1 << 73) - 1 ^ (1 << 21) - 1) | 1500 << 21
    fork = elsewhere.to_bytes(16, "big")
    log.write(transaction([inode(found.number, at, CORE | EXTENTS | LOCAL, found.raw, fork)]))


def out_of_order(pair: Pair, log: Writer) -> None:
    """It began before another, and ends behind it."""
    late = transaction(pair.buffers(False), 9)
    for part in (late[:2], transaction(pair.buffers()), late[2:]):
        log.write(part)


def overlapping(pair: Pair, log: Writer) -> None:
    """Linux keeps both apart, and writes the second one last, as it was before the first."""
    old, new = pair.raw
    first, second = list[Item](), list[Item]()
    for at in filter(None, pair.places):
        first.append(buffer(at - SECTOR, new[at - SECTOR : at + BLOCK]))
        same = max(
            k for k in range(32) if old[at + 128 * k : at + 128 * k + 128] == new[at + 128 * k : at + 128 * k + 128]
        )
        second.append(chunk_of(at, BLOCK, same, new[at : at + BLOCK]))
    log.write(transaction(first) + transaction(second, 8))


def a_part_is_given_up(pair: Pair, log: Writer) -> None:
    """Which is no cluster of inodes, so that Linux heeds it not."""
    _found, at = pair.inode("/evil")
    chunk = at // 32768 * 32768
    items = [[created(chunk // BLOCK, 64)], [], [given_up(chunk + SECTOR, SECTOR)]]
    log.write([part for number, item in enumerate(items) for part in transaction(item, 7 + number)])


def begun_twice(pair: Pair, log: Writer) -> None:
    begun, ended = ([struct.pack("<HHIQ", kind, 1, 0, 77)] for kind in (0x1244, 0x1245))
    log.write(transaction([begun]) + transaction([begun], 8) + transaction([ended, *pair.buffers()], 9))


def another_shape(pair: Pair, log: Writer) -> None:
    """Linux goes by the superblock as it was before."""
    head = bytearray(pair.raw[0][:BLOCK])
    head[192] = 1  # blocks of directories
    log.write(transaction([buffer(0, bytes(head)), *pair.buffers()[1:]]))


def into_itself(pair: Pair, log: Writer) -> None:
    """The first of three records replaces the third, which Linux reads after it was written."""
    last, place = transaction(pair.buffers()), log.place
    evil, middle = transaction(pair.buffers(to_clean=False)), transaction(pair.buffers()[:1], 6)
    size = len(log.record(last, 0, log.cycle, 0))

    def first(at: int) -> list[bytes]:
        raw = log.record(evil, at, log.cycle, log.cycle << 32 | place)
        start = log.start + at * SECTOR
        return transaction([buffer(start + low, raw[low : low + BLOCK]) for low in range(0, size, BLOCK)], 5)

    lengths = [len(log.record(one, 0, log.cycle, 0)) for one in (first(0), middle)]
    for one in (first(place + sum(lengths) // SECTOR), middle, last):
        log.write(one)


@pytest.mark.parametrize(
    "forge",
    [
        quotas,
        head_in_pieces,
        heads_of_other_sizes,
        two_forms_at_once,
        out_of_order,
        overlapping,
        a_part_is_given_up,
        begun_twice,
        another_shape,
    ],
)
def test_what_linux_might_see_otherwise_is_refused(
    pair: Pair, image: Path, forge: Callable[[Pair, Writer], None]
) -> None:
    forge(pair, Writer(image))
    with pytest.raises(NotReadable, match="its log"):
        as_we_see_it(image)


def test_a_log_that_writes_into_itself_is_read_otherwise_by_linux(pair: Pair, clean: Path) -> None:
    into_itself(pair, Writer(clean))
    with pytest.raises(NotReadable, match="its log writes into itself"):
        as_we_see_it(clean)
    assert as_linux_sees_it(clean)["/evil"] == EVIL


def test_a_gap_that_hides_the_record_that_linux_goes_on_from_is_told(pair: Pair, clean: Path) -> None:
    """As xfs_repair leaves one; but the round before does not end with an unmount."""
    log = Writer(clean)
    changes = transaction(pair.buffers(to_clean=False))
    place = log.sectors - len(log.record(changes, 0, log.cycle, 0)) // SECTOR
    ring = bytearray(log.sectors * SECTOR)
    for at in range(40, place):
        struct.pack_into(">I", ring, at * SECTOR, log.cycle)
    ring[place * SECTOR :] = log.record(changes, place, log.cycle, log.cycle << 32 | place)
    end = log.record([operation(0xB0C0D0D0, b"nU\0\0\0\0\0\0", UNMOUNT)], 0, log.cycle + 1, log.cycle + 1 << 32, 32768)
    ring[: len(end)] = end
    disks.write_at(clean, log.start, bytes(ring))
    with pytest.raises(NotReadable, match="its log is damaged"):
        as_we_see_it(clean)
    assert as_linux_sees_it(clean)["/evil"] == EVIL
