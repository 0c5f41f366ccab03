# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""btrfs: all that Linux shows is read, and one that an attacker wrote neither hides anything nor keeps a scan busy."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Blocks
from ansible_collections.vmward.remediation.plugins.module_utils._scan.btrfs_content import Content, lzo, unpack
from ansible_collections.vmward.remediation.plugins.module_utils._scan.btrfs_records import Inode, Piece
from ansible_collections.vmward.remediation.plugins.module_utils._scan.btrfs_sums import checksum
from ansible_collections.vmward.remediation.plugins.module_utils._scan.frames import MISSING
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import Indicators
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import DiskRequest, LayerSpec, Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.journal import crc32c
from ansible_collections.vmward.remediation.plugins.module_utils._scan.layout import NotReadable
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.tests.corpus import btrfs, disks
from ansible_collections.vmward.remediation.tests.corpus.btrfs_forged import HEAD, MIRROR, POINTER, SUPER, Forger
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

MB = disks.MB
DEADLINE = 60
SAMPLE = b"." * 30_000 + disks.MARKER + b"." * 30_000
SAMPLES = {"dir/evil.com": disks.EICAR, "dir/large": SAMPLE, "dir/link": b"y" * 5000, "ok": b"x" * 9000}
LOG = (1 << 64) - 6
INODE, REF, DIR_INDEX, EXTENT_DATA, ROOT, EXTENT, CHUNK, DEV_EXTENT = 1, 12, 96, 108, 132, 168, 228, 204


def look(image: Path, **more: Any) -> dict[str, Any]:
    """A scan that must end by itself."""
    disk = DiskRequest("vda", (LayerSpec(str(image), "raw"),))
    result = scan(Request((disk,), RULES, "", ("yara",), 0, "", Limits(DEADLINE, 512 * MB, DEADLINE), **more))
    assert not [reason for reason in result["incomplete_reasons"] if "The scan did not end" in reason]
    return result


def told(result: dict[str, Any]) -> str:
    return " ".join(result["incomplete_reasons"])


def paths(result: dict[str, Any]) -> list[str]:
    return sorted(found["path"] for found in result["findings"])


def made(place: Path, files: dict[str, bytes], *options: str) -> Path:
    if not shutil.which("mkfs.btrfs"):
        pytest.skip("mkfs.btrfs is not installed")
    image = place / "btrfs.img"
    with image.open("wb") as file:
        file.truncate(128 * MB)
    disks.run("mkfs.btrfs", "-q", "-f", *options, "-r", disks.tree(place / "tree", files), image)
    return image


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    many = {f"many/{number}": b"%d" % number for number in range(600)}
    return made(tmp_path_factory.mktemp("btrfs"), {**SAMPLES, **many}).read_bytes()


@pytest.mark.parametrize("options", ["", "-m single", "-d dup", "-n 65536", "--csum sha256"])
def test_what_an_undamaged_one_holds_is_judged(tmp_path: Path, options: str) -> None:
    result = look(made(tmp_path, SAMPLES, *options.split()))
    assert (paths(result), told(result)) == (["/dir/evil.com", "/dir/large"], "")


def test_an_undamaged_one_may_be_clean(tmp_path: Path) -> None:
    result = look(made(tmp_path, disks.harmless()))
    assert (result["verdict"], result["incomplete_reasons"]) == ("clean", [])


def test_what_linux_showed_is_read(tmp_path: Path) -> None:
    record = btrfs.load(btrfs.SNAPSHOTS)
    found, walk = btrfs.read(record.put(tmp_path / "image"))
    assert len(record.seen) > 30
    assert btrfs.differences(record.seen, found) == []
    assert btrfs.doubts_of(walk) == []


@pytest.mark.parametrize("seed", range(900, 903))
def test_what_linux_shows_is_read(tmp_path: Path, seed: int) -> None:
    image = tmp_path / "image"
    try:
        how = btrfs.made_by_chance(image, seed, 120)
    except (RuntimeError, FileNotFoundError) as exc:
        pytest.skip(f"nothing can be mounted here: {exc}")
    found, walk = btrfs.read(image)
    assert btrfs.doubts_of(walk) == [], how
    with btrfs.mounted_with(image, "loop,ro,subvolid=5") as root:
        assert btrfs.differences(btrfs.seen(root), found) == [], how


def test_paths_count_from_a_subvolume_as_well(tmp_path: Path) -> None:
    record = btrfs.load(btrfs.SNAPSHOTS)
    path = next(path for path in sorted(record.seen) if path.startswith("/top/zlib/plain"))
    indicators = Indicators(paths=frozenset([path.removeprefix("/top")]))
    result = look(record.put(tmp_path / "image"), indicators=indicators)
    assert path in paths(result)


