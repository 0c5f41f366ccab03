# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same planted changes on every file system, in every format: none is missed, and nothing unread is clean."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import DiskRequest, LayerSpec, Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.points import Point, find
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.archives import zipped
from ansible_collections.vmward.remediation.tests.corpus.mounting import mounted, mounted_ntfs
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES
from ansible_collections.vmward.remediation.tests.corpus.sharing import (
    alone,
    but_for_twins,
    said,
    search_in_shares,
    shared,
)

MB = disks.MB
BEFORE = {**disks.harmless(20), "srv/a.zip": zipped({"x": b"harmless"}), "usr/bin/tool": b"t" * 70_000}
# What is planted, and the path of its finding
PLANTED = {
    "etc/evil.com": (disks.EICAR, "/etc/evil.com"),
    "home/user/new/deep": (b"." * 9000 + disks.MARKER, "/home/user/new/deep"),
    "usr/bin/tool": (b"t" * 69_000 + disks.MARKER + b"t" * 981, "/usr/bin/tool"),
    "srv/a.zip": (zipped({"x": disks.EICAR}), "/srv/a.zip!/x"),
}
FORMATS = ("raw", "qcow2", "vmdk")


def needs(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")


def empty(image: Path, size: int) -> Path:
    with image.open("wb") as file:
        file.truncate(size)
    return image


def ext4(image: Path, files: dict[str, bytes], fresh: bool) -> None:
    if fresh:
        disks.ext4(image, files)
        return
    tree = disks.tree(image.with_suffix(".tree"), files)
    for name in files:
        above = ["/".join(name.split("/")[:depth]) for depth in range(1, name.count("/") + 1)]
        disks.debugfs(image, *(f"mkdir {one}" for one in above), f"rm {name}", f"write {tree / name} {name}")


def xfs(image: Path, files: dict[str, bytes], fresh: bool) -> None:
    needs("mkfs.xfs")
    if fresh:
        disks.run("mkfs.xfs", "-q", "-f", "--unsupported", "-m", "reflink=0", empty(image, 48 * MB))
    with mounted(image) as root:
        disks.tree(root, files)


def fat32(image: Path, files: dict[str, bytes], fresh: bool) -> None:
    needs("mkfs.vfat", "mcopy")
    if fresh:
        disks.run("mkfs.vfat", "-F", "32", "-s", "1", empty(image, 40 * MB))
    tree = disks.tree(image.with_suffix(".tree"), files)
    for one in sorted(tree.iterdir()):
        disks.run("mcopy", "-s", "-o", "-i", image, one, "::")


def ntfs(image: Path, files: dict[str, bytes], fresh: bool) -> None:
    needs("mkntfs", "ntfs-3g")
    if fresh:
        disks.run("mkntfs", "-q", "-F", "-s", "512", empty(image, 32 * MB))
    with mounted_ntfs(image) as root:
        disks.tree(root, files)


def btrfs(image: Path, files: dict[str, bytes], fresh: bool) -> None:
    needs("mkfs.btrfs")
    tree = disks.tree(image.with_suffix(".tree"), files if fresh else {**BEFORE, **files})
    disks.run("mkfs.btrfs", "-q", "-f", "-r", tree, empty(image, 128 * MB))


def exfat(image: Path, files: dict[str, bytes], fresh: bool) -> None:
    needs("mkfs.exfat", "mount.exfat-fuse")
    if fresh:
        disks.run("mkfs.exfat", empty(image, 40 * MB))
    with mounted(image, kind="exfat-fuse") as root:
        disks.tree(root, files)


WRITERS: dict[str, Callable[[Path, dict[str, bytes], bool], None]] = {
    "ext4": ext4, "xfs": xfs, "fat32": fat32, "ntfs": ntfs, "btrfs": btrfs, "exfat": exfat,
}  # fmt: skip


@dataclass(frozen=True)
class Guest:
    """A disk before, and after its infection."""

    kind: str
    place: Path

    @property
    def before(self) -> Path:
        return self.place / "before.img"

    @property
    def after(self) -> Path:
        return self.place / "after.img"

    @property
    def known(self) -> str:
        return str(self.place / "known")

    def request(self, *layers: LayerSpec, clone_of: tuple[LayerSpec, ...] = ()) -> Request:
        disk = DiskRequest("vda", layers, clone_of=clone_of)
        return Request((disk,), RULES, "", ("yara",), 0, "", Limits(60, 512 * MB, 60), directory=self.known)


@pytest.fixture(scope="module", params=WRITERS)
def guest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Guest:
    kind = request.param
    made = Guest(kind, tmp_path_factory.mktemp(kind))
    WRITERS[kind](made.before, BEFORE, True)
    disks.run("cp", "--sparse=always", made.before, made.after)
    WRITERS[kind](made.after, {name: content for name, (content, _path) in PLANTED.items()}, False)
    assert index(made.request(LayerSpec(str(made.before), "raw")))["verdict"] == "clean"
    return made


def converted(raw: Path, kind: str, image: Path) -> Path:
    disks.run("qemu-img", "convert", "-f", "raw", "-O", kind, raw, image)
    return image


def on_top(guest: Guest, kind: str, place: Path) -> Request:
    """The infected disk: in qcow2 on top of the base, else as a full copy of it."""
    base = LayerSpec(str(guest.before), "raw")
    if kind != "qcow2":
        image = converted(guest.after, kind, place / "image")
        return guest.request(LayerSpec(str(image), kind), clone_of=(base,))
    image = place / "image"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", guest.after, image)
    disks.run("qemu-img", "rebase", "-f", "qcow2", "-F", "raw", "-b", guest.before, image)
    return guest.request(LayerSpec(str(image), kind), base)


def paths(result: dict[str, Any]) -> set[str]:
    return {found["path"] for found in result["findings"]}


@pytest.mark.parametrize("kind", FORMATS)
def test_no_planted_change_is_missed_and_nothing_else_is_found(guest: Guest, kind: str, tmp_path: Path) -> None:
    result = scan(on_top(guest, kind, tmp_path))
    assert paths(result) == {path for _content, path in PLANTED.values()}, result["incomplete_reasons"]
    assert result["verdict"] == "infected"
    assert [volume["method"] for volume in result["volumes"]] == ["delta"]


@pytest.mark.parametrize("kind", FORMATS)
def test_several_processes_say_what_one_says(guest: Guest, kind: str, tmp_path: Path) -> None:
    asked = on_top(guest, kind, tmp_path)
    assert said(shared(asked)) == said(alone(asked))
    whole = guest.request(LayerSpec(str(guest.after), "raw"))
    assert said(shared(whole)) == said(alone(whole))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", FORMATS)
def test_several_processes_find_the_point_that_one_finds(
    guest: Guest, kind: str, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search_in_shares(monkeypatch, tmp_path)
    now = on_top(guest, kind, tmp_path)
    asked = replace(now, directory=now.directory if known else "", dry=True)
    whole = guest.request(LayerSpec(str(guest.after), "raw")).disks
    points = [Point("present", "", "now", "", asked.disks), Point("backup", "", "whole", "", whole)]
    golden = replace(asked.disks[0], layers=(LayerSpec(str(guest.before), "raw"),), clone_of=())
    points.append(Point("golden", "", "golden", "", (golden,)))
    at = datetime.now(UTC)
    one, *several = (find(replace(asked, at_once=count), points, True, at) for count in (1, 2, 3))
    assert [point["verdict"] for point in one["points"][:2]] == ["infected", "infected"]
    assert bool(one["chosen"]) == bool(guest.known)
    for other in several:
        assert but_for_twins(other) == but_for_twins(one)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_cut_off_is_never_clean(guest: Guest, kind: str, tmp_path: Path) -> None:
    image = converted(guest.before, kind, tmp_path / "image")
    result = scan(guest.request(LayerSpec(str(image), kind)))
    assert result["verdict"] == "clean", result["incomplete_reasons"]
    os.truncate(image, image.stat().st_size * 9 // 10)
    assert scan(guest.request(LayerSpec(str(image), kind)))["verdict"] == "incomplete"
