# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""zstd and lz4 are unpacked where their libraries are; where they are not, that is told, and nothing is remembered."""

from __future__ import annotations

import gzip
import random
import sys
import tracemalloc
from collections.abc import Callable
from importlib import reload
from types import ModuleType

import lz4.block
import lz4.frame
import pytest
import zstandard
from backports import zstd

from ansible_collections.vmward.remediation.plugins.module_utils._scan import frames, inside, judge, known, streams
from ansible_collections.vmward.remediation.plugins.module_utils._scan.inside import Archives
from ansible_collections.vmward.remediation.tests.corpus.archives import ar, cpio, tarred, zipped
from ansible_collections.vmward.remediation.tests.corpus.judging import BAD, MB, assert_told, found, judged

NOISE = random.Random(5).randbytes(300_000)
SKIPPED = b"\x5a\x2a\x4d\x18" + (70_000).to_bytes(4, "little") + bytes(70_000)
LEGACY = b"\x02\x21\x4c\x18"


def legacy(*blocks: bytes) -> bytes:
    packed = [lz4.block.compress(block, store_size=False) for block in blocks]
    return LEGACY + b"".join(len(one).to_bytes(4, "little") + one for one in packed)


PACKS = [zstd.compress, lz4.frame.compress, legacy]
packs = pytest.mark.parametrize("pack", PACKS, ids=["zstd", "lz4", "legacy lz4"])
framed = pytest.mark.parametrize("pack", PACKS[:2], ids=["zstd", "lz4"])


