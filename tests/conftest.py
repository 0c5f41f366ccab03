# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every test imports the collection as Ansible does: ansible_collections.vmward.remediation."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLLECTIONS = ROOT / "build" / "collections"


def _link_collection() -> None:
    link = COLLECTIONS / "ansible_collections" / "vmward" / "remediation"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../../../..")
    if link.resolve() != ROOT:
        raise RuntimeError(f"{link} does not lead to {ROOT}. Run make clean, then make collections.")
    sys.path.insert(0, str(COLLECTIONS))


_link_collection()
