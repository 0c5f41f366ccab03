# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk image as a run of bytes, read in user space. The format and the chain are told by the caller, never probed."""

from __future__ import annotations

import io
import os
import struct
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MAX_DISK = 1 << 50
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_SNAPSHOT = struct.Struct(">QIHHIIQII")
_OFFSET = 0x00FFFFFFFFFFFE00
_DIRTY, _CORRUPT, _EXTERNAL, _COMPRESSION, _EXTENDED = 1, 2, 4, 8, 16
_L2_CACHE = 64


class UnreadableImage(Exception):
    """The image can't be read as it is; the sentence says why."""


@dataclass(frozen=True)
class Run:
    """A stretch of the disk: `host` is its place in the image file; without one it is zeros or the backing layer's."""

    length: int
    kind: str  # data, zero, backing, compressed
    host: int = 0


class Blocks:
    """What every layer, disk and volume offers."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; past the end there are zeros."""
        raise NotImplementedError


class Raw(Blocks):
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.lseek(fd, 0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        return _pread(self._fd, offset, length).ljust(length, b"\0")


class Slice(Blocks):
    def __init__(self, source: Blocks, start: int, size: int) -> None:
        self._source = source
        self._start = start
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        inside = max(0, min(length, self.size - offset))
        return self._source.read(self._start + offset, inside).ljust(length, b"\0")


class OfFile(Blocks):
    """A file object of a library, as blocks."""

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        data: bytes = self._file.read(max(0, min(length, self.size - offset)))
        return data.ljust(length, b"\0")


class Stream(io.RawIOBase):
    """Blocks as the file object that a library wants."""

    def __init__(self, source: Blocks) -> None:
        self._source = source
        self._at = 0
        self.size = source.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        data = self._source.read(self._at, length)
        self._at += length
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class Qcow2(Blocks):
    """One layer of a qcow2 chain, read-only, the active state or one internal snapshot."""

    def __init__(self, fd: int, backing: Blocks | None = None, snapshot: str = "") -> None:
        self._fd = fd
        self._backing = backing
        self._file_size = os.lseek(fd, 0, os.SEEK_END)
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        self._unpacked: tuple[int, bytes] = (-1, b"")
        self._read_header()
        if snapshot:
            self._use_snapshot(snapshot)
        self._check_geometry()
        self._l1 = _table(self._must_read(self._l1_offset, self._l1_size * 8))

    def _read_header(self) -> None:
        raw = _pread(self._fd, 0, 112).ljust(112, b"\0")
        fields = _HEADER.unpack_from(raw)
        magic, version, backing_at, backing_len = fields[:4]
        self._cluster_bits, self.size, crypt, self._l1_size, self._l1_offset = fields[4:9]
        self._snapshots, self._snapshots_at = fields[11:]
        if magic != b"QFI\xfb" or version not in (2, 3):
            raise UnreadableImage("it is not a qcow2 image of version 2 or 3")
        if crypt:
            raise UnreadableImage("it is encrypted")
        features = struct.unpack_from(">Q", raw, 72)[0] if version == 3 else 0
        length = struct.unpack_from(">I", raw, 100)[0] if version == 3 else 72
        self._check_features(features, raw[104] if length > 104 else 0)
        self._subclusters = bool(features & _EXTENDED)
        if bool(backing_at and backing_len) != (self._backing is not None):
            raise UnreadableImage(
                "its header names a backing file, but the given chain ends here"
                if self._backing is None
                else "its header names no backing file, but the given chain goes on below it"
            )

    @staticmethod
    def _check_features(features: int, compression: int) -> None:
        if features & _CORRUPT:
            raise UnreadableImage("QEMU marked it as corrupt")
        if features & _EXTERNAL:
            raise UnreadableImage("its data lies in an external file, which is not supported")
        if features & ~(_DIRTY | _CORRUPT | _EXTERNAL | _COMPRESSION | _EXTENDED):
            raise UnreadableImage("it uses unknown features (%#x)" % features)
        if compression:
            raise UnreadableImage("it is compressed with zstd, which is not supported. Convert it with qemu-img first")

    def _check_geometry(self) -> None:
        if not 9 <= self._cluster_bits <= 21:
            raise UnreadableImage("its header holds absurd sizes")
        self._cluster = 1 << self._cluster_bits
        self._entry = 16 if self._subclusters else 8
        self._per_table = self._cluster // self._entry
        covered = self._l1_size * self._per_table * self._cluster
        if self.size > MAX_DISK or self._l1_size > 1 << 22 or covered < self.size:
            raise UnreadableImage("its header holds absurd sizes")

    def _use_snapshot(self, wanted: str) -> None:
        if self._snapshots > 65536:
            raise UnreadableImage("its header holds an absurd number of snapshots")
        found: list[tuple[int, int, int]] = []
        names: list[str] = []
        at = self._snapshots_at
        for _index in range(self._snapshots):
            l1_offset, l1_size, id_len, name_len, _s, _ns, _clock, _vm, extra_len = _SNAPSHOT.unpack(
                self._must_read(at, _SNAPSHOT.size)
            )
            if extra_len > 1024:
                raise UnreadableImage("its snapshot table is corrupt")
            extra = self._must_read(at + _SNAPSHOT.size, extra_len + id_len + name_len)
            ident = extra[extra_len : extra_len + id_len].decode("utf-8", "replace")
            name = extra[extra_len + id_len :].decode("utf-8", "replace")
            size = struct.unpack_from(">Q", extra, 8)[0] if extra_len >= 16 else self.size
            names.append(name)
            if wanted in (ident, name):
                found.append((l1_offset, l1_size, size))
            at += -(-(_SNAPSHOT.size + len(extra)) // 8) * 8
        if len(found) != 1:
            raise UnreadableImage("%d snapshots in it are called %r; it holds %s" % (len(found), wanted, names[:20]))
        self._l1_offset, self._l1_size, self.size = found[0]

    def read(self, offset: int, length: int) -> bytes:
        parts = []
        at = offset
        for run in self.runs(offset, length):
            if run.kind == "data":
                parts.append(self._data(run.host, run.length))
            elif run.kind == "compressed":
                inside = at & (self._cluster - 1)
                parts.append(self._unpack(run.host)[inside : inside + run.length])
            elif run.kind == "backing" and self._backing is not None and at < self._backing.size:
                parts.append(self._backing.read(at, run.length))
            else:
                parts.append(bytes(run.length))
            at += run.length
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """The stretches of [offset, offset + length), neighbours merged."""
        last: Run | None = None
        for run in self._pieces(offset, length):
            if last is None:
                last = run
            elif run.kind == last.kind != "compressed" and (run.kind != "data" or last.host + last.length == run.host):
                last = Run(last.length + run.length, last.kind, last.host)
            else:
                yield last
                last = run
        if last is not None:
            yield last

    def _pieces(self, offset: int, length: int) -> Iterator[Run]:
        inside = max(0, min(length, self.size - offset))
        end = offset + inside
        while offset < end:
            table = self._l2(offset)
            within = offset & (self._cluster - 1)
            step = min(self._cluster - within, end - offset)
            if table is None:
                yield Run(step, "backing")
            elif self._subclusters:
                index = (offset >> self._cluster_bits) % self._per_table * 2
                yield from self._subcluster_pieces(table[index], table[index + 1], within, step)
            else:
                yield self._piece(table[(offset >> self._cluster_bits) % self._per_table], within, step)
            offset += step
        if length > inside:
            yield Run(length - inside, "zero")

    @staticmethod
    def _piece(entry: int, within: int, step: int) -> Run:
        if entry >> 62 & 1:
            return Run(step, "compressed", entry)
        if entry & 1:
            return Run(step, "zero")
        host = entry & _OFFSET
        return Run(step, "data", host + within) if host else Run(step, "backing")

    def _subcluster_pieces(self, entry: int, bitmap: int, within: int, step: int) -> Iterator[Run]:
        if entry >> 62 & 1:
            yield Run(step, "compressed", entry)
            return
        host, size, end = entry & _OFFSET, self._cluster // 32, within + step
        while within < end:
            part = within // size
            length = min((part + 1) * size, end) - within
            if bitmap >> part & 1:
                yield Run(length, "data", host + within)
            else:
                yield Run(length, "zero" if bitmap >> (32 + part) & 1 else "backing")
            within += length

    def _l2(self, offset: int) -> array[int] | None:
        index = offset // (self._per_table * self._cluster)
        at = self._l1[index] & _OFFSET
        if not at:
            return None
        if at in self._tables:
            self._tables.move_to_end(at)
            return self._tables[at]
        if at % self._cluster:
            raise UnreadableImage("a table in it lies at an impossible place (%#x)" % at)
        self._tables[at] = _table(self._must_read(at, self._cluster))
        if len(self._tables) > _L2_CACHE:
            self._tables.popitem(last=False)
        return self._tables[at]

    def _data(self, host: int, length: int) -> bytes:
        data = _pread(self._fd, host, length)
        # The last cluster of a file may be short: the rest is zeros. Anything more is damage.
        if len(data) < length and -(-self._file_size // self._cluster) * self._cluster < host + length:
            raise UnreadableImage("it is truncated: data at %#x lies past its end" % host)
        return data.ljust(length, b"\0")

    def _unpack(self, entry: int) -> bytes:
        if self._unpacked[0] != entry:
            shift = 62 - (self._cluster_bits - 8)
            host = entry & ((1 << shift) - 1)
            sectors = (entry >> shift & ((1 << (self._cluster_bits - 8)) - 1)) + 1
            packed = _pread(self._fd, host, sectors * 512 - (host & 511))
            try:
                data = zlib.decompressobj(-15).decompress(packed, self._cluster)
            except zlib.error as exc:
                raise UnreadableImage("a compressed cluster in it is damaged") from exc
            if len(data) != self._cluster:
                raise UnreadableImage("a compressed cluster in it is short")
            self._unpacked = (entry, data)
        return self._unpacked[1]

    def _must_read(self, offset: int, length: int) -> bytes:
        if offset + length > self._file_size:
            raise UnreadableImage("it is truncated: a table at %#x lies past its end" % offset)
        return _pread(self._fd, offset, length)


@dataclass(frozen=True)
class Layer:
    """One file of a chain, already opened read-only."""

    path: str
    format: str
    fd: int


def open_chain(layers: Sequence[Layer], snapshot: str = "") -> Blocks:
    """The disk that `layers` (top first) make together."""
    disk: Blocks | None = None
    for depth, layer in reversed(list(enumerate(layers))):
        wanted = snapshot if depth == 0 else ""
        try:
            disk = _open_layer(layer, disk, wanted)
        except (UnreadableImage, OSError, struct.error, ValueError, OverflowError) as exc:
            raise UnreadableImage("Cannot read the disk image %s: %s." % (layer.path, exc)) from exc
    if disk is None:
        raise UnreadableImage("Cannot read a disk without any layer.")
    return disk


def _open_layer(layer: Layer, backing: Blocks | None, snapshot: str) -> Blocks:
    if layer.format == "qcow2":
        return Qcow2(layer.fd, backing, snapshot)
    if snapshot:
        raise UnreadableImage("only a qcow2 image holds internal snapshots, this one is %s" % layer.format)
    if backing is not None:
        raise UnreadableImage("a %s image can only be the last of a chain" % layer.format)
    if layer.format == "raw":
        return Raw(layer.fd)
    if layer.format == "vmdk":
        return _open_vmdk(layer.fd)
    raise UnreadableImage("the format %s is not supported" % layer.format)


def _open_vmdk(fd: int) -> Blocks:
    if _pread(fd, 0, 4) != b"KDMV":
        # A text descriptor names other files, and an opener that follows it reads what the image wants.
        raise UnreadableImage("it is not a sparse VMDK in one file. Name its -flat file with the format raw")
    try:
        from dissect.hypervisor.disk.vmdk import VMDK
    except ImportError as exc:
        raise UnreadableImage("the Python library dissect.hypervisor is missing. Install it on the data host") from exc
    disk = VMDK(Stream(Raw(fd)))
    return OfFile(disk, disk.size)


def _pread(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    done = len(data)
    while done < length:
        data = os.pread(fd, length - done, offset + done)
        if not data:
            break
        parts.append(data)
        done += len(data)
    return b"".join(parts)


def _table(raw: bytes) -> array[int]:
    values = array("Q", raw)
    if struct.pack("=H", 1) == struct.pack("<H", 1):
        values.byteswap()
    return values
