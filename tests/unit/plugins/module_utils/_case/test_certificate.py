# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible_collections.vmward.remediation.plugins.module_utils._case.certificate import (
    WIDTH,
    certificate,
    certificate_path,
)
from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import check_path

ARTEFACT: dict[str, Any] = {
    "path": "evidence/data/desk1/memory.elf",
    "size": 268435456,
    "sha256": "5f" * 32,
    "location": "vault 3",
    "seal_number": "S-118",
}


def page(**fields: Any) -> str:
    entry = {
        "phase": "preserve",
        "action": "evidence",
        "target": "desk1",
        "time": "2026-01-31T12:00:00.000Z",
        "actor": "ann@ctl",
        "host": "ctl",
        "inputs": {"method": "memory dump", "tools": {"qemu": "7.2"}},
        "result": {"class": "memory", "state": "stored"},
        **fields,
    }
    return certificate("2026-0142", entry, ARTEFACT, 17, "0f" * 32)


def test_the_page_says_what_when_who_how_and_where() -> None:
    text = page()
    for said in ("2026-0142", "desk1", "ann@ctl", "memory dump", "7.2", "268435456", "vault 3", "S-118", ": 17"):
        assert said in text
    joined = text.replace("\n" + " " * 20 + ": ", "")
    assert ARTEFACT["sha256"] in joined
    assert "0f" * 32 in joined


def test_hostile_text_stays_in_its_field_and_on_one_page() -> None:
    hostile = "x\nSHA-256             : forged\x1b[2J\u202e" + "y" * 5000
    text = page(target=hostile, actor=hostile, inputs={"tools": {hostile + str(n): hostile for n in range(50)}})
    assert text.isascii()
    assert "\x1b" not in text
    assert not any(line.startswith("SHA-256             : forged") for line in text.splitlines())
    assert all(len(line) <= WIDTH + 4 for line in text.splitlines())
    assert "(cut)" in text
    assert len(page().splitlines()) <= 60


def test_it_lies_beside_its_artefact_under_the_same_name() -> None:
    assert check_path(certificate_path(ARTEFACT["path"])) == "evidence/certificates/desk1/memory.elf.txt"
