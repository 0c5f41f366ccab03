# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an NTFS volume says of its own state and place: where a guest may see another one, no scan of it is clean."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import DiskRequest, LayerSpec, Request
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus import ntfs_records as made
from ansible_collections.vmward.remediation.tests.corpus.ntfs_volume import FREE, RECORD, Volume, told
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES
from ansible_collections.vmward.remediation.tests.corpus.sharing import alone, said, shared

MARKER = disks.MARKER
DATA = 0x80
NOBODY, IS_CLEAN = 0xFFFF, 2  # of the log: no client is in it; the volume was dismounted


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return Volume(tmp_path_factory.mktemp("ntfs"))


def clean(volume: Volume, image: Path) -> bool:
    whole, delta = volume.both(image)
    return bool(whole.verdict().value == delta.verdict().value == "clean")


FINE, UNCLEAN = (0, IS_CLEAN, (1, 1)), (0, 0, (1, 1))


# --- its log ---------------------------------------------------------------------------------------------------------


def with_log(volume: Volume, *pages: tuple[int, int, int, int, tuple[int, int]]) -> Path:
    """Each by its place in the log, its number, client, flags and version."""
    image = volume.copy()
    fs = made.opened(image)
    log = fs.stream(fs.file(2), b"")
    ((_vcn, lcn, _count),) = log.runs
    assert lcn is not None
    for at, *page in pages:
        disks.write_at(image, lcn * fs.cluster + at, made.restart(log.size, *page))  # type: ignore[arg-type]
    return image


def refused(image: Path) -> bool:
    """By another driver, which mounts it to read at most."""
    point = image.with_suffix(".mount")
    point.mkdir(exist_ok=True)
    done = subprocess.run(["ntfs-3g", "-o", "norecover", image, point], capture_output=True, text=True, check=False)
    if point.is_mount():
        disks.run("umount", point)
    elif not os.path.exists("/dev/fuse"):
        pytest.skip("nothing can be mounted here")
    return "read-only" in done.stderr


@pytest.mark.parametrize("version", [(1, 1), (2, 0)], ids=["1.1", "2.0"])
@pytest.mark.parametrize(("client", "flags"), [(NOBODY, 0), (0, IS_CLEAN), (0, 0)])
def test_a_log_is_at_its_end_as_another_driver_sees_it(
    volume: Volume, client: int, flags: int, version: tuple[int, int]
) -> None:
    """Windows that keeps parts of the volume in memory, as fast start-up does, leaves the log in version 2."""
    image = with_log(volume, *((at, 1000, client, flags, version) for at in (0, 4096)))
    is_clean = clean(volume, image)
    assert is_clean == (version == (1, 1) and (client, flags) != (0, 0))
    assert is_clean != refused(image)
    if not is_clean:
        told(volume.both(image), "its log")


def test_of_two_restart_pages_the_newer_one_counts(volume: Volume) -> None:
    assert clean(volume, with_log(volume, (0, 1000, *UNCLEAN), (4096, 1001, *FINE)))
    for pages in (
        ((0, 1001, *UNCLEAN), (4096, 1000, *FINE)),
        ((0, 1000, *UNCLEAN), (4096, 1000, *FINE)),
        ((0, 1000, *FINE), (4096, 1000, *UNCLEAN)),
    ):
        told(volume.both(with_log(volume, *pages)), "its log")


@pytest.mark.parametrize("at", [512, 8192, 16384])
def test_a_restart_page_elsewhere_makes_up_for_none(volume: Volume, at: int) -> None:
    told(volume.both(with_log(volume, (0, 1000, *UNCLEAN), (4096, 999, *UNCLEAN), (at, 2000, *FINE))), "its log")


