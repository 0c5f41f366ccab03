# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One disk scanned by several processes: they say together what one alone says, and nothing falls between them."""

from __future__ import annotations

import os
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import groups, indexing, job, windows
from ansible_collections.vmward.remediation.plugins.module_utils._scan.chain import Layer
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import RuleFile
from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import Indicators
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import DiskRequest, LayerSpec, Request, scan
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.known import Known
from ansible_collections.vmward.remediation.plugins.module_utils._scan.remembered import KEY
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.plugins.module_utils._scan.scanner import Scanner
from ansible_collections.vmward.remediation.plugins.module_utils._scan.share import Share
from ansible_collections.vmward.remediation.tests.corpus import clam, disks, lvm
from ansible_collections.vmward.remediation.tests.corpus.archives import zipped
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES
from ansible_collections.vmward.remediation.tests.corpus.sharing import alone, said, shared

MB = disks.MB
LIMITS = Limits(300, 1 << 30, 120)
WANTED = Indicators(names=frozenset(["evil.exe"]), paths=frozenset(["/d/evil.exe", "/large"]))
INFECTED = {
    **disks.harmless(),
    "d/eicar.com": disks.EICAR,
    "d/evil.exe": b"named",
    "d/deep": b"." * 70_000 + disks.MARKER,
    "d/good.zip": zipped({"x": b"harmless"}),
    "d/bad.zip": zipped({"y": disks.EICAR, "z": disks.MARKER}),
    "d/closed.7z": b"7z\xbc\xaf\x27\x1c" + bytes(100),
    "d/cut.zip": zipped({"y": bytes(5000)})[:60],
    "large": random.Random(1).randbytes(3 * MB),
}


def request(*images: Path, kind: str = "raw", **changes: Any) -> Request:
    layers = tuple(
        DiskRequest(f"vd{name}", (LayerSpec(str(image), kind),)) for name, image in zip("abc", images, strict=False)
    )
    return replace(Request(layers, RULES, "", ("yara",), 2 * MB, "", LIMITS, WANTED), **changes)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.ext4(tmp_path_factory.mktemp("clean") / "clean.img", disks.harmless())


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with several names, archives, what is damaged, a swap area, a volume of no kind, and an empty one."""
    place = tmp_path_factory.mktemp("crowded")
    first = disks.ext4(place / "first.img", INFECTED)
    attribute = "ea_set /d/deep user.x " + "x" * 400 + disks.MARKER.decode()
    disks.debugfs(first, "ln /d/deep /d/second", "ln /d/eicar.com /d/third", attribute)
    damaged = disks.ext4(place / "damaged.img", disks.harmless())
    disks.debugfs(damaged, "sif /etc/hostname block[0] 99999999", "sif /usr/share/doc1/file8 mode 0170000")
    swap = place / "swap.img"
    swap.write_bytes(bytes(4 * MB))
    disks.run("mkswap", "-q", swap)
    disks.write_at(swap, 3 * MB, disks.MARKER)
    strange = place / "strange.img"
    strange.write_bytes(bytes(MB) + random.Random(2).randbytes(2 * MB) + disks.MARKER.ljust(MB, b"\0"))
    image = disks.partitioned(place / "crowded.img", "gpt", [first, damaged, swap, strange, 2 * MB])
    disks.write_at(image, MB - 4096, disks.MARKER)
    return image


def test_shares_say_what_one_process_says(crowded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_RUN", MB)
    one = alone(request(crowded))
    assert (one["verdict"], len(one["volumes"]), one["archives_unopened"]) == ("infected", 5, 1)
    assert any("max_file_size" in reason for reason in one["incomplete_reasons"])
    assert any("file8" in reason or "Inode" in reason for reason in one["incomplete_reasons"])
    told = {found["path"].split(" of inode")[0] for found in one["indicators"]}
    assert told == {"(attributes", "(swap)", "(unread volume)", "(outside of volumes)"}
    for count in (2, 3, 5):
        assert said(shared(request(crowded), count)) == said(one)


@pytest.mark.skipif(not shutil.which("clamd"), reason="clamd is not installed")
def test_each_share_asks_clamd(crowded: Path) -> None:
    with clam.daemon() as socket_path:
        asked = request(crowded, clamd_socket=socket_path, engines_required=("yara", "clamd"))
        one = alone(asked)
        assert {found["engine"] for found in one["findings"]} == {"yara", "clamd", "ioc"}
        assert said(shared(asked)) == said(one)


def test_each_judges_a_part(crowded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them alone judges all: else the test above would prove nothing."""
    whole = alone(request(crowded))
    take = Share.takes
    monkeypatch.setattr(
        Share, "takes", lambda self, where, size: take(self, where, size) and (self.index == 1 or self.count == 1)
    )
    part = shared(request(crowded))
    assert 0 < part["files"] < whole["files"]
    assert 0 < part["bytes_read"] < whole["bytes_read"]


