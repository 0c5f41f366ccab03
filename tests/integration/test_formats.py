# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same in whatever holds it: names on several file systems, swap in files, disks in images of several formats."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.chain import Layer, open_chain
from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import parse
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import DiskRequest, LayerSpec, Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.journal import crc32c
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct, Golden, found
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

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


# --- swap in a file --------------------------------------------------------------------------------------------------

LARGE = 300 * MB  # more than is ever judged as a whole here
PAGE = 4096
SWAP = (bytes(1024) + struct.pack("<II", 1, LARGE // PAGE - 1)).ljust(4086, b"\0") + b"SWAPSPACE2"


class Swap(Golden):
    """A guest with a file to swap to, of which some lies where nothing was written through the file system."""

    def __init__(self, place: Path) -> None:
        image = disks.ext4(place / "golden.img", {"etc/hostname": b"desk1\n"}, 400 * MB, "-b", str(PAGE))
        (place / "swap").write_bytes(SWAP)
        self.size = LARGE
        disks.debugfs(
            image,
            f"write {place / 'swap'} swap.img",
            f"fallocate /swap.img 1 {LARGE // PAGE - 1}",
            f"sif /swap.img size {LARGE}",
        )
        super().__init__(image)

    def at(self, image: Path, page: int) -> int:
        """Where on the disk a page of it lies."""
        return int(disks.debugfs(image, f"bmap /swap.img {page}").splitlines()[-1].split()[0]) * PAGE


@pytest.fixture(scope="module")
def swap(tmp_path_factory: pytest.TempPathFactory) -> Swap:
    return Swap(tmp_path_factory.mktemp("swap"))


def test_a_guest_that_swaps_to_a_file_can_be_clean(swap: Swap) -> None:
    image = swap.copy()
    disks.write_at(image, swap.at(image, 20_000), b"a page of a program")
    for tally in swap.both(image):
        assert (tally.verdict().value, tally.findings, tally.indicators) == ("clean", [], [])
    assert "/swap.img on volume 1 of disk vda is memory that was written out" in " ".join(
        swap.direct.look(image, False).notes
    )


@pytest.mark.parametrize("page", [0, 1, 20_000, LARGE // PAGE - 1])
def test_what_was_swapped_out_is_matched(swap: Swap, page: int) -> None:
    image = swap.copy()
    disks.write_at(image, swap.at(image, page) + 2000, MARKER)
    whole, delta = swap.both(image)
    offset = page * PAGE + 2000
    assert [(one.path, one.offset) for one in whole.indicators] == [("(memory that was written out)", offset)]
    assert delta.verdict().value == "incomplete"


def test_a_small_file_that_bears_the_mark_of_swap_is_judged_as_any_file(swap: Swap) -> None:
    image = swap.copy()
    (swap.place / "small").write_bytes(SWAP + MARKER)
    disks.debugfs(image, f"write {swap.place / 'small'} evil")
    for tally in swap.both(image):
        assert [finding.path for finding in tally.findings] == ["/evil"]


@pytest.mark.parametrize(
    ("at", "data"),
    [
        (4086, b"SWAPSPACE0"),
        (0, b"MZ"),
        (1020, b"x"),
        (1024, b"\2"),
        (1028, struct.pack("<I", LARGE // PAGE)),
        (1028, struct.pack("<I", 1)),
    ],
    ids=["mark", "program", "before the header", "version", "larger than the file", "a part of the file"],
)
def test_a_large_file_that_no_kernel_swaps_to_is_seen_in_parts_only(swap: Swap, at: int, data: bytes) -> None:
    image = swap.copy()
    disks.write_at(image, swap.at(image, 0) + at, data)
    for tally in swap.both(image):
        assert "/swap.img on volume 1 of disk vda: it is too large" in " ".join(tally.reasons)


def test_a_file_to_swap_to_is_no_program(swap: Swap) -> None:
    image = swap.copy()
    disks.debugfs(image, "sif /swap.img mode 0100711")
    for tally in swap.both(image):
        assert "/swap.img on volume 1 of disk vda: it is too large" in " ".join(tally.reasons)


def test_a_known_hash_is_found_behind_the_mark_of_swap(swap: Swap, tmp_path: Path) -> None:
    digest = hashlib.sha256(SWAP.ljust(LARGE, b"\0")).hexdigest()
    clean = disks.ext4(tmp_path / "clean.img", {"etc/hostname": b"desk1\n"}, 16 * MB)
    direct = Direct(clean, parse(f"sha256: [{digest}]", "ioc.yml"))
    tally = direct.look(swap.copy(), False)
    assert [(one.path, one.rule, one.sha256) for one in tally.findings] == [("/swap.img", "ioc_sha256", digest)]


# --- disks in images of several formats ------------------------------------------------------------------------------

FORMATS = {
    "vmdk": ("vmdk", "subformat=monolithicSparse"),
    "vmdk, packed": ("vmdk", "subformat=streamOptimized"),
    "vhdx": ("vhdx", "subformat=dynamic,block_size=1M"),
    "vhdx, large blocks": ("vhdx", "subformat=dynamic"),
    "vhdx, fixed": ("vhdx", "subformat=fixed"),
}
every_format = pytest.mark.parametrize("kind", FORMATS)


def converted(raw: Path, kind: str, image: Path) -> Path:
    name, options = FORMATS[kind]
    disks.run("qemu-img", "convert", "-f", "raw", "-O", name, "-o", options, raw, image)
    return image


def look(image: Path, kind: str, **changes: Any) -> dict[str, Any]:
    layers = (LayerSpec(str(image), FORMATS[kind][0] if kind in FORMATS else kind),)
    limits = Limits(60, 512 * MB, 60)
    return scan(replace(Request((DiskRequest("vda", layers),), RULES, "", ("yara",), 0, "", limits), **changes))


def findings(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    return sorted((one["path"], one["rule"], one["sha256"]) for one in result["findings"])


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of it lie in every piece of the disk, and across their borders."""
    place = tmp_path_factory.mktemp("guest")
    chance = random.Random(5)
    large = b"".join(bytes(chance.randrange(1, 300_000)) + chance.randbytes(70_000) for _part in range(60))
    part = disks.ext4(place / "part.img", {**disks.harmless(), "large": large}, 72 * MB)
    return disks.partitioned(place / "guest.img", "gpt", [part, 5 * MB])


@pytest.fixture(scope="module")
def infected(guest: Path) -> Path:
    image = Path(shutil.copy(guest, guest.parent / "infected.img"))
    part, marker = guest.parent / "part.img", guest.parent / "marker"
    marker.write_bytes(b"x" * 5000 + MARKER)
    disks.debugfs(part, f"write {marker} etc/evil", f"write {marker} other")
    with part.open("rb") as file:
        disks.write_at(image, MB, file.read())
    return image


@every_format
def test_a_disk_is_the_same_in_every_format(guest: Path, tmp_path: Path, kind: str) -> None:
    image = converted(guest, kind, tmp_path / "image")
    chance = random.Random(kind)
    with image.open("rb") as file:
        disk, raw = open_chain([Layer("", FORMATS[kind][0], file.fileno())]), guest.read_bytes()
        assert disk.size >= len(raw)
        for _read in range(400):
            at, length = chance.randrange(disk.size), chance.choice((1, 513, 70_000, 3 * MB))
            assert disk.read(at, length) == raw[at : at + length].ljust(length, b"\0")
            assert sum(place[0] for place in disk.places(at, length)) == length


@pytest.mark.parametrize(("name", "options"), [("vmdk", "subformat=monolithicSparse"), ("vhdx", "block_size=1M")])
def test_pieces_may_lie_in_any_order(tmp_path: Path, name: str, options: str) -> None:
    image = tmp_path / "image"
    disks.run("qemu-img", "create", "-q", "-f", name, "-o", options, image, "8M")
    order = [6, 1, 5, 3, 0, 2]
    disks.run("qemu-io", "-f", name, *[w for at in order for w in ("-c", f"write -q -P {at + 1} {at}M 1M")], image)
    raw = b"".join(bytes([at + 1 if at in order else 0]) * MB for at in range(8))
    with image.open("rb") as file:
        disk = open_chain([Layer("", name, file.fileno())])
        for at in range(0, 7 * MB, 300_000):
            assert disk.read(at, MB + 70_000) == raw[at : at + MB + 70_000].ljust(MB + 70_000, b"\0")


@every_format
def test_a_clean_disk_is_clean_in_every_format(guest: Path, tmp_path: Path, kind: str) -> None:
    result = look(converted(guest, kind, tmp_path / "image"), kind)
    assert (result["verdict"], result["findings"]) == ("clean", []), result["incomplete_reasons"]
    assert result["files"] == look(guest, "raw")["files"]


@every_format
def test_samples_are_found_in_every_format(infected: Path, tmp_path: Path, kind: str) -> None:
    result, raw = look(converted(infected, kind, tmp_path / "image"), kind), look(infected, "raw")
    assert findings(result) == findings(raw)
    assert {path for path, _rule, _sha256 in findings(raw)} == {"/etc/evil", "/other"}


@every_format
def test_a_truncated_disk_is_incomplete_in_every_format(guest: Path, tmp_path: Path, kind: str) -> None:
    image = converted(guest, kind, tmp_path / "image")
    size = image.stat().st_size
    # Large blocks reach beyond the end of the disk, packed pieces are filled up
    for left in (size - 600 if kind in ("vmdk", "vhdx") else size * 7 // 10, size * 3 // 10, 0):
        os.truncate(image, left)
        result = look(image, kind)
        assert result["verdict"] == "incomplete", (left, result["volumes"])
        assert "truncated" in " ".join(result["incomplete_reasons"]) or not left


def test_random_damage_is_never_a_crash_and_hides_nothing(infected: Path, tmp_path: Path) -> None:
    """Of what describes the image: a header, a table, a descriptor."""
    chance = random.Random(3)
    for kind in ("vmdk", "vmdk, packed", "vhdx"):
        whole = converted(infected, kind, tmp_path / "whole")
        for _round in range(5):
            image = Path(shutil.copy(whole, tmp_path / "image"))
            for _hit in range(3):
                places = (0, 64 << 10, 192 << 10, 2 * MB, 3 * MB) if kind.startswith("vhdx") else (0, 512, 20 * 512)
                at = chance.choice(places) + chance.randrange(600)
                disks.write_at(image, at, chance.randbytes(chance.choice((1, 8))))
            assert look(image, kind)["verdict"] in ("infected", "incomplete")


def test_a_disk_in_any_format_can_be_the_golden_image(guest: Path, infected: Path, tmp_path: Path) -> None:
    for kind in ("vmdk, packed", "vhdx"):
        golden = converted(guest, kind, tmp_path / kind)
        top = converted(infected, kind, tmp_path / f"{kind} top")
        base, over = ((LayerSpec(str(image), FORMATS[kind][0]),) for image in (golden, top))
        limits, known = Limits(60, 512 * MB, 60), str(tmp_path / "known")
        asked = Request((DiskRequest("vda", base),), RULES, "", ("yara",), 0, "", limits, directory=known)
        assert index(asked)["verdict"] == "clean"
        result = scan(replace(asked, disks=(DiskRequest("vda", over, clone_of=base),)))
        assert {volume["method"] for volume in result["volumes"]} == {"delta", "same"}
        assert [path for path, _rule, _sha256 in findings(result)] == ["/etc/evil", "/other"]


def refused(image: Path, kind: str, words: str) -> None:
    result = look(image, kind)
    assert (result["verdict"], result["volumes"]) == ("incomplete", [])
    assert words in " ".join(result["incomplete_reasons"])


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_a_vmdk_that_names_other_files_is_refused(guest: Path, tmp_path: Path, subformat: str) -> None:
    image = tmp_path / "image.vmdk"
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", guest, image)
    refused(image, "vmdk", "not a sparse VMDK in one file")
    for extent in tmp_path.glob("image-s*.vmdk"):
        refused(extent, "vmdk", "one of several files" if "Sparse" in subformat else "not a sparse VMDK in one file")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"parentCID=ffffffff", b"parentCID=12345678", "lies on a parent"),
        (b"parentCID=ffffffff", b"#arentCID=ffffffff", "lies on a parent"),
        (b" SPARSE ", b" FLAT   ", "made of several files"),
        (b"# The Disk Data Base\n", b'RW 1 FLAT "/etc/shadow"', "made of several files"),
    ],
)
def test_what_the_descriptor_in_a_vmdk_names_is_never_opened(
    guest: Path, tmp_path: Path, old: bytes, new: bytes, words: str
) -> None:
    image = converted(guest, "vmdk", tmp_path / "image")
    data = image.read_bytes()
    assert data.count(old) == 1
    disks.write_at(image, data.index(old), new)
    refused(image, "vmdk", words)


def test_a_vmdk_that_is_still_open_is_refused(guest: Path, tmp_path: Path) -> None:
    image = converted(guest, "vmdk", tmp_path / "image")
    disks.write_at(image, 72, b"\1")
    refused(image, "vmdk", "not closed cleanly")


def rewritten(image: Path, offset: int, at: int, data: bytes) -> None:
    """Into the headers of a VHDX, with the right checksum."""
    whole = image.read_bytes()
    for place in (64 << 10, 128 << 10) if offset == 0 else (192 << 10, 256 << 10):
        raw = bytearray(whole[place : place + (4096 if offset == 0 else 65536)])
        raw[at : at + len(data)] = data
        raw[4:8] = bytes(4)
        raw[4:8] = struct.pack("<I", crc32c(0xFFFFFFFF, bytes(raw)) ^ 0xFFFFFFFF)
        disks.write_at(image, place, bytes(raw))


def test_a_vhdx_whose_log_is_to_be_replayed_is_refused(guest: Path, tmp_path: Path) -> None:
    image = converted(guest, "vhdx", tmp_path / "image")
    rewritten(image, 0, 8, bytes(8))  # what is written is whole
    assert look(image, "vhdx")["verdict"] == "clean"
    rewritten(image, 0, 48, b"a log of 16 bytes"[:16])
    refused(image, "vhdx", "its log holds changes")


def test_a_vhdx_on_a_parent_is_refused(guest: Path, tmp_path: Path) -> None:
    image = converted(guest, "vhdx", tmp_path / "image")
    data = image.read_bytes()
    at = data.index(b"metadata")
    entry = data.index(UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le, at)
    place = at + struct.unpack_from("<I", data, entry + 16)[0]
    disks.write_at(image, place + 4, b"\2")
    refused(image, "vhdx", "lies on a parent")


def test_one_damaged_header_of_a_vhdx_does_no_harm(infected: Path, tmp_path: Path) -> None:
    image = converted(infected, "vhdx", tmp_path / "image")
    for place in (64 << 10, 192 << 10):
        disks.write_at(image, place + 20, b"damage")
    assert look(image, "vhdx")["verdict"] == "infected"
    disks.write_at(image, (256 << 10) + 20, b"damage")
    refused(image, "vhdx", "both of its region tables are damaged")
    disks.write_at(image, (128 << 10) + 20, b"damage")
    refused(image, "vhdx", "both of its headers are damaged")


def states(image: Path) -> dict[int, int]:
    """Of all blocks of a VHDX that are present: where their entries lie, and what they are."""
    table = image.read_bytes()[2 * MB : 3 * MB]
    entries = ((at, int.from_bytes(table[at : at + 8], "little")) for at in range(0, len(table), 8))
    return {2 * MB + at: entry for at, entry in entries if entry & 7 == 6}


@pytest.mark.parametrize("state", [1, 3], ids=["undefined", "unmapped"])
def test_what_a_block_of_a_vhdx_held_may_be_what_the_guest_sees(infected: Path, tmp_path: Path, state: int) -> None:
    """A guest that trims what it still uses reads zeros, or what lay there: that is up to its hypervisor."""
    image = converted(infected, "vhdx", tmp_path / "image")
    for at, entry in states(image).items():
        disks.write_at(image, at, struct.pack("<Q", entry - 6 + state))
    assert findings(look(image, "vhdx")) == findings(look(infected, "raw"))


@pytest.mark.parametrize("place", [0, 1 << 30], ids=["nowhere", "past the end"])
@pytest.mark.parametrize("state", [1, 3], ids=["undefined", "unmapped"])
def test_a_block_of_a_vhdx_that_nothing_is_left_of_is_zeros(tmp_path: Path, state: int, place: int) -> None:
    raw, size = tmp_path / "raw", 6 * MB
    raw.write_bytes(b"x" * size)
    image = converted(raw, "vhdx", tmp_path / "image")
    for at in states(image):
        disks.write_at(image, at, struct.pack("<Q", place + state))
    with image.open("rb") as file:
        assert open_chain([Layer("", "vhdx", file.fileno())]).read(0, size) == bytes(size)


@pytest.mark.parametrize("state", [0, 2], ids=["not present", "zero"])
def test_a_block_of_a_vhdx_that_is_zeros_lies_nowhere(tmp_path: Path, state: int) -> None:
    raw, size = tmp_path / "raw", 6 * MB
    raw.write_bytes(b"x" * size)
    image = converted(raw, "vhdx", tmp_path / "image")
    for at, entry in states(image).items():
        disks.write_at(image, at, struct.pack("<Q", entry - 6 + state))
    with image.open("rb") as file:
        assert open_chain([Layer("", "vhdx", file.fileno())]).read(0, size) == bytes(size)


@pytest.mark.parametrize("state", [4, 5, 7])
def test_a_block_of_a_vhdx_in_an_unknown_state_is_told(guest: Path, tmp_path: Path, state: int) -> None:
    image = converted(guest, "vhdx", tmp_path / "image")
    disks.write_at(image, 2 * MB, bytes([state]))
    refused(image, "vhdx", "in a state that this reader does not know")


# --- overlays that a guest wrote to ----------------------------------------------------------------------------------


def written(chance: random.Random, files: list[str], before: Path, place: Path) -> list[str]:
    """What makes the disk what a guest's file system makes it, in pieces of odd lengths, as commands of qemu-io."""
    after, requests = Path(shutil.copy(before, place / "after.img")), list[str]()
    for number in range(chance.randint(1, 4)):
        content, victim = place / f"content{number}", chance.choice(files)
        content.write_bytes(chance.randbytes(chance.choice((10, 5000, 200_000))) + chance.choice((b"", MARKER)))
        requests += chance.choice(
            [
                [f"write {content} new{number}"],
                [f"mkdir d{number}", f"cd d{number}", f"write {content} deep", "cd /"],
                [f"rm {victim}", f"write {content} {victim}"],
                [f"rm {victim}"],
                [f"ln {victim} other{number}"],
            ]
        )
    disks.debugfs(after, *requests)
    old, new, commands, at = before.read_bytes(), after.read_bytes(), list[str](), 0
    while at < len(new):
        end = at
        while end < min(len(new), at + 65536) and old[end : end + 512] != new[end : end + 512]:
            end += 512
        if end > at:
            block = place / f"{at}.block"
            block.write_bytes(new[at:end])
            is_empty = not any(new[at:end])
            commands.append(f"write -q -z {at} {end - at}" if is_empty else f"write -q -s {block} {at} {end - at}")
        at = max(end, at + 512)
    return commands


def given_back(chance: random.Random, before: bytes) -> list[str]:
    """Zeros, and what was trimmed: of whole clusters, of parts of them, over both, mostly of what holds something."""
    commands = []
    full = [at for at in range(MB, len(before) - MB, 4096) if any(before[at : at + 4096])]
    for _number in range(chance.randint(1, 5)):
        at = chance.choice((chance.choice(full), chance.choice(full), chance.randrange(MB, len(before) - MB, 512)))
        length = chance.choice((512, 4096, 65536, 131072, 300 * 1024))
        if chance.random() < 0.5:
            at, length = at // 65536 * 65536, max(65536, length // 65536 * 65536)
        commands.append(chance.choice(("discard -q", "write -q -z", "write -q -z -u")) + f" {at} {length}")
    return commands


@pytest.mark.parametrize(
    ("golden", "options"),
    [
        ("raw", "cluster_size=64k"),
        ("qcow2", "extended_l2=on,cluster_size=128k"),
        ("qcow2", "extended_l2=on,cluster_size=64k"),
        ("packed", "cluster_size=4k"),
    ],
)
def test_random_guest_writes_to_an_overlay_are_found_as_by_a_whole_scan(
    tmp_path: Path, golden: str, options: str
) -> None:
    """A scan of what QEMU reads, put into a raw file, is the truth."""
    files, chance, infected, cleans = disks.harmless(20), random.Random(golden + options), 0, 0
    raw = disks.ext4(tmp_path / "golden.img", files, 16 * MB)
    kind, base = ("raw", raw) if golden == "raw" else ("qcow2", tmp_path / "golden.qcow2")
    if kind == "qcow2":
        disks.qcow2(base, raw, *(["-c"] if golden == "packed" else []))
    direct = Direct(base, kind=kind)
    for round_ in range(7):
        top, seen = tmp_path / f"top{round_}.qcow2", tmp_path / "seen.img"
        disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", base, "-o", options, top)
        commands = written(chance, sorted(files), raw, tmp_path)
        trims = given_back(chance, raw.read_bytes()) if round_ % 3 else []
        commands = commands[: len(commands) // 2] + trims + commands[len(commands) // 2 :]
        disks.run("qemu-io", "-d", "unmap", "-f", "qcow2", *[word for one in commands for word in ("-c", one)], top)
        disks.as_raw(top, seen)
        truth = direct.look(seen, False)
        whole, delta = direct.look(top, False, overlay=True), direct.look(top, True, overlay=True)
        told = (round_, commands, truth.reasons, whole.reasons, delta.reasons)
        with top.open("rb") as over, base.open("rb") as below:
            layers = [Layer("", "qcow2", over.fileno()), Layer("", kind, below.fileno())]
            assert open_chain(layers).read(0, 16 * MB) == seen.read_bytes(), told
        assert found(delta) == found(whole) == found(truth), told
        assert (whole.verdict(), whole.reasons, whole.bytes_read) == (truth.verdict(), truth.reasons, truth.bytes_read)
        assert delta.verdict().value != "clean" or truth.verdict().value == "clean", told
        infected += bool(truth.findings)
        cleans += truth.verdict().value == "clean"
    assert infected > 2
    assert infected + cleans > 3