# --- A log -----------------------------------------------------------------------------------------------------------


def test_what_linux_made_of_a_log_is_read(tmp_path: Path) -> None:
    record = btrfs.load(btrfs.LOGGED)
    lacking, walk = btrfs.missed(record.seen, record.put(tmp_path / "image"))
    assert (lacking, btrfs.doubts_of(walk)) == ([], [])
    assert {"/old", "/shorter", "/d/new", "/d/small"} <= record.seen.keys()


def test_samples_that_only_the_log_knows_are_found(tmp_path: Path) -> None:
    image = btrfs.load(btrfs.LOGGED).put(tmp_path / "image")
    result = look(image)
    assert (paths(result), told(result)) == (["/d/new", "/old"], "")
    disks.write_at(image, SUPER + 96, bytes(8))
    disks.write_at(image, SUPER, checksum(0, image.read_bytes()[SUPER + 32 : SUPER + 4096]))
    assert look(image)["verdict"] == "clean"


@pytest.mark.parametrize("seed", range(900, 902))
def test_what_linux_makes_of_a_log_is_read(tmp_path: Path, seed: int) -> None:
    crashed = tmp_path / "crashed.img"
    try:
        btrfs.made_by_chance(tmp_path / "image", seed, 60, crashed)
    except (RuntimeError, FileNotFoundError) as exc:
        pytest.skip(f"nothing can be mounted here: {exc}")
    replayed = Path(shutil.copy(crashed, tmp_path / "replayed.img"))
    with btrfs.mounted_with(replayed, "loop,subvolid=5") as root:
        lacking, _walk = btrfs.missed(btrfs.seen(root), crashed)
    assert lacking == []


@pytest.mark.parametrize("at", [0, 48, 80, 96, 100, 110, 130])
def test_a_log_that_is_damaged_is_told(tmp_path: Path, at: int) -> None:
    image = btrfs.load(btrfs.LOGGED).put(tmp_path / "image")
    raw = image.read_bytes()
    log = raw[SUPER + 96 : SUPER + 104]
    identity = raw[SUPER + 32 : SUPER + 48]
    nodes = [node for node in range(0, len(raw), 4096) if raw[node + 32 : node + 56] == identity + log]
    assert len(nodes) == 1
    disks.write_at(image, nodes[0] + at, b"\xff" * 4)
    assert "what its log will make of it at the next mount is not known" in told(look(image))


def test_a_directory_that_its_log_moves_is_told(tmp_path: Path) -> None:
    """Where the files below would be then is not looked for."""
    record = btrfs.load(btrfs.LOGGED)
    forger = Forger(record.image, 4096)
    for item in forger.items(INODE, LOG):
        if struct.unpack_from("<I", forger.raw, item.at + 52)[0] & 0o170000 == 0o040000 and item.number > 256:
            break
    else:
        pytest.fail("there is no directory in the log")
    for name in forger.items(REF, LOG):
        if name.number == item.number:
            forger.put(name.at + 10, b"e")
    assert "it gives directories another place" in told(look(forger.save(tmp_path / "forged.img")))


SMALL = {"a": b"x" * 9000, "b": b"y" * len(disks.EICAR)}
SYSTEM, REGULAR, FIFO = 2, 0o100644, 0o010644


def inline(data: bytes) -> bytes:
    return struct.pack("<QQBBHB", 1, len(data), 0, 0, 0, 0) + data


def parts_of(forger: Forger, name: str) -> tuple[int, bytearray, bytearray]:
    """A file's number, the item of its inode, and its first extent."""
    number = next(
        struct.unpack_from("<Q", forger.raw, item.at)[0]
        for item in forger.items(DIR_INDEX, 5)
        if forger.raw[item.at + 30 : item.at + item.size] == name.encode()
    )
    inode, extent = (
        next(forger.raw[item.at : item.at + item.size] for item in forger.items(kind, 5) if item.number == number)
        for kind in (INODE, EXTENT_DATA)
    )
    return number, inode, extent


def test_a_log_that_tells_nothing_of_a_file_but_its_content_is_judged(tmp_path: Path) -> None:
    """Without a generation its inode says only that there is one, so that Linux leaves it a file."""
    forger = Forger(made(tmp_path, SMALL).read_bytes())
    number, inode, _extent = parts_of(forger, "b")
    struct.pack_into("<Q", inode, 0, 0)
    struct.pack_into("<I", inode, 52, FIFO)
    forger.add_log(5, [(number, INODE, 0, bytes(inode)), (number, EXTENT_DATA, 0, inline(disks.EICAR))])
    assert paths(look(forger.save(tmp_path / "forged.img"))) == ["/b"]


