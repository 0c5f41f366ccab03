# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What lies in archives is judged as files are; and whatever of it is not is told, with its name."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import random
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Content, Hit
from ansible_collections.vmward.remediation.plugins.module_utils._scan.inside import Archives, Inside
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import Indicators
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally, Where
from ansible_collections.vmward.remediation.tests.corpus.archives import (
    QUINE,
    ar,
    central,
    cpio,
    deflated,
    entries,
    local,
    lzip,
    rpm,
    tarred,
    zipped,
)
from ansible_collections.vmward.remediation.tests.corpus.judging import (
    BAD,
    DEFAULT,
    MB,
    Looking,
    assert_told,
    found,
    judged,
)


def lzip_of_2008(data: bytes) -> bytes:
    """Of version 0, which xz opens too: its trailer does not tell the member's size."""
    return b"LZIP\0" + lzip(data)[5:-8]


DEEP, LONG = "d" * 99 + "/" + "x" * 200, "i\u00fc" * 80
GOOD = {"a": b"a", "empty": b"", "dir/b": b"b" * 1000}


def zip_of(method: int) -> bytes:
    return zipped({**GOOD, "in/x": BAD}, method)


def streamed() -> bytes:
    """Sizes follow the data."""
    data = io.BytesIO()
    data.seekable = lambda: False  # type: ignore[method-assign]
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"a")
        archive.writestr("in/x", BAD)
    return data.getvalue()


