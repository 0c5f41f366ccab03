# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of rules and of indicators, as the responder gives them: all of them and all that they hold, or an error."""

from __future__ import annotations

import errno
import os


def rule_files(path: str) -> list[str]:
    """The file itself, or all *.yar and *.yara files in the directory, behind symbolic links too."""
    if not os.path.isdir(path):
        return [path]
    found: list[str] = []
    seen: set[str] = set()
    for root, directories, names in os.walk(path, onerror=_refuse, followlinks=True):
        if os.path.realpath(root) in seen:
            directories.clear()  # links may lead in circles
            continue
        seen.add(os.path.realpath(root))
        found += [os.path.join(root, name) for name in names if name.endswith((".yar", ".yara"))]
    if not found:
        raise OSError(errno.ENOENT, "it holds no *.yar or *.yara file")
    return sorted(found)


def why_not(exc: Exception) -> str:
    """Why a file can't be read: without its number and its name, which is told anyhow."""
    return str(getattr(exc, "strerror", "") or exc)


def _refuse(error: OSError) -> None:
    raise error


def read_whole(path: str, most: int) -> tuple[bytes, float]:
    """What a file holds, and when it was modified."""
    with open(path, "rb") as file:
        raw = file.read(most + 1)
        if len(raw) > most:
            raise OSError(errno.EFBIG, "it holds more than %d bytes" % most)
        return raw, os.fstat(file.fileno()).st_mtime
