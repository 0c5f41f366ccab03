# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tutorial is literally true: each of its code blocks stands in the source."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[5]
SOURCES = ROOT / "plugins" / "module_utils"


def test_every_code_block_of_the_tutorial_stands_in_the_source() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adding-a-hypervisor.md").read_text(), re.DOTALL)
    source = "\n".join(path.read_text() for path in [*(SOURCES / "_fake").glob("*.py"), SOURCES / "_connect.py"])
    assert len(blocks) >= 6
    missing = [block for block in blocks if block not in source]
    assert not missing, "\n".join(missing)
