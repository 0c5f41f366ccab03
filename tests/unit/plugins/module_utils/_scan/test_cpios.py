# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The initrd of a guest: archives of cpio, one behind the other, and something packed at the end; and rpm."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.inside import Archives
from ansible_collections.vmward.remediation.tests.corpus.archives import (
    DIRECTORY,
    LINK,
    REGULAR,
    TRAILER,
    cpio,
    cpio_member,
    rpm,
    tarred,
    zipped,
)
from ansible_collections.vmward.remediation.tests.corpus.judging import BAD, MB, assert_told, found, judged

KINDS = ("newc", "crc", "odc", "little", "big")
TREE = {"d": b"", "d/a": b"a", "empty": b"", "l": b"../target", "in/x": BAD, "o": b"odd" * 3}
MODES = {"d": DIRECTORY, "l": LINK}
ENDS_EARLY = "it was not unpacked to its end: it ends too early"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held", [True, False], ids=["whole", "in windows"])
@pytest.mark.parametrize("behind", [b"", bytes(1000)])
def test_what_lies_in_a_cpio_is_judged(kind: str, held: bool, behind: bytes) -> None:
    told = judged(cpio(TREE, kind, modes=MODES) + behind, held=held)
    assert "/x!/in/x" in found(told)
    assert not [reason for reason in told.reasons if "in parts only" not in reason]
    assert "(4 files)" in told.summed[-1]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("zeros", [0, 3, 512, 3 * MB])
def test_each_part_of_an_initrd_is_seen(pack: Callable[[bytes], bytes], zeros: int) -> None:
    early, late = cpio({"kernel/microcode": BAD}), cpio({"etc/early": BAD})
    image = early + bytes(zeros) + late + bytes(zeros) + pack(cpio({"bin/x": BAD}) + bytes(512))
    told = judged(image)
    assert {"/x!/kernel/microcode", "/x!/etc/early", "/x!/trailing!/bin/x"} <= set(found(told))
    assert told.reasons == []


@pytest.mark.parametrize("held", [True, False], ids=["whole", "in windows"])
def test_zeros_before_an_initrd_are_passed_over(held: bool) -> None:
    for zeros in (4, 1024, 2 * MB):
        told = judged(bytes(zeros) + cpio({"in/x": BAD}), held=held)
        assert found(told)[-1] == "/x!/in/x"
        told = judged(bytes(zeros) + gzip.compress(cpio({"in/x": BAD})), held=held)
        assert found(told)[-1] == "/x!/trailing!/in/x"
    assert judged(bytes(1000) + b"\x28\xb5", held=held).unopened == 0


def test_what_follows_a_packed_part_is_seen_too() -> None:
    image = cpio({"a": b"a"}) + gzip.compress(cpio({"b": b"b"})) + bytes(8) + cpio({"in/x": BAD})
    assert "/x!/trailing!/trailing!/in/x" in found(judged(image))


def test_many_archives_behind_each_other_are_one_layer() -> None:
    image = b"".join(cpio({f"{number}": b"n"}) + bytes(4) for number in range(2000)) + cpio({"in/x": BAD})
    told = judged(image, Archives(depth=1))
    assert (found(told), told.reasons) == (["/x", "/x!/in/x"], [])
    assert_told(judged(image, Archives(members=300)), "/x", "archive_members")


def test_archives_of_different_formats_may_follow_each_other_but_not_within_one() -> None:
    image = b"".join(cpio({kind: BAD}, kind) + bytes(4) for kind in KINDS)
    told = judged(image)
    assert (found(told)[1:], told.reasons) == ([f"/x!/{kind}" for kind in KINDS], [])
    mixed = cpio_member("a", b"a", "newc") + cpio({"in/x": BAD}, "odc")
    assert_told(judged(mixed), "/x", "it is damaged")


def test_data_of_hard_links_are_judged_where_they_lie() -> None:
    told = judged(cpio({"one": b"", "two": BAD}))
    assert (found(told), told.reasons) == (["/x", "/x!/two"], [])
    assert "(2 files)" in told.summed[-1]


def test_names_lead_nowhere_and_start_at_no_root() -> None:
    assert found(judged(cpio({"/etc/../../x\x1b": BAD})))[1:] == ["/x!/etc/../../x\\x1b"]
    assert found(judged(cpio({"a\0hidden": BAD})))[1:] == ["/x!/a"]


# --- archives that lie -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [4, 13, 30, 200])
def test_one_that_is_cut_off_is_told(kind: str, cut: int) -> None:
    data = cpio({"a": b"a" * 100, "in/x": BAD * 10}, kind)
    assert judged(data[: len(data) - cut]).reasons


def test_one_without_its_end_is_told_and_what_it_holds_is_judged() -> None:
    told = judged(cpio_member("in/x", BAD))
    assert found(told) == ["/x", "/x!/in/x"]
    assert told.reasons == [f"/x on volume 1 of disk vda: {ENDS_EARLY}."]


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_that_is_absurd_is_told(kind: str) -> None:
    size = 0xFFFFFFFF if kind != "odc" else 0o77777777777
    told = judged(cpio_member("a", b"?" + BAD, kind, size=size) + cpio({"b": b"b"}, kind))
    assert_told(told, "/x!/a", "its archive ends before")
    assert_told(told, "/x", ENDS_EARLY)
    assert "/x!/a" in found(told)