def wide() -> bytes:
    """Numbers of 64 bits, in headers and at the end."""
    packed = deflated(BAD)
    kernel = local(b"in/x", packed, BAD)
    extra = struct.pack("<2H3Q", 1, 24, len(BAD), len(packed), 0)
    head = bytearray(central(b"in/x", kernel, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    head[24:28], head[30:32] = b"\xff" * 4, struct.pack("<H", len(extra))
    directory = bytes(head) + extra
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), len(kernel))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(kernel) + len(directory), 1)
    return kernel + directory + end + locator + b"PK\5\6" + struct.pack("<4H", 0, 0, 1, 1) + b"\xff" * 8 + bytes(2)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (gzip.compress(BAD), "/x!/"),
        (gzip.compress(b"good") + gzip.compress(BAD) + bytes(99), "/x!/"),
        (bz2.compress(b"good") + bz2.compress(BAD), "/x!/"),
        (lzma.compress(b"good") + bytes(4) + lzma.compress(BAD), "/x!/"),
        (lzma.compress(BAD, lzma.FORMAT_ALONE), "/x!/"),
        (lzip(b"good") + lzip(BAD) + bytes(99), "/x!/"),
        (lzip_of_2008(b"good") + lzip_of_2008(BAD) + lzip(b"good"), "/x!/"),
        (zip_of(zipfile.ZIP_STORED), "/x!/in/x"),
        (zip_of(zipfile.ZIP_DEFLATED), "/x!/in/x"),
        (zip_of(zipfile.ZIP_BZIP2), "/x!/in/x"),
        (zip_of(zipfile.ZIP_LZMA), "/x!/in/x"),
        (b"#!/bin/sh\n" + zip_of(zipfile.ZIP_DEFLATED), "/x!/in/x"),
        (tarred({**GOOD, "in/x": BAD}, tarfile.USTAR_FORMAT), "/x!/in/x"),
        (tarred({**GOOD, "/" + DEEP: BAD}, tarfile.GNU_FORMAT), "/x!/" + DEEP),
        (tarred({**GOOD, LONG: BAD}, tarfile.PAX_FORMAT), "/x!/" + LONG),
        (ar({"debian-binary": b"2.0\n", "in": BAD, "last": b"l"}), "/x!/in"),
        (gzip.compress(tarred({"in/x": BAD})), "/x!/in/x"),
        (ar({"data.tar.xz": lzma.compress(tarred({"./usr/x": BAD}))}), "/x!/data.tar.xz!/./usr/x"),
        (ar({"/": b"x" * 40 + b"long.gz/\n", "/40": gzip.compress(BAD)}).replace(b"/40/", b"/40 "), "/x!/long.gz!/"),
        (wide(), "/x!/in/x"),
        (streamed(), "/x!/in/x"),
        (zipped({"b.tar": tarred({"c.gz": gzip.compress(BAD)})}), "/x!/b.tar!/c.gz!/"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("held", [True, False], ids=["whole", "in windows"])
def test_what_lies_in_an_archive_is_judged(data: bytes, path: str, held: bool) -> None:
    told = judged(data, held=held)
    assert path in found(told)
    assert not [reason for reason in told.reasons if "in parts only" not in reason]


def test_a_finding_in_an_archive_is_told_as_that_of_a_file() -> None:
    (one,) = judged(gzip.compress(b"......" + BAD)).findings
    assert (one.offset, one.size, one.sha256) == (6, 19, hashlib.sha256(b"......" + BAD).hexdigest())


def test_how_much_was_unpacked_is_told() -> None:
    (note,) = judged(zipped(GOOD)).summed
    assert note == "1 archives or packed files were unpacked, and what lies in them was judged (3 files)."


def test_names_can_do_nothing_to_a_terminal() -> None:
    told = judged(tarred({"../\x1b[2J\nx\u202e": BAD}))
    assert "/x!/../\\x1b[2J\\nx\\u202e" in found(told)
    (reason,) = judged(entries((b"a\n", 0, 20), kernel=local(b"a\n", b"?" * 20, b"", flags=1))).reasons
    assert reason.startswith("/x!/a\\n on volume")


def test_hashes_and_names_of_members_are_indicators() -> None:
    data = gzip.compress(zipped({"in/Evil.EXE": b"a", "b": b"bb"}))
    wanted = Indicators(sha256=frozenset([hashlib.sha256(b"bb").hexdigest()]), names=frozenset(["evil.exe"]))
    told = judged(data, indicators=wanted)
    assert {(one.path, one.rule) for one in told.findings} == {("/x!/in/Evil.EXE", "ioc_name"), ("/x!/b", "ioc_sha256")}
    alone = judged(data, engines=(Looking(unpacks=True),), indicators=wanted)
    assert found(alone) == found(told)


def test_an_engine_that_unpacks_is_not_given_the_same_twice() -> None:
    plain, unpacking = Looking(), Looking(unpacks=True)
    judged(gzip.compress(b"good"), engines=(plain, unpacking))
    assert (len(plain.seen), len(unpacking.seen)) == (2, 1)
    told = judged(zipped({"a.7z": SEVEN}), engines=(plain, unpacking))
    assert told.unopened == 0


SEVEN = b"7z\xbc\xaf\x27\x1c\0\4"


@pytest.mark.parametrize("data", [SEVEN, zipped({"a": b"", "b.7z": SEVEN}), gzip.compress(tarred({"a": SEVEN}))])
def test_what_is_not_unpacked_here_is_counted_however_deep(data: bytes) -> None:
    known: set[bytes] = set()
    for _round in range(2):
        told = judged(data, known=known)
        assert (told.unopened, told.reasons) == (1, [])


def test_a_depth_of_0_leaves_all_packed() -> None:
    told = judged(gzip.compress(BAD), Archives(depth=0))
    assert (told.unopened, told.reasons, found(told)) == (1, [], [])


def test_what_was_found_clean_is_not_unpacked_again_and_what_was_not_is() -> None:
    for data, times in ((gzip.compress(b"good"), 2), (gzip.compress(BAD), 4), (gzip.compress(b"good")[:-1], 4)):
        known: set[bytes] = set()
        engine = Looking()
        for _round in range(2):
            judged(data, engines=(engine,), known=known)
        assert len(engine.seen) == times


# --- what is not judged is told --------------------------------------------------------------------------------------


def encrypted() -> bytes:
    kernel = local(b"a", b"?" * 20, b"", flags=1) + local(b"b", BAD, BAD, method=0)
    return entries((b"a", 0, 20), (b"b", 51, len(BAD)), kernel=kernel)


def of_method(number: int) -> bytes:
    kernel = local(b"a", b"?" * 20, b"", method=number)
    return entries((b"a", 0, 20), kernel=kernel)


def of_wrong_crc() -> bytes:
    packed = deflated(BAD)
    return entries((b"a", 0, len(packed)), kernel=local(b"a", packed, b"other"))


def test_of_an_encrypted_member_its_name_is_told_and_the_others_are_judged() -> None:
    told = judged(encrypted())
    assert_told(told, "/x!/a", "it is encrypted")
    assert "/x!/b" in found(told)


def test_a_member_packed_in_an_unknown_way_is_told() -> None:
    assert_told(judged(of_method(93)), "/x!/a", "by a method (93)")


def test_a_member_that_is_not_what_its_archive_declares_is_judged_and_told() -> None:
    told = judged(of_wrong_crc())
    assert_told(told, "/x!/a", "its size or checksum")
    assert found(told) == ["/x!/a"]


def more_than_declared() -> bytes:
    packed = deflated(b"good")
    return entries((b"a", 0, len(packed) + 9), kernel=local(b"a", packed + b"?" * 9, b"good"))


@pytest.mark.parametrize("cut", [1, 9, 30])
@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, lzma.compress, lzip], ids=["gzip", "bzip2", "xz", "lzip"]
)
def test_a_packed_file_that_ends_too_early_is_told(pack: Any, cut: int) -> None:
    assert_told(judged(pack(bytes(range(256)))[:-cut]), "/x!/", "it ends too early")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_a_packed_file_that_is_damaged_is_told(pack: Any) -> None:
    whole = pack(bytes(range(256)) * 40)
    assert_told(judged(whole[:-20] + bytes(10) + whole[-10:]), "/x!/", "it was not unpacked to its end")


