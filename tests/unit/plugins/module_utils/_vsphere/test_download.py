# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A download that is given up ends, wherever it is."""

from __future__ import annotations

import io
import ssl
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import TaskFailed
from ansible_collections.vmward.remediation.plugins.module_utils._model import VmRef
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.download import Download


class Line:
    """A connection that stands after a while; ``meanwhile`` happens before."""

    sock = None

    def __init__(self, meanwhile: Any, answering: Any = lambda: None) -> None:
        self.connect, self.answering = meanwhile, answering
        self.asked: list[str] = []

    def request(self, _verb: str, place: str, headers: dict[str, str]) -> None:
        self.asked.append(place)

    def getresponse(self) -> Any:
        self.answering()
        return Answer(b"content")


class Answer(io.BytesIO):
    status = 200


def download() -> Download:
    link: Any = SimpleNamespace(host="h", port=443, tls=ssl.create_default_context(), options={"timeout": 1})
    return Download(link, VmRef("hv1", "vm-1", "desk1"), "fetch the memory of")


def test_given_up_before_the_connection_stands_it_asks_for_nothing() -> None:
    made = download()
    line: Any = Line(made.halt)
    made.line = line
    with pytest.raises(TaskFailed, match="given up"):
        made.begin("/folder/x", {}, "")
    assert line.asked == []


def test_given_up_while_it_waits_for_the_answer_or_reads_it_ends() -> None:
    waiting, reading = download(), download()
    line: Any = Line(lambda: None, waiting.halt)
    waiting.line = line
    with pytest.raises(TaskFailed, match="given up"):
        waiting.begin("/folder/x", {}, "")
    reading.body = io.BytesIO(b"content")
    assert reading.read(3) == b"con"
    reading.halt()
    with pytest.raises(TaskFailed, match="given up"):
        reading.read(3)
