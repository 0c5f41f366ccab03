# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real images in, archives out: what the guest logged, under harmless names, and every gap named."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Refused, TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.logs import PATTERNS, Image, Wanted, collect
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.progress import Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.tests.corpus import disks, lvm
from ansible_collections.vmward.remediation.tests.corpus.fat import DIRECTORY, FatVolume, entry

MB = disks.MB
LOGS = {
    "var/log/syslog": b"Nov 22 03:00:01 desk1 systemd[1]: Started.\n" * 50,
    "var/log/journal/f00/system.journal": b"LPKSHHRH" + bytes(70000) + b"end",
    "root/.bash_history": b"id\n",
    "home/ada/.zsh_history": b"curl http://203.0.113.9/x\n",
    "home/ada/letter.txt": b"private",
    "etc/shadow": b"root:*:\n",
}
TAKEN = ["1/home/ada/.zsh_history", "1/root/.bash_history", "1/var/log/journal/f00/system.journal", "1/var/log/syslog"]


@pytest.fixture
def case(tmp_path: Path) -> Path:
    made = tmp_path / "cases" / "c1"
    made.mkdir(parents=True)
    return made


def take(case: Path, *images: Path, check: bool = False, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"patterns": PATTERNS, "limits": Limits(60, 512 * MB, 60, 64 * MB), "seconds": 60.0}
    settings.update(changes)
    kinds = {".img": "raw", ".qcow2": "qcow2", ".missing": "raw"}
    named = tuple(Image(image.stem, str(image), kinds[image.suffix]) for image in images)
    end = time.monotonic() + settings["seconds"]
    wanted = Wanted(
        "desk1", "c1", str(case), "desk1-1", named, settings["patterns"], settings["limits"], end, Progress(""), "2.19"
    )
    return collect(wanted, check)


def folder(case: Path) -> Path:
    return case / "evidence/data/desk1-1"


def members(case: Path, disk: str = "vda") -> dict[str, bytes]:
    with tarfile.open(folder(case) / f"logs-{disk}.tar") as tar:
        found = tar.getmembers()
        assert all(one.isreg() for one in found)
        return {one.name: tar.extractfile(one).read() for one in found}  # type: ignore[union-attr]


def state(result: dict[str, Any]) -> str:
    return str(result["evidence"]["logs"]["state"])