def test_what_follows_a_packed_file_is_judged_where_tools_pass_over_it_and_told_where_they_do_not() -> None:
    for pack in (gzip.compress, bz2.compress, lzip):
        for zeros in (b"", bytes(200_000)):
            told = judged(pack(b"good") + pack(b"good") + zeros + b"\xff" + BAD)
            assert (found(told), told.reasons) == (["/x", "/x!/trailing"], [])
            packed = judged(zipped({"a.gz": pack(b"good") + zeros + zipped({"b": BAD})}))
            assert (found(packed), packed.reasons) == (["/x!/a.gz!/trailing!/b", "/x!/a.gz!/b"], [])
        assert_told(judged(pack(b"good") + pack(BAD)[:-9]), "/x!/", "it ends too early")
    assert_told(judged(lzma.compress(b"good") + b"trailer"), "/x!/", "it was not unpacked to its end")


def broken_tar(change: dict[int, bytes], files: dict[str, bytes] | None = None) -> bytes:
    """The checksum is made anew."""
    head = bytearray(tarred(files or {"a": b"x" * 600}))
    for at, data in change.items():
        head[at : at + len(data)] = data
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    return bytes(head)


@pytest.mark.parametrize(
    "data",
    [
        tarred({"a": b"x" * 600})[:1000],  # cut off
        tarred({"a": b""}) + b"something else".ljust(512),
        broken_tar({124: b"\x80" + b"\xff" * 11}),
        broken_tar({124: b"\xff" * 12}),
        broken_tar({124: b"77777777777"}),
        broken_tar({124: b"nonsense   "}),
        broken_tar({156: b"5"}),
        broken_tar({156: b"x"}),
        broken_tar({156: b"g", 512: b"13 size=9999\n"}),
        broken_tar({156: b"L", 124: b"77777777777"}),
        ar({"a": b"b"})[:-1] + b"x" * 70,
        b"!<arch>\n" + b"#1/99".ljust(48) + b"5".ljust(10) + b"`\nabcde",
        b"!<arch>\n" + b"a".ljust(48) + b"-5".ljust(10) + b"`\n",
        b"!<arch>\n" + b"a".ljust(48) + b"5".ljust(10) + b"`\nabc",
        zipped(GOOD)[:-1],
        zipped(GOOD)[:-30],
        zipped(GOOD)[20:],
        zipped(GOOD).replace(b"PK\1\2", b"PK\1\3"),
        zipped(GOOD).replace(b"PK\5\6\0\0\0\0\3\0\3", b"PK\5\6\0\0\0\0\2\0\2"),
        zipped(GOOD)[:-6] + b"\xff\xff\xff\x7f" + b"\0\0",
        more_than_declared(),
    ],
)
def test_what_is_broken_is_told(data: bytes) -> None:
    told = judged(data)
    assert told.reasons
    assert all(reason.startswith("/x") for reason in told.reasons)


