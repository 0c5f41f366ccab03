# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Before a scan is believed: a reader that is blind to its planted samples is found out, whichever it is."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import inside, other, scanner, self_test
from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Meter
from ansible_collections.vmward.remediation.plugins.module_utils._scan.btrfs_walk import BtrfsWalk
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Content, Hit, RuleFile, Yara
from ansible_collections.vmward.remediation.plugins.module_utils._scan.fat import Fat
from ansible_collections.vmward.remediation.plugins.module_utils._scan.lvm import LogicalVolume
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ntfs_judge import NtfsScan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.vhdx import Vhdx
from ansible_collections.vmward.remediation.plugins.module_utils._scan.vmdk import Vmdk
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_walk import XfsWalk


@pytest.fixture(scope="module")
def yara() -> Yara:
    return Yara([RuleFile("x", "rule x { condition: false }", "", 0)], 60)


def told(yara: Yara) -> str:
    """The reason, if any, why nothing can be believed."""
    reasons: list[str] = []
    read = Meter.bytes
    passed = self_test.passes([yara], self_test.open_images(), lambda _kind, body: reasons.append(body["text"]))
    assert passed is not bool(reasons)
    assert Meter.bytes == read or not passed
    return " ".join(reasons)


def nothing(*_arguments: Any, **_options: Any) -> Iterator[Any]:
    return iter(())


@pytest.mark.parametrize(
    ("reader", "method", "name"),
    [
        (Fat, "files", "FAT"),
        (XfsWalk, "files", "XFS"),
        (NtfsScan, "run", "NTFS"),
        (BtrfsWalk, "files", "btrfs"),
        (BtrfsWalk, "_logged", "btrfs"),
    ],
)
def test_a_reader_that_is_blind_is_found_out(
    yara: Yara, monkeypatch: pytest.MonkeyPatch, reader: type, method: str, name: str
) -> None:
    assert told(yara) == ""
    monkeypatch.setattr(reader, method, nothing)
    assert f"in a disk scanned as {name} (" in told(yara)


@pytest.mark.parametrize(
    ("reader", "name"), [(Vmdk, "ext in VMDK"), (Vhdx, "ext in VHDX"), (LogicalVolume, "ext on LVM")]
)
def test_a_container_that_is_read_as_empty_is_found_out(
    yara: Yara, monkeypatch: pytest.MonkeyPatch, reader: type, name: str
) -> None:
    monkeypatch.setattr(reader, "read", lambda _self, _offset, length: bytes(length))
    assert f"in a disk scanned as {name} (" in told(yara)


@pytest.mark.parametrize(("module", "how"), [(scanner, "as a whole"), (other, "as XFS")], ids=["ext", "XFS"])
def test_a_journal_that_is_not_replayed_is_found_out(
    yara: Yara, monkeypatch: pytest.MonkeyPatch, module: ModuleType, how: str
) -> None:
    assert told(yara) == ""
    monkeypatch.setattr(module, "replay", lambda *_arguments: None)
    assert f"in a disk scanned {how} (" in told(yara)


def test_a_journal_that_only_differences_leave_out_is_found_out(yara: Yara, monkeypatch: pytest.MonkeyPatch) -> None:
    on_top = scanner.Scanner._ext_on_top

    def blind(*arguments: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(scanner, "replay", lambda *_arguments: None)
            on_top(*arguments)

    monkeypatch.setattr(scanner.Scanner, "_ext_on_top", blind)
    assert "in a disk scanned by its differences (" in told(yara)


@pytest.mark.parametrize("reader", ["zip_members", "tar_members", "cpio_members", "rpm_members", "pieces"])
def test_an_unpacking_that_is_blind_is_found_out(yara: Yara, monkeypatch: pytest.MonkeyPatch, reader: str) -> None:
    monkeypatch.setattr(inside, reader, nothing)
    assert "the planted samples in an archive (found " in told(yara)


class Slow(Yara):
    """Some rule of the user's never ends on one file of the image, which is no sample."""

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        hits, gap = super().scan(content)
        return hits, gap if hits else "YARA gave up on it (timeout)"


def test_a_rule_too_slow_for_another_file_is_no_failure() -> None:
    assert told(Slow([RuleFile("x", "rule x { condition: false }", "", 0)], 60)) == ""
