# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The clean point among snapshots, backups and the present state, each judged by itself and whole chain deep."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.points import in_words
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES_DIRECTORY, module

DAY = 86400


def layer(path: Path, kind: str = "qcow2") -> dict[str, str]:
    return {"path": str(path), "format": kind}


def disk(*layers: dict[str, str], name: str = "vda", clone_of: Path | None = None) -> dict[str, Any]:
    return {"name": name, "layers": list(layers), "clone_of": [layer(clone_of)] if clone_of else []}


def backup(name: str, *copies: dict[str, Any], created: str = "") -> dict[str, Any]:
    return {"kind": "backup", "name": name, "created": created, "disks": list(copies)}


@dataclass
class Vm:
    """A VM on a golden image, infected now."""

    place: Path
    golden: Path
    top: Path
    clean: Path  # raw copies of what it was and is
    infected: Path

    @property
    def now(self) -> dict[str, Any]:
        return disk(layer(self.top), layer(self.golden))

    def ask(self, points: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        given = {"disks": [self.now], "rules": [RULES_DIRECTORY], **options}
        return module("clean_point", points=points, **given)


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Vm:
    place = tmp_path_factory.mktemp("vm")
    clean = disks.ext4(place / "clean.img", disks.harmless())
    golden = disks.qcow2(place / "golden.qcow2", clean)
    infected = Path(shutil.copy(clean, place / "infected.img"))
    (place / "evil").write_bytes(disks.MARKER * 300)
    disks.debugfs(infected, f"write {place}/evil evil")
    top = disks.overlay(place / "top.qcow2", golden)
    disks.put(top, infected.read_bytes(), place)
    return Vm(place, golden, top, clean, infected)


def verdicts(result: dict[str, Any]) -> list[str]:
    assert "points" in result, result
    return [one["verdict"] for one in result["points"]]


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
@pytest.mark.parametrize("compared", [True, False])
def test_a_backup_is_a_point_like_any_other(vm: Vm, tmp_path: Path, kind: str, compared: bool) -> None:
    files = {"raw": (vm.infected, vm.clean), "qcow2": (tmp_path / "new", tmp_path / "old")}[kind]
    if kind == "qcow2":
        disks.qcow2(files[0], vm.infected)
        disks.qcow2(files[1], vm.clean)
    golden = vm.golden if compared else None
    new, old = (disk(layer(file, kind), clone_of=golden) for file in files)
    told = {"disk": "vda", "image": str(files[1]), "format": kind, "sha256": "ab"}
    older = {**backup("old", old), "images": [told]}
    result = vm.ask([backup("new", new, created="2026-01-02T00:00:00Z"), older])
    assert verdicts(result) == ["infected", "clean"]
    assert result["chosen"] == {"kind": "backup", "id": "", "name": "old", "created": "", "images": [told]}
    assert result["infected_since"] == "2026-01-02T00:00:00Z"
    assert result["lost"] == {"seconds": -1, "bytes": -1}, "a copy does not tell what was written since"
    methods = [volume["method"] for one in result["points"] for volume in one["volumes"]]
    assert methods == (["delta", "same"] if compared else ["full", "full"])


def test_a_backup_of_other_disks_is_no_state_of_the_vm(vm: Vm) -> None:
    other = disk(layer(vm.clean, "raw"), name="vdb")
    result = vm.ask([backup("part", other)])
    assert result["failed"]
    assert "Cannot judge part by a part of its disks, or by others: it has vdb, the VM has vda" in result["msg"]
    two = vm.ask(
        [backup("part", disk(layer(vm.clean, "raw")))],
        disks=[vm.now, disk(layer(vm.infected, "raw"), name="vdb")],
    )
    assert "it has vda, the VM has vda, vdb" in two["msg"]
    assert "a backup with its disks" in vm.ask([backup("none")])["msg"]


def test_the_present_is_looked_at_and_never_chosen(vm: Vm) -> None:
    present = {"kind": "present", "name": "present state", "created": "2026-01-05T00:00:00Z", "candidate": False}
    golden = {"kind": "golden", "name": "golden image"}
    result = vm.ask([present, golden], all_points=True)
    assert verdicts(result) == ["infected", "clean"]
    assert (result["infected"], result["infected_since"]) == (["present state"], "2026-01-05T00:00:00Z")
    unchanged = disk(layer(disks.overlay(vm.place / "fresh.qcow2", vm.golden)), layer(vm.golden))
    clean = vm.ask([present, golden], disks=[unchanged])
    assert verdicts(clean) == ["clean", "clean"]
    assert clean["chosen"]["kind"] == "golden"


@pytest.mark.parametrize("what", ["header", "table"])
def test_a_present_disk_that_cannot_be_read_hides_no_point(vm: Vm, tmp_path: Path, what: str) -> None:
    top = Path(shutil.copy(vm.top, tmp_path / "top.qcow2"))
    at = 0 if what == "header" else int.from_bytes(top.read_bytes()[40:48], "big")
    disks.write_at(top, at, bytes.fromhex("80000fffffff0000") if at else b"torn")
    present: dict[str, Any] = {"kind": "present", "name": "present state", "candidate": False}
    points = [present, {"kind": "golden", "name": "golden image"}, backup("old", disk(layer(vm.clean, "raw")))]
    result = vm.ask(points, disks=[disk(layer(top), layer(vm.golden))], all_points=True)
    assert verdicts(result) == ["incomplete", "clean", "clean"]
    assert (result["chosen"]["kind"], result["lost"]["bytes"]) == ("golden", -1)
    (note,) = result["coverage_notes"]
    assert note.startswith("How much was written since")
    assert ("Cannot read the disk image %s" % top in note) == (what == "header")
    assert note in result["msg"]


def test_why_no_point_is_clean_is_told(vm: Vm) -> None:
    told = vm.ask([{"id": "gone"}, {"kind": "present", "name": "now"}])["msg"]
    assert "no clean point" in told
    assert "gone: Disk vda was not read: Cannot read the disk image" in told
    assert "gone: Disk" not in vm.ask([{"id": "gone"}, {"kind": "golden"}])["msg"]


@pytest.mark.parametrize("name", ["clean_point", "disk_scan"])
def test_check_mode_keeps_nothing(vm: Vm, tmp_path: Path, name: str) -> None:
    points = {"points": [{"kind": "golden"}]} if name == "clean_point" else {}
    asked = {"disks": [disk(layer(vm.golden))], "rules": [RULES_DIRECTORY], "index_directory": str(tmp_path / "known")}
    if points:
        asked["disks"] = [vm.now]
    result = module(name, **asked, **points, _ansible_check_mode=True)
    assert "clean" in result["msg"]
    assert not (tmp_path / "known").exists()
    assert "clean" in module(name, **asked, **points)["msg"]
    assert len(list((tmp_path / "known").glob("*.clean"))) == 1


def test_archives_that_no_engine_opened_are_told_once(vm: Vm, tmp_path: Path) -> None:
    """However many points share them; what a base holds is of the point that it was looked at for."""
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(26))
    packed = disks.ext4(tmp_path / "packed.img", {**disks.harmless(), "a.7z": (tmp_path / "a.7z").read_bytes()})
    base = disks.qcow2(tmp_path / "base.qcow2", packed)
    disks.debugfs(packed, f"write {tmp_path / 'a.7z'} b.7z")
    top = disks.overlay(tmp_path / "top.qcow2", base)
    disks.put(top, packed.read_bytes(), tmp_path)
    disks.run("qemu-img", "snapshot", "-c", "s1", top)
    now = disk(layer(top), layer(base))
    points = [{"kind": "present", "name": "present state"}, {"id": "s1"}]
    result = vm.ask(points, disks=[now], all_points=True)
    assert verdicts(result) == ["clean", "clean"]
    assert ([one["archives_unopened"] for one in result["points"]], result["archives_unopened"]) == ([2, 0], 2)
    (told,) = [note for note in result["coverage_notes"] if "2 archives or packed files were matched" in note]
    assert "The first of them: /a.7z on volume 1 of disk vda; /b.7z on volume 1 of disk vda." in told
    assert result["msg"].endswith("; 2 archives unopened")


