# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a scan cost? By differences and as a whole, beside clamscan, dissect, and a plain read of what differs.

All in one run on one golden image, in seconds of processor time, of this process and all that it starts. The time to
load engines and rules is left out on both sides: quick scans are given them, of long ones that of an empty disk is
taken off, of clamscan that of an empty tree. The self-test of each scan is left in. Cold runs are in seconds of the
clock, with neither image in the page cache. The golden image and what guests wrote on it are made once and kept in
CACHE, else in the lab's cache. SIZE=small is a version of three minutes; else the image holds 4 GiB in 100,000 files.
clamscan gets the same files as a plain tree, and as many signatures as we have rules. Nothing is mounted, no VM is
needed. Writes build/bench/scan.json, also when a part fails: what came before it took hours.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "build/collections"))

from ansible_collections.vmward.remediation.plugins.module_utils._scan import groups  # noqa: E402
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import compiled  # noqa: E402
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
from ansible_collections.vmward.remediation.tests.benchmarks.spending import watched  # noqa: E402
from ansible_collections.vmward.remediation.tests.corpus import disks, guests  # noqa: E402

MB = 1 << 20
AT_LEAST = {"clamscan": 150, "dissect": 8}  # by the first word of a ratio's name
ALONE = 1  # process; several that share a disk take more processor time in all
AT_MOST = {"floor": 1.5, "cold": 3, "chain": 1.3, "hot": 0.5, "clones": 40}
FEW = 14  # rules of this collection
ROUNDS = 5  # of what is quick
TARGET = ROOT / "build/bench/scan.json"
CACHE = Path(os.environ.get("CACHE", "/var/cache/vmward-lab/bench"))


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


def spent(command: list[str], allowed: tuple[int, ...] = (0,)) -> tuple[float, str]:
    """Processor seconds of a command, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        raise SystemExit(f"Cannot measure: {command[0]} ended with {done.returncode}. {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


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
    if inode.is_file and not fs.is_own(inode.number):
        count += len(fs.read(inode, 0, inode.size)) == inode.size
print(count)
"""


def walks(image: Path) -> dict[str, float]:
    """Reading every file of the golden image, judged by nobody: dissect's reader and ours."""
    os.environ["PYTHONPATH"] = str(ROOT / "build/collections")
    theirs, files = spent([sys.executable, "-c", WALK, str(image)])
    ours, read = spent([sys.executable, "-c", OURS, str(image)])
    if files != read:
        raise SystemExit(f"Cannot compare: dissect read {files.strip()} files, we read {read.strip()}.")
    return {"dissect": round(theirs, 2), "ours": round(ours, 2), "files": int(files)}


def clamscan(place: Path, base: Path, size: Size) -> dict[str, Any]:
    """clamscan over the golden's files as a plain tree, with as many signatures as we have rules."""
    tree, empty = place / "plain", place / "none"
    for directory in (tree, empty):
        directory.mkdir()
    folders = " ".join(f"/d{number}" for number in range(guests.FOLDERS))
    disks.run("debugfs", "-R", f"rdump {folders} {tree}", base)
    sizes = [path.stat().st_size for path in tree.rglob("*") if path.is_file()]
    found: dict[str, Any] = {"files": len(sizes), "bytes": sum(sizes)}
    for name, count in (("few_rules", FEW), ("many_rules", size.rules)):
        command = ["clamscan", "-r", "--infected", "--no-summary", f"--database={signatures(place / name, count)}"]
        loading = min(spent([*command, str(empty)])[0] for _round in range(2))
        whole = spent([*command, str(tree)], (0, 1))[0]
        found[name] = {"loading": round(loading, 2), "cpu": round(whole - loading, 2)}
        told = f"{found[name]} on {len(sizes)} files, {sum(sizes) // MB} MB"
        print(f"clamscan -r, {count} signatures: {told}", flush=True)
    shutil.rmtree(tree)
    return found


def signatures(database: Path, count: int) -> Path:
    chance = random.Random(5)
    database.mkdir()
    lines = [f"Made.{number}:0:*:{chance.randbytes(12).hex()}" for number in range(count)]
    (database / "made.ndb").write_text("\n".join(lines) + "\n")
    return database


