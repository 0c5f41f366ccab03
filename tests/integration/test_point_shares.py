# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The clean point, looked for by several processes: they say what one says, and go on by what all of them found."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import engines, groups, job, points
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import RuleFile
from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import Indicators
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import DiskRequest, LayerSpec, Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.points import Point, disks_at
from ansible_collections.vmward.remediation.plugins.module_utils._scan.remembered import KEY
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.plugins.module_utils._scan.seats import Seats
from ansible_collections.vmward.remediation.plugins.module_utils._scan.share import Share
from ansible_collections.vmward.remediation.tests.corpus import disks, lvm
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES
from ansible_collections.vmward.remediation.tests.corpus.sharing import but_for_twins, said, search_in_shares

MB = disks.MB
NOW = datetime(2026, 1, 5, tzinfo=UTC)
SEALED = b"7z\xbc\xaf\x27\x1c" + bytes(100)
UNLIKE = "did not all meet the same contents"


@dataclass
class Vm:
    """A VM with snapshots s1 (clean), s2 (infected), s3 (cleaned up again), and s4 (infected), on a golden image."""

    golden: Path
    top: Path

    def request(self, **changes: Any) -> Request:
        layers = (LayerSpec(str(self.top), "qcow2"), LayerSpec(str(self.golden), "qcow2"))
        wanted = Indicators(names=frozenset(["again"]))
        limits = Limits(120, 1 << 30, 120)
        made = Request((DiskRequest("vda", layers),), RULES, "", ("yara",), 2 * MB, "", limits, wanted)
        return replace(made, **changes)


def points_of(asked: Request, *names: str) -> list[Point]:
    found = [Point("snapshot", name, name, "", tuple(disks_at(asked.disks, "snapshot", name))) for name in names]
    present = Point("present", "", "now", "", asked.disks, candidate=False)
    golden = Point("golden", "", "golden", "", tuple(disks_at(asked.disks, "golden", "")))
    return [present, *found, golden]


ALL = ("s4", "s3", "s2", "s1")


def written(place: Path, files: dict[str, bytes], steps: Sequence[Sequence[str]], damage: Sequence[str] = ()) -> Vm:
    image = disks.ext4(place / "golden.img", files, 32 * MB, "-b", "4096")
    disks.debugfs(image, *damage)
    golden = disks.qcow2(place / "golden.qcow2", image)
    # Nothing is copied along with what is written, so that no content moves
    top = disks.overlay(place / "top.qcow2", golden, "-o", "cluster_size=4k")
    state = Path(shutil.copy(image, place / "state.img"))
    for number, requests in enumerate(steps, 1):
        disks.debugfs(state, *requests)
        if "rm evil" in requests:  # it is gone from the disk too
            disks.write_at(state, state.read_bytes().index(disks.MARKER * 300), bytes(len(disks.MARKER) * 300))
        scratch = place / f"step{number}"
        scratch.mkdir()
        disks.put(top, state.read_bytes(), scratch)
        disks.run("qemu-img", "snapshot", "-c", f"s{number}", top)
    return Vm(golden, top)


def story(place: Path, more: dict[str, bytes], *damage: str) -> Vm:
    for name, content in (("marker", disks.MARKER * 300), ("sealed", SEALED), ("work", random.Random(1).randbytes(MB))):
        (place / name).write_bytes(content)
    work = [f"write {place}/work work", "mkdir d", f"write {place}/sealed d/a.7z"]
    last = [f"write {place}/marker again", "ln again d/twice"]
    steps = [work, [f"write {place}/marker evil"], ["rm evil"], last]
    return written(place, {**disks.harmless(), **more}, steps, damage)


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Vm:
    return story(tmp_path_factory.mktemp("vm"), {"old.7z": SEALED + b"old"})


Find = Callable[..., dict[str, Any]]


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """By so many processes."""
    search_in_shares(monkeypatch, tmp_path)

    def found(asked: Request, wanted: Sequence[Point], every: bool = True, count: int = 3) -> dict[str, Any]:
        return points.find(replace(asked, at_once=count), wanted, every, NOW)

    return found


