# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logs of XFS of version 4, which has no checksums, as an attacker may leave them: a scan ends, and is not clean."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.layout import NotReadable
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_replay import Patched, replay
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_walk import XfsWalk
from ansible_collections.vmward.remediation.tests.corpus import disks, xfs4
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct
from ansible_collections.vmward.remediation.tests.corpus.xfs_log import (
    BLOCK,
    SECTOR,
    Item,
    Writer,
    buffer,
    created,
    given_up,
    transaction,
)

CORE, EXTENTS, TREE = 1, 4, 8
CLUSTER = 8192


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Direct:
    golden = tmp_path_factory.mktemp("golden") / "d.img"
    golden.write_bytes(bytes(disks.MB))
    return Direct(golden)


class Former:
    """An unmounted file system with a malicious file, and a log that goes on as it is told."""

    def __init__(self, place: Path, *options: str) -> None:
        (place / "evil").write_bytes(disks.MARKER)
        (place / "proto").write_text(f"/\n1 1\nd--755 0 0\nevil.com ---644 0 0 {place}/evil\n$\n$\n")
        self.image = xfs4.made(place / "d.img", "-p", str(place / "proto"), *options)
        self.at = xfs4.inode_of(self.image, "/evil.com")
        self.inode, self.log = self.read(self.at, 256), Writer(self.image)

    def read(self, at: int, length: int) -> bytes:
        with self.image.open("rb") as file:
            file.seek(at)
            return file.read(length)

    def head(self) -> bytearray:
        return bytearray(self.read(0, SECTOR))

    def item(self, inode: bytes, fields: int = CORE, *forks: bytes, at: int = 0) -> Item:
        place = at or self.at
        cluster = place // CLUSTER * CLUSTER
        where = struct.pack("<Q16xqii", 0, cluster // SECTOR, CLUSTER // SECTOR, place - cluster)
        told = struct.pack("<HHIHHI", 0x123B, 2 + len(forks), fields, 0, sum(map(len, forks)), 0) + where
        return [told, core(inode), *forks]


def core(raw: bytes) -> bytes:
    """As the log has it: the lowest byte first."""
    new = bytearray(raw[:96])
    times = [(at, "ii") for at in (32, 40, 48)]
    for at, form in ((0, "HHbbH"), (8, "IIIHH"), (30, "H"), *times, (56, "QQIIH"), (84, "IHHI")):
        struct.pack_into("<" + form, new, at, *struct.unpack_from(">" + form, raw, at))
    return bytes(new)


@pytest.fixture
def former(tmp_path: Path) -> Former:
    return Former(tmp_path)


@pytest.fixture
def former_1(tmp_path: Path) -> Former:
    return Former(tmp_path, "-l", "version=1")


def emptied(inode: bytes) -> bytes:
    made = bytearray(inode)
    for low, high in ((56, 72), (76, 80)):  # its size, its blocks, its extents
        made[low:high] = bytes(high - low)
    return bytes(made)


def test_what_is_forged_well_is_replayed(former: Former) -> None:
    former.log.write(transaction([former.item(emptied(former.inode))]))
    view = replay(Raw(os.open(former.image, os.O_RDONLY)))
    assert view is not None
    assert {file.path: file.size for file in XfsWalk(view).files()} == {"/evil.com": 0}


def of_version_5(former: Former) -> None:
    made = bytearray(emptied(former.inode))
    made[4] = 3
    former.log.write(transaction([former.item(bytes(made))]))


def cut_off(former: Former) -> None:
    told, whole = former.item(emptied(former.inode))
    former.log.write(transaction([[told, whole[:92]]]))


def where_none_is(former: Former) -> None:
    former.log.write(transaction([former.item(emptied(former.inode), at=20 * disks.MB)]))


def on_one_of_version_5(former: Former) -> None:
    """Linux would take it for newer by a number that only these have, and show what lies there."""
    disks.write_at(former.image, former.at + 4, b"\3")
    disks.write_at(former.image, former.at + 112, struct.pack(">Q", 1 << 40))
    former.log.write(transaction([former.item(emptied(former.inode))]))


def outside_of_its_place(former: Former) -> None:
    told, whole = former.item(emptied(former.inode))
    former.log.write(transaction([[told[:-4] + struct.pack("<i", CLUSTER), whole]]))


def outside_of_the_volume(former: Former) -> None:
    former.log.write(transaction([former.item(emptied(former.inode), at=1 << 45)]))


def new_inodes(former: Former) -> None:
    """Of version 5 only."""
    former.log.write(transaction([created(4000, 64)]))


def large_root(former: Former) -> None:
    """It says to hold more than there is."""
    root = struct.pack(">4xHH", 1, 0xFFFF).ljust(120, b"\0")
    former.log.write(transaction([former.item(former.inode, CORE | TREE, root)]))


def no_root(former: Former) -> None:
    former.log.write(transaction([former.item(former.inode, CORE | TREE, bytes(8))]))


def large_fork(former: Former) -> None:
    former.log.write(transaction([former.item(former.inode, CORE | EXTENTS, bytes(400))]))


def no_fork(former: Former) -> None:
    former.log.write(transaction([former.item(former.inode, CORE | EXTENTS)]))


def another_version(former: Former) -> None:
    """Linux goes by it only after the replay."""
    head = former.head()
    head[101] = head[101] & ~15 | 5
    former.log.write(transaction([buffer(0, bytes(head))]))


def another_log(former: Former) -> None:
    head = former.head()
    head[100] &= ~4
    former.log.write(transaction([buffer(0, bytes(head))]))


def records_of_another_version(former: Former) -> None:
    """Linux goes by the superblock."""
    head = former.head()
    disks.write_at(former.image, 100, bytes([head[100] & ~4]))
    former.log.write(transaction([former.item(emptied(former.inode))]))


def twice_at_once(former: Former) -> None:
    """Old kernels begin with the last."""
    at = former.at // CLUSTER * CLUSTER
    old = former.read(at, CLUSTER)
    within = former.at - at
    new = old[:within] + emptied(former.inode) + old[within + len(former.inode) :]
    former.log.write(transaction([buffer(at, new), buffer(at, old)]))


def given_up_at_once(former: Former) -> None:
    """Old kernels follow the items as they come, new ones give up at last."""
    gone = given_up(former.at // CLUSTER * CLUSTER, CLUSTER)
    former.log.write(transaction([gone, former.item(emptied(former.inode))]))


def a_wrong_sum(former: Former) -> None:
    former.log.write(transaction([former.item(emptied(former.inode))]))
    disks.write_at(former.image, former.log.start + former.log.place * SECTOR - 8, b"torn")


@pytest.mark.parametrize(
    ("forge", "why"),
    [
        (of_version_5, "holds an inode that is damaged"),
        (cut_off, "holds an inode that is damaged"),
        (where_none_is, "changes an inode where none is"),
        (on_one_of_version_5, "changes an inode where none is"),
        (outside_of_its_place, "changes an inode outside of its place"),
        (outside_of_the_volume, "changes what lies outside of it"),
        (new_inodes, "holds changes of an unknown kind"),
        (large_root, "holds an inode that is damaged"),
        (no_root, "is damaged: a change is not whole"),
        (large_fork, "holds an inode that is damaged"),
        (no_fork, "is damaged: a change is not whole"),
        (another_version, "changes what Linux goes by"),
        (another_log, "changes what Linux goes by"),
        (records_of_another_version, "has records of another version"),
        (twice_at_once, "changes one place twice at once"),
        (given_up_at_once, "changes an inode that it gives up"),
        (a_wrong_sum, "is damaged)"),
    ],
)
def test_what_linux_does_not_follow_is_told(
    direct: Direct, former: Former, forge: Callable[[Former], None], why: str
) -> None:
    forge(former)
    tally = direct.look(former.image, False)
    assert f"its log {why}" in " ".join(tally.reasons)
    assert tally.verdict().value != "clean"


def test_a_record_of_version_1_is_never_larger_than_its_header_tells(former_1: Former, direct: Direct) -> None:
    """Its one sector has room for the words of 64 others."""
    former_1.log.write(transaction([buffer(20 * disks.MB + BLOCK * at, bytes(BLOCK)) for at in range(9)]), version=1)
    assert "its log is damaged" in " ".join(direct.look(former_1.image, False).reasons)


def test_a_last_record_that_says_to_be_of_another_version_is_not_left_out(former_1: Former) -> None:
    """By its own word its header would be larger, so that it would not yet be written as a whole."""
    log, changes = former_1.log, [former_1.item(former_1.inode)]
    log.write(transaction(changes), version=1, size=32768)
    at = log.start + log.place * SECTOR
    log.write(transaction([former_1.item(emptied(former_1.inode))]), version=1, size=32768)
    disks.write_at(former_1.image, at + 8, struct.pack(">I", 2))
    disks.write_at(former_1.image, at + 320, struct.pack(">I", 262144))
    disks.write_at(former_1.image, at + 32, bytes(4))
    with pytest.raises(NotReadable, match="records of another version"):
        replay(Raw(os.open(former_1.image, os.O_RDONLY)))


@pytest.mark.parametrize("behind", [400, 600])
def test_what_lies_farther_ahead_than_linux_writes_at_once_is_told(former_1: Former, behind: int) -> None:
    """In a log of version 1 it looks back over less, so that it would take another place for the end."""
    log = former_1.log
    log.write(transaction([former_1.item(emptied(former_1.inode))]), version=1, size=32768)
    disks.write_at(former_1.image, log.start + (log.place + behind) * SECTOR, struct.pack(">I", log.cycle))
    volume = Raw(os.open(former_1.image, os.O_RDONLY))
    if behind < 512:
        assert replay(volume) is not None
    else:
        with pytest.raises(NotReadable, match="cycles of its sectors"):
            replay(volume)


@pytest.mark.parametrize("seed", range(6))
def test_a_log_in_which_anything_may_stand_ends_with_a_sentence(tmp_path: Path, seed: int) -> None:
    """It needs no checksums."""
    image, chance, refused = xfs4.load(list(xfs4.MADE)[seed]).put(tmp_path / "d.img"), random.Random(seed), 0
    xfs4.without_sums(image)
    volume, places = Raw(os.open(image, os.O_RDONLY)), xfs4.records_in(image)
    for _round in range(40):
        spoilt = Patched(volume, (0, 0))
        for _byte in range(chance.choice((1, 4, 30))):
            spoilt.write(chance.choice(places) + chance.randrange(2500), bytes([chance.randrange(256)]))
        try:
            view = replay(spoilt)
            walk = XfsWalk(view or spoilt)
            list(walk.files())
        except NotReadable:
            refused += 1
    assert refused


@pytest.mark.parametrize("sixteenths", [1, 8, 9, 15])
def test_a_disk_that_ends_early_is_told(direct: Direct, tmp_path: Path, sixteenths: int) -> None:
    image = xfs4.load("as RHEL 6 makes it").put(tmp_path / "d.img")
    os.truncate(image, xfs4.SIZE // 16 * sixteenths)
    tally = direct.look(image, False)
    assert tally.reasons
    assert tally.verdict().value != "clean"
