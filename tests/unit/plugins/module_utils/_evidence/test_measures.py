# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sizes, progress lines, and whether a file is as long as it says."""

from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path
from typing import IO

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Refused
from ansible_collections.vmward.remediation.plugins.module_utils._evidence import space
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.content import (
    flaw_of_core,
    flaw_of_qcow2,
    flaw_of_state,
)
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.progress import (
    Progress,
    duration,
    human,
    line,
    tell,
)
from ansible_collections.vmward.remediation.plugins.module_utils._model import Disk, Layer

MiB = 1 << 20


def test_a_line_says_what_how_much_how_fast_and_how_long() -> None:
    told = {"phase": "memory", "bytes": 128 * MiB, "total_bytes": 256 * MiB, "rate": 61 * MiB, "eta": 2, "files": 0}
    assert line("desk1", told) == "desk1: memory 128 MiB of 256 MiB (50 %), 61 MiB/s, 2 s left"


def test_a_line_says_only_what_is_known() -> None:
    assert line("desk1", {"phase": "scan", "files": 12, "bytes": 2048}) == "desk1: scan 2 KiB, 12 files"
    assert line("desk1", {"phase": "verify"}) == "desk1: verify"


def test_a_line_bears_anything() -> None:
    assert line(
        "a\nb", {"phase": "x\x1b[2J", "bytes": "many", "rate": None, "eta": [1], "message": "m" * 999}
    ).isprintable()
    assert len(line("a", {"message": "m" * 999})) <= 200


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (200 * MiB, "200 MiB"), (5 << 40, "5 TiB")],
)
def test_sizes_for_a_reader(size: int, shown: str) -> None:
    assert human(size) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(2.4, "2 s"), (150, "2 min"), (3900, "65 min"), (7500, "2 h 5 min")])
def test_times_for_a_reader(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_progress_is_replaced_at_most_once_a_second_and_at_each_phase(tmp_path: Path) -> None:
    clock = [100.0]
    path = tmp_path / "progress"
    progress = Progress(str(path), now=lambda: clock[0])
    progress("memory", 0, 1000)
    clock[0] += 0.5
    progress("memory", 500, 1000)
    assert json.loads(path.read_text())["bytes"] == 0
    clock[0] += 1.5
    progress("memory", 500, 1000)
    told = json.loads(path.read_text())
    assert (told["bytes"], told["total_bytes"], told["rate"], told["eta"]) == (500, 1000, 250, 2)
    progress("done")
    assert json.loads(path.read_text())["phase"] == "done"
    assert [one.name for one in tmp_path.iterdir()] == ["progress"]


def test_two_jobs_may_share_one_progress_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, replace = str(tmp_path / "progress"), os.replace

    def while_another_writes(draft: str, target: str) -> None:
        monkeypatch.setattr(os, "replace", replace)
        tell(path, {"phase": "second"})
        replace(draft, target)

    monkeypatch.setattr(os, "replace", while_another_writes)
    tell(path, {"phase": "first"})
    assert json.loads(Path(path).read_text()) == {"phase": "first"}
    assert os.listdir(tmp_path) == ["progress"]


def test_a_full_disk_keeps_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_told: object, file: IO[str]) -> None:
        file.write("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    tell(str(tmp_path / "progress"), {"phase": "scan"})
    assert os.listdir(tmp_path) == []


def test_a_progress_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    Progress(str(tmp_path / "none" / "progress"))("memory", 1, 2)


def test_no_room_is_refused_with_numbers() -> None:
    needs = [space.Need("the case store /c", 1000 * MiB, 100 * MiB)]
    with pytest.raises(Refused, match="the case store /c has 100 MiB free, 1.07 GiB are needed. Nothing was touched"):
        space.require("take it", needs, 1.1)
    space.require("take it", needs, 0)
    space.require("take it", [space.Need("x", 100, 111)], 1.1)


def disk(*layers: str) -> Disk:
    return Disk("vda", "virtio", 1000 * MiB, 0, False, tuple(Layer(path, "qcow2") for path in layers))


def test_a_disk_is_as_large_as_its_images_and_never_larger_than_itself() -> None:
    sizes = {"top": 10 * MiB, "base": 90 * MiB, "full": 5000 * MiB, "device": 0}
    assert space.of_disk(disk("top", "base"), sizes.__getitem__) == 102 * MiB
    assert space.of_disk(disk("top", "full"), sizes.__getitem__) == 1011 * MiB
    assert space.of_disk(disk("device"), sizes.__getitem__) == 1011 * MiB


def test_an_image_that_cannot_be_seen_counts_as_full() -> None:
    assert space.of_disk(disk("/nowhere/image.qcow2")) == 1011 * MiB


def core(length: int) -> bytes:
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    note = struct.pack("<IIQQQQQQ", 4, 0, 176, 0, 0, 24, 24, 0)
    load = struct.pack("<IIQQQQQQ", 1, 0, 200, 0, 0, length, length, 0)
    return ident + header + note + load


def test_a_core_must_hold_all_the_memory_that_it_announces() -> None:
    assert flaw_of_core(core(1000), 1200) == ""
    assert flaw_of_core(core(1000), 1211) == ""  # section names may follow
    assert "memory would end at byte 1200" in flaw_of_core(core(1000), 1199)
    assert "no memory" in flaw_of_core(core(1000)[:120] + bytes(56), 1200)
    assert "not begin as an ELF" in flaw_of_core(b"", 0)
    assert "not begin as an ELF" in flaw_of_core(b"QFI\xfb" * 100, 400)


def qcow2(size: int, backing: int = 0) -> bytes:
    return struct.pack(">IIQIIQ", 0x514649FB, 3, backing, 0, 16, size)


def test_an_exported_image_stands_alone_and_is_as_large_as_the_disk() -> None:
    assert flaw_of_qcow2(qcow2(1000), 1000) == ""
    assert "leans on another" in flaw_of_qcow2(qcow2(1000, 512), 1000)
    assert "the disk has 2000" in flaw_of_qcow2(qcow2(1000), 2000)


def test_a_state_saved_by_qemu_begins_as_one() -> None:
    assert flaw_of_state(b"QEVM" + bytes(96), 5000) == ""
    assert flaw_of_state(b"QEVM", 4), "nothing follows"
    assert flaw_of_state(bytes(100), 5000)
    assert "not begin as a qcow2" in flaw_of_qcow2(b"\x7fELF", 1000)
