# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the two images that every scan tests itself on, and writes them into plugins/module_utils/_scan/self_test.py.

Run it after a change of what they hold: PYTHONPATH=build/collections .venv/bin/python tests/corpus/self_test.py
"""

from __future__ import annotations

import base64
import re
import tempfile
import textwrap
import zlib
from pathlib import Path

from ansible_collections.vmward.remediation.tests.corpus import disks

TARGET = Path(__file__).resolve().parents[2] / "plugins/module_utils/_scan/self_test.py"
KB = 1024


def make(place: Path) -> tuple[bytes, bytes]:
    """A clean file system; and an overlay on it with a sample that replaces a file, and a new one in a directory."""
    options = ("-b", "1024", "-O", "^has_journal,^resize_inode,^64bit", "-m", "0", "-N", "32")
    files = {"etc/motd": b"Welcome.\n", "etc/replaced": b"r" * 3000}
    base = disks.ext4(place / "base.img", files, 128 * KB, *options)
    (place / "eicar").write_bytes(disks.EICAR)
    (place / "marker").write_bytes(b"." * 2100 + disks.MARKER)
    changed = place / "changed.img"
    changed.write_bytes(base.read_bytes())
    disks.debugfs(
        changed, "rm etc/replaced", f"write {place}/eicar etc/replaced", "mkdir d", f"write {place}/marker d/new"
    )
    top = place / "top.qcow2"
    command = ("create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, "-o", "cluster_size=4k", top)
    disks.run("qemu-img", *command)
    (place / "scratch").mkdir()
    disks.put(top, changed.read_bytes(), place / "scratch")
    return base.read_bytes(), top.read_bytes()


def literal(name: str, data: bytes) -> str:
    text = base64.b85encode(zlib.compress(data, 9)).decode()
    return f"{name} = (\n" + "".join(f'    "{line}"\n' for line in textwrap.wrap(text, 110)) + ")\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        base, top = make(Path(place))
    source = TARGET.read_text()
    for name, data in (("_BASE", base), ("_TOP", top)):
        source = re.sub(rf"(?ms)^{name} = \(.*?^\)\n", literal(name, data).replace("\\", "\\\\"), source)
    TARGET.write_text(source)


if __name__ == "__main__":
    main()
