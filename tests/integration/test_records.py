# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a scan leaves for a later one: trouble with it never touches the verdict, and no child leaves another's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import former, job, nbd, scanner
from ansible_collections.vmward.remediation.plugins.module_utils._scan.baseline import unpack
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import (
    DiskRequest,
    LayerSpec,
    Request,
    scan,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.known import Former, Records
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.nbd import written
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES
from ansible_collections.vmward.remediation.tests.integration.test_nbd import served

MB = disks.MB
CONTEXT = "qemu:dirty-bitmap:b"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.ext4(tmp_path_factory.mktemp("image") / "d.img", disks.harmless(), 16 * MB)


def look(layer: LayerSpec, former: Former | None = None) -> tuple[dict[str, Any], Records]:
    records = Records()
    request = Request((DiskRequest("vda", (layer,), former=former),), RULES, "", ("yara",), 0, "",
                      Limits(120, 1 << 30, 120), records=records)  # fmt: skip
    return scan(request), records


def test_a_record_that_is_too_large_is_not_kept(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(former, "MOST", 200)
    result, records = look(LayerSpec(str(image), "raw"))
    assert (result["verdict"], result["incomplete_reasons"], records.bodies) == ("clean", [], {})
    assert "No record of disk vda is kept" in " ".join(result["coverage_notes"])


@pytest.mark.parametrize("where", [(scanner, "remember"), (former, "packed")], ids=["made", "packed"])
def test_a_record_that_fails_is_no_reason(image: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]) -> None:
    def hungry(*_arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(*where, hungry)
    result, records = look(LayerSpec(str(image), "raw"))
    assert (result["verdict"], result["incomplete_reasons"]) == ("clean", [])
    assert "MemoryError" in " ".join(result["coverage_notes"])
    assert all(not one.starts and not one.kept for body in records.bodies.values() for one in unpack(body).values())


def test_disks_that_other_engines_judged_leave_no_record(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is read by a child of its own, and signatures may be loaded anew between the two."""
    specs = tuple(DiskRequest(name, (LayerSpec(str(image), "raw"),)) for name in ("vda", "vdb", "vdc"))
    counted = tmp_path / "counted"

    def bound(*_arguments: Any) -> str:
        with counted.open("a") as file:
            file.write("x")
        return "%064x" % (counted.stat().st_size == 2)

    monkeypatch.setattr(job, "binding", bound)
    records = Records()
    request = Request(specs, RULES, "", ("yara",), 0, "", Limits(120, 1 << 30, 120), records=records,
                      directory=str(tmp_path / "known"), at_once=1)  # fmt: skip
    assert scan(request)["verdict"] == "clean"
    assert (counted.stat().st_size, records.binding) == (3, "")


def test_a_child_tells_no_record_of_a_disk_that_it_does_not_read() -> None:
    listener = Listener(Progress("", 0), disks=["vda"])
    listener.take("record", {"disk": "vda", "data": "QUJD"})
    with pytest.raises(ValueError, match="does not read"):
        listener.take("record", {"disk": "vdb", "data": "QUJD"})
    assert listener.records == {"vda": bytearray(b"ABC")}


def scattered(tmp_path: Path, image: Path, count: int) -> Path:
    """Every second grain was written."""
    top = disks.qcow2(tmp_path / "d.qcow2", image)
    disks.run("qemu-img", "bitmap", "--add", "-g", "4096", top, "b")
    words = [word for at in range(count) for word in ("-c", f"write -q {12 * MB + at * 8192} 512")]
    disks.run("qemu-io", "-f", "qcow2", *words, top)
    disks.run("qemu-img", "bitmap", "--disable", top, "b")
    return top


def test_parts_beyond_number_are_joined(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(scattered(tmp_path, image, 300), "qcow2", tmp_path, "-B", "b") as path:
        exact = written(str(path), "vda", CONTEXT)
        monkeypatch.setattr(nbd, "_MOST_PARTS", 100)
        told = written(str(path), "vda", CONTEXT)
    assert len(exact) == 300
    assert told == [(exact[0][0], exact[-1][1])]


def test_a_bitmap_that_is_not_told_leads_to_a_scan_of_everything(image: Path, tmp_path: Path) -> None:
    with served(scattered(tmp_path, image, 2), "qcow2", tmp_path, "-B", "b") as path:
        layer = LayerSpec(str(path), "nbd", "vda")
        result, _records = look(layer, Former("c", 1, "", b"", "qemu:dirty-bitmap:gone"))
    assert [volume["method"] for volume in result["volumes"]] == ["full"]
    assert (result["verdict"], result["bases"][0]["base"], result["bases"][0]["used"]) == ("clean", "c", False)
    assert "it can't be told what was written since" in result["bases"][0]["why"]


def test_a_bitmap_is_told_before_the_deadline_or_not_at_all(image: Path, tmp_path: Path) -> None:
    known = Former("c", 1, "", b"", CONTEXT)
    with served(scattered(tmp_path, image, 2), "qcow2", tmp_path, "-B", "b") as path:
        request = DiskRequest("vda", (LayerSpec(str(path), "nbd", "vda"),), former=known)
        with job.opened([request], 0) as (specs, _layers):
            assert "the deadline was reached" in specs[0].doubt
        with job.opened([request], 60) as (specs, _layers):
            assert (len(specs[0].written), specs[0].doubt) == (2, "")
