# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several processes that read the very same disks, each of which judges its share of what all of them meet.

None asks another whose a content is: it follows from the sizes of those before it, which all meet in the same order.
That they did is proven in the end, by the digest over all that each of them met.
"""

from __future__ import annotations

import hashlib
from typing import Any

_EACH = 16 << 10  # bytes that would take about as long to judge as a content takes beside its bytes


class Share:
    """The share of one of `count` processes, counted from 0: the first tells what all of them see alike."""

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index, self.count = index, count
        self.met = 0
        self._bytes = [0] * count
        self._digest = hashlib.sha256()

    def meets(self, what: str) -> bool:
        """Something that all of them see alike. Whether it is told here."""
        if self.count > 1:
            self.met += 1
            self._digest.update(what.encode("utf-8", "backslashreplace") + b"\n")
        return self.index == 0

    def takes(self, where: object, size: int) -> bool:
        """A content. Whether it is judged here: whoever has the fewest bytes so far takes it."""
        if self.count == 1:
            return True
        self.meets("%s: %d" % (where, size))
        owner = self._bytes.index(min(self._bytes))
        self._bytes[owner] += size + _EACH
        return owner == self.index

    def proof(self) -> dict[str, Any]:
        return {"count": self.met, "sha256": self._digest.hexdigest()}
