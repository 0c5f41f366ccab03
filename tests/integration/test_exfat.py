# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""exFAT: what every system would refuse, repair or show differently is told, and else it is proven by its bitmap."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct
from ansible_collections.vmward.remediation.tests.corpus.exfat import (
    BITMAP,
    CLUSTER,
    END,
    FLAGS,
    SECTOR,
    ExfatVolume,
    entry,
    sealed,
)

FILES = {"dir/inner": b"i" * 5000, "ok": b"x" * 9000, "A name of more than fifteen letters": b"l"}


def planted() -> ExfatVolume:
    return ExfatVolume().tree(FILES)


def written(volume: ExfatVolume, place: Path) -> Path:
    image = place / "exfat.img"
    image.write_bytes(volume.image())
    return image


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Direct:
    return Direct(written(planted(), tmp_path_factory.mktemp("exfat")))


def look(direct: Direct, volume: ExfatVolume, place: Path) -> Tally:
    return direct.look(written(volume, place), False)


def told(tally: Tally) -> str:
    return " ".join(tally.reasons)


def test_what_fsck_takes_for_sound_is_clean(direct: Direct, tmp_path: Path) -> None:
    volume = planted()
    assert ": clean." in disks.run("fsck.exfat", "-n", written(volume, tmp_path))
    tally = look(direct, volume, tmp_path)
    assert (tally.verdict().value, tally.files, tally.reasons) == ("clean", len(FILES), [])


def test_one_that_is_mounted_is_clean_if_it_accounts_for_itself(direct: Direct, tmp_path: Path) -> None:
    volume = planted()
    volume.boot[FLAGS] = b"\x02"
    assert look(direct, volume, tmp_path).reasons == []
    volume.in_use = {*volume.table, 700}
    words = "1 clusters are in use, but not reached; it was not unmounted cleanly"
    assert words in told(look(direct, volume, tmp_path))


def test_a_file_in_one_piece_needs_no_chain(direct: Direct, tmp_path: Path) -> None:
    volume = planted()
    volume.content.update({700: b"." * CLUSTER, 701: disks.MARKER})
    volume.in_use = {*volume.table, 700, 701}
    volume.root += entry("evil", 700, CLUSTER + len(disks.MARKER), chained=False)
    tally = look(direct, volume, tmp_path)
    assert ([found.path for found in tally.findings], tally.reasons) == (["/evil"], [])


def in_use(*more: int) -> Callable[[ExfatVolume], object]:
    return lambda volume: setattr(volume, "in_use", {*volume.table, *more})


def boot(at: int, data: bytes) -> Callable[[ExfatVolume], object]:
    return lambda volume: volume.boot.update({at: data})


def root(entries: bytes) -> Callable[[ExfatVolume], object]:
    return lambda volume: setattr(volume, "root", volume.root + entries)


def bitmap_in_pieces(volume: ExfatVolume) -> None:
    volume.table.update({BITMAP: 900, 900: END})


def encrypted(volume: ExfatVolume) -> None:
    volume.root += entry("secret.txt.PFILE", volume.put(b"?" * 4112), 4112)


def a_later_valid_end(entries: bytes) -> bytes:
    return sealed(entries[:40] + struct.pack("<Q", 5000) + entries[48:])


