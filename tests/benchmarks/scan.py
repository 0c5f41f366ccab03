# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a scan cost? By differences and as a whole, beside clamscan, dissect, and a plain read of what differs.

All in one run on one golden image, in seconds of processor time. The time to load engines and rules is taken from an
empty disk and left out on both sides. SIZE=small is a version of five minutes; else the image holds 4 GiB in 100,000
files. Nothing is mounted, no VM is needed. Writes build/bench/scan.json.
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
sys.path.insert(0, str(ROOT / "tests/corpus"))

import disks  # type: ignore[import-not-found]  # noqa: E402

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

MB = 1 << 20
GOALS = {"clamscan": 150, "dissect": 8, "floor": 1.5}


@dataclass(frozen=True)
class Size:
    files: int
    bytes: int
    disk: int
    deltas: tuple[int, ...]
    rules: int
    points: int
    clones: int


SIZES = {
    "small": Size(12_000, 300 * MB, 1024 * MB, (1, 10, 50), 1000, 8, 10),
    "": Size(100_000, 4096 * MB, 8192 * MB, (1, 10, 200, 1024), 5000, 30, 100),
}


def content(chance: random.Random, length: int) -> bytes:
    """Half text, half what looks like a program: rules look at both."""
    if chance.random() < 0.5:
        words = [chance.randbytes(4).hex() for _word in range(50)]
        return " ".join(chance.choices(words, k=length // 9 + 1)).encode()[:length]
    return b"\x7fELF" + chance.randbytes(max(0, length - 4))


def golden(place: Path, size: Size) -> Path:
    """The golden image, made once and kept: its name says what is in it."""
    target = place / f"golden-{size.files}-{size.bytes // MB}.img"
    if target.exists():
        return target
    chance, tree = random.Random(1), place / "tree"
    for number in range(size.files):
        path = tree / f"d{number % 97}" / f"e{number % 89}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(chance, int(chance.expovariate(size.files / size.bytes))))
    draft = target.with_suffix(".new")
    with draft.open("wb") as file:
        file.truncate(size.disk)
    disks.run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, draft)
    shutil.rmtree(tree)
    draft.rename(target)
    return target


def overlay(place: Path, base: Path, megabytes: int) -> Path:
    """What a guest writes: new files of this size together, and a few deleted ones."""
    chance, tree = random.Random(megabytes), place / f"new{megabytes}"
    tree.mkdir()
    requests, left, number = ["mkdir new", "cd new"], megabytes * MB, 0
    while left > 0:
        length = min(left, chance.choice((4000, 60_000, 400_000, 4 * MB)))
        (tree / f"n{number}").write_bytes(content(chance, length))
        requests.append(f"write {tree}/n{number} n{number}")
        left, number = left - length, number + 1
    requests += [f"rm /d{one % 97}/e{one % 89}/f{one}" for one in range(0, 200, 7)]
    raw = place / "changed.img"
    disks.run("cp", "--sparse=always", base, raw)
    disks.debugfs(raw, *requests)
    top = place / f"top{megabytes}.qcow2"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, top)
    disks.apply(top, base, raw, place)
    raw.unlink()
    shutil.rmtree(tree)
    return top


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


def clamscan(place: Path, base: Path, count: int) -> float:
    """clamscan over the golden's files as a plain tree, without the time to load as many signatures."""
    chance, database, tree, empty = random.Random(5), place / "clam", place / "plain", place / "none"
    for directory in (database, tree, empty):
        directory.mkdir()
    lines = [f"Made.{number}:0:*:{chance.randbytes(12).hex()}" for number in range(count)]
    (database / "made.ndb").write_text("\n".join(lines) + "\n")
    disks.run("debugfs", "-R", f"rdump / {tree}", base)
    command = ["clamscan", "-r", "--infected", "--no-summary", f"--database={database}"]
    loading = spent([*command, str(empty)])
    whole = spent([*command, str(tree)], (0, 1))
    shutil.rmtree(tree)
    return whole - loading


def measured(action: Callable[[], dict[str, Any]], loading: float) -> dict[str, Any]:
    """A warm run: processor seconds without loading, bytes read from images, and what came out."""
    action()
    result = action()
    return {
        "cpu": round(max(result["cpu_seconds"] - loading, 0.001), 3),
        "seconds": round(result["seconds"], 3),
        "read": result.get("bytes_from_disk", 0),
        "files": result.get("files", 0),
        "verdict": result["verdict"] if "verdict" in result else result["chosen"].get("name", "none"),
    }


