# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several disks in one request: each is judged by itself, whatever becomes of the others and whichever comes first."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import job
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import RuleFile
from ansible_collections.vmward.remediation.plugins.module_utils._scan.groups import together
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import (
    BadInput,
    DiskRequest,
    LayerSpec,
    Request,
    scan,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.remembered import KEY
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.plugins.module_utils._scan.scanner import DiskSpec, Scanner
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits(300, 1 << 30, 120)
MB = disks.MB


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A clean disk, an infected one, and one that is not read as a whole."""
    place = tmp_path_factory.mktemp("several")
    doubtful = disks.ext4(place / "doubtful.img", disks.harmless())
    disks.debugfs(doubtful, "ssv state 0")
    return {
        "clean": disks.ext4(place / "clean.img", disks.harmless()),
        "doubtful": doubtful,
        "infected": disks.ext4(place / "infected.img", {"eicar.com": disks.EICAR, "m": disks.MARKER}),
    }


def asked_of(images: dict[str, Path], names: list[str], **changes: Any) -> Request:
    layers = tuple(DiskRequest(name, (LayerSpec(str(images[name]), "raw"),)) for name in names)
    return replace(Request(layers, RULES, "", ("yara",), 0, "", LIMITS), **changes)


def look(images: dict[str, Path], names: list[str], **changes: Any) -> dict[str, Any]:
    return scan(asked_of(images, names, **changes))


FRESH = """
import json, pickle, sys
from ansible_collections.vmward.remediation.plugins.module_utils._scan import job
print(json.dumps(job.scan(pickle.load(sys.stdin.buffer))))
"""


def each(result: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: (one["verdict"], one["files"], one["bytes_read"]) for one in result["disks"]}


@pytest.mark.parametrize("at_once", [1, 3])
def test_nothing_depends_on_the_order(images: dict[str, Path], at_once: int) -> None:
    names = ["clean", "doubtful", "infected"]
    forth, back = look(images, names, at_once=at_once), look(images, names[::-1], at_once=at_once)
    alone = {name: look(images, [name]) for name in names}
    assert each(forth) == each(back) == {name: each(result)[name] for name, result in alone.items()}
    assert {one["name"]: one["verdict"] for one in forth["disks"]} == {
        "clean": "clean",
        "doubtful": "incomplete",
        "infected": "infected",
    }
    assert [one["name"] for one in back["disks"]] == names[::-1]
    assert forth["verdict"] == "infected"
    assert {found["path"] for found in forth["findings"]} == {"/eicar.com", "/m"}
    assert {found["disk"] for found in forth["findings"]} == {"infected"}
    assert [volume["disk"] for volume in forth["volumes"]] == names
    assert forth["files"] == sum(result["files"] for result in alone.values())
    assert len(forth["engines"]) == 1


def test_all_clean_is_clean(images: dict[str, Path]) -> None:
    again = {"clean": images["clean"], "other": images["clean"]}
    assert look(again, ["clean", "other"])["verdict"] == "clean"


def test_a_child_that_dies_makes_only_its_own_disk_incomplete(
    images: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Scanner._disk

    def dies(self: Scanner, spec: DiskSpec) -> None:
        if spec.name == "doomed":
            os.kill(os.getpid(), signal.SIGSEGV)
        whole(self, spec)

    monkeypatch.setattr(Scanner, "_disk", dies)
    result = look({**images, "doomed": images["clean"]}, ["doomed", "clean"])
    assert {one["name"]: one["verdict"] for one in result["disks"]} == {"doomed": "incomplete", "clean": "clean"}
    assert result["verdict"] == "incomplete"
    reason = "The scan of disk doomed did not end: the scanning process was killed by SIGSEGV."
    assert reason in result["incomplete_reasons"]


def test_what_cannot_be_opened_is_refused_before_anything_is_read(images: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Cannot open the layer"):
        look({**images, "gone": tmp_path / "gone"}, ["clean", "gone"])


def test_a_bad_rule_is_refused_once(images: dict[str, Path]) -> None:
    bad = RuleFile("/rules/bad.yar", "rule x { condition: what }", "", 0)
    with pytest.raises(BadInput, match=r"bad\.yar"):
        look(images, ["clean", "doubtful"], rules=(bad,))


def test_an_endless_rule_ends_in_children_that_share_it(images: dict[str, Path]) -> None:
    """The clock of YARA-X is a thread, and no thread survives a fork: it must start in each child.

    In a process of its own, as a module is: in this one another test may have started that clock.
    """
    endless = "rule endless { condition: filesize > 100000 and for all i in (0..9223372036854775806) : (i >= 0) }"
    place = images["clean"].parent / "one"
    one = {"a": disks.ext4(place.with_suffix(".a"), {"f": b"x" * 200000}), "b": images["infected"]}
    rules = (*RULES, RuleFile("/rules/endless.yar", endless, "", 0))
    request = asked_of(one, ["a", "b"], rules=rules, file_timeout=1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "build/collections")}
    argv = [sys.executable, "-c", FRESH]
    done = subprocess.run(argv, input=pickle.dumps(request), env=environment, capture_output=True, check=True)
    result = json.loads(done.stdout)
    assert "/f on volume 1 of disk a: it took longer than file_timeout (1 s)." in result["incomplete_reasons"]
    assert {one["name"]: one["verdict"] for one in result["disks"]} == {"a": "incomplete", "b": "infected"}


def test_a_first_look_at_the_disks_counts_for_the_deadline(
    images: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, left = SimpleNamespace(ahead=0.0, process_time=time.process_time), list[float]()
    clock.monotonic = lambda: time.monotonic() + clock.ahead

    def slow(*arguments: Any) -> Any:
        clock.ahead += 290
        return together(*arguments)

    whole = job.confined_all

    def confined_all(request: Request, *arguments: Any) -> Any:
        left.append(request.limits.deadline)
        return whole(request, *arguments)

    monkeypatch.setattr(job, "time", clock)
    monkeypatch.setattr(job, "together", slow)
    monkeypatch.setattr(job, "confined_all", confined_all)
    look(images, ["clean", "infected"])
    assert left[0] <= LIMITS.deadline - 290


def test_disks_of_lvm_are_read_together(images: dict[str, Path], tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(8 * MB)
        disks.write_at(tmp_path / name, 512, b"LABELONE")
    whole = {"p1": tmp_path / "p1", "p2": tmp_path / "p2", **images}
    asked = [DiskRequest(name, (LayerSpec(str(whole[name]), "raw"),)) for name in ("clean", "p2", "infected", "p1")]
    with job.opened(asked) as (specs, _layers):
        groups = together(specs, LIMITS, 2)
    assert [[disk.name for disk in group] for group in groups] == [["clean"], ["p2", "p1"], ["infected"]]


def test_only_a_disk_that_is_clean_leaves_contents_that_later_scans_rely_on(
    images: dict[str, Path], tmp_path: Path
) -> None:
    files = {**disks.harmless(), "eicar.com": disks.EICAR}
    mixed = {**images, "infected": disks.ext4(tmp_path / "mixed.img", files)}

    def kept(*names: str) -> int:
        place = tmp_path / "-".join(names)
        look(mixed, list(names), directory=str(place))
        return sum(path.stat().st_size // KEY for path in place.glob("*.clean"))

    assert kept("clean") == len(set(disks.harmless().values()) - {b""})
    assert kept("doubtful") == kept("infected") == 0
    assert kept("infected", "clean") == kept("clean")
