# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must be known of an NTFS base: which file each cluster belongs to, and what the files are called."""

from __future__ import annotations

from collections.abc import Iterator

from .baseline import VolumeIndex, in_order
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
        entries += [(number, parent, name) for parent, name in file.all_names]
    return in_order(blocks, [], entries)


def _clusters(file: File) -> Iterator[tuple[int, int]]:
    for one in file.attributes:
        if file.number or one.type != DATA or one.name:
            yield from ((lcn, count) for _vcn, lcn, count in one.runs if lcn is not None)