@pytest.fixture(params=["own", "zstandard"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever library of zstd a host has."""
    if request.param == "zstandard":
        with monkeypatch.context() as patch:
            for name in ("compression.zstd", "backports.zstd"):
                patch.setitem(sys.modules, name, None)
            maker, error = frames._zstd() or (None, None)
        monkeypatch.setitem(streams._MAKERS, "zstd", maker)
        monkeypatch.setattr(inside, "FAILED", (*streams.FAILED, error))


@packs
@pytest.mark.parametrize("held", [True, False], ids=["whole", "in windows"])
def test_what_is_packed_is_judged(pack: Callable[[bytes], bytes], held: bool) -> None:
    told = judged(pack(NOISE + BAD), held=held)
    assert "/x!/" in found(told)
    assert not [reason for reason in told.reasons if "in parts only" not in reason]


@packs
def test_an_initrd_and_a_package_are_opened(pack: Callable[[bytes], bytes]) -> None:
    early = cpio({"kernel/microcode": b"m"})
    told = judged(early + bytes(512) + pack(cpio({"bin/x": BAD, "noise": NOISE})))
    assert ("/x!/trailing!/bin/x" in found(told), told.reasons) == (True, [])
    assert "/x!/data.tar.zst!/./usr/x" in found(judged(ar({"data.tar.zst": pack(tarred({"./usr/x": BAD}))})))


@framed
def test_several_frames_and_those_that_are_skipped_are_one(pack: Callable[[bytes], bytes]) -> None:
    told = judged(SKIPPED + pack(NOISE) + SKIPPED + pack(b"") + pack(BAD) + SKIPPED)
    assert (found(told)[-1], told.reasons) == ("/x!/", [])
    assert_told(judged(pack(BAD) * 101, Archives(members=100)), "/x!/", "more streams than archive_members")


def test_legacy_blocks_go_on_behind_a_further_mark() -> None:
    told = judged(legacy(NOISE, NOISE) + legacy(BAD) + bytes(100))
    assert ("/x!/" in found(told), told.reasons) == (True, [])


@packs
def test_what_follows_is_judged(pack: Callable[[bytes], bytes]) -> None:
    for zeros in (b"", bytes(200_000)):
        told = judged(pack(b"good" * 9) + zeros + cpio({"in/x": BAD}))
        assert ("/x!/trailing!/in/x" in found(told), told.reasons) == (True, [])


def test_behind_legacy_blocks_what_could_be_one_of_them_is_told() -> None:
    """Nothing tells how many there are."""
    assert_told(judged(legacy(b"good" * 9) + gzip.compress(BAD)), "/x!/", "it was not unpacked to its end")


@packs
@pytest.mark.parametrize("cut", [1, 9, 3000])
def test_what_ends_too_early_is_told(pack: Callable[[bytes], bytes], cut: int) -> None:
    assert_told(judged(pack(NOISE)[:-cut]), "/x!/", "it was not unpacked to its end: it ends too early")


@framed
def test_a_skipped_frame_that_ends_too_early_is_told(pack: Callable[[bytes], bytes]) -> None:
    assert_told(judged(pack(b"good") + SKIPPED[:-1]), "/x!/", "it ends too early")


@packs
def test_no_damage_of_one_byte_is_more_than_a_reason(pack: Callable[[bytes], bytes]) -> None:
    whole = pack(b"some text, " * 40 + BAD)
    for at in range(len(whole)):
        for value in (0, 1, 0x7F, 0xFF):
            told = judged(whole[:at] + bytes([value]) + whole[at + 1 :])
            assert not [reason for reason in told.reasons if "Error" in reason and "damaged (" not in reason]


def test_damage_is_told() -> None:
    checked = zstd.compress(NOISE, options={zstd.CompressionParameter.checksum_flag: 1})
    for whole in (checked, lz4.frame.compress(NOISE, content_checksum=True)):
        assert_told(judged(whole[:1000] + b"damage" + whole[1006:]), "/x!/", "it is damaged (")


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_frame_may_not_ask_for_gigabytes() -> None:
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 31})
    large = packer.compress(BAD) + packer.flush()
    told = judged(large)
    assert_told(told, "/x!/", "it needs 2048 MiB of memory at once, more than the 128 that are granted")
    behind = judged(zstd.compress(BAD) + large)
    assert ("/x!/" in found(behind), len(behind.reasons)) == (True, 1)
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    assert judged(packer.compress(NOISE) + packer.flush()).reasons == []


def test_what_needs_a_dictionary_is_told() -> None:
    named = zstd.ZstdDict(zstd.train_dict([NOISE[at : at + 500] for at in range(0, 90_000, 500)], 4096).dict_content)
    assert_told(judged(zstd.compress(NOISE, zstd_dict=named)), "/x!/", "it needs a dictionary")
    framed = bytearray(lz4.frame.compress(NOISE))
    framed[4] |= 1
    assert_told(judged(bytes(framed)), "/x!/", "it needs a dictionary")


@packs
def test_the_size_is_a_limit_and_what_was_unpacked_until_then_is_judged(pack: Callable[[bytes], bytes]) -> None:
    data = pack(BAD + bytes(7 * MB))
    told = judged(data, Archives(size=4 * MB))
    assert_told(told, "/x!/", "archive_size")
    assert "/x!/" in found(told)


@framed
def test_a_bomb_takes_no_more_memory_than_it_may(pack: Callable[[bytes], bytes]) -> None:
    bomb = zipped({"a": pack(pack(bytes(200 * MB)))})
    tracemalloc.start()
    try:
        told = judged(bomb, Archives(ratio=1_000_000), whole=8 * MB)
        assert_told(told, "/x!/a!/!/", "a quarter of the memory limit")
        assert tracemalloc.get_traced_memory()[1] < 6 * 8 * MB
    finally:
        tracemalloc.stop()


# --- where a library is missing --------------------------------------------------------------------------------------


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A host that has neither."""
    missing = dict.fromkeys(("zstd", "lz4", "legacy lz4"), "some")
    for module in (judge, inside, known):
        monkeypatch.setattr(module, "UNPACKED", module.UNPACKED.difference(missing))
    monkeypatch.setattr(judge, "MISSING", missing)
    return known


@pytest.mark.usefixtures("without")
@packs
def test_what_can_not_be_opened_is_counted_and_what_to_install_is_told_once(pack: Callable[[bytes], bytes]) -> None:
    data = pack(BAD)
    for image in (data, zipped({"a": data, "b": data}), ar({"data.tar.zst": data})):
        told = judged(image)
        assert told.unopened >= 1
        assert told.reasons == []
        (note,) = [note for note in told.notes if "Install" in note]
        assert "was not opened. Install the Python library some on the host that scans." in note


def test_what_was_found_clean_unopened_is_not_known_where_it_can_be_opened(
    without: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = known.binding([], [])
    monkeypatch.setattr(without, "UNPACKED", without.UNPACKED | {"zstd"})
    assert known.binding([], []) != before


def test_a_host_without_any_library_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for name in ("compression.zstd", "backports.zstd", "zstandard", "lz4.frame", "lz4.block"):
            patch.setitem(sys.modules, name, None)
        try:
            bare = reload(frames)
            told = dict(bare.MISSING), set(bare.MAKERS)
        finally:
            patch.undo()
            reload(frames)
    assert told == ({"zstd": "backports.zstd or zstandard", "lz4": "lz4", "legacy lz4": "lz4"}, set())
    assert frames.MISSING == {}
    assert zstandard.ZstdError
