# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The disk of a VM that runs, or lost its power: its XFS is read as Linux makes it at the next mount."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Blocks, Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.layout import NotReadable
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_journal import checksum
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_replay import Patched, replay
from ansible_collections.vmward.remediation.plugins.module_utils._scan.xfs_walk import XfsWalk
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.direct import Direct, Golden
from ansible_collections.vmward.remediation.tests.corpus.mounting import mounted, powerless

Tree = dict[str, tuple[int, int, int, int, str]]  # mode, owner, links, time of change; of a file the hash
UNLIKE = {  # what makes a log look otherwise
    "as it is made": (),
    "small blocks": ("-b", "size=1024"),
    "large inodes": ("-i", "size=1024"),
    "large directory blocks": ("-n", "size=16384"),
    "no reflinks": ("-m", "reflink=0,rmapbt=0,bigtime=0"),
    "records of full size": ("-l", "su=256k"),
}


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Direct:
    golden = tmp_path_factory.mktemp("golden") / "d.img"
    golden.write_bytes(bytes(disks.MB))
    return Direct(golden)


def made(image: Path, *options: str) -> Path:
    with image.open("wb") as file:
        file.truncate(96 * disks.MB)
    disks.run("mkfs.xfs", "-q", "-f", "--unsupported", *options, image)
    return image


def use(root: Path, chance: random.Random, rounds: int) -> None:
    """As a server uses its disk: files come, grow, move and go."""
    folders, files = [root], [path for path in below(root) if path.name.startswith("f") and not path.is_symlink()]
    for number in range(rounds):
        place = chance.choice(folders) / f"x{chance.getrandbits(40):x}"
        does = chance.randrange(10)
        if does < 4 or not files:
            files.append(place.with_name("f" + place.name))
            files[-1].write_bytes(chance.randbytes(chance.choice((0, 40, 3000, 30000))))
        elif does == 4:
            place.mkdir()
            folders.append(place)
        elif does == 5:
            files.pop(chance.randrange(len(files))).unlink()
        elif does == 6:
            old = files.pop(chance.randrange(len(files)))
            files.append(old.rename(place.with_name("f" + place.name)))
        elif does == 7:
            os.setxattr(chance.choice(files), f"user.{number % 5}", chance.randbytes(chance.choice((9, 90, 2000))))
            place.symlink_to("t" * chance.choice((9, 700)))
        elif does == 8:
            os.link(chance.choice(files), place)
            chance.choice(files).chmod(chance.choice((0o600, 0o4755)))
        else:
            with chance.choice(files).open("r+b") as file:
                file.truncate(chance.randrange(20000))
                for part in range(12):  # as many extents as an inode cannot hold
                    file.seek(part << 14)
                    file.write(b"part")
                    os.fsync(file.fileno())


def below(root: Path) -> list[Path]:
    """`rglob` follows symbolic links, and these lead to names that are too long."""
    return [Path(folder) / name for folder, folders, files in os.walk(root) for name in sorted(folders + files)]


def settle(root: Path) -> None:
    """All that was done is in the log."""
    with (root / "last").open("wb") as file:
        os.fsync(file.fileno())


def lost_power(root: Path, image: Path, copy: Path, chance: random.Random) -> None:
    """Where an inode was written by the very record that changes it once more, kernels part, and a scan says so. That
    is rare, and depends on when Linux writes: another moment is taken then."""
    for _moment in range(5):
        settle(root)
        powerless(image, copy)
        try:
            replay(opened(copy))
        except NotReadable as exc:
            if "says to be changed already" not in str(exc):
                raise
            disks.run("xfs_freeze", "-f", root)
            disks.run("xfs_freeze", "-u", root)
            use(root, chance, 50)
        else:
            return
    raise AssertionError("kernels part at each moment")


def as_linux_sees_it(image: Path) -> Tree:
    with mounted(image) as root:
        return {f"/{path.relative_to(root)}": told(path.lstat(), path.read_bytes) for path in below(root)}


