# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shadow copies of NTFS: their files are judged, and what can't be followed is told."""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import DiskRequest, LayerSpec, Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.layout import NotReadable
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.plugins.module_utils._scan.vss import ShadowCopy, shadow_copies
from ansible_collections.vmward.remediation.tests.corpus import disks, vss
from ansible_collections.vmward.remediation.tests.corpus.mounting import mounted_ntfs
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES
from ansible_collections.vmward.remediation.tests.corpus.sharing import alone, said, shared
from ansible_collections.vmward.remediation.tests.corpus.vss import (
    BLOCK,
    FORWARDER,
    NOT_USED,
    OVERLAY,
    Descriptor,
    Store,
)

MB = disks.MB
BLOCKS = 64  # of a volume, before those with the records
OLD, NEW = "/@GMT-2020.07.23-17.46.40", "/@GMT-2020.07.23-17.46.41"
ONLY_THERE = {f"{OLD}/Users/first", f"{NEW}/Users/second"}
STORE = f"System Volume Information/{{7c0fbd26-4d1b-4b25-9f6e-5f1a1f3f7a11}}{vss.FILE}"


def volume(place: Path, stores: list[Store]) -> Path:
    """Nothing but blocks that can be told apart."""
    image = place / "volume.img"
    image.write_bytes(bytes(2 * BLOCKS * BLOCK))
    disks.run("mkntfs", "-q", "-F", "-Q", "-s", "512", image)
    for block in range(1, BLOCKS):
        disks.write_at(image, block * BLOCK, struct.pack("<H", block) * (BLOCK // 2))
    vss.write(image, range((BLOCKS + 10) * BLOCK, 2 * BLOCKS * BLOCK, BLOCK), stores)
    return image


def copies(image: Path) -> list[ShadowCopy]:
    """The oldest first."""
    return shadow_copies(Raw(os.open(image, os.O_RDONLY)))[::-1]


def at_random(chance: random.Random) -> Store:
    store = Store()
    for _count in range(chance.randint(1, 14)):
        flags = chance.choice((0, 0, 0, FORWARDER, FORWARDER, OVERLAY, OVERLAY, NOT_USED))
        target = chance.randrange(1, 12) if flags == FORWARDER else chance.randrange(12, 30)
        sectors = chance.getrandbits(32) if flags == OVERLAY else 0
        store.descriptors.append(Descriptor(chance.randrange(1, 12) * BLOCK, target * BLOCK, flags, sectors))
    return store


@pytest.mark.parametrize("seed", range(12))
def test_a_copy_is_what_libvshadow_makes_of_it(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    image = volume(tmp_path, [at_random(chance) for _count in range(chance.randint(1, 3))])
    now = image.read_bytes()
    with vss.shown(image) as shown:
        ours = copies(image)
        assert len(ours) == len(shown)
        for copy, view in zip(ours, shown, strict=True):
            whole = copy.read(0, copy.size)
            assert whole == view.read_bytes()
            assert whole != now
            for at, length in ((5 * BLOCK - 700, 1500), (3 * BLOCK + 511, 2), (BLOCK, 9 * BLOCK)):
                assert copy.read(at, length) == whole[at : at + length]


def test_where_a_copy_differs_is_told_against_the_next_newer_one(tmp_path: Path) -> None:
    chance = random.Random(77)
    old, new = copies(volume(tmp_path, [at_random(chance), at_random(chance)]))
    for copy, newer in ((old, new), (new, Raw(os.open(tmp_path / "volume.img", os.O_RDONLY)))):
        told = {at // BLOCK for at, _length in copy.stretches}
        for block in range(BLOCKS):
            if copy.read(block * BLOCK, BLOCK) != newer.read(block * BLOCK, BLOCK):
                assert block in told


def test_a_volume_without_any_has_none(tmp_path: Path) -> None:
    image = volume(tmp_path, [])
    assert copies(image) == []
    disks.write_at(image, vss.HEADER_AT, vss.header(0))
    assert copies(image) == []
    disks.write_at(image, vss.HEADER_AT, bytes(512))
    assert copies(image) == []


AT = (BLOCKS + 10) * BLOCK  # of the catalog; then come the other records, and the list of blocks
LIST = AT + 4 * BLOCK


@pytest.mark.parametrize(
    ("at", "data", "words"),
    [
        (vss.HEADER_AT + 48, struct.pack("<Q", 1 << 60), "not where it is said to lie"),
        (AT, bytes(16), "not where it is said to lie"),
        (AT + 20, b"\x03", "not where it is said to lie"),
        (AT + 32, struct.pack("<Q", AT + BLOCK), "not where it is said to lie"),
        (AT + 40, struct.pack("<Q", AT), "their records have no end"),
        (AT + 128, struct.pack("<Q", 7), "an entry of a kind that is not known here (7)"),
        (AT + 128, struct.pack("<Q", 1), "lies on another volume, or is not told"),
        (AT + 256, struct.pack("<Q", 1), "lies on another volume, or is not told"),
        (LIST, bytes(16), "not where it is said to lie"),
        (LIST + 40, struct.pack("<Q", LIST), "their records have no end"),
        (LIST + 128, struct.pack("<Q", 7), "a block lies where none can be"),
        (LIST + 128, struct.pack("<Q", 1 << 50), "a block lies where none can be"),
        (LIST + 128 + 16, struct.pack("<Q", 1 << 50), "a block lies where none can be"),
        (LIST + 128 + 24, struct.pack("<I", 8), "marked in a way that is not known here (0x8)"),
        (LIST + 128 + 24, struct.pack("<I", 3), "marked in a way that is not known here (0x3)"),
    ],
)
def test_records_that_can_not_be_followed_are_told(tmp_path: Path, at: int, data: bytes, words: str) -> None:
    image = volume(tmp_path, [Store([Descriptor(BLOCK, 20 * BLOCK)])])
    assert copies(image)
    disks.write_at(image, at, data)
    with pytest.raises(NotReadable, match=words.replace("(", r"\(").replace(")", r"\)")):
        copies(image)


@pytest.mark.parametrize(("at", "value"), [(128 + 48, 1 << 62), (384 + 32, 1)], ids=["time", "number"])
def test_an_order_that_is_open_is_told(tmp_path: Path, at: int, value: int) -> None:
    image = volume(tmp_path, [Store([Descriptor(BLOCK, 20 * BLOCK)]), Store([Descriptor(BLOCK, 21 * BLOCK)])])
    disks.write_at(image, AT + at, struct.pack("<Q", value))
    with pytest.raises(NotReadable, match="leave their order open"):
        copies(image)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Path]:
    """An NTFS of which two former states are kept: one file is in the older only, another in the newer only."""
    place = tmp_path_factory.mktemp("states")

    def made(sample: bytes) -> Path:
        image, mark = place / "now.img", random.Random(3).randbytes(6 * MB)
        image.write_bytes(bytes(32 * MB))
        disks.run("mkntfs", "-q", "-F", "-s", "512", image)
        with mounted_ntfs(image) as root:
            disks.tree(root, {**disks.harmless(20), STORE: mark})
        shutil.copy(image, place / "golden.img")
        with mounted_ntfs(image) as root:
            disks.tree(root, {"Users/first": b"1" * 5000 + sample})
        shutil.copy(image, place / "old.img")
        with mounted_ntfs(image) as root:
            (root / "Users/first").unlink()
            disks.tree(root, {"Users/second": b"2" * 9000 + sample, "etc/hostname": b"other\n"})
        shutil.copy(image, place / "new.img")
        with mounted_ntfs(image) as root:
            (root / "Users/second").unlink()
            disks.tree(root, {f"later/{number}": b"x" * 20_000 for number in range(40)})
        vss.keep(image, [place / "old.img", place / "new.img"], image.read_bytes().index(mark[:512]))
        return image

    return made


def request(image: Path, clone_of: tuple[LayerSpec, ...] = (), **options: Any) -> Request:
    disk = DiskRequest("vda", (LayerSpec(str(image), "raw"),), clone_of=clone_of)
    return replace(Request((disk,), RULES, "", ("yara",), 0, "", Limits(60, 512 * MB, 60)), **options)


def test_files_that_only_shadow_copies_have_are_found_and_named(states: Callable[[bytes], Path]) -> None:
    image = states(disks.MARKER)
    with vss.shown(image) as shown:
        for view, former in zip(shown, ("old.img", "new.img"), strict=True):
            then = (image.parent / former).read_bytes()
            assert view.read_bytes()[BLOCK : 8 * MB] == then[BLOCK : 8 * MB], "libvshadow reads what was written here"
    result = scan(request(image))
    assert {found["path"] for found in result["findings"]} == {*ONLY_THERE, f"/{STORE}"}
    assert result["incomplete_reasons"] == []
    assert "Volume 1 of disk vda has 2 shadow copies, which were read as well." in result["coverage_notes"]
    assert said(shared(request(image))) == said(alone(request(image)))


def test_they_are_read_on_top_of_a_golden_image_too(states: Callable[[bytes], Path], tmp_path: Path) -> None:
    image = states(disks.MARKER)
    golden, known = image.parent / "golden.img", str(tmp_path / "known")
    base = (LayerSpec(str(golden), "raw"),)
    assert index(request(golden, directory=known))["verdict"] == "clean"
    result = scan(request(image, base, directory=known))
    assert [volume["method"] for volume in result["volumes"]] == ["delta"]
    assert {found["path"] for found in result["findings"]} == {*ONLY_THERE, f"/{STORE}"}
    assert not [change for change in result["changes"] if "@GMT" in change["path"]]


def test_shadow_copies_without_a_finding_are_clean(states: Callable[[bytes], Path]) -> None:
    result = scan(request(states(b"")))
    assert (result["verdict"], result["incomplete_reasons"]) == ("clean", [])


def test_records_that_can_not_be_followed_make_a_scan_incomplete(states: Callable[[bytes], Path]) -> None:
    image = states(b"")
    disks.write_at(image, vss.HEADER_AT + 48, struct.pack("<Q", 1 << 60))
    result = scan(request(image))
    assert result["verdict"] == "incomplete"
    assert result["incomplete_reasons"] == [
        "Volume 1 of disk vda has shadow copies whose files were not read: a block of their records is not where it is "
        "said to lie. Delete them in the guest (vssadmin delete shadows), or look at each from there."
    ]