def measure_rules(place: Path, base: Path, tops: dict[int, Path], rules: list[Path], size: Size) -> dict[str, Any]:
    """All scans with one set of rules."""
    known = str(place / f"known{len(rules)}")
    empty = disks.ext4(place / "empty.img", {"a": b"x"}, 8 * MB)
    loading = min(scan(request(((empty, "raw"),), rules, ""))["cpu_seconds"] for _round in range(2))
    full = scan(request(((base, "raw"),), rules, ""))
    indexed = index(request(((base, "raw"),), rules, known))
    found: dict[str, Any] = {
        "loading": round(loading, 2),
        "full": {"cpu": round(full["cpu_seconds"] - loading, 2), "verdict": full["verdict"], "files": full["files"]},
        "index": {"cpu": round(indexed["cpu_seconds"] - loading, 2), "verdict": indexed["verdict"]},
    }
    for megabytes, top in tops.items():
        made = request(((top, "qcow2"), (base, "raw")), rules, known)
        # Without the contents that an earlier run found clean: the cost of a first look
        found[f"delta_{megabytes}"] = measured(lambda made=made: fresh(made, known), loading)  # type: ignore[misc]
    made = request(((tops[10], "qcow2"), (base, "raw")), rules, known)
    scan(made)
    found["delta_10_on_the_next_clone"] = measured(lambda: scan(made), loading)
    boot = (LayerSpec(str(tops[1]), "qcow2"), LayerSpec(str(base), "raw"))
    fleet = replace(made, disks=tuple(DiskRequest(f"vm{number}", boot) for number in range(size.clones)))
    found[f"clones_{size.clones}"] = measured(lambda: scan(fleet), loading)
    found["points"] = points(place, base, made, size.points, loading)
    return found


def fresh(made: Request, known: str) -> dict[str, Any]:
    for path in Path(known).glob("*.clean"):
        path.unlink()
    return scan(made)


def points(place: Path, base: Path, made: Request, count: int, loading: float) -> dict[str, Any]:
    """A VM with many snapshots, all of them scanned, beside what they hold."""
    top, chance = place / "points.qcow2", random.Random(9)
    if not top.exists():
        disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, top)
        before, state = place / "before.img", place / "state.img"
        disks.run("cp", "--sparse=always", base, state)
        for number in range(count):
            disks.run("cp", "--sparse=always", state, before)
            (place / "block").write_bytes(content(chance, 2 * MB))
            disks.debugfs(state, f"write {place}/block step{number}")
            disks.apply(top, before, state, place)
            disks.run("qemu-img", "snapshot", "-c", f"s{number}", top)
        before.unlink()
        state.unlink()
    chain = (LayerSpec(str(top), "qcow2"), made.disks[0].layers[-1])
    asked = replace(made, disks=(DiskRequest("vda", chain),))
    wanted = [
        Point("snapshot", f"s{number}", f"s{number}", "", tuple(disks_at(asked.disks, "snapshot", f"s{number}")))
        for number in reversed(range(count))
    ]
    result = measured(lambda: find(asked, wanted, True, ""), loading)
    return {**result, "count": count, "allocated": top.stat().st_blocks * 512}


def floor(base: Path, top: Path) -> int:
    """What must be read at the least: what the overlay holds, and the same blocks of the base."""
    told = json.loads(disks.run("qemu-img", "map", "--output=json", "-f", "qcow2", top))
    return 2 * sum(part["length"] for part in told if part["depth"] == 0 and part["data"])


def main() -> int:
    """Measure, print a table, write the figures."""
    size, cache = SIZES[os.environ.get("SIZE", "")], ROOT / ".cache/bench"
    cache.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    base = golden(cache, size)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        place = Path(directory)
        tops = {megabytes: overlay(place, base, megabytes) for megabytes in size.deltas}
        small = [ROOT / "roles/scan/files/rules"]
        figures: dict[str, Any] = {
            "walk": walks(base),
            "few_rules": measure_rules(place, base, tops, small, size),
            "many_rules": measure_rules(place, base, tops, [*small, rule_file(place, size.rules)], size),
            "floor_10": floor(base, tops[10]),
            "clamscan": round(clamscan(place, base, size.rules), 2) if shutil.which("clamscan") else None,
        }
    many = figures["many_rules"]
    ratios = {
        "clamscan": round(figures["clamscan"] / many["delta_10"]["cpu"], 1) if figures["clamscan"] else None,
        "dissect": round(figures["walk"]["dissect"] / figures["walk"]["ours"], 1),
        "floor": round(many["delta_10"]["read"] / figures["floor_10"], 2),
        "full_to_delta": round(many["full"]["cpu"] / many["delta_10"]["cpu"], 1),
    }
    show(figures, ratios)
    target = ROOT / "build/bench/scan.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    size_told = {key: value for key, value in vars(size).items() if key != "deltas"}
    target.write_text(json.dumps({"ratios": ratios, "figures": figures, "size": size_told}, indent=2) + "\n")
    print(f"{time.monotonic() - began:.0f} s")
    return 0


def show(figures: dict[str, Any], ratios: dict[str, Any]) -> None:
    print(f"Reading every file: dissect {figures['walk']['dissect']} CPU-s, ours {figures['walk']['ours']} CPU-s")
    for rules in ("few_rules", "many_rules"):
        print(f"{rules} (loading {figures[rules]['loading']} CPU-s left out)")
        for name, one in figures[rules].items():
            if isinstance(one, dict):
                read = f"{one['read'] / 1e6:9.1f} MB read" if "read" in one else ""
                print(f"  {name:28} {one['cpu']:9.3f} CPU-s {read}  {one['verdict']}")
    print(f"clamscan -r of the golden's files: {figures['clamscan']} CPU-s")
    for name, ratio in ratios.items():
        print(f"  {name:14} {ratio}" + (f"  goal {GOALS[name]}" if name in GOALS else ""))


if __name__ == "__main__":
    sys.exit(main())