def verdicts(result: dict[str, Any]) -> list[str]:
    return [one["verdict"] for one in result["points"]]


def methods(result: dict[str, Any]) -> list[str]:
    return [volume["method"] for one in result["points"] for volume in one["volumes"]]


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_shares_say_what_one_process_says(vm: Vm, tmp_path: Path, find: Find, known: bool, every: bool) -> None:
    asked = vm.request(directory=str(tmp_path / "known") if known else "")
    if known:
        index(replace(asked, disks=(DiskRequest("vda", asked.disks[0].layers[1:]),)))
    wanted = points_of(asked, *ALL)
    one = find(asked, wanted, every, 1)
    assert one["chosen"]["name"] == "s3"
    assert verdicts(one)[:3] == ["infected", "infected", "clean"]
    assert verdicts(one)[3:] == (["infected", "clean", "clean"] if every else ["not scanned"] * 3)
    assert {found["engine"] for found in one["points"][0]["findings"]} == {"yara", "ioc"}
    assert one["archives_unopened"] == 2
    for count in (2, 3, 5):
        assert said(find(asked, wanted, every, count)) == said(one)


@pytest.mark.parametrize("what", ["infected", "too large", "damaged"])
def test_a_base_that_is_not_clean_is_none_for_any_of_them(tmp_path: Path, find: Find, what: str) -> None:
    more = {"evil0": disks.MARKER} if what == "infected" else {"large": random.Random(2).randbytes(3 * MB)}
    damage = ["sif /usr/share/doc1/file8 mode 0170000"] if what == "damaged" else []
    vm = story(tmp_path, more if what != "damaged" else {}, *damage)
    asked = vm.request()
    wanted = points_of(asked, *ALL)
    one = find(asked, wanted, count=1)
    assert set(verdicts(one)) == {"infected"} if what == "infected" else {"infected", "incomplete"}
    assert set(methods(one)) == {"full"}
    for count in (2, 3, 5):
        assert said(find(asked, wanted, count=count)) == said(one)


def test_a_clean_present_that_is_no_candidate_ends_no_search(vm: Vm, find: Find) -> None:
    asked = vm.request(disks=(replace(vm.request().disks[0], snapshot="s3"),))
    result = find(asked, [replace(points_of(asked)[0], disks=asked.disks), *points_of(asked, "s1")[1:]], False)
    assert verdicts(result) == ["clean", "clean", "not scanned"]
    assert result["chosen"]["name"] == "s1"


