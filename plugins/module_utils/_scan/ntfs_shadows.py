# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judges the shadow copies of an NTFS volume: programs can be started from them, though the volume has them no more."""

from __future__ import annotations

from dataclasses import replace

from .blocks import Blocks
from .delta import Base
from .ext4_records import BadFilesystem
from .judge import Judge
from .layout import NotReadable
from .ntfs import Ntfs
from .ntfs_delta import NtfsDelta
from .ntfs_index import build
from .ntfs_judge import NtfsScan
from .places import Ranges, differing
from .verdict import Where
from .vss import ShadowCopy, shadow_copies


def judge_shadows(judge: Judge, where: Where, volume: Blocks, remember: bool) -> None:
    """Each by what differs from the volume, which was judged before. Raw bytes that older ones have too count once."""
    told = where.capital
    try:
        copies = shadow_copies(volume)
    except NotReadable as exc:
        judge.reason(
            "%s has shadow copies whose files were not read: %s. Delete them in the guest (vssadmin delete shadows), "
            "or look at each from there." % (told, exc)
        )
        return
    if not copies:
        return
    judge.note("%s has %d shadow copies, which were read as well." % (told, len(copies)))
    base = Base(volume, build(Ntfs(volume)), Ranges())
    for copy in copies:
        of_copy, fresh = replace(where, copy=copy.name), differing(copy, volume, copy.stretches)
        base = replace(base, changed=base.changed.plus(fresh))
        judge.guard(of_copy.capital, _judge_copy, judge, of_copy, copy, base, fresh, remember)


def _judge_copy(judge: Judge, where: Where, copy: ShadowCopy, base: Base, fresh: Ranges, remember: bool) -> None:
    try:
        delta = NtfsDelta(judge, where, copy, base, remember)
    except BadFilesystem:  # of another geometry
        NtfsScan(judge, where, copy, remember).run()
        return
    delta.run(report=False, rest=fresh)
