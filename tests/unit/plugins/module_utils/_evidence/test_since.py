# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the record of the last clean scan is relied on."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._evidence.since import doubt, state_of
from ansible_collections.vmward.remediation.plugins.module_utils._model import Disk, Layer
from ansible_collections.vmward.remediation.plugins.module_utils._scan.known import Known


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    paths = [tmp_path / name for name in ("top.qcow2", "base.qcow2")]
    for path in paths:
        path.write_bytes(b"x")
    return Disk("vda", "virtio", 1 << 30, 0, False, tuple(Layer(str(path), "qcow2") for path in paths))


def why(then: Disk, now: Disk, present: tuple[str, ...] = ("vmward-scan-1",)) -> str:
    return doubt({"checkpoint": "vmward-scan-1", "disks": {"vda": state_of(then)}}, [now], present)


def test_what_is_as_it_was_is_relied_on(disk: Disk) -> None:
    assert why(disk, disk) == ""
    Path(disk.layers[0].path).write_bytes(b"the guest wrote")
    assert why(disk, disk) == ""


def test_a_written_replaced_or_missing_image_is_not(disk: Disk) -> None:
    then = {"checkpoint": "vmward-scan-1", "disks": {"vda": state_of(disk)}}
    os.utime(disk.layers[1].path, (1, 1))
    assert "another size, source or image" in doubt(then, [disk], ["vmward-scan-1"])
    then["disks"] = {"vda": state_of(disk)}
    top = Path(disk.layers[0].path)
    top.rename(top.with_suffix(".old"))
    top.write_bytes(b"x")
    assert "another size, source or image" in doubt(then, [disk], ["vmward-scan-1"])
    top.unlink()
    assert state_of(disk) == []


def test_another_size_or_chain_is_not(disk: Disk) -> None:
    assert why(disk, replace(disk, size=2 << 30))
    assert why(disk, replace(disk, layers=disk.layers[:1]))
    assert why(disk, replace(disk, id="vdb")) == "disk vdb was not scanned then"


def test_only_the_newest_of_ours_counts(disk: Disk) -> None:
    assert "is gone" in why(disk, disk, ())
    assert "left a later checkpoint" in why(disk, disk, ("vmward-scan-1", "vmward-scan-2"))
    assert doubt({}, [disk], ()) == "there is no record of a clean scan"


def test_a_record_is_of_one_vm_and_whole(tmp_path: Path) -> None:
    known = Known(str(tmp_path))
    known.keep_record("one", {"checkpoint": "c"}, {"vda": b"abc", "vdb": b""})
    found = known.record("one")
    assert found is not None
    assert (found[0]["checkpoint"], found[1]) == ("c", {"vda": b"abc", "vdb": b""})
    assert known.record("other") is None
    (path,) = tmp_path.glob("*.checkpoint")
    assert path.stat().st_mode & 0o777 == 0o600
    path.rename(path.with_name(Path(known._record_path("other")).name))
    assert known.record("other") is None
    known.keep_record("one", {}, {"vda": b"abc"})
    known.forget_record("one")
    assert known.record("one") is None
    known.forget_record("one")
