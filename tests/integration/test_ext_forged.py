# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of ext4 was forged to look one way to a scan and another to Linux: refused, or read as Linux does."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ext4 import Ext4
from ansible_collections.vmward.remediation.plugins.module_utils._scan.journal import crc32c
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct
from ansible_collections.vmward.remediation.tests.corpus.ext_journal import BLOCK, PLAIN, Journal
from ansible_collections.vmward.remediation.tests.corpus.mounting import mounted

MB = disks.MB
FINE = b"#!/bin/sh\ntrue\n".ljust(BLOCK, b"#")
EVIL = (b"#!/bin/sh\n" + disks.MARKER + b"\n").ljust(BLOCK, b"#")
INSIDE = "its journal writes into itself"
FOR_GOOD = "its journal changes what Linux goes by before it replays it"


class Pair:
    """A clean file system with a script, the same one that was found clean before, and where the script lies."""

    def __init__(self, place: Path, *options: str) -> None:
        self.clean = disks.ext4(place / "clean.img", {**disks.harmless(8), "run": FINE}, 24 * MB, *PLAIN, *options)
        self.script = int(disks.run("debugfs", "-R", "bmap /run 0", self.clean).split()[-1])
        self.direct = Direct(self.clean)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def image(pair: Pair, tmp_path: Path) -> Path:
    return Path(shutil.copy(pair.clean, tmp_path / "d.img"))


def seen(pair: Pair, image: Path) -> list[Tally]:
    """As a whole, and on top of what was found clean."""
    return [pair.direct.look(image, on_top) for on_top in (False, True)]


def as_linux_sees_it(image: Path, name: str) -> bytes:
    copy = Path(shutil.copy(image, image.with_suffix(".linux")))
    with mounted(copy) as root:
        return (root / name).read_bytes()


def as_e2fsck_makes_it(image: Path, name: str) -> bytes:
    copy = Path(shutil.copy(image, image.with_suffix(".e2fsck")))
    subprocess.run(["e2fsck", "-y", copy], capture_output=True, check=False)
    done = subprocess.run(["debugfs", "-R", f"cat /{name}", copy], capture_output=True, check=True)
    return done.stdout


def superblock(image: Path) -> bytearray:
    return bytearray(image.read_bytes()[1024:2048])


def block_0(sb: bytearray) -> bytes:
    return (bytes(1024) + sb).ljust(BLOCK, b"\0")


def test_a_journal_is_read_as_linux_reads_it(pair: Pair, image: Path) -> None:
    journal = Journal(image)
    journal.commit({pair.script: FINE})
    journal.commit({pair.script: EVIL})
    journal.end()
    for tally in seen(pair, image):
        assert [found.path for found in tally.findings] == ["/run"]
        assert tally.verdict().value == "infected"
    assert as_linux_sees_it(image, "run") == EVIL


# --- the superblock in the journal ------------------------------------------------------------------------------------


def test_a_journal_that_makes_another_file_system_of_it_is_refused(pair: Pair, tmp_path: Path) -> None:
    """Linux has taken the size of blocks, and where all lies, from what lay there before."""
    image = disks.ext4(tmp_path / "d.img", {**disks.harmless(8), "run": EVIL}, 24 * MB, *PLAIN, "-N", "128")
    decoy, bad = tmp_path / "decoy.img", tmp_path / "bad"
    bad.write_text("\n".join(map(str, range(4, 7000))))
    with decoy.open("wb") as file:
        file.truncate(24 * MB)
    small = ("-b", "1024", "-N", "96", "-O", "^has_journal,^resize_inode,^metadata_csum,^flex_bg")
    disks.run("mke2fs", "-q", "-F", "-t", "ext4", *small, "-l", bad, decoy)
    made, raw = bytearray(image.read_bytes()), decoy.read_bytes()
    for at in range(7000 * 1024, len(raw), 1024):
        if any(raw[at : at + 1024]) and raw[at + 56 : at + 58] != b"\x53\xef":
            assert not any(made[at : at + 1024])
            made[at : at + 1024] = raw[at : at + 1024]
    image.write_bytes(made)
    sb = superblock(image)
    sb[:20], sb[24:44] = raw[1024:1044], raw[1048:1068]
    struct.pack_into("<I", sb, 20, 0)
    sb[96] |= 4
    journal = Journal(image)
    journal.commit({0: bytes(1024) + bytes(sb) + raw[2048:4096]})
    journal.end()
    for tally in seen(pair, image):
        assert FOR_GOOD in " ".join(tally.reasons)
        assert [found.path for found in tally.findings] == ["/run"]
        assert "as it lies" not in " ".join(tally.notes)
    assert as_linux_sees_it(image, "run") == EVIL


