# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File systems other than ext, read with the dissect libraries, and the proofs that nothing of them was left out."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Callable

from .blocks import Blocks, Stream
from .layout import Layout, layout_of

MAX_DEPTH = 256
_NTFS_DATA = 0x80
_MAGICS = (
    (1080, b"\x53\xef", "ext"),
    (0, b"XFSB", "xfs"),
    (65600, b"_BHRfS_M", "btrfs"),
    (3, b"NTFS    ", "ntfs"),
    (3, b"EXFAT   ", "exfat"),
    (4086, b"SWAPSPACE2", "swap"),
    (0, b"LUKS\xba\xbe", "luks"),
    (3, b"-FVE-FS-", "bitlocker"),
    (0, b"hsqs", "squashfs"),
    (4096, b"\xfc\x4e\x2b\xa9", "raid"),
    (32769, b"CD001", "iso9660"),
    (32769, b"BEA01", "udf"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (32768, b"JFS1", "jfs"),
    (65588, b"ReIsEr", "reiserfs"),
)
_SECTORS = 512, 1024, 2048, 4096
_OPENERS = {
    "xfs": ("dissect.target.filesystems.xfs", "XfsFilesystem"),
    "btrfs": ("dissect.target.filesystems.btrfs", "BtrfsFilesystem"),
    "ntfs": ("dissect.target.filesystems.ntfs", "NtfsFilesystem"),
    "fat": ("dissect.target.filesystems.fat", "FatFilesystem"),
    "exfat": ("dissect.target.filesystems.exfat", "ExfatFilesystem"),
}
READABLE = frozenset(_OPENERS)
# Those that can be proven to have been read as a whole, so that they can be a clean base
COMPARABLE = frozenset(("xfs", "fat"))


class NotReadable(Exception):
    """The volume can't be read; the sentence says why."""


@dataclass(frozen=True)
class ForeignFile:
    path: str
    size: int
    read: Callable[[int, int], bytes]
    status: Callable[[], Any]  # as os.stat tells it
    layout: Callable[[], Layout | None] = lambda: None


def marks(volume: Blocks) -> list[str]:
    """All kinds whose magic numbers a volume bears. Of two, nobody knows which one the guest will mount."""
    head = volume.read(0, 69632)
    found = [kind for at, magic, kind in _MAGICS if head[at : at + len(magic)] == magic]
    if any(head[at : at + 8] == b"LABELONE" for at in (0, 512, 1024, 1536)):
        found.append("lvm")
    return [*found, "fat"] if _is_fat(head) else found


def identify(volume: Blocks) -> str:
    """What a volume holds, by its magic numbers alone; `unknown` if there is none that we know."""
    return next(iter(marks(volume)), "unknown")


def _is_fat(head: bytes) -> bool:
    """FAT has no magic number. As Linux sees it, which asks for neither the jump nor the mark at the sector's end."""
    sector, per_cluster, reserved, tables, media = struct.unpack_from("<HBHB4xB", head.ljust(22, b"\0"), 11)
    sane = sector in _SECTORS and per_cluster and not per_cluster & (per_cluster - 1)
    return bool(sane and reserved and tables in (1, 2) and media >= 0xF0)


def preload() -> str:
    """Import all readers while the files of this Python can still be read; says what is missing."""
    modules = [module for module, _name in _OPENERS.values()]
    try:
        for module in modules:
            import_module(module)
    except ImportError as exc:
        return str(exc)
    return ""


class Foreign:
    """One file system, walked by its directories. After the walk `unproven` tells why some of it may be missing."""

    def __init__(self, kind: str, volume: Blocks) -> None:
        self._kind = kind
        self._volume = volume
        module, name = _OPENERS[kind]
        try:
            self._fs = getattr(import_module(module), name)(Stream(volume))
        except ImportError as exc:
            raise NotReadable("the Python library dissect.target is missing. Install it on the data host") from exc
        self._inodes: set[int] = set()
        self._clusters = 0
        self._origin = (0, volume.size)
        if kind == "fat":
            fat = self._fs.fatfs
            self._origin = (fat.first_data_sector * fat.sector_size, fat.total_sectors * fat.sector_size)

    def files(
        self,
        enter: Callable[[str], bool] = lambda path: True,
        see: Callable[[Any, Any], None] = lambda directory, entry: None,
    ) -> Iterator[ForeignFile]:
        """All files of directories that are to be entered. `see` is shown each directory with each of its entries."""
        pending = [(self._fs.get("/"), 0)]
        while pending:
            directory, depth = pending.pop()
            if depth > MAX_DEPTH:
                raise NotReadable("its directories are nested too deeply")
            self._account(directory)
            for item in directory.scandir():
                entry = item.get()
                see(directory, entry)
                if entry.is_symlink():
                    self._account(entry)
                elif entry.is_dir():
                    if not enter(entry.path):
                        continue
                    pending.append((entry, depth + 1))
                    if self._kind == "ntfs":
                        yield from self._streams(entry)
                else:
                    self._account(entry)
                    if entry.is_file(follow_symlinks=False):
                        yield from self._streams(entry)

    def _streams(self, entry: Any) -> Iterator[ForeignFile]:
        if self._kind != "ntfs":
            size, opened = int(entry.lstat().st_size), _Opened(entry.open)
            layout = (lambda: opened.layout(size, *self._origin)) if self._kind in COMPARABLE else lambda: None
            yield ForeignFile(entry.path, size, opened.read, entry.lstat, layout)
            return
        # A file may have several streams, a directory too, and some of the volume's own have only named ones.
        record = entry.entry
        for name in sorted({attribute.name or "" for attribute in record.attributes.get(_NTFS_DATA, ())}):
            path = "%s:%s" % (entry.path, name) if name else entry.path
            opened = _Opened(lambda name=name: record.open(name))  # type: ignore[misc]
            yield ForeignFile(path, int(record.size(name)), opened.read, entry.lstat)

    def _account(self, entry: Any) -> None:
        if self._kind == "xfs":
            self._inodes.add(entry.entry.inum)
        elif self._kind == "fat":
            runs = [] if _fixed_root(entry) else entry.entry.dataruns()
            self._clusters += sum(count for _start, count in runs)

    def doubts(self) -> list[str]:
        if self._kind == "xfs" and not _xfs_log_is_clean(self._volume):
            return [
                "its log holds changes that are not yet written. "
                "Start and shut the VM down cleanly, or replay the log on a copy"
            ]
        if self._kind == "xfs" and any(self._volume.read(16, 8)):
            return ["it keeps files on a real-time device, which is not read"]
        if self._kind == "fat" and _fat_is_dirty(self._volume, self._fs.fatfs):
            return ["it was not unmounted cleanly"]
        return []

    def unproven(self) -> str:
        if self._kind == "xfs":
            expected, seen = _xfs_inodes(self._volume), len(self._inodes)
            return "" if expected == seen else "%d inodes are in use, but %d were reached" % (expected, seen)
        if self._kind == "fat":
            expected, seen = _fat_clusters(self._volume, self._fs.fatfs), self._clusters
            return "" if expected == seen else "%d clusters are in use, but %d were reached" % (expected, seen)
        return "its reader can't prove that it saw every file of a %s volume" % self._kind


class _Opened:
    """Opened when it is first needed, so that a file that can't be opened fails by itself."""

    def __init__(self, open_file: Callable[[], Any]) -> None:
        self._open = open_file
        self._handle: Any = None

    def read(self, offset: int, length: int) -> bytes:
        self._handle = self._handle or self._open()
        self._handle.seek(offset)
        data: bytes = self._handle.read(length)
        if len(data) != length:
            raise NotReadable("it is shorter than its size")
        return data

    def layout(self, size: int, origin: int, limit: int) -> Layout | None:
        """None also if it can't be opened: who reads it will say why."""
        try:
            self._handle = self._handle or self._open()
            return layout_of(self._handle, size, origin, limit)
        except Exception:  # noqa: BLE001 - the edge to a parser that an attacker feeds
            return None


def _fixed_root(entry: Any) -> bool:
    """FAT12 and FAT16 keep their root directory outside of the clusters."""
    return entry.entry.cluster in (None, 0)


def _fat_table(volume: Blocks, fat: Any) -> tuple[int, ...]:
    raw = volume.read(fat.bpb.BPB_RsvdSecCnt * fat.sector_size, fat.fat_size * fat.sector_size)
    if fat.fat.bits_per_entry == 32:
        return tuple(value & 0x0FFFFFFF for value in struct.unpack("<%dI" % (len(raw) // 4), raw))
    if fat.fat.bits_per_entry == 16:
        return struct.unpack("<%dH" % (len(raw) // 2), raw)
    pairs = (int.from_bytes(raw[at : at + 3], "little") for at in range(0, len(raw) - 2, 3))
    return tuple(half for pair in pairs for half in (pair & 0xFFF, pair >> 12))


def _fat_is_dirty(volume: Blocks, fat: Any) -> bool:
    if fat.fat.bits_per_entry == 12:
        return False  # has no such mark
    flag = 0x08000000 if fat.fat.bits_per_entry == 32 else 0x8000
    # Linux marks a mounted volume in the boot sector instead
    state = volume.read(65 if fat.fat.bits_per_entry == 32 else 37, 1)[0]
    return not _fat_table(volume, fat)[1] & flag or bool(state & 1)


def _fat_clusters(volume: Blocks, fat: Any) -> int:
    bad = (1 << min(28, fat.fat.bits_per_entry)) - 9
    count = (fat.total_sectors - fat.first_data_sector) // fat.bpb.BPB_SecPerClus
    return sum(1 for value in _fat_table(volume, fat)[2 : count + 2] if value not in (0, bad))


def _xfs_inodes(volume: Blocks) -> int:
    """The inodes in use by the allocation groups' own count, less those that no directory names."""
    head = volume.read(0, 512)
    block_size = struct.unpack_from(">I", head, 4)[0]
    group_blocks, groups = struct.unpack_from(">II", head, 84)
    sector = struct.unpack_from(">H", head, 102)[0]
    if not 0 < groups <= 1 << 20:
        raise NotReadable("its superblock holds absurd values")
    used = 0
    for group in range(groups):
        agi = volume.read(group * group_blocks * block_size + 2 * sector, 64)
        if agi[:4] != b"XAGI":
            raise NotReadable("an allocation group is damaged")
        used += struct.unpack_from(">I", agi, 16)[0] - struct.unpack_from(">I", agi, 28)[0]
    quotas = struct.unpack_from(">QQ", head, 160) + struct.unpack_from(">Q", head, 232)
    return used - 2 - sum(1 for number in quotas if number not in (0, (1 << 64) - 1))


def _xfs_log_is_clean(volume: Blocks) -> bool:
    """The newest record of the log says that the file system was unmounted, and nothing else."""
    head = volume.read(0, 512)
    block_size = struct.unpack_from(">I", head, 4)[0]
    start = struct.unpack_from(">Q", head, 48)[0]
    blocks = struct.unpack_from(">I", head, 96)[0]
    shift = head[124]
    if not start or not blocks:
        return False  # an external log, which we do not have
    group, within = start >> shift, start & ((1 << shift) - 1)
    at = (group * struct.unpack_from(">I", head, 84)[0] + within) * block_size
    newest, place = -1, 0
    for base in range(0, blocks * block_size, 1 << 20):
        chunk = volume.read(at + base, min(1 << 20, blocks * block_size - base))
        for offset in range(0, len(chunk), 512):
            if chunk[offset : offset + 4] == b"\xfe\xed\xba\xbe":
                number = struct.unpack_from(">Q", chunk, offset + 16)[0]
                if number > newest:
                    newest, place = number, at + base + offset
    header = volume.read(place, 512)
    single = struct.unpack_from(">I", header, 40)[0] == 1
    header_blocks = max(1, -(-struct.unpack_from(">I", header, 320)[0] // 32768))
    return newest >= 0 and single and bool(volume.read(place + 512 * header_blocks, 512)[9] & 0x20)
