# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk that QEMU serves is read like its file, and a server that lies or hangs up makes nothing clean."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import nbd
from ansible_collections.vmward.remediation.plugins.module_utils._scan.blocks import UnreadableImage
from ansible_collections.vmward.remediation.plugins.module_utils._scan.indexing import index
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import (
    BadInput,
    DiskRequest,
    LayerSpec,
    Request,
    scan,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.nbd import Nbd, connect, written
from ansible_collections.vmward.remediation.plugins.module_utils._scan.sandbox import Limits
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES

ROOT = Path(__file__).resolve().parents[2]
MB = disks.MB


@contextmanager
def served(image: Path, kind: str, place: Path, *options: str) -> Iterator[Path]:
    path = place / "nbd.sock"
    command = ["qemu-nbd", "-r", "-t", "-e", "4", "-f", kind, "-x", "vda", "-k", str(path), *options, str(image)]
    server = subprocess.Popen(command)
    try:
        while not path.exists():
            assert server.poll() is None
            time.sleep(0.02)
        yield path
    finally:
        server.terminate()
        server.wait()


def look(path: Path, known: str = "", clone_of: tuple[LayerSpec, ...] = ()) -> dict[str, Any]:
    disk = DiskRequest("vda", (LayerSpec(str(path), "nbd", "vda"),), "", clone_of)
    return scan(Request((disk,), RULES, "", ("yara",), 0, "", Limits(120, 1 << 30, 120), directory=known))


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.ext4(tmp_path_factory.mktemp("golden") / "golden.img", disks.harmless(), 64 * MB)


def test_every_byte_is_that_of_the_disk(tmp_path: Path) -> None:
    image, size = tmp_path / "d.img", 5 * MB + 512
    content = bytearray(size)
    content[MB : 2 * MB] = os.urandom(MB)
    content[size - 1000 :] = os.urandom(1000)
    with image.open("wb") as out:
        out.truncate(size)
        for at, length in ((MB, MB), (size - 1000, 1000)):
            out.seek(at)
            out.write(content[at : at + length])
    with served(image, "raw", tmp_path) as path:
        fd, told = connect(str(path), "vda")
        disk = Nbd(fd, told)
        assert told == size
        for at, length in ((0, 1), (MB - 7, 100), (MB, MB), (0, size), (size - 600, 2000), (size + 5, 3), (262143, 2)):
            assert disk.read(at, length) == bytes(content[at : at + length]).ljust(length, b"\0")
        places = list(disk.places(0, size + 100))
        assert sum(length for length, _file, _at in places) == size + 100
        assert all(at <= MB or file is None for _length, file, at in places[:2])
        for length, file, at in places:
            assert file is None or content[at : at + length].count(0) < length
        os.close(fd)


def test_a_served_disk_is_judged_like_its_file(golden: Path, tmp_path: Path) -> None:
    image = Path(disks.run("cp", "--sparse=always", golden, tmp_path / "d.img") or tmp_path / "d.img")
    (tmp_path / "m").write_bytes(disks.MARKER)
    with served(golden, "raw", tmp_path) as path:
        clean = look(path)
    assert (clean["verdict"], clean["files"]) == ("clean", len(disks.harmless()))
    disks.debugfs(image, f"write {tmp_path / 'm'} m")
    with served(image, "raw", tmp_path) as path:
        infected = look(path)
    assert [found["path"] for found in infected["findings"]] == ["/m"]


def test_only_what_differs_from_the_golden_image_is_judged(golden: Path, tmp_path: Path) -> None:
    known, base = tmp_path / "known", (LayerSpec(str(golden), "raw"),)
    known.mkdir(mode=0o700)
    request = Request(
        (DiskRequest("base", base),), RULES, "", ("yara",), 0, "", Limits(120, 1 << 30, 120), directory=str(known)
    )
    assert index(request)["verdict"] == "clean"
    changed = tmp_path / "changed.img"
    disks.run("cp", "--sparse=always", golden, changed)
    (tmp_path / "m").write_bytes(disks.MARKER)
    disks.debugfs(changed, f"write {tmp_path / 'm'} m")
    with served(changed, "raw", tmp_path) as path:
        result = look(path, str(known), base)
    assert [found["path"] for found in result["findings"]] == ["/m"]
    assert result["files"] < 5
    assert [volume["method"] for volume in result["volumes"]] == ["delta"]
    assert [(change["kind"], change["path"]) for change in result["changes"]] == [("new", "/m")]
    top = tmp_path / "same.qcow2"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", golden, top)
    with served(top, "qcow2", tmp_path) as path:
        same = look(path, str(known), base)
    assert (same["verdict"], [volume["method"] for volume in same["volumes"]]) == ("clean", ["same"])


def test_what_was_written_is_told_by_a_dirty_bitmap(golden: Path, tmp_path: Path) -> None:
    image = disks.qcow2(tmp_path / "d.qcow2", golden)
    disks.run("qemu-img", "bitmap", "--add", image, "b")
    for at, length in ((MB + 4096, 512), (MB + 65535, 2), (64 * MB - 1024, 1024)):
        disks.qemu_write(image, at, length, 7)
    disks.run("qemu-img", "bitmap", "--disable", image, "b")
    with served(image, "qcow2", tmp_path, "-B", "b") as path:
        told = written(str(path), "vda", "qemu:dirty-bitmap:b")
        assert told == [(MB, MB + 131072), (64 * MB - 65536, 64 * MB)]
        with pytest.raises(UnreadableImage, match="does not tell what was written"):
            written(str(path), "vda", "qemu:dirty-bitmap:other")


def test_what_is_not_served_is_refused(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Cannot read disk vda from its hypervisor"):
        look(tmp_path / "none")
    with served(golden, "raw", tmp_path) as path, pytest.raises(UnreadableImage, match="refuses option"):
        connect(str(path), "other")


def answering(place: Path, *answers: bytes) -> tuple[Path, threading.Thread]:
    """A server that says these bytes, whatever it is asked, and hangs up."""
    path = place / "liar.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        link, _peer = listener.accept()
        for answer in answers:
            link.sendall(answer)
        link.shutdown(socket.SHUT_WR)
        while link.recv(4096):
            continue
        link.close()
        listener.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return path, thread


GREETING = b"NBDMAGICIHAVEOPT\0\3"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([b"GET / HTTP/1.1\r\n\r\n"], "does not speak NBD"),
        ([GREETING], "hung up"),
        ([GREETING, bytes(20)], "nonsense"),
        ([GREETING, struct.pack(">QIII", nbd._ANSWER, 8, 1, 1 << 30)], "nonsense"),
        ([GREETING, struct.pack(">QIII", nbd._ANSWER, 8, 3, 0) * 64], "without end"),
    ],
)
def test_a_server_that_lies_is_not_spoken_with(tmp_path: Path, answers: list[bytes], words: str) -> None:
    path, thread = answering(tmp_path, *answers)
    with pytest.raises(UnreadableImage, match=words):
        connect(str(path), "vda")
    thread.join(10)


