# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A partial file is never mistaken for a whole one: locally, and over the pipe that ssh gives."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._evidence.remote import (
    BOOTSTRAP,
    Destination,
    RemoteStore,
)
from ansible_collections.vmward.remediation.plugins.module_utils._evidence.store import FRAME, Store, StoreError, lock

CONTENT = b"memory" * 1000
HOLE = 3 << 20
WHOLE = CONTENT + bytes(HOLE) + b"end"


@dataclass(frozen=True)
class OverPipe(Destination):
    """The receiving program as ssh would start it, without ssh."""

    def ssh(self) -> list[str]:
        return ["sh", "-c", BOOTSTRAP]


@pytest.fixture
def case(tmp_path: Path) -> Path:
    (tmp_path / "case").mkdir()
    return tmp_path / "case"


@pytest.fixture(params=["local", "piped"])
def store(request: pytest.FixtureRequest, case: Path) -> Iterator[Store | RemoteStore]:
    made: Store | RemoteStore
    if request.param == "local":
        made = Store(str(case), "vm1", "memory.elf")
    else:
        made = RemoteStore(OverPipe(str(case), "vm1", host="evidence"), "memory.elf")
    yield made
    made.close()


def files(case: Path) -> list[str]:
    return sorted(str(path.relative_to(case)) for path in case.rglob("*") if path.is_file())


def keep(store: Store | RemoteStore) -> dict[str, object]:
    store.open(1)
    store.begin()
    store.write(CONTENT)
    store.hole(HOLE)
    store.write(b"end")
    return store.finish({"method": "test"})


def test_an_artefact_is_kept_with_its_hash_and_its_holes(store: Store | RemoteStore, case: Path) -> None:
    sidecar = keep(store)
    kept = case / "evidence/data/vm1/memory.elf"
    assert kept.read_bytes() == WHOLE
    assert sidecar["sha256"] == hashlib.sha256(WHOLE).hexdigest() == store.rehash()
    assert sidecar["size"] == len(WHOLE)
    assert kept.stat().st_blocks * 512 < HOLE
    assert kept.stat().st_mode & 0o777 == 0o600
    assert store.look()["whole"] == sidecar == json.loads(Path(f"{kept}.json").read_bytes())
    assert store.sidecar_artefact()["sha256"] == hashlib.sha256(Path(f"{kept}.json").read_bytes()).hexdigest()
    store.close()
    assert files(case) == ["evidence/data/vm1/memory.elf", "evidence/data/vm1/memory.elf.json"]


def test_what_was_not_finished_leaves_nothing(store: Store | RemoteStore, case: Path) -> None:
    store.open(1)
    store.begin()
    store.write(CONTENT)
    store.close()
    assert files(case) == []


def test_a_whole_artefact_is_found_and_not_locked(case: Path) -> None:
    first = Store(str(case), "vm1", "memory.elf")
    sidecar = keep(first)
    assert Store(str(case), "vm1", "memory.elf").open(0)["whole"] == sidecar


def test_only_one_writer_at_a_time(case: Path) -> None:
    first, second = Store(str(case), "vm1", "m"), Store(str(case), "vm1", "m")
    first.open(0)
    with pytest.raises(StoreError, match="Another run still works on it"):
        second.open(0.1)
    first.close()
    second.open(0)
    second.close()


