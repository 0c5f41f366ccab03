# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""By which bytes a volume is known for what it is: all that libblkid knows, for by it a guest decides what to mount.

A short mark, which other file systems bear by chance, counts only with what libblkid asks beside it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Callable

from .blocks import Blocks

SEVERAL = (
    "%s bears the marks of several file systems (%s): the guest may mount another than was read. Erase those that are "
    "not in use: `wipefs` tells what it sees, and `wipefs --offset` erases one."
)
SECTORS = 512, 1024, 2048, 4096
_SECTOR = 512
_HEAD = 69632
_TAIL = 257 * _SECTOR
_PAGES = (4096, 8192, 16384, 32768, 65536)
_MD = b"\xfc\x4e\x2b\xa9"
_BCACHEFS = bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef")
_STRATIS = b"!Stra0tis\x86\xff\x02^\x41rh"
_UFS = ("19540119", "00011954", "00195612", "00095014", "00612195", "05231994")
_VOLUME_OF_UDF = (b"BEA01", b"BOOT2", b"CDW02", b"NSR02", b"NSR03", b"TEA01")

# Those that are read here, and what only looks like one of them. Of several marks the first is read.
_READ = (
    ("ext", 1080, b"\x53\xef"),
    ("xfs", 0, b"XFSB"),
    ("btrfs", 65600, b"_BHRfS_M"),
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
    ("bitlocker", 3, b"-FVE-FS-"),
    ("bitlocker", 424, bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")),  # To Go, which looks like FAT
    *(("lvm", at, b"LABELONE") for at in (0, 512, 1024, 1536)),
)
# Behind the start, or before the end of the last whole sector
_UNREAD: tuple[tuple[str, int, bytes], ...] = (
    ("luks", 0, b"LUKS\xba\xbe"),
    ("raid", 0, _MD),
    ("raid", 4096, _MD),
    ("ddf_raid", -512, bytes.fromhex("de11de11")),
    ("ddf_raid", -257 * 512, bytes.fromhex("de11de11")),
    ("isw_raid", -1024, b"Intel Raid ISM Cfg Sig. "),
    ("isw_raid", -8192, b"Intel Raid ISM Cfg Sig. "),
    ("lsi_mega_raid", -512, b"$XIDE$"),
    ("nvidia_raid", -1024, b"NVIDIA  "),
    *(
        ("promise_fasttrack_raid", -sectors * 512, b"Promise Technology, Inc.")
        for sectors in (63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087)
    ),
    ("hpt45x_raid", -11 * 512, bytes.fromhex("f316785a")),
    ("hpt45x_raid", -11 * 512, bytes.fromhex("fd16785a")),
    ("hpt37x_raid", 4640, bytes.fromhex("f016785a")),
    ("hpt37x_raid", 4640, bytes.fromhex("fd16785a")),
    ("adaptec_raid", -512, bytes.fromhex("37fc4d1e")),
    *(("drbd", -4096 + 60, bytes.fromhex("8374026" + digit)) for digit in "bcd"),
    ("drbdmanage", 0, b"$DRBDmgr=q"),
    ("drbdproxy_datalog", 0, b"DRBDdlh*"),
    ("bcache", 4120, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),
    *(("bcachefs", at + 24, _BCACHEFS) for at in (4096, 2 << 20, -1 << 20)),
    ("ceph_bluestore", 0, b"bluestore block device"),
    ("lvm1", 0, b"HM\1\0"),
    ("lvm1", 0, b"HM\2\0"),
    ("dm_snapshot", 0, b"SnAp"),
    ("dm_verity", 0, b"verity\0\0"),
    ("dm_integrity", 0, b"integrt\0"),
    ("vdo", 0, b"dmvdo001"),
    ("stratis", 516, _STRATIS),
    ("stratis", 4612, _STRATIS),
    ("ubi", 0, b"UBI#"),
    ("ubifs", 0, bytes.fromhex("31181006")),
    ("vmfs_volume", 1 << 20, bytes.fromhex("0dd001c0")),
    ("vmfs", 2 << 20, bytes.fromhex("5ef1ab2f")),
    *(
        ("hibernated", page - 10, mark)
        for page in _PAGES
        for mark in (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001")
    ),
    ("hibernated", 0, bytes.fromhex("edc302e99856e50c")),
    *(("old swap", page - 10, b"SWAP-SPACE") for page in _PAGES),
    ("squashfs", 0, b"hsqs"),
    ("squashfs", 0, b"sqsh"),
    ("cramfs", 0, bytes.fromhex("453dcd28")),
    ("cramfs", 0, bytes.fromhex("28cd3d45")),
    ("cramfs", 512, bytes.fromhex("453dcd28")),  # behind a boot sector, as only the kernel looks for it
    ("cramfs", 512, bytes.fromhex("28cd3d45")),
    ("romfs", 0, b"-rom1fs-"),
    ("iso9660", 32769, b"CD001"),
    ("iso9660", 32777, b"CDROM"),
    *(("udf", 32769, mark) for mark in _VOLUME_OF_UDF),
    ("f2fs", 1024, bytes.fromhex("1020f5f2")),
    ("erofs", 1024, bytes.fromhex("e2e1f5e0")),
    ("jfs", 32768, b"JFS1"),
    *(("reiserfs", at, b"ReIsEr") for at in (8192 + 20, 8192 + 52, 65536, 65536 + 52)),
    ("apfs", 32, b"NXSB"),
    ("refs", 0, b"\0\0\0ReFS\0"),
    ("hpfs", 8192, bytes.fromhex("49e895f9")),
    ("gfs", 65536, bytes.fromhex("01161970")),
    ("ocfs", 8192, b"OracleCFS"),
    *(("ocfs2", at, b"OCFSV2") for at in (1024, 2048, 4096, 8192)),
    ("oracleasm", 32, b"ORCLDISK"),
    ("scoutfs", 65540, bytes.fromhex("8b423c10")),
    ("vxfs", 1024, bytes.fromhex("f5fc01a5")),
    ("vxfs", 8192, bytes.fromhex("a501fcf5")),
    ("nss", 4096, b"SPB5"),
    ("bfs", 0, bytes.fromhex("cefaad1b")),
    *(("befs", at, mark) for at in (32, 544) for mark in (b"BFS1", b"1SFB")),
    ("exfs", 0, b"EXFS"),
    ("mpool", 0, b"mpoolDev"),
    ("zonefs", 0, b"SFOZ"),
    *(("sysv", at * 1024 + 1016, bytes.fromhex(mark)) for at in (0, 9, 15, 18) for mark in ("207e18fd", "fd187e20")),
    ("xenix", 2048, bytes.fromhex("2b5544")),
    ("xenix", 2048, bytes.fromhex("44552b")),
    ("xenix", 2040, bytes.fromhex("44552b00")),
    *(
        ("ufs", at + 1372, number)
        for at in (0, 8192, 65536, 262144)
        for mark in _UFS
        for number in (bytes.fromhex(mark), bytes.fromhex(mark)[::-1])
    ),
)


class Ends:
    """What lies at both ends of a volume is read once."""

    def __init__(self, volume: Blocks) -> None:
        self._volume = volume
        self.size = volume.size
        self.end = volume.size // _SECTOR * _SECTOR
        self.head = volume.read(0, _HEAD)
        self._tail_at = max(0, self.end - _TAIL)
        self._tail = volume.read(self._tail_at, self.end - self._tail_at)

    def read(self, at: int, length: int) -> bytes:
        """Nothing of what would lie before the start."""
        if at < 0:
            return b""
        if at + length <= _HEAD:
            return self.head[at : at + length]
        if self._tail_at <= at and at + length <= self.end:
            return self._tail[at - self._tail_at : at - self._tail_at + length]
        return self._volume.read(at, length)

    def bear(self, at: int, mark: bytes) -> bool:
        return self.read(at if at >= 0 else self.end + at, len(mark)) == mark


def marks(volume: Blocks) -> list[str]:
    """All kinds whose marks a volume bears. Of two, nobody knows which one the guest will mount."""
    ends = Ends(volume)
    found = [kind for kind, at, mark in _READ if ends.bear(at, mark)]
    found += ["fat"] if _is_fat(ends.head) else []
    found += _swap(ends)
    found += [kind for kind, at, mark in _UNREAD if ends.bear(at, mark)]
    found += [kind for kind, is_one in _ASKED if is_one(ends)]
    return list(dict.fromkeys(found))


def _is_fat(head: bytes) -> bool:
    """FAT has no magic number. As Linux sees it, which asks for neither the jump nor the mark at the sector's end."""
    sector, per_cluster, reserved, tables, media = struct.unpack_from("<HBHB4xB", head.ljust(22, b"\0"), 11)
    sane = sector in SECTORS and per_cluster and not per_cluster & (per_cluster - 1)
    return bool(sane and reserved and tables and media >= 0xF0)


def _swap(ends: Ends) -> Iterator[str]:
    """As `mkswap` writes it, which leaves zeros before its header. All else that bears its mark is not taken for it."""
    for page in _PAGES:
        for order in "<>":
            version, last = struct.unpack_from(order + "II", ends.head, 1024)
            if version == 1 and last and ends.bear(page - 10, b"SWAPSPACE2"):
                is_sane = not any(ends.head[:1024]) and (last + 1) * page <= ends.size
                yield "swap" if is_sane else "unlike swap"


def _is_md_at_the_end(ends: Ends) -> bool:
    old = ends.size // 65536 * 65536 - 65536
    places = [(ends.size // _SECTOR - 16) // 8 * 8 * _SECTOR, old]
    return any(at > 0 and ends.bear(at, _MD) for at in places) or (old > 0 and ends.bear(old, _MD[::-1]))


def _is_via_raid(ends: Ends) -> bool:
    last = ends.read(ends.end - _SECTOR, _SECTOR)
    return last[:2] == b"\x55\xaa" and last[2] <= 2 and sum(last[:50]) & 0xFF == last[50]


def _is_silicon_raid(ends: Ends) -> bool:
    last = ends.read(ends.end - _SECTOR, _SECTOR)
    if last[96:100] != b"\0\0\0\x2f" or last[0x116] >= 8:
        return False
    *words, checksum = struct.unpack_from("<160H", last)
    return not (sum(words) + checksum) & 0xFFFF


def _is_jmicron_raid(ends: Ends) -> bool:
    last = ends.read(ends.end - _SECTOR, _SECTOR)
    return last[:2] == b"JM" and last[0x30] <= 5 and sum(struct.unpack_from("<64H", last)) & 0xFFFF in (0, 1)


def _is_core_storage(ends: Ends) -> bool:
    return ends.bear(88, b"CS") and ends.bear(8, b"\1\0\x10\0")


def _is_hfs(ends: Ends) -> bool:
    (block,) = struct.unpack_from(">I", ends.head, 1024 + 20)
    return ends.bear(1024, b"BD") and block > 0 and block % _SECTOR == 0


def _is_hfsplus(ends: Ends) -> bool:
    (block,) = struct.unpack_from(">I", ends.head, 1024 + 40)
    (catalog,) = struct.unpack_from(">I", ends.head, 1024 + 288)
    sane = block >= _SECTOR and not block & (block - 1) and catalog * block <= ends.size
    return sane and (ends.bear(1024, b"H+") or ends.bear(1024, b"HX"))


def _is_minix(ends: Ends) -> bool:
    """Parts of an ext superblock look like one at times."""
    return not ends.bear(1080, b"\x53\xef") and any(_is_minix_in(order, ends.head[1024:1056]) for order in "<>")


def _is_minix_in(order: str, head: bytes) -> bool:
    magic, state = struct.unpack_from(order + "2H", head, 16)
    if magic in (0x137F, 0x138F, 0x2468, 0x2478):
        inodes, few, inode_map, zone_map, first, log = struct.unpack_from(order + "6H", head)
        zones = few if magic < 0x2000 else struct.unpack_from(order + "I", head, 20)[0]
    elif struct.unpack_from(order + "H", head, 24)[0] == 0x4D5A:
        inodes, inode_map, zone_map, first, log = struct.unpack_from(order + "I2x4H", head)
        zones, state = struct.unpack_from(order + "I", head, 20)[0], 0
    else:
        return False
    sane = not log and inodes and state <= 3 and first <= zones
    return bool(sane and inode_map * 8192 > inodes and zone_map * 8192 > zones - first)


def _is_nilfs2(ends: Ends) -> bool:
    return any(_is_nilfs2_at(ends.read(at, 1024)) for at in (1024, ends.end - 8 * _SECTOR))


def _is_nilfs2_at(block: bytes) -> bool:
    if block[6:8] != b"\x34\x34":
        return False
    size, seed, checksum = struct.unpack_from("<H2xII", block, 8)
    summed = block[:16] + bytes(4) + block[20:size]
    return 20 <= size <= 1024 and zlib.crc32(summed, seed ^ 0xFFFFFFFF) ^ 0xFFFFFFFF == checksum


def _is_zfs(ends: Ends) -> bool:
    """A label's list of values or, as an older libblkid asks, four uberblocks."""
    size, uberblocks = 256 << 10, 0
    if ends.size < 64 << 20:
        return False
    for at in (0, size, ends.size // size * size - 2 * size, ends.size // size * size - size):
        label = ends.read(at, size)
        values = label[16384 : 128 << 10]
        if values[:1] == b"\1" and values[1] <= 1 and _GUID in values:
            return True
        places = range(128 << 10, size, 1024)
        uberblocks += sum(int.from_bytes(label[place : place + 8], "little") in _UBERBLOCK for place in places)
    return uberblocks >= 4


_GUID = b"\0\0\0\4guid\0\0\0\x08"  # a name, and the kind of number that follows it
_UBERBLOCK = (0x00BAB10C, 0x0CB1BA0000000000)
_ASKED: tuple[tuple[str, Callable[[Ends], bool]], ...] = (
    ("raid", _is_md_at_the_end),
    ("via_raid", _is_via_raid),
    ("silicon_medley_raid", _is_silicon_raid),
    ("jmicron_raid", _is_jmicron_raid),
    ("core_storage", _is_core_storage),
    ("hfs", _is_hfs),
    ("hfsplus", _is_hfsplus),
    ("minix", _is_minix),
    ("nilfs2", _is_nilfs2),
    ("zfs", _is_zfs),
)
