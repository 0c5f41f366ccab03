# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must be known of an NTFS base: which file each cluster belongs to, and what the files are called."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from .baseline import VolumeIndex
from .ext4_records import BadFilesystem
from .ntfs import File, Ntfs
from .ntfs_records import DATA


def build(fs: Ntfs) -> VolumeIndex:
    """The table's own clusters are left out: its records are compared one by one."""
    blocks: list[tuple[int, int, int]] = []
    entries: list[tuple[int, int, bytes]] = []
    for number in fs.used_records():
        if fs.base_of(number) is not None:
            continue
        file = fs.file(number)
        blocks += [(lcn, count, number) for lcn, count in _clusters(file)]
        entries += [(number, parent, name) for parent, name in file.names]
    blocks.sort()
    for one, other in zip(blocks, blocks[1:]):
        if one[0] + one[1] > other[0]:
            raise BadFilesystem("two of its files claim the same cluster")
    entries.sort(key=lambda entry: entry[:2])
    ends, at = [], 0
    for _child, _parent, name in entries:
        at += len(name)
        ends.append(at)
    return VolumeIndex(
        starts=array("Q", (row[0] for row in blocks)),
        counts=array("Q", (row[1] for row in blocks)),
        owners=array("Q", (row[2] for row in blocks)),
        children=array("Q", (row[0] for row in entries)),
        parents=array("Q", (row[1] for row in entries)),
        name_ends=array("Q", ends),
        names=b"".join(row[2] for row in entries),
    )


def _clusters(file: File) -> Iterator[tuple[int, int]]:
    for one in file.attributes:
        if file.number or one.type != DATA or one.name:
            yield from ((lcn, count) for _vcn, lcn, count in one.runs if lcn is not None)
