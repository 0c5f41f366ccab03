# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file may take so long, over all that is done with it; then it is told, and the scan goes on with the next one."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan import clamd
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import (
    WINDOW,
    Budget,
    Content,
    EngineFailed,
    Hit,
    RuleFile,
    Yara,
    eicar,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.inside import Archives
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import NO_INDICATORS, Indicators
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Where
from ansible_collections.vmward.remediation.tests.corpus.archives import tarred, zipped
from ansible_collections.vmward.remediation.tests.corpus.judging import Looking

MB = 1 << 20
WHERE = Where("vda", 1)
LATE = "it took longer than file_timeout (300 s)"
RULES = [RuleFile("r", "".join(f'rule {one} {{ strings: $a = "{one}!" condition: $a }}' for one in "xyz"), "", 0)]


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Slow(Yara):
    """It takes 100 s for whatever it is shown."""

    def __init__(self, clock: Clock) -> None:
        self._clock = Clock()  # its self-test is no file of the disk
        super().__init__(RULES, 300)
        self._clock = clock

    def _matching(self, data: bytes, budget: Budget) -> Any:
        self._clock.seconds += 100
        return super()._matching(data, budget)


def quick(_clock: Clock) -> Yara:
    return Yara(RULES, 300)


class Scan:
    def __init__(self, engine: Callable[[Clock], Yara] = Slow, **options: Any) -> None:
        self.clock, self.listener = Clock(), Listener(Progress("", 0))
        told = {"file_timeout": 300, "now": self.clock, "archives": Archives(), **options}
        self.judge = Judge([engine(self.clock)], self.listener.take, 64 * MB, **told)

    def file(self, path: str, data: bytes, seconds: float = 0, whole: int = 64 * MB) -> None:
        """`seconds`: that each reading takes."""

        def read(at: int, length: int) -> bytes:
            self.clock.seconds += seconds
            return data[at : at + length]

        self.judge.file(WHERE, Content(len(data), read, whole), lambda: path)

    def told(self) -> tuple[list[str], list[str]]:
        self.judge.flush()
        tally = self.listener.tally
        return [f"{one.path} {one.rule}" for one in tally.findings], tally.reasons


def large(*parts: tuple[int, bytes], windows: int = 6) -> bytes:
    data = bytearray(windows * WINDOW)
    for at, part in ((0, b"large"), *parts):
        data[at : at + len(part)] = part
    return bytes(data)


def test_a_file_has_its_time_over_all_of_its_windows_and_the_next_one_has_its_own() -> None:
    scan = Scan()
    scan.file("/slow", large((5, b"x!"), (5 * WINDOW, b"y!")), whole=MB)
    scan.file("/next", b"z!")
    assert scan.told() == (["/slow x", "/next z"], [f"/slow on {WHERE}: {LATE}."])


def test_what_is_found_before_a_file_that_fits_is_late_is_told_with_its_hash() -> None:
    data = tarred({"a": b"x!", "b": b"b", "c": b"c", "d": b"d"})
    scan = Scan()
    scan.file("/a.tar", data)
    findings, reasons = scan.told()
    assert findings == ["/a.tar x", "/a.tar!/a x"]
    assert reasons == [f"/a.tar on {WHERE}: {LATE}."]
    assert scan.listener.tally.findings[0].sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("pack", [tarred, zipped])
def test_all_that_lies_in_an_archive_shares_its_time(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    inner = gzip.compress(pack({"a": b"x!" + bytes(99), **{f"{number}": b"n" for number in range(99)}}))
    scan = Scan(file_timeout=600)
    scan.file("/a.zip", zipped({"b.gz": inner, "c": b"z!"}))
    findings, reasons = scan.told()
    assert findings[-1] == "/a.zip!/b.gz!/a x"
    assert reasons == [f"/a.zip on {WHERE}: it took longer than file_timeout (600 s)."]
    assert scan.clock.seconds <= 1700


@pytest.mark.parametrize("whole", [MB, 128 * MB], ids=["in windows", "whole"])
def test_reading_is_part_of_it(whole: int) -> None:
    scan = Scan(quick)
    scan.file("/slow", large((5, b"x!"), (5 * WINDOW, b"y!")), seconds=90, whole=whole)
    findings, reasons = scan.told()
    assert findings == ([] if whole > MB else ["/slow x"])
    assert reasons == [f"/slow on {WHERE}: {LATE}."]
    assert scan.clock.seconds <= 1000 + 300 + 90


def test_hashing_is_part_of_it() -> None:
    scan = Scan(quick, indicators=Indicators(md5=frozenset(["0" * 32])))
    scan.file("/slow", large(), seconds=90, whole=MB)
    scan.file("/next", b"z!")
    assert scan.told() == (["/next z"], [f"/slow on {WHERE}: {LATE}."])


def test_unpacking_is_part_of_it() -> None:
    packed = gzip.compress(b"x!" + bytes(range(256)) * 4096, 0)
    scan = Scan(quick)
    scan.file("/slow.gz", packed, seconds=29, whole=MB // 2)
    findings, reasons = scan.told()
    assert reasons[0] == f"/slow.gz on {WHERE}: it is too large for the memory limit, so YARA saw it in parts only."
    assert reasons[1:] == [f"/slow.gz on {WHERE}: {LATE}."]
    assert findings == ["/slow.gz x"]


def test_what_is_known_to_be_clean_needs_its_hash_only_and_what_was_late_is_never_known() -> None:
    known: set[bytes] = set()
    scan = Scan(known=known)
    for path, data in (
        ("/late", tarred({f"{number}": b"n" for number in range(9)})),
        ("/a", b"clean"),
        ("/b", b"clean"),
    ):
        scan.file(path, data, seconds=250)
    assert scan.told() == ([], [f"/late on {WHERE}: {LATE}."])
    assert len(known) == 1


def test_raw_bytes_are_no_file_and_have_no_such_time() -> None:
    scan = Scan()
    data = large((5, b"x!"), (5 * WINDOW, b"y!"))
    scan.judge.parts(WHERE, Content(len(data), lambda at, length: data[at : at + length], 0), "swap")
    scan.judge.paged(WHERE, Content(len(data), lambda at, length: data[at : at + length], 0), "/swapfile")
    scan.judge.flush()
    tally = scan.listener.tally
    assert (tally.reasons, [one.rule for one in tally.indicators]) == ([], ["x", "y"] * 2)


def test_no_limit_is_none() -> None:
    scan = Scan(file_timeout=float("inf"), indicators=NO_INDICATORS)
    scan.file("/slow", large((5, b"x!"), (5 * WINDOW, b"y!")), whole=MB)
    findings, (reason,) = scan.told()
    assert findings == ["/slow x", "/slow y"]
    assert "in parts only" in reason


class Late(Looking):
    """It takes its time for one thing only, and finds nothing."""

    def scan(self, content: Content) -> tuple[list[Hit], str]:
        if content.head(2) == b"x!":
            content.budget._end = 0
            content.budget.check()
        return [], ""


def test_what_one_engine_found_in_an_archive_stays_though_the_next_one_is_late() -> None:
    scan = Scan(quick)
    judge = Judge([quick(scan.clock), Late()], scan.listener.take, MB, archives=Archives(), file_timeout=300)
    data = zipped({"a": b"x!", "b": b"y!"})
    judge.file(WHERE, Content(len(data), lambda at, length: data[at : at + length], MB), lambda: "/a.zip")
    judge.flush()
    assert scan.told() == (["/a.zip!/a x"], [f"/a.zip on {WHERE}: {LATE}."])


# --- clamd -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hangs", [False, True])
def test_a_file_that_clamd_takes_long_for_is_told_and_a_clamd_that_answers_nobody_ends_it(
    monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    clock, waited = Clock(), list[float]()

    def ask(_path: str, timeout: float, command: bytes, chunks: Iterable[bytes] = ()) -> str:
        sent = b"".join(chunks)
        if b"slow" in sent or (waited and hangs):
            waited.append(timeout)
            clock.seconds += timeout
            raise EngineFailed("clamd does not answer")
        if command == b"zVERSION\0":
            return "ClamAV 1"
        return "stream: X FOUND" if eicar() in sent else "stream: OK"

    monkeypatch.setattr(clamd, "ask", ask)
    listener = Listener(Progress("", 0))
    judge = Judge([clamd.Clamd("/socket", 300)], listener.take, MB, file_timeout=300, now=clock)

    def both() -> None:
        judge.file(WHERE, Content(4, lambda _at, _length: b"slow", MB), lambda: "/slow")
        judge.file(WHERE, Content(len(eicar()), lambda _at, _length: eicar(), MB), lambda: "/next")

    judge.guard("The disk", both)
    judge.flush()
    tally = listener.tally
    assert tally.reasons == ["The disk was not read: clamd does not answer." if hangs else f"/slow on {WHERE}: {LATE}."]
    assert [one.path for one in tally.findings] == ([] if hangs else ["/next"])
    assert waited[0] == 300
