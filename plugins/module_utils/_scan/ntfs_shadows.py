# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shadow copies of a volume: through them Windows shows files as they were, out of clusters that are free by now.

Made after the layout published by the libvshadow project (https://github.com/libyal/libvshadow).
"""

from __future__ import annotations

import struct

from .blocks import Blocks

_HEADER = 0x1E00
_MARK = bytes.fromhex("6b87083876c1484eb7ae04046e6cc752")
_VOLUME, _CATALOG = 1, 2  # what a block is
_BLOCK, _HEAD, _ENTRY = 16384, 128, 128
_UNUSED = 0, 1


def has_shadows(volume: Blocks) -> bool:
    """Also where its catalog of them can't be read."""
    head = volume.read(_HEADER, 512)
    if head[:16] != _MARK:
        return False
    at, seen = struct.unpack_from("<Q", head, 48)[0], set[int]()
    while at:
        block = volume.read(at, _BLOCK) if at < volume.size else b""
        if at in seen or block[:16] != _MARK or struct.unpack_from("<I", block, 20)[0] != _CATALOG:
            return True
        if any(struct.unpack_from("<Q", block, entry)[0] not in _UNUSED for entry in range(_HEAD, _BLOCK, _ENTRY)):
            return True
        seen.add(at)
        at = struct.unpack_from("<Q", block, 40)[0]
    return False
