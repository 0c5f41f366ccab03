# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An empty NTFS, and copies of it with a record that was written by hand, scanned both ways."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus import ntfs_records as made
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct, found

# A cluster and a record that are free
FREE, RECORD = 3000, 16


class Volume:
    def __init__(self, place: Path) -> None:
        if not shutil.which("mkntfs"):
            pytest.skip("mkntfs is not installed")
        self.place, self.golden = place, made.volume(place / "golden.img")
        self.direct = Direct(self.golden)

    def copy(self) -> Path:
        return Path(shutil.copy(self.golden, self.place / "changed.img"))

    def both(self, image: Path) -> tuple[Tally, Tally]:
        """As a whole and by the difference, neither of which may be clean alone."""
        whole, delta = self.direct.look(image, False), self.direct.look(image, True)
        assert found(delta) == found(whole), (whole.reasons, delta.reasons)
        assert (whole.verdict().value == "clean") == (delta.verdict().value == "clean"), (whole.reasons, delta.reasons)
        return whole, delta

    def holding(self, *attributes: bytes, more: bytes = b"", content: bytes = disks.MARKER, at: int = FREE) -> Path:
        """A record with these attributes, perhaps one that continues it, and content in a free cluster."""
        image = self.copy()
        disks.write_at(image, at * made.CLUSTER, content)
        made.put(image, RECORD, made.record(RECORD, made.standard(), *attributes))
        if more:
            made.put(image, RECORD + 1, made.record(RECORD + 1, more, base=RECORD | 1 << 48))
        return image


def told(tallies: tuple[Tally, Tally], reason: str) -> None:
    for tally in tallies:
        assert tally.verdict().value != "clean"
        assert reason in " ".join(tally.reasons), tally.reasons