GONE = b"\x05" + entry("gone", 0, 0)[1:32] + b"\x40" + entry("gone", 0, 0)[33:64] + b"\x41" + bytes(31)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (in_use(800, 801), "2 clusters are in use, but not reached"),
        (lambda volume: volume.table.update({6: 10, 10: END}), "1 clusters belong to several files"),
        (root(struct.pack("<BB18xIQ", 0x81, 1, 900, 500)), "a table of its own was not read"),
        (root(struct.pack("<BB18xIQ", 0x81, 1, BITMAP, 500)), "it has 2 bitmaps of its clusters"),
        (lambda volume: setattr(volume, "bitmap_size", 499), "its bitmap of clusters is not of its size"),
        (bitmap_in_pieces, "its bitmap of clusters is not of its size, or not in one piece"),
        (boot(11, b"\x00\x02"), "it is of a version that is not known here"),
        (boot(104, b"\x00\x02"), "it is of a version that is not known here"),
        (boot(110, b"\x02"), "it has two tables of clusters"),
        (boot(FLAGS, b"\x01"), "it has two tables of clusters"),
        (boot(72, struct.pack("<Q", 40_000)), "it claims to be larger than its volume"),
        (boot(92, struct.pack("<I", 4001)), "it claims to be larger than its volume"),
        (root(entry("added", 0, 0)[:-1] + b"."), "directory / holds a damaged entry"),
        (root(a_later_valid_end(entry("added", 0, 0))), "directory / holds a damaged entry"),
        (root(sealed(entry("added", 0, 0)[:64] + bytes(32))), "directory / holds a damaged entry"),
        (root(sealed(entry("added", 0, 0)[:32] + bytes(32))), "directory / holds a damaged entry"),
        (root(entry("added", 0, 0)[:-32]), "directory / holds a damaged entry"),
        (root(bytes(32) + entry("added", 0, 0)), "directory / has entries behind its end"),
        (encrypted, "/secret.txt.PFILE is encrypted by the guest"),
        (root(b"\x86" + bytes(31)), "directory / holds an entry of a kind that is not known here"),
        (root(b"\xa1" + bytes(31)), "directory / holds an entry of a kind that is not known here"),
    ],
)
def test_what_contradicts_itself_is_told(
    direct: Direct, tmp_path: Path, change: Callable[[ExfatVolume], object], words: str
) -> None:
    volume = planted()
    change(volume)
    tally = look(direct, volume, tmp_path)
    assert (tally.verdict().value, len(tally.reasons)) == ("incomplete", 1), tally.reasons
    assert words in told(tally)


def test_what_was_deleted_is_no_contradiction(direct: Direct, tmp_path: Path) -> None:
    volume = planted()
    volume.root += GONE + entry("later", 0, 0)
    assert look(direct, volume, tmp_path).reasons == []


@pytest.mark.parametrize(
    ("at", "words"), [(12 * SECTOR, "the copy of its boot sectors"), (0, "not have their checksum")]
)
def test_boot_sectors_of_which_systems_may_choose_are_told(direct: Direct, tmp_path: Path, at: int, words: str) -> None:
    image = written(planted(), tmp_path)
    disks.write_at(image, at + 200, b"?")
    assert words in told(direct.look(image, False))


def test_bytes_between_its_parts_are_matched(direct: Direct, tmp_path: Path) -> None:
    volume = planted()
    image = written(volume, tmp_path)
    for at in (13 * SECTOR, 63 * SECTOR, image.stat().st_size - 400):  # reserved, behind the table, in a free cluster
        disks.write_at(image, at, disks.MARKER)
    with image.open("ab") as file:
        file.write(disks.MARKER.rjust(SECTOR, b"\0"))
    tally = direct.look(image, False)
    assert (tally.findings, sorted(found.offset // SECTOR for found in tally.indicators)) == (
        [],
        [13, 63, image.stat().st_size // SECTOR - 1],
    )


def test_what_a_file_has_behind_its_valid_end_is_an_indicator(direct: Direct, tmp_path: Path) -> None:
    """A system that does not heed it shows these bytes."""
    volume = planted()
    cluster = volume.put(b"." * 5000 + disks.MARKER)
    whole = entry("old", cluster, 5000 + len(disks.MARKER))
    volume.root += sealed(whole[:40] + struct.pack("<Q", 5000) + whole[48:])
    tally = look(direct, volume, tmp_path)
    assert (tally.verdict().value, tally.findings) == ("incomplete", [])
    assert [found.path for found in tally.indicators] == ["(beside the file system)"]