@pytest.mark.parametrize("kind", ["zip", "tar", "ar", "gzip", "bzip2", "xz"])
def test_no_damage_of_one_byte_is_more_than_a_reason(kind: str) -> None:
    whole = {
        "zip": zipped({"a": BAD, "b": b"b" * 40}),
        "tar": tarred({"a": BAD}, tarfile.PAX_FORMAT)[:2048],
        "ar": ar({"a": BAD, "b": b"b"}),
        "gzip": gzip.compress(BAD),
        "bzip2": bz2.compress(BAD),
        "xz": lzma.compress(BAD),
    }[kind]
    for at in range(len(whole)):
        for value in (0, 1, 0x7F, 0xFF):
            told = judged(whole[:at] + bytes([value]) + whole[at + 1 :])
            assert not [reason for reason in told.reasons if "Error" in reason and "damaged (" not in reason]


# --- archives that lie -----------------------------------------------------------------------------------------------


def test_entries_that_overlap_are_refused() -> None:
    """As in a bomb: one kernel of data, and many entries that all hold it."""
    packed = deflated(bytes(MB))
    kernel = local(b"a", packed, bytes(MB))
    told = judged(entries(*[(b"%d" % number, 0, len(packed)) for number in range(1000)], kernel=kernel))
    assert_told(told, "/x", "its entries overlap")
    assert not told.summed or "(0 files)" in told.summed[-1]


def test_entries_that_quote_the_headers_of_others_are_refused() -> None:
    inner = local(b"b", deflated(b"good"), b"good")
    quoting = b"\0" + struct.pack("<HH", 31, 31 ^ 0xFFFF) + inner
    kernel = local(b"a", quoting, b"")
    both = (b"a", 0, len(quoting)), (b"b", 31 + 5, len(deflated(b"good")))
    assert_told(judged(entries(*both, kernel=kernel)), "/x", "its entries overlap")


@pytest.mark.parametrize("place", ["before", "between", "behind"])
def test_an_entry_that_the_directory_does_not_list_is_told(place: str) -> None:
    one, two, hidden = local(b"a", b"", b"", method=0), local(b"b", b"", b"", method=0), local(b"c", deflated(BAD), BAD)
    kernel = {"before": hidden + one + two, "between": one + hidden + two, "behind": one + two + hidden}[place]
    at = {"before": (len(hidden), len(hidden + one)), "between": (0, len(one + hidden)), "behind": (0, len(one))}[place]
    told = judged(entries((b"a", at[0], 0), (b"b", at[1], 0), kernel=kernel))
    assert_told(told, "/x", "entries that its directory does not list")


def test_an_archive_behind_another_is_told() -> None:
    assert judged(zipped({"a": BAD}) + zipped({"b": b"b"})).reasons


def test_an_archive_with_two_ends_is_told() -> None:
    end = zipped({})[-22:]
    data = zipped({"a": b"a"})
    two = data[:-2] + struct.pack("<H", len(end)) + end
    assert_told(judged(two), "/x", "several ends")


def test_headers_that_disagree_are_told() -> None:
    data = zipped({"a": b"a" * 100})
    at = 8
    assert_told(judged(data[:at] + b"\0\0" + data[at + 2 :]), "/x", "disagree")


# --- limits ----------------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    data = BAD
    for _layer in range(depth):
        data = gzip.compress(data)
    return data


def test_the_depth_is_a_limit() -> None:
    assert found(judged(nested(4), Archives(depth=4))) == ["/x" + "!/" * 4]
    told = judged(nested(5), Archives(depth=4))
    assert_told(told, "/x" + "!/" * 4, "deeper than archive_depth (4)")
    assert not found(told)


def test_an_archive_that_holds_itself_ends() -> None:
    assert gzip.decompress(QUINE) == QUINE
    assert_told(judged(QUINE), "/x" + "!/" * 8, "archive_depth (8)")


@pytest.mark.parametrize("pack", [zipped, tarred, ar])
def test_the_members_are_a_limit(pack: Any) -> None:
    data = pack({f"f{number}": b"" for number in range(1000)})
    assert not judged(data, Archives(members=1000)).reasons
    assert_told(judged(data, Archives(members=999)), "/x", "more than archive_members")


def test_members_count_over_all_layers() -> None:
    data = zipped({f"{number}.zip": zipped({"a": b"", "b": b""}) for number in range(10)})
    assert not judged(data, Archives(members=30)).reasons
    assert_told(judged(data, Archives(members=29)), "/x", "archive_members (29)")


def test_a_tar_of_100000_members_ends_at_its_limit() -> None:
    block = bytearray(tarred({"a": b""})[:512])
    assert_told(judged(bytes(block) * 100_000), "/x", "archive_members (50000)")


