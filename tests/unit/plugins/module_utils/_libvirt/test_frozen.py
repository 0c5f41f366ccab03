# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of libvirt for a frozen view, and which jobs are ours."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._evidence.scratch import remove
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.checkpoints import checkpoint_xml
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.frozen import (
    made_for,
    pull_xml,
    qemu_user,
    works_in,
)

DOMAIN = ET.fromstring(
    "<domain><devices><disk><target dev='vda'/></disk><disk><target dev='vdb'/></disk></devices>"
    "<seclabel type='dynamic' model='apparmor'><label>libvirt-1</label></seclabel>"
    "<seclabel type='dynamic' model='dac'><label>+64055:+108</label></seclabel></domain>"
)


def test_only_the_disks_asked_for_are_served() -> None:
    assert pull_xml(DOMAIN, ["vdb"], "/scratch/x.frozen") == (
        '<domainbackup mode="pull"><server transport="unix" socket="/scratch/x.frozen/nbd" /><disks>'
        '<disk name="vda" backup="no" /><disk name="vdb" backup="yes" type="file"><driver type="qcow2" />'
        '<scratch file="/scratch/x.frozen-vdb" /></disk></disks></domainbackup>'
    )


def test_what_was_written_is_asked_for_and_a_checkpoint_left() -> None:
    asked = pull_xml(DOMAIN, ["vdb"], "/scratch/x.frozen", "vmward-scan-1")
    assert asked.startswith('<domainbackup mode="pull"><incremental>vmward-scan-1</incremental><server ')
    assert checkpoint_xml(DOMAIN, ["vdb"], "vmward-scan-2") == (
        '<domaincheckpoint><name>vmward-scan-2</name><disks><disk name="vda" checkpoint="no" />'
        '<disk name="vdb" checkpoint="bitmap" /></disks></domaincheckpoint>'
    )


@pytest.mark.parametrize(
    ("job", "ours"),
    [
        ("<domainbackup><server socket='/s/a.frozen/nbd'/></domainbackup>", True),
        ("<domainbackup><disks><disk><scratch file='/s/a.frozen-vda'/></disk></disks></domainbackup>", True),
        ("<domainbackup><disks><disk><target file='/s/a.disk-vda.qcow2'/></disk></disks></domainbackup>", True),
        ("<domainbackup><server socket='/stranger/nbd'/></domainbackup>", False),
        ("<domainbackup><server transport='tcp' name='localhost'/></domainbackup>", False),
    ],
)
def test_a_job_is_ours_by_where_it_works(job: str, ours: bool) -> None:
    assert works_in(ET.fromstring(job), "/s") is ours


def test_whom_qemu_runs_as() -> None:
    assert qemu_user(DOMAIN) == (64055, 108)
    assert qemu_user(ET.fromstring("<domain/>")) == (os.geteuid(), os.getegid())
    odd = "<domain><seclabel model='dac'><label>root:root</label></seclabel></domain>"
    assert qemu_user(ET.fromstring(odd)) == (os.geteuid(), os.getegid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory away")
def test_its_directory_is_for_nobody_else(tmp_path: Path) -> None:
    place, precious = tmp_path / "vm.frozen", tmp_path / "precious"
    precious.write_text("kept")
    place.mkdir()
    (place / "old").symlink_to(precious)
    made_for((64055, 108), str(place))
    assert (place.stat().st_uid, place.stat().st_gid, place.stat().st_mode & 0o777) == (64055, 108, 0o700)
    assert list(place.iterdir()) == []
    (place / "link").symlink_to(tmp_path)
    remove(str(place))
    assert not place.exists()
    assert precious.read_text() == "kept"
