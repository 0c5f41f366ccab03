# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The library's releases for Python 3.9 and the later ones keep an inode's runs in different places."""

from __future__ import annotations

from functools import cached_property
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs import set_runs


class Node:
    """One extent of two blocks, in a group of 64 blocks."""

    size, xfs = 8192, SimpleNamespace(block_size=4096, sb=SimpleNamespace(sb_agblklog=6, sb_agblocks=64))
    inode = SimpleNamespace(di_format=2)

    def _iter_blocks(self) -> list[tuple[int, int, int, int]]:
        return [(0, 64 + 7, 2, 0)]


class OfPython39(Node):
    _runlist: Any = None

    def dataruns(self) -> Any:
        return self._runlist


class Later(Node):
    @cached_property
    def dataruns(self) -> Any:
        raise AssertionError("it made them itself")


@pytest.mark.parametrize(
    ("node", "told"), [(OfPython39(), lambda one: one.dataruns()), (Later(), lambda one: one.dataruns)]
)
def test_either_library_reads_by_our_runs(node: Any, told: Any) -> None:
    set_runs(node)
    assert told(node) == [(71, 2)]