def test_directories_and_streams_without_end_are_limited_too() -> None:
    head = bytearray(tarred({"a": b""})[:512])
    head[148:156] = b" " * 8
    head[156:157] = b"5"
    head[148:156] = b"%06o\0 " % sum(head)
    assert_told(judged(bytes(head) * 999, Archives(members=100)), "/x", "archive_members")
    assert_told(judged(gzip.compress(b"") * 999, Archives(members=100)), "/x!/", "archive_members")


def test_the_size_is_a_limit_and_what_was_unpacked_until_then_is_judged() -> None:
    data = gzip.compress(BAD + bytes(MB))
    assert not judged(data, Archives(size=len(BAD) + MB)).reasons
    told = judged(data, Archives(size=MB))
    assert_told(told, "/x!/", "archive_size")
    assert found(told) == ["/x!/"]
    many = zipped({f"{number}": bytes(MB) for number in range(9)})
    assert_told(judged(many, Archives(size=4 * MB)), "/x", "archive_size")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_the_ratio_is_a_limit(pack: Any) -> None:
    data = pack(bytes(40 * MB))
    assert_told(judged(data), "/x!/", "archive_ratio (500)")
    assert not judged(data, Archives(ratio=1_000_000)).reasons


def test_a_bomb_takes_no_more_memory_than_it_may() -> None:
    bombs = [
        gzip.compress(gzip.compress(bytes(100 * MB))),
        lzma.compress(lzma.compress(bytes(100 * MB))),
        zipped({f"{number}": bytes(60 * MB) for number in range(2)}),
        gzip.compress(tarred({"a": bytes(60 * MB)})),
    ]
    tracemalloc.start()
    try:
        for data in bombs:
            tracemalloc.reset_peak()
            told = judged(data, Archives(ratio=1_000_000), whole=8 * MB)
            assert told.reasons
            assert tracemalloc.get_traced_memory()[1] < 2 * 8 * MB + 4 * MB + len(data)
    finally:
        tracemalloc.stop()


def test_a_lzma_stream_may_not_ask_for_gigabytes() -> None:
    head = b"\x5d" + struct.pack("<I", 0xFFFFFFFF) + b"\xff" * 8
    data = lzma.compress(BAD, lzma.FORMAT_ALONE)
    kernel = local(b"a", b"\x09\x04\5\0" + head[:5] + data[13:], BAD, flags=2, method=14)
    told = judged(entries((b"a", 0, len(kernel) - 31), kernel=kernel))
    assert_told(told, "/x!/a", "it was not unpacked to its end")


def test_a_lzip_may_not_ask_for_more_than_is_granted() -> None:
    for dictionary in (0x1D, 0x0B):
        assert_told(judged(lzip(BAD, dictionary)), "/x!/", "which is not granted")


def test_a_member_larger_than_the_memory_allows_is_told_and_the_others_are_judged() -> None:
    data = tarred({"large": bytes(3 * MB), "small": BAD})
    for held in (True, False):
        told = judged(data, Archives(size=2 * MB), whole=2 * MB, held=held)
        assert_told(told, "/x!/large", "a quarter of the memory limit")
        assert "/x!/small" in found(told)


def test_zeros_in_a_tar_are_passed_over_as_far_as_is_sane() -> None:
    told = judged(tarred({"a": b""}) + bytes(MB) + tarred({"b": BAD}))
    assert "/x!/b" in found(told)
    assert_told(judged(tarred({"a": b""}) + bytes(70 * MB)), "/x", "zeros")