def test_what_its_log_makes_a_file_is_judged(tmp_path: Path) -> None:
    forger = Forger(made(tmp_path, {**SMALL, "b": disks.EICAR}).read_bytes())
    number, inode, _extent = parts_of(forger, "b")
    for item in forger.items(INODE, 5):
        if item.number == number:
            forger.put(item.at + 52, struct.pack("<I", FIFO))
    assert look(forger.save(tmp_path / "before.img"))["verdict"] == "clean"
    forger.add_log(5, [(number, INODE, 0, bytes(inode))])
    assert paths(look(forger.save(tmp_path / "forged.img"))) == ["/b"]


def test_copies_of_data_that_only_the_log_knows_are_compared(tmp_path: Path) -> None:
    """Linux reads the second one where the first does not fit its checksum."""
    forger = Forger(made(tmp_path, SMALL, "-d", "dup").read_bytes())
    number, inode, extent = parts_of(forger, "a")
    fs = forger.opened()
    data = next(chunk for chunk in fs.chunks if chunk.kind & 1)
    struct.pack_into("<Q", extent, 21, data.end - 12288)
    forger.put(fs.copies(data.end - 12288, 12288)[1], disks.MARKER)
    forger.add_log(5, [(number, INODE, 0, bytes(inode)), (number, EXTENT_DATA, 0, bytes(extent))])
    assert "copies of its data differ" in told(look(forger.save(tmp_path / "forged.img")))


# --- What an attacker wrote ------------------------------------------------------------------------------------------


def forged(raw: bytes, place: Path, change: Callable[[Forger], object]) -> dict[str, Any]:
    forger = Forger(raw)
    change(forger)
    result = look(forger.save(place / "forged.img"))
    assert result["incomplete_reasons"]
    return result


def in_a_circle(forger: Forger) -> None:
    assert forger.inner()
    for at in forger.inner():
        for number in range(forger.count(at)):
            forger.put(at + HEAD + number * POINTER + 17, bytes(forger.raw[at + 48 : at + 56]))


def of_absurd_counts(forger: Forger) -> None:
    for at in forger.nodes:
        forger.put(at + 96, b"\xff" * 4)


def without_items(forger: Forger) -> None:
    for at in forger.nodes:
        forger.put(at + 96, bytes(4))


def without_order(forger: Forger) -> None:
    for item in forger.items(DIR_INDEX):
        forger.number(item.row + 9, 1 << 60)


def overlapping(forger: Forger) -> None:
    for item in forger.items(EXTENT_DATA, 5):
        forger.put(item.row + 17, struct.pack("<I", 100))


def directories_that_hold_each_other(forger: Forger) -> None:
    """Each is in itself."""
    for item in forger.items(INODE):
        if struct.unpack_from("<I", forger.raw, item.at + 52)[0] & 0o170000 == 0o040000 and item.number > 256:
            for name in forger.items(REF):
                if name.number == item.number:
                    forger.number(name.row + 9, item.number + 1)


def packed_parts_of_absurd_size(forger: Forger) -> None:
    for item in forger.items(EXTENT_DATA):
        if item.size == 53:
            forger.number(item.at + 8, 1 << 40)
            forger.put(item.at + 16, b"\1")


def files_of_absurd_size(forger: Forger) -> None:
    for item in forger.items(INODE, 5):
        if item.number > 256:
            forger.number(item.at + 16, 1 << 62)


def a_name_that_only_the_list_has(forger: Forger) -> None:
    for item in forger.items(DIR_INDEX):
        if forger.raw[item.at + 30 : item.at + 35] == b"large":
            forger.put(item.at + 30, b"other")


def a_file_of_other_extents(forger: Forger) -> None:
    """The sample lies where no file leads to."""
    for item in forger.items(EXTENT_DATA):
        if item.size == 53 and struct.unpack_from("<Q", forger.raw, item.at + 29)[0] > 50_000:
            forger.number(item.at + 21, 0)


def a_file_that_is_none(forger: Forger) -> None:
    for item in forger.items(INODE, 5):
        if struct.unpack_from("<Q", forger.raw, item.at + 16)[0] == len(SAMPLE):
            forger.put(item.at + 52, struct.pack("<I", 0o010644))