def test_a_disk_that_stands_on_nothing_has_no_golden_image(vm: Vm) -> None:
    alone = disk(layer(vm.clean, "raw"))
    told = vm.ask([{"kind": "golden", "name": "golden image"}], disks=[alone])
    assert "Cannot judge the golden image of disk vda: it stands on none." in told["msg"]


@pytest.mark.parametrize("known", [True, False])
def test_a_point_is_judged_down_to_its_base(vm: Vm, tmp_path: Path, known: bool) -> None:
    """What lies in an image between the base and the snapshots is of each, though a newer one said so already."""
    common = {"index_directory": str(tmp_path / "known")} if known else {}
    if known:
        module("golden_index", layers=[layer(vm.golden)], rules=[RULES_DIRECTORY], **common)
    over = disks.overlay(tmp_path / "over.qcow2", vm.top)
    for name in ("s1", "s2"):
        disks.run("qemu-img", "snapshot", "-c", name, over)
    chain = disk(layer(over), layer(vm.top), layer(vm.golden))
    points = [{"id": "s2"}, {"id": "s1"}, {"kind": "golden", "name": "golden image"}]
    result = vm.ask(points, disks=[chain], all_points=True, **common)
    assert verdicts(result) == ["infected", "infected", "clean"]
    assert [[found["path"] for found in one["findings"]] for one in result["points"][:2]] == [["/evil"]] * 2