def sparse(*parts: tuple[int, bytes], size: int) -> Tally:
    """Of a file with much room between these parts, how often it was read."""
    reads = 0

    def read(at: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        assert reads < 5000, "this would not end"
        data = bytearray(length)
        for start, part in parts:
            for place in range(max(at, start), min(at + length, start + len(part))):
                data[place - at] = part[place - start]
        return bytes(data)

    listener = Listener(Progress("", 0))
    judge = Judge([Nothing()], listener.take, MB, archives=DEFAULT)
    judge.file(Where("vda", 1), Content(size, read, MB), lambda: "/x")
    return listener.tally


class Nothing(Looking):
    def scan(self, content: Content) -> tuple[list[Hit], str]:
        return [], ""


def test_much_room_in_an_archive_ends() -> None:
    head = tarred({"a": b""})[:512]
    far = [(number * 40 * MB, head) for number in range(1000)]
    assert_told(sparse(*far, size=40_000 * MB), "/x", "zeros")
    data = zipped({"a": b"a"})
    assert_told(sparse((0, b"MZ"), (1 << 40, data), size=(1 << 40) + len(data)), "/x", "between its entries")
    lying = wide().replace(struct.pack("<3Q", 13, 15, 0), struct.pack("<3Q", 13, 15, 1 << 50))
    assert lying != wide()
    assert_told(judged(lying), "/x", "disagree")


def test_a_tar_with_holes_is_told() -> None:
    sparse = broken_tar({156: b"S"})
    assert_told(judged(sparse), "/x!/a", "it has holes")


# --- archives that tools read in different ways ----------------------------------------------------------------------


@pytest.mark.parametrize("behind", [b"", b"\n", b"PK\5\6"])
def test_an_end_within_the_comment_is_told(behind: bytes) -> None:
    assert_told(judged(zipped({"a": b"a"}, comment=zipped({"b": BAD}) + behind)), "/x", "several ends")


@pytest.mark.parametrize("before", [b"", b"MZ" + bytes(62), b"#!/bin/sh\n"])
@pytest.mark.parametrize("behind", [b"\n", bytes(512), b"a certificate" * 999])
def test_a_zip_with_something_behind_it_is_opened(before: bytes, behind: bytes) -> None:
    told = judged(before + zipped({"in/x": BAD}) + behind)
    assert (found(told), told.reasons) == (["/x!/in/x"], [])


def test_what_follows_a_zip_is_judged() -> None:
    assert found(judged(zipped({"a": b"a"}) + gzip.compress(BAD))) == ["/x!/trailing!/"]


def test_what_begins_as_another_format_is_opened_as_a_zip_too() -> None:
    for head in (tarred({"a": b"a"}), ar({"a": b"a"}), b"\xc7\x71", b"\x28\xb5\x2f\xfd", gzip.compress(b"a")):
        for behind in (b"", b"\n", bytes(1024)):
            assert "/x!/in/x" in found(judged(head + zipped({"in/x": BAD}) + behind))
            assert "/x!/y!/in/x" in found(judged(zipped({"y": head + zipped({"in/x": BAD}) + behind})))


def test_a_zip_that_ends_in_a_header_of_a_tar_is_opened() -> None:
    data = zipped({"in/x": BAD})
    body, end = data[:-22], data[-22:]
    first = tarred({"a": bytes(-len(body) % 512) + body})[: 1024 + len(body) // 512 * 512]
    second = broken_tar({0: end.ljust(100, b"\0")}, {"b": b""})
    assert "/x!/in/x" in found(judged(first + second))


def test_the_last_zip_in_a_tar_is_opened_once() -> None:
    told = judged(tarred({"a.zip": zipped({"y": b"y"}), "b.zip": zipped({"in/x": BAD})}))
    assert (found(told), told.reasons) == (["/x!/b.zip!/in/x"], [])


def wide_end(count: int, span: int, offset: int, record: int, at: int, masked: bool = True) -> bytes:
    """`record`: where the locator says that the record of 64 bits lies; `at`: its directory, if the end tells it."""
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, span, offset)
    short = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF) if masked else (count, count, span, at)
    return wide + struct.pack("<4sIQI", b"PK\6\7", 0, record, 1) + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *short, 0)


def test_a_locator_that_leads_elsewhere_is_told() -> None:
    kernel = local(b"a", BAD, BAD, method=0)
    directory = central(b"a", kernel, 0, len(BAD))
    place = len(kernel) + len(directory)
    good = kernel + directory + wide_end(1, len(directory), len(kernel), place, 0)
    assert (found(judged(good)), judged(good).reasons) == (["/x", "/x!/a"], [])
    for shift in (b"", b"MZ"):
        bad = kernel + directory + wide_end(1, len(directory), len(kernel), place - 7, 0)
        assert_told(judged(shift + bad), "/x", "disagree")


