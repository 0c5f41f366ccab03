# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logical volumes are read as LVM lays them out, compared with a base by files, and never passed over in silence."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw, Stream
from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import (
    DiskRequest,
    LayerSpec,
    Request,
    scan,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.lvm import Found, read_groups
from ansible_collections.vmward.remediation.plugins.module_utils._scan.places import Ranges
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus import lvm as corpus
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

ROOT = Path(__file__).resolve().parents[2]
MB, EXTENT = disks.MB, corpus.EXTENT
Group, Part = corpus.Group, corpus.Part


def request(*chains: tuple[Path, ...], **changes: Any) -> Request:
    """One disk per chain of images, by their endings."""
    kinds = {".img": "raw", ".qcow2": "qcow2"}
    made = [
        DiskRequest(f"vd{'abc'[number]}", tuple(LayerSpec(str(path), kinds[path.suffix]) for path in chain))
        for number, chain in enumerate(chains)
    ]
    return replace(Request(tuple(made), RULES, "", ("yara",), 0, "", Limits(120, 1 << 30, 120)), **changes)


def paths(result: dict[str, Any], kind: str = "findings") -> list[tuple[str, str]]:
    return sorted((found["disk"], found["path"]) for found in result[kind])


def volumes(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(volume["disk"], volume["type"], volume["method"]) for volume in result["volumes"]]


def reasons(result: dict[str, Any]) -> str:
    return " | ".join(result["incomplete_reasons"])


@contextmanager
def opened(images: list[Path]) -> Iterator[list[Raw]]:
    fds = [os.open(image, os.O_RDONLY) for image in images]
    try:
        yield [Raw(fd) for fd in fds]
    finally:
        for fd in fds:
            os.close(fd)


def read(images: list[Path]) -> tuple[Found, dict[str, bytes]]:
    with opened(images) as blocks:
        found = read_groups(blocks)
        return found, {volume.name: volume.read(0, volume.size) for volume in found.volumes}


# Over three physical volumes: linear in two parts, three stripes, and stripes that go on as a line.
LAYOUT = Group(
    [8, 8, 8],
    {
        "root": [Part(3, ((0, 1),)), Part(2, ((2, 4),))],
        "wide": [Part(6, ((0, 4), (1, 0), (2, 0)), 65536)],
        "both": [Part(2, ((1, 2), (2, 2)), 16384), Part(1, ((1, 7),))],
    },
)
SIZES = {"root": 5, "wide": 6, "both": 3}
CONTENTS = {name: random.Random(name).randbytes(size * EXTENT) for name, size in SIZES.items()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    images: list[Path] = corpus.build(tmp_path_factory.mktemp("layout"), LAYOUT, CONTENTS)
    return images


def test_volumes_are_put_together_from_their_parts(built: list[Path]) -> None:
    found, contents = read(built)
    assert found.problems == []
    assert contents == {f"vg/{name}": content for name, content in CONTENTS.items()}


def test_the_order_of_the_disks_does_not_matter(built: list[Path]) -> None:
    assert read(built[::-1])[1] == read(built)[1]


def test_any_stretch_reads_and_lies_as_the_whole_says(built: list[Path]) -> None:
    chance = random.Random(1)
    with opened(built) as blocks:
        for volume in read_groups(blocks).volumes:
            whole = CONTENTS[volume.name.split("/")[1]]
            for _round in range(60):
                at, length = chance.randrange(volume.size), chance.randrange(1, 300_000)
                assert volume.read(at, length) == whole[at : at + length].ljust(length, b"\0")
                assert sum(place[0] for place in volume.places(at, length)) == length


def test_what_changes_below_changes_the_volume(built: list[Path], tmp_path: Path) -> None:
    chance = random.Random(2)
    for _round in range(10):
        images = [Path(shutil.copy(image, tmp_path)) for image in built]
        writes: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
        for _write in range(4):
            disk, at = chance.randrange(3), corpus.PE_START + chance.randrange(8 * EXTENT - 90_000)
            data = chance.randbytes(chance.choice((1, 512, 90_000)))
            disks.write_at(images[disk], at, data)
            writes[disk].append((at, at + len(data)))
        with opened(images) as blocks:
            found = read_groups(blocks)
            changed = {uuid: Ranges(writes[number]) for number, uuid in enumerate(found.uuids)}
            for volume in found.volumes:
                before, now = CONTENTS[volume.name.split("/")[1]], volume.read(0, volume.size)
                told = volume.changed(changed)
                for start, end in told:
                    before = before[:start] + now[start:end] + before[end:]
                assert before == now
                covered = sum(
                    high - low for uuid, one in changed.items() for low, high in one if uuid in volume.lies_on
                )
                assert told.size <= covered


def test_dissect_reads_the_same_linear_volumes(tmp_path: Path) -> None:
    from dissect.volume.lvm import LVM2, LVM2Device

    group = Group([8, 8], {"root": LAYOUT.volumes["root"][:1], "home": [Part(2, ((1, 1),)), Part(3, ((0, 4),))]})
    contents = {name: random.Random(name).randbytes(size * EXTENT) for name, size in (("root", 3), ("home", 5))}
    images = corpus.build(tmp_path, group, contents)
    with opened(images) as blocks:
        theirs = LVM2([LVM2Device(Stream(one)) for one in blocks]).volume_group.logical_volumes
        ours = {volume.name: volume for volume in read_groups(blocks).volumes}
        for name, content in contents.items():
            assert ours[f"vg/{name}"].read(0, len(content)) == theirs[name].open().read() == content


# --- held against lvm2 -----------------------------------------------------------------------------------------------


@contextmanager
def lvm2(place: Path, *sizes: int) -> Iterator[tuple[Any, list[Path]]]:
    if not shutil.which("lvm"):
        pytest.skip("lvm2 is not installed")
    with ExitStack() as stack:
        try:
            made = stack.enter_context(corpus.real(place, *sizes))
        except RuntimeError as exc:
            pytest.skip(f"there are no loop devices: {exc}")
        yield made


def test_lvm2_and_we_agree_on_what_lvm2_made(tmp_path: Path) -> None:
    with lvm2(tmp_path, 64 * MB, 64 * MB, 64 * MB) as (tool, images):
        tool.run("pvcreate", *tool.devices)
        tool.run("vgcreate", "-s", "1m", "vg0", *tool.devices)
        for options in (
            ("-n", "root", "-l", "7"),
            ("-n", "wide", "-l", "6", "-i", "3", "-I", "16k"),
            ("-n", "full", "-l", "14", "--alloc", "anywhere"),
        ):
            tool.run("lvcreate", "-y", "-an", "-Zn", "-Wn", *options, "vg0")
        for _round in range(40):  # until the text has gone round its ring
            tool.run("lvchange", "--addtag", f"t{_round}", "vg0/root")
        tool.run("lvextend", "-l", "+2", "vg0/root")
        fields = "lv_name,seg_start_pe,seg_pe_ranges,stripe_size,segtype"
        told = json.loads(tool.run("lvs", "-a", "--segments", "--reportformat", "json", "--units", "b", "-o", fields))
        found, _contents = read(images)
        pv = dict(zip(tool.devices, found.uuids, strict=True))
    ours = {volume.name: volume for volume in found.volumes}
    want: dict[str, list[tuple[tuple[str, int], ...]]] = {}
    for segment in told["report"][0]["seg"]:
        if segment["segtype"] in ("linear", "striped"):
            ranges = [place.rsplit(":", 1) for place in segment["seg_pe_ranges"].split()]
            places = tuple(
                (pv[name], corpus.PE_START + int(extents.split("-")[0]) * EXTENT) for name, extents in ranges
            )
            want.setdefault("vg0/" + segment["lv_name"].strip("[]"), []).append(places)
    assert {name: [segment.places for segment in volume.segments] for name, volume in ours.items()} == want
    assert ours["vg0/wide"].segments[0].chunk == 16384
    assert len(ours["vg0/root"].segments) > 1
    assert found.problems == []


def test_lvm2_takes_what_the_corpus_makes(tmp_path: Path, built: list[Path]) -> None:
    with lvm2(tmp_path, *(image.stat().st_size for image in built)) as (tool, images):
        for image, source in zip(images, built, strict=True):
            disks.write_at(image, 0, source.read_bytes()[:MB])
        fields = ("--units", "b", "--nosuffix", "-o", "lv_name,lv_size")
        told = json.loads(tool.run("lvs", "--reportformat", "json", *fields))
    sizes = {one["lv_name"]: int(one["lv_size"]) for one in told["report"][0]["lv"]}
    assert sizes == {name: len(content) for name, content in CONTENTS.items()}


# --- through the whole scan ------------------------------------------------------------------------------------------


def system(place: Path, *requests: str, files: dict[str, bytes] | None = None) -> bytes:
    image = disks.ext4(place / "system.img", {**disks.harmless(), **(files or {})}, 8 * EXTENT)
    if requests:
        disks.debugfs(image, *requests)
    return image.read_bytes()


TWO = Group([6, 6], {"root": [Part(3, ((0, 1),)), Part(5, ((1, 0),))], "swap": [Part(1, ((0, 5),))]})
ROOT_ONLY = Group([9], {"root": [Part(8, ((0, 0),))]})
STRIPED = Group([6, 6], {"root": [Part(8, ((0, 0), (1, 2)))]})


@pytest.mark.parametrize("group", [TWO, STRIPED], ids=["linear", "striped"])
def test_a_group_over_two_disks_is_read(tmp_path: Path, group: Any) -> None:
    clean = corpus.build(tmp_path / "c", group, {"root": system(tmp_path)})
    result = scan(request((clean[0],), (clean[1],)))
    assert (result["verdict"], reasons(result)) == ("clean", "")
    infected = corpus.build(tmp_path / "i", group, {"root": system(tmp_path, files={"opt/evil": disks.EICAR})})
    result = scan(request((infected[0],), (infected[1],)))
    assert (result["verdict"], paths(result)) == ("infected", [("vda/vg/root", "/opt/evil")])


def test_a_disk_that_is_missing_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    group = Group([9, 9], {"root": [Part(8, ((0, 0),))], "data": [Part(2, ((1, 0),))]})
    images = corpus.build(tmp_path, group, {"root": system(tmp_path, files={"opt/evil": disks.EICAR})})
    result = scan(request((images[0],)))
    assert paths(result) == [("vda/vg/root", "/opt/evil")]
    assert "vg/data was not read: the physical volume pv1 (" in reasons(result)
    clean = corpus.build(tmp_path / "c", group, {"root": system(tmp_path)})
    assert scan(request((clean[0],)))["verdict"] == "incomplete"


def test_a_partition_may_be_a_physical_volume(tmp_path: Path) -> None:
    boot = disks.ext4(tmp_path / "boot.img", {"vmlinuz": b"x" * 9000}, 8 * MB)
    images = corpus.build(
        tmp_path, Group([9], {"root": [Part(8, ((0, 0),))]}), {"root": system(tmp_path, files={"evil": disks.MARKER})}
    )
    result = scan(request((disks.partitioned(tmp_path / "d.img", "gpt", [boot, images[0]]),)))
    assert volumes(result) == [("vda", "ext", "full"), ("vda", "lvm", "full"), ("vda/vg/root", "ext", "full")]
    assert paths(result) == [("vda/vg/root", "/evil")]


def test_a_sample_in_a_volume_that_was_removed_is_an_indicator(tmp_path: Path) -> None:
    image = corpus.build(tmp_path, ROOT_ONLY, {"root": system(tmp_path, files={"evil": disks.MARKER})})[0]
    disks.write_at(image, 0, corpus.head(Group([9], {}), 0))
    result = scan(request((image,)))
    assert (result["verdict"], result["findings"]) == ("incomplete", [])
    assert paths(result, "indicators") == [("vda", "(outside of logical volumes)")]


def test_two_groups_on_one_disk(tmp_path: Path) -> None:
    one = corpus.build(tmp_path / "1", Group([8], {"a": [Part(8, ((0, 0),))]}), {"a": system(tmp_path)})
    other = Group([8], {"b": [Part(8, ((0, 0),))]}, name="other", uuids=["z" * 32])
    two = corpus.build(tmp_path / "2", other, {"b": system(tmp_path, files={"evil": disks.MARKER})})
    result = scan(request((disks.partitioned(tmp_path / "d.img", "dos", [one[0], two[0]]),)))
    assert [name for name, _kind, _how in volumes(result)[2:]] == ["vda/vg/a", "vda/other/b"]
    assert (paths(result), reasons(result)) == ([("vda/other/b", "/evil")], "")


# What lvm2 reads otherwise than it looks: its volume lies 1 MiB further on than here
READ_OTHERWISE = {
    "a path as a name": ("logical_volumes {", "logical_volumes/root {%s}\nlogical_volumes {"),
    "a text as a name": ("logical_volumes {", '"logical_volumes" { root {%s}}\nlogical_volumes {'),
    "a text as a later name": ("stripes = [", '"stripes" = ["pv0", 1]\nstripes = ['),
}


@pytest.mark.parametrize("how", list(READ_OTHERWISE))
def test_no_decoy_is_read_in_place_of_what_lvm2_reads(tmp_path: Path, how: str) -> None:
    old, new = READ_OTHERWISE[how]
    text = ROOT_ONLY.text()
    root = text[text.index("root {") + len("root {") : text.index("}\n}\n}\n# Generated")]
    new = new.replace("%s", root.replace('"pv0", 0', '"pv0", 1'))
    image = corpus.build(tmp_path, ROOT_ONLY, {"root": system(tmp_path)})[0]
    disks.write_at(image, 0, corpus.head(ROOT_ONLY, 0, spoiled(text, old, new)))
    with lvm2(tmp_path, image.stat().st_size) as (tool, (copy,)):
        disks.write_at(copy, 0, image.read_bytes()[:MB])
        told = tool.run("lvs", "--noheadings", "--segments", "-o", "seg_pe_ranges")
    assert [line.strip() for line in told.splitlines() if ":" in line] == [f"{tool.devices[0]}:1-8"]
    assert scan(request((image,)))["verdict"] == "incomplete"


def test_a_newer_copy_that_lvm2_cannot_read_is_no_decoy(tmp_path: Path) -> None:
    """It takes the older one, from the other physical volume."""
    real = Group([9, 9], {"root": [Part(8, ((0, 0),))]})
    decoy = Group([9, 9], {"root": [Part(8, ((1, 1),))]}, seqno=2)
    packed = system(tmp_path, files={"evil.gz": gzip.compress(disks.MARKER)})  # no match in raw bytes
    images = corpus.build(tmp_path, real, {"root": packed})
    corpus.put(images, decoy.volumes["root"], system(tmp_path))
    unread = spoiled(decoy.text(), '["READ", "WRITE", "VISIBLE"]', '[, "VISIBLE"]')
    disks.write_at(images[0], 0, corpus.head(real, 0, unread))
    with lvm2(tmp_path, *(image.stat().st_size for image in images)) as (tool, copies):
        for image, copy in zip(images, copies, strict=True):
            disks.write_at(copy, 0, image.read_bytes()[:MB])
        told = tool.run("lvs", "--noheadings", "--segments", "-o", "seg_pe_ranges", "vg/root")
    assert f"{tool.devices[0]}:0-7" in told
    assert scan(request((images[0],), (images[1],)))["verdict"] == "incomplete"


# --- what keeps a scan from being clean ------------------------------------------------------------------------------


def spoiled(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('type = "striped"', 'type = "thin"', "is of the type thin"),
        ('type = "striped"', 'type = "raid1"', "is of the type raid1"),
        ('type = "striped"', 'type = "striped+SECRET"', "is of the type striped+SECRET"),
        ("start_extent = 0", "start_extent = 1", "do not follow each other"),
        ("segment_count = 1", "segment_count = 2", "not as many as it says"),
        ('"pv0", 0', '"pv7", 0', "lies on pv7"),
        ('"pv0", 0', '"pv0", 2', "past the end"),
        ('"pv0", 0', '"pv0", -1', "absurd"),
        ('"pv0", 0', '"pv0", 00', "absurd"),  # lvm2 takes it for octal
        ('"pv0", 0', '"pv0", +0', "absurd"),
        ("extent_count = 8", f"extent_count = {1 << 20}", "past the end"),
        ("extent_count = 8", f"extent_count = {(1 << 32) + 8}", "absurd"),
        ("stripe_count = 1", "stripe_count = 2 stripe_size = 128", "do not make up its size"),
        ("stripe_count = 1", "stripe_count = 0", "damaged"),
        ("extent_size = 2048", "extent_size = 0", "absurd"),
        ("seqno = 1", 'seqno = "x"', "absurd"),
        ("seqno = 1", f"seqno = {(1 << 32) + 1}", "absurd"),
        ("seqno = 1", "seqno = 1 seqno = 2", "a name comes twice"),
        ("vg {", "vg { " + "a { " * 20 + "}" * 20, "nested too deeply"),
        ("logical_volumes {", "logical_volumes { ~", "no meaning"),
        ('description = "a', 'description = "a" x = [', "was not read"),
        ("version = 1", "version = 2", "does not describe one volume group"),
        ("segment_count = 1", "", "damaged"),
    ],
)
def test_forged_metadata_is_told(tmp_path: Path, old: str, new: str, words: str) -> None:
    image = corpus.build(tmp_path, ROOT_ONLY, {"root": system(tmp_path)})[0]
    disks.write_at(image, 0, corpus.head(ROOT_ONLY, 0, spoiled(ROOT_ONLY.text(), old, new)))
    result = scan(request((image,)))
    assert result["verdict"] == "incomplete"
    assert words in reasons(result)


@pytest.mark.parametrize(
    ("place", "words"),
    [(512 + 40, "label is damaged"), (4096 + 60, "header of a metadata area"), (4096 + 512 + 9, "checksum")],
)
def test_a_wrong_checksum_is_told(tmp_path: Path, place: int, words: str) -> None:
    image = corpus.build(tmp_path, ROOT_ONLY, {"root": system(tmp_path)})[0]
    disks.write_at(image, place, b"\xee")
    result = scan(request((image,)))
    assert result["verdict"] == "incomplete"
    assert words in reasons(result)


def test_text_that_goes_round_the_ring_is_read(tmp_path: Path) -> None:
    image = corpus.build(tmp_path, ROOT_ONLY, {"root": system(tmp_path)})[0]
    disks.write_at(image, 0, corpus.head(ROOT_ONLY, 0, ring_at=corpus.AREA[1] - 100))
    assert scan(request((image,)))["verdict"] == "clean"


def test_volumes_that_overlap_are_told(tmp_path: Path) -> None:
    group = Group([9], {"root": [Part(8, ((0, 0),))], "other": [Part(2, ((0, 7),))]})
    image = corpus.build(tmp_path, group, {"root": system(tmp_path)})[0]
    result = scan(request((image,)))
    assert (result["verdict"], "overlap" in reasons(result)) == ("incomplete", True)


def test_the_newest_copy_counts_and_copies_that_differ_are_told(tmp_path: Path) -> None:
    moved = {"root": [Part(3, ((1, 2),)), Part(5, ((0, 1),))]}
    newer = Group([6, 6], moved, seqno=2)
    images = corpus.build(tmp_path, newer, {"root": system(tmp_path, files={"evil": disks.MARKER})})
    disks.write_at(images[0], 0, corpus.head(Group([6, 6], TWO.volumes), 0))
    older = scan(request((images[0],), (images[1],)))
    assert paths(older) == [("vdb/vg/root", "/evil")]
    assert "two copies of it differ" in reasons(older)
    disks.write_at(images[0], 0, corpus.head(Group([6, 6], TWO.volumes, seqno=2), 0))
    assert "two copies of it differ" in reasons(scan(request((images[0],), (images[1],))))


def test_a_physical_volume_of_no_group_and_one_that_comes_twice_are_told(tmp_path: Path) -> None:
    image = corpus.build(tmp_path, ROOT_ONLY, {"root": system(tmp_path)})[0]
    twin = Path(shutil.copy(image, tmp_path / "twin.img"))
    assert "bear the same id" in reasons(scan(request((image,), (twin,))))
    lone = corpus.build(tmp_path / "l", Group([2], {}, name="gone", uuids=["y" * 32]), {})[0]
    disks.write_at(lone, 0, corpus.head(replace(ROOT_ONLY, uuids=["y" * 32]), 0, ""))
    assert "belongs to no volume group" in reasons(scan(request((image,), (lone,))))


def test_lvm_in_a_logical_volume_and_below_a_file_system_is_told(tmp_path: Path) -> None:
    inner = corpus.build(tmp_path / "i", Group([2], {"x": [Part(1, ((0, 0),))]}, name="in", uuids=["i" * 32]), {})[0]
    outer = corpus.build(tmp_path / "o", ROOT_ONLY, {"root": inner.read_bytes()})[0]
    result = scan(request((outer,)))
    assert (result["verdict"], "holds nothing that can be read (lvm)" in reasons(result)) == ("incomplete", True)
    both = disks.ext4(tmp_path / "both.img", disks.harmless(), 36 * MB)
    disks.write_at(both, 512, corpus.head(ROOT_ONLY, 0)[512:1024])
    assert "several file systems (ext, lvm)" in reasons(scan(request((both,))))


def test_random_damage_never_crashes_and_hides_nothing_in_silence(tmp_path: Path) -> None:
    image = corpus.build(tmp_path, ROOT_ONLY, {"root": system(tmp_path)})[0]
    good, chance = corpus.head(ROOT_ONLY, 0), random.Random(4)
    layout = read([image])[0].volumes[0].segments
    for _round in range(300):
        bad = bytearray(good[:8192])
        for _hit in range(chance.randint(1, 4)):
            start, end = chance.choice(((512, 1024), (4096, 4200), (4608, 6000)))
            at = chance.randrange(start, end)
            bad[at] = chance.randrange(256)
        forged = chance.random() < 0.5  # with the right checksums
        if forged:
            length = struct.unpack_from("<Q", bad, 4096 + 48)[0]
            if length < 4000:
                struct.pack_into("<I", bad, 4096 + 56, corpus.checksum(bytes(bad[4608 : 4608 + length])))
            struct.pack_into("<I", bad, 4096, corpus.checksum(bytes(bad[4100:4608])))
            struct.pack_into("<I", bad, 528, corpus.checksum(bytes(bad[532:1024])))
        disks.write_at(image, 0, bytes(bad))
        found = read([image])[0]
        # LVM itself would believe what has the right checksums
        assert forged or found.problems or [volume.segments for volume in found.volumes] == [layout]


# --- on top of a base ------------------------------------------------------------------------------------------------


class Lab:
    """A golden disk with a boot partition and a physical volume, indexed, and overlays of it."""

    group = Group([12], {"root": [Part(5, ((0, 1),)), Part(3, ((0, 7),))], "swap": [Part(1, ((0, 0),))]})
    pv_at = 10 * MB

    def __init__(self, place: Path) -> None:
        self.place, self.known, self._made = place, str(place / "known"), 0
        self.root = place / "root.img"
        self.root.write_bytes(system(place))
        self.boot = disks.ext4(place / "boot.img", {"vmlinuz": b"x" * 9000}, 8 * MB)
        pv = self._pv(self.root, self.group)
        self.plain = disks.partitioned(place / "plain.img", "gpt", [self.boot, pv])
        self.golden = disks.qcow2(place / "golden.qcow2", self.plain)
        self.indexed = index(request((self.golden,), directory=self.known))

    def _pv(self, root: Path, group: Any) -> Path:
        name = next(name for name in group.volumes if name != "swap")
        image: Path = corpus.build(self.place / "pv", group, {name: root.read_bytes()})[0]
        return image

    def disk(self, root: Path, group: Any = None, *pokes: tuple[int, bytes]) -> Path:
        """The golden disk with this in its first logical volume, and this in places of its physical volume."""
        image = Path(shutil.copy(self.plain, self.place / "disk.img"))
        for at, data in ((0, self._pv(root, group or self.group).read_bytes()), *pokes):
            disks.write_at(image, self.pv_at + at, data)
        return image

    def changed(self, *requests: str) -> Path:
        image = Path(shutil.copy(self.root, self.place / "changed.img"))
        if requests:
            disks.debugfs(image, *requests)
        return image

    def overlay(self, disk: Path) -> Path:
        self._made += 1
        scratch = self.place / f"scratch{self._made}"
        scratch.mkdir()
        top: Path = disks.overlay(self.place / f"top{self._made}.qcow2", self.golden)
        disks.put(top, disk.read_bytes(), scratch)
        shutil.rmtree(scratch)
        return top

    def look(self, disk: Path) -> dict[str, Any]:
        return scan(request((self.overlay(disk), self.golden), directory=self.known))

    def compare(self, disk: Path) -> dict[str, Any]:
        """As a full clone, which is quicker to make."""
        made = request((disk,), directory=self.known)
        return scan(replace(made, disks=(replace(made.disks[0], clone_of=(LayerSpec(str(self.golden), "qcow2"),)),)))

    def file(self, name: str, content: bytes) -> Path:
        path = self.place / name
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    made = Lab(tmp_path_factory.mktemp("lab"))
    assert (made.indexed["verdict"], reasons(made.indexed)) == ("clean", "")
    return made


def test_an_untouched_overlay_is_the_same(lab: Lab) -> None:
    result = lab.look(lab.disk(lab.root))
    assert (result["verdict"], result["files"], result["changes"]) == ("clean", 0, [])
    assert {how for _disk, _kind, how in volumes(result)} == {"same"}


def test_ext_on_lvm_is_compared_file_by_file(lab: Lab) -> None:
    evil = lab.file("evil", b"x" * 9000 + disks.MARKER)
    result = lab.look(lab.disk(lab.changed(f"write {evil} evil", "rm etc/hostname")))
    assert volumes(result) == [
        ("vda", "ext", "same"),
        ("vda", "lvm", "delta"),
        ("vda/vg/root", "ext", "delta"),
        ("vda/vg/swap", "empty", "same"),
    ]
    assert (paths(result), reasons(result)) == ([("vda/vg/root", "/evil")], "")
    assert 1 <= result["files"] < 5
    told = {(change["kind"], change["disk"], change["path"]) for change in result["changes"]}
    assert {("new", "vda/vg/root", "/evil"), ("deleted", "vda/vg/root", "/etc/hostname")} <= told


def test_what_is_written_beside_the_volumes_is_an_indicator(lab: Lab) -> None:
    free, header = corpus.PE_START + 11 * EXTENT + 77, 700
    result = lab.look(lab.disk(lab.root, None, (free, disks.MARKER), (2048, disks.MARKER), (header, b"")))
    assert (result["verdict"], result["findings"]) == ("incomplete", [])
    assert {path for _disk, path in paths(result, "indicators")} == {"(outside of logical volumes)"}
    assert len(result["indicators"]) == 2


def test_a_volume_that_was_extended_moved_or_renamed(lab: Lab) -> None:
    evil = lab.changed(f"write {lab.file('evil', disks.MARKER)} evil")
    renamed = Group([12], {"other": lab.group.volumes["root"], "root": [Part(1, ((0, 11),))]}, seqno=2)
    result = lab.look(lab.disk(evil, renamed))
    assert paths(result) == [("vda/vg/other", "/evil")]
    assert ("vda/vg/other", "ext", "delta") in volumes(result)
    extended = Group([12], {"root": [*lab.group.volumes["root"], Part(1, ((0, 10),))]}, seqno=2)
    moved = Group([12], {"root": [Part(3, ((0, 7),)), Part(5, ((0, 1),))]}, seqno=2)
    for group in (extended, moved):
        result = lab.look(lab.disk(evil, group))
        assert paths(result) == [("vda/vg/root", "/evil")]
        assert ("vda/vg/root", "ext", "full") in volumes(result)
        assert {("new", "(logical volume)"), ("deleted", "(logical volume vg/swap)")} <= {
            (change["kind"], change["path"]) for change in result["changes"]
        }


def test_random_writes_are_found_as_by_a_whole_scan(lab: Lab) -> None:
    chance, infected = random.Random(6), 0
    names = sorted(disks.harmless())
    for number in range(6):
        body = chance.randbytes(chance.choice((50, 5000, 70000))) + chance.choice((b"", disks.MARKER))
        content, victim = lab.file("content", body), chance.choice(names)
        image = lab.changed(
            *chance.choice(
                [
                    [f"write {content} f{number}"],
                    [f"rm {victim}", f"write {content} {victim}"],
                    [f"rm {victim}", f"mkdir d{number}", f"write {content} d{number}/x"],
                ]
            )
        )
        if number % 3 == 0:
            disks.write_at(image, chance.randrange(2048, 8 * EXTENT - 64), disks.MARKER)
        disk = lab.disk(image)
        delta, whole = lab.compare(disk), scan(request((disk,)))
        assert paths(delta) == paths(whole), (number, reasons(delta), reasons(whole))
        assert ("vda/vg/root", "ext", "delta") in volumes(delta)
        if delta["verdict"] == "clean":
            assert whole["verdict"] == "clean"
        infected += bool(whole["findings"])
    assert infected > 1
