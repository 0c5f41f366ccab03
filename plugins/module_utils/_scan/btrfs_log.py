# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the log of a btrfs makes of files: it holds the items of those that were written last, and the next mount puts
them in place of what they had (Linux, fs/btrfs/tree-log.c).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .btrfs_records import Inode, Piece
from .places import Ranges


def states(logged: Inode, before: Inode | None, sector: int) -> Iterator[tuple[list[Piece], int]]:
    """The content and size that a file may have then, which were not its own before.

    Of a file that was only noted to be there the log has no size that counts, so that the former one may stay.
    """
    pieces = _after(logged, before, sector)
    former = (before.pieces(), before.size) if before is not None and before.is_file else None
    for size in sorted({logged.size, before.size if before is not None else logged.size}):
        if (pieces, size) != former:
            yield pieces, size


def _after(logged: Inode, before: Inode | None, sector: int) -> list[Piece]:
    """What the log holds of a file, be it a hole, takes the place of what lay there."""
    written = Ranges(_span(offset, raw, sector) for offset, raw in logged.extents)
    kept = [part for piece in (before.pieces() if before is not None else ()) for part in _left(piece, written)]
    return sorted([*kept, *logged.pieces()])


def _span(offset: int, raw: bytes, sector: int) -> tuple[int, int]:
    if raw[20]:
        return offset, offset + int(struct.unpack_from("<Q", raw, 45)[0])
    size = int(struct.unpack_from("<Q", raw, 8)[0])
    return offset, -(-(offset + size) // sector) * sector


def _left(piece: Piece, written: Ranges) -> Iterator[Piece]:
    end = piece.offset + piece.length
    if piece.data:  # it lies in the tree, and goes as a whole
        yield from [] if written.touches(piece.offset, end) else [piece]
        return
    for low, high in Ranges([(piece.offset, end)]).minus(written):
        yield piece._replace(offset=low, inner=piece.inner + low - piece.offset, length=high - low)
