# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds small disk images without mounting anything: trees in, images out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}" + b"$EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!" + b"$H+H*"
MARKER = b"VMWARD-INERT-" + b"SAMPLE"
MB = 1 << 20


def run(*command: str | Path, stdin: str = "") -> str:
    done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout


def tree(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return root


def harmless(count: int = 40) -> dict[str, bytes]:
    files = {f"usr/share/doc{number % 7}/file{number}": bytes([number]) * (number * 997) for number in range(count)}
    return {**files, "etc/hostname": b"desk1\n", "empty": b""}


def ext4(image: Path, files: dict[str, bytes], size: int = 32 * MB, *options: str) -> Path:
    source = tree(image.with_suffix(".tree"), files)
    with image.open("wb") as file:
        file.truncate(size)
    kind = [] if "-t" in options else ["-t", "ext4"]
    run("mke2fs", "-q", "-F", *kind, "-d", source, *options, image)
    shutil.rmtree(source)
    return image


def debugfs(image: Path, *requests: str) -> str:
    return run("debugfs", "-w", "-f", "-", image, stdin="\n".join(requests) + "\n")


def partitioned(image: Path, label: str, parts: list[Path | int], gap: int = MB, types: Sequence[str] = ()) -> Path:
    """A disk with `label` (dos or gpt) and one partition per image or size, each after a gap."""
    sizes = [part if isinstance(part, int) else part.stat().st_size for part in parts]
    with image.open("wb") as file:
        file.truncate(sum(sizes) + gap * (len(parts) + 2))
    lines, at = [f"label: {label}"], gap
    places = []
    for size, kind in zip_longest(sizes, types):
        lines.append(f"start={at // 512}, size={size // 512}" + (f", type={kind}" if kind else ""))
        places.append(at)
        at += size + gap
    run("sfdisk", "-q", image, stdin="\n".join(lines) + "\n")
    for part, place in zip(parts, places, strict=True):
        if isinstance(part, Path):
            write_at(image, place, part.read_bytes())
    return image


def write_at(image: Path, offset: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def qcow2(image: Path, source: Path, *options: str) -> Path:
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, source, image)
    return image


def overlay(image: Path, base: Path, *options: str, size: str = "") -> Path:
    run(
        "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, *options, image, *([size] if size else [])
    )
    return image


def qemu_write(image: Path, offset: int, length: int, pattern: int) -> None:
    run("qemu-io", "-f", "qcow2", "-c", f"write -q -P {pattern} {offset} {length}", image)


def as_raw(image: Path, target: Path, *options: str) -> Path:
    run("qemu-img", "convert", "-f", "qcow2", *options, "-O", "raw", image, target)
    return target


def put(image: Path, new: bytes, scratch: Path) -> None:
    """Write into a qcow2 image what makes it read as `new`, as a guest would: in blocks of 4 KiB."""
    old = as_raw(image, scratch / "old.img").read_bytes()
    commands: list[str] = []
    for at in range(0, len(new), 4096):
        if new[at : at + 4096] != old[at : at + 4096]:
            block = scratch / f"{at}.block"
            block.write_bytes(new[at : at + 4096])
            commands += ["-c", f"write -q -s {block} {at} {len(new[at : at + 4096])}"]
    if commands:
        run("qemu-io", "-f", "qcow2", *commands, image)


def journaled(image: Path, before: Path, after: Path, checksums: bool = True) -> Path:
    """`before` with a journal that, replayed, makes it `after` (but for the superblock)."""
    shutil.copy(before, image)
    size = int(run("dumpe2fs", "-h", image).split("Block size:")[1].split()[0])
    old, new = before.read_bytes(), after.read_bytes()
    superblock = 1024 // size
    differing = [
        number
        for number in range(len(new) // size)
        if number != superblock and old[number * size : (number + 1) * size] != new[number * size : (number + 1) * size]
    ]
    content = image.with_suffix(".blocks")
    content.write_bytes(b"".join(new[number * size : (number + 1) * size] for number in differing))
    numbers = ",".join(map(str, differing))
    debugfs(image, "jo -c" if checksums else "jo", f"jw -b {numbers} {content}", "jc")
    return image


@contextmanager
def exported(image: Path) -> Iterator[Path]:
    """A qcow2 image as a file to write to, as a guest would: clusters are allocated, and copied from the base."""
    point, pid = image.with_suffix(".disk"), image.with_suffix(".pid")
    point.touch()
    nodes = [f"driver=file,node-name=file,filename={image}", "driver=qcow2,node-name=image,file=file"]
    export = f"type=fuse,id=disk,node-name=image,mountpoint={point},writable=on"
    words = [word for node in nodes for word in ("--blockdev", node)]
    run("qemu-storage-daemon", *words, "--export", export, "--daemonize", "--pidfile", pid)
    number = int(pid.read_text())
    try:
        yield point
    finally:
        os.kill(number, signal.SIGTERM)
        end = time.monotonic() + 60
        while pid.exists() and time.monotonic() < end:  # it removes the file once all is written
            time.sleep(0.02)
        point.unlink()