def test_a_name_without_an_end_is_told() -> None:
    first = cpio_member("a", b"a")
    for second in (cpio_member("b", BAD, named=1), cpio_member("b", BAD, named=0), cpio_member("b" * 5000, BAD)):
        assert_told(judged(first + second), "/x", "it is damaged")


@pytest.mark.parametrize(
    "member",
    [
        cpio_member("d", BAD, mode=DIRECTORY),
        cpio_member("p", BAD, mode=0o010644),
        cpio_member("c", BAD, mode=0o020644),
        cpio_member("b", BAD, mode=0o060644),
        cpio_member("s", BAD, mode=0o140644),
        cpio_member("l", BAD * 400, mode=LINK),
        cpio_member(TRAILER, BAD),
    ],
)
def test_data_where_tools_see_none_are_told(member: bytes) -> None:
    assert_told(judged(cpio_member("a", b"a") + member + cpio({})), "/x", "different ways")


def test_data_of_an_unknown_type_are_judged() -> None:
    data = cpio_member("a", b"a") + cpio_member("u", BAD, mode=0o110644) + cpio({})
    assert "/x!/u" in found(judged(data))


@pytest.mark.parametrize("before", [b"", cpio({"a": b"a"})])
def test_a_first_member_of_no_type_hides_none(before: bytes) -> None:
    """GNU cpio and Linux pass over it."""
    data = before + cpio_member("u", b"", mode=0o000644) + cpio({"in/x.gz": gzip.compress(BAD)})
    assert found(judged(data)) == ["/x!/in/x.gz!/"]


def test_what_lies_between_members_is_told() -> None:
    """GNU cpio looks for the next header in it, Linux ends there."""
    assert_told(judged(cpio_member("a", b"a") + b"junk" + cpio({"in/x": BAD})), "/x", "it is damaged")


def test_numbers_that_tools_read_in_different_ways_are_told() -> None:
    for field in (b"  000000", b"0x000000", b"-0000001", b"+0000001"):
        second = bytearray(cpio({"in/x": BAD}))
        second[54:62] = field
        assert_told(judged(cpio_member("a", b"a") + bytes(second)), "/x", "it is damaged")


def test_what_only_begins_as_a_cpio_is_counted() -> None:
    told = judged(b"\xc7\x71" + bytes(100))
    assert (told.unopened, told.reasons) == (1, [])


def test_directories_without_end_are_limited() -> None:
    data = cpio_member("d", b"", mode=DIRECTORY) * 999 + cpio({})
    assert_told(judged(data, Archives(members=100)), "/x", "archive_members")


@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_any_byte_ends(kind: str) -> None:
    whole = cpio({"in/x": BAD, "b": b"b"}, kind) + gzip.compress(b"a")
    for at in range(len(whole)):
        for value in (0, 0x30, 0x7F, 0xFF):
            told = judged(whole[:at] + bytes([value]) + whole[at + 1 :])
            assert not [reason for reason in told.reasons if "Error" in reason and "damaged (" not in reason]


def test_much_room_behind_a_trailer_is_told() -> None:
    assert_told(judged(cpio({"a": b"a"}) + bytes(65 * MB) + cpio({"in/x": BAD}), whole=256 * MB), "/x", "zeros")


# --- rpm -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("held", [True, False], ids=["whole", "in windows"])
def test_what_lies_in_an_rpm_is_judged(pack: Callable[[bytes], bytes], held: bool) -> None:
    told = judged(rpm(pack(cpio({"./usr/x": BAD}))), held=held)
    assert "/x!/payload!/./usr/x" in found(told)
    assert not [reason for reason in told.reasons if "in parts only" not in reason]


def test_an_rpm_that_is_cut_off_or_damaged_is_told() -> None:
    head = rpm(b"")
    for length in range(96, len(head) + 1):
        assert_told(judged(head[:length]), "/x", "it was not unpacked to its end")
    second = head.index(head[96:100], 100)
    for at in (96, 104, 108, second, second + 8, second + 12):
        assert_told(judged(head[:at] + b"\xff\xff\xff\xff" + head[at + 4 :] + b"a"), "/x", "it was not unpacked")


# rpm knows it by a tag of its headers, which is not read here
ODD = lzma.compress(cpio({"in/x": BAD}), lzma.FORMAT_ALONE, preset=0)
ODD = ODD[:1] + ((1 << 20) + (1 << 16)).to_bytes(4, "little") + ODD[5:]


@pytest.mark.parametrize(
    "payload", [b"\x1f\x9d\x90" + bytes(99), b"07070X00000000", b"what is this?", ODD], ids=range(4)
)
def test_a_payload_that_is_not_unpacked_is_told(payload: bytes) -> None:
    assert_told(judged(rpm(payload)), "/x!/payload", "in a way that is not unpacked here")


def test_cpios_lie_in_other_archives() -> None:
    data = zipped({"boot.tar": tarred({"initrd": cpio({"in/x": BAD})})})
    assert "/x!/boot.tar!/initrd!/in/x" in found(judged(data))


def test_a_regular_file_is_one_whatever_its_permissions() -> None:
    assert found(judged(cpio({"x": BAD}, modes={"x": REGULAR | 0o7777})))[1:] == ["/x!/x"]
