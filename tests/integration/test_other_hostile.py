# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""btrfs and exFAT that an attacker wrote: no crash, no hang, never clean, and what can be found is found."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import DiskRequest, LayerSpec, Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.exfat import CLUSTER, ROOT, ExfatVolume, entry
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

MB = disks.MB
DEADLINE = 60
EVIL = {"dir/evil.com": disks.EICAR, "ok": b"x" * 9000}


def look(image: Path) -> dict[str, Any]:
    """A scan that must end by itself."""
    disk = DiskRequest("vda", (LayerSpec(str(image), "raw"),))
    result = scan(Request((disk,), RULES, "", ("yara",), 0, "", Limits(DEADLINE, 512 * MB, DEADLINE)))
    assert not [reason for reason in result["incomplete_reasons"] if "The scan did not end" in reason]
    assert result["verdict"] != "clean"
    return result


def told(result: dict[str, Any], words: str) -> None:
    assert words in " ".join(result["incomplete_reasons"]), result["incomplete_reasons"]


def paths(result: dict[str, Any]) -> list[str]:
    return [found["path"] for found in result["findings"]]


# --- exFAT -----------------------------------------------------------------------------------------------------------


def exfat(place: Path, change: Callable[[ExfatVolume], object] = lambda volume: None) -> Path:
    volume = ExfatVolume().tree(EVIL)
    change(volume)
    image = place / "exfat.img"
    image.write_bytes(volume.image())
    return image


def test_an_exfat_is_read_whatever_its_clusters(tmp_path: Path) -> None:
    assert paths(look(exfat(tmp_path))) == ["/dir/evil.com"]


def add(**entries: Any) -> Callable[[ExfatVolume], object]:
    def change(volume: ExfatVolume) -> None:
        volume.root += entry("added", **entries)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (add(cluster=ROOT, size=CLUSTER, directory=True), ""),
        (add(cluster=6, size=1 << 60), "it is shorter than its size"),
        (add(cluster=9, size=1 << 60, chained=False), "it reaches beyond the end of its volume"),
        (add(cluster=20, size=1 << 60, directory=True, chained=False), "beyond the end of its volume"),
        (add(cluster=1, size=CLUSTER), "its chain of clusters leads to 1"),
        (add(cluster=0xFFFFFFF0, size=CLUSTER, directory=True), "its chain of clusters leads to"),
        (lambda volume: volume.table.update({ROOT: ROOT}), "its chain of clusters runs in a circle"),
        (lambda volume: volume.table.update({ROOT: 0}), "leads into free ones"),
    ],
)
def test_an_exfat_that_lies_is_told(tmp_path: Path, change: Callable[[ExfatVolume], object], words: str) -> None:
    told(look(exfat(tmp_path, change)), words)


def test_a_chain_in_a_circle_hides_nothing_else(tmp_path: Path) -> None:
    def change(volume: ExfatVolume) -> None:
        volume.table[100] = 100
        volume.root += entry("added", 100, 5 * CLUSTER)

    result = look(exfat(tmp_path, change))
    assert paths(result) == ["/dir/evil.com"]
    told(result, "/added on volume 1 of disk vda: it was not read: its chain of clusters runs in a circle")


def test_what_of_a_file_was_never_written_reads_as_zeros(tmp_path: Path) -> None:
    def change(volume: ExfatVolume) -> None:
        cluster = volume.put(b"." * 100 + disks.MARKER)
        whole = entry("old", cluster, 200)
        volume.root += whole[:40] + struct.pack("<Q", 100) + whole[48:]

    assert paths(look(exfat(tmp_path, change))) == ["/dir/evil.com"]


@pytest.mark.parametrize("at", [72, 80, 84, 88, 92, 96, 108, 109])
@pytest.mark.parametrize("value", [0, 0xFF])
def test_an_absurd_boot_sector_of_exfat_is_told(tmp_path: Path, at: int, value: int) -> None:
    image = exfat(tmp_path)
    disks.write_at(image, at, bytes([value]) * (1 if at > 100 else 8 if at == 72 else 4))
    look(image)


# --- btrfs -----------------------------------------------------------------------------------------------------------

_SUPER, _NODE, _HEAD, _ITEM, _POINTER = 0x10000, 16384, 101, 25, 33


