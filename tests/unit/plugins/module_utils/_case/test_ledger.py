# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import CaseError

from .conftest import ROOT, Run, note


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "ledger.jsonl").read_bytes().splitlines()]


def chain(case: Run) -> str:
    return str(next(one["state"] for one in case("verify", rehash=True)["checks"] if one["name"] == "chain"))


def test_open_makes_a_private_case_that_can_verify_itself(case: Run, directory: Path) -> None:
    result = case("open", metadata={"title": "Alert"})
    assert result["changed"]
    assert result["created"]
    assert [entry["action"] for entry in lines(directory)] == ["open"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*") if path.is_file()}
    assert modes == {0o600}
    done = subprocess.run(
        [sys.executable, directory / "verify.py", directory], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "tail not anchored" in done.stdout
    assert "key not anchored" in done.stdout


def test_opening_again_is_no_change_until_the_metadata_changes(case: Run) -> None:
    case("open", metadata={"title": "Alert"})
    assert not case("open", metadata={"title": "Alert"})["changed"]
    assert case("open", metadata={"title": "Alert on desk1"})["changed"]
    assert not case("open")["changed"]
    assert case("read")["metadata"] == {"title": "Alert on desk1"}


def test_a_missing_case_names_those_that_exist(case: Run) -> None:
    case("open")
    with pytest.raises(CaseError, match="the cases there are c1. Open the case first"):
        case("append", case="c2", entries=[note()])
    with pytest.raises(CaseError, match="was never opened"):
        case("read", case="c2")


def test_a_key_makes_an_entry_idempotent_but_keeps_news(case: Run, directory: Path) -> None:
    case("open")
    sealed, free = note(key="k", result={"is": "sealed"}), note(key="k", result={"is": "free"})
    first = case("append", entries=[sealed])
    again = case("append", entries=[sealed], actor="bob")
    assert not again["changed"]
    assert again["recorded"] == [{**first["recorded"][0], "added": False}]
    assert case("append", entries=[free])["changed"]
    assert case("append", entries=[sealed])["changed"]
    assert len(lines(directory)) == 4


def test_a_batch_is_one_call_and_finds_its_own_keys(case: Run) -> None:
    case("open")
    result = case("append", entries=[note(target=f"vm{n % 250}", key=f"k{n % 250}") for n in range(500)])
    assert [one["seq"] for one in result["recorded"]] == [2 + n % 250 for n in range(500)]
    assert result["head"]["seq"] == 251


def test_what_the_ledger_writes_itself_cannot_be_forged(case: Run) -> None:
    case("open")
    with pytest.raises(CaseError, match="writes that one itself"):
        case("append", entries=[note("reopen")])


def test_eight_writers_at_once_leave_one_chain(case: Run, tmp_path: Path, directory: Path) -> None:
    case("open")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.vmward.remediation.plugins.module_utils._case.operations import run\n"
        "for n in range(50):\n"
        "    run({'store': sys.argv[2], 'case': 'c1', 'operation': 'append', 'actor': sys.argv[3],\n"
        "         'entries': [{'phase': 'contain', 'action': 'note', 'key': f'{sys.argv[3]}-{n}'}]}, False)\n"
    )
    command = [sys.executable, "-c", program, str(ROOT / "build" / "collections"), str(tmp_path / "store")]
    writers = [subprocess.Popen([*command, f"w{n}"]) for n in range(8)]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 8
    assert chain(case) == "ok"
    keys = [entry["key"] for entry in lines(directory)[1:]]
    assert sorted(keys) == sorted(f"w{w}-{n}" for w in range(8) for n in range(50))
    for writer in range(8):
        assert [key for key in keys if key.startswith(f"w{writer}-")] == [f"w{writer}-{n}" for n in range(50)]


@pytest.mark.parametrize("torn", [b"{", b'{"action":"note","actor":"x' + b"y" * 500, b"\0" * 4096])
def test_a_torn_line_is_moved_aside_and_said(case: Run, directory: Path, torn: bytes) -> None:
    case("open")
    with (directory / "ledger.jsonl").open("ab") as stream:
        stream.write(torn)
    with pytest.raises(AssertionError):
        assert chain(case) == "ok"
    case("append", entries=[note()])
    assert [entry["action"] for entry in lines(directory)] == ["open", "repair", "note"]
    saved = lines(directory)[1]["artefacts"][0]
    assert (directory / saved["path"]).read_bytes() == torn
    assert case("verify")["verified"]


def limited(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("torn", [b"", b'{"half":'])
def test_a_full_store_keeps_the_ledger_as_it_was(case: Run, tmp_path: Path, directory: Path, torn: bytes) -> None:
    case("open")
    with (directory / "ledger.jsonl").open("ab") as stream:
        stream.write(torn)
    before = (directory / "ledger.jsonl").read_bytes()
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.vmward.remediation.plugins.module_utils._case import entry, operations\n"
        "try:\n"
        "    operations.run({'store': sys.argv[2], 'case': 'c1', 'operation': 'append',\n"
        "         'entries': [{'phase': 'contain', 'action': 'note', 'result': {'x': 'y' * 60000}}]}, False)\n"
        "except entry.CaseError as exc:\n"
        "    print(exc.kind, exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "build" / "collections"), str(tmp_path / "store")],
        preexec_fn=limited(len(before) + 1000),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("store Cannot write case c1: File too large")
    assert "nothing of this call was kept" in done.stdout
    assert (directory / "ledger.jsonl").read_bytes() == before
    case("append", entries=[note()])
    assert case("verify")["verified"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_file_system_without_space_is_named(case: Run, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", store], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("cannot mount here")
    try:
        case("open")
        big = [note(result={"x": "y" * 60000})] * 4
        with pytest.raises(CaseError, match=r"No space left on device.*Free space there") as caught:
            case("append", entries=big)
        assert caught.value.kind == "store"
        assert chain(case) == "ok"
    finally:
        subprocess.run(["umount", store], check=True)


def test_an_edited_ledger_takes_nothing_more(case: Run, directory: Path) -> None:
    case("open")
    case("append", entries=[note(target="desk1"), note(target="desk2")])
    path = directory / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b"desk1", b"desk9"))
    with pytest.raises(CaseError, match="line 3 does not continue the line before it") as caught:
        case("append", entries=[note()])
    assert caught.value.kind == "broken"


def test_an_anchor_that_the_ledger_lacks_stops_an_append(case: Run, directory: Path) -> None:
    case("open")
    short = (directory / "ledger.jsonl").read_bytes()
    anchor = case("append", entries=[note()])["anchor"]
    assert case("append", entries=[note()], expect_head=anchor)["changed"]
    (directory / "ledger.jsonl").write_bytes(short)
    with pytest.raises(CaseError, match="rolled back or replaced"):
        case("append", entries=[note()], expect_head=anchor)


def test_a_ledger_that_is_a_link_is_refused(case: Run, tmp_path: Path, directory: Path) -> None:
    case("open")
    (directory / "ledger.jsonl").rename(tmp_path / "elsewhere")
    (directory / "ledger.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CaseError, match="symbolic link"):
        case("append", entries=[note()])


def test_check_mode_predicts_and_writes_nothing(case: Run, tmp_path: Path) -> None:
    for operation, options in (("open", {}), ("append", {"entries": [note(target="desk1")]})):
        predicted = case(operation, check=True, **options)
        real = case(operation, **options)
        assert (predicted["changed"], predicted["diff"]) == (real["changed"], real["diff"])
    before = (tmp_path / "store" / "c1" / "ledger.jsonl").read_bytes()
    case("seal", check=True)
    assert (tmp_path / "store" / "c1" / "ledger.jsonl").read_bytes() == before


def test_check_mode_goes_on_under_the_lease_that_it_foresaw(case: Run) -> None:
    case("open", lease={"holder": "ada", "run": "one", "ttl": 900})
    with pytest.raises(CaseError, match="epoch 2 is over"):
        case("append", entries=[note()], epoch=2)
    lead = case("open", check=True, lease={"holder": "ada", "run": "two", "ttl": 900}, take_over=True)
    assert lead["epoch"] == 2
    assert case("append", check=True, entries=[note()], epoch=lead["epoch"])["changed"]
    with pytest.raises(CaseError, match="epoch 0 is over"):
        case("append", check=True, entries=[note()], epoch=0)


def test_check_mode_needs_no_case(case: Run, tmp_path: Path) -> None:
    assert case("append", check=True, entries=[note(target="desk1")])["diff"]["after"] == "2 contain/note desk1\n"
    assert not case("read", check=True)["exists"]
    assert not (tmp_path / "store").exists()


def test_read_tells_where_each_target_stands(case: Run) -> None:
    case("open", lease={"holder": "ann"})
    case(
        "append",
        entries=[note("isolate", target="desk1"), note("isolate", target="desk2"), note("free", target="desk1")],
    )
    result = case("read", targets=["desk1"])
    assert [entry["action"] for entry in result["entries"]] == ["isolate", "free"]
    assert result["phases_last"]["desk1"]["contain"]["action"] == "free"
    assert case("read", limit=1)["entries"][0]["seq"] == 5
    assert list(result["gate"]) == ["desk1"]
