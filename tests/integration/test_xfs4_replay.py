# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The disk of a RHEL 6 that runs, or lost its power: its XFS is read as Linux was seen to make it at the next mount."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Blocks, Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_replay import Patched, replay
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_walk import XfsWalk
from ansible_collections.vmward.remediation.tests.corpus import disks, xfs4
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Direct:
    golden = tmp_path_factory.mktemp("golden") / "d.img"
    golden.write_bytes(bytes(disks.MB))
    return Direct(golden)


def opened(image: Path) -> Raw:
    return Raw(os.open(image, os.O_RDONLY))


def as_we_see_it(volume: Blocks) -> xfs4.Tree:
    walk, inodes, content = XfsWalk(volume), dict[str, os.stat_result](), dict[str, bytes]()
    for file in walk.files(see=lambda _directory, entry: inodes.update({entry.path: entry.inode.status()})):
        content[file.path] = file.read(0, file.size)
    list(walk.unnamed())
    assert (walk.unproven(), walk.doubts()) == ("", [])
    return {path: row(status, content.get(path, b"")) for path, status in inodes.items()}


def row(status: os.stat_result, content: bytes) -> xfs4.Row:
    told = hashlib.sha256(content).hexdigest()[:16] if stat.S_ISREG(status.st_mode) else ""
    return status.st_mode, status.st_uid, status.st_nlink, int(status.st_ctime), int(status.st_mtime), told


def replayed(image: Path) -> Patched:
    view = replay(opened(image))
    assert view is not None
    return view


@pytest.mark.parametrize("name", xfs4.MADE)
def test_what_linux_makes_of_a_log_we_see(direct: Direct, tmp_path: Path, name: str) -> None:
    record = xfs4.load(name)
    image = record.put(tmp_path / "d.img")
    assert as_we_see_it(replayed(image)) == record.seen
    assert "/evil" in record.seen
    assert "/evil" not in {file.path for file in XfsWalk(opened(image)).files()}, "it lies outside of the log, too"
    tally = direct.look(image, False)
    assert tally.reasons == []
    assert {finding.path for finding in tally.findings} >= {"/evil", "/victim"}, "as its log makes it, and as it lies"


@pytest.mark.parametrize("forge", xfs4.FORGED)
@pytest.mark.parametrize("name", xfs4.MADE)
def test_what_linux_makes_of_a_log_that_somebody_changed_we_see(
    tmp_path: Path, name: str, forge: Callable[[Path], None]
) -> None:
    record = xfs4.load(name)
    image = record.put(tmp_path / "d.img")
    forge(image)
    assert as_we_see_it(replayed(image)) == record.forged[forge.__name__]