def a_file_that_is_empty(forger: Forger) -> None:
    for item in forger.items(INODE, 5):
        if struct.unpack_from("<Q", forger.raw, item.at + 16)[0] == len(SAMPLE):
            forger.number(item.at + 16, 0)


def an_extent_that_is_not_in_use(forger: Forger) -> None:
    for item in forger.items(EXTENT):
        if item.offset > 50_000:
            forger.number(item.row + 9, item.offset - 4096)


def a_copy_that_differs(forger: Forger) -> None:
    copies = [item for item in forger.items(DIR_INDEX) if forger.raw[item.at + 30 : item.at + 35] == b"large"]
    assert len(copies) == 2
    forger.put(copies[1].at + 30, b"other")


def a_superblock_that_is_newer(forger: Forger) -> None:
    forger.number(MIRROR + 72, 1 << 40)


def an_unknown_feature(forger: Forger) -> None:
    forger.number(SUPER + 188, struct.unpack_from("<Q", forger.raw, SUPER + 188)[0] | 1 << 40)


def several_devices(forger: Forger) -> None:
    forger.number(SUPER + 136, 2)


def a_chunk_that_its_superblock_places_elsewhere(forger: Forger) -> None:
    """Which counts for Linux, whatever the tree of chunks tells."""
    chunk = next(item for item in forger.items(CHUNK) if forger.raw[item.at + 24] & 1)
    raw = forger.raw[chunk.at : chunk.at + chunk.size]
    struct.pack_into("<Q", raw, 24, SYSTEM)
    struct.pack_into("<Q", raw, 56, 100 * MB)
    (length,) = struct.unpack_from("<I", forger.raw, SUPER + 160)
    entry = struct.pack("<QBQ", 256, CHUNK, chunk.offset) + raw
    forger.put(SUPER + 811 + length, entry)
    forger.put(SUPER + 160, struct.pack("<I", length + len(entry)))


def a_tree_on_its_way(forger: Forger) -> None:
    """What the next mount would put in place of parts of another one."""
    for item in forger.items(ROOT, 1):
        if item.number == (1 << 64) - 9:
            forger.put(item.row, struct.pack("<QBQ", (1 << 64) - 8, ROOT, 5))


def files_in_another_tree(forger: Forger) -> None:
    """Older kernels follow a directory into any tree."""
    for item in list(forger.items(DEV_EXTENT, 4)):
        forger.put(item.row + 8, bytes([INODE]))


def an_inode_that_is_elsewhere(forger: Forger) -> None:
    """Linux looks at 0 only."""
    for item in forger.items(INODE, 5):
        if item.number > 256:
            forger.number(item.row + 9, 1)


def other_sums(forger: Forger) -> None:
    forger.put(SUPER + 196, b"\1\0")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (in_a_circle, "it is not the one that is meant"),
        (of_absurd_counts, ""),
        (without_items, "its chunks overlap, or there are none"),
        (without_order, "its keys are not in order"),
        (overlapping, "its items overlap"),
        (directories_that_hold_each_other, "directories of tree 5 have no name, or hold each other"),
        (files_of_absurd_size, ""),
        (packed_parts_of_absurd_size, "/dir/large on volume 1 of disk vda: it was not read: a packed part of it is of"),
        (a_name_that_only_the_list_has, "directories of tree 5 name other files than there are"),
        (a_file_of_other_extents, "extents are in use, but no file has them"),
        (a_file_that_is_none, "extents are in use, but no file has them"),
        (an_extent_that_is_not_in_use, "an extent is of another size than its files tell"),
        (a_copy_that_differs, "the copies of a node differ"),
        (a_superblock_that_is_newer, "a copy of its superblock is another one"),
        (an_unknown_feature, "it has what is not known here (feature 40)"),
        (several_devices, "it lies on 2 devices"),
        (a_chunk_that_its_superblock_places_elsewhere, "its superblock places chunks elsewhere"),
        (a_tree_on_its_way, "it was being balanced"),
        (files_in_another_tree, "tree 4 holds files, which are not looked for there"),
        (an_inode_that_is_elsewhere, "of tree 5 was not read: it is damaged"),
        (other_sums, "its checksums are of a kind that is not known here"),
    ],
)
def test_one_that_lies_is_told(raw: bytes, tmp_path: Path, change: Callable[[Forger], object], words: str) -> None:
    result = forged(raw, tmp_path, change)
    assert result["verdict"] != "clean"
    assert words in told(result)