def test_the_logs_are_taken_and_nothing_else(case: Path, tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "vda.img", LOGS)
    field = "set_inode_field /var/log/syslog"
    disks.debugfs(image, f"{field} mtime 20261122030001", f"{field} uid 104")
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    result = take(case, image)
    assert (result["changed"], result["evidence"], result["missing"]) == (True, {"logs": {"state": "stored"}}, [])
    found = members(case)
    assert sorted(found) == TAKEN
    assert all(found[name] == LOGS[name[2:]] for name in TAKEN)
    with tarfile.open(folder(case) / "logs-vda.tar") as tar:
        syslog = tar.getmember("1/var/log/syslog")
    assert (time.strftime("%Y%m%d%H%M%S", time.gmtime(syslog.mtime)), syslog.uid) == ("20261122030001", 104)
    artefact, beside = result["artefacts"]
    for one in (artefact, beside):
        content = (case / one["path"]).read_bytes()
        assert (one["size"], one["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert sorted(os.listdir(folder(case))) == ["logs-vda.tar", "logs-vda.tar.json"]
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before


def test_what_is_stored_is_not_taken_again(case: Path, tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "vda.img", LOGS)
    predicted = take(case, image, check=True)
    assert (predicted["changed"], predicted["taken"], predicted["evidence"]) == (True, ["logs-vda.tar"], {})
    assert not folder(case).exists()
    first = take(case, image)
    image.unlink()  # so that nothing can be read again
    again = take(case, image)
    assert (again["changed"], again["taken"]) == (False, [])
    assert (again["artefacts"], again["evidence"]) == (first["artefacts"], first["evidence"])
    assert take(case, image, check=True)["changed"] is False
    assert "other patterns" in take(case, image, patterns=("/x/**",))["warnings"][0]


def test_hostile_names_lead_nowhere(case: Path, tmp_path: Path) -> None:
    names = {"AAAAA": b"up", "BBBBBBBBBBB": b"slash", "C\nD": b"line"}
    image = disks.ext4(tmp_path / "vda.img", {f"var/log/{name}": content for name, content in names.items()})
    raw = image.read_bytes()
    # Names that no kernel makes: directories are no more than bytes.
    for old, new in ((b"AAAAA", b"../.."), (b"BBBBBBBBBBB", b"/etc/passwd")):
        assert raw.count(old) == 1
        raw = raw.replace(old, new)
    image.write_bytes(raw)
    result = take(case, image)
    assert state(result) == "stored"
    assert members(case) == {
        "1/var/log/..\\x2f..": b"up",
        "1/var/log/\\x2fetc\\x2fpasswd": b"slash",
        "1/var/log/C\\x0aD": b"line",
    }


def test_only_regular_files_and_no_link_is_followed(case: Path, tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "vda.img", LOGS)
    disks.debugfs(image, "cd /var/log", "symlink shadow /etc/shadow", "mknod pipe p", "mknod disk b 8 0")
    result = take(case, image)
    assert sorted(members(case)) == TAKEN
    assert result["missing"] == []


def test_a_link_in_place_of_the_directory_is_told(case: Path, tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "vda.img", {"root/.bash_history": b"id\n", "srv/log/syslog": b"x"})
    disks.debugfs(image, "mkdir /var", "symlink /var/log /srv/log")
    result = take(case, image)
    assert state(result) == "stored"
    assert "Directory /var of volume 1 holds a symbolic link" in result["msg"]


def test_a_dirty_journal_is_replayed(case: Path, tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "vda.img", LOGS, 64 * MB)
    where = int(disks.run("debugfs", "-R", "bmap /var/log/syslog 0", image).split()[-1])
    size = int(disks.run("dumpe2fs", "-h", image).split("Block size:")[1].split()[0])
    fresh = tmp_path / "block"
    fresh.write_bytes(b"written in the last second\n".ljust(size, b"."))
    disks.debugfs(image, "journal_open", f"journal_write -b {where} {fresh}", "journal_close")
    assert "needs_recovery" in disks.run("dumpe2fs", "-h", image)
    result = take(case, image)
    assert result["missing"] == []
    assert members(case)["1/var/log/syslog"].startswith(b"written in the last second\n")


def test_two_volumes_and_one_that_cannot_be_read(case: Path, tmp_path: Path) -> None:
    first = disks.ext4(tmp_path / "first.img", LOGS)
    second = disks.ext4(tmp_path / "second.img", {"log/auth.log": b"sshd\n"})
    locked = tmp_path / "locked.img"
    locked.write_bytes(b"LUKS\xba\xbe".ljust(MB, b"\1"))
    disk = disks.partitioned(tmp_path / "vda.img", "gpt", [first, locked, second])
    result = take(case, disk)
    assert sorted(members(case)) == [*TAKEN, "3/log/auth.log"]
    assert [(one["number"], one["type"], one["read"]) for one in result["volumes"]] == [
        (1, "ext", True),
        (2, "luks", False),
        (3, "ext", True),
    ]
    told = result["evidence"]["logs"]
    assert told["state"] == "stored"
    assert "Volume 2 was not read" in told["incomplete"][0]
    assert "Volume 2 was not read" in result["msg"]
    sidecar = json.loads((folder(case) / "logs-vda.tar.json").read_text())
    assert (sidecar["missing_count"], "luks" in sidecar["missing"][0]) == (1, True)


def test_boot_code_holds_no_logs(case: Path, tmp_path: Path) -> None:
    first, loader = disks.ext4(tmp_path / "first.img", LOGS), tmp_path / "loader.img"
    loader.write_bytes(b"\x52\xbf\xf4\x81".ljust(MB, b"\1"))
    types = ("21686148-6449-6E6F-744E-656564454649",)
    result = take(case, disks.partitioned(tmp_path / "vda.img", "gpt", [loader, first], types=types))
    assert (result["missing"], "incomplete" in result["evidence"]["logs"]) == ([], False)
    assert [(one["type"], one["read"]) for one in result["volumes"]] == [("boot", False), ("ext", True)]


def test_two_disks_of_which_one_holds_nothing(case: Path, tmp_path: Path) -> None:
    one, other = disks.ext4(tmp_path / "vda.img", LOGS), disks.ext4(tmp_path / "vdb.img", {"data/x": b"x"})
    result = take(case, one, other)
    assert (state(result), result["taken"]) == ("stored", ["logs-vda.tar"])
    assert "disk vdb holds no file that the patterns name" in result["msg"]
    assert sorted(os.listdir(folder(case))) == ["logs-vda.tar", "logs-vda.tar.json"]


def test_nothing_found_is_unavailable(case: Path, tmp_path: Path) -> None:
    result = take(case, disks.ext4(tmp_path / "vda.img", {"data/x": b"x"}))
    assert (result["changed"], result["available"], result["artefacts"]) == (False, False, [])
    assert result["evidence"]["logs"] == {
        "state": "unavailable",
        "reason": "disk vda holds no file that the patterns name",
    }
    assert os.listdir(folder(case)) == []


def test_a_damaged_filesystem_is_named_and_never_stored(case: Path, tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "vda.img", LOGS)
    with image.open("r+b") as file:
        file.seek(1024 + 40)
        file.write(b"\xff" * 4)  # inodes in a group
    result = take(case, image)
    assert state(result) == "unavailable"
    assert "Volume 1 was not read" in result["evidence"]["logs"]["reason"]


def test_what_exceeds_the_limit_is_named(case: Path, tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "vda.img", {**LOGS, "var/log/large": b"L" * (2 * MB)})
    result = take(case, image, limits=Limits(60, 512 * MB, 60, MB))
    assert sorted(members(case)) == TAKEN
    assert "/var/log/large of volume 1 was not read: its 2097152 bytes would exceed the limit" in result["msg"]
    assert (folder(case) / "logs-vda.tar").stat().st_size <= MB


def test_logs_are_taken_out_of_btrfs(case: Path, tmp_path: Path) -> None:
    image = tmp_path / "vda.img"
    with image.open("wb") as file:
        file.truncate(128 * MB)
    try:
        disks.run("mkfs.btrfs", "-q", "-r", disks.tree(tmp_path / "tree", LOGS), image)
    except FileNotFoundError as exc:
        pytest.skip(f"{exc.filename} is not installed")
    result = take(case, image)
    assert (state(result), sorted(members(case))) == ("stored", TAKEN), result
    assert [members(case)[name] for name in TAKEN] == [LOGS[name[2:]] for name in TAKEN]


def test_letter_case_does_not_count_on_fat(case: Path, tmp_path: Path) -> None:
    image = tmp_path / "vda.img"
    with image.open("wb") as file:
        file.truncate(16 * MB)
    event = tmp_path / "event"
    event.write_bytes(b"ElfFile\0" * 100)
    try:
        disks.run("mkfs.fat", "-F", "16", image)
        disks.run("mmd", "-i", image, "::INETPUB", "::INETPUB/logs", "::INETPUB/logs/LOGFILES")
        disks.run("mcopy", "-i", image, event, "::INETPUB/logs/LOGFILES/u_ex.log")
    except FileNotFoundError as exc:
        pytest.skip(f"{exc.filename} is not installed")
    result = take(case, image)
    assert state(result) == "stored", result
    assert list(members(case).values()) == [b"ElfFile\0" * 100]


def test_a_directory_of_fat_that_is_broken_is_named(case: Path, tmp_path: Path) -> None:
    volume = FatVolume()
    volume.root = entry("INETPUB", 7, 0, DIRECTORY)
    volume.table[7] = 7
    result = take(case, volume.write(tmp_path / "vda.img"))
    assert "directory /INETPUB was not read: its chain of clusters runs in a circle" in json.dumps(result)


def test_a_partition_that_other_systems_see_is_named(case: Path, tmp_path: Path) -> None:
    image = disks.partitioned(tmp_path / "vda.img", "gpt", [disks.ext4(tmp_path / "part.img", LOGS)])
    disks.write_at(image, 446 + 16, struct.pack("<BxxxBxxxII", 0, 0x83, 20000, 100))
    result = take(case, image)
    assert len(members(case)) == len(TAKEN)
    assert "names another partition" in json.dumps(result)


def test_a_disk_that_takes_too_long_is_told(case: Path, tmp_path: Path) -> None:
    image = tmp_path / "vda.img"
    with image.open("wb") as file:
        file.truncate(1 << 40)  # is it empty? Nobody knows before its end
    result = take(case, image, seconds=1.5)
    assert (state(result), result["changed"]) == ("unavailable", False)
    assert "was not read to its end (the deadline of 1 s was reached)" in result["evidence"]["logs"]["reason"]
    assert os.listdir(folder(case)) == []


def test_no_part_is_kept_past_the_deadline(case: Path, tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "vda.img", LOGS)
    with pytest.raises(TaskFailed, match="the deadline passed.*No part of an archive was kept"):
        take(case, image, seconds=-5.0)
    assert os.listdir(folder(case)) == []


def test_what_somebody_else_put_there_is_not_overwritten(case: Path, tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "vda.img", LOGS)
    folder(case).mkdir(parents=True)
    (folder(case) / "logs-vda.tar").write_bytes(b"mine")
    with pytest.raises(TaskFailed, match="was not stored by vmward"):
        take(case, image)
    assert (folder(case) / "logs-vda.tar").read_bytes() == b"mine"


def test_bad_input_is_refused_before_anything_is_made(case: Path, tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "vda.img", LOGS)
    for changes, words in (
        ({"patterns": ("var/log",)}, "Cannot use the pattern"),
        ({"patterns": ()}, "at least one pattern"),
        ({"limits": Limits(60, MB, 60, 10)}, "max_bytes"),
    ):
        with pytest.raises(Refused, match=words):
            take(case, image, **changes)
    with pytest.raises(Refused, match="name every disk once"):
        take(case)
    with pytest.raises(TaskFailed, match="Cannot open the layer"):
        take(case, tmp_path / "vda.missing")
    assert list(folder(case).glob("*")) == []


def test_an_overlay_of_qcow2_is_read_as_exported(case: Path, tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "raw.img", LOGS)
    exported = tmp_path / "vda.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(image), str(exported)], check=True)
    assert state(take(case, exported)) == "stored"
    assert sorted(members(case)) == TAKEN


def test_logs_on_lvm_are_taken_and_a_missing_disk_is_told(case: Path, tmp_path: Path) -> None:
    system = disks.ext4(tmp_path / "system.img", LOGS, 8 * MB).read_bytes()
    volumes = {"root": [lvm.Part(8, ((0, 1),))], "data": [lvm.Part(2, ((1, 0),))]}
    images = lvm.build(tmp_path / "pv", lvm.Group([10, 4], volumes), {"root": system})
    result = take(case, images[0].rename(tmp_path / "vda.img"))
    assert sorted(members(case)) == [name.replace("1/", "2/", 1) for name in TAKEN]
    told = result["evidence"]["logs"]
    assert told["state"] == "stored"
    assert "vg/data was not read: the physical volume pv1" in told["incomplete"][0]
