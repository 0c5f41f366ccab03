# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All files of an ext file system, whether a directory names them or not."""

from __future__ import annotations

from .blocks import Blocks
from .delta import judge_ext_file, look_for_paths
from .ext4 import ROOT, Ext4
from .judge import Judge, Where
from .names import Names

_REASONS_PER_VOLUME = 50


def judge_files(judge: Judge, where: Where, volume: Blocks, fs: Ext4, remember: bool) -> None:
    """What could not be read is a reason; so is an inode in use that looks free."""
    judge.emit("expect", {"bytes": max(0, fs.blocks_count - fs.free_blocks) * fs.block_size})
    names = Names(fs, judge.indicators.names_as_bytes)
    seen: set[int] = set()
    for inode in fs.used_inodes():
        if inode.mode:
            seen.add(inode.number)
        if inode.is_odd:
            judge.reason("Inode %d on %s was not read: it is damaged." % (inode.number, where))
        if inode.is_file:
            judge_ext_file(judge, where, fs, volume, inode, names.path, remember)
        if inode.acl:
            what = "Inode %d on %s" % (inode.number, where)
            judge.each(what, lambda inode=inode: judge.attributes(where, inode.number, fs.xattr_block(inode)))
    listed = names.listed()
    for number in sorted(listed - seen):
        # A directory names it, but it looks free: the kernel would refuse it, e2fsck may revive it.
        inode = fs.inode(number)
        if inode.is_file:
            judge_ext_file(judge, where, fs, volume, inode, names.path, remember)
        else:
            judge.reason("Inode %d on %s was not read: a directory names it, but it is free." % (number, where))
    for problem in names.problems[:_REASONS_PER_VOLUME]:
        judge.reason("A directory of %s was not read: %s." % (where, problem))
    for path in names.found():
        judge.named(where, path, "ioc_name")
    look_for_paths(judge, where, fs)
    hidden = [number for number in seen - listed if number != ROOT and not fs.is_own(number)]
    if hidden:
        judge.note("%d files of %s have no name in any directory; they were scanned." % (len(hidden), where))