@pytest.mark.parametrize(
    ("at", "value"),
    [(64, 1), (68, 223), (70, 65), (72, 1 << 40), (56, 9)],
    ids=["bits", "length", "array", "size", "clients"],
)
def test_a_restart_page_that_other_drivers_refuse_makes_up_for_none(volume: Volume, at: int, value: int) -> None:
    """They take the other one."""
    image = with_log(volume, (4096, 1000, *UNCLEAN))
    fs = made.opened(image)
    log = fs.stream(fs.file(2), b"")
    ((_vcn, lcn, _count),) = log.runs
    assert lcn is not None
    page = bytearray(made.restart(log.size, 2000, *FINE))
    struct.pack_into("<Q" if at == 72 else "<H", page, at, value)
    disks.write_at(image, lcn * fs.cluster, bytes(page))
    assert refused(image)
    told(volume.both(image), "its log")


def test_a_restart_page_is_looked_for_wherever_pages_may_begin(volume: Volume) -> None:
    """The first one is no longer there, so that nothing tells how large the pages are."""
    told(volume.both(with_log(volume, (16384, 1000, 0, 0, (1, 1)))), "its log")


# --- Windows that sleeps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("other", "hiberfil.sys"), ("hiberfil.sys", "other")])
def test_a_windows_that_sleeps_is_told_though_its_file_has_another_name_too(
    volume: Volume, names: tuple[str, str]
) -> None:
    listed = (made.name(name, number=number) for number, name in enumerate(names, 7))
    image = volume.holding(*listed, made.resident(DATA, b"HIBR" + bytes(60), 2))
    told(volume.both(image), "Windows sleeps in it")


# --- where its tables lie --------------------------------------------------------------------------------------------


def table_at(image: Path, cluster: int) -> bytes:
    """A first record that tells of a table elsewhere."""
    fs = made.opened(image)
    ((_vcn, _lcn, count),) = fs.table.runs
    parts = fs.file(0).attributes
    new = [
        made.outside(DATA, [(cluster, count)], fs.table.size, one.number) if one.type == DATA else one.raw
        for one in parts
    ]
    return made.record(0, *new)


def test_a_table_whose_first_record_tells_of_another_is_refused(volume: Volume) -> None:
    """Who starts at the boot sector's place reads the second table, who asks that one the third."""
    image = volume.copy()
    fs = made.opened(image)
    ((_vcn, lcn, count),) = fs.table.runs
    assert lcn is not None
    second, third = FREE, FREE + 2 * count
    old = fs.read(fs.table, 0, fs.table.size)
    evil = made.record(RECORD, made.standard(), made.name("evil.exe"), made.resident(DATA, MARKER, 2))
    first, other = table_at(image, second), table_at(image, third)
    disks.write_at(image, second * fs.cluster, other + old[1024 : RECORD * 1024] + evil + old[(RECORD + 1) * 1024 :])
    disks.write_at(image, third * fs.cluster, other + old[1024:])
    disks.write_at(image, lcn * fs.cluster, first)
    mirror = int.from_bytes(image.read_bytes()[56:64], "little")
    disks.write_at(image, mirror * fs.cluster, other)
    told((volume.direct.look(image, False), volume.direct.look(image, True)), "tell of different tables")


@pytest.mark.parametrize("at", [16, 22, 60, 400], ids=["sequence", "flags", "first attribute", "content"])
def test_the_copy_of_the_table_counts_where_the_boot_sector_has_it(volume: Volume, at: int) -> None:
    """Windows reads it there if it takes the table for damaged."""
    image = volume.copy()
    raw = image.read_bytes()
    (mirror,) = struct.unpack_from("<Q", raw, 56)
    copy = bytearray(raw[mirror * made.CLUSTER :][: made.CLUSTER])
    disks.write_at(image, FREE * made.CLUSTER, bytes(copy))
    disks.write_at(image, 56, struct.pack("<Q", FREE))
    disks.write_at(image, image.stat().st_size - 512 + 56, struct.pack("<Q", FREE))
    assert clean(volume, image)
    copy[at] ^= 1
    disks.write_at(image, FREE * made.CLUSTER, bytes(copy))
    told(volume.both(image), "are not the same")