def test_what_is_lost_counts_up_to_now(vm: Vm) -> None:
    before = datetime.now(UTC)
    old = backup("old", disk(layer(vm.clean, "raw")), created="2026-01-01T00:00:00Z")
    lost = vm.ask([old])["lost"]["seconds"]
    since = datetime(2026, 1, 1, tzinfo=UTC)
    assert (before - since).total_seconds() - 1 <= lost <= (datetime.now(UTC) - since).total_seconds() + 1
    ahead = backup("ahead", disk(layer(vm.clean, "raw")), created="2999-01-01T00:00:00Z")
    assert vm.ask([ahead])["lost"]["seconds"] == -1, "nobody knows by how much that clock is ahead"


def test_the_answer_in_one_line_holds_no_foreign_line() -> None:
    points = [
        {"name": "evil\n\x1b[31m", "verdict": "infected", "created": "2026-01-04T00:00:00Z"},
        {"name": "s3", "verdict": "clean", "created": "2026-01-03T00:00:00Z"},
        {"name": "s2", "verdict": "not scanned", "created": ""},
    ]
    told = {
        "points": points,
        "infected": ["evil\n"],
        "infected_since": "2026-01-04T00:00:00Z",
        "incomplete_reasons": [],
    }
    lost = {"seconds": 2 * DAY + 3661, "bytes": 1_200_000}
    assert in_words({**told, "chosen": points[1], "lost": lost}) == (
        "s3 of 2026-01-03T00:00:00Z is clean; infected since 2026-01-04T00:00:00Z at the latest; a return loses the "
        "work of 2 d 1 h 01 min and 1.2 MB written since; scanned: evil\\n\\x1b[31m: infected, s3: clean"
    )
    unknown = in_words({**told, "chosen": points[1], "lost": {"seconds": -1, "bytes": -1}, "infected_since": ""})
    assert "infected since a time that is not known" in unknown
    assert "the work since a time that is not known and an amount of data that is not known" in unknown
    none = in_words({**told, "chosen": {}, "lost": {}, "incomplete_reasons": ["It did not end."]})
    assert none.startswith("no clean point; infected since ")
    assert none.endswith(". It did not end.")
    many = [{"name": f"s{number}", "verdict": "infected", "created": ""} for number in range(30)]
    assert in_words({**told, "points": many, "chosen": {}, "lost": {}}).endswith("s7: infected, and 22 more")