def timed(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it says, with the processor seconds of this process and all that it waited for, and those of the clock."""
    before, began = processor(), time.monotonic()
    result = action()
    return {**result, "cpu_seconds": processor() - before, "seconds": time.monotonic() - began}


def processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@dataclass(frozen=True)
class Loading:
    """What a scan of next to nothing takes: left out of the others."""

    cpu: float
    seconds: float


def measured(name: str, action: Callable[[], dict[str, Any]], loading: Loading) -> dict[str, Any]:
    """A warm run, of quick ones the best: seconds without loading, bytes read, and what came out."""
    runs = [timed(action)]
    runs += [timed(action) for _round in range(ROUNDS - 1 if runs[0]["cpu_seconds"] - loading.cpu < 3 else 0)]
    result = min(runs, key=lambda one: float(one["cpu_seconds"]))
    found = {
        "cpu": round(max(result["cpu_seconds"] - loading.cpu, 0.001), 3),
        "seconds": round(max(min(one["seconds"] for one in runs) - loading.seconds, 0.001), 3),
        "read": result.get("bytes_from_disk", 0),
        "files": result.get("files", 0),
        "verdict": result["verdict"] if "verdict" in result else result["chosen"].get("name", "none"),
    }
    told = (found["cpu"], found["seconds"], found["read"] / 1e6, found["verdict"])
    print(f"  {name:28} {told[0]:9.3f} CPU-s {told[1]:9.3f} s {told[2]:9.1f} MB read  {told[3]}", flush=True)
    return found


def measure_rules(
    found: dict[str, Any], place: Path, base: Path, tops: dict[str, Path], rules: list[Path], size: Size
) -> None:
    """All scans with one set of rules: what is `found`, one by one."""
    known = str(place / f"known{len(rules)}")
    empty = disks.ext4(place / "empty.img", {"a": b"x"}, 8 * MB)
    nothing = request(((empty, "raw"),), rules, "")
    runs = [timed(lambda: scan(nothing)) for _round in range(ROUNDS)]
    loading = Loading(*(min(run[key] for run in runs) for key in ("cpu_seconds", "seconds")))
    # Quick scans are given their rules: what they take is lost in the noise of what compiling takes
    loaded, ready = compiled(nothing.rules), Loading(0, 0)
    which = "many" if len(rules) > 1 else "few"
    print(f"{which} rules (loading: {loading.cpu:.2f} CPU-s, {loading.seconds:.2f} s)", flush=True)
    found["loading"] = vars(loading)
    found["index"] = measured("full, and its index", lambda: indexed(base, rules, known), loading)
    for name, top in tops.items():
        made = request(((top, "qcow2"), (base, "raw")), rules, known)
        # Without the contents that an earlier run found clean: the cost of a first look
        found[name] = measured(f"delta of {name}", lambda made=made: fresh(made, known, loaded), ready)  # type: ignore[misc]
    found["cold"] = cold(base, list(tops.values())[-1], rules, known, loaded)
    made = request(((tops["10 MB"], "qcow2"), (base, "raw")), rules, known)
    scan(made, loaded)
    found["next_clone"] = measured("10 MB on the next clone", lambda: scan(made, loaded), ready)
    boot = (LayerSpec(str(tops["one boot"]), "qcow2"), LayerSpec(str(base), "raw"))
    fleet = replace(made, disks=tuple(DiskRequest(f"vm{number}", boot) for number in range(size.clones)))
    found["clones"] = measured(f"{size.clones} clones after boot", lambda: fresh(fleet, known, loaded), ready)
    whole = replace(request(((base, "raw"),), rules, ""), at_once=ALONE)
    found["full"] = measured("full", lambda: scan(whole, loaded), ready)
    whole_shared = replace(whole, at_once=0)
    found["shared"] = measured("full, on all cores", lambda: shared(size, lambda: scan(whole_shared, loaded)), ready)
    found.update(points(base, made, size, loading, loaded))
    found["spent"] = {
        "10 MB": spending("10 MB", lambda: fresh(made, known, loaded)),
        "full": spending("full", lambda: scan(whole, loaded)),
    }


def spending(name: str, action: Callable[[], dict[str, Any]]) -> dict[str, float]:
    """Where its processor time goes, in a run of its own: the clocks take some too."""
    with watched() as clocks:
        whole = timed(action)["cpu_seconds"]
    table = clocks.table()
    table["other"] = whole - sum(table.values())
    print(
        f"  where it goes, {name}: " + ", ".join(f"{kind} {seconds:.3f}" for kind, seconds in table.items()), flush=True
    )
    return {kind: round(seconds, 3) for kind, seconds in table.items()}


def indexed(base: Path, rules: list[Path], known: str) -> dict[str, Any]:
    """A golden image that nobody knows yet: a whole scan, and its index."""
    for path in Path(known).glob("*"):
        path.unlink()
    return index(request(((base, "raw"),), rules, known))


def shared(size: Size, action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """On all cores, however small the golden image is."""
    before = groups.PER_SHARE
    groups.PER_SHARE = min(before, size.bytes // len(os.sched_getaffinity(0)))
    try:
        return action()
    finally:
        groups.PER_SHARE = before


def fresh(made: Request, known: str, loaded: Any) -> dict[str, Any]:
    for path in Path(known).glob("*.clean"):
        path.unlink()
    return scan(made, loaded)


def points(base: Path, made: Request, size: Size, loading: Loading, loaded: Any) -> dict[str, Any]:
    """All snapshots of a chain, the base known or not, beside the scan of one snapshot by itself."""
    layers = (LayerSpec(str(guests.chain(base, size.points)), "qcow2"), made.disks[0].layers[-1])
    asked = replace(made, disks=(DiskRequest("vda", layers),))
    wanted = [
        Point("snapshot", f"s{number}", f"s{number}", "", tuple(disks_at(asked.disks, "snapshot", f"s{number}")))
        for number in reversed(range(size.points))
    ]
    one = replace(asked, disks=(DiskRequest("vda", layers, "s0"),))
    now = datetime.now(UTC)
    unknown = replace(asked, directory="")
    alone = replace(unknown, at_once=ALONE)
    return {
        "chain_of_one": measured("chain_of_one", lambda: fresh(one, made.directory, loaded), Loading(0, 0)),
        "chain": measured("chain", lambda: find(alone, wanted, True, now), loading),
        "chain_shared": measured(
            "chain, on all cores", lambda: shared(size, lambda: find(unknown, wanted, True, now)), loading
        ),
        "chain_on_a_known_base": measured("chain_on_a_known_base", lambda: find(asked, wanted, True, now), loading),
    }


def cold(base: Path, top: Path, rules: list[Path], known: str, loaded: Any) -> dict[str, float]:
    """Seconds of the clock for the largest delta and for a plain read of what differs, both from the disk."""
    made = request(((top, "qcow2"), (base, "raw")), rules, known)
    found = {}
    for name, action in (("read", lambda: plain_read(base, top)), ("scan", lambda: fresh(made, known, loaded))):
        seconds = []
        for _round in range(2):
            forget(base, top)
            began = time.monotonic()
            action()
            seconds.append(time.monotonic() - began)
        found[name] = round(min(seconds), 2)
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


def ratios_of(figures: dict[str, Any], size: Size) -> dict[str, float]:
    """What the goals speak of, each named by what it compares with, or by what was done where that is a scan too."""
    found = {"dissect, reading every file": figures["walk"]["dissect"] / max(figures["walk"]["ours"], 0.01)}
    for rules in ("few_rules", "many_rules"):
        one, told = figures[rules], " ".join(rules.split("_"))
        for name in ("one boot", "10 MB"):
            if figures["clamscan"]:
                found[f"clamscan, {name}, {told}"] = figures["clamscan"][rules]["cpu"] / one[name]["cpu"]
            found[f"floor, bytes read, {name}, {told}"] = one[name]["read"] / figures["floor"][name]
            found[f"full scan, {name}, {told}"] = one["full"]["cpu"] / one[name]["cpu"]
        if figures["clamscan"]:
            found[f"clamscan_full, {told}"] = figures["clamscan"][rules]["cpu"] / one["full"]["cpu"]
        found[f"one process, a full scan by the clock, {told}"] = one["full"]["seconds"] / one["shared"]["seconds"]
        found[f"one process, a chain by the clock, {told}"] = one["chain"]["seconds"] / one["chain_shared"]["seconds"]
        found[f"hot seconds of one boot, {told}"] = one["one boot"]["seconds"]
        found[f"clones' CPU-s, {told}"] = one["clones"]["cpu"]
        parts = one["full"]["cpu"] + size.points * one["chain_of_one"]["cpu"]
        found[f"chain, {told}"] = one["chain"]["cpu"] / parts
        found[f"cold, beside a plain read, {told}"] = one["cold"]["scan"] / one["cold"]["read"]
        hot = one[f"{size.deltas[-1]} MB"]["seconds"]
        found[f"largest delta, cold, beside hot, {told}"] = one["cold"]["scan"] / hot
    return {name: round(ratio, 2) for name, ratio in found.items()}


def main() -> int:
    """Measure, print a table, write the figures: the quick parts first, and what there is even if a later one fails."""
    size = SIZES[os.environ.get("SIZE", "")]
    CACHE.mkdir(parents=True, exist_ok=True)
    base = guests.golden(CACHE, size.files, size.bytes, size.disk)
    tops = {"one boot": guests.boot(base, size.files)}
    tops.update({f"{megabytes} MB": guests.written(base, megabytes) for megabytes in size.deltas})
    began = time.monotonic()
    figures: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    try:
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            measure(figures, Path(directory), base, tops, size)
        ratios = ratios_of(figures, size)
        show(figures, ratios)
    finally:
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        TARGET.write_text(json.dumps({"ratios": ratios, "figures": figures, "size": vars(size)}, indent=2) + "\n")
    print(f"{time.monotonic() - began:.0f} s")
    return 0


def measure(figures: dict[str, Any], place: Path, base: Path, tops: dict[str, Path], size: Size) -> None:
    figures["floor"] = {name: floor(top) for name, top in tops.items()}
    figures["walk"] = walks(base)
    figures["clamscan"] = clamscan(place, base, size) if shutil.which("clamscan") else None
    few = [ROOT / "roles/scan/files/rules"]
    for name, rules in (("few_rules", few), ("many_rules", [*few, rule_file(place, size.rules)])):
        measure_rules(figures.setdefault(name, {}), place, base, tops, rules, size)


def show(figures: dict[str, Any], ratios: dict[str, float]) -> None:
    print(f"Reading every file: dissect {figures['walk']['dissect']} CPU-s, ours {figures['walk']['ours']} CPU-s")
    for name, ratio in ratios.items():
        word = re.split(r"\W", name)[0]
        least, most = AT_LEAST.get(word), AT_MOST.get(word)
        print(f"  {name:40} {ratio}{f'  goal >= {least}' if least else f'  goal <= {most}' if most else ''}")


if __name__ == "__main__":
    sys.exit(main())