def told(status: os.stat_result, read: Callable[[], bytes]) -> tuple[int, int, int, int, str]:
    content = hashlib.sha256(read()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
    return status.st_mode, status.st_uid, status.st_nlink, int(status.st_ctime), content


def as_we_see_it(volume: Blocks) -> tuple[Tree, XfsWalk]:
    walk, tree, content = XfsWalk(volume), dict[str, os.stat_result](), dict[str, bytes]()
    for file in walk.files(see=lambda _directory, entry: tree.update({entry.path: entry.inode.status()})):
        content[file.path] = file.read(0, file.size)
    found = {path: told(status, lambda path=path: content[path]) for path, status in tree.items()}  # type: ignore[misc]
    list(walk.unnamed())
    return found, walk


def opened(image: Path) -> Raw:
    return Raw(os.open(image, os.O_RDONLY))


@pytest.mark.parametrize("options", UNLIKE.values(), ids=list(UNLIKE))
def test_what_linux_makes_of_a_log_we_see(tmp_path: Path, options: tuple[str, ...]) -> None:
    image, copy = made(tmp_path / "d.img", *options), tmp_path / "copy.img"
    chance = random.Random(len(options))
    with mounted(image) as root:
        use(root, chance, 150)
        os.sync()
        use(root, chance, 150)
        open_one = (root / "open").open("wb")
        open_one.write(b"deleted, but open")
        open_one.flush()
        os.fsync(open_one.fileno())
        (root / "open").unlink()
        lost_power(root, image, copy, chance)
        open_one.close()
    view = replay(opened(copy))
    assert view is not None
    seen, walk = as_we_see_it(view)
    assert walk.unproven() == ""
    assert walk.doubts() == []
    assert seen != as_it_lies(copy)
    assert seen == as_linux_sees_it(copy)
    assert replay(opened(copy)) is None, "Linux has unmounted it"


def as_it_lies(image: Path) -> Tree:
    try:
        return as_we_see_it(opened(image))[0]
    except NotReadable:
        return {}


def test_a_log_that_goes_round_is_replayed(tmp_path: Path) -> None:
    image, copy = made(tmp_path / "d.img"), tmp_path / "copy.img"
    chance = random.Random(7)
    with mounted(image) as root:
        first = opened(image)
        while struct.unpack(">I", first.read(log_of(first), 8)[4:])[0] == 1:
            use(root, chance, 50)
            os.sync()
        use(root, chance, 50)
        lost_power(root, image, copy, chance)
    view = replay(opened(copy))
    assert view is not None
    assert as_we_see_it(view)[0] == as_linux_sees_it(copy)


def log_of(volume: Blocks) -> int:
    head = volume.read(0, 512)
    block, start, group = (struct.unpack_from(kind, head, at)[0] for kind, at in ((">I", 4), (">Q", 48), (">I", 84)))
    return int(((start >> head[124]) * group + (start & (1 << head[124]) - 1)) * block)


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """Of the malicious file only the log knows."""
    image, copy = made(tmp_path / "d.img"), tmp_path / "crashed.img"
    with mounted(image) as root:
        (root / "good").write_bytes(b"good")
        os.sync()
        (root / "evil").write_bytes(disks.MARKER)
        settle(root)
        disks.run("sync", "-d", root / "evil")
        settle(root)
        powerless(image, copy)
    return copy


def test_a_file_of_which_only_the_log_knows_is_found(direct: Direct, crashed: Path) -> None:
    tally = direct.look(crashed, False)
    assert ([finding.path for finding in tally.findings], tally.reasons) == (["/evil"], [])


def records_of(image: Path) -> list[int]:
    """Of a log that has not gone round; ahead of it Linux stamps others of the round before, which is the zeroth."""
    volume = opened(image)
    start = log_of(volume)
    return [at for at in range(start, start + (8 << 20), 512) if volume.read(at, 8) == b"\xfe\xed\xba\xbe\0\0\0\x01"]


@pytest.mark.parametrize("missing", ["its head", "its end"])
def test_a_record_that_was_not_written_as_a_whole_is_left_out_as_linux_does(crashed: Path, missing: str) -> None:
    last = records_of(crashed)[-1]
    size = struct.unpack(">I", opened(crashed).read(last + 12, 4))[0]
    disks.write_at(crashed, last if missing == "its head" else last + 512 * -(-size // 512), bytes(512))
    view = replay(opened(crashed))
    assert view is not None
    assert as_we_see_it(view)[0] == as_linux_sees_it(crashed)


def content_of(image: Path, path: str) -> bytes:
    """As the log makes it."""
    view = replay(opened(image))
    assert view is not None
    (file,) = (file for file in XfsWalk(view).files() if file.path == path)
    return file.read(0, file.size)


@pytest.fixture
def emptied(tmp_path: Path) -> tuple[Path, int]:
    """On the disk the file has its content, by the log it has none; and the number of its inode."""
    image, copy = made(tmp_path / "d.img"), tmp_path / "copy.img"
    with mounted(image) as root:
        victim = root / "victim"
        victim.write_bytes(disks.MARKER)
        os.sync()
        disks.run("xfs_freeze", "-f", root)
        disks.run("xfs_freeze", "-u", root)
        number = victim.stat().st_ino
        os.truncate(victim, 0)
        settle(root)
        powerless(image, copy)
    assert content_of(copy, "/victim") == b""
    return copy, number


def test_what_the_log_removes_is_seen_as_it_lies(direct: Direct, emptied: tuple[Path, int]) -> None:
    """A guest may mount without recovery."""
    tally = direct.look(emptied[0], False)
    assert ([finding.path for finding in tally.findings], tally.reasons) == (["/victim"], [])


def test_an_inode_that_says_it_is_newer_is_left_as_linux_leaves_it(emptied: tuple[Path, int]) -> None:
    """Its content before the log's change would be hidden else: the guest goes on with it."""
    copy, number = emptied
    head = opened(copy).read(0, 512)
    group, within = divmod(number, 1 << head[123] + head[124])
    at = group * struct.unpack_from(">I", head, 84)[0] * 4096 + within * 512
    assert opened(copy).read(at, 2) == b"IN"
    disks.write_at(copy, at + 112, struct.pack(">Q", 7 << 32))
    disks.write_at(copy, at + 100, bytes(4))
    inode = opened(copy).read(at, 512)
    disks.write_at(copy, at + 100, struct.pack("<I", checksum(inode)))
    assert content_of(copy, "/victim") == disks.MARKER
    with mounted(copy) as root:
        assert (root / "victim").read_bytes() == disks.MARKER


def test_a_log_that_is_damaged_in_its_middle_is_told(direct: Direct, tmp_path: Path) -> None:
    image, copy = made(tmp_path / "d.img"), tmp_path / "copy.img"
    with mounted(image) as root:
        for number in range(30):
            (root / f"f{number}").write_bytes(b"x")
            settle(root)
        powerless(image, copy)
    disks.write_at(copy, records_of(copy)[-3] + 512 + 20, b"torn")
    assert "its log is damaged" in " ".join(direct.look(copy, False).reasons)


@pytest.mark.parametrize("seed", range(6))
def test_a_log_in_which_anything_may_stand_ends_with_a_sentence(
    crashed: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Checksums are an attacker's to make: without them, every byte may be any other."""
    from ansible_collections.vmward.remediation.plugins.module_utils._scan import xfs_journal

    monkeypatch.setattr(xfs_journal.Log, "_is_whole", lambda *_arguments: True)
    chance, volume, refused = random.Random(seed), opened(crashed), 0
    places = records_of(crashed)
    for _round in range(40):
        spoilt = Patched(volume, (0, 0))
        for _byte in range(chance.choice((1, 4, 30))):
            spoilt.write(chance.choice(places) + 512 + chance.randrange(2000), bytes([chance.randrange(256)]))
        try:
            view = replay(spoilt)
            assert view is None or view.pages
        except NotReadable:
            refused += 1
    assert refused


def test_snapshots_of_a_running_guest_are_compared_as_their_logs_make_them(tmp_path: Path) -> None:
    """Neither the base was unmounted nor what lies on top of it."""
    image, base = made(tmp_path / "d.img"), tmp_path / "base.img"
    chance = random.Random(3)
    with mounted(image) as root:
        use(root, chance, 200)
        lost_power(root, image, base, chance)
        golden = Golden(base)
        for number in range(3):
            use(root, chance, 60)
            victim = chance.choice(
                [path for path in below(root) if path.name.startswith("f") and not path.is_symlink()]
            )
            with victim.open("r+b") as file:
                file.write(disks.MARKER)
            settle(root)
            disks.run("sync", "-f", root)
            use(root, chance, 20)
            lost_power(root, image, tmp_path / f"top{number}.img", chance)
    for number in range(3):
        whole, delta = golden.both(tmp_path / f"top{number}.img")
        assert (whole.reasons, delta.reasons, delta.volumes[0].method) == ([], [], "delta")
        assert delta.findings
        assert delta.files < whole.files
