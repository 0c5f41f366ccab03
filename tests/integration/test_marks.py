# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a volume is taken for, beside what libblkid takes it for, by which a guest decides what to mount."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import DiskRequest, LayerSpec, Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.marks import _ASKED, _READ, _UNREAD, marks
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

MB = disks.MB
SIZE = 64 * MB
MD = 0xA92B4EFC

# As libblkid calls them, where its name is another than "NAME" or "NAME_member"
OTHERWISE = {
    **dict.fromkeys(("ext2", "ext3", "ext4", "ext4dev", "jbd"), "ext"),
    **{"LVM2_member": "lvm", "LVM1_member": "lvm1", "linux_raid_member": "raid", "crypto_LUKS": "luks"},
    **{"BitLocker": "bitlocker", "vfat": "fat", "swsuspend": "hibernated", "cs_fvault2": "core_storage"},
    **{"DM_snapshot_cow": "dm_snapshot", "DM_verity_hash": "dm_verity", "DM_integrity": "dm_integrity"},
    **{"drbdmanage_control_volume": "drbdmanage", "squashfs3": "squashfs", "reiser4": "reiserfs", "gfs2": "gfs"},
    **{"VMFS_volume_member": "vmfs_volume", "scoutfs_meta": "scoutfs", "scoutfs_data": "scoutfs"},
}
NO_VOLUME = {"xfs_external_log"}  # holds no files, and is never mounted


def look(image: Path) -> dict[str, Any]:
    disk = DiskRequest("vda", (LayerSpec(str(image), "raw"),))
    return scan(Request((disk,), RULES, "", ("yara",), 0, "", Limits(120, 1024 * MB, 120)))


def kinds(image: Path) -> list[str]:
    file = os.open(image, os.O_RDONLY)
    try:
        return marks(Raw(file))
    finally:
        os.close(file)


def blkid(image: Path) -> str:
    """The one kind, `ambivalent`, or nothing."""
    done = subprocess.run(
        ["blkid", "-p", "-o", "value", "-s", "TYPE", str(image)], capture_output=True, text=True, check=False
    )
    return "ambivalent" if done.returncode == 8 else done.stdout.strip()


def blank(image: Path, size: int = SIZE) -> Path:
    with image.open("wb") as file:
        file.truncate(size)
    return image


@pytest.fixture(scope="module")
def ext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.ext4(tmp_path_factory.mktemp("marks") / "ext.img", disks.harmless(3), SIZE)


def test_all_that_libblkid_knows_is_known() -> None:
    known = {kind for kind, *_how in (*_READ, *_UNREAD, *_ASKED)} | {"fat", "swap"}
    listed = set(disks.run("blkid", "-k").split()) - NO_VOLUME
    names = {OTHERWISE.get(name, name.removesuffix("_member").lower()) for name in listed}
    assert names - known == set()


def with_each_mark(image: Path, can_bear: Callable[[int], bool]) -> Iterator[tuple[str, str, list[str]]]:
    """What it is marked as, and what both take it for then."""
    for kind, at, mark in (*_READ, *_UNREAD):
        place = at % SIZE
        if can_bear(place):
            with image.open("r+b") as file:
                before = os.pread(file.fileno(), len(mark), place)
                os.pwrite(file.fileno(), mark, place)
                try:
                    yield kind, blkid(image), kinds(image)
                finally:
                    os.pwrite(file.fileno(), before, place)


def test_each_mark_is_seen_beside_an_ext_file_system(ext: Path) -> None:
    assert (blkid(ext), kinds(ext)) == ("ext4", ["ext"])
    told = list(with_each_mark(ext, lambda place: not 1024 <= place < 2048))
    assert [one for one in told if set(one[2]) != {"ext", one[0]}] == []
    assert sum(guest != "ext4" for _kind, guest, _found in told) > 40


def test_each_mark_is_seen_by_itself(tmp_path: Path) -> None:
    told = list(with_each_mark(blank(tmp_path / "one.img"), lambda place: True))
    assert [one for one in told if one[2] != [one[0]]] == []
    assert sum(guest != "" for _kind, guest, _found in told) > 40


# --- What is asked beside a short mark --------------------------------------------------------------------------------


