# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real images through the whole scan: every sample is found, and no image with an unread part is called clean."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
from backports import zstd

from ansible_collections.vmward.remediation.plugins.module_utils._scan import inside, judge, known, samples, self_test
from ansible_collections.vmward.remediation.plugins.module_utils._scan.chain import Layer, open_chain
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import RuleFile
from ansible_collections.vmward.remediation.plugins.module_utils._scan.inside import Archives
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import (
    BadInput,
    DiskRequest,
    LayerSpec,
    Request,
    read_rules,
    scan,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import in_one_line
from ansible_collections.vmward.remediation.tests.corpus import clam, disks
from ansible_collections.vmward.remediation.tests.corpus.archives import QUINE, ar, cpio, rpm, tarred, zipped
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES_DIRECTORY, module

MB = disks.MB
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
LOADER = b"\x52\xbf\xf4\x81" + bytes(range(256)) * 400  # of no mark that a scanner knows


def look(*layers: tuple[Path, str], snapshot: str = "", **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "rules": (RULES_DIRECTORY,),
        "clamd_socket": "",
        "engines_required": ("yara",),
        "max_file_size": 0,
        "progress_file": "",
        "limits": Limits(120, 1 << 30, 120),
        **changes,
    }
    if settings["rules"] and isinstance(settings["rules"][0], str):
        settings["rules"] = tuple(read_rules(settings["rules"]))
    chain = tuple(LayerSpec(str(path), kind) for path, kind in layers)
    return scan(Request(disks=(DiskRequest("vda", chain, snapshot),), **settings))


def paths(result: dict[str, Any], kind: str = "findings") -> list[str]:
    return sorted(found["path"] for found in result[kind])


def assert_incomplete(result: dict[str, Any], words: str) -> None:
    assert result["verdict"] == "incomplete"
    assert words in " ".join(result["incomplete_reasons"])


def needs(tool: str) -> None:
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.ext4(tmp_path_factory.mktemp("clean") / "clean.img", disks.harmless())


@pytest.fixture(scope="module")
def infected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {**disks.harmless(), "home/user/a/b/c/d/eicar.com": disks.EICAR, "srv/padded": bytes(70000) + disks.MARKER}
    return disks.ext4(tmp_path_factory.mktemp("infected") / "infected.img", files)


def test_a_clean_ext4_is_clean(clean: Path) -> None:
    result = look((clean, "raw"))
    size = int(disks.run("dumpe2fs", "-h", clean).split("Block size:")[1].split()[0])
    grown = len(disks.debugfs(clean, "blocks <7>").splitlines()[-1].split())
    assert (result["verdict"], result["incomplete_reasons"]) == ("clean", [])
    assert [volume["type"] for volume in result["volumes"]] == ["ext"]
    assert result["files"] == len(disks.harmless())
    boot_block = 1024
    least = sum(map(len, disks.harmless().values())) + boot_block
    assert least < result["bytes_read"] < least + grown * size  # and the resize inode's blocks


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_an_empty_image_is_no_clean_disk(tmp_path: Path, kind: str) -> None:
    """Such as what a copy left that found no room."""
    image = tmp_path / "d.img"
    image.touch()
    if kind == "qcow2":
        disks.run("qemu-img", "create", "-q", "-f", "qcow2", image, "0")
    assert_incomplete(look((image, kind)), "it is empty")


def test_every_sample_is_found_with_path_hash_and_offset(infected: Path) -> None:
    result = look((infected, "raw"))
    assert result["verdict"] == "infected"
    assert paths(result) == ["/home/user/a/b/c/d/eicar.com", "/srv/padded"]
    by_path = {found["path"]: found for found in result["findings"]}
    assert by_path["/srv/padded"]["offset"] == 70000
    assert by_path["/srv/padded"]["rule"] == "vmward_inert_sample"
    eicar = by_path["/home/user/a/b/c/d/eicar.com"]
    assert eicar["sha256"] == "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"


@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ext2"),
        ("-t", "ext3"),
        ("-b", "1024"),
        ("-O", "inline_data"),
        ("-O", "^64bit,^metadata_csum"),
        ("-O", "bigalloc"),
        ("-I", "128"),
        ("-O", "^flex_bg,^has_journal"),
    ],
    ids=" ".join,
)
def test_ext_variants(tmp_path: Path, options: tuple[str, ...]) -> None:
    # The smallest samples are inline data, 60 bytes and more; the large one needs indirect blocks.
    files = {**disks.harmless(), "e": disks.EICAR, "m": disks.MARKER, "big": bytes(3 * MB) + disks.MARKER}
    harmless = disks.ext4(tmp_path / "clean.img", disks.harmless(), 32 * MB, *options)
    assert look((harmless, "raw"))["incomplete_reasons"] == []
    assert look((harmless, "raw"))["verdict"] == "clean"
    result = look((disks.ext4(tmp_path / "d.img", files, 32 * MB, *options), "raw"))
    assert paths(result) == ["/big", "/e", "/m"]
    assert result["incomplete_reasons"] == []


