# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same in whatever holds it: names on several file systems, swap in files, disks in images of several formats."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import parse
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct, Golden

MB = disks.MB
MARKER = disks.MARKER


# --- indicators of names and paths -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in ("mkfs.vfat", "mcopy"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    image = tmp_path_factory.mktemp("fat") / "golden.img"
    with image.open("wb") as file:
        file.truncate(40 * MB)
    disks.run("mkfs.vfat", "-F", "32", "-s", "1", image)
    return image


@pytest.mark.parametrize("wanted", [r"names: [evil.exe]", r"paths: ['C:\TEMP dir\evil.exe']"])
def test_case_does_not_count_in_indicators_on_fat(fat: Path, wanted: str) -> None:
    golden = Golden(fat, parse(wanted, "ioc.yml"))
    image = golden.copy()
    (fat.parent / "file").write_bytes(b"harmless")
    disks.run("mmd", "-i", image, "::Temp Dir")
    disks.run("mcopy", "-i", image, fat.parent / "file", "::Temp Dir/Evil.EXE")
    for tally in golden.both(image):
        assert [finding.path for finding in tally.findings] == ["/Temp Dir/Evil.EXE"]


@pytest.mark.parametrize("wanted", ["names: [.hidden]", "paths: [/etc/.hidden]"])
def test_a_directory_can_be_an_indicator_on_fat(fat: Path, wanted: str) -> None:
    golden = Golden(fat, parse(wanted, "ioc.yml"))
    image = golden.copy()
    disks.run("mmd", "-i", image, "::Etc", "::Etc/.hidden")
    for tally in golden.both(image):
        assert [finding.path for finding in tally.findings] == ["/Etc/.hidden"]


# --- swap in a file --------------------------------------------------------------------------------------------------

LARGE = 300 * MB  # more than is ever judged as a whole here
PAGE = 4096
SWAP = bytes(4086) + b"SWAPSPACE2"


class Swap(Golden):
    """A guest with a file to swap to, of which some lies where nothing was written through the file system."""

    def __init__(self, place: Path) -> None:
        image = disks.ext4(place / "golden.img", {"etc/hostname": b"desk1\n"}, 400 * MB, "-b", str(PAGE))
        (place / "swap").write_bytes(SWAP)
        self.size = LARGE
        disks.debugfs(
            image,
            f"write {place / 'swap'} swap.img",
            f"fallocate /swap.img 1 {LARGE // PAGE - 1}",
            f"sif /swap.img size {LARGE}",
        )
        super().__init__(image)

    def at(self, image: Path, page: int) -> int:
        """Where on the disk a page of it lies."""
        return int(disks.debugfs(image, f"bmap /swap.img {page}").splitlines()[-1].split()[0]) * PAGE


@pytest.fixture(scope="module")
def swap(tmp_path_factory: pytest.TempPathFactory) -> Swap:
    return Swap(tmp_path_factory.mktemp("swap"))


def test_a_guest_that_swaps_to_a_file_can_be_clean(swap: Swap) -> None:
    image = swap.copy()
    disks.write_at(image, swap.at(image, 20_000), b"a page of a program")
    for tally in swap.both(image):
        assert (tally.verdict().value, tally.findings, tally.indicators) == ("clean", [], [])
    assert "/swap.img on volume 1 of disk vda is memory that was written out" in " ".join(
        swap.direct.look(image, False).notes
    )


@pytest.mark.parametrize("page", [0, 1, 20_000, LARGE // PAGE - 1])
def test_what_was_swapped_out_is_matched(swap: Swap, page: int) -> None:
    image = swap.copy()
    disks.write_at(image, swap.at(image, page) + 50, MARKER)
    whole, delta = swap.both(image)
    assert [(one.path, one.offset) for one in whole.indicators] == [("(memory that was written out)", page * PAGE + 50)]
    assert delta.verdict().value == "incomplete"


def test_a_small_file_that_bears_the_mark_of_swap_is_judged_as_any_file(swap: Swap) -> None:
    image = swap.copy()
    (swap.place / "small").write_bytes(SWAP + MARKER)
    disks.debugfs(image, f"write {swap.place / 'small'} evil")
    for tally in swap.both(image):
        assert [finding.path for finding in tally.findings] == ["/evil"]


def test_a_large_file_without_the_mark_of_swap_is_seen_in_parts_only(swap: Swap) -> None:
    image = swap.copy()
    disks.write_at(image, swap.at(image, 0) + 4086, b"SWAPSPACE0")
    for tally in swap.both(image):
        assert "/swap.img on volume 1 of disk vda: it is too large" in " ".join(tally.reasons)


def test_a_known_hash_is_found_behind_the_mark_of_swap(swap: Swap, tmp_path: Path) -> None:
    digest = hashlib.sha256(SWAP.ljust(LARGE, b"\0")).hexdigest()
    clean = disks.ext4(tmp_path / "clean.img", {"etc/hostname": b"desk1\n"}, 16 * MB)
    direct = Direct(clean, parse(f"sha256: [{digest}]", "ioc.yml"))
    tally = direct.look(swap.copy(), False)
    assert [(one.path, one.rule, one.sha256) for one in tally.findings] == [("/swap.img", "ioc_sha256", digest)]
