# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images made to harm the scanner: it does not crash, hang or swell; what is there is found; unread is not clean."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import zipfile
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Blocks, Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.delta import judge_ext_file, look_for_paths
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Content, Hit
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ext4 import Ext4
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ext4_judge import judge_files
from ansible_collections.vmward.remediation.plugins.module_utils._scan.inside import Archives
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import Indicators
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import (
    DiskRequest,
    LayerSpec,
    Request,
    scan,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Where
from ansible_collections.vmward.remediation.tests.corpus import clam, disks
from ansible_collections.vmward.remediation.tests.corpus.direct import Golden
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

ROOT = Path(__file__).resolve().parents[2]
MB = disks.MB
DEADLINE = 60


def look(image: Path, kind: str = "raw", memory: int = 512 * MB, **changes: Any) -> dict[str, Any]:
    """A scan that must end by itself, within its deadline and its memory."""
    settings: dict[str, Any] = {"clamd_socket": "", "engines_required": ("yara",), **changes}
    layers = (LayerSpec(str(image), kind),)
    request = Request((DiskRequest("vda", layers),), RULES, max_file_size=0, progress_file="",
                      limits=Limits(DEADLINE, memory, DEADLINE), **settings)  # fmt: skip
    result = scan(request)
    assert not [reason for reason in result["incomplete_reasons"] if "The scan did not end" in reason]
    assert result["seconds"] < DEADLINE
    return result


def paths(result: dict[str, Any]) -> list[str]:
    return sorted(found["path"] for found in result["findings"])


def debug(image: Path, *requests: str) -> None:
    disks.debugfs(image, *requests)


# --- directories -----------------------------------------------------------------------------------------------------


def test_directories_in_a_circle_end_and_hide_nothing(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", {"a/b/c/evil.com": disks.EICAR, "ok": b"x"}, 32 * MB)
    debug(image, "link /a /a/b/c/loop", "link / /a/b/up")
    result = look(image)
    assert len(paths(result)) == 1
    assert paths(result)[0].endswith("evil.com")


def test_a_circle_that_hangs_from_nothing_ends_and_hides_nothing(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", {"a/b/evil.com": disks.EICAR, "ok": b"x"}, 32 * MB)
    debug(image, "link /a /a/b/a", "unlink /a")
    (path,) = paths(look(image))
    assert path.endswith("...") or path.endswith("evil.com")
    assert len(path) <= 512


def test_a_very_deep_tree_ends(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", {"/".join(["d" * 20] * 150 + ["evil.com"]): disks.EICAR}, 32 * MB)
    assert len(paths(look(image))) == 1


@pytest.mark.parametrize(
    "name",
    [b"\x1b[2J\x1b]0;owned\x07evil", b"line\nbreak", "right\u202eto-left".encode(), b"\xff\xfe\x80", b"e" * 255],
    ids=["terminal", "newline", "direction", "no-utf8", "longest"],
)
def test_a_name_cannot_leave_its_line(tmp_path: Path, name: bytes) -> None:
    source = tmp_path / "source"
    source.mkdir()
    Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(disks.EICAR)
    image = tmp_path / "d.img"
    image.touch()
    os.truncate(image, 16 * MB)
    disks.run("mke2fs", "-q", "-F", "-t", "ext4", "-d", source, image)
    (path,) = paths(look(image))
    assert path.isprintable()
    assert path.startswith("/")
    assert len(path) <= 512


def crowded(place: Path, count: int) -> Path:
    """One directory that names `count` files, written by hand (mke2fs takes an hour). The last one holds the marker."""
    options = (
        "-b",
        "4096",
        "-I",
        "256",
        "-N",
        str(count + 2000),
        "-O",
        "inline_data,^has_journal,^metadata_csum,^uninit_bg",
    )
    (place / "tree").mkdir()
    names = b"".join(struct.pack("<IHBB", 100 + n, 16, 7, 1) + b"f%06d\0" % n for n in range(count))
    blocks = b"".join(names[at : at + 4096].ljust(4096, b"\0") for at in range(0, len(names), 4096))
    last = len(names) % 4096
    if last:  # the last entry of a block reaches to its end
        at = len(blocks) - 4096 + last - 16
        blocks = blocks[: at + 4] + struct.pack("<H", 4096 - last + 16) + blocks[at + 6 :]
    image = disks.ext4(place / "d.img", {"many": blocks}, 96 * MB, *options)
    attribute = struct.pack("<IBBHIII4s", 0xEA020000, 4, 7, 0, 0, 0, 0, b"data")  # that its content lies in the inode
    per_group = int(disks.run("dumpe2fs", "-h", image).split("Inodes per group:")[1].split()[0])
    tables = [int(part.split("-")[0]) for part in disks.run("dumpe2fs", image).split("Inode table at ")[1:]]
    with image.open("r+b") as file:
        for number in range(100, 100 + count):
            data = disks.MARKER if number == 99 + count else b"%d" % number
            inode = struct.pack("<HHI16xHHII4x", 0o100644, 0, len(data), 0, 1, 0, 0x10000000) + data.ljust(60, b"\0")
            file.seek(tables[(number - 1) // per_group] * 4096 + (number - 1) % per_group * 256)
            file.write(inode.ljust(128, b"\0") + struct.pack("<H30x", 32) + attribute.ljust(96, b"\0"))
    debug(image, "sif /many mode 0x41ed")
    return image


def test_a_hundred_thousand_files_in_one_directory(tmp_path: Path) -> None:
    result = look(crowded(tmp_path, 100_000), memory=256 * MB)
    assert result["files"] >= 100_000
    assert paths(result) == ["/many/f099999"]


# --- sizes and structure ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return disks.ext4(tmp_path_factory.mktemp("plain") / "d.img", disks.harmless(), 32 * MB).read_bytes()


@pytest.mark.parametrize(
    ("place", "data"),
    [
        (1024 + 0, b"\xff\xff\xff\xff"),  # inodes
        (1024 + 4, b"\xff\xff\xff\xff"),  # blocks
        (1024 + 24, b"\x06\0\0\0"),  # the size of a block: 64 KiB
        (1024 + 24, b"\xff\xff\xff\xff"),  # an impossible one
        (1024 + 32, b"\0\0\0\0"),  # no block in a group
        (1024 + 32, b"\x01\0\0\0"),  # one block in a group: millions of groups
        (1024 + 40, b"\x01\0\0\0"),  # one inode in a group
        (1024 + 40, b"\xff\xff\xff\x7f"),  # more inodes in a group than a bitmap holds
        (1024 + 88, b"\xff\xff"),  # the size of an inode
        (1024 + 88, b"\x01\0"),
        (1024 + 254, b"\xff\xff"),  # the size of a group's description
        (1024 + 336, b"\xff\xff\xff\x7f"),  # blocks, upper half
        (1024 + 372, b"\xff"),  # the size of a flexible group
        (2048, b"\xff" * 256),  # the groups' descriptions
        (2048, b"\0" * 256),
    ],
)
def test_absurd_sizes_end_soon_and_are_not_clean(tmp_path: Path, plain: bytes, place: int, data: bytes) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(plain)
    disks.write_at(image, place, data)
    result = look(image)
    harmless_field = place == 1024 + 372
    assert (result["verdict"] == "clean") is harmless_field


def test_an_extent_tree_that_points_to_itself_ends(tmp_path: Path, plain: bytes) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(plain)
    block = 6000
    index = struct.pack("<HHHHI", 0xF30A, 1, 4, 4, 0) + struct.pack("<IIHH", 0, block, 0, 0)
    disks.write_at(image, block * 1024, index.ljust(1024, b"\0"))
    for field, value in enumerate(struct.unpack("<6I", index)):
        debug(image, f"sif /usr/share/doc1/file1 block[{field}] {value:#x}")
    result = look(image)
    assert result["verdict"] == "incomplete"
    assert any("file1" in reason for reason in result["incomplete_reasons"])


@pytest.mark.parametrize("size", ["0x7fffffffffffffff", "0xffffffff", "0"])
def test_a_directory_of_an_absurd_size_ends(tmp_path: Path, plain: bytes, size: str) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(plain)
    debug(image, f"sif /usr/share size {size}")
    assert look(image)["files"] >= 40  # found by their inodes, whatever the directory says


def test_partitions_that_chain_in_a_circle_end(tmp_path: Path, plain: bytes) -> None:
    image = disks.partitioned(tmp_path / "d.img", "dos", [4 * MB])
    entry = struct.pack("<B3sB3sII", 0, b"\0\0\0", 5, b"\0\0\0", 2048, 8192)
    disks.write_at(image, 446, entry + bytes(48))
    again = struct.pack("<B3sB3sII", 0, b"\0\0\0", 5, b"\0\0\0", 0, 8192)
    disks.write_at(image, 2048 * 512 + 446, bytes(16) + again + bytes(32) + b"\x55\xaa")
    assert look(image)["verdict"] == "incomplete"


def test_a_qcow2_whose_tables_point_at_each_other_ends(tmp_path: Path, plain: bytes) -> None:
    raw = tmp_path / "d.img"
    raw.write_bytes(plain)
    image = disks.qcow2(tmp_path / "d.qcow2", raw)
    head = image.read_bytes()[:104]
    table = struct.unpack_from(">Q", head, 40)[0]
    disks.write_at(image, table, struct.pack(">Q", table | 1 << 63))
    assert look(image, "qcow2")["verdict"] == "incomplete"


def test_an_infected_file_that_claims_an_absurd_size_is_found_soon(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", {"padded": bytes(70000) + disks.MARKER}, 32 * MB)
    debug(image, "sif /padded size 0xfffffffff0")
    notice = Indicators(sha256=frozenset(["00" * 32]))
    result = look(image, indicators=notice)
    assert (paths(result), result["findings"][0]["offset"]) == (["/padded"], 70000)
    assert result["cpu_seconds"] < 10


# --- damage in one place hides nothing in another ---------------------------------------------------------------------


SPARED = {**disks.harmless(), "aaa": disks.EICAR, "zz/evil.com": disks.MARKER, "d/xxxxxxxxxxxx": b"1"}
NOTICE = Indicators(names=frozenset(["evil.com"]), paths=frozenset(["/zz/evil.com", "/d/x"]))


def assert_told(result: dict[str, Any], words: str, *more: str) -> None:
    """The samples that lie elsewhere, and the reason for the damage beside them."""
    assert result["verdict"] == "infected"
    assert {"/aaa", "/zz/evil.com", *more} <= set(paths(result))
    assert words in " ".join(result["incomplete_reasons"])


def rules(result: dict[str, Any], path: str) -> set[str]:
    return {found["rule"] for found in result["findings"] if found["path"] == path}


@pytest.mark.parametrize("size", ["0x3ffff000", "0x80000000"])
def test_a_directory_that_claims_gigabytes_hides_no_finding(tmp_path: Path, size: str) -> None:
    image = disks.ext4(tmp_path / "d.img", {**SPARED, "d/run.com": disks.EICAR}, 32 * MB)
    debug(image, f"sif /d size {size}")
    result = look(image, indicators=NOTICE)
    assert_told(result, "a directory has holes", "/d/run.com")
    assert rules(result, "/zz/evil.com") == {"vmward_inert_sample", "ioc_name", "ioc_path"}


def test_a_damaged_block_of_a_directory_hides_no_name_of_the_others(tmp_path: Path) -> None:
    many = {f"d/file{number:05}": b"1" for number in range(400)}
    files = {**SPARED, **many, "d/run.com": disks.EICAR}
    image = disks.ext4(tmp_path / "d.img", files, 32 * MB, "-b", "1024")
    blocks = [int(line) for line in disks.debugfs(image, "blocks /d").splitlines()[-1].split()]
    content = {block: image.read_bytes()[block * 1024 : (block + 1) * 1024] for block in blocks}
    damaged = next(block for block, held in content.items() if b"file00" in held and b"run.com" not in held)
    disks.write_at(image, damaged * 1024 + 4, b"\3\0")
    assert_told(look(image), "a directory is damaged", "/d/run.com")


def test_an_entry_that_names_no_inode_hides_no_other_name(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", SPARED, 32 * MB)
    disks.write_at(image, image.read_bytes().index(b"xxxxxxxxxxxx") - 8, struct.pack("<I", 0xFFFFFFF0))
    result = look(image, indicators=NOTICE)
    assert_told(result, "which does not exist")
    assert rules(result, "/zz/evil.com") == {"vmward_inert_sample", "ioc_name", "ioc_path"}


def test_a_damaged_directory_on_the_way_to_a_path_hides_no_other_path(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", SPARED, 32 * MB)
    disks.write_at(image, image.read_bytes().index(b"xxxxxxxxxxxx") - 4, b"\3\0")
    result = look(image, indicators=NOTICE)
    assert_told(result, "a directory is damaged")
    assert "ioc_path" in rules(result, "/zz/evil.com")


@pytest.mark.parametrize("damage", ["entry", "length"])
def test_damage_in_a_directory_hides_nothing_of_a_delta(tmp_path: Path, damage: str) -> None:
    harmless = {**disks.harmless(), "d/xxxxxxxxxxxx": b"1", "zz/other": b"2"}
    golden = Golden(disks.ext4(tmp_path / "d.img", harmless, 32 * MB), NOTICE)
    image = golden.copy()
    sample = tmp_path / "sample"
    sample.write_bytes(disks.MARKER)
    debug(image, f"write {sample} /zz/evil.com", "write /dev/null /d/fresh")
    at = image.read_bytes().index(b"xxxxxxxxxxxx") - 8
    disks.write_at(image, at + (0 if damage == "entry" else 4), b"\3\xff\xff\xff"[: 4 if damage == "entry" else 1])
    tally = golden.direct.look(image, True)
    told = {(finding.path, finding.rule) for finding in tally.findings}
    assert told >= {("/zz/evil.com", rule) for rule in ("vmward_inert_sample", "ioc_name", "ioc_path")}
    assert ("new", "/zz/evil.com") in {(change.kind, change.path) for change in tally.changes}
    assert tally.reasons


def index_node(depth: int, children: list[int], most: int) -> bytes:
    head = struct.pack("<HHHHI", 0xF30A, len(children), most, depth, 0)
    return head + b"".join(struct.pack("<IIHH", at, child, 0, 0) for at, child in enumerate(children))


def set_map(image: Path, path: str, content: bytes) -> None:
    debug(image, *(f"sif {path} block[{at}] {value:#x}" for at, value in enumerate(struct.unpack("<15I", content))))


def test_a_tree_of_extents_whose_branches_meet_ends_soon(tmp_path: Path) -> None:
    """Every entry of every node leads to the same node below: 4 * 84 ** 4 ways to an empty leaf."""
    image = disks.ext4(tmp_path / "d.img", SPARED, 32 * MB, "-b", "1024")
    blocks = list(range(20001, 20006))
    disks.write_at(image, 20001 * 1024, index_node(0, [], 84))
    for depth in range(1, 5):
        disks.write_at(image, blocks[depth] * 1024, index_node(depth, [blocks[depth - 1]] * 84, 84))
    set_map(image, "/usr/share/doc1/file1", index_node(5, [blocks[4]] * 4, 4))
    assert_told(look(image), "file1 on volume 1 of disk vda: it was not read")


@pytest.mark.parametrize("order", ["twice", "back"])
def test_a_tree_of_extents_has_no_node_twice_and_goes_forward(tmp_path: Path, order: str) -> None:
    image = disks.ext4(tmp_path / "d.img", SPARED, 32 * MB, "-b", "1024")
    for block, logical in ((20001, 0), (20002, 5)):
        leaf = struct.pack("<HHHHI", 0xF30A, 1, 84, 0, 0) + struct.pack("<IHHI", logical, 1, 0, 19000)
        disks.write_at(image, block * 1024, leaf)
    root = bytearray(index_node(1, [20001, 20001] if order == "twice" else [20001, 20002], 4).ljust(60, b"\0"))
    if order == "back":
        root[12:16], root[24:28] = struct.pack("<I", 5), struct.pack("<I", 5)
    set_map(image, "/usr/share/doc1/file1", bytes(root))
    words = "the same block twice" if order == "twice" else "extent tree is damaged"
    assert_told(look(image), words)


def test_an_older_map_whose_branches_meet_ends_soon(tmp_path: Path) -> None:
    """Three levels of 1,024 pointers to the same block below, and nothing at their end."""
    image = disks.ext4(tmp_path / "d.img", SPARED, 32 * MB, "-b", "4096", "-O", "^extents,^64bit")
    disks.write_at(image, 7003 * 4096, struct.pack("<1024I", *[7002] * 1024))
    disks.write_at(image, 7002 * 4096, struct.pack("<1024I", *[7001] * 1024))
    disks.write_at(image, 7001 * 4096, bytes(4096))
    slots = [f"sif /usr/share/doc1/file1 block[{at}] 0" for at in range(14)]
    debug(image, *slots, "sif /usr/share/doc1/file1 block[TIND] 7003", "sif /usr/share/doc1/file1 size 0x3fffffff000")
    assert_told(look(image), "the same block twice")


def test_a_file_that_says_its_blocks_lie_at_many_places_ends_soon(tmp_path: Path) -> None:
    """No more blocks are read for one file than the file system has."""
    image = disks.ext4(tmp_path / "d.img", SPARED, 32 * MB, "-b", "1024")
    places = (struct.pack("<IHHI", at * 32000, 32000, 0, 1) for at in range(84))
    disks.write_at(image, 20001 * 1024, struct.pack("<HHHHI", 0xF30A, 84, 84, 0, 0) + b"".join(places))
    set_map(image, "/usr/share/doc1/file1", index_node(1, [20001], 4).ljust(60, b"\0"))
    debug(image, f"sif /usr/share/doc1/file1 size {84 * 32000 * 1024}")
    result = look(image)
    assert_told(result, "more blocks than the file system has")
    assert result["bytes_read"] < 64 * MB


class Counted(Blocks):
    """Counts what is read at which block."""

    def __init__(self, image: Path) -> None:
        self._source = Raw(os.open(image, os.O_RDONLY))
        self.size = self._source.size
        self.reads: Counter[int] = Counter()

    def read(self, offset: int, length: int) -> bytes:
        self.reads[offset] += 1
        return self._source.read(offset, length)


def test_the_map_of_a_scattered_file_is_read_once(tmp_path: Path) -> None:
    source, image = tmp_path / "source", tmp_path / "d.img"
    source.mkdir()
    with (source / "db").open("wb") as file:
        for at in range(1000):
            file.seek(at * 262144)
            file.write(b"row%d" % at)
    image.touch()
    os.truncate(image, 32 * MB)
    disks.run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-d", source, image)
    volume = Counted(image)
    fs = Ext4(volume)
    (inode,) = (inode for inode in fs.used_inodes() if inode.size > 100 * MB)
    nodes: list[int] = []
    assert len(fs.spans(inode, nodes)) == 1000
    volume.reads.clear()
    rows: list[bytes] = []

    class Engine:
        name = "yara"

        def scan(self, content: Content) -> tuple[list[Hit], str]:
            rows.extend(data.rstrip(b"\0") for _at, data in content.windows())
            return [], ""

        def describe(self) -> dict[str, Any]:
            return {}

        def testing(self) -> AbstractContextManager[None]:
            return nullcontext()

    judge = Judge([Engine()], lambda _kind, _body: None, MB)
    judge_ext_file(judge, Where("vda", 1), fs, volume, inode, lambda _number: b"/db", True)
    assert rows == [b"row%d" % at for at in range(1000)]
    assert len(nodes) > 10
    assert {volume.reads[node * 1024] for node in nodes} == {1}


def test_a_directory_is_read_once_for_all_paths_below_it(tmp_path: Path) -> None:
    files = {f"tmp/a/file{number}": b"1" for number in range(400)}
    image = disks.ext4(tmp_path / "d.img", files, 32 * MB, "-b", "1024")
    volume = Counted(image)
    wanted = {f"/tmp/a/evil{number}" for number in range(300)} | {"/tmp/a/file7", "/tmp", "/tmp/a/file7/below", "/no/x"}
    told: list[tuple[str, dict[str, Any]]] = []
    judge = Judge([], lambda kind, body: told.append((kind, body)), MB, indicators=Indicators(paths=frozenset(wanted)))
    look_for_paths(judge, Where("vda", 1), Ext4(volume))
    judge.flush()
    assert {body["path"] for kind, body in told if kind == "finding"} == {"/tmp/a/file7", "/tmp"}
    assert not [kind for kind, _body in told if kind == "reason"]
    blocks = [int(block) for block in disks.debugfs(image, "blocks /tmp/a").splitlines()[-1].split()]
    assert {volume.reads[block * 1024] for block in blocks} <= {0, 1}


def test_large_files_are_judged_last(tmp_path: Path) -> None:
    """So that a file without an end takes nothing from the others."""
    image = disks.ext4(tmp_path / "d.img", {"a": b"1", "b": disks.EICAR, "c": b"3"}, 32 * MB)
    debug(image, "sif /a size 0x10000000000")
    order: list[int] = []

    class Engine:
        name = "yara"

        def scan(self, content: Content) -> tuple[list[Hit], str]:
            order.append(content.size)
            return [], ""

        def describe(self) -> dict[str, Any]:
            return {}

        def testing(self) -> AbstractContextManager[None]:
            return nullcontext()

    volume = Raw(os.open(image, os.O_RDONLY))
    judge = Judge([Engine()], lambda _kind, _body: None, MB)
    judge_files(judge, Where("vda", 1), volume, Ext4(volume), True)
    assert order[-1] == 1 << 40
    assert sorted(order)[:2] == [1, len(disks.EICAR)]


# --- bombs -----------------------------------------------------------------------------------------------------------


def bombs() -> dict[str, bytes]:
    """Small files that unpack to gigabytes, one of them through layers."""
    zeros = gzip.compress(bytes(64 * MB), 9)
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"part{number}", zeros)
    layers = disks.EICAR
    for _layer in range(60):
        layers = gzip.compress(layers)
    return {"bomb.gz": zeros * 20, "many.zip": many.getvalue(), "deep.gz": layers}


def test_bombs_are_unpacked_as_far_as_little_memory_allows(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", {**bombs(), "evil.com": disks.EICAR}, 64 * MB)
    result = look(image, memory=256 * MB)  # the scan's process may not have more, and would not end well
    assert (result["verdict"], paths(result)) == ("infected", ["/evil.com"])
    reasons = result["incomplete_reasons"]
    assert {name for name in bombs() if any(name in reason for reason in reasons)} == set(bombs())
    assert not [reason for reason in reasons if "MemoryError" in reason]


def test_bombs_that_are_not_unpacked_are_no_reason(tmp_path: Path) -> None:
    image = disks.ext4(tmp_path / "d.img", {**bombs(), "evil.com": disks.EICAR}, 64 * MB)
    result = look(image, memory=256 * MB, archives=Archives(depth=0))
    assert (result["verdict"], paths(result), result["incomplete_reasons"]) == ("infected", ["/evil.com"], [])


@pytest.mark.parametrize(("told", "required"), [(True, True), (False, True), (False, False)])
def test_a_bomb_beyond_the_limits_of_clamd_is_told(tmp_path: Path, told: bool, required: bool) -> None:
    if not shutil.which("clamd"):
        pytest.skip("clamd is not installed")
    image = disks.ext4(tmp_path / "d.img", {**bombs(), "fine.gz": gzip.compress(b"x" * 1000)}, 64 * MB)
    with clam.daemon(tells_limits=told) as path:
        engines = ("yara", "clamd") if required else ("yara",)
        result = look(image, clamd_socket=path, engines_required=engines, archives=Archives(depth=0))
    named = {name for name in (*bombs(), "fine.gz") for reason in result["incomplete_reasons"] if name in reason}
    assert named == (set(bombs()) if told else set()), "clamd itself names them, or nobody can"
    where = "incomplete_reasons" if required else "coverage_notes"
    assert any("AlertExceedsMax" in text for text in result[where]) is not told
    assert result["verdict"] == ("incomplete" if required else "clean")