@pytest.mark.parametrize("rules", ["the same", "newer"])
def test_a_base_that_is_indexed_by_other_rules_is_read_by_several(
    vm: Vm, tmp_path: Path, find: Find, rules: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(points, "to_read", groups.to_read)
    monkeypatch.setattr(groups, "PER_SHARE", MB // 2)
    monkeypatch.setattr(vm, "top", disks.overlay(tmp_path / "fresh.qcow2", vm.golden))
    asked = vm.request(directory=str(tmp_path / "known"))
    index(replace(asked, disks=(DiskRequest("vda", asked.disks[0].layers[1:]),)))
    newer = RuleFile("/rules/newer.yar", "rule newer { condition: false }", "newer", 0)
    asked = replace(asked, rules=(*RULES, *[newer] * (rules == "newer")), dry=True)
    started, one = counting(monkeypatch), find(asked, points_of(asked), count=1)
    assert said(find(asked, points_of(asked), count=2)) == said(one)
    assert (started, verdicts(one)) == ([1, 2 if rules == "newer" else 1], ["clean", "clean"])


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many processes each search is made by."""
    started, confined = list[int](), job.confined_all

    def counted(request: Request, parts: Sequence[Any], abreast: Any) -> Any:
        started.append(len(parts))
        return confined(request, parts, abreast)

    monkeypatch.setattr(points, "confined_all", counted)
    return started


def test_a_base_is_read_once_though_it_is_a_point_too(vm: Vm, find: Find) -> None:
    asked = vm.request()
    result = find(asked, points_of(asked, *ALL))
    assert methods(result) == ["delta"] * 5 + ["same"]
    assert [one["files"] for one in result["points"]][-1] == 0
    alone = replace(asked, disks=(replace(asked.disks[0], layers=asked.disks[0].layers[:1], snapshot=""),))
    assert "Cannot read the disk image" in str(find(alone, points_of(alone, "s1"))["points"])


def test_a_snapshot_in_the_base_is_another_state_than_the_base(tmp_path: Path, find: Find) -> None:
    clean = disks.ext4(tmp_path / "clean.img", disks.harmless())
    golden = disks.qcow2(tmp_path / "golden.qcow2", disks.ext4(tmp_path / "evil.img", {"evil": disks.MARKER * 300}))
    disks.run("qemu-img", "snapshot", "-c", "old", golden)
    disks.put(golden, clean.read_bytes(), tmp_path)
    asked = Vm(golden, disks.overlay(tmp_path / "top.qcow2", golden)).request()
    below = replace(asked.disks[0], layers=asked.disks[0].layers[1:], snapshot="old")
    result = find(asked, [points_of(asked)[0], Point("snapshot", "old", "old", "", (below,))])
    assert verdicts(result) == ["clean", "infected"]
    assert methods(result) == ["same", "full"]


def test_several_disks_each_on_a_base_of_its_own_and_lvm(vm: Vm, tmp_path: Path, find: Find) -> None:
    other = story(tmp_path, {"other": b"another"})
    inner = disks.ext4(tmp_path / "root.img", {"eicar.com": disks.EICAR, **disks.harmless()}, 32 * MB).read_bytes()
    group = lvm.Group([24, 24], {"root": [lvm.Part(20, ((0, 1),)), lvm.Part(12, ((1, 2),))]})
    physical = lvm.build(tmp_path / "pv", group, {"root": inner})
    first, second = vm.request().disks[0], replace(other.request().disks[0], name="vdb")
    raw = [
        DiskRequest(f"vd{name}", (LayerSpec(str(image), "raw"),)) for name, image in zip("cd", physical, strict=True)
    ]
    asked = vm.request(disks=(first, second, *raw))
    copies = tuple(replace(disk, layers=disk.layers[1:] or disk.layers) for disk in asked.disks)
    wanted = [Point("present", "", "now", "", asked.disks), Point("backup", "", "copy", "", copies)]
    one = find(asked, wanted, count=1)
    assert verdicts(one) == ["infected", "infected"]
    assert {found["path"] for found in one["points"][1]["findings"]} == {"/eicar.com"}
    assert len(one["points"][0]["volumes"]) == 5
    for count in (2, 4):
        assert but_for_twins(find(asked, wanted, count=count)) == but_for_twins(one)


def test_each_judges_a_part_of_the_base_and_of_a_point(vm: Vm, find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them alone judges all: else the tests above would prove nothing."""
    asked = vm.request()
    whole = find(asked, points_of(asked, "s1"), count=1)
    take = Share.takes
    monkeypatch.setattr(
        Share, "takes", lambda self, where, size: take(self, where, size) and (self.index == 1 or self.count == 1)
    )
    part = find(asked, points_of(asked, "s1"))
    for one, other in zip(part["points"][:1], whole["points"][:1], strict=True):
        assert 0 < one["files"] < other["files"]
        assert 0 < one["bytes_read"] < other["bytes_read"]


def at_step(step: str, of: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the process `of`, once it is about to read what is called so."""
    begin = points._States._begin

    def begins(self: Any, kind: str, number: int) -> None:
        begin(self, kind, number)
        if f"{kind} {number}" == step and self._judge.share.index == of:
            act()

    monkeypatch.setattr(points._States, "_begin", begins)


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("of", [0, 2])
@pytest.mark.parametrize("step", ["beneath 0", "point 0", "point 2"])
def test_one_that_is_killed_makes_its_point_incomplete_and_ends_the_search(
    vm: Vm, find: Find, step: str, of: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait for it no longer than that."""
    at_step(step, of, dies, monkeypatch)
    asked = vm.request()
    result = find(asked, points_of(asked, *ALL)[1:])
    number = int(step[-1])
    clean = ["infected", "clean"][:number]
    assert verdicts(result)[number + 1 :] == ["not scanned"] * (4 - number)
    assert verdicts(result)[:number] == clean
    broken = result["points"][number]
    assert broken["verdict"] in ("incomplete", "infected")
    assert (broken["verdict"] == "incomplete") or broken["findings"]
    assert broken["incomplete_reasons"][0] == "The scan did not end: the scanning process was killed by SIGKILL."
    assert result["chosen"].get("name", "none") == ("s3" if number == 2 else "none")


@pytest.mark.parametrize("of", [0, 2])
def test_one_that_ends_badly_once_all_is_read_is_told(
    vm: Vm, find: Find, of: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = points._States._is_clean

    def asks(self: Any) -> bool:
        told = ask(self)
        if told and self._judge.share.index == of and self._indexes:  # not of the base, which comes first
            dies()
        return told

    monkeypatch.setattr(points._States, "_is_clean", asks)
    asked = vm.request()
    result = find(asked, points_of(asked, "s3")[1:], False)
    assert (verdicts(result), result["chosen"]) == (["incomplete", "not scanned"], {})


def test_one_that_overlooks_a_content_of_the_base_makes_all_points_incomplete(
    vm: Vm, find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlook(monkeypatch, 9)
    asked = vm.request()
    result = find(asked, points_of(asked, "s1"))
    assert result["chosen"] == {}
    assert [one["verdict"] for one in result["points"]] == ["infected", "incomplete", "incomplete"]
    assert all(UNLIKE in one["incomplete_reasons"][0] for one in result["points"])
    assert set(methods(result)) == {"full"}


def test_one_that_overlooks_a_content_of_a_point_makes_it_and_what_follows_incomplete(
    vm: Vm, tmp_path: Path, find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = vm.request(directory=str(tmp_path / "known"))
    index(replace(asked, disks=(DiskRequest("vda", asked.disks[0].layers[1:]),)))
    overlook(monkeypatch, 2)
    result = find(asked, points_of(asked, "s1")[1:])
    assert verdicts(result) == ["incomplete", "incomplete"]
    assert all(UNLIKE in one["incomplete_reasons"][0] for one in result["points"])


def overlook(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """One of the processes leaves out the file of this number, as a reader would that sees another state."""
    judge, met = Judge.file, list[int]()

    def overlooks(self: Judge, *arguments: Any) -> None:
        met.extend([1] * (self.share.index == 1))
        if len(met) != number or self.share.index != 1:
            judge(self, *arguments)

    monkeypatch.setattr(Judge, "file", overlooks)


@pytest.mark.parametrize("step", ["beneath 0", "point 0"])
def test_what_is_judged_by_none_is_noticed(vm: Vm, find: Find, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One takes the sizes before for others: what it should judge it leaves to another one, and nobody judges it."""
    take, begin, ahead = Share.takes, points._States._begin, list[str]()

    def begins(self: Any, kind: str, number: int) -> None:
        begin(self, kind, number)
        ahead[:] = [f"{kind} {number}"]

    def takes(self: Share, where: object, size: int) -> bool:
        return take(self, where, size + (1 << 30) * (self.index == 1 and ahead == [step]))

    monkeypatch.setattr(points._States, "_begin", begins)
    monkeypatch.setattr(Share, "takes", takes)
    asked = vm.request()
    result = find(asked, points_of(asked, "s1")[1:])
    assert set(verdicts(result)) == {"incomplete"}
    assert all(UNLIKE in one["incomplete_reasons"][0] for one in result["points"])


def test_a_base_that_one_alone_found_infected_is_none_for_the_others(tmp_path: Path, find: Find) -> None:
    """What is said of it goes to the one who started them; by its own word each of the others would rely on it."""
    vm = story(tmp_path, {"evil0": disks.MARKER})
    asked = vm.request()
    result = find(asked, points_of(asked, "s1"), count=5)
    assert set(methods(result)) == {"full"}
    assert set(verdicts(result)) == {"infected"}


def test_only_of_points_that_are_all_clean_contents_are_kept(vm: Vm, tmp_path: Path, find: Find) -> None:
    def kept(name: str, *names: str) -> int:
        asked = vm.request(directory=str(tmp_path / name))
        find(asked, points_of(asked, *names)[1:])
        return sum(path.stat().st_size // KEY for path in (tmp_path / name).glob("*.clean"))

    assert kept("clean", "s3", "s1") > 0
    assert kept("infected", "s3", "s2", "s1") == 0


def test_two_searches_do_not_wait_for_each_others_seats(
    vm: Vm, tmp_path: Path, find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy host there are as many processes as there are free seats: one that had but a part would wait."""
    asked, started = vm.request(), counting(monkeypatch)
    wanted = points_of(asked, *ALL)
    one = find(asked, wanted, count=1)
    others = Seats(3, str(tmp_path / "seats"))
    for free in (1, 2):
        assert others.reserve(3 - free) == 3 - free
        assert said(find(asked, wanted)) == said(one)
        others.take()
        others.leave()
    assert started == ([1, 1, 2] if os.geteuid() == 0 else [1, 3, 3])


def test_the_deadline_holds_for_one_that_waits(vm: Vm, find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    """One hangs; the others wait for it until the deadline, and no longer."""
    at_step("point 0", 1, signal.pause, monkeypatch)
    asked = vm.request(limits=Limits(4, 1 << 30, 120))
    result = find(asked, points_of(asked, "s3")[1:])
    assert verdicts(result) == ["incomplete", "not scanned"]
    assert "the deadline of 4 s was reached" in result["points"][0]["incomplete_reasons"][0]


@pytest.mark.parametrize("verb", ["scan", "index", "find"])
def test_what_loading_the_rules_took_is_told(
    vm: Vm, tmp_path: Path, find: Find, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is done by the one who starts the others."""
    clock = SimpleNamespace(ahead=0.0)
    clock.monotonic = lambda: time.monotonic() + clock.ahead
    clock.process_time = lambda: time.process_time() + clock.ahead

    def slow(*arguments: Any) -> Any:
        clock.ahead += 100
        return engines.compiled(*arguments)

    monkeypatch.setattr(job, "time", clock)
    monkeypatch.setattr(job, "compiled", slow)
    asked = vm.request(directory=str(tmp_path / "known"))
    base = replace(asked, disks=(DiskRequest("vda", asked.disks[0].layers[1:]),))
    did = {"scan": lambda: scan(asked), "index": lambda: index(base), "find": lambda: find(asked, points_of(asked))}
    result = did[verb]()
    assert (result["seconds"] > 100, result["cpu_seconds"] > 100) == (True, True)


def test_what_is_told_while_all_read(vm: Vm, tmp_path: Path, find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    told, write = list[str](), Progress.write

    def writes(self: Any, phase: str = "scan", message: str = "") -> None:
        told.append(self.state(phase, message, 1.0)["message"].split(",")[0])
        write(self, phase, message)

    monkeypatch.setattr(Progress, "write", writes)
    asked = vm.request(progress_file=str(tmp_path / "progress"))
    find(asked, points_of(asked, *ALL))
    assert list(dict.fromkeys(told)) == [
        "0 files",
        "base image",
        *(f"point {number}" for number in range(1, 7)),
        "clean",
    ]


def test_memory_that_shrinks_meanwhile_keeps_none_of_those_that_are_waited_for_from_starting(
    vm: Vm, find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [3]
    monkeypatch.setattr(job, "fitting", lambda memory: left.pop() if left else 1)
    asked = vm.request(limits=Limits(20, 1 << 30, 120))
    assert verdicts(find(asked, points_of(asked, "s3")[1:], count=0)) == ["clean", "clean"]
