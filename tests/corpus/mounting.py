# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images mounted as a guest would have them, to be filled and changed by a file system's own driver."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.tests.corpus import disks


@contextmanager
def mounted(image: Path, options: str = "noatime", kind: str = "auto") -> Iterator[Path]:
    """By the kernel, or a driver in user space. Without the right to mount, or the driver, there is no such test."""
    point = image.with_suffix(".mount")
    point.mkdir(exist_ok=True)
    try:
        disks.run("mount", "-t", kind, "-o", "loop," + options, image, point)
    except RuntimeError as exc:
        pytest.skip(f"nothing can be mounted here: {exc}")
    try:
        yield point
    finally:
        disks.run("umount", point)
        while kind != "auto" and disks.run("losetup", "-j", image):  # in user space it may go on writing
            time.sleep(0.02)


def powerless(image: Path, copy: Path) -> Path:
    """A copy of a mounted image, all of one moment as if the power had gone: nothing was written while it was taken."""
    shutil.copy(image, copy)
    while not filecmp.cmp(image, copy, shallow=False):
        shutil.copy(image, copy)
    return copy


@contextmanager
def mounted_ntfs(image: Path) -> Iterator[Path]:
    """By ntfs-3g in user space, which goes on writing after the unmount: its end is waited for."""
    point = image.with_suffix(".mount")
    point.mkdir(exist_ok=True)
    options = "no_detach,noatime,streams_interface=windows,compression"
    driver = subprocess.Popen(["ntfs-3g", "-o", options, str(image), str(point)], stderr=subprocess.PIPE)
    while not point.is_mount():
        if driver.poll() is not None:
            pytest.skip(f"nothing can be mounted here: {driver.communicate()[1].decode()}")
        time.sleep(0.02)
    try:
        yield point
    finally:
        disks.run("umount", point)
        driver.communicate()
