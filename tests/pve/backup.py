# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated: ``vzdump`` and ``vma`` of a node, with a stream of the tests' own between them.

They keep to what Proxmox VE's own say and do where vmward relies on it: options, lock, log, what a signal or a broken
pipe does, the map, the sizes that are let pass, exit codes. The directory in ``NODE`` holds ``volumes.json`` (the file
behind each device), how each is to fare (``vzdump.how``, ``vma.how``), the VM's ``lock``, and what vzdump was given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO, NoReturn

NODE = Path(os.environ.get("NODE", "/nonexistent"))
CLUSTER = 1 << 16
TOLERATED = 4 << 20  # bytes that vma lets an image be larger than its disk


class Failed(Exception):
    """What the log says last."""


def how(program: str) -> str:
    path = NODE / f"{program}.how"
    return path.read_text() if path.exists() else ""


def interrupted(_signal: int, _frame: object) -> NoReturn:
    raise Failed("interrupted by signal")


def vzdump(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("vmid")
    for option in ("mode", "compress", "script", "remove", "prune-backups", "stdout", "dumpdir", "tmpdir"):
        parser.add_argument(f"--{option}", required=True)
    options = parser.parse_args(argv)
    (NODE / "called").write_text(json.dumps(vars(options)))
    signal.signal(signal.SIGTERM, interrupted)
    try:
        locked_and_sent(options)
    except (Failed, BrokenPipeError) as exc:
        print(f"ERROR: Backup of VM {options.vmid} failed - {exc}", file=sys.stderr)
        print("INFO: Backup job finished with errors\njob errors", file=sys.stderr)
        with contextlib.suppress(BrokenPipeError):
            os.close(1)
        return 255
    print("INFO: Backup job finished successfully", file=sys.stderr)
    return 0


def locked_and_sent(options: argparse.Namespace) -> None:
    lock = NODE / "lock"
    if lock.exists():
        raise Failed("VM is locked (backup)")
    lock.touch()
    try:
        (Path(options.tmpdir) / "qemu-server.conf").write_text("cipassword: secret\n")
        (Path(options.dumpdir) / "vzdump-qemu.log").write_text("log\n")
        print("INFO: sending archive to stdout", file=sys.stderr, flush=True)
        with open(1, "wb", buffering=0, closefd=False) as out:
            send(out)
    finally:
        time.sleep(0.2)  # QEMU's job ends; a second signal now would leave the lock
        lock.unlink()


def send(out: BinaryIO) -> None:
    volumes = json.loads((NODE / "volumes.json").read_text())
    out.write(json.dumps([[name, os.stat(path).st_size] for name, path in volumes.items()]).encode() + b"\n")
    for number, path in enumerate(volumes.values()):
        with open(path, "rb") as source:
            for cluster, data in enumerate(iter(lambda: source.read(CLUSTER), b"")):
                if number == len(volumes) - 1 and cluster == 1:
                    halfway()
                out.write(bytes([number]) + cluster.to_bytes(8, "big") + data.ljust(CLUSTER, b"\0"))


def halfway() -> None:
    if how("vzdump") == "fail":
        raise Failed("job failed with err -5 - Input/output error")
    if how("vzdump") == "hang":
        (NODE / "halfway").touch()
        time.sleep(600)


def vma(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["extract"])
    parser.add_argument("-d", required=True)
    parser.add_argument("-r", required=True)
    parser.add_argument("archive", choices=["-"])
    parser.add_argument("directory")
    options = parser.parse_args(argv)
    try:
        with open(0, "rb", closefd=False) as source:
            extract(source, options)
    except (Failed, OSError) as exc:
        print(f"** (process:1): ERROR **: 12:00:00.000: {exc}", file=sys.stderr)
        return 133
    return 0


def extract(source: BinaryIO, options: argparse.Namespace) -> None:
    devices = json.loads(source.readline() or b"[]")
    os.mkdir(options.directory)
    for number, (name, size) in enumerate(devices, 1):
        print(f"DEV: dev_id={number} size: {size} devname: {name}")
    wanted = next((n for n, (name, _size) in enumerate(devices) if name == options.d), -1)
    raw, seen = Path(options.directory) / "raw", set()
    with open(raw, "wb") as file:
        while head := source.read(9):
            data, cluster = source.read(CLUSTER), int.from_bytes(head[1:], "big")
            if head[0] == wanted and len(data) == CLUSTER:
                if how("vma") == "fail":
                    raise Failed("restore failed - blk_pwrite to failed (-28)")
                seen.add(cluster)
                file.seek(cluster * CLUSTER)
                file.write(data)
    if wanted < 0:
        return  # as vma does: nothing was wanted that is there
    size = devices[wanted][1]
    for cluster in range(-(-size // CLUSTER)):
        if cluster not in seen:
            raise Failed(f"restore failed - detected missing cluster {cluster} for stream {options.d}")
    into(raw, size, options)


def into(raw: Path, size: int, options: argparse.Namespace) -> None:
    mapped = re.fullmatch(r"format=qcow2:0:([^=]+)=(/.+)\n", Path(options.r).read_text())
    if not mapped or mapped[1] != options.d:
        raise Failed(f"no device name mapping for {options.d}")
    told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", mapped[2]]))
    if told["format"] != "qcow2" or not 0 <= told["virtual-size"] - size <= TOLERATED:
        raise Failed(f"vma_reader_register_bs for stream {options.d} failed - unexpected size")
    os.truncate(raw, told["virtual-size"])
    subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", str(raw), mapped[2]], check=True)


if __name__ == "__main__":
    sys.exit({"vzdump": vzdump, "vma": vma}[sys.argv[1]](sys.argv[2:]))
