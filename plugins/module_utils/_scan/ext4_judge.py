# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All files of an ext file system, whether a directory names them or not."""

from __future__ import annotations

from .blocks import Blocks
from .delta import NO_FILE, judge_ext_file, look_for_paths, tell_unread
from .ext4 import ROOT, Ext4
from .ext4_records import Inode
from .judge import Judge
from .names import Names
from .verdict import Where

_LARGE = 64 << 20


def judge_files(judge: Judge, where: Where, volume: Blocks, fs: Ext4, remember: bool) -> None:
    """What could not be read is a reason; so is an inode in use that looks free.

    Large files come last: should there be no time for all of them, the many others and their names were judged.
    """
    judge.emit("expect", {"bytes": max(0, fs.blocks_count - fs.free_blocks) * fs.block_size})
    names = Names(fs, judge.indicators.names_as_bytes)

    def file(inode: Inode) -> None:
        judge_ext_file(judge, where, fs, volume, inode, names.path, remember)

    def free(number: int) -> None:
        """A directory names it, but it looks free: the kernel would refuse it, e2fsck may revive it."""
        inode = fs.inode(number)
        if inode.is_file:
            file(inode)
        else:
            judge.reason(what % number + " was not read: a directory names it, but it is free.")

    what = "Inode %%d on %s" % str(where).replace("%", "%%")
    seen: set[int] = set()
    large: list[int] = []
    for inode in fs.used_inodes():
        number = inode.number
        if inode.mode:
            seen.add(number)
        if inode.is_file and inode.size > _LARGE:
            large.append(number)
        elif inode.is_file:
            judge.each(what % number, file, inode)
        elif inode.is_odd:
            judge.reason(what % number + " was not read: it is damaged.")
        if inode.acl:
            judge.each(what % number, _attributes, judge, where, fs, inode)
    listed = names.listed()
    for number in sorted(filter(fs.is_no_file, listed)):
        judge.reason(what % number + NO_FILE)
    for number in sorted(listed - seen):
        judge.each(what % number, free, number)
    tell_unread(judge, where, names.problems)
    for path in names.found():
        judge.named(where, path, "ioc_name")
    look_for_paths(judge, where, fs)
    for number in large:
        judge.each(what % number, lambda number=number: file(fs.inode(number)))
    hidden = [number for number in seen - listed if number != ROOT and not fs.is_own(number)]
    if hidden:
        judge.note("%d files of %s have no name in any directory; they were scanned." % (len(hidden), where))


def _attributes(judge: Judge, where: Where, fs: Ext4, inode: Inode) -> None:
    judge.attributes(where, inode.number, fs.xattr_block(inode))
