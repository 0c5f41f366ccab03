# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""zstd and lz4, by libraries that a host may have or not. They are loaded here, and used in the confined child only."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any, Callable

HEAD = 18  # bytes of the longest header of a zstd frame
_WINDOW_LOG = 27  # what zstd itself goes up to unless it is told otherwise: 128 MiB
_SLICE = 256
_BLOCK = 8 << 20  # of lz4's legacy format


class Sliced:
    """The library zstandard gives all that its input unpacks to at once: it is fed so little that this is not much."""

    def __init__(self, library: Any) -> None:
        self._engine = library.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG).decompressobj()
        self._data, self._at = b"", 0

    @property
    def needs_input(self) -> bool:
        return self._at >= len(self._data)

    @property
    def eof(self) -> bool:
        return bool(self._engine.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._engine.unused_data) + self._data[self._at :]

    def decompress(self, data: bytes, _most: int) -> bytes:
        if data:
            self._data, self._at = data, 0
        part = self._data[self._at : self._at + _SLICE]
        self._at += len(part)
        return bytes(self._engine.decompress(part))


def _zstd() -> tuple[Callable[[], Any], type[Exception]] | None:
    """Python's own from 3.14 on, the same for older ones, or what distributions have had for long."""
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            library = import_module(name)
        except ImportError:
            continue
        if name == "zstandard":
            return partial(Sliced, library), library.ZstdError
        options = {library.DecompressionParameter.window_log_max: _WINDOW_LOG}
        return partial(library.ZstdDecompressor, options=options), library.ZstdError
    return None


def _lz4() -> tuple[Callable[[], Any], type[Exception]] | None:
    try:
        return import_module("lz4.frame").LZ4FrameDecompressor, import_module("lz4.block").LZ4BlockError
    except ImportError:
        return None


_FOUND = {"zstd": _zstd(), "lz4": _lz4()}
_LIBRARIES = {"zstd": "backports.zstd or zstandard", "lz4": "lz4", "legacy lz4": "lz4"}

# What makes a decompressor of one frame, in the manners of those of bz2 and lzma
MAKERS = {kind: found[0] for kind, found in _FOUND.items() if found}
FAILED: tuple[type[Exception], ...] = (
    RuntimeError,
    *(found[1] for found in _FOUND.values() if found),
)  # the first by lz4.frame
# By format, what is to be installed for it
MISSING = {kind: library for kind, library in _LIBRARIES.items() if not _FOUND[kind.split()[-1]]}


def lz4_block(data: bytes) -> bytes:
    """One of the legacy format."""
    return bytes(import_module("lz4.block").decompress(data, uncompressed_size=_BLOCK))


def refusal(kind: str, head: bytes) -> str:
    """Why a frame that begins so can't be unpacked, whatever its library says."""
    if kind == "lz4" and head[4:5] and head[4] & 1:
        return _DICTIONARY
    if kind != "zstd" or len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return ""
    has_window = not head[4] & 0x20
    named = (0, 1, 2, 4)[head[4] & 3]
    if any(head[5 + has_window : 5 + has_window + named]):
        return _DICTIONARY
    base = 1 << (10 + (head[5] >> 3))
    window = base + (base >> 3) * (head[5] & 7) if has_window else 0
    return _LARGE % (window >> 20, 1 << (_WINDOW_LOG - 20)) if window > 1 << _WINDOW_LOG else ""


_DICTIONARY = "it needs a dictionary, which it does not hold"
_LARGE = "it needs %d MiB of memory at once, more than the %d that are granted"
