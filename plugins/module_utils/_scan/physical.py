# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Physical volumes of LVM: they wait until all disks were seen, for a volume group may lie on several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .baseline import VolumeIndex
from .blocks import Blocks
from .delta import Base, match_rest
from .judge import Judge
from .lvm import Found, LogicalVolume, Segment, read_groups
from .partitions import Extent
from .places import Ranges
from .verdict import Where


@dataclass(frozen=True)
class Physical:
    """One as it is and, if it has a base, as it was; `index`: what is known of that base."""

    where: Where
    volume: Blocks
    base: Base | None
    index: dict[str, VolumeIndex]


def lying_before(physical: Sequence[Physical], uuids: Sequence[str]) -> dict[tuple[Segment, ...], LogicalVolume]:
    """The base's logical volumes by where they lie, if that is on the very physical volumes that bear these ids now."""
    based = [(one.base.volume, uuid) for one, uuid in zip(physical, uuids) if one.base is not None]
    before = read_groups([volume for volume, _uuid in based])
    same = {uuid for (_volume, uuid), former in zip(based, before.uuids) if uuid == former}
    return {volume.segments: volume for volume in before.volumes if volume.lies_on <= same}


def match_beside(judge: Judge, physical: Sequence[Physical], found: Found) -> None:
    """What no logical volume covers is matched as raw bytes; on top of a base, what changed of it."""
    label = "outside of logical volumes"
    for one, uuid in zip(physical, found.uuids):
        what, covered = "LVM on %s" % one.where, found.covered(uuid)
        if one.base is not None:
            judge.guard(what, match_rest, judge, one.where, one.volume, one.base.changed, covered, label)
            continue
        rest = Ranges([(0, one.volume.size)]).minus(covered)
        told = "%s: %d bytes outside of its logical volumes were matched as raw bytes."
        judge.note(told % (one.where.capital, rest.size))
        for start, end in rest:
            judge.guard(what, judge.raw, one.where, one.volume, Extent(start, end - start), label)
