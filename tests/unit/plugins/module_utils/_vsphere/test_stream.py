# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stream of an exported disk in, a qcow2 image out; a stream that lies is refused."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._vsphere import qcow2, vmdk

GRAIN = 64 * 1024
SIZE = 5 * 1024 * 1024 + 512
END = bytes(512)


def head(size: int = SIZE, flags: int = 0x30001, grain: int = 128, method: int = 1, at: int = 2**64 - 1) -> bytes:
    numbers = (b"KDMV", 3, flags, size // 512, grain, 1, 1, 512, 0, at, 2, 0, b"\n \r\n", method)
    return struct.pack("<4sIIQQQQIQQQB4sH", *numbers).ljust(512, b"\0") + b"# Disk DescriptorFile".ljust(512, b"\0")


def grain(offset: int, data: bytes, length: int | None = None) -> bytes:
    packed = zlib.compress(data)
    text = struct.pack("<QI", offset // 512, len(packed) if length is None else length) + packed
    return text + bytes(-len(text) % 512)


def marker(kind: int, sectors: int) -> bytes:
    return struct.pack("<QII", sectors, 0, kind).ljust(512, b"\0") + b"\xff" * 512 * sectors


WHOLE = marker(3, 1) + END  # how every stream ends


def image_of(stream: bytes, path: Path, size: int = SIZE) -> None:
    source = io.BytesIO(stream)
    with path.open("wb") as file:
        writer = qcow2.Writer(file, size, vmdk.begin(source.read, size))
        for offset, data in vmdk.grains(source.read, writer.cluster, size):
            writer.write(offset, data)
        writer.finish()


@pytest.mark.parametrize("sectors", [8, 128, 2048])
def test_every_grain_is_at_its_place_and_the_image_is_sound(tmp_path: Path, sectors: int) -> None:
    drawn, bytes_ = random.Random(sectors), sectors * 512
    wanted, stream = bytearray(SIZE), head(grain=sectors)
    for offset in range(0, SIZE, bytes_):
        data = drawn.randbytes(bytes_) if drawn.random() < 0.4 else bytes(bytes_)
        wanted[offset : offset + bytes_] = data[: SIZE - offset]
        stream += grain(offset, data) + (marker(1, 4) if drawn.random() < 0.1 else b"")
    image_of(stream + marker(2, 1) + WHOLE, tmp_path / "image")
    check = subprocess.run(
        ["qemu-img", "check", "--output=json", "-f", "qcow2", str(tmp_path / "image")], capture_output=True, check=True
    )
    assert {key: json.loads(check.stdout).get(key, 0) for key in ("corruptions", "leaks", "check-errors")} == {
        "corruptions": 0,
        "leaks": 0,
        "check-errors": 0,
    }
    command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(tmp_path / "image"), str(tmp_path / "raw")]
    subprocess.run(command, check=True)
    assert (tmp_path / "raw").read_bytes() == wanted


def test_an_empty_disk_is_an_image_too(tmp_path: Path) -> None:
    image_of(head(1 << 30) + WHOLE, tmp_path / "image", 1 << 30)
    assert (tmp_path / "image").stat().st_size < 512 * 1024
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(tmp_path / "image")], check=True)


FULL = b"\1" * GRAIN


@pytest.mark.parametrize(
    ("stream", "flaw"),
    [
        (b"", "ends before"),
        (b"<html>".ljust(2048), "no stream-optimized VMDK"),
        (b'# Disk DescriptorFile\nRW 1 FLAT "/etc/shadow" 0\n'.ljust(2048), "no stream-optimized VMDK"),
        (head(flags=1), "no stream-optimized VMDK"),
        (head(method=0), "no stream-optimized VMDK"),
        (head(at=21), "no stream-optimized VMDK"),
        (head(SIZE + 512), "is of a disk of"),
        (head(grain=2**40), "its grains have"),
        (head(), "ends before"),
        (head() + grain(0, FULL), "ends before"),
        (head() + grain(0, FULL)[:600], "ends before"),
        (head() + grain(512, FULL) + END, "a grain of"),
        (head() + grain(1 << 40, FULL) + END, "behind the end"),
        (head() + grain(0, FULL[:-1]) + END, "does not have 65536 bytes"),
        (head() + grain(0, bytes(1 << 30)) + END, "a grain of"),
        (head() + grain(0, bytes(1 << 26), 4096) + END, "does not have 65536 bytes"),
        (head() + grain(0, FULL, length=5) + END, "does not have 65536 bytes"),
        (head() + grain(0, FULL).replace(b"\x78\x9c", b"\x00\x00", 1) + END, "is damaged"),
        (head() + grain(0, FULL) + grain(0, FULL) + END, "twice"),
        (head() + END, "ends before its footer"),
        (head() + grain(0, FULL) + bytes(1 << 20), "ends before its footer"),
        (head() + grain(0, FULL) + marker(2, 1) + END, "ends before its footer"),
        (head() + marker(3, 1) + grain(0, FULL) + END, "goes on behind its footer"),
        (head() + marker(3, 1) + marker(1, 1) + END, "goes on behind its footer"),
        (head() + marker(3, 1), "ends before its end mark"),
        (head() + WHOLE + b"\0", "goes on behind its end mark"),
        (head() + struct.pack("<QII", 1, 0, 9).ljust(512, b"\0"), "unknown kind 9"),
        (head() + struct.pack("<QII", 1 << 50, 0, 1).ljust(512, b"\0"), "its tables have"),
    ],
)
def test_a_stream_that_lies_is_refused(tmp_path: Path, stream: bytes, flaw: str) -> None:
    with pytest.raises(ValueError, match=flaw):
        image_of(stream, tmp_path / "image")