@pytest.mark.parametrize("at", [32, 40, 224, 254])  # blocks and inodes per group, the journal, size of descriptors
def test_what_linux_goes_by_stays_as_it_is(pair: Pair, image: Path, at: int) -> None:
    sb = superblock(image)
    sb[at] ^= 1
    sb[96] |= 4
    journal = Journal(image)
    journal.commit({0: block_0(sb)})
    journal.end()
    for tally in seen(pair, image):
        assert FOR_GOOD in " ".join(tally.reasons)


@pytest.mark.parametrize(
    ("at", "mask"), [(104, 0xFF), (120, 0x41), (100, 0x2)], ids=["uuid", "label", "a feature of no matter"]
)
def test_what_lies_is_judged_whatever_the_journal_calls_it(pair: Pair, image: Path, at: int, mask: int) -> None:
    """The journal hides a file, and changes what two states are compared by."""
    disks.write_at(image, pair.script * BLOCK, EVIL)
    sb = superblock(image)
    sb[at] ^= mask
    sb[96] |= 4
    journal = Journal(image)
    journal.commit({0: block_0(sb), pair.script: FINE})
    journal.end()
    for tally in seen(pair, image):
        assert [found.path for found in tally.findings] == ["/run"]
        assert "as its journal makes it, and as it lies" in " ".join(tally.notes)
        assert tally.reasons == []
    assert as_linux_sees_it(image, "run") == FINE


