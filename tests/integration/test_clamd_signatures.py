# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ClamAV judged is relied on later only if it is proven which signatures it judged by."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import clamd as clamd_module
from ansible_collections.vmward.remediation.plugins.module_utils._scan.clamd import MARK, Clamd, ask
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Content
from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import (
    DiskRequest,
    LayerSpec,
    Request,
    scan,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.tests.corpus import clam, disks

EVIL = b"a file that a new signature knows"
LOCAL = f"Local.Evil:0:*:{EVIL.hex()}\n"

pytestmark = pytest.mark.skipif(not shutil.which("clamd"), reason="clamd is not installed")


@pytest.fixture
def clamd() -> Iterator[Path]:
    """The socket; its signatures lie beside it, in `db`."""
    with clam.daemon() as socket_path:
        yield Path(socket_path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return disks.ext4(tmp_path / "d.img", {**disks.harmless(), "evil": EVIL}, 16 * disks.MB)


def asked(clamd: Path, image: Path, database: Path | None = None) -> Request:
    layers = (LayerSpec(str(image), "raw"),)
    limits, known = Limits(120, 1 << 30, 120), str(image.parent / "known")
    judged_by = str(database or clamd.parent / "db")
    disk = DiskRequest("vda", layers)
    return Request((disk,), (), str(clamd), ("clamd",), 0, "", limits, directory=known, clamd_database=judged_by)


def verdicts(result: dict[str, Any]) -> tuple[str, list[str]]:
    return result["verdict"], [found["path"] for found in result["findings"]]


def reloaded(clamd: Path) -> None:
    """As SelfCheck does, some time after a signature file was changed."""
    content = Content(len(EVIL), lambda _at, _length: EVIL, 1 << 20)
    ask(str(clamd), 10, b"zRELOAD\0")
    end = time.monotonic() + 60
    while not Clamd(str(clamd), 10).scan(content)[0]:
        assert time.monotonic() < end, "clamd does not reload"
        time.sleep(0.1)


def test_a_signature_that_clamd_has_not_loaded_yet_is_loaded_first(clamd: Path, image: Path) -> None:
    assert verdicts(scan(asked(clamd, image))) == ("clean", [])
    (clamd.parent / "db" / "local.ndb").write_text(LOCAL)
    assert verdicts(scan(asked(clamd, image))) == ("infected", ["/evil"])
    reloaded(clamd)
    assert verdicts(scan(asked(clamd, image))) == ("infected", ["/evil"])
    assert verdicts(index(asked(clamd, image))) == ("infected", ["/evil"])


def test_the_same_signatures_are_loaded_once(clamd: Path, image: Path) -> None:
    first = scan(asked(clamd, image))
    mark = clamd.parent / "db" / MARK
    before = mark.stat().st_mtime_ns
    second = scan(asked(clamd, image))
    assert (first["bytes_read"] > second["bytes_read"], mark.stat().st_mtime_ns) == (True, before)
    assert first["engines"][0]["database"] == second["engines"][0]["database"] != "unknown"


@pytest.mark.parametrize("what", ["broken", "elsewhere", "gone"])
def test_signatures_that_are_not_proven_leave_nothing(
    clamd: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A file that clamd cannot read keeps it at the former ones; another directory is not what it reads."""
    monkeypatch.setattr(clamd_module, "PATIENCE", 1)
    database = {"broken": clamd.parent / "db", "elsewhere": tmp_path / "elsewhere", "gone": tmp_path / "gone"}[what]
    if what == "broken":
        (database / "local.ndb").write_text(LOCAL + "no signature\n")
    elif what == "elsewhere":
        database.mkdir()
        (database / "local.ndb").write_text(LOCAL)
    result = scan(asked(clamd, image, database))
    assert (result["verdict"], result["engines"][0]["database"]) == ("clean", "unknown")
    assert "is relied on later" in " ".join(result["coverage_notes"])
    assert not list((tmp_path / "known").glob("*.clean"))
    monkeypatch.setattr(clamd_module, "PATIENCE", 1e9)
    assert scan(asked(clamd, image, database))["verdict"] == "clean", "the same files are not waited for again"


def test_a_dry_run_leaves_no_mark(clamd: Path, image: Path) -> None:
    (image.parent / "known").mkdir()
    told = index(replace(asked(clamd, image), dry=True))
    assert told["changed"]
    assert "Check mode does not have it load them." in " ".join(told["coverage_notes"])
    assert not (clamd.parent / "db" / MARK).exists()


def test_a_lock_that_cannot_be_had_leaves_the_verdict(clamd: Path, image: Path) -> None:
    """As where the file system of the directory can only be read."""
    (image.parent / "known").mkdir()
    (image.parent / "known" / "clamd.lock").symlink_to("elsewhere")
    result = scan(asked(clamd, image))
    assert (result["verdict"], result["engines"][0]["database"]) == ("clean", "unknown")
    assert "is relied on later" in " ".join(result["coverage_notes"])


def test_without_a_directory_nothing_is_written(clamd: Path, image: Path) -> None:
    assert scan(replace(asked(clamd, image), directory=""))["verdict"] == "clean"
    assert not (clamd.parent / "db" / MARK).exists()