@pytest.mark.parametrize("cluster", [1 << 20, (1 << 64) - 1])
def test_a_table_outside_of_the_volume_is_told(volume: Volume, cluster: int) -> None:
    image = volume.copy()
    disks.write_at(image, 48, struct.pack("<Q", cluster))
    told((volume.direct.look(image, False), volume.direct.look(image, True)), "outside of the file system")


def test_a_copy_of_the_table_outside_of_the_volume_is_told(volume: Volume) -> None:
    image = volume.copy()
    disks.write_at(image, 56, b"\xff" * 8)
    told(volume.both(image), "are not the same")


# --- its boot sector -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "value"),
    [(14, 1), (16, 2), (17, 512), (19, 1), (22, 9), (32, 1)],
    ids=["reserved", "tables", "root", "few", "table", "many"],
)
def test_a_boot_sector_that_windows_would_refuse_is_told(volume: Volume, at: int, value: int) -> None:
    """It would read the copy."""
    image = volume.copy()
    disks.write_at(image, at, struct.pack("<H", value))
    told(volume.both(image), "its boot sector")


@pytest.mark.parametrize("behind", [0, 8192], ids=["in the last sector", "with room behind it"])
@pytest.mark.parametrize("place", ["file system", "volume"])
def test_a_copy_of_the_boot_sector_that_tells_of_another_table_is_told(volume: Volume, behind: int, place: str) -> None:
    image = volume.copy()
    size, boot = image.stat().st_size, bytearray(image.read_bytes()[:512])
    os.truncate(image, size + behind)
    at = size - 512 + (behind if place == "volume" else 0)
    disks.write_at(image, at, bytes(boot))
    assert clean(volume, image)
    struct.pack_into("<Q", boot, 48, FREE)
    disks.write_at(image, at, bytes(boot))
    told(volume.both(image), "copy of its boot sector")


def test_a_copy_of_the_boot_sector_that_is_gone_is_no_doubt(volume: Volume) -> None:
    image = volume.copy()
    disks.write_at(image, image.stat().st_size - 512, bytes(512))
    assert clean(volume, image)


def test_what_starts_the_guest_is_matched_wherever_its_file_lies(volume: Volume) -> None:
    """The firmware starts what lies in the first sectors, whatever the boot file is made of."""
    image = volume.copy()
    fs = made.opened(image)
    others = [one.raw for one in fs.file(7).attributes if one.type != DATA]
    number = next(one.number for one in fs.file(7).attributes if one.type == DATA)
    made.put(image, 7, made.record(7, *others, made.outside(DATA, [(FREE, 2)], 8192, number), sequence=7))
    disks.write_at(image, 2048, MARKER)
    whole = volume.direct.look(image, False)
    assert [(one.path, one.offset) for one in whole.indicators] == [("(boot sectors)", 2048)]


# --- in shares -------------------------------------------------------------------------------------------------------


def test_in_shares_the_same_is_said(volume: Volume) -> None:
    odd = made.resident(0x1000, b"x", 3), made.resident(0xC0, struct.pack("<IHH", 0x77, 40, 0) + MARKER, 4)
    image = volume.holding(made.name("file"), *odd, made.outside(DATA, [(FREE, 1)], 4096, 2))
    disks.write_at(image, image.stat().st_size - 512 + 48, b"\1")
    disks.write_at(image, 4096, MARKER)
    layers = (LayerSpec(str(image), "raw"),)
    asked = Request((DiskRequest("vda", layers),), RULES, "", ("yara",), 0, "", Limits(60, 512 * disks.MB, 60))
    one, several = said(alone(asked)), said(shared(asked))
    assert one == several
    assert (one["verdict"], len(one["indicators"]), len(one["incomplete_reasons"])) == ("infected", 2, 4)
