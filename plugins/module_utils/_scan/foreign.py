# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File systems other than ext. All have readers here; of NTFS single files are taken with the dissect libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any, Callable

from .blocks import Blocks, BootCode, Stream
from .btrfs_walk import BtrfsWalk
from .exfat import Exfat
from .fat import MAX_DEPTH, Fat
from .layout import ForeignFile, NotReadable
from .marks import marks
from .partitions import Extent
from .verdict import printable
from .xfs_walk import XfsWalk

_NTFS_DATA = 0x80
_MOST_ODD = 20
_LIBRARY = "dissect.target.filesystems.ntfs"
# Those that can be proven to have been read as a whole, so that they can be a clean base
COMPARABLE = frozenset(("xfs", "fat", "exfat", "btrfs"))
_OURS: dict[str, Callable[[Blocks], Fat | XfsWalk | BtrfsWalk]] = {
    "fat": Fat,
    "exfat": Exfat,
    "xfs": XfsWalk,
    "btrfs": BtrfsWalk,
}
READABLE = frozenset(("ntfs", *_OURS))


def identify(volume: Blocks) -> str:
    """What a volume holds, by its magic numbers alone; without one that we know it is `boot` code, or `unknown`."""
    return next(iter(marks(volume)), "boot" if isinstance(volume, BootCode) else "unknown")


def preload() -> None:
    """Import the library, if it is there, while the files of this Python can still be read."""
    with suppress(ImportError):
        import_module(_LIBRARY)


def open_volume(kind: str, volume: Blocks) -> Foreign | Fat | XfsWalk | BtrfsWalk:
    return _OURS[kind](volume) if kind in _OURS else Foreign(volume)


class Foreign:
    """An NTFS, walked by its directories. After the walk `unproven` tells what was met on it."""

    def __init__(self, volume: Blocks) -> None:
        try:
            self._fs = import_module(_LIBRARY).NtfsFilesystem(Stream(volume))
        except ImportError as exc:
            told = "the Python library dissect.target is missing. Install it on the host that reads the logs"
            raise NotReadable(told) from exc
        self._odd: list[str] = []

    def edges(self) -> list[Extent]:
        """What lies behind it is not known."""
        return []

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
            for entry, is_directory in self._entries(directory):
                see(directory, entry)
                if is_directory and enter(entry.path):
                    pending.append((entry, depth + 1))
                try:
                    has_content = is_directory or entry.is_file(follow_symlinks=False)
                    streams = list(self._streams(entry)) if has_content else []
                except Exception as exc:  # noqa: BLE001 - the edge to a parser that an attacker feeds
                    self._odd.append("%s was not read: %s" % (printable(entry.path, 200), _why(exc)))
                    continue
                yield from streams

    def _entries(self, directory: Any) -> Iterator[tuple[Any, bool]]:
        """With whether each is a directory that is to be entered. Damage in one of them must not hide the others."""
        shown = printable(directory.path, 200) or "/"
        try:
            for item in directory.scandir():
                entry = item.get()
                try:
                    yield entry, not entry.is_symlink() and bool(entry.is_dir())
                except Exception as exc:  # noqa: BLE001 - the edge to a parser that an attacker feeds
                    self._odd.append("%s was not read: %s" % (printable(entry.path, 200), _why(exc)))
        except Exception as exc:  # noqa: BLE001 - the same
            self._odd.append("directory %s was not read: %s" % (shown, _why(exc)))

    def _streams(self, entry: Any) -> Iterator[ForeignFile]:
        # A file may have several streams, a directory too, and some of the volume's own have only named ones.
        record = entry.entry
        for name in sorted({attribute.name or "" for attribute in record.attributes.get(_NTFS_DATA, ())}):
            path = "%s:%s" % (entry.path, name) if name else entry.path
            opened = _Opened(lambda name=name: record.open(name))  # type: ignore[misc]
            yield ForeignFile(path, int(record.size(name)), opened.read, entry.lstat)

    def unnamed(self) -> Iterator[ForeignFile]:
        """The library tells of no file that no directory names."""
        return iter(())

    def attributes(self) -> Iterator[tuple[int, Callable[[], bytes]]]:
        return iter(())

    def doubts(self) -> list[str]:
        return []

    def odd(self) -> list[str]:
        """What was met that could not be read."""
        return self._odd[:_MOST_ODD] + (["and more"] if len(self._odd) > _MOST_ODD else [])

    def unproven(self) -> str:
        return "; ".join(("its reader can't prove that it saw every file", *self.odd()))


def _why(exc: Exception) -> str:
    return str(exc).rstrip(".") or type(exc).__name__


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
