# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Contents that were found clean, by their keys: the same engines with the same rules do not judge them again."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from typing import Any, Callable

from .engines import Content

DIGEST, KEY = 32, 40  # bytes of a content's hash, and of that with its size and beginning
MOST_CONTENTS = (64 << 20) // KEY  # that are remembered
_BATCH = 500
_FULL = "More contents were found clean than are remembered (%d): later scans judge the rest anew."


class Remembered:
    def __init__(self, keys: set[bytes]) -> None:
        self._keys = keys
        self._looks = {key[DIGEST:] for key in keys}
        self._fresh: list[bytes] = []
        self._room = MOST_CONTENTS

    def holds(self, content: Content) -> bool:
        if not content.is_whole:
            return False
        # Of a size and beginning that none of them has it can't be known, so that its hash need not be waited for
        return _look_of(content) in self._looks and _key_of(content) in self._keys

    def add(self, content: Content, emit: Callable[[str, dict[str, Any]], None]) -> None:
        if self._room < 1:
            if self._room == 0:
                emit("note", {"text": _FULL % MOST_CONTENTS})
            self._room = -1
            return
        key = _key_of(content)
        self._keys.add(key)
        self._looks.add(key[DIGEST:])
        self._fresh.append(key)
        self._room -= 1
        if len(self._fresh) >= _BATCH:
            self.tell(emit)

    def tell(self, emit: Callable[[str, dict[str, Any]], None]) -> None:
        """Those that were not told yet."""
        if self._fresh:
            emit("judged", {"keys": b64encode(b"".join(self._fresh)).decode()})
            self._fresh = []


def _key_of(content: Content) -> bytes:
    """SHA-256, then what tells most others apart without it."""
    return content.digest() + _look_of(content)


def _look_of(content: Content) -> bytes:
    return struct.pack(">II", content.size & 0xFFFFFFFF, zlib.crc32(content.whole()[:4096]))
