# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A scan of what was written since a clean one finds what a whole scan finds, and leaves the record that one leaves."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.baseline import VolumeIndex, pack, unpack
from ansible_collections.vmward.remediation.plugins.module_utils._scan.chain import Layer
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Yara
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ext4_records import BadFilesystem
from ansible_collections.vmward.remediation.plugins.module_utils._scan.former import Remembered
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.scanner import DiskSpec, Scanner
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.direct import found
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES
from ansible_collections.vmward.remediation.tests.integration.test_delta_scan import LOADER, booting, guest_writes

MB = disks.MB
GRAIN = 64 << 10  # of a dirty bitmap of QEMU
Record = dict[str, VolumeIndex]
Written = tuple[tuple[int, int], ...]


class Clean:
    """A disk as its last clean scan saw it, and what that one left."""

    def __init__(self, image: Path) -> None:
        self._engine = Yara(RULES, 60)
        self.tally, self.record = self.look(image)
        assert self.tally.verdict().value == "clean", self.tally.reasons
        self.content = image.read_bytes()

    def look(self, image: Path, record: Record | None = None, written: Written = ()) -> tuple[Tally, Record]:
        listener, fd = Listener(Progress("", 0)), os.open(image, os.O_RDONLY)
        scanner = Scanner(Judge([self._engine], listener.take, 1 << 28), recording=True)
        kept = unpack(b"".join(pack(record))) if record is not None else None
        scanner.run([DiskSpec("vda", (Layer(str(image), "raw", fd),), index=kept, written=written)])
        os.close(fd)
        listener.tally.finished = True
        assert scanner.records is not None
        return listener.tally, scanner.records["vda"]

    def written(self, image: Path, chance: random.Random | None = None) -> Written:
        """As a bitmap tells it: in whole grains, some of which were written with what they held before."""
        now, noise = image.read_bytes(), set()
        if chance is not None:
            noise = {chance.randrange(len(now) // GRAIN) * GRAIN for _grain in range(chance.randrange(5))}
        dirty = (at for at in range(0, len(now), GRAIN) if now[at : at + GRAIN] != self.content[at : at + GRAIN])
        return tuple((at, min(at + GRAIN, len(now))) for at in sorted({*dirty, *noise}))

    def since(self, image: Path, chance: random.Random | None = None) -> tuple[Tally, Record]:
        return self.look(image, self.record, self.written(image, chance))

    def goes_on(self, image: Path, record: Record) -> None:
        self.content, self.record = image.read_bytes(), record


def methods(tally: Tally) -> list[str]:
    return [volume.method for volume in tally.volumes]


@pytest.mark.parametrize(
    "options",
    [(), ("-b", "1024"), ("-O", "inline_data"), ("-t", "ext3"), ("-O", "bigalloc"), ("-I", "128"), ("-t", "ext2")],
    ids=" ".join,
)
def test_scan_after_scan_finds_what_a_whole_scan_finds(tmp_path: Path, options: tuple[str, ...]) -> None:
    files = disks.harmless()
    golden = disks.ext4(tmp_path / "golden.img", files, 32 * MB, *options)
    before, image, chance = Path(shutil.copy(golden, tmp_path / "before.img")), tmp_path / "now.img", random.Random(7)
    clean, infected, went_on = Clean(golden), 0, 0
    for round_ in range(14):
        shutil.copy(before, image)
        requests = guest_writes(chance, sorted(files), tmp_path)
        if round_ % 2:
            for content in tmp_path.glob("content*"):
                content.write_bytes(content.read_bytes().replace(disks.MARKER, b""))
        disks.debugfs(image, *requests)
        if round_ % 4 == 0:
            disks.write_at(image, chance.randrange(2048, 32 * MB - 64), chance.choice([disks.MARKER, b"\xff" * 9]))
        after = Path(shutil.copy(image, tmp_path / "after.img"))
        if round_ % 3 == 0 and "ext2" not in options:
            disks.journaled(image, before, after)
        whole, record = clean.look(image)
        since, kept = clean.since(image, chance)
        told = (options, round_, requests, whole.reasons, since.reasons, methods(since))
        assert found(since) == found(whole), told
        infected += bool(whole.findings)
        if since.verdict().value == "clean":
            assert whole.verdict().value == "clean", told
            assert kept == record, told
            clean.goes_on(image, kept)
            shutil.copy(after, before)  # the guest goes on from what its journal makes
            went_on += 1
    assert infected
    assert went_on > 1


def test_an_inode_of_the_file_system_itself_is_judged_again(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", {"a": b"x" * 5000}, 16 * MB, "-O", "project,quota")
    inode = disks.debugfs(image, "stat /a").split("Inode:")[1].split()[0]
    block, size = int(disks.debugfs(image, "blocks /a").split()[-1]), image.stat().st_size
    disks.debugfs(image, "ssv prj_quota_inum " + inode)
    clean = Clean(image)
    disks.write_at(image, block * (size // int(disks.run("dumpe2fs", "-h", image).split("Block count:")[1].split()[0])),
                   disks.MARKER)  # fmt: skip
    tally, _record = clean.since(image)
    assert (methods(tally), [one.path for one in tally.findings]) == (["delta"], ["/a"])


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Clean]:
    """Two file systems and swap, in partitions."""
    place = tmp_path_factory.mktemp("parted")
    swap = place / "swap.img"
    swap.write_bytes(bytes(2 * MB))
    disks.run("mkswap", "-q", swap)
    fat = place / "fat.img"
    fat.write_bytes(bytes(8 * MB))
    disks.run("mkfs.vfat", fat)
    ext = disks.ext4(place / "ext.img", disks.harmless(), 16 * MB)
    image = disks.partitioned(place / "disk.img", "gpt", [ext, swap, fat])
    return image, Clean(image)


def starts(tally: Tally) -> dict[str, int]:
    return {volume.type: volume.start for volume in tally.volumes}


def test_each_volume_is_read_as_far_as_it_was_written(parted: tuple[Path, Clean], tmp_path: Path) -> None:
    image, clean = parted
    again, record = clean.since(image)
    assert (again.verdict().value, methods(again), again.files) == ("clean", ["same", "same", "same"], 0)
    assert record == clean.record
    now = Path(shutil.copy(image, tmp_path / "now.img"))
    at = starts(clean.tally)
    disks.write_at(now, at["fat"] + 6 * MB, b"x")
    disks.write_at(now, at["swap"] + MB, disks.MARKER)
    written, _record = clean.since(now)
    assert methods(written) == ["same", "delta", "full"]
    assert [(one.path, one.rule) for one in written.indicators] == [("(swap)", "vmward_inert_sample")]
    assert written.verdict().value == "incomplete"


def test_an_empty_volume_is_read_once(tmp_path: Path) -> None:
    image = tmp_path / "empty.img"
    image.write_bytes(bytes(4 * MB))
    clean = Clean(image)
    again, record = clean.since(image)
    assert (again.verdict().value, methods(again), again.bytes_read) == ("clean", ["same"], 0)
    assert [volume.type for volume in again.volumes] == ["empty"]
    assert record == clean.record
    disks.write_at(image, MB, disks.MARKER)
    tally, _record = clean.since(image)
    assert (methods(tally), len(tally.indicators), tally.verdict().value) == (["full"], 1, "incomplete")


def test_what_lies_between_volumes_is_matched(parted: tuple[Path, Clean], tmp_path: Path) -> None:
    image, clean = parted
    now = Path(shutil.copy(image, tmp_path / "now.img"))
    disks.write_at(now, 100 << 10, disks.MARKER)
    tally, _record = clean.since(now)
    assert [one.path for one in tally.indicators] == ["(outside of volumes)"]


def test_a_deleted_partition_is_told_and_a_new_one_is_read_as_a_whole(
    parted: tuple[Path, Clean], tmp_path: Path
) -> None:
    image, clean = parted
    now = Path(shutil.copy(image, tmp_path / "now.img"))
    disks.run("sfdisk", "-q", "--delete", now, "2")
    tally, _record = clean.since(now)
    assert [one.kind for one in tally.changes if "partition" in one.path] == ["deleted"]
    assert methods(tally) == ["same", "same"]
    without = {key: one for key, one in clean.record.items() if one.kind != "fat"}
    tally, _record = clean.look(now, without, clean.written(now))
    assert [one.kind for one in tally.changes if "partition" in one.path] == ["deleted", "new"]
    assert methods(tally) == ["same", "full"]


def test_what_a_deleted_partition_leaves_behind_is_matched(tmp_path: Path) -> None:
    """No scan saw its free blocks, and the bitmap tells nothing of them."""
    one, other = (disks.ext4(tmp_path / name, disks.harmless(), 8 * MB) for name in ("a.img", "b.img"))
    disks.write_at(other, 7 * MB, disks.MARKER)
    image = disks.partitioned(tmp_path / "disk.img", "dos", [one, other])
    clean = Clean(image)
    disks.run("sfdisk", "-q", "--delete", image, "2")
    since, whole = clean.since(image)[0], clean.look(image)[0]
    assert methods(since) == ["same"]
    assert [one.path for one in since.indicators] == ["(outside of volumes)"]
    assert found(since) == found(whole)


def test_what_was_not_kept_is_never_made_up(parted: tuple[Path, Clean], tmp_path: Path) -> None:
    """Neither as zeros, nor by a record without the metadata: then all of the volume is read."""
    image, clean = parted
    key, index = next((key, one) for key, one in clean.record.items() if one.kind == "ext")
    volume = Remembered(index, 16 * MB)
    assert volume.read(1024 + 56, 2) == b"\x53\xef"
    with pytest.raises(BadFilesystem, match="not kept"):
        volume.read(15 * MB, 1)
    now = Path(shutil.copy(image, tmp_path / "now.img"))
    disks.write_at(now, starts(clean.tally)["ext"] + 15 * MB, b"x")
    tally, _record = clean.look(now, {**clean.record, key: VolumeIndex(kind="ext")}, clean.written(now))
    assert methods(tally)[0] == "full"
    assert tally.verdict().value == "clean"


def test_ntfs_is_read_as_a_whole_once_something_in_it_was_written(tmp_path: Path) -> None:
    image = tmp_path / "ntfs.img"
    image.write_bytes(bytes(16 * MB))
    disks.run("mkntfs", "-q", "-F", "-s", "512", image)
    clean = Clean(image)
    assert methods(clean.since(image)[0]) == ["same"]
    disks.write_at(image, 15 * MB, b"x")
    tally, _record = clean.since(image)
    assert (methods(tally), tally.files) == (["full"], clean.tally.files)


def test_boot_code_is_known_by_its_record(tmp_path: Path) -> None:
    clean = Clean(booting(tmp_path, "disk.img", LOADER))
    image = tmp_path / "disk.img"
    since, record = clean.since(image)
    assert (methods(since), since.changes, record) == (["same", "same"], [], clean.record)
    disks.write_at(image, MB + 5000, b"other")
    since, record = clean.since(image)
    assert (since.verdict().value, methods(since), record) == ("clean", ["delta", "same"], clean.record)
    assert [one.path for one in since.changes] == ["(boot code)"]