def chunk(kind: int, data: bytes, cookie: int = 1, flags: int = 1) -> bytes:
    return struct.pack(">IHHQI", nbd._CHUNK, flags, kind, cookie, len(data)) + data


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (chunk(1, bytes(8 + 512), cookie=7), "nonsense"),
        (chunk(1, struct.pack(">Q", 1 << 40) + bytes(512)), "nonsense"),
        (chunk(1, struct.pack(">Q", 0) + bytes(513)), "nonsense"),
        (chunk(1, struct.pack(">Q", 0) + bytes(511)), "left out"),
        (chunk(5, bytes(12)), "nonsense"),
        (chunk(1 << 15 | 1, bytes(6)), "could not read"),
        (chunk(1, struct.pack(">Q", 0) + bytes(512))[:-1], "hung up"),
        (struct.pack(">IHHQI", nbd._CHUNK, 1, 1, 1, 1 << 31), "nonsense"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_no_content(answer: bytes, words: str) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(UnreadableImage, match=words):
        Nbd(ours.fileno(), 512).read(0, 512)
    ours.close()
    theirs.close()


def test_a_server_that_goes_away_leaves_the_scan_incomplete(golden: Path, tmp_path: Path) -> None:
    with served(golden, "raw", tmp_path) as path:
        fd, size = connect(str(path), "vda")
    with pytest.raises((UnreadableImage, OSError)):
        Nbd(fd, size).read(0, 4096)
    os.close(fd)