def test_a_state_that_can_not_be_judged_as_it_lies_is_a_reason(
    pair: Pair, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.vmward.remediation.plugins.module_utils._scan import scanner

    def fail(*_arguments: object) -> None:
        raise ValueError("not to be read")

    sb = superblock(image)
    sb[104] ^= 1
    journal = Journal(image)
    journal.commit({0: block_0(sb)})
    journal.end()
    monkeypatch.setattr(scanner, "build", fail)
    tally = pair.direct.look(image, False)
    assert "before its journal is replayed was not read" in " ".join(tally.reasons)
    assert "as it lies" not in " ".join(tally.notes)


def test_a_crash_of_a_running_guest_is_clean(pair: Pair, tmp_path: Path) -> None:
    """Its journal holds the superblock too: a file that was deleted while it is open is listed there."""
    image = Path(shutil.copy(pair.clean, tmp_path / "d.img"))
    crashed = tmp_path / "crashed.img"
    with mounted(image) as root:
        (root / "new").write_bytes(b"new" * 5000)
        (root / "open").write_bytes(b"open" * 5000)
        os.sync()
        with (root / "open").open("rb"):
            (root / "open").unlink()
            (root / "usr/more").mkdir()
            disks.run("sync", "-f", root)
            shutil.copy(image, crashed)
    assert "needs_recovery" in disks.run("dumpe2fs", "-h", crashed)
    replayed = Path(shutil.copy(crashed, tmp_path / "r.img"))
    subprocess.run(["e2fsck", "-y", "-E", "journal_only", replayed], capture_output=True, check=False)
    assert superblock(crashed)[232:236] != superblock(replayed)[232:236]  # the list of what was deleted
    whole, delta = seen(pair, crashed)
    for tally in (whole, delta):
        assert (tally.verdict().value, tally.reasons) == ("clean", [])
        assert "as its journal makes it, and as it lies" in " ".join(tally.notes)
    assert 10 <= whole.files < 16  # the state before was judged by the difference
    assert delta.files < 6


# --- a journal that writes into itself --------------------------------------------------------------------------------


def data_of_the_next(pair: Pair, journal: Journal) -> None:
    """Linux reads it after it was replaced."""
    journal.commit({journal.at(5): EVIL})
    journal.commit({pair.script: FINE})


def own_superblock(pair: Pair, journal: Journal) -> None:
    journal.commit({journal.own: journal.block(journal.own)})


@pytest.mark.parametrize("forge", [data_of_the_next, own_superblock])
def test_a_journal_that_writes_into_itself_is_refused(
    pair: Pair, image: Path, forge: Callable[[Pair, Journal], None]
) -> None:
    journal = Journal(image)
    forge(pair, journal)
    journal.end()
    for tally in seen(pair, image):
        assert tally.verdict().value == "incomplete"
        assert INSIDE in " ".join(tally.reasons)
    if forge is data_of_the_next:
        assert as_linux_sees_it(image, "run") == EVIL


def test_a_journal_that_writes_into_its_map_is_refused(tmp_path: Path) -> None:
    """Of ext3: its blocks are found by way of others."""
    pair = Pair(tmp_path, "-t", "ext3")
    image = Path(shutil.copy(pair.clean, tmp_path / "d.img"))
    journal = Journal(image)
    told = disks.debugfs(image, "stat <8>")
    node = int(told.split("(IND):")[1].split(",")[0])
    journal.commit({node: journal.block(node)})
    journal.end()
    for tally in seen(pair, image):
        assert INSIDE in " ".join(tally.reasons)


def test_a_journal_that_moves_itself_is_refused(pair: Pair, image: Path) -> None:
    journal = Journal(image)
    told = disks.run("debugfs", "-R", "imap <8>", image)
    table = int(told.split("located at block ")[1].split(",")[0])
    offset = int(told.split("offset ")[1].split()[0], 16)
    inodes = bytearray(journal.block(table))
    journal.commit({table: bytes(inodes)})
    journal.end()
    for tally in seen(pair, image):
        assert tally.verdict().value == "clean"  # as in any journal: other inodes lie beside
    again = Journal(image)
    inodes[offset + 60] ^= 1  # where its extent begins
    again.commit({table: bytes(inodes)})
    again.end()
    for tally in seen(pair, image):
        assert FOR_GOOD in " ".join(tally.reasons)


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_what_was_revoked_before_the_numbers_begin_anew_is_written(pair: Pair, image: Path) -> None:
    journal = Journal(image, first=0xFFFFFFFE)
    journal.commit({pair.script: FINE})
    journal.commit(revoked=[pair.script])
    assert journal.number == 0
    journal.commit({pair.script: EVIL})
    journal.end()
    for tally in seen(pair, image):
        assert [found.path for found in tally.findings] == ["/run"]
    assert as_linux_sees_it(image, "run") == EVIL


def test_what_is_revoked_after_the_numbers_began_anew_is_not_written(pair: Pair, image: Path) -> None:
    journal = Journal(image, first=0xFFFFFFFF)
    journal.commit({pair.script: EVIL})
    journal.commit(revoked=[pair.script])
    journal.end()
    for tally in seen(pair, image):
        assert not tally.findings
    assert as_linux_sees_it(image, "run") == FINE


# --- other forgeries --------------------------------------------------------------------------------------------------


def test_a_journal_that_runs_over_its_own_beginning_is_refused(pair: Pair, image: Path) -> None:
    """Blocks that were data are read again, as what comes next. Linux goes on for as long as the numbers fit."""
    journal = Journal(image)
    free = int(disks.run("debugfs", "-R", "ffb 1", image).split()[-1])
    assert journal.length == 1024
    for place, count in ((1, 500), (502, 500), (1003, 30)):
        journal.place = place
        journal.descriptor([free] * count)
    journal.place = 11
    journal.commit()
    journal.commit({pair.script: EVIL})
    journal.end()
    for tally in seen(pair, image):
        assert "its journal runs over its own beginning" in " ".join(tally.reasons)
    assert as_linux_sees_it(image, "run") == EVIL


def test_a_journal_whose_inode_is_not_the_one_that_the_superblock_copies_is_refused(pair: Pair, tmp_path: Path) -> None:
    """Where the inode is damaged Linux mounts nothing; but e2fsck, which runs before, goes by the copy."""
    size = 4 * MB
    image = disks.ext4(tmp_path / "d.img", {"run": FINE, "decoy": b"\1" * size}, 24 * MB, *PLAIN, "-t", "ext3")
    script, decoy = (int(disks.run("debugfs", "-R", f"bmap /{name} 0", image).split()[-1]) for name in ("run", "decoy"))
    journal = Journal(image)
    disks.write_at(image, decoy * BLOCK, journal.block(journal.own))
    journal.commit({script: EVIL})
    journal.end()
    own, other = inode(image, "<8>"), inode(image, "/decoy")
    raw = image.read_bytes()
    disks.write_at(image, own + 40, raw[other + 40 : other + 100])
    disks.write_at(image, own + 26, b"\0\0")  # links
    tally = pair.direct.look(image, False)
    assert tally.verdict().value == "incomplete"
    assert as_e2fsck_makes_it(image, "run") == EVIL


@pytest.mark.parametrize(("at", "length"), [(208, 16), (228, 4)], ids=["uuid", "device"])
def test_a_journal_elsewhere_is_not_replaced_by_one_in_its_place(pair: Pair, image: Path, at: int, length: int) -> None:
    """For e2fsck the other one is the journal."""
    disks.write_at(image, 1024 + at, b"\7" * length)
    for tally in seen(pair, image):
        assert "its journal lies on another device" in " ".join(tally.reasons)


def test_features_of_a_revision_that_has_none_are_heeded_by_linux(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "-I", "128")
    image = Path(shutil.copy(pair.clean, tmp_path / "d.img"))
    journal = Journal(image)
    journal.commit({pair.script: EVIL})
    journal.end()
    disks.write_at(image, 1024 + 76, bytes(4))
    for tally in seen(pair, image):
        assert "a revision without features" in " ".join(tally.reasons)
    assert as_linux_sees_it(image, "run") == EVIL


def test_fast_commits_are_seen_where_linux_looks_for_them(pair: Pair, tmp_path: Path) -> None:
    """One block behind where their area begins. This one leads the script to another block."""
    made = disks.ext4(
        tmp_path / "d.img", {"run": FINE}, 32 * MB, *PLAIN[:-1], "size=8", "-O", PLAIN[3] + ",fast_commit"
    )
    number = int(disks.run("debugfs", "-R", "stat /run", made).split("Inode: ")[1].split()[0])
    script, free = (int(disks.run("debugfs", "-R", ask, made).split()[-1]) for ask in ("bmap /run 0", "ffb 1"))
    disks.write_at(made, free * BLOCK, EVIL)
    journal = Journal(made)
    journal.commit({script: FINE})
    journal.end()
    disks.write_at(made, journal.own * BLOCK + 40, struct.pack(">I", 0x20))
    area = journal.length - (struct.unpack_from(">I", journal.block(journal.own), 84)[0] or 256)
    head = struct.pack("<HHII", 9, 8, 0, journal.number)
    moved = struct.pack("<HHI", 1, 16, number) + struct.pack("<IHHI", 0, 1, 0, free)
    tail = struct.pack("<HHI", 8, BLOCK - len(head) - len(moved) - 4, journal.number)
    commit = head + moved + tail
    commit += struct.pack("<I", crc32c(0, commit))
    disks.write_at(made, journal.at(area + 1) * BLOCK, commit)
    tally = pair.direct.look(made, False)
    assert "holds fast commits" in " ".join(tally.reasons)
    assert as_linux_sees_it(made, "run") == EVIL


@pytest.mark.parametrize("at", [43, 80, 67], ids=["both checksums", "another checksum", "users"])
def test_a_journal_that_linux_mounts_not_but_e2fsck_changes_is_refused(tmp_path: Path, at: int) -> None:
    """It throws the whole journal away, or its features, so that what the log holds means something else."""
    before = disks.ext4(tmp_path / "b.img", {"run": FINE}, 24 * MB, "-b", "4096", "-J", "size=4")
    after = Path(shutil.copy(before, tmp_path / "a.img"))
    disks.debugfs(after, "sif run mode 0100755")
    image = disks.journaled(tmp_path / "d.img", before, after)
    direct = Direct(before)
    assert direct.look(image, False).verdict().value == "clean"
    own = int(disks.run("debugfs", "-R", "bmap <8> 0", image).split()[-1]) * BLOCK
    head = bytearray(image.read_bytes()[own : own + 1024])
    head[at] ^= 8
    head[252:256] = bytes(4)
    head[252:256] = struct.pack(">I", crc32c(0xFFFFFFFF, bytes(head)))
    disks.write_at(image, own, bytes(head))
    for on_top in (False, True):
        assert "its journal holds absurd values" in " ".join(direct.look(image, on_top).reasons)


def inode(image: Path, name: str) -> int:
    """Where it lies."""
    told = disks.run("debugfs", "-R", f"imap {name}", image)
    return int(told.split("located at block ")[1].split(",")[0]) * BLOCK + int(told.split("offset ")[1].split()[0], 16)


# --- data in the place of a map --------------------------------------------------------------------------------------


def test_inline_data_is_read_without_the_feature_as_linux_does(pair: Pair, tmp_path: Path) -> None:
    """By a map it would be a hole. The rest of it is in an attribute."""
    content = bytes(60) + disks.MARKER
    image = disks.ext4(tmp_path / "d.img", {"evil": content}, 24 * MB, "-O", "inline_data")
    disks.debugfs(image, "feature -inline_data")
    assert as_linux_sees_it(image, "evil") == content
    assert [found.path for found in pair.direct.look(image, False).findings] == ["/evil"]


@pytest.mark.parametrize("name", ["evil", "directory"])
def test_what_claims_inline_data_that_it_does_not_have_is_a_reason(pair: Pair, tmp_path: Path, name: str) -> None:
    """Linux, but for the newest, reads by the map then, which looks like data."""
    files = {"evil": disks.MARKER + bytes(5000), "directory/x": b"x"}
    image = disks.ext4(tmp_path / "d.img", files, 24 * MB)
    flags = 0x10080000  # inline data, extents
    disks.debugfs(image, "feature inline_data", f"sif {name} flags {flags}", f"sif {name} size {len(disks.MARKER)}")
    tally = pair.direct.look(image, False)
    assert "its inline data is not where it should be" in " ".join(tally.reasons)


# --- trees of extents ------------------------------------------------------------------------------------------------


def test_a_tree_that_is_searched_otherwise_than_it_is_walked_is_a_reason(pair: Pair, tmp_path: Path) -> None:
    """Linux, but for the newest, looks for a block where the index says, and finds a hole there."""
    image = disks.ext4(tmp_path / "d.img", {}, 24 * MB, *PLAIN)
    with mounted(image) as root, (root / "evil").open("wb") as file:
        for number in range(600):
            file.seek(2 * number * BLOCK)
            file.write(b"x")
        os.fsync(file.fileno())
        disks.run("fallocate", "--punch-hole", "--offset", "0", "--length", str(9 * BLOCK), root / "evil")
    content = as_linux_sees_it(image, "evil")
    fs = Ext4(Raw(os.open(image, os.O_RDONLY)))
    number = int(disks.run("debugfs", "-R", "stat /evil", image).split()[1])
    assert fs.read(fs.inode(number), 0, len(content)) == content
    second = inode(image, "/evil") + 40 + 24  # behind the header of its map and the first entry
    (key,) = struct.unpack_from("<I", image.read_bytes(), second)
    assert key > 100
    disks.write_at(image, second, struct.pack("<I", key - 9))
    assert "its extent tree is damaged" in " ".join(pair.direct.look(image, False).reasons)


def test_a_name_of_the_journal_is_a_reason(pair: Pair, image: Path) -> None:
    """Kernels before 4.19 read it as a file then, which no scan does."""
    disks.debugfs(image, "link <8> /journal")
    for tally in seen(pair, image):
        assert "Inode 8 on volume 1 of disk vda is not read as a file, but a directory names it" in " ".join(
            tally.reasons
        )
