# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest agent that lies, stalls or floods; and the XML and block nodes that evidence is taken with."""

from __future__ import annotations

import base64
import json
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._crew import apart
from ansible_collections.vmward.remediation.plugins.module_utils._errors import TaskFailed, TimedOut
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import GuestOutput
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.agent import run_program
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.connection import Connection
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.evidence import (
    EvidenceVerbs,
    backup_xml,
    dotted,
)
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.freeze import stood_still
from ansible_collections.vmward.remediation.plugins.module_utils._model import Disk, Layer, PowerState, Vm, VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._qemu_img import block_node

VM = Vm(VmRef("kvm1", "id1", "desk1"), PowerState.RUNNING, (), 1 << 28, True)


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def run(answers: Callable[[str, dict[str, Any]], Any], limit: int = 100, deadline: float = 10) -> GuestOutput:
    """Run a program against an agent that answers with what ``answers`` says, as JSON unless it is text already."""
    clock = Clock()

    def call(command: str, seconds: int) -> str:
        assert seconds >= 1
        asked = json.loads(command)
        told = answers(asked["execute"], asked.get("arguments", {}))
        return told if isinstance(told, str) else json.dumps({"return": told})

    return run_program(call, VM, ("ps", "-e"), deadline, limit, clock.now, clock.sleep)


def agent(**status: Any) -> Callable[[str, dict[str, Any]], Any]:
    """An agent that is well-behaved but for the status of the program."""
    told = {"guest-ping": {}, "guest-exec": {"pid": 7}, "guest-exec-status": {"exited": True, "exitcode": 0, **status}}
    return lambda command, _arguments: told[command]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_program_and_its_output() -> None:
    asked: list[Any] = []

    def answers(command: str, arguments: dict[str, Any]) -> Any:
        asked.append((command, arguments))
        return agent(**{"exitcode": 3, "out-data": b64(b"out"), "err-data": b64(b"err")})(command, arguments)

    assert run(answers) == GuestOutput(3, b"out", b"err", False)
    assert asked == [
        ("guest-ping", {}),
        ("guest-exec", {"path": "ps", "arg": ["-e"], "capture-output": True}),
        ("guest-exec-status", {"pid": 7}),
    ]


def test_more_output_than_the_limit_is_cut_and_said_so() -> None:
    assert run(agent(**{"out-data": b64(b"x" * 101)})) == GuestOutput(0, b"x" * 100, b"", True)
    assert run(agent(**{"out-data": b64(b"x" * 100)})).truncated is False
    assert run(agent(**{"out-data": b64(b"x"), "out-truncated": True})).truncated is True


def test_a_flood_is_refused() -> None:
    with pytest.raises(TaskFailed, match="more than is read"):
        run(lambda _command, _arguments: "[" * (41 << 20))


def test_a_program_that_never_ends_ends_at_the_deadline() -> None:
    with pytest.raises(TimedOut):
        run(agent(exited=False))


def test_one_deadline_for_all_answers() -> None:
    clock = Clock()

    def call(_command: str, seconds: int) -> str:
        clock.sleep(seconds)
        return json.dumps({"return": {"pid": 1}})

    with pytest.raises(TimedOut):
        run_program(call, VM, ("ps",), 12, 100, clock.now, clock.sleep)
    assert clock.time <= 13


@pytest.mark.parametrize(
    "status",
    [
        {"out-data": "%%%"},
        {"out-data": "Zm9"},
        {"out-data": "ä"},
        {"out-data": 5},
        {"out-data": None},
        {"err-data": ["Zm9v"]},
        {"exitcode": "0"},
        {"exitcode": True},
        {"exitcode": None},
        {"exitcode": 10**30},
    ],
)
def test_a_lie_about_the_result_is_an_error(status: dict[str, Any]) -> None:
    with pytest.raises(TaskFailed, match="guest agent"):
        run(agent(**status))


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "{}", '{"return"', "[" * 100000, '{"return": []}', '{"return": {"pid": "7"}}']
)
def test_an_answer_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(TaskFailed, match="guest agent"):
        run(lambda command, _arguments: {} if command == "guest-ping" else text)


def test_only_the_named_disk_is_backed_up() -> None:
    domain = ET.fromstring(
        "<domain><devices><disk><target dev='vda'/></disk><disk><target dev='vd&quot;b'/></disk></devices></domain>"
    )
    root = ET.fromstring(backup_xml(domain, "vda", "/scratch/a'b.qcow2"))
    assert [(disk.get("name"), disk.get("backup")) for disk in root.iterfind("./disks/disk")] == [
        ("vda", "yes"),
        ('vd"b', "no"),
    ]
    target, driver = root.find(".//target"), root.find(".//driver")
    assert target is not None
    assert target.get("file") == "/scratch/a'b.qcow2"
    assert driver is not None
    assert driver.get("type") == "qcow2"


def test_every_format_of_a_chain_is_stated() -> None:
    chain = (Layer("/a.qcow2", "qcow2"), Layer("/b.raw", "raw"))
    assert block_node(Disk("vda", "virtio", 1, 1, False, chain)) == {
        "driver": "qcow2",
        "file": {"driver": "file", "filename": "/a.qcow2"},
        "backing": {"driver": "raw", "file": {"driver": "file", "filename": "/b.raw"}},
    }
    alone = block_node(Disk("vda", "virtio", 1, 1, False, (Layer("/a.qcow2", "qcow2"),)))
    assert alone["backing"] is None  # whatever its header says


def test_a_freeze_is_the_time_between_stop_and_resume() -> None:
    assert stood_still([("STOP", 10.0), ("RESUME", 10.25)]) == 0.25
    assert stood_still([("STOP", 1.0), ("RESUME", 2.0), ("STOP", 5.0), ("RESUME", 5.5)]) == 1.5


@pytest.mark.parametrize("events", [[], ["STOP"], ["RESUME"], ["RESUME", "STOP"], ["STOP", "STOP", "RESUME"]])
def test_a_freeze_that_was_not_seen_whole_is_not_told(events: list[str]) -> None:
    assert stood_still([(event, float(number)) for number, event in enumerate(events)]) is None


def test_versions_as_people_write_them() -> None:
    assert dotted(9000000) == "9.0.0"
    assert dotted(7002022) == "7.2.22"


def test_who_gives_a_dump_up_waits_until_there_is_a_file_to_remove(tmp_path: Path) -> None:
    """Removed before libvirt makes it, the memory of a guest would stay where nobody looks for it."""
    path, asked, makes, ends = tmp_path / "memory.elf", threading.Event(), threading.Event(), threading.Event()

    class Slow:
        def coreDumpWithFormat(self, _path: str, _format: int, _flags: int) -> None:
            asked.set()
            makes.wait(30)
            path.touch()
            ends.wait(30)

    class Link:
        def domain(self, _vm: VmRef, _what: str, call: Callable[[Any], Any], repeat: bool = True) -> Any:
            return call(Slow()) if not repeat else False

    verbs = EvidenceVerbs()
    verbs.link = cast(Connection, Link())
    dump = verbs.submit_memory_dump(replace(VM, power=PowerState.PAUSED), str(path))
    assert not dump.poll()
    assert asked.wait(30)
    assert dump.abort
    given_up = apart(dump.abort)
    makes.set()
    given_up.result(30)
    assert path.exists()
    assert not dump.poll()
    ends.set()