def test_a_clean_disk_is_clean_and_one_of_lvm_too(clean: Path, tmp_path: Path) -> None:
    assert said(shared(request(clean))) == said(alone(request(clean)))
    assert shared(request(clean))["verdict"] == "clean"
    parts = {"root": [lvm.Part(20, ((0, 1),)), lvm.Part(12, ((1, 2),))], "b": [lvm.Part(1, ((1, 16),))]}
    group = lvm.Group([24, 24], parts)
    inner = disks.ext4(tmp_path / "root.img", INFECTED, 32 * MB).read_bytes()
    images = lvm.build(tmp_path / "pv", group, {"root": inner, "b": disks.MARKER})
    one = alone(request(*images))
    assert one["verdict"] == "infected"
    assert {volume["type"] for volume in one["volumes"]} >= {"lvm", "ext"}
    assert said(shared(request(*images), 4)) == said(one)


def test_a_difference_is_shared_too(clean: Path, tmp_path: Path) -> None:
    base = disks.qcow2(tmp_path / "base.qcow2", clean)
    top = disks.overlay(tmp_path / "top.qcow2", base)
    changed = disks.as_raw(top, tmp_path / "changed.img")
    disks.debugfs(changed, f"write {_file(tmp_path, disks.EICAR)} eicar.com", "rm /etc/hostname", "mkdir /new")
    disks.put(top, changed.read_bytes(), tmp_path)
    known = str(tmp_path / "known")
    layers = (LayerSpec(str(top), "qcow2"), LayerSpec(str(base), "qcow2"))
    below = replace(request(base, kind="qcow2", directory=known), indicators=Indicators())
    assert index(below)["verdict"] == "clean"
    asked = replace(below, disks=(DiskRequest("vda", layers),))
    one = alone(asked)
    assert (one["volumes"][0]["method"], one["verdict"]) == ("delta", "infected")
    assert one["changes_count"]["deleted"]
    assert said(shared(asked)) == said(one)


