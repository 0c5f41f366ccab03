# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is the same whatever holds it: names on several file systems, swap in files, disks in images of several formats."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import parse
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct, Golden
from ansible_collections.vmward.remediation.tests.corpus.mounting import mounted

MB = disks.MB
MARKER = disks.MARKER


# --- indicators of names and paths -----------------------------------------------------------------------------------




@pytest.fixture(scope="module")
def fat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in ("mkfs.vfat", "mcopy"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    image = tmp_path_factory.mktemp("fat") / "golden.img"
    with image.open("wb") as file:
        file.truncate(40 * MB)
    disks.run("mkfs.vfat", "-F", "32", "-s", "1", image)
    return image


@pytest.mark.parametrize("wanted", [r"names: [evil.exe]", r"paths: ['C:\TEMP dir\evil.exe']"])
def test_case_does_not_count_in_indicators_on_fat(fat: Path, wanted: str) -> None:
    golden = Golden(fat, parse(wanted, "ioc.yml"))
    image = golden.copy()
    (fat.parent / "file").write_bytes(b"harmless")
    disks.run("mmd", "-i", image, "::Temp Dir")
    disks.run("mcopy", "-i", image, fat.parent / "file", "::Temp Dir/Evil.EXE")
    for tally in golden.both(image):
        assert [finding.path for finding in tally.findings] == ["/Temp Dir/Evil.EXE"]


@pytest.mark.parametrize("wanted", ["names: [.hidden]", "paths: [/etc/.hidden]"])
def test_a_directory_can_be_an_indicator_on_fat(fat: Path, wanted: str) -> None:
    golden = Golden(fat, parse(wanted, "ioc.yml"))
    image = golden.copy()
    disks.run("mmd", "-i", image, "::Etc", "::Etc/.hidden")
    for tally in golden.both(image):
        assert [finding.path for finding in tally.findings] == ["/Etc/.hidden"]