def test_the_last_inode_is_read(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", {}, 8 * MB, "-N", "64")
    (tmp_path / "eicar").write_bytes(disks.EICAR)
    fillers = [f"write /dev/null filler{number}" for number in range(12, 64)]
    disks.debugfs(image, *fillers, f"write {tmp_path / 'eicar'} last")
    assert "Inode: 64 " in disks.debugfs(image, "stat last")
    assert paths(look((image, "raw"))) == ["/last"]


def test_an_inode_without_a_name_is_scanned(infected: Path, tmp_path: Path) -> None:
    image = Path(shutil.copy(infected, tmp_path / "d.img"))
    disks.debugfs(image, "unlink /srv/padded")
    result = look((image, "raw"))
    assert result["verdict"] == "infected"
    assert [path for path in paths(result) if path.startswith("(no name: inode ")]


def test_a_file_whose_bitmap_bit_was_cleared_is_scanned(infected: Path, tmp_path: Path) -> None:
    image = Path(shutil.copy(infected, tmp_path / "d.img"))
    disks.debugfs(image, "freei /srv/padded")
    assert "/srv/padded" in paths(look((image, "raw")))


def test_a_deleted_file_is_no_finding(infected: Path, tmp_path: Path) -> None:
    image = Path(shutil.copy(infected, tmp_path / "d.img"))
    disks.debugfs(image, "rm /srv/padded", "rm /home/user/a/b/c/d/eicar.com")
    assert look((image, "raw"))["verdict"] == "clean"


def test_the_shortest_last_entry_of_a_directory_is_read(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", {"d/x": b"x"}, 32 * MB, "-b", "1024", "-O", "^metadata_csum")
    (tmp_path / "eicar").write_bytes(disks.EICAR)
    names = [f"{number:012d}" for number in range(47)] + ["aaaa", "bbbb", "cccc"]  # of 20 and of 12 bytes
    disks.debugfs(image, "cd /d", *(f"write /dev/null {name}" for name in names), f"write {tmp_path / 'eicar'} last")
    block = int(disks.debugfs(image, "blocks /d").split("blocks /d")[1].split()[0])
    entry = image.read_bytes()[block * 1024 + 1012 : (block + 1) * 1024]
    assert (struct.unpack_from("<H", entry, 4)[0], entry[8:]) == (12, b"last")
    assert paths(look((image, "raw"))) == ["/d/last"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("ssv state 0", "not unmounted cleanly"),
        ("ssv state 3", "marked as damaged"),
        ("ssv feature_incompat 0x802c2", "does not know"),
        ("ssv blocks_count 999999", "larger than its volume"),
        ("ssv inodes_per_group 0", "absurd"),
        ("sif /etc/hostname flags 0x80800", "encrypted by the guest"),
        ("sif /etc/hostname block[0] 0", "extent tree is damaged"),
        ("sif /usr/share/doc1 block[0] 0", "extent tree is damaged"),
        ("sif <8> block[4] 0x7fffffff", "journal holds changes"),
        ("sif /usr/share/doc1/file1 block[5] 0x7fffffff", "block map is damaged"),
        ("sif /usr/share/doc1/file1 block[0] 0x5f30a", "extent tree is damaged"),
        ("sif /usr/share/doc1/file1 mode 0x1a4", "it is damaged"),
        ("clri /usr/share/doc1/file1", "it is free"),
    ],
)
def test_a_doubtful_ext4_is_incomplete(clean: Path, tmp_path: Path, request_: str, words: str) -> None:
    image = Path(shutil.copy(clean, tmp_path / "d.img"))
    disks.debugfs(image, request_)
    assert_incomplete(look((image, "raw")), words)


@pytest.mark.parametrize(
    "requests",
    [
        ("ssv usr_quota_inum {inode}",),
        ("ssv usr_quota_inum {inode}", "feature quota"),
        ("ssv prj_quota_inum {inode}", "feature project"),
        ("ssv journal_inum {inode}",),
        ("ssv first_ino {behind}",),
    ],
    ids=" ".join,
)
def test_no_file_hides_behind_what_the_superblock_calls_its_own(
    infected: Path, tmp_path: Path, requests: tuple[str, ...]
) -> None:
    image = Path(shutil.copy(infected, tmp_path / "d.img"))
    inode = int(disks.debugfs(image, "stat /srv/padded").split("Inode:")[1].split()[0])
    disks.debugfs(image, *(one.format(inode=inode, behind=inode + 1) for one in requests))
    result = look((image, "raw"))
    assert "/srv/padded" in paths(result)


@pytest.mark.parametrize(
    ("request_", "words"),
    [("ssv first_ino 12", "reserves inodes up to 11"), ("ssv grp_quota_inum 15", "calls inode 15 its own")],
)
def test_an_ext4_that_claims_files_for_itself_is_incomplete(
    clean: Path, tmp_path: Path, request_: str, words: str
) -> None:
    image = Path(shutil.copy(clean, tmp_path / "d.img"))
    disks.debugfs(image, request_)
    assert_incomplete(look((image, "raw")), words)


def test_the_inodes_of_the_file_system_itself_are_judged(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", disks.harmless(), 32 * MB, "-O", "quota,project,resize_inode")
    before = look((image, "raw"))
    assert (before["verdict"], [note for note in before["coverage_notes"] if "no name" in note]) == ("clean", [])
    at = int(disks.debugfs(image, "blocks <7>").split()[-1])
    size = int(disks.run("dumpe2fs", "-h", image).split("Block size:")[1].split()[0])
    disks.write_at(image, at * size, disks.MARKER)
    assert [one["path"] for one in look((image, "raw"))["indicators"]] == ["(resize inode)"]
    quota = int(disks.debugfs(image, "blocks <3>").split()[-1])
    disks.write_at(image, quota * size, disks.MARKER)
    assert paths(look((image, "raw"))) == ["(no name: inode 3)"]


def test_infected_wins_over_incomplete(infected: Path, tmp_path: Path) -> None:
    image = Path(shutil.copy(infected, tmp_path / "d.img"))
    disks.debugfs(image, "ssv state 0")
    result = look((image, "raw"))
    assert result["verdict"] == "infected"
    assert result["incomplete_reasons"]


@pytest.mark.parametrize("request_", ["feature needs_recovery", "ssv last_orphan 12"])
def test_an_empty_journal_and_unlinked_files_leave_nothing_unread(clean: Path, tmp_path: Path, request_: str) -> None:
    image = Path(shutil.copy(clean, tmp_path / "d.img"))
    disks.debugfs(image, request_)
    assert look((image, "raw"))["verdict"] == "clean"


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_partitions_swap_and_gaps(clean: Path, infected: Path, tmp_path: Path, label: str) -> None:
    swap = tmp_path / "swap.img"
    swap.write_bytes(bytes(4 * MB))
    disks.run("mkswap", swap)
    image = disks.partitioned(tmp_path / "d.img", label, [clean, swap, infected])
    result = look((image, "raw"))
    assert [(volume["type"], volume["read"]) for volume in result["volumes"]] == [
        ("ext", True),
        ("swap", True),
        ("ext", True),
    ]
    assert {found["volume"] for found in result["findings"]} == {3}
    harmless = disks.partitioned(tmp_path / "c.img", label, [clean, swap])
    assert (look((harmless, "raw"))["verdict"], look((harmless, "raw"))["incomplete_reasons"]) == ("clean", [])


def cloud_image(clean: Path, place: Path, boot: bytes, size: int = MB, kind: str = BIOS_BOOT) -> Path:
    """As distributions ship them: a boot loader in a partition of its own, of no file system."""
    loader = place / "boot.img"
    loader.write_bytes(boot.ljust(size, b"\0"))
    return disks.partitioned(place / "cloud.img", "gpt", [loader, clean], types=(kind,))


@pytest.mark.parametrize("kind", [BIOS_BOOT, "9E1A2D38-C612-4316-AA26-8B49521E5A8B"])
def test_a_disk_with_a_partition_for_boot_code_can_be_clean(clean: Path, tmp_path: Path, kind: str) -> None:
    result = look((cloud_image(clean, tmp_path, LOADER, kind=kind), "raw"))
    assert (result["verdict"], result["incomplete_reasons"]) == ("clean", [])
    assert [(volume["type"], volume["read"]) for volume in result["volumes"]] == [("boot", True), ("ext", True)]
    assert "Volume 1 of disk vda is boot code and was matched as raw bytes." in result["coverage_notes"]


def test_a_sample_in_boot_code_is_an_indicator(clean: Path, tmp_path: Path) -> None:
    result = look((cloud_image(clean, tmp_path, LOADER + disks.MARKER), "raw"))
    assert_incomplete(result, "person's judgement")
    assert paths(result, "indicators") == ["(boot code)"]


def test_a_file_system_where_boot_code_belongs_is_read(clean: Path, tmp_path: Path) -> None:
    hidden = disks.ext4(tmp_path / "hidden.img", {"evil": disks.MARKER}, 4 * MB)
    result = look((cloud_image(clean, tmp_path, hidden.read_bytes(), 4 * MB), "raw"))
    assert paths(result) == ["/evil"]
    sealed = look((cloud_image(clean, tmp_path, b"LUKS\xba\xbe" + LOADER), "raw"))
    assert_incomplete(sealed, "holds nothing that can be read (luks)")


def test_what_is_too_large_for_boot_code_stays_a_doubt(clean: Path, tmp_path: Path) -> None:
    result = look((cloud_image(clean, tmp_path, LOADER, 33 * MB), "raw"))
    assert_incomplete(result, "holds nothing that can be read (unknown)")


@pytest.mark.parametrize(("place", "label"), [(MB // 2, "(outside of volumes)"), (34 * MB + 12345, "(swap)")])
def test_a_sample_in_raw_bytes_is_an_indicator(clean: Path, tmp_path: Path, place: int, label: str) -> None:
    swap = tmp_path / "swap.img"
    swap.write_bytes(bytes(4 * MB))
    disks.run("mkswap", swap)
    image = disks.partitioned(tmp_path / "d.img", "dos", [clean, swap])
    disks.write_at(image, place, disks.MARKER)
    result = look((image, "raw"))
    assert_incomplete(result, "person's judgement")
    assert paths(result, "indicators") == [label]
    assert result["findings"] == []


def test_logical_partitions(infected: Path, tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(bytes(80 * MB))
    table = "label: dos\nstart=2048, size=4096, type=83\nstart=8192, type=5\nstart=10240, size=65536, type=83\n"
    disks.run("sfdisk", "-q", image, stdin=table)
    disks.write_at(image, 10240 * 512, infected.read_bytes())
    result = look((image, "raw"))
    assert len(result["findings"]) == 2
    assert [volume["type"] for volume in result["volumes"]] == ["empty", "ext"]


@pytest.mark.parametrize("place", [520, 1024 + 40])
def test_a_damaged_gpt_is_incomplete(clean: Path, tmp_path: Path, place: int) -> None:
    image = disks.partitioned(tmp_path / "d.img", "gpt", [clean])
    disks.write_at(image, place, b"\x99")
    assert_incomplete(look((image, "raw")), "GPT")


def test_a_file_system_hidden_beside_a_partition_table_is_told(clean: Path, tmp_path: Path) -> None:
    image = disks.partitioned(tmp_path / "d.img", "gpt", [clean])
    disks.write_at(image, 1080, b"\x53\xef")
    assert look((image, "raw"))["verdict"] == "incomplete"


def test_a_small_file_system_before_the_first_partition_does_not_hide_the_disk(infected: Path, tmp_path: Path) -> None:
    image = disks.partitioned(tmp_path / "d.img", "dos", [infected])
    decoy = disks.ext4(tmp_path / "decoy.img", {"a": b"x"}, MB // 2)
    disks.write_at(image, 1024, decoy.read_bytes()[1024:])
    result = look((image, "raw"))
    assert len(result["findings"]) == 2
    assert "in one place" in result["incomplete_reasons"][0]


def test_a_hint_in_a_file_is_an_indicator_and_hides_no_finding(tmp_path: Path) -> None:
    unit = b"[Service]\nExecStart=/dev/shm/.x/agent\n"
    files = {"etc/systemd/system/x.service": unit, "etc/copy": unit}
    result = look((disks.ext4(tmp_path / "d.img", files), "raw"))
    assert_incomplete(result, "person's judgement")
    assert result["findings"] == []
    assert paths(result, "indicators") == ["/etc/copy", "/etc/systemd/system/x.service"]
    assert result["indicators"][0]["rule"] == "started_from_writable_place"
    assert len(result["indicators"][0]["sha256"]) == 64
    both = look((disks.ext4(tmp_path / "e.img", {**files, "evil.com": disks.EICAR}), "raw"))
    assert (both["verdict"], paths(both), len(both["indicators"])) == ("infected", ["/evil.com"], 2)


def test_what_lies_behind_a_file_system_is_seen(clean: Path, tmp_path: Path) -> None:
    image = Path(shutil.copy(clean, tmp_path / "d.img"))
    with image.open("ab") as file:
        file.write(bytes(3 * MB) + disks.MARKER)
    result = look((image, "raw"))
    assert_incomplete(result, "person's judgement")
    assert paths(result, "indicators") == ["(behind the file system)"]


def test_an_unknown_volume_is_incomplete(tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(b"what is this" * 4096)
    assert_incomplete(look((image, "raw")), "nothing that can be read")


# --- qcow2 -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, clean: Path) -> tuple[Path, Path, Path]:
    """Overlay, middle and base (compressed), the overlay with sub-clusters and written to at odd places."""
    place = tmp_path_factory.mktemp("chain")
    base = disks.qcow2(place / "base.qcow2", clean, "-c")
    middle = disks.overlay(place / "middle.qcow2", base, "-o", "cluster_size=4096")
    disks.qemu_write(middle, 20 * MB - 512, 3 * 4096, 0x5A)
    top = disks.overlay(place / "top.qcow2", middle, "-o", "extended_l2=on,cluster_size=128k", size="40M")
    disks.qemu_write(top, 24 * MB + 4096, 70000 // 512 * 512, 0xA5)
    disks.run("qemu-io", "-f", "qcow2", "-c", "write -q -z 20M 8k", "-c", "write -q -P 7 36M 64k", top)
    return top, middle, base


def test_a_chain_reads_as_qemu_reads_it(chain: tuple[Path, Path, Path], tmp_path: Path) -> None:
    want = disks.as_raw(chain[0], tmp_path / "want.img").read_bytes()
    assert want.count(0x5A)
    assert want.count(0xA5)
    layers = [Layer(str(path), "qcow2", os.open(path, os.O_RDONLY)) for path in chain]
    disk = open_chain(layers)
    assert disk.size == len(want)
    assert disk.read(0, disk.size) == want
    for offset, length in ((1, 1), (20 * MB - 700, 5000), (24 * MB, 99999), (36 * MB - 1, 3), (disk.size - 5, 5)):
        assert disk.read(offset, length) == want[offset : offset + length]
    assert disk.read(disk.size - 5, 10) == want[-5:] + bytes(5)


def test_an_internal_snapshot_reads_as_qemu_reads_it(infected: Path, tmp_path: Path) -> None:
    image = disks.qcow2(tmp_path / "d.qcow2", infected)
    disks.run("qemu-img", "snapshot", "-c", "before", image)
    disks.qemu_write(image, 0, 32 * MB, 0)
    disks.run("qemu-img", "snapshot", "-c", "after", image)
    for name in ("before", "after"):
        want = disks.as_raw(image, tmp_path / f"{name}.img", "-l", name).read_bytes()
        disk = open_chain([Layer(str(image), "qcow2", os.open(image, os.O_RDONLY))], name)
        assert disk.read(0, disk.size) == want
    assert len(look((image, "qcow2"), snapshot="before")["findings"]) == 2
    assert look((image, "qcow2"), snapshot="after")["findings"] == []
    assert look((image, "qcow2"))["findings"] == []
    assert_incomplete(look((image, "qcow2"), snapshot="none"), "are called 'none'")


def test_the_sample_is_found_below_an_overlay(infected: Path, tmp_path: Path) -> None:
    base = disks.qcow2(tmp_path / "base.qcow2", infected)
    top = disks.overlay(tmp_path / "top.qcow2", base)
    assert len(look((top, "qcow2"), (base, "qcow2"))["findings"]) == 2
    assert_incomplete(look((top, "qcow2")), "the given chain ends here")
    assert_incomplete(look((base, "qcow2"), (base, "qcow2")), "names no backing file")


def test_a_header_written_by_the_guest_is_not_followed(clean: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(disks.MARKER * 100)
    trap = disks.overlay(tmp_path / "trap.qcow2", disks.qcow2(tmp_path / "b.qcow2", clean))
    result = look((trap, "raw"))
    assert result["verdict"] == "incomplete"
    assert result["indicators"] == result["findings"] == []


@pytest.mark.parametrize(
    ("place", "data", "words"),
    [
        (0, b"NOPE", "not a qcow2 image"),
        (20, struct.pack(">I", 63), "absurd sizes"),
        (24, struct.pack(">Q", 1 << 62), "absurd sizes"),
        (36, struct.pack(">I", 0xFFFFFFFF), "absurd sizes"),
        (40, struct.pack(">Q", 1 << 60), "truncated"),
        (72, struct.pack(">Q", 2), "marked it as corrupt"),
        (72, struct.pack(">Q", 4), "external file"),
        (72, struct.pack(">Q", 1 << 40), "unknown features"),
        (32, struct.pack(">I", 1), "encrypted"),
    ],
)
def test_a_damaged_qcow2_is_incomplete(clean: Path, tmp_path: Path, place: int, data: bytes, words: str) -> None:
    image = disks.qcow2(tmp_path / "d.qcow2", clean)
    disks.write_at(image, place, data)
    assert_incomplete(look((image, "qcow2")), words)


def test_a_truncated_qcow2_is_never_clean(infected: Path, tmp_path: Path) -> None:
    whole = disks.qcow2(tmp_path / "d.qcow2", infected)
    size = whole.stat().st_size
    for part in range(1, 10):
        os.truncate(whole, size * (10 - part) // 10)
        assert look((whole, "qcow2"))["verdict"] != "clean"


def test_random_damage_never_crashes_and_never_hides_in_silence(clean: Path, tmp_path: Path) -> None:
    import random

    chance = random.Random(7)
    raw = clean.read_bytes()
    for _round in range(12):
        image = tmp_path / "d.img"
        image.write_bytes(raw)
        for _hit in range(20):
            disks.write_at(image, chance.randrange(1024, 300000), chance.randbytes(chance.choice((1, 4, 64))))
        result = look((image, "raw"))
        assert result["verdict"] in ("clean", "incomplete")
        assert "failed with" not in " ".join(result["incomplete_reasons"])
        if result["verdict"] == "clean":
            assert result["files"] >= len(disks.harmless())


# --- limits, input and confinement -----------------------------------------------------------------------------------


def test_the_limits_are_told(clean: Path, tmp_path: Path) -> None:
    assert_incomplete(look((clean, "raw"), max_file_size=30000), "larger than max_file_size")
    large = disks.ext4(tmp_path / "large.img", {"a": os.urandom(20 * MB)}, 64 * MB)
    assert_incomplete(look((large, "raw"), limits=Limits(120, 64 * MB, 120)), "in parts only")
    endless = "rule endless { condition: filesize > 10MB and for all i in (0..9223372036854775806) : (i >= 0) }"
    rules = (*read_rules((RULES_DIRECTORY,)), RuleFile("/rules/endless.yar", endless, "", 0))
    assert_incomplete(look((large, "raw"), rules=rules, limits=Limits(1, 1 << 30, 120)), "deadline of 1 s was reached")


def test_a_sample_across_two_parts_is_found(tmp_path: Path) -> None:
    content = bytes(16 * MB - 10) + disks.MARKER + bytes(5 * MB)
    image = disks.ext4(tmp_path / "d.img", {"a": content}, 64 * MB)
    result = look((image, "raw"), limits=Limits(120, 64 * MB, 120))
    assert result["verdict"] == "infected"
    assert result["findings"][0]["offset"] == 16 * MB - 10
    assert "in parts only" in result["incomplete_reasons"][0]


def test_an_absurdly_large_sparse_file_ends(clean: Path, tmp_path: Path) -> None:
    image = Path(shutil.copy(clean, tmp_path / "d.img"))
    disks.debugfs(image, "sif /etc/hostname size 0xffffffffff0")
    assert_incomplete(look((image, "raw")), "in parts only")


def test_bad_input_is_refused_before_anything(clean: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.img"
    link.symlink_to(clean)
    bad = tmp_path / "bad.yar"
    bad.write_text("rule x { condition: nothing_known }")
    cases: list[tuple[tuple[Path, str], dict[str, Any], str]] = [
        ((tmp_path / "none.img", "raw"), {}, "Cannot open the layer"),
        ((link, "raw"), {}, "Cannot open the layer"),
        ((tmp_path, "raw"), {}, "neither a file nor a block device"),
        ((clean, "raw"), {"rules": (str(tmp_path / "none.yar"),)}, "Cannot read the rule file"),
        ((clean, "raw"), {"rules": (str(bad),)}, "Cannot use the rule file"),
    ]
    for layer, changes, words in cases:
        with pytest.raises(BadInput, match=words):
            look(layer, **changes)


def test_without_rules_or_engine_it_is_incomplete(clean: Path) -> None:
    assert_incomplete(look((clean, "raw"), rules=()), "No YARA rule was loaded")
    assert_incomplete(look((clean, "raw"), engines_required=("yara", "clamd")), "no clamd_socket is named")
    assert_incomplete(look((clean, "raw"), rules=(), engines_required=()), "No engine is ready")


def test_a_disk_in_use_by_qemu_is_refused(clean: Path, tmp_path: Path) -> None:
    image = disks.qcow2(tmp_path / "d.qcow2", clean)
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=0
    ) as user:
        assert user.stdout is not None
        assert user.stdin is not None
        user.stdout.read(1)
        with pytest.raises(BadInput, match="in use by a running VM"):
            look((image, "qcow2"))
        user.stdin.write("quit\n")
        user.stdin.close()
    assert look((image, "qcow2"))["verdict"] == "clean"


def test_a_change_while_reading_is_told(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", {"a": os.urandom(20 * MB)}, 64 * MB)
    progress = tmp_path / "progress"
    with subprocess.Popen(["sh", "-c", 'while printf x; do sleep 0.01; done 1<>"$0"', str(image)]) as writer:
        try:
            result = look((image, "raw"), progress_file=str(progress))
        finally:
            writer.kill()
    state = json.loads(progress.read_text())
    assert (state["phase"], state["message"]) == ("done", result["verdict"])
    assert_incomplete(result, "changed while it was read")


def test_hostile_names_stay_on_one_line(tmp_path: Path) -> None:
    names = ["\x1b[2J\n{{ lookup('pipe','id') }}", "<script>alert(1)</script>", "x" * 255, "..\\..\\x", "\u202egnp.exe"]
    image = disks.ext4(tmp_path / "d.img", dict.fromkeys(names, disks.MARKER))
    result = look((image, "raw"))
    assert len(result["findings"]) == len(names)
    assert all(path.isprintable() and len(path) <= 512 for path in paths(result))


# --- other file systems ----------------------------------------------------------------------------------------------


def fat(image: Path, files: dict[str, bytes], bits: int) -> Path:
    needs("mkfs.vfat")
    needs("mcopy")
    image.write_bytes(bytes((40 if bits == 32 else 8) * MB))
    disks.run("mkfs.vfat", "-F", str(bits), "-s", "8" if bits == 12 else "1", image)
    source = disks.tree(image.with_suffix(".tree"), files)
    for entry in sorted(source.iterdir()):
        disks.run("mcopy", "-s", "-i", image, entry, "::")
    return image


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_fat(tmp_path: Path, bits: int) -> None:
    files = disks.harmless(20)
    harmless = fat(tmp_path / "c.img", files, bits)
    result = look((harmless, "raw"))
    assert (result["verdict"], result["incomplete_reasons"]) == ("clean", [])
    bad = look((fat(tmp_path / "d.img", {**files, "EFI/BOOT/a long name.efi": disks.MARKER}, bits), "raw"))
    assert paths(bad) == ["/EFI/BOOT/a long name.efi"]


@pytest.mark.parametrize("more", [0, 512], ids=["of the whole disk", "in whole tracks"])
@pytest.mark.parametrize("size", [8, 40])
def test_a_fat_that_pretends_to_be_a_partition_can_be_clean(tmp_path: Path, size: int, more: int) -> None:
    """On a whole disk mkfs.fat writes a table too, with one partition that begins with the table itself."""
    needs("mkfs.vfat")
    image = tmp_path / "d.img"
    (tmp_path / "file").write_bytes(disks.MARKER)
    image.write_bytes(bytes(size * MB + more))
    disks.run("mkfs.vfat", "--mbr=y", image)
    result = look((image, "raw"))
    assert (result["verdict"], result["incomplete_reasons"]) == ("clean", [])
    assert [(volume["type"], volume["start"]) for volume in result["volumes"]] == [("fat", 0)]
    disks.run("mcopy", "-i", image, tmp_path / "file", "::evil")
    assert paths(look((image, "raw"))) == ["/evil"]
    disks.write_at(image, 446 + 16, struct.pack("<B3xB3xII", 0, 0x83, size * 1024, 1024))
    disks.write_at(image, 446 + 12, struct.pack("<I", size * 1024))
    assert "in one place" in " ".join(look((image, "raw"))["incomplete_reasons"])


def test_a_fat_with_a_lost_chain_is_incomplete(tmp_path: Path) -> None:
    image = fat(tmp_path / "d.img", {"a": bytes(5000), "b": bytes(5000)}, 32)
    reserved = struct.unpack("<H", image.read_bytes()[14:16])[0]
    disks.write_at(image, reserved * 512 + 4 * 20000, struct.pack("<I", 0x0FFFFFFF))
    assert_incomplete(look((image, "raw")), "clusters are in use")


def xfs(image: Path, files: dict[str, bytes]) -> Path:
    needs("mkfs.xfs")
    image.write_bytes(b"")
    os.truncate(image, 320 * MB)
    lines = ["/stub", "1 1", "d--755 0 0"]
    source = disks.tree(image.with_suffix(".tree"), {str(number): data for number, data in enumerate(files.values())})
    lines += [f"{name} ---644 0 0 {source / str(number)}" for number, name in enumerate(files)]
    prototype = image.with_suffix(".proto")
    prototype.write_text("\n".join([*lines, "$", "$", ""]))
    disks.run("mkfs.xfs", "-q", "-f", "-p", prototype, image)
    return image


def test_xfs(tmp_path: Path) -> None:
    result = look((xfs(tmp_path / "c.img", {f"f{number}": bytes(number * 99) for number in range(30)}), "raw"))
    assert (result["verdict"], result["incomplete_reasons"]) == ("clean", [])
    bad = look((xfs(tmp_path / "d.img", {"a": b"x", "evil": disks.EICAR}), "raw"))
    assert paths(bad) == ["/evil"]


def test_an_xfs_with_a_dirty_log_is_incomplete(tmp_path: Path) -> None:
    image = xfs(tmp_path / "d.img", {"a": b"x"})
    head = image.read_bytes()[:512]
    start, shift = struct.unpack_from(">Q", head, 48)[0], head[124]
    size, group = struct.unpack_from(">I", head, 4)[0], struct.unpack_from(">I", head, 84)[0]
    log = ((start >> shift) * group + (start & ((1 << shift) - 1))) * size
    disks.write_at(image, log + 512 + 9, b"\0")
    assert_incomplete(look((image, "raw")), "its log is damaged")


def test_ntfs(tmp_path: Path) -> None:
    needs("mkfs.ntfs")
    image = tmp_path / "d.img"
    image.write_bytes(b"")
    os.truncate(image, 16 * MB)
    source = disks.tree(tmp_path / "tree", {"evil.com": disks.EICAR, "ok": b"x" * 9000})
    disks.run("mkfs.ntfs", "-q", "-F", image)
    disks.run("ntfscp", image, source / "ok", "innocent.txt")
    result = look((image, "raw"))
    assert (result["verdict"], result["incomplete_reasons"]) == ("clean", [])
    disks.run("ntfscp", "-N", "evil.com", image, source / "evil.com", "innocent.txt")
    assert paths(look((image, "raw"))) == ["/innocent.txt:evil.com"]


# --- ClamAV ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clamd() -> Iterator[str]:
    needs("clamd")
    with clam.daemon() as socket_path:
        yield socket_path


@pytest.fixture(scope="module")
def silent_clamd() -> Iterator[str]:
    """One that answers OK to what exceeds its limits, as Debian's default is."""
    needs("clamd")
    with clam.daemon(tells_limits=False) as socket_path:
        yield socket_path


def test_clamd_finds_what_yara_finds(infected: Path, clean: Path, clamd: str) -> None:
    result = look((infected, "raw"), clamd_socket=clamd, engines_required=("yara", "clamd"))
    assert {(found["engine"], found["path"]) for found in result["findings"]} == {
        (engine, path) for engine in ("clamd", "yara") for path in ("/home/user/a/b/c/d/eicar.com", "/srv/padded")
    }
    assert [engine["name"] for engine in result["engines"]] == ["yara", "clamd"]
    harmless = look((clean, "raw"), clamd_socket=clamd)
    assert (harmless["verdict"], harmless["incomplete_reasons"]) == ("clean", [])


@pytest.mark.parametrize("size", [3, 5, 10, 20])
def test_a_size_limit_of_clamd_is_told(tmp_path: Path, silent_clamd: str, size: int) -> None:
    image = disks.ext4(tmp_path / "d.img", {"large": bytes(size * MB)}, 64 * MB)
    result = look((image, "raw"), clamd_socket=silent_clamd)
    if size < 4:
        assert result["verdict"] == "clean"
    else:
        assert_incomplete(result, "/large on volume 1 of disk vda: it exceeds a size limit of clamd")


def archived(place: Path) -> Path:
    """A disk with samples in archives, and nowhere else."""
    files = {**disks.harmless(), "a.zip": zipped({"eicar.com": disks.EICAR}), "b.gz": gzip.compress(disks.EICAR)}
    return disks.ext4(place / "archived.img", files)


def test_samples_in_archives_are_found(tmp_path: Path) -> None:
    deep = zipped({"c.tar.xz": lzma.compress(tarred({"in/x": b"." * 100 + disks.MARKER}))})
    files = {"a.zip": zipped({"eicar.com": disks.EICAR}), "b.gz": gzip.compress(disks.EICAR), "d": deep}
    result = look((disks.ext4(tmp_path / "archived.img", files), "raw"))
    assert result["verdict"] == "infected"
    tar = "/d!/c.tar.xz!/"  # what it unpacks to holds the sample as it is
    assert paths(result) == ["/a.zip!/eicar.com", "/b.gz!/", tar, tar + "in/x"]
    assert result["archives_unopened"] == 0


def test_samples_in_an_initrd_and_in_packages_are_found(tmp_path: Path) -> None:
    initrd = cpio({"kernel/microcode": disks.EICAR}) + bytes(300) + zstd.compress(cpio({"bin/sh": disks.EICAR}))
    files = {
        "initrd.img": initrd,
        "a.deb": ar({"data.tar.zst": zstd.compress(tarred({"./bin/x": disks.EICAR}))}),
        "a.rpm": rpm(gzip.compress(cpio({"./bin/x": disks.EICAR}))),
        "a.lz4": lz4.frame.compress(disks.EICAR),
    }
    result = look((disks.ext4(tmp_path / "initrd.img", files), "raw"))
    assert {
        "/initrd.img!/kernel/microcode",
        "/initrd.img!/trailing!/bin/sh",
        "/a.deb!/data.tar.zst!/./bin/x",
        "/a.rpm!/payload!/./bin/x",
        "/a.lz4!/",
    } <= set(paths(result))
    assert (result["archives_unopened"], result["incomplete_reasons"]) == (0, [])


def test_what_is_packed_by_a_library_that_is_missing_is_never_known_to_be_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = zstd.compress(b" ".join(b"%d" % number for number in range(3000)) + disks.MARKER)
    assert disks.MARKER not in packed
    image = disks.ext4(tmp_path / "d.img", {"a.zst": packed})
    known_at = str(tmp_path / "known")
    with monkeypatch.context() as patch:
        for module in (judge, inside, known):
            patch.setattr(module, "UNPACKED", module.UNPACKED - {"zstd"})
        patch.setattr(judge, "MISSING", {"zstd": "backports.zstd"})
        patch.setattr(self_test, "INSIDE", samples.INSIDE - {"a.tar!/zstd!/"})
        result = look((image, "raw"), directory=known_at)
    assert (result["verdict"], result["archives_unopened"]) == ("clean", 1)
    assert any("Install the Python library backports.zstd" in note for note in result["coverage_notes"])
    again = look((image, "raw"), directory=known_at)
    assert (paths(again), again["incomplete_reasons"]) == (["/a.zst!/"], [])


def test_a_bomb_on_a_disk_is_a_reason_and_takes_no_more_than_its_limits(tmp_path: Path) -> None:
    bombs = {
        "gz": gzip.compress(bytes(300 * MB), 1),
        "xz": lzma.compress(lzma.compress(bytes(300 * MB), preset=0), preset=0),
        "quine": QUINE,
        "evil.zip": zipped({"eicar.com": disks.EICAR}),
    }
    image = disks.ext4(tmp_path / "bombs.img", bombs)
    result = look((image, "raw"), limits=Limits(120, 512 * MB, 120), archives=Archives(ratio=1 << 20))
    assert paths(result) == ["/evil.zip!/eicar.com"]
    reasons = " ".join(result["incomplete_reasons"])
    assert "The scan did not end" not in reasons
    for name, why in (("gz!/", "a quarter of the memory"), ("xz!/!/", "a quarter of"), ("quine!/", "archive_depth")):
        assert f"/{name}" in reasons
        assert why in reasons


def test_what_was_judged_within_other_limits_is_judged_anew(tmp_path: Path) -> None:
    image, known = disks.ext4(tmp_path / "d.img", {"a.gz": gzip.compress(bytes(2 * MB))}), str(tmp_path / "known")
    assert look((image, "raw"), directory=known)["verdict"] == "clean"
    assert look((image, "raw"), directory=known)["verdict"] == "clean"
    again = look((image, "raw"), directory=known, archives=Archives(size=MB))
    assert_incomplete(again, "/a.gz!/ on volume 1 of disk vda: it unpacks to more than archive_size")


def test_archives_that_no_engine_opens_are_told(tmp_path: Path) -> None:
    image, known = archived(tmp_path), str(tmp_path / "known")
    for _round in range(2):
        result = look((image, "raw"), directory=known, archives=Archives(depth=0))
        assert (result["verdict"], result["archives_unopened"]) == ("clean", 2)
        told = " ".join(result["coverage_notes"])
        assert "2 archives or packed files were matched as they are" in told
        assert told.endswith("The first of them: /a.zip on volume 1 of disk vda; /b.gz on volume 1 of disk vda.")
        assert ", 2 archives unopened" in in_one_line(result)


def test_of_many_archives_that_no_engine_opens_the_first_are_named(tmp_path: Path) -> None:
    """What a guest calls them stays one line."""
    many = {f"{number:02}\n\x1b[2J{'x' * 220}.7z": b"7z\xbc\xaf\x27\x1c" + bytes([number]) * 99 for number in range(30)}
    result = look((disks.ext4(tmp_path / "d.img", many), "raw"))
    (told,) = [note for note in result["coverage_notes"] if "The first of them" in note]
    assert (result["verdict"], result["archives_unopened"], told.isprintable()) == ("clean", 30, True)
    names = told.partition("The first of them: ")[2].split("; ")
    assert [name[:3] for name in names] == [f"/{number:02}" for number in range(20)]
    assert max(map(len, names)) < 240


def test_archives_are_opened_by_clamd_unless_it_is_told_not_to(tmp_path: Path, clamd: str) -> None:
    image, packed = archived(tmp_path), Archives(depth=0)
    result = look((image, "raw"), clamd_socket=clamd, archives=packed)
    assert paths(result) == ["/a.zip", "/b.gz"]
    assert (result["archives_unopened"], result["engines"][1]["archives"]) == (0, "opened")
    assert "unopened" not in in_one_line(result)
    both = look((image, "raw"), clamd_socket=clamd)
    found = sorted((one["engine"], one["path"]) for one in both["findings"])
    assert found[:2] == [("clamd", "/a.zip"), ("clamd", "/b.gz")]
    assert found[2:] == [("yara", "/a.zip!/eicar.com"), ("yara", "/b.gz!/")]
    with clam.daemon("ScanArchive no") as closed:
        result = look((image, "raw"), clamd_socket=closed, archives=packed)
        required = look((image, "raw"), clamd_socket=closed, engines_required=("yara", "clamd"))
    assert (result["verdict"], result["archives_unopened"]) == ("clean", 2)
    assert result["engines"][1]["archives"] == "closed"
    assert "clamd does not open archives" in " ".join(required["incomplete_reasons"])


LIAR = """
import socket, sys
door = socket.socket(socket.AF_UNIX)
door.bind(sys.argv[1])
door.listen(5)
print("ready", flush=True)
while True:
    link = door.accept()[0]
    asked = link.recv(9999)
    link.sendall(b"ClamAV 1" if b"VERSION" in asked else b"stream: OK")
    link.close()
"""


def test_an_engine_that_misses_its_sample_is_not_believed(clean: Path) -> None:
    with clam.open_place() as place:
        path = place / "socket"
        liar = subprocess.Popen([sys.executable, "-c", LIAR, str(path)], stdout=subprocess.PIPE)
        try:
            assert liar.stdout is not None
            liar.stdout.readline()
            path.chmod(0o777)
            assert_incomplete(look((clean, "raw"), clamd_socket=str(path)), "missed a planted sample")
        finally:
            liar.terminate()
            liar.wait(10)


# --- the module ------------------------------------------------------------------------------------------------------


def test_the_module_returns_the_verdict(infected: Path) -> None:
    disk = {"name": "vda", "layers": [{"path": str(infected), "format": "raw"}]}
    result = module("disk_scan", disks=[disk], rules=[RULES_DIRECTORY])
    assert (result["changed"], result["verdict"], result["findings_count"]) == (False, "infected", 2)


def test_the_module_refuses_bad_input() -> None:
    assert "name at least one disk" in module("disk_scan", disks=[])["msg"]
    disk = {"name": "vda", "layers": [{"path": "/nonexistent", "format": "raw"}]}
    assert (
        "Cannot open the layer /nonexistent of disk vda"
        in module("disk_scan", disks=[disk], rules=[RULES_DIRECTORY])["msg"]
    )
