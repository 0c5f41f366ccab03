# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a scan cost? By differences and as a whole, beside clamscan, dissect, and a plain read of what differs.

All in one run on one golden image, in seconds of processor time. The time to load engines and rules is taken from an
empty disk and left out on both sides. Cold runs are in seconds of the clock, with neither image in the page cache.
The golden image and what guests wrote on it are made once and kept in CACHE, else in the lab's cache. SIZE=small is a
version of five minutes; else the image holds 4 GiB in 100,000 files, and clamscan gets a sample of them, whose time is
scaled by bytes. Nothing is mounted, no VM is needed. Writes build/bench/scan.json.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "build/collections"))

from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index  # noqa: E402
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import (  # noqa: E402
    DiskRequest,
    LayerSpec,
    Request,
    read_rules,
    scan,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.points import Point, disks_at, find  # noqa: E402
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits  # noqa: E402
from ansible_collections.vmward.remediation.tests.corpus import disks  # noqa: E402

MB = 1 << 20
GOALS = {"clamscan": 150, "dissect": 8, "floor": 1.5, "cold_few_rules": 3, "cold_many_rules": 3}
GOALS.update({"chain_few_rules": 1.3, "chain_many_rules": 1.3})
CACHE = Path(os.environ.get("CACHE", "/var/cache/vmward-lab/bench"))
FOLDERS = 97
VERSION = 2  # of what is kept


@dataclass(frozen=True)
class Size:
    files: int
    bytes: int
    disk: int
    deltas: tuple[int, ...]
    rules: int
    points: int
    clones: int
    sampled: int  # of FOLDERS, for clamscan


SIZES = {
    "small": Size(12_000, 300 * MB, 1024 * MB, (1, 10, 50), 1000, 8, 10, FOLDERS),
    "": Size(100_000, 4096 * MB, 8192 * MB, (1, 10, 200, 1024), 5000, 30, 100, 6),
}


def content(chance: random.Random, length: int) -> bytes:
    """Half text, half what looks like a program: rules look at both."""
    if chance.random() < 0.5:
        text = " ".join(chance.randbytes(4).hex() for _word in range(200)).encode()
        return (text * (length // len(text) + 1))[:length]
    return b"\x7fELF" + chance.randbytes(max(0, length - 4))


def golden(place: Path, size: Size) -> Path:
    """The golden image, made once and kept: its name says what is in it."""
    target = place / f"golden{VERSION}-{size.files}-{size.bytes // MB}.img"
    if target.exists():
        return target
    chance, tree = random.Random(1), place / "tree"
    for number in range(size.files):
        path = tree / f"d{number % FOLDERS}" / f"e{number % 89}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(chance, int(chance.expovariate(size.files / size.bytes))))
    draft = target.with_suffix(".new")
    with draft.open("wb") as file:
        file.truncate(size.disk)
    disks.run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, draft)
    shutil.rmtree(tree)
    draft.rename(target)
    return target


def kept(base: Path, name: str, fill: Callable[[Path, Path], None]) -> Path:
    """An overlay on the golden image, made once."""
    target = base.with_name(f"{base.stem}-{name}.qcow2")
    if not target.exists():
        draft = target.with_suffix(".new")
        disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, draft)
        with tempfile.TemporaryDirectory(dir=base.parent) as scratch:
            fill(draft, Path(scratch))
        draft.rename(target)
    return target


def overlay(base: Path, megabytes: int) -> Path:
    """What a guest writes: new files of this size together, and a few deleted ones."""

    def fill(top: Path, scratch: Path) -> None:
        chance, number, left = random.Random(megabytes), 0, megabytes * MB
        requests = ["mkdir new", "cd new"]
        while left > 0:
            length = min(left, chance.choice((4000, 60_000, 400_000, 4 * MB)))
            (scratch / f"n{number}").write_bytes(content(chance, length))
            requests.append(f"write {scratch}/n{number} n{number}")
            left, number = left - length, number + 1
        requests += [f"rm /d{one % FOLDERS}/e{one % 89}/f{one}" for one in range(0, 200, 7)]
        with disks.exported(top) as disk:
            disks.debugfs(disk, *requests)

    return kept(base, str(megabytes), fill)


def chain(base: Path, count: int) -> Path:
    """A VM with many snapshots, 2 MB written before each."""

    def fill(top: Path, scratch: Path) -> None:
        chance = random.Random(9)
        for number in range(count):
            (scratch / "block").write_bytes(content(chance, 2 * MB))
            with disks.exported(top) as disk:
                disks.debugfs(disk, f"write {scratch}/block step{number}")
            disks.run("qemu-img", "snapshot", "-c", f"s{number}", top)

    return kept(base, f"chain{count}", fill)


def rule_file(place: Path, count: int) -> Path:
    """Rules as public sets have them: a few strings each, some with wildcards, a condition on size."""
    chance = random.Random(count)
    lines = []
    for number in range(count):
        texts = [chance.randbytes(6).hex() for _text in range(3)]
        wild = " ".join([chance.randbytes(4).hex(" "), "??", chance.randbytes(4).hex(" ")])
        strings = "".join(f'$t{at} = "{text}" ' for at, text in enumerate(texts)) + f"$h = {{ {wild} }}"
        lines.append(f"rule made_{number} {{ strings: {strings} condition: filesize < 20MB and 2 of them }}")
    path = place / f"rules{count}.yar"
    path.write_text("\n".join(lines))
    return path


def request(layers: tuple[tuple[Path, str], ...], rules: list[Path], known: str) -> Request:
    chain = tuple(LayerSpec(str(path), kind) for path, kind in layers)
    files = tuple(read_rules([str(path) for path in rules]))
    limits = Limits(7200, 4 << 30, 7200)
    return Request((DiskRequest("vda", chain),), files, "", ("yara",), 0, "", limits, directory=known)


def spent(command: list[str], allowed: tuple[int, ...] = (0,)) -> float:
    """Processor seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        raise SystemExit(f"Cannot measure: {command[0]} ended with {done.returncode}. {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


WALK = """
import sys
from dissect.target.filesystems.extfs import ExtFilesystem
fs, count = ExtFilesystem(open(sys.argv[1], "rb")), 0
pending = [fs.get("/")]
while pending:
    for item in pending.pop().scandir():
        entry = item.get()
        if entry.is_symlink():
            continue
        if entry.is_dir():
            pending.append(entry)
        elif entry.is_file():
            count += len(entry.open().read(-1)) >= 0
print(count)
"""
OURS = """
import os, sys
from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import Raw
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ext4 import Ext4
from ansible_collections.vmward.remediation.tests.corpus import disks  # noqa: E402
fs, count = Ext4(Raw(os.open(sys.argv[1], os.O_RDONLY))), 0
for inode in fs.used_inodes():
    if inode.is_file and not fs.is_reserved(inode.number):
        count += len(fs.read(inode, 0, inode.size)) == inode.size
print(count)
"""


def walks(image: Path) -> dict[str, float]:
    """Reading every file of the golden image, judged by nobody: dissect's reader and ours."""
    os.environ["PYTHONPATH"] = str(ROOT / "build/collections")
    theirs = spent([sys.executable, "-c", WALK, str(image)])
    ours = spent([sys.executable, "-c", OURS, str(image)])
    return {"dissect": round(theirs, 2), "ours": round(ours, 2)}


def clamscan(place: Path, base: Path, size: Size) -> float:
    """clamscan over the golden's files as a plain tree, without the time to load as many signatures."""
    chance, database, tree, empty = random.Random(5), place / "clam", place / "plain", place / "none"
    for directory in (database, tree, empty):
        directory.mkdir()
    lines = [f"Made.{number}:0:*:{chance.randbytes(12).hex()}" for number in range(size.rules)]
    (database / "made.ndb").write_text("\n".join(lines) + "\n")
    folders = " ".join(f"/d{number}" for number in range(size.sampled))
    disks.run("debugfs", "-R", f"rdump {folders} {tree}", base)
    sample = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    command = ["clamscan", "-r", "--infected", "--no-summary", f"--database={database}"]
    loading = spent([*command, str(empty)])
    whole = spent([*command, str(tree)], (0, 1))
    shutil.rmtree(tree)
    return (whole - loading) * (size.bytes / sample if size.sampled < FOLDERS else 1)


def measured(name: str, action: Callable[[], dict[str, Any]], loading: float) -> dict[str, Any]:
    """A warm run, of quick ones the best: processor seconds without loading, bytes read, and what came out."""
    result = action()
    for _round in range(3 if result["cpu_seconds"] < 5 else 0):
        result = min(result, action(), key=lambda one: float(one["cpu_seconds"]))
    found = {
        "cpu": round(max(result["cpu_seconds"] - loading, 0.001), 3),
        "seconds": round(result["seconds"], 3),
        "read": result.get("bytes_from_disk", 0),
        "files": result.get("files", 0),
        "verdict": result["verdict"] if "verdict" in result else result["chosen"].get("name", "none"),
    }
    told = (found["cpu"], found["seconds"], found["read"] / 1e6, found["verdict"])
    print(f"  {name:28} {told[0]:9.3f} CPU-s {told[1]:9.3f} s {told[2]:9.1f} MB read  {told[3]}", flush=True)
    return found


def measure_rules(place: Path, base: Path, tops: dict[int, Path], rules: list[Path], size: Size) -> dict[str, Any]:
    """All scans with one set of rules."""
    known = str(place / f"known{len(rules)}")
    empty = disks.ext4(place / "empty.img", {"a": b"x"}, 8 * MB)
    runs = [scan(request(((empty, "raw"),), rules, "")) for _round in range(5)]
    loading, started = (min(run[key] for run in runs) for key in ("cpu_seconds", "seconds"))
    print(
        f"{'many' if len(rules) > 1 else 'few'} rules (left out of CPU-s: {loading:.2f} for loading; of s: nothing)",
        flush=True,
    )
    found: dict[str, Any] = {"loading": round(loading, 2)}
    found["full"] = measured("full", lambda: indexed(base, rules, known), loading)
    for megabytes, top in tops.items():
        made = request(((top, "qcow2"), (base, "raw")), rules, known)
        # Without the contents that an earlier run found clean: the cost of a first look
        found[f"delta_{megabytes}"] = measured(f"delta_{megabytes}", lambda made=made: fresh(made, known), loading)  # type: ignore[misc]
    made = request(((tops[10], "qcow2"), (base, "raw")), rules, known)
    scan(made)
    found["delta_10_on_the_next_clone"] = measured("delta_10_on_the_next_clone", lambda: scan(made), loading)
    boot = (LayerSpec(str(tops[1]), "qcow2"), LayerSpec(str(base), "raw"))
    fleet = replace(made, disks=tuple(DiskRequest(f"vm{number}", boot) for number in range(size.clones)))
    found[f"clones_{size.clones}"] = measured(f"clones_{size.clones}", lambda: scan(fleet), loading)
    found.update(points(base, made, size.points, loading))
    found["cold"] = cold(base, tops[max(tops)], rules, known, started)
    return found


def indexed(base: Path, rules: list[Path], known: str) -> dict[str, Any]:
    """A golden image that nobody knows yet: a whole scan, and its index."""
    for path in Path(known).glob("*"):
        path.unlink()
    return index(request(((base, "raw"),), rules, known))


def fresh(made: Request, known: str) -> dict[str, Any]:
    for path in Path(known).glob("*.clean"):
        path.unlink()
    return scan(made)


def points(base: Path, made: Request, count: int, loading: float) -> dict[str, Any]:
    """All snapshots of a chain, the base known or not, beside the scan of one snapshot by itself."""
    layers = (LayerSpec(str(chain(base, count)), "qcow2"), made.disks[0].layers[-1])
    asked = replace(made, disks=(DiskRequest("vda", layers),))
    wanted = [
        Point("snapshot", f"s{number}", f"s{number}", "", tuple(disks_at(asked.disks, "snapshot", f"s{number}")))
        for number in reversed(range(count))
    ]
    one = replace(asked, disks=(DiskRequest("vda", layers, "s0"),))
    return {
        "chain_of_one": measured("chain_of_one", lambda: fresh(one, made.directory), loading),
        "chain": measured("chain", lambda: find(replace(asked, directory=""), wanted, True, ""), loading),
        "chain_on_a_known_base": measured("chain_on_a_known_base", lambda: find(asked, wanted, True, ""), loading),
    }


def cold(base: Path, top: Path, rules: list[Path], known: str, started: float) -> dict[str, float]:
    """Seconds of the clock for the largest delta and for a plain read of what differs, both from the disk."""
    made = request(((top, "qcow2"), (base, "raw")), rules, known)
    seconds = []
    for action in (lambda: plain_read(base, top), lambda: fresh(made, known)):
        forget(base, top)
        began = time.monotonic()
        action()
        seconds.append(time.monotonic() - began)
    found = {"read": round(seconds[0], 2), "scan": round(seconds[1] - started, 2)}
    print(f"  cold, the largest delta: {found['scan']} s, a plain read {found['read']} s", flush=True)
    return found


def forget(*images: Path) -> None:
    """Take the images out of the page cache."""
    for image in images:
        with image.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def plain_read(base: Path, top: Path) -> None:
    """What the overlay holds, and the same blocks of the base."""
    with base.open("rb") as old, top.open("rb") as new:
        for start, host, length in differing(top):
            for file, at in ((new, host), (old, start)):
                for step in range(0, length, MB):
                    os.pread(file.fileno(), min(MB, length - step), at + step)


def differing(top: Path) -> list[tuple[int, int, int]]:
    """Start on the disk, offset in the file and length of what the overlay holds."""
    told = json.loads(disks.run("qemu-img", "map", "--output=json", "-f", "qcow2", top))
    return [(part["start"], part["offset"], part["length"]) for part in told if part["depth"] == 0 and part["data"]]


def floor(top: Path) -> int:
    """What must be read at the least: what the overlay holds, and the same blocks of the base."""
    return 2 * sum(length for _start, _host, length in differing(top))


def ratios_of(figures: dict[str, Any], count: int) -> dict[str, float | None]:
    """What the goals speak of."""
    many = figures["many_rules"]
    found = {
        "clamscan": figures["clamscan"] / many["delta_10"]["cpu"] if figures["clamscan"] else None,
        "dissect": figures["walk"]["dissect"] / figures["walk"]["ours"],
        "floor": many["delta_10"]["read"] / figures["floor_10"],
        "full_to_delta": many["full"]["cpu"] / many["delta_10"]["cpu"],
    }
    for rules in ("few_rules", "many_rules"):
        one = figures[rules]
        found[f"chain_{rules}"] = one["chain"]["cpu"] / (one["full"]["cpu"] + count * one["chain_of_one"]["cpu"])
        found[f"cold_{rules}"] = one["cold"]["scan"] / one["cold"]["read"]
    return {name: None if ratio is None else round(ratio, 2) for name, ratio in found.items()}


def main() -> int:
    """Measure, print a table, write the figures."""
    size = SIZES[os.environ.get("SIZE", "")]
    CACHE.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    base = golden(CACHE, size)
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        place = Path(directory)
        tops = {megabytes: overlay(base, megabytes) for megabytes in size.deltas}
        small = [ROOT / "roles/scan/files/rules"]
        figures: dict[str, Any] = {
            "few_rules": measure_rules(place, base, tops, small, size),
            "many_rules": measure_rules(place, base, tops, [*small, rule_file(place, size.rules)], size),
            "floor_10": floor(tops[10]),
            "walk": walks(base),
            "clamscan": round(clamscan(place, base, size), 2) if shutil.which("clamscan") else None,
        }
    ratios = ratios_of(figures, size.points)
    show(figures, ratios)
    target = ROOT / "build/bench/scan.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    size_told = {key: value for key, value in vars(size).items() if key != "deltas"}
    target.write_text(json.dumps({"ratios": ratios, "figures": figures, "size": size_told}, indent=2) + "\n")
    print(f"{time.monotonic() - began:.0f} s")
    return 0


def show(figures: dict[str, Any], ratios: dict[str, Any]) -> None:
    print(f"Reading every file: dissect {figures['walk']['dissect']} CPU-s, ours {figures['walk']['ours']} CPU-s")
    print(f"clamscan -r of the golden's files: {figures['clamscan']} CPU-s")
    for name, ratio in ratios.items():
        goal = "" if name not in GOALS else f"  goal {'>=' if GOALS[name] >= 8 else '<='} {GOALS[name]}"
        print(f"  {name:18} {ratio}{goal}")


if __name__ == "__main__":
    sys.exit(main())
