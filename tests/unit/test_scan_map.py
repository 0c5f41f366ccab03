# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The map of the scanner for its contributors names every file of it, and none that is gone."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_map_is_that_of_the_files() -> None:
    told = (ROOT / "docs/adding-a-file-system.md").read_text()
    rows = "".join(re.findall(r"^\| .*$", told.split("## What a reader gives")[0], re.MULTILINE))
    files = {path.stem for path in (ROOT / "plugins/module_utils/_scan").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"`(\w+)`", rows)) == files
