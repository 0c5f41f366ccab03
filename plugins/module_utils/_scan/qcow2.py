# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One layer of a qcow2 chain, read-only."""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from .blocks import MAX_DISK, Blocks, Place, UnreadableImage, identity, pread

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_SNAPSHOT = struct.Struct(">QIHHIIQII")
_OFFSET = 0x00FFFFFFFFFFFE00
_DIRTY, _CORRUPT, _EXTERNAL, _COMPRESSION, _EXTENDED = 1, 2, 4, 8, 16
_L2_CACHE = 64


@dataclass(frozen=True)
class Run:
    """A stretch of the disk: `host` is its place in the image file; without one it is zeros or the backing layer's."""

    length: int
    kind: str  # data, zero, backing, compressed
    host: int = 0


class Qcow2(Blocks):
    """One layer of a qcow2 chain, read-only, the active state or one internal snapshot."""

    def __init__(self, fd: int, backing: Blocks | None = None, snapshot: str = "") -> None:
        self._fd = fd
        self._identity = identity(fd)
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
        raw = pread(self._fd, 0, 112).ljust(112, b"\0")
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

    def places(self, offset: int, length: int, stop: Blocks | None = None) -> Iterator[Place]:
        at = offset
        for run in self.runs(offset, length):
            if run.kind == "data":
                yield run.length, self._identity, run.host
            elif run.kind == "compressed":
                yield run.length, (self._identity, run.host), at & (self._cluster - 1)
            elif run.kind == "backing" and self._backing is not None:
                if self._backing is stop:
                    yield run.length, stop, at
                else:
                    yield from self._backing.places(at, run.length, stop)
            else:
                yield run.length, None, 0
            at += run.length

    def expect(self, offset: int, length: int) -> None:
        at = offset
        for run in self.runs(offset, length):
            if run.kind == "data":
                os.posix_fadvise(self._fd, run.host, run.length, os.POSIX_FADV_WILLNEED)
            elif run.kind == "backing" and self._backing is not None:
                self._backing.expect(at, run.length)
            at += run.length

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
                covered = self._per_table << self._cluster_bits
                step = min(covered - offset % covered, end - offset)
                yield Run(step, "backing")
            elif self._subclusters:
                index = (offset >> self._cluster_bits) % self._per_table * 2
                yield from self._subcluster_pieces(table[index], table[index + 1], within, step)
            else:
                index = (offset >> self._cluster_bits) % self._per_table
                asked = index - (offset - within - end >> self._cluster_bits)
                count = _alike(table, index, min(asked, self._per_table), self._cluster)
                step = min((count << self._cluster_bits) - within, end - offset)
                yield self._piece(table[index], within, step)
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
        data = pread(self._fd, host, length)
        # The last cluster of a file may be short: the rest is zeros. Anything more is damage.
        if len(data) < length and -(-self._file_size // self._cluster) * self._cluster < host + length:
            raise UnreadableImage("it is truncated: data at %#x lies past its end" % host)
        return data.ljust(length, b"\0")

    def _unpack(self, entry: int) -> bytes:
        if self._unpacked[0] != entry:
            shift = 62 - (self._cluster_bits - 8)
            host = entry & ((1 << shift) - 1)
            sectors = (entry >> shift & ((1 << (self._cluster_bits - 8)) - 1)) + 1
            packed = pread(self._fd, host, sectors * 512 - (host & 511))
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
        return pread(self._fd, offset, length)


def _alike(table: array[int], index: int, end: int, cluster: int) -> int:
    """How many entries follow each other there: none of them set, or of data that lies in one piece."""
    entry = table[index]
    step = cluster if entry & _OFFSET and not entry & (1 << 62 | 1) else 0
    if entry and not step:
        return 1
    at = index + 1
    while at < end and table[at] == entry + step * (at - index):
        at += 1
    return at - index


def _table(raw: bytes) -> array[int]:
    values = array("Q", raw)
    if struct.pack("=H", 1) == struct.pack("<H", 1):
        values.byteswap()
    return values
