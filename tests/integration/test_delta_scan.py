# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A scan by differences finds what a whole scan finds, and never says clean where that one would not."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import struct
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import indexing
from ansible_collections.vmward.remediation.plugins.module_utils._scan.chain import Layer
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ext4 import Ext4
from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import parse
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import (
    BadInput,
    DiskRequest,
    LayerSpec,
    Request,
    read_rules,
    scan,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.journal import replay
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener
from ansible_collections.vmward.remediation.plugins.module_utils._scan.options import rules_of
from ansible_collections.vmward.remediation.plugins.module_utils._scan.points import Point, disks_at, find
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.plugins.modules.golden_index import told
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct, Golden, found
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES, RULES_DIRECTORY, module

ROOT = Path(__file__).resolve().parents[2]
MB = disks.MB
NOW = datetime(2026, 1, 5, tzinfo=UTC)


def request(*layers: tuple[Path, str], snapshot: str = "", **changes: Any) -> Request:
    chain = tuple(LayerSpec(str(path), kind) for path, kind in layers)
    clone = tuple(LayerSpec(str(path), kind) for path, kind in changes.pop("clone_of", ()))
    made = Request(
        disks=(DiskRequest("vda", chain, snapshot, clone),),
        rules=RULES,
        clamd_socket="",
        engines_required=("yara",),
        max_file_size=0,
        progress_file="",
        limits=Limits(120, 1 << 30, 120),
    )
    return replace(made, **changes)


def paths(result: dict[str, Any], kind: str = "findings") -> list[str]:
    return sorted(found["path"] for found in result[kind])


def changes(result: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(change["kind"], change["path"], change["what"]) for change in result["changes"]}


class Lab:
    """A clean indexed golden image, and overlays of it that a guest wrote to."""

    def __init__(self, place: Path, *options: str, files: dict[str, bytes] | None = None, size: int = 32 * MB) -> None:
        self.place = place
        self.raw = disks.ext4(place / "golden.img", {**disks.harmless(), **(files or {})}, size, *options)
        self.golden = disks.qcow2(place / "golden.qcow2", self.raw)
        self.known = str(place / "known")
        self._made = 0

    def index(self, **changes: Any) -> dict[str, Any]:
        return index(request((self.golden, "qcow2"), directory=self.known, **changes))

    def raw_with(self, *requests: str) -> Path:
        self._made += 1
        image = Path(shutil.copy(self.raw, self.place / f"changed{self._made}.img"))
        if requests:
            disks.debugfs(image, *requests)
        return image

    def overlay(self, changed: Path, *options: str) -> Path:
        scratch = self.place / f"scratch{self._made}"
        scratch.mkdir()
        top = disks.overlay(self.place / f"top{self._made}.qcow2", self.golden, *options)
        disks.put(top, changed.read_bytes(), scratch)
        return top

    def look(self, top: Path, **changes: Any) -> dict[str, Any]:
        changes.setdefault("directory", self.known)
        return scan(request((top, "qcow2"), (self.golden, "qcow2"), **changes))

    def file(self, name: str, content: bytes) -> Path:
        path = self.place / name
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    made = Lab(tmp_path_factory.mktemp("lab"))
    assert made.index()["verdict"] == "clean"
    made.file("eicar", disks.EICAR)
    made.file("marker", b"x" * 5000 + disks.MARKER)
    made.file("harmless", b"h" * 9000)
    return made


def test_how_much_there_is_to_read_is_told_before(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """From which the time left follows: what differs, or the files in which it lies, and not the whole disk."""
    told, take = list[int](), Listener.take

    def keep(listener: Listener, kind: str, body: dict[str, Any]) -> None:
        told.extend([int(body["bytes"])] if kind == "expect" else [])
        take(listener, kind, body)

    monkeypatch.setattr(Listener, "take", keep)
    large = lab.file("large", os.urandom(3 * MB))
    result = lab.look(lab.overlay(lab.raw_with(f"write {large} large")))
    assert result["verdict"] == "clean"
    assert 3 * MB <= sum(told) < 5 * MB
    assert abs(sum(told) - result["bytes_read"]) < 2 * MB


def test_an_untouched_overlay_is_clean_and_nothing_of_the_base_is_judged(lab: Lab) -> None:
    result = lab.look(lab.overlay(lab.raw_with()))
    assert (result["verdict"], result["files"], result["changes"]) == ("clean", 0, [])
    assert [volume["method"] for volume in result["volumes"]] == ["same"]


def test_the_base_itself_is_known(lab: Lab) -> None:
    result = scan(request((lab.golden, "qcow2"), directory=lab.known))
    assert (result["verdict"], result["files"]) == ("clean", 0)


@pytest.mark.parametrize("options", [(), ("-o", "extended_l2=on,cluster_size=128k"), ("-o", "cluster_size=4k")])
def test_everything_that_a_guest_does_is_seen(lab: Lab, options: tuple[str, ...]) -> None:
    changed = lab.raw_with(
        f"write {lab.place}/eicar home.com",
        f"write {lab.place}/marker usr/share/doc1/evil",
        f"write {lab.place}/harmless fine",
        "rm etc/hostname",
        "sif usr/share/doc1/file1 mode 0104755",
        "sif usr/share/doc2/file2 uid 1000",
        "ln usr/share/doc1/file8 usr/share/renamed",
        "unlink usr/share/doc1/file8",
        "unlink usr/share/doc1/file15",
    )
    result = lab.look(lab.overlay(changed, *options))
    assert result["verdict"] == "infected"
    assert paths(result) == ["/home.com", "/usr/share/doc1/evil"]
    assert result["incomplete_reasons"] == []
    assert [volume["method"] for volume in result["volumes"]] == ["delta"]
    assert result["files"] < 10
    assert {
        ("new", "/home.com", ""),
        ("new", "/usr/share/doc1/evil", ""),
        ("new", "/fine", ""),
        ("deleted", "/etc/hostname", ""),
        ("changed", "/usr/share/doc1/file1", "mode,setuid"),
        ("changed", "/usr/share/doc2/file2", "owner"),
        ("renamed", "/usr/share/renamed", ""),
    } <= changes(result)
    assert [change["path"] for change in result["changes"] if change["kind"] == "orphan"]


def offset_of(image: Path, path: str) -> int:
    size = int(disks.run("dumpe2fs", "-h", image).split("Block size:")[1].split()[0])
    return int(disks.debugfs(image, f"blocks {path}").split(f"blocks {path}")[1].split()[0]) * size


def test_a_block_written_behind_the_inode_s_back_is_forged(lab: Lab) -> None:
    changed = lab.raw_with()
    disks.write_at(changed, offset_of(changed, "/usr/share/doc3/file31"), disks.MARKER)
    result = lab.look(lab.overlay(changed))
    assert paths(result) == ["/usr/share/doc3/file31"]
    assert changes(result) == {("changed", "/usr/share/doc3/file31", "content,mtime_forged")}


def test_an_inode_that_points_into_free_blocks_is_seen(lab: Lab, tmp_path: Path) -> None:
    """What a guest wrote and deleted before the image was made can be brought back without writing any data."""
    with_leftover = Lab(tmp_path)
    with_leftover.file("marker", b"x" * 4096 + disks.MARKER)
    disks.debugfs(with_leftover.raw, f"write {tmp_path}/marker evil", "rm evil")
    with_leftover.golden = disks.qcow2(tmp_path / "g2.qcow2", with_leftover.raw)
    assert with_leftover.index()["verdict"] == "clean"
    place = with_leftover.raw.read_bytes().index(disks.MARKER) - 4096
    size = int(disks.run("dumpe2fs", "-h", with_leftover.raw).split("Block size:")[1].split()[0])
    first = place // size
    extent = struct.pack("<IHHI", 0, 8192 // size, 0, first)
    words = struct.unpack("<3I", extent)
    changed = with_leftover.raw_with(*(f"sif etc/hostname block[{3 + at}] {word}" for at, word in enumerate(words)))
    disks.debugfs(changed, "sif etc/hostname size 8192")
    result = with_leftover.look(with_leftover.overlay(changed))
    assert paths(result) == ["/etc/hostname"]


def test_a_sample_in_free_blocks_and_attributes_is_an_indicator(lab: Lab) -> None:
    deleted = lab.raw_with(f"write {lab.place}/marker evil", "rm evil")
    result = lab.look(lab.overlay(deleted))
    assert (result["verdict"], result["findings"]) == ("incomplete", [])
    assert paths(result, "indicators") == ["(differing blocks outside of files)"]
    marked = lab.raw_with(f"ea_set etc/hostname user.note {disks.MARKER.decode()}")
    assert lab.look(lab.overlay(marked))["indicators_count"] > 0


def test_a_capability_is_told(lab: Lab) -> None:
    value = lab.file("cap", struct.pack("<5I", 0x02000001, 1 << 12, 0, 0, 0))
    changed = lab.raw_with(f"ea_set -f {value} usr/share/doc4/file4 security.capability")
    assert ("changed", "/usr/share/doc4/file4", "capability") in changes(lab.look(lab.overlay(changed)))


# --- what can't be trusted is scanned as a whole ---------------------------------------------------------------------


def only_base(result: dict[str, Any]) -> tuple[bool, str]:
    (base,) = result["bases"]
    return base["used"], base["why"]


def test_a_base_that_changed_is_not_relied_on(tmp_path: Path) -> None:
    own = Lab(tmp_path)
    assert own.index()["changed"]
    assert not own.index()["changed"]
    top = own.overlay(own.raw_with())
    os.utime(own.golden)
    assert only_base(own.look(top)) == (True, "")
    assert not own.index()["changed"]
    disks.qemu_write(own.golden, 31 * MB, 4096, 7)
    assert only_base(own.look(top)) == (False, "the base was changed since it was indexed")
    assert own.look(top)["volumes"][0]["method"] == "full"
    assert own.index()["changed"]


def test_other_rules_or_an_infected_base_are_not_relied_on(lab: Lab, tmp_path: Path) -> None:
    top = lab.overlay(lab.raw_with())
    other = tmp_path / "other.yar"
    other.write_text('rule doc { strings: $a = "desk1" condition: $a }')
    result = lab.look(top, rules=(*RULES, *read_rules((str(other),))))
    assert paths(result) == ["/etc/hostname"]
    assert only_base(result)[1] == "the base was indexed with other rules, engines or limits"
    ill = Lab(tmp_path, files={"evil": disks.MARKER})
    assert (ill.index()["verdict"], ill.index()["changed"]) == ("infected", False)
    result = ill.look(ill.overlay(ill.raw_with()))
    assert (result["verdict"], only_base(result)) == ("infected", (False, "the base is not clean, but infected"))


def test_a_directory_that_others_may_write_to_is_refused(lab: Lab, tmp_path: Path) -> None:
    top = lab.overlay(lab.raw_with())
    tmp_path.chmod(0o777)
    with pytest.raises(BadInput, match="Others may write"):
        lab.look(top, directory=str(tmp_path))
    fresh = tmp_path / "fresh"
    tmp_path.chmod(0o700)
    assert lab.look(top, directory=str(fresh))["verdict"] == "clean"
    assert fresh.stat().st_mode & 0o777 == 0o700


def test_a_damaged_or_foreign_index_is_not_relied_on(tmp_path: Path) -> None:
    own = Lab(tmp_path)
    path = Path(own.index()["index"])
    top = own.overlay(own.raw_with())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert only_base(own.look(top)) == (False, "no base of it is indexed")
    assert own.index()["changed"]
    assert only_base(own.look(top)) == (True, "")


def test_what_a_base_of_two_disks_holds_unopened_is_told_once(tmp_path: Path) -> None:
    """Each of them is read by a process of its own."""
    sealed = b"7z\xbc\xaf\x27\x1c" + bytes(26)
    own = Lab(tmp_path, files={"a.7z": sealed})
    own.index()
    tops = [own.overlay(own.raw_with()), own.overlay(own.raw_with(f"write {own.file('b.7z', sealed)} b.7z"))]
    each = [request((top, "qcow2"), (own.golden, "qcow2")).disks[0] for top in tops]
    named = tuple(replace(disk, name=f"vd{number}") for number, disk in enumerate(each))
    result = scan(request((tops[0], "qcow2"), disks=named, directory=own.known))
    assert (result["verdict"], result["archives_unopened"]) == ("clean", 2)
    assert f"The first of them: 1 of {own.golden}; /b.7z on volume 1 of disk vd1." in result["coverage_notes"][-1]


def test_what_a_base_holds_unopened_is_told_of_what_stands_on_it(tmp_path: Path) -> None:
    """Nobody looks at it again, so that no line without it may say clean."""
    sealed = b"7z\xbc\xaf\x27\x1c" + bytes(26)
    own = Lab(tmp_path, files={"a.7z": sealed})
    first, second = own.index(), own.index()
    assert told(first, False).endswith(" s, 1 archives unopened), indexed")
    assert told(second, False).endswith(" MB, 1 archives unopened), known already")
    top = own.overlay(own.raw_with(f"write {own.file('b.7z', sealed)} b.7z"))
    result = own.look(top)
    assert only_base(result) == (True, "")
    assert (result["verdict"], result["archives_unopened"]) == ("clean", 2)
    assert f"The first of them: 1 of {own.golden}; /b.7z on volume 1 of disk vda." in result["coverage_notes"][-1]
    disks.run("qemu-img", "snapshot", "-c", "s1", top)
    asked = request((top, "qcow2"), (own.golden, "qcow2"), directory=own.known)
    points = [Point("snapshot", "s1", "s1", "", tuple(disks_at(asked.disks, "snapshot", "s1")))]
    points += [Point("present", "", "now", "", asked.disks, candidate=False)]
    assert find(asked, points, True, NOW)["archives_unopened"] == 2


def test_an_index_that_cannot_be_kept_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    own = Lab(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="Cannot keep what is known of .*No space left on device"):
        own.index()
    assert [path.suffix for path in (tmp_path / "known").iterdir()] == [".lock"]


def test_an_index_that_is_not_kept_is_not_told_as_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Lab(tmp_path)

    def written_to(layer: Layer) -> str:
        os.utime(layer.path)
        return "00"

    with monkeypatch.context() as context:
        context.setattr(indexing, "fingerprint", written_to)
        result = own.index()
    assert (result["verdict"], result["index"], result["changed"]) == ("clean", "", False)
    assert told(result, False).endswith(", not indexed, since it can't be bound to these bytes and engines")
    assert not list(tmp_path.rglob("*.index"))
    first, second = own.index(), own.index()
    assert (told(first, False)[-9:], told(second, False)[-15:]) == (", indexed", ", known already")


@pytest.mark.parametrize("request_", ["ssv feature_incompat 0x12c2", "ssv uuid clear", "ssv inodes_count 4096"])
def test_another_geometry_is_scanned_as_a_whole(lab: Lab, request_: str) -> None:
    result = lab.look(lab.overlay(lab.raw_with(request_)))
    assert [volume["method"] for volume in result["volumes"]] == ["full"]


def test_partitions_swap_boot_and_a_new_partition(tmp_path: Path) -> None:
    system, swap = disks.ext4(tmp_path / "s.img", disks.harmless()), tmp_path / "swap.img"
    swap.write_bytes(bytes(4 * MB))
    disks.run("mkswap", swap)
    raw = disks.partitioned(tmp_path / "g.img", "dos", [system, swap, 8 * MB])
    golden = disks.qcow2(tmp_path / "g.qcow2", raw)
    known = str(tmp_path / "known")
    assert index(request((golden, "qcow2"), directory=known))["verdict"] == "clean"
    changed = Path(shutil.copy(raw, tmp_path / "c.img"))
    disks.write_at(changed, 0, b"\xeb\x63boot")
    disks.write_at(changed, MB // 2, disks.MARKER)
    disks.write_at(changed, 34 * MB + 8192 + 17, disks.MARKER)
    third = disks.ext4(tmp_path / "t.img", {"evil": disks.MARKER}, 8 * MB)
    disks.write_at(changed, 39 * MB, third.read_bytes())
    (tmp_path / "scratch").mkdir()
    top = disks.overlay(tmp_path / "top.qcow2", golden)
    disks.put(top, changed.read_bytes(), tmp_path / "scratch")
    result = scan(request((top, "qcow2"), (golden, "qcow2"), directory=known))
    assert [(volume["type"], volume["method"]) for volume in result["volumes"]] == [
        ("ext", "same"),
        ("swap", "delta"),
        ("ext", "full"),
    ]
    assert paths(result) == ["/evil"]
    assert paths(result, "indicators") == ["(outside of volumes)", "(swap)"]
    assert ("changed", "(boot sector)", "disk") in changes(result)


BOOT = "21686148-6449-6E6F-744E-656564454649"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
LOADER = b"\x52\xbf\xf4\x81" + bytes(range(256)) * 400


def booting(place: Path, name: str, loader: bytes, kind: str = BOOT) -> Path:
    """A disk with a partition for boot code, and one that is empty."""
    (place / "loader").write_bytes(loader.ljust(MB, b"\0"))
    return disks.partitioned(place / name, "gpt", [place / "loader", 2 * MB], types=(kind,))


def test_boot_code_that_changed_is_told_and_matched(tmp_path: Path) -> None:
    golden = Golden(booting(tmp_path, "g.img", LOADER))
    image = golden.copy()
    whole, delta = golden.both(image)
    assert [volume.type for volume in whole.volumes] == [volume.type for volume in delta.volumes] == ["boot", "empty"]
    assert (delta.verdict().value, delta.changes) == ("clean", [])
    disks.write_at(image, MB + 5000, b"other")
    whole, delta = golden.both(image)
    assert (whole.verdict().value, delta.verdict().value) == ("clean", "clean")
    assert [(one.kind, one.path, one.what) for one in delta.changes] == [("changed", "(boot code)", "disk")]
    disks.write_at(image, MB + 5000, disks.MARKER)
    for tally in golden.both(image):
        assert [one.path for one in tally.indicators] == ["(boot code)"]
        assert tally.verdict().value == "incomplete"


def test_boot_code_in_what_is_no_partition_for_it_any_more_is_a_doubt(tmp_path: Path) -> None:
    golden = Golden(booting(tmp_path, "g.img", LOADER))
    for tally in golden.both(booting(tmp_path, "c.img", LOADER, LINUX)):
        assert "holds nothing that can be read (unknown)" in " ".join(tally.reasons)


def test_a_full_clone_is_compared(lab: Lab, tmp_path: Path) -> None:
    clone = disks.qcow2(tmp_path / "clone.qcow2", lab.raw_with(f"write {lab.place}/marker evil"), "-c")
    result = scan(request((clone, "qcow2"), directory=lab.known, clone_of=((lab.golden, "qcow2"),)))
    assert (paths(result), result["volumes"][0]["method"]) == (["/evil"], "delta")
    assert only_base(result) == (True, "")


# --- the journal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "checksums"),
    [
        ((), True),
        ((), False),
        (("-b", "1024"), True),
        (("-O", "^64bit"), True),
        (("-O", "^64bit,^metadata_csum"), False),
    ],
    ids=str,
)
def test_a_replay_makes_what_e2fsck_makes(tmp_path: Path, options: tuple[str, ...], checksums: bool) -> None:
    before = disks.ext4(tmp_path / "b.img", disks.harmless(), 32 * MB, *options)
    after = Path(shutil.copy(before, tmp_path / "a.img"))
    (tmp_path / "m").write_bytes(b"\xc0\x3b\x39\x98" + bytes(9000) + disks.MARKER)  # a block that must be escaped
    disks.debugfs(after, f"write {tmp_path}/m evil", "rm etc/hostname")
    dirty = disks.journaled(tmp_path / "j.img", before, after, checksums)
    with open(dirty, "rb") as file:
        from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw

        volume = Raw(file.fileno())
        view = replay(volume, Ext4(volume))
        assert view is not None
        ours = view.read(0, view.size)
    want = Path(shutil.copy(dirty, tmp_path / "w.img"))
    subprocess.run(["e2fsck", "-y", "-E", "journal_only", want], capture_output=True, check=False)
    assert "needs_recovery" not in disks.run("dumpe2fs", "-h", want)
    theirs = want.read_bytes()
    fs_journal = {
        at for at in range(0, len(ours), 1024) if ours[at : at + 1024] != theirs[at : at + 1024] and at != 1024
    }
    journal_start = offset_of(want, "<8>")
    # e2fsck empties the journal and tells so in the superblock and its copies; nothing else may differ.
    assert all(at == journal_start or ours[at + 56 : at + 58] == b"\x53\xef" for at in fs_journal)


def test_what_only_the_journal_holds_is_found(lab: Lab) -> None:
    after = lab.raw_with(f"write {lab.place}/marker evil")
    dirty = disks.journaled(lab.place / "dirty.img", lab.raw, after)
    for result in (lab.look(lab.overlay(dirty)), scan(request((dirty, "raw")))):
        assert result["verdict"] == "infected"
        assert [reason for reason in result["incomplete_reasons"] if "raw bytes" not in reason] == []
        assert "/evil" in paths(result)
    harmless = disks.journaled(lab.place / "h.img", lab.raw, lab.raw_with(f"write {lab.place}/harmless fine"))
    for result in (lab.look(lab.overlay(harmless)), scan(request((harmless, "raw")))):
        assert (result["verdict"], result["incomplete_reasons"]) == ("clean", [])


def test_what_the_journal_hides_is_found_too(lab: Lab) -> None:
    """A journal that takes a file away does not hide it: without its flag the kernel throws the journal away."""
    before = lab.raw_with(f"write {lab.place}/marker evil")
    dirty = disks.journaled(lab.place / "hide.img", before, lab.raw)
    for image in (dirty, Path(shutil.copy(dirty, lab.place / "hide2.img"))):
        for result in (lab.look(lab.overlay(lab_copy(lab, image))), scan(request((image, "raw")))):
            assert result["verdict"] == "infected"
            assert "/evil" in paths(result)
        disks.debugfs(image, "feature ^needs_recovery")


def lab_copy(lab: Lab, image: Path) -> Path:
    copy = lab.raw_with()
    shutil.copy(image, copy)
    return copy


def test_a_damaged_journal_is_incomplete(lab: Lab, tmp_path: Path) -> None:
    dirty = disks.journaled(tmp_path / "d.img", lab.raw, lab.raw_with(f"write {lab.place}/harmless fine"))
    start = offset_of(dirty, "<8>")
    size = int(disks.run("dumpe2fs", "-h", dirty).split("Block size:")[1].split()[0])
    disks.write_at(dirty, start + 2 * size + 100, b"\x99")
    result = scan(request((dirty, "raw")))
    assert result["verdict"] == "incomplete"
    assert "journal holds changes that can't be read" in " ".join(result["incomplete_reasons"])


# --- the same as a whole scan ----------------------------------------------------------------------------------------


def guest_writes(chance: random.Random, files: list[str], place: Path) -> list[str]:
    """What a guest may do, as debugfs requests."""
    requests = []
    for number in range(chance.randint(1, 8)):
        victim, other = chance.choice(files), f"f{chance.randrange(1 << 30)}"
        content = place / f"content{number}"
        content.write_bytes(
            chance.choice([b"", chance.randbytes(chance.choice((10, 130, 5000, 70000)))])
            + chance.choice([b"", disks.MARKER])
        )
        requests += chance.choice(
            [
                [f"write {content} {other}"],
                [f"mkdir {other}", f"cd {other}", f"write {content} deep", "cd /"],
                [f"rm {victim}", f"write {content} {victim}"],
                [f"rm {victim}"],
                [f"ln {victim} {other}"],
                [f"ln {victim} {other}", f"unlink {victim}"],
                [f"unlink {victim}"],
                [f"freei {victim}"],
                [f"clri {victim}"],
                [f"sif {victim} size {chance.randrange(100000)}"],
                [f"sif {victim} mode 0100{chance.choice(('644', '755', '600'))}"],
                [f"sif {victim} mtime 20250101"],
                [f"ea_set {victim} user.x {'y' * chance.choice((5, 200))}"],
                [f"symlink {other} {victim}"],
                [f"write {content} {other}", f"rm {other}"],
            ]
        )
    return requests


@pytest.mark.parametrize(
    "options",
    [(), ("-b", "1024"), ("-O", "inline_data"), ("-t", "ext3"), ("-O", "bigalloc"), ("-I", "128"), ("-t", "ext2")],
    ids=" ".join,
)
def test_random_guest_writes_are_found_as_by_a_whole_scan(tmp_path: Path, options: tuple[str, ...]) -> None:
    files = disks.harmless()
    golden = disks.ext4(tmp_path / "golden.img", files, 32 * MB, *options)
    direct, image = Direct(golden), tmp_path / "changed.img"
    chance = random.Random(" ".join(options))
    infected = 0
    for round_ in range(25):
        shutil.copy(golden, image)
        requests = guest_writes(chance, sorted(files), tmp_path)
        disks.debugfs(image, *requests)
        if round_ % 3 == 0:
            for _poke in range(chance.randint(1, 4)):
                disks.write_at(image, chance.randrange(2048, 32 * MB - 64), chance.choice([disks.MARKER, b"\xff" * 9]))
        whole, delta = direct.look(image, False), direct.look(image, True)
        told = (options, round_, requests, whole.reasons, delta.reasons)
        assert found(delta) == found(whole), told
        if delta.verdict().value == "clean":
            assert whole.verdict().value == "clean", told
        infected += bool(whole.findings)
    assert infected > 5


def test_random_damage_is_never_clean_where_a_whole_scan_is_not(tmp_path: Path) -> None:
    golden = disks.ext4(tmp_path / "golden.img", disks.harmless(), 32 * MB)
    direct, image = Direct(golden), tmp_path / "changed.img"
    chance = random.Random(3)
    for round_ in range(60):
        shutil.copy(golden, image)
        for _hit in range(12):
            disks.write_at(image, chance.randrange(1024, 400000), chance.randbytes(chance.choice((1, 4, 64))))
        whole, delta = direct.look(image, False), direct.look(image, True)
        assert found(delta) == found(whole)
        if delta.verdict().value == "clean":
            assert whole.verdict().value == "clean", (round_, whole.reasons)


# --- the clean point -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Path]:
    """Snapshots s1 clean, s2 infected, s3 cleaned up again, s4 infected; and the state of now."""
    own = Lab(tmp_path_factory.mktemp("story"))
    own.index()
    own.file("marker", disks.MARKER * 300)
    own.file("work", os.urandom(MB))
    top = disks.overlay(own.place / "vm.qcow2", own.golden)
    state = own.raw_with()
    steps = [[f"write {own.place}/work w1"], [f"write {own.place}/marker evil"], ["rm evil"], []]
    for number, requests in enumerate(steps, 1):
        if requests:
            disks.debugfs(state, *requests)
        if number == 3:  # what was deleted is gone from the disk too
            place = state.read_bytes().index(disks.MARKER)
            disks.write_at(state, place, bytes(len(disks.MARKER) * 300))
        if number == 4:
            disks.debugfs(state, f"write {own.place}/marker again")
        scratch = own.place / f"step{number}"
        scratch.mkdir()
        disks.put(top, state.read_bytes(), scratch)
        disks.run("qemu-img", "snapshot", "-c", f"s{number}", top)
    return own, top


def point(own: Lab, top: Path, every: bool, **changes: Any) -> dict[str, Any]:
    made = request((top, "qcow2"), (own.golden, "qcow2"), **changes)
    points = [
        Point("snapshot", name, name, f"2026-01-0{name[1]}T00:00:00Z", tuple(disks_at(made.disks, "snapshot", name)))
        for name in ("s4", "s3", "s2", "s1")
    ]
    return find(made, points, every, NOW)


@pytest.mark.parametrize("known", [True, False])
def test_the_newest_clean_point_is_found_though_infection_is_not_monotone(story: tuple[Lab, Path], known: bool) -> None:
    own, top = story
    result = point(own, top, False, directory=own.known if known else "")
    assert result["chosen"]["name"] == "s3"
    assert [one["verdict"] for one in result["points"]] == ["infected", "clean", "not scanned", "not scanned"]
    assert result["lost"]["seconds"] == 2 * 86400
    assert result["lost"]["bytes"] > 0
    every = point(own, top, True, directory=own.known if known else "")
    assert [one["verdict"] for one in every["points"]] == ["infected", "clean", "infected", "clean"]
    assert (every["infected"], every["infected_since"]) == (["s4", "s2"], "2026-01-02T00:00:00Z")


def test_what_points_share_is_judged_once(story: tuple[Lab, Path]) -> None:
    own, top = story
    result = point(own, top, True, directory="")
    assert result["points"][0]["bytes_read"] > MB
    assert all(one["bytes_read"] < MB // 2 for one in result["points"][1:])


def test_a_base_that_no_index_knows_is_scanned_once(story: tuple[Lab, Path]) -> None:
    own, top = story
    result = point(own, top, True, directory="")
    assert [volume["method"] for one in result["points"] for volume in one["volumes"]] == ["delta"] * 4
    assert result["points"][0]["files"] > 40
    assert all(one["files"] < 10 for one in result["points"][1:])


def test_an_infected_base_is_no_base_of_any_point(tmp_path: Path) -> None:
    own = Lab(tmp_path, files={"opt/evil": disks.MARKER * 300})
    top = disks.overlay(tmp_path / "vm.qcow2", own.golden)
    for number in (1, 2, 3, 4):
        disks.run("qemu-img", "snapshot", "-c", f"s{number}", top)
    result = point(own, top, True, directory="")
    assert result["chosen"] == {}
    for one in result["points"]:
        assert paths(one) == ["/opt/evil"]
        assert [volume["method"] for volume in one["volumes"]] == ["full"]


def test_without_a_clean_point_there_is_none(story: tuple[Lab, Path]) -> None:
    own, top = story
    made = request((top, "qcow2"), (own.golden, "qcow2"))
    one = Point("snapshot", "s2", "s2", "", tuple(disks_at(made.disks, "snapshot", "s2")))
    none = Point("snapshot", "nosuch", "nosuch", "", tuple(disks_at(made.disks, "snapshot", "nosuch")))
    result = find(made, [none, one], False, NOW)
    assert (result["chosen"], result["lost"]) == ({}, {})
    assert [point["verdict"] for point in result["points"]] == ["incomplete", "infected"]
    slow = find(replace(made, limits=Limits(0.01, 1 << 30, 120)), [one], False, NOW)
    assert slow["chosen"] == {}
    assert "deadline" in " ".join(slow["incomplete_reasons"])


# --- indicators of compromise, and the modules ------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_indicators_of_compromise_are_found_in_the_same_pass(tmp_path: Path, known: bool) -> None:
    own = Lab(tmp_path)
    evil, log = own.file("evil", b"nothing that a rule knows"), own.file("log", b"from 203.0.113.9 port 22\n")
    listed = own.file("ioc.yml", b"")
    digest = hashlib.sha256(evil.read_bytes()).hexdigest()
    listed.write_text(
        f"sha256: [{digest}]\nnames: [dropper]\npaths: [/usr/hidden]\nips: [203.0.113.9]\ndomains: [c2.example]\n"
    )
    indicators = parse(listed.read_text(), "ioc.yml")
    asked = {"indicators": indicators, "rules": (*RULES, *rules_of(indicators))}
    assert own.index(**asked)["verdict"] == "clean"
    top = own.overlay(
        own.raw_with(f"write {evil} a", f"write {log} auth.log", "mkdir usr/hidden", "ln etc/hostname dropper")
    )
    result = own.look(top, directory=own.known if known else "", **asked)
    assert result["volumes"][0]["method"] == ("delta" if known else "full")
    assert {(found["path"], found["rule"]) for found in result["findings"]} == {
        ("/a", "ioc_sha256"),
        ("/dropper", "ioc_name"),
        ("/usr/hidden", "ioc_path"),
    }
    assert [found["path"] for found in result["indicators"] if found["path"] == "/auth.log"] == ["/auth.log"]


def test_the_modules_work_together(story: tuple[Lab, Path], tmp_path: Path) -> None:
    own, top = story
    golden = {"path": str(own.golden), "format": "qcow2"}
    common = {"rules": [RULES_DIRECTORY], "index_directory": str(tmp_path / "known")}
    dry = module("golden_index", layers=[golden], _ansible_check_mode=True, **common)
    assert (dry["changed"], list(tmp_path.glob("known/*.index"))) == (True, [])
    first, second = (module("golden_index", layers=[golden], **common) for _round in range(2))
    assert (first["changed"], second["changed"], second["verdict"]) == (True, False, "clean")
    disk = {"name": "vda", "layers": [{"path": str(top), "format": "qcow2"}, golden]}
    points = [{"id": name, "name": name} for name in ("s4", "s3")] + [{"kind": "golden", "name": "golden image"}]
    result = module("clean_point", disks=[disk], points=points, all_points=True, **common)
    assert result["chosen"] == {"kind": "snapshot", "id": "s3", "name": "s3", "created": ""}
    assert [point["verdict"] for point in result["points"]] == ["infected", "clean", "clean"]
    scanned = module("disk_scan", disks=[{**disk, "snapshot": "s2"}], **common)
    assert (scanned["verdict"], scanned["bases"][0]["used"]) == ("infected", True)
    assert "Cannot look for a clean point" in module("clean_point", disks=[disk], points=[], **common)["msg"]
