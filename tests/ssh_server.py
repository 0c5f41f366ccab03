# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An sshd on the loopback whose accounts exist in its own mount namespace only: nothing is left behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {place}/host
AuthorizedKeysFile /run/sshd/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""
# The responder is an administrator without rights of its own: everything goes through sudo.
PASSWD = """root:x:0:0::/root:/bin/sh
sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin
responder:x:65532:65532::/run/responder:/bin/sh
"""
SHADOW = "root:*:19000::::::\nresponder:*:19000::::::\n"
SUDOERS = "root ALL=(ALL) NOPASSWD: ALL\nresponder ALL=(ALL) NOPASSWD: ALL\n"
SCRIPT = """set -eu
mkdir old && mount --rbind /run old && mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd /run/libvirt && install -d -o 65532 -g 65532 /run/responder
install -m 644 user.pub /run/sshd/authorized_keys
if [ -d old/libvirt ]; then mount --rbind old/libvirt /run/libvirt; fi
for name in passwd shadow sudoers; do if [ -e /etc/$name ]; then mount --bind $name /etc/$name; fi; done
exec "$1" -D -e -f "$PWD/config"
"""


@dataclass(frozen=True)
class SshServer:
    """Where it listens, the key that opens it, and its own key as a known_hosts file."""

    port: int
    identity: Path
    known_hosts: Path


@contextmanager
def serve(place: Path) -> Iterator[SshServer]:
    """Serve root and ``responder`` (who may use sudo) on a free port, with keys of its own in ``place``."""
    sshd, environment = _sshd(place / "packages")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / key], check=True)
    (place / "known_hosts").write_text(f"[127.0.0.1]:{port} {(place / 'host.pub').read_text()}")
    (place / "config").write_text(CONFIG.format(port=port, place=place))
    for name, text in (("passwd", PASSWD), ("shadow", SHADOW), ("sudoers", SUDOERS)):
        (place / name).write_text(text)
    (place / "sudoers").chmod(0o440)
    command = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", sshd]
    process = subprocess.Popen(command, cwd=place, env=environment)
    try:
        for _attempt in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "sshd has ended"
            time.sleep(0.1)
        yield SshServer(port, place / "user", place / "known_hosts")
    finally:
        process.terminate()
        process.wait()


def _sshd(place: Path) -> tuple[str, dict[str, str]]:
    """The system's, or Debian's package unpacked, since installing it would open this machine's port 22."""
    found = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if found:
        return found, dict(os.environ)
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    subprocess.run(["apt-get", "-q", "download", "openssh-server", "libwrap0"], cwd=place, check=True)
    for package in place.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, place / "root"], check=True)
    libraries = ":".join(str(one.parent) for one in place.rglob("libwrap.so.0"))
    return str(place / "root/usr/sbin/sshd"), {**os.environ, "LD_LIBRARY_PATH": libraries}