def test_ends_that_disagree_are_told() -> None:
    kernel = local(b"a", BAD, BAD, method=0)
    directory = central(b"a", kernel, 0, len(BAD))
    place = len(kernel) + len(directory)
    for at, wanted in ((len(kernel), 0), (len(kernel) - 1, 1)):
        told = judged(kernel + directory + wide_end(1, len(directory), len(kernel), place, at, masked=False))
        assert len(told.reasons) == wanted
        assert not wanted or "disagree" in told.reasons[0]


def local_of(extra: bytes, *, packed: int, size: int, content: bytes, flags: int = 0) -> bytes:
    numbers = (45, flags, 0, 0, 0, zlib.crc32(content), packed, size, 1, len(extra))
    return struct.pack("<4s5H3I2H", b"PK\3\4", *numbers) + b"a" + extra + content


@pytest.mark.parametrize("flags", [0, 8])
@pytest.mark.parametrize(("told", "agree"), [(0, False), (4, False), (9, True)])
def test_sizes_of_64_bits_before_an_entry_are_held_against_the_directory(flags: int, told: int, agree: bool) -> None:
    extra, wide = struct.pack("<2H2Q", 1, 16, told, told), 0xFFFFFFFF
    kernel = local_of(extra, packed=wide, size=wide, content=b"some data", flags=flags)
    numbers = (45, 45, flags, 0, 0, 0, zlib.crc32(b"some data"), 9, 9, 1, 0, 0, 0, 0, 0, 0)
    directory = struct.pack("<4s6H3I5H2I", b"PK\1\2", *numbers) + b"a"
    data = kernel + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(directory), len(kernel), 0)
    reasons = judged(data).reasons
    assert not reasons if agree or (flags and not told) else "disagree" in reasons[0]


def test_hidden_entries_of_any_method_are_told() -> None:
    hidden = local(b"c", BAD, BAD, method=95)
    kernel = hidden + local(b"a", b"", b"", method=0)
    assert_told(
        judged(entries((b"a", len(hidden), 0), kernel=kernel)), "/x", "entries that its directory does not list"
    )


def pax(key: str, value: str) -> bytes:
    record = f"00 {key}={value}\n"
    return f"{len(record):02d}{record[2:]}".encode()


def tar_head(name: str, size: int, kind: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.USTAR_FORMAT)


def before(kind: bytes, record: bytes) -> bytes:
    return tar_head("x", len(record), kind) + record.ljust(512, b"\0")


def with_hidden() -> tuple[bytes, int]:
    """A member's data in which another member lies, and its size."""
    hidden = tarred({"in/x": gzip.compress(BAD)})[:1024]
    return b"a".ljust(512) + hidden + bytes(1024), 512 + len(hidden)


def test_old_headers_of_pax_are_read_as_new_ones() -> None:
    data, size = with_hidden()
    told = judged(before(b"X", pax("size", "512")) + tar_head("a", size, b"0") + data)
    assert found(told) == ["/x!/in/x!/"]


@pytest.mark.parametrize("kinds", [b"xx", b"xX", b"Xx"])
def test_headers_of_pax_that_contradict_each_other_are_told(kinds: bytes) -> None:
    data, size = with_hidden()
    for one, two in ((pax("size", "512"), pax("mtime", "1")), (pax("mtime", "1"), pax("size", "512"))):
        both = before(kinds[:1], one) + before(kinds[1:], two)
        assert_told(judged(both + tar_head("a", size, b"0") + data), "/x", "different ways")


@pytest.mark.parametrize("kind", [b"\0", b"0"])
def test_a_directory_that_is_a_file_is_told(kind: bytes) -> None:
    data = tar_head("d/", 1024, kind) + tarred({"in/x": gzip.compress(BAD)})
    assert_told(judged(data), "/x", "different ways")
    assert not judged(tar_head("d/", 0, kind) + tarred({"a": b"a"})).reasons


def test_old_tars_are_opened_however_their_checksum_is_spelled() -> None:
    head = bytearray(tarred({"in/x": gzip.compress(BAD)}))
    head[257:512] = bytes(255)
    head[148:156] = b" " * 8
    head[148:156] = b"%08o" % sum(head[:512])
    for data in (bytes(head), bytes(512) + bytes(head)):
        assert found(judged(data)) == ["/x!/in/x!/"]


# --- what clamd opens ------------------------------------------------------------------------------------------------


OTHERS = [b"xar!", b"Rar!\x1a\7", b"07070X", b"\x25\xb5\x2f\xfd"]


