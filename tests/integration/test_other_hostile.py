# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""exFAT that an attacker wrote: no crash, no hang, never clean, and what can be found is found."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import DiskRequest, LayerSpec, Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.exfat import CLUSTER, ROOT, ExfatVolume, entry
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

MB = disks.MB
DEADLINE = 60
EVIL = {"dir/evil.com": disks.EICAR, "ok": b"x" * 9000}


def look(image: Path) -> dict[str, Any]:
    """A scan that must end by itself."""
    disk = DiskRequest("vda", (LayerSpec(str(image), "raw"),))
    result = scan(Request((disk,), RULES, "", ("yara",), 0, "", Limits(DEADLINE, 512 * MB, DEADLINE)))
    assert not [reason for reason in result["incomplete_reasons"] if "The scan did not end" in reason]
    assert result["verdict"] != "clean"
    return result


def told(result: dict[str, Any], words: str) -> None:
    assert words in " ".join(result["incomplete_reasons"]), result["incomplete_reasons"]


def paths(result: dict[str, Any]) -> list[str]:
    return [found["path"] for found in result["findings"]]


def exfat(place: Path, change: Callable[[ExfatVolume], object] = lambda volume: None) -> Path:
    volume = ExfatVolume().tree(EVIL)
    change(volume)
    image = place / "exfat.img"
    image.write_bytes(volume.image())
    return image


def test_an_exfat_is_read_whatever_its_clusters(tmp_path: Path) -> None:
    assert paths(look(exfat(tmp_path))) == ["/dir/evil.com"]


def add(**entries: Any) -> Callable[[ExfatVolume], object]:
    def change(volume: ExfatVolume) -> None:
        volume.root += entry("added", **entries)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (add(cluster=ROOT, size=CLUSTER, directory=True), ""),
        (add(cluster=6, size=1 << 60), "it is shorter than its size"),
        (add(cluster=9, size=1 << 60, chained=False), "it reaches beyond the end of its volume"),
        (add(cluster=20, size=1 << 60, directory=True, chained=False), "beyond the end of its volume"),
        (add(cluster=1, size=CLUSTER), "its chain of clusters leads to 1"),
        (add(cluster=0xFFFFFFF0, size=CLUSTER, directory=True), "its chain of clusters leads to"),
        (lambda volume: volume.table.update({ROOT: ROOT}), "its chain of clusters runs in a circle"),
        (lambda volume: volume.table.update({ROOT: 0}), "leads into free ones"),
    ],
)
def test_an_exfat_that_lies_is_told(tmp_path: Path, change: Callable[[ExfatVolume], object], words: str) -> None:
    told(look(exfat(tmp_path, change)), words)


def test_a_chain_in_a_circle_hides_nothing_else(tmp_path: Path) -> None:
    def change(volume: ExfatVolume) -> None:
        volume.table[100] = 100
        volume.root += entry("added", 100, 5 * CLUSTER)

    result = look(exfat(tmp_path, change))
    assert paths(result) == ["/dir/evil.com"]
    told(result, "/added on volume 1 of disk vda: it was not read: its chain of clusters runs in a circle")


def test_what_of_a_file_was_never_written_reads_as_zeros(tmp_path: Path) -> None:
    def change(volume: ExfatVolume) -> None:
        cluster = volume.put(b"." * 100 + disks.MARKER)
        whole = entry("old", cluster, 200)
        volume.root += whole[:40] + struct.pack("<Q", 100) + whole[48:]

    assert paths(look(exfat(tmp_path, change))) == ["/dir/evil.com"]


@pytest.mark.parametrize("at", [72, 80, 84, 88, 92, 96, 108, 109])
@pytest.mark.parametrize("value", [0, 0xFF])
def test_an_absurd_boot_sector_of_exfat_is_told(tmp_path: Path, at: int, value: int) -> None:
    image = exfat(tmp_path)
    disks.write_at(image, at, bytes([value]) * (1 if at > 100 else 8 if at == 72 else 4))
    look(image)