def test_an_index_is_the_same_and_nothing_is_done_twice(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(request(clean, directory=str(tmp_path / "known")), indicators=Indicators())
    one = index(replace(asked, at_once=1))
    body = Known(asked.directory).base(_layers(clean))
    Path(one["index"]).unlink()
    monkeypatch.setattr(indexing, "to_read", lambda *arguments: 1 << 50)
    several = index(replace(asked, at_once=3))
    again = Known(asked.directory).base(_layers(clean))
    assert said(several) == said(one)
    assert body is not None
    assert again is not None
    assert body.body == again.body
    assert index(replace(asked, at_once=3))["changed"] is False
    monkeypatch.setattr(Share, "proof", lambda self: {"count": self.index, "sha256": ""})
    Path(one["index"]).unlink()
    assert index(replace(asked, at_once=3))["verdict"] == "incomplete"


@pytest.mark.parametrize("rules", ["the same", "newer"])
def test_an_image_that_is_indexed_by_other_rules_is_shared_too(
    clean: Path, tmp_path: Path, rules: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read as a whole; one that is indexed by these is not, and what was written on it is little."""
    base = disks.qcow2(tmp_path / "base.qcow2", clean)
    layers = (LayerSpec(str(disks.overlay(tmp_path / "top.qcow2", base)), "qcow2"), LayerSpec(str(base), "qcow2"))
    below = request(base, kind="qcow2", directory=str(tmp_path / "known"))
    assert index(below)["verdict"] == "clean"
    newer = RuleFile("/rules/newer.yar", "rule newer { condition: false }", "newer", 0)
    asked = replace(below, disks=(DiskRequest("vda", layers),), rules=(*RULES, *[newer] * (rules == "newer")), dry=True)
    one, started, confined = alone(asked), list[int](), job.confined_all

    def counted(asked: Request, parts: Any) -> Any:
        started.append(len(parts))
        return confined(asked, parts)

    monkeypatch.setattr(job, "confined_all", counted)
    monkeypatch.setattr(groups, "PER_SHARE", MB // 2)
    assert said(scan(replace(asked, at_once=2))) == said(one)
    assert (started, one["verdict"]) == ([2 if rules == "newer" else 1], "clean")
    assert one["volumes"][0]["method"] == ("full" if rules == "newer" else "same")


def _layers(image: Path) -> tuple[Layer, ...]:
    return (Layer(str(image), "raw", -1),)


def _file(place: Path, content: bytes) -> Path:
    (place / "file").write_bytes(content)
    return place / "file"


def test_several_disks_and_their_shares(clean: Path, crowded: Path) -> None:
    one, several = alone(request(clean, crowded, clean)), shared(request(clean, crowded, clean), 6)
    assert said(several) == said(one)
    assert [disk["verdict"] for disk in several["disks"]] == ["clean", "infected", "clean"]


def test_one_that_meets_less_is_noticed(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves out one file, as a reader would that sees another state: all the others are dealt out otherwise."""
    judge, met = Judge.file, list[int]()

    def overlooks(self: Judge, *arguments: Any) -> None:
        nonlocal met
        met += [1] * (self.share.index == 1)
        if len(met) != 9:
            judge(self, *arguments)

    monkeypatch.setattr(Judge, "file", overlooks)
    result = shared(request(clean))
    assert result["verdict"] == "incomplete"
    assert "The 3 processes that shared the scan did not all meet the same contents" in result["incomplete_reasons"][0]


def test_one_that_is_killed_makes_its_disk_incomplete(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Scanner._disk

    def dies(self: Scanner, spec: Any) -> None:
        if self._judge.share.index == 2 and spec.name == "vdb":
            os.kill(os.getpid(), signal.SIGKILL)
        whole(self, spec)

    monkeypatch.setattr(Scanner, "_disk", dies)
    result = shared(request(clean, clean), 6)
    assert {disk["name"]: disk["verdict"] for disk in result["disks"]} == {"vda": "clean", "vdb": "incomplete"}
    assert result["incomplete_reasons"] == [
        "The scan of disk vdb did not end: the scanning process was killed by SIGKILL."
    ]


@pytest.mark.parametrize("content", [disks.EICAR, zipped({"x": bytes(5000)})[:60]], ids=["infected", "incomplete"])
def test_of_a_disk_that_is_not_clean_no_share_leaves_contents(clean: Path, content: bytes, tmp_path: Path) -> None:
    bad = disks.ext4(tmp_path / "bad.img", {**disks.harmless(), "x.zip": content})

    def kept(image: Path, name: str) -> int:
        shared(request(image, directory=str(tmp_path / name)))
        return sum(path.stat().st_size // KEY for path in (tmp_path / name).glob("*.clean"))

    assert kept(clean, "clean") == len(set(disks.harmless().values()) - {b""})
    assert kept(bad, "bad") == 0