def test_what_lies_behind_the_end_of_a_file_is_matched(raw: bytes, tmp_path: Path) -> None:
    forger = Forger(raw)
    a_file_that_is_empty(forger)
    result = look(forger.save(tmp_path / "forged.img"))
    assert "(beside the file system)" in {found["path"] for found in result["indicators"]}


def test_what_is_packed_is_never_only_reserved(tmp_path: Path) -> None:
    """Linux unpacks it all the same."""
    record = btrfs.load(btrfs.SNAPSHOTS)
    forger = Forger(record.image, 4096)
    for item in list(forger.items(EXTENT_DATA)):
        if item.size == 53 and forger.raw[item.at + 16]:
            forger.put(item.at + 20, b"\2")
    found, _walk = btrfs.read(forger.save(tmp_path / "forged.img"))
    assert btrfs.differences(record.seen, found) == []


def test_a_subvolume_that_is_hidden_is_told(tmp_path: Path) -> None:
    forger = Forger(btrfs.load(btrfs.SNAPSHOTS).image, 4096)
    roots = [item for item in forger.items(ROOT, 1) if item.number >= 256 and item.number < 1 << 63]
    assert roots
    for item in roots:
        forger.put(item.row + 8, bytes([ROOT + 1]))
    result = look(forger.save(tmp_path / "forged.img"))
    assert "nodes of trees are in use, but not reached" in told(result)


def test_a_damaged_copy_hides_nothing(raw: bytes, tmp_path: Path) -> None:
    forger = Forger(raw)
    image = forger.save(tmp_path / "forged.img")
    first = {forger.raw[at + 48 : at + 56].hex(): at for at in reversed(forger.nodes)}
    for at in first.values():
        disks.write_at(image, at + 1000, b"damaged")
    result = look(image)
    assert paths(result) == ["/dir/evil.com", "/dir/large"]
    assert "a copy of a node is damaged, which `btrfs scrub` repairs" in told(result)


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_one_ends_and_is_never_clean(raw: bytes, tmp_path: Path, seed: int) -> None:
    chance, forger = random.Random(seed), Forger(raw)
    for _change in range(8):
        at = chance.choice(forger.nodes) + chance.randrange(48, 400) if seed % 3 else SUPER + chance.randrange(72, 811)
        forger.put(at, bytes([chance.choice((0, 1, 0x7F, 0xFF))]))
    assert look(forger.save(tmp_path / "forged.img"))["verdict"] != "clean"


# --- Parts -----------------------------------------------------------------------------------------------------------


def test_what_is_packed_by_zstd_is_told_where_its_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MISSING, "zstd", "backports.zstd")
    with pytest.raises(NotReadable, match="Install the Python library backports.zstd on the host that scans"):
        unpack(3, b"\x28\xb5\x2f\xfd", 4096, 4096)


def test_a_hole_that_overlaps_is_told() -> None:
    """Linux may read either."""
    inode = Inode(5, 257)
    for offset, start in ((0, 0), (4096, 1 << 24)):
        inode.add(EXTENT_DATA, offset, struct.pack("<QQBBHBQQQQ", 1, 8192, 0, 0, 0, 1, start, 8192, 0, 8192))
    with pytest.raises(NotReadable, match="its extents overlap"):
        inode.pieces()


def test_a_content_at_the_start_of_the_volume_is_compared_with_the_former_one() -> None:
    piece = Piece(0, 1 << 24, 4096, 0, 4096, 4096, 0)
    assert Content(Blocks(), lambda address, length: 0, 4096, [piece], 4096).layout().runs == ((0, 4096),)


@pytest.mark.parametrize("size", [4, 100, 4064, 16352, 65504])
def test_a_checksum_that_is_folded_is_the_same(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert checksum(0, data) == (crc32c(0xFFFFFFFF, data) ^ 0xFFFFFFFF).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        (b"\x15abcd\x11\0\0", b"abcd"),
        (b"\x01abcd\x11\0\0", b"abcd"),
        (b"\x15abcd\x21\x0c\0\x11\0\0", b"abcd" + b"abc"),
        (b"\x12a\x2f\0\0\x11\0\0", b"a" * 18),
    ],
)
def test_lzo_is_unpacked(packed: bytes, plain: bytes) -> None:
    assert lzo(packed, 4096) == plain


@pytest.mark.parametrize(
    "packed", [b"\x12", b"\x15abcd", b"\x15abcd\x21\xff\xff", b"\x11\1\0\0\0", b"\0" * 9000 + b"\1"]
)
def test_lzo_that_is_damaged_is_told(packed: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        lzo(packed, 4096)