@pytest.mark.parametrize("magic", OTHERS)
def test_what_clamd_may_not_open_is_counted_beside_it_too(magic: bytes) -> None:
    for engines in ((Looking(), Looking(unpacks=True)), (Looking(unpacks=True),)):
        for data in (magic + bytes(20), gzip.compress(tarred({"a": magic + bytes(20)}))):
            assert judged(data, engines=engines).unopened == 1
        assert judged(SEVEN, engines=engines).unopened == 0


INNER = gzip.compress(b"a", mtime=0)
UNSEEN = {
    "lzma": lzma.compress(INNER, lzma.FORMAT_ALONE),
    "lzip": lzip(INNER),
    "ar": ar({"a": INNER}),
    "payload of an rpm": rpm(INNER),
    "zip by LZMA": zipped({"a": INNER}, zipfile.ZIP_LZMA),
    "second stream of bzip2": bz2.compress(b"") + bz2.compress(INNER),
    "zip behind gzip": gzip.compress(b"") + zipped({"a": INNER}),
    "zip behind text": b"<html>" + zipped({"a": INNER}),
    "behind zip": zipped({"a": b"a"}) + INNER,
    "behind zeros": gzip.compress(b"") + bytes(512) + INNER,
    "behind bzip2": bz2.compress(b"") + INNER,
    "behind cpio": cpio({}) + INNER,
    "second cpio": cpio({}) + cpio({"a": INNER}),
    "cpio behind zeros": bytes(512) + cpio({"a": INNER}),
    "second tar": tarred({"a": b"a"}) + tarred({"a": INNER}),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_clamd_is_given_what_it_would_not_see_by_itself(name: str) -> None:
    """What it does not open, and what lies behind the end of what it does: those, not what lies in them."""
    for data in (UNSEEN[name], gzip.compress(UNSEEN[name])):
        clamd = Looking(unpacks=True)
        judged(data, engines=(clamd,))
        assert clamd.seen.count(INNER) == 1
        assert b"a" not in clamd.seen


@pytest.mark.parametrize("pack", [cpio, tarred])
def test_of_a_large_archive_that_clamd_would_not_see_it_is_given_the_members(pack: Callable[..., bytes]) -> None:
    """A whole initrd would be past its limit."""
    large = bytes(17 * MB)
    clamd = Looking(unpacks=True)
    packed = gzip.compress(INNER, mtime=0)
    judged(ar({"initrd": pack({"large": large, "in": packed})}), engines=(clamd,))
    assert clamd.seen[1:] == [large[:64], packed]  # not what lies in those


def test_what_only_clamd_judges_is_told_where_it_can_not_be_opened() -> None:
    assert_told(judged(encrypted(), engines=(Looking(unpacks=True),)), "/x!/a", "it is encrypted")


# --- what is held ----------------------------------------------------------------------------------------------------


def test_long_names_are_cut_in_their_middle() -> None:
    paths = list[bytes]()
    data = zipped({"a.tar": tarred({f"{number}/{'n' * 500_000}/Evil.exe": BAD for number in range(3)})})
    inside = Inside(DEFAULT, lambda path, _member, _is_seen: paths.append(path), lambda path, why: None)
    inside.run(Content(len(data), lambda at, length: data[at : at + length], MB), ("zip",), 64 * MB)
    assert [(path[:10], path[-9:], len(path) < 5000) for path in paths[1:]] == [
        (b"!/a.tar!/%d" % number, b"/Evil.exe", True) for number in range(3)
    ]


def test_no_more_of_a_file_is_held_than_is_sane() -> None:
    told = judged(zipped({f"{number}": BAD for number in range(3000)}))
    assert len(told.findings) == 1000
    assert_told(told, "/x", "2000 more")


def test_names_end_at_backslashes_too() -> None:
    told = judged(zipped({"dir\\Evil.exe": b"a"}), indicators=Indicators(names=frozenset(["evil.exe"])))
    assert found(told) == ["/x!/dir\\Evil.exe"]


def test_the_ratio_holds_for_the_whole_of_a_file() -> None:
    small = zipped({f"{number}": bytes(4 * MB) for number in range(62)})
    told = judged(gzip.compress(gzip.compress(small)))
    assert_told(told, "/x", "archive_ratio (500)")
    assert not judged(zipped({"a": bytes(40 * MB), "b": random.Random(1).randbytes(MB // 4)})).reasons
