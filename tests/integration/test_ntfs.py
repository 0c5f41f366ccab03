# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NTFS: every record is read, the difference finds what a whole scan finds, and what is in doubt is never clean."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.chain import Layer
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Yara
from ansible_collections.vmward.remediation.plugins.module_utils._scan.foreign import Foreign
from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import DiskRequest, LayerSpec, Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ntfs import Ntfs
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.plugins.module_utils._scan.scanner import DiskSpec, Scanner
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct, Golden
from ansible_collections.vmward.remediation.tests.corpus.mounting import mounted_ntfs
from ansible_collections.vmward.remediation.tests.corpus.ntfs_records import at_of, opened, restart
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

MB = disks.MB
MARKER = disks.MARKER
COMPRESSED = struct.pack("<I", 0x800)


def text(length: int) -> bytes:
    return b"".join(b"line %d of a text that packs well\n" % number for number in range(length // 30))[:length]


def fill(root: Path, may_pack: bool = True) -> None:
    for name, content in disks.harmless(30).items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    (root / "large").write_bytes(random.Random(1).randbytes(3 * MB))
    (root / "etc/hostname:zone").write_bytes(b"[ZoneTransfer]\n")
    packed = root / "packed"
    packed.mkdir()
    if may_pack:  # which NTFS does with clusters of up to 4 KiB
        os.setxattr(packed, "system.ntfs_attrib", COMPRESSED)
    (packed / "text").write_bytes(text(300_000))
    with (packed / "holes").open("wb") as file:
        file.seek(200_000)
        file.write(text(70_000))
    many = root / "many"
    many.write_bytes(b"streams")
    for number in range(60):  # more than a record holds
        (root / f"many:stream{number}").write_bytes(bytes([number]) * 800)
    with (root / "sparse").open("wb") as file:
        for step in range(300):
            file.seek(step * 65536)
            file.write(b"s" * 4096)
    (root / "directory").mkdir()
    for number in range(200):
        (root / f"directory/a rather long name of a file, number {number}").write_bytes(b"%d" % number)


class GoldenNtfs(Golden):
    def __init__(self, place: Path) -> None:
        for tool in ("mkntfs", "ntfs-3g"):
            if not shutil.which(tool):
                pytest.skip(f"{tool} is not installed")
        image = place / "golden.img"
        image.write_bytes(b"")
        os.truncate(image, 40 * MB)
        disks.run("mkntfs", "-q", "-F", "-s", "512", image)
        with mounted_ntfs(image) as root:
            fill(root)
        super().__init__(image)

    def after(self, change: Callable[[Path], object]) -> tuple[Tally, Tally]:
        image = self.copy()
        with mounted_ntfs(image) as root:
            change(root)
        return self.both(image)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> GoldenNtfs:
    return GoldenNtfs(tmp_path_factory.mktemp("ntfs"))


def record_of(fs: Ntfs, name: bytes) -> int:
    for number in fs.used_records():
        if fs.base_of(number) is None and any(one == name for _parent, one in fs.file(number).names):
            return number
    raise LookupError(name)


def method(tally: Tally) -> str:
    return str(tally.volumes[0].method)


def changes(tally: Tally) -> set[tuple[str, str, str, str]]:
    return {(change.kind, change.path, change.former, change.what) for change in tally.changes}


def clean(tally: Tally) -> bool:
    return bool(tally.verdict().value == "clean")


def test_all_files_and_streams_are_read_as_another_reader_reads_them(golden: GoldenNtfs) -> None:
    volume = Raw(os.open(golden.image, os.O_RDONLY))
    fs, ours = Ntfs(volume), {}
    for number in fs.used_records():
        if fs.base_of(number) is not None:
            continue
        file = fs.file(number)
        for name in file.streams:
            stream = fs.stream(file, name)
            for one in file.names:
                path = (fs.path(number, one) + (b":" + name if name else b"")).decode()
                ours[path] = hashlib.sha256(fs.read(stream, 0, stream.size)).hexdigest()
    theirs = {file.path: hashlib.sha256(file.read(0, file.size)).hexdigest() for file in Foreign(volume).files()}
    assert len(ours) > 300
    assert ours == theirs
    with mounted_ntfs(golden.image) as root:
        seen = {"/" + str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
        assert set(seen) == {path for path in ours if not path.startswith("/$") and ":" not in path}
        for path, place in seen.items():
            assert hashlib.sha256(place.read_bytes()).hexdigest() == ours[path], path


def test_an_untouched_copy_is_the_same(golden: GoldenNtfs) -> None:
    _whole, delta = golden.both(golden.copy())
    assert (method(delta), clean(delta), delta.files) == ("same", True, 0)


def test_only_what_was_written_is_read(golden: GoldenNtfs) -> None:
    whole, delta = golden.after(lambda root: (root / "evil").write_bytes(b"x" * 9000 + MARKER))
    assert [finding.path for finding in delta.findings] == ["/evil"]
    assert (method(whole), method(delta), delta.reasons) == ("full", "delta", [])
    assert whole.files > 300
    assert delta.files < 5
    assert ("new", "/evil", "", "") in changes(delta)


def test_a_harmless_change_is_clean_and_told(golden: GoldenNtfs) -> None:
    _whole, delta = golden.after(lambda root: (root / "etc/hostname").write_bytes(b"desk2\n" * 4000))
    assert clean(delta), (delta.reasons, delta.indicators)
    assert changes(delta) == {("changed", "/etc/hostname", "", "content")}


def test_a_new_stream_of_an_old_file_is_found_and_told(golden: GoldenNtfs) -> None:
    _whole, delta = golden.after(lambda root: (root / "large:evil").write_bytes(MARKER))
    assert [finding.path for finding in delta.findings] == ["/large:evil"]
    assert changes(delta) == {("new", "/large:evil", "", "")}


def test_a_stream_in_a_record_that_continues_another_is_found(golden: GoldenNtfs) -> None:
    _whole, delta = golden.after(lambda root: (root / "many:stream41").write_bytes(MARKER + bytes(700)))
    assert [finding.path for finding in delta.findings] == ["/many:stream41"]
    assert ("changed", "/many:stream41", "", "content") in changes(delta)


def test_packed_content_is_unpacked(golden: GoldenNtfs) -> None:
    def change(root: Path) -> None:
        with (root / "packed/text").open("r+b") as file:
            file.seek(150_000)
            file.write(MARKER)

    _whole, delta = golden.after(change)
    assert [finding.path for finding in delta.findings] == ["/packed/text"]


def test_what_was_renamed_moved_linked_or_deleted_is_told(golden: GoldenNtfs) -> None:
    def change(root: Path) -> None:
        (root / "large").rename(root / "other")
        (root / "usr/share/doc1/file1").rename(root / "etc/file1")
        (root / "usr/share/doc2/file2").unlink()
        os.link(root / "sparse", root / "etc/again")
        os.setxattr(root / "etc/hostname", "system.ntfs_attrib", struct.pack("<I", 0x2))
        (root / "directory").rename(root / "folder")

    _whole, delta = golden.after(change)
    assert clean(delta), (delta.reasons, delta.indicators)
    assert changes(delta) == {
        ("renamed", "/other", "/large", ""),
        ("renamed", "/etc/file1", "/usr/share/doc1/file1", ""),
        ("deleted", "/usr/share/doc2/file2", "", ""),
        ("linked", "/etc/again", "/sparse", ""),
        ("changed", "/etc/hostname", "", "attributes"),
        ("renamed", "/folder", "/directory", ""),
    }


def test_times_that_do_not_tell_of_new_content_are_told(golden: GoldenNtfs) -> None:
    image = golden.copy()
    middle = random.Random(1).randbytes(3 * MB)[MB : MB + 64]
    disks.write_at(image, image.read_bytes().index(middle), MARKER)
    _whole, delta = golden.both(image)
    assert [finding.path for finding in delta.findings] == ["/large"]
    assert delta.files == 1
    assert changes(delta) == {("changed", "/large", "", "content,mtime_forged")}

    def quietly(root: Path) -> None:
        file = root / "etc/hostname"
        before = file.stat()
        file.write_bytes(b"desk3\n")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    _whole, delta = golden.after(quietly)
    assert changes(delta) == {("changed", "/etc/hostname", "", "content,mtime_kept")}


def test_a_file_that_points_into_the_base_s_free_clusters_is_found(tmp_path: Path) -> None:
    """No cluster of its content differs: only its record tells."""
    golden = GoldenNtfs(tmp_path)
    fs = opened(golden.image)
    free = next(at for at in range(30 * MB, 39 * MB, fs.cluster) if not any(golden.image.read_bytes()[at : at + 4096]))
    disks.write_at(golden.image, free, MARKER)
    golden.direct = Direct(golden.image)
    image = golden.copy()
    number = record_of(fs, b"file20")
    at = at_of(fs, number)
    file = fs.file(number)
    ((vcn, lcn, count),) = fs.stream(file, b"").runs
    raw = fs.raw_record(number)
    data = next(one for one in file.attributes if one.type == 0x80).raw
    start = raw.index(data[:64]) + struct.unpack_from("<H", data, 32)[0]
    assert (vcn, raw[start] & 15, raw[start + 1]) == (0, 1, count)
    wide = raw[start] >> 4
    disks.write_at(image, at + start + 2, (free // fs.cluster).to_bytes(wide, "little", signed=True))
    assert lcn != free // fs.cluster
    _whole, delta = golden.both(image)
    assert [finding.path for finding in delta.findings] == ["/usr/share/doc6/file20"]


def test_a_sample_in_free_clusters_is_an_indicator(golden: GoldenNtfs) -> None:
    image = golden.copy()
    assert not any(golden.image.read_bytes()[39 * MB : 39 * MB + 4096])
    disks.write_at(image, 39 * MB + 77, MARKER)
    _whole, delta = golden.both(image)
    assert (delta.verdict().value, delta.findings) == ("incomplete", [])
    assert [found.path for found in delta.indicators] == ["(differing blocks outside of files)"]


def test_a_file_that_no_directory_names_is_read(golden: GoldenNtfs) -> None:
    """Its record is in use, and the directory's entries know nothing of it."""
    image = golden.copy()
    with mounted_ntfs(image) as root:
        (root / "hidden").write_bytes(MARKER)
    number = record_of(opened(image), b"hidden")
    at = at_of(opened(image), number)
    kept = image.read_bytes()[at : at + 1024]
    with mounted_ntfs(image) as root:
        (root / "hidden").unlink()
    disks.write_at(image, at, kept)
    whole, delta = golden.both(image)
    assert [finding.path for finding in whole.findings] == ["/hidden"]


def test_what_several_states_share_is_judged_once(golden: GoldenNtfs) -> None:
    layer = Layer(str(golden.image), "raw", os.open(golden.image, os.O_RDONLY))
    judge = Judge([Yara(RULES, 60)], lambda _kind, _body: None, 1 << 28)
    scanner = Scanner(judge, remember=True)
    read = []
    for _state in range(2):
        before = judge.bytes
        scanner.run([DiskSpec("vda", (layer,))])
        read.append(judge.bytes - before)
    assert read[0] > 4 * MB
    assert read[1] < MB  # what lies in records themselves


@pytest.mark.parametrize(
    ("sector", "cluster", "megabytes"),
    [(512, 512, 40), (512, 65536, 300), (512, 131072, 600), (512, 2 * MB, 3000), (4096, 4096, 100), (1024, 4096, 60)],
)
def test_sectors_and_clusters_of_any_size_are_read(
    golden: GoldenNtfs, tmp_path: Path, sector: int, cluster: int, megabytes: int
) -> None:
    """Records of 4096 bytes, and clusters of more than 64 KiB, whose size the boot sector tells otherwise."""
    image = tmp_path / "d.img"
    image.write_bytes(b"")
    os.truncate(image, megabytes * MB)
    track = "-p", "2048", "-H", "255", "-S", "63"
    disks.run("mkntfs", "-q", "-F", "-s", str(sector), "-c", str(cluster), *track, image)
    assert clean(golden.direct.look(image, False))
    with mounted_ntfs(image) as root:
        fill(root, may_pack=cluster <= 4096)
    tally = golden.direct.look(image, False)
    assert clean(tally), (tally.reasons, tally.indicators)
    assert tally.files > 300
    with mounted_ntfs(image) as root:
        (root / "many:stream41").write_bytes(MARKER + bytes(700))
        (root / "large").write_bytes(random.Random(2).randbytes(2 * MB) + MARKER)
    found = {finding.path for finding in golden.direct.look(image, False).findings}
    assert found == {"/many:stream41", "/large"}


# --- in doubt --------------------------------------------------------------------------------------------------------


def told(golden: GoldenNtfs, image: Path, reason: str) -> None:
    whole, delta = golden.both(image)
    for tally in (whole, delta):
        assert tally.verdict().value == "incomplete"
        assert reason in " ".join(tally.reasons), tally.reasons


def test_a_volume_that_is_marked_dirty_is_told(golden: GoldenNtfs) -> None:
    image, fs = golden.copy(), opened(golden.image)
    raw = fs.raw_record(3)
    value = next(one for one in fs.file(3).attributes if one.type == 0x70).raw
    disks.write_at(image, at_of(fs, 3) + raw.index(value) + 24 + 10, b"\1")
    told(golden, image, "not unmounted cleanly")


@pytest.mark.parametrize(("client", "flags", "fine"), [(0, 0, False), (0, 2, True), (0xFFFF, 0, True)])
def test_a_log_that_is_not_at_its_end_is_told(golden: GoldenNtfs, client: int, flags: int, fine: bool) -> None:
    image, fs = golden.copy(), opened(golden.image)
    _vcn, lcn, _count = fs.stream(fs.file(2), b"").runs[0]
    assert lcn is not None
    page = restart(fs.stream(fs.file(2), b"").size, 1000, client, flags, (1, 1))
    for number in range(2):
        disks.write_at(image, lcn * fs.cluster + number * 4096, page)
    if fine:
        assert clean(golden.both(image)[1])
    else:
        told(golden, image, "its log holds changes")


@pytest.mark.parametrize("head", [b"HIBR", b"hibr"])
def test_a_windows_that_sleeps_is_told(golden: GoldenNtfs, head: bytes) -> None:
    image = golden.copy()
    with mounted_ntfs(image) as root:
        (root / "Hiberfil.sys").write_bytes(bytes(8192))
    assert clean(golden.both(image)[1])
    with mounted_ntfs(image) as root:
        (root / "Hiberfil.sys").write_bytes(head + bytes(8192))
    told(golden, image, "Windows sleeps in it")


def test_content_that_windows_keeps_packed_elsewhere_is_told(golden: GoldenNtfs) -> None:
    image = golden.copy()
    with mounted_ntfs(image) as root:
        (root / "compact").write_bytes(b"x")
        try:
            os.setxattr(
                root / "compact", "system.ntfs_reparse_data", struct.pack("<IHH", 0x80000017, 16, 0) + bytes(16)
            )
        except OSError as exc:
            pytest.skip(f"this ntfs-3g sets no reparse points: {exc}")
    told(golden, image, "keeps its content packed")


def test_a_torn_record_is_told(golden: GoldenNtfs) -> None:
    image, fs = golden.copy(), opened(golden.image)
    disks.write_at(image, at_of(fs, record_of(fs, b"file20")) + 510, b"\xde\xad")
    told(golden, image, "in part only")


def test_a_record_that_lost_its_file_is_told(golden: GoldenNtfs) -> None:
    image, fs = golden.copy(), opened(golden.image)
    number = record_of(fs, b"many")
    part = fs.file(number).records[-1]
    disks.write_at(image, at_of(fs, part) + 32, struct.pack("<Q", 1 << 48 | record_of(fs, b"large")))
    told(golden, image, "")


def test_the_copy_of_the_table_must_be_the_same(golden: GoldenNtfs) -> None:
    image, fs = golden.copy(), opened(golden.image)
    _vcn, lcn, _count = fs.stream(fs.file(1), b"").runs[0]
    assert lcn is not None
    disks.write_at(image, lcn * fs.cluster + 3 * 1024 + 60, b"\x55")
    told(golden, image, "are not the same")


def test_another_serial_number_is_scanned_as_a_whole(golden: GoldenNtfs) -> None:
    image = golden.copy()
    disks.write_at(image, 72, b"\0\1\2\3")
    _whole, delta = golden.both(image)
    assert method(delta) == "full"
    assert "geometry" in " ".join(delta.notes)


# --- hostile ---------------------------------------------------------------------------------------------------------


def value_at(fs: Ntfs, number: int, kind: int) -> int:
    """Where in its record the attribute begins."""
    return fs.raw_record(number).index(next(one for one in fs.file(number).attributes if one.type == kind).raw[:24])


def test_a_directory_within_itself_ends(golden: GoldenNtfs) -> None:
    image, fs = golden.copy(), opened(golden.image)
    number = record_of(fs, b"directory")
    at = at_of(fs, number) + value_at(fs, number, 0x30) + 24
    disks.write_at(image, at, struct.pack("<Q", 1 << 48 | number))
    inner = record_of(fs, b"a rather long name of a file, number 7")
    disks.write_at(image, at_of(fs, inner) + 16, b"\x07")  # another sequence number: another file
    _whole, delta = golden.both(image)
    assert {change.kind for change in delta.changes} == {"renamed", "deleted", "new"}
    assert all(len(change.path) <= 512 for change in delta.changes)


@pytest.mark.parametrize("size", [1 << 40, (1 << 63) - 1])
def test_a_size_past_all_bounds_is_told(golden: GoldenNtfs, size: int) -> None:
    image, fs = golden.copy(), opened(golden.image)
    number = record_of(fs, b"large")
    at = at_of(fs, number) + value_at(fs, number, 0x80)
    disks.write_at(image, at + 40, struct.pack("<QQQ", size, size, size))
    told(golden, image, "shorter than its size")


def test_a_table_past_all_bounds_is_refused(golden: GoldenNtfs) -> None:
    image, fs = golden.copy(), opened(golden.image)
    at = at_of(fs, 0) + value_at(fs, 0, 0x80)
    disks.write_at(image, at + 40, struct.pack("<QQQ", 1 << 50, 1 << 50, 1 << 50))
    whole, delta = golden.direct.look(image, False), golden.direct.look(image, True)
    assert not clean(whole)
    assert not clean(delta)


def test_a_list_of_attributes_that_names_its_own_record_or_others_is_told(golden: GoldenNtfs) -> None:
    image, fs = golden.copy(), opened(golden.image)
    number = record_of(fs, b"many")
    (run,) = next(one for one in fs.file(number).attributes if one.type == 0x20).runs
    assert run[1] is not None
    place = run[1] * fs.cluster
    entries = image.read_bytes()[place : place + 4096]
    part = fs.file(number).records[1]
    foreign = entries.replace(struct.pack("<Q", 1 << 48 | part), struct.pack("<Q", 1 << 48 | record_of(fs, b"sparse")))
    assert foreign != entries
    disks.write_at(image, place, foreign)
    told(golden, image, "not one of its own")


# --- at random -------------------------------------------------------------------------------------------------------


def at_random(chance: random.Random, root: Path, number: int) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    victim, new = chance.choice(files), root / f"n{number}"
    body = chance.randbytes(chance.choice((10, 600, 5000, 200_000))) + chance.choice((b"", MARKER))

    def append() -> None:
        with victim.open("ab") as file:
            file.write(body)

    def poke() -> None:
        with victim.open("r+b") as file:
            file.seek(chance.randrange(victim.stat().st_size + 1))
            file.write(body[-40:])

    def sparse() -> None:
        with new.open("wb") as file:
            for step in range(40):
                file.seek(step * 65536)
                file.write(body[-4096:])

    actions: list[Callable[[], object]] = [
        lambda: new.write_bytes(body),
        lambda: Path(f"{victim}:n{number}").write_bytes(body),
        lambda: (root / f"packed/n{number}").write_bytes(text(90_000) + body),
        lambda: [(root / f"n{number} {more}").write_bytes(body[:300]) for more in range(100)],
        lambda: victim.write_bytes(body),
        victim.unlink,
        lambda: victim.rename(new),
        lambda: os.link(victim, new),
        lambda: os.truncate(victim, victim.stat().st_size // 2),
        lambda: os.truncate(victim, victim.stat().st_size * 2 + 5000),
        append,
        poke,
        sparse,
    ]
    chance.choice(actions)()


SEEDS = pytest.mark.parametrize("seed", [4, *(pytest.param(more, marks=pytest.mark.slow) for more in (5, 6, 7))])


@SEEDS
def test_random_guest_writes_are_found_as_by_a_whole_scan(golden: GoldenNtfs, seed: int) -> None:
    chance, infected = random.Random(seed), 0
    for round_ in range(12):
        image = golden.copy()
        with mounted_ntfs(image) as root:
            for number in range(chance.randint(1, 6)):
                at_random(chance, root, number)
        if round_ % 3 == 0:
            for _poke in range(3):
                disks.write_at(image, chance.randrange(MB, 39 * MB), chance.choice((MARKER, b"\xff" * 9)))
        whole, delta = golden.both(image)
        assert method(delta) == "delta"
        assert delta.files < whole.files
        infected += bool(whole.findings)
    assert infected > 2


@SEEDS
def test_random_damage_is_never_clean_where_a_whole_scan_is_not(golden: GoldenNtfs, seed: int) -> None:
    """Where the records are, half of the hits; in this process, since no parser of C is in play."""
    fs, chance, unclean = opened(golden.image), random.Random(seed), 0
    used = list(fs.used_records())
    for _round in range(30):
        image = golden.copy()
        for _hit in range(chance.choice((1, 1, 6))):
            record = at_of(fs, chance.choice(used)) + chance.randrange(400)
            place = chance.choice((record, record, chance.randrange(8192)))
            disks.write_at(image, place, chance.randbytes(chance.choice((1, 4, 16))))
        whole, delta = golden.direct.look(image, False), golden.direct.look(image, True)
        if clean(delta):
            assert clean(whole), whole.reasons
        unclean += not clean(whole)
    assert unclean > 5


def test_confined_on_a_known_golden_image(golden: GoldenNtfs) -> None:
    base, known = (LayerSpec(str(golden.image), "raw"),), str(golden.place / "known")
    asked = Request((DiskRequest("vda", base),), RULES, "", ("yara",), 0, "", Limits(60, 512 * MB, 60), directory=known)
    assert index(asked)["verdict"] == "clean"
    image = golden.copy()
    with mounted_ntfs(image) as root:
        (root / "etc/evil").write_bytes(MARKER)
    result = scan(replace(asked, disks=(DiskRequest("vda", (LayerSpec(str(image), "raw"),), clone_of=base),)))
    assert (result["verdict"], result["volumes"][0]["method"]) == ("infected", "delta")
    assert [finding["path"] for finding in result["findings"]] == ["/etc/evil"]
    assert result["bases"][0]["used"]
