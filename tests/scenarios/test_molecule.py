# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every Molecule scenario of the collection, in an order in which one goes on from the other's state."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOLECULE = ROOT / "extensions" / "molecule"
ON_THE_LAB = ["contain", "case", "preserve", "scan", "clean_point", "restore", "release"]  # one goes on from the other
FOUND = sorted(path.parent.name for path in MOLECULE.glob("*/molecule.yml"))


@pytest.mark.real
@pytest.mark.parametrize("scenario", [name for name in FOUND if name not in ON_THE_LAB] + ON_THE_LAB)
def test_scenario(scenario: str, lab: object, tmp_path: Path) -> None:
    environment = {**os.environ, "MOLECULE_PROJECT_DIRECTORY": str(ROOT), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    environment["MOLECULE_EPHEMERAL_DIRECTORY"] = str(tmp_path)  # Molecule remembers there what an earlier run prepared
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / "build" / "collections")
    keep = ["--destroy=never"] if scenario in ON_THE_LAB else []
    done = subprocess.run(
        [str(Path(sys.executable).parent / "molecule"), "test", "--scenario-name", scenario, *keep],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20000:]
