# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import digest
from ansible_collections.vmward.remediation.plugins.module_utils._case.operations import run

ROOT = Path(__file__).resolve().parents[5]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def signer(tmp_path: Path) -> tuple[Path, Path]:
    """A throw-away key and the allowed-signers file that knows it."""
    key, signers = tmp_path / "key", tmp_path / "signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(key)], check=True)
    signers.write_text(f'ir-lead namespaces="vmward-ledger" {(tmp_path / "key.pub").read_text()}', encoding="utf-8")
    return key, signers


@pytest.fixture
def case(tmp_path: Path) -> Run:
    """Run an operation on case c1 of a fresh store."""

    def ask(operation: str, check: bool = False, **options: Any) -> dict[str, Any]:
        base = {"store": str(tmp_path / "store"), "case": "c1", "actor": "ann", "host": "ctl", "operation": operation}
        return run({**base, **options}, check)

    return ask


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store" / "c1"


@pytest.fixture
def store_file(directory: Path) -> Callable[[str, bytes], dict[str, Any]]:
    """Write an evidence file and return its artefact record."""

    def write(name: str, data: bytes) -> dict[str, Any]:
        path = directory / "evidence" / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"path": f"evidence/data/{name}", "size": len(data), "sha256": digest(data)}

    return write


def note(action: str = "note", **fields: Any) -> dict[str, Any]:
    return {"phase": "contain", "action": action, **fields}
