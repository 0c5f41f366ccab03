# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bagit
import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import CaseError

from .conftest import Run, note

Store = Callable[..., dict[str, Any]]


@pytest.fixture
def full(case: Run, store_file: Store) -> Run:
    case("open", metadata={"title": "Alert: desk1\nForged-Tag: yes"})
    files = [store_file("desk1/memory.elf", b"m" * 9), store_file("desk1/disk.qcow2", b"d" * 11)]
    case("append", entries=[note("evidence-taken", target="desk1", artefacts=files)])
    return case


def test_a_sealed_case_is_a_valid_bag_and_verifies(full: Run, directory: Path) -> None:
    assert full("seal")["sealed"]
    bag = bagit.Bag(str(directory / "evidence"))
    bag.validate()
    assert bag.info["Payload-Oxum"] == "20.2"
    assert bag.info["External-Identifier"] == "c1"
    assert "Forged-Tag" not in bag.info
    checks = {one["name"]: one["state"] for one in full("verify")["checks"]}
    assert (checks["bag"], checks["artefacts"]) == ("ok", "ok")


def test_a_sealed_case_takes_only_a_signature_until_it_is_reopened(full: Run, store_file: Store) -> None:
    full("seal")
    assert not full("seal")["changed"]
    with pytest.raises(CaseError, match="it is sealed. Reopen it first") as caught:
        full("append", entries=[note()])
    assert caught.value.kind == "sealed"
    assert full("append", entries=[{"phase": "case", "action": "signature", "result": {"over_seq": 1}}])["changed"]
    assert full("reopen", reason="a second disk was found")["changed"]
    assert not full("reopen", reason="again")["changed"]
    full("append", entries=[note("evidence-taken", artefacts=[store_file("desk1/second.qcow2", b"2")])])
    assert full("seal")["sealed"]
    assert full("verify")["verified"]


def test_a_file_nobody_recorded_stops_the_seal(full: Run, store_file: Store) -> None:
    store_file("stray.bin", b"?")
    for check in (True, False):
        with pytest.raises(CaseError, match=r'1 payload files are in no entry of the ledger: "data/stray.bin"'):
            full("seal", check=check)


def test_a_lost_or_changed_file_stops_the_seal(full: Run, directory: Path) -> None:
    disk = directory / "evidence/data/desk1/disk.qcow2"
    disk.write_bytes(b"D" * 11)
    with pytest.raises(CaseError, match="not what the ledger recorded"):
        full("seal")
    disk.unlink()
    with pytest.raises(CaseError, match="1 payload files are missing"):
        full("seal")


@pytest.mark.parametrize(
    "name", ["evidence/manifest-sha256.txt", "evidence/bag-info.txt", "evidence/tagmanifest-sha256.txt"]
)
def test_a_changed_tag_file_is_seen(full: Run, directory: Path, name: str) -> None:
    full("seal")
    path = directory / name
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    assert not full("verify")["verified"]


def test_a_file_added_after_the_seal_is_seen(full: Run, store_file: Store) -> None:
    full("seal")
    store_file("planted.bin", b"!")
    assert "bag:" in full("verify")["msg"]