class Btrfs:
    def __init__(self, place: Path) -> None:
        if not shutil.which("mkfs.btrfs"):
            pytest.skip("mkfs.btrfs is not installed")
        self.image = place / "btrfs.img"
        with self.image.open("wb") as file:
            file.truncate(128 * MB)
        many = {f"many/{number}": b"%d" % number for number in range(600)}
        disks.run("mkfs.btrfs", "-q", "-r", disks.tree(place / "tree", {**EVIL, **many}), self.image)
        raw = self.image.read_bytes()
        identity = raw[_SUPER + 32 : _SUPER + 48]
        starts = (at for at in range(0, len(raw), _NODE) if at % (64 * MB) != _SUPER)
        self.nodes = [at for at in starts if raw[at + 32 : at + 48] == identity]
        self.raw = raw

    def inner(self) -> list[int]:
        """Nodes above leaves."""
        return [at for at in self.nodes if self.raw[at + 100]]

    def copy(self, place: Path) -> Path:
        image = place / "changed.img"
        disks.run("cp", "--sparse=always", self.image, image)
        return image


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Btrfs:
    return Btrfs(tmp_path_factory.mktemp("btrfs"))


def test_a_tree_of_btrfs_in_a_circle_ends(btrfs: Btrfs, tmp_path: Path) -> None:
    image = btrfs.copy(tmp_path)
    assert btrfs.inner()
    for at in btrfs.inner():
        own = btrfs.raw[at + 48 : at + 56]  # its address
        for number in range(struct.unpack_from("<I", btrfs.raw, at + 96)[0]):
            disks.write_at(image, at + _HEAD + number * _POINTER + 17, own)
    told(look(image), "a tree of it runs in a circle")


@pytest.mark.parametrize("count", [0, 0xFFFFFFFF])
def test_a_node_of_btrfs_of_absurd_size_ends(btrfs: Btrfs, tmp_path: Path, count: int) -> None:
    image = btrfs.copy(tmp_path)
    for at in btrfs.nodes:
        disks.write_at(image, at + 96, struct.pack("<I", count))
    told(look(image), "a node of its trees is damaged")


def test_keys_of_btrfs_without_order_are_told(btrfs: Btrfs, tmp_path: Path) -> None:
    image = btrfs.copy(tmp_path)
    for at in btrfs.nodes:
        if not btrfs.raw[at + 100]:
            disks.write_at(image, at + _HEAD + _ITEM, btrfs.raw[at + _HEAD : at + _HEAD + 17])
    told(look(image), "not in order")


def items(btrfs: Btrfs, kind: int) -> list[tuple[int, int]]:
    """Where the data of all items of a kind lie in the image, and of which object they are."""
    found = []
    for at in btrfs.nodes:
        for number in range(struct.unpack_from("<I", btrfs.raw, at + 96)[0] if not btrfs.raw[at + 100] else 0):
            place = at + _HEAD + number * _ITEM
            owner, one, _offset, start, _size = struct.unpack_from("<QBQII", btrfs.raw, place)
            found += [(at + _HEAD + start, owner)] if one == kind else []
    return found


def test_directories_of_btrfs_that_hold_each_other_end(btrfs: Btrfs, tmp_path: Path) -> None:
    """Every entry leads to its own directory."""
    image = btrfs.copy(tmp_path)
    for place, owner in (*items(btrfs, 84), *items(btrfs, 96)):
        if struct.unpack_from("<B", btrfs.raw, place + 8)[0] == 1:  # not of a subvolume
            disks.write_at(image, place, struct.pack("<Q", owner))
            disks.write_at(image, place + 29, b"\2")
    told(look(image), "is named twice")


def test_a_file_of_btrfs_of_absurd_size_ends(btrfs: Btrfs, tmp_path: Path) -> None:
    image = btrfs.copy(tmp_path)
    for place, owner in items(btrfs, 1):
        if owner > 256:
            disks.write_at(image, place + 16, struct.pack("<Q", 1 << 62))
    look(image)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_btrfs_ends(btrfs: Btrfs, tmp_path: Path, seed: int) -> None:
    chance, image = random.Random(seed), btrfs.copy(tmp_path)
    for _change in range(8):
        at = chance.choice(btrfs.nodes) + chance.randrange(48, 200) if seed % 2 else _SUPER + chance.randrange(72, 811)
        disks.write_at(image, at, bytes([chance.choice((0, 1, 0x7F, 0xFF))]))
    look(image)