def test_a_lock_file_that_its_holder_removed_is_made_anew(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    held = lock(path, 0)
    os.unlink(path)
    again = lock(path, 0)
    assert os.path.samestat(os.fstat(again), os.stat(path))
    os.close(held)
    os.close(again)


def test_a_partial_of_a_dead_run_is_taken_anew(case: Path) -> None:
    directory = case / "evidence/data/vm1"
    directory.mkdir(parents=True)
    (directory / "memory.elf.partial").write_bytes(b"half")
    (directory / "memory.elf.json.partial").write_bytes(b"{}")
    store = Store(str(case), "vm1", "memory.elf")
    assert store.look()["whole"] is None
    assert keep(store)["size"] == len(WHOLE)


def dead_between_names(case: Path) -> Path:
    """A run died after the artefact got its name and before its sidecar did."""
    store = Store(str(case), "vm1", "memory.elf")
    keep(store)
    store.close()
    kept = case / "evidence/data/vm1/memory.elf"
    Path(f"{kept}.json").rename(f"{kept}.json.partial")
    return kept


def test_what_lacked_only_its_sidecars_name_gets_it(case: Path) -> None:
    dead_between_names(case)
    store = Store(str(case), "vm1", "memory.elf")
    assert store.open(0)["whole"]["size"] == len(WHOLE)
    store.close()
    assert files(case) == ["evidence/data/vm1/memory.elf", "evidence/data/vm1/memory.elf.json"]


def test_what_does_not_match_its_pending_sidecar_is_neither_believed_nor_overwritten(case: Path) -> None:
    kept = dead_between_names(case)
    kept.write_bytes(b"other")
    store = Store(str(case), "vm1", "memory.elf")
    with pytest.raises(StoreError, match="Nothing was overwritten"):
        store.open(0)
    assert kept.read_bytes() == b"other"
    store.close()


def test_a_file_of_somebody_else_is_not_overwritten(store: Store | RemoteStore, case: Path) -> None:
    directory = case / "evidence/data/vm1"
    directory.mkdir(parents=True)
    (directory / "memory.elf").write_bytes(b"foreign")
    with pytest.raises(StoreError, match="not stored by vmward"):
        store.open(0)
    assert (directory / "memory.elf").read_bytes() == b"foreign"


def test_an_artefact_of_another_size_than_its_sidecar_is_told(store: Store | RemoteStore, case: Path) -> None:
    keep(store)
    with (case / "evidence/data/vm1/memory.elf").open("ab") as file:
        file.write(b"!")
    with pytest.raises(StoreError, match="not as it was stored"):
        Store(str(case), "vm1", "memory.elf").look()


def test_a_difference_between_read_and_written_is_found(case: Path) -> None:
    store = Store(str(case), "vm1", "memory.elf")
    store.open(0)
    store.begin()
    store.write(b"abc")
    with pytest.raises(StoreError, match="differs from what was read"):
        store.finish({}, read=(3, hashlib.sha256(b"abd").hexdigest()))
    store.close()
    assert files(case) == []


def test_a_case_that_was_not_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Open the case"):
        Store(str(tmp_path / "none"), "vm1", "m").look()
    with pytest.raises(StoreError, match=r"Open the case.*\(on evidence\)"):
        RemoteStore(OverPipe(str(tmp_path / "none"), "vm1", host="evidence"), "m").look()


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "a b", "-rf", "x\n", "x.lock", "x.partial", "a" * 101])
def test_a_name_is_one_plain_component(case: Path, name: str) -> None:
    for folder, file in ((name, "m"), ("vm1", name)):
        with pytest.raises(StoreError, match="Cannot use"):
            Store(str(case), folder, file)


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "x;y", "$(id)", "@x", "u@-x"])
def test_a_host_that_ssh_would_read_as_an_option_is_refused(host: str) -> None:
    with pytest.raises(StoreError, match="Cannot use"):
        Destination("/case", "vm1", host).ssh()


def test_a_full_store_is_an_error_of_space(case: Path) -> None:
    """The receiver runs into a limit on the size of its files, as into the end of its disk."""

    @dataclass(frozen=True)
    class Small(Destination):
        def ssh(self) -> list[str]:
            return ["sh", "-c", "trap '' XFSZ; ulimit -f 8; " + BOOTSTRAP]

    store = RemoteStore(Small(str(case), "vm1", host="evidence"), "memory.elf")
    store.open(0)
    store.begin()
    with pytest.raises((OSError, StoreError), match="File too large"):  # noqa: PT012  which frame fails is up to the pipe
        for _frame in range(1000):
            store.write(bytes(4096))
        store.finish({})
    store.close()
    assert files(case) == []


def test_a_local_store_that_is_full_leaves_nothing(case: Path) -> None:
    store = Store(str(case), "vm1", "memory.elf")
    store.open(0)
    store.begin()
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, former[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.write(bytes(8192))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, ignored)
    store.close()
    assert files(case) == []


def test_a_sender_that_dies_leaves_nothing(case: Path) -> None:
    """Frames that end in the middle, as after SIGKILL."""
    module = sys.modules[Store.__module__]
    requests = [
        {"verb": "at", "arguments": [str(case), "vm1", "m"]},
        {"verb": "open", "arguments": [0]},
        {"verb": "begin", "arguments": []},
    ]
    frames = b"".join(FRAME.pack(b"R", len(text)) + text for text in (json.dumps(one).encode() for one in requests))
    frames += FRAME.pack(b"D", 1000) + b"only a part"
    ended = subprocess.run(
        [sys.executable, str(module.__file__)], input=frames, capture_output=True, timeout=20, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert files(case) == []


def test_a_request_outside_the_list_is_refused(case: Path) -> None:
    store = RemoteStore(OverPipe(str(case), "vm1", host="evidence"), "m")
    with pytest.raises(StoreError, match="Unknown request"):
        store._ask("__init__", "/", "etc", "passwd")
    store.close()


def test_a_host_that_does_not_answer_is_told_with_its_words() -> None:
    @dataclass(frozen=True)
    class Broken(Destination):
        def ssh(self) -> list[str]:
            return ["sh", "-c", "echo 'Permission denied (publickey).' >&2; exit 255"]

    with pytest.raises(StoreError, match="Permission denied"):
        RemoteStore(Broken("/case", "vm1", host="evidence"), "m")