def md_1(size: int, level: int = 0) -> tuple[int, bytes]:
    at = (size // 512 - 16) // 8 * 8
    head = bytearray(256 + 4)
    struct.pack_into("<II", head, 0, MD, 1)
    head[16:32] = bytes(range(16))
    struct.pack_into("<QiIQII", head, 64, 1700000000, level, 0, 8 * MB // 512, 0, 1)
    struct.pack_into("<QQQ", head, 128, 20 * MB // 512, 8 * MB // 512, at)
    struct.pack_into("<I", head, 220, 2)
    struct.pack_into("<HH", head, 256, 0, 0xFFFF)
    whole = sum(struct.unpack("<65I", head))
    struct.pack_into("<I", head, 216, ((whole & 0xFFFFFFFF) + (whole >> 32)) & 0xFFFFFFFF)
    return at * 512, bytes(head)


def md_0(size: int, order: str = "<") -> tuple[int, bytes]:
    head = struct.pack(order + "8I", MD, 0, 90, 0, 0, 1, 1700000000, 1) + struct.pack(order + "I", size // 2048)
    return size // 65536 * 65536 - 65536, head.ljust(4096, b"\0")


def last_sector(size: int, sector: bytes) -> tuple[int, bytes]:
    return size - 512, sector


def via(size: int) -> tuple[int, bytes]:
    body = (b"\x55\xaa\1" + b"\7" * 9).ljust(50, b"\0")
    return last_sector(size, body + bytes([sum(body) & 0xFF]))


def silicon(size: int) -> tuple[int, bytes]:
    body = bytearray(512)
    body[96:100] = struct.pack("<I", 0x2F000000)
    body[0x13E:0x140] = struct.pack("<H", -sum(struct.unpack_from("<159H", body)) & 0xFFFF)
    return last_sector(size, bytes(body))


def jmicron(size: int) -> tuple[int, bytes]:
    body = bytearray(b"JM\1\0".ljust(128, b"\0"))
    body[4:6] = struct.pack("<H", -sum(struct.unpack("<64H", body)) & 0xFFFF)
    return last_sector(size, bytes(body))


def hfs(size: int) -> tuple[int, bytes]:
    return 1024, (b"BD".ljust(20, b"\0") + struct.pack(">I", 4096)).ljust(162, b"\0")


def hfsplus(size: int) -> tuple[int, bytes]:
    return 1024, (b"H+\0\4".ljust(40, b"\0") + struct.pack(">I", 4096)).ljust(512, b"\0")


def nilfs2(at: int) -> tuple[int, bytes]:
    head = bytearray(struct.pack("<IHHHHII", 2, 0, 0x3434, 280, 0, 77, 0).ljust(280, b"\1"))
    head[16:20] = bytes(4)
    head[16:20] = struct.pack("<I", zlib.crc32(head, 77 ^ 0xFFFFFFFF) ^ 0xFFFFFFFF)
    return at, bytes(head)


def zfs(size: int) -> tuple[int, bytes]:
    """Uberblocks, as older ones ask for, of the label before the last."""
    at = size // (256 << 10) * (256 << 10) - (512 << 10) + (128 << 10)
    return at, b"".join(struct.pack("<Q", 0x00BAB10C).ljust(1024, b"\0") for _number in range(8))


BEHIND = {
    "md 1.0": (md_1(SIZE), "raid"),
    "md 0.90": (md_0(SIZE), "raid"),
    "md 0.90 of a machine of the other kind": (md_0(SIZE, ">"), "raid"),
    "via": (via(SIZE), "via_raid"),
    "silicon": (silicon(SIZE), "silicon_medley_raid"),
    "jmicron": (jmicron(SIZE), "jmicron_raid"),
    "zfs": (zfs(SIZE), "zfs"),
    "nilfs2's second": (nilfs2(SIZE - 4096), "nilfs2"),
}
BEFORE = {
    "hfs": (hfs(SIZE), "hfs"),
    "hfsplus": (hfsplus(SIZE), "hfsplus"),
    "nilfs2": (nilfs2(1024), "nilfs2"),
}


@pytest.mark.parametrize(("mark", "kind"), BEHIND.values(), ids=BEHIND)
def test_what_lies_at_the_end_is_seen_beside_an_ext_file_system(
    ext: Path, tmp_path: Path, mark: tuple[int, bytes], kind: str
) -> None:
    image = tmp_path / "both.img"
    shutil.copy(ext, image)
    disks.write_at(image, *mark)
    guest = blkid(image)
    assert guest == "ambivalent" or OTHERWISE.get(guest, guest.removesuffix("_member")) == kind
    assert kinds(image) == ["ext", kind]


@pytest.mark.parametrize(("mark", "kind"), [*BEFORE.values(), *BEHIND.values()], ids=[*BEFORE, *BEHIND])
def test_what_has_a_short_mark_is_seen_by_itself(tmp_path: Path, mark: tuple[int, bytes], kind: str) -> None:
    image = blank(tmp_path / "one.img")
    disks.write_at(image, *mark)
    assert OTHERWISE.get(blkid(image), blkid(image).removesuffix("_member")) == kind
    assert kinds(image) == [kind]


@pytest.mark.parametrize("name", BEFORE)
def test_a_short_mark_alone_says_nothing(tmp_path: Path, name: str) -> None:
    (at, whole), _kind = BEFORE[name]
    image = blank(tmp_path / "one.img")
    disks.write_at(image, at, whole[:8])
    assert (blkid(image), kinds(image)) == ("", [])


def test_the_list_of_a_zfs_label_is_seen(tmp_path: Path) -> None:
    image = blank(tmp_path / "one.img")
    disks.write_at(image, (256 << 10) + 16384, b"\1\1\0\0".ljust(40, b"\0") + b"\0\0\0\4guid\0\0\0\x08")
    assert kinds(image) == ["zfs"]


# --- What the scan says -----------------------------------------------------------------------------------------------


def test_a_decoy_before_the_data_of_an_array_is_never_clean(tmp_path: Path) -> None:
    """The guest assembles the array, whose data are another file system in free blocks of the first."""
    image = disks.ext4(tmp_path / "decoy.img", disks.harmless(8), 48 * MB - 16384, "-b", "4096")
    inner = disks.ext4(tmp_path / "inner.img", {"evil.com": disks.EICAR}, 8 * MB, "-O", "^has_journal")
    with image.open("r+b") as file:
        file.truncate(48 * MB)
    disks.write_at(image, 20 * MB, inner.read_bytes())
    disks.write_at(image, *md_1(48 * MB))
    assert blkid(image) == "linux_raid_member"
    result = look(image)
    assert result["verdict"] == "incomplete"
    assert "several file systems (ext, raid): the guest may mount another" in result["incomplete_reasons"][0]


@pytest.mark.parametrize("mark", [b"Intel Raid ISM Cfg Sig. ", b""], ids=["of firmware", "none"])
def test_an_array_of_whole_disks_is_told(tmp_path: Path, mark: bytes) -> None:
    """The guest assembles it, and looks for partitions in it only."""
    image = disks.partitioned(tmp_path / "d.img", "dos", [disks.ext4(tmp_path / "p.img", disks.harmless(3), 16 * MB)])
    disks.write_at(image, image.stat().st_size - 1024, mark)
    result = look(image)
    assert result["verdict"] == ("incomplete" if mark else "clean")
    told = "Disk vda holds a partition table and a file system (isw_raid) in one place."
    assert result["incomplete_reasons"] == ([told] if mark else [])


def test_a_decoy_before_a_compressed_file_system_is_never_clean(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "decoy.img", disks.harmless(8), 32 * MB)
    disks.run("mkfs.cramfs", disks.tree(tmp_path / "tree", {"evil": disks.EICAR}), tmp_path / "c.img")
    disks.write_at(image, 0, (tmp_path / "c.img").read_bytes()[:76])
    result = look(image)
    assert (result["verdict"], blkid(image)) == ("incomplete", "ambivalent")
    assert "several file systems (ext, cramfs)" in result["incomplete_reasons"][0]


@pytest.mark.parametrize("begins", [b"\0", b"?"])
def test_ten_bytes_make_no_swap(tmp_path: Path, begins: bytes) -> None:
    image = blank(tmp_path / "one.img", 8 * MB)
    disks.write_at(image, 0, begins)
    disks.write_at(image, 4086, b"SWAPSPACE2")
    result = look(image)
    assert result["verdict"] == "incomplete"
    assert "holds nothing that can be read (unknown)" in result["incomplete_reasons"][0]


def swap(image: Path, *options: str) -> Path:
    disks.run("mkswap", "-q", *options, blank(image, 8 * MB))
    return image


@pytest.mark.parametrize("page", [4096, 8192, 16384, 32768, 65536])
def test_swap_is_clean_whatever_its_pages(tmp_path: Path, page: int) -> None:
    image = swap(tmp_path / "swap.img", "-L", "paging", "-p", str(page))
    disks.write_at(image, 2 * MB, b"written out " * 9000)
    result = look(image)
    assert (result["verdict"], result["volumes"][0]["type"]) == ("clean", "swap"), result["incomplete_reasons"]
    assert "Volume 1 of disk vda is swap and was matched as raw bytes." in result["coverage_notes"]


def test_swap_of_a_machine_of_the_other_kind_is_clean(tmp_path: Path) -> None:
    image = swap(tmp_path / "swap.img")
    disks.write_at(image, 1024, struct.pack(">II", 1, 8 * MB // 4096 - 1))
    assert (blkid(image), look(image)["verdict"]) == ("swap", "clean")


@pytest.mark.parametrize(
    ("at", "data"),
    [(0, b"\1"), (1023, b"\1"), (1028, struct.pack("<I", 8 * MB // 4096)), (1028, b"\xff\xff\xff\xff")],
    ids=["begins with more", "more before its header", "one page too many", "far too many"],
)
def test_what_mkswap_does_not_make_is_no_swap(tmp_path: Path, at: int, data: bytes) -> None:
    image = swap(tmp_path / "swap.img")
    disks.write_at(image, at, data)
    result = look(image)
    assert result["verdict"] == "incomplete"
    assert "holds nothing that can be read (unlike swap)" in result["incomplete_reasons"][0]


def test_swap_that_holds_a_hibernated_system_is_told(tmp_path: Path) -> None:
    """What the guest wakes up with is packed."""
    image = swap(tmp_path / "swap.img")
    disks.write_at(image, 4076, b"SWAPSPACE2S1SUSPEND\0")
    result = look(image)
    assert (result["verdict"], blkid(image)) == ("incomplete", "swsuspend")
    assert "holds nothing that can be read (hibernated)" in result["incomplete_reasons"][0]


def test_a_file_system_in_swap_is_told(tmp_path: Path) -> None:
    image = swap(tmp_path / "swap.img")
    disks.write_at(image, 32769, b"BEA01")
    result = look(image)
    assert "several file systems (swap, udf)" in result["incomplete_reasons"][0]
    assert result["verdict"] == "incomplete"


# --- What is left of former file systems ------------------------------------------------------------------------------

MAKERS = {
    "bfs": ("mkfs.bfs",),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "ext of 1 KiB": ("mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024"),
    "ext": ("mke2fs", "-q", "-F", "-t", "ext4"),
    "fat": ("mkfs.fat",),
    "minix": ("mkfs.minix", "-3"),
    "minix 1": ("mkfs.minix", "-1"),
    "ntfs": ("mkfs.ntfs", "-Q", "-F", "-q"),
    "swap": ("mkswap", "-q"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}


def make(image: Path, name: str) -> None:
    disks.run(*MAKERS[name], image)


@pytest.mark.parametrize("name", [name for name in MAKERS if shutil.which(MAKERS[name][0])])
def test_what_mkfs_makes_is_one_thing(tmp_path: Path, name: str) -> None:
    make(blank(tmp_path / "one.img", 320 * MB), name)
    assert kinds(tmp_path / "one.img") == [name.partition(" ")[0]]


def test_a_file_system_over_another_is_told_only_where_a_guest_could_take_it_for_both(tmp_path: Path) -> None:
    image, told = tmp_path / "one.img", []
    for former, name in permutations([name for name in MAKERS if shutil.which(MAKERS[name][0])], 2):
        make(blank(image, 320 * MB), former)
        make(image, name)
        guest, found = blkid(image), kinds(image)
        agreed = len(found) > 1 if guest == "ambivalent" else found == [OTHERWISE.get(guest, guest)]
        if not agreed:
            told.append((former, name, guest, found))
    assert told == []
